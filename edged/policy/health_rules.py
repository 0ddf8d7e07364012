"""What counts as wrong with what an encoder sends, how a broadcaster is told, and for how long.

A rule looks at the measures of one moment and says bad, good, neither (between its two limits) or
nothing. A warning is raised when it has been bad for a while without a break, and cleared when it
has been good for a while; so nothing flaps at a limit.
"""

import enum
from collections.abc import Callable

from msgspec import Struct

from edged.media.events import Severity

RAISE_S = 3.0  # A hiccup is no illness.
CLEAR_S = 10.0
GOP_LIMIT_S = 20.0  # What the ring holds (`RING_US_MAX`): beyond it nobody can join at all.
GOP_SPREAD_S_MAX, GOP_SPREAD_S_GOOD = 1.0, 0.5  # Segments would differ by as much.
DROPPED_RATIO_BAD, DROPPED_RATIO_GOOD = 0.5, 0.7  # Of the minute before.
FPS_RATIO_BAD, FPS_RATIO_GOOD = 0.8, 0.9
UNEVEN_RATIO_MAX, UNEVEN_RATIO_GOOD = 0.3, 0.15  # Times in ms make it 0.08 at 120 fps.
UNEVEN_RAISE_S, UNEVEN_CLEAR_S = 10.0, 20.0  # A picture that is left out now and then is no VFR.
SKEW_S_MAX, SKEW_S_GOOD = 0.5, 0.3
JITTER_S_MAX, JITTER_S_GOOD = 0.5, 0.3  # Players hold back about as much.
SILENT_S_MAX = 3.0  # Longer than any encoder's pause between units.
JUMPS_S = 60.0  # For so long a jump is told of.


class HealthLimits(Struct, frozen=True, kw_only=True):
    """The limits that a network chooses for itself."""

    keyframe_interval_s_max: float = 4.0
    bitrate_bps_max: float = 0.0  # 0: none.


class Measures(Struct, kw_only=True):
    """What is known of a stream at one moment. None: not yet, or not now."""

    fps: float | None = None  # By the stream's own time, over 2 s.
    fps_expected: float | None = None  # As announced, or else as usual.
    unevenness: float | None = None  # From picture to picture, of the usual time; over 2 s.
    bitrate_bps: float = 0.0  # Over 2 s.
    bitrate_60s_bps: float = 0.0  # Over a minute, or as long as there is.
    bitrate_before_bps: float | None = None  # The same without the last 2 s.
    gop_s: float | None = None  # The last whole one.
    open_gop_s: float | None = None  # The one that has not ended: so far.
    gop_low_s: float | None = None  # Of the last few.
    gop_high_s: float | None = None
    jitter_s: float | None = None
    skew_s: float | None = None  # Audio ahead of video, by their dts at one moment.
    jumps: int = 0  # Of timestamps, forth and back, so far.
    has_jumped: bool = False  # Since the moment before.
    jump_s: float = 0.0  # The last one; below 0: back.
    audio_silent_s: float | None = None  # While others go on. None: there is no audio.
    video_silent_s: float | None = None
    stalled_s: float = 0.0  # Since anything came.


class Level(enum.Enum):
    """What a rule says."""

    GOOD = "good"
    BETWEEN = "between"
    BAD = "bad"


class Finding(Struct, frozen=True):
    """How it is now, and what would be too much or too little."""

    level: Level
    value: float
    limit: float


Judge = Callable[[Measures, HealthLimits], Finding | None]


class Rule(Struct, frozen=True, kw_only=True):
    """One thing that can be wrong."""

    code: str
    severity: Severity
    judge: Judge
    tell: Callable[[Finding, Measures], str]
    raise_s: float = RAISE_S
    clear_s: float = CLEAR_S


def _above(value: float | None, bad: float, good: float | None = None) -> Finding | None:
    """Bad above one limit, good up to another."""
    if value is None:
        return None
    if value > bad:
        return Finding(Level.BAD, value, bad)
    level = Level.GOOD if value <= (bad if good is None else good) else Level.BETWEEN
    return Finding(level, value, bad)


def _below(value: float | None, of: float | None, bad: float, good: float) -> Finding | None:
    """Bad below one part of something, good from another part on."""
    if value is None or of is None or of <= 0:
        return None
    level = Level.BAD if value < bad * of else Level.GOOD if value >= good * of else Level.BETWEEN
    return Finding(level, value, bad * of)


