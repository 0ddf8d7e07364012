"""The packager's bench measures what it says: a short run."""

import pytest

from tests.bench.goals import exit_status
from tests.bench.packager.__main__ import (
    LADDER_RUNGS,
    Round,
    Shape,
    as_table,
    main,
    parse_arguments,
    run,
    run_rounds,
)


def test_streams_are_cut_and_counted() -> None:
    shape = Shape(30, 2)
    _, parts = run(shape, 2, 4, packages=True)
    assert parts == pytest.approx(2 * shape.renditions * 4 * 5, abs=2 * shape.renditions * 2)
    assert run(shape, 2, 4, packages=False)[1] == 0
    (done,) = run_rounds(Shape(30, 1), 3, 4, 1)
    assert done.percent > 0
    assert done.ring_percent > 0
    assert done.ladder_percent > 0
    assert done.ladder_parts == pytest.approx(3 * LADDER_RUNGS * 4 * 5, abs=3 * LADDER_RUNGS * 3)


def test_the_table_and_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    reached = as_table(Shape(30, 1), [Round(0.02, 0.01, 1, 0.02, 1)])
    assert (reached.count("reached"), exit_status(reached)) == (2, 0)
    missed = as_table(Shape(60, 4), [Round(0.0201, 0.01, 1, 0.02, 1)] * 3)
    assert (missed.count("MISSED"), exit_status(missed)) == (1, 1)
    assert "60 fps, 4 of video" in missed
    missed = as_table(Shape(30, 1), [Round(0.02, 0.01, 1, 0.0201, 1)] * 3)
    assert "rungs of a ladder: 0.0201 % of a core per rung and stream (goal <= 0.02: M" in missed
    assert exit_status(missed) == 1
    assert parse_arguments([]).streams == 100
    with pytest.raises(SystemExit):
        main(["--fps", "0"])
    assert "at least 1" in capsys.readouterr().err
