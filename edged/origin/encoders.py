"""Encoders and decoders of the ladder, as FFmpeg has them, opened the way that a ladder needs.

All H.264 encoders: no B-frames and no look-ahead, because each picture of those is latency, and a
part lasts 200 ms; a picture is random access if and only if its frame asks for it; parameter sets
are in avcC alone; rate control with a buffer of a second, so that BANDWIDTH can be believed.
"""

from fractions import Fraction
from typing import cast

import av
from av.codec.context import Flags, ThreadType
from av.codec.hwaccel import HWAccel
from msgspec import Struct, structs

from edged.errors import EncoderError, UnsupportedMediaError
from edged.media import aac, h264, opus
from edged.media.ladder import AudioRung, LadderPlan, VideoRung
from edged.media.track import Codec, CodecConfig

X264 = "libx264"
NV12 = frozenset({"h264_qsv", "h264_vaapi"})  # Whose pictures have both chroma in one plane.
DEVICES = {"h264_vaapi": "vaapi"}  # Encoders of pictures on a device, and of which kind.
GOP_MAX = 1 << 20  # Pictures: none but the forced ones. (FFmpeg's own "infinite" differs by codec.)
PIXELS_MAX = 8192 * 4352  # Of a picture that a bitstream may make a decoder allocate.
UNSPECIFIED = 2  # CICP.
RANGE_FULL = 2  # AVCOL_RANGE_JPEG.
DEFAULT_RATE = Fraction(30)
# CICP matrices between which swscale can tell; others are scaled as if nothing was said.
MATRICES_SCALED = frozenset({1, 2, 4, 5, 6, 7, 9})
# x264: no scene cuts and an endless GOP, so IDRs are where the source has random access; no
# sliced threads, which cost bits; `annexb=0`: 4-byte lengths, as the canonical stream has them.
# `force-cfr` for a known rate: else it waits for the next picture to know how long this one lasts.
# (It changes no times; only the rate control believes in the rate.)
X264_PARAMS = (
    "annexb=0:repeat-headers=0:scenecut=0:keyint=infinite:min-keyint=1:open-gop=0:bframes=0:"
    "rc-lookahead=0:sync-lookahead=0:mbtree=0:sliced-threads=0:aud=0:force-cfr="
)
_DECODERS = {
    Codec.H264: "h264",
    Codec.H265: "hevc",
    Codec.AV1: "libdav1d",  # FFmpeg's own has no software path.
    Codec.VP9: "vp9",
    Codec.AAC: "aac",
    Codec.OPUS: "opus",
}


class Look(Struct, frozen=True):
    """How pictures are to be shown, beside their size; CICP code points."""

    sar: Fraction = Fraction(1)
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    matrix: int = UNSPECIFIED
    full_range: bool = False


def open_video_encoder(
    rung: VideoRung, plan: LadderPlan, look: Look, timescale: int
) -> av.VideoCodecContext:
    """An H.264 encoder whose times are ticks of `timescale`. Raises EncoderError."""
    encoder = _create_encoder(plan.encoder)
    encoder.width, encoder.height = rung.width, rung.height
    encoder.pix_fmt = "nv12" if plan.encoder in NV12 else "yuv420p"
    encoder.time_base = Fraction(1, timescale)
    known = rung.frame_rate_num > 0
    encoder.framerate = (
        Fraction(rung.frame_rate_num, rung.frame_rate_den) if known else DEFAULT_RATE
    )
    encoder.sample_aspect_ratio = look.sar
    encoder.color_primaries, encoder.color_trc = look.primaries, look.transfer
    encoder.colorspace = look.matrix
    encoder.color_range = RANGE_FULL if look.full_range else 1
    encoder.bit_rate = rung.bitrate_bps
    encoder.gop_size, encoder.max_b_frames = GOP_MAX, 0
    encoder.thread_count = plan.encode_threads
    encoder.flags |= Flags.global_header
    encoder.options = _options(rung, plan.encoder)
    try:
        encoder.open()
    except (av.FFmpegError, ValueError) as error:
        raise EncoderError(f"{plan.encoder} does not open: {describe_error(error)}") from error
    return encoder


def pixel_format(encoder: av.VideoCodecContext) -> str:
    """Of the pictures that an open encoder is given: in memory, also where it has a device's."""
    uploaded = encoder.sw_format if encoder.is_hwaccel else None
    return uploaded.name if uploaded is not None else str(encoder.pix_fmt)


def encode_picture(
    encoder: av.VideoCodecContext, frame: av.VideoFrame | None
) -> list["av.Packet[av.VideoStream]"]:
    """What is ready after this picture; None: all that is left. Raises EncoderError."""
    try:
        return encoder.encode(frame)
    except (av.FFmpegError, ValueError) as error:
        raise EncoderError(f"{encoder.name} fails: {describe_error(error)}") from error


def describe_error(error: Exception) -> str:
    """What FFmpeg says of it."""
    return str(getattr(error, "strerror", None) or error)


