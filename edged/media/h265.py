"""H.265: hvcC records, sequence parameter sets, access units (ISO/IEC 23008-2, 14496-15 §8).

hvcC: u8 1, profile (u8 space|tier|idc, u32 compatibility, 6 bytes constraints, u8 level),
      u16 0xF000|spatial segmentation, u8 0xFC|parallelism, u8 0xFC|chroma format,
      u8 0xF8|luma depth - 8, u8 0xF8|chroma depth - 8, u16 average frame rate,
      u8 constant rate|temporal layers|nesting|length size - 1, u8 number of arrays,
      {u8 completeness|NAL unit type, u16 count, {u16 length, NAL unit}*}*
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

NAL_BLA_FIRST = 16  # Of the random access types: BLA, IDR, CRA.
NAL_CRA = 21
NAL_VCL_LAST = 31
NAL_VPS = 32
NAL_SPS = 33
NAL_PPS = 34
ARRAYS_MAX = 16  # One for each NAL unit type that may stand in hvcC, and some.
NALS_PER_ARRAY_MAX = 64  # Sixteen VPS or SPS, 64 PPS (§7.4.3).
_RECORD_HEADER_BYTES = 23
_LENGTH_SIZE_AT = 21
_NAL_HEADER_BYTES = 2
_SUB_LAYERS_MAX = 7
_DPB_MAX = 16
_SHORT_TERM_SETS_MAX = 64
_LONG_TERM_MAX = 32
_CHROMA_444 = 3
_SIZE_ID_32X32 = 3
_EDGE_SIZES = ("left", "right", "top", "bottom")


class Profile(Struct, frozen=True, kw_only=True):
    """profile_tier_level, the general part (§7.3.3)."""

    space: int
    high_tier: bool
    idc: int
    compatibility: int  # 32 flags, flag 0 the highest bit.
    constraints: int  # 48 bits.
    level: int  # Thirty times the level: 93 is 3.1.

    @property
    def codec_string(self) -> str:
        """RFC 6381 with ISO/IEC 14496-15 Annex E."""
        reversed_flags = int(f"{self.compatibility:032b}"[::-1], 2)
        constraints = self.constraints.to_bytes(6, "big").rstrip(b"\0")
        pieces = [
            f"hvc1.{('', 'A', 'B', 'C')[self.space]}{self.idc}",
            f"{reversed_flags:X}",
            f"{'H' if self.high_tier else 'L'}{self.level}",
            *(f"{byte:X}" for byte in constraints),
        ]
        return ".".join(pieces)


class Sps(Struct, frozen=True, kw_only=True):
    """What edged wants of a sequence parameter set."""

    profile: Profile
    chroma_format: int
    bit_depth_luma: int
    bit_depth_chroma: int
    width: int  # After the conformance window.
    height: int
    temporal_layers: int
    temporal_nesting: bool
    spatial_segmentation: int  # min_spatial_segmentation_idc
    sar_num: int
    sar_den: int
    colour: Colour
    frame_rate_num: int  # 0 when the VUI has no usable timing.
    frame_rate_den: int


class Record(Struct, frozen=True, kw_only=True):
    """A decoded hvcC."""

    length_size: int  # Bytes of a NAL unit's length in the access units that came with it.
    vps: tuple[bytes, ...]
    sps: tuple[bytes, ...]
    pps: tuple[bytes, ...]
    others: tuple[bytes, ...]  # SEI.


class _Vui(Struct, frozen=True):
    sar: tuple[int, int] = (1, 1)
    colour: Colour = Colour()
    rate: tuple[int, int] = (0, 1)
    spatial_segmentation: int = 0


def parse_config(record: bytes) -> CodecConfig:
    """The configuration in an hvcC record.

    Its `record` is the same but for saying 4-byte lengths, which is what canonical units have.
    """
    parsed = parse_record(record)
    sps = parse_sps(parsed.sps[0])
    at = _LENGTH_SIZE_AT
    return CodecConfig(
        codec=Codec.H265,
        record=record[:at] + bytes([record[at] | 0x03]) + record[at + 1 :],
        codec_string=sps.profile.codec_string,
        width=sps.width,
        height=sps.height,
        frame_rate_num=sps.frame_rate_num,
        frame_rate_den=sps.frame_rate_den,
    )


def parse_record(record: bytes) -> Record:
    """Decode hvcC; there must be at least one VPS, SPS and PPS."""
    if len(record) > RECORD_BYTES_MAX:
        raise RemoteProtocolError(f"hvcC of {len(record)} bytes exceeds {RECORD_BYTES_MAX}")
    if len(record) < _RECORD_HEADER_BYTES or record[0] != 1:
        raise RemoteProtocolError(f"not an hvcC record: {record[:8].hex() or 'empty'}")
    found: dict[int, list[bytes]] = {NAL_VPS: [], NAL_SPS: [], NAL_PPS: []}
    others: list[bytes] = []
    if record[22] > ARRAYS_MAX:
        raise RemoteProtocolError(f"hvcC: {record[22]} arrays, more than {ARRAYS_MAX}")
    position = _RECORD_HEADER_BYTES
    for _ in range(record[22]):
        kind, nals, position = _read_array(record, position)
        found.get(kind, others).extend(nals)
    for kind, nals in found.items():
        if not nals:
            raise RemoteProtocolError(f"hvcC without a parameter set of NAL unit type {kind}")
    return Record(
        length_size=(record[_LENGTH_SIZE_AT] & 3) + 1,
        vps=tuple(found[NAL_VPS]),
        sps=tuple(found[NAL_SPS]),
        pps=tuple(found[NAL_PPS]),
        others=tuple(others),
    )


def make_record(vps: Sequence[bytes], sps: Sequence[bytes], pps: Sequence[bytes]) -> bytes:
    """hvcC of these parameter sets (NAL units without start codes), for 4-byte lengths.

    It says that the arrays are complete, as sample entry hvc1 demands. A set that is missing, or
    too much for a record, raises RemoteProtocolError: they come from streams.
    """
    sets = ((NAL_VPS, vps), (NAL_SPS, sps), (NAL_PPS, pps))
    for kind, nals in sets:
        if not 0 < len(nals) <= NALS_PER_ARRAY_MAX:
            raise RemoteProtocolError(
                f"hvcC: {len(nals)} NAL units of type {kind}, not 1 to {NALS_PER_ARRAY_MAX}"
            )
    check_record_bytes(vps, sps, pps)
    parsed = parse_sps(sps[0])
    profile = parsed.profile
    pieces = [
        bytes([1, profile.space << 6 | profile.high_tier << 5 | profile.idc]),
        profile.compatibility.to_bytes(4, "big"),
        profile.constraints.to_bytes(6, "big"),
        bytes([profile.level]),
        (0xF000 | parsed.spatial_segmentation).to_bytes(2, "big"),
        bytes([0xFC, 0xFC | parsed.chroma_format]),  # Parallelism 0: not known.
        bytes([0xF8 | parsed.bit_depth_luma - 8, 0xF8 | parsed.bit_depth_chroma - 8]),
        bytes(2),  # Average frame rate: not said.
        bytes([parsed.temporal_layers << 3 | parsed.temporal_nesting << 2 | 3, 3]),
    ]
    for kind, nals in sets:
        pieces += (bytes([0x80 | kind]), len(nals).to_bytes(2, "big"))
        for nal in nals:
            pieces += (len(nal).to_bytes(2, "big"), nal)
    return b"".join(pieces)


def is_random_access(payload: bytes) -> bool:
    """Whether the picture is an IRAP (BLA, IDR or CRA); looks no further than the first slice."""
    position, end = 0, len(payload)
    while position + 4 < end:
        start = position + 4
        kind = payload[start] >> 1 & 0x3F
        if kind <= NAL_VCL_LAST:
            return NAL_BLA_FIRST <= kind <= NAL_CRA
        position = start + int.from_bytes(payload[position:start], "big")
    return False


def parse_sps(nal: bytes) -> Sps:
    """Decode a sequence parameter set (§7.3.2.2.1), NAL unit header included."""
    if len(nal) < _NAL_HEADER_BYTES or nal[0] >> 1 & 0x3F != NAL_SPS:
        raise RemoteProtocolError(f"not an H.265 SPS: {nal[:4].hex() or 'empty'}")
    bits = BitReader(remove_emulation_prevention(nal), "H.265 SPS")
    bits.skip(8 * _NAL_HEADER_BYTES + 4)  # sps_video_parameter_set_id
    layers = bits.read(3) + 1
    if layers > _SUB_LAYERS_MAX:
        raise RemoteProtocolError(f"H.265 SPS: {layers} temporal layers, more than 7")
    nesting = bits.flag()
    profile = _read_profile(bits, layers)
    bits.ue_max(15, "sps_seq_parameter_set_id")
    chroma_format = bits.ue_max(3, "chroma_format_idc")
    if chroma_format == _CHROMA_444 and bits.flag():
        raise UnsupportedMediaError("H.265 with separate colour planes")
    width, height = _read_size(bits, chroma_format)
    depth_luma = 8 + bits.ue_max(8, "bit_depth_luma_minus8")
    depth_chroma = 8 + bits.ue_max(8, "bit_depth_chroma_minus8")
    order_count_bits = 4 + bits.ue_max(12, "log2_max_pic_order_cnt_lsb_minus4")
    for _ in range(layers if bits.flag() else 1):  # sps_sub_layer_ordering_info_present_flag
        for _ in range(3):
            bits.ue()
    for _ in range(6):  # Block and transform sizes and depths.
        bits.ue()
    if bits.flag() and bits.flag():  # Scaling lists enabled, and present.
        _skip_scaling_lists(bits)
    bits.skip(2)  # amp_enabled_flag, sample_adaptive_offset_enabled_flag
    if bits.flag():  # pcm_enabled_flag
        bits.skip(8)
        bits.ue()
        bits.ue()
        bits.skip(1)
    _skip_reference_sets(bits, order_count_bits)
    bits.skip(2)  # sps_temporal_mvp_enabled_flag, strong_intra_smoothing_enabled_flag
    vui = _read_vui(bits) if bits.flag() else _Vui()
    return Sps(
        profile=profile,
        chroma_format=chroma_format,
        bit_depth_luma=depth_luma,
        bit_depth_chroma=depth_chroma,
        width=width,
        height=height,
        temporal_layers=layers,
        temporal_nesting=nesting,
        spatial_segmentation=vui.spatial_segmentation,
        sar_num=vui.sar[0],
        sar_den=vui.sar[1],
        colour=vui.colour,
        frame_rate_num=vui.rate[0],
        frame_rate_den=vui.rate[1],
    )


def _read_array(record: bytes, position: int) -> tuple[int, list[bytes], int]:
    """An array of hvcC at `position`: its NAL unit type, its NAL units, and where it ends."""
    start = position + 3
    if start > len(record):
        raise RemoteProtocolError(f"hvcC: an array starts at {position} of {len(record)}")
    kind = record[position] & 0x3F
    count = int.from_bytes(record[position + 1 : start], "big")
    if count > NALS_PER_ARRAY_MAX:
        raise RemoteProtocolError(
            f"hvcC: {count} NAL units of type {kind}, more than {NALS_PER_ARRAY_MAX}"
        )
    nals: list[bytes] = []
    position = start
    for _ in range(count):
        start = position + 2
        position = start + int.from_bytes(record[start - 2 : start], "big")
        if position > len(record):
            raise RemoteProtocolError(f"hvcC: a NAL unit ends at {position} of {len(record)}")
        nals.append(record[start:position])
    return kind, nals, position


def _read_profile(bits: BitReader, layers: int) -> Profile:
    """profile_tier_level with profilePresentFlag 1 (§7.3.3)."""
    profile = Profile(
        space=bits.read(2),
        high_tier=bits.flag(),
        idc=bits.read(5),
        compatibility=bits.read(32),
        constraints=bits.read(48),
        level=bits.read(8),
    )
    present = [(bits.flag(), bits.flag()) for _ in range(layers - 1)]
    if layers > 1:
        bits.skip(2 * (8 - (layers - 1)))
    for has_profile, has_level in present:
        bits.skip(88 * has_profile + 8 * has_level)
    return profile


def _read_size(bits: BitReader, chroma_format: int) -> tuple[int, int]:
    width = bits.ue_max(PICTURE_SIDE_MAX, "pic_width_in_luma_samples")
    height = bits.ue_max(PICTURE_SIDE_MAX, "pic_height_in_luma_samples")
    if bits.flag():  # conformance_window_flag; the unit is a chroma sample (Table 6-1).
        unit_x = 2 if chroma_format in (1, 2) else 1
        unit_y = 2 if chroma_format == 1 else 1
        width -= unit_x * (bits.ue() + bits.ue())
        height -= unit_y * (bits.ue() + bits.ue())
    if width <= 0 or height <= 0:
        raise RemoteProtocolError(f"H.265 SPS: cropping leaves {width}x{height} pixels")
    return width, height


def _skip_scaling_lists(bits: BitReader) -> None:
    """scaling_list_data (§7.3.4)."""
    for size_id in range(4):
        for _ in range(0, 6, 3 if size_id == _SIZE_ID_32X32 else 1):
            if not bits.flag():
                bits.ue()  # scaling_list_pred_matrix_id_delta
                continue
            if size_id > 1:
                bits.se()  # scaling_list_dc_coef_minus8
            for _ in range(min(64, 1 << (4 + (size_id << 1)))):
                bits.se()


def _skip_reference_sets(bits: BitReader, order_count_bits: int) -> None:
    """st_ref_pic_set for each short-term set (§7.3.7), then the long-term pictures."""
    count = bits.ue_max(_SHORT_TERM_SETS_MAX, "num_short_term_ref_pic_sets")
    pictures = 0  # NumDeltaPocs of the set before.
    for index in range(count):
        if index and bits.flag():  # inter_ref_pic_set_prediction_flag
            bits.skip(1)
            bits.ue()
            kept = 0
            for _ in range(pictures + 1):
                used = bits.flag()
                kept += used or bits.flag()
            pictures = kept
            if pictures > _DPB_MAX:
                raise RemoteProtocolError(f"H.265 SPS: a reference set of {pictures} pictures")
            continue
        negative = bits.ue_max(_DPB_MAX, "num_negative_pics")
        positive = bits.ue_max(_DPB_MAX - negative, "num_positive_pics")
        pictures = negative + positive
        for _ in range(pictures):
            bits.ue()
            bits.skip(1)
    if bits.flag():  # long_term_ref_pics_present_flag
        long_term = bits.ue_max(_LONG_TERM_MAX, "num_long_term_ref_pics_sps")
        bits.skip(long_term * (order_count_bits + 1))


def _read_vui(bits: BitReader) -> _Vui:
    """vui_parameters (§E.2.1); hrd_parameters, which come after the timing, end the reading."""
    sar = read_aspect_ratio(bits)
    if bits.flag():  # overscan_info_present_flag
        bits.skip(1)
    colour = read_video_signal(bits)
    if bits.flag():  # chroma_loc_info_present_flag
        bits.ue()
        bits.ue()
    bits.skip(3)  # neutral_chroma_indication_flag, field_seq_flag, frame_field_info_present_flag
    if bits.flag():  # default_display_window_flag: for overscan, players ignore it.
        for _ in _EDGE_SIZES:
            bits.ue()
    rate = (0, 1)
    if bits.flag():  # vui_timing_info_present_flag
        units_in_tick, time_scale = bits.read(32), bits.read(32)
        rate = frame_rate(time_scale, units_in_tick)
        if bits.flag():  # vui_poc_proportional_to_timing_flag
            bits.ue()
        if bits.flag():  # vui_hrd_parameters_present_flag
            return _Vui(sar, colour, rate)
    segmentation = 0
    if bits.flag():  # bitstream_restriction_flag
        bits.skip(3)
        segmentation = bits.ue_max(4095, "min_spatial_segmentation_idc")
    return _Vui(sar, colour, rate, segmentation)
