"""Forecasts: of days that repeat, that grow, that have weekends, and of what is not there."""

import math
from collections.abc import Iterator, Sequence

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from edged.policy import forecast as module
from edged.policy.demand import SAMPLES_PER_SLOT, SLOTS_PER_DAY, DemandRow
from edged.policy.forecast import (
    DAYS_MAX,
    GROWTH_MAX,
    GROWTH_MIN,
    HALF_LIFE_DAYS,
    HIGH_DAYS_MIN,
    NEIGHBOURS_MAX,
    SAMPLES_MIN,
    Forecast,
    History,
    Record,
    check_forecast,
    forecast,
    is_weekend,
)
from tests.policy.demand_worlds import (
    BACK,
    BEGAN,
    MBPS,
    POPS,
    WEEKEND,
    demand_rows,
    history_of,
    row_of,
    true_units,
)


def told_of(rows: list[DemandRow], end: int | None = None) -> Forecast:
    history = history_of(rows)
    return forecast(history, history.last + 1 if end is None else end)


def totals(told: Forecast) -> list[float]:
    return [float(each) for each in told.expected[..., :3].sum(axis=(1, 2))]


def off(told: Forecast, growth: float = 1.0) -> float:
    """How far all PoPs together are off what is true, as a part of it."""
    slots = range(told.begin, told.begin + SLOTS_PER_DAY)
    real = [math.fsum(true_units(pop, slot, growth) for pop in told.pops) for slot in slots]
    missed = [abs(a - b) for a, b in zip(totals(told), real, strict=True)]
    return math.fsum(missed) / math.fsum(real)


def flat(days: int, units: dict[int, float] | float = 100.0, pop: str = "fra") -> list[DemandRow]:
    """So many days, each the same at any time; `units` by day."""
    return [
        row_of(BEGAN + day * SLOTS_PER_DAY + slot, pop,
               units if isinstance(units, float) else units[day])
        for day in range(days) for slot in range(SLOTS_PER_DAY)
    ]  # fmt: skip


@pytest.mark.parametrize("growth", [1.0, 1.1, 0.9])
@pytest.mark.parametrize("days", [22, 26])  # The next is a weekday, or one of a weekend.
def test_four_weeks_tell_of_the_next_day(days: int, growth: float) -> None:
    rows = list(demand_rows(days, growth=growth))
    told = told_of(rows)
    assert told.growth == pytest.approx(growth, abs=0.025)
    assert told.pops == sorted(POPS)
    assert (told.gone, told.untold, told.mixed) == ([], {}, 0)
    assert off(told, growth) < 0.05


def test_eight_weeks_of_which_the_truth_is_known() -> None:
    """56 days that grow; each of the next seven is forecast, and compared with what is true."""
    growth, misses, above = 1.03, [], 0
    rows = list(demand_rows(63, growth=growth, seed=5))
    for day in range(56, 63):
        end = BEGAN + day * SLOTS_PER_DAY
        told = told_of([row for row in rows if row.slot < end])
        misses.append(off(told, growth))
        assert told.high_factor is not None
        assert told.growth == pytest.approx(growth, abs=0.015)
        came = [0.0] * SLOTS_PER_DAY
        for row in rows:
            if end <= row.slot < end + SLOTS_PER_DAY:
                came[row.slot - end] += sum(row.units) / row.samples
        high = told.demand(high=True).sum(axis=(1, 2))
        above += sum(float(a) > float(b) for a, b in zip(came, high, strict=True))
        assert (high > told.demand(high=False).sum(axis=(1, 2))).all()
        assert (high < 1.25 * told.demand(high=False).sum(axis=(1, 2))).all(), "nor far above"
    assert max(misses) < 0.05
    assert sum(misses) / len(misses) < 0.03
    assert above / (7 * SLOTS_PER_DAY) < 0.08, "one in twenty, and a day's luck"
    checked = check_forecast(history_of(rows))
    assert checked is not None
    assert checked.days == 7
    # What came is off the truth by the days' own luck, of 3 %.
    assert checked.off == pytest.approx(sum(misses) / len(misses), abs=0.03)


