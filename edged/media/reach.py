"""Who watches what at which PoP, and which PoPs hold a channel in advance or relay it, and to whom.

`wire.table` carries these Structs, `policy.reach` decides with them. Rows and orders are arrays on
the wire: new fields go to the end with a default.
"""

from typing import Annotated, Final

from msgspec import Meta, Struct

from edged.media.routing import Address, Count, Milliseconds, Text

ROWS_MAX: Final = 1000  # Of one report: the channels with the most viewers; some 60 KB.
ROWS_BYTES_MAX: Final = 512 * 1024  # Of all of them, whatever their names; half of a frame.
ORDERS_MAX: Final = 500  # Of one PoP shard; with the longest names half of a frame.
PEERS_MAX: Final = 512  # As many as there are PoP shards.
RUNGS_MAX: Final = 16  # Of a channel's row: those with the most viewers.
RUNG_CHARS_MAX: Final = 16
VIA_CHARS_MAX: Final = 80
TTL_S_MAX: Final = 600.0
# Viewers are counted by their round trip to the PoP: up to these, and beyond the last.
RTT_BOUNDS_MS: Final = (5.0, 10.0, 20.0, 30.0, 40.0)

Via = Annotated[str, Meta(max_length=VIA_CHARS_MAX)]
Rung = Annotated[str, Meta(max_length=RUNG_CHARS_MAX)]
Mbps = Annotated[float, Meta(ge=0, le=1e6)]


class AudienceRow(Struct, frozen=True, array_like=True, gc=False):
    """One channel at a PoP shard."""

    channel: Text
    viewers: Count
    # Of those whose round trip is known: how many are within each bound, and beyond.
    near: Annotated[tuple[Count, ...], Meta(max_length=len(RTT_BOUNDS_MS) + 1)] = ()
    rungs: Annotated[dict[Rung, Count], Meta(max_length=RUNGS_MAX)] = {}  # Viewers of each.
    via: Via = ""  # The PoP shard that relays it to this one; "": it comes from its origin.
    held: bool = False  # It is here by order, watched or not.
    # What each rung comes to, as far as it is known, watched or not;
    mbps: Annotated[dict[Rung, Mbps], Meta(max_length=RUNGS_MAX)] = {}
    base_mbps: Mbps = 0.0  # and what comes along with any of them: sound.


class Audience(Struct, frozen=True, tag="audience", kw_only=True):
    """What a PoP tells an IRS that plans reach, at each interval of its own."""

    rows: Annotated[tuple[AudienceRow, ...], Meta(max_length=ROWS_MAX)]
    omitted: Count = 0  # Channels with fewer viewers than these.
    relay: Address = ""  # HOST:PORT where other PoPs subscribe to what is here; "": nowhere.
    relays_max: Count = 0  # Subscriptions of others that it takes.
    holds_max: Count = 0  # Channels that it holds in advance at most.
    peers: Annotated[dict[Via, Milliseconds], Meta(max_length=PEERS_MAX)] = {}  # Measured.
    # Of what is held and not watched here, and of what goes from here to others; None: it is not
    # told, and not limited.
    hold_mbps_max: Mbps | None = None
    relay_mbps_max: Mbps | None = None


class ReachOrder(Struct, frozen=True, array_like=True, gc=False):
    """What a PoP shard is to do with a channel."""

    channel: Text
    hold: bool = False  # Have it here before anybody watches it.
    via: Via = ""  # Take it from this PoP shard, while that serves; "": from its origin.
    # Have only these pushed before they are asked for; (): all of them.
    rungs: Annotated[tuple[Rung, ...], Meta(max_length=RUNGS_MAX)] = ()


class Reach(Struct, frozen=True, tag="reach", kw_only=True):
    """All orders that a PoP shard has, each time: what is not among them holds no more.

    They expire after `ttl_s`, and are sent again long before. `orders` None: those of before go on
    as long as they would have, and IRS wants to be told what is watched.
    """

    epoch: Annotated[int, Meta(ge=0, le=2**63 - 1)]  # Of IRS; of an older one nothing is taken.
    number: Annotated[int, Meta(ge=0, le=2**63 - 1)]  # Rises within an epoch.
    ttl_s: Annotated[float, Meta(gt=0, le=TTL_S_MAX)]
    orders: Annotated[tuple[ReachOrder, ...], Meta(max_length=ORDERS_MAX)] | None = None
    # Where those are that `via` names: HOST:PORT.
    relays: Annotated[dict[Via, Address], Meta(max_length=PEERS_MAX)] = {}
