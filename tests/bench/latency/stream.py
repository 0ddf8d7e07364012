"""The stream that is published: encoded beforehand, so that no encoder disturbs the measurement,
then paced in real time.

Frame n is captured at start + n / fps. Without B-frames it leaves at that very moment. With them
packets leave in decoding order, and none before its frame is captured: the smallest constant delay
of which that is true (two frames here) is the encoder's, and counts. What else a real encoder takes
(its lookahead, its own work) is not in it.
"""

import math
import time
from collections.abc import Callable
from fractions import Fraction

import av
from av.codec.context import Flags
from msgspec import Struct

from edged.media import aac, h264
from edged.media.access_unit import AccessUnit
from edged.media.track import Codec, Track
from edged.tools.test_picture import (
    AUDIO_TRACK_ID,
    SAMPLE_RATE,
    SAMPLES_PER_UNIT,
    VIDEO_TIMESCALE,
    VIDEO_TRACK_ID,
    PictureConfig,
    PicturePainter,
    make_tone,
)

FPS = Fraction(30)
WIDTH, HEIGHT = 1280, 720
GOP_S = 2
VIDEO_KBPS = 4_500  # Constant, as broadcasters set OBS; the filler makes up for a simple picture.
AUDIO_KBPS = 128
AUDIO_DELAY_UNITS = 2  # FFmpeg's AAC encoder gives a unit when it has the next two's samples.
X264 = "annexb=0:scenecut=0:nal-hrd=cbr:colorprim=bt709:transfer=bt709:colormatrix=bt709"
ENCODINGS: dict[str, dict[str, str]] = {
    "zerolatency": {"preset": "veryfast", "tune": "zerolatency"},
    "obs": {"preset": "veryfast", "profile": "high"},  # OBS's defaults: B-frames and lookahead.
}


class TimedUnit(Struct, frozen=True):
    """A unit, and when it leaves."""

    due_s: float  # Since the start.
    unit: AccessUnit


class EncodedStream(Struct, frozen=True, kw_only=True):
    """All of a stream, in the order in which it leaves."""

    tracks: list[Track]
    units: list[TimedUnit]
    reorder_delay_s: float  # 0 without B-frames.


def encode(encoding: str, seconds: float) -> EncodedStream:
    """Draw and encode so many seconds by one of ENCODINGS. Takes about a sixth of them."""
    encoder = _open_video(ENCODINGS[encoding])
    packets = _encode_video(encoder, math.ceil(seconds * FPS))
    reorder = max(pts - place for place, (pts, _, _, _) in enumerate(packets))
    shift = -min(dts for _, dts, _, _ in packets)  # RTMP has no negative times.
    per_frame = int(VIDEO_TIMESCALE / FPS)
    video = [
        TimedUnit(
            float((place + reorder) / FPS),
            _unit(
                VIDEO_TRACK_ID,
                ((pts + shift) * per_frame, (dts + shift) * per_frame),
                payload,
                random_access=key,
            ),
        )
        for place, (pts, dts, payload, key) in enumerate(packets)
    ]
    audio_track, sounds = _encode_audio(seconds)
    audio = _interleave(sounds, video, shift)
    record = encoder.extradata or b""
    return EncodedStream(
        tracks=[
            Track(
                track_id=VIDEO_TRACK_ID,
                codec=Codec.H264,
                timescale=VIDEO_TIMESCALE,
                config=h264.parse_config(record),
            ),
            audio_track,
        ],
        units=sorted(video + audio, key=lambda timed: timed.due_s),
        reorder_delay_s=float(reorder / FPS),
    )


class PacedSource:
    """An `EncodedStream` as the publisher's `Source`. Nothing is left out, whatever the delay."""

    def __init__(self, stream: EncodedStream, unix_now: Callable[[], float] = time.time) -> None:
        self.tracks = stream.tracks
        self.started_unix_us = 0
        self.late_s: list[float] = []  # How much later than due each unit was taken.
        self._units = stream.units
        self._next = 0
        self._unix_now = unix_now

    def start(self, unix_us: int) -> None:
        """Frame 0 is captured at this moment."""
        self.started_unix_us = unix_us

    def next_due_s(self) -> float | None:
        """When the next unit leaves."""
        return self._units[self._next].due_s if self._next < len(self._units) else None

    def take_units(self) -> list[AccessUnit]:
        """The next unit, numbered in the order of leaving."""
        timed = self._units[self._next]
        timed.unit.seq = self._next
        self._next += 1
        self.late_s.append(self._unix_now() - self.started_unix_us / 1e6 - timed.due_s)
        return [timed.unit]

    def skip_to(self, elapsed_s: float) -> None:
        """A measurement shows its delays."""

    def request_key_frame(self) -> None:
        """The key frames are where they are."""

    def close(self) -> None:
        """Nothing is held."""


