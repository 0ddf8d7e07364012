"""What an HTTP/2 connection tells whoever serves it."""

from typing import TypeAlias

from msgspec import Struct

from edged.wire.h2.head import H2Request


class RequestRefused(Struct, frozen=True):
    """What came is no request that we take; answer it with that status."""

    stream_id: int
    status: int
    reason: str
    head_only: bool = False  # It was HEAD: a body would be an error (RFC 9110 §9.3.2).


class StreamReset(Struct, frozen=True):
    """A request that was told, or refused, wants no answer any more; nor what is left of one."""

    stream_id: int
    why: str


class SessionEnded(Struct, frozen=True):
    """The last event. All streams are gone; send what waits, then close."""

    reason: str


class H2Statistics(Struct, frozen=True):
    """Counters of one connection."""

    requests: int
    refused: int
    unanswered: int  # Streams that live.
    resets_received: int
    resets_sent: int  # Because of what the peer did.
    pings: int
    body_bytes_sent: int
    body_bytes_received: int


Event: TypeAlias = H2Request | RequestRefused | StreamReset | SessionEnded
