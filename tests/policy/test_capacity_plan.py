"""A day planned: what is served where, what binds at which price, and what is missing."""

import math
from collections.abc import Mapping

import hypothesis
import msgspec
import numpy as np
import pytest
from hypothesis import strategies as st

from edged.errors import SolverError
from edged.policy.capacity_plan import STEP_MS, CapacityPlanner, plan_day
from edged.policy.day_plan import DayPlan, Limits, LinkUse, Network, OriginUse, Quarter
from edged.policy.flows import RTT_MS_MAX, UNSERVED_MS, FlowProblem, LinkLimit
from edged.policy.forecast import forecast
from edged.policy.link_map import LinkConfig, PathConfig, SiteConfig
from edged.policy.solver import FlowSolver
from tests.policy.demand_worlds import BEGAN, MBPS, demand_rows, history_of, true_units

ALL = Limits(slots_part=1.0, link_part=1.0)
RTT = {"lon": {"fra": 10.0, "nyc": 80.0}, "bos": {"fra": 90.0, "nyc": 5.0}}
POPS = ("lon", "bos")
SITES = (
    SiteConfig(name="eu", pops=("lon",), origins=("fra",)),
    SiteConfig(name="us", pops=("bos",), origins=("nyc",)),
)
NO_LINKS = Network(origins={"fra": 100, "nyc": 100}, rtt_ms=RTT)


def ocean(mbps: float, network: Network = NO_LINKS) -> Network:
    links = (LinkConfig(name="ocean", ends=("eu", "us"), mbps=mbps),)
    return msgspec.structs.replace(network, links=links, sites=SITES)


def plan(
    demand: Mapping[str, tuple[float, float, float]],
    network: Network = NO_LINKS,
    limits: Limits = ALL,
    *,
    back: Mapping[str, float] | None = None,
    mbps: float = 5.0,
) -> Quarter:
    planner = CapacityPlanner(network, POPS, limits, np.array([mbps, mbps]))
    units = np.array([demand.get(pop, (0.0, 0.0, 0.0)) for pop in POPS], dtype=np.float64)
    return planner.plan(7, units, np.array([(back or {}).get(pop, 0.0) for pop in POPS]))


def at(quarter: Quarter, origin: str) -> OriginUse:
    return next(each for each in quarter.origins if each.origin == origin)


def cost(quarter: Quarter) -> float:
    """What the plan minimises, of what `Quarter` tells; without links."""
    weighed = zip(quarter.unserved, UNSERVED_MS, strict=True)
    placed = quarter.demand - quarter.missing
    return (quarter.rtt_ms or 0.0) * placed + math.fsum(units * ms for units, ms in weighed)


def with_slots(network: Network, origin: str, more: int) -> Network:
    slots = {**network.origins, origin: network.origins[origin] + more}
    return msgspec.structs.replace(network, origins=slots)


def test_each_goes_where_it_is_nearest() -> None:
    quarter = plan({"lon": (1.0, 2.0, 60.0), "bos": (0.0, 0.0, 50.25)})
    assert quarter.served == 1.0
    assert quarter.demand == 113.25, "as it was forecast, not as whole streams"
    assert [(use.origin, use.units, use.part) for use in quarter.origins] == [
        ("fra", 63, 0.63),
        ("nyc", 50.25, 0.5025),
    ]
    assert quarter.rtt_ms == pytest.approx((63 * 10 + 50.25 * 5) / 113.25)
    assert (quarter.slot, quarter.rtt_unknown, quarter.missing) == (7, 0, 0)
    assert {use.price_ms for use in quarter.origins} == {0}
    assert quarter.placed == {"lon": {"fra": 63.0}, "bos": {"nyc": 50.25}}


def test_what_binds_is_told_with_its_price() -> None:
    quarter = plan({"lon": (0.0, 0.0, 120.0)})
    assert at(quarter, "fra").price_ms == pytest.approx(70)
    assert not at(quarter, "fra").scarce
    assert at(quarter, "nyc").price_ms == 0
    half = plan({"lon": (0.0, 0.0, 80.0)}, limits=Limits(slots_part=0.5, link_part=1.0))
    assert at(half, "fra").price_ms == pytest.approx(35), "of one more slot half is planned with"


