"""Whether a PoP takes a channel from the PoP that IRS says, or from its origin; pure.

    origin ── ordered, up, nearer, not avoided ──▶ relay
    relay  ── order over, farther ───────────────▶ origin     when its turn has come
    relay  ── silent, lost, refused ─────────────▶ origin     first; and the relay is avoided

A relay takes a channel from the origin itself: who relays a channel goes to no relay for it, and
who goes to one, or has asked one, relays it to nobody. Each PoP keeps to that by itself, so there
is no loop, whatever orders say and in whichever order they come.
"""

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import random

AVOID_S: Final = 30.0  # And as much again by chance.
AVOIDED_MAX: Final = 10_000
FIRST_S_MAX: Final = 1.5  # From the wish to the first that comes: a few round trips.
STALL_S_MIN: Final = 0.7  # Three parts of the usual length, 0.2 s, and a loop that is busy.
STALL_S_MAX: Final = 10.0  # Of streams that come in segments alone.
STALL_GAPS: Final = 2.5  # Of the longest gap that was usual.
GAPS_MAX: Final = 32  # Remembered.
FARTHER_MS: Final = 5.0  # Than the origin; less is noise, and IRS knows more.
GAP_S_MIN: Final = 0.005  # Shorter ones are of one burst.


class Progress:
    """Of what comes from a relay: silence is told by what is usual."""

    def __init__(self, now: float) -> None:
        self._at = now
        self._gaps: deque[float] = deque(maxlen=GAPS_MAX)

    def came(self, now: float) -> None:
        """Something has come."""
        gap_s = now - self._at
        if gap_s >= GAP_S_MIN:
            self._gaps.append(gap_s)
        self._at = now

    def slept(self, now: float) -> None:
        """We were not there ourselves: what came meanwhile may lie unread."""
        self._at = max(self._at, now)

    def is_stalled(self, now: float) -> bool:
        """Whether nothing has come for too long."""
        if len(self._gaps) < 3:  # noqa: PLR2004 - too few to tell what is usual
            return now - self._at > FIRST_S_MAX
        return now - self._at > min(STALL_S_MAX, max(STALL_S_MIN, STALL_GAPS * max(self._gaps)))


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
            return "the way there is not up"
        ms, origin_ms = facts.ms, facts.origin_ms
        if ms is not None and origin_ms is not None and ms > origin_ms + FARTHER_MS:
            return f"{ms:.1f} ms away, the origin {origin_ms:.1f} ms"
        if others >= self.relayed_max:
            return f"{self.relayed_max} channels come from relays already"
        return ""
