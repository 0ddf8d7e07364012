"""Frames out of one connection's bytes: what RFC 9113 says of their layout and places.

The preface first; then whole frames, without their padding; a header block comes whole, as one
HEADERS frame, however many CONTINUATIONs it had. A fault of layout ends the reading; what came
before it is still given.
"""

import re
from typing import Final

from edged.wire.h2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    FRAME_BYTES,
    GOAWAY,
    HAS_PRIORITY,
    HEADER,
    HEADER_BYTES,
    HEADERS,
    NUMBER_BYTES,
    PADDED,
    PING,
    PING_BYTES,
    PREFACE,
    PRIORITY,
    PRIORITY_BYTES,
    PRIORITY_UPDATE,
    PUSH_PROMISE,
    RST_STREAM,
    SETTING_BYTES,
    SETTINGS,
    STREAM_ID_MAX,
    WINDOW_UPDATE,
    ConnectionFaultError,
    ErrorCode,
)
from edged.wire.h2.limits import H2Limits

NO_STREAM: Final = -1  # No dependency is told.
_HTTP1 = re.compile(rb"(?!PRI )[A-Z]+ [/*h]")  # A request line begins.

# Kind, flags, stream, payload; then of DATA its whole size, which is what windows count, of HEADERS
# the stream that it depends on.
Frame = tuple[int, int, int, bytes, int]

NAMES = {
    DATA: "DATA",
    HEADERS: "HEADERS",
    PRIORITY: "PRIORITY",
    RST_STREAM: "RST_STREAM",
    SETTINGS: "SETTINGS",
    PUSH_PROMISE: "PUSH_PROMISE",
    PING: "PING",
    GOAWAY: "GOAWAY",
    WINDOW_UPDATE: "WINDOW_UPDATE",
    CONTINUATION: "CONTINUATION",
    PRIORITY_UPDATE: "PRIORITY_UPDATE",
}
_OF_STREAM = frozenset((DATA, HEADERS, PRIORITY, RST_STREAM, CONTINUATION))
_OF_CONNECTION = frozenset((SETTINGS, PING, GOAWAY, PRIORITY_UPDATE))
_SIZES = {PING: PING_BYTES, RST_STREAM: NUMBER_BYTES, WINDOW_UPDATE: NUMBER_BYTES}
_SIZES_MIN = {GOAWAY: 2 * NUMBER_BYTES, PRIORITY_UPDATE: NUMBER_BYTES}


class _Block:
    """A header block that goes on."""

    __slots__ = ("continuations", "dependency", "flags", "fragment", "stream_id")

    def __init__(self, flags: int, stream_id: int, dependency: int, fragment: bytearray) -> None:
        self.flags = flags
        self.stream_id = stream_id
        self.dependency = dependency
        self.fragment = fragment
        self.continuations = 0