@pytest.mark.parametrize("partners", [20.0, 80.0, 90.5, 150.0])
def test_a_price_is_what_one_more_slot_saves(partners: float) -> None:
    """Of all classes' limits together, as a slot raises each of them."""
    network = Network(origins={"fra": 95, "nyc": 95}, rtt_ms=RTT, reserve_fraction=0.1)
    demand = {"lon": (partners, 10.0, 60.5), "bos": (5.0, 0.0, 20.0)}
    quarter = plan(demand, network)
    prices = []
    for origin in ("fra", "nyc"):
        more = plan(demand, with_slots(network, origin, 1))  # Of which as many are kept: ten.
        prices.append(at(quarter, origin).price_ms)
        assert prices[-1] == pytest.approx(cost(quarter) - cost(more), abs=1e-5)
    assert (prices[0] > 0) == (partners > 20)


def test_where_two_limits_of_an_origin_bind_a_slot_is_worth_both() -> None:
    """Who has little of it, a partner, keeps a place that is kept from who would have more."""
    rtt = {"lon": RTT["lon"], "bos": {"fra": 10.0, "nyc": 20.0}}
    network = Network(origins={"fra": 95, "nyc": 95}, rtt_ms=rtt, reserve_fraction=0.1)
    demand = {"lon": (0.0, 0.0, 100.0), "bos": (40.0, 0.0, 0.0)}
    quarter, more = plan(demand, network), plan(demand, with_slots(network, "fra", 1))
    assert cost(quarter) - cost(more) == pytest.approx(70.0)
    assert at(quarter, "fra").price_ms == pytest.approx(10.0 + 60.0)


def test_what_is_missing_is_the_lowest_class_first() -> None:
    quarter = plan({"lon": (5.0, 0.0, 120.0), "bos": (5.0, 0.0, 120.0)})
    assert quarter.unserved == [0, 0, 50]
    assert quarter.served == pytest.approx(200 / 250)
    assert math.fsum(quarter.unserved_pops.values()) == pytest.approx(50)
    assert {use.origin for use in quarter.origins if use.scarce} == {"fra", "nyc"}
    only = plan({"lon": (150.0, 60.0, 60.0)})
    assert only.unserved == [0, 10, 60]


def test_the_reserve_is_the_partners() -> None:
    network = msgspec.structs.replace(NO_LINKS, reserve_fraction=0.1)
    assert [use.units for use in plan({"lon": (0.0, 0.0, 300.0)}, network).origins] == [90, 90]
    assert [use.units for use in plan({"lon": (0.0, 300.0, 0.0)}, network).origins] == [90, 90]
    assert [use.units for use in plan({"lon": (300.0, 0.0, 0.0)}, network).origins] == [100, 100]


def test_what_nobody_measured_goes_last_and_does_not_count_as_near() -> None:
    network = msgspec.structs.replace(NO_LINKS, rtt_ms={"bos": {"nyc": 5.0}})
    quarter = plan({"lon": (0.0, 0.0, 30.0), "bos": (0.0, 0.0, 100.0)}, network)
    assert quarter.rtt_ms == pytest.approx(5.0), "of those whose round trip is known"
    assert quarter.rtt_unknown == 30
    unknown = plan({"lon": (0.0, 0.0, 30.0)}, network)
    assert (unknown.rtt_ms, unknown.rtt_unknown) == (None, 30)
    assert plan({}).rtt_ms is None


def test_a_link_takes_its_part_and_no_more() -> None:
    """100 Mbps, of which 90 may be used: 18 streams of 5."""
    network = ocean(100.0, with_slots(NO_LINKS, "fra", -60))
    limits = Limits(slots_part=1.0, link_part=0.9)
    quarter = plan({"lon": (0.0, 0.0, 80.0)}, network, limits)
    assert [use.units for use in quarter.origins] == [40, pytest.approx(18)]
    assert quarter.unserved == [0, 0, pytest.approx(22)]
    (use,) = quarter.links
    assert (use.link, use.towards) == ("ocean", "us")
    assert (use.mbps, use.part) == pytest.approx((90, 0.9))
    assert use.back_mbps == 0
    assert use.scarce
    assert at(quarter, "fra").scarce
    assert not at(quarter, "nyc").scarce


