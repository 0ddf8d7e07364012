"""When the end of a segment is shown to players: not on the heels of the part before its last.

hls.js (1.7) looks for the next part in its playlist when one is loaded, and some ms later, when
that is in its buffer, whether all of the segment is, give or take 0.2 s. If the playlist with the
segment's end and last part comes in between, it takes the segment for whole without that part, and
then stands still until playlists name the part no longer, 6 s and more. In the usual rhythm of
parts that does not happen. It would where a timeline ends amid a part (takeover, return, another
codec), and where a publisher's bytes come in a burst.
"""

import math
from collections.abc import Sequence

from msgspec import Struct

from edged.media.parts import InitSegment, PackagedEvent, Part, Rendition, SegmentEnded, StreamEnded

HOLD_SHARE = 0.75  # Of a part's duration, so much lies between the last two of a segment.
HELD_ENDS_MAX = 1  # More is a replay, or a burst that no rhythm helps.


class _Seen(Struct):
    """The last part of a rendition that was shown."""

    msn: int
    at: float


class _Held(Struct):
    """What comes later of a rendition."""

    until: float
    ends: int = 0
    events: list[PackagedEvent] = []


class SegmentEnds:
    """One run's events on their way to players."""

    def __init__(self) -> None:
        self._part_s: dict[str, float] = {}
        self._seen: dict[str, _Seen] = {}
        self._held: dict[str, _Held] = {}

    @property
    def due_at(self) -> float:
        """When `take` gives what is held, if nothing comes; inf: nothing is."""
        return min((held.until for held in self._held.values()), default=math.inf)

    def take(self, events: list[PackagedEvent], now: float) -> list[PackagedEvent]:
        """What is to be shown now, of these and of what was held: in order for each rendition."""
        if events and isinstance(events[-1], StreamEnded):
            events = [*self.let_go(), *events]
        elif self._held or any(isinstance(event, SegmentEnded) for event in events):
            self._hold(events, now)
            events = self._shown(events, now)
        self._note(events, now)
        return events

    def let_go(self) -> list[PackagedEvent]:
        """All that is held: nothing will come of the run for now."""
        held, self._held = self._held, {}
        return [event for one in held.values() for event in one.events]

    def _hold(self, events: Sequence[PackagedEvent], now: float) -> None:
        """Begin to hold renditions of which these end a segment by the one part that it lacked."""
        parts: dict[tuple[str, int], int] = {}
        ends: dict[str, int] = {}
        for event in events:
            if isinstance(event, Part):
                key = event.rendition, event.msn
                parts[key] = parts.get(key, 0) + 1
            elif isinstance(event, SegmentEnded):
                ends[event.rendition] = ends.get(event.rendition, 0) + 1
        for name, count in ends.items():
            seen = self._seen.get(name)
            if seen is None or count > HELD_ENDS_MAX or name in self._held:
                continue
            until = seen.at + HOLD_SHARE * self._part_s.get(name, 0.0)
            if now < until and parts.get((name, seen.msn)) == 1:
                self._held[name] = _Held(until)

    def _shown(self, events: Sequence[PackagedEvent], now: float) -> list[PackagedEvent]:
        """Put these behind what is held; what is due, and what is not held."""
        shown: list[PackagedEvent] = []
        for event in events:
            held = self._held.get(_rendition_of(event))
            if held is None:
                shown.append(event)
                continue
            held.events.append(event)
            held.ends += isinstance(event, SegmentEnded)
        for name, held in list(self._held.items()):
            if held.until <= now or held.ends > HELD_ENDS_MAX:
                shown += self._held.pop(name).events
        return shown

    def _note(self, events: Sequence[PackagedEvent], now: float) -> None:
        for event in events:
            if isinstance(event, Part):
                self._seen[event.rendition] = _Seen(event.msn, now)
            elif isinstance(event, Rendition):
                self._part_s[event.name] = event.part_target_us / 1e6


def _rendition_of(event: PackagedEvent) -> str:
    if isinstance(event, Rendition):
        return event.name
    return event.rendition if isinstance(event, InitSegment | Part | SegmentEnded) else ""
