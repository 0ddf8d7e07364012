"""What a network will be asked for, by what it was asked for at the same time of earlier days.

    expected = the mean of the same slot of the newest DAYS_MAX days, each grown until then
    high     = expected x (1 + t x how far days were from it, all PoPs together)

Newer days count more (half after HALF_LIFE_DAYS). A slot of a weekend is made of weekends alone and
another of other days alone, where there are KIND_DAYS_MIN of them; days are those of UTC, so far
from Greenwich some hours of a weekend are of other days. Growth, of a week, is the median of days
over the same ones a week before, of PoPs that were there in both. `high` is of all PoPs together,
as one is high when another is low; t is Student's, as a few days tell little of how far they are
apart. A slot that no day has is that of a neighbour within NEIGHBOURS_MAX.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from edged.policy.day_plan import Check
from edged.policy.demand import SAMPLES_PER_SLOT, SLOT_S, SLOTS_PER_DAY

DAYS_MAX = 28
CHECK_DAYS_MAX = 7  # A week: its weekend included.
HALF_LIFE_DAYS = 7.0
KIND_DAYS_MIN = 2
HIGH_DAYS_MIN = 4  # With fewer t alone makes more than twice of it.
GROWTH_DAYS_MIN = 3
GROWTH_MIN, GROWTH_MAX = 0.5, 2.0  # Beyond, it was no growth but an event.
SHARED_MIN = SLOTS_PER_DAY // 2  # Slots of two days, so that they are compared.
NEIGHBOURS_MAX = 4  # An hour.
SMOOTHED = 4  # Slots to either side that tell of how far days are apart, too.
SAMPLES_MIN = SAMPLES_PER_SLOT // 3  # Fewer say little of a slot.
AHEAD_SLOTS_MAX = DAYS_MAX * SLOTS_PER_DAY
SLOTS_READ = (DAYS_MAX + CHECK_DAYS_MAX) * SLOTS_PER_DAY
EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday.
SATURDAY = 5
CLASSES = 3
KINDS = CLASSES + 1  # Units by class, and Mbps that come back from origins.

# 95 % of Student's t are below, by degrees of freedom; https://www.itl.nist.gov/div898/handbook.
_T95 = {1: 6.314, 2: 2.920, 3: 2.353, 4: 2.132, 5: 2.015, 6: 1.943, 8: 1.860, 10: 1.812, 15: 1.753,
        20: 1.725, 30: 1.697, 60: 1.671}  # fmt: skip
_T95_NORMAL = 1.645

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Record = tuple[int, str, int, int, int, int, float, float, int]  # As `irs.history_file` has it.


class History:
    """What was told, by slot, PoP and kind; what nobody told is NaN.

    `last`: of slots, the last of which something is known.
    """

    def __init__(self, first: int, last: int, chunks: Iterable[Sequence[Record]]) -> None:
        """Raise ValueError where a record is none."""
        self.first, self.last = first, last
        self.values: Floats = np.full((last - first + 1, 0, KINDS), np.nan)
        sums: Floats = np.zeros((0, 3))  # By PoP: units and Mbps of all samples, and unplaced.
        places: dict[str, int] = {}
        for chunk in chunks:
            columns = list(zip(*chunk, strict=True))
            slot = np.array(columns[0], dtype=np.int64) - first
            if slot.min() < 0 or slot.max() > last - first:
                raise ValueError("a slot is not one of those that were asked for")
            pop = np.array([places.setdefault(each, len(places)) for each in columns[1]])
            number = np.stack([np.array(column, dtype=np.float64) for column in columns[2:]])
            if not (np.isfinite(number) & (number >= 0)).all():
                raise ValueError("a number of it is below 0, or none")
            if (more := len(places) - len(sums)) > 0:
                grown = ((0, 0), (0, more), (0, 0))
                self.values = np.pad(self.values, grown, constant_values=np.nan)
                sums = np.pad(sums, ((0, more), (0, 0)))
            samples, units, to_mbps = number[0], number[1 : 1 + CLASSES], number[1 + CLASSES]
            enough = samples >= SAMPLES_MIN
            told = np.concatenate([units, number[None, 2 + CLASSES]])[:, enough] / samples[enough]
            self.values[slot[enough], pop[enough]] = told.T
            np.add.at(sums, pop, np.stack([units.sum(axis=0), to_mbps, number[-1]], axis=1))
        self.pops = sorted(places)
        order = [places[pop] for pop in self.pops]
        self.values, sums = self.values[:, order], sums[order]
        self.unplaced = {
            pop: round(count)
            for pop, count in zip(self.pops, sums[:, 2].tolist(), strict=True)
            if count
        }
        known = np.flatnonzero(~np.isnan(self.values[:, :, 0]).all(axis=1))
        self.last = first + int(known[-1]) if known.size else first - 1
        # By PoP; NaN where it is not known.
        self.mbps_per_unit: Floats = _over(sums[:, 1], np.where(sums[:, 1] > 0, sums[:, 0], 0.0))

    @property
    def days(self) -> float:
        """From the first slot to the last."""
        return (self.last - self.first + 1) / SLOTS_PER_DAY

    @property
    def known(self) -> float:
        """The part of the PoPs' slots that was told, since each came."""
        told = ~np.isnan(self.values[:, :, 0])
        since = np.logical_or.accumulate(told, axis=0)
        return float(told.sum() / since.sum()) if since.any() else 0.0

    def cut(self, begin: int, slots: int, end: int) -> Floats:
        """So many slots from `begin` on; those from `end` on, and where there are none, NaN."""
        found = np.full((slots, *self.values.shape[1:]), np.nan)
        low, high = max(begin, self.first), min(begin + slots, end, self.last + 1)
        if low < high:
            found[low - begin : high - begin] = self.values[low - self.first : high - self.first]
        return found


