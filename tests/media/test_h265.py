import contextlib
from fractions import Fraction

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.errors import RemoteProtocolError, UnsupportedMediaError
from edged.media import h265
from edged.media.track import Codec
from edged.media.vui import Colour
from tests.media.samples import Sample, box, demux, encode_video
from tests.media.test_bits import add_emulation_prevention, bytes_of, exp_golomb

# One thread pool less to start in each test.
QUIET = "log-level=none:pools=none:frame-threads=1"


def encode(params: str = "", **how: object) -> Sample:
    """An x265 stream with further x265-params."""
    options = (("preset", "ultrafast"), ("x265-params", f"{QUIET}{params}"))
    return encode_video("libx265", options=options, **how)


def record_of(sample: Sample) -> bytes:
    return box(sample.file, b"hvcC")


def sps_of(sample: Sample) -> h265.Sps:
    return h265.parse_sps(h265.parse_record(record_of(sample)).sps[0])


@pytest.mark.parametrize(
    ("size", "pixels", "codec_string", "depth"),
    [
        ((64, 48), "yuv420p", "hvc1.1.6.L30.90", 8),
        ((70, 50), "yuv420p", "hvc1.1.6.L30.90", 8),
        ((64, 48), "yuv420p10le", "hvc1.2.4.L30.90", 10),
        ((66, 50), "yuv422p", "hvc1.4.10.L30.9D.8", 8),
        ((71, 51), "yuv444p", "hvc1.4.10.L30.9E.8", 8),
    ],
)
def test_size_and_profile_of_what_x265_makes(
    size: tuple[int, int], pixels: str, codec_string: str, depth: int
) -> None:
    sample = encode(size=size, pixels=pixels)
    config = h265.parse_config(record_of(sample))
    assert config.codec is Codec.H265
    assert (config.width, config.height) == size
    assert config.codec_string == codec_string
    assert sps_of(sample).bit_depth_luma == depth


@pytest.mark.parametrize("rate", [Fraction(30), Fraction(30_000, 1001)])
def test_frame_rate(rate: Fraction) -> None:
    config = h265.parse_config(record_of(encode(rate=rate)))
    assert Fraction(config.frame_rate_num, config.frame_rate_den) == rate


def test_shape_colours_and_the_rest_of_the_vui() -> None:
    params = ":colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:range=full"
    params += ":overscan=show:chromaloc=2:display-window=2,2,2,2:high-tier=1:level-idc=4"
    sps = sps_of(encode(params, sar=Fraction(40, 33), pixels="yuv420p10le"))
    assert (sps.sar_num, sps.sar_den, sps.width) == (40, 33, 64)
    assert sps.colour == Colour(9, 16, 9, full_range=True)
    assert (sps.frame_rate_num, sps.frame_rate_den) == (30, 1)
    assert sps.profile.codec_string.startswith("hvc1.2.4.")


@pytest.mark.parametrize(
    "params",
    [
        ":scaling-list=default",
        ":temporal-layers=2:bframes=3:b-adapt=0",
        ":hrd=1:vbv-maxrate=500:vbv-bufsize=500",
        ":interlace=tff",
        ":slices=2",
        ":no-vui-timing-info=1",
    ],
)
def test_tools_that_change_the_sps(params: str) -> None:
    sample = encode(params, frames=5, gop=5)
    sps = sps_of(sample)
    assert sps.width == 64
    assert sps.temporal_layers in (1, 2)
    stored = demux(sample.file)
    assert [h265.is_random_access(p.data) for p in stored] == [p.keyframe for p in stored]


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv420p10le", "yuv444p"])
def test_a_made_record_says_what_ffmpegs_does(pixels: str) -> None:
    record = record_of(encode(pixels=pixels))
    parsed = h265.parse_record(record)
    made = h265.make_record(parsed.vps, parsed.sps, parsed.pps)
    assert made[:13] == record[:13]
    assert made[15:22] == record[15:22]
    again = h265.parse_record(made)
    assert (again.vps, again.sps, again.pps) == (parsed.vps, parsed.sps, parsed.pps)
    assert (again.length_size, again.others) == (4, ())
    assert len(parsed.others) == 1  # x265 signs its work.
    assert h265.parse_config(record).record == record


def test_the_configuration_says_four_byte_lengths_whatever_the_record_said() -> None:
    record = record_of(encode())
    two = record[:21] + bytes([record[21] & 0xFC | 1]) + record[22:]
    assert h265.parse_record(two).length_size == 2
    assert h265.parse_config(two).record == record


