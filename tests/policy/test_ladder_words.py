from typing import Literal

import pytest
from msgspec import Struct

from edged.media.ladder import AudioRung, LadderPlan, VideoRung
from edged.policy.ladder_slots import Standing
from edged.policy.ladder_words import TEXT_CHARS_MAX, LadderSeen, describe_ladder


class Making(Struct, kw_only=True):
    state: Literal["waiting", "starting", "running", "ending", "ended"] = "running"
    factor: float = 1.32
    queue_s: float = 0.04
    restarts: int = 0
    rungs: tuple[str, ...] = ("720p", "480p")
    shed: tuple[str, ...] = ()
    last_reason: str = ""


RUNG = VideoRung(
    name="720p", track_id=1, width=2, height=2, bitrate_bps=1, maxrate_bps=1, buffer_bits=1,
    level=31, preset="", cost=1.0,
)  # fmt: skip
AUDIO = AudioRung(
    name="aac-1", track_id=2, source_track_id=1, sample_rate=48_000, channels=2, bitrate_bps=1
)
PLAN = LadderPlan(video=(RUNG,), notes=("encoder x264", "preset veryfast"))
HOLDS = Standing[str](cost=45, holds=True, before=0, preempted_by=None, is_too_large=False)
WAITS = Standing[str](cost=45, holds=False, before=2, preempted_by=None, is_too_large=False)


def describe(
    standing: Standing[str] | None,
    making: Making | None = None,
    *,
    plan: LadderPlan = PLAN,
    preempted_by: str = "",
    is_measured: bool = True,
) -> LadderSeen:
    return describe_ladder(
        plan, making or Making(), standing,
        is_measured=is_measured, total=100, preempted_by=preempted_by,
    )  # fmt: skip


def test_one_that_is_made_says_its_rungs_and_its_pace() -> None:
    assert describe(HOLDS) == LadderSeen(
        state="running", text="ladder: 720p 480p, 1.3 x real time", rungs=["720p", "480p"],
        factor=1.32, behind_s=0.0, slots=45, encoder="libx264",
    )  # fmt: skip
    unknown = describe(HOLDS, Making(factor=0.0), plan=LadderPlan(audio=(AUDIO,)))
    assert unknown.text == "ladder: 720p 480p aac-1"


def test_an_encoder_that_was_given_up_is_said_with_the_reason() -> None:
    seen = describe_ladder(
        PLAN, Making(), HOLDS, is_measured=True, total=100, preempted_by="",
        encoders_failed={"h264_nvenc": "failed: lost device"},
    )  # fmt: skip
    assert seen.text == (
        "ladder: 720p 480p, 1.3 x real time; now libx264: h264_nvenc failed: lost device"
    )
    assert seen.encoder == "libx264"


def test_what_is_shed_is_said_with_the_reason() -> None:
    shed = Making(shed=("720p",), rungs=("480p",), last_reason="rung 720p shed: 2.1 s behind")
    assert describe(HOLDS, shed).text == (
        "ladder: 480p, 1.3 x real time; rung 720p shed: 2.1 s behind"
    )
    shed.last_reason = "killed by signal 9"
    assert describe(HOLDS, shed).text == "ladder: 480p, 1.3 x real time; shed: 720p"
    assert describe(HOLDS, shed).shed == ["720p"]


@pytest.mark.parametrize(
    ("standing", "preempted_by", "state", "text"),
    [
        (WAITS, "", "waits", "ladder waits: 2 before it; it needs 45 of 100 slots"),
        (
            Standing[str](cost=45, holds=False, before=0, preempted_by="bob", is_too_large=False),
            "partner bob",
            "preempted",
            "ladder preempted for partner bob; it needs 45 of 100 slots",
        ),
        (
            Standing[str](cost=45, holds=False, before=0, preempted_by="alice", is_too_large=False),
            "",
            "preempted",
            "ladder stopped: it needs 45 of 100 slots now",
        ),
        (
            Standing[str](cost=145, holds=False, before=0, preempted_by=None, is_too_large=True),
            "",
            "waits",
            "no ladder: it needs 145 of 100 slots",
        ),
    ],
    ids=["waits", "preempted", "grown", "too large"],
)
def test_one_that_has_no_slots_says_why(
    standing: Standing[str], preempted_by: str, state: str, text: str
) -> None:
    seen = describe(standing, Making(state="waiting"), preempted_by=preempted_by)
    assert (seen.state, seen.text) == (state, text)
    assert seen.rungs == seen.shed == []


def test_the_other_states() -> None:
    assert describe(None, is_measured=False).text == "ladder waits: this machine is being measured"
    assert describe(None).text == "no ladder: preset veryfast"
    assert describe(None, plan=LadderPlan()).state == "none"
    assert describe(HOLDS, Making(state="ended")).state == "ended"
    assert describe(HOLDS, Making(state="starting")).text == "ladder starts: 720p 480p"
    failed = describe(HOLDS, Making(state="waiting", last_reason="killed by signal 9"))
    assert (failed.state, failed.text) == (
        "failed", "ladder failed, begun anew: killed by signal 9",
    )  # fmt: skip


def test_it_is_bounded() -> None:
    seen = describe(HOLDS, Making(state="waiting", last_reason="x" * 1000))
    assert len(seen.text) == TEXT_CHARS_MAX
