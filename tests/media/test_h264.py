import contextlib
from fractions import Fraction

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.errors import RemoteProtocolError, UnsupportedMediaError
from edged.media import h264
from edged.media.track import Codec
from edged.media.vui import Colour
from tests.media.samples import Sample, box, demux, encode_video
from tests.media.test_bits import add_emulation_prevention, bytes_of, exp_golomb

FAST = (("preset", "ultrafast"),)


def record_of(sample: Sample) -> bytes:
    return box(sample.file, b"avcC")


@pytest.mark.parametrize(
    ("size", "pixels", "codec_string", "depth"),
    [
        ((64, 48), "yuv420p", "avc1.64000a", 8),
        ((70, 50), "yuv420p", "avc1.64000a", 8),
        ((66, 34), "yuv422p", "avc1.7a000a", 8),
        ((71, 51), "yuv444p", "avc1.f4000a", 8),
        ((64, 48), "yuv420p10le", "avc1.6e000a", 10),
    ],
)
def test_size_and_profile_of_what_x264_makes(
    size: tuple[int, int], pixels: str, codec_string: str, depth: int
) -> None:
    config = h264.parse_config(record_of(encode_video("libx264", size=size, pixels=pixels)))
    assert config.codec is Codec.H264
    assert (config.width, config.height) == size
    assert config.codec_string == codec_string
    sps = h264.parse_sps(h264.parse_record(config.record).sps[0])
    assert sps.bit_depth_luma == sps.bit_depth_chroma == depth
    assert sps.progressive


@pytest.mark.parametrize("rate", [Fraction(30), Fraction(30_000, 1001), Fraction(25, 2)])
def test_frame_rate(rate: Fraction) -> None:
    config = h264.parse_config(record_of(encode_video("libx264", rate=rate, options=FAST)))
    assert Fraction(config.frame_rate_num, config.frame_rate_den) == rate


def test_1080p_is_cropped_from_1088() -> None:
    sample = encode_video("libx264", size=(1920, 1080), frames=1, options=FAST)
    config = h264.parse_config(record_of(sample))
    assert (config.width, config.height, config.codec_string) == (1920, 1080, "avc1.42c028")


def test_interlaced_shape_and_colours() -> None:
    options = (
        (
            "x264-params",
            "interlaced=1:colorprim=bt709:transfer=bt709:colormatrix=bt709:fullrange=on",
        ),
    )
    sample = encode_video("libx264", size=(64, 60), sar=Fraction(40, 33), options=options)
    sps = h264.parse_sps(h264.parse_record(record_of(sample)).sps[0])
    assert not sps.progressive
    assert (sps.width, sps.height, sps.sar_num, sps.sar_den) == (64, 60, 40, 33)
    assert sps.colour == Colour(1, 1, 1, full_range=True)


def test_vui_with_overscan_and_chroma_location_and_a_fixed_rate() -> None:
    options = (("x264-params", "overscan=show:chromaloc=2:force-cfr=1"),)
    sample = encode_video("libx264", rate=Fraction(24), options=options)
    sps = h264.parse_sps(h264.parse_record(record_of(sample)).sps[0])
    assert (sps.frame_rate_num, sps.frame_rate_den, sps.fixed_frame_rate) == (24, 1, True)


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv444p", "yuv422p10le"])
def test_a_record_is_remade_byte_for_byte(pixels: str) -> None:
    record = record_of(encode_video("libx264", pixels=pixels))
    parsed = h264.parse_record(record)
    assert parsed.length_size == 4
    assert h264.make_record(parsed.sps, parsed.pps) == record
    assert h264.parse_config(record).record == record


def test_baseline_has_no_extension() -> None:
    record = record_of(encode_video("libx264", options=FAST))
    parsed = h264.parse_record(record)
    assert h264.make_record(parsed.sps, parsed.pps) == record
    assert record.endswith(parsed.pps[0])


