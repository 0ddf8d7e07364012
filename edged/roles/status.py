"""What one process shows of itself: one Struct for the status page, for `edged top` and for JSON.

All times that have passed are in seconds, rates in bits per second, and `history` holds up to a
minute of samples, one per second, oldest first. It names addresses and routes: it is for those who
administer, never for the public side.
"""

from typing import Literal

from msgspec import Struct

from edged.policy.ladder_words import LadderSeen
from edged.policy.live_registry import LiveConflict
from edged.policy.well import LinkStatus

Sort = Literal["attention", "viewers", "bitrate", "newest", "channel"]
SORTS: dict[str, Sort] = {
    "attention": "attention",  # What is wrong first, then what is watched most.
    "viewers": "viewers",
    "bitrate": "bitrate",
    "newest": "newest",
    "channel": "channel",
}
Severity = Literal["info", "warning", "error"]


class ProcessSeen(Struct, frozen=True, kw_only=True):
    """The process."""

    version: str
    pid: int
    uptime_s: float
    cpu_share: float  # Of one core, lately: 0.25 is a quarter.
    rss_bytes: int
    fds: int
    fds_max: int


class RoleSeen(Struct, frozen=True, kw_only=True):
    """One role and its pump; IRS has none."""

    role: str  # "pop west"
    kind: Literal["pop", "origin", "irs"]
    connections: int = 0
    lag_ms: float = 0.0  # How late its loop ran lately.
    lag_ms_history: list[float] = []
    streams: int = 0  # In its hub.
    units_per_s: float = 0.0


class IrsSessionSeen(Struct, frozen=True, kw_only=True):
    """A PoP's or an origin's session to one of its IRSs."""

    address: str
    connected: bool
    active: bool | None  # It has the PoP's grant; None: there is one IRS alone, or it is an origin.
    twin: str = ""  # Another address of the same IRS, which is used instead.


class IrsLinkSeen(Struct, frozen=True, kw_only=True):
    """A PoP's or an origin's sessions to IRS."""

    connected: bool  # Any of them.
    for_s: float  # So long; since the start when it never was otherwise.
    sessions: list[IrsSessionSeen] = []
    epoch: int | None = None  # That a PoP has granted; 0: none now; None: it needs to grant none.


class LinkSeen(Struct, frozen=True, kw_only=True):
    """The link from a PoP to an origin."""

    origin: str
    address: str
    sessions: list[str]  # Those that are up, of "control", "partner", "affiliate", "basic".
    sessions_wanted: int
    down: str  # Why nothing may go there; "" when all sessions stand.
    rtt_ms: float | None
    forwardings: int  # Streams that go there.
    subscriptions: int  # Channels whose parts come from there.
    out_bps: float
    in_bps: float
    units_skipped: int
    reconnects: int


class OriginSeen(Struct, frozen=True, kw_only=True):
    """An origin as a PoP sees it: what the table says, and what it hears itself."""

    origin: str
    address: str
    state: str  # "up", "suspect", "down", "probation", "drain": by its heartbeats, else the table.
    blocked: str  # Why nothing may go there now; "" when it may.
    table_state: str
    heartbeat_state: str | None  # None: none heard here.
    slots_total: int | None  # By its heartbeat; None without one.
    slots_free: int | None
    quota: int  # What the lease allows this PoP there.
    used: int  # Of it.
    price_ms: float
    rtt_ms: float | None
    domain: str
    nearness: int  # 1 for the nearest.


class PopSeen(Struct, frozen=True, kw_only=True):
    """A PoP of this process."""

    pop: str
    role: str
    publishers: int
    accepted_total: int
    refused_total: int
    viewers: int
    viewer_connections: int
    channels_watched: int
    in_bps: float  # From broadcasters.
    out_bps: float  # To viewers.
    table: tuple[int, int] | None  # (epoch, version) in force.
    table_age_s: float | None
    lease_left_s: float
    irs: IrsLinkSeen
    links: list[LinkSeen]
    origins: list[OriginSeen]


