"""Rates from counters that only rise: a bounded history of samples, about one per second.

Hot paths keep plain integers; whoever shows them reads them once a second into a `History`, which
answers how fast they rose lately. Plain arrays: 0.5 KB per column for a minute.
"""

import itertools
import math
from array import array

SAMPLES_MAX = 61  # A minute at one per second, both ends.
INTERVAL_S_MIN = 0.05  # Samples closer together say nothing about a rate.
VALUE_MAX = 2.0**63  # Above any count of bytes; it keeps differences finite.


class History:
    """The last samples of several counters, or gauges, that are read together.

    A counter that falls has begun anew: what was before it counts no more. Values are taken as 0 to
    VALUE_MAX; what is no number counts as 0. A sample that is not after the last one, or less than
    INTERVAL_S_MIN after it, is not taken.
    """

    __slots__ = ("_at", "_columns", "_next", "_samples_max", "_size")

    def __init__(self, columns: int, samples_max: int = SAMPLES_MAX) -> None:
        assert columns > 0, "there is something to be noted"
        assert samples_max > 1, "a rate needs two samples"
        self._samples_max = samples_max
        self._at = array("d", bytes(8 * samples_max))
        self._columns = [array("d", bytes(8 * samples_max)) for _ in range(columns)]
        self._next = 0  # Where the next sample goes.
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def note(self, at: float, *values: float) -> bool:
        """Take a sample of all columns at `at` (monotonic seconds); False if it is not taken."""
        assert len(values) == len(self._columns), "each column is sampled"
        if not math.isfinite(at):
            return False
        if self._size and at - self._at[self._next - 1] < INTERVAL_S_MIN:
            return False
        index = self._next
        self._at[index] = at
        for column, value in zip(self._columns, values, strict=True):
            column[index] = min(max(0.0, value), VALUE_MAX) if math.isfinite(value) else 0.0
        self._next = (index + 1) % self._samples_max
        self._size = min(self._size + 1, self._samples_max)
        return True

    def rate(self, column: int, window_s: float) -> float:
        """How much a counter rose per second over about the last `window_s`; 0 until it is known.

        A fall within the window counts from there.
        """
        if self._size < 2:  # noqa: PLR2004 - a rate needs two samples
            return 0.0
        values, times = self._columns[column], self._at
        last = self._next - 1
        at, value = times[last], values[last]
        first, steps = last, 0
        while steps < self._size - 1:
            before = (first - 1) % self._samples_max
            if values[before] > values[first]:
                break
            # Take a sample that is a little early rather than miss half of the window.
            if steps and at - times[before] > window_s + (times[first] - times[before]) / 2:
                break
            first, steps = before, steps + 1
        if not steps:
            return 0.0
        return max(0.0, (value - values[first]) / (at - times[first]))

    def latest(self, column: int) -> float:
        """The newest value of a column; 0 without one."""
        return self._columns[column][self._next - 1] if self._size else 0.0

    def rates(self, column: int) -> list[float]:
        """How much a counter rose per second between its samples, oldest first."""
        found = []
        order = self._order()
        values, times = self._columns[column], self._at
        for before, after in itertools.pairwise(order):
            rise = values[after] - values[before]
            found.append(max(0.0, rise) / (times[after] - times[before]))
        return found

    def values(self, column: int) -> list[float]:
        """A gauge's samples, oldest first."""
        return [self._columns[column][index] for index in self._order()]

    def _order(self) -> list[int]:
        start = self._next - self._size
        return [(start + step) % self._samples_max for step in range(self._size)]
