"""Whether a PoP takes a channel from the PoP that IRS says, or from its origin; pure.

    origin ── ordered, up, nearer, not avoided ──▶ relay
    relay  ── order over, farther ───────────────▶ origin     when its turn has come
    relay  ── silent, slow, lost, refused ───────▶ origin     first; and the relay is avoided

A relay takes a channel from the origin itself: who relays a channel goes to no relay for it, and
who goes to one, or has asked one, relays it to nobody. Each PoP keeps to that by itself, so there
is no loop, whatever orders say and in whichever order they come.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import random

AVOID_S: Final = 30.0  # And as much again by chance.
AVOIDED_MAX: Final = 10_000
FARTHER_MS: Final = 5.0  # Than the origin; less is noise, and IRS knows more.


class Avoided(NamedTuple):
    """A relay, or a channel at it, that is not gone to for a while."""

    until: float
    why: str


class RelayFacts(NamedTuple):
    """What is so of a channel and the relay that is ordered for it."""

    is_up: bool  # The way there.
    ms: float | None  # Measured round trip to it,
    origin_ms: float | None  # and to the origin.
    relayed_on: int  # To so many PoPs the channel goes from here.
    down_why: str = ""  # Why the way there is not up, where that is known.


class RelayChoice:
    """Of one PoP shard."""

    def __init__(self, rng: "random.Random", relayed_max: int) -> None:
        self.relayed_max = relayed_max
        self._rng = rng
        self._avoided: dict[tuple[str, str], Avoided] = {}  # By relay and channel; "": all.

    def avoid(self, relay: str, channel: str, why: str, now: float) -> None:
        """Do not go there for a while; `channel` "": for none."""
        until = now + AVOID_S * (1 + self._rng.random())
        self._avoided[relay, channel] = Avoided(until, why)
        while len(self._avoided) > AVOIDED_MAX:
            del self._avoided[next(iter(self._avoided))]

    def expire(self, now: float) -> None:
        """Forget what is over."""
        for key in [key for key, known in self._avoided.items() if now >= known.until]:
            del self._avoided[key]

    def avoided(self, now: float) -> Mapping[str, str]:
        """Relays, or channels at them, and why, for people."""
        return {
            f"{relay} {channel}".rstrip(): f"{known.why}; for {known.until - now:.0f} s more"
            for (relay, channel), known in self._avoided.items()
            if now < known.until
        }

    def why_not(
        self, channel: str, relay: str, facts: RelayFacts, now: float, *, others: int
    ) -> str:
        """Why a channel does not come from this relay; "": it may.

        `others`: so many other channels come from relays.
        """
        for key in ((relay, ""), (relay, channel)):
            known = self._avoided.get(key)
            if known is not None and now < known.until:
                return f"avoided: {known.why}"
        if facts.relayed_on:
            return f"it goes from here to {facts.relayed_on} PoPs"
        if not facts.is_up:
            return "the way there is not up" + (f": {facts.down_why}" if facts.down_why else "")
        ms, origin_ms = facts.ms, facts.origin_ms
        if ms is not None and origin_ms is not None and ms > origin_ms + FARTHER_MS:
            return f"{ms:.1f} ms away, the origin {origin_ms:.1f} ms"
        if others >= self.relayed_max:
            return f"{self.relayed_max} channels come from relays already"
        return ""
