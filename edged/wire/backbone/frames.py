"""Backbone frames: how control messages and media share one TCP connection.

The PoP connects, the origin listens. Both directions are a sequence of frames. All integers are
big-endian; `i64` is two's complement.

    frame     u32 length   bytes that follow `kind`
              u8  kind
              length bytes of body

    kind      body                                                              length
    0x01      HELLO     msgpack array, see `messages.Hello`                     1..4096
    0x02      MESSAGE   msgpack array, see `messages`                           1..1048576
    0x03      PING      u64 token                                               8
    0x04      PONG      u64 token, copied from the PING                         8
    0x05      CREDIT    1..1024 of (u32 stream_no, u64 limit)                   12 each
    0x10      UNIT      an access unit, or its first fragment                   55 + n
    0x11      EVENT     a packaged event (part, init...), or its first fragment 11 + m + n
    0x12      FRAGMENT  the next piece of the stream's unfinished unit or event 4 + n

    UNIT      offsets are from the frame's first byte
     0  u32 length          55 + n
     4  u8  kind            0x10
     5  u8  flags           1 random access, 2 discontinuity, 4 capture_us is meant
     6  u16 track_id
     8  u32 stream_no       as in StreamOpened, never 0
    12  u32 config_id       the track's configuration that this unit needs
    16  u32 unit_bytes      the whole payload, 0..8388608
    20  u64 seq
    28  i64 dts             ticks of the track's timescale
    36  i64 pts             ticks of the track's timescale
    44  i64 wallclock_us    microseconds since 1970
    52  i64 capture_us      microseconds since 1970; 0 unless flag 4
    60  n bytes of payload  n = unit_bytes if that is <= 65536, else 1..65536, the rest follows

    EVENT
     0  u32 length          11 + m + n
     4  u8  kind            0x11
     5  u8  event           1 Rendition, 2 InitSegment, 3 Part, 4 SegmentEnded, 5 StreamEnded,
                            6 SegmentsListed, 7 SegmentPiece (both to who has their feature)
     6  u16 meta_bytes      m, 1..4096
     8  u32 stream_no       as in EventsOpened, never 0
    12  u32 body_bytes      the whole body, 0..8388608
    16  m bytes of meta     msgpack map: the Struct of `edged.media.parts` with its bytes left empty
    16+m  n bytes of body   InitSegment.data, Part.payload, SegmentPiece.payload, or
                            SegmentsListed.segments as a msgpack array; n as for UNIT

    FRAGMENT
     0  u32 length          4 + n
     4  u8  kind            0x12
     5  u32 stream_no
     9  n bytes             n = 1..65536; the unit is whole when `unit_bytes` have come

A session begins with HELLO, first from the client, then, if that was acceptable, from the server;
nothing else goes before the peer's HELLO has come. Whoever refuses sends MESSAGE SessionClosed with
the reason and closes. Frames of different streams interleave; in one stream, a unit's fragments
follow it before anything else of that stream. At most INTERLEAVE_MAX items are unfinished at once
in a direction.

Credit: UNIT, EVENT and FRAGMENT frames cost their whole size on the wire (5 + length), counted for
each stream from 0, and for the session from 0. Nobody sends beyond the limit that the peer gave:
at first `stream_window` and `session_window` of the peer's HELLO, later the newest CREDIT, where
stream_no 0 means the session. Limits never sink. A sender begins a unit only when the stream's
credit covers all its frames, so a unit once begun waits for nothing but the session. A window is
at least `messages.WINDOW_BYTES_MIN`, and its limit is raised each time a quarter of it has been
taken; else the largest unit might wait for ever. All other kinds are free.

The least that a receiver of units must do (a benchmark's sink, say): on HELLO, answer HELLO

    ["hello", 1, "origin", NAME, 0, INSTANCE, PURPOSE, PRIORITY, 2**62, 2**62]

with NAME as the PoP expects it, INSTANCE any number that is not the PoP's, PURPOSE ("control" or
"media") and PRIORITY (0..2) copied from the client's HELLO, and windows so large that no CREDIT is
ever needed; on StreamOpened (MESSAGE ["stream_opened", stream_no, ...]) answer MESSAGE
["stream_accepted", stream_no, -1]; answer every PING; read on. Acks may be left out.
"""

