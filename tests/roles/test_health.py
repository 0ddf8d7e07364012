"""What counters say of a stream, in words, and how a measurer's word goes before theirs."""

import pytest
from msgspec import Struct, structs

from edged.roles.health import (
    DROP_AFTER_S,
    FPS_SHARE,
    GOP_S_MAX,
    SILENT_S_MIN,
    TEXT_CHARS_MAX,
    WARNINGS_MAX,
    HealthView,
    describe_warning,
    find_warnings,
    merge_health,
    unknown_health,
)
from edged.roles.status import HealthSeen

GOOD = HealthSeen(fps=30.0, bitrate_bps_2s=6e6, bitrate_bps_60s=6e6, gop_s=2.0)


class Said(Struct, frozen=True):
    code: str
    severity: str
    text: str
    since_ms: int


class Measured(Struct, frozen=True, kw_only=True):
    fps: float | None = None
    bitrate_bps: float = 5.9e6
    bitrate_60s_bps: float = 5.8e6
    gop_s: float | None = None
    jitter_ms: float | None = None
    av_skew_ms: float | None = None
    jumps: int = 0
    warnings: list[Said] = []


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({}, []),
        ({"gop_s": GOP_S_MAX}, []),
        ({"gop_s": GOP_S_MAX + 0.1}, ["long_gop"]),
        ({"silent_s": SILENT_S_MIN}, ["silent"]),
        ({"silent_s": SILENT_S_MIN - 0.1}, []),
        ({"bitrate_bps_2s": 2.9e6}, ["bitrate_drop"]),
        ({"bitrate_bps_2s": 3.1e6}, []),
        ({"bitrate_bps_2s": 1e4, "bitrate_bps_60s": 1e5}, []),
        ({"fps": 30 * FPS_SHARE - 0.1}, ["frames_missing"]),
        ({"fps": None}, []),
        (
            {"silent_s": 9.0, "fps": 0.0, "bitrate_bps_2s": 0.0, "gop_s": 9.0},
            ["silent", "long_gop"],
        ),
    ],
)
def test_what_is_wrong(changes: dict[str, float], codes: list[str]) -> None:
    health = structs.replace(GOOD, **changes)
    assert find_warnings(health, live_s=60.0, fps_wanted=30.0) == codes


def test_a_stream_that_has_only_begun_is_not_judged_by_its_rates() -> None:
    health = structs.replace(GOOD, bitrate_bps_2s=0.0, fps=1.0)
    assert find_warnings(health, live_s=DROP_AFTER_S - 0.1, fps_wanted=30.0) == []
    assert len(find_warnings(health, live_s=DROP_AFTER_S, fps_wanted=30.0)) == 2
    assert find_warnings(health, live_s=60.0, fps_wanted=None) == ["bitrate_drop"]


@pytest.mark.parametrize(
    ("code", "severity", "words"),
    [
        ("silent", "error", ["for 7 s", "upload"]),
        ("bitrate_drop", "warning", ["1.2 Mbps", "6.0", "lower the bitrate"]),
        ("frames_missing", "warning", ["12 frames per second arrive of 30", "preset"]),
        ("long_gop", "warning", ["8.3 s", "Set it to 2 s"]),
    ],
)
def test_warnings_speak_to_the_broadcaster(code: str, severity: str, words: list[str]) -> None:
    health = structs.replace(GOOD, silent_s=7.2, bitrate_bps_2s=1.2e6, fps=12.3, gop_s=8.33)
    warning = describe_warning(code, health, for_s=3.0, fps_wanted=30.0)
    assert (warning.code, warning.severity, warning.for_s) == (code, severity, 3.0)
    assert "our" in warning.text
    for text in words:
        assert text in warning.text


def test_a_measurer_goes_before_the_counters() -> None:
    said = Said("jitter", "warning", "Your upload stutters.", 90_000)
    measured = Measured(fps=29.97, jitter_ms=12.0, av_skew_ms=-40.0, jumps=2, warnings=[said])
    view: HealthView = measured
    merged = merge_health(GOOD, view, 100.0)
    assert (merged.fps, merged.jitter_ms, merged.av_skew_ms, merged.jumps) == (29.97, 12, -40, 2)
    assert (merged.gop_s, merged.bitrate_bps_2s, merged.bitrate_bps_60s) == (2.0, 5.9e6, 5.8e6)
    (warning,) = merged.warnings
    assert (warning.code, warning.for_s, warning.text) == ("jitter", 10.0, "Your upload stutters.")
    assert merge_health(GOOD, None, 100.0) is GOOD
    assert unknown_health("alice") is None


def test_a_measurers_words_are_bounded() -> None:
    said = Said("x", "strange", "a" * 1000, 200_000)
    merged = merge_health(GOOD, Measured(warnings=[said] * 20), 100.0)
    assert len(merged.warnings) == WARNINGS_MAX
    warning = merged.warnings[0]
    assert (len(warning.text), warning.severity, warning.for_s) == (TEXT_CHARS_MAX, "warning", 0.0)
    for severity in ("info", "error"):
        (one,) = merge_health(GOOD, Measured(warnings=[Said("x", severity, "", 0)]), 1.0).warnings
        assert one.severity == severity
