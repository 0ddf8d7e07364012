import itertools

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.policy.health_rules import (
    CODES,
    GOP_LIMIT_S,
    RULES,
    SKEW_S_MAX,
    Alarm,
    Finding,
    HealthLimits,
    Level,
    Measures,
    Rule,
)

LIMITS = HealthLimits()
RULE_OF = {rule.code: rule for rule in RULES}


def level(code: str, limits: HealthLimits = LIMITS, /, **measures: object) -> Level | None:
    finding = RULE_OF[code].judge(Measures(**measures), limits)  # type: ignore[arg-type]
    return None if finding is None else finding.level


GOOD, BETWEEN, BAD = Level.GOOD, Level.BETWEEN, Level.BAD


@pytest.mark.parametrize(
    ("code", "measures", "expected"),
    [
        ("keyframe_interval", {}, None),
        ("keyframe_interval", {"gop_s": 4.0}, GOOD),
        ("keyframe_interval", {"gop_s": 4.01}, BAD),
        ("keyframe_interval", {"gop_s": 2.0, "open_gop_s": 4.01}, BAD),
        ("keyframes_irregular", {"gop_low_s": 1.0}, None),
        ("keyframes_irregular", {"gop_low_s": 1.0, "gop_high_s": 1.5}, GOOD),
        ("keyframes_irregular", {"gop_low_s": 1.0, "gop_high_s": 2.0}, BETWEEN),
        ("keyframes_irregular", {"gop_low_s": 1.0, "gop_high_s": 2.01}, BAD),
        ("keyframes_irregular", {"gop_low_s": 1.0, "gop_high_s": 4.01}, BETWEEN),
        ("keyframes_missing", {"open_gop_s": GOP_LIMIT_S}, GOOD),
        ("keyframes_missing", {"open_gop_s": GOP_LIMIT_S + 0.1}, BAD),
        ("bitrate_dropped", {"bitrate_bps": 1.0}, None),
        ("bitrate_dropped", {"bitrate_bps": 4.9, "bitrate_before_bps": 10.0}, BAD),
        ("bitrate_dropped", {"bitrate_bps": 5.0, "bitrate_before_bps": 10.0}, BETWEEN),
        ("bitrate_dropped", {"bitrate_bps": 7.0, "bitrate_before_bps": 10.0}, GOOD),
        ("bitrate_dropped", {"bitrate_bps": 0.0, "bitrate_before_bps": 0.0}, None),
        ("bitrate_high", {"bitrate_60s_bps": 1e9, "bitrate_before_bps": 1.0}, None),
        ("fps_low", {"fps": 23.9, "fps_expected": 30.0}, BAD),
        ("fps_low", {"fps": 24.0, "fps_expected": 30.0}, BETWEEN),
        ("fps_low", {"fps": 27.0, "fps_expected": 30.0}, GOOD),
        ("fps_low", {"fps": 60.0, "fps_expected": 30.0}, GOOD),
        ("fps_low", {"fps": 24.0}, None),
        ("fps_uneven", {}, None),
        ("fps_uneven", {"unevenness": 0.31}, BAD),
        ("fps_uneven", {"unevenness": 0.3}, BETWEEN),
        ("fps_uneven", {"unevenness": 0.15}, GOOD),
        ("timestamps_jump", {}, GOOD),
        ("timestamps_jump", {"has_jumped": True}, BAD),
        ("av_skew", {}, None),
        ("av_skew", {"skew_s": -SKEW_S_MAX}, BETWEEN),
        ("av_skew", {"skew_s": -SKEW_S_MAX - 0.01}, BAD),
        ("av_skew", {"skew_s": 0.3}, GOOD),
        ("audio_stopped", {}, None),
        ("audio_stopped", {"audio_silent_s": 3.0}, GOOD),
        ("audio_stopped", {"audio_silent_s": 3.1}, BAD),
        ("video_stopped", {"video_silent_s": 3.1}, BAD),
        ("stalled", {"stalled_s": 3.0}, GOOD),
        ("stalled", {"stalled_s": 3.1}, BAD),
        ("jitter", {}, None),
        ("jitter", {"jitter_s": 0.51}, BAD),
        ("jitter", {"jitter_s": 0.4}, BETWEEN),
        ("jitter", {"jitter_s": 0.3}, GOOD),
    ],
)
def test_each_limit_at_it_and_past_it(
    code: str, measures: dict[str, object], expected: Level | None
) -> None:
    assert level(code, LIMITS, **measures) is expected


