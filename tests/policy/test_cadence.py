import itertools
from fractions import Fraction

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.policy.cadence import (
    GRID_TICKS,
    PART_FLOOR,
    REPACED_DELTAS,
    SKIPS_MAX,
    Pace,
    declared_unit,
    is_measured,
    measure_cadence,
)
from tests.policy.synthetic import RATES, audio_track, video_times, video_track

PART_US = 200_000
DECLARED_PART_TICKS = {
    "24": 18_750,
    "23.976": 18_769,  # 5 x 3753.75, rounded up.
    "25": 18_000,
    "29.97": 18_018,
    "30": 18_000,
    "50": 18_000,
    "59.94": 18_018,
    "60": 18_000,
}


@pytest.mark.parametrize("name", RATES)
@pytest.mark.parametrize("declared", [True, False])
def test_item_14_part_target_is_the_smallest_multiple_of_the_frame(
    name: str, declared: bool
) -> None:
    rate = RATES[name]
    track = video_track(rate if declared else None)
    cadence = measure_cadence(track, video_times(rate, 2), PART_US)
    assert cadence.constant
    assert cadence.rate == rate
    assert cadence.part_ticks == DECLARED_PART_TICKS[name]
    assert Fraction(cadence.period_ticks, cadence.period_units) == 90_000 / rate
    assert cadence.floor_ticks >= PART_FLOOR * cadence.part_ticks


@pytest.mark.parametrize(("sample_rate", "units"), [(48_000, 10), (44_100, 9), (32_000, 7)])
def test_aac_parts_are_whole_units(sample_rate: int, units: int) -> None:
    cadence = measure_cadence(audio_track(sample_rate), [0, 1024, 2048], PART_US)
    assert cadence.part_ticks == 1024 * units
    assert cadence.gap_ticks == 1024


def test_what_is_declared_is_believed_without_evidence_but_not_against_it() -> None:
    track = video_track(Fraction(30))
    assert measure_cadence(track, [0], PART_US).rate == 30
    assert measure_cadence(track, video_times(Fraction(60), 1), PART_US).rate == 60


def test_missing_units_do_not_hide_the_declared_rate() -> None:
    times = video_times(Fraction(30), 1)
    del times[3], times[10]
    assert measure_cadence(video_track(Fraction(30)), times, PART_US).rate == 30
    assert not measure_cadence(video_track(), times, PART_US).constant


@pytest.mark.parametrize("name", RATES)
def test_times_of_whole_milliseconds_are_a_rate_with_jitter(name: str) -> None:
    rate = RATES[name]
    times = [round(dts / 90) * 90 for dts in video_times(rate, 4)]
    cadence = measure_cadence(video_track(rate), times, PART_US)
    assert cadence.rate == rate
    exact = all(dts % 90 == 0 for dts in video_times(rate, 4))
    assert cadence.constant == exact
    frames = round(cadence.part_ticks / (90_000 / rate))
    if not exact:
        assert 0 < cadence.part_ticks - frames * 90_000 / rate <= 91, "a millisecond of slack"


def test_irregular_times_leave_room_to_end_within_the_last_15_percent() -> None:
    times = [0, 3000, 9000, 12_000, 14_000, 20_000, 90_000]
    assert measure_cadence(video_track(), times[:-1], PART_US).part_ticks == 40_000
    assert measure_cadence(video_track(), times, PART_US).part_ticks == 90_000, "at most 1 s"


def test_a_lone_unit_of_unknown_rate() -> None:
    cadence = measure_cadence(video_track(), [5], PART_US)
    assert not cadence.constant
    assert cadence.part_ticks == 90_000
    assert cadence.gap_ticks == 1


def test_slow_pictures_are_longer_than_a_part() -> None:
    assert measure_cadence(video_track(Fraction(2)), [0, 45_000], PART_US).part_ticks == 45_000


def test_when_enough_is_measured() -> None:
    thirty = video_times(Fraction(30), 2)
    assert not is_measured(video_track(Fraction(30)), thirty[:8])
    assert is_measured(video_track(Fraction(30)), thirty[:9])
    assert not is_measured(video_track(), thirty[:30])
    assert is_measured(video_track(), thirty[:31])
    assert not is_measured(video_track(), [])


def test_declared_unit() -> None:
    assert declared_unit(video_track(Fraction(30_000, 1001))) == 3003
    assert declared_unit(video_track()) is None
    assert declared_unit(audio_track(44_100)) == 1024


def thirty_pace(*, times: int = 10) -> Pace:
    track = video_track(Fraction(30))
    pace = Pace(track, measure_cadence(track, [0], PART_US))
    assert pace.last is None
    for dts in video_times(Fraction(30), times / 30):
        pace.note(dts)
    return pace


def test_the_next_unit_is_foreseen_exactly_over_a_period() -> None:
    rate = RATES["23.976"]
    track = video_track(rate)
    times = video_times(rate, 3)
    pace = Pace(track, measure_cadence(track, times, PART_US))
    for dts, following in itertools.pairwise(times):
        pace.note(dts)
        assert pace.last == dts
        assert pace.due - following in ((0,) if dts > times[3] else (-1, 0))


