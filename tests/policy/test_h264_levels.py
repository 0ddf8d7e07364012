"""Levels as everyone knows them."""

from fractions import Fraction

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.policy.h264_levels import LEVEL_MAX, choose_level


@pytest.mark.parametrize(
    ("width", "height", "rate", "kbps", "level"),
    [
        (284, 160, 30, 275, 20),
        (640, 360, 30, 770, 30),
        (854, 480, 30, 1430, 31),
        (1280, 720, 30, 2640, 31),
        (1280, 720, 60, 3696, 32),
        (1920, 1080, 30, 4950, 40),
        (1920, 1080, 60, 6930, 42),
        (3840, 2160, 30, 20_000, 51),
        (3840, 2160, 60, 30_000, 52),
        (7680, 4320, 60, 100_000, LEVEL_MAX),
        (1280, 720, 30, 18_000, 32),  # For its bits.
        (4096, 16, 1, 100, 40),  # For its length.
    ],
)
def test_known_levels(width: int, height: int, rate: int, kbps: int, level: int) -> None:
    assert choose_level((width, height), Fraction(rate), kbps * 1000) == level


@hypothesis.given(st.integers(16, 4096), st.integers(16, 4096), st.integers(1, 120))
def test_more_never_takes_a_lower_level(width: int, height: int, rate: int) -> None:
    level = choose_level((width, height), Fraction(rate), 1_000_000)
    assert level <= choose_level((width + 16, height + 16), Fraction(rate + 1), 2_000_000)
