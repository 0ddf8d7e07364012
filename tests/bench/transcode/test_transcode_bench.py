"""The bench measures what it says; what it measures on this machine is for people."""

from fractions import Fraction

import pytest

from tests.bench.goals import exit_status
from tests.bench.ingest.processes import BenchError
from tests.bench.transcode.__main__ import parse_arguments
from tests.bench.transcode.bench import (
    Row,
    Run,
    as_line,
    check_alike,
    choose,
    run_once,
    summarize,
)
from tests.conftest import require
from tests.policy.test_ladder import video

SMALL = Row("240p15", 426, 240, 15)


def test_arguments_and_their_limits() -> None:
    assert parse_arguments([]).runs == 5
    assert parse_arguments(["--row", "720p30"]).row == ["720p30"]
    for bad in (["--runs", "0"], ["--seconds", "61"], ["--preset", "auto"], ["--row", "x"]):
        with pytest.raises(SystemExit):
            parse_arguments(bad)


def test_a_line_says_whether_the_goal_is_reached() -> None:
    runs = [
        Run(ffmpeg_s=10.0, child_s=child_s, start_s=0.3, parent_s=0.1, units=9)
        for child_s in (9.9, 10.3, 11.0)
    ]
    summary = summarize(SMALL, 10, runs)
    assert summary.ratio == pytest.approx(1.04)
    assert "1.040 x, goal <= 1.05: reached" in as_line(summary)
    assert exit_status(as_line(summary)) == 0
    missed = as_line(summarize(SMALL, 10, runs[2:]))
    assert ("1.110 x, goal <= 1.05: MISSED" in missed, exit_status(missed)) == (True, 1)


@pytest.mark.e2e
def test_both_make_the_same_ladder() -> None:
    require("ffmpeg")
    run = run_once(SMALL, 2, "ultrafast")
    assert run.units == 30
    assert 0 < run.ffmpeg_s < 30
    assert 0 < run.child_s < 30


def test_what_is_not_the_same_ladder_is_not_compared() -> None:
    plan = choose([video(1280, 720, Fraction(60))], "ultrafast")
    assert [bool(rung.spacing_ticks) for rung in plan.video] == [True, True, True]
    check_alike(plan, 60, [30, 30, 31], [30, 29, 30])
    for ours, theirs, told in (
        ([30, 30, 28], [30, 30, 30], r"ours rungs have \[30, 30, 28\] pictures"),
        ([30, 30, 30], [60, 30, 30], r"ffmpeg's rungs have \[60, 30, 30\] pictures, and were to"),
        ([30, 30, 30], [30, 30], "ffmpeg's rungs have"),
    ):
        with pytest.raises(BenchError, match=told):
            check_alike(plan, 60, ours, theirs)
