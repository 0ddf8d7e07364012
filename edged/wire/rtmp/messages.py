"""RTMP messages: their types, the protocol control bodies, commands and aggregates.

Adobe RTMP 1.0 §5.4 (protocol control), §6.2 (user control), §7.1 (commands, data, aggregate).
"""

import struct
from collections.abc import Sequence

from msgspec import Struct

from edged.errors import RemoteProtocolError
from edged.wire.rtmp import amf0
from edged.wire.rtmp.amf0 import AmfValue

SET_CHUNK_SIZE = 1
ABORT = 2
ACKNOWLEDGEMENT = 3
USER_CONTROL = 4
WINDOW_ACKNOWLEDGEMENT_SIZE = 5
SET_PEER_BANDWIDTH = 6
AUDIO = 8
VIDEO = 9
DATA_AMF3 = 15
SHARED_OBJECT_AMF3 = 16
COMMAND_AMF3 = 17
DATA_AMF0 = 18
SHARED_OBJECT_AMF0 = 19
COMMAND_AMF0 = 20
AGGREGATE = 22

MEDIA = frozenset({AUDIO, VIDEO})
VALUES = frozenset({COMMAND_AMF0, COMMAND_AMF3, DATA_AMF0, DATA_AMF3})  # AMF: costly to read.
# Set Chunk Size and Abort took effect in the chunk reader; the others want nothing of a publisher.
PASSED_OVER = frozenset(
    {SET_CHUNK_SIZE, ABORT, ACKNOWLEDGEMENT, SHARED_OBJECT_AMF0, SHARED_OBJECT_AMF3}
)

STREAM_BEGIN = 0
PING_REQUEST = 6
PING_RESPONSE = 7

LIMIT_DYNAMIC = 2  # Set Peer Bandwidth (§5.4.5).

AGGREGATE_MESSAGES_MAX = 1024  # One aggregate is a fraction of a second of media.
_FLV_TAG_HEADER_BYTES = 11
_BACK_POINTER_BYTES = 4
_U32_BYTES = 4

Body = bytes | bytearray | memoryview


class Message(Struct, gc=False):
    """One whole message. `body` may be a view of the caller's buffer: copy what you keep."""

    kind: int
    timestamp: int  # Milliseconds, 32 bit, as on the wire.
    stream_id: int
    body: Body


class Command(Struct, frozen=True):
    """A remote call or its answer (§7.1.1): `arguments` begins with the command object."""

    name: str
    transaction_id: float
    arguments: list[AmfValue]

    def text(self, index: int) -> str:
        """The argument, if it is a string; else the empty string."""
        value = self.arguments[index] if index < len(self.arguments) else None
        return value if isinstance(value, str) else ""

    def members(self, index: int) -> dict[str, AmfValue]:
        """The argument, if it is an object; else an empty one."""
        value = self.arguments[index] if index < len(self.arguments) else None
        return value if isinstance(value, dict) else {}


def encode_command(name: str, transaction_id: float, arguments: Sequence[AmfValue]) -> bytes:
    """The body of a COMMAND_AMF0 message."""
    return amf0.encode([name, transaction_id, *arguments])


def decode_command(message: Message) -> Command:
    """A type 20 body, or a type 17 one: a format selector byte, then AMF0 all the same (§7.1.1)."""
    values = decode_values(message)
    values += [None] * (2 - len(values))
    name, transaction_id, *arguments = values
    if not isinstance(name, str):
        raise RemoteProtocolError(f"a command's name is a {type(name).__name__}, not a string")
    if not isinstance(transaction_id, float):
        transaction_id = 0.0  # Some encoders leave it out of commands that want no answer.
    return Command(name, transaction_id, arguments)


def decode_values(message: Message) -> list[AmfValue]:
    """The AMF0 values of a command or data message, with or without the AMF3 wrapper."""
    body = message.body
    if message.kind in (COMMAND_AMF3, DATA_AMF3):
        if len(body) and body[0] != 0:
            raise RemoteProtocolError(f"amf3 format selector is {body[0]}, not 0")
        body = memoryview(body)[1:]
    return amf0.decode(body)


def u32_of(message: Message, what: str) -> int:
    """The one number of a protocol control body."""
    if len(message.body) < _U32_BYTES:
        raise RemoteProtocolError(
            f"{what} of {len(message.body)} bytes is shorter than {_U32_BYTES}"
        )
    return int.from_bytes(message.body[:_U32_BYTES], "big")


def user_control(event: int, value: int) -> bytes:
    """A user control body with one u32 (§7.1.7)."""
    return struct.pack(">HI", event, value & 0xFFFFFFFF)


def split_aggregate(message: Message) -> list[Message]:
    """The messages inside an aggregate (§7.1.6), with their times moved to the aggregate's."""
    body = memoryview(message.body)
    inner: list[Message] = []
    position = 0
    offset = 0
    while position < len(body):
        start = position + _FLV_TAG_HEADER_BYTES
        if start > len(body):
            raise RemoteProtocolError(f"aggregate ends inside a tag header at byte {position}")
        kind = body[position]
        size = int.from_bytes(body[position + 1 : position + 4], "big")
        timestamp = int.from_bytes(body[position + 4 : position + 7], "big")
        timestamp |= body[position + 7] << 24
        if start + size > len(body):
            raise RemoteProtocolError(
                f"aggregate ends at {len(body)}, its tag at byte {position} at {start + size}"
            )
        if kind == AGGREGATE:
            raise RemoteProtocolError("aggregate inside an aggregate")
        if len(inner) == AGGREGATE_MESSAGES_MAX:
            raise RemoteProtocolError(f"aggregate of more than {AGGREGATE_MESSAGES_MAX} messages")
        if not inner:
            offset = message.timestamp - timestamp
        # What is inside belongs to the aggregate's own message stream, whatever the tag says.
        inner.append(
            Message(
                kind,
                (timestamp + offset) & 0xFFFFFFFF,
                message.stream_id,
                body[start : start + size],
            )
        )
        position = start + size + _BACK_POINTER_BYTES  # The last back pointer may be missing.
    return inner
