"""How well a live stream comes in: what is measured once a second, and what is wrong with it.

Fed with counters, not with packets: it costs microseconds per stream and second. Rates of pictures
go by the stream's own time, so a network that stalls and catches up changes none; jitter compares
that time with ours. `HealthReport` is what a status page shows.
"""

import math
from collections import deque
from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from edged.media.events import Severity
from edged.media.stream import PriorityClass
from edged.media.track import Kind
from edged.policy.health_rules import CODES, RULES, SILENT_S_MAX, Alarm, HealthLimits, Measures

TICK_S = 1.0  # How often it is meant to be fed.
WINDOW_S = 60.0
SAMPLES_MAX = 256  # Of the window, should it be fed more often.
NOW_S = 1.9  # What "now" means of a rate: two ticks, give or take.
RATE_S_MIN = 0.001  # Over less a rate says nothing (and may be infinite).
HISTORY_S_MIN = 10.0  # Before it there is no "usual".
GOPS_MAX = 8  # Of which the shortest and the longest are compared,
GOPS_MIN = 4  # from so many on.
TRANSITS = 10  # Moments over which jitter is looked at: 10 s.
SKEWS = 5  # Of which the middle one counts: tracks come in turns.
UNEVEN_UNITS_MIN = 10  # In 2 s: fewer show no pace.
ACTIVE_S = 1.5  # A track with units in this time goes on.

__all__ = ["CODES", "HealthReport", "IngestHealthConfig", "StreamHealth", "TrackSample"]


class IngestHealthConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[ingest_health]`: of what broadcasters are warned. A limit of 0 is none."""

    keyframe_interval_s_max: Annotated[float, Meta(ge=0.5, le=20)] = 4.0
    partner_mbps_max: Annotated[float, Meta(ge=0, le=1_000)] = 0.0
    affiliate_mbps_max: Annotated[float, Meta(ge=0, le=1_000)] = 0.0
    basic_mbps_max: Annotated[float, Meta(ge=0, le=1_000)] = 0.0

    def limits(self, priority: PriorityClass) -> HealthLimits:
        """The limits of a class."""
        mbps_max = (self.partner_mbps_max, self.affiliate_mbps_max, self.basic_mbps_max)
        return HealthLimits(
            keyframe_interval_s_max=self.keyframe_interval_s_max,
            bitrate_bps_max=mbps_max[priority] * 1e6,
        )


class TrackSample(Struct):
    """A track's counters at one moment."""

    track_id: int
    kind: Kind
    timescale: int
    units: int
    payload_bytes: int
    random_accesses: int
    gop_us: int  # The last whole GOP.
    last_dts: int
    jumps: int  # Units that did not follow the one before.
    jump_ticks: int  # By how much the last of them did not.
    splices: int = 0  # Times that another publisher went on with it.
    frame_rate: float = 0.0  # As the configuration says; 0 when it does not.
    uneven_ticks: int = 0  # By how much each step of dts differed from the one before, in all.


class HealthWarning(Struct, frozen=True, kw_only=True):
    """Something that is wrong now."""

    code: str
    severity: Severity
    text: str  # In plain words, for the broadcaster.
    value: float
    limit: float
    since_ms: int  # Unix time.


class WarningRaised(Struct, frozen=True):
    """It has become wrong."""

    warning: HealthWarning


class WarningCleared(Struct, frozen=True):
    """It is right again."""

    code: str
    lasted_s: float


Change = WarningRaised | WarningCleared


class HealthReport(Struct, frozen=True, kw_only=True):
    """How a stream is. What is None is not known yet, or there is none of it."""

    channel: str
    publication: str
    at_ms: int  # Unix time.
    fps: float | None
    fps_expected: float | None  # As announced, or else as usual.
    bitrate_bps: float  # Over the last 2 s.
    bitrate_60s_bps: float  # Over the last minute.
    gop_s: float | None  # The last whole GOP, or the open one if that is longer.
    jitter_ms: float | None  # Over the last 10 s.
    av_skew_ms: float | None  # Above 0: the audio is ahead.
    jumps: int
    warnings: tuple[HealthWarning, ...]


class _Point(Struct):
    """The counters at one moment of the window."""

    at: float
    payload_bytes: int
    video_units: int = 0
    video_s: float = 0.0  # The video's own time.
    uneven_s: float = 0.0  # Of it, see `TrackSample.uneven_ticks`.


class _Track(Struct):
    """What is known of a track."""

    active_at: float  # When units of it were last seen to have come.
    key_dts: int  # Where the open GOP began, about.
    units: int = 0
    jumps: int = 0
    splices: int = 0
    random_accesses: int = 0
    is_active: bool = False  # Units have come since the moment before.


class StreamHealth:
    """One live stream's health."""

    def __init__(self, limits: HealthLimits) -> None:
        self.measures = Measures()
        self._limits = limits
        self._tracks: dict[int, _Track] = {}
        self._points: deque[_Point] = deque(maxlen=SAMPLES_MAX)
        self._gops: deque[float] = deque(maxlen=GOPS_MAX)
        self._transits: deque[float] = deque(maxlen=TRANSITS)
        self._skews: deque[float] = deque(maxlen=SKEWS)
        self._main_id: int | None = None  # The track by which jitter is measured.
        self._steady_from = -math.inf  # Since then all timestamps follow each other.
        self._alarms = [Alarm(rule) for rule in RULES]
        self._since_ms: dict[str, int] = {}
        self._at_ms = 0

    def tick(
        self, samples: Sequence[TrackSample], now: float, now_ms: int, *, slept: bool = False
    ) -> list[Change]:
        """Measure and judge; what has become wrong, and what right again.

        `slept`: we have not looked for a while, and what came meanwhile may not be read yet; so
        nothing is concluded this time.
        """
        self._at_ms = now_ms
        samples = [sample for sample in samples if sample.kind is not Kind.DATA]
        measures = self.measures
        before = measures.jumps
        is_broken = self._follow(samples, now, slept=slept)
        measures.has_jumped = measures.jumps > before
        video = _first(samples, Kind.VIDEO)
        audio = _first(samples, Kind.AUDIO)
        if is_broken or slept:
            self._transits.clear()
            self._skews.clear()
        if is_broken:
            self._steady_from = now
        self._measure_rates(samples, video, now)
        if video is not None:
            self._measure_gops(video)
        self._measure_silence(samples, now)
        if slept:
            return []
        self._measure_jitter(video or audio, now)
        self._measure_skew(video, audio)
        return self._judge(now)

    def report(self, channel: str, publication: str) -> HealthReport:
        """How the stream is, as of the last tick."""
        measures = self.measures
        gops = [gop_s for gop_s in (measures.gop_s, measures.open_gop_s) if gop_s is not None]
        return HealthReport(
            channel=channel,
            publication=publication,
            at_ms=self._at_ms,
            fps=_rounded(measures.fps, 2),
            fps_expected=_rounded(measures.fps_expected, 2),
            bitrate_bps=round(measures.bitrate_bps),
            bitrate_60s_bps=round(measures.bitrate_60s_bps),
            gop_s=_rounded(max(gops, default=None), 3),
            jitter_ms=_in_ms(measures.jitter_s),
            av_skew_ms=_in_ms(measures.skew_s),
            jumps=measures.jumps,
            warnings=self.warnings,
        )

    @property
    def warnings(self) -> tuple[HealthWarning, ...]:
        """What is wrong now."""
        return tuple(self._describe(alarm) for alarm in self._alarms if alarm.raised_at is not None)

    def _describe(self, alarm: Alarm) -> HealthWarning:
        return HealthWarning(
            code=alarm.rule.code,
            severity=alarm.rule.severity,
            text=alarm.text,
            value=round(alarm.finding.value, 3),
            limit=round(alarm.finding.limit, 3),
            since_ms=self._since_ms[alarm.rule.code],
        )

    def _judge(self, now: float) -> list[Change]:
        changes: list[Change] = []
        for alarm in self._alarms:
            raised_at = alarm.raised_at
            if not alarm.update(self.measures, self._limits, now):
                continue
            if raised_at is None:
                self._since_ms[alarm.rule.code] = self._at_ms
                changes.append(WarningRaised(self._describe(alarm)))
            else:
                changes.append(WarningCleared(alarm.rule.code, round(now - raised_at, 3)))
        return changes

    def _follow(self, samples: Sequence[TrackSample], now: float, *, slept: bool) -> bool:
        """Note which tracks go on; True if the timestamps of one do not follow those before."""
        is_broken, measures = False, self.measures
        for sample in samples:
            track = self._tracks.get(sample.track_id)
            if track is None:
                track = self._tracks[sample.track_id] = _Track(now, sample.last_dts)
            track.is_active = sample.units != track.units
            if track.is_active or slept:
                track.active_at = now
            track.units = sample.units
            if sample.jumps != track.jumps:
                measures.jumps += sample.jumps - track.jumps
                measures.jump_s = sample.jump_ticks / sample.timescale
            if (sample.jumps, sample.splices) != (track.jumps, track.splices):
                is_broken = True
                track.jumps, track.splices = sample.jumps, sample.splices
                track.key_dts = sample.last_dts
        return is_broken

    def _measure_rates(
        self, samples: Sequence[TrackSample], video: TrackSample | None, now: float
    ) -> None:
        points, measures = self._points, self.measures
        point = _Point(now, sum(sample.payload_bytes for sample in samples))
        if video is not None:
            point.video_units, point.video_s = video.units, video.last_dts / video.timescale
            point.uneven_s = video.uneven_ticks / video.timescale
        points.append(point)
        while now - points[0].at > WINDOW_S:
            points.popleft()
        oldest = points[0]
        recent = next((one for one in reversed(points) if now - one.at >= NOW_S), oldest)
        measures.bitrate_bps = _rate(recent, point)
        measures.bitrate_60s_bps = _rate(oldest, point)
        is_known = recent.at - oldest.at >= HISTORY_S_MIN
        measures.bitrate_before_bps = _rate(oldest, recent) if is_known else None
        measures.fps = measures.fps_expected = measures.unevenness = None
        if video is None:
            return
        if recent.at >= self._steady_from and now - recent.at >= NOW_S:
            measures.fps = _fps(recent, point)
            measures.unevenness = _unevenness(recent, point)
        measures.fps_expected = video.frame_rate or None
        if not video.frame_rate and is_known and oldest.at >= self._steady_from:
            measures.fps_expected = _fps(oldest, recent)

    def _measure_gops(self, video: TrackSample) -> None:
        track, measures, gops = self._tracks[video.track_id], self.measures, self._gops
        if video.random_accesses != track.random_accesses:
            track.random_accesses = video.random_accesses
            track.key_dts = video.last_dts
            if video.gop_us > 0:
                gops.append(video.gop_us / 1e6)
                measures.gop_s = gops[-1]
                if len(gops) >= GOPS_MIN:
                    measures.gop_low_s, measures.gop_high_s = min(gops), max(gops)
        measures.open_gop_s = max(0.0, (video.last_dts - track.key_dts) / video.timescale)

    def _measure_silence(self, samples: Sequence[TrackSample], now: float) -> None:
        measures = self.measures
        silent = {Kind.VIDEO: -1.0, Kind.AUDIO: -1.0}
        stalled_s = math.inf
        for sample in samples:
            silent_s = now - self._tracks[sample.track_id].active_at
            silent[sample.kind] = max(silent[sample.kind], silent_s)
            stalled_s = min(stalled_s, silent_s)
        goes_on = stalled_s <= ACTIVE_S
        measures.stalled_s = stalled_s if samples else 0.0
        measures.audio_silent_s = _silence(silent[Kind.AUDIO], goes_on=goes_on)
        measures.video_silent_s = _silence(silent[Kind.VIDEO], goes_on=goes_on)

    def _measure_jitter(self, main: TrackSample | None, now: float) -> None:
        """How much the way here varies: our time against the stream's own."""
        transits, measures = self._transits, self.measures
        measures.jitter_s = None
        if main is None:
            return
        if (
            main.track_id != self._main_id
            or now - self._tracks[main.track_id].active_at > SILENT_S_MAX
        ):
            self._main_id = main.track_id
            transits.clear()
            return
        transits.append(now - main.last_dts / main.timescale)
        if len(transits) >= TRANSITS // 2:
            unit_s = 1 / measures.fps if measures.fps else 0.0  # It is not as old as it looks.
            measures.jitter_s = max(0.0, max(transits) - min(transits) - unit_s)

    def _measure_skew(self, video: TrackSample | None, audio: TrackSample | None) -> None:
        skews = self._skews
        if (
            video is not None
            and audio is not None
            and self._tracks[video.track_id].is_active
            and self._tracks[audio.track_id].is_active
        ):
            skews.append(audio.last_dts / audio.timescale - video.last_dts / video.timescale)
        is_known = len(skews) == SKEWS
        self.measures.skew_s = sorted(skews)[SKEWS // 2] if is_known else None


def _first(samples: Sequence[TrackSample], kind: Kind) -> TrackSample | None:
    """Of several tracks the one with the lowest id: the others are other rungs, or languages."""
    found = None
    for sample in samples:
        if sample.kind is kind and (found is None or sample.track_id < found.track_id):
            found = sample
    return found


def _rate(one: _Point, other: _Point) -> float:
    """Bits per second between two moments."""
    seconds = other.at - one.at
    if seconds < RATE_S_MIN:
        return 0.0
    return max(0.0, (other.payload_bytes - one.payload_bytes) * 8 / seconds)


def _fps(one: _Point, other: _Point) -> float | None:
    """Pictures per second of the stream's own time."""
    seconds = other.video_s - one.video_s
    return (other.video_units - one.video_units) / seconds if seconds > 0 else None


def _unevenness(one: _Point, other: _Point) -> float | None:
    """How much the time from picture to picture varies, of the usual one."""
    seconds, units = other.video_s - one.video_s, other.video_units - one.video_units
    if seconds <= 0 or units < UNEVEN_UNITS_MIN:
        return None
    return (other.uneven_s - one.uneven_s) / seconds  # Both per unit.


def _silence(silent_s: float, *, goes_on: bool) -> float | None:
    """None: there is no such track. While nothing at all comes, none of them is to blame."""
    if silent_s < 0:
        return None
    return silent_s if goes_on else 0.0


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _in_ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
