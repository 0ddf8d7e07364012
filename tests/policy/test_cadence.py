from fractions import Fraction

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.policy.cadence import PART_FLOOR, declared_unit, is_measured, measure_cadence
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


@hypothesis.settings(max_examples=60)
@hypothesis.given(st.lists(st.integers(1, 200_000), max_size=40), st.integers(50_000, 1_000_000))
def test_any_times_give_a_usable_part(deltas: list[int], part_us: int) -> None:
    times = [0]
    for delta in deltas:
        times.append(times[-1] + delta)
    cadence = measure_cadence(video_track(), times, part_us)
    assert cadence.part_ticks >= part_us * 90_000 // 1_000_000
    assert 0 < cadence.floor_ticks <= cadence.part_ticks
    assert cadence.gap_ticks > 0
