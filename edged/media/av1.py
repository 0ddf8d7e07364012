"""AV1: OBUs, sequence headers, av1C records (AV1 bitstream specification §5, AV1-ISOBMFF §2).

OBU:  u8 0|type 4|extension 1|has size 1|0, [u8 extension], [leb128 size], payload
av1C: u8 0x81, u8 profile 3|level 5, u8 tier|high depth|twelve bit|mono|subsampling x, y|position 2,
      u8 presentation delay, configOBUs: the sequence header
"""

from msgspec import Struct

from edged.errors import RemoteProtocolError, UnsupportedMediaError
from edged.media.bits import BitReader
from edged.media.track import Codec, CodecConfig
from edged.media.vui import Colour, frame_rate

OBU_SEQUENCE_HEADER = 1
OBU_TEMPORAL_DELIMITER = 2
OBU_FRAME_HEADER = 3
OBU_FRAME = 6
RECORD_BYTES_MAX = 4096  # A sequence header is a dozen bytes; metadata OBUs may follow.
OBUS_PER_UNIT_MAX = 1024  # Above any count of tile groups, layers and metadata.
LEB128_BYTES_MAX = 8
OBU_BYTES_MAX = 2**32 - 1  # §4.10.5
_RECORD_HEADER_BYTES = 4
_RECORD_VERSION = 0x81
_PROFILE_MAX = 2
_PROFILE_444 = 1
_PROFILE_PROFESSIONAL = 2
_LEVEL_IDX_WITH_TIER = 8  # seq_tier is there from level 4.0 on.
_BITS_TWELVE = 12
_SRGB = Colour(1, 13, 0)  # §5.5.2: these three together mean 4:4:4 and full range.
_FRAME_SHOWN_KEY = 1  # show_existing_frame 0, frame_type KEY_FRAME 00, show_frame 1.


class Obu(Struct, frozen=True):
    """Where an OBU lies in a payload."""

    kind: int
    start: int  # Of its header.
    body: int  # Of its payload.
    end: int


class SequenceHeader(Struct, frozen=True, kw_only=True):
    """What edged wants of a sequence header; level and tier are of operating point 0."""

    profile: int
    level_idx: int
    high_tier: bool
    bit_depth: int
    monochrome: bool
    subsampling_x: bool
    subsampling_y: bool
    chroma_sample_position: int
    colour: Colour
    width: int
    height: int
    frame_rate_num: int  # 0 when it has no timing, or not a constant rate.
    frame_rate_den: int
    film_grain: bool

    @property
    def codec_string(self) -> str:
        """AV1-ISOBMFF §5, short form."""
        tier = "H" if self.high_tier else "M"
        return f"av01.{self.profile}.{self.level_idx:02d}{tier}.{self.bit_depth:02d}"


class _Format(Struct, frozen=True):
    bit_depth: int
    monochrome: bool
    subsampling: tuple[bool, bool]
    position: int
    colour: Colour


def parse_config(record: bytes) -> CodecConfig:
    """The configuration in an av1C record, which must have a sequence header."""
    header = parse_sequence_header(_find_sequence_header(record))
    return CodecConfig(
        codec=Codec.AV1,
        record=record,
        codec_string=header.codec_string,
        width=header.width,
        height=header.height,
        frame_rate_num=header.frame_rate_num,
        frame_rate_den=header.frame_rate_den,
    )


def parse_record(record: bytes) -> SequenceHeader:
    """The sequence header in an av1C record."""
    return parse_sequence_header(_find_sequence_header(record))


def make_record(sequence_header_obu: bytes) -> bytes:
    """av1C of a sequence header OBU (or of the unit it is in), with a size if it has none."""
    body = _take_sequence_header(sequence_header_obu)
    header = parse_sequence_header(body)
    depth = header.bit_depth
    flags = (
        header.high_tier << 7
        | (depth > 8) << 6  # noqa: PLR2004 - high_bitdepth means more than eight bits
        | (depth == _BITS_TWELVE) << 5
        | header.monochrome << 4
        | header.subsampling_x << 3
        | header.subsampling_y << 2
        | header.chroma_sample_position
    )
    start = bytes([_RECORD_VERSION, header.profile << 5 | header.level_idx, flags, 0])
    return start + bytes([OBU_SEQUENCE_HEADER << 3 | 2]) + _leb128(len(body)) + body