def _open_video(options: dict[str, str]) -> av.VideoCodecContext:
    encoder = av.VideoCodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    encoder.time_base, encoder.framerate = 1 / FPS, FPS
    encoder.gop_size, encoder.bit_rate = int(GOP_S * FPS), VIDEO_KBPS * 1000
    encoder.thread_count = 1
    encoder.flags |= Flags.global_header
    rate = f"{VIDEO_KBPS}k"
    encoder.options = {**options, "maxrate": rate, "bufsize": rate, "x264-params": X264}
    encoder.open()
    return encoder


def _encode_video(encoder: av.VideoCodecContext, frames: int) -> list[tuple[int, int, bytes, bool]]:
    """Pts and dts in frames, payload, and whether it is a random access point."""
    painter = PicturePainter(
        PictureConfig(width=WIDTH, height=HEIGHT, fps=FPS, title="EDGED LATENCY BENCH")
    )
    packets: list[tuple[int, int, bytes, bool]] = []
    for counter in range(frames + 1):
        frame = None
        if counter < frames:
            since_us = int(counter * 1_000_000 / FPS)
            painter.paint(counter, since_us, since_us)
            frame = painter.frame
            frame.pts, frame.time_base = counter, 1 / FPS
        for packet in encoder.encode(frame):
            assert packet.pts is not None, "every frame had its pts"
            dts = packet.pts if packet.dts is None else packet.dts
            packets.append((packet.pts, dts, bytes(packet), packet.is_keyframe))
    return packets


def _encode_audio(seconds: float) -> tuple[Track, list[tuple[int, bytes]]]:
    """The track, and each unit's pts in samples and payload."""
    encoder = av.AudioCodecContext.create("aac", "w")
    encoder.sample_rate, encoder.layout, encoder.format = (
        SAMPLE_RATE,
        "stereo",
        av.AudioFormat("fltp"),
    )
    encoder.bit_rate = AUDIO_KBPS * 1000
    encoder.flags |= Flags.global_header
    encoder.open()
    tone, samples = make_tone(), av.AudioFrame("fltp", "stereo", SAMPLES_PER_UNIT)
    samples.sample_rate, samples.time_base = SAMPLE_RATE, Fraction(1, SAMPLE_RATE)
    units: list[tuple[int, bytes]] = []
    for pts in range(0, int(seconds * SAMPLE_RATE), SAMPLES_PER_UNIT):
        start = pts % SAMPLE_RATE
        for plane in samples.planes:
            plane.update(tone[4 * start : 4 * (start + SAMPLES_PER_UNIT)])
        samples.pts = pts
        units += [
            (packet.pts, bytes(packet))
            for packet in encoder.encode(samples)
            if packet.pts is not None and packet.pts >= 0  # The priming is before all pictures.
        ]
    track = Track(
        track_id=AUDIO_TRACK_ID,
        codec=Codec.AAC,
        timescale=SAMPLE_RATE,
        config=aac.parse_config(encoder.extradata or b""),
    )
    return track, units


def _interleave(
    sounds: list[tuple[int, bytes]], video: list[TimedUnit], shift: int
) -> list[TimedUnit]:
    """Time the audio: when it is encoded, and not before the video of the same decoding time, as
    muxers interleave.
    """
    timed, place = [], 0
    for pts, payload in sounds:
        at = pts + round(shift * SAMPLE_RATE / FPS)
        while (
            place + 1 < len(video)
            and video[place + 1].unit.dts * SAMPLE_RATE <= at * VIDEO_TIMESCALE
        ):
            place += 1
        encoded_s = (pts + (1 + AUDIO_DELAY_UNITS) * SAMPLES_PER_UNIT) / SAMPLE_RATE
        unit = _unit(AUDIO_TRACK_ID, (at, at), payload, random_access=False)
        timed.append(TimedUnit(max(encoded_s, video[place].due_s), unit))
    return timed


def _unit(
    track_id: int, times: tuple[int, int], payload: bytes, *, random_access: bool
) -> AccessUnit:
    pts, dts = times
    return AccessUnit(
        track_id=track_id,
        seq=0,
        config_id=0,
        pts=pts,
        dts=dts,
        wallclock_us=0,
        payload=payload,
        random_access=random_access,
    )
