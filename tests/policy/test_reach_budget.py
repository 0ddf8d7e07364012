"""What may be used of PoPs and links, and no more."""

import math

from edged.policy.reach_budget import FILL, Budget, PopLimits

POPS = (
    PopLimits(holds_max=2, hold_mbps_max=10.0, relays_max=1, relay_mbps_max=5.0),
    PopLimits(holds_max=9, ways={"fra1": ("sea >", "land >"), "nyc1": ("unknown >",)}),
)


def make(orders: int = 9) -> Budget:
    return Budget(POPS, {"sea >": 8.0, "land >": 4.0}, orders)


def test_a_pop_holds_so_many_channels_and_mbps() -> None:
    budget = make()
    assert budget.fits(0, "fra1", 10.0, 1.0)
    assert not budget.fits(0, "fra1", 10.0, FILL)
    assert not budget.fits(0, "fra1", 10.1, 1.0)
    budget.hold(0, "fra1", 6.0)
    assert budget.fits(0, "fra1", 4.0, 1.0)
    assert not budget.fits(0, "fra1", 4.1, 1.0)
    assert budget.fits(0, "fra1", 0.0, FILL), "what costs nothing fits where all is full"
    budget.hold(0, "fra1", 4.0)
    assert not budget.may_hold(0)
    budget.hold(0, "fra1", -4.0, -1)
    assert budget.may_hold(0)
    budget.hold(0, "fra1", 4.0, 0)
    assert budget.may_hold(0)
    assert not budget.fits(0, "fra1", 0.1, 1.0)


def test_each_link_of_the_way_counts() -> None:
    budget = make()
    assert not budget.fits(1, "fra1", 4.1, 1.0)
    assert budget.fits(1, "nyc1", math.inf, 1.0), "no map has that one"
    budget.hold(1, "fra1", 3.0)
    assert budget.link_mbps == {"sea >": 3.0, "land >": 3.0}
    assert budget.fits(1, "fra1", 1.0, 1.0)
    assert not budget.fits(1, "fra1", 1.1, 1.0)


def test_a_relay_sends_so_many_channels_and_mbps() -> None:
    budget = make()
    assert budget.may_relay(0, 5.0, 1.0)
    assert not budget.may_relay(0, 5.0, FILL)
    budget.relay(0, 1, 2.0)
    assert not budget.may_relay(0, 0.1, 1.0), "one is all that it relays"
    assert (budget.relays, budget.relay_mbps, budget.orders) == ([1, 0], [2.0, 0.0], [0, 1])
    assert not budget.may_relay(1, 0.1, 1.0), "it relays none"


def test_a_pop_is_told_of_so_many_channels() -> None:
    budget = make(orders=2)
    budget.hold(1, "nyc1", 0.0)
    budget.relay(0, 1, 0.0)
    assert not budget.may_order(1)
    assert not budget.may_hold(1)
