"""AMF0: the values inside RTMP commands and metadata, bounded in bytes, depth and count.

Wire layout: u8 marker, then by marker: number f64; boolean u8; string u16 length + UTF-8; object
(u16 length + key, value)* and 00 00 09; ECMA array u32 count + an object's body; strict array u32
count + values; date f64 + s16; long string u32 length + UTF-8; typed object a name + an object's
body; reference u16 (AMF 0 specification §2).
"""

import enum
import struct
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from msgspec import Struct

from edged.errors import RemoteProtocolError

BYTES_MAX = 256 * 1024  # A cue point or caption with room; real commands are below 4 KiB.
DEPTH_MAX = 16  # connect is 3 deep, onMetaData with multitrack maps 4.
VALUES_MAX = 4096  # An onMetaData has about 30; a recorded file's key-frame index may have 1000.

_NUMBER, _BOOLEAN, _STRING, _OBJECT, _MOVIECLIP, _NULL, _UNDEFINED, _REFERENCE = range(8)
_ECMA_ARRAY, _OBJECT_END, _STRICT_ARRAY, _DATE, _LONG_STRING, _UNSUPPORTED = range(8, 14)
_RECORDSET, _XML, _TYPED_OBJECT, _AVMPLUS = range(14, 18)

_F64: Final = struct.Struct(">d")
_DATE_BODY: Final = struct.Struct(">dh")
_STRING_BYTES_MAX = 0xFFFF  # Longer ones are long strings; a key cannot be.
_OBJECT_END_BYTES = b"\x00\x00\x09"


class Undefined(enum.Enum):
    """AMF0's `undefined`, which peers tell from null in replies."""

    UNDEFINED = "undefined"


UNDEFINED: Final = Undefined.UNDEFINED


class AmfDate(Struct, frozen=True):
    """Milliseconds since 1970 UTC; the time zone is reserved and should be 0 (§2.13)."""

    unix_ms: float
    timezone: int = 0


class EcmaArray(dict[str, "AmfValue"]):
    """An associative array: a dict that is written with marker 8, as onMetaData is."""


AmfValue: TypeAlias = (
    "bool | float | str | Undefined | AmfDate | list[AmfValue] | dict[str, AmfValue] | None"
)


def encode(values: Sequence[AmfValue]) -> bytes:
    """The values one after another. They are ours: too deep a nesting is a programmer's error."""
    out = bytearray()
    for value in values:
        _encode(out, value, 0)
    return bytes(out)


def decode(data: bytes | bytearray | memoryview) -> list[AmfValue]:
    """All values of a message body.

    Text that is not UTF-8 is kept with replacement characters, because encoders put names in local
    code pages into metadata. Raises RemoteProtocolError for what breaks the format or a limit.
    """
    if len(data) > BYTES_MAX:
        raise RemoteProtocolError(f"amf0 of {len(data)} bytes exceeds {BYTES_MAX}")
    return _Decoder(bytes(data)).decode_all()


def _encode(out: bytearray, value: AmfValue, depth: int) -> None:
    assert depth <= DEPTH_MAX, "what edged sends is shallow"
    match value:
        case EcmaArray():
            out += struct.pack(">BI", _ECMA_ARRAY, len(value))
            _encode_members(out, value, depth)
        case dict():
            out.append(_OBJECT)
            _encode_members(out, value, depth)
        case list():
            out += struct.pack(">BI", _STRICT_ARRAY, len(value))
            for item in value:
                _encode(out, item, depth + 1)
        case str():
            _encode_string(out, value)
        case _:
            _encode_scalar(out, value)


def _encode_scalar(out: bytearray, value: float | Undefined | AmfDate | None) -> None:
    match value:
        case None:
            out.append(_NULL)
        case Undefined():
            out.append(_UNDEFINED)
        case bool():
            out += bytes((_BOOLEAN, value))
        case AmfDate():
            out.append(_DATE)
            out += _DATE_BODY.pack(value.unix_ms, value.timezone)
        case _:
            out.append(_NUMBER)
            out += _F64.pack(value)


def _encode_string(out: bytearray, value: str) -> None:
    raw = value.encode()
    if len(raw) > _STRING_BYTES_MAX:
        out += struct.pack(">BI", _LONG_STRING, len(raw))
    else:
        out += struct.pack(">BH", _STRING, len(raw))
    out += raw


def _encode_members(out: bytearray, members: dict[str, AmfValue], depth: int) -> None:
    for key, value in members.items():
        raw = key.encode()
        assert 0 < len(raw) <= _STRING_BYTES_MAX, "an empty key would read as the object's end"
        out += len(raw).to_bytes(2, "big") + raw
        _encode(out, value, depth + 1)
    out += _OBJECT_END_BYTES