def split_obus(payload: bytes) -> list[Obu]:
    """The OBUs of a payload in low-overhead format; one without a size goes to the end."""
    obus: list[Obu] = []
    position, end = 0, len(payload)
    while position < end:
        start = position
        head = payload[position]
        if head & 0x80:
            raise RemoteProtocolError(f"OBU at byte {start}: the forbidden bit is set")
        position += 2 if head & 0x04 else 1
        size = end - position
        if head & 0x02:
            size, position = _read_leb128(payload, position)
        if size < 0 or position + size > end:
            raise RemoteProtocolError(f"OBU at byte {start} ends beyond the {end} of its unit")
        if len(obus) >= OBUS_PER_UNIT_MAX:
            raise RemoteProtocolError(f"more than {OBUS_PER_UNIT_MAX} OBUs in an access unit")
        obus.append(Obu(head >> 3 & 0x0F, start, position, position + size))
        position += size
    return obus


def strip_temporal_delimiters(payload: bytes) -> bytes:
    """The payload without its temporal delimiters (AV1-ISOBMFF §2.4); itself when it has none."""
    obus = split_obus(payload)
    kept = [obu for obu in obus if obu.kind != OBU_TEMPORAL_DELIMITER]
    if len(kept) == len(obus):
        return payload
    return b"".join(payload[obu.start : obu.end] for obu in kept)


def is_random_access(payload: bytes) -> bool:
    """Whether a sequence header comes with a shown key frame (AV1-ISOBMFF §2.4: a sync sample)."""
    still = has_header = False
    for obu in split_obus(payload):
        if obu.body == obu.end:
            continue
        if obu.kind == OBU_SEQUENCE_HEADER:
            has_header = True
            still = bool(payload[obu.body] & 0x08)  # reduced_still_picture_header
        elif obu.kind in (OBU_FRAME, OBU_FRAME_HEADER):
            return has_header and (still or payload[obu.body] >> 4 == _FRAME_SHOWN_KEY)
    return False


def parse_sequence_header(body: bytes) -> SequenceHeader:
    """Decode the payload of a sequence header OBU (§5.5.1)."""
    bits = BitReader(body, "AV1 sequence header")
    profile = bits.read(3)
    if profile > _PROFILE_MAX:
        raise UnsupportedMediaError(f"AV1 profile {profile} is not known")
    bits.skip(1)  # still_picture
    reduced = bits.flag()
    rate = (0, 1)
    if reduced:
        level_idx, high_tier = bits.read(5), False
    else:
        rate, delay_bits = _read_timing(bits)
        level_idx, high_tier = _read_operating_points(bits, delay_bits)
    width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
    width, height = bits.read(width_bits) + 1, bits.read(height_bits) + 1
    if not reduced and bits.flag():  # frame_id_numbers_present_flag
        bits.skip(4 + 3)
    bits.skip(3)  # use_128x128_superblock, enable_filter_intra, enable_intra_edge_filter
    if not reduced:
        _skip_tools(bits)
    bits.skip(3)  # enable_superres, enable_cdef, enable_restoration
    form = _read_format(bits, profile)
    return SequenceHeader(
        profile=profile,
        level_idx=level_idx,
        high_tier=high_tier,
        bit_depth=form.bit_depth,
        monochrome=form.monochrome,
        subsampling_x=form.subsampling[0],
        subsampling_y=form.subsampling[1],
        chroma_sample_position=form.position,
        colour=form.colour,
        width=width,
        height=height,
        frame_rate_num=rate[0],
        frame_rate_den=rate[1],
        film_grain=bits.flag(),
    )


def _find_sequence_header(record: bytes) -> bytes:
    if len(record) > RECORD_BYTES_MAX:
        raise RemoteProtocolError(f"av1C of {len(record)} bytes exceeds {RECORD_BYTES_MAX}")
    if len(record) < _RECORD_HEADER_BYTES or record[0] != _RECORD_VERSION:
        raise RemoteProtocolError(f"not an av1C record: {record[:8].hex() or 'empty'}")
    return _take_sequence_header(record[_RECORD_HEADER_BYTES:])


