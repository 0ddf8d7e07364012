"""The tick follows what comes; lateness is remembered for a second or two."""

import pytest

from edged.runtime.pace import BUSY_EVENTS_PER_S, LAG_DECAY_S, RATE_WINDOW_S, TICK_S_MAX, Pace


def after(pace: Pace, rate: float, seconds: float = 2.0) -> float:
    for _ in range(round(seconds / 0.01)):
        pace.note_turn(round(rate * 0.01), 0.01)
    return pace.tick_s


def test_the_tick_follows_the_rate() -> None:
    pace = Pace()
    assert pace.tick_s == 0.0
    assert after(pace, BUSY_EVENTS_PER_S * 0.2) == 0.0
    assert after(pace, BUSY_EVENTS_PER_S * 0.5) == 0.002
    assert after(pace, BUSY_EVENTS_PER_S * 2) == TICK_S_MAX
    assert after(pace, 0) == 0.0


def test_one_burst_in_a_quiet_time_is_no_rate() -> None:
    pace = Pace()
    pace.note_turn(40, 5.0)
    assert pace.tick_s == 0.0
    pace.note_turn(20, RATE_WINDOW_S / 100)
    assert pace.tick_s == 0.0, "a hundredth of the window weighs a hundredth"


def test_two_turns_at_one_time_divide_by_nothing() -> None:
    pace = Pace()
    pace.note_turn(1, 0.0)
    assert pace.tick_s in (0.0, 0.002, TICK_S_MAX)


def test_the_worst_lag_lately_counts_and_decays() -> None:
    pace = Pace()
    assert pace.lag_s(0.0) == 0.0
    pace.note_lag(0.5, 10.0)
    pace.note_lag(0.1, 10.1)
    assert pace.lag_s(10.0 + LAG_DECAY_S) == pytest.approx(0.5 / 2.71828, rel=1e-3)
    pace.note_lag(0.3, 12.0)
    assert pace.lag_s(12.0) == 0.3
    assert pace.lag_s(20.0) < 0.001
