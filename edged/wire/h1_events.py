"""What one connection of HTTP/1.1 tells of: its requests, and what ends it."""

from msgspec import Struct

from edged.wire.request import RequestReceived


class H1Limits(Struct, frozen=True, kw_only=True):
    """What one connection may make us hold, and for how long."""

    target_bytes_max: int = 2048  # Ours are below 200; a proxy's query may be long.
    head_bytes_max: int = 16 * 1024  # Target and fields; browsers send below 2 KB.
    fields_max: int = 64  # Header fields and trailers; browsers send below 20.
    body_bytes_max: int = 64 * 1024  # For signalling bodies (SDP); playback has none.
    unanswered_max: int = 64  # Pipelined requests; browsers send one, load generators a few tens.
    request_s_max: float = 10.0  # From a request's first byte to its last.
    idle_s_max: float = 75.0  # From the last answer to the next request; nginx's default.


class RequestRefused(Struct, frozen=True):
    """What came is no request that we take; answer it in its turn and close. Nothing follows."""

    status: int
    reason: str


class PeerTimedOut(Struct, frozen=True):
    """The peer took too long; close."""

    reason: str


class H1Statistics(Struct, frozen=True):
    """Counters of one connection."""

    requests: int
    unanswered: int


Event = RequestReceived | RequestRefused
