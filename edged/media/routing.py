"""The words of routing: what origins report, what IRS tells a PoP, and the rules of the network.

`wire.table` carries these Structs and `policy` decides with them. Structs that travel are arrays on
the wire: positions are the format, so new fields go to the end with a default.
"""

import enum
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from edged.media.stream import PriorityClass

CLASSES = tuple(PriorityClass)
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,62}\Z"  # As in `edged://ROLE/NAME` of a certificate.
ADDRESS_CHARS_MAX = 270  # The longest DNS name, brackets and a port.
ORIGINS_MAX = 256  # "Several" in the network edged is modelled on; a row is about 60 bytes.
RULES_PROTO = 2  # Which keys of rules a PoP knows: 2 has `on_full` and `dscp`.
RULES_MAX = 1000  # Pins of the big channels; matched in order, so each costs every decision.
UNITS_MAX = 2**31  # Compute units of one origin; a bound for arithmetic, not for hardware.
TEXT_CHARS_MAX = 256
TAGS_PER_RULE_MAX = 64
INGEST_URLS_MAX = 4  # One per protocol.
BOUNDS_MAX = 16  # Sets of origins that rules leave a PoP's streams: 0.7 of a frame, with all names.
LOAD_STEP = 0.05  # Finer changes would be told to every PoP each second, and decide nothing.
UNIX_MAX = 253_402_300_799.0  # The last second of 9999: beyond it `datetime` has no dates.

Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
Address = Annotated[str, Meta(max_length=ADDRESS_CHARS_MAX)]
Text = Annotated[str, Meta(max_length=TEXT_CHARS_MAX)]
Count = Annotated[int, Meta(ge=0, le=UNITS_MAX)]
Units = Annotated[int, Meta(ge=-UNITS_MAX, le=UNITS_MAX)]
Milliseconds = Annotated[float, Meta(ge=0, le=1e9)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Mbps = Annotated[float, Meta(ge=0, le=1e9)]
Unix = Annotated[float, Meta(ge=0, le=UNIX_MAX)]
ByClass = tuple[Count, Count, Count]  # Partner, affiliate, basic.
ClassLabel = Literal["partner", "affiliate", "basic"]
OnFull = Literal["reject", "source-only", "preempt"]
DscpLabel = Literal["af41", "af42", "af43"]

NO_UNITS: ByClass = (0, 0, 0)


class ReportedState(enum.StrEnum):
    """What an origin says of itself."""

    UP = "up"
    DRAIN = "drain"  # Keeps what it has, takes nothing new.
    DOWN = "down"  # Is about to stop.


class OriginState(enum.StrEnum):
    """What is believed of an origin."""

    UP = "up"
    SUSPECT = "suspect"  # Two heartbeats missed: nothing new goes there.
    DOWN = "down"  # Three missed, or it said so.
    PROBATION = "probation"  # Back, but its room grows only by and by.
    DRAIN = "drain"

    @property
    def takes_streams(self) -> bool:
        """Whether new streams may go there, as far as there is room."""
        return self in _TAKES_STREAMS


_TAKES_STREAMS = frozenset({OriginState.UP, OriginState.PROBATION})


class OriginReport(Struct, frozen=True, array_like=True):
    """One heartbeat, 10 per second, from an origin to IRS and to every PoP.

    `slots_free` is per class: how many more units the origin would admit of it, so a reserve for
    partners shows as less for the others. `incarnation` changes with each start of the process.
    `ladder_free` is per class, too: slots of compute that a new ladder of it could have now, those
    that it would preempt included; None: the origin makes no ladders. `ladder_cost`: slots that a
    usual one takes here; 0: the origin is too old to say.
    `source_only_free`: streams that it would take beyond its slots, without a ladder.
    `preemptible` is per class: units of lower classes that would give way to a stream of it.
    """

    origin: Name
    incarnation: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    state: ReportedState
    slots_total: Count
    slots_free: ByClass
    mbps_in: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    ladder_free: ByClass | None = None
    source_only_free: Count = 0
    preemptible: ByClass = NO_UNITS
    ladder_cost: Count = 0

    @property
    def ladders_free(self) -> ByClass | None:
        """How many more streams of each class would have a usual ladder; None: it does not say."""
        if self.ladder_free is None or not self.ladder_cost:
            return None
        first, second, third = self.ladder_free
        cost = self.ladder_cost
        return (first // cost, second // cost, third // cost)


class OriginRow(Struct, frozen=True, array_like=True):
    """What one PoP is told of one origin.

    `quota`: compute units that this PoP may have there in all, while its lease lasts (its streams
    when IRS looked + its share of the free slots). `price`: milliseconds of RTT that one more unit
    there is worth, for deciding without a lease. `reserve`: units kept for partners.
    """

    origin: Name
    address: Address  # HOST:PORT of its backbone listener.
    state: OriginState
    quota: Count = 0
    price: Milliseconds = 0.0
    reserve: Count = 0
    domain: Annotated[str, Meta(max_length=64)] = ""  # Failure domain; "" = its own.


class Match(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"class_": "class"}
):
    """`match` of a rule: every key given must hold; none given matches every stream."""

    channel: Text = ""  # Exactly this one.
    glob: Text = ""  # Of channel names: `*`, `?`, `[abc]`.
    tag: Text = ""  # Exactly this one among the stream's tags.
    class_: ClassLabel | None = None
    pop: Text = ""
    protocol: Text = ""


class Rule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[irs.rules]]`: the first that matches a stream says where it may go.

    `pin`: this origin, or refusal. `prefer`: these first, in this order, while they have room.
    `avoid`: never these. `group_by`: streams sharing the tag that begins with this text go to the
    same origin. `anti_affinity`: streams sharing such a tag go to different failure domains while
    there is another. `reserve`: may use what is kept for partners. `max_rtt_ms`: nothing farther.
    `on_full`: what is asked of an origin when none has room, "reject" being nothing. `dscp`: of the
    backbone session that carries the stream's units, instead of its class's.

    The last two came later: unset they are not on the wire, so PoPs of before know the rest.
    """

    name: Text = ""
    match: Match = Match()
    pin: Text = ""
    prefer: Annotated[tuple[Text, ...], Meta(max_length=TAGS_PER_RULE_MAX)] = ()
    avoid: Annotated[tuple[Text, ...], Meta(max_length=TAGS_PER_RULE_MAX)] = ()
    group_by: Text = ""
    anti_affinity: Text = ""
    reserve: bool = False
    max_rtt_ms: Annotated[float, Meta(gt=0, le=1e6)] | None = None
    on_full: OnFull | UnsetType = UNSET
    dscp: DscpLabel | UnsetType = UNSET

    @property
    def terms(self) -> "Terms":
        """What its streams are offered under, while an origin has room."""
        dscp = "" if self.dscp is UNSET else self.dscp
        return Terms("reject", self.reserve, dscp) if self.reserve or dscp else PLAIN_TERMS

    @property
    def asks(self) -> OnFull:
        """What is asked of an origin when none has room."""
        return "reject" if self.on_full is UNSET else self.on_full


class Terms(Struct, frozen=True, array_like=True):
    """What a PoP asks for a stream that it offers; the origin has the final word.

    `on_full`: an `OnFull`; what else a newer peer asks is "reject". `reserve`: it may use what is
    kept for partners. `dscp`: a `DscpLabel`, or "" for that of the stream's class.
    """

    on_full: Text = "reject"
    reserve: bool = False
    dscp: Text = ""

    def carried_as(self, priority: PriorityClass) -> PriorityClass:
        """The class whose backbone session carries a stream of this class."""
        return _CARRIED_AS.get(self.dscp, priority)


PLAIN_TERMS = Terms()
_CARRIED_AS = dict(zip(("af41", "af42", "af43"), PriorityClass, strict=True))


class RoutingTable(Struct, frozen=True, kw_only=True):
    """What one PoP routes by; newest (epoch, version) wins. Rows are sorted by origin.

    `ttl_s`: for so long after its arrival the states in the rows are believed; later only what the
    PoP sees itself counts. `lease_ttl_s`: for so long the quotas hold; later the price decides.
    `kept`: by origin, units beyond the quota that only partners may have, as long as the quotas
    hold. Where it is not set, the table is of a peer, or for one, that does not know it: both ends
    must come to the same CRC, so a row can have no new field.
    """

    epoch: Annotated[int, Meta(ge=0, le=2**63 - 1)]  # Raised by each start of IRS.
    version: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    issued: Unix
    ttl_s: Seconds
    lease_ttl_s: Seconds
    rows: Annotated[tuple[OriginRow, ...], Meta(max_length=ORIGINS_MAX)] = ()
    rules: Annotated[tuple[Rule, ...], Meta(max_length=RULES_MAX)] = ()
    kept: Annotated[dict[Name, Count], Meta(max_length=ORIGINS_MAX)] | UnsetType = UNSET

    @property
    def stamp(self) -> tuple[int, int]:
        """What makes one table newer than another."""
        return (self.epoch, self.version)


class RouteRequest(Struct, frozen=True, kw_only=True):
    """A stream that needs an origin."""

    channel: str
    priority: PriorityClass = PriorityClass.BASIC
    tags: tuple[str, ...] = ()
    protocol: str = ""
    cost: int = 1  # Compute units.


class PathProbe(Struct, frozen=True, array_like=True):
    """What a PoP measured on its path to one origin.

    `goodput_mbps`: what its TCP sessions deliver; with `limited` data waited for the path, so it is
    about all that they get of it. `silent_s`: so long nothing has come back although it should
    have. `probed`: by probes, else from TCP alone, which knows no jitter.
    """

    rtt_ms: Milliseconds
    loss: Annotated[float, Meta(ge=0, le=1)] = 0.0
    goodput_mbps: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    jitter_ms: Milliseconds = 0.0
    silent_s: Seconds = 0.0
    limited: bool = False
    probed: bool = False


class PopState(enum.StrEnum):
    """What a PoP says of itself to those who ask where to publish."""

    UP = "up"
    DRAIN = "drain"  # Keeps what it has, takes nothing new.
    FULL = "full"  # Its loop lags, or it has all the publishers that it may have.
    NO_ROUTE = "no_route"  # No origin takes streams from it.


class IngestOffer(Struct, frozen=True, array_like=True):
    """Where broadcasters reach a PoP, and whether it wants them."""

    urls: Annotated[tuple[Text, ...], Meta(max_length=INGEST_URLS_MAX)] = ()
    state: Text = PopState.NO_ROUTE  # A `PopState`; a newer peer may know more.
    load: Annotated[float, Meta(ge=0, le=1)] = 0.0  # In steps of LOAD_STEP.


class PopRow(Struct, frozen=True, array_like=True):
    """What every PoP is told of one PoP shard."""

    pop: Name
    shard: Annotated[int, Meta(ge=0, le=4095)]
    ingest: IngestOffer


class BoundUnits(Struct, frozen=True, array_like=True):
    """Streams of a PoP whose rules leave them some of the origins, or prefer some.

    They go to one of `first`, else to one of `then`, and nowhere else. `newcomers`: so will a
    stream of which no more is known than that it comes to this PoP. `held`, in the order of
    `units`: of these, those that once live are moved to one of `first` alone, as their group is
    there, and those that are not moved, which would part them or join what is to be apart. Empty:
    none of them is so held.
    """

    first: Annotated[tuple[Name, ...], Meta(max_length=ORIGINS_MAX)]
    then: Annotated[tuple[Name, ...], Meta(max_length=ORIGINS_MAX)] = ()
    units: Annotated[dict[Name, ByClass], Meta(max_length=ORIGINS_MAX)] = {}  # Now there.
    arrivals: Count = 0  # Units that wanted a place.
    newcomers: bool = False
    held: Annotated[tuple[tuple[ByClass, ByClass], ...], Meta(max_length=ORIGINS_MAX)] = ()


class PopTelemetry(Struct, frozen=True, array_like=True):
    """What a PoP tells IRS once a second; counts are since the one before."""

    units: Annotated[dict[Name, ByClass], Meta(max_length=ORIGINS_MAX)]  # Now there, per class.
    arrivals: Count = 0  # Units that wanted a place.
    refusals: Annotated[dict[Name, Count], Meta(max_length=ORIGINS_MAX)] = {}
    timeouts: Annotated[dict[Name, Count], Meta(max_length=ORIGINS_MAX)] = {}
    unplaced: Count = 0  # Units for which no origin was found.
    probes: Annotated[dict[Name, PathProbe], Meta(max_length=ORIGINS_MAX)] = {}
    ingest: IngestOffer | None = None
    # Carried on the backbone: to an origin, and from it.
    mbps: Annotated[dict[Name, tuple[Mbps, Mbps]], Meta(max_length=ORIGINS_MAX)] = {}
    # Of all these those that rules bind; what is beyond BOUNDS_MAX sets counts as free to go.
    bound: Annotated[tuple[BoundUnits, ...], Meta(max_length=BOUNDS_MAX)] = ()
