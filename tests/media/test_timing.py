from collections.abc import Callable
from fractions import Fraction
from math import floor

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.media.timing import FrameGrid, Unroller, WallclockAnchor, rescale

TIMESCALES = st.sampled_from([1, 1000, 44_100, 48_000, 90_000, 1_000_000])


@hypothesis.given(st.integers(-(2**63), 2**63), TIMESCALES, TIMESCALES)
def test_rescale_is_exact_and_rounds_halves_up(value: int, source: int, target: int) -> None:
    assert rescale(value, source, target) == floor(
        Fraction(value * target, source) + Fraction(1, 2)
    )


@hypothesis.given(st.integers(-(2**40), 2**40))
def test_rescale_of_milliseconds_to_video_ticks_comes_back(milliseconds: int) -> None:
    assert rescale(rescale(milliseconds, 1000, 90_000), 90_000, 1000) == milliseconds


@hypothesis.given(
    st.sampled_from([24, 32, 33]),
    st.integers(0, 2**24 - 1),
    st.lists(st.integers(-(2**23) + 1, 2**23 - 1), max_size=30),
)
def test_unroller_gives_the_true_value(bits: int, first: int, steps: list[int]) -> None:
    unroller, true = Unroller(bits), first
    assert unroller.unroll(first) == first
    for step in steps:
        true += step
        assert unroller.unroll(true % 2**bits) == true
    assert Unroller(bits, unroller.value).unroll(true % 2**bits) == true


def test_unroller_over_many_wraps_with_reordering() -> None:
    unroller, true = Unroller(32), 2**32 - 5000
    unroller.unroll(true)
    for step in range(50_000):
        true += 2**20 + step
        assert unroller.unroll(true % 2**32) == true
        assert unroller.unroll((true - 40) % 2**32) == true - 40
    assert true > 12 * 2**32


@pytest.mark.parametrize("rounding", [int, lambda ms: floor(ms + Fraction(1, 2))])
@pytest.mark.parametrize(
    ("timescale", "frame"),
    [
        (48_000, Fraction(1024)),
        (44_100, Fraction(1024)),
        (48_000, Fraction(960)),
        (90_000, Fraction(3003)),
        (90_000, Fraction(90_000 * 1001, 24_000)),
        (90_000, Fraction(90_000 * 1001, 120_000)),
        (90_000, Fraction(1500)),
    ],
)
def test_grid_gives_back_what_milliseconds_took(
    timescale: int,
    frame: Fraction,
    rounding: Callable[[Fraction], int],
) -> None:
    grid = FrameGrid.for_duration(timescale, frame.numerator, frame.denominator)
    first = rounding(Fraction(0))
    for index in range(3000):
        if index % 97 == 5:
            continue  # A frame that the encoder dropped leaves the grid alone.
        true = index * frame
        wire = rescale(rounding(true * 1000 / timescale), 1000, timescale)
        ticks, resynced = grid.snap(wire)
        assert ticks == first + floor(true + Fraction(1, 2))
        assert not resynced
        assert grid.nearest(wire) == ticks


def test_grid_makers_agree() -> None:
    assert FrameGrid.for_audio(48_000, 1024) == FrameGrid(48_000, 1024, 1, 96)
    video = FrameGrid.for_video(90_000, 30_000, 1001)
    assert Fraction(video.frame_num, video.frame_den) == 3003
    assert video.tolerance == 180
    assert (
        FrameGrid.for_video(90_000, 240, 1).tolerance == 125
    )  # A third of 375: not everything is on it.


def test_grid_takes_a_time_within_the_tolerance_and_not_one_beyond() -> None:
    grid = FrameGrid.for_audio(48_000, 1024)
    assert grid.nearest(77) == 77  # Not anchored yet.
    assert grid.snap(0) == (0, False)
    assert grid.snap(1024 + 96) == (1024, False)
    assert grid.snap(2048 - 96) == (2048, False)
    assert grid.nearest(5 * 1024 + 96) == 5 * 1024
    assert grid.nearest(5 * 1024 + 97) == 5 * 1024 + 97
    assert grid.snap(3072 + 97) == (3169, True)
    assert grid.snap(3169 + 1024) == (3169 + 1024, False)


def test_grid_follows_a_step_back_and_makes_repeated_times_rise() -> None:
    grid = FrameGrid.for_video(90_000, 30, 1)
    assert [grid.snap(ticks) for ticks in (90_000, 93_000, 93_000, 92_990, 96_000)] == [
        (90_000, False),
        (93_000, False),
        (93_001, False),
        (93_002, False),
        (96_000, False),
    ]
    assert grid.snap(0) == (0, True)
    assert grid.snap(3000) == (3000, False)


def test_grid_anchored_anew_by_its_owner() -> None:
    grid = FrameGrid.for_audio(48_000, 1024)
    for ticks in range(0, 10_240, 1024):
        grid.snap(ticks)
    grid.anchor = None  # A discontinuity, known from elsewhere.
    assert [grid.snap(ticks) for ticks in (77, 1105)] == [(77, False), (1101, False)]


def test_grid_rises_even_past_times_pushed_beyond_it() -> None:
    grid = FrameGrid.for_duration(1000, 3, 1)
    assert [grid.snap(ticks)[0] for ticks in (0, 0, 0, 0, 3)] == [0, 1, 2, 3, 4]


@hypothesis.given(st.lists(st.integers(-400, 9000), max_size=60))
def test_grid_rises_unless_it_tells_of_a_step_back(steps: list[int]) -> None:
    grid, wire = FrameGrid.for_video(90_000, 30, 1), 0
    last = grid.snap(0)[0]
    for step in steps:
        wire += step
        ticks, resynced = grid.snap(wire)
        assert ticks > last or (resynced and wire <= last)
        assert abs(ticks - wire) <= 2 * 3000 + 180 + len(steps)
        last = ticks


def test_wallclock_is_one_for_all_tracks_and_does_not_drift() -> None:
    anchor = WallclockAnchor.at(1_700_000_000_000_000, 90_000, 90_000)
    assert anchor.wallclock_us(90_000, 90_000) == 1_700_000_000_000_000
    assert anchor.wallclock_us(48_000, 48_000) == 1_700_000_000_000_000
    week = 7 * 86_400
    assert anchor.wallclock_us((week + 1) * 90_000, 90_000) == 1_700_000_000_000_000 + week * 10**6
    anchor.reanchor(1_800_000_000_000_000, 0, 90_000)
    assert anchor.wallclock_us(3000, 90_000) == 1_800_000_000_033_333
