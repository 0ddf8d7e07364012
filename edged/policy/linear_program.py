"""A linear program in HiGHS: solved once, then again from there as its numbers change.

    minimise cost · x  subject to  lower <= x <= upper,  row_lower <= A x <= row_upper

The matrix stays. From a cold start the same numbers give the same result, bit for bit: one thread,
no time limit, the simplex algorithm without presolve. Whoever wants that of a warm start as well
must replay all that was solved since the cold one.
"""

from typing import Final

import highspy
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from edged.errors import SolverError

COLUMNS_MAX = 60_000  # 200 PoPs x 99 origins x 3 classes: 0.2 s from cold, 0.1 s warm.
ITERATIONS_MAX = 200_000  # 300 times what 100 x 10 x 3 needs from cold. Not a time: that has luck.
INFINITY: Final = float(highspy.kHighsInf)

Floats = NDArray[np.float64]
Indices = NDArray[np.int32]

_OPTIONS: Final[tuple[tuple[str, str | int | bool], ...]] = (
    ("output_flag", False),
    ("threads", 1),
    ("parallel", "off"),
    ("solver", "simplex"),
    ("presolve", "off"),  # It takes longer than what it saves here.
    ("simplex_scale_strategy", 0),  # Every entry is 1.
    ("simplex_dual_edge_weight_strategy", 1),  # Devex: steepest edge begins each time at a price.
    ("random_seed", 0),
    ("simplex_iteration_limit", ITERATIONS_MAX),
)


class Entries(Struct, frozen=True):
    """The matrix A by its entries that are not 0, in any order, each place once."""

    rows: Indices
    columns: Indices
    values: Floats


class Numbers(Struct, frozen=True, kw_only=True):
    """What may change between two solutions."""

    cost: Floats
    lower: Floats
    upper: Floats
    row_lower: Floats
    row_upper: Floats


class Optimum(Struct, frozen=True, kw_only=True):
    """A solution.

    `row_prices`: by how much the cost would fall per unit by which a row's limit gives way; never
    negative for a row with an upper limit alone.
    """

    values: Floats
    row_values: Floats
    row_prices: Floats
    cost: float
    iterations: int
    cold: bool


class LinearProgram:
    """One matrix."""

    def __init__(self, entries: Entries, *, columns: int, rows: int) -> None:
        """Raise SolverError when there are more columns than COLUMNS_MAX."""
        if columns > COLUMNS_MAX:
            raise SolverError(f"linear program of {columns} columns exceeds {COLUMNS_MAX}")
        order = np.lexsort((entries.rows, entries.columns))
        self._index = entries.rows[order].astype(np.int32)
        self._value = entries.values[order].astype(np.float64)
        counts = np.bincount(entries.columns, minlength=columns)
        self._start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        self._columns, self._rows = columns, rows
        self._highs: highspy.Highs | None = None
        self._loaded: Numbers | None = None

    def restart(self) -> None:
        """Solve cold next time."""
        self._highs = self._loaded = None

    def solve(self, numbers: Numbers) -> Optimum:
        """Solve; raises SolverError, after which the next solution begins cold."""
        for name in Numbers.__struct_fields__:
            if np.isnan(getattr(numbers, name)).any():
                raise SolverError(f"linear program: not every {name} is a number")
        cold = self._highs is None
        try:
            return self._solve(numbers, cold=cold)
        except SolverError:
            self.restart()
            if cold:
                raise
        try:  # What a warm start stumbles over, a cold one may not.
            return self._solve(numbers, cold=True)
        except SolverError:
            self.restart()
            raise

    def _solve(self, numbers: Numbers, *, cold: bool) -> Optimum:
        if cold or self._highs is None:
            self._highs = self._load(numbers)
        else:
            self._change(self._highs, numbers)
        self._loaded = numbers
        highs = self._highs
        try:
            highs.run()
        except RuntimeError as error:  # As C++ exceptions come.
            raise SolverError(f"linear program: {error}") from error
        status = highs.getModelStatus()
        if status != highspy.HighsModelStatus.kOptimal:
            raise SolverError(
                f"linear program of {self._columns} columns and {self._rows} rows:"
                f" {highs.modelStatusToString(status)}"
            )
        solution, info = highs.getSolution(), highs.getInfo()
        values = np.array(solution.col_value, dtype=np.float64)
        if not np.isfinite(values).all():
            raise SolverError("linear program: a value of the solution is no number")
        return Optimum(
            values=values,
            row_values=np.array(solution.row_value, dtype=np.float64),
            row_prices=0.0 - np.array(solution.row_dual, dtype=np.float64),  # No -0.0.
            cost=float(info.objective_function_value),
            iterations=int(info.simplex_iteration_count),
            cold=cold,
        )

    def _load(self, numbers: Numbers) -> highspy.Highs:
        highs = highspy.Highs()
        for name, value in _OPTIONS:
            _check(highs.setOptionValue(name, value), f"option {name}")
        model = highspy.HighsLp()
        model.num_col_, model.num_row_ = self._columns, self._rows
        model.col_cost_ = numbers.cost
        model.col_lower_, model.col_upper_ = numbers.lower, numbers.upper
        model.row_lower_, model.row_upper_ = numbers.row_lower, numbers.row_upper
        model.a_matrix_.format_ = highspy.MatrixFormat.kColwise
        model.a_matrix_.start_ = self._start
        model.a_matrix_.index_ = self._index
        model.a_matrix_.value_ = self._value
        _check(highs.passModel(model), "model")
        return highs

    def _change(self, highs: highspy.Highs, numbers: Numbers) -> None:
        """Tell HiGHS what differs from what it has."""
        before = self._loaded
        assert before is not None, "it was loaded with some"
        if (at := _changed(before.cost, numbers.cost)).size:
            _check(highs.changeColsCost(at.size, at, numbers.cost[at]), "costs")
        at = _changed(before.lower, numbers.lower, before.upper, numbers.upper)
        if at.size:
            done = highs.changeColsBounds(at.size, at, numbers.lower[at], numbers.upper[at])
            _check(done, "bounds")
        at = _changed(before.row_lower, numbers.row_lower, before.row_upper, numbers.row_upper)
        for row in at.tolist():
            done = highs.changeRowBounds(
                row, float(numbers.row_lower[row]), float(numbers.row_upper[row])
            )
            _check(done, "limits of rows")


def _changed(*pairs: Floats) -> Indices:
    """Where the first differs from the second, or the third from the fourth."""
    differs = pairs[0] != pairs[1]
    for before, after in zip(pairs[2::2], pairs[3::2], strict=True):
        differs |= before != after
    return np.flatnonzero(differs).astype(np.int32)


def _check(status: highspy.HighsStatus, what: str) -> None:
    if status == highspy.HighsStatus.kError:
        raise SolverError(f"linear program: HiGHS does not take the {what}")
