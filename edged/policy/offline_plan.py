"""The best placement of a day's expected demand, hour by hour, and what it says of the network.

Each hour takes the highest of its slots, PoP by PoP. As much is served as can be, higher classes
first, then with the least round trips and tolls, no origin and no link beyond its part (`Limits`).
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from edged.errors import SolverError
from edged.media.routing import CLASSES, UNITS_MAX
from edged.policy.demand import SLOT_S
from edged.policy.flows import (
    RTT_MS_MAX,
    FlowExplanation,
    FlowProblem,
    FlowSolve,
    LinkLimit,
    explain_flows,
)
from edged.policy.forecast import Expected

SLOTS_PER_HOUR = 3600 // SLOT_S
Demand = Mapping[str, Sequence[float]]  # By PoP: units by class.


class Site(Struct, frozen=True, kw_only=True):
    """An origin: what it has."""

    origin: str
    slots_total: int


class Topology(Struct, frozen=True, kw_only=True):
    """The network that is planned for."""

    origins: list[Site]
    rtt_ms: dict[str, dict[str, float]]  # PoP -> origin -> with tolls.
    links: tuple[LinkLimit, ...] = ()  # Whole.


class Limits(Struct, frozen=True, kw_only=True):
    """How much of all may be planned: the rest is for what no plan knows."""

    slots_part: float = 0.95
    link_part: float = 0.9
    reserve_fraction: float = 0.002  # Of each origin, for partners.


class OriginHour(Struct, frozen=True, kw_only=True):
    """An origin in an hour."""

    origin: str
    units: float
    part: float  # Of its slots.
    price_ms: float  # What one more slot there saves; above RTT_MS_MAX it serves who has no place.


class Hour(Struct, frozen=True, kw_only=True):
    """One hour of the plan."""

    slot: int  # Its first.
    demand: float
    unserved: list[float]  # By class.
    rtt_ms: float  # The mean, of what is served.
    origins: list[OriginHour]
    explanation: FlowExplanation

    @property
    def served(self) -> float:
        """The part of the demand that has a place; 1 where there is none."""
        return 1.0 - math.fsum(self.unserved) / self.demand if self.demand else 1.0


class Need(Struct, frozen=True, kw_only=True):
    """An origin or a link that is a limit, over the day."""

    kind: str
    name: str
    hours: int  # In which it binds.
    price_ms: float  # The highest.
    scarce: bool  # More of it would serve who has no place.


class DayPlan(Struct, frozen=True, kw_only=True):
    """All hours, and what follows."""

    hours: list[Hour]
    needs: list[Need]  # Dearest first.
    missing: float  # Slots that all origins together lack in the worst hour.


def demand_of(rows: Sequence[Expected], *, high: bool) -> dict[int, dict[str, list[float]]]:
    """Of each hour, by its first slot: each PoP's highest slot, class by class."""
    hours: dict[int, dict[str, list[float]]] = defaultdict(dict)
    for row in rows:
        hour = hours[row.slot - row.slot % SLOTS_PER_HOUR]
        units = row.high if high else row.expected
        known = hour.setdefault(row.pop, [0.0] * len(CLASSES))
        hour[row.pop] = [max(pair) for pair in zip(known, units, strict=True)]
    return dict(sorted(hours.items()))


def plan_day(
    demands: Mapping[int, Demand],
    topology: Topology,
    limits: Limits,
    solve: FlowSolve,
    told: Callable[[int], None] = lambda _: None,
) -> DayPlan:
    """Plan each hour; `told` hears of each as it begins. Raises SolverError."""
    if not topology.origins:
        raise SolverError("there is no origin to plan for")
    hours = []
    for slot, demand in demands.items():
        told(slot)
        hours.append(_plan_hour(slot, demand, topology, limits, solve))
    slots = math.fsum(_usable(site, limits) for site in topology.origins)
    most = max((hour.demand for hour in hours), default=0.0)
    return DayPlan(hours=hours, needs=_needs(hours), missing=max(0.0, most - slots))


def _plan_hour(
    slot: int, demand: Demand, topology: Topology, limits: Limits, solve: FlowSolve
) -> Hour:
    pops = sorted(demand)
    names = [site.origin for site in topology.origins]
    problem = FlowProblem(
        pops=pops,
        origins=names,
        demand=[[float(math.ceil(units)) for units in demand[pop]] for pop in pops],
        capacity=[_capacity(site, limits) for site in topology.origins],
        rtt_ms=[
            [topology.rtt_ms.get(pop, {}).get(name, math.inf) for name in names] for pop in pops
        ],
        links=tuple(
            LinkLimit(
                name=link.name,
                mbps=limits.link_part * link.mbps,
                mbps_per_unit=link.mbps_per_unit,
                pairs=link.pairs,
            )
            for link in topology.links
        ),
    )
    solution = solve(problem)
    placed = [
        math.fsum(units for row in solution.units for units in row[o]) for o in range(len(names))
    ]
    served = math.fsum(placed)
    missing = [math.fsum(row[k] for row in solution.unserved) for k in range(len(CLASSES))]
    of_the_way = math.fsum(
        problem.rtt_ms[p][o] * math.fsum(solution.units[p][o])
        for p in range(len(pops))
        for o in range(len(names))
        if any(solution.units[p][o]) and math.isfinite(problem.rtt_ms[p][o])
    )
    return Hour(
        slot=slot,
        demand=math.fsum(units for classes in problem.demand for units in classes),
        unserved=missing,
        rtt_ms=of_the_way / served if served else 0.0,
        origins=[
            OriginHour(
                origin=site.origin,
                units=units,
                part=units / site.slots_total if site.slots_total else 0.0,
                price_ms=max(solution.origin_prices[o]),
            )
            for o, (site, units) in enumerate(zip(topology.origins, placed, strict=True))
        ],
        explanation=explain_flows(problem, solution),
    )


def _usable(site: Site, limits: Limits) -> float:
    return math.floor(min(site.slots_total, UNITS_MAX) * limits.slots_part)


def _capacity(site: Site, limits: Limits) -> list[float]:
    whole = _usable(site, limits)
    others = max(0.0, whole - math.ceil(site.slots_total * limits.reserve_fraction))
    return [whole, *[others] * (len(CLASSES) - 1)]


def _needs(hours: Sequence[Hour]) -> list[Need]:
    prices: dict[tuple[str, str], list[float]] = defaultdict(list)
    for hour in hours:
        found: dict[tuple[str, str], float] = {}
        for each in hour.explanation.binding:
            key = (each.kind, each.name)
            found[key] = max(found.get(key, 0.0), each.price_ms)
        for key, price in found.items():
            prices[key].append(price)
    needs = [
        Need(
            kind=kind, name=name, hours=len(each), price_ms=max(each),
            scarce=max(each) > RTT_MS_MAX,
        )
        for (kind, name), each in prices.items()
    ]  # fmt: skip
    return sorted(needs, key=lambda need: (-need.price_ms, -need.hours, need.kind, need.name))