def test_a_link_that_fills_costs_as_the_well_has_it() -> None:
    """A detour is taken before the first step, and not once it is the dearer one."""
    near = {"lon": {"fra": 20.0, "nyc": 5.0}, "bos": {"fra": 90.0, "nyc": 5.0}}
    network = msgspec.structs.replace(ocean(100.0), rtt_ms=near)
    quarter = plan({"lon": (0.0, 0.0, 50.0)}, network)
    # Each 5 % of the link are a stream: those beyond 80 % cost two steps of a Mbps, 5 Mbps each.
    saves = (20.0 - 5.0) / 5.0
    assert saves < STEP_MS
    assert [use.units for use in quarter.origins] == [35, 15], "15 streams are 75 %"
    (use,) = quarter.links
    assert use.part == pytest.approx(0.75)
    assert use.price_ms == pytest.approx(0.75 * saves)
    assert not use.scarce


def test_one_more_mbps_saves_what_its_price_says() -> None:
    network = with_slots(NO_LINKS, "fra", -60)
    for limits in (ALL, Limits(slots_part=1.0, link_part=0.9), Limits(link_part=0.5)):
        for back in (0.0, 60.0, 77.0):
            came = {"lon": {"nyc": 1.0}, "bos": {"fra": 1.0}}
            low, high = (
                plan({"lon": (0.0, 0.0, 80.0)}, msgspec.structs.replace(ocean(mbps, network),
                     back_mbps=came), limits, back={"bos": back})
                for mbps in (100.0, 101.0)
            )  # fmt: skip
            (use,) = [each for each in low.links if each.towards == "us"]
            steps = [
                sum(
                    STEP_MS * (step + 1) * max(0.0, min(each.mbps, (0.8 + 0.05 * step) * whole)
                                               - max(each.back_mbps, (0.75 + 0.05 * step) * whole))
                    for step in range(5)
                )
                for quarter, whole in ((low, 100.0), (high, 101.0))
                for each in quarter.links
                if each.towards == "us"
            ]  # fmt: skip
            saved = cost(low) + steps[0] - cost(high) - steps[1]
            assert use.price_ms == pytest.approx(saved, rel=0.02)


def test_what_comes_back_is_on_the_link_before_anything_is_placed() -> None:
    """40 Mbps come for viewers of bos, a quarter of them from nyc, which is near; the rest comes
    over the ocean from fra, the way that a stream of lon goes.
    """
    network = msgspec.structs.replace(
        ocean(100.0, with_slots(NO_LINKS, "fra", -100)),
        back_mbps={"bos": {"fra": 3.0, "nyc": 1.0, "gone": 1.0}, "lon": {"fra": 50.0}},
    )
    quarter = plan({"lon": (0.0, 0.0, 80.0)}, network, back={"bos": 40.0, "lon": 30.0})
    (use,) = quarter.links
    assert use.towards == "us"
    assert (use.back_mbps, use.mbps) == pytest.approx((30, 100))
    assert quarter.demand - quarter.missing == pytest.approx(70 / 5)
    full = plan({"lon": (0.0, 0.0, 80.0)}, network, back={"bos": 140.0 / 0.75})
    assert full.missing == 80
    assert full.links[0].part == pytest.approx(1.4), "told as it is, though it is too much"


def test_ways_are_those_of_a_map_with_nothing_cut() -> None:
    sites = (*SITES, SiteConfig(name="mid"))
    links = (
        LinkConfig(name="a", ends=("eu", "mid"), mbps=50.0, metric=1),
        LinkConfig(name="b", ends=("us", "mid"), mbps=1000.0, metric=1),
        LinkConfig(name="direct", ends=("us", "eu"), mbps=1000.0, metric=9),
    )
    network = with_slots(NO_LINKS, "fra", -100)
    network = msgspec.structs.replace(network, links=links, sites=sites)
    demand = {"lon": (0.0, 0.0, 80.0)}
    assert plan(demand, network).missing == pytest.approx(80 - 10)
    other = (msgspec.structs.replace(links[0], mbps=1000.0),
             msgspec.structs.replace(links[1], mbps=60.0), links[2])  # fmt: skip
    behind = msgspec.structs.replace(network, links=other)
    assert plan(demand, behind).missing == pytest.approx(80 - 12), "the second link on the way"
    given = msgspec.structs.replace(
        network, paths=(PathConfig(pop="lon", origin="nyc", links=("direct",)),)
    )
    assert plan(demand, given).missing == 0
    assert plan(demand, given).links == [], "less than half full"


