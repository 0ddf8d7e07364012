"""The bench measures what it says; what it measures on this machine is for people."""

import shutil

import pytest

from tests.bench.transcode.__main__ import parse_arguments
from tests.bench.transcode.bench import Row, Run, as_line, run_once, summarize

SMALL = Row("240p15", 426, 240, 15)


def test_arguments_and_their_limits() -> None:
    assert parse_arguments([]).runs == 5
    assert parse_arguments(["--row", "720p30"]).row == ["720p30"]
    for bad in (["--runs", "0"], ["--seconds", "61"], ["--preset", "auto"], ["--row", "x"]):
        with pytest.raises(SystemExit):
            parse_arguments(bad)


def test_a_line_says_whether_the_goal_is_met() -> None:
    runs = [
        Run(ffmpeg_s=10.0, child_s=child_s, start_s=0.3, parent_s=0.1, units=9)
        for child_s in (9.9, 10.3, 11.0)
    ]
    summary = summarize(SMALL, 10, runs)
    assert summary.ratio == pytest.approx(1.04)
    assert "1.040 x, goal 1.05 met" in as_line(summary)
    assert "MISSED" in as_line(summarize(SMALL, 10, runs[2:]))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="not installed: ffmpeg")
def test_both_make_the_same_ladder() -> None:
    run = run_once(SMALL, 2, "ultrafast")
    assert run.units == 30
    assert 0 < run.ffmpeg_s < 30
    assert 0 < run.child_s < 30
