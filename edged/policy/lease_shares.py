"""Sharing out free slots: proportionally, or by linear programs towards the best placement.

Two programs. The first places all demand (what there is + what will come) on all capacity: its
prices say what a slot of each origin is worth. The second gives free slots to those who will need
some before long, at the least detour beyond those prices. What is left goes to everyone by demand,
the nearest first, so that no free slot is idle; except across a link that is full.
"""

import math
from collections.abc import Sequence
from math import inf
from typing import TypeVar

from msgspec import Struct, structs

from edged.media.routing import UNITS_MAX, ByClass
from edged.policy.flows import (
    RTT_MS_MAX,
    RTT_UNKNOWN_MS,
    TIGHT,
    FlowPin,
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
    pins: bool = True,
) -> Shares:
    """Share by linear programs; raises SolverError.

    `pins`: who may go to one origin alone is no row of these, but a pin; the optimum is the same.
    """
    split = _Split(pops, [origin.name for origin in origins], pins=pins)
    links = _with_parts(links, pops)
    demand = [pop.demand(horizon_s) for pop in pops]
    problem = FlowProblem(
        pops=split.names,
        origins=split.origins,
        demand=split.of_rows(demand),
        capacity=[origin.capacity for origin in origins],
        rtt_ms=[pop.rtt_ms for pop in split.of_rows(pops)],
        forbidden=split.forbidden,
        links=links,
        pins=split.make_pins(demand, near=False),
    )
    solution = solve(problem)
    detours = _detours(problem, solution)
    if links:
        there = [[sum(counts) for counts in pop.units] for pop in pops]
        links = _links_left(links, pops, split.origins, there)
    needs = [pop.slots_needed(horizon_s) for pop in pops]
    total = sum(origin.free for origin in origins)
    if sum(needs) > total:
        needs = share_out(total, needs)
    growth = FlowProblem(  # Its costs are detours: what counts is how far from the best it goes.
        pops=problem.pops,
        origins=problem.origins,
        demand=[(need,) for need in split.of_rows(needs)],
        capacity=[(origin.free,) for origin in origins],
        rtt_ms=detours,
        forbidden=problem.forbidden,
        links=links,
        pins=split.make_pins([(need,) for need in needs], near=True),
    )
    granted = _grow(growth, origins, split, solve)
    if links:
        links = _links_left(links, pops, split.origins, granted)
    _share_rest(pops, origins, granted, split.of_all(detours), links)
    return Shares(units=granted, problem=problem, solution=solution)


_Item = TypeVar("_Item")


class _Split:
    """Who is a row of the programs, and who a pin."""

    def __init__(self, pops: Sequence[PopNeed], origins: list[str], *, pins: bool) -> None:
        self.origins, self.pops = origins, pops
        places = {origin: place for place, origin in enumerate(origins)}
        self._rows: list[int] = []
        self._pins: list[tuple[int, int]] = []  # Which, and the place of its origin; -1: none.
        forbidden = []
        for index, pop in enumerate(pops):
            if pop.allowed is None:
                self._rows.append(index)
                continue
            open_ = [places[origin] for origin in pop.allowed if origin in places]
            if pins and len(open_) <= 1:
                self._pins.append((index, open_[0] if open_ else -1))
                continue
            self._rows.append(index)
            forbidden += [(pop.name, name) for name in origins if name not in pop.allowed]
        self.forbidden = frozenset(forbidden)
        self.names = [pops[index].name for index in self._rows]

    def of_rows(self, items: Sequence[_Item]) -> list[_Item]:
        """Of one for each PoP or part those of rows."""
        return [items[index] for index in self._rows] if self._pins else list(items)

    def of_all(self, detours: list[list[float]]) -> list[list[float]]:
        """Of one for each row one for each PoP or part: a pin's one way is no detour."""
        if not self._pins:
            return detours
        straight = [0.0] * len(self.origins)
        found = [straight] * len(self.pops)
        for index, of_row in zip(self._rows, detours, strict=True):
            found[index] = of_row
        return found

    def make_pins(self, demand: Sequence[Sequence[float]], *, near: bool) -> tuple[FlowPin, ...]:
        """The pins with this demand of all; `near`: all ways are short."""
        made = []
        for index, place in self._pins:
            pop = self.pops[index]
            origin = self.origins[place] if place >= 0 else ""
            rtt_ms = 0.0 if near or place < 0 else pop.rtt_ms[place]
            made.append(FlowPin(pop.name, origin, demand[index], rtt_ms))
        return tuple(made)

    def add_whole(self, granted: list[list[int]], given: FlowSolution) -> None:
        """Add to what each PoP or part has of each origin the whole units of these."""
        for index, of_pop in zip(self._rows, given.units, strict=True):
            row = granted[index]
            for place, (units,) in enumerate(of_pop):
                if units:
                    row[place] += math.floor(units + TIGHT)
        for (index, place), (units,) in zip(self._pins, given.pinned, strict=True):
            if units:
                granted[index][place] += math.floor(units + TIGHT)

    def less(self, growth: FlowProblem, granted: list[list[int]]) -> FlowProblem:
        """What is wanted yet when so much is granted."""
        had = [sum(row) for row in granted]
        return structs.replace(
            growth,
            demand=[
                (need - units,)
                for (need,), units in zip(growth.demand, self.of_rows(had), strict=True)
            ],
            pins=tuple(
                structs.replace(pin, demand=(pin.demand[0] - had[index],))
                for pin, (index, _) in zip(growth.pins, self._pins, strict=True)
            ),
            capacity=[
                (units - sum(row[place] for row in granted),)
                for place, (units,) in enumerate(growth.capacity)
            ],
            links=_links_left(growth.links, self.pops, self.origins, granted),
        )


def _grow(
    growth: FlowProblem, origins: Sequence[OriginOffer], split: _Split, solve: FlowSolve
) -> list[list[int]]:
    """Units by PoP or part, origin: where they would have a ladder first, the rest anywhere."""
    makers = [min(origin.free, origin.ladders or 0) for origin in origins]
    granted = [[0] * len(origins) for _ in split.pops]
    if any(makers) and makers != [origin.free for origin in origins]:
        first = structs.replace(growth, capacity=[(units,) for units in makers])
        split.add_whole(granted, solve(first))
        growth = split.less(growth, granted)
    split.add_whole(granted, solve(growth))
    return granted


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


def _links_left(
    links: tuple[LinkLimit, ...],
    pops: Sequence[PopNeed],
    origins: Sequence[str],
    units: list[list[int]],
) -> tuple[LinkLimit, ...]:
    """The links with what these units leave of them."""
    if not links:
        return ()
    left = []
    of_links = find_places([pop.name for pop in pops], origins, [link.pairs for link in links])
    for link, crossing in zip(links, of_links, strict=True):
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
