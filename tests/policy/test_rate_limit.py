"""Requests per client: strict within any minute, bounded in memory, and who a client is."""

import copy

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.policy.rate_limit import (
    SLOT_S,
    WINDOW_S,
    RateLimit,
    choose_client,
    count_for,
    parse_networks,
)


def test_at_the_limit_and_one_past_it() -> None:
    limit = RateLimit(3)
    assert [limit.admit("a", 0.0).left for _ in range(3)] == [2, 1, 0]
    refused = limit.admit("a", 1.0)
    assert (refused.allowed, refused.left) == (False, 0)
    assert refused.reset_s == WINDOW_S + SLOT_S - 1.0
    assert limit.admit("b", 1.0).allowed
    assert not limit.admit("a", 1.0 + refused.reset_s - 0.01).allowed
    assert limit.admit("a", 1.0 + refused.reset_s).allowed


def test_a_refused_request_does_not_count() -> None:
    limit = RateLimit(1)
    limit.admit("a", 0.0)
    for second in range(1, 64):
        assert not limit.admit("a", float(second)).allowed
    assert limit.admit("a", 65.0).allowed


@hypothesis.given(
    st.lists(st.floats(0, 30, allow_nan=False), min_size=1, max_size=200), st.integers(1, 8)
)
def test_no_minute_has_more_than_the_limit_and_who_is_below_it_is_let_in(
    gaps: list[float], per_window_max: int
) -> None:
    limit = RateLimit(per_window_max)
    now, let_in = 1000.0, list[float]()
    for gap in gaps:
        now += gap
        recent = sum(1 for at in let_in if now - at < WINDOW_S)
        around = sum(1 for at in let_in if now - at < WINDOW_S + SLOT_S)
        verdict = limit.admit("a", now)
        if verdict.allowed:
            assert recent < per_window_max
            let_in.append(now)
        else:
            assert around >= per_window_max
            later = now + verdict.reset_s + 1e-6
            assert copy.deepcopy(limit).admit("a", later).allowed
        assert 0 <= verdict.left < per_window_max
        assert 0 < verdict.reset_s <= WINDOW_S + SLOT_S + 1e-6


def test_clients_are_bounded_and_the_one_longest_silent_is_forgotten() -> None:
    limit = RateLimit(1, clients_max=2)
    for client in ("a", "b", "a", "c"):
        limit.admit(client, 0.0)
    assert len(limit) == 2
    assert not limit.admit("a", 0.0).allowed
    assert limit.admit("b", 0.0).allowed


TRUSTED = parse_networks(["10.0.0.0/8", "2001:db8:1::/48"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.7:5", [], "192.0.2.7"),
        ("192.0.2.7:5", ["198.51.100.1"], "192.0.2.7"),  # It is no proxy of ours.
        ("10.0.0.1:5", [], "10.0.0.1"),
        ("10.0.0.1:5", ["198.51.100.1"], "198.51.100.1"),
        ("[::ffff:10.0.0.1]:5", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1:5", ["203.0.113.9, 198.51.100.1"], "198.51.100.1"),  # The first is a claim.
        ("10.0.0.1:5", ["203.0.113.9", "198.51.100.1, 10.9.9.9"], "198.51.100.1"),
        ("10.0.0.1:5", ["10.2.2.2, 10.3.3.3"], "10.2.2.2"),
        ("10.0.0.1:5", ["unknown"], "10.0.0.1"),
        ("10.0.0.1:5", ["198.51.100.1, garbage, 10.4.4.4"], "10.4.4.4"),
        ("[2001:db8:1::5]:5", ["[2001:db8:7::9]"], "2001:db8:7::9"),
        ("somebody", [], "somebody"),
    ],
)
def test_who_a_client_is(peer: str, forwarded: list[str], client: str) -> None:
    assert choose_client(peer, forwarded, TRUSTED) == client


def test_a_subscriber_s_addresses_are_one_client() -> None:
    assert count_for("2001:db8::7") == count_for("2001:db8::8:9:a:b") == "2001:db8::/64"
    assert count_for("192.0.2.7") == "192.0.2.7"
    assert count_for("[2001:db8::7]") == "2001:db8::/64"


@pytest.mark.parametrize("text", ["10.0.0.1/8", "proxy.example", "", "10.0.0.0/33"])
def test_networks_that_are_none_are_named(text: str) -> None:
    with pytest.raises(ValueError, match=r"network|address|host bits"):
        parse_networks([text])


def test_whether_a_limit_is_spent_is_asked_without_counting() -> None:
    limit = RateLimit(2)
    for at, spent in ((0.0, False), (1.0, False), (2.0, True), (WINDOW_S, True)):
        assert limit.is_spent("a", at) is spent
        assert limit.is_spent("a", at) is spent
        assert limit.admit("a", at).allowed is not spent
    later = 2 * WINDOW_S
    assert not limit.is_spent("a", later)
    assert not limit.is_spent("b", 0.0)
    assert len(limit) == 1
