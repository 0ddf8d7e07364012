import contextlib
from fractions import Fraction
from typing import TypedDict

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.errors import RemoteProtocolError, UnsupportedMediaError
from edged.media import av1
from edged.media.track import Codec
from edged.media.vui import Colour
from tests.media.samples import Sample, box, demux, encode_video
from tests.media.test_bits import bytes_of, exp_golomb

DELIMITER = b"\x12\x00"


def encode(params: str = "", **how: object) -> Sample:
    options = (("preset", "12"), ("svtav1-params", f"lp=1{params}"))
    return encode_video("libsvtav1", options=options, **how)


@pytest.mark.parametrize(
    ("size", "pixels", "codec_string"),
    [
        ((64, 48), "yuv420p", "av01.0.00M.08"),
        ((70, 66), "yuv420p", "av01.0.00M.08"),
        ((64, 64), "yuv420p10le", "av01.0.00M.10"),
    ],
)
def test_configuration_of_what_svt_makes(
    size: tuple[int, int], pixels: str, codec_string: str
) -> None:
    sample = encode(size=size, pixels=pixels)
    record = box(sample.file, b"av1C")
    config = av1.parse_config(record)
    assert config.codec is Codec.AV1
    assert (config.record, config.codec_string) == (record, codec_string)
    assert (config.width, config.height) == size
    assert av1.make_record(sample.extradata) == record
    in_band = av1.parse_record(av1.make_record(sample.packets[0].data))  # Found in a unit, too.
    assert (in_band.width, in_band.height) == size


@pytest.mark.parametrize(
    ("record", "codec_string", "subsampling"),
    [
        ("81000c000a0a00000002aff79b5f2008", "av01.0.00M.08", (True, True)),
        ("81406c000a0a40000002aff79b5f2c61", "av01.2.00M.12", (True, True)),
        ("814048000a0a40000002aff79b5f2810", "av01.2.00M.10", (True, False)),
        ("812000000a0a20000002aff79b5f2040", "av01.1.00M.08", (False, False)),
        ("814060000a0a40000002aff79b5f2c08", "av01.2.00M.12", (False, False)),
        ("812000000a0d20000002aff79b5f2404340080", "av01.1.00M.08", (False, False)),  # RGB
        ("81001c000a0a00000002aff79b5f2540", "av01.0.00M.08", (True, True)),  # Gray
        ("81005c000a0a00000002aff79b5f2d40", "av01.0.00M.10", (True, True)),
    ],
)
def test_records_of_libaom_and_ffmpeg_are_remade_byte_for_byte(
    record: str, codec_string: str, subsampling: tuple[bool, bool]
) -> None:
    data = bytes.fromhex(record)
    config, header = av1.parse_config(data), av1.parse_record(data)
    assert (config.codec_string, config.width, config.height) == (codec_string, 64, 48)
    assert (header.subsampling_x, header.subsampling_y) == subsampling
    assert header.monochrome == bool(data[2] & 0x10)
    assert av1.make_record(data[4:]) == data


def test_colours() -> None:
    params = ":color-primaries=9:transfer-characteristics=16:matrix-coefficients=9:color-range=1"
    record = box(encode(params, pixels="yuv420p10le").file, b"av1C")
    header = av1.parse_record(record)
    assert header.colour == Colour(9, 16, 9, full_range=True)
    assert (header.subsampling_x, header.subsampling_y, header.monochrome) == (True, True, False)


def test_units_are_the_muxers_without_delimiters() -> None:
    sample = encode(frames=6, gop=3)
    stored = demux(sample.file)
    stripped = [av1.strip_temporal_delimiters(packet.data) for packet in sample.packets]
    assert stripped == [packet.data for packet in stored]
    assert any(packet.data.startswith(DELIMITER) for packet in sample.packets)
    assert all(av1.strip_temporal_delimiters(data) is data for data in stripped)
    assert [av1.is_random_access(data) for data in stripped] == [p.keyframe for p in stored]
    assert any(not packet.keyframe for packet in stored)


@hypothesis.given(
    st.lists(
        st.tuples(st.sampled_from([1, 2, 3, 5, 6, 15]), st.booleans(), st.binary(max_size=300)),
        max_size=8,
    ),
    st.booleans(),
)
def test_obus_come_back_and_delimiters_go(obus: list[tuple[int, bool, bytes]], sized: bool) -> None:
    pieces: list[bytes] = []
    for index, (kind, extended, body) in enumerate(obus):
        has_size = sized or index < len(obus) - 1
        head = bytes([kind << 3 | extended << 2 | has_size << 1]) + (b"\x20" if extended else b"")
        size = b"" if not has_size else bytes([len(body) & 0x7F | 0x80, len(body) >> 7])
        pieces.append(head + size + body)
    payload = b"".join(pieces)
    split = av1.split_obus(payload)
    assert [(obu.kind, payload[obu.body : obu.end]) for obu in split] == [
        (kind, body) for kind, _, body in obus
    ]
    assert [payload[obu.start : obu.end] for obu in split] == pieces
    kept = b"".join(piece for piece, (kind, *_) in zip(pieces, obus, strict=True) if kind != 2)
    assert av1.strip_temporal_delimiters(payload) == kept


