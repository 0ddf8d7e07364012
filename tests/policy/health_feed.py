"""A stream as its counters tell of it, second by second, for the tests of ingest health."""

from msgspec import Struct

from edged.media.track import Kind
from edged.policy.health_rules import HealthLimits
from edged.policy.ingest_health import (
    Change,
    HealthReport,
    StreamHealth,
    TrackSample,
    WarningCleared,
    WarningRaised,
)

VIDEO_SCALE, AUDIO_SCALE, AUDIO_UNIT = 90_000, 48_000, 1024
UNIX_MS = 1_700_000_000_000


class Feed(Struct):
    """An encoder, its way here, and our clock; what is set counts from then on."""

    health: StreamHealth
    fps: float = 30.0  # Of the pictures that come,
    announced_fps: float = 30.0
    gop_s: float = 2.0
    unevenness: float = 0.0
    video_bps: float = 6e6
    has_audio: bool = True
    audio_goes_on: bool = True
    video_goes_on: bool = True
    now: float = 1000.0
    late_s: float = 0.0  # What comes is so late.
    media_s: float = 50.0  # The encoder's own time.
    audio_ahead_s: float = 0.0
    video: TrackSample | None = None
    audio: TrackSample | None = None
    key_at_s: float | None = None
    video_at_s: float = 50.0
    audio_at_s: float = 50.0
    changes: list[Change] = []

    def run(self, seconds: float, *, tick_s: float = 1.0) -> list[Change]:
        """Let time pass; what has been raised and cleared meanwhile."""
        changes: list[Change] = []
        end = self.now + seconds - 1e-6
        while self.now < end:
            changes += self.tick(tick_s)
        self.changes += changes
        return changes

    def tick(self, tick_s: float = 1.0, *, slept: bool = False) -> list[Change]:
        self.now += tick_s
        self.media_s += tick_s
        self._encode()
        now_ms = UNIX_MS + int((self.now - 1000.0) * 1000)
        samples = [sample for sample in (self.video, self.audio) if sample is not None]
        return self.health.tick(samples, self.now, now_ms, slept=slept)

    def jump(self, seconds: float) -> None:
        """The encoder's time jumps, on every track."""
        self.media_s += seconds
        for sample in (self.video, self.audio):
            if sample is not None:
                sample.jumps += 1
                sample.jump_ticks = int(seconds * sample.timescale)
        self.video_at_s += seconds
        self.audio_at_s += seconds
        if self.key_at_s is not None:
            self.key_at_s += seconds

    def splice(self, seconds: float) -> None:
        """Another publisher goes on, by its own clock."""
        jumps = [sample.jumps for sample in (self.video, self.audio) if sample is not None]
        self.jump(seconds)
        for sample, count in zip((self.video, self.audio), jumps, strict=True):
            assert sample is not None
            sample.jumps = count
            sample.splices += 1

    def report(self) -> HealthReport:
        return self.health.report("alice", "1f")

    def _encode(self) -> None:
        """All units up to the present, less what is on its way."""
        until_s = self.media_s - self.late_s
        if self.video is None:
            self.video = TrackSample(1, Kind.VIDEO, VIDEO_SCALE, 0, 0, 0, 0, 0, 0, 0)
        video = self.video
        video.frame_rate = self.announced_fps
        while self.video_at_s <= until_s:
            if self.video_goes_on:
                video.units += 1
                video.payload_bytes += round(self.video_bps / 8 / self.fps)
                video.last_dts = round(self.video_at_s * VIDEO_SCALE)
                video.uneven_ticks += round(self.unevenness / self.fps * VIDEO_SCALE)
                if self.key_at_s is None or self.video_at_s - self.key_at_s >= self.gop_s - 1e-6:
                    if self.key_at_s is not None:
                        video.gop_us = round((self.video_at_s - self.key_at_s) * 1e6)
                    video.random_accesses += 1
                    self.key_at_s = self.video_at_s
            self.video_at_s += 1 / self.fps
        if not self.has_audio:
            return
        if self.audio is None:
            self.audio = TrackSample(2, Kind.AUDIO, AUDIO_SCALE, 0, 0, 0, 0, 0, 0, 0)
        while self.audio_at_s <= until_s:
            if self.audio_goes_on:
                self.audio.units += 1
                self.audio.payload_bytes += 427
                self.audio.random_accesses += 1
                dts_s = self.audio_at_s + self.audio_ahead_s
                self.audio.last_dts = round(dts_s * AUDIO_SCALE)
            self.audio_at_s += AUDIO_UNIT / AUDIO_SCALE


def make_feed(limits: HealthLimits | None = None, **settings: object) -> Feed:
    feed = Feed(StreamHealth(limits or HealthLimits()), changes=[])
    for name, value in settings.items():
        setattr(feed, name, value)
    return feed


def raised(changes: list[Change]) -> list[str]:
    return [change.warning.code for change in changes if isinstance(change, WarningRaised)]


def cleared(changes: list[Change]) -> list[str]:
    return [change.code for change in changes if isinstance(change, WarningCleared)]
