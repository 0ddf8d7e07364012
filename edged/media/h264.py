"""H.264: avcC records, sequence parameter sets, access units (ISO/IEC 14496-10, 14496-15 §5).

avcC: u8 1, u8 profile, u8 compatibility, u8 level, u8 0b111111|length size - 1,
      u8 0b111|number of SPS, {u16 length, SPS}*, u8 number of PPS, {u16 length, PPS}*,
      for High profiles: u8 chroma format, u8 bit depths - 8 (twice), u8 0
"""

from collections.abc import Sequence

from msgspec import Struct

from edged.errors import RemoteProtocolError, UnsupportedMediaError
from edged.media.bits import BitReader, remove_emulation_prevention
from edged.media.nal import (
    RECORD_BYTES_MAX,
    check_length_prefixed,
    check_record_bytes,
    from_annexb,
    join_length_prefixed,
    normalise_lengths,
    split_annexb,
    split_length_prefixed,
    to_annexb,
)
from edged.media.track import Codec, CodecConfig
from edged.media.vui import (
    PICTURE_SIDE_MAX,
    Colour,
    frame_rate,
    read_aspect_ratio,
    read_video_signal,
)

__all__ = [
    "RECORD_BYTES_MAX",
    "Record",
    "Sps",
    "check_length_prefixed",
    "from_annexb",
    "is_random_access",
    "join_length_prefixed",
    "make_record",
    "normalise_lengths",
    "parse_config",
    "parse_record",
    "parse_sps",
    "split_annexb",
    "split_length_prefixed",
    "to_annexb",
]

NAL_SLICE = 1
NAL_IDR = 5
NAL_SEI = 6
NAL_SPS = 7
NAL_PPS = 8
SPS_COUNT_MAX = 31  # Five bits (14496-15 §5.3.3.1.2).
PPS_COUNT_MAX = 255  # Eight bits.
_RECORD_HEADER_BYTES = 6
_SEI_RECOVERY_POINT = 6
_SEI_BYTES_MAX = 256  # How far is_random_access looks: a recovery point takes 3 bytes.
_SEI_FF_BYTE = 0xFF  # §7.3.2.3.1: 255 more, and another byte follows.
_CHROMA_444 = 3
_LISTS_4X4 = 6  # The scaling lists after them are 8x8.
_NAL_TYPE_MASK = 0x1F
# Profiles whose SPS has chroma_format_idc and what follows (§7.3.2.1.1).
_HIGH_PROFILES = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
_PROFILES_WITHOUT_EXTENSION = frozenset({66, 77, 88})  # Of avcC.


class Sps(Struct, frozen=True, kw_only=True):
    """What edged wants of a sequence parameter set."""

    profile: int
    constraints: int  # The byte of constraint_set flags.
    level: int  # Ten times the level: 31 is 3.1.
    chroma_format: int
    bit_depth_luma: int
    bit_depth_chroma: int
    width: int  # After cropping.
    height: int
    progressive: bool  # frame_mbs_only_flag.
    sar_num: int
    sar_den: int
    colour: Colour
    frame_rate_num: int  # 0 when the VUI has no usable timing.
    frame_rate_den: int
    fixed_frame_rate: bool  # Else the rate is only nominal.

    @property
    def codec_string(self) -> str:
        """RFC 6381 §3.3."""
        return f"avc1.{self.profile:02x}{self.constraints:02x}{self.level:02x}"


class Record(Struct, frozen=True, kw_only=True):
    """A decoded avcC."""

    length_size: int  # Bytes of a NAL unit's length in the access units that came with it.
    sps: tuple[bytes, ...]
    pps: tuple[bytes, ...]


class _Timing(Struct, frozen=True):
    num: int = 0
    den: int = 1
    fixed: bool = False


def parse_config(record: bytes) -> CodecConfig:
    """The configuration in an avcC record.

    Its `record` is the same but for saying 4-byte lengths, which is what canonical units have.
    """
    parsed = parse_record(record)
    sps = parse_sps(parsed.sps[0])
    return CodecConfig(
        codec=Codec.H264,
        record=record[:4] + bytes([record[4] | 0x03]) + record[5:],
        codec_string=sps.codec_string,
        width=sps.width,
        height=sps.height,
        frame_rate_num=sps.frame_rate_num,
        frame_rate_den=sps.frame_rate_den,
    )


