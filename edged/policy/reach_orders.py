"""A PoP's side of reach: which orders are in force, and what follows from them when.

Orders come as a whole, again and again; each time they hold for their time to live. Those that have
expired come into force again with the next that come. Of an IRS of an older epoch nothing is taken,
nor what was overtaken on its way.

Little is done at once: so many changes a second at most. What is to end waits for a while, each for
one of its own by chance, so that a PoP whose IRS is gone does not drop all in one moment.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Set
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from edged.media.reach import Reach, ReachOrder

if TYPE_CHECKING:
    import random

RETRY_S_MIN: Final = 1.0
RETRY_S_MAX: Final = 30.0  # And as much again by chance.
STEADY_S: Final = 60.0  # What goes on so long has not failed.
SPREAD: Final = 1.0  # Of the grace: as much again, by chance.


class ReachOrders:
    """Of one PoP shard. `now` is monotonic."""

    def __init__(self) -> None:
        self.stamp = (-1, -1)  # Epoch and number of the newest.
        self.refused = 0
        self.relays: Mapping[str, str] = {}  # Where PoP shards are that relay: HOST:PORT.
        self._orders: dict[str, ReachOrder] = {}
        self.until = -math.inf

    def take(self, reach: Reach, now: float) -> str:
        """Put orders in force; returns why not, or ""."""
        stamp = (reach.epoch, reach.number)
        if stamp <= self.stamp:
            self.refused += 1
            return f"orders {stamp} are not newer than {self.stamp}"
        self.stamp = stamp
        if reach.orders is not None:
            self._orders = {order.channel: order for order in reach.orders}
            self.relays, self.until = reach.relays, now + reach.ttl_s
        return ""

    def in_force(self, now: float) -> Mapping[str, ReachOrder]:
        """By channel, those for the most viewers first."""
        return self._orders if now < self.until else {}


class Pace:
    """So many changes a second, and no more than a second's at once."""

    def __init__(self, per_s: float) -> None:
        self.per_s = per_s
        self._left, self._at = max(1.0, per_s), -math.inf  # Since long ago: a second's worth.

    def take(self, now: float) -> bool:
        """Whether one more may be made; it counts."""
        most = max(1.0, self.per_s)
        self._left = min(most, self._left + max(0.0, now - self._at) * self.per_s)
        self._at = max(self._at, now)
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Retries:
    """When a channel that is held, and failed, is asked for again: ever later, each by chance."""

    def __init__(self, rng: "random.Random") -> None:
        self._rng = rng
        self._tries: dict[str, tuple[int, float, float]] = {}  # How many, the last, the next.

    def why_not(self, channel: str, now: float) -> str:
        """Why not now; "": it may be."""
        _, _, next_at = self._tries.get(channel, (0, 0.0, -math.inf))
        return f"it failed; tried again in {next_at - now:.0f} s" if now < next_at else ""

    def tried(self, channel: str, now: float) -> None:
        """It has been asked for."""
        count = self._tries.get(channel, (0, 0.0, 0.0))[0] + 1
        after_s = min(RETRY_S_MAX, RETRY_S_MIN * 2.0 ** min(count - 1, 10))
        self._tries[channel] = (count, now, now + after_s * (1 + self._rng.random()))

    def goes_on(self, channel: str, now: float) -> None:
        """It is here; when it has been for long enough, it begins anew."""
        known = self._tries.get(channel)
        if known is not None and now >= known[1] + STEADY_S:
            del self._tries[channel]

    def keep(self, channels: Set[str]) -> None:
        """Forget others."""
        self._tries = {name: known for name, known in self._tries.items() if name in channels}


class HeldSeen(Struct, frozen=True, kw_only=True):
    """A channel that is here by order, or is to be: for people."""

    channel: str
    held: bool
    why: str  # Why it is not, or how it ends.


class Holding:
    """Which channels are here by order."""

    def __init__(self, holds_max: int, grace_s: float, rng: "random.Random") -> None:
        self.holds_max, self.grace_s = holds_max, grace_s
        self._rng = rng
        self._held: dict[str, None] = {}
        self._ends_at: dict[str, float] = {}  # Of those that no order wants any more.
        self._refused: dict[str, str] = {}  # Those that are wanted and not here, and why.

    @property
    def held(self) -> Set[str]:
        """Those that are here."""
        return self._held.keys()

    def update(
        self,
        wanted: Iterable[str],
        now: float,
        *,
        begin: Callable[[str], str],
        end: Callable[[str], None],
        may: Callable[[], bool],
    ) -> None:
        """Come nearer to what is wanted, those that come first first.

        `begin(channel)` has one here, also again, and says why it cannot; `may`: whether one more
        change may be made now.
        """
        chosen = list(wanted)
        self._refused = dict.fromkeys(chosen[self.holds_max :], "more than may be held")
        chosen = chosen[: self.holds_max]
        keep = set(chosen)
        for channel in [name for name in self._held if name not in keep]:
            ends_at = self._ends_at.get(channel)
            if ends_at is None:
                after_s = self.grace_s * (1 + SPREAD * self._rng.random())
                self._ends_at[channel] = now + after_s
            elif now >= ends_at and may():
                del self._held[channel], self._ends_at[channel]
                end(channel)
        for channel in chosen:
            self._ends_at.pop(channel, None)
            is_new = channel not in self._held
            if is_new and len(self._held) >= self.holds_max:
                self._refused[channel] = "others have yet to end"
            elif is_new and not may():
                self._refused[channel] = "so many changes at a time"
            elif why := begin(channel):
                self._refused[channel] = why
            elif is_new:
                self._held[channel] = None

    def seen(self, now: float) -> list[HeldSeen]:
        """What people ask."""
        lines = []
        for channel in self._held:
            ends_at = self._ends_at.get(channel)
            why = "" if ends_at is None else f"ends in {max(0.0, ends_at - now):.0f} s"
            lines.append(HeldSeen(channel=channel, held=True, why=why or self._why(channel)))
        lines += [
            HeldSeen(channel=channel, held=False, why=why)
            for channel, why in self._refused.items()
            if channel not in self._held
        ]
        return lines

    def _why(self, channel: str) -> str:
        return self._refused.get(channel, "by order")