def test_byte_stream_of_the_encoder_equals_the_muxed_payload() -> None:
    sample = encode(frames=6, gop=3)
    stored = demux(sample.file)
    for packet, muxed in zip(sample.packets, stored, strict=True):
        assert h265.from_annexb(packet.data) == muxed.data
        assert h265.to_annexb(muxed.data) == h265.to_annexb(h265.from_annexb(packet.data))
        assert h265.is_random_access(muxed.data) == muxed.keyframe
    parsed = h265.parse_record(record_of(sample))
    assert tuple(h265.split_annexb(sample.extradata)[:3]) == (
        *parsed.vps,
        *parsed.sps,
        *parsed.pps,
    )


def test_open_groups_are_random_accesses() -> None:
    sample = encode(":open-gop=1:bframes=2:b-adapt=0:min-keyint=1", frames=14, gop=6)
    stored = demux(sample.file)
    kinds = [{nal[0] >> 1 for nal in h265.split_length_prefixed(p.data)} for p in stored]
    assert any(h265.NAL_CRA in kind for kind in kinds)
    assert [h265.is_random_access(p.data) for p in stored] == [p.keyframe for p in stored]


def test_random_access_of_units_without_a_picture() -> None:
    assert not h265.is_random_access(b"")
    assert not h265.is_random_access(h265.join_length_prefixed([b"\x4e\x01\x05"]))


def make_sps(
    *,
    layers: str = "000",
    profile: str = "",
    chroma: str = exp_golomb(1),
    crop: str = "0",
    scaling: str = "0",
    pcm: str = "0",
    sets: str = exp_golomb(0),
    long_term: str = "0",
    vui: str = "0",
) -> bytes:
    """An SPS of 64x48; as bits where the test wants to say."""
    text = f"{33 << 9 | 1:016b}" + "0000" + layers + "1"
    text += f"{1:08b}{6 << 28:032b}{0:048b}{93:08b}" + profile
    text += exp_golomb(0) + chroma + exp_golomb(64) + exp_golomb(48) + crop
    text += exp_golomb(0) + exp_golomb(0) + exp_golomb(4) + "1"
    text += "".join(3 * exp_golomb(1) for _ in range(int(layers, 2) + 1))
    text += 6 * exp_golomb(1) + scaling + "00" + pcm + sets + long_term + "00" + vui
    return add_emulation_prevention(bytes_of(text + "1"))


def explicit_set(*, negative: int, positive: int) -> str:
    """A short-term reference set on its own."""
    text = exp_golomb(negative) + exp_golomb(positive)
    return text + (negative + positive) * (exp_golomb(0) + "1")


@pytest.mark.parametrize(
    "bits",
    [
        {},
        {"layers": "010", "profile": "11" + "01" + 12 * "0" + 88 * "0" + 8 * "0" + 8 * "0"},
        {"pcm": "1" + "01110111" + exp_golomb(0) + exp_golomb(0) + "0"},
        {"long_term": "1" + exp_golomb(2) + 2 * (8 * "0" + "1")},
        {"scaling": "1" + "0"},
        {"scaling": "1" + "1" + 20 * ("0" + exp_golomb(0))},
        {
            "scaling": "1"
            + "1"
            + 6 * ("1" + 16 * "1")
            + 6 * ("1" + 64 * "1")
            + 6 * ("1" + "1" + 64 * "1")
            + 2 * ("1" + "1" + 64 * "1")
        },
        {
            "sets": exp_golomb(3)
            + explicit_set(negative=2, positive=1)
            + ("1" + "0" + exp_golomb(0) + "1" + "01" + "00" + "1")
            + ("0" + explicit_set(negative=1, positive=0))
        },
        {"vui": "1" + "0000" + "000" + "0" + "0" + "1" + "000" + exp_golomb(7) + "000000"},
        {"vui": "1" + "0000" + "000" + "0" + "0" + "0"},
        {"vui": "1" + "0000" + "000" + "0" + "1" + f"{1001:032b}{60_000:032b}" + "1" + "1" + "1"},
    ],
)
def test_all_branches_of_the_sps(bits: dict[str, str]) -> None:
    sps = h265.parse_sps(make_sps(**bits))
    assert (sps.width, sps.height) == (64, 48)
    assert sps.temporal_layers == (3 if "layers" in bits else 1)


