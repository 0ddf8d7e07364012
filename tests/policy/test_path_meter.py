import math

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.media.routing import PathProbe
from edged.policy.path_meter import (
    FILTERED_S,
    OUTCOMES_MAX,
    WAITING_BYTES,
    WAITING_SAMPLES,
    WINDOW_S,
    PathMeter,
    SessionCounts,
    add_up,
)

STEP_S = 0.2


def counts(
    rtt_s: float = 0.03,
    segments: int = 0,
    resent: int = 0,
    unsent_bytes: int = 0,
    receiver_limited_s: float = 0.0,
) -> SessionCounts:
    return SessionCounts(
        rtt_s=rtt_s,
        segments=segments,
        resent=resent,
        delivery_bps=8e6,
        unsent_bytes=unsent_bytes,
        receiver_limited_s=receiver_limited_s,
    )


def measured(meter: PathMeter, now: float) -> PathProbe:
    path = meter.measure(now)
    assert path is not None
    return path


def test_nothing_is_known_at_first() -> None:
    assert PathMeter(0.0).measure(60.0) is None


def test_probes_tell_round_trip_jitter_and_loss() -> None:
    meter, now = PathMeter(0.0), 0.0
    for number in range(100):
        now = number * STEP_S
        meter.asked(now)
        if number % 10:
            meter.answered(now, 0.04 if number % 2 else 0.05, now + 0.05)
        else:
            meter.lost(now)
    path = measured(meter, now + 0.1)
    assert 40 < path.rtt_ms < 50
    assert 3 < path.jitter_ms < 7
    assert path.loss == pytest.approx(0.1, abs=0.001)
    assert path.probed
    assert path.silent_s == 0


def test_the_window_forgets() -> None:
    meter = PathMeter(0.0)
    meter.answered(0.0, 0.01, 0.0)
    meter.lost(0.0)
    assert measured(meter, WINDOW_S).loss == 0.5
    assert measured(meter, WINDOW_S + 0.01).loss == 0.0
    for _ in range(OUTCOMES_MAX):
        meter.lost(20.0)
    meter.answered(20.0, 0.01, 20.0)
    assert measured(meter, 20.0).loss == (OUTCOMES_MAX - 1) / OUTCOMES_MAX


def test_a_jump_of_a_clock_leaves_the_round_trip() -> None:
    meter = PathMeter(0.0)
    meter.answered(0.0, None, 0.0)
    assert meter.measure(0.0) is None
    meter.answered(0.0, 0.02, 0.0)
    meter.answered(0.2, None, 0.2)
    assert measured(meter, 0.2).rtt_ms == 20.0


def test_silence_counts_from_the_first_that_was_not_answered() -> None:
    meter = PathMeter(0.0)
    meter.asked(0.0)
    meter.answered(0.0, 0.02, 0.1)
    assert measured(meter, 100.0).silent_s == 0.0  # We did not ask: the pause was ours.
    meter.asked(100.0)
    meter.asked(100.2)
    assert measured(meter, 101.0).silent_s == 1.0
    meter.answered(100.2, 0.02, 101.1)
    assert measured(meter, 101.1).silent_s == 0.0


def test_a_path_whose_tcp_goes_on_is_not_silent() -> None:
    meter = PathMeter(0.0)
    meter.answered(0.0, 0.02, 0.0)
    meter.asked(0.2)
    meter.note_sessions(counts(), 4.0, sessions=4)
    meter.note_silence(0.1)
    assert measured(meter, 4.0).silent_s == 0.1
    meter.note_sessions(None, 4.0, sessions=0)
    meter.note_silence(math.inf)
    assert measured(meter, 4.0).silent_s == pytest.approx(3.8)


