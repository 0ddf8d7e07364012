import contextlib

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.errors import RemoteProtocolError, UnsupportedMediaError
from edged.media import aac
from edged.media.track import Codec
from tests.media.samples import demux, encode_audio
from tests.media.test_bits import bytes_of


def config_bytes(*fields: tuple[int, int]) -> bytes:
    """Bit fields as (value, width)."""
    return bytes_of("".join(f"{value:0{width}b}" for value, width in fields))


@pytest.mark.parametrize(
    ("rate", "layout", "channels"),
    [(48_000, "stereo", 2), (44_100, "mono", 1), (48_000, "5.1", 6), (8_000, "stereo", 2)],
)
def test_configuration_of_what_ffmpeg_makes(rate: int, layout: str, channels: int) -> None:
    sample = encode_audio("aac", rate=rate, layout=layout)
    config = aac.parse_config(sample.extradata)
    assert config.codec is Codec.AAC
    assert config.record == sample.extradata
    assert config.codec_string == "mp4a.40.2"
    assert (config.sample_rate, config.channels, config.samples_per_unit) == (rate, channels, 1024)
    # FFmpeg adds an extension that says there is no SBR.
    assert sample.extradata.startswith(aac.make_config(rate, channels))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("rate", [48_000, 44_100, 7_350, 37_800, 96_000])
def test_a_made_configuration_says_what_it_was_made_of(rate: int, channels: int) -> None:
    config = aac.parse_config(aac.make_config(rate, channels))
    assert (config.sample_rate, config.channels) == (rate, channels)
    assert config.codec_string == "mp4a.40.2"


@pytest.mark.parametrize(
    ("record", "string", "core", "output", "channels"),
    [
        ("131056e598", "mp4a.40.5", 24_000, 48_000, 2),  # Backward-compatible SBR.
        ("130856e59d4880", "mp4a.40.29", 24_000, 48_000, 2),  # And PS, of a mono core.
        ("131056e500", "mp4a.40.2", 24_000, 24_000, 2),  # Explicitly none.
        ("131057e598", "mp4a.40.2", 24_000, 24_000, 2),  # Another extension.
        ("1310", "mp4a.40.2", 24_000, 24_000, 2),
    ],
)
def test_implicit_sbr_and_ps(
    record: str, string: str, core: int, output: int, channels: int
) -> None:
    data = bytes.fromhex(record)
    assert aac.parse_config(data).codec_string == string
    config = aac.parse_audio_specific_config(data)
    assert (config.sample_rate, config.output_sample_rate) == (core, output)
    assert config.channels == channels
    assert config.samples_per_unit == 1024


@pytest.mark.parametrize(("object_type", "channels"), [(5, 1), (29, 2)])
def test_explicit_sbr_and_ps(object_type: int, channels: int) -> None:
    data = config_bytes((object_type, 5), (6, 4), (1, 4), (3, 4), (2, 5), (0, 3))
    config = aac.parse_audio_specific_config(data)
    assert (config.object_type, config.channels) == (object_type, channels)
    assert (config.sample_rate, config.output_sample_rate) == (24_000, 48_000)


def test_frames_of_960_and_a_core_coder() -> None:
    data = config_bytes((2, 5), (3, 4), (2, 4), (1, 1), (1, 1), (99, 14), (0, 1))
    assert aac.parse_config(data).samples_per_unit == 960


@pytest.mark.parametrize("comment", [0, 30])
def test_channels_of_a_program_config_element(comment: int) -> None:
    head = [(2, 5), (3, 4), (0, 4), (0, 3), (0, 4), (1, 2), (3, 4)]
    counts = [(2, 4), (1, 4), (1, 4), (1, 2), (1, 3), (1, 4)]
    downmix = [(1, 1), (0, 4), (0, 1), (1, 1), (0, 3)]
    elements = [(0, 1), (0, 4), (1, 1), (0, 4), (1, 1), (1, 4), (1, 1), (2, 4)]
    others = [(0, 4), (0, 4), (0, 5)]  # LFE, data, coupling.
    fields = head + counts + downmix + elements + others
    fill = -sum(width for _, width in fields) % 8
    tail = [(0, fill)] if fill else []
    data = config_bytes(*fields, *tail, (comment, 8)) + bytes(comment)
    assert aac.parse_config(data).channels == 8


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([(1, 5), (3, 4), (2, 4), (0, 3)], "AAC object type 1 Main is not supported"),
        ([(31, 5), (10, 6), (3, 4), (2, 4), (0, 3)], "object type 42 USAC"),
        ([(9, 5), (3, 4), (2, 4), (0, 3)], "AAC object type 9 is not supported"),
        ([(2, 5), (3, 4), (9, 4), (0, 3)], "channel configuration 9 is not known"),
    ],
)
def test_what_cannot_be_carried(fields: list[tuple[int, int]], message: str) -> None:
    with pytest.raises(UnsupportedMediaError, match=message):
        aac.parse_config(config_bytes(*fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([(2, 5), (13, 4), (2, 4), (0, 3)], "frequency index 13 is reserved"),
        ([(2, 5), (15, 4), (0, 24), (2, 4), (0, 3)], "sample rate 0 is not within"),
        ([(2, 5), (15, 4), (96_001, 24), (2, 4), (0, 3)], "sample rate 96001 is not within"),
        ([(2, 5)], "AudioSpecificConfig ends early"),
    ],
)
def test_what_cannot_be(fields: list[tuple[int, int]], message: str) -> None:
    with pytest.raises(RemoteProtocolError, match=message):
        aac.parse_config(config_bytes(*fields))