def test_a_network_s_own_limits() -> None:
    limits = HealthLimits(keyframe_interval_s_max=1.0, bitrate_bps_max=8e6)
    assert level("keyframe_interval", limits, gop_s=1.1) is BAD
    known = {"bitrate_before_bps": 1.0}
    assert level("bitrate_high", limits, bitrate_60s_bps=8.1e6, **known) is BAD
    assert level("bitrate_high", limits, bitrate_60s_bps=8e6, **known) is GOOD
    assert level("bitrate_high", limits, bitrate_60s_bps=8.1e6) is None  # Too early to say.


def test_every_rule_can_tell_and_has_its_own_code() -> None:
    assert len(set(CODES)) == len(RULES)
    for rule in RULES:
        text = rule.tell(Finding(BAD, 8.3, 4.0), Measures())
        assert text[0].isupper()
        assert text.endswith(".")
        assert len(text) < 200, text


def test_the_text_that_streamers_get() -> None:
    interval = RULE_OF["keyframe_interval"]
    text = interval.tell(Finding(BAD, 8.333, 4.0), Measures(gop_s=8.333, open_gop_s=3.0))
    assert text == (
        "Keyframes come every 8.3 s; set the keyframe interval to 2 s, "
        "or viewers wait when they join."
    )
    text = interval.tell(Finding(BAD, 5.0, 4.0), Measures(gop_s=2.0, open_gop_s=5.0))
    assert text.startswith("The last keyframe came 5.0 s ago; set the keyframe interval to 2 s")
    skew = RULE_OF["av_skew"].tell(Finding(BAD, 1.2, 0.5), Measures(skew_s=-1.2))
    assert skew.startswith("Sound and picture are 1.2 s apart: the video is ahead.")
    jump = RULE_OF["timestamps_jump"].tell(Finding(BAD, -3.0, 0.0), Measures())
    assert jump.startswith("The timestamps have jumped 3.0 s back;")


RAISE_S, CLEAR_S = 3.0, 10.0


@hypothesis.given(
    st.lists(st.tuples(st.sampled_from([GOOD, BETWEEN, BAD, None]), st.floats(0.1, 5.0)))
)
def test_no_warning_flaps(steps: list[tuple[Level | None, float]]) -> None:
    """Raised after RAISE_S of nothing but bad, cleared after CLEAR_S of nothing but good."""
    current: Finding | None = None
    rule = Rule(
        code="test",
        severity="info",
        judge=lambda *_: current,
        tell=lambda *_: "It is so.",
        raise_s=RAISE_S,
        clear_s=CLEAR_S,
    )
    alarm, now = Alarm(rule), 0.0
    bad_since: float | None = None
    good_since: float | None = None
    changed_at: list[float] = []
    for found, pause in steps:
        now += pause
        current = None if found is None else Finding(found, 1.0, 0.0)
        if found is not None:
            bad_since = (now if bad_since is None else bad_since) if found is BAD else None
            good_since = (now if good_since is None else good_since) if found is GOOD else None
        was_raised = alarm.raised_at is not None
        changed = alarm.update(Measures(), LIMITS, now)
        assert changed == (was_raised != (alarm.raised_at is not None))
        if changed and not was_raised:
            assert bad_since is not None
            assert now - bad_since >= RAISE_S
            assert (alarm.text, alarm.finding.level) == ("It is so.", BAD)
        elif changed:
            assert good_since is not None
            assert now - good_since >= CLEAR_S
        elif found is None:
            continue  # It speaks neither for it nor against it.
        elif was_raised and good_since is not None:
            assert now - good_since < CLEAR_S
        elif not was_raised and bad_since is not None:
            assert now - bad_since < RAISE_S
        if changed:
            changed_at.append(now)
    for before, after in itertools.pairwise(changed_at):
        assert after - before >= RAISE_S