def test_spatial_segmentation_and_rate_with_hrd() -> None:
    text = "1" + "0000" + "000" + "0" + "0" + "1" + "000" + exp_golomb(7) + "000000"
    assert h265.parse_sps(make_sps(vui=text)).spatial_segmentation == 7
    text = "1" + "0000" + "000" + "0" + "1" + f"{1001:032b}{60_000:032b}" + "0" + "1"
    sps = h265.parse_sps(make_sps(vui=text))
    assert (sps.frame_rate_num, sps.frame_rate_den) == (60_000, 1001)


def test_sps_that_cannot_be() -> None:
    many = exp_golomb(2) + explicit_set(negative=16, positive=0)
    for bits, message in (
        ({"layers": "111"}, "8 temporal layers"),
        ({"crop": "1" + exp_golomb(32) + 3 * exp_golomb(0)}, "cropping leaves 0x48"),
        ({"sets": exp_golomb(65)}, "num_short_term_ref_pic_sets is 65, more than 64"),
        ({"sets": exp_golomb(1) + exp_golomb(9) + exp_golomb(8)}, "num_positive_pics is 8"),
        ({"sets": many + "10" + exp_golomb(0) + 17 * "1"}, "a reference set of 17 pictures"),
    ):
        with pytest.raises(RemoteProtocolError, match=message):
            h265.parse_sps(make_sps(**bits))
    with pytest.raises(UnsupportedMediaError, match="separate colour planes"):
        h265.parse_sps(make_sps(chroma=exp_golomb(3) + "1"))
    with pytest.raises(RemoteProtocolError, match=r"not an H\.265 SPS: 4401"):
        h265.parse_sps(b"\x44\x01")


def test_records_that_cannot_be() -> None:
    record = record_of(encode())
    for cut in range(len(record)):
        with pytest.raises(RemoteProtocolError):
            h265.parse_config(record[:cut])
    with pytest.raises(RemoteProtocolError, match="not an hvcC record: 02"):
        h265.parse_config(b"\x02" + record[1:])
    with pytest.raises(RemoteProtocolError, match="parameter set of NAL unit type 32"):
        h265.parse_config(record[:22] + b"\0")


def test_limits_of_a_record_and_one_past_them() -> None:
    record = h265.make_record([b"\x40\x01"], [make_sps()], [b"\x44\x01"])
    config = h265.parse_config(record)
    assert config.codec_string == "hvc1.1.6.L93"
    arrays = record[:22] + bytes([h265.ARRAYS_MAX]) + record[23:]
    arrays += (h265.ARRAYS_MAX - 3) * b"\x27\0\0"
    assert h265.parse_record(arrays).others == ()
    with pytest.raises(RemoteProtocolError, match="17 arrays, more than 16"):
        h265.parse_record(arrays[:22] + b"\x11" + arrays[23:] + b"\x27\0\0")
    at = h265.make_record([b"\x40\x01"], [make_sps()], h265.NALS_PER_ARRAY_MAX * [b"\x44\x01"])
    assert len(h265.parse_record(at).pps) == h265.NALS_PER_ARRAY_MAX
    for sets in ([], [b"\x44\x01"] * (h265.NALS_PER_ARRAY_MAX + 1)):
        with pytest.raises(
            RemoteProtocolError, match=f"{len(sets)} NAL units of type 34, not 1 to"
        ):
            h265.make_record([b"\x40\x01"], [make_sps()], sets)
    past = at.replace(b"\xa2\0\x40", b"\xa2\0\x41") + b"\0\2\x44\1"
    with pytest.raises(RemoteProtocolError, match="65 NAL units of type 34, more than 64"):
        h265.parse_record(past)
    h265.parse_record(record.ljust(h265.RECORD_BYTES_MAX, b"\0"))
    with pytest.raises(RemoteProtocolError, match="exceeds 65536"):
        h265.parse_record(record.ljust(h265.RECORD_BYTES_MAX + 1, b"\0"))


@hypothesis.given(st.binary(max_size=120), st.integers(0, 120), st.integers(0, 255))
def test_garbage_raises_only_errors_of_the_media(data: bytes, at: int, value: int) -> None:
    record = record_of(encode())
    bent = bytearray(record)
    bent[at] = value
    for garbage in (data, record[:23] + data, bytes(bent)):
        with contextlib.suppress(RemoteProtocolError, UnsupportedMediaError):
            h265.parse_config(garbage)
    for head in (b"\x42\x01", make_sps()[:18]):
        with contextlib.suppress(RemoteProtocolError, UnsupportedMediaError):
            h265.parse_sps(head + data)
    h265.is_random_access(data)