class LadderSlotsSeen(Struct, frozen=True, kw_only=True):
    """An origin's compute for ladders."""

    total: int
    used: int
    made: int  # Ladders.
    waiting: int  # The preempted included.
    preempted: int
    text: str  # Where the total comes from.


class PeerSeen(Struct, frozen=True, kw_only=True):
    """A PoP as an origin sees it."""

    pop: str  # "ams1", or "ams1/2" for one of its shards.
    sessions: int
    streams: int
    in_bps: float
    out_bps: float


class OriginHere(Struct, frozen=True, kw_only=True):
    """An origin of this process."""

    origin: str
    role: str
    state: str  # What it says of itself.
    slots_total: int
    slots_used: int
    streams: int
    parts_total: int
    window_bytes: int
    irs: IrsLinkSeen
    pops: list[PeerSeen]
    ladders: LadderSlotsSeen | None = None  # None: it makes none.


class IrsPopSeen(Struct, frozen=True, kw_only=True):
    """A PoP shard as IRS sees it."""

    pop: str
    connected: bool
    arrivals_per_s: float
    streams: dict[str, int]  # Units at each origin.
    rtt_ms: dict[str, float]  # To each origin.
    acked: tuple[int, int] | None  # (epoch, version) in force there.
    grants: bool | None = None  # Us our epoch, now; None: it has no other IRS.
    live: int | None = None  # Channels; None: it is too old to tell.


class IrsOriginSeen(Struct, frozen=True, kw_only=True):
    """An origin as IRS sees it."""

    origin: str
    address: str
    connected: bool
    state: str
    slots_total: int
    slots_free: int


class DrainedSeen(Struct, frozen=True, kw_only=True):
    """An origin that is to be empty, and what is still there: of all PoPs at IRS, or of one."""

    origin: str
    left: int
    seconds_left: float


class IrsSeatSeen(Struct, frozen=True, kw_only=True):
    """What an IRS is among others."""

    for_s: float  # So long it has been what it is.
    leads: bool  # It pushes tables.
    grants: int  # PoPs that grant it an epoch.
    majority: int  # So many must; 0: it needs none.
    pops_known: int  # That grant.
    pops_here: int  # Of these: that are heard here.
    active_at: str  # Where another is active, as PoPs reach it.
    taken_over: int  # How often it became the active one.
    state_problem: str  # Why drains are not kept for its next start; "": they are.


class LiveCounts(Struct, frozen=True, kw_only=True):
    """What an IRS knows of who is live where."""

    channels: int
    conflicts: int  # Channels that several PoPs publish for some time now.
    conflicts_first: list[LiveConflict]
    partial: dict[str, str]  # PoPs of which not all is known, and why.


class IrsSeen(Struct, frozen=True, kw_only=True):
    """An IRS of this process."""

    role: str
    epoch: int
    version: int
    plans: int
    nacks: int
    push_delay_ms: float
    pops: list[IrsPopSeen]
    origins: list[IrsOriginSeen]
    drained: list[DrainedSeen] = []
    links: list[LinkStatus] = []  # Of the backbone, those that are configured.
    standing: str = "alone"  # Among other IRSs: "active", "standby", "campaign".
    seat: IrsSeatSeen | None = None
    live: LiveCounts | None = None


class WarningSeen(Struct, frozen=True, kw_only=True):
    """Something about a stream that its broadcaster can mend, in words for the broadcaster."""

    code: str
    severity: Severity
    text: str
    for_s: float


class HealthSeen(Struct, frozen=True, kw_only=True):
    """How a stream comes in. None: not known."""

    fps: float | None = None
    bitrate_bps_2s: float = 0.0
    bitrate_bps_60s: float = 0.0
    gop_s: float | None = None
    jitter_ms: float | None = None
    av_skew_ms: float | None = None
    jumps: int | None = None  # Of its timestamps.
    silent_s: float = 0.0  # Without any unit.
    warnings: list[WarningSeen] = []