class Forecast(Struct, frozen=True, kw_only=True):
    """A day from slot `begin` on; arrays are by slot, PoP, kind."""

    begin: int
    pops: list[str]
    expected: Floats  # 0 where nothing tells of it.
    high_factor: Floats | None  # By slot: how much more there may be; None: too few days.
    days: NDArray[np.int64]  # By slot, PoP: that it is made of.
    growth: float | None
    gone: list[str]  # PoPs of which the newest day has nothing.
    untold: dict[str, int]  # By PoP: slots that nothing tells of.
    mixed: int  # Slots of single PoPs made of weekends and other days alike.

    def demand(self, *, high: bool) -> Floats:
        """Units by slot, PoP, class."""
        units = self.expected[:, :, :CLASSES]
        if high and self.high_factor is not None:
            return units * self.high_factor[:, None, None]
        return units

    @property
    def back_mbps(self) -> Floats:
        """What comes back from origins, by slot, PoP."""
        return self.expected[:, :, CLASSES]


def forecast(history: History, begin: int, end: int | None = None) -> Forecast:
    """The day from `begin` on, by what was told before slot `end`: by default, by all of it."""
    end = history.last + 1 if end is None else min(end, begin)
    newest = history.cut(end - SLOTS_PER_DAY, SLOTS_PER_DAY, end)
    here: Flags = np.asarray(~np.isnan(newest[:, :, 0]).all(axis=0))
    growth = _growth(history, end)
    days = np.arange(1, DAYS_MAX + 1)
    told = np.stack(
        [
            history.cut(begin - day * SLOTS_PER_DAY, SLOTS_PER_DAY, end)[:, here]
            for day in days.tolist()
        ]
    )
    told *= (growth or 1.0) ** (days / 7)[:, None, None, None]
    known = ~np.isnan(told[..., 0])
    alike, mixed = _of_kind(begin, days, known)
    weights = 0.5 ** (days / HALF_LIFE_DAYS)[:, None, None] * alike
    expected = _over(
        (weights[..., None] * np.nan_to_num(told)).sum(axis=0), weights.sum(axis=0)[..., None]
    )
    count = alike.sum(axis=0)
    factor = _high_factor(told[..., :CLASSES].sum(axis=-1), weights, expected[..., :CLASSES])
    _fill(expected)
    untold = np.isnan(expected[..., 0]).sum(axis=0)
    pops = [pop for pop, is_here in zip(history.pops, here.tolist(), strict=True) if is_here]
    return Forecast(
        begin=begin,
        pops=pops,
        expected=np.nan_to_num(expected),
        high_factor=factor,
        days=count,
        growth=growth,
        gone=[pop for pop in history.pops if pop not in pops],
        untold={pop: n for pop, n in zip(pops, untold.tolist(), strict=True) if n},
        mixed=mixed,
    )