def test_the_configuration_says_four_byte_lengths_whatever_the_record_said() -> None:
    record = record_of(encode_video("libx264"))
    two = record[:4] + bytes([record[4] & 0xFC | 1]) + record[5:]
    assert h264.parse_record(two).length_size == 2
    assert h264.parse_config(two).record == record


def test_byte_stream_of_the_encoder_equals_the_muxed_payload() -> None:
    sample = encode_video("libx264", frames=6, gop=3)
    stored = demux(sample.file)
    assert len(stored) == 6
    for packet, muxed in zip(sample.packets, stored, strict=True):
        assert h264.from_annexb(packet.data) == muxed.data
        assert h264.is_random_access(muxed.data) == muxed.keyframe
    record = h264.parse_record(record_of(sample))
    assert h264.split_annexb(sample.extradata)[:2] == [record.sps[0], record.pps[0]]


def test_open_groups_are_random_accesses_and_intra_refresh_is_not() -> None:
    open_gop = encode_video(
        "libx264",
        frames=14,
        gop=6,
        options=(("x264-params", "open-gop=1:bframes=2:min-keyint=1:b-adapt=0"),),
    )
    stored = demux(open_gop.file)
    assert sum(packet.keyframe for packet in stored) > 1
    kinds = [
        {nal[0] & 0x1F for nal in h264.split_length_prefixed(packet.data)} for packet in stored
    ]
    assert sum(5 in kind for kind in kinds) == 1
    assert [h264.is_random_access(p.data) for p in stored] == [p.keyframe for p in stored]
    refresh = encode_video(
        "libx264", frames=14, gop=6, options=(("x264-params", "intra-refresh=1"),)
    )
    payloads = [packet.data for packet in demux(refresh.file)]
    assert [h264.is_random_access(payload) for payload in payloads] == [True] + 13 * [False]


def test_random_access_of_odd_units() -> None:
    join = h264.join_length_prefixed
    recovery = b"\x06\x06\x01\xc4\x80"
    assert h264.is_random_access(join([recovery, b"\x41\x9a"]))
    assert h264.is_random_access(join([b"\x06\x05\x01\xff\x06\x01\xc4\x80", b"\x41\x9a"]))
    assert not h264.is_random_access(join([b"\x06\x06\x01\x24\x80", b"\x41\x9a"]))
    assert not h264.is_random_access(join([b"\x06\xff\x01\xff\x05", b"\x41\x9a"]))
    assert not h264.is_random_access(join([b"\x06\xff\xff\xff", b"\x06\x05\xff\xff", b"\x41\x9a"]))
    assert not h264.is_random_access(join([b"\x06\x06\x01", b"\x41"]))
    assert not h264.is_random_access(join([recovery]))
    assert not h264.is_random_access(b"")


def make_sps(
    *,
    profile: int = 66,
    order_count: str = exp_golomb(2),
    crop: tuple[int, int, int, int] | None = None,
    vui: str = "0",
    high: str = "",
) -> bytes:
    """An SPS of 4x3 macroblocks; as bits where the test wants to say."""
    text = "01100111" + f"{profile:08b}" + "00000000" + "00011111" + exp_golomb(0) + high
    text += exp_golomb(0) + order_count + exp_golomb(1) + "0"
    text += exp_golomb(3) + exp_golomb(2) + "1" + "1"
    text += "0" if crop is None else "1" + "".join(exp_golomb(side) for side in crop)
    return add_emulation_prevention(bytes_of(text + vui + "1"))


def test_picture_order_of_type_1() -> None:
    cycle = exp_golomb(1) + "0" + exp_golomb(3) + exp_golomb(4) + exp_golomb(2) + "010" + "011"
    sps = h264.parse_sps(make_sps(order_count=cycle))
    assert (sps.width, sps.height) == (64, 48)


