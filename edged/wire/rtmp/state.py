"""A server session as plain data: what `state()` gives and `from_state()` takes."""

import enum

from msgspec import Struct

from edged.wire.rtmp.chunks import CHUNK_BYTES_DEFAULT, ReaderState, WriterStream
from edged.wire.rtmp.connect import ConnectInfo
from edged.wire.rtmp.handshake import HandshakeState
from edged.wire.rtmp.tracks import AssemblerState


class Phase(enum.IntEnum):
    """How far the session is."""

    HANDSHAKE = 0
    CONNECTING = 1
    CONNECTED = 2  # Before `publish`, or between two.
    ASKED = 3  # The shell decides on a publish.
    PUBLISHING = 4
    CLOSED = 5  # Refused, closed or timed out: what comes is not read.


class RtmpStatistics(Struct):
    """Counters of one session."""

    received_bytes: int = 0  # After the handshake.
    messages: int = 0
    units: int = 0  # Of the broadcast now on, as are `unit_bytes` and `tracks`.
    unit_bytes: int = 0
    units_unusable: int = 0  # Dropped, as they had no configuration.
    sent_bytes: int = 0
    chunk_bytes: int = CHUNK_BYTES_DEFAULT  # The publisher's chunk size.
    tracks: int = 0
    rtt_s: float | None = None  # By our last ping; OBS does not answer pings.


class RtmpState(Struct):
    """All of a session as plain data, for a successor process; deadlines begin anew there."""

    phase: Phase
    handshake: HandshakeState
    reader: ReaderState
    writer: dict[int, WriterStream]
    writer_chunk_size: int
    outbox: bytes
    held: list[tuple[int, int, int, bytes]]
    media: AssemblerState
    peer: ConnectInfo
    fc_published: bool
    streams: int
    stream_id: int
    received: int
    window: int
    acknowledged: int
    counters: RtmpStatistics
