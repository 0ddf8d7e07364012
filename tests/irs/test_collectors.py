"""What IRS gathers: supplies, demands, votes, and what it forgets."""

import msgspec
import pytest

from edged.errors import RemoteProtocolError
from edged.irs.collectors import Collectors
from edged.media.routing import (
    BOUNDS_MAX,
    ORIGINS_MAX,
    BoundUnits,
    IngestOffer,
    OriginReport,
    OriginState,
    PathProbe,
    PopRow,
    PopState,
    PopTelemetry,
    ReportedState,
)
from edged.policy.planner import OriginSupply, PopDemand
from edged.policy.pop_needs import BoundDemand
from edged.wire.table import POPS_MAX, OriginHello


def hello(origin: str) -> OriginHello:
    return OriginHello(origin=origin, incarnation=1, address=f"{origin}:1", domain="rack")


def beat(origin: str, free: tuple[int, int, int] = (9, 8, 7)) -> OriginReport:
    return OriginReport(origin, 1, ReportedState.UP, 10, free)


def test_an_origin_counts_from_its_first_heartbeat_and_with_its_address() -> None:
    world = Collectors()
    world.origin_joined(hello("o1"))
    world.origin_joined(hello("o2"))
    assert world.supplies(0.0) == []
    world.heartbeat(beat("o1"), 0.0)
    world.heartbeat(beat("stranger"), 0.0)
    assert (world.address("o1"), world.address("stranger")) == ("o1:1", "")
    assert world.supplies(0.0) == [
        OriginSupply(
            origin="o1",
            address="o1:1",
            state=OriginState.UP,
            slots_total=10,
            room=(9, 8, 7),
            domain="rack",
        )
    ]


def test_ladders_that_an_origin_tells_of_are_told_to_the_planner() -> None:
    world = Collectors()
    world.origin_joined(hello("o1"))
    report = msgspec.structs.replace(beat("o1"), ladder_free=(70, 40, 10), ladder_cost=20)
    world.heartbeat(report, 0.0)
    (supply,) = world.supplies(0.0)
    assert supply.ladders == (3, 2, 0)


def test_hellos_without_heartbeats_are_bounded() -> None:
    world = Collectors()
    world.origin_joined(hello("o0"))
    world.heartbeat(beat("o0"), 0.0)
    for n in range(1, 3 * ORIGINS_MAX):
        world.origin_joined(hello(f"o{n}"))
    world.heartbeat(beat("o1"), 0.0)
    assert [supply.origin for supply in world.supplies(0.0)] == ["o0"]


def test_demand_is_what_a_pop_has_and_how_fast_it_grows() -> None:
    world = Collectors()
    world.pop_joined("lhr/0")
    probes = {"o1": PathProbe(rtt_ms=12.5)}
    told = PopTelemetry({"o1": (1, 2, 3)}, arrivals=100, probes=probes)
    world.telemetry("lhr/0", told, 0.0)
    assert world.demands(0.0, 10.0) == [
        PopDemand(pop="lhr/0", units={"o1": (1, 2, 3)}, arrivals_per_s=0.0, rtt_ms={"o1": 12.5})
    ]
    world.telemetry("lhr/0", PopTelemetry({}, arrivals=20), 2.0)
    world.telemetry("lhr/0", PopTelemetry({}, arrivals=0), 2.0)
    (demand,) = world.demands(2.0, 10.0)
    assert demand.arrivals_per_s == pytest.approx(0.9)


def test_a_pop_that_left_is_planned_for_until_its_leases_have_expired() -> None:
    world = Collectors()
    world.pop_joined("lhr/0")
    world.pop_left("lhr/0", 5.0)
    world.pop_left("never", 5.0)
    assert [pop.connected for pop in world.pops()] == [False]
    assert len(world.demands(14.9, 10.0)) == 1
    world.pop_joined("lhr/0")
    assert len(world.demands(100.0, 10.0)) == 1
    world.pop_left("lhr/0", 100.0)
    assert world.demands(110.0, 10.0) == []


def test_pops_are_bounded_and_the_gone_give_way() -> None:
    world = Collectors()
    for n in range(POPS_MAX):
        world.pop_joined(f"p{n}/0")
    with pytest.raises(RemoteProtocolError, match="one more than 512"):
        world.pop_joined("extra/0")
    world.pop_left("p3/0", 0.0)
    world.pop_joined("extra/0")
    assert len(world.pops()) == POPS_MAX


