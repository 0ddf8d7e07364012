"""FFmpeg, through PyAV, as the judge of what the CMAF writer writes."""

import io
from fractions import Fraction

import av

from edged.media.access_unit import AccessUnit
from edged.media.track import Codec, CodecConfig, Track
from tests.media.samples import Packet, Sample

READS_AS = {
    Codec.H264: "h264",
    Codec.H265: "hevc",
    Codec.AV1: "av1",
    Codec.VP9: "vp9",
    Codec.AAC: "aac",
    Codec.OPUS: "opus",
}


def track(
    codec: Codec,
    record: bytes,
    *,
    timescale: int = 90_000,
    size: tuple[int, int] = (64, 48),
    sample_rate: int = 48_000,
    language: str = "und",
) -> Track:
    video = codec.kind == "video"
    config = CodecConfig(
        codec=codec,
        record=record,
        codec_string="test",
        width=size[0] if video else 0,
        height=size[1] if video else 0,
        sample_rate=0 if video else sample_rate,
        channels=0 if video else 2,
    )
    return Track(
        track_id=1,
        codec=codec,
        timescale=timescale if video else sample_rate,
        config=config,
        language=language,
    )


def units_of(sample: Sample, time_base: Fraction, timescale: int) -> list[AccessUnit]:
    """An encoder's packets as access units."""
    return [
        AccessUnit(
            track_id=1,
            seq=seq,
            config_id=0,
            pts=int(packet.pts * time_base * timescale),
            dts=int(packet.dts * time_base * timescale),
            wallclock_us=0,
            payload=packet.data,
            random_access=packet.keyframe,
        )
        for seq, packet in enumerate(sample.packets)
    ]


def read_back(*pieces: bytes) -> list[Packet]:
    """The packets that FFmpeg finds in an init segment and its fragments."""
    with av.open(io.BytesIO(b"".join(pieces)), "r", format="mp4") as container:
        return [
            Packet(bytes(packet), packet.pts or 0, packet.dts or 0, packet.is_keyframe)
            for packet in container.demux()
            if packet.size
        ]


def decoded_frames(*pieces: bytes) -> int:
    """How many frames FFmpeg decodes."""
    with av.open(io.BytesIO(b"".join(pieces)), "r", format="mp4") as container:
        return len(list(container.decode()))
