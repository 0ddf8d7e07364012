"""Guessing keys: what counts, from where, until when, and how much is remembered."""

import pytest

from edged.errors import PublishRefusedError
from edged.policy.attempts import WINDOW_S, WRONG_KEYS_MAX, Attempts

PEER = "10.0.0.7:50112"


def guess(attempts: Attempts, peer: str = PEER, *, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        attempts.check(peer, now)
        attempts.note_refused(peer, "unknown_key", now)


def test_at_the_limit_no_key_is_looked_at_any_more() -> None:
    attempts = Attempts()
    guess(attempts, times=WRONG_KEYS_MAX)  # One less, and the last of them is still looked at.
    with pytest.raises(PublishRefusedError) as refused:
        attempts.check("10.0.0.7:9", 0.5)  # Another port is no other place.
    assert refused.value.code == "rate_limited"
    assert refused.value.reason == (
        "10 wrong stream keys came from this address within 60 s; try again in 60 s"
    )
    attempts.check("10.0.0.8:50112", 0.5)


def test_it_ends_when_the_oldest_is_a_minute_old() -> None:
    attempts = Attempts()
    guess(attempts, times=1, now=0.0)
    guess(attempts, times=WRONG_KEYS_MAX - 1, now=30.0)
    with pytest.raises(PublishRefusedError, match="rate_limited"):
        attempts.check(PEER, WINDOW_S - 0.1)
    guess(attempts, times=1, now=WINDOW_S)
    with pytest.raises(PublishRefusedError, match="try again in 30 s"):
        attempts.check(PEER, WINDOW_S)


def test_a_key_that_is_genuine_is_not_counted() -> None:
    attempts = Attempts()
    for code in ("expired_key", "out_of_scope", "no_route", "unknown_app", "takeover"):
        for _ in range(2 * WRONG_KEYS_MAX):
            attempts.note_refused(PEER, code, 0.0)
    attempts.check(PEER, 0.0)
    assert len(attempts) == 0


def test_addresses_are_bounded_and_the_one_longest_silent_is_forgotten() -> None:
    attempts = Attempts(addresses_max=3)
    guess(attempts, "10.0.0.1:1", times=WRONG_KEYS_MAX)
    guess(attempts, "10.0.0.2:1", times=WRONG_KEYS_MAX)
    guess(attempts, "10.0.0.3:1", times=1)
    attempts.note_refused("10.0.0.1:1", "unknown_key", 1.0)
    guess(attempts, "10.0.0.4:1", times=1)
    assert len(attempts) == 3
    attempts.check("10.0.0.2:1", 1.0)
    with pytest.raises(PublishRefusedError):
        attempts.check("10.0.0.1:1", 1.0)
