"""The events of a stream's life, as they are made."""

from typing import TYPE_CHECKING

import msgspec
import pytest

from edged.media.events import StreamTakenOver
from edged.media.stream import Description, Grant, PriorityClass, StreamId
from edged.roles.telling import Telling
from edged.runtime.hub import LiveStream
from edged.wire.table import REASON_CHARS_MAX, Moved

if TYPE_CHECKING:
    from edged.media.events import StreamEvent


def test_each_has_what_it_is_about() -> None:
    told: list[StreamEvent] = []
    telling = Telling(told.append, pop="ams1")
    grant = Grant(channel="alice", title="Alice", tags=("music",), priority=PriorityClass.PARTNER)
    stream = LiveStream(StreamId("alice", 31, 2), grant, started_at=10.0, came_from="test")
    telling.went_live(stream, "rtmps", "fra1")
    telling.described(stream.stream_id, Description(), Description(title="Now", labels=("live",)))
    telling.lost(stream, "connection reset", 10.0)
    telling.returned(stream, 3.25)
    telling.returned(stream, None)
    moved: list[Moved] = []
    telling.on_rehomed = moved.append
    telling.rehomed(stream, "fra1", "fra2", "no progress", unit_seq=0)
    assert moved == [
        Moved(
            channel="alice",
            publication=31,
            home_epoch=2,
            from_origin="fra1",
            to_origin="fra2",
            unit_seq=0,
            why="no progress",
        )
    ]
    telling.taken_over(stream, StreamId("alice", 47))
    telling.taken_over(stream)
    telling.went_offline(stream, "goodbye", 12.5)
    telling.shed(stream, "fra2", "sea", 4)
    assert {event.channel for event in told} == {"alice"}
    assert {event.publication for event in told} == {"1f"}
    assert [msgspec.to_builtins(event)["event"] for event in told] == [
        *("stream_went_live", "title_changed", "publisher_lost"),
        *("publisher_returned", "publisher_returned", "stream_rehomed"),
        *("stream_taken_over", "stream_taken_over", "stream_went_offline", "stream_shed"),
    ]
    fields = [msgspec.to_builtins(event) for event in told]
    assert (fields[0]["priority"], fields[0]["protocol"]) == ("partner", "rtmps")
    assert (fields[1]["title"], fields[1]["tags"]) == ("Now", ("live",))
    assert [fields[3]["away_s"], fields[4]["away_s"]] == [3.25, 0.0]
    assert (fields[5]["origin_before"], fields[5]["home_epoch"]) == ("fra1", 2)
    assert [fields[6]["by_publication"], fields[7]["by_publication"]] == ["2f", ""]
    assert [fields[6]["by_pop"], fields[7]["by_pop"]] == ["ams1", ""]
    assert (fields[8]["reason"], fields[8]["duration_s"]) == ("goodbye", 2.5)
    assert [fields[9][key] for key in ("link", "origin", "priority", "number")] == [
        *("sea", "fra2", "partner", 4)
    ]


@pytest.mark.parametrize("chars", [REASON_CHARS_MAX, REASON_CHARS_MAX + 1])
def test_what_irs_hears_of_a_move_fits_its_message(chars: int) -> None:
    told: list[Moved] = []
    telling = Telling()
    telling.on_rehomed = told.append
    grant = Grant(channel="alice")
    stream = LiveStream(StreamId("alice", 31, 2), grant, started_at=0.0, came_from="test")
    telling.rehomed(stream, "fra1", "fra2", "x" * chars, unit_seq=-1, number=7)
    (moved,) = told
    assert (moved.unit_seq, moved.why, moved.number) == (0, "x" * REASON_CHARS_MAX, 7)


@pytest.mark.parametrize(
    ("listed", "by"),
    [
        ((StreamId("alice", 47), "fra1"), ("2f", "fra1")),
        ((StreamId("alice", 31, 3), "fra1"), ("1f", "fra1")),  # The same run, joined there.
        ((StreamId("alice", 31, 2), "ams1"), ("", "")),  # The directory has not heard yet.
        (None, ("", "")),
    ],
)
def test_who_has_taken_over_elsewhere_is_known_from_the_directory(
    listed: tuple[StreamId, str] | None, by: tuple[str, str]
) -> None:
    told: list[StreamEvent] = []
    telling = Telling(told.append, pop="ams1", newest=lambda _: listed)
    stream = LiveStream(
        StreamId("alice", 31, 2), Grant(channel="alice"), started_at=0.0, came_from="test"
    )
    telling.taken_over(stream)
    (event,) = told
    assert isinstance(event, StreamTakenOver)
    assert (event.by_publication, event.by_pop) == by