def test_a_unit_at_the_edge_of_the_grid_and_one_past_it() -> None:
    for off in (-GRID_TICKS, GRID_TICKS):
        pace = thirty_pace()
        pace.note(30_000 + off)
        assert pace.cadence.constant
        pace = thirty_pace()
        pace.note(30_000 + off + (1 if off > 0 else -1))
        assert not pace.cadence.constant
        assert pace.cadence.rate is None


def test_lost_units_are_on_the_grid_but_not_each_second_one() -> None:
    pace = thirty_pace()
    pace.note(90_000)
    assert pace.cadence.constant
    assert pace.due == 93_000
    pace.note(93_000)
    for n in range(SKIPS_MAX):
        pace.note(99_000 + n * 6000)
        assert pace.cadence.constant
    pace.note(99_000 + SKIPS_MAX * 6000)
    assert not pace.cadence.constant
    assert pace.cadence.gap_ticks == 6000


@pytest.mark.parametrize("name", RATES)
def test_a_new_pace_is_foreseen_once_it_is_sure_and_the_promise_stays(name: str) -> None:
    pace = thirty_pace()
    before = pace.cadence
    start = 27_000 + 777  # Off the grid of 30 pictures a second, whatever the new pace.
    times = [start + dts for dts in video_times(RATES[name], 2)]
    for dts in times[:REPACED_DELTAS]:
        pace.note(dts)
        assert not pace.cadence.constant
    pace.note(times[REPACED_DELTAS])
    assert pace.cadence.rate == RATES[name]
    assert pace.due == times[REPACED_DELTAS + 1]
    assert pace.cadence.part_ticks == before.part_ticks
    assert pace.cadence.floor_ticks == before.floor_ticks
    assert pace.cadence.gap_ticks == -(-90_000 // RATES[name])


def test_a_rate_that_a_new_configuration_declares_is_among_those_looked_for() -> None:
    rate = Fraction(1_000_003, 33_333)
    times = [27_777 + dts for dts in video_times(rate, 2)]
    undeclared, declared = thirty_pace(), thirty_pace()
    declared.switch(video_track(rate))
    for dts in times:
        undeclared.note(dts)
        declared.note(dts)
    assert declared.cadence.rate == rate
    assert undeclared.cadence.rate != rate


def test_units_that_keep_no_pace_tell_how_far_apart_they_are() -> None:
    pace = thirty_pace()
    pace.note(27_777)
    dts = 27_777
    for n in range(REPACED_DELTAS):
        assert pace.cadence.gap_ticks == 3000
        dts += 1800 + n * 100
        pace.note(dts)
    assert not pace.cadence.constant
    assert pace.cadence.gap_ticks == 1800 + 23 * 100
    assert pace.due == dts + 1800 + 23 * 100
    for _ in range(REPACED_DELTAS):
        dts += 100_000
        pace.note(dts)
    assert pace.cadence.gap_ticks == pace.cadence.part_ticks, "more is a hole"
    assert pace.due == dts + pace.cadence.part_ticks


def test_times_that_go_back_are_no_pace() -> None:
    pace = thirty_pace()
    for _ in range(3 * REPACED_DELTAS):
        pace.note(5)
    assert not pace.cadence.constant
    assert pace.due == 5 + pace.cadence.gap_ticks


def test_a_new_timeline_keeps_the_pace() -> None:
    pace = thirty_pace()
    pace.restart()
    assert pace.last is None
    pace.note(-4_000_000)
    assert pace.cadence.constant
    assert pace.due == -4_000_000 + 3000


@hypothesis.settings(max_examples=60)
@hypothesis.given(st.lists(st.integers(-5000, 30_000), max_size=120), st.booleans())
def test_any_times_keep_the_promise_and_a_due_time_ahead(steps: list[int], paced: bool) -> None:
    pace = thirty_pace()
    promise = (pace.cadence.part_ticks, pace.cadence.floor_ticks)
    dts = 27_000
    for step in steps:
        for _ in range(30 if paced else 1):
            dts += step
            pace.note(dts)
            assert dts < pace.due <= dts + max(pace.cadence.part_ticks, pace.cadence.gap_ticks)
            assert (pace.cadence.part_ticks, pace.cadence.floor_ticks) == promise
            assert pace.cadence.gap_ticks > 0


@hypothesis.settings(max_examples=60)
@hypothesis.given(st.lists(st.integers(1, 200_000), max_size=40), st.integers(50_000, 1_000_000))
def test_any_times_give_a_usable_part(deltas: list[int], part_us: int) -> None:
    times = [0]
    for delta in deltas:
        times.append(times[-1] + delta)
    cadence = measure_cadence(video_track(), times, part_us)
    assert cadence.part_ticks >= part_us * 90_000 // 1_000_000
    assert 0 < cadence.floor_ticks <= cadence.part_ticks
    part_target_us = -(-cadence.part_ticks * 1_000_000 // 90_000)
    assert cadence.floor_ticks * 1_000_000 // 90_000 >= PART_FLOOR * part_target_us, "as printed"
    assert cadence.gap_ticks > 0
