"""What a PoP needs of origins, by where its streams may go: those that a rule binds apart.

A part is a row of the leases' program: the streams of a PoP that may go to the same origins. So no
lease is made for streams where their rules forbid them, and what only one origin may have, as a pin
says, has its room there before those who could go elsewhere.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from edged.media.routing import NO_UNITS, BoundUnits, ByClass
from edged.policy.flows import RTT_MS_MAX, RTT_UNKNOWN_MS
from edged.policy.lease_shares import ARRIVALS_FLOOR, PopNeed

if TYPE_CHECKING:
    from edged.policy.planner import PopDemand

PARTS_MAX = 256  # Beside one of each PoP: with all of them a plan takes three times as long.
LAST_RESORT_MS = 400.0  # As the price of a full origin: what a rule puts behind comes after it.


class BoundDemand(Struct, frozen=True, kw_only=True):
    """Streams of a shard whose rules leave them these origins: `first`, else `then`.

    Of `units` those that are live are moved to `first` alone (`firm`), or not at all (`fixed`).
    """

    first: tuple[str, ...]
    then: tuple[str, ...] = ()
    units: dict[str, ByClass] = {}  # Now at each origin.
    firm: dict[str, ByClass] = {}
    fixed: dict[str, ByClass] = {}
    arrivals_per_s: float = 0.0
    newcomers: bool = False  # So is who comes and is not known yet.


def bound_demand(told: BoundUnits, arrivals_per_s: float) -> BoundDemand:
    """Of what a PoP told; what an older one does not tell is taken to be so of none."""
    held = dict(zip(told.units, told.held, strict=False))
    return BoundDemand(
        first=told.first,
        then=told.then,
        units=told.units,
        firm={origin: firm for origin, (firm, _) in held.items() if any(firm)},
        fixed={origin: fixed for origin, (_, fixed) in held.items() if any(fixed)},
        arrivals_per_s=arrivals_per_s,
        newcomers=told.newcomers,
    )


class Part(Struct, frozen=True, kw_only=True):
    """Streams of a PoP that may go to the same origins, and how they are spread over its shards."""

    need: PopNeed
    weights: Sequence[float]  # Of the shards, in their order; one at least is above 0.


class _Share(Struct, frozen=True):
    """What one shard has of a part."""

    units: Mapping[str, ByClass]
    arrivals_per_s: float
    floor: float  # For who comes and is not known yet.


_Names = tuple[str, ...]
_Key = tuple[_Names, _Names]  # First, then.


def find_parts(
    name: str, shards: Sequence["PopDemand"], origins: Sequence[str], open_: set[str]
) -> list[Part]:
    """One PoP of all its shards; `open_`: origins that take streams."""
    rtt_ms = _nearest(shards)
    floor = ARRIVALS_FLOOR / len(shards)
    parts = [_part(name, [_free(shard, floor) for shard in shards], origins, open_, rtt_ms)]
    keys = {(bound.first, bound.then) for shard in shards for bound in shard.bound}
    for first, then in sorted(keys):
        shares = [_bound(shard, (first, then), floor) for shard in shards]
        label = f"{name} to {','.join(first) or 'nowhere'}{' or ' if then else ''}{','.join(then)}"
        costs = {origin: rtt_ms.get(origin, math.inf) for origin in first}
        for origin in then:
            rtt = rtt_ms.get(origin, math.inf)
            rtt = (rtt if rtt < RTT_MS_MAX else RTT_UNKNOWN_MS) + LAST_RESORT_MS
            costs[origin] = min(RTT_MS_MAX, rtt)
        allowed = frozenset((*first, *then))
        parts.append(_part(label, shares, origins, open_, costs, of_pop=name, allowed=allowed))
    return parts


def keep_within(
    pops: Sequence["PopDemand"], origins: Sequence[str], most: int = PARTS_MAX
) -> Sequence["PopDemand"]:
    """The same with at most so many parts beside the PoPs.

    Where there are more, what rules only put behind counts as what they allow; if there still are,
    the least of what is bound counts as free to go: its PoP will not send it where it may not.
    """
    if len(_parts_of(pops)) <= most:
        return pops
    pops = [
        msgspec.structs.replace(
            pop,
            bound=tuple(
                msgspec.structs.replace(bound, first=allowed, then=())
                for bound in pop.bound
                if not set(origins) <= {*(allowed := tuple(sorted((*bound.first, *bound.then))))}
            ),
        )
        for pop in pops
    ]
    weights = _parts_of(pops)
    if len(weights) <= most:
        return pops
    kept = set(sorted(weights, key=lambda part: (-weights[part], part))[:most])
    return [
        msgspec.structs.replace(
            pop,
            bound=tuple(
                bound for bound in pop.bound if (pop.name, bound.first, bound.then) in kept
            ),
        )
        for pop in pops
    ]


def _parts_of(pops: Sequence["PopDemand"]) -> dict[tuple[str, _Names, _Names], float]:
    """Each part, by PoP, and how much of it there is."""
    weights: dict[tuple[str, _Names, _Names], float] = {}
    for pop in pops:
        for bound in pop.bound:
            part = (pop.name, bound.first, bound.then)
            weights[part] = (
                weights.get(part, 0.0) + sum(map(sum, bound.units.values())) + bound.arrivals_per_s
            )
    return weights


class Wishes(Struct, frozen=True):
    """How much a shard wants origins: by the arrivals of those who may go there."""

    anywhere: float
    more: dict[str, float]

    def at(self, origin: str) -> float:
        """Of one origin; 0: nobody may go there."""
        return self.anywhere + self.more.get(origin, 0.0)


def wishes_of(pop: "PopDemand", floor: float) -> Wishes:
    """What of a shard may go where; `floor`: of who comes and is not known yet."""
    arrivals, floor_left = _free_arrivals(pop, floor)
    more: dict[str, float] = {}
    for bound in pop.bound:
        wish = (floor if bound.newcomers else 0.0) + max(0.0, bound.arrivals_per_s)
        for origin in (*bound.first, *bound.then):
            more[origin] = more.get(origin, 0.0) + wish
    return Wishes(floor_left + arrivals, more)


def _free(shard: "PopDemand", floor: float) -> _Share:
    """What no rule binds."""
    arrivals, floor = _free_arrivals(shard, floor)
    if not shard.bound:
        return _Share(shard.units, arrivals, floor)
    units = dict(shard.units)
    for bound in shard.bound:
        for origin, counts in bound.units.items():
            one, other, third = units.get(origin, NO_UNITS)
            units[origin] = (
                max(0, one - counts[0]),
                max(0, other - counts[1]),
                max(0, third - counts[2]),
            )
    return _Share(units, arrivals, floor)


def _free_arrivals(shard: "PopDemand", floor: float) -> tuple[float, float]:
    """Arrivals that no rule binds, and the floor if it is theirs."""
    arrivals = max(0.0, shard.arrivals_per_s)
    for bound in shard.bound:
        arrivals = max(0.0, arrivals - max(0.0, bound.arrivals_per_s))
    return arrivals, 0.0 if any(bound.newcomers for bound in shard.bound) else floor


def _bound(shard: "PopDemand", key: _Key, floor: float) -> _Share:
    found = [bound for bound in shard.bound if (bound.first, bound.then) == key]
    units: dict[str, ByClass] = {}
    for bound in found:
        for origin, counts in bound.units.items():
            there = shard.units.get(origin, NO_UNITS)  # Of what is not there nothing is bound.
            least = (min(counts[0], there[0]), min(counts[1], there[1]), min(counts[2], there[2]))
            units[origin] = _add(units.get(origin, NO_UNITS), least)
    arrivals = math.fsum(max(0.0, bound.arrivals_per_s) for bound in found)
    return _Share(units, arrivals, floor if any(bound.newcomers for bound in found) else 0.0)


def _part(
    label: str,
    shares: Sequence[_Share],
    origins: Sequence[str],
    open_: set[str],
    rtt_ms: Mapping[str, float],
    *,
    of_pop: str = "",
    allowed: frozenset[str] | None = None,
) -> Part:
    units = shares[0].units if len(shares) == 1 else _together(shares)
    elsewhere, displaced = NO_UNITS, 0
    for origin, counts in units.items():
        if origin not in open_:
            displaced += sum(counts)
            if origin not in origins:
                elsewhere = _add(elsewhere, counts)
    weights = [share.floor + share.arrivals_per_s for share in shares]
    need = PopNeed(
        name=label,
        units=[units.get(origin, NO_UNITS) for origin in origins],
        elsewhere=elsewhere,
        displaced=displaced,
        arrivals_per_s=math.fsum(share.arrivals_per_s for share in shares),
        # Whole milliseconds: what is less decides nothing, and would keep the solver busy.
        rtt_ms=_whole_of(rtt_ms, origins),
        of_pop=of_pop,
        allowed=allowed,
        floor=round(math.fsum(share.floor for share in shares), 6),
    )
    return Part(need=need, weights=weights if any(weights) else [1.0] * len(weights))


def _together(shares: Sequence[_Share]) -> dict[str, ByClass]:
    units: dict[str, ByClass] = {}
    for share in shares:
        for origin, counts in share.units.items():
            units[origin] = _add(units.get(origin, NO_UNITS), counts)
    return units


def _nearest(shards: Sequence["PopDemand"]) -> dict[str, float]:
    """The best of what they measured: they are at one place."""
    if len(shards) == 1:
        return shards[0].rtt_ms
    rtt_ms: dict[str, float] = {}
    for shard in shards:
        for origin, measured in shard.rtt_ms.items():
            rtt_ms[origin] = min(measured, rtt_ms.get(origin, math.inf))
    return rtt_ms


def _whole_of(rtt_ms: Mapping[str, float], origins: Sequence[str]) -> list[float]:
    """What is no number is not known either; nor is, here, where streams may not go."""
    if len(rtt_ms) < len(origins):
        whole = {name: round(rtt) for name, rtt in rtt_ms.items() if 0 <= rtt < math.inf}
        return [whole.get(origin, math.inf) for origin in origins]
    found = [rtt_ms.get(origin, math.inf) for origin in origins]
    return [round(rtt) if 0 <= rtt < math.inf else math.inf for rtt in found]


def _add(one: ByClass, other: ByClass) -> ByClass:
    return (one[0] + other[0], one[1] + other[1], one[2] + other[2])
