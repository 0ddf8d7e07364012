"""Policies to compare with: what others do, and simpler things than production's.

None of them is production code; `production` has that.
"""

import bisect
import itertools
import math

from edged.media.routing import OriginReport
from edged.policy.capacitor import StateChanged
from edged.tools.simulate.board import TICK_S
from edged.tools.simulate.bound import solve
from edged.tools.simulate.policy import NOWHERE, Policy, Surroundings
from edged.tools.simulate.streams import Stream

CHECKS_FAIL_S = 4.5  # HAProxy with default checks, as measured; a freeze it never notices.
TABLE_S = 1.0  # How old the loads are at most by which power-of-two compares.
GOLDEN = (math.sqrt(5) - 1) / 2
LP_HOURLY_S = 3600.0
LP_GREEDY_S = 300.0


class Static(Policy):
    """Each PoP has one origin, the nearest; the next only while checks say that it is down.

    Of several at the same distance PoPs have different ones, by their sizes.
    """

    hears_freezes = False

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self._order = [self._rank(pop, rtt) for pop, rtt in enumerate(around.rtt_ms)]
        self._down_from: dict[int, float] = {}

    def choose(self, stream: Stream, now: float) -> int:
        """The nearest that checks have not failed, full or not."""
        for origin in self._order[stream.pop]:
            if now < self._down_from.get(origin, math.inf):
                return origin
        return NOWHERE

    def _rank(self, pop: int, rtt_ms: list[float]) -> list[int]:
        nearest = [origin for origin, rtt in enumerate(rtt_ms) if rtt == min(rtt_ms)]
        bounds = list(itertools.accumulate(self.around.slots[origin] for origin in nearest))
        drawn = pop * GOLDEN % 1 * bounds[-1]  # Evenly, for any number of PoPs.
        first = nearest[bisect.bisect(bounds, drawn)]
        return sorted(range(len(rtt_ms)), key=lambda each: (rtt_ms[each], each != first, each))

    def link_changed(self, pop: int, origin: int, now: float, *, up: bool) -> None:
        """Checks begin to fail with the first broken session."""
        del pop
        if up:
            self._down_from.pop(origin, None)
        else:
            self._down_from.setdefault(origin, now + CHECKS_FAIL_S)


class _Weighted(Policy):
    """Draws origins at random by weights."""

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self._loads = [0.0] * len(self.origins)
        self._places = {name: place for place, name in enumerate(self.origins)}
        self._heard_at = -math.inf

    def tick(self, now: float, heard: list[OriginReport], changes: list[StateChanged]) -> None:
        """Take the loads once a TABLE_S."""
        del changes
        if now - self._heard_at < TABLE_S - TICK_S / 2:
            return
        self._heard_at = now
        for report in heard:
            used = report.slots_total - report.slots_free[0]
            self._loads[self._places[report.origin]] = used / max(1, report.slots_total)

    def _draw(self, stream: Stream, weights: list[float]) -> int:
        """One origin that was not asked yet and is there."""
        around = self.around
        left = [
            weight if not stream.tried >> origin & 1 and around.board.takes(name) else 0.0
            for origin, (name, weight) in enumerate(zip(self.origins, weights, strict=True))
        ]
        bounds = list(itertools.accumulate(left))
        if bounds[-1] <= 0:
            return NOWHERE
        return around.rng.choices(range(len(left)), cum_weights=bounds)[0]

    def _draw_two(self, stream: Stream, weights: list[float]) -> int:
        """The less loaded of two."""
        one, other = self._draw(stream, weights), self._draw(stream, weights)
        if one == NOWHERE or self._loads[one] <= self._loads[other]:
            return one
        return other


class PowerOfTwo(_Weighted):
    """Of two origins, drawn by their slots, the less loaded; then others."""

    retries = True

    def choose(self, stream: Stream, now: float) -> int:
        """As said."""
        del now
        return self._draw_two(stream, [float(slots) for slots in self.around.slots])


class _Planned(_Weighted):
    """Weights by a linear program of what is there."""

    interval_s = LP_HOURLY_S

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self._weights: list[list[float]] = []

    def begin(self, now: float) -> None:
        """Nobody is there yet; so by what is expected."""
        self._plan(now)

    def _plan(self, now: float) -> None:
        moment = self.around.moment()
        best = solve(moment)
        self._weights = [
            placed if sum(placed) > 0 else _nearest(rtt)
            for placed, rtt in zip(best.placed, moment.rtt_ms, strict=True)
        ]
        self.around.call_at(now + self.interval_s, lambda: self._plan(now + self.interval_s))


class LpHourly(_Planned):
    """Drawn by the program's weights, which are new each hour; a refusal is the end."""

    def choose(self, stream: Stream, now: float) -> int:
        """As said."""
        del now
        return self._draw(stream, self._weights[stream.pop])


class Greedy(_Planned):
    """Randomised greedy: of two origins, drawn by the program's weights, the less loaded.

    When all that have a weight refused: the others, the nearest first.
    """

    retries = True
    interval_s = LP_GREEDY_S

    def choose(self, stream: Stream, now: float) -> int:
        """As said."""
        del now
        found = self._draw_two(stream, self._weights[stream.pop])
        if found != NOWHERE:
            return found
        rtt, around = self.around.rtt_ms[stream.pop], self.around
        left = [
            origin
            for origin, name in enumerate(self.origins)
            if not stream.tried >> origin & 1 and around.board.takes(name)
        ]
        return min(left, key=rtt.__getitem__, default=NOWHERE)


def _nearest(rtt: list[float]) -> list[float]:
    nearest = min(range(len(rtt)), key=rtt.__getitem__)
    return [1.0 if origin == nearest else 0.0 for origin in range(len(rtt))]
