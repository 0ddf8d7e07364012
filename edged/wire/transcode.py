"""What a transcoder's child process and its parent say to each other, sans-IO: backbone frames.

    frame     u32 length, u8 kind, body; as in `edged.wire.backbone.frames`, without a hello
    MESSAGE   msgpack array, its name first, then the fields in order: `Message`
    UNIT      an access unit or its first fragment; stream_no is always 1
    FRAGMENT  the next piece of the unfinished unit; nothing but UNITs' pieces in between

    parent -> child   [Planned, TrackSet*] then UNITs, TrackSet before the first unit that needs it,
                      Planned again when the ladder changes, RungsWanted, InputEnded
    child -> parent   Ready, then TrackSet and UNITs of rungs, Progressed after each unit taken,
                      Logged, OutputEnded after InputEnded

There is no credit: the parent sends no more than it has seen to be done plus a bound of its own,
and the child, which does one thing at a time, waits until the parent has read.
"""

import msgspec
from msgspec import Struct

from edged.errors import RemoteProtocolError
from edged.media.access_unit import AccessUnit
from edged.media.ladder import LadderPlan
from edged.media.track import Track
from edged.wire.backbone.frames import (
    FLAG_CAPTURE,
    FLAG_DISCONTINUITY,
    FLAG_RANDOM_ACCESS,
    FRAGMENT_BYTES_MAX,
    FRAGMENT_HEADER,
    FRAGMENT_HEADER_BYTES,
    FRAME_HEADER_BYTES,
    ITEM_BYTES_MAX,
    KIND_FRAGMENT,
    KIND_MESSAGE,
    KIND_UNIT,
    UNIT_HEADER,
    UNIT_HEADER_BYTES,
    FrameReader,
    make_frame,
)

STREAM_NO = 1
LOG_CHARS_MAX = 1000  # Of a line.
_UNIT_BODY = UNIT_HEADER_BYTES - FRAME_HEADER_BYTES


class Planned(Struct, frozen=True, array_like=True, tag="planned"):
    """Make this from the next random access on."""

    plan: LadderPlan


class TrackSet(Struct, frozen=True, array_like=True, tag="track_set"):
    """A track is new, or units from now on need this configuration."""

    track: Track


class RungsWanted(Struct, frozen=True, array_like=True, tag="rungs_wanted"):
    """Make only these rungs of video: others end at once, new ones begin at random access."""

    names: tuple[str, ...]


class InputEnded(Struct, frozen=True, array_like=True, tag="input_ended"):
    """No more units: give out what is held back, and end."""


class Ready(Struct, frozen=True, array_like=True, tag="ready"):
    """The child has started."""

    pid: int


class Progressed(Struct, frozen=True, array_like=True, tag="progressed"):
    """All units up to this one have been taken, and what came of them has been sent."""

    seq: int
    busy_us: int  # Since the start: not waiting for units.
    errors: int = 0  # Units that could not be decoded, since the start.


class Logged(Struct, frozen=True, array_like=True, tag="logged"):
    """A line for the log."""

    level: str
    text: str


class OutputEnded(Struct, frozen=True, array_like=True, tag="output_ended"):
    """All that there was has been sent."""


Message = Planned | TrackSet | RungsWanted | InputEnded | Ready | Progressed | Logged | OutputEnded
Event = Message | AccessUnit

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)