class TrackSeen(Struct, frozen=True, kw_only=True):
    """A track as announced."""

    kind: str
    codec: str
    codec_string: str
    width: int
    height: int
    fps: float | None  # Announced.
    sample_rate: int
    channels: int


class RouteSeen(Struct, frozen=True, kw_only=True):
    """Where a stream went, and why."""

    pop: str
    origin: str
    address: str
    rule: str  # "nearest", "price", "pin", "group", "prefer".
    matched: str  # The configured rule, "" for none.
    table_version: int
    why: str  # In a sentence.
    passed: dict[str, str]  # Origins that would have come first, with why not.
    state: str  # Of the forwarding: "open" when units flow.
    accepted: bool  # By the origin.
    for_s: float
    lag_units: int  # In the ring, not sent yet.
    units_skipped: int
    received_seq: int
    packaged_seq: int


class StreamSeen(Struct, frozen=True, kw_only=True):
    """A live channel that this process takes in, packages or serves."""

    channel: str
    title: str
    state: Literal["live", "silent", "waiting", "elsewhere"]
    role: str  # Whose view of it this is; "" for one that is only watched here.
    publication: str = ""
    home_epoch: int = 0
    priority: str = ""
    latency: str = ""  # The class, at an origin with what it means there.
    came_from: str = ""  # "rtmp 10.0.0.7:50112"
    encoder: str = ""
    live_s: float = 0.0
    waiting_s: float | None = None  # So long for its publisher, who was lost and may come back.
    tracks: list[TrackSeen] = []
    ring_bytes: int = 0
    ring_s: float = 0.0
    gapless: bool = True  # False: its GOPs exceed the ring, so moving it would leave a gap.
    viewers: int = 0  # At the PoPs of this process.
    viewers_at: dict[str, int] = {}
    origin: str = ""
    route: RouteSeen | None = None
    health: HealthSeen = HealthSeen()
    ladder: LadderSeen | None = None  # None: its origin is elsewhere, or makes none.
    bitrate_kbps_history: list[int] = []
    viewers_history: list[int] = []


class TotalsSeen(Struct, frozen=True, kw_only=True):
    """The big numbers, over all streams of the process, and a minute of each."""

    streams: int
    viewers: int
    in_bps: float
    out_bps: float
    lag_ms_max: float
    warnings: int  # Streams' warnings.
    warned_streams: int
    streams_history: list[int] = []
    viewers_history: list[int] = []
    in_kbps_history: list[int] = []
    out_kbps_history: list[int] = []
    lag_ms_history: list[float] = []


class Status(Struct, frozen=True, kw_only=True):
    """Everything. `streams` are the first `limit` of those that match the filter, as sorted."""

    at: float  # Unix seconds.
    process: ProcessSeen
    totals: TotalsSeen
    roles: list[RoleSeen]
    pops: list[PopSeen] = []
    origins: list[OriginHere] = []
    irs: list[IrsSeen] = []
    streams: list[StreamSeen] = []
    streams_matching: int = 0
    made_ms: float = 0.0  # What it cost to make this.


class RuleSeen(Struct, frozen=True, kw_only=True):
    """A rule of the table, and how many streams it has placed here since the start."""

    label: str
    match: dict[str, str]
    does: str
    placed: int


class RoutedStream(Struct, frozen=True, kw_only=True):
    """A live stream of `edged routes`."""

    channel: str
    route: RouteSeen


class RoutesSeen(Struct, frozen=True, kw_only=True):
    """What one PoP routes by, and where its streams went: `edged routes`."""

    pop: str
    table: tuple[int, int] | None
    table_age_s: float | None
    lease_left_s: float
    irs: IrsLinkSeen
    origins: list[OriginSeen]
    rules: list[RuleSeen]
    streams: list[RoutedStream]
    streams_total: int
    drained: list[DrainedSeen] = []
