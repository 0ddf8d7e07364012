"""Sharing out free slots: proportionally, or by linear programs towards the best placement.

Two programs. The first places all demand (what there is + what will come) on all capacity: its
prices say what a slot of each origin is worth. The second gives free slots to those who will need
some before long, at the least detour beyond those prices. What is left goes to everyone by demand,
the nearest first, so that no free slot is idle; except across a link that is full.
"""

import math
from collections.abc import Sequence
from math import inf

from msgspec import Struct, structs

from edged.media.routing import UNITS_MAX, ByClass
from edged.policy.flows import (
    RTT_MS_MAX,
    RTT_UNKNOWN_MS,
    TIGHT,
    FlowProblem,
    FlowSolution,
    FlowSolve,
    LinkLimit,
    find_crossed,
    find_places,
)

HORIZON_S_MAX = 30.0  # Of arrivals that are planned for; leases are renewed long before.
NEAR_MS = 10.0  # So much of a detour halves a share of what is left.
MARGIN_DEVIATIONS = 2.0  # Beyond the expected arrivals: more are rare (2 in 100).
# A PoP without arrivals yet gets a share too: its first publisher is coming. Its shards divide this
# among them, for callers come to the PoP, not to the shard.
ARRIVALS_FLOOR = 1.0


class PopNeed(Struct, frozen=True, kw_only=True):
    """A PoP, all its shards together, or what of it a rule binds; lists in the order of origins."""

    name: str
    units: Sequence[ByClass]  # Now at each origin that is planned for.
    elsewhere: ByClass  # At origins that are not.
    displaced: int  # Units of these and of origins that take no streams: they may have to move.
    arrivals_per_s: float
    rtt_ms: Sequence[float]  # Infinite: not known.
    of_pop: str = ""  # Of a part: which PoP's, for links; "": it is one.
    allowed: frozenset[str] | None = None  # The origins that its rules leave it; None: all.
    floor: float = ARRIVALS_FLOOR  # 0: nobody comes there of whom no more is known.

    def may_go(self, origin: str) -> bool:
        """Whether rules allow it."""
        return self.allowed is None or origin in self.allowed

    def arrivals(self, horizon_s: float) -> float:
        """Units expected to come in that time; never more than an origin can have."""
        coming = max(0.0, self.arrivals_per_s) * min(horizon_s, HORIZON_S_MAX)
        return min(coming, UNITS_MAX)

    def slots_needed(self, horizon_s: float) -> int:
        """Free units that it may want in that time."""
        coming = self.arrivals(horizon_s)
        margin = MARGIN_DEVIATIONS * math.sqrt(coming)
        return self.displaced + max(math.ceil(self.floor), math.ceil(coming + margin))

    def demand(self, horizon_s: float) -> ByClass:
        """What is here and what will come; of the latter each class has its part of the former."""
        here = [sum(counts) for counts in zip(*self.units, self.elsewhere, strict=True)]
        coming = math.ceil(self.arrivals(horizon_s))
        extra = share_out(coming, here) if any(here) else [0, 0, coming]
        return (here[0] + extra[0], here[1] + extra[1], here[2] + extra[2])


class OriginOffer(Struct, frozen=True, kw_only=True):
    """What an origin has to share."""

    name: str
    free: int  # Units for any class.
    capacity: ByClass  # What each class and those below it may have there in all; 0: to be left.
    ladders: int | None = None  # Of the free units those that would have one; None: not told.


class Shares(Struct, frozen=True, kw_only=True):
    """Units by PoP, origin, and how they came about."""

    units: list[list[int]]
    problem: FlowProblem
    solution: FlowSolution