def parse_record(record: bytes) -> Record:
    """Decode avcC; there must be at least one SPS and one PPS."""
    if len(record) > RECORD_BYTES_MAX:
        raise RemoteProtocolError(f"avcC of {len(record)} bytes exceeds {RECORD_BYTES_MAX}")
    if len(record) < _RECORD_HEADER_BYTES or record[0] != 1:
        raise RemoteProtocolError(f"not an avcC record: {record[:8].hex() or 'empty'}")
    sps, position = _read_sets(record, _RECORD_HEADER_BYTES - 1, 0x1F, NAL_SPS)
    pps, _ = _read_sets(record, position, 0xFF, NAL_PPS)
    return Record(length_size=(record[4] & 3) + 1, sps=sps, pps=pps)


def make_record(sps: Sequence[bytes], pps: Sequence[bytes]) -> bytes:
    """avcC of these parameter sets (NAL units without start codes), for 4-byte lengths.

    Sets that are missing, or too much for a record, raise RemoteProtocolError: they come from
    streams.
    """
    if not (0 < len(sps) <= SPS_COUNT_MAX and 0 < len(pps) <= PPS_COUNT_MAX):
        raise RemoteProtocolError(
            f"avcC: {len(sps)} SPS and {len(pps)} PPS, not 1 to {SPS_COUNT_MAX} and {PPS_COUNT_MAX}"
        )
    check_record_bytes(sps, pps)
    parsed = parse_sps(sps[0])
    profile = bytes([parsed.profile, parsed.constraints, parsed.level])
    pieces = [b"\x01", profile, b"\xff", bytes([0xE0 | len(sps)])]
    for nal in sps:
        pieces += (len(nal).to_bytes(2, "big"), nal)
    pieces.append(bytes([len(pps)]))
    for nal in pps:
        pieces += (len(nal).to_bytes(2, "big"), nal)
    if parsed.profile not in _PROFILES_WITHOUT_EXTENSION:
        depths = (0xF8 | parsed.bit_depth_luma - 8, 0xF8 | parsed.bit_depth_chroma - 8)
        pieces.append(bytes([0xFC | parsed.chroma_format, *depths, 0]))
    return b"".join(pieces)


def parse_sps(nal: bytes) -> Sps:
    """Decode a sequence parameter set (§7.3.2.1.1), NAL unit header included."""
    if not nal or nal[0] & _NAL_TYPE_MASK != NAL_SPS:
        raise RemoteProtocolError(f"not an H.264 SPS: {nal[:4].hex() or 'empty'}")
    bits = BitReader(remove_emulation_prevention(nal), "H.264 SPS")
    bits.skip(8)
    profile, constraints, level = bits.read(8), bits.read(8), bits.read(8)
    bits.ue_max(31, "seq_parameter_set_id")
    chroma_format, depth_luma, depth_chroma = 1, 8, 8
    if profile in _HIGH_PROFILES:
        chroma_format = bits.ue_max(3, "chroma_format_idc")
        if chroma_format == _CHROMA_444 and bits.flag():  # separate_colour_plane_flag
            raise UnsupportedMediaError("H.264 with separate colour planes")
        depth_luma += bits.ue_max(6, "bit_depth_luma_minus8")
        depth_chroma += bits.ue_max(6, "bit_depth_chroma_minus8")
        bits.skip(1)  # qpprime_y_zero_transform_bypass_flag
        if bits.flag():
            _skip_scaling_lists(bits, 8 if chroma_format != _CHROMA_444 else 12)
    bits.ue_max(12, "log2_max_frame_num_minus4")
    _skip_order_count(bits)
    bits.ue_max(16, "max_num_ref_frames")
    bits.skip(1)  # gaps_in_frame_num_value_allowed_flag
    width, height, progressive = _read_size(bits, chroma_format)
    sar, colour, timing = (1, 1), Colour(), _Timing()
    if bits.flag():
        sar, colour, timing = _read_vui(bits)
    return Sps(
        profile=profile,
        constraints=constraints,
        level=level,
        chroma_format=chroma_format,
        bit_depth_luma=depth_luma,
        bit_depth_chroma=depth_chroma,
        width=width,
        height=height,
        progressive=progressive,
        sar_num=sar[0],
        sar_den=sar[1],
        colour=colour,
        frame_rate_num=timing.num,
        frame_rate_den=timing.den,
        fixed_frame_rate=timing.fixed,
    )


def is_random_access(payload: bytes) -> bool:
    """Whether decoding may start here: an IDR picture, or a recovery point that takes no frames.

    Looks no further than the first slice. An open GOP's I picture is a recovery point with
    recovery_frame_cnt 0 (§D.2.8); an intra refresh, which takes frames, is not counted.
    """
    position, end = 0, len(payload)
    recovers = False
    while position + 4 < end:
        start = position + 4
        kind = payload[start] & _NAL_TYPE_MASK
        if kind == NAL_IDR:
            return True
        if NAL_SLICE <= kind < NAL_IDR:
            return recovers
        position = start + int.from_bytes(payload[position:start], "big")
        if kind == NAL_SEI:
            recovers = recovers or _is_recovery_point(payload[start + 1 : position])
    return False


