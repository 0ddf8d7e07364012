"""Until when runs wait for their publishers."""

import math

from edged.policy.grace import PUT_OFF_S, Grace


def test_a_run_waits_so_long_and_no_longer() -> None:
    grace = Grace(10.0)
    assert grace.enabled
    assert grace.next_timeout() == math.inf
    assert grace.begin("alice", 5.0) == []
    assert "alice" in grace
    assert grace.next_timeout() == 15.0
    assert grace.expired(14.99) == []
    assert grace.expired(15.0) == ["alice"]
    grace.end("alice")
    assert len(grace) == 0
    assert grace.expired(99.0) == []
    grace.end("alice")


def test_lost_again_before_it_had_gone_on_it_waits_no_longer() -> None:
    grace = Grace(10.0)
    grace.begin("alice", 0.0)
    grace.begin("alice", 6.0)
    assert grace.expired(10.0) == ["alice"]


def test_while_someone_has_come_back_the_end_is_put_off() -> None:
    grace = Grace(10.0)
    grace.begin("alice", 0.0)
    grace.put_off("alice", 10.0)
    grace.put_off("bob", 10.0)  # Which does not wait.
    assert grace.expired(10.0) == []
    assert grace.next_timeout() == 10.0 + PUT_OFF_S


def test_our_own_sleep_counts_for_nobody() -> None:
    grace = Grace(10.0)
    grace.begin("alice", 0.0)
    grace.slept(3.0)
    assert grace.expired(12.9) == []
    assert grace.expired(13.0) == ["alice"]


def test_at_the_limit_the_one_that_waited_longest_ends() -> None:
    grace = Grace(10.0, waiting_max=2)
    assert grace.begin("a", 0.0) == grace.begin("b", 1.0) == []
    assert grace.begin("c", 2.0) == ["a"]
    assert len(grace) == 2


def test_none_is_no_grace() -> None:
    assert not Grace(0.0).enabled
