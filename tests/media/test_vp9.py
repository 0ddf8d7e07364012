import contextlib
import itertools
from fractions import Fraction

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.errors import RemoteProtocolError, UnsupportedMediaError
from edged.media import vp9
from edged.media.track import Codec
from edged.media.vui import Colour
from tests.media.samples import Sample, box, demux, encode_video
from tests.media.test_bits import bytes_of


def encode(
    size: tuple[int, int] = (64, 48), pixels: str = "yuv420p", rate: int = 30, **color: str
) -> Sample:
    options = (("deadline", "realtime"), ("cpu-used", "8"), *color.items())
    return encode_video(
        "libvpx-vp9", size=size, pixels=pixels, rate=Fraction(rate), options=options
    )


@pytest.mark.parametrize(
    ("pixels", "codec_string", "chroma"),
    [
        ("yuv420p", "vp09.00.10.08", 1),
        ("yuv422p", "vp09.01.10.08", 2),
        ("yuv444p", "vp09.01.10.08", 3),
    ],
)
def test_configuration_of_what_libvpx_makes(pixels: str, codec_string: str, chroma: int) -> None:
    sample = encode(pixels=pixels)
    record = box(sample.file, b"vpcC")
    config = vp9.parse_config(record)
    assert config.codec is Codec.VP9
    assert (config.record, config.codec_string) == (record, codec_string)
    assert (config.width, config.height) == (0, 0)
    key = sample.packets[0].data
    sized = vp9.with_size(config, key)
    assert (sized.width, sized.height) == (64, 48)
    assert vp9.with_size(sized, key) is sized
    assert vp9.with_size(sized, sample.packets[1].data) is sized
    header = vp9.parse_frame_header(key)
    assert (header.chroma, header.shown) == (chroma, True)
    made = vp9.parse_record(vp9.make_record(key, 30))
    assert made.codec_string == codec_string
    assert made.chroma == chroma


def test_a_made_record_equals_ffmpegs() -> None:
    sample = encode(size=(640, 360))
    assert vp9.make_record(sample.packets[0].data, 30) == box(sample.file, b"vpcC")


@pytest.mark.parametrize(
    ("record", "key"),
    [
        ("01000000020aa20202020000", "924983420001f8017b031c120e0c2c00"),  # 4:2:0, 10 bits.
        ("01000000030ac40202020000", "b124c1a142001f8017b031c120e0c2e0"),  # 4:2:2, 12 bits.
        ("01000000030ac60202020000", "b124c1a140001f8017b031c120e0c2e0"),  # 4:4:4, 12 bits.
    ],
)
def test_records_of_the_deep_profiles_are_remade_byte_for_byte(record: str, key: str) -> None:
    data, frame = bytes.fromhex(record), bytes.fromhex(key)
    assert vp9.make_record(frame, 30) == data
    sized = vp9.with_size(vp9.parse_config(data), frame)
    assert (sized.width, sized.height) == (64, 48)


def test_key_frames_are_the_muxers() -> None:
    stored = demux(encode(size=(320, 180)).file)
    assert [vp9.is_random_access(p.data) for p in stored] == [p.keyframe for p in stored]
    assert [p.keyframe for p in stored] == [True, False, True, False]


def test_colours() -> None:
    sample = encode(colorspace="bt709", color_range="pc")
    header = vp9.parse_frame_header(sample.packets[0].data)
    assert header.colour == Colour(1, 1, 1, full_range=True)
    rgb = encode(pixels="gbrp")
    assert vp9.parse_frame_header(rgb.packets[0].data).colour == Colour(1, 13, 0, full_range=True)
    assert vp9.parse_record(vp9.make_record(rgb.packets[0].data)).chroma == 3


def test_a_record_without_version_and_flags_gets_them() -> None:
    record = box(encode().file, b"vpcC")
    assert vp9.parse_config(record[4:]).record == record


def key_frame(
    *, width: int = 64, height: int = 48, profile: str = "00", form: str = "0010"
) -> bytes:
    """A key frame's header; `profile` is its low and high bits and what follows them."""
    text = "10" + profile + "0" + "0" + "1" + "0" + f"{0x498342:024b}" + form
    return bytes_of(text + f"{width - 1:016b}{height - 1:016b}0")


