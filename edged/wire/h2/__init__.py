"""HTTP/2 (RFC 9113) with its HPACK (RFC 7541), sans-IO: `H2Session` serves one connection."""

from edged.wire.h2.events import (
    Event,
    H2Statistics,
    RequestRefused,
    SessionEnded,
    StreamReset,
)
from edged.wire.h2.head import H2Request
from edged.wire.h2.hpack import KnownStrings
from edged.wire.h2.limits import H2Limits
from edged.wire.h2.responses import date_block, make_block
from edged.wire.h2.session import H2Session

__all__ = [
    "Event",
    "H2Limits",
    "H2Request",
    "H2Session",
    "H2Statistics",
    "KnownStrings",
    "RequestRefused",
    "SessionEnded",
    "StreamReset",
    "date_block",
    "make_block",
]
