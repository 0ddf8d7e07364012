"""Which encoders a ladder may have, and when it gives one up."""

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.policy.ladder import ENCODERS, X264, LadderBudget, choose_encoder
from edged.policy.ladder_encoders import (
    CRASHES_MAX,
    HARDWARE,
    HEALTHY_S,
    REASON_CHARS_MAX,
    EncodersFound,
    EncoderTrust,
    choose_candidates,
)

NVENC, QSV, VAAPI = HARDWARE
FOUND = EncodersFound(encoders=(NVENC, QSV, X264), missing={VAAPI: "no device"})


def test_candidates() -> None:
    assert choose_candidates("auto") == (NVENC, QSV, VAAPI)
    assert choose_candidates("vaapi") == (VAAPI,)
    assert choose_candidates("x264") == ()
    assert ENCODERS["nvenc"] == NVENC, "the first that auto prefers"


def test_what_was_found_is_explained() -> None:
    assert FOUND.explain("auto") == "encoder h264_nvenc: found here"
    assert FOUND.explain("qsv") == "encoder qsv, as configured"
    assert FOUND.explain("vaapi") == "encoder x264, not vaapi as configured: no device"
    assert EncodersFound().explain("x264") == "encoder x264, as configured"
    assert FOUND.apply(LadderBudget(cost_max=7)).cost_max == 7


def test_an_encoder_s_own_error_ends_it_at_once_and_for_this_ladder_only() -> None:
    trust, other = EncoderTrust(), EncoderTrust()
    budget = FOUND.apply(LadderBudget())
    assert trust.limit(budget) is budget
    said = "ended with code 1: EncoderError: h264_nvenc does not open: out of sessions"
    assert trust.note_failure(NVENC, said, 0.4)
    assert choose_encoder("auto", trust.limit(budget))[0] == QSV
    assert choose_encoder("nvenc", trust.limit(budget)) == (
        X264,
        "encoder x264, not nvenc as configured: failed: h264_nvenc does not open: out of sessions",
    )
    assert trust.note_failure(QSV, said, 0.4)
    encoder, why = choose_encoder("auto", trust.limit(budget))
    assert encoder == X264
    assert "out of sessions" in why
    assert "no device" in why
    assert other.limit(budget) is budget


@pytest.mark.parametrize("reason", ["killed by signal 11", "made no progress for 5.2 s"])
def test_crashes_in_a_row_end_it_and_a_poisoned_unit_s_two_do_not(reason: str) -> None:
    trust = EncoderTrust()
    failures = [trust.note_failure(NVENC, reason, 1.0) for _ in range(CRASHES_MAX)]
    assert failures == [False, False, True]
    assert trust.missing == {NVENC: f"failed 3 times in a row: {reason}"}
    rare = EncoderTrust()
    assert not any(rare.note_failure(NVENC, reason, HEALTHY_S) for _ in range(50))
    assert rare.note_failure(NVENC, reason, HEALTHY_S - 1) is False


@hypothesis.given(
    st.lists(
        st.tuples(
            st.sampled_from((*HARDWARE, X264)),
            st.text(max_size=2 * REASON_CHARS_MAX) | st.just("EncoderError: no"),
            st.floats(0, 1000),
        )
    )
)
def test_whatever_fails_x264_stays(failures: list[tuple[str, str, float]]) -> None:
    trust = EncoderTrust()
    budget = LadderBudget(encoders=(*HARDWARE, X264))
    for encoder, reason, ran_s in failures:
        gone = trust.note_failure(encoder, reason, ran_s)
        assert not (gone and encoder == X264)
        assert gone <= (encoder in trust.missing)
        limited = trust.limit(budget)
        assert X264 in limited.encoders
        assert not set(limited.encoders) & trust.missing.keys()
        assert all(0 < len(why) <= REASON_CHARS_MAX for why in trust.missing.values())
