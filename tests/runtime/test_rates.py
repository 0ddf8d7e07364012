"""Rates from counters: what they are, and that no counter makes them absurd."""

import math

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.runtime.rates import INTERVAL_S_MIN, SAMPLES_MAX, VALUE_MAX, History


def steady(seconds: int, per_s: float, start: float = 100.0) -> History:
    history = History(1)
    for second in range(seconds + 1):
        history.note(start + second, per_s * second)
    return history


def test_a_steady_counter() -> None:
    history = steady(10, 30.0)
    assert history.rate(0, 2.0) == pytest.approx(30.0)
    assert history.rate(0, 60.0) == pytest.approx(30.0)
    assert history.rates(0) == pytest.approx([30.0] * 10)
    assert history.latest(0) == 300.0


def test_nothing_is_known_yet() -> None:
    history = History(2)
    assert (history.rate(0, 2.0), history.latest(1), history.rates(0)) == (0.0, 0.0, [])
    history.note(1.0, 5.0, 7.0)
    assert (history.rate(0, 2.0), history.latest(1), history.values(1)) == (0.0, 7.0, [7.0])


def test_a_change_shows_in_the_short_window_first() -> None:
    history = steady(30, 100.0)
    for second in (1, 2):
        history.note(130.0 + second, 3000.0 + 10.0 * second)
    assert history.rate(0, 2.0) == pytest.approx(10.0)
    assert 90.0 < history.rate(0, 60.0) < 100.0


@pytest.mark.parametrize("jitter_s", [-0.02, 0.02])
def test_a_sampler_that_is_a_little_off_still_spans_its_window(jitter_s: float) -> None:
    history = History(1)
    for second in range(10):
        history.note(second + jitter_s * second, 10.0 * second)
    assert history.rate(0, 2.0) == pytest.approx(10.0 / (1 + jitter_s))


def test_no_more_than_a_minute_is_kept() -> None:
    history = steady(3 * SAMPLES_MAX, 1.0)
    assert len(history) == SAMPLES_MAX
    assert len(history.rates(0)) == SAMPLES_MAX - 1
    assert history.values(0)[0] == 2 * SAMPLES_MAX + 1


def test_a_counter_that_begins_anew() -> None:
    history = steady(5, 1000.0)
    history.note(106.0, 10.0)
    assert history.rate(0, 60.0) == 0.0, "of the new one there is one sample only"
    history.note(107.0, 30.0)
    assert history.rate(0, 60.0) == pytest.approx(20.0)
    assert min(history.rates(0)) == 0.0


def test_samples_too_close_together_or_back_in_time_are_not_taken() -> None:
    history = History(1)
    assert history.note(1.0, 1.0)
    assert not history.note(1.0 + INTERVAL_S_MIN / 2, 1e9)
    assert not history.note(0.5, 2.0)
    assert not history.note(math.nan, 2.0)
    assert history.note(1.0 + INTERVAL_S_MIN, math.inf)
    assert history.values(0) == [1.0, 0.0]


NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.integers(0, 2**62).map(float)


@hypothesis.given(
    st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), max_size=150),
    st.floats(min_value=0.0, max_value=1e6),
)
def test_any_counters_give_finite_and_sane_rates(
    samples: list[tuple[float, float, float]], window_s: float
) -> None:
    history = History(2)
    taken: list[float] = []
    for at, first, second in samples:
        if history.note(at, first, second):
            taken.append(at)
    assert taken == sorted(taken)
    assert len(history) == min(len(taken), SAMPLES_MAX)
    for column in (0, 1):
        values = history.values(column)
        assert all(0.0 <= value <= VALUE_MAX for value in values)
        most = max(values, default=0.0) / INTERVAL_S_MIN * 1.001
        for rate in (history.rate(column, window_s), *history.rates(column)):
            assert math.isfinite(rate)
            assert 0.0 <= rate <= most


@hypothesis.given(
    st.lists(st.integers(0, 10**9), min_size=2, max_size=200),
    st.floats(min_value=0.5, max_value=100.0),
)
def test_the_rate_of_a_counter_lies_between_its_slowest_and_fastest_second(
    steps: list[int], window_s: float
) -> None:
    history, total = History(1), 0
    for second, step in enumerate(steps):
        total += step
        history.note(float(second), float(total))
    rates = history.rates(0)
    slack = 1e-3  # Of sums up to 2e11 in floats.
    assert min(rates) - slack <= history.rate(0, window_s) <= max(rates) + slack
