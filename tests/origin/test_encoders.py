"""How FFmpeg's encoders and decoders are opened."""

import functools
import re
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import pytest
from msgspec import structs

from edged.errors import EncoderError, UnsupportedMediaError
from edged.media import h264, nal
from edged.media.ladder import AudioRung, LadderPlan, VideoRung
from edged.media.track import Codec, CodecConfig
from edged.origin import encoders
from edged.origin.encoders import (
    X264,
    Look,
    canonical_payload,
    encode_picture,
    open_audio_decoder,
    open_audio_encoder,
    open_video_decoder,
    open_video_encoder,
    pixel_format,
    read_audio_config,
    read_config,
)
from edged.policy.ladder import ENCODERS
from tests.conftest import require, require_found
from tests.origin import sources

OF_ALL_ENCODERS = ("maxrate", "bufsize")
RUNG = VideoRung(
    name="96p",
    track_id=1,
    width=128,
    height=96,
    frame_rate_num=30,
    bitrate_bps=200_000,
    maxrate_bps=220_000,
    buffer_bits=220_000,
    level=20,
    preset="veryfast",
    cost=1.0,
)


def test_x264_says_what_it_was_told() -> None:
    look = Look(Fraction(4, 3), 9, 16, 9, full_range=True)
    encoder = open_video_encoder(RUNG, LadderPlan(), look, 90_000)
    config = read_config(encoder, RUNG)
    sps = h264.parse_sps(h264.parse_record(config.record).sps[0])
    assert (config.width, config.height, config.codec_string) == (128, 96, "avc1.640014")
    assert (config.frame_rate_num, config.frame_rate_den) == (30, 1)
    assert (sps.sar_num, sps.sar_den) == (4, 3)
    assert (sps.colour.primaries, sps.colour.transfer, sps.colour.matrix) == (9, 16, 9)
    assert sps.colour.full_range
    again = open_video_encoder(RUNG, LadderPlan(), look, 90_000)
    assert read_config(again, RUNG) == config, "a child begun anew must not change it"


@pytest.mark.parametrize(("threads", "rate", "held"), [(1, 30, 0), (2, 30, 1), (1, 0, 1)])
def test_what_it_holds_back(threads: int, rate: int, held: int) -> None:
    """A picture for each thread but one; and one where nobody knows how long each lasts."""
    rung = structs.replace(RUNG, frame_rate_num=rate)
    encoder = open_video_encoder(rung, LadderPlan(encode_threads=threads), Look(), 90_000)
    out: list[int] = []
    for index in range(10):
        frame = av.VideoFrame(128, 96, "yuv420p")
        frame.pts, frame.time_base = 3000 * index, Fraction(1, 90_000)
        for packet in encoder.encode(frame):
            assert packet.pts == packet.dts
            nal.check_length_prefixed(canonical_payload(bytes(packet), X264))
            out.append(packet.pts or 0)
        assert len(out) == max(0, index + 1 - held)


@functools.cache
def known_options(encoder: str) -> dict[str, set[str]]:
    """What FFmpeg says that an encoder takes: each option's named values; none: a number."""
    require("ffmpeg")
    done = subprocess.run(  # noqa: S603 - our own arguments
        ["ffmpeg", "-hide_banner", "-h", f"encoder={encoder}"],  # noqa: S607
        check=True, timeout=20, capture_output=True, text=True,
    )  # fmt: skip
    require_found(f"{encoder} in FFmpeg", found="not recognized" not in done.stdout + done.stderr)
    found: dict[str, set[str]] = {}
    option = ""
    for line in done.stdout.splitlines():
        if (named := re.match(r"  -(\S+) +<\w+>", line)) is not None:
            option = named[1]
            found[option] = set()
        elif (value := re.match(r"     (\S+) ", line)) is not None and option:
            found[option].add(value[1])
    return found