def history_of_days(levels: Sequence[float], slots: int) -> History:
    """One PoP, whose days of so many slots are each the same at any time."""
    last = BEGAN + len(levels) * slots - 1
    history = History(BEGAN, last, [[(BEGAN, "fra", 90, 0, 0, 0, 0.0, 0.0, 0)]])
    history.last = last
    history.values[:, 0] = 0.0
    history.values[:, 0, 2] = np.repeat(levels, slots)
    return history


@pytest.mark.parametrize("days", [HIGH_DAYS_MIN, 6, 12, 28])
def test_one_in_twenty_is_above_high_however_few_days_there_are(
    days: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over many worlds: of few days a high that took their spread for the real one is too low."""
    monkeypatch.setattr(module, "is_weekend", lambda slots: np.zeros(np.shape(slots), bool))
    monkeypatch.setattr(module, "GROWTH_DAYS_MIN", 99)
    monkeypatch.setattr(module, "SLOTS_PER_DAY", 4)
    above, count = 0, 200
    rng = np.random.default_rng(7)
    for _ in range(count):
        levels = rng.normal(10_000.0, 1000.0, days + 1)
        history = history_of_days(levels[:days].tolist(), 4)
        told = forecast(history, history.last + 1)
        above += float(levels[days]) > float(told.demand(high=True)[0].sum())
    assert 0.015 < above / count < 0.085


def test_high_is_that_of_a_mean_of_a_few_days_and_of_a_day() -> None:
    """By hand: t of the days that the weights are worth, what spreads unbiased, and two errors."""
    levels = [90_000.0, 110_000.0, 95_000.0, 130_000.0, 100_000.0]
    told = told_of(flat(5, dict(enumerate(levels))))
    weights = [0.5 ** ((5 - day) / HALF_LIFE_DAYS) for day in range(5)]
    worth = sum(weights) ** 2 / sum(weight**2 for weight in weights)
    mean = sum(w * units for w, units in zip(weights, levels, strict=True)) / sum(weights)
    spread = sum(w * (units - mean) ** 2 for w, units in zip(weights, levels, strict=True))
    spread /= sum(weights) * (1 - 1 / worth)
    between = 1 / 3 - 1 / (worth - 1)  # Of t: with 3 and 4 degrees of freedom.
    t = 2.353 + (2.132 - 2.353) * between / (1 / 3 - 1 / 4)
    assert 3 < worth - 1 < 4
    assert told.high_factor is not None
    high = mean + t * math.sqrt(spread * (1 + 1 / worth))
    assert mean * told.high_factor == pytest.approx(high, rel=1e-3)


def test_neighbours_tell_how_far_days_are_apart() -> None:
    """Each of a slot's days may be alike by luck, not an hour's."""
    rows = [
        row_of(
            row.slot, "fra", 10_000.0 + (3000.0 if (row.slot - BEGAN) // 96 % 7 % 2 else -3000.0)
        )
        if (row.slot - BEGAN) % 96 != 40
        else row
        for row in flat(28, 10_000.0)
    ]
    told = told_of(rows)
    assert told.high_factor is not None
    assert float(told.high_factor[40]) > 1.3


def test_high_is_at_least_as_chance_has_it() -> None:
    """Days that were all the same by luck: 25 streams may still be 34 tomorrow."""
    told = told_of(flat(28, 25.0))
    assert told.high_factor is not None
    assert told.high_factor == pytest.approx(1 + 1.7 * math.sqrt(1 / 25), rel=0.05)


def test_high_is_of_all_pops_together() -> None:
    """One is high when another is low: what both have together is near the same each day."""
    rows = []
    for pop, sign in (("fra", 1), ("lon", -1)):
        level = {day: 10_000.0 * (1 + sign * (0.2 if day % 2 else -0.2)) for day in range(28)}
        rows += flat(28, level, pop)
    told = told_of(sorted(rows, key=lambda row: row.slot))
    assert told.high_factor is not None
    assert float(told.high_factor.max()) < 1.03
    assert float(told_of(rows[: len(rows) // 2]).high_factor.max()) > 1.3  # type: ignore[union-attr]


def test_where_nothing_is_known_high_is_a_neighbours() -> None:
    """IRS was always off at that time: that is no reason to plan for three times as much."""
    rows = [row for row in demand_rows(28) if (row.slot - BEGAN) % 96 not in range(38, 43)]
    told, whole = told_of(rows), told_of(list(demand_rows(28)))
    assert told.high_factor is not None
    assert whole.high_factor is not None
    assert told.untold == {}
    assert told.high_factor == pytest.approx(whole.high_factor, abs=0.03)


def test_newer_days_count_more() -> None:
    level = {day: 100.0 if day < 20 else 200.0 for day in range(28)}
    told = told_of(flat(28, level))
    assert told.growth == pytest.approx(1.0), "a step is no growth"
    weekdays = [day for day in range(28) if day % 7 < 5]
    weights = {day: 0.5 ** ((28 - day) / HALF_LIFE_DAYS) for day in weekdays}
    mean = sum(weights[day] * level[day] for day in weekdays) / sum(weights.values())
    assert totals(told)[50] == pytest.approx(mean, rel=1e-3)


def test_weekends_are_made_of_weekends() -> None:
    level = {day: 140.0 if day % 7 > 4 else 100.0 for day in range(28)}
    for day, units in ((26, 140.0), (27, 140.0), (21, 100.0)):
        rows = flat(day, level)
        assert totals(told_of(rows)) == pytest.approx([units] * SLOTS_PER_DAY, rel=1e-3)


def test_where_a_kind_has_too_few_days_all_are_taken_and_it_is_told() -> None:
    level = {day: 140.0 if day % 7 > 4 else 100.0 for day in range(28)}
    told = told_of(flat(5, level))  # Of Saturday, before the first.
    assert told.mixed == SLOTS_PER_DAY
    assert totals(told) == pytest.approx([100.0] * SLOTS_PER_DAY, rel=1e-3)
    told = told_of(flat(12, level))
    assert told.mixed == 0
    assert totals(told) == pytest.approx([140.0] * SLOTS_PER_DAY, rel=1e-3)


def test_a_day_alone_repeats_and_says_little() -> None:
    rows = list(demand_rows(1))
    told = told_of(rows)
    assert told.growth is None
    assert told.high_factor is None
    assert (told.demand(high=True) == told.demand(high=False)).all()
    assert (told.days == 1).all()
    by_slot: dict[int, float] = {}
    for row in rows:
        by_slot[row.slot] = by_slot.get(row.slot, 0.0) + sum(row.units) / row.samples
    assert totals(told) == pytest.approx(list(by_slot.values()))
    assert check_forecast(history_of(rows)) is None


def test_high_is_told_from_so_many_days() -> None:
    assert told_of(flat(3)).high_factor is None
    assert told_of(flat(4)).high_factor is not None


def test_nothing_tells_of_nothing() -> None:
    told = forecast(history_of([]), BEGAN)
    assert (told.pops, told.growth, told.high_factor) == ([], None, None)
    assert told.expected.shape == (SLOTS_PER_DAY, 0, 4)
    assert check_forecast(history_of([])) is None
    assert history_of([]).known == 0.0


@pytest.mark.parametrize("weeks", [2, 4])
def test_growth_is_of_pops_that_are_in_both_weeks(weeks: int) -> None:
    """A PoP that came a week ago, and is as large as all others, is no growth of these."""
    days = 7 * weeks
    rows = flat(days) + flat(days, 100.0, "lon")
    newest = BEGAN + (days - 7) * SLOTS_PER_DAY
    came = [row_of(row.slot, "new", 200.0) for row in flat(days) if row.slot >= newest]
    for more in ([], came):
        told = told_of(sorted(rows + more, key=lambda row: row.slot))
        assert told.growth == pytest.approx(1.0)
        assert totals(told)[0] == pytest.approx(200.0 + (200.0 if more else 0.0), rel=1e-3)


def test_a_pop_that_is_gone_is_left_out_and_named() -> None:
    end = BEGAN + 20 * SLOTS_PER_DAY
    rows = flat(21) + [row for row in flat(21, 100.0, "old") if row.slot < end]
    told = told_of(rows)
    assert (told.pops, told.gone) == (["fra"], ["old"])
    assert told.growth == pytest.approx(1.0)
    back = told_of([*rows, row_of(BEGAN + 21 * SLOTS_PER_DAY - 1, "old", 100.0)])
    assert back.gone == []


def test_after_a_day_of_which_nothing_is_known_nobody_is_gone() -> None:
    """IRS was off for a day, and is back for a minute: the newest day is that before."""
    back = BEGAN + 23 * SLOTS_PER_DAY
    rows = [*flat(21), DemandRow(back, "lon", SAMPLES_MIN - 1, (0, 0, 500), unplaced=1)]
    history = history_of(rows)
    assert history.last == BEGAN + 21 * SLOTS_PER_DAY - 1
    told = forecast(history, back + 4)
    assert (told.pops, told.gone) == (["fra"], ["lon"])
    assert totals(told) == pytest.approx([100.0] * SLOTS_PER_DAY, rel=1e-3)
    nothing = history_of([DemandRow(BEGAN, "lon", 1, (0, 0, 5))])
    assert nothing.last == BEGAN - 1


def test_one_day_that_was_an_event_is_no_growth() -> None:
    level = {day: 400.0 if day == 24 else 100.0 for day in range(28)}
    assert told_of(flat(28, level)).growth == pytest.approx(1.0)


@pytest.mark.parametrize(("times", "growth"), [(1.5, 1.5), (5, GROWTH_MAX), (0.1, GROWTH_MIN)])
def test_growth_is_bounded(times: float, growth: float) -> None:
    level = {day: 100.0 * times if day >= 7 else 100.0 for day in range(14)}
    assert told_of(flat(14, level)).growth == pytest.approx(growth)


def test_a_pop_that_is_new_has_hours_that_nothing_tells_of() -> None:
    newest = BEGAN + 14 * SLOTS_PER_DAY
    rows = flat(14) + [row_of(newest - n, "new", 30.0) for n in (1, 2, 3)]
    told = told_of(rows)
    near = 3 + 2 * NEIGHBOURS_MAX
    assert told.untold == {"new": SLOTS_PER_DAY - near}
    of_new = told.expected[:, told.pops.index("new"), :3].sum(axis=1)
    assert sum(float(each) > 29 for each in of_new) == near
    assert float(of_new.sum()) == pytest.approx(near * 30.0, rel=0.01), "none where nothing tells"


@pytest.mark.parametrize(
    ("missing", "there"), [(NEIGHBOURS_MAX, True), (NEIGHBOURS_MAX + 1, False)]
)
def test_a_gap_is_that_of_its_neighbours(missing: int, there: bool) -> None:
    rows = [row for row in flat(7) if not 40 - missing < (row.slot - BEGAN) % 96 < 40 + missing]
    told = told_of(rows)
    assert (totals(told)[40] > 99) == there
    assert (told.untold == {}) == there


@pytest.mark.parametrize(("samples", "known"), [(30, True), (29, False)])
def test_a_slot_of_a_few_samples_is_not_known(samples: int, known: bool) -> None:
    """As a clock that was wrong for some minutes leaves them."""
    row = DemandRow(BEGAN + 5, "fra", samples, (0, 0, 7 * samples))
    history = history_of([row_of(BEGAN, "fra", 1.0), row])
    assert math.isnan(float(history.values[5, 0, 2])) != known
    assert history.known == pytest.approx(2 / 6 if known else 1 / 6)


def test_what_comes_back_is_forecast_as_well() -> None:
    told = told_of(flat(14))
    assert told.back_mbps == pytest.approx(np.full((SLOTS_PER_DAY, 1), 100.0 * BACK), rel=1e-3)
    history = history_of([*flat(14), DemandRow(BEGAN, "lon", 90, (0, 0, 90), (0.0, 1.0), 5)])
    assert history.pops == ["fra", "lon"]
    assert history.mbps_per_unit[0] == pytest.approx(MBPS)
    assert math.isnan(float(history.mbps_per_unit[1])), "it told of none"
    assert history.unplaced == {"lon": 5}


def test_a_later_day_is_forecast_by_what_there_is() -> None:
    rows = flat(21)
    begin = BEGAN + 40 * SLOTS_PER_DAY
    told = told_of(rows, begin)
    assert totals(told) == pytest.approx([100.0] * SLOTS_PER_DAY, rel=1e-3)
    nothing = told_of(rows, BEGAN + (21 + DAYS_MAX) * SLOTS_PER_DAY)
    assert nothing.untold == {"fra": SLOTS_PER_DAY}
    last = told_of(rows, BEGAN + (20 + DAYS_MAX) * SLOTS_PER_DAY)
    assert last.untold == {}


def test_forecasts_are_checked_by_days_that_came() -> None:
    checked = check_forecast(history_of(demand_rows(28)))
    assert checked is not None
    assert checked.days == 7
    assert 0 < checked.off < checked.off_pops < 0.08
    assert checked.off <= checked.off_worst < 0.15
    assert checked.off_as_before is not None
    assert checked.off_as_before > checked.off, "a Saturday is no Friday"
    assert checked.above_high is not None
    assert checked.above_high < 0.2
    assert checked.not_forecast == 0
    assert sorted(checked.off_of) == sorted(POPS)
    assert min(checked.off_of.values()) <= checked.off_pops <= max(checked.off_of.values())


def test_errors_are_those_of_each_pop() -> None:
    """One has what it had the days before, one has twice as much, and they are as large."""
    rows = flat(21) + [
        row_of(row.slot, "lon", 200.0 if row.slot >= BEGAN + 20 * SLOTS_PER_DAY else 100.0)
        for row in flat(21)
    ]
    checked = check_forecast(history_of(sorted(rows, key=lambda row: row.slot)))
    assert checked is not None
    assert checked.off_of == pytest.approx({"fra": 0.0, "lon": 100 / 800}, abs=1e-3)
    assert checked.off_pops == pytest.approx(100 / 1500, abs=1e-3)


def test_a_surge_shows_in_the_check() -> None:
    level = {day: 300.0 if day == 20 else 100.0 for day in range(21)}
    checked = check_forecast(history_of(flat(21, level)))
    assert checked is not None
    assert checked.off_worst == pytest.approx(2 / 3, abs=0.01)
    assert checked.above_high is not None
    assert checked.above_high == pytest.approx(1 / 7, abs=0.01)


def test_no_day_is_forecast_by_itself() -> None:
    """The days before are the same whatever came on the day that is forecast."""
    level = dict.fromkeys(range(21), 100.0)
    one = check_forecast(history_of(flat(21, level)))
    other = check_forecast(history_of(flat(21, {**level, 20: 50.0})))
    assert one is not None
    assert other is not None
    assert one.off == pytest.approx(0.0, abs=1e-3)
    assert other.off_worst == pytest.approx(1.0, abs=0.01)


def test_what_came_unforeseen_is_counted() -> None:
    rows = flat(14) + [row_of(BEGAN + 14 * SLOTS_PER_DAY - n, "new", 10.0) for n in range(1, 9)]
    checked = check_forecast(history_of(rows))
    assert checked is not None
    assert checked.not_forecast == 8


def test_a_check_leaves_as_much_time_between_as_the_forecast() -> None:
    """Three days ahead is told by what was there three days before."""
    level = {day: 100.0 * 1.1**day for day in range(28)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "GROWTH_DAYS_MIN", 99)
        near, far = (check_forecast(history_of(flat(28, level)), lead) for lead in (0, 288))
    assert near is not None
    assert far is not None
    assert far.off > near.off + 0.1


@pytest.mark.parametrize(
    ("days", "count"), [(1, 0), (1.99, 0), (2, 1), (2.99, 1), (3, 2), (8, 7), (9, 7)]
)
def test_so_many_days_are_checked(days: float, count: int) -> None:
    checked = check_forecast(history_of(demand_rows(days)))
    assert (0 if checked is None else checked.days) == count


def test_weekends_are_those_of_utc() -> None:
    friday = 1_795_737_600 // 900  # 2026-11-27.
    kinds = is_weekend(friday + SLOTS_PER_DAY * np.arange(7)).tolist()
    assert kinds == [False, True, True, False, False, False, False]
    edges = is_weekend(friday + SLOTS_PER_DAY * np.array([1, 3]) - 1).tolist()
    assert edges == [False, True]
    assert WEEKEND != 1


BAD: list[Record] = [
    (BEGAN - 1, "fra", 90, 0, 0, 0, 0.0, 0.0, 0),
    (BEGAN + 96, "fra", 90, 0, 0, 0, 0.0, 0.0, 0),
    (BEGAN, "fra", -1, 0, 0, 0, 0.0, 0.0, 0),
    (BEGAN, "fra", 90, 0, 0, -1, 0.0, 0.0, 0),
    (BEGAN, "fra", 90, 0, 0, 0, math.inf, 0.0, 0),
    (BEGAN, "fra", 90, 0, 0, 0, 0.0, math.nan, 0),
    (BEGAN, "fra", 90, 0, 0, "many", 0.0, 0.0, 0),  # type: ignore[list-item]
]


@pytest.mark.parametrize("record", BAD)
def test_what_is_no_record_is_refused(record: Record) -> None:
    with pytest.raises(ValueError, match=r"a (number|slot) of it|a slot is not|convert|float"):
        History(BEGAN, BEGAN + 95, [[record]])


def by_chunks(records: list[Record], size: int) -> Iterator[list[Record]]:
    for at in range(0, len(records), size):
        yield records[at : at + size]


@hypothesis.settings(max_examples=15, deadline=None)
@hypothesis.given(
    st.lists(
        st.tuples(
            st.integers(0, 30 * SLOTS_PER_DAY),
            st.sampled_from(["c", "a", "b"]),
            st.integers(0, 2 * SAMPLES_PER_SLOT),
            *[st.integers(0, 10**9)] * 3,
            *[st.floats(0, 1e9)] * 2,
            st.integers(0, 9),
        ),
        min_size=1,
        max_size=40,
        unique_by=lambda record: record[:2],
    ),
    st.integers(1, 40),
    st.integers(0, 2 * SLOTS_PER_DAY),
)
def test_whatever_the_history_is_a_forecast_is_sane(
    records: list[Record], size: int, ahead: int
) -> None:
    first, last = min(each[0] for each in records), max(each[0] for each in records)
    history = History(first, last, by_chunks(records, size))
    assert history.pops == sorted({each[1] for each in records})
    assert 0 <= history.known <= 1
    for slot, pop, samples, *units, _, _, _ in records:
        value = history.values[slot - first, history.pops.index(pop), :3]
        if samples >= SAMPLES_MIN:
            assert value == pytest.approx([each / samples for each in units])
        else:
            assert np.isnan(value).all()
    assert last >= history.last >= first - 1
    told = forecast(history, history.last + 1 + ahead)
    assert sorted([*told.pops, *told.gone]) == history.pops
    assert told.growth is None or GROWTH_MIN <= told.growth <= GROWTH_MAX
    most = max((max(e[3:6]) / e[2] for e in records if e[2] >= SAMPLES_MIN), default=0.0)
    assert np.isfinite(told.expected).all()
    assert (told.expected[..., :3] >= 0).all()
    assert (told.expected[..., :3] <= most * GROWTH_MAX**4 + 1e-6).all()
    if told.high_factor is not None:
        assert np.isfinite(told.high_factor).all()
        assert (told.high_factor >= 1).all()
    checked = check_forecast(history)
    assert checked is None or (checked.off >= 0 and checked.off <= checked.off_worst + 1e-9)
