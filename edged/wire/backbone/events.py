"""What a session's two ends tell of: its peer, what came, what was left out."""

from msgspec import Struct

from edged.media.access_unit import AccessUnit
from edged.media.parts import PackagedEvent, SegmentPiece
from edged.wire.backbone.messages import Hello, Message


class UnitsSkipped(Struct, frozen=True):
    """A stream lagged so far that its ring let units go."""

    stream_no: int
    units: int


class EventsSkipped(Struct, frozen=True):
    """A subscriber lagged so far that parts were dropped up to the newest segment."""

    stream_no: int
    events: int


class FlowEnded(Struct, frozen=True):
    """A stream's last frame was made; `reason` and `ended` as in StreamClosed."""

    stream_no: int
    reason: str
    ended: bool
    error: Exception | None = None  # The bug that ended it, for a log with its traceback.


class PeerAccepted(Struct, frozen=True):
    """The hellos have been exchanged; anything may be sent."""

    hello: Hello


class MessageReceived(Struct, frozen=True):
    """A control message, in its place among the media events."""

    message: Message


class PeerClosed(Struct, frozen=True):
    """The peer ended the session; nothing follows."""

    reason: str


class Expected(Struct, frozen=True, kw_only=True):
    """Whom we talk with. `certified`: role and name in its certificate; None on plain TCP."""

    roles: frozenset[str]
    name: str | None = None  # None: any.
    certified: tuple[str, str] | None = None


class LinkStatistics(Struct, frozen=True, kw_only=True):
    """What is known of a session."""

    rtt_s: float | None  # Smoothed, through both ends' queues.
    rtt_s_min: float | None
    silence_s: float
    late_timers: int
    messages_received: int


class UnitsReceived(Struct, frozen=True):
    """Units of one stream, in order."""

    stream_no: int
    units: list[AccessUnit]


class EventReceived(Struct, frozen=True):
    """A packaged event, with its bytes."""

    stream_no: int
    event: PackagedEvent | SegmentPiece


class ReceiverStatistics(Struct, frozen=True, kw_only=True):
    """Counters of a session's incoming media."""

    streams: int
    units_received: int
    events_received: int
    bytes_received: int  # On the wire, media frames only: what credit counts.
    partial_bytes: int


class SenderStatistics(Struct, frozen=True, kw_only=True):
    """Counters of a session's outgoing media."""

    flows: int
    items_sent: int
    bytes_sent: int  # On the wire, media frames only: what credit counts.
    units_skipped: int
    events_skipped: int
    session_credit: int


SenderEvent = UnitsSkipped | EventsSkipped | FlowEnded
