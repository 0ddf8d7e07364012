"""Planning leases: how much of each origin every PoP may fill without asking.

A quota is what the PoP has at the origin + its share of the free slots. Shares never add up to more
than is free less the reserve, and are whole units. An origin that takes no streams has nothing to
share. Two policies make the shares:

- "leases": the solver's, towards the best placement of all demand (`lease_shares`);
- "proportional": by arrivals alone. Also what is left when the solver fails.

The reserve is for partners, as large as they need (`partner_reserve`). What of it is free is shared
out as well, as `kept`: units beyond the quota that only they may use. Where partners have eaten
into it, the others' quotas shrink by as much, so that it fills again as streams leave.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct, structs

from edged.errors import SolverError
from edged.media.routing import NO_UNITS, UNITS_MAX, ByClass, OriginRow, OriginState
from edged.media.stream import PriorityClass
from edged.policy.flows import FlowProblem, FlowSolution, FlowSolve, LinkLimit
from edged.policy.lease_shares import (
    ARRIVALS_FLOOR,
    HORIZON_S_MAX,
    OriginOffer,
    Shares,
    share_by_flows,
    share_out,
)
from edged.policy.partner_reserve import keep_for_partners
from edged.policy.pop_needs import BoundDemand, find_parts, keep_within, wishes_of
from edged.policy.routing_table import price_ms

MARGIN_PART = 0.002  # Of an origin: placed by the leases before while these are on their way.
# Of what is free of all origins: when little is left, each unit kept back turns somebody away.
MARGIN_OF_FREE = 0.2
ARRIVALS_SMOOTHING = 0.1  # Of a demand's: weight of the newest second; follows a surge within ten.
PlanPolicy = Literal["leases", "proportional"]


class OriginSupply(Struct, frozen=True, kw_only=True):
    """An origin as the planner sees it."""

    origin: str
    address: str
    state: OriginState
    slots_total: int
    room: ByClass  # Free units that each class may be given now, ramp counted.
    domain: str = ""
    ladders: ByClass | None = None  # Units of each class that would have a ladder; None: not told.


class PopDemand(Struct, frozen=True, kw_only=True):
    """A PoP shard as the planner sees it."""

    pop: str  # Key of the shard: "lhr/0".
    units: dict[str, ByClass] = {}  # Now at each origin.
    arrivals_per_s: float = 0.0
    rtt_ms: dict[str, float] = {}  # To each origin that it has measured.
    bound: tuple[BoundDemand, ...] = ()  # What of it rules bind.

    @property
    def name(self) -> str:
        """The PoP whose shard it is: "lhr"."""
        return self.pop.partition("/")[0]


class PopLeases(Struct, frozen=True):
    """What one PoP shard is given.

    `kept`: units beyond the quota of an origin's row that only partners may use; those above 0.
    """

    rows: tuple[OriginRow, ...]  # Sorted by origin.
    kept: dict[str, int] = {}


class LeasePlan(Struct, frozen=True, kw_only=True):
    """A plan, and how it came about."""

    leases: dict[str, PopLeases]  # By shard.
    policy: PlanPolicy
    failure: str = ""  # Why it is "proportional" although there is a solver.
    problem: FlowProblem | None = None  # All demand on all capacity, for `explain_flows`.
    solution: FlowSolution | None = None


class _Supply(Struct, frozen=True):
    """An origin, its room divided."""

    origin: OriginSupply
    reserve: int
    free: int  # Units that any class may have.
    kept: int  # Units that only partners may have.
    missing: int  # Units by which the reserve is not there.


def plan_leases(
    origins: Sequence[OriginSupply],
    pops: Sequence[PopDemand],
    *,
    reserve_fraction: float,
    solve: FlowSolve | None = None,
    horizon_s: float = 10.0,
    links: tuple[LinkLimit, ...] = (),
    margin_fraction: float = MARGIN_PART,
    pins: bool = True,
) -> LeasePlan:
    """Make the rows of every PoP shard.

    `reserve_fraction` of each origin is kept for partners at most. `margin_fraction` is in no
    lease, unless little is free: there is what those before have let place.
    `solve`: of a `FlowSolver`; without one the policy is "proportional". `horizon_s`: for how long
    the leases are to suffice. `links`: limits of the backbone for all units, those there included.
    `pins`: whether programs count who may go to one origin alone as pins; the optimum is the same,
    but it may be another of equal ones.
    """
    origins = sorted(origins, key=lambda supply: supply.origin)
    reserves = find_reserves(origins, pops, fraction_max=reserve_fraction, horizon_s=horizon_s)
    margin_fraction = min(margin_fraction, MARGIN_OF_FREE * _free_fraction(origins, reserves))
    supplies = [
        _divide(supply, reserve, margin_fraction)
        for supply, reserve in zip(origins, reserves, strict=True)
    ]
    shares, failure, by_flows = None, "", None
    if solve is not None:
        try:
            by_flows, shares = _share_by_flows(supplies, pops, solve, horizon_s, links, pins=pins)
        except SolverError as error:
            failure = str(error)
    if shares is None:
        shares = _share_by_arrivals(supplies, pops)
    return LeasePlan(
        leases=_make_leases(supplies, pops, shares),
        policy="proportional" if by_flows is None else "leases",
        failure=failure,
        problem=None if by_flows is None else by_flows.problem,
        solution=None if by_flows is None else by_flows.solution,
    )


def without_coming(
    origins: Sequence[OriginSupply], coming: Mapping[str, int]
) -> list[OriginSupply]:
    """The same without the room that streams on their way there will take."""
    found = []
    for origin in origins:
        if units := coming.get(origin.origin, 0):
            first, second, third = (max(0, room - units) for room in origin.room)
            origin = structs.replace(origin, room=(first, second, third))  # noqa: PLW2901
        found.append(origin)
    return found


def find_reserves(
    origins: Sequence[OriginSupply],
    pops: Sequence[PopDemand],
    *,
    fraction_max: float,
    horizon_s: float,
) -> list[int]:
    """Units of each origin that are kept for partners who may come in that time."""
    partners: Counter[str] = Counter()
    coming = 0.0
    for pop in pops:
        of_class = {name: counts[PriorityClass.PARTNER] for name, counts in pop.units.items()}
        partners.update(of_class)
        if there := sum(map(sum, pop.units.values())):
            coming += max(0.0, pop.arrivals_per_s) * sum(of_class.values()) / there
    return keep_for_partners(
        [origin.slots_total for origin in origins],
        [partners[origin.origin] for origin in origins],
        min(coming * min(horizon_s, HORIZON_S_MAX), UNITS_MAX),
        fraction_max=fraction_max,
    )


def _free_fraction(origins: Sequence[OriginSupply], reserves: Sequence[int]) -> float:
    """The part of all slots that any class might have."""
    open_ = [
        (max(0, min(origin.room[PriorityClass.PARTNER] - reserve, *origin.room)), origin)
        for origin, reserve in zip(origins, reserves, strict=True)
        if origin.state.takes_streams
    ]
    total = sum(origin.slots_total for _, origin in open_)
    return sum(free for free, _ in open_) / total if total else 0.0


def _divide(supply: OriginSupply, reserve: int, margin_fraction: float) -> _Supply:
    """Divide the room into what all may have and what is kept for partners."""
    if not supply.state.takes_streams:
        return _Supply(supply, reserve, 0, 0, 0)
    partner = max(0, supply.room[PriorityClass.PARTNER])
    margin = math.floor(supply.slots_total * margin_fraction)
    free = max(0, min(partner - reserve, *supply.room) - margin)
    return _Supply(supply, reserve, free, partner - free, max(0, reserve - partner))


def _share_by_arrivals(supplies: Sequence[_Supply], pops: Sequence[PopDemand]) -> list[list[int]]:
    """Free units by origin, shard; none for who may not go there."""
    shards = Counter(pop.name for pop in pops)
    wishes = [wishes_of(pop, ARRIVALS_FLOOR / shards[pop.name]) for pop in pops]
    return [
        _share_if_any(supply.free, [each.at(supply.origin.origin) for each in wishes], first=place)
        for place, supply in enumerate(supplies)
    ]


def _share_if_any(units: int, weights: Sequence[float], *, first: int) -> list[int]:
    return share_out(units, weights, first=first) if any(weights) else [0] * len(weights)


def _share_by_flows(
    supplies: Sequence[_Supply],
    pops: Sequence[PopDemand],
    solve: FlowSolve,
    horizon_s: float,
    links: tuple[LinkLimit, ...],
    *,
    pins: bool,
) -> tuple[Shares, list[list[int]]]:
    """How it came about, and free units by origin, shard."""
    names = [supply.origin.origin for supply in supplies]
    open_ = {supply.origin.origin for supply in supplies if supply.origin.state.takes_streams}
    pops = keep_within(pops, names)
    by_name: dict[str, list[int]] = {}
    for index, pop in enumerate(pops):
        by_name.setdefault(pop.name, []).append(index)
    parts = [
        (part, indices)
        for name, indices in sorted(by_name.items())
        for part in find_parts(name, [pops[index] for index in indices], names, open_)
    ]
    there = _units_at(pops)
    offers = [
        OriginOffer(
            name=name,
            free=supply.free,
            capacity=_capacity(supply, there[name]),
            ladders=_ladders_for_all(supply.origin),
        )
        for name, supply in zip(names, supplies, strict=True)
    ]
    needs = [part.need for part, _ in parts]
    shares = share_by_flows(needs, offers, solve, horizon_s=horizon_s, links=links, pins=pins)
    divided = [[0] * len(pops) for _ in supplies]
    for (part, indices), row in zip(parts, shares.units, strict=True):
        for place, units in enumerate(row):
            if not units:
                continue
            of_shards = share_out(units, part.weights, first=place) if indices[1:] else [units]
            for index, share in zip(indices, of_shards, strict=True):
                divided[place][index] += share
    return shares, divided


def _units_at(pops: Sequence[PopDemand]) -> Counter[str]:
    """Of all PoPs, by origin."""
    units = Counter[str]()
    for pop in pops:
        for name, (partner, affiliate, basic) in pop.units.items():
            units[name] += partner + affiliate + basic
    return units


def _ladders_for_all(origin: OriginSupply) -> int | None:
    """A lease is for any class, and only a higher one has what a lower one would give up."""
    return None if origin.ladders is None else origin.ladders[PriorityClass.BASIC]


def with_ladders_only(origins: Sequence[OriginSupply]) -> Sequence[OriginSupply]:
    """The origins with no more room than they have ladders; as they are if none makes any."""
    if all(origin.ladders is None for origin in origins):
        return origins
    limited = []
    for origin in origins:
        partner, affiliate, basic = map(min, origin.room, origin.ladders or NO_UNITS)
        limited.append(structs.replace(origin, room=(partner, affiliate, basic)))
    return limited


def _capacity(supply: _Supply, there: int) -> ByClass:
    """What each class and those below it may have in all; nothing where no stream is to stay."""
    if not supply.origin.state.takes_streams:
        return NO_UNITS
    first, second, third = _rooms(supply.origin, supply.reserve)
    return (max(0, there + first), max(0, there + second), max(0, there + third))


def _rooms(origin: OriginSupply, reserve: int) -> ByClass:
    """Units more for each class and those below it; below 0 where partners use their reserve."""
    partner, affiliate, basic = origin.room
    partner = max(0, partner)
    return (partner, min(affiliate, partner - reserve), min(basic, partner - reserve))


def rooms_of(origin: OriginSupply, reserve: int) -> ByClass:
    """Units that each class and those below it may be given now, with so many kept for partners."""
    if not origin.state.takes_streams:
        return NO_UNITS
    rooms = _rooms(origin, reserve)
    return (max(0, rooms[0]), max(0, rooms[1]), max(0, rooms[2]))


def _make_leases(
    supplies: Sequence[_Supply], pops: Sequence[PopDemand], shares: Sequence[Sequence[int]]
) -> dict[str, PopLeases]:
    """Make the rows: `shares` are free units by origin, shard."""
    rows: list[list[OriginRow]] = [[] for _ in pops]
    kept: list[dict[str, int]] = [{} for _ in pops]
    shards = Counter(pop.name for pop in pops)
    partners = [
        ARRIVALS_FLOOR / shards[pop.name]
        + sum(counts[PriorityClass.PARTNER] for counts in pop.units.values())
        for pop in pops
    ]
    wishes = [wishes_of(pop, ARRIVALS_FLOOR) if pop.bound else None for pop in pops]
    for place, supply in enumerate(supplies):
        origin, name, reserve = supply.origin, supply.origin.origin, supply.reserve
        address, state, domain = origin.address, origin.state, origin.domain
        total = origin.slots_total
        price = round(price_ms(1 - min(origin.room) / total) if total else 0.0, 1)
        there = [sum(pop.units.get(name, NO_UNITS)) for pop in pops]
        quotas = [units + share for units, share in zip(there, shares[place], strict=True)]
        extra = []
        if supply.kept:
            may = [
                weight if wish is None or wish.at(name) else 0.0
                for wish, weight in zip(wishes, partners, strict=True)
            ]
            extra = _share_if_any(supply.kept, may, first=place)
        if supply.missing and any(there):
            missing = share_out(min(supply.missing, sum(there)), there, first=place)
            quotas = [quota - less for quota, less in zip(quotas, missing, strict=True)]
            extra = [
                more + less for more, less in zip(extra or [0] * len(pops), missing, strict=True)
            ]
        for index, units in enumerate(extra):
            if units:
                kept[index][name] = units
        for row, quota in zip(rows, quotas, strict=True):
            quota = min(quota, UNITS_MAX)  # noqa: PLW2901 - beyond it a PoP refuses the table
            row.append(OriginRow(name, address, state, quota, price, reserve, domain))
    return {
        pop.pop: PopLeases(tuple(of), more) for pop, of, more in zip(pops, rows, kept, strict=True)
    }