def test_random_access_needs_a_sequence_header_and_a_shown_key_frame() -> None:
    sequence, reduced = b"\x0a\x01\x00", b"\x0a\x01\x18"
    shown, hidden, inter, again = b"\x32\x01\x10", b"\x32\x01\x00", b"\x32\x01\x30", b"\x1a\x01\x90"
    assert av1.is_random_access(DELIMITER + sequence + shown)
    assert av1.is_random_access(reduced + inter)
    assert not av1.is_random_access(shown)
    for frame in (hidden, inter, again):
        assert not av1.is_random_access(sequence + frame)
    assert not av1.is_random_access(b"\x0a\x00" + b"\x32\x00")
    assert not av1.is_random_access(b"")


class HeaderBits(TypedDict, total=False):
    """What `make_header` takes."""

    timing: str
    points: str
    ids: str
    tools: str


def make_header(
    *,
    profile: int = 0,
    timing: str = "0",
    points: str = "0" + "00000" + 12 * "0" + "01000" + "1",
    ids: str = "0",
    tools: str = "0000" + "1" + "00" + "1" + "1" + "011",
    form: str = "0" + "0" + "0" + "0" + "01" + "0",
) -> bytes:
    """A sequence header of 1280x720; as bits where the test wants to say."""
    text = f"{profile:03b}" + "0" + "0" + timing + points
    text += f"{10:04b}{9:04b}{1279:011b}{719:010b}" + ids + "000" + tools + "000" + form
    return bytes_of(text + "1")


MODEL = "1" + f"{9:05b}" + 32 * "0" + 5 * "0" + 5 * "0"


@pytest.mark.parametrize(
    ("bits", "rate"),
    [
        ({}, (0, 1)),
        ({"timing": "1" + f"{1:032b}{60:032b}" + "0" + "0"}, (0, 1)),
        ({"timing": "1" + f"{1001:032b}{60_000:032b}" + "1" + exp_golomb(1) + "0"}, (30_000, 1001)),
        (
            {
                "timing": "1" + f"{1:032b}{60:032b}" + "1" + exp_golomb(0) + MODEL,
                "points": "1"
                + "00001"
                + 12 * "0"
                + ("01000" + "1" + "1" + 21 * "0" + "1" + "0000")
                + 12 * "0"
                + ("00111" + "0" + "0"),
            },
            (60, 1),
        ),
        ({"ids": "1" + 7 * "0"}, (0, 1)),
        ({"tools": "0000" + "0" + "0" + "0"}, (0, 1)),
        ({"tools": "0000" + "0" + "0" + "1" + "0" + "1"}, (0, 1)),
    ],
)
def test_all_branches_of_the_header(bits: HeaderBits, rate: tuple[int, int]) -> None:
    header = av1.parse_sequence_header(make_header(**bits))
    assert (header.width, header.height) == (1280, 720)
    assert header.codec_string == "av01.0.08H.08"
    assert (header.frame_rate_num, header.frame_rate_den) == rate
    assert header.film_grain


@pytest.mark.parametrize(
    ("profile", "form", "depth", "subsampling", "flags"),
    [
        (0, "0" + "1" + "0" + "1", 8, (True, True), 0x9C),  # Monochrome.
        (0, "1" + "0" + "0" + "0" + "10" + "0", 10, (True, True), 0xCE),
        (1, "0" + "0" + "0" + "0", 8, (False, False), 0x80),
        (1, "0" + "1" + f"{1:08b}{13:08b}{0:08b}" + "0", 8, (False, False), 0x80),
        (2, "0" + "0" + "0" + "0" + "0", 8, (True, False), 0x88),
        (2, "1" + "0" + "0" + "0" + "0" + "0", 10, (True, False), 0xC8),
        (2, "1" + "1" + "0" + "0" + "0" + "0" + "0", 12, (False, False), 0xE0),
        (2, "1" + "1" + "0" + "0" + "0" + "1" + "0" + "0", 12, (True, False), 0xE8),
        (2, "1" + "1" + "0" + "0" + "0" + "1" + "1" + "00" + "0", 12, (True, True), 0xEC),
    ],
)
def test_all_formats(
    profile: int, form: str, depth: int, subsampling: tuple[bool, bool], flags: int
) -> None:
    body = make_header(profile=profile, form=form)
    header = av1.parse_sequence_header(body)
    assert (header.bit_depth, header.film_grain) == (depth, True)
    assert (header.subsampling_x, header.subsampling_y) == subsampling
    record = av1.make_record(b"\x08" + body)  # Without a size.
    assert record[:4] == bytes([0x81, profile << 5 | 8, flags, 0])
    assert av1.parse_record(record) == header