def _read_sets(
    record: bytes, position: int, count_mask: int, kind: int
) -> tuple[tuple[bytes, ...], int]:
    """A counted list of parameter sets at `position`; returns them and where they end."""
    nals: list[bytes] = []
    count = record[position] & count_mask if position < len(record) else 0
    position += 1
    for _ in range(count):
        start = position + 2
        position = start + int.from_bytes(record[start - 2 : start], "big")
        if position > len(record):
            raise RemoteProtocolError(f"avcC: a parameter set ends at {position} of {len(record)}")
        if position > start and record[start] & _NAL_TYPE_MASK == kind:
            nals.append(record[start:position])
    if not nals:
        raise RemoteProtocolError(f"avcC without a parameter set of NAL unit type {kind}")
    return tuple(nals), position


def _is_recovery_point(sei: bytes) -> bool:
    """Whether the SEI message that comes first is a recovery point with recovery_frame_cnt 0."""
    rbsp = remove_emulation_prevention(sei[:_SEI_BYTES_MAX])
    position = 0
    while position + 2 < len(rbsp):
        kind = size = 0
        while position < len(rbsp) and rbsp[position] == _SEI_FF_BYTE:
            kind += 255
            position += 1
        kind += rbsp[position] if position < len(rbsp) else 0
        position += 1
        while position < len(rbsp) and rbsp[position] == _SEI_FF_BYTE:
            size += 255
            position += 1
        size += rbsp[position] if position < len(rbsp) else 0
        position += 1
        if kind == _SEI_RECOVERY_POINT:
            return position < len(rbsp) and rbsp[position] >> 7 == 1  # ue(v) of 0 is one 1 bit.
        position += size
    return False


def _skip_scaling_lists(bits: BitReader, count: int) -> None:
    """seq_scaling_matrix: §7.3.2.1.1.1."""
    for index in range(count):
        if not bits.flag():
            continue
        last = following = 8
        for _ in range(16 if index < _LISTS_4X4 else 64):
            if following:
                following = (last + bits.se()) % 256
            last = following or last


def _skip_order_count(bits: BitReader) -> None:
    kind = bits.ue_max(2, "pic_order_cnt_type")
    if kind == 0:
        bits.ue_max(12, "log2_max_pic_order_cnt_lsb_minus4")
    elif kind == 1:
        bits.skip(1)
        bits.se()
        bits.se()
        for _ in range(bits.ue_max(255, "num_ref_frames_in_pic_order_cnt_cycle")):
            bits.se()


def _read_size(bits: BitReader, chroma_format: int) -> tuple[int, int, bool]:
    width = 16 * (bits.ue_max(PICTURE_SIDE_MAX // 16 - 1, "pic_width_in_mbs_minus1") + 1)
    map_units = bits.ue_max(PICTURE_SIDE_MAX // 16 - 1, "pic_height_in_map_units_minus1") + 1
    progressive = bits.flag()
    fields = 1 if progressive else 2
    height = 16 * map_units * fields
    if not progressive:
        bits.skip(1)  # mb_adaptive_frame_field_flag
    bits.skip(1)  # direct_8x8_inference_flag
    if bits.flag():
        # Table 6-1: crop units are chroma samples.
        unit_x = 2 if chroma_format in (1, 2) else 1
        unit_y = (2 if chroma_format == 1 else 1) * fields
        width -= unit_x * (bits.ue() + bits.ue())
        height -= unit_y * (bits.ue() + bits.ue())
    if width <= 0 or height <= 0:
        raise RemoteProtocolError(f"H.264 SPS: cropping leaves {width}x{height} pixels")
    return width, height, progressive


def _read_vui(bits: BitReader) -> tuple[tuple[int, int], Colour, _Timing]:
    """vui_parameters (§E.1.1), as far as the timing."""
    sar = read_aspect_ratio(bits)
    if bits.flag():  # overscan_info_present_flag
        bits.skip(1)
    colour = read_video_signal(bits)
    if bits.flag():  # chroma_loc_info_present_flag
        bits.ue()
        bits.ue()
    if not bits.flag():  # timing_info_present_flag
        return sar, colour, _Timing()
    units_in_tick, time_scale, fixed = bits.read(32), bits.read(32), bits.flag()
    num, den = frame_rate(time_scale, 2 * units_in_tick)  # A tick is a field (§E.2.1).
    return sar, colour, _Timing(num, den, fixed)