import struct
from typing import Final

from edged.errors import RemoteProtocolError

FRAME_HEADER_BYTES: Final = 5
KIND_HELLO: Final = 0x01
KIND_MESSAGE: Final = 0x02
KIND_PING: Final = 0x03
KIND_PONG: Final = 0x04
KIND_CREDIT: Final = 0x05
KIND_UNIT: Final = 0x10
KIND_EVENT: Final = 0x11
KIND_FRAGMENT: Final = 0x12

FLAG_RANDOM_ACCESS: Final = 1
FLAG_DISCONTINUITY: Final = 2
FLAG_CAPTURE: Final = 4

UNIT_HEADER = struct.Struct(">IBBHIIIQqqqq")
UNIT_HEADER_BYTES = UNIT_HEADER.size  # 60
EVENT_HEADER = struct.Struct(">IBBHII")
EVENT_HEADER_BYTES = EVENT_HEADER.size  # 16
FRAGMENT_HEADER = struct.Struct(">IBI")
FRAGMENT_HEADER_BYTES = FRAGMENT_HEADER.size  # 9
CREDIT_ENTRY = struct.Struct(">IQ")
_FRAME_HEADER = struct.Struct(">IB")
_TOKEN = struct.Struct(">Q")

# Payload per frame: 0.5 ms of a Gbit/s link, then the next stream.
FRAGMENT_BYTES_MAX: Final = 64 * 1024
# Above any access unit that ingest takes, and a 1 s part at 60 Mbps.
ITEM_BYTES_MAX: Final = 8 * 2**20
META_BYTES_MAX: Final = 4096  # A Part's is some 250 bytes.
HELLO_BYTES_MAX: Final = 4096  # What a stranger may make us hold.
MESSAGE_BYTES_MAX: Final = 2**20  # 16 tracks with the largest decoder configurations.
CREDIT_ENTRIES_MAX: Final = 1024  # More go into another frame.
INTERLEAVE_MAX: Final = 64  # Unfinished items, hence at most 64 x ITEM_BYTES_MAX held for one peer.

_LENGTHS = {  # kind: least and greatest `length`
    KIND_HELLO: (1, HELLO_BYTES_MAX),
    KIND_MESSAGE: (1, MESSAGE_BYTES_MAX),
    KIND_PING: (_TOKEN.size, _TOKEN.size),
    KIND_PONG: (_TOKEN.size, _TOKEN.size),
    KIND_CREDIT: (CREDIT_ENTRY.size, CREDIT_ENTRIES_MAX * CREDIT_ENTRY.size),
    KIND_UNIT: (
        UNIT_HEADER_BYTES - FRAME_HEADER_BYTES,
        UNIT_HEADER_BYTES - FRAME_HEADER_BYTES + FRAGMENT_BYTES_MAX,
    ),
    KIND_EVENT: (
        EVENT_HEADER_BYTES - FRAME_HEADER_BYTES + 1,
        EVENT_HEADER_BYTES - FRAME_HEADER_BYTES + META_BYTES_MAX + FRAGMENT_BYTES_MAX,
    ),
    KIND_FRAGMENT: (5, 4 + FRAGMENT_BYTES_MAX),
}
FRAME_BYTES_MAX = FRAME_HEADER_BYTES + max(most for _, most in _LENGTHS.values())


def make_frame(kind: int, body: bytes) -> bytes:
    """Make a control frame; `body` is within the kind's limits."""
    least, most = _LENGTHS[kind]
    assert least <= len(body) <= most, f"{len(body)} bytes do not fit a frame of kind {kind}"
    return _FRAME_HEADER.pack(len(body), kind) + body