def test_bad_experiences_of_two_pops_outvote_a_heartbeat() -> None:
    world = Collectors()
    world.origin_joined(hello("o1"))
    world.heartbeat(beat("o1"), 0.0)
    for pop in ("lhr/0", "ams/0"):
        world.pop_joined(pop)
    assert world.telemetry("lhr/0", PopTelemetry({}, 1, {"o1": 3}), 0.0) == []
    assert world.telemetry("ams/0", PopTelemetry({}, 1, {"o1": 0}), 0.0) == []
    (change,) = world.telemetry("ams/0", PopTelemetry({}, 1, {}, {"o1": 1}), 0.0)
    assert change.after is OriginState.SUSPECT
    assert world.supplies(0.0)[0].room == (0, 0, 0)


def test_offers_are_those_of_pops_that_are_connected_and_make_one() -> None:
    world = Collectors()
    offer = IngestOffer(("rtmp://ams/live",), PopState.UP, 0.1)
    for key in ("ams/1", "fra/2", "old/1"):
        world.pop_joined(key)
        told = PopTelemetry({}, ingest=None if key == "old/1" else offer)
        world.telemetry(key, told, 0.0)
    assert world.offers() == {
        ("ams", 1): PopRow("ams", 1, offer),
        ("fra", 2): PopRow("fra", 2, offer),
    }
    world.pop_left("fra/2", 1.0)
    assert list(world.offers()) == [("ams", 1)]


def test_who_drains_an_origin_says_how_it_stands_in_tables() -> None:
    collectors = Collectors()
    assert collectors.state("o1") is None
    collectors.origin_joined(OriginHello(origin="o1", incarnation=1, address="h:1"))
    collectors.heartbeat(OriginReport("o1", 1, ReportedState.UP, 10, (5, 5, 5)), 0.0)
    assert collectors.state("o1") is OriginState.UP
    collectors.state_of = lambda name, state: OriginState.DRAIN
    assert collectors.state("o1") is OriginState.DRAIN
    assert [supply.state for supply in collectors.supplies(0.0)] == [OriginState.DRAIN]
    assert collectors.capacitor.state("o1") is OriginState.UP


def test_what_pops_have_where_is_of_those_that_are_connected() -> None:
    collectors = Collectors()
    for name in ("lhr/0", "ams/0"):
        collectors.pop_joined(name)
        collectors.telemetry(name, PopTelemetry({"o1": (1, 2, 3), "o2": (0, 0, 1)}), 0.0)
    collectors.pop_left("ams/0", 1.0)
    assert collectors.units() == {"lhr/0": {"o1": 6, "o2": 1}}


def test_shards_of_a_pop_are_one_witness() -> None:
    """They share the host's path: when it fails, they all have bad experiences."""
    world = Collectors()
    world.origin_joined(hello("o1"))
    world.heartbeat(beat("o1"), 0.0)
    for key in ("lhr/1", "lhr/2", "ams/0"):
        world.pop_joined(key)
    for key in ("lhr/1", "lhr/2", "lhr/1"):
        assert world.telemetry(key, PopTelemetry({}, timeouts={"o1": 3}), 0.0) == []
    (change,) = world.telemetry("ams/0", PopTelemetry({}, timeouts={"o1": 1}), 0.0)
    assert change.after is OriginState.SUSPECT


def test_who_is_bound_by_rules_is_planned_for_apart_and_remembered_for_a_while() -> None:
    world = Collectors()
    world.pop_joined("lhr/0")
    pinned = BoundUnits(("o1",), (), {"o1": (0, 0, 3)}, arrivals=10)
    told = PopTelemetry({"o1": (0, 0, 5)}, arrivals=20, bound=(pinned,))
    world.telemetry("lhr/0", told, 0.0)
    world.telemetry("lhr/0", told, 1.0)
    (demand,) = world.demands(1.0, 10.0)
    assert demand.bound == (
        BoundDemand(first=("o1",), units={"o1": (0, 0, 3)}, arrivals_per_s=1.0),
    )
    for second in range(2, 100):
        world.telemetry("lhr/0", PopTelemetry({}), float(second))
        (demand,) = world.demands(float(second), 1e9)
        assert second > 32 or [bound.units for bound in demand.bound] == [{}]
    assert demand.bound == ()


def test_of_sets_that_come_and_go_the_busiest_are_remembered() -> None:
    world = Collectors()
    world.pop_joined("lhr/0")
    for second in range(3 * BOUNDS_MAX):
        bound = BoundUnits((f"o{second}",), (), {}, arrivals=1000)
        world.telemetry("lhr/0", PopTelemetry({}, arrivals=1000, bound=(bound,)), float(second))
    (demand,) = world.demands(0.0, 1e9)
    assert len(demand.bound) <= BOUNDS_MAX + 1