def _take_sequence_header(obus: bytes) -> bytes:
    """The payload of the first sequence header among these OBUs."""
    for obu in split_obus(obus):
        if obu.kind == OBU_SEQUENCE_HEADER:
            return obus[obu.body : obu.end]
    raise UnsupportedMediaError("AV1 configuration without a sequence header")


def _read_timing(bits: BitReader) -> tuple[tuple[int, int], int]:
    """timing_info and decoder_model_info: the rate, and the bits of a delay (0: no model)."""
    if not bits.flag():
        return (0, 1), 0
    units_in_tick, time_scale = bits.read(32), bits.read(32)
    rate = (0, 1)
    if bits.flag():  # equal_picture_interval
        rate = frame_rate(time_scale, units_in_tick * (bits.ue() + 1))
    if not bits.flag():  # decoder_model_info_present_flag
        return rate, 0
    delay_bits = bits.read(5) + 1
    bits.skip(32 + 5 + 5)
    return rate, delay_bits


def _read_operating_points(bits: BitReader, delay_bits: int) -> tuple[int, bool]:
    """Level and tier of operating point 0."""
    has_display_delay = bits.flag()
    points: list[tuple[int, bool]] = []
    for _ in range(bits.read(5) + 1):
        bits.skip(12)
        level_idx = bits.read(5)
        points.append((level_idx, level_idx >= _LEVEL_IDX_WITH_TIER and bits.flag()))
        if delay_bits and bits.flag():
            bits.skip(2 * delay_bits + 1)
        if has_display_delay and bits.flag():
            bits.skip(4)
    return points[0]


def _skip_tools(bits: BitReader) -> None:
    """From enable_interintra_compound to order_hint_bits_minus_1."""
    bits.skip(4)
    has_order_hint = bits.flag()
    if has_order_hint:
        bits.skip(2)
    # seq_choose_screen_content_tools, or else seq_force_screen_content_tools
    if (bits.flag() or bits.flag()) and not bits.flag():  # seq_choose_integer_mv
        bits.skip(1)
    if has_order_hint:
        bits.skip(3)


def _read_format(bits: BitReader, profile: int) -> _Format:
    """color_config (§5.5.2), with the separate_uv_delta_q at its end."""
    depth = 10 if bits.flag() else 8
    if profile == _PROFILE_PROFESSIONAL and depth == 10 and bits.flag():  # noqa: PLR2004 - bits
        depth = _BITS_TWELVE
    monochrome = profile != _PROFILE_444 and bits.flag()
    described = Colour()
    if bits.flag():
        described = Colour(bits.read(8), bits.read(8), bits.read(8))
    if not monochrome and described == _SRGB:
        bits.skip(1)
        full = Colour(described.primaries, described.transfer, described.matrix, full_range=True)
        return _Format(depth, monochrome, (False, False), 0, full)
    colour = Colour(
        described.primaries, described.transfer, described.matrix, full_range=bits.flag()
    )
    if monochrome:
        return _Format(depth, monochrome, (True, True), 0, colour)
    if profile != _PROFILE_PROFESSIONAL:
        across = down = profile != _PROFILE_444
    elif depth == _BITS_TWELVE:
        across = bits.flag()
        down = across and bits.flag()
    else:
        across, down = True, False
    position = bits.read(2) if across and down else 0
    bits.skip(1)  # separate_uv_delta_q
    return _Format(depth, monochrome, (across, down), position, colour)


def _read_leb128(payload: bytes, position: int) -> tuple[int, int]:
    """A leb128 (§4.10.5) and where it ends."""
    value = 0
    for index, byte in enumerate(payload[position : position + LEB128_BYTES_MAX]):
        value |= (byte & 0x7F) << (7 * index)
        if not byte & 0x80:
            if value > OBU_BYTES_MAX:
                break
            return value, position + index + 1
    raise RemoteProtocolError(f"OBU size at byte {position} does not end, or is out of range")


def _leb128(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:  # noqa: PLR2004 - seven bits a byte, the eighth says that more follow
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
