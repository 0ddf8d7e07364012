"""The best placement of a day's demand, each quarter of an hour by itself, and what limits it.

    minimise  sum rtt[p,o] x[p,o,k]  +  sum step[i] over[l,i]  +  sum weight[k] u[p,k]
    where     sum over o of x[p,o,k] + u[p,k] = demand[p,k]
              sum over p, j >= k of x[p,o,j] <= slots[o] x slots_part, less the reserve if k > 0
              sum over a link's pairs of mbps[p] x - sum over[l,i] <= what of it is free of cost
              over[l,i] <= its step, and the steps end at link_part

As much is served as can be, higher classes first; as every unit takes one slot, no plan that serves
as much uses more compute. Then round trips are least, and what filling links cost: steps as the
Well prices them. Parts on their way back to PoPs with viewers are there before anything is placed.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from edged.errors import SolverError
from edged.media.routing import CLASSES
from edged.policy.day_plan import (
    SCARCE_MS,
    DayPlan,
    Limits,
    LinkUse,
    Need,
    Network,
    OriginUse,
    Quarter,
)
from edged.policy.demand import SLOT_S
from edged.policy.flow_matrix import flow_columns, flow_entries
from edged.policy.flows import RTT_MS_MAX, RTT_UNKNOWN_MS, TIGHT, UNSERVED_MS
from edged.policy.linear_program import INFINITY, LinearProgram, Numbers, Optimum
from edged.policy.link_map import Crossing, LinkMap
from edged.policy.well import CLEAR_AT, MBPS_PER_UNIT, PRICE_FULL_MS, PRICE_STEP

PRICE_LEAST_MS = 1e-6  # Less is rounding.
UNITS_SHOWN_MIN = 0.001
LINK_SHOWN_FROM = 0.5  # Of its bandwidth.
STEP_MS = PRICE_FULL_MS * PRICE_STEP / (1 - CLEAR_AT)
K = len(CLASSES)

Floats = NDArray[np.float64]


class CapacityPlanner:
    """The program of one network and its PoPs; its numbers change with the demand."""

    def __init__(
        self, network: Network, pops: Sequence[str], limits: Limits, mbps_per_unit: Floats
    ) -> None:
        """`mbps_per_unit`: of each PoP; NaN where nobody told. Raises SolverError."""
        for what, names in (("PoP", pops), ("origin", network.origins)):
            if not names:
                raise SolverError(f"there is no {what} to plan for")
        self._network, self._pops, self.limits = network, list(pops), limits
        self._names = sorted(network.origins)
        self._slots = np.array([network.origins[name] for name in self._names], dtype=np.float64)
        known = mbps_per_unit[np.isfinite(mbps_per_unit)]
        self.mbps_assumed = not known.size
        usual = float(known.mean()) if known.size else MBPS_PER_UNIT
        self._mbps = np.where(np.isfinite(mbps_per_unit), mbps_per_unit, usual)
        self._rtt = np.array(
            [
                [network.rtt_ms.get(pop, {}).get(name, math.inf) for name in self._names]
                for pop in self._pops
            ],
            dtype=np.float64,
        ).reshape(len(self._pops), len(self._names))
        self._links = _Links(network, self._pops, self._names, limits.link_part)
        self._program = self._build()

    @property
    def off_map(self) -> list[str]:
        """PoPs and origins that no site has."""
        of_sites = {name for site in self._network.sites for name in (*site.pops, *site.origins)}
        return sorted({*self._pops, *self._names} - of_sites) if of_sites else []

    def plan(self, slot: int, demand: Floats, back_mbps: Floats) -> Quarter:
        """Place `demand`, units by PoP and class, while so many Mbps come back to each PoP."""
        pops, origins, links = len(self._pops), len(self._names), self._links
        back = links.background(back_mbps)
        free, steps = links.room(back)
        wanted = np.maximum(demand, 0.0).ravel()
        row_upper = np.concatenate([wanted, self._capacity().ravel(), free])
        row_lower = np.full(row_upper.size, -INFINITY)
        row_lower[: wanted.size] = wanted
        flows = pops * origins * K
        trips = np.clip(np.where(np.isfinite(self._rtt), self._rtt, RTT_UNKNOWN_MS), 0, RTT_MS_MAX)
        unbounded = np.full(flows + wanted.size, INFINITY)
        optimum = self._program.solve(
            Numbers(
                cost=np.concatenate(
                    [
                        np.repeat(trips.ravel(), K),
                        np.tile(UNSERVED_MS, pops),
                        np.tile(links.costs, len(links.names)),
                    ]
                ),
                lower=np.zeros(unbounded.size + steps.size),
                upper=np.concatenate([unbounded, steps.ravel()]),
                row_lower=row_lower,
                row_upper=row_upper,
            )
        )
        return self._quarter(slot, wanted, back, optimum)

    def _build(self) -> LinearProgram:
        links, flows = self._links, flow_columns(len(self._pops), len(self._names), K)
        steps = links.costs.size
        own = []
        for order, crossing in enumerate(links.crossed):
            found = flows.crossing(crossing.tolist())
            over = flows.columns + order * steps + np.arange(steps)
            own.append(
                (
                    np.full(found.size + steps, flows.rows + order),
                    np.concatenate([found, over]),
                    np.concatenate([self._mbps[flows.pop[found]], -np.ones(steps)]),
                )
            )
        return LinearProgram(
            flow_entries(flows, own),
            columns=flows.columns + len(links.names) * steps,
            rows=flows.rows + len(links.names),
        )

    def _capacity(self) -> Floats:
        """By origin, class: for it and those below it."""
        whole = self._slots * self.limits.slots_part
        reserve = np.ceil(self._slots * self._network.reserve_fraction)
        others = np.maximum(whole - reserve, 0.0)
        return np.stack([whole, *[others] * (K - 1)], axis=1)

    def _quarter(self, slot: int, wanted: Floats, back: Floats, optimum: Optimum) -> Quarter:
        pops, origins = len(self._pops), len(self._names)
        flows = pops * origins * K
        placed = np.maximum(optimum.values[:flows], 0.0).reshape(pops, origins, K).sum(axis=2)
        left = optimum.values[flows : flows + pops * K].reshape(pops, K)
        left = np.where(left > TIGHT, left, 0.0)
        known = np.isfinite(self._rtt)
        measured = float(placed[known].sum())
        trips = float((placed[known] * self._rtt[known]).sum())
        prices = np.maximum(optimum.row_prices, 0.0)
        of_origins = prices[pops * K : (pops + origins) * K].reshape(origins, K).sum(axis=1)
        missing = left.sum(axis=1)
        return Quarter(
            slot=slot,
            demand=float(wanted.sum()),
            unserved=left.sum(axis=0).tolist(),
            unserved_pops={
                pop: each
                for pop, each in zip(self._pops, missing.tolist(), strict=True)
                if each > 0
            },
            placed={
                pop: {
                    name: round(units, 3)
                    for name, units in zip(self._names, row, strict=True)
                    if units > UNITS_SHOWN_MIN
                }
                for pop, row in zip(self._pops, placed.tolist(), strict=True)
            },
            rtt_ms=trips / measured if measured > TIGHT else None,
            rtt_unknown=_rounded(float(placed[~known].sum())),
            origins=[
                OriginUse(
                    origin=name,
                    units=use,
                    part=use / total if total else 0.0,
                    # Of one more slot, so much is planned with.
                    price_ms=ms * self.limits.slots_part,
                    scarce=ms > SCARCE_MS,
                )
                for name, use, total, ms in zip(
                    self._names,
                    placed.sum(axis=0).tolist(),
                    self._slots.tolist(),
                    _clean(of_origins).tolist(),
                    strict=True,
                )
            ],
            links=self._links.uses(placed, self._mbps, back, prices[(pops + origins) * K :]),
        )


class _Links:
    """The directions of links that streams may cross, on a map with nothing cut."""

    def __init__(
        self, network: Network, pops: Sequence[str], origins: Sequence[str], part: float
    ) -> None:
        link_map = network.link_map()
        self._map, self._part = link_map, part
        bounds = [CLEAR_AT]
        while bounds[-1] < part - 1e-9:
            bounds.append(min(part, bounds[-1] + PRICE_STEP))
        self._bounds = np.array([min(CLEAR_AT, part), *bounds[1:]])
        self.costs: Floats = STEP_MS * np.arange(1, len(bounds), dtype=np.float64)
        crossed: dict[tuple[str, bool], list[int]] = defaultdict(list)
        shares: dict[tuple[str, bool], Floats] = defaultdict(lambda: np.zeros(len(pops)))
        for row, pop in enumerate(pops):
            came = network.back_mbps.get(pop, {})
            total = math.fsum(came.get(origin, 0.0) for origin in origins)
            for place, origin in enumerate(origins):
                for crossing in link_map.way(pop, origin) or ():
                    crossed[crossing.link, crossing.forward].append(row * len(origins) + place)
                    if total and came.get(origin):
                        back = (crossing.link, not crossing.forward)
                        shares[back][row] += came[origin] / total
        self.names = sorted({*crossed, *shares})
        self.crossed = [np.array(crossed[name], dtype=np.int64) for name in self.names]
        of_each = [shares[name] for name in self.names]
        self._shares = np.array(of_each).reshape(len(of_each), len(pops))
        self._whole = np.array([link_map.links[link].mbps for link, _ in self.names])

    def background(self, back_mbps: Floats) -> Floats:
        """Mbps of parts, by direction: from where they come as they came last."""
        return np.asarray(self._shares @ back_mbps)

    def room(self, back: Floats) -> tuple[Floats, Floats]:
        """By direction: Mbps that are free of cost, and those of each step."""
        ends = self._whole[:, None] * self._bounds
        free = np.maximum(ends[:, 0] - back, 0.0)
        steps = np.maximum(ends[:, 1:] - np.maximum(ends[:, :-1], back[:, None]), 0.0)
        return free, steps

    def uses(
        self, placed: Floats, mbps_per_unit: Floats, back: Floats, prices: Floats
    ) -> list[LinkUse]:
        """Those at least half full, or that are a limit; `placed`: units by PoP, origin."""
        found = []
        flat = (placed * mbps_per_unit[:, None]).ravel()
        of_unit = float(mbps_per_unit.max(initial=0.0))
        worth = _clean(self._worth(back, prices))
        for order, (link, forward) in enumerate(self.names):
            mbps = float(flat[self.crossed[order]].sum() + back[order])
            part = mbps / float(self._whole[order])
            if part < LINK_SHOWN_FROM and not worth[order]:
                continue
            found.append(
                LinkUse(
                    link=link,
                    towards=_end(self._map, Crossing(link, forward)),
                    mbps=mbps,
                    back_mbps=float(back[order]),
                    part=part,
                    price_ms=float(worth[order]),
                    scarce=float(prices[order]) * of_unit > SCARCE_MS,
                )
            )
        return found

    def _worth(self, back: Floats, prices: Floats) -> Floats:
        """What one more Mbps of bandwidth saves: it moves every step that begins beyond `back`."""
        ends = self._whole[:, None] * self._bounds
        worth: Floats = np.where(back < ends[:, 0], self._bounds[0], 0.0) * prices
        for i, cost in enumerate(self.costs):
            moved = np.where(back < ends[:, i], self._bounds[i + 1] - self._bounds[i],
                             np.where(back < ends[:, i + 1], self._bounds[i + 1], 0.0))  # fmt: skip
            worth += moved * np.maximum(prices - cost, 0.0)
        return worth


def plan_day(
    planner: CapacityPlanner,
    begin: int,
    demand: Floats,
    back_mbps: Floats,
    told: Callable[[int], None] = lambda _: None,
) -> DayPlan:
    """Plan each slot from `begin` on: `demand` by slot, PoP, class. `told` hears of each."""
    quarters = []
    for place in range(len(demand)):
        told(begin + place)
        quarters.append(planner.plan(begin + place, demand[place], back_mbps[place]))
    most = max((each.missing for each in quarters), default=0.0)
    return DayPlan(
        quarters=quarters,
        needs=find_needs(quarters),
        unserved_most=most,
        slots_missing=math.ceil(_rounded(most) / planner.limits.slots_part),
        mbps_assumed=planner.mbps_assumed,
        off_map=planner.off_map,
    )


def find_needs(quarters: Sequence[Quarter]) -> list[Need]:
    """Every limit with a price, dearest first."""
    found: dict[tuple[str, str], list[OriginUse | LinkUse]] = defaultdict(list)
    for quarter in quarters:
        for origin in quarter.origins:
            if origin.price_ms:
                found["origin", origin.origin].append(origin)
        for link in quarter.links:
            if link.price_ms:
                found["link", f"{link.link} to {link.towards}"].append(link)
    needs = [
        Need(
            kind=kind,
            name=name,
            hours=len(uses) * SLOT_S / 3600,
            price_ms=max(use.price_ms for use in uses),
            scarce=any(use.scarce for use in uses),
        )
        for (kind, name), uses in found.items()
    ]
    return sorted(needs, key=lambda need: (-need.price_ms, -need.hours, need.kind, need.name))


def _end(link_map: LinkMap, crossing: Crossing) -> str:
    return link_map.links[crossing.link].ends[crossing.forward]


def _clean(prices: Floats) -> Floats:
    return np.where(prices > PRICE_LEAST_MS, prices, 0.0)


def _rounded(units: float) -> float:
    return round(units, 6)