def read_config(encoder: av.VideoCodecContext, rung: VideoRung) -> CodecConfig:
    """What the encoder's units need. Its rate is the plan's, where that is known."""
    extradata = encoder.extradata or b""
    if extradata.startswith((b"\0\0\1", b"\0\0\0\1")):
        nals = h264.split_annexb(extradata)
        sets = {kind: [n for n in nals if n[0] & 31 == kind] for kind in (h264.NAL_SPS, 8)}
        extradata = h264.make_record(sets[h264.NAL_SPS], sets[8])
    config = h264.parse_config(extradata)
    return structs.replace(
        config, frame_rate_num=rung.frame_rate_num, frame_rate_den=rung.frame_rate_den
    )


def canonical_payload(payload: bytes, encoder: str) -> bytes:
    """An access unit with 4-byte lengths, of whichever encoder."""
    return payload if encoder == X264 else h264.from_annexb(payload)


def open_video_decoder(config: CodecConfig, threads: int) -> av.VideoCodecContext:
    """A decoder of canonical units; without a delay of its own unless it has several threads."""
    name = _decoder_name(config.codec)
    decoder = cast("av.VideoCodecContext", av.CodecContext.create(name, "r"))
    if config.record and config.codec is not Codec.VP9:  # Whose record FFmpeg has no use for.
        decoder.extradata = config.record
    decoder.thread_count = threads
    decoder.thread_type = ThreadType.FRAME if threads > 1 else ThreadType.SLICE
    decoder.options = {"max_pixels": str(PIXELS_MAX)}
    if config.codec is Codec.AV1:
        decoder.options = decoder.options | {"max_frame_delay": "1"}
    decoder.open()
    return decoder


def open_audio_decoder(config: CodecConfig) -> av.AudioCodecContext:
    """A decoder that gives each packet's samples, from the first on."""
    name = _decoder_name(config.codec)
    decoder = cast("av.AudioCodecContext", av.CodecContext.create(name, "r"))
    record = config.record
    if config.codec is Codec.OPUS:
        # Nothing is to be skipped: a live stream's times count from its samples as they come.
        header = structs.replace(opus.parse_record(record), pre_skip=0)
        record = opus.make_head(header)
    decoder.extradata = record
    decoder.thread_count = 1
    decoder.open()
    return decoder


def open_audio_encoder(rung: AudioRung) -> av.AudioCodecContext:
    """AAC-LC; its times are samples."""
    encoder = av.AudioCodecContext.create("aac", "w")
    encoder.sample_rate = rung.sample_rate
    encoder.layout = "mono" if rung.channels == 1 else "stereo"
    encoder.format = av.AudioFormat("fltp")
    encoder.bit_rate = rung.bitrate_bps
    encoder.time_base = Fraction(1, rung.sample_rate)
    encoder.flags |= Flags.global_header
    encoder.open()
    return encoder


def read_audio_config(encoder: av.AudioCodecContext) -> CodecConfig:
    """What the encoder's units need."""
    return aac.parse_config(encoder.extradata or b"")


def _create_encoder(name: str) -> av.VideoCodecContext:
    """An encoder with its device, if it works on one: PyAV makes the frames there as it opens."""
    device = DEVICES.get(name)
    try:
        codec = av.Codec(name, "w")
    except ValueError as error:
        raise EncoderError(f"{name} is not in this build of FFmpeg") from error
    try:
        hwaccel = HWAccel(device) if device is not None else None
        created = av.CodecContext.create(codec, "w", hwaccel)
    except (av.FFmpegError, RuntimeError, ValueError) as error:
        told = f"{name} has no device here" if device is not None else f"{name} does not open"
        raise EncoderError(f"{told}: {describe_error(error)}") from error
    return cast("av.VideoCodecContext", created)


def _options(rung: VideoRung, encoder: str) -> dict[str, str]:
    options = {
        "maxrate": str(rung.maxrate_bps),
        "bufsize": str(rung.buffer_bits),
        "profile": "high",
        "forced_idr" if encoder == "h264_qsv" else "forced-idr": "1",
    }
    if encoder == X264:
        options |= {
            "preset": rung.preset,
            "level": f"{rung.level / 10:g}",
            "x264-params": X264_PARAMS + str(int(rung.frame_rate_num > 0)),
        }
    elif encoder == "h264_nvenc":
        options |= {"preset": "p4", "tune": "ull", "rc": "cbr", "zerolatency": "1", "delay": "0"}
    elif encoder == "h264_vaapi":
        options |= {"rc_mode": "VBR", "async_depth": "1"}
        del options["forced-idr"]  # A picture that asks for it is IDR there in any case.
    else:
        options |= {"preset": "veryfast", "async_depth": "1", "look_ahead": "0"}
    return options


def _decoder_name(codec: Codec) -> str:
    name = _DECODERS.get(codec)
    if name is None:
        raise UnsupportedMediaError(f"a ladder has no decoder of {codec}")
    return name
