"""FLV files: what FFmpeg's muxer writes, as the messages that it would send by RTMP."""

import io
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, TypeAlias

import av
import av.container
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

from edged.wire.rtmp.messages import Message

if TYPE_CHECKING:
    from av.packet import Packet
    from av.stream import Stream

AnyPacket: TypeAlias = "Packet[Stream]"

SIZE = 64
FRAME_RATE = 30
FRAMES = 20
_HEADER_BYTES = 9
_BACK_POINTER_BYTES = 4
_TAG_BYTES = 11
VIDEO_OPTIONS = {
    "libx264": {"preset": "ultrafast", "bf": "2", "g": "10"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none:keyint=10:bframes=2:pools=1"},
    "libsvtav1": {"preset": "13", "svtav1-params": "keyint=10:lp=1"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "g": "10"},
}


def make(video: Sequence[str], audio: Sequence[str]) -> bytes:
    """An FLV file with a stream by each of the encoders named."""
    out = io.BytesIO()
    with av.open(out, "w", format="flv") as container:
        streams: list[VideoStream | AudioStream] = []
        for name in video:
            picture = container.add_stream(name, FRAME_RATE, options=VIDEO_OPTIONS[name])
            assert isinstance(picture, VideoStream)
            picture.width = picture.height = SIZE
            picture.pix_fmt = "yuv420p"
            streams.append(picture)
        for name in audio:
            sound = container.add_stream(name, 48_000, layout="stereo")
            assert isinstance(sound, AudioStream)
            streams.append(sound)
        packets = [packet for stream in streams for packet in encode(stream)]
        packets.sort(key=_seconds)
        for packet in packets:
            container.mux(packet)
    return out.getvalue()


def _seconds(packet: AnyPacket) -> Fraction:
    assert packet.dts is not None
    return packet.dts * packet.time_base


def encode(stream: VideoStream | AudioStream) -> Iterator[AnyPacket]:
    """Two thirds of a second of a stream."""
    if isinstance(stream, VideoStream):
        for index in range(FRAMES):
            frame = av.VideoFrame(SIZE, SIZE, "yuv420p")
            for plane in frame.planes:
                plane.update(bytes([10 * index]) * plane.buffer_size)
            frame.pts, frame.time_base = index, Fraction(1, FRAME_RATE)
            yield from stream.encode(frame)
        yield from stream.encode(None)
        return
    for index in range(30):
        sound = av.AudioFrame(stream.format.name, "stereo", 1024)
        for channel in sound.planes:
            channel.update(bytes(channel.buffer_size))
        sound.sample_rate, sound.pts = 48_000, 1024 * index
        sound.time_base = Fraction(1, 48_000)
        yield from stream.encode(sound)
    yield from stream.encode(None)


def messages(file: bytes) -> Iterator[Message]:
    """The file's tags (FLV 10.1 §E.4.1)."""
    position = _HEADER_BYTES + _BACK_POINTER_BYTES
    while position + _TAG_BYTES <= len(file):
        size = int.from_bytes(file[position + 1 : position + 4], "big")
        timestamp = int.from_bytes(file[position + 4 : position + 7], "big")
        timestamp |= file[position + 7] << 24
        start = position + _TAG_BYTES
        yield Message(file[position], timestamp, 1, file[start : start + size])
        position = start + size + _BACK_POINTER_BYTES


def packets(file: bytes) -> dict[int, list[AnyPacket]]:
    """What FFmpeg's own demuxer reads, by stream index."""
    read: dict[int, list[AnyPacket]] = {}
    with av.open(io.BytesIO(file), "r", format="flv") as container:
        for packet in container.demux():
            if packet.size:
                read.setdefault(packet.stream_index, []).append(packet)
    return read