@pytest.mark.parametrize(("chroma_format", "lists"), [(1, 8), (3, 12)])
def test_scaling_lists_are_passed_over(chroma_format: int, lists: int) -> None:
    high = exp_golomb(chroma_format) + ("0" if chroma_format == 3 else "")
    high += exp_golomb(0) + exp_golomb(0) + "0" + "1"
    high += "1" + 16 * exp_golomb(1) + "0"  # A whole list, and none.
    high += "1" + exp_golomb(16)  # To 0 at once: the rest repeats.
    high += (lists - 4) * "0" + "1" + 32 * (exp_golomb(1) + exp_golomb(2))
    sps = h264.parse_sps(make_sps(profile=244, high=high))
    assert (sps.width, sps.height, sps.chroma_format) == (64, 48, chroma_format)


def test_sps_that_cannot_be() -> None:
    with pytest.raises(RemoteProtocolError, match="cropping leaves -96x48"):
        h264.parse_sps(make_sps(crop=(40, 40, 0, 0)))
    with pytest.raises(RemoteProtocolError, match="pic_order_cnt_type is 3"):
        h264.parse_sps(make_sps(order_count=exp_golomb(3)))
    with pytest.raises(RemoteProtocolError, match=r"not an H\.264 SPS"):
        h264.parse_sps(b"\x68\xce")
    with pytest.raises(UnsupportedMediaError, match="separate colour planes"):
        h264.parse_sps(make_sps(profile=244, high=exp_golomb(3) + "1"))


def test_vui_without_timing_or_with_a_time_base_for_a_rate() -> None:
    without = h264.parse_sps(make_sps(vui="1" + "00000"))
    assert (without.frame_rate_num, without.frame_rate_den) == (0, 1)
    base = "1" + "0000" + "1" + f"{1:032b}" + f"{2000:032b}" + "0"
    assert h264.parse_sps(make_sps(vui=base)).frame_rate_num == 0


def test_records_that_cannot_be() -> None:
    record = record_of(encode_video("libx264"))
    for cut in range(len(record) - 4):
        with pytest.raises(RemoteProtocolError):
            h264.parse_config(record[:cut])
    with pytest.raises(RemoteProtocolError, match="not an avcC record: 02"):
        h264.parse_config(b"\x02" + record[1:])
    with pytest.raises(RemoteProtocolError, match="parameter set of NAL unit type 7"):
        h264.parse_config(record[:5] + b"\xe0" + record[6:])
    h264.parse_config(record.ljust(h264.RECORD_BYTES_MAX, b"\0"))
    with pytest.raises(RemoteProtocolError, match="exceeds 65536"):
        h264.parse_config(record.ljust(h264.RECORD_BYTES_MAX + 1, b"\0"))


def test_a_record_of_too_many_sets_or_none_is_not_made() -> None:
    sps, pps = make_sps(), b"\x68\xce"
    assert len(h264.parse_record(h264.make_record(31 * [sps], 255 * [pps])).pps) == 255
    for sets, counts in ((0, 1), (1, 0), (32, 1), (1, 256)):
        with pytest.raises(
            RemoteProtocolError, match=f"avcC: {sets} SPS and {counts} PPS, not 1 to"
        ):
            h264.make_record(sets * [sps], counts * [pps])
    with pytest.raises(RemoteProtocolError, match="parameter sets of"):
        h264.make_record([sps + bytes(70_000)], [pps])


@hypothesis.given(st.binary(max_size=80), st.integers(0, 200), st.integers(0, 255))
def test_garbage_raises_only_errors_of_the_media(data: bytes, at: int, value: int) -> None:
    record = record_of(encode_video("libx264"))
    bent = bytearray(record)
    bent[at % len(bent)] = value
    for garbage in (data, b"\1" + data, bytes(bent), record[:8] + data):
        with contextlib.suppress(RemoteProtocolError, UnsupportedMediaError):
            h264.parse_config(garbage)
    for high in (b"\x67\x64\0\x1f", b"\x67\x42\0\x1f"):
        with contextlib.suppress(RemoteProtocolError, UnsupportedMediaError):
            h264.parse_sps(high + data)
    h264.is_random_access(data)
    h264.is_random_access(b"\0\0\0\x09\6" + data)