def test_over_a_day() -> None:
    planner = CapacityPlanner(NO_LINKS, POPS, Limits(slots_part=0.5), np.array([5.0, 5.0]))
    demand = np.zeros((4, 2, 3))
    demand[:, 0, 2] = [40.0, 80.0, 101.5, 45.0]
    told: list[int] = []
    made = plan_day(planner, 100, demand, np.zeros((4, 2)), told.append)
    assert told == [100, 101, 102, 103] == [each.slot for each in made.quarters]
    assert made.unserved_most == pytest.approx(1.5)
    assert made.slots_missing == 3, "of each slot half is planned with"
    assert [(need.name, need.hours, need.scarce) for need in made.needs] == [
        ("fra", 0.5, True),
        ("nyc", 0.25, True),
    ]
    assert made.needs[0].price_ms > RTT_MS_MAX
    assert (made.mbps_assumed, made.off_map) == (False, [])


def test_what_is_not_known_is_told() -> None:
    planner = CapacityPlanner(ocean(100.0), ("lon", "new"), ALL, np.array([math.nan, math.nan]))
    made = plan_day(planner, 0, np.ones((1, 2, 3)), np.zeros((1, 2)))
    assert (made.mbps_assumed, made.off_map) == (True, ["new"])
    assert made.quarters[0].rtt_unknown == 3
    far = with_slots(ocean(100.0), "nyc", -100)
    one = CapacityPlanner(far, POPS, ALL, np.array([8.0, math.nan]))
    assert not one.mbps_assumed
    quarter = one.plan(0, np.array([[0.0] * 3, [0.0, 0.0, 50.0]]), np.zeros(2))
    assert quarter.demand - quarter.missing == pytest.approx(100 / 8), "as those who told"


def test_without_anybody_there_is_nothing_to_plan() -> None:
    with pytest.raises(SolverError, match="no origin to plan for"):
        plan({}, Network())
    with pytest.raises(SolverError, match="no PoP to plan for"):
        CapacityPlanner(NO_LINKS, (), ALL, np.zeros(0))


def test_a_plan_by_forecast_is_that_of_what_comes() -> None:
    """Eight weeks tell of a day, whose truth is known: both plans say the same of the network."""
    pops = ["fra", "lon", "nyc"]
    rtt = {"fra": {"fra1": 5.0, "nyc1": 90.0}, "lon": {"fra1": 12.0, "nyc1": 75.0},
           "nyc": {"fra1": 88.0, "nyc1": 4.0}}  # fmt: skip
    history = history_of(demand_rows(56, growth=1.02))
    told = forecast(history, history.last + 1)
    truth = np.array(
        [[true_units(pop, told.begin + slot, 1.02) for pop in pops] for slot in range(96)]
    )
    real = truth[..., None] * np.array([0.05, 0.15, 0.8])
    most = truth.sum(axis=1).max()
    network = Network(
        origins={"fra1": round(0.55 * most), "nyc1": round(0.3 * most)}, rtt_ms=rtt,
        links=(LinkConfig(name="ocean", ends=("eu", "us"), mbps=400.0),),
        sites=(SiteConfig(name="eu", pops=("fra", "lon"), origins=("fra1",)),
               SiteConfig(name="us", pops=("nyc",), origins=("nyc1",))),
    )  # fmt: skip
    planner = CapacityPlanner(network, pops, Limits(), history.mbps_per_unit)
    by_forecast = plan_day(planner, told.begin, told.demand(high=False), told.back_mbps)
    by_truth = plan_day(planner, told.begin, real, told.back_mbps)
    assert not planner.mbps_assumed
    assert history.mbps_per_unit == pytest.approx([MBPS] * 3)
    for one, other in zip(by_forecast.quarters, by_truth.quarters, strict=True):
        assert one.demand == pytest.approx(other.demand, rel=0.08)
        assert one.served == pytest.approx(other.served, abs=0.06)
        assert one.rtt_ms == pytest.approx(other.rtt_ms, abs=3.0)
        for here, there in zip(one.origins, other.origins, strict=True):
            assert here.units == pytest.approx(there.units, rel=0.1, abs=25)
    assert by_truth.unserved_most > 100
    assert by_forecast.unserved_most == pytest.approx(by_truth.unserved_most, rel=0.25)
    assert by_forecast.slots_missing == pytest.approx(by_truth.slots_missing, rel=0.25)
    names = [{(need.kind, need.name) for need in made.needs} for made in (by_forecast, by_truth)]
    assert names[0] == names[1] >= {("origin", "fra1"), ("origin", "nyc1")}
    assert hours(by_forecast, "fra1") == pytest.approx(hours(by_truth, "fra1"), abs=1.5)
    assert told.begin == BEGAN + 56 * 96


