import io
import struct
from fractions import Fraction

import av
import pytest

from edged.errors import UnsupportedMediaError
from edged.media.track import Codec
from edged.wire.cmaf.init import RECORD_BYTES_MAX, box, full_box, make_init
from tests.media.samples import box as find_box
from tests.media.samples import encode_audio, encode_video
from tests.wire.cmaf.oracle import READS_AS, track


def record_of(codec: Codec) -> bytes:
    if codec is Codec.H264:
        return find_box(encode_video("libx264").file, b"avcC")
    if codec is Codec.H265:
        options = (("x265-params", "log-level=none"), ("preset", "ultrafast"))
        return find_box(encode_video("libx265", options=options).file, b"hvcC")
    if codec is Codec.VP9:
        return bytes.fromhex("01000000000a820202020000")
    if codec is Codec.AV1:
        return find_box(encode_video("libsvtav1", frames=1).file, b"av1C")
    if codec is Codec.AAC:
        return encode_audio("aac").extradata
    return bytes.fromhex("00020138 0000bb80 0000 00".replace(" ", ""))


@pytest.mark.parametrize("codec", READS_AS)
def test_ffmpeg_reads_the_codec_and_its_record(codec: Codec) -> None:
    record = record_of(codec)
    init = make_init(track(codec, record, language="fra"))
    with av.open(io.BytesIO(init), "r", format="mp4") as container:
        (stream,) = container.streams
        context = stream.codec_context
        assert READS_AS[codec] in context.name
        assert stream.language == "fra"
        if isinstance(context, av.VideoCodecContext):
            assert (context.width, context.height) == (64, 48)
            assert stream.time_base == Fraction(1, 90_000)
        else:
            assert isinstance(context, av.AudioCodecContext)
            assert (context.sample_rate, context.channels) == (48_000, 2)
            assert stream.time_base == Fraction(1, 48_000)
        if codec in (Codec.H264, Codec.H265, Codec.AAC, Codec.AV1):
            assert bytes(context.extradata or b"") == record
        if codec is Codec.OPUS:  # FFmpeg turns dOps into OpusHead: pre-skip, little-endian.
            assert bytes(context.extradata or b"")[10:12] == bytes.fromhex("3801")


def test_shape_and_colours_are_told_outside_the_record_too() -> None:
    params = "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:fullrange=on"
    options = (("preset", "ultrafast"), ("x264-params", params))
    sample = encode_video("libx264", sar=Fraction(4, 3), options=options)
    init = make_init(track(Codec.H264, find_box(sample.file, b"avcC")))
    assert find_box(init, b"pasp") == struct.pack(">II", 4, 3)
    assert find_box(init, b"colr") == b"nclx" + struct.pack(">HHHB", 9, 16, 9, 0x80)
    with av.open(io.BytesIO(init), "r", format="mp4") as container:
        (stream,) = container.streams
        context = stream.codec_context
        assert isinstance(context, av.VideoCodecContext)
        assert stream.sample_aspect_ratio == Fraction(4, 3)  # type: ignore[attr-defined]
        assert (context.color_primaries, context.color_trc, context.colorspace) == (9, 16, 9)


def test_what_the_stream_does_not_say_is_not_told() -> None:
    init = make_init(track(Codec.H264, record_of(Codec.H264)))
    assert b"pasp" not in init
    assert b"colr" not in init


def test_the_record_stands_in_its_own_box() -> None:
    record = bytes.fromhex("01000000000a820202020000")
    assert find_box(make_init(track(Codec.VP9, record)), b"vpcC") == record


@pytest.mark.parametrize("language", ["", "en", "en-GB", "FRA", "f1a"])
def test_a_language_that_is_not_iso_639_2_becomes_undetermined(language: str) -> None:
    one = make_init(track(Codec.AAC, b"\x11\x90", language=language))
    assert one == make_init(track(Codec.AAC, b"\x11\x90", language="und"))


def test_the_same_track_makes_the_same_bytes() -> None:
    record = record_of(Codec.H264)
    assert make_init(track(Codec.H264, record)) == make_init(track(Codec.H264, record))


@pytest.mark.parametrize("codec", [Codec.VP8, Codec.SCTE35, Codec.ID3])
def test_a_codec_without_a_sample_entry_is_refused(codec: Codec) -> None:
    with pytest.raises(UnsupportedMediaError, match=f"codec {codec} has no CMAF sample entry"):
        make_init(track(codec, b""))


@pytest.mark.parametrize("size", [(0, 48), (64, 0), (2**16, 48), (64, 2**16)])
def test_a_picture_that_does_not_fit_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(UnsupportedMediaError, match="does not fit a sample entry"):
        make_init(track(Codec.H264, b"", size=size))


def test_the_largest_picture_fits() -> None:
    assert make_init(track(Codec.H264, b"", size=(2**16 - 1, 2**16 - 1)))


def test_a_record_at_its_limit_and_one_past_it() -> None:
    assert make_init(track(Codec.AAC, bytes(RECORD_BYTES_MAX)))
    with pytest.raises(UnsupportedMediaError, match=f"32769 bytes, limit {RECORD_BYTES_MAX}"):
        make_init(track(Codec.AAC, bytes(RECORD_BYTES_MAX + 1)))


def test_a_sample_rate_above_16_bits_is_left_to_the_record() -> None:
    init = make_init(track(Codec.AAC, bytes.fromhex("1010"), sample_rate=96_000))
    assert find_box(init, b"mp4a")[24:28] == bytes(4)
    with av.open(io.BytesIO(init), format="mp4") as container:
        assert container.streams[0].time_base == Fraction(1, 96_000)


def test_boxes() -> None:
    assert box(b"free", b"ab", b"c") == bytes.fromhex("0000000b") + b"freeabc"
    assert full_box(b"smhd", 1, 2, b"c") == bytes.fromhex("0000000d") + b"smhd\x01\0\0\x02c"
