"""NAL units as H.264 and H.265 share them.

length-prefixed (ISO/IEC 14496-15): {u8|u16|u24|u32 length, NAL unit}*
byte stream (Annex B): {00 00 [00 ...] 01, NAL unit}*
"""

from collections.abc import Sequence

from edged.errors import RemoteProtocolError

LENGTH_BYTES = 4  # Of the canonical form.
# H.265 allows 600 slices a picture (Table A.8) and H.264 fewer in practice; beside them parameter
# sets and SEI.
NALS_PER_UNIT_MAX = 2048
# avcC or hvcC: parameter sets of the usual sizes, as many as allowed, and an encoder's signing SEI.
RECORD_BYTES_MAX = 64 * 1024
START_CODE = b"\0\0\0\1"


def split_length_prefixed(payload: bytes, length_size: int = LENGTH_BYTES) -> list[bytes]:
    """The NAL units of an access unit with lengths of `length_size` bytes; empty ones left out."""
    nals: list[bytes] = []
    position, end = 0, len(payload)
    count = 0
    while position < end:
        start = position + length_size
        position = start + int.from_bytes(payload[position:start], "big")
        if start > end or position > end:
            raise _overrun(count, position, end)
        count += 1
        if count > NALS_PER_UNIT_MAX:
            raise _too_many()
        if position > start:
            nals.append(payload[start:position])
    return nals


def join_length_prefixed(nals: Sequence[bytes]) -> bytes:
    """The canonical payload of these NAL units: 4-byte lengths."""
    pieces: list[bytes] = []
    for nal in nals:
        pieces += (len(nal).to_bytes(LENGTH_BYTES, "big"), nal)
    return b"".join(pieces)


def check_length_prefixed(payload: bytes) -> None:
    """Raise RemoteProtocolError unless the 4-byte lengths add up to the payload. Hot path."""
    position, end = 0, len(payload)
    count = 0
    while position < end:
        start = position + LENGTH_BYTES
        position = start + int.from_bytes(payload[position:start], "big")
        count += 1
        if count > NALS_PER_UNIT_MAX:
            raise _too_many()
    if position != end:
        raise _overrun(count - 1, position, end)


def normalise_lengths(payload: bytes, length_size: int) -> bytes:
    """The payload with 4-byte lengths instead of its own (1 to 4 bytes), which are checked."""
    if length_size == LENGTH_BYTES:
        check_length_prefixed(payload)
        return payload
    return join_length_prefixed(split_length_prefixed(payload, length_size))


def to_annexb(payload: bytes, parameter_sets: Sequence[bytes] = ()) -> bytes:
    """A byte stream of `parameter_sets` and a canonical payload, with 4-byte start codes."""
    pieces: list[bytes] = []
    for nal in (*parameter_sets, *split_length_prefixed(payload)):
        pieces += (START_CODE, nal)
    return b"".join(pieces)


def split_annexb(data: bytes) -> list[bytes]:
    """The NAL units of a byte stream (Annex B.1), without start codes and trailing zero bytes."""
    pieces = data.split(b"\0\0\1", NALS_PER_UNIT_MAX + 1)
    if pieces[0].strip(b"\0"):
        raise RemoteProtocolError("a NAL unit byte stream does not begin with a start code")
    if len(pieces) > NALS_PER_UNIT_MAX + 1:
        raise _too_many()
    # A NAL unit never ends in a zero byte (§7.4.1), so those are trailing_zero_8bits or of the next
    # start code.
    return [nal for piece in pieces[1:] if (nal := piece.rstrip(b"\0"))]


def from_annexb(data: bytes) -> bytes:
    """The canonical payload of a byte stream."""
    return join_length_prefixed(split_annexb(data))


def check_record_bytes(*sets: Sequence[bytes]) -> None:
    """Raise RemoteProtocolError when these parameter sets are too much for avcC or hvcC."""
    size = sum(len(nal) + 2 for nals in sets for nal in nals)
    if size > RECORD_BYTES_MAX // 2:
        raise RemoteProtocolError(
            f"parameter sets of {size} bytes exceed {RECORD_BYTES_MAX // 2}, half a record's limit"
        )


def _overrun(count: int, position: int, end: int) -> RemoteProtocolError:
    return RemoteProtocolError(
        f"NAL unit {count} ends at byte {position} of an access unit of {end}"
    )


def _too_many() -> RemoteProtocolError:
    return RemoteProtocolError(f"more than {NALS_PER_UNIT_MAX} NAL units in an access unit")
