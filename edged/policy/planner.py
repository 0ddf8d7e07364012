"""Planning leases: how much of each origin every PoP may fill without asking.

A quota is what the PoP has at the origin + its share of the free slots. Shares follow demand, never
add up to more than is free less the reserve, and are whole units. An origin that takes no streams
has nothing to share. (The optimising solver takes this place later, with the same inputs and rows.)
"""

import math
from collections import Counter
from collections.abc import Sequence

from msgspec import Struct

from edged.media.routing import OriginRow, OriginState
from edged.policy.routing_table import price_ms

# A PoP without arrivals yet gets a share too: its first publisher is coming. Its shards divide this
# among them, for callers come to the PoP, not to the shard.
ARRIVALS_FLOOR = 1.0


class OriginSupply(Struct, frozen=True, kw_only=True):
    """An origin as the planner sees it."""

    origin: str
    address: str
    state: OriginState
    slots_total: int
    room: int  # Free units that may be handed out now, ramp counted.
    domain: str = ""


class PopDemand(Struct, frozen=True, kw_only=True):
    """A PoP shard as the planner sees it."""

    pop: str  # Key of the shard: "lhr/0".
    units: dict[str, int] = {}  # Now at each origin.
    arrivals_per_s: float = 0.0

    @property
    def name(self) -> str:
        """The PoP whose shard it is: "lhr"."""
        return self.pop.partition("/")[0]


def plan_leases(
    origins: Sequence[OriginSupply], pops: Sequence[PopDemand], *, reserve_fraction: float
) -> dict[str, tuple[OriginRow, ...]]:
    """Make the rows of every PoP, sorted by origin."""
    rows: dict[str, list[OriginRow]] = {pop.pop: [] for pop in pops}
    shards = Counter(pop.name for pop in pops)
    weights = [ARRIVALS_FLOOR / shards[pop.name] + pop.arrivals_per_s for pop in pops]
    for place, supply in enumerate(sorted(origins, key=lambda supply: supply.origin)):
        reserve = math.ceil(supply.slots_total * reserve_fraction)
        free = max(0, supply.room - reserve) if supply.state.takes_streams else 0
        total = supply.slots_total
        price = round(price_ms(1 - supply.room / total) if total else 0.0, 1)
        shares = share_out(free, weights, first=place)
        for pop, share in zip(pops, shares, strict=True):
            quota = pop.units.get(supply.origin, 0) + share
            rows[pop.pop].append(
                OriginRow(
                    supply.origin,
                    supply.address,
                    supply.state,
                    quota,
                    price,
                    reserve,
                    supply.domain,
                )
            )
    return {pop: tuple(planned) for pop, planned in rows.items()}


def share_out(units: int, weights: Sequence[float], *, first: int = 0) -> list[int]:
    """Split whole units in proportion to weights (> 0); the shares add up to exactly `units`.

    What rounding leaves goes to the largest remainders; among equals the turn begins at `first`, so
    that one PoP does not get the odd unit of every origin.
    """
    if not weights:
        return []
    total = math.fsum(weights)
    exact = [units * weight / total for weight in weights]
    shares = [math.floor(value) for value in exact]
    count = len(weights)
    turn = sorted(
        range(count),
        key=lambda index: (round(shares[index] - exact[index], 9), (index - first) % count),
    )
    for index in turn[: max(0, units - sum(shares))]:
        shares[index] += 1
    return shares
