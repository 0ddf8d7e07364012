"""What goes out: control frames first, by priority, inside the windows, whole and not copied."""

import pytest

from edged.wire.h2 import frames
from edged.wire.h2.frames import (
    CONTINUATION,
    DATA,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    ErrorCode,
    make_frame,
    make_ping,
    make_reset,
    make_settings,
    make_window_update,
)
from edged.wire.h2.sending import DATA_BYTES_MAX, JOIN_BYTES_MAX, READY_MAX
from tests.wire.h2.peer import GET, OK, POST, Peer, Sent, data, headers, take_apart

WIDE = [(frames.INITIAL_WINDOW_SIZE, 1 << 24)]


def wide(**more: object) -> Peer:
    peer = Peer(settings=WIDE)
    peer.tell(make_window_update(0, 1 << 24))
    return peer


def ask(peer: Peer, *priorities: str | None) -> None:
    """Requests 1, 3, 5, ... with these priorities."""
    for at, value in enumerate(priorities):
        fields = [*GET, ("priority", value)] if value is not None else GET
        peer.tell(headers(2 * at + 1, fields))


def answer(peer: Peer, size: int, *stream_ids: int) -> None:
    for stream_id in stream_ids:
        assert peer.session.respond(stream_id, OK, [bytes(size)], now=peer.now)


def order(heard: list[Sent]) -> list[int]:
    return [frame.stream_id for frame in heard if frame.kind == DATA]


def test_a_small_answer_is_one_object() -> None:
    peer = wide()
    ask(peer, None, None)
    body = [b"a" * (JOIN_BYTES_MAX - 1), b"b"]
    peer.session.respond(1, OK, body, now=0.0)
    (chunk,) = peer.session.take(1)
    assert isinstance(chunk, bytes)
    assert [frame.payload for frame in take_apart(chunk)] == [OK, b"".join(body)]
    assert not peer.session.wants_output
    assert not peer.session.respond(1, OK, body, now=0.0), "once"
    peer.session.respond(3, OK, body, head_only=True, now=0.0)
    (head,) = peer.hear()
    assert (head.kind, head.flags) == (HEADERS, 5)


def test_a_large_one_is_not_copied() -> None:
    peer = wide()
    ask(peer, None)
    body = [bytes(20_000), b"", bytes(40_000), bytes(16_384)]
    peer.session.respond(1, OK, body, now=0.0)
    chunks = []
    while peer.session.wants_output:
        chunks += peer.session.take(20_000)
    assert sum(len(chunk) for chunk in chunks if isinstance(chunk, bytes)) < 300 + 16_384
    shared = {id(chunk.obj) for chunk in chunks if isinstance(chunk, memoryview)}
    assert shared <= {id(piece) for piece in body}
    heard = take_apart(b"".join(chunks))
    assert b"".join(frame.payload for frame in heard[1:]) == b"".join(body)
    assert [frame.flags for frame in heard] == [4, *[0] * (len(heard) - 2), END_STREAM]


def test_take_is_bounded() -> None:
    peer = wide()
    ask(peer, *[None] * 20)
    answer(peer, 2_000_000, 1, 3)
    answer(peer, 10_000, *range(5, 40, 2))
    while peer.session.wants_output:
        assert 0 < sum(map(len, peer.session.take(30_000))) <= 30_000 + 16_384 + 9 + 100
    assert peer.session.statistics().body_bytes_sent == 4_180_000


def test_answers_that_wait_for_the_shell_hold_their_streams() -> None:
    peer = wide()
    ask(peer, *[None] * (READY_MAX + 5))
    answer(peer, 100, *range(1, 2 * READY_MAX + 10, 2))
    assert peer.session.statistics().unanswered == 5
    assert order(peer.hear()) == [*range(1, 2 * READY_MAX + 10, 2)]
    assert peer.session.statistics().unanswered == 0


def test_urgency_goes_first() -> None:
    peer = wide()
    ask(peer, None, "u=5", "u=0", "u=3, i", None)
    answer(peer, 40_000, 1, 3, 5, 7, 9)
    assert order(peer.hear()) == [5] * 3 + [1] * 3 + [9] * 3 + [7] * 3 + [3] * 3


