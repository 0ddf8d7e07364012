"""Streams: which are idle, closed, skipped or reset, within bounds."""

from edged.wire.h2.streams import REMEMBERED_MAX, SKIPPED_MAX, Stream, StreamTable


def test_idle_closed_and_skipped() -> None:
    table = StreamTable()
    table.advance(3)
    assert table.was_skipped(1)
    table = StreamTable()
    assert table.is_idle(1)
    table.advance(1)
    table.advance(3)
    table.advance(9)
    assert [odd for odd in range(1, 12, 2) if table.was_skipped(odd)] == [5, 7]
    assert not table.is_idle(5)
    assert table.is_idle(11)
    assert table.is_idle(2), "we open none"


def test_closing_lets_go() -> None:
    table = StreamTable()
    stream = Stream(1, 0.0, receiving=True)
    stream.body_bytes = 10
    table.live[1] = table.receiving[1] = stream
    table.bodies_bytes = 15
    table.close(stream)
    table.close(stream)
    assert (table.live, table.receiving, table.bodies_bytes) == ({}, {}, 5)
    table.live[3] = Stream(3, 0.0)
    table.clear()
    assert (table.live, table.bodies_bytes) == ({}, 0)


def test_memory_is_bounded() -> None:
    table = StreamTable()
    for stream_id in range(1, 4 * REMEMBERED_MAX, 4):
        table.advance(stream_id + 4)
        table.remember_reset(stream_id)
    assert table.was_reset(1)
    table.remember_reset(9999)
    assert not table.was_reset(1), "the oldest is forgotten"
    assert table.was_reset(9999)
    assert not table.was_skipped(3)
    assert table.was_skipped(4 * REMEMBERED_MAX - 1)
    assert SKIPPED_MAX < REMEMBERED_MAX