def is_weekend(slot: NDArray[np.int64] | int) -> Flags:
    """Whether slots are of a Saturday or a Sunday, UTC."""
    day = np.asarray(slot) * SLOT_S // 86_400
    return np.asarray((day + EPOCH_WEEKDAY) % 7 >= SATURDAY)


def _of_kind(begin: int, days: NDArray[np.int64], known: Flags) -> tuple[Flags, int]:
    """Which days a slot of a PoP is made of, and how many such slots have to take all."""
    slots = begin + np.arange(SLOTS_PER_DAY)
    same = is_weekend(slots[None] - SLOTS_PER_DAY * days[:, None]) == is_weekend(slots)[None]
    alike = known & same[..., None]
    enough = alike.sum(axis=0) >= KIND_DAYS_MIN
    mixed = ~enough & (known & ~same[..., None]).any(axis=0)
    return np.where(enough[None], alike, known), int(mixed.sum())


def _growth(history: History, end: int) -> float | None:
    """Of a week; None where days have too little in common."""
    totals = [
        history.cut(end - day * SLOTS_PER_DAY, SLOTS_PER_DAY, end)[..., :CLASSES].sum(axis=-1)
        for day in range(1, DAYS_MAX + 1)
    ]
    ratios = []
    for after, before in zip(totals, totals[7:], strict=False):
        both = ~np.isnan(after) & ~np.isnan(before)
        now, then = after[both].sum(), before[both].sum()
        if both.any(axis=1).sum() >= SHARED_MIN and now > 0 and then > 0:
            ratios.append(now / then)
    if len(ratios) < GROWTH_DAYS_MIN:
        return None
    return min(GROWTH_MAX, max(GROWTH_MIN, float(np.median(ratios))))


def _high_factor(told: Floats, weights: Floats, expected: Floats) -> Floats | None:
    """By slot: how much more all PoPs together may have; None where too few days tell.

    `told`: units, and their `weights`, by day, slot, PoP.
    """
    mean = np.nan_to_num(expected.sum(axis=-1))
    has = weights > 0
    came = np.where(has, told, 0.0).sum(axis=-1)
    meant = np.where(has, mean[None], 0.0).sum(axis=-1)
    total = mean.sum(axis=-1)
    # A day counts as far as it has the PoPs.
    of_days = weights.max(axis=-1, initial=0.0) * np.nan_to_num(_over(meant, total[None]))
    ratio = np.nan_to_num(_over(came, meant), nan=1.0)
    there = total > 0
    if not there.any() or ((of_days > 0).sum(axis=0) < HIGH_DAYS_MIN)[there].any():
        return None
    weight = of_days.sum(axis=0)
    squares = _over((of_days**2).sum(axis=0), weight**2)
    around = _over((of_days * ratio).sum(axis=0), weight)
    spread = _over((of_days * (ratio - around) ** 2).sum(axis=0), weight)
    # Unbiased: a mean is nearer to what it is made of than to what comes.
    spread = _smooth(spread / np.maximum(1 - squares, 0.1))
    spread = np.maximum(spread, _over(np.ones_like(total), total))  # As chance has it.
    factor = 1 + _t95(1 / squares - 1) * np.sqrt(spread * (1 + squares))
    _fill(factor)  # Where there is nobody.
    return np.nan_to_num(factor, nan=1.0)


def _smooth(values: Floats) -> Floats:
    """The mean of a slot's neighbours and itself that are known, the day taken for a circle."""
    around = np.stack([np.roll(values, by) for by in range(-SMOOTHED, SMOOTHED + 1)])
    return _over(np.nansum(around, axis=0), (~np.isnan(around)).sum(axis=0).astype(np.float64))


def _t95(free: Floats) -> Floats:
    """Of these degrees of freedom, which need not be whole: by what is linear, 1 over them."""
    inverse = [0.0, *(1 / each for each in sorted(_T95, reverse=True))]
    values = [_T95_NORMAL, *(_T95[each] for each in sorted(_T95, reverse=True))]
    return np.asarray(np.interp(1 / np.maximum(free, 1.0), inverse, values))