def _keyframe_interval(measures: Measures, limits: HealthLimits) -> Finding | None:
    known = [gop_s for gop_s in (measures.gop_s, measures.open_gop_s) if gop_s is not None]
    return _above(max(known, default=None), limits.keyframe_interval_s_max)


def _keyframes_irregular(measures: Measures, limits: HealthLimits) -> Finding | None:
    low_s, high_s = measures.gop_low_s, measures.gop_high_s
    if low_s is None or high_s is None:
        return None
    if high_s > limits.keyframe_interval_s_max:  # Of that there is another warning.
        return Finding(Level.BETWEEN, high_s - low_s, GOP_SPREAD_S_MAX)
    return _above(high_s - low_s, GOP_SPREAD_S_MAX, GOP_SPREAD_S_GOOD)


def _bitrate_high(measures: Measures, limits: HealthLimits) -> Finding | None:
    if not limits.bitrate_bps_max or measures.bitrate_before_bps is None:
        return None
    return _above(measures.bitrate_60s_bps, limits.bitrate_bps_max)


def _timestamps_jump(measures: Measures, limits: HealthLimits) -> Finding | None:
    del limits
    level = Level.BAD if measures.has_jumped else Level.GOOD
    return Finding(level, measures.jump_s, 0.0)


def _av_skew(measures: Measures, limits: HealthLimits) -> Finding | None:
    del limits
    skew_s = measures.skew_s
    return _above(None if skew_s is None else abs(skew_s), SKEW_S_MAX, SKEW_S_GOOD)


def _tell_interval(finding: Finding, measures: Measures) -> str:
    is_open = (measures.open_gop_s or 0.0) > (measures.gop_s or 0.0)
    how = "The last keyframe came {:.1f} s ago" if is_open else "Keyframes come every {:.1f} s"
    what = "set the keyframe interval to 2 s, or viewers wait when they join."
    return f"{how.format(finding.value)}; {what}"


def _tell_skew(finding: Finding, measures: Measures) -> str:
    first = "audio" if (measures.skew_s or 0.0) > 0 else "video"
    return (
        f"Sound and picture are {finding.value:.1f} s apart: the {first} is ahead. "
        "Look at the encoder's audio offset, or restart it."
    )


def _tell_jump(finding: Finding, measures: Measures) -> str:
    del measures
    way = "forward" if finding.value >= 0 else "back"
    return (
        f"The timestamps have jumped {abs(finding.value):.1f} s {way}; viewers see a break. "
        "If it happens again, restart the encoder, and look at its sources' clocks."
    )