class FrameReader:
    """The bytes of one connection. It holds a frame and a block at most."""

    __slots__ = ("_block", "_inbox", "_limits", "_needed", "fault", "started")

    def __init__(self, limits: H2Limits) -> None:
        self.fault: ConnectionFaultError | None = None  # What has ended the reading.
        self._limits = limits
        self._inbox = bytearray()
        self._needed = 0  # Bytes until there is something to do.
        self.started = False  # The preface has come.
        self._block: _Block | None = None

    @property
    def partial(self) -> bool:
        """Whether a frame or a header block has begun that is not whole."""
        return bool(self._inbox) or self._block is not None

    def clear(self) -> None:
        """Let go of what is not whole; nothing more is read."""
        self._inbox = bytearray()
        self._block = None

    def receive(self, data: bytes) -> list[Frame]:
        """Take bytes; the frames that are whole now. See `fault` then."""
        frames: list[Frame] = []
        if self._inbox:
            self._inbox += data
            if len(self._inbox) < self._needed:
                return frames
            data = bytes(self._inbox)
            self._inbox.clear()
        try:
            at = 0 if self.started else self._take_preface(data)
            if self.started:
                at = self._take_frames(data, at, frames)
        except ConnectionFaultError as fault:
            self.fault = fault
            self.clear()
            return frames
        if at < len(data):
            self._inbox += memoryview(data)[at:]
        return frames

    def _take_frames(self, data: bytes, at: int, frames: list[Frame]) -> int:
        """Cut whole frames off; returns where the rest begins."""
        size = len(data)
        while size - at >= HEADER_BYTES:
            high, low, kind, flags, stream_id = HEADER.unpack_from(data, at)
            length = high << 8 | low
            if length > FRAME_BYTES:
                raise self._too_large(kind, length)
            end = at + HEADER_BYTES + length
            if end > size:
                self._needed = HEADER_BYTES + length
                break
            payload = data[at + HEADER_BYTES : end]
            at = end
            if kind == HEADERS and self._block is None:
                frame = self._take_headers(flags, stream_id & STREAM_ID_MAX, payload)
            else:
                frame = self._take(kind, flags, stream_id & STREAM_ID_MAX, payload)
            if frame is not None:
                frames.append(frame)
        else:
            self._needed = HEADER_BYTES
        return at

    def _take_preface(self, data: bytes) -> int:
        """Judge the preface once as many bytes have come; returns where it ends."""
        size = len(PREFACE)
        if len(data) < size:
            self._needed = size
            return 0
        self.started = True
        if data.startswith(PREFACE):
            return size
        told = repr(data[:size])[1:]
        if _HTTP1.match(data, 0, size):
            raise ConnectionFaultError(
                ErrorCode.HTTP_1_1_REQUIRED, f"an HTTP/1.1 request on an HTTP/2 connection: {told}"
            )
        raise ConnectionFaultError(
            ErrorCode.PROTOCOL_ERROR, f"not HTTP/2's preface (RFC 9113 §3.4): {told}"
        )

    def _take_headers(self, flags: int, stream_id: int, payload: bytes) -> Frame | None:
        if not stream_id:
            raise _misplaced(HEADERS, stream_id)
        dependency = NO_STREAM
        if flags & PADDED:
            payload = _strip(HEADERS, payload)
        if flags & HAS_PRIORITY:
            if len(payload) < PRIORITY_BYTES:
                raise _missized(HEADERS, len(payload), f"at least {PRIORITY_BYTES}")
            dependency = int.from_bytes(payload[:NUMBER_BYTES], "big") & STREAM_ID_MAX
            payload = payload[PRIORITY_BYTES:]
        if flags & END_HEADERS:
            return (HEADERS, flags, stream_id, payload, dependency)
        self._block = _Block(flags, stream_id, dependency, bytearray(payload))
        return None

    def _take(self, kind: int, flags: int, stream_id: int, payload: bytes) -> Frame | None:
        block = self._block
        if block is not None:
            return self._continue(block, kind, flags, stream_id, payload)
        size = len(payload)
        if kind == DATA:
            if not stream_id:
                raise _misplaced(kind, stream_id)
            return (
                kind,
                flags,
                stream_id,
                _strip(kind, payload) if flags & PADDED else payload,
                size,
            )
        if kind in (CONTINUATION, PUSH_PROMISE):
            why = "is no server's to take" if kind == PUSH_PROMISE else "continues no header block"
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, f"a {NAMES[kind]} frame {why}")
        if (kind in _OF_STREAM and not stream_id) or (kind in _OF_CONNECTION and stream_id):
            raise _misplaced(kind, stream_id)
        expected = _SIZES.get(kind, size)
        if size != expected:
            raise _missized(kind, size, f"{expected}")
        if size < (least := _SIZES_MIN.get(kind, 0)):
            raise _missized(kind, size, f"at least {least}")
        if kind == SETTINGS and size % SETTING_BYTES:
            raise _missized(kind, size, f"a multiple of {SETTING_BYTES}")
        return (kind, flags, stream_id, payload, size)

    def _continue(
        self, block: _Block, kind: int, flags: int, stream_id: int, payload: bytes
    ) -> Frame | None:
        if kind != CONTINUATION or stream_id != block.stream_id:
            name = NAMES.get(kind, f"frame of type {kind:#x}")
            raise ConnectionFaultError(
                ErrorCode.PROTOCOL_ERROR,
                f"{name} of stream {stream_id} within the header block of stream {block.stream_id}",
            )
        block.continuations += 1
        block.fragment += payload
        limits = self._limits
        if block.continuations > limits.continuations_max:
            told = f"more than {limits.continuations_max} CONTINUATION frames in a header block"
            raise ConnectionFaultError(ErrorCode.ENHANCE_YOUR_CALM, told)
        if len(block.fragment) > limits.head_bytes_max:
            # Undecoded it would leave the HPACK table in doubt: no answer is possible.
            told = f"header block of {len(block.fragment)} bytes, at most {limits.head_bytes_max}"
            raise ConnectionFaultError(ErrorCode.ENHANCE_YOUR_CALM, told)
        if not flags & END_HEADERS:
            return None
        self._block = None
        return (HEADERS, block.flags, stream_id, bytes(block.fragment), block.dependency)

    def _too_large(self, kind: int, length: int) -> ConnectionFaultError:
        name = NAMES.get(kind, f"type {kind:#x}")
        told = f"{name} frame of {length} bytes, at most {FRAME_BYTES}"
        return ConnectionFaultError(ErrorCode.FRAME_SIZE_ERROR, told)


def _strip(kind: int, payload: bytes) -> bytes:
    """Without the padding (RFC 9113 §6.1)."""
    if not payload:
        raise _missized(kind, 0, "at least 1, for the padding's length")
    padding = payload[0]
    if padding >= len(payload):
        told = f"padding of {padding} bytes in a {NAMES[kind]} payload of {len(payload)}"
        raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, told)
    return payload[1 : len(payload) - padding]


def _misplaced(kind: int, stream_id: int) -> ConnectionFaultError:
    told = f"{NAMES[kind]} frame on stream {stream_id}"
    return ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, told)


def _missized(kind: int, size: int, expected: str) -> ConnectionFaultError:
    told = f"{NAMES[kind]} frame of {size} bytes instead of {expected}"
    return ConnectionFaultError(ErrorCode.FRAME_SIZE_ERROR, told)
