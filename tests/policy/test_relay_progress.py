"""Silence, pauses, pace, and relays that are slow."""

import hypothesis
from hypothesis import strategies as st

from edged.policy.relay_progress import (
    ALIVE_S_MIN,
    FIRST_S_MAX,
    STALL_S_MAX,
    STALL_S_MIN,
    Progress,
)
from tests.policy.window_events import ended, part, rendition


def test_parts_that_stop_are_missed_in_less_than_a_second() -> None:
    progress, now = Progress(0.0), 0.0
    for _ in range(20):
        now += 0.2
        progress.came(now)
        progress.came(now)  # Sound, in the same turn.
    assert not progress.is_stalled(now + STALL_S_MIN - 0.01)
    assert progress.is_stalled(now + STALL_S_MIN + 0.01)
    progress.slept(now + 5.0)
    assert not progress.is_stalled(now + 5.0 + STALL_S_MIN - 0.01)


def test_streams_of_segments_alone_are_given_their_time() -> None:
    progress, now = Progress(0.0), 0.0
    for _ in range(5):
        now += 4.0
        progress.came(now)
    assert not progress.is_stalled(now + 9.9)
    assert progress.is_stalled(now + 10.1)
    for _ in range(5):
        now += 8.0
        progress.came(now)
    assert progress.is_stalled(now + STALL_S_MAX + 0.1)


def test_the_first_has_time_to_come() -> None:
    progress = Progress(0.0)
    assert not progress.is_stalled(FIRST_S_MAX)
    assert progress.is_stalled(FIRST_S_MAX + 0.1)


def test_one_that_is_heard_otherwise_is_given_longer() -> None:
    progress, now = Progress(0.0), 0.0
    for _ in range(100):
        now += 0.2
        progress.came(now)
    assert progress.is_stalled(now + 0.8)
    assert not progress.is_stalled(now + 0.8, alive=True)
    assert progress.is_stalled(now + ALIVE_S_MIN + 0.1, alive=True)


def test_segments_alone_are_given_their_time_from_the_first_on() -> None:
    for length_s in (1.6, 2.0, 4.0):
        progress, now = Progress(0.0), 0.1
        progress.took(1, rendition(part_target_us=int(1e6 * length_s)), now)
        for msn in range(5):
            progress.took(1, part(msn, 0, duration=int(1000 * length_s)), now)
            assert not progress.is_stalled(now + 1.2 * length_s)
            now += length_s
    assert progress.is_stalled(now + STALL_S_MAX + 0.1)


def test_a_replay_that_is_on_its_way_is_no_silence() -> None:
    progress = Progress(0.0)
    for tick in range(1, 30):
        progress.received(tick, tick / 10)
        assert not progress.is_stalled(tick / 10)
    progress.received(29, 5.0)
    assert progress.is_stalled(5.0)


@hypothesis.given(st.integers(2, 4), st.floats(0.1, 1.0))
def test_one_that_skips_parts_again_and_again_is_slow(every: int, part_s: float) -> None:
    progress = Progress(0.0)
    progress.took(1, rendition(), 0.0)
    slow = False
    for number in range(0, 1 + int(12 / part_s), every):
        now = number * part_s
        progress.took(1, part(number // 10, number % 10), now)
        slow |= progress.is_slow(now)
    assert slow or every * part_s >= 1.6, "parts so rare are told by silence"


@hypothesis.given(st.lists(st.floats(0.02, 0.6), min_size=5, max_size=80), st.floats(0.0, 30.0))
def test_one_that_brings_all_in_time_is_not(delays: list[float], pause_s: float) -> None:
    progress, made = Progress(0.0), 0.0
    progress.took(1, rendition(), 0.0)
    for msn in range(40):  # A replay, with a hole in it.
        progress.took(1, part(msn, msn // 39 * 3, wallclock_us=msn * 1000), 0.1)
    for number, delay in enumerate(delays):
        made += 0.2 + (pause_s if number == len(delays) // 2 else 0.0)
        wall_us = int(number * 0.2e6)  # The publisher's clock stands still while it pauses.
        progress.took(1, part(40 + number // 5, number % 5, wallclock_us=wall_us), made + delay)
        assert not progress.is_slow(made + delay)


def test_one_that_falls_behind_is_slow() -> None:
    progress, slow = Progress(0.0), False
    for number in range(100):
        now = number * 0.3  # Parts of 0.2 s.
        progress.took(1, part(number // 5, number % 5, wallclock_us=int(number * 2e5)), now)
        slow |= progress.is_slow(now)
    assert slow


def test_parts_that_lack_at_the_end_of_segments_are_missed() -> None:
    progress = Progress(0.0)
    for msn in range(5):
        assert not progress.is_slow(msn + 0.0) or msn > 2
        progress.took(1, part(msn, 0), msn + 0.1)
        progress.took(1, ended(msn, parts=3), msn + 0.9)
    assert progress.is_slow(5.0)


def test_another_run_begins_anew() -> None:
    progress = Progress(0.0)
    for second in range(10):
        progress.took(second, part(100 - second, 7), float(second))
        assert not progress.is_slow(second + 0.5)