def test_a_configuration_at_its_limit_and_past_it() -> None:
    data = aac.make_config(48_000, 2)
    aac.parse_config(data.ljust(aac.CONFIG_BYTES_MAX, b"\0"))
    with pytest.raises(RemoteProtocolError, match="513 bytes exceeds 512"):
        aac.parse_config(data.ljust(aac.CONFIG_BYTES_MAX + 1, b"\0"))


def test_adts_as_ffmpeg_writes_it() -> None:
    sample = encode_audio("aac", muxer="adts", frames=6)
    assert aac.strip_adts(sample.file) == [packet.data for packet in sample.packets]
    header = aac.parse_adts(sample.file)
    assert (header.object_type, header.sample_rate, header.channel_configuration) == (2, 48_000, 2)
    assert (header.header_bytes, header.frame_bytes) == (7, 7 + len(sample.packets[0].data))
    assert aac.adts_config(header) == aac.make_config(48_000, 2)
    assert aac.strip_adts(b"") == []


def test_adts_with_a_crc() -> None:
    sample = encode_audio("aac", muxer="adts")
    header = bytearray(sample.file[:7])
    header[1] &= 0xFE
    size = 9 + 4
    header[3] &= 0xFC
    header[4], header[5] = size >> 3, (size & 7) << 5 | header[5] & 0x1F
    assert aac.strip_adts(bytes(header) + b"crabcd") == [b"abcd"]


def test_adts_that_cannot_be() -> None:
    file = encode_audio("aac", muxer="adts").file

    def bent(at: int, clear: int, put: int) -> bytes:
        return file[:at] + bytes([file[at] & ~clear | put]) + file[at + 1 :]

    for data, message in (
        (file[:6], "header of 6 bytes"),
        (b"\xff\x01" + file[2:], "no ADTS sync word"),
        (bent(1, 0x06, 0x02), "layer is not 0"),
        (bent(2, 0x3C, 0x3C), "frequency index 15 is reserved"),
        (file[:3] + b"\x40\x00\xdf" + file[6:], "frame of 6 bytes"),
        (file[:40], "ends at byte"),
    ):
        with pytest.raises(RemoteProtocolError, match=message):
            aac.strip_adts(data)
    with pytest.raises(UnsupportedMediaError, match="several raw data blocks"):
        aac.parse_adts(bent(6, 0, 1))
    for data in (
        bent(2, 0xC0, 0x00),
        file[:2] + bytes([file[2] & 0xFE, file[3] & 0x3F]) + file[4:],
    ):
        with pytest.raises(UnsupportedMediaError, match="only LC with a known layout"):
            aac.adts_config(aac.parse_adts(data))


def test_adts_frames_at_the_limit_and_past_it() -> None:
    frame = bytes.fromhex("fff14c8000fffc")
    assert aac.parse_adts(frame).frame_bytes == 7
    assert len(aac.strip_adts(frame * aac.ADTS_FRAMES_MAX)) == aac.ADTS_FRAMES_MAX
    with pytest.raises(RemoteProtocolError, match="more than 256 ADTS frames"):
        aac.strip_adts(frame * (aac.ADTS_FRAMES_MAX + 1))


def test_muxed_units_are_the_raw_frames() -> None:
    sample = encode_audio("aac")
    assert [p.data for p in demux(sample.file)] == [p.data for p in sample.packets]


@pytest.mark.parametrize(("rate", "channels"), [(0, 2), (96_001, 2), (48_000, 0), (48_000, 9)])
def test_a_configuration_that_aac_has_not_is_not_made(rate: int, channels: int) -> None:
    with pytest.raises(UnsupportedMediaError, match=f"of {channels} channels, {rate} Hz"):
        aac.make_config(rate, channels)


@hypothesis.given(st.binary(max_size=40))
def test_garbage_raises_only_errors_of_the_media(data: bytes) -> None:
    for garbage in (data, b"\x11\x80" + data, b"\x13\x10\x56\xe5" + data):
        with contextlib.suppress(RemoteProtocolError, UnsupportedMediaError):
            aac.parse_config(garbage)
    for garbage in (data, b"\xff\xf1" + data):
        with contextlib.suppress(RemoteProtocolError, UnsupportedMediaError):
            aac.adts_config(aac.parse_adts(garbage))
        with contextlib.suppress(RemoteProtocolError, UnsupportedMediaError):
            aac.strip_adts(garbage)
