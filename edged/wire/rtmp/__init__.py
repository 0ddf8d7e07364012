"""RTMP and Enhanced RTMP, sans-IO: `RtmpServerSession` takes a publisher, the client is one."""

from edged.wire.rtmp.amf0 import AmfDate, AmfValue, EcmaArray
from edged.wire.rtmp.client import (
    FFMPEG_LIKE,
    RtmpClientOptions,
    RtmpClientSession,
    RtmpClientStatistics,
)
from edged.wire.rtmp.events import (
    ClientEvent,
    Closed,
    DataReceived,
    MetadataReceived,
    PeerTimedOut,
    PlayRefused,
    PublishAccepted,
    PublishEnded,
    PublishRefused,
    PublishRequested,
    ReconnectRequested,
    ServerEvent,
    TrackAnnounced,
    UnitsUnusable,
)
from edged.wire.rtmp.limits import RtmpLimits
from edged.wire.rtmp.reader import is_compiled, use_compiled
from edged.wire.rtmp.server import RtmpServerSession
from edged.wire.rtmp.state import Phase, RtmpState, RtmpStatistics
from edged.wire.rtmp.url import RtmpUrl, parse_url, resolve

Event = ServerEvent

__all__ = [
    "FFMPEG_LIKE",
    "AmfDate",
    "AmfValue",
    "ClientEvent",
    "Closed",
    "DataReceived",
    "EcmaArray",
    "Event",
    "MetadataReceived",
    "PeerTimedOut",
    "Phase",
    "PlayRefused",
    "PublishAccepted",
    "PublishEnded",
    "PublishRefused",
    "PublishRequested",
    "ReconnectRequested",
    "RtmpClientOptions",
    "RtmpClientSession",
    "RtmpClientStatistics",
    "RtmpLimits",
    "RtmpServerSession",
    "RtmpState",
    "RtmpStatistics",
    "RtmpUrl",
    "ServerEvent",
    "TrackAnnounced",
    "UnitsUnusable",
    "is_compiled",
    "parse_url",
    "resolve",
    "use_compiled",
]
