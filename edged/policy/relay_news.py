"""What of a run who takes it from a relay has not been given; pure.

A relay whose own way was broken hears a whole replay again, and most of it is known downstream.
"""

from collections.abc import Iterable
from typing import Final

from msgspec import structs

from edged.media.parts import (
    InitSegment,
    PackagedEvent,
    Part,
    Rendition,
    SegmentEnded,
    SegmentsListed,
)
from edged.media.stream import StreamId

INITS_MAX: Final = 64  # Of a run; one that is forgotten goes again.


class RelayNews:
    """Of one channel."""

    def __init__(self) -> None:
        self._stream_id: StreamId | None = None
        self._begin()

    def _begin(self) -> None:
        self._places: dict[str, tuple[int, int]] = {}
        self._ended: dict[str, int] = {}
        self._renditions: dict[str, Rendition] = {}
        self._inits: dict[tuple[str, str], None] = {}
        self._oldest: dict[str, int] = {}

    def take(self, stream_id: StreamId, events: Iterable[PackagedEvent]) -> list[PackagedEvent]:
        """Which of these are new; they are known from now on. Nothing of an older home is."""
        known, self._stream_id = self._stream_id, stream_id
        if known is not None and stream_id < known:
            self._stream_id = known
            return []
        if known is None or stream_id.publication != known.publication:
            self._begin()
        found = (self._take(event) for event in events)
        return [event for event in found if event is not None]

    def _take(self, event: PackagedEvent) -> PackagedEvent | None:
        match event:
            case Part():
                place = (event.msn, event.index)
                if place <= self._places.get(event.rendition, (-1, -1)):
                    return None
                self._places[event.rendition] = place
            case SegmentEnded():
                if event.msn <= self._ended.get(event.rendition, -1):
                    return None
                self._ended[event.rendition] = event.msn
            case Rendition():
                if self._renditions.get(event.name) == event:
                    return None
                self._renditions[event.name] = event
            case InitSegment():
                return self._take_init(event)
            case SegmentsListed():
                return self._take_listed(event)
            case _:
                pass  # An end.
        return event

    def _take_init(self, event: InitSegment) -> InitSegment | None:
        key = (event.rendition, event.digest)
        if key in self._inits:
            return None
        self._inits[key] = None
        if len(self._inits) > INITS_MAX:
            del self._inits[next(iter(self._inits))]
        return event

    def _take_listed(self, event: SegmentsListed) -> SegmentsListed | None:
        newest = self._places.get(event.rendition, (-1, -1))[0]
        if all(segment.msn <= newest for segment in event.segments):
            if self._oldest.get(event.rendition) == event.oldest_msn:
                return None
            event = structs.replace(event, segments=())
        self._oldest[event.rendition] = event.oldest_msn
        return event
