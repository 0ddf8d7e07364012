"""What a plan of reach may use, and has used: of each PoP, and of each link; pure.

Channels count, and Mbps: of what a PoP holds and its own viewers do not watch, at the PoP and on
each link of the way from the origin; of what a relay sends on, at the relay. What comes new may
fill only FILL of each, so that rates that rise a little end nothing.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from msgspec import Struct

if TYPE_CHECKING:
    from edged.policy.reach_plan import Memory

FILL: Final = 0.9
EPSILON: Final = 1e-9  # Of sums that are taken back again.


class PopLimits(Struct, frozen=True, kw_only=True):
    """Of one PoP shard; Mbps that it does not tell are not limited."""

    holds_max: int = 0
    hold_mbps_max: float = math.inf
    relays_max: int = 0
    relay_mbps_max: float = math.inf
    # By origin: links that its parts come by. Those that no map has are not limited either.
    ways: Mapping[str, tuple[str, ...]] = {}


class Budget:
    """Of one plan."""

    def __init__(
        self, pops: Sequence[PopLimits], links: Mapping[str, float], orders_max: int
    ) -> None:
        """`links`: Mbps that may be used of each."""
        count = len(pops)
        self._pops, self._links, self._orders_max = pops, links, orders_max
        self.holds, self.relays, self.orders = [0] * count, [0] * count, [0] * count
        self.hold_mbps, self.relay_mbps = [0.0] * count, [0.0] * count
        self.link_mbps = dict.fromkeys(links, 0.0)

    def may_hold(self, place: int) -> bool:
        """Whether a PoP may hold one channel more, however little it costs."""
        return self.holds[place] < self._pops[place].holds_max and self.may_order(place)

    def may_order(self, place: int) -> bool:
        """Whether a PoP may be told of one channel more."""
        return self.orders[place] < self._orders_max

    def fits(self, place: int, origin: str, mbps: float, fill: float) -> bool:
        """Whether a PoP may hold so much more, that comes from there."""
        limits = self._pops[place]
        if mbps <= 0:
            return True
        if self.hold_mbps[place] + mbps > fill * limits.hold_mbps_max + EPSILON:
            return False
        if not self._links:
            return True
        return all(
            self.link_mbps[link] + mbps <= fill * self._links[link] + EPSILON
            for link in limits.ways.get(origin, ())
            if link in self._links
        )

    def hold(self, place: int, origin: str, mbps: float, count: int = 1) -> None:
        """A PoP holds a channel, or (0) more of one, or (-1) none; that costs so much."""
        self.holds[place] += count
        self.orders[place] += count
        self.hold_mbps[place] += mbps
        if self._links:
            for link in self._pops[place].ways.get(origin, ()):
                if link in self._links:
                    self.link_mbps[link] += mbps

    def may_relay(self, relay: int, mbps: float, fill: float) -> bool:
        """Whether a PoP may send one channel more to one PoP more."""
        limits = self._pops[relay]
        return (
            self.relays[relay] < limits.relays_max
            and self.relay_mbps[relay] + mbps <= fill * limits.relay_mbps_max + EPSILON
        )

    def relay(self, relay: int, place: int, mbps: float) -> None:
        """It does, to this PoP."""
        self.relays[relay] += 1
        self.relay_mbps[relay] += mbps
        self.orders[place] += 1

    def go_on(self, origin: str, memory: "Memory") -> None:
        """What a channel used in the plan before it uses again."""
        for place, mbps in memory.held.items():
            self.hold(place, origin, mbps)
        for relay, (count, mbps) in memory.relays.items():
            self.relays[relay] += count
            self.relay_mbps[relay] += mbps
        orders = self.orders
        for place in memory.relayed:
            orders[place] += 1
