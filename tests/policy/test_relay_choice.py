"""Relay or origin: silence, distance, what is avoided, and that no loop can come to be."""

import itertools
import random

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.policy.relay_choice import (
    AVOID_S,
    AVOIDED_MAX,
    RelayChoice,
    RelayFacts,
)

GOOD = RelayFacts(is_up=True, ms=10.0, origin_ms=80.0, relayed_on=0)


def choice(relayed_max: int = 9) -> RelayChoice:
    return RelayChoice(random.Random(1), relayed_max)  # noqa: S311 - a test's chance


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        (GOOD, ""),
        (GOOD._replace(ms=None), ""),
        (GOOD._replace(origin_ms=None), ""),
        (GOOD._replace(is_up=False), "the way there is not up"),
        (GOOD._replace(is_up=False, down_why="refused"), "the way there is not up: refused"),
        (GOOD._replace(ms=85.0), ""),
        (GOOD._replace(ms=85.1), "85.1 ms away, the origin 80.0 ms"),
        (GOOD._replace(relayed_on=2), "it goes from here to 2 PoPs"),
    ],
)
def test_a_relay_is_gone_to_only_if_all_is_well(facts: RelayFacts, why: str) -> None:
    assert choice().why_not("x", "a/0", facts, 0.0, others=8) == why


def test_no_more_channels_than_may_be() -> None:
    assert "9 channels come" in choice().why_not("x", "a/0", GOOD, 0.0, others=9)


def test_what_failed_is_avoided_for_a_while_each_for_another() -> None:
    made = choice()
    made.avoid("a/0", "", "it is silent", 0.0)
    made.avoid("b/0", "x", "refused", 0.0)
    assert made.why_not("x", "a/0", GOOD, AVOID_S - 1, others=0) == "avoided: it is silent"
    assert made.why_not("x", "b/0", GOOD, AVOID_S - 1, others=0) == "avoided: refused"
    assert made.why_not("y", "b/0", GOOD, 0.0, others=0) == ""
    assert list(made.avoided(0.0)) == ["a/0", "b/0 x"]
    assert made.why_not("x", "a/0", GOOD, 2 * AVOID_S, others=0) == ""
    assert made.avoided(2 * AVOID_S) == {}
    made.expire(2 * AVOID_S)
    assert not made._avoided
    ends = set()
    for number in range(100):
        made.avoid("a/0", str(number), "", 0.0)
        ends.add(made._avoided["a/0", str(number)].until)
    assert len(ends) == 100


def test_what_is_avoided_is_bounded() -> None:
    made = choice()
    for number in range(AVOIDED_MAX + 5):
        made.avoid("a/0", str(number), "", 0.0)
    assert len(made._avoided) == AVOIDED_MAX


class Node:
    """A PoP as it keeps to the two rules, with what is under way to it and from it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asks: str | None = None  # Whom it has asked, or takes the channel from.
        self.serves: set[str] = set()


@hypothesis.given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd"), st.booleans()), max_size=60
    ),
    st.randoms(),
)
def test_no_loop_and_no_chain_whatever_orders_say_and_however_late_asks_arrive(  # noqa: C901
    orders: list[tuple[str, str, bool]], rng: random.Random
) -> None:
    """Asks and ends are delivered at any time later, in any order between pairs."""
    nodes = {name: Node(name) for name in "abcd"}
    wires: dict[tuple[str, str], list[str]] = {
        pair: [] for pair in itertools.product("abcd", "abcd")
    }

    def deliver() -> None:
        waiting = [pair for pair, messages in wires.items() if messages]
        if not waiting:
            return
        sender, receiver = rng.choice(waiting)
        message, to = wires[sender, receiver].pop(0), nodes[receiver]
        if message == "ask":
            if to.asks is None:
                to.serves.add(sender)
            else:
                wires[receiver, sender].append("refused")
        elif message == "end":
            to.serves.discard(sender)
        elif to.asks == sender:  # Refused.
            to.asks = None

    for name, relay, leaves in orders:
        node = nodes[name]
        if leaves and node.asks is not None:
            wires[name, node.asks].append("end")
            node.asks = None
        elif name != relay and node.asks is None:
            facts = GOOD._replace(relayed_on=len(node.serves))
            if not choice().why_not("x", relay, facts, 0.0, others=0):
                node.asks = relay
                wires[name, relay].append("ask")
        for _ in range(rng.randrange(3)):
            deliver()
        for each in nodes.values():
            assert not (each.serves and each.asks is not None), "a relay takes it from the origin"
