"""Orders in force at a PoP, and how little is done at once."""

import random
from collections.abc import Sequence

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.media.reach import Reach, ReachOrder
from edged.policy.reach_orders import SPREAD, Holding, Pace, ReachOrders

X, Y = ReachOrder("x", hold=True), ReachOrder("y", via="ams1/0")


def reach(number: int, *orders: ReachOrder, epoch: int = 1, ttl_s: float = 10.0) -> Reach:
    return Reach(epoch=epoch, number=number, ttl_s=ttl_s, orders=orders)


def test_orders_that_have_expired_come_into_force_again() -> None:
    orders = ReachOrders()
    assert orders.in_force(0.0) == {}
    assert orders.take(reach(1, X), 0.0) == ""
    assert orders.in_force(9.9) == {"x": X}
    assert orders.in_force(10.0) == {}
    assert orders.take(reach(2, X), 50.0) == ""
    assert orders.in_force(59.9) == {"x": X}


def test_the_same_again_changes_nothing_but_how_long_it_holds() -> None:
    orders = ReachOrders()
    for number in range(5):
        assert orders.take(reach(number, X, Y), 5.0 * number) == ""
        assert orders.in_force(5.0 * number) == {"x": X, "y": Y}
    assert orders.in_force(29.9) == {"x": X, "y": Y}
    assert orders.in_force(30.0) == {}


def test_orders_are_whole() -> None:
    orders = ReachOrders()
    orders.take(reach(1, X, Y), 0.0)
    orders.take(reach(2, Y), 1.0)
    assert orders.in_force(1.0) == {"y": Y}
    orders.take(reach(3), 1.0)
    assert orders.in_force(1.0) == {}


def test_an_irs_that_only_asks_changes_nothing() -> None:
    orders = ReachOrders()
    orders.take(reach(7, X), 0.0)
    assert orders.take(Reach(epoch=2, number=1, ttl_s=99), 1.0) == ""
    assert orders.in_force(9.9) == {"x": X}
    assert orders.in_force(10.0) == {}


@pytest.mark.parametrize(("epoch", "number"), [(1, 9), (2, 3), (2, 2), (0, 99)])
def test_stale_orders_are_ignored(epoch: int, number: int) -> None:
    orders = ReachOrders()
    orders.take(reach(3, X, epoch=2), 0.0)
    assert "not newer than (2, 3)" in orders.take(reach(number, Y, epoch=epoch), 1.0)
    assert orders.in_force(1.0) == {"x": X}
    assert orders.refused == 1
    assert orders.take(reach(1, Y, epoch=3), 1.0) == ""


@hypothesis.given(
    st.floats(0.1, 100), st.lists(st.floats(0, 3), min_size=1, max_size=200), st.integers(1, 5)
)
def test_no_more_changes_than_so_many_a_second(
    per_s: float, waits: list[float], tries: int
) -> None:
    pace, now, taken = Pace(per_s), 0.0, 0
    for wait_s in waits:
        now += wait_s
        taken += sum(pace.take(now) for _ in range(tries))
        assert taken <= max(1.0, per_s) + per_s * now + 1e-6
    assert taken >= min(len(waits), 1)


class Here:
    """What is held, and what cannot be."""

    def __init__(self, *impossible: str) -> None:
        self.here: set[str] = set()
        self.impossible = set(impossible)
        self.changes = 0

    def begin(self, channel: str) -> str:
        if channel in self.impossible:
            return "it is not live"
        self.changes += channel not in self.here
        self.here.add(channel)
        return ""

    def end(self, channel: str) -> None:
        self.changes += 1
        self.here.remove(channel)


def update(
    holding: Holding, here: Here, wanted: Sequence[str], now: float, *, changes: int = 99
) -> None:
    before = here.changes
    holding.update(
        wanted,
        now,
        begin=here.begin,
        end=here.end,
        may=lambda: here.changes - before < changes,
    )


def seeded(seed: int = 1) -> random.Random:
    return random.Random(seed)  # noqa: S311 - a test's chance


def test_what_is_wanted_no_more_ends_after_its_grace() -> None:
    holding, here = Holding(9, 10.0, seeded()), Here()
    update(holding, here, ["x", "y"], 0.0)
    update(holding, here, ["x"], 1.0)
    update(holding, here, ["x"], 10.9)
    assert here.here == {"x", "y"}
    assert "ends in" in next(seen.why for seen in holding.seen(10.9) if seen.channel == "y")
    update(holding, here, ["x"], 11.0 + 10.0 * SPREAD)
    assert here.here == {"x"}
    assert holding.held == {"x"}


def test_what_is_wanted_again_in_time_goes_on() -> None:
    holding, here = Holding(9, 10.0, seeded()), Here()
    for now in range(100):
        update(holding, here, ["x"] if now % 8 == 0 else [], float(now))
    assert here.here == {"x"}
    assert here.changes == 1


def test_they_do_not_all_end_in_one_moment() -> None:
    names = [str(number) for number in range(100)]
    holding, here = Holding(100, 10.0, seeded()), Here()
    update(holding, here, names, 0.0, changes=100)
    update(holding, here, [], 0.0)
    left = []
    for tick in range(1, 24):
        before = len(here.here)
        update(holding, here, [], float(tick), changes=20)
        assert before - len(here.here) <= 20
        left.append(len(here.here))
    assert left[8] == 100
    assert 30 < left[14] < 70
    assert left[-1] == 0


def test_what_cannot_be_here_is_tried_again_and_says_why() -> None:
    holding, here = Holding(9, 10.0, seeded()), Here("x")
    update(holding, here, ["x"], 0.0)
    assert [(seen.held, seen.why) for seen in holding.seen(0.0)] == [(False, "it is not live")]
    here.impossible.clear()
    update(holding, here, ["x"], 1.0)
    assert [(seen.held, seen.why) for seen in holding.seen(1.0)] == [(True, "by order")]


def test_no_more_is_held_than_may_be_those_in_front_first() -> None:
    holding, here = Holding(2, 10.0, seeded()), Here()
    update(holding, here, ["x", "y", "z"], 0.0)
    assert here.here == {"x", "y"}
    assert {seen.channel: seen.why for seen in holding.seen(0.0) if not seen.held} == {
        "z": "more than may be held"
    }
    update(holding, here, ["z", "y", "x"], 1.0)  # Others are in front: they wait for room.
    assert here.here == {"x", "y"}
    assert {seen.channel: seen.why for seen in holding.seen(0.0)}["z"] == "others have yet to end"
    update(holding, here, ["z", "y", "x"], 22.0)
    assert here.here == {"z", "y"}


@hypothesis.given(
    st.lists(st.tuples(st.floats(0, 9), st.lists(st.sampled_from("abcdef"), unique=True))),
    st.integers(1, 4),
    st.integers(0, 3),
)
def test_limits_hold_whatever_is_wanted(
    turns: list[tuple[float, list[str]]], holds: int, changes: int
) -> None:
    holding, here, now = Holding(holds, 5.0, seeded()), Here("f"), 0.0
    for wait_s, wanted in turns:
        now += wait_s
        before = here.changes
        update(holding, here, wanted, now, changes=changes)
        assert here.changes - before <= changes
        assert here.here == holding.held
        assert len(here.here) <= holds