@pytest.mark.parametrize(
    ("size", "rate", "level"),
    [
        ((256, 144), 22, 10),
        ((256, 144), 23, 11),
        ((640, 360), 30, 21),
        ((1280, 720), 30, 31),
        ((1920, 1080), 30, 40),
        ((1920, 1080), 60, 41),
        ((3840, 2160), 30, 50),
        ((3840, 2160), 120, 52),
        ((7680, 4320), 60, 61),
        ((7680, 4320), 120, 62),
        ((1920, 1080), 0, 40),
    ],
)
def test_level_by_size_and_rate(size: tuple[int, int], rate: int, level: int) -> None:
    record = vp9.make_record(key_frame(width=size[0], height=size[1]), rate)
    assert vp9.parse_record(record).level == level


def test_frames_without_a_picture_of_their_own() -> None:
    again = vp9.parse_frame_header(bytes_of("10" + "00" + "1" + "000"))
    assert (again.key_frame, again.shown) == (False, True)
    hidden = vp9.parse_frame_header(bytes_of("10" + "00" + "0" + "1" + "0" + "0"))
    assert (hidden.key_frame, hidden.shown) == (False, False)
    with pytest.raises(RemoteProtocolError, match="needs a key frame"):
        vp9.make_record(bytes_of("10" + "00" + "0" + "1" + "0" + "0"))


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (b"\x49\x83\x42", "not a VP9 frame: 498342"),
        (b"", "VP9 frame header ends early"),
        (b"\x82\x49\x83\x43", "without its sync code"),
        (key_frame(form="111"), "RGB in profile 0"),
        (key_frame()[:6], "ends early"),
    ],
)
def test_frames_that_cannot_be(frame: bytes, message: str) -> None:
    with pytest.raises(RemoteProtocolError, match=message):
        vp9.parse_frame_header(frame)


def test_frames_that_are_not_carried() -> None:
    with pytest.raises(UnsupportedMediaError, match="profile above 3"):
        vp9.parse_frame_header(key_frame(profile="111"))
    for across, down in itertools.product("01", repeat=2):
        frame = key_frame(profile="10", form="001" + "0" + across + down + "0")
        if down == "0":
            assert vp9.parse_frame_header(frame).chroma == (2 if across == "1" else 3)
            continue
        with pytest.raises(UnsupportedMediaError, match="4:4:0 or 4:2:0"):
            vp9.parse_frame_header(frame)


def test_records_that_cannot_be() -> None:
    record = box(encode().file, b"vpcC")
    for size in range(24):
        if size not in (8, 12):
            with pytest.raises(RemoteProtocolError, match=f"vpcC of {size} bytes, not 12"):
                vp9.parse_config(record.ljust(24, b"\0")[:size])
    with pytest.raises(UnsupportedMediaError, match="version and flags 00000000"):
        vp9.parse_config(bytes(4) + record[4:])
    with pytest.raises(RemoteProtocolError, match="profile 4, bit depth 8"):
        vp9.parse_config(record[:4] + b"\4" + record[5:])
    with pytest.raises(RemoteProtocolError, match="profile 0, bit depth 9"):
        vp9.parse_config(record[:6] + b"\x92" + record[7:])


@hypothesis.given(st.binary(max_size=24))
def test_garbage_raises_only_errors_of_the_media(data: bytes) -> None:
    for garbage in (data, b"\x82\x49\x83\x42" + data, b"\xb2\x49\x83\x42" + data):
        with contextlib.suppress(RemoteProtocolError, UnsupportedMediaError):
            vp9.make_record(garbage)
        with contextlib.suppress(RemoteProtocolError, UnsupportedMediaError):
            vp9.is_random_access(garbage)
    for garbage in (data, data[:8], b"\1\0\0\0" + data[:8]):
        with contextlib.suppress(RemoteProtocolError, UnsupportedMediaError):
            vp9.parse_config(garbage)