def share_by_flows(
    pops: Sequence[PopNeed],
    origins: Sequence[OriginOffer],
    solve: FlowSolve,
    *,
    horizon_s: float,
    links: tuple[LinkLimit, ...] = (),
) -> Shares:
    """Share by linear programs; raises SolverError."""
    links = _with_parts(links, pops)
    forbidden = frozenset(
        (pop.name, origin.name)
        for pop in pops
        if pop.allowed is not None
        for origin in origins
        if origin.name not in pop.allowed
    )
    problem = FlowProblem(
        pops=[pop.name for pop in pops],
        origins=[origin.name for origin in origins],
        demand=[pop.demand(horizon_s) for pop in pops],
        capacity=[origin.capacity for origin in origins],
        rtt_ms=[pop.rtt_ms for pop in pops],
        forbidden=forbidden,
        links=links,
    )
    solution = solve(problem)
    detours = _detours(problem, solution)
    links = _links_left(problem, [[sum(counts) for counts in pop.units] for pop in pops])
    needs = [pop.slots_needed(horizon_s) for pop in pops]
    total = sum(origin.free for origin in origins)
    if sum(needs) > total:
        needs = share_out(total, needs)
    growth = FlowProblem(  # Its costs are detours: what counts is how far from the best it goes.
        pops=problem.pops,
        origins=problem.origins,
        demand=[(need,) for need in needs],
        capacity=[(origin.free,) for origin in origins],
        rtt_ms=detours,
        forbidden=forbidden,
        links=links,
    )
    granted = _grow(growth, origins, solve)
    _share_rest(pops, origins, granted, detours, _links_left(growth, granted))
    return Shares(units=granted, problem=problem, solution=solution)


def _grow(growth: FlowProblem, origins: Sequence[OriginOffer], solve: FlowSolve) -> list[list[int]]:
    """Units by PoP, origin: where they would have a ladder first, and what is left anywhere."""
    makers = [min(origin.free, origin.ladders or 0) for origin in origins]
    granted = [[0] * len(origins) for _ in growth.pops]
    if any(makers) and makers != [origin.free for origin in origins]:
        first = structs.replace(growth, capacity=[(units,) for units in makers])
        _add_whole(granted, solve(first))
        growth = structs.replace(
            growth,
            demand=[
                (need - sum(row),) for (need,), row in zip(growth.demand, granted, strict=True)
            ],
            capacity=[
                (units - sum(row[place] for row in granted),)
                for place, (units,) in enumerate(growth.capacity)
            ],
            links=_links_left(growth, granted),
        )
    _add_whole(granted, solve(growth))
    return granted


def _add_whole(granted: list[list[int]], given: FlowSolution) -> None:
    for row, of_pop in zip(granted, given.units, strict=True):
        for place, (units,) in enumerate(of_pop):
            row[place] += math.floor(units + TIGHT)


def _with_parts(links: tuple[LinkLimit, ...], pops: Sequence[PopNeed]) -> tuple[LinkLimit, ...]:
    """The links, crossed by the parts of PoPs as by these."""
    parts: dict[str, list[str]] = {}
    for pop in pops:
        if pop.of_pop:
            parts.setdefault(pop.of_pop, []).append(pop.name)
    if not parts or not links:
        return links
    return tuple(
        LinkLimit(
            name=link.name,
            mbps=link.mbps,
            mbps_per_unit=link.mbps_per_unit,
            pairs=tuple(
                (name, origin) for pop, origin in link.pairs for name in (pop, *parts.get(pop, ()))
            ),
        )
        for link in links
    )


def share_out(units: int, weights: Sequence[float], *, first: int = 0) -> list[int]:
    """Split whole units in proportion to weights; the shares add up to exactly `units`.

    Weights are not negative, and one at least is above 0. What rounding leaves goes to the largest
    remainders; among equals the turn begins at `first`, so that one PoP does not get the odd unit
    of every origin.
    """
    if not weights:
        return []
    total = math.fsum(weights)
    exact = [units * weight / total for weight in weights]
    shares = [math.floor(value) for value in exact]
    left = units - sum(shares)
    if left > 0:
        begin = first % len(weights)
        turn = [*range(begin, len(weights)), *range(begin)]
        lost = [round(share - value, 9) for share, value in zip(shares, exact, strict=True)]
        turn.sort(key=lost.__getitem__)  # Stable: among equals the turn stays.
        for index in turn[:left]:
            shares[index] += 1
    return shares