def hours(made: DayPlan, name: str) -> float:
    return next(need.hours for need in made.needs if need.name == name)


UNITS = st.tuples(st.floats(0, 30), st.floats(0, 60), st.floats(0, 200))


@hypothesis.settings(deadline=None)
@hypothesis.given(
    st.tuples(UNITS, UNITS), st.tuples(*[st.integers(0, 200)] * 2),
    st.tuples(*[st.floats(0.1, 1)] * 2), st.floats(1, 2000), st.floats(0, 300),
)  # fmt: skip
def test_nothing_is_lost_and_no_limit_broken(
    demand: tuple[tuple[float, float, float], tuple[float, float, float]],
    slots: tuple[int, int],
    parts: tuple[float, float],
    mbps: float,
    back: float,
) -> None:
    (lon, bos), (fra, nyc), (slots_part, link_part) = demand, slots, parts
    network = Network(
        origins={"fra": fra, "nyc": nyc}, rtt_ms=RTT, back_mbps={"bos": {"fra": 1.0}},
        reserve_fraction=0.01,
    )  # fmt: skip
    limits = Limits(slots_part=slots_part, link_part=link_part)
    quarter = plan({"lon": lon, "bos": bos}, ocean(mbps, network), limits, back={"bos": back})
    placed = math.fsum(use.units for use in quarter.origins)
    placed_at = [units for row in quarter.placed.values() for units in row.values()]
    assert math.fsum(placed_at) == pytest.approx(placed, abs=0.01)
    assert placed + quarter.missing == pytest.approx(sum(lon) + sum(bos), abs=1e-4)
    for use in quarter.origins:
        assert use.units <= slots_part * network.origins[use.origin] + 1e-5
        assert use.price_ms >= 0
    links: dict[str, LinkUse] = {use.towards: use for use in quarter.links}
    for towards, already in (("us", back), ("eu", 0.0)):
        if towards in links:
            assert links[towards].mbps <= max(link_part * mbps, already) + 1e-3
    if quarter.missing > 1e-3:
        reserved = sum(math.ceil(0.01 * each) for each in slots)
        room = slots_part * (fra + nyc) - reserved - placed
        full = any(use.part >= link_part - 1e-6 for use in links.values())
        assert room <= 1e-3 or full or back >= link_part * mbps - 1e-6


@hypothesis.settings(deadline=None, max_examples=50)
@hypothesis.given(
    st.lists(UNITS, min_size=2, max_size=2), st.tuples(*[st.integers(0, 150)] * 2),
    st.lists(st.floats(0, 300), min_size=4, max_size=4), st.floats(1, 700),
)  # fmt: skip
def test_it_is_as_good_as_the_plan_of_leases(
    demand: list[tuple[float, float, float]],
    slots: tuple[int, int],
    rtt: list[float],
    mbps: float,
) -> None:
    """Of a link that ends before its first step costs anything, IRS's own program has the same."""
    rtt_ms = {"lon": {"fra": rtt[0], "nyc": rtt[1]}, "bos": {"fra": rtt[2], "nyc": rtt[3]}}
    network = Network(
        origins=dict(zip(("fra", "nyc"), slots, strict=True)), rtt_ms=rtt_ms, reserve_fraction=0.1
    )
    limits = Limits(slots_part=1.0, link_part=0.7)
    made = plan(dict(zip(POPS, demand, strict=True)), ocean(mbps, network), limits)
    reserves = [math.ceil(0.1 * each) for each in slots]
    problem = FlowProblem(
        pops=POPS,
        origins=("fra", "nyc"),
        demand=demand,
        capacity=[[a, a - b, a - b] for a, b in zip(slots, reserves, strict=True)],
        rtt_ms=[[rtt_ms[pop]["fra"], rtt_ms[pop]["nyc"]] for pop in POPS],
        links=(
            LinkLimit(name="there", mbps=0.7 * mbps, mbps_per_unit=5.0, pairs=(("lon", "nyc"),)),
            LinkLimit(name="back", mbps=0.7 * mbps, mbps_per_unit=5.0, pairs=(("bos", "fra"),)),
        ),
    )
    other = FlowSolver().solve(problem)
    unserved = [math.fsum(of) for of in zip(*other.unserved, strict=True)]
    assert made.unserved == pytest.approx(unserved, abs=1e-4)
    assert cost(made) == pytest.approx(other.cost_ms, rel=1e-6, abs=20.0)