class _Decoder:
    """One message's values. References (§2.9) count as all that they stand for, so that a few bytes
    cannot unfold into a tree of millions.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0
        self._values = 0
        # Complex values in order of appearance, with how many values each holds; None: unfinished.
        self._complex: list[tuple[AmfValue, int] | None] = []

    def decode_all(self) -> list[AmfValue]:
        values: list[AmfValue] = []
        while self._position < len(self._data):
            values.append(self._value(0))
        return values

    def _take(self, size: int) -> bytes:
        end = self._position + size
        if end > len(self._data):
            raise RemoteProtocolError(
                f"amf0 value at byte {self._position} ends at {end}, the message at "
                f"{len(self._data)}"
            )
        taken = self._data[self._position : end]
        self._position = end
        return taken

    def _number(self, size: int) -> int:
        return int.from_bytes(self._take(size), "big")

    def _text(self, length_size: int) -> str:
        return self._take(self._number(length_size)).decode("utf-8", "replace")

    def _count(self, values: int) -> None:
        self._values += values
        if self._values > VALUES_MAX:
            raise RemoteProtocolError(f"amf0 message of more than {VALUES_MAX} values")

    def _value(self, depth: int) -> AmfValue:
        if depth > DEPTH_MAX:
            raise RemoteProtocolError(f"amf0 nested deeper than {DEPTH_MAX}")
        self._count(1)
        marker = self._number(1)
        if marker in _COMPLEX:
            return self._complex_value(marker, depth)
        read = _SCALARS.get(marker)
        if read is None:  # Movie clip and record set are reserved; AMF3 we refuse at connect.
            raise RemoteProtocolError(
                f"amf0 marker {marker:#04x} at byte {self._position - 1} is not supported"
            )
        return read(self)

    def read_number(self) -> AmfValue:
        number: float = _F64.unpack(self._take(_F64.size))[0]
        return number

    def read_boolean(self) -> AmfValue:
        return self._number(1) != 0

    def read_string(self) -> AmfValue:
        return self._text(2)

    def read_long_string(self) -> AmfValue:
        return self._text(4)

    def read_date(self) -> AmfValue:
        return AmfDate(*_DATE_BODY.unpack(self._take(_DATE_BODY.size)))

    def _complex_value(self, marker: int, depth: int) -> AmfValue:
        slot = len(self._complex)
        self._complex.append(None)
        before = self._values
        value: AmfValue
        if marker == _STRICT_ARRAY:
            count = self._number(4)
            if count > VALUES_MAX:
                raise RemoteProtocolError(f"amf0 array of {count} values exceeds {VALUES_MAX}")
            value = [self._value(depth + 1) for _ in range(count)]
        else:
            if marker == _TYPED_OBJECT:
                self._text(2)  # The class's name means nothing to us.
            if marker == _ECMA_ARRAY:
                self._take(4)  # The count is a hint that encoders get wrong; the end marker counts.
            value = self._members(EcmaArray() if marker == _ECMA_ARRAY else {}, depth)
        self._complex[slot] = (value, 1 + self._values - before)
        return value

    def _members(self, members: dict[str, AmfValue], depth: int) -> dict[str, AmfValue]:
        while True:
            key = self._text(2)
            if not key and self._data[self._position : self._position + 1] == b"\x09":
                self._position += 1
                return members
            members[key] = self._value(depth + 1)

    def read_reference(self) -> AmfValue:
        index = self._number(2)
        known = self._complex[index] if index < len(self._complex) else None
        if known is None:
            raise RemoteProtocolError(f"amf0 reference {index} to no finished value")
        self._count(known[1])
        return known[0]


_COMPLEX = frozenset({_OBJECT, _ECMA_ARRAY, _STRICT_ARRAY, _TYPED_OBJECT})
_SCALARS: Final[dict[int, Callable[[_Decoder], AmfValue]]] = {
    _NUMBER: _Decoder.read_number,
    _BOOLEAN: _Decoder.read_boolean,
    _STRING: _Decoder.read_string,
    _NULL: lambda _: None,
    _UNDEFINED: lambda _: UNDEFINED,
    _UNSUPPORTED: lambda _: UNDEFINED,
    _REFERENCE: _Decoder.read_reference,
    _DATE: _Decoder.read_date,
    _LONG_STRING: _Decoder.read_long_string,
    _XML: _Decoder.read_long_string,
}