def _detours(problem: FlowProblem, solution: FlowSolution) -> list[list[float]]:
    """Milliseconds by which each origin is worse for each PoP than its best, prices counted."""
    prices = [round(math.fsum(of_classes), 3) for of_classes in solution.origin_prices]
    tolls: dict[tuple[str, str], float] = {}
    for link in problem.links:
        if (price := solution.link_prices.get(link.name, 0.0)) > 0:
            for pair in link.pairs:
                tolls[pair] = tolls.get(pair, 0.0) + price
    detours = []
    for pop, row in zip(problem.pops, problem.rtt_ms, strict=True):
        costs = [
            price + (rtt if rtt <= RTT_MS_MAX else RTT_UNKNOWN_MS if rtt == inf else RTT_MS_MAX)
            for rtt, price in zip(row, prices, strict=True)
        ]
        if tolls:
            costs = [
                cost + tolls.get((pop, origin), 0.0)
                for cost, origin in zip(costs, problem.origins, strict=True)
            ]
        open_ = costs
        if problem.forbidden:
            open_ = [
                cost
                for cost, origin in zip(costs, problem.origins, strict=True)
                if (pop, origin) not in problem.forbidden
            ]
        best = min(open_, default=0.0)
        detours.append([max(0.0, cost - best) for cost in costs])
    return detours


def _links_left(problem: FlowProblem, units: list[list[int]]) -> tuple[LinkLimit, ...]:
    """The links with what these units leave of them."""
    if not problem.links:
        return ()
    left = []
    of_links = find_places(problem.pops, problem.origins, [link.pairs for link in problem.links])
    for link, crossing in zip(problem.links, of_links, strict=True):
        used = sum(units[row][place] for row, place in crossing)
        left.append(
            LinkLimit(
                name=link.name,
                mbps=link.mbps - used * link.mbps_per_unit,
                mbps_per_unit=link.mbps_per_unit,
                pairs=link.pairs,
            )
        )
    return tuple(left)


def _share_rest(
    pops: Sequence[PopNeed],
    origins: Sequence[OriginOffer],
    granted: list[list[int]],
    detours: list[list[float]],
    links: tuple[LinkLimit, ...],
) -> None:
    """Add to `granted` what is still free."""
    names = [pop.name for pop in pops], [origin.name for origin in origins]
    crossed = find_crossed(*names, links)
    room = [math.floor(link.units + TIGHT) for link in links]
    demand = [pop.floor + max(0.0, pop.arrivals_per_s) for pop in pops]
    anyone = [row for row, wish in enumerate(demand) if wish]
    parts = any(pop.allowed is not None for pop in pops)
    for place, origin in enumerate(origins):
        left = origin.free - sum(row[place] for row in granted)
        rows = [row for row in anyone if pops[row].may_go(origin.name)] if parts else anyone
        if left <= 0 or not rows:
            continue
        weights = [demand[row] / (1.0 + detours[row][place] / NEAR_MS) for row in rows]
        if crossed:
            over = [crossed.get((row, place), []) for row in rows]
            shares = _share_within(left, weights, over, room, first=place)
        else:
            shares = share_out(left, weights, first=place)
        for row, share in zip(rows, shares, strict=True):
            granted[row][place] += share


def _share_within(
    units: int, weights: list[float], crossed: list[list[int]], room: list[int], *, first: int
) -> list[int]:
    """Share out what the links crossed have room for, and take it of that.

    What one link has no room for goes to those who cross none that is full: each round fills one.
    """
    shares = [0] * len(weights)
    while units > 0:
        rows = [row for row, links in enumerate(crossed) if all(room[order] > 0 for order in links)]
        if not rows:
            break
        turn = sum(row < first % len(weights) for row in rows)
        parts = share_out(units, [weights[row] for row in rows], first=turn)
        given = dict(zip(rows, parts, strict=True))
        crossing: dict[int, list[int]] = {}
        for row in rows:
            for order in crossed[row]:
                crossing.setdefault(order, []).append(row)
        for order, over in sorted(crossing.items()):
            wanted = [given[row] for row in over]
            if sum(wanted) > room[order]:
                given.update(zip(over, share_out(room[order], wanted), strict=True))
        for row, part in given.items():
            shares[row] += part
            units -= part
            for order in crossed[row]:
                room[order] -= part
    return shares
