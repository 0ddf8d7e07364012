"""The packager's bench measures what it says: a short run."""

import pytest

from tests.bench.goals import exit_status
from tests.bench.packager.__main__ import (
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


def test_the_table_and_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    reached = as_table(Shape(30, 1), [Round(0.02, 0.01, 1)])
    assert ("reached" in reached, exit_status(reached)) == (True, 0)
    missed = as_table(Shape(60, 4), [Round(0.0201, 0.01, 1)] * 3)
    assert ("MISSED" in missed, exit_status(missed)) == (True, 1)
    assert "60 fps, 4 of video" in missed
    assert parse_arguments([]).streams == 100
    with pytest.raises(SystemExit):
        main(["--fps", "0"])
    assert "at least 1" in capsys.readouterr().err
