"""RFC 9218: what a priority says, and who goes first."""

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.wire.h2.priorities import VALUE_BYTES_MAX, Schedule, parse_priority
from edged.wire.h2.streams import Stream


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", (3, False)),
        (b"u=0", (0, False)),
        (b"u=7, i", (7, True)),
        (b"u=1,i", (1, True)),
        (b"i=?1", (3, True)),
        (b"i=?0,u=5", (5, False)),
        (b"u=2;x=1, i;y", (2, True)),
        (b"u=8", (3, False)),
        (b"u=-1", (3, False)),
        (b"u=12", (3, False)),
        (b'u="1"', (3, False)),
        (b"i=1", (3, False)),
        (b"u=1, u=2", (2, False)),
        (b"unknown=?1, u=4", (4, False)),
        (b"u=1," + b" " * VALUE_BYTES_MAX, (3, False)),
    ],
)
def test_values(value: bytes, expected: tuple[int, bool]) -> None:
    assert parse_priority(value) == expected


@hypothesis.given(st.binary(max_size=80))
def test_garbage_is_harmless(value: bytes) -> None:
    urgency, _ = parse_priority(value)
    assert 0 <= urgency <= 7


def make(stream_id: int, urgency: int = 3, incremental: bool = False) -> Stream:
    stream = Stream(stream_id, 0.0)
    stream.urgency, stream.incremental = urgency, incremental
    return stream


def ids(schedule: Schedule) -> list[int]:
    return [stream.id for stream in schedule]


def test_urgency_then_order_then_turns() -> None:
    schedule = Schedule()
    turns = [make(1, 3, True), make(11, 3, True)]
    for stream in (*turns, make(5), make(3), make(7, 0), make(9, 7)):
        schedule.add(stream)
    assert ids(schedule) == [7, 3, 5, 1, 11, 9]
    schedule.pass_turn(turns[0])
    assert ids(schedule) == [7, 3, 5, 11, 1, 9]
    schedule.pass_turn(make(5))
    assert ids(schedule) == [7, 3, 5, 11, 1, 9], "the others stay until they are whole"
    schedule.discard(turns[1])
    schedule.discard(turns[1])
    assert ids(schedule) == [7, 3, 5, 1, 9]
    schedule.clear()
    assert not schedule.queue


def test_a_change() -> None:
    schedule = Schedule()
    first, second = make(1), make(3)
    schedule.add(first)
    schedule.add(second)
    schedule.change(second, 1, True)
    assert ids(schedule) == [3, 1]
    schedule.change(second, 1, True)
    absent = make(5)
    schedule.change(absent, 0, False)
    assert ids(schedule) == [3, 1]
    assert absent.urgency == 0