RULES = (
    Rule(
        code="keyframe_interval",
        severity="warning",
        judge=_keyframe_interval,
        tell=_tell_interval,
        raise_s=0.0,  # One such GOP has lasted long enough.
    ),
    Rule(
        code="keyframes_irregular",
        severity="info",
        judge=_keyframes_irregular,
        tell=lambda _, measures: (
            f"Keyframes come after {measures.gop_low_s or 0.0:.1f} to "
            f"{measures.gop_high_s or 0.0:.1f} s; set a fixed interval of 2 s and turn scene "
            "detection off, or latency varies."
        ),
    ),
    Rule(
        code="keyframes_missing",
        severity="critical",
        judge=lambda measures, _: _above(measures.open_gop_s, GOP_LIMIT_S),
        tell=lambda finding, _: (
            f"No keyframe has come for {finding.value:.0f} s, so nobody can join; "
            "set the keyframe interval to 2 s."
        ),
        raise_s=0.0,
        clear_s=0.0,
    ),
    Rule(
        code="bitrate_dropped",
        severity="warning",
        judge=lambda measures, _: _below(
            measures.bitrate_bps,
            measures.bitrate_before_bps,
            DROPPED_RATIO_BAD,
            DROPPED_RATIO_GOOD,
        ),
        tell=lambda finding, measures: (
            f"The bitrate has dropped to {finding.value / 1e6:.2f} Mbps, from "
            f"{(measures.bitrate_before_bps or 0.0) / 1e6:.2f}. Unless the picture stands still, "
            "your connection may not carry it: lower the encoder's bitrate."
        ),
    ),
    Rule(
        code="bitrate_high",
        severity="warning",
        judge=_bitrate_high,
        tell=lambda finding, _: (
            f"The stream has {finding.value / 1e6:.2f} Mbps, more than the "
            f"{finding.limit / 1e6:.2f} that are meant for you; lower the encoder's bitrate."
        ),
    ),
    Rule(
        code="fps_low",
        severity="warning",
        judge=lambda measures, _: _below(
            measures.fps, measures.fps_expected, FPS_RATIO_BAD, FPS_RATIO_GOOD
        ),
        tell=lambda finding, measures: (
            f"Pictures come at {finding.value:.1f} per second instead of "
            f"{measures.fps_expected or 0.0:.4g}: the encoder leaves some out. Choose a faster "
            "preset or a smaller picture, or lower the bitrate."
        ),
    ),
    Rule(
        code="fps_uneven",
        severity="warning",
        judge=lambda measures, _: _above(measures.unevenness, UNEVEN_RATIO_MAX, UNEVEN_RATIO_GOOD),
        tell=lambda finding, _: (
            f"The frame rate is not constant: it varies by {finding.value:.0%} from picture to "
            "picture. Set a constant one (CFR) in the encoder and its sources, or parts are of odd "
            "lengths and late, and motion is not smooth."
        ),
        raise_s=UNEVEN_RAISE_S,
        clear_s=UNEVEN_CLEAR_S,
    ),
    Rule(
        code="timestamps_jump",
        severity="warning",
        judge=_timestamps_jump,
        tell=_tell_jump,
        raise_s=0.0,
        clear_s=JUMPS_S,
    ),
    Rule(code="av_skew", severity="warning", judge=_av_skew, tell=_tell_skew),
    Rule(
        code="audio_stopped",
        severity="critical",
        judge=lambda measures, _: _above(measures.audio_silent_s, SILENT_S_MAX),
        tell=lambda finding, _: (
            f"No audio has come for {finding.value:.0f} s, while the picture goes on; "
            "look at the encoder's audio source."
        ),
        raise_s=0.0,
        clear_s=RAISE_S,
    ),
    Rule(
        code="video_stopped",
        severity="critical",
        judge=lambda measures, _: _above(measures.video_silent_s, SILENT_S_MAX),
        tell=lambda finding, _: (
            f"No picture has come for {finding.value:.0f} s, while the sound goes on; "
            "look at the encoder's video source."
        ),
        raise_s=0.0,
        clear_s=RAISE_S,
    ),
    Rule(
        code="stalled",
        severity="critical",
        judge=lambda measures, _: _above(measures.stalled_s, SILENT_S_MAX),
        tell=lambda finding, _: (
            f"Nothing has come for {finding.value:.0f} s; look at your connection."
        ),
        raise_s=0.0,
        clear_s=RAISE_S,
    ),
    Rule(
        code="jitter",
        severity="warning",
        judge=lambda measures, _: _above(measures.jitter_s, JITTER_S_MAX, JITTER_S_GOOD),
        tell=lambda finding, _: (
            f"The stream comes in bursts, up to {finding.value * 1000:.0f} ms late; use a cable "
            "instead of Wi-Fi, or lower the bitrate, or viewers' pictures may stop."
        ),
    ),
)
CODES = tuple(rule.code for rule in RULES)


class Alarm:
    """One rule's warning, raised or not."""

    __slots__ = ("_turned_at", "finding", "raised_at", "rule", "text")

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.raised_at: float | None = None
        self.finding = Finding(Level.GOOD, 0.0, 0.0)  # The last bad one, once there is one,
        self.text = ""  # and how a broadcaster is told.
        self._turned_at: float | None = None  # Bad since, or, when raised, good since.

    def update(self, measures: Measures, limits: HealthLimits, now: float) -> bool:
        """Judge; True if the warning has been raised or cleared by it."""
        rule = self.rule
        finding = rule.judge(measures, limits)
        if finding is None:  # What is not known speaks neither for it nor against it.
            return False
        if finding.level is Level.BAD:
            self.finding, self.text = finding, rule.tell(finding, measures)
        is_raised = self.raised_at is not None
        if finding.level is not (Level.GOOD if is_raised else Level.BAD):
            self._turned_at = None
            return False
        if self._turned_at is None:
            self._turned_at = now
        if now - self._turned_at < (rule.clear_s if is_raised else rule.raise_s):
            return False
        self._turned_at = None
        self.raised_at = None if is_raised else now
        return True
