"""HiGHS behind one door: cold and warm, prices, limits, and what it cannot solve."""

import highspy
import numpy as np
import pytest

from edged.errors import SolverError
from edged.policy import linear_program
from edged.policy.linear_program import INFINITY, Entries, LinearProgram, Numbers


def program() -> LinearProgram:
    """x + y in one row, y in another."""
    entries = Entries(
        np.array([1, 0, 0], np.int32), np.array([1, 1, 0], np.int32), np.array([1.0, 1.0, 1.0])
    )
    return LinearProgram(entries, columns=2, rows=2)


def numbers(
    cost: tuple[float, float],
    *,
    upper: float = INFINITY,
    at_least: float = 4.0,
    y_max: float = 3.0,
) -> Numbers:
    return Numbers(
        cost=np.array(cost),
        lower=np.zeros(2),
        upper=np.full(2, upper),
        row_lower=np.array([at_least, -INFINITY]),
        row_upper=np.array([INFINITY, y_max]),
    )


def test_it_is_solved_and_goes_on_from_there() -> None:
    lp = program()
    first = lp.solve(numbers((5.0, 2.0)))
    assert (first.values.tolist(), first.cost, first.cold) == ([1.0, 3.0], 11.0, True)
    assert first.row_values.tolist() == [4.0, 3.0]
    assert first.row_prices.tolist() == [-5.0, 3.0]  # One more of y saves 3.
    again = lp.solve(numbers((5.0, 2.0)))
    assert (again.values.tolist(), again.cold, again.iterations) == ([1.0, 3.0], False, 0)


@pytest.mark.parametrize(
    ("changed", "values"),
    [
        (numbers((1.0, 2.0)), [4.0, 0.0]),  # Costs.
        (numbers((5.0, 2.0), upper=2.0), [2.0, 2.0]),  # Bounds.
        (numbers((5.0, 2.0), at_least=6.0, y_max=1.0), [5.0, 1.0]),  # Limits of rows.
    ],
)
def test_what_changes_counts(changed: Numbers, values: list[float]) -> None:
    lp = program()
    lp.solve(numbers((5.0, 2.0)))
    assert lp.solve(changed).values.tolist() == values
    lp.restart()
    cold = lp.solve(changed)
    assert (cold.values.tolist(), cold.cold) == (values, True)


def test_what_has_no_solution_is_an_error_and_the_next_begins_cold() -> None:
    lp = program()
    lp.solve(numbers((5.0, 2.0)))
    with pytest.raises(SolverError, match=r"2 columns and 2 rows: Infeasible"):
        lp.solve(numbers((5.0, 2.0), upper=1.0))
    assert lp.solve(numbers((5.0, 2.0))).cold
    with pytest.raises(SolverError, match=r"(?i)unbounded"):
        program().solve(numbers((-1.0, 2.0)))


def test_what_is_no_number_is_an_error() -> None:
    lp = program()
    lp.solve(numbers((5.0, 2.0)))
    with pytest.raises(SolverError, match="not every cost is a number"):
        lp.solve(numbers((float("nan"), 1.0)))
    with pytest.raises(SolverError, match="not every row_lower is a number"):
        lp.solve(numbers((5.0, 2.0), at_least=float("nan")))
    assert lp.solve(numbers((5.0, 2.0))).cost == 11.0


def test_what_highs_throws_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(highspy.Highs):
        def run(self) -> highspy.HighsStatus:
            raise RuntimeError("out of luck")

    monkeypatch.setattr(highspy, "Highs", Broken)
    with pytest.raises(SolverError, match="linear program: out of luck"):
        program().solve(numbers((5.0, 2.0)))


def test_iterations_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """By their number, which is the same each time, not by a clock."""
    options = tuple(
        (name, 0 if name == "simplex_iteration_limit" else value)
        for name, value in linear_program._OPTIONS
    )
    monkeypatch.setattr(linear_program, "_OPTIONS", options)
    with pytest.raises(SolverError, match=r"(?i)iteration limit"):
        program().solve(numbers((5.0, 2.0)))


def test_columns_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_program, "COLUMNS_MAX", 2)
    program()
    monkeypatch.setattr(linear_program, "COLUMNS_MAX", 1)
    with pytest.raises(SolverError, match="linear program of 2 columns exceeds 1"):
        program()
