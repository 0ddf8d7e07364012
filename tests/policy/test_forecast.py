"""Forecasts: of days that repeat, that grow, that have weekends, and of gaps."""

import math

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.policy.demand import SLOTS_PER_DAY, DemandRow
from edged.policy.forecast import (
    GROWTH_MAX,
    GROWTH_MIN,
    NEIGHBOURS_MAX,
    Forecast,
    History,
    check_forecast,
    forecast,
    is_weekend,
)
from tests.policy.demand_worlds import BEGAN, POPS, demand_rows, true_units


def told_of(rows: list[DemandRow], slots: int = SLOTS_PER_DAY) -> Forecast:
    history = History(rows)
    return forecast(history, history.last + 1, slots)


def off(told: Forecast, growth: float) -> float:
    """How far all PoPs together are off what is true, as a part of it."""
    missed = [
        abs(math.fsum(each.expected) - true_units(each.pop, each.slot, growth))
        for each in told.rows
    ]
    return math.fsum(missed) / math.fsum(
        true_units(each.pop, each.slot, growth) for each in told.rows
    )


@pytest.mark.parametrize("growth", [1.0, 1.1, 0.9])
@pytest.mark.parametrize("days", [21, 26])  # The next is a weekday, or one of a weekend.
def test_four_weeks_tell_of_the_next_day(days: int, growth: float) -> None:
    told = told_of(list(demand_rows(days, growth=growth)))
    assert told.days == days
    assert told.growth == pytest.approx(growth, abs=0.02)
    assert {each.pop for each in told.rows} == set(POPS)
    assert off(told, growth) < 0.1


def test_a_slot_in_twenty_is_above_the_high() -> None:
    """Of days of a kind; at weekends the week's other days are counted too, and widen it."""
    came = list(demand_rows(33, seed=2))
    told = told_of([row for row in came if row.slot < BEGAN + 32 * SLOTS_PER_DAY])
    real = {(row.slot, row.pop): row for row in came}
    above = [
        units > high
        for each in told.rows
        for units, high in zip(real[each.slot, each.pop].units, each.high, strict=True)
    ]
    assert 0.0 < sum(above) / len(above) < 0.08
    for each in told.rows:
        assert all(high > expected for high, expected in zip(each.high, each.expected, strict=True))


def test_a_day_alone_repeats() -> None:
    rows = list(demand_rows(1))
    told = told_of(rows)
    assert told.growth == 1.0
    by_place = {(row.slot, row.pop): row for row in rows}
    for each in told.rows:
        before = by_place[each.slot - SLOTS_PER_DAY, each.pop]
        assert each.expected == pytest.approx(before.units)
        assert each.days == 1


def test_nothing_tells_of_nothing() -> None:
    told = forecast(History([]), 0, 10)
    assert (told.rows, told.growth, told.days) == ([], 1.0, 0.0)
    assert check_forecast([]) is None


def test_a_new_pop_is_told_of_by_its_own_days() -> None:
    rows = list(demand_rows(14))
    rows += [DemandRow(BEGAN + 14 * SLOTS_PER_DAY - 1, "new", (1, 2, 3), 0)]
    told = told_of(rows)
    near = [each.expected for each in told.rows if each.pop == "new" and each.days]
    assert len(near) == NEIGHBOURS_MAX + 1
    for each in near:  # Of another kind of day it may be.
        assert each == pytest.approx((each[0], 2 * each[0], 3 * each[0]))
        assert 0.6 < each[0] < 1.6
    assert any(each.expected == (0, 0, 0) and not each.days for each in told.rows), "all else"


@pytest.mark.parametrize(
    ("missing", "there"), [(NEIGHBOURS_MAX, True), (NEIGHBOURS_MAX + 1, False)]
)
def test_a_gap_is_that_of_its_neighbours(missing: int, there: bool) -> None:
    slot = BEGAN + 100
    rows = [
        DemandRow(slot - missing, "fra", (4, 4, 4), 0),
        DemandRow(BEGAN + 287, "fra", (9, 9, 9), 0),
    ]
    (each,) = forecast(History(rows), slot + SLOTS_PER_DAY, 1).rows
    assert each.expected == ((4.0, 4.0, 4.0) if there else (0.0, 0.0, 0.0))


@pytest.mark.parametrize(("times", "growth"), [(1.5, 1.5), (5, GROWTH_MAX), (0.1, GROWTH_MIN)])
def test_growth_is_bounded(times: float, growth: float) -> None:
    rows = [
        DemandRow(BEGAN + slot, "fra", (0, 0, round(100 * (times if slot >= 7 * 288 else 1))), 0)
        for slot in range(14 * SLOTS_PER_DAY)
    ]
    assert told_of(rows).growth == pytest.approx(growth)


def test_weekends() -> None:
    slot = 1_795_737_600 // 300  # 2026-11-27, a Friday.
    kinds = [is_weekend(slot + day * SLOTS_PER_DAY) for day in range(7)]
    assert kinds == [False, True, True, False, False, False, False]


def test_a_forecast_is_checked_by_the_newest_day() -> None:
    checked = check_forecast(demand_rows(28))
    assert checked is not None
    assert checked.slots == SLOTS_PER_DAY
    assert 0 < checked.off < 0.1
    assert 0 <= checked.above_high < 0.2
    surged = [
        DemandRow(row.slot, row.pop, (3 * row.units[0], 3 * row.units[1], 3 * row.units[2]), 0)
        if row.slot >= BEGAN + 27 * SLOTS_PER_DAY
        else row
        for row in demand_rows(28)
    ]
    worse = check_forecast(surged)
    assert worse is not None
    assert worse.off == pytest.approx(2 / 3, abs=0.05)
    assert worse.above_high > 0.9
    assert check_forecast(demand_rows(1.9)) is None
    assert check_forecast(demand_rows(2)) is not None


@hypothesis.settings(max_examples=30)
@hypothesis.given(
    st.lists(
        st.builds(
            DemandRow,
            st.integers(0, 40 * SLOTS_PER_DAY),
            st.sampled_from(["a", "b"]),
            st.tuples(*[st.integers(0, 10**6)] * 3),
            st.integers(0, 9),
        ),
        max_size=40,
    )
)
def test_whatever_the_history_is_a_forecast_is_sane(rows: list[DemandRow]) -> None:
    told = told_of(rows, 12)
    assert GROWTH_MIN <= told.growth <= GROWTH_MAX
    most = max((max(row.units) for row in rows), default=0)
    for each in told.rows:
        for expected, high in zip(each.expected, each.high, strict=True):
            assert 0 <= expected <= high
            assert math.isfinite(high)
            assert expected <= most * GROWTH_MAX**4 + 1e-6
