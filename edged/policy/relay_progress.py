"""Whether a relay brings a channel as it should: silence is told by what is usual; pure.

A publisher may pause, and its relay is not to blame. So one that is heard otherwise, by its pings
or by other channels, is given longer than one of which nothing comes at all.
"""

import itertools
from collections import deque
from typing import Final

from msgspec import Struct

from edged.media.parts import PackagedEvent, Part, Rendition, SegmentEnded

FIRST_S_MAX: Final = 1.5  # From the wish to the first that comes: a few round trips.
STALL_S_MIN: Final = 0.7  # Three parts of the usual length, 0.2 s, and a loop that is busy.
ALIVE_S_MIN: Final = 0.85  # While the relay is heard otherwise: publishers pause for 0.8 s.
STALL_S_MAX: Final = 10.0  # Of streams that come in segments alone.
STALL_GAPS: Final = 2.5  # Of the longest gap that was usual, or of the longest part.
STALL_PACES: Final = 1.2  # Of the longest part: gaps that are known may all be of bursts.
GAPS_MIN: Final = 3
GAPS_MAX: Final = 32  # Remembered.
GAP_S_MIN: Final = 0.005  # Shorter ones are of one burst.
SECONDS_MAX: Final = 20  # Remembered, of those in which something came.
MISSING_SECONDS: Final = 3  # Of the last five: so many lack more than MISSING_MAX.
MISSING_MAX: Final = 0.2
LAG_S_MAX: Final = 3.0  # More than at first, of the seconds remembered,
LAG_SECONDS: Final = 5  # and it grew in so many of them: a step is the publisher's.
LAG_STEP_S: Final = 0.1


class _Second(Struct):
    """What came in one."""

    number: int
    came: int = 0  # Parts,
    missing: int = 0  # and those that were skipped before them.
    lag_s: float = 0.0  # The least.


class Progress:
    """Of one channel that comes from a relay."""

    def __init__(self, now: float) -> None:
        self._at = now
        self._gaps: deque[float] = deque(maxlen=GAPS_MAX)
        self._pace_s = 0.0
        self._received = 0
        self._publication = -1
        self._timescales: dict[str, int] = {}
        self._places: dict[str, tuple[int, int]] = {}
        self._seconds: deque[_Second] = deque(maxlen=SECONDS_MAX)
        self._looked_at, self._slow = -1, False

    def came(self, now: float) -> None:
        """Something has come."""
        gap_s = now - self._at
        if gap_s >= GAP_S_MIN:
            self._gaps.append(gap_s)
        self._at = now

    def took(self, publication: int, event: PackagedEvent, now: float) -> None:
        """This has come."""
        self.came(now)
        if publication != self._publication:
            self._publication = publication
            self._places, self._seconds = {}, deque(maxlen=SECONDS_MAX)
        if isinstance(event, Rendition):
            self._timescales[event.name] = event.timescale
            self._pace_s = max(self._pace_s, event.part_target_us / 1e6)
        elif isinstance(event, Part):
            if timescale := self._timescales.get(event.rendition):
                self._pace_s = max(self._pace_s, event.duration / timescale)
            self._note(event, now)
        elif isinstance(event, SegmentEnded) and self._seconds:
            msn, index = self._places.get(event.rendition, (-1, -1))
            if msn == event.msn:
                self._seconds[-1].missing += max(0, event.parts - 1 - index)
                self._places[event.rendition] = (msn, max(index, event.parts - 1))

    def received(self, events: int, now: float) -> None:
        """So many events have arrived, those of a replay that is not whole yet included."""
        if events > self._received:
            self._received = events
            self.slept(now)

    def slept(self, now: float) -> None:
        """We were not there ourselves: what came meanwhile may lie unread."""
        self._at = max(self._at, now)

    def is_stalled(self, now: float, *, alive: bool = False) -> bool:
        """Whether nothing has come for too long; `alive`: the relay is heard otherwise."""
        if len(self._gaps) < GAPS_MIN:  # Too few to tell what is usual.
            limit_s = max(FIRST_S_MAX, STALL_GAPS * self._pace_s)
        else:
            limit_s = max(ALIVE_S_MIN if alive else STALL_S_MIN, STALL_GAPS * max(self._gaps))
            limit_s = max(limit_s, STALL_PACES * self._pace_s)
        return now - self._at > min(STALL_S_MAX, limit_s)

    def is_slow(self, now: float) -> bool:
        """Whether parts are missing again and again, or come ever later; known once a second."""
        if self._looked_at != int(now):
            self._looked_at = int(now)
            self._slow = self._is_slow(int(now))
        return self._slow

    def _is_slow(self, second: int) -> bool:
        lately = [each for each in self._seconds if second - 5 <= each.number < second]
        lack = sum(each.missing > MISSING_MAX * (each.came + each.missing) for each in lately)
        if lack >= MISSING_SECONDS:
            return True
        lags = [each.lag_s for each in self._seconds if each.number < second]
        steps = sorted(lag - before for before, lag in itertools.pairwise(lags))
        grew = sum(step > LAG_STEP_S for step in steps)
        return grew >= LAG_SECONDS and sum(steps[:-1]) > LAG_S_MAX

    def _note(self, part: Part, now: float) -> None:
        last, place = self._places.get(part.rendition), (part.msn, part.index)
        if last is not None and place <= last:
            return
        self._places[part.rendition] = place
        missing = 0
        if last is not None:
            more = part.msn - last[0]
            missing = part.index + more - 1 if more else part.index - last[1] - 1
        lag_s = now - part.wallclock_us / 1e6
        if not self._seconds or self._seconds[-1].number != int(now):
            self._seconds.append(_Second(int(now), lag_s=lag_s))
        second = self._seconds[-1]
        second.came += 1
        second.missing += missing
        second.lag_s = min(second.lag_s, lag_s)
