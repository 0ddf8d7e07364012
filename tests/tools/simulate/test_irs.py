"""IRS in the simulator: it plans by what it knows, as old as that is, and dies with it."""

import msgspec
import pytest

from edged.media.routing import OriginState
from edged.tools.simulate.engine import Network
from edged.tools.simulate.incidents import schedule
from edged.tools.simulate.production import Leases
from edged.tools.simulate.runner import MAKERS
from edged.tools.simulate.scenario import (
    Event,
    IrsConfig,
    IrsDead,
    Loaded,
    OriginDead,
    OriginFrozen,
)
from tests.tools.simulate.worlds import brief


def network_of(loaded: Loaded) -> tuple[Network, Leases]:
    network = Network(loaded, MAKERS["leases"], seed=1)
    schedule(network)
    assert isinstance(network.policy, Leases)
    return network, network.policy


def play(*events: Event, irs: IrsConfig | None = None, load: float = 0.8) -> tuple[Network, Leases]:
    network, policy = network_of(brief(*events, irs=irs, load=load))
    network.run()
    return network, policy


def test_a_plan_is_pushed_at_each_interval() -> None:
    network, policy = play()
    interval_s = network.scenario.irs.push_interval_s
    assert policy.irs.plans == pytest.approx((180 + 32) / interval_s, abs=3)
    assert policy.irs.fallbacks == 0
    assert all(view.lease_until > network.now for view in policy.views)


def test_a_failed_origin_is_planned_for_at_once() -> None:
    network, policy = network_of(brief(OriginDead(at_h=0.02, origin="nyc1"), load=0.4))
    states: list[tuple[float, OriginState]] = []
    for ms in range(0, 4000, 50):
        at = 72.0 + ms / 1000
        network.call_at(
            at,
            lambda: states.append((network.now - 72.0, policy.views[0].by_name["nyc1"].row.state)),
        )
    network.run()
    masked = next(after for after, state in states if state is not OriginState.UP)
    age_s = network.scenario.irs.telemetry_age_s
    assert age_s < masked < age_s + 0.6, "suspected after two heartbeats, told when it is so old"


def test_leases_expire_without_irs_and_come_back_with_it() -> None:
    network, policy = network_of(brief(IrsDead(at_h=0.01, for_h=0.02)))
    left: list[float] = []
    for at in (35.0, 60.0, 107.0, 120.0):
        network.call_at(at, lambda: left.append(policy.views[0].lease_until - network.now))
    network.run()
    assert left[0] > 0
    assert left[1] < 0
    assert left[2] < 0, "who has just started has nothing to say"
    assert left[3] > 0


def test_what_was_under_way_when_irs_died_is_lost() -> None:
    irs = IrsConfig(telemetry_age_s=10.0, push_interval_s=5.0, lease_ttl_s=15.0)
    network, policy = network_of(brief(IrsDead(at_h=0.01), irs=irs))
    versions: list[int] = []
    for at in (36.5, 60.0):
        network.call_at(at, lambda: versions.append(policy.views[0].version))
    network.run()
    assert versions[0] == versions[1]


def test_old_states_reach_pops_late() -> None:
    irs = IrsConfig(telemetry_age_s=20.0, push_interval_s=5.0, lease_ttl_s=30.0)
    network, policy = network_of(brief(OriginFrozen(at_h=0.02, origin="nyc1"), irs=irs, load=0.4))
    states: list[OriginState] = []
    for after in (1.0, 15.0, 21.0):
        network.call_at(
            72.0 + after, lambda: states.append(policy.views[0].by_name["nyc1"].row.state)
        )
    network.run()
    assert states[:2] == [OriginState.UP, OriginState.UP]
    assert states[2] is OriginState.DOWN


def test_arrivals_are_known_as_they_come() -> None:
    network, policy = play()
    expected = 0.8 * 200 / 120.0
    assert sum(policy.irs._rates.values()) == pytest.approx(expected, rel=0.5)
    assert policy.irs._rates["nyc"] > policy.irs._rates["bos"] * 0.8
    assert network.recorder.live_total > 100


def test_links_are_told_when_they_fill() -> None:
    network, policy = network_of(brief(load=0.9))
    network.run()
    assert policy.irs._links() == ()
    tight = brief(load=0.9, irs=IrsConfig(link_use_max=0.5))
    links = tuple(type(link)(a=link.a, b=link.b, gbps=0.01) for link in tight.world.links)
    narrow = Loaded(tight.scenario, msgspec.structs.replace(tight.world, links=links))
    network, policy = network_of(narrow)
    network.run()
    told = policy.irs._links()
    assert told
    assert all(link.mbps == 5.0 for link in told)
