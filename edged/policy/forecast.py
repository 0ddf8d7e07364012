"""What a network will be asked for, by what it was asked for at the same time of earlier days.

    expected = the mean of the same slot of the last DAYS_MAX days, each grown until then
    high     = expected + HIGH_SIGMAS x how far the days were apart, at least as chance has it

Days count less the older they are (half after HALF_LIFE_DAYS), and less where one is of a weekend
and the other is not; those are brought to the other kind's height. That, and growth, the last week
over the one before, are of the whole network: one PoP's weeks are too few to tell them from chance.
A slot that no day has is that of its neighbours.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

from msgspec import Struct

from edged.media.routing import CLASSES
from edged.policy.demand import SLOT_S, SLOTS_PER_DAY, DemandRow

DAYS_MAX = 28
HALF_LIFE_DAYS = 7.0
OTHER_KIND_WEIGHT = 0.25  # Of a day of a weekend for one of the week, and the other way round.
HIGH_SIGMAS = 1.645  # One slot in twenty is higher, if the days are apart by chance.
GROWTH_MIN, GROWTH_MAX = 0.5, 2.0  # Beyond, it was no growth but an event.
WEEK = 7 * SLOTS_PER_DAY
WEEKEND_MIN, WEEKEND_MAX = 0.25, 4.0  # As high as the days of the week, times this.
SHARED_MIN = SLOTS_PER_DAY  # Slots of both weeks, or kinds of day, so that they are compared.
NEIGHBOURS_MAX = 12  # Slots to either side that may stand for one that is not there: an hour.
EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday.
SATURDAY = 5

Floats3 = tuple[float, float, float]  # By class, highest first.


class Expected(Struct, frozen=True):
    """One PoP in one slot to come, in units by class."""

    slot: int
    pop: str
    expected: Floats3
    high: Floats3
    days: int  # That it is made of.


class Forecast(Struct, frozen=True, kw_only=True):
    """All PoPs, slot by slot."""

    rows: list[Expected]
    growth: float
    days: float  # Of history, from its first slot to its last.


class History:
    """Rows by slot and PoP; the newest of a slot holds."""

    def __init__(self, rows: Iterable[DemandRow]) -> None:
        self._of: dict[str, dict[int, DemandRow]] = defaultdict(dict)
        self.first, self.last = 0, -1
        for row in rows:
            self.first = row.slot if self.last < 0 else min(self.first, row.slot)
            self.last = max(self.last, row.slot)
            self._of[row.pop][row.slot] = row

    @property
    def pops(self) -> list[str]:
        """All that it tells of."""
        return sorted(self._of)

    def totals(self, begin: int, end: int) -> dict[int, int]:
        """Units of all PoPs and classes, by slot."""
        found: dict[int, int] = defaultdict(int)
        for rows in self._of.values():
            for slot in range(begin, end):
                if (row := rows.get(slot)) is not None:
                    found[slot] += sum(row.units)
        return found

    def row(self, pop: str, slot: int, within: int = 0) -> DemandRow | None:
        """The row of a slot, else of the nearest within so many."""
        rows = self._of[pop]
        for away in range(within + 1):
            for place in (slot - away, slot + away):
                if (row := rows.get(place)) is not None:
                    return row
        return None


def forecast(history: History, begin: int, slots: int) -> Forecast:
    """What is expected of each PoP in `slots` slots from `begin` on, later than the history."""
    growth, weekend = _growth(history), _weekend(history)
    rows = [
        _expect(history, pop, slot, growth, weekend)
        for slot in range(begin, begin + slots)
        for pop in history.pops
    ]
    days = (history.last - history.first + 1) / SLOTS_PER_DAY if history.pops else 0.0
    return Forecast(rows=rows, growth=growth, days=days)


def _growth(history: History) -> float:
    """Of a week; 1 where two weeks share too little to tell."""
    end = history.last + 1
    after = history.totals(end - WEEK, end)
    before = history.totals(end - 2 * WEEK, end - WEEK)
    shared = [slot for slot in after if slot - WEEK in before]
    was = sum(before[slot - WEEK] for slot in shared)
    if len(shared) < SHARED_MIN or not was:
        return 1.0
    return min(GROWTH_MAX, max(GROWTH_MIN, sum(after[slot] for slot in shared) / was))


def _weekend(history: History) -> float:
    """How high a slot of a weekend is, of those of other days; 1 where there are too few."""
    end = history.last + 1
    of_kind: dict[bool, list[int]] = {True: [], False: []}
    for slot, units in history.totals(end - DAYS_MAX * SLOTS_PER_DAY, end).items():
        of_kind[is_weekend(slot)].append(units)
    if min(map(len, of_kind.values())) < SHARED_MIN or not sum(of_kind[False]):
        return 1.0
    weekend, others = (math.fsum(of_kind[kind]) / len(of_kind[kind]) for kind in (True, False))
    return min(WEEKEND_MAX, max(WEEKEND_MIN, weekend / others))


def _expect(history: History, pop: str, slot: int, growth: float, weekend: float) -> Expected:
    found = _days(history, pop, slot, 0) or _days(history, pop, slot, NEIGHBOURS_MAX)
    weights: list[float] = []
    grown: list[list[float]] = []
    for day, row in found:
        times = growth ** (day / 7)
        weight: float = 0.5 ** (day / HALF_LIFE_DAYS)
        if is_weekend(slot - day * SLOTS_PER_DAY) != is_weekend(slot):
            times *= weekend if is_weekend(slot) else 1 / weekend
            weight *= OTHER_KIND_WEIGHT
        weights.append(weight)
        grown.append([times * units for units in row.units])
    total = math.fsum(weights)
    expected, high = [0.0] * len(CLASSES), [0.0] * len(CLASSES)
    for k in range(len(CLASSES)):
        values = [units[k] for units in grown]
        expected[k] = mean = _mean(weights, values, total)
        spread = _mean(weights, [(value - mean) ** 2 for value in values], total)
        high[k] = mean + HIGH_SIGMAS * math.sqrt(max(spread, mean))
    return Expected(slot, pop, _three(expected), _three(high), len(found))


def _days(history: History, pop: str, slot: int, within: int) -> list[tuple[int, DemandRow]]:
    """The same time of earlier days, and how many days ago."""
    found = []
    for day in range(1, DAYS_MAX + 1):
        before = slot - day * SLOTS_PER_DAY
        row = history.row(pop, before, within) if before <= history.last else None
        if row is not None:
            found.append((day, row))
    return found


def _mean(weights: Sequence[float], values: Sequence[float], total: float) -> float:
    if not total:
        return 0.0
    return math.fsum(w * value for w, value in zip(weights, values, strict=True)) / total


def _three(values: Sequence[float]) -> Floats3:
    return (values[0], values[1], values[2])


def is_weekend(slot: int) -> bool:
    """Whether a slot is of a Saturday or a Sunday, UTC."""
    day = slot * SLOT_S // 86_400
    return (day + EPOCH_WEEKDAY) % 7 >= SATURDAY


class Check(Struct, frozen=True, kw_only=True):
    """How a forecast of what has come since has fared; of all PoPs together, slot by slot."""

    slots: int
    off: float  # How far it was off, as a part of what came: the mean.
    above_high: float  # The part of the slots of single PoPs in which more came than `high`.


def check_forecast(history: Iterable[DemandRow], slots: int = SLOTS_PER_DAY) -> Check | None:
    """Forecast the newest slots by those before; None where there is not a day before them."""
    rows = list(history)
    whole = History(rows)
    begin = whole.last + 1 - slots
    if begin - whole.first < SLOTS_PER_DAY:
        return None
    told = forecast(History(row for row in rows if row.slot < begin), begin, slots)
    came = {(row.slot, row.pop): row for row in rows if row.slot >= begin}
    expected, real = defaultdict[int, float](float), defaultdict[int, float](float)
    above = compared = 0
    for each in told.rows:
        row = came.get((each.slot, each.pop))
        if row is None:
            continue
        expected[each.slot] += math.fsum(each.expected)
        real[each.slot] += sum(row.units)
        compared += 1
        above += any(units > high for units, high in zip(row.units, each.high, strict=True))
    total = math.fsum(real.values())
    if not compared or not total:
        return None
    off = math.fsum(abs(expected[slot] - real[slot]) for slot in real) / total
    return Check(slots=len(real), off=off, above_high=above / compared)
