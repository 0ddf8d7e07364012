"""From where a PoP takes a channel: its origin, or a replica that is nearer; pure.

A way is begun where it is nearer by a margin, of milliseconds and of what the origin is away: round
trips waver by so much. It goes on while it is nearer at all; it is left for a way that is better
again and again.
"""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from edged.policy.reach_config import ReachConfig

if TYPE_CHECKING:
    from edged.policy.reach_plan import Matrix

NEARER: Final = 0.1  # Of the way to the origin, or to a relay that is there.


class Ways:
    """Of one plan. PoPs are numbers; -1 is none."""

    def __init__(self, between_ms: "Matrix", config: ReachConfig) -> None:
        self._margin_ms = config.margin_ms
        self._matrix = between_ms
        self._between: list[list[float]] = between_ms.tolist()

    def best(self, relays: Sequence[int]) -> tuple[list[int], list[float]]:
        """For each PoP the nearest of these, the first of equal ones, and how far that is."""
        table = self._matrix[list(relays)]
        nearest = table.argmin(axis=0)
        ms: list[float] = table.min(axis=0).tolist()
        return [relays[number] for number in nearest.tolist()], ms

    def ms(self, relay: int, place: int) -> float:
        """From one to the other."""
        return self._between[relay][place]

    def is_near(self, ms: float, origin_ms: float) -> bool:
        """Whether a relay that is so far is nearer than the origin, by more than noise is."""
        return ms + max(self._margin_ms, NEARER * origin_ms) <= origin_ms

    def is_better_elsewhere(self, place: int, was: int, best: int, origin_ms: float) -> bool:
        """Whether the origin is nearer than where it comes from, or another relay by a margin."""
        now_ms, best_ms = self._between[was][place], self._between[best][place]
        if now_ms > origin_ms:
            return True
        return best_ms + max(self._margin_ms, NEARER * now_ms) < now_ms

    def others(
        self, place: int, first: int, relays: Iterable[int], origin_ms: float
    ) -> Iterable[int]:
        """Those that are near as well, the nearest first."""
        ways = sorted((self._between[relay][place], relay) for relay in relays if relay != first)
        for ms, relay in ways:
            if math.isinf(ms) or not self.is_near(ms, origin_ms):
                return
            yield relay