@pytest.mark.parametrize("encoder", list(ENCODERS.values()))
def test_what_an_encoder_is_told_is_what_it_takes(encoder: str) -> None:
    """FFmpeg passes over what it does not know: no machine with that hardware would say so."""
    known = known_options(encoder)
    for name, value in encoders._options(RUNG, encoder).items():
        if name in OF_ALL_ENCODERS:
            assert value.isdigit()
            continue
        assert name in known, f"{encoder} has no option {name}"
        if known[name] and not value.isdigit():
            assert value in known[name], f"{name} of {encoder} is one of {sorted(known[name])}"
    idr = {"h264_vaapi": "", "h264_qsv": "forced_idr"}.get(encoder, "forced-idr")
    told = encoders._options(RUNG, encoder)
    assert [key for key in told if "idr" in key] == ([idr] if idr else [])


def test_annex_b_of_other_encoders_becomes_canonical() -> None:
    assert canonical_payload(b"\0\0\0\1\x65abc\0\0\1\x41d", "h264_nvenc") == (
        b"\0\0\0\4\x65abc\0\0\0\2\x41d"
    )


def test_aac() -> None:
    rung = AudioRung(
        name="a",
        track_id=1,
        source_track_id=2,
        sample_rate=44_100,
        channels=1,
        bitrate_bps=64_000,
    )
    config = read_audio_config(open_audio_encoder(rung))
    assert (config.codec_string, config.sample_rate, config.channels) == ("mp4a.40.2", 44_100, 1)
    assert open_audio_decoder(config).extradata == config.record


def test_what_has_no_decoder() -> None:
    config = CodecConfig(codec=Codec.VP8, record=b"", codec_string="vp8", width=64, height=64)
    with pytest.raises(UnsupportedMediaError, match="no decoder of vp8"):
        open_video_decoder(config, 1)


@pytest.mark.e2e
def test_a_bitstream_cannot_have_a_decoder_allocate_what_it_likes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = sources.make_source(*sources.X264, "-g", "15", seconds=1)
    monkeypatch.setattr(encoders, "PIXELS_MAX", 320 * 180 - 1)
    decoder = open_video_decoder(source.tracks[0].config, 1)
    packet = cast("av.Packet[av.VideoStream]", av.Packet(source.units[0].payload))
    with pytest.raises(av.FFmpegError):
        decoder.decode(packet)


def test_one_that_is_absent_or_does_not_open_says_so() -> None:
    for name, why in (
        ("h264_of_nobody", "h264_of_nobody is not in this build of FFmpeg"),
        ("h264_v4l2m2m", "h264_v4l2m2m does not open: "),
    ):
        with pytest.raises(EncoderError, match=why):
            open_video_encoder(RUNG, LadderPlan(encoder=name), Look(), 90_000)


def test_pictures_that_are_uploaded_are_made_in_memory_first() -> None:
    assert pixel_format(open_video_encoder(RUNG, LadderPlan(), Look(), 90_000)) == "yuv420p"


@pytest.mark.parametrize(
    ("name", "device", "why"),
    [
        ("h264_nvenc", "cuda", "h264_nvenc has no device here: "),
        ("h264_qsv", "qsv", "h264_qsv has no device here: "),
        ("libx264", "vaapi", "libx264 has no device here: No supported hardware config"),
        ("h264_vaapi", "vaapi", "h264_vaapi (is not in this build of FFmpeg|has no device here: )"),
    ],
)
def test_one_whose_device_is_absent_says_so(
    name: str, device: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if Path("/dev/dri").exists() or Path("/dev/nvidia0").exists():
        pytest.skip("there may be one")
    monkeypatch.setattr(encoders, "DEVICES", {name: device})
    with pytest.raises(EncoderError, match=why):
        open_video_encoder(RUNG, LadderPlan(encoder=name), Look(), 90_000)


def test_one_that_fails_at_a_picture_says_so() -> None:
    encoder = open_video_encoder(RUNG, LadderPlan(), Look(), 90_000)
    encode_picture(encoder, None)
    with pytest.raises(EncoderError, match="libx264 fails: "):
        encode_picture(encoder, av.VideoFrame(RUNG.width, RUNG.height, "yuv420p"))
