"""Of a channel's parts those of some rungs of video alone; of the others whole segments are listed.

    all:   v0 41.0 41.1 41.2 end 42.0 ...      v1 41.0 41.1 41.2 end 42.0 ...
    (v1):  v0 listed 41          ...           v1 41.0 41.1 41.2 end 42.0 ...

So who gets them has all playlists, and can fetch a listed segment by name. Sound always comes. A
rung comes, or no longer does, from a segment's first part on, as a segment that is listed has no
parts; what has begun of one that is wanted now is replayed.
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct, structs

from edged.media.parts import (
    ListedSegment,
    PackagedEvent,
    Part,
    Rendition,
    SegmentEnded,
    SegmentsListed,
)
from edged.media.track import Kind

Rungs = frozenset[str] | None  # None: all.


class _Begun(Struct):
    """A segment that is not whole yet."""

    first: Part
    parts: int = 0
    payload_bytes: int = 0
    gap: bool = False

    def add(self, part: Part) -> None:
        self.gap = self.gap or part.gap or part.index != self.parts
        self.parts = part.index + 1
        self.payload_bytes += len(part.payload)


class SegmentTally:
    """A channel's segments as they become whole, for all who get only some of its rungs."""

    def __init__(self) -> None:
        self.videos: set[str] = set()
        self._begun: dict[str, _Begun] = {}
        self._oldest: dict[str, int] = {}

    def take(self, event: PackagedEvent) -> SegmentsListed | None:
        """Note an event; returns what says of a segment that it is whole, if this is its end."""
        match event:
            case Part():
                begun = self._begun.get(event.rendition)
                if begun is None or begun.first.msn != event.msn:
                    first = structs.replace(event, payload=b"")
                    begun = self._begun[event.rendition] = _Begun(first)
                begun.add(event)
            case SegmentEnded():
                return self._end(event)
            case Rendition():
                if event.kind is Kind.VIDEO:
                    self.videos.add(event.name)
            case SegmentsListed():
                self._oldest[event.rendition] = event.oldest_msn
            case _:
                pass
        return None

    def _end(self, event: SegmentEnded) -> SegmentsListed | None:
        begun = self._begun.pop(event.rendition, None)
        if begun is None or begun.first.msn != event.msn or event.duration <= 0:
            return None
        first, gap = begun.first, begun.gap or event.parts != begun.parts
        listed = ListedSegment(
            msn=event.msn,
            duration=event.duration,
            wallclock_us=first.wallclock_us,
            payload_bytes=0 if gap else begun.payload_bytes,
            discontinuity=first.discontinuity,
            discontinuity_sequence=first.discontinuity_sequence,
            gap=gap,
            tfdt=first.tfdt,
            independent=first.independent,
        )
        return SegmentsListed(
            rendition=event.rendition,
            oldest_msn=self._oldest.get(event.rendition, 0),
            init_digest=first.init_digest,
            segments=(listed,),
        )


class RungSieve:
    """For one who gets some rungs."""

    def __init__(self, rungs: Rungs) -> None:
        self.rungs = rungs
        self._comes: dict[str, tuple[int, bool]] = {}  # Whether the parts of this segment do.

    def _is_wanted(self, rendition: str, videos: Iterable[str]) -> bool:
        return self.rungs is None or rendition in self.rungs or rendition not in videos

    def begin(self, replay: Iterable[PackagedEvent]) -> list[PackagedEvent]:
        """What is pushed of a replay; what is whole of the others is listed."""
        tally, begun = SegmentTally(), dict[str, list[PackagedEvent]]()
        self._comes = {}
        events: list[PackagedEvent] = []
        for event in replay:
            listed = tally.take(event)
            if not isinstance(event, Part | SegmentEnded):
                events.append(event)
            elif self._is_wanted(event.rendition, tally.videos):
                events.append(event)
                self._comes[event.rendition] = (event.msn, True)
            elif isinstance(event, Part):
                begun.setdefault(event.rendition, []).append(event)
            else:
                held = begun.pop(event.rendition, [])
                events += [*held, event] if listed is None else [listed]
        for name, held in begun.items():  # What has begun goes on.
            events += held
            self._comes[name] = (_msn_of(held), True)
        return events

    def take(
        self, event: PackagedEvent, listed: SegmentsListed | None, videos: Iterable[str]
    ) -> PackagedEvent | None:
        """What is pushed for the next event; `listed`: what the tally says of it."""
        if not isinstance(event, Part | SegmentEnded):
            return event
        msn, comes = self._comes.get(event.rendition, (-1, True))
        if event.msn != msn:
            comes = self._is_wanted(event.rendition, videos)
            self._comes[event.rendition] = (event.msn, comes)
        if comes:
            return event
        return listed

    def change(
        self, rungs: Rungs, replay: Iterable[PackagedEvent], videos: Iterable[str]
    ) -> list[PackagedEvent]:
        """Push these from now on; returns what has begun of those that were not pushed before."""
        self.rungs = rungs
        lacking = {
            name: msn
            for name, (msn, comes) in self._comes.items()
            if not comes and self._is_wanted(name, videos)
        }
        begun = _begun(replay)
        events: list[PackagedEvent] = []
        for name, msn in lacking.items():
            parts = begun.get(name, [])
            if parts and _msn_of(parts) >= msn:
                events += parts
                self._comes[name] = (_msn_of(parts), True)
        return events


def _begun(replay: Iterable[PackagedEvent]) -> Mapping[str, list[PackagedEvent]]:
    """The parts of segments that are not whole."""
    begun: dict[str, list[PackagedEvent]] = {}
    for event in replay:
        if isinstance(event, Part):
            parts = begun.setdefault(event.rendition, [])
            if parts and _msn_of(parts) != event.msn:
                parts.clear()
            parts.append(event)
        elif isinstance(event, SegmentEnded):
            begun.pop(event.rendition, None)
    return begun


def _msn_of(parts: list[PackagedEvent]) -> int:
    return parts[0].msn if parts and isinstance(parts[0], Part | SegmentEnded) else -1
