"""HTTP/2's frames (RFC 9113 §4 and §6): names, numbers, and makers of those that a server sends.

length(24) type(8) flags(8) 0(1) stream(31) payload
"""

from collections.abc import Iterable
from enum import IntEnum
from struct import Struct
from typing import Final

from edged.errors import RemoteProtocolError

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # What a client sends first.
HEADER: Final = Struct(">HBBBI")  # The length in two parts, as there is no number of 24 bits.
HEADER_BYTES: Final = HEADER.size
_HEADER_OUT = Struct(">IBI")  # Length and type in one.
pack_header: Final = _HEADER_OUT.pack

DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9
PRIORITY_UPDATE: Final = 0x10  # RFC 9218 §7.

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
HAS_PRIORITY: Final = 0x20

HEADER_TABLE_SIZE: Final = 0x1
ENABLE_PUSH: Final = 0x2
MAX_CONCURRENT_STREAMS: Final = 0x3
INITIAL_WINDOW_SIZE: Final = 0x4
MAX_FRAME_SIZE: Final = 0x5
MAX_HEADER_LIST_SIZE: Final = 0x6
NO_RFC7540_PRIORITIES: Final = 0x9  # RFC 9218 §2.1.

WINDOW_BYTES: Final = 65_535  # Every window's size at the beginning (RFC 9113 §6.9.2).
WINDOW_BYTES_MAX: Final = 2**31 - 1
FRAME_BYTES: Final = 16_384  # The least that an end must take (RFC 9113 §4.2); we take no more.
FRAME_BYTES_MAX: Final = 2**24 - 1
STREAM_ID_MAX = 2**31 - 1
PING_BYTES: Final = 8
PRIORITY_BYTES: Final = 5
SETTING_BYTES: Final = 6
NUMBER_BYTES: Final = 4  # Of a stream id, an error code, an increment.


class ErrorCode(IntEnum):
    """Why a stream or a connection ends (RFC 9113 §7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class ConnectionFaultError(RemoteProtocolError):
    """The peer did what ends the connection (RFC 9113 §5.4.1)."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        self.code = code
        super().__init__(reason)


class StreamFaultError(RemoteProtocolError):
    """The peer did what ends one stream (RFC 9113 §5.4.2)."""

    def __init__(self, stream_id: int, code: ErrorCode, reason: str) -> None:
        self.stream_id = stream_id
        self.code = code
        super().__init__(reason)


def name_code(code: int) -> str:
    """An error code for people; a peer may send any number (RFC 9113 §7)."""
    return ErrorCode(code).name if code in set(ErrorCode) else f"error {code:#x}"


def make_frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return pack_header(len(payload) << 8 | kind, flags, stream_id) + payload


def make_settings(settings: Iterable[tuple[int, int]]) -> bytes:
    """Our SETTINGS."""
    payload = b"".join(
        key.to_bytes(2, "big") + value.to_bytes(NUMBER_BYTES, "big") for key, value in settings
    )
    return make_frame(SETTINGS, 0, 0, payload)


SETTINGS_ACK = make_frame(SETTINGS, ACK, 0)


def make_ping(opaque: bytes, *, ack: bool) -> bytes:
    """A PING, or the answer to one."""
    return make_frame(PING, ACK if ack else 0, 0, opaque)


def make_reset(stream_id: int, code: ErrorCode) -> bytes:
    """RST_STREAM."""
    return make_frame(RST_STREAM, 0, stream_id, code.to_bytes(NUMBER_BYTES, "big"))


def make_goaway(last_stream_id: int, code: ErrorCode, reason: str = "") -> bytes:
    """GOAWAY, with the reason for whoever debugs the peer."""
    payload = last_stream_id.to_bytes(NUMBER_BYTES, "big") + code.to_bytes(NUMBER_BYTES, "big")
    return make_frame(GOAWAY, 0, 0, payload + reason.encode("ascii", "replace"))


def make_window_update(stream_id: int, increment: int) -> bytes:
    """Leave for so many more bytes."""
    return make_frame(WINDOW_UPDATE, 0, stream_id, increment.to_bytes(NUMBER_BYTES, "big"))


def make_headers(stream_id: int, block: bytes, frame_bytes_max: int, *, end: bool) -> bytes:
    """HEADERS, with CONTINUATIONs behind it if the block is larger than a frame."""
    size = len(block)
    flags = END_STREAM if end else 0
    if size <= frame_bytes_max:
        return pack_header(size << 8 | HEADERS, flags | END_HEADERS, stream_id) + block
    frames = [make_frame(HEADERS, flags, stream_id, block[:frame_bytes_max])]
    for at in range(frame_bytes_max, size, frame_bytes_max):
        last = END_HEADERS if at + frame_bytes_max >= size else 0
        frames.append(make_frame(CONTINUATION, last, stream_id, block[at : at + frame_bytes_max]))
    return b"".join(frames)