def test_filtered_probes_give_way_to_tcp_and_come_back() -> None:
    meter = PathMeter(0.0)
    meter.asked(0.0)
    meter.note_sessions(counts(segments=100, resent=1), 1.0, sessions=4)
    meter.note_silence(0.0)
    path = measured(meter, 1.0)  # Nothing better is known yet.
    assert (path.rtt_ms, path.probed, meter.filtered) == (30.0, False, False)
    meter.answered(0.0, 0.02, 1.0)
    for second in range(2, 13):
        meter.asked(second)
        meter.lost(second)
        sums = counts(segments=100 * second, resent=2 * second)
        meter.note_sessions(sums, second, sessions=4)
        meter.note_silence(0.05)
        path = measured(meter, second)
        assert meter.filtered is not path.probed
        assert path.probed is (second - 1.0 < FILTERED_S)
    assert (path.rtt_ms, path.jitter_ms, path.goodput_mbps) == (30.0, 0.0, 8.0)
    assert path.loss == pytest.approx(0.02)  # Not that of the probes.
    assert path.silent_s == 0.05
    meter.answered(12.8, 0.02, 13.0)
    assert measured(meter, 13.0).probed
    assert not meter.filtered


def test_a_dead_path_is_not_a_filtered_one() -> None:
    meter = PathMeter(0.0)
    meter.answered(0.0, 0.02, 0.0)
    for number in range(1, 100):
        meter.asked(number * STEP_S)
        if number > 10:
            meter.lost((number - 10) * STEP_S)
    meter.note_sessions(counts(), 19.0, sessions=4)
    meter.note_silence(19.0)
    path = measured(meter, 19.8)
    assert (path.probed, meter.filtered, path.loss) == (True, False, 1.0)
    assert path.silent_s > 18


def test_other_sessions_begin_the_counts_anew() -> None:
    meter = PathMeter(0.0)
    meter.note_sessions(counts(segments=1000, resent=0), 1.0, sessions=4)
    meter.note_silence(0.0)
    meter.note_sessions(counts(segments=10, resent=5), 2.0, sessions=3)
    meter.note_silence(0.0)
    assert measured(meter, 2.0).loss == 0.0


@pytest.mark.parametrize(
    ("unsent_bytes", "shut_s", "samples", "limited"),
    [
        (WAITING_BYTES, 0.0, WAITING_SAMPLES, True),
        (WAITING_BYTES - 1, 0.0, WAITING_SAMPLES, False),
        (WAITING_BYTES, 1.0, WAITING_SAMPLES, False),
        (WAITING_BYTES, 0.0, WAITING_SAMPLES - 1, False),
    ],
)
def test_a_path_is_limited_where_data_waits_and_the_receiver_does_not(
    unsent_bytes: int, shut_s: float, samples: int, limited: bool
) -> None:
    meter = PathMeter(0.0)
    for second in range(samples):
        sums = counts(unsent_bytes=unsent_bytes, receiver_limited_s=shut_s * second)
        meter.note_sessions(sums, second, sessions=4)
        meter.note_silence(0.0)
    assert measured(meter, samples).limited is limited


def test_sessions_add_up() -> None:
    assert add_up([]) is None
    both = add_up([counts(0.03, 10, 1, 5, 0.5), counts(0.02, 20, 2, 6, 0.25)])
    assert both is not None
    assert (both.rtt_s, both.segments, both.resent, both.unsent_bytes) == (0.02, 30, 3, 11)
    assert (both.delivery_bps, both.receiver_limited_s) == (16e6, 0.75)


@hypothesis.given(st.lists(st.sampled_from(["answered", "lost", "sessions", "none"]), max_size=60))
def test_whatever_happens_it_tells_what_can_be_told(script: list[str]) -> None:
    """What it tells is within the limits that the wire has."""
    meter, now = PathMeter(0.0), 0.0
    for what in script:
        now += STEP_S
        meter.asked(now)
        if what == "answered":
            meter.answered(now, 0.01, now)
        elif what == "lost":
            meter.lost(now)
        else:
            sums = counts(segments=3, resent=9) if what == "sessions" else None
            silence_s = math.inf if sums is None else 0.0
            meter.note_sessions(sums, now, sessions=1)
            meter.note_silence(silence_s)
        path = meter.measure(now)
        if path is not None:
            assert 0 <= path.loss <= 1
            assert 0 <= path.rtt_ms < 1000
            assert 0 <= path.silent_s <= now