def _fill(expected: Floats) -> None:
    """Put a neighbour's where nothing is known, the nearest first."""
    known = expected.copy()
    for by in range(1, NEIGHBOURS_MAX + 1):
        for shifted in (np.roll(known, by, axis=0), np.roll(known, -by, axis=0)):
            np.copyto(expected, shifted, where=np.isnan(expected))


def _over(part: Floats, whole: Floats) -> Floats:
    """NaN where there is nothing to divide by."""
    found = np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan)
    np.divide(part, whole, out=found, where=whole > 0)
    return found


class _Fared(Struct, frozen=True):
    """Of one day."""

    missed: float
    came: float
    missed_as_before: float
    came_as_before: float  # Where the day before is known, too.
    missed_pops: dict[str, float]
    came_pops: dict[str, float]
    above: int
    compared: int  # Slots, with what may be.
    not_forecast: int


def check_forecast(history: History, lead: int = 0) -> Check | None:
    """Forecast each of the newest days by what was told `lead` slots before it; None without any.

    They are whole days back from the last slot, each with a day before it.
    """
    fared = []
    for day in range(1, CHECK_DAYS_MAX + 1):
        begin = history.last + 1 - day * SLOTS_PER_DAY
        if begin - lead - history.first < SLOTS_PER_DAY:
            break
        if (each := _fare(history, begin, begin - lead)) is not None:
            fared.append(each)
    came = sum(each.came for each in fared)
    if not came:
        return None
    compared = sum(each.compared for each in fared)
    before = sum(each.came_as_before for each in fared)
    missed_pops, came_pops = Counter[str](), Counter[str]()
    for each in fared:
        missed_pops.update(each.missed_pops)
        came_pops.update(each.came_pops)
    return Check(
        days=len(fared),
        off=sum(each.missed for each in fared) / came,
        off_worst=max(each.missed / each.came for each in fared),
        off_as_before=sum(each.missed_as_before for each in fared) / before if before else None,
        off_pops=sum(missed_pops.values()) / came,
        off_of={pop: missed_pops[pop] / units for pop, units in sorted(came_pops.items()) if units},
        above_high=sum(each.above for each in fared) / compared if compared else None,
        not_forecast=sum(each.not_forecast for each in fared),
    )


def _fare(history: History, begin: int, end: int) -> _Fared | None:
    told = forecast(history, begin, end)
    came = history.cut(begin, SLOTS_PER_DAY, history.last + 1)[..., :CLASSES].sum(axis=-1)
    places = [history.pops.index(pop) for pop in told.pops]
    others = np.delete(came, places, axis=1)
    real, meant = came[:, places], told.expected[..., :CLASSES].sum(axis=-1)
    compared = ~np.isnan(real)
    real, meant = np.where(compared, real, 0.0), np.where(compared, meant, 0.0)
    total = real.sum()
    if not total:
        return None
    day = -(-(begin + SLOTS_PER_DAY - end) // SLOTS_PER_DAY)  # The newest that is wholly before.
    before = history.cut(begin - day * SLOTS_PER_DAY, SLOTS_PER_DAY, end)[:, places]
    before = before[..., :CLASSES].sum(axis=-1)
    both = compared & ~np.isnan(before)
    shared = np.where(both, real, 0.0)
    as_before = np.abs(np.where(both, before, 0.0).sum(axis=1) - shared.sum(axis=1)).sum()
    slots = compared.any(axis=1)
    above = 0
    if told.high_factor is not None:
        above = int((real.sum(axis=1) > meant.sum(axis=1) * told.high_factor)[slots].sum())
    untold = (told.days == 0) & compared & (told.expected[..., :CLASSES].sum(axis=-1) == 0)
    return _Fared(
        missed=float(np.abs(real.sum(axis=1) - meant.sum(axis=1)).sum()),
        came=float(total),
        missed_as_before=float(as_before),
        came_as_before=float(shared.sum()),
        missed_pops=dict(zip(told.pops, np.abs(real - meant).sum(axis=0).tolist(), strict=True)),
        came_pops=dict(zip(told.pops, real.sum(axis=0).tolist(), strict=True)),
        above=above,
        compared=int(slots.sum()) if told.high_factor is not None else 0,
        not_forecast=int((~np.isnan(others)).sum() + (untold & (real > 0)).sum()),
    )