def test_incremental_ones_take_turns() -> None:
    peer = wide()
    ask(peer, "i", "i", "i")
    answer(peer, 40_000, 1, 3, 5)
    assert order(peer.hear(1)) == [1, 3, 5] * 3


def test_a_later_urgent_one_overtakes() -> None:
    peer = wide()
    ask(peer, "u=4", "u=1")
    answer(peer, 100_000, 1)
    first = take_apart(b"".join(peer.session.take(20_000)))
    answer(peer, 1000, 3)
    assert order([*first, *peer.hear(1)]) == [1, 1, 3, 1, 1, 1, 1, 1]


def test_priority_updates() -> None:
    peer = wide()
    update = make_frame(0x10, 0, 0, b"\0\0\0\5u=0")
    peer.tell(update)  # Before the stream is open.
    ask(peer, None, None, "u=7")
    answer(peer, 40_000, 1, 3, 5)
    peer.tell(make_frame(0x10, 0, 0, b"\0\0\0\3u=1"))
    assert order(peer.hear()) == [5] * 3 + [3] * 3 + [1] * 3


def test_priority_updates_of_streams_to_come_are_bounded() -> None:
    peer = Peer()
    for at in range(128):
        peer.tell(make_frame(0x10, 0, 0, (2 * at + 1).to_bytes(4, "big") + b"u=1"))
    assert peer.ended == ""
    peer.tell(make_frame(0x10, 0, 0, (257).to_bytes(4, "big") + b"u=1"))
    assert "PRIORITY_UPDATE of more than 128 streams" in peer.ended
    peer = Peer(body=b"x")
    for at in range(300):  # Each before its stream.
        stream_id = (2 * at + 1).to_bytes(4, "big")
        peer.tell(make_frame(0x10, 0, 0, stream_id + b"u=1"), headers(2 * at + 1))
        peer.hear()
        peer.tell(make_frame(0x10, 0, 0, stream_id + b"u=2"))  # And of a closed one.
    assert peer.ended == ""
    peer.tell(
        *(make_frame(0x10, 0, 0, at.to_bytes(4, "big") + b"u=1") for at in range(701, 800, 2))
    )
    peer.tell(headers(901))
    assert not peer.session._receiver.intake.early, "skipped streams will never come"


def test_pings_and_control_frames_go_ahead() -> None:
    peer = wide()
    ask(peer, None)
    answer(peer, 100_000, 1)
    peer.session.take(1)
    peer.tell(make_settings([]), make_ping(b"12345678", ack=False))
    kinds = [frame.kind for frame in take_apart(b"".join(peer.session.take(1)))]
    assert kinds[:2] == [PING, SETTINGS]


def test_our_settings_are_the_first_frame() -> None:
    peer = Peer(greet=False)
    peer.tell(frames.PREFACE + make_settings([]) + make_ping(b"12345678", ack=False))
    settings, pong, ack = peer.hear()
    assert [settings.kind, pong.kind, ack.kind] == [SETTINGS, PING, SETTINGS]
    keys = [int.from_bytes(settings.payload[at : at + 2], "big") for at in range(0, 24, 6)]
    assert keys == [3, 4, 6, 9]
    assert int.from_bytes(settings.payload[8:12], "big") == 65_537


def test_settings_are_acknowledged_behind_what_was_made_before() -> None:
    peer = Peer(settings=WIDE)
    ask(peer, None)
    answer(peer, 100, 1)
    peer.tell(make_settings([(frames.INITIAL_WINDOW_SIZE, 0)]))
    assert [frame.kind for frame in peer.hear()] == [HEADERS, DATA, SETTINGS]


@pytest.mark.parametrize("size", [0, 1, 100, 16_384, 16_385, 40_000])
def test_windows_hold_bodies_back_but_not_heads(size: int) -> None:
    peer = Peer(settings=[(frames.INITIAL_WINDOW_SIZE, 0)])
    ask(peer, None)
    answer(peer, size, 1)
    heard = peer.hear()
    assert [frame.kind for frame in heard] == [HEADERS]
    assert not peer.session.wants_output
    while size and not heard[-1].flags & END_STREAM:
        peer.tell(make_window_update(1, 7000))
        heard += peer.hear()
    assert sum(len(frame.payload) for frame in heard[1:]) == size


