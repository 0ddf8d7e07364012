"""A ladder's plan: what a transcoder makes of one stream, as the policy chose it.

Costs are in megapixels per second of libx264 at preset `veryfast`; decoding and scaling are counted
in the same. A core of 2024 does 80 (noisy pictures) to 150 (still ones) of them in real time.
"""

from msgspec import Struct

RUNGS_MAX = 5  # Video qualities beside the source.
# Rungs get track ids from here, by their place in the configuration; publishers' are far below.
VIDEO_TRACK_ID_MIN = 0x4000
AUDIO_TRACK_ID_MIN = 0x5000  # And those of audio: this + the track that it is made of.
SAMPLES_PER_UNIT = 1024  # Of AAC-LC.


class VideoRung(Struct, frozen=True, kw_only=True):
    """One encode of the picture. Always H.264, 8 bit, 4:2:0."""

    name: str  # Unique in the ladder: "720p".
    track_id: int
    width: int  # Both even; the shape of a sample is the source's.
    height: int
    frame_rate_num: int = 0  # What comes out; 0 when the source does not say.
    frame_rate_den: int = 1
    # A picture that comes less than so many ticks after the last one taken is left out, unless it
    # is random access; 0: all are taken. By pts alone, so all rungs with this rule agree.
    spacing_ticks: int = 0
    bitrate_bps: int
    maxrate_bps: int
    buffer_bits: int
    level: int  # Of High profile; ten times the level: 31 is 3.1.
    preset: str
    cost: float
    encode_cost: float = 0.0  # Of it, what an encoder's own threads may do.


class AudioRung(Struct, frozen=True, kw_only=True):
    """One encode of a sound track to AAC-LC; its timescale is its sample rate."""

    name: str
    track_id: int
    source_track_id: int
    sample_rate: int
    channels: int
    bitrate_bps: int


class LadderPlan(Struct, frozen=True, kw_only=True):
    """All that is made of a stream. Each rung is scaled from the one before it that is made."""

    video_track_id: int | None = None  # The source of all video rungs.
    video: tuple[VideoRung, ...] = ()  # From the largest.
    audio: tuple[AudioRung, ...] = ()
    # The track that stands for "audio only": a rung's or the source's; None: there is no such rung.
    audio_only_track_id: int | None = None
    encoder: str = "libx264"  # FFmpeg's name of it.
    encode_threads: int = 1  # Of each encoder.
    decode_threads: int = 1
    decode_cost: float = 0.0
    notes: tuple[str, ...] = ()  # Why it is as it is.

    @property
    def cost(self) -> float:
        """What all of it costs."""
        return self.decode_cost + sum(rung.cost for rung in self.video)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to make."""
        return not self.video and not self.audio
