"""How a PoP has a channel: held or not, from whom, and why from there; for people."""

from collections.abc import Iterable

from msgspec import Struct

from edged.policy.reach_orders import HeldSeen
from edged.roles.relaying import SourceSeen
from edged.roles.wanted_rungs import Wanted

NOT_HERE = "nobody here watches it, and nothing orders it"
NO_RELAY = "no PoP is ordered to relay it here"


class ChannelWay(Struct, frozen=True, kw_only=True):
    """Of one PoP shard: part of `edged route explain`."""

    source: str  # Who brings it: a PoP shard that relays, an origin; "": it is not here.
    origin: str  # Where it is live; "": nowhere.
    origin_ms: float | None
    relay: str  # That it is to come from, or comes from; "": none.
    relay_ms: float | None
    why: str  # It comes from its origin, or from nowhere.
    held: bool  # It is here by order, watched or not.
    rungs: list[str] | None  # That are pushed before viewers ask; None: all.
    relayed_on: int  # To so many other PoPs.
    viewers: int


def why_from_there(
    source: str, relay: str, seen: SourceSeen | None, held: Iterable[HeldSeen]
) -> str:
    """Why a channel does not come from a relay."""
    if relay and source == relay:
        return ""
    if seen is not None and seen.why:
        return seen.why
    if source:
        return "" if relay else NO_RELAY
    return next((each.why for each in held if not each.held), NOT_HERE)


def as_list(rungs: Wanted) -> list[str] | None:
    """As it is told."""
    return None if rungs is None else list(rungs)
