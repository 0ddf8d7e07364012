"""Events begin and are over in their time."""

from collections.abc import Callable

import pytest

from edged.tools.simulate.engine import Network
from edged.tools.simulate.incidents import schedule
from edged.tools.simulate.production import Leases
from edged.tools.simulate.runner import MAKERS
from edged.tools.simulate.scenario import (
    CapacityLost,
    Event,
    FlashCrowd,
    IrsDead,
    LinkCut,
    OriginDead,
    OriginFrozen,
    StaleTelemetry,
    Upgrade,
)
from tests.tools.simulate.worlds import brief


def watch(event: Event, look: Callable[[Network], object]) -> list[object]:
    """What is seen before, during and after an event from 36 to 72 s."""
    network = Network(brief(event, hours=0.03), MAKERS["leases"], seed=1)
    schedule(network)
    seen: list[object] = []
    for at in (30.0, 60.0, 90.0):
        network.call_at(at, lambda: seen.append(look(network)))
    network.run()
    return seen


def irs_alive(network: Network) -> object:
    assert isinstance(network.policy, Leases)
    return network.policy.irs.alive


def irs_age(network: Network) -> object:
    assert isinstance(network.policy, Leases)
    return network.policy.irs.age_s


@pytest.mark.parametrize(
    ("event", "look", "seen"),
    [
        (
            OriginDead(origin="lhr1", at_h=0.01, for_h=0.01),
            lambda n: n.sites[1].alive,
            [True, False, True],
        ),
        (
            OriginDead(origin="lhr1", at_h=0.01, for_h=0.01),
            lambda n: n.sites[1].incarnation,
            [1, 1, 2],
        ),
        (
            OriginFrozen(origin="lhr1", at_h=0.01, for_h=0.01),
            lambda n: n.sites[1].frozen,
            [False, True, False],
        ),
        (
            OriginFrozen(origin="lhr1", at_h=0.01, for_h=0.01),
            lambda n: n.sites[1].incarnation,
            [1, 1, 1],
        ),
        (
            CapacityLost(origin="nyc1", left=0.3, at_h=0.01, for_h=0.01),
            lambda n: n.sites[0].slots.total,
            [100, 30, 100],
        ),
        (
            LinkCut(link="lhr-nyc", at_h=0.01, for_h=0.01),
            lambda n: len(n.geography.routes[0][1]),
            [1, 2, 1],
        ),
        (IrsDead(at_h=0.01, for_h=0.01), irs_alive, [True, False, True]),
        (StaleTelemetry(age_s=20.0, at_h=0.01, for_h=0.01), irs_age, [1.0, 20.0, 1.0]),
        (
            FlashCrowd(times=9.0, at_h=0.01, for_h=0.01),
            lambda n: n.sites[0].works,
            [True, True, True],
        ),
        (OriginDead(origin="lhr1", at_h=0.01), lambda n: n.sites[1].alive, [True, False, False]),
    ],
)
def test_an_event_begins_and_is_over(
    event: Event, look: Callable[[Network], object], seen: list[object]
) -> None:
    assert watch(event, look) == seen


def test_an_upgrade_takes_one_origin_after_the_other() -> None:
    event = Upgrade(at_h=0.005, origins=("lhr1", "nrt1"), drain_s=10.0, restart_s=5.0, pause_s=5.0)
    network = Network(brief(event, load=0.3), MAKERS["leases"], seed=1)
    schedule(network)
    seen = []
    for at in (17.0, 20.0, 30.0, 36.0, 40.0, 55.0):
        network.call_at(
            at,
            lambda: seen.append(
                "".join("x-d."[2 * s.works + (not s.drains)] for s in network.sites)
            ),
        )
    network.run()
    # d drains, x restarts, . works.
    assert seen == ["...", ".d.", ".x.", "...", "..d", "..."]
