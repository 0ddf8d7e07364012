"""What the RTMP cores report."""

from msgspec import Struct

from edged.media.access_unit import AccessUnit
from edged.media.track import Track
from edged.wire.rtmp.amf0 import AmfValue


class PublishRequested(Struct, frozen=True, kw_only=True):
    """The peer wants to publish. Answer with accept_publish or refuse_publish, and read no more
    until then. Its text form hides what may be secret.
    """

    app: str
    stream_key: str
    tc_url: str
    query: dict[str, str]  # Of the stream name and of the app.
    encoder: str  # flashVer, as it calls itself.
    fourcc_list: tuple[str, ...]  # Enhanced RTMP codecs that it says it has.

    def __repr__(self) -> str:
        return f"PublishRequested(app={self.app!r}, encoder={self.encoder!r})"


class TrackAnnounced(Struct, frozen=True):
    """A track's first configuration, or a new one (its config_id is greater by one)."""

    track: Track


class UnitsUnusable(Struct, frozen=True):
    """A track's units are dropped until its configuration comes. Said once, counted each time."""

    track_id: int
    reason: str


class MetadataReceived(Struct, frozen=True):
    """onMetaData, whether sent by @setDataFrame or plainly."""

    values: dict[str, AmfValue]


class DataReceived(Struct, frozen=True):
    """Another data message (onCuePoint, onTextData, colorInfo ...)."""

    name: str
    values: list[AmfValue]
    timestamp_ms: int  # 32 bit, as on the wire.


class PublishEnded(Struct, frozen=True):
    """The publisher ended its broadcast in good order."""

    reason: str


class PlayRefused(Struct, frozen=True):
    """The peer asked to play and was told that only publishing is served; close the connection."""

    app: str


class PeerTimedOut(Struct, frozen=True):
    """The peer missed a deadline; the session is over."""

    reason: str


class PublishAccepted(Struct, frozen=True):
    """Client: the server takes our broadcast; send tracks and units."""


class PublishRefused(Struct, frozen=True):
    """Client: the server does not take it; the session is over."""

    code: str
    description: str


class ReconnectRequested(Struct, frozen=True):
    """Client: the server asks us to publish anew, at `tc_url` if it is not empty (E-RTMP v2)."""

    tc_url: str
    description: str


class Closed(Struct, frozen=True):
    """Client: the server ended our broadcast."""

    code: str
    description: str


# An access unit is an event by itself: of nothing else are there many. Its seq and wallclock_us are
# 0, for the publication to fill in.
ServerEvent = (
    AccessUnit
    | PublishRequested
    | TrackAnnounced
    | UnitsUnusable
    | MetadataReceived
    | DataReceived
    | PublishEnded
    | PlayRefused
    | PeerTimedOut
)
ClientEvent = PublishAccepted | PublishRefused | ReconnectRequested | Closed | PeerTimedOut
