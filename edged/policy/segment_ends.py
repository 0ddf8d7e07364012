"""When the end of a segment is shown to players: not on the heels of the part before its last.

hls.js (1.7) looks for the next part in its playlist when one is loaded, and some ms later, when
that is in its buffer, whether all of the segment is, give or take 0.2 s. If the playlist with the
segment's short last part and its end comes in between, it takes the segment for whole without that
part, and then stands still until playlists name the part no longer, 6 s and more. Where parts come
at a distance that does not happen to players nearby; it did where a timeline ends amid a part
(takeover, return, another codec), and it would where a GOP is a picture longer than its parts, or a
publisher's bytes come in a burst.
"""

import math

from msgspec import Struct

from edged.media.parts import PackagedEvent, Part, Rendition, StreamEnded

HEELS_S = 0.05  # Loading a part from nearby, and 10 to 20 ms until it is in the buffer.
TAIL_S_MAX = 0.25  # Players see that more than this is missing.
TAILS_MAX = 1  # More in a row are a replay, or a burst that no distance helps.


class _Shown(Struct):
    """The last part of a rendition that was shown."""

    timescale: int
    msn: int = -1
    at: float = -math.inf
    part: Part | None = None


class _Held(Struct):
    """What comes later of a rendition."""

    until: float
    tails: int = 0
    events: list[PackagedEvent] = []


class SegmentEnds:
    """One run's events on their way to players."""

    def __init__(self) -> None:
        self._shown: dict[str, _Shown] = {}
        self._held: dict[str, _Held] = {}

    @property
    def shown(self) -> list[tuple[str, Part | None]]:
        """The renditions that were announced, and the newest part of each."""
        return [(name, shown.part) for name, shown in self._shown.items()]

    @property
    def due_at(self) -> float:
        """When `take` gives what is held, if nothing comes; inf: nothing is."""
        return min((held.until for held in self._held.values()), default=math.inf)

    def take(self, events: list[PackagedEvent], now: float) -> list[PackagedEvent]:
        """What is to be shown now, of these and of what was held: in order for each rendition."""
        if events and isinstance(events[-1], StreamEnded):
            events = [*self.let_go(), *events]
        elif self._held or any(_is_tail(event) for event in events):
            self._hold(events, now)
            events = self._sort(events, now)
        for event in events:
            if isinstance(event, Part):
                shown = self._shown.get(event.rendition)
                if shown is not None:
                    shown.msn, shown.at, shown.part = event.msn, now, event
            elif isinstance(event, Rendition):
                self._shown.setdefault(event.name, _Shown(event.timescale))
        return events

    def let_go(self) -> list[PackagedEvent]:
        """All that is held: nothing will come of the run for now."""
        held, self._held = self._held, {}
        return [event for one in held.values() for event in one.events]

    def _hold(self, events: list[PackagedEvent], now: float) -> None:
        """Begin to hold the renditions of which these bring the tail of what was just shown."""
        tails = [event for event in events if _is_tail(event)]
        for name in {tail.rendition for tail in tails if isinstance(tail, Part)}:
            shown = self._shown.get(name)
            if shown is None or name in self._held or now >= shown.at + HEELS_S:
                continue
            parts = [part for part in events if isinstance(part, Part) and part.rendition == name]
            tail_ticks = sum(part.duration for part in parts if part.msn == shown.msn)
            ends = [part.msn for part in parts if part.ends_segment]
            if ends == [shown.msn] and tail_ticks <= TAIL_S_MAX * shown.timescale:
                self._held[name] = _Held(shown.at + HEELS_S)

    def _sort(self, events: list[PackagedEvent], now: float) -> list[PackagedEvent]:
        """Put these behind what is held; what is not held, and what is due."""
        to_show: list[PackagedEvent] = []
        for event in events:
            held = self._held.get(_rendition_of(event))
            if held is None:
                to_show.append(event)
                continue
            held.events.append(event)
            held.tails += _is_tail(event)
        for name, held in list(self._held.items()):
            if held.until <= now or held.tails > TAILS_MAX:
                to_show += self._held.pop(name).events
        return to_show


def _is_tail(event: PackagedEvent) -> bool:
    return isinstance(event, Part) and event.ends_segment


def _rendition_of(event: PackagedEvent) -> str:
    if isinstance(event, Rendition):
        return event.name
    return "" if isinstance(event, StreamEnded) else event.rendition