def test_the_connections_window_is_shared() -> None:
    peer = Peer(settings=WIDE)
    ask(peer, None, None, None)
    answer(peer, 60_000, 1, 3)
    heard = peer.hear()
    assert sum(len(frame.payload) for frame in heard if frame.kind == DATA) == 65_535
    answer(peer, 10, 5)
    assert [(frame.kind, frame.stream_id) for frame in peer.hear()] == [(HEADERS, 5)]
    peer.tell(make_window_update(0, 100_000))
    assert order(peer.hear())[-1] == 5
    assert peer.session.statistics().unanswered == 0


def test_frames_of_the_peers_size() -> None:
    for size, most in ((16_384, 16_384), (20_000, 20_000), (1 << 20, DATA_BYTES_MAX)):
        peer = wide()
        peer.tell(make_settings([(frames.MAX_FRAME_SIZE, size)]))
        ask(peer, None)
        answer(peer, 300_000, 1)
        assert max(len(frame.payload) for frame in peer.hear(1 << 20)) == most


def test_a_large_header_block_continues() -> None:
    peer = wide()
    ask(peer, None, None)
    block = bytes(40_000)
    peer.session.respond(1, block, [b"x"], now=0.0)
    heard = peer.hear()
    assert [frame.kind for frame in heard] == [HEADERS, CONTINUATION, CONTINUATION, DATA]
    assert b"".join(frame.payload for frame in heard[:3]) == block
    peer.session.respond(3, block, [b"x"], head_only=True, now=0.0)
    heard = peer.hear()
    assert [frame.flags for frame in heard] == [END_STREAM, 0, 4], "HEADERS ends the stream"
    assert peer.session.statistics().unanswered == 0


def test_a_decoder_with_a_smaller_table_is_told_that_we_use_none() -> None:
    peer = wide()
    peer.tell(make_settings([(frames.HEADER_TABLE_SIZE, 100)]))
    ask(peer, None, None)
    peer.hear()
    answer(peer, 10, 1, 3)
    heads = [frame.payload for frame in peer.hear() if frame.kind == HEADERS]
    assert heads == [b"\x20" + OK, OK]
    peer = wide()
    peer.tell(make_settings([(frames.HEADER_TABLE_SIZE, 65_536)]))
    ask(peer, None)
    peer.hear()
    answer(peer, 10, 1)
    assert peer.hear()[0].payload == OK


def test_what_is_broken_off_is_dropped() -> None:
    peer = wide()
    ask(peer, None, None)
    answer(peer, 100_000, 1, 3)
    peer.session.take(20_000)
    peer.tell(make_reset(1, ErrorCode.CANCEL))
    assert {frame.stream_id for frame in peer.hear()} == {3}
    ask_again = headers(5)
    peer.tell(ask_again)
    answer(peer, 100_000, 5)
    peer.session.take(20_000)
    peer.session.reset(5, now=0.0)
    (reset,) = peer.hear()
    assert (reset.kind, reset.stream_id, reset.code) == (RST_STREAM, 5, ErrorCode.INTERNAL_ERROR)
    peer.session.reset(5, now=0.0)
    assert not peer.session.wants_output


def test_an_early_answer_says_that_the_rest_is_not_wanted() -> None:
    peer = Peer(body=b"too large")
    peer.tell(headers(1, [*POST, ("content-length", "70000")], 4))
    heard = peer.hear()
    assert [frame.kind for frame in heard] == [HEADERS, DATA, RST_STREAM]
    assert heard[-1].code == ErrorCode.NO_ERROR
    peer.tell(data(1, b"on its way"))
    assert peer.hear() == []
    assert peer.ended == ""


def test_nothing_comes_behind_an_error() -> None:
    peer = wide()
    ask(peer, None, None)
    answer(peer, 10, 1)
    answer(peer, 100_000, 3)
    peer.tell(make_frame(PING, 0, 0, bytes(9)))
    assert [frame.kind for frame in peer.hear()] == [GOAWAY]
