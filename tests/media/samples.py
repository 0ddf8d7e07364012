"""Real streams for the media tests, made by FFmpeg's encoders and muxers through PyAV."""

import functools
import io
from fractions import Fraction
from typing import TypeVar

import av
from av.stream import Stream
from msgspec import Struct

StreamT = TypeVar("StreamT", bound=Stream)


class Packet(Struct, frozen=True):
    """One access unit as FFmpeg has it."""

    data: bytes
    pts: int
    dts: int
    keyframe: bool


class Sample(Struct, frozen=True):
    """An encoded stream: the encoder's packets and extradata, and the file they were muxed into."""

    extradata: bytes
    packets: tuple[Packet, ...]
    file: bytes


@functools.cache
def encode_video(
    codec: str,
    *,
    size: tuple[int, int] = (64, 48),
    rate: Fraction = Fraction(30),
    frames: int = 4,
    pixels: str = "yuv420p",
    muxer: str = "mp4",
    options: tuple[tuple[str, str], ...] = (),
    sar: Fraction = Fraction(1),
    gop: int = 2,
) -> Sample:
    """Encode `frames` moving pictures and mux them."""
    file = io.BytesIO()
    packets: list[Packet] = []
    with av.open(file, "w", format=muxer) as container:
        stream = container.add_stream(codec, rate=rate, options=dict(options))
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        stream.gop_size = gop
        stream.codec_context.sample_aspect_ratio = sar
        for index in range(frames):
            frame = av.VideoFrame(*size, pixels)
            for plane in frame.planes:
                rows = (
                    bytes([(16 + 5 * index + row) % 200] * plane.line_size)
                    for row in range(plane.height)
                )
                plane.update(b"".join(rows))
            frame.pts = index
            frame.time_base = 1 / rate
            for packet in stream.encode(frame):
                packets.append(_keep(packet))
                container.mux(packet)
        for packet in stream.encode(None):
            packets.append(_keep(packet))
            container.mux(packet)
        extradata = stream.codec_context.extradata or b""
    return Sample(extradata, tuple(packets), file.getvalue())


@functools.cache
def encode_audio(
    codec: str, *, rate: int = 48_000, layout: str = "stereo", frames: int = 4, muxer: str = "mp4"
) -> Sample:
    """Encode `frames` frames of a tone, of 1024 samples each, and mux them."""
    file = io.BytesIO()
    packets: list[Packet] = []
    with av.open(file, "w", format=muxer) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(stream, av.AudioStream)
        assert stream.codec_context.format is not None
        sample_format = stream.codec_context.format.name
        for index in range(frames):
            frame = av.AudioFrame(sample_format, layout, 1024)
            frame.sample_rate = rate
            frame.pts = 1024 * index
            for number, plane in enumerate(frame.planes):
                plane.update(bytes((i * (number + 3)) % 61 for i in range(plane.buffer_size)))
            for packet in stream.encode(frame):
                packets.append(_keep(packet))
                container.mux(packet)
        for packet in stream.encode(None):
            packets.append(_keep(packet))
            container.mux(packet)
        extradata = stream.codec_context.extradata or b""
    return Sample(extradata, tuple(packets), file.getvalue())


def demux(file: bytes) -> list[Packet]:
    """The packets of a file, as the muxer stored them."""
    with av.open(io.BytesIO(file), "r") as container:
        return [_keep(packet) for packet in container.demux() if packet.size]


def box(file: bytes, kind: bytes) -> bytes:
    """The payload of the first ISO BMFF box of this kind, wherever it is."""
    at = file.index(kind)
    size = int.from_bytes(file[at - 4 : at], "big")
    return file[at + 4 : at - 4 + size]


def _keep(packet: "av.Packet[StreamT]") -> Packet:
    assert packet.pts is not None
    assert packet.dts is not None
    return Packet(bytes(packet), packet.pts, packet.dts, packet.is_keyframe)
