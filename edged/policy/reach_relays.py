"""Which PoPs take a channel from which replica; pure.

A relay has what is watched where it relays to; whoever finds no room at one goes to the origin.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from edged.policy.reach_budget import FILL, Budget
from edged.policy.reach_config import ReachConfig
from edged.policy.reach_plan import ReachPop, Work
from edged.policy.reach_ways import Ways


class RelayPlan:
    """Of one plan."""

    def __init__(
        self,
        config: ReachConfig,
        pops: Sequence[ReachPop],
        number: Mapping[str, int],
        ways: Ways,
        budget: Budget,
    ) -> None:
        self._config, self._pops, self._number = config, pops, number
        self._ways, self._budget = ways, budget

    def take_from(
        self, work: Work
    ) -> tuple[dict[str, str], dict[str, tuple[str, ...]], dict[str, float]]:
        """Which PoPs take it from which replica, and what of it; others take it from the origin."""
        via: dict[str, str] = {}
        rungs: dict[str, tuple[str, ...]] = {}
        via_mbps: dict[str, float] = {}
        index = {n: place for place, n in enumerate(work.replicas) if self._pops[n].relay}
        if not index:
            return via, rungs, via_mbps
        relays = sorted(index)
        best, best_ms = self._ways.best(relays)
        old = {} if work.before is None else work.before.via
        watched, pops, origin = work.rungs.watched, self._pops, work.origin
        places = [self._number.get(pop, -1) for pop in old]
        for place in (*places, *watched.keys() - places):
            if place < 0 or place in work.replicas:
                continue
            pop = pops[place].pop
            was = self._number.get(old[pop], -1) if pop in old else -1
            origin_ms = pops[place].origin_ms.get(origin, -math.inf)
            if was not in index and not self._ways.is_near(best_ms[place], origin_ms):
                continue
            if not work.has_had_viewers(pop, is_watched=place in watched):
                continue
            if not self._budget.may_order(place):
                continue
            mask = watched.get(place, 0)
            if was >= 0:
                mask = work.with_idle(pop, mask)
            relay = best[place]
            if was in index:
                relay = self._stay_or_go(work, place, was, relay, origin_ms)
            order = self._in_order(relay, place, index, origin_ms)
            found = self._find_room(work, place, order, was=was, index=index, mask=mask)
            if found is not None:
                relay, via_mbps[pop] = found
                via[pop], rungs[pop] = pops[relay].pop, work.rungs.names(mask)
        return via, rungs, via_mbps

    def _stay_or_go(self, work: Work, place: int, was: int, best: int, origin_ms: float) -> int:
        """The relay that it comes from, a better one, or the origin (-1)."""
        if not self._ways.is_better_elsewhere(place, was, best, origin_ms):
            return was
        key = f"to {self._pops[place].pop}"
        streak = work.streaks.get(key, 0) + 1
        if streak < self._config.hold_plans:
            work.streaks_now[key] = streak
            return was
        return best if self._ways.is_near(self._ways.ms(best, place), origin_ms) else -1

    def _in_order(
        self, first: int, place: int, index: Mapping[int, int], origin_ms: float
    ) -> Iterator[int]:
        """Relays that it may come from, this one first; none where that is the origin (-1)."""
        if first >= 0:
            yield first
            yield from self._ways.others(place, first, index, origin_ms)

    def _find_room(
        self,
        work: Work,
        place: int,
        order: Iterable[int],
        *,
        was: int,
        index: Mapping[int, int],
        mask: int,
    ) -> tuple[int, float] | None:
        """The first relay that has room for it; it has what that needs from now on."""
        rungs, budget = work.rungs, self._budget
        mbps = rungs.mbps(mask) + rungs.base_mbps
        for relay in order:
            fill = 1.0 if relay == was else FILL
            if not budget.may_relay(relay, mbps, fill):
                continue
            at = index[relay]
            held = work.held[at] | mask
            more = 0.0 if held == work.held[at] else rungs.extra_mbps(relay, held) - work.mbps[at]
            if budget.fits(relay, work.origin, more, fill):
                work.held[at] = held
                work.mbps[at] += more
                budget.hold(relay, work.origin, more, 0)
                budget.relay(relay, place, mbps)
                return relay, mbps
        return None