def make_token_frame(kind: int, token: int) -> bytes:
    """Make a PING or a PONG."""
    return make_frame(kind, _TOKEN.pack(token))


def parse_token(frame: memoryview) -> int:
    """Read the token of a PING or PONG frame."""
    token: int = _TOKEN.unpack_from(frame, FRAME_HEADER_BYTES)[0]
    return token


def make_credit_frames(limits: dict[int, int]) -> bytes:
    """Make CREDIT frames for stream_no -> limit; 0 is the session."""
    entries = [CREDIT_ENTRY.pack(stream_no, limit) for stream_no, limit in limits.items()]
    starts = range(0, len(entries), CREDIT_ENTRIES_MAX)
    return b"".join(
        make_frame(KIND_CREDIT, b"".join(entries[start : start + CREDIT_ENTRIES_MAX]))
        for start in starts
    )


def parse_credit(frame: memoryview) -> list[tuple[int, int]]:
    """Read the (stream_no, limit) pairs of a CREDIT frame."""
    if (len(frame) - FRAME_HEADER_BYTES) % CREDIT_ENTRY.size:
        raise RemoteProtocolError(f"credit frame of {len(frame)} bytes is not whole entries")
    return list(CREDIT_ENTRY.iter_unpack(frame[FRAME_HEADER_BYTES:]))


class FrameReader:
    """Cuts received bytes into frames.

    A frame that lies whole in the bytes received is handed on where it lies; one that does not is
    gathered first. `hello_only` bounds what a peer may send before it has said who it is.
    """

    def __init__(self) -> None:
        self.hello_only = True
        self._partial = bytearray()
        self._wanted = 0  # Size of the frame in `_partial`; 0 while its header is incomplete.

    def take(self, data: memoryview, start: int) -> tuple[memoryview | None, int]:
        """Take the next frame of `data` from `start`: it, or None if it isn't whole, and the end.

        The frame is to be used before the next call, and `data` before it is reused. Raises
        RemoteProtocolError for an unknown kind, or a length outside the kind's limits.
        """
        if self._partial:
            return self._take_gathered(data, start)
        left = len(data) - start
        if left >= FRAME_HEADER_BYTES:
            length, kind = _FRAME_HEADER.unpack_from(data, start)
            size = self._check(length, kind)
            if left >= size:
                return data[start : start + size], start + size
            self._wanted = size
        self._partial += data[start:]
        return None, len(data)

    def _take_gathered(self, data: memoryview, start: int) -> tuple[memoryview | None, int]:
        partial = self._partial
        if not self._wanted:
            end = min(start + FRAME_HEADER_BYTES - len(partial), len(data))
            partial += data[start:end]
            start = end
            if len(partial) < FRAME_HEADER_BYTES:
                return None, start
            self._wanted = self._check(*_FRAME_HEADER.unpack_from(partial))
        end = min(start + self._wanted - len(partial), len(data))
        partial += data[start:end]
        if len(partial) < self._wanted:
            return None, end
        self._partial, self._wanted = bytearray(), 0
        return memoryview(partial), end

    def _check(self, length: int, kind: int) -> int:
        least, most = _LENGTHS.get(kind, (0, -1))
        if not least <= length <= most:
            if most < 0:
                raise RemoteProtocolError(f"frame of unknown kind {kind:#04x}")
            raise RemoteProtocolError(
                f"frame of kind {kind:#04x} has {length} bytes, allowed are {least} to {most}"
            )
        # A refusal (SessionClosed) may come in place of HELLO.
        if self.hello_only and (kind not in (KIND_HELLO, KIND_MESSAGE) or length > HELLO_BYTES_MAX):
            raise RemoteProtocolError(f"frame of kind {kind:#04x}, {length} bytes, before hello")
        return FRAME_HEADER_BYTES + length