class TranscodeLink:
    """One end."""

    def __init__(self) -> None:
        self._frames = FrameReader()
        self._frames.hello_only = False
        self._outbox: list[bytes] = []
        self._unit: AccessUnit | None = None  # Of which fragments are still to come.
        self._partial = bytearray()
        self._wanted = 0

    def receive_data(self, data: bytes | bytearray | memoryview) -> list[Event]:
        """What has come whole. Raises RemoteProtocolError; the link is of no use then."""
        view = memoryview(data)
        events: list[Event] = []
        position = 0
        while position < len(view):
            frame, position = self._frames.take(view, position)
            if frame is not None and (event := self._read(frame)) is not None:
                events.append(event)
        return events

    def send_message(self, message: Message) -> None:
        """Have a message sent."""
        self._outbox.append(make_frame(KIND_MESSAGE, _encoder.encode(message)))

    def send_unit(self, unit: AccessUnit) -> None:
        """Have a unit sent, in as many frames as it takes."""
        payload = unit.payload
        size = len(payload)
        assert size <= ITEM_BYTES_MAX, "ingest must have bounded the unit"
        first = payload[:FRAGMENT_BYTES_MAX]
        flags = (
            FLAG_RANDOM_ACCESS * unit.random_access
            | FLAG_DISCONTINUITY * unit.discontinuity
            | FLAG_CAPTURE * (unit.capture_us is not None)
        )
        header = UNIT_HEADER.pack(
            _UNIT_BODY + len(first),
            KIND_UNIT,
            flags,
            unit.track_id,
            STREAM_NO,
            unit.config_id,
            size,
            unit.seq,
            unit.dts,
            unit.pts,
            unit.wallclock_us,
            unit.capture_us or 0,
        )
        self._outbox += (header, first)
        for start in range(FRAGMENT_BYTES_MAX, size, FRAGMENT_BYTES_MAX):
            piece = payload[start : start + FRAGMENT_BYTES_MAX]
            self._outbox += (FRAGMENT_HEADER.pack(4 + len(piece), KIND_FRAGMENT, STREAM_NO), piece)

    def data_to_send(self) -> bytes:
        """What is to be written now."""
        data, self._outbox = b"".join(self._outbox), []
        return data

    def _read(self, frame: memoryview) -> Event | None:
        kind = frame[4]
        if kind == KIND_FRAGMENT:
            return self._read_fragment(frame)
        if self._unit is not None:
            raise RemoteProtocolError(f"frame of kind {kind:#04x} inside of unit {self._unit.seq}")
        if kind == KIND_UNIT:
            return self._read_unit(frame)
        if kind != KIND_MESSAGE:
            raise RemoteProtocolError(f"frame of kind {kind:#04x} on a transcoder's link")
        try:
            message: Message = _decoder.decode(frame[FRAME_HEADER_BYTES:])
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise RemoteProtocolError(f"malformed message: {error}") from error
        return message

    def _read_unit(self, frame: memoryview) -> AccessUnit | None:
        _, _, flags, track_id, _, config_id, size, seq, dts, pts, wallclock, capture = (
            UNIT_HEADER.unpack_from(frame)
        )
        here = len(frame) - UNIT_HEADER_BYTES
        if size > ITEM_BYTES_MAX or here > size or (here < size and not here):
            raise RemoteProtocolError(
                f"unit {seq}: {here} bytes of {size}, allowed are {ITEM_BYTES_MAX}"
            )
        unit = AccessUnit(
            track_id=track_id,
            seq=seq,
            config_id=config_id,
            pts=pts,
            dts=dts,
            wallclock_us=wallclock,
            payload=bytes(frame[UNIT_HEADER_BYTES:]),
            random_access=flags & FLAG_RANDOM_ACCESS != 0,
            discontinuity=flags & FLAG_DISCONTINUITY != 0,
            capture_us=capture if flags & FLAG_CAPTURE else None,
        )
        if here == size:
            return unit
        self._unit, self._wanted = unit, size
        self._partial = bytearray(unit.payload)
        return None

    def _read_fragment(self, frame: memoryview) -> AccessUnit | None:
        unit = self._unit
        piece = frame[FRAGMENT_HEADER_BYTES:]
        if unit is None or len(self._partial) + len(piece) > self._wanted:
            raise RemoteProtocolError(f"a fragment of {len(piece)} bytes that belongs to no unit")
        self._partial += piece
        if len(self._partial) < self._wanted:
            return None
        unit.payload = bytes(self._partial)
        self._unit, self._partial = None, bytearray()
        return unit
