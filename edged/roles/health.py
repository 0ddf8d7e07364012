"""How a stream comes in: what its measurer says, or, where there is none, what counters can tell.

A PoP may have something that measures each publication at its units (jitter, skew, jumps); it is
given to its role as `health`, a function from the channel to a `HealthView`. Without it, and at an
origin, the sampler's counters tell frame rate, bitrate, keyframe interval and silence.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from edged.roles.status import HealthSeen, Severity, WarningSeen

GOP_S_MAX = 4.5  # Beyond it segments are cut between key frames, and joining takes long.
SILENT_S_MIN = 3.0  # An encoder that sends nothing for so long has stopped, or its network has.
DROP_SHARE = 0.5  # Of the last minute's bitrate: an encoder that adapts, or loses frames.
DROP_BPS_MIN = 300_000  # Below it the bitrate says little: a still picture.
DROP_AFTER_S = 15.0  # So long after its start the bitrate of a stream is known.
FPS_SHARE = 0.8  # Of the frame rate announced.
WARNINGS_MAX = 8  # Of one stream.
TEXT_CHARS_MAX = 300


class WarningView(Protocol):
    """One warning of a measurer."""

    @property
    def code(self) -> str:
        """What it is, for programs."""

    @property
    def severity(self) -> str:
        """ "info", "warning" or "error"."""

    @property
    def text(self) -> str:
        """What is wrong and what to do, for the broadcaster."""

    @property
    def since_ms(self) -> int:
        """When it began, in Unix time."""


class HealthView(Protocol):
    """What a measurer knows of a publication."""

    @property
    def fps(self) -> float | None:
        """Frames per second, measured."""

    @property
    def bitrate_bps(self) -> float:
        """Over the last 2 s."""

    @property
    def bitrate_60s_bps(self) -> float:
        """Over the last minute."""

    @property
    def gop_s(self) -> float | None:
        """The keyframe interval."""

    @property
    def jitter_ms(self) -> float | None:
        """How unevenly units arrive."""

    @property
    def av_skew_ms(self) -> float | None:
        """How far sound is ahead of the picture."""

    @property
    def jumps(self) -> int:
        """How often its timestamps jumped."""

    @property
    def warnings(self) -> Sequence[WarningView]:
        """What the broadcaster should know."""


HealthOf = Callable[[str], HealthView | None]


def unknown_health(channel: str) -> HealthView | None:
    """Where nothing measures publications."""
    del channel
    return None


def merge_health(counted: HealthSeen, view: HealthView | None, unix: float) -> HealthSeen:
    """What a measurer knows, and what it does not know from the counters. `unix`: seconds."""
    if view is None:
        return counted
    warnings = [
        WarningSeen(
            code=warning.code,
            severity=_severity(warning.severity),
            text=warning.text[:TEXT_CHARS_MAX],
            for_s=max(0.0, unix - warning.since_ms / 1000),
        )
        for warning in list(view.warnings)[:WARNINGS_MAX]
    ]
    return HealthSeen(
        fps=counted.fps if view.fps is None else view.fps,
        bitrate_bps_2s=view.bitrate_bps,
        bitrate_bps_60s=view.bitrate_60s_bps,
        gop_s=counted.gop_s if view.gop_s is None else view.gop_s,
        jitter_ms=view.jitter_ms,
        av_skew_ms=view.av_skew_ms,
        jumps=view.jumps,
        silent_s=counted.silent_s,
        warnings=warnings,
    )


def find_warnings(health: HealthSeen, *, live_s: float, fps_wanted: float | None) -> list[str]:
    """The codes of what counters alone show to be wrong, worst first."""
    found = []
    if health.silent_s >= SILENT_S_MIN:
        found.append("silent")
    elif live_s >= DROP_AFTER_S:
        usual = health.bitrate_bps_60s
        if usual >= DROP_BPS_MIN and health.bitrate_bps_2s < DROP_SHARE * usual:
            found.append("bitrate_drop")
        if fps_wanted and health.fps is not None and health.fps < FPS_SHARE * fps_wanted:
            found.append("frames_missing")
    if health.gop_s is not None and health.gop_s > GOP_S_MAX:
        found.append("long_gop")
    return found


def describe_warning(
    code: str, health: HealthSeen, *, for_s: float, fps_wanted: float | None
) -> WarningSeen:
    """A warning in words for the broadcaster: what is seen, and what to do."""
    severity: Severity = "warning"
    if code == "silent":
        severity = "error"
        text = (
            f"Nothing has come from your encoder for {health.silent_s:.0f} s, though it is "
            "connected. See whether it still sends, and look at your upload."
        )
    elif code == "bitrate_drop":
        text = (
            f"Your bitrate fell to {health.bitrate_bps_2s / 1e6:.1f} Mbps, usual were "
            f"{health.bitrate_bps_60s / 1e6:.1f}. If the picture did not just get simpler, your "
            "upload is too slow: lower the bitrate, or use a cable."
        )
    elif code == "frames_missing":
        text = (
            f"{health.fps or 0:.0f} frames per second arrive of {fps_wanted or 0:g}. Your computer "
            "or your upload does not keep up: choose a lighter preset or a lower bitrate."
        )
    else:
        text = (
            f"Your keyframe interval is {health.gop_s or 0:.1f} s: viewers wait long when they "
            "join. Set it to 2 s in your encoder."
        )
    return WarningSeen(code=code, severity=severity, text=text, for_s=for_s)


def _severity(text: str) -> Severity:
    if text in ("error", "critical"):
        return "error"
    return "info" if text == "info" else "warning"