def test_a_still_picture_has_a_short_header() -> None:
    text = "000" + "1" + "1" + "00101" + f"{5:04b}{5:04b}{63:06b}{47:06b}" + "000" + "000"
    header = av1.parse_sequence_header(bytes_of(text + "0" + "0" + "0" + "0" + "00" + "0" + "0"))
    assert (header.width, header.height, header.level_idx) == (64, 48, 5)
    assert not header.film_grain


def test_a_long_header_gets_a_long_size() -> None:
    body = make_header() + bytes(200)
    record = av1.make_record(b"\x08" + body)
    assert record[4:7] == b"\x0a" + bytes([len(body) & 0x7F | 0x80, len(body) >> 7])
    assert av1.parse_config(record).width == 1280


def test_records_that_cannot_be() -> None:
    record = av1.make_record(b"\x08" + make_header())
    for cut in range(1, len(record)):
        with pytest.raises((RemoteProtocolError, UnsupportedMediaError)):
            av1.parse_config(record[:cut])
    with pytest.raises(RemoteProtocolError, match="not an av1C record: empty"):
        av1.parse_config(b"")
    for data in (record[:4], record[:4] + DELIMITER):
        with pytest.raises(UnsupportedMediaError, match="without a sequence header"):
            av1.parse_config(data)
    with pytest.raises(UnsupportedMediaError, match="without a sequence header"):
        av1.make_record(b"")
    with pytest.raises(UnsupportedMediaError, match="AV1 profile 3"):
        av1.make_record(b"\x08" + make_header(profile=3))
    room = av1.RECORD_BYTES_MAX - len(record) - 3
    padded = record + b"\x7a" + bytes([room & 0x7F | 0x80, room >> 7]) + bytes(room)
    assert len(padded) == av1.RECORD_BYTES_MAX
    assert av1.parse_config(padded).width == 1280
    with pytest.raises(RemoteProtocolError, match="4097 bytes exceeds 4096"):
        av1.parse_config(padded + b"\0")


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"\x92\x00", "forbidden bit"),
        (b"\x32\x05\x00", "ends beyond the 3"),
        (b"\x04", "ends beyond the 1"),
        (b"\x32", "does not end, or is out of range"),
        (b"\x32\x80\x80", "does not end"),
        (b"\x32" + 8 * b"\x80" + b"\0", "does not end"),
        (b"\x32\xff\xff\xff\xff\x1f", "out of range"),
    ],
)
def test_obus_that_cannot_be(payload: bytes, message: str) -> None:
    for check in (av1.split_obus, av1.strip_temporal_delimiters, av1.is_random_access):
        with pytest.raises(RemoteProtocolError, match=message):
            check(payload)


def test_limits_of_obus_and_one_past_them() -> None:
    assert av1.strip_temporal_delimiters(DELIMITER * av1.OBUS_PER_UNIT_MAX) == b""
    with pytest.raises(RemoteProtocolError, match="more than 1024 OBUs"):
        av1.split_obus(DELIMITER * (av1.OBUS_PER_UNIT_MAX + 1))
    with pytest.raises(RemoteProtocolError, match="ends beyond"):
        av1.split_obus(b"\x32\xff\xff\xff\xff\x0f")
    assert av1.split_obus(b"\x32" + 7 * b"\x80" + b"\0")[0].body == 9


@hypothesis.given(st.binary(max_size=40), st.integers(0, 13), st.integers(0, 255))
def test_garbage_raises_only_errors_of_the_media(data: bytes, at: int, value: int) -> None:
    bent = bytearray(av1.make_record(b"\x08" + make_header()))
    bent[at] = value
    for garbage in (data, b"\x81\0\0\0" + data, b"\x81\0\0\0\x08" + data, bytes(bent)):
        with contextlib.suppress(RemoteProtocolError, UnsupportedMediaError):
            av1.parse_config(garbage)
    for check in (av1.make_record, av1.is_random_access, av1.strip_temporal_delimiters):
        with contextlib.suppress(RemoteProtocolError, UnsupportedMediaError):
            check(data)


def test_frame_rate_is_not_in_what_svt_makes() -> None:
    record = box(encode(rate=Fraction(60)).file, b"av1C")
    assert av1.parse_config(record).frame_rate_num == 0
