"""Rates from counters that only rise: a bounded history of samples, about one per second.

Hot paths keep plain integers; whoever shows them reads them once a second into a `History`, which
answers how fast they rose lately. Plain arrays: 0.5 KB per column for a minute.
"""

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

    __slots__ = ("_at", "_columns", "_next", "_rising", "_samples_max", "_size")

    def __init__(self, columns: int, samples_max: int = SAMPLES_MAX) -> None:
        assert columns > 0, "there is something to be noted"
        assert samples_max > 1, "a rate needs two samples"
        self._samples_max = samples_max
        self._at = array("d", bytes(8 * samples_max))
        self._columns = [array("d", bytes(8 * samples_max)) for _ in range(columns)]
        self._rising = [0] * columns  # Samples since a counter last fell, that one counted.
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
        index, rising = self._next, self._rising
        self._at[index] = at
        for number, value in enumerate(values):
            column = self._columns[number]
            taken = min(max(0.0, value), VALUE_MAX) if math.isfinite(value) else 0.0
            rising[number] = rising[number] + 1 if taken >= column[index - 1] else 1
            column[index] = taken
        self._next = (index + 1) % self._samples_max
        self._size = min(self._size + 1, self._samples_max)
        return True

    def rate(self, column: int, window_s: float) -> float:
        """How much a counter rose per second over about the last `window_s`; 0 until it is known.

        A fall within the window counts from there. The sample taken as its begin is the one nearest
        in time: a sampler that is a little late or early must not halve the window.
        """
        reach = min(self._rising[column], self._size) - 1  # Steps back that may be taken.
        if reach < 1:
            return 0.0
        times, most = self._at, self._samples_max
        last = self._next - 1
        at = times[last]
        low, high = 1, reach  # The fewest steps back that reach the window's begin, or beyond.
        while low < high:
            steps = (low + high) // 2
            if at - times[(last - steps) % most] >= window_s:
                high = steps
            else:
                low = steps + 1
        before = at - times[(last - low) % most]
        if low > 1 and before - window_s > window_s - (at - times[(last - low + 1) % most]):
            low -= 1
        values, first = self._columns[column], (last - low) % most
        return (values[last] - values[first]) / (at - times[first])

    def latest(self, column: int) -> float:
        """The newest value of a column; 0 without one."""
        return self._columns[column][self._next - 1] if self._size else 0.0

    def rates(self, column: int) -> list[float]:
        """How much a counter rose per second between its samples, oldest first."""
        values, times = self._ordered(self._columns[column]), self._ordered(self._at)
        return [
            (value - before) / (at - since) if value > before else 0.0
            for before, value, since, at in zip(values, values[1:], times, times[1:], strict=False)
        ]

    def values(self, column: int) -> list[float]:
        """A gauge's samples, oldest first."""
        return self._ordered(self._columns[column]).tolist()

    def _ordered(self, ring: "array[float]") -> "array[float]":
        if self._size < self._samples_max:
            return ring[: self._size]
        return ring[self._next :] + ring[: self._next]
