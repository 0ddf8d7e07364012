"""A day planned: what is served where, what binds, and what is missing."""

import math

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.errors import SolverError
from edged.policy.flows import LinkLimit
from edged.policy.forecast import Expected
from edged.policy.offline_plan import (
    SLOTS_PER_HOUR,
    DayPlan,
    Limits,
    Site,
    Topology,
    demand_of,
    plan_day,
)
from edged.policy.solver import FlowSolver

ALL = Limits(slots_part=1.0, link_part=1.0, reserve_fraction=0.0)
RTT = {"lon": {"fra": 10.0, "nyc": 80.0}, "bos": {"fra": 90.0, "nyc": 5.0}}


def network(fra: int = 100, nyc: int = 100, links: tuple[LinkLimit, ...] = ()) -> Topology:
    sites = [Site(origin="fra", slots_total=fra), Site(origin="nyc", slots_total=nyc)]
    return Topology(origins=sites, rtt_ms=RTT, links=links)


def plan(
    lon: tuple[float, float, float],
    bos: tuple[float, float, float] = (0, 0, 0),
    topology: Topology | None = None,
    limits: Limits = ALL,
) -> DayPlan:
    return plan_day(
        {0: {"lon": lon, "bos": bos}}, topology or network(), limits, FlowSolver().solve
    )


def test_each_goes_where_it_is_nearest() -> None:
    (hour,) = plan((1, 2, 60), (0, 0, 50.2)).hours
    assert hour.served == 1.0
    assert hour.demand == 114, "whole streams"
    assert [(each.origin, each.units, each.part) for each in hour.origins] == [
        ("fra", 63, 0.63),
        ("nyc", 51, 0.51),
    ]
    assert hour.rtt_ms == pytest.approx((63 * 10 + 51 * 5) / 114)


def test_what_binds_is_told_with_its_price() -> None:
    told = plan((0, 0, 120))
    (need,) = told.needs
    assert (need.kind, need.name, need.hours, need.scarce) == ("origin", "fra", 1, False)
    assert need.price_ms == pytest.approx(70)
    assert told.missing == 0
    (hour,) = told.hours
    assert [each.price_ms for each in hour.origins] == [pytest.approx(70), 0]


def test_what_is_missing_is_told() -> None:
    told = plan((5, 0, 120), (5, 0, 120))
    assert told.missing == 50
    (hour,) = told.hours
    assert hour.unserved == [0, 0, 50], "the lowest class first"
    assert hour.served == pytest.approx(200 / 250)
    assert {need.name for need in told.needs if need.scarce} == {"fra", "nyc"}
    assert {each.pop for each in hour.explanation.unserved} <= {"lon", "bos"}


def test_no_origin_and_no_link_beyond_its_part() -> None:
    link = LinkLimit(name="ocean", mbps=100, mbps_per_unit=5, pairs=(("lon", "nyc"),))
    limits = Limits(slots_part=0.5, link_part=0.5, reserve_fraction=0.1)
    told = plan((10, 0, 80), topology=network(links=(link,)), limits=limits)
    (hour,) = told.hours
    assert [each.units for each in hour.origins] == [50, 10], "half of 100, half of 20"
    assert hour.unserved == [0, 0, 30]
    kinds = {need.kind: need for need in told.needs}
    assert kinds["link"].scarce


def test_the_reserve_is_the_partners() -> None:
    limits = Limits(slots_part=1.0, link_part=1.0, reserve_fraction=0.1)
    (hour,) = plan((0, 0, 300), limits=limits).hours
    assert [each.units for each in hour.origins] == [90, 90]
    (hour,) = plan((300, 0, 0), limits=limits).hours
    assert [each.units for each in hour.origins] == [100, 100]


def test_a_pop_that_nobody_measured_goes_last() -> None:
    told = plan_day(
        {0: {"lon": (0, 0, 100), "new": (0, 0, 100)}}, network(), ALL, FlowSolver().solve
    )
    (hour,) = told.hours
    assert [each.units for each in hour.origins] == [100, 100]
    assert hour.rtt_ms == pytest.approx(5.0), "what is not known counts nothing"


def test_an_hour_is_its_highest_slots() -> None:
    rows = [
        Expected(SLOTS_PER_HOUR + 1, "lon", (1, 5, 0), (2, 9, 1), 3),
        Expected(SLOTS_PER_HOUR + 2, "lon", (3, 4, 0), (4, 8, 0), 3),
        Expected(0, "bos", (0, 0, 7), (0, 0, 8), 3),
    ]
    assert demand_of(rows, high=False) == {0: {"bos": [0, 0, 7]}, 12: {"lon": [3, 5, 0]}}
    assert demand_of(rows, high=True) == {0: {"bos": [0, 0, 8]}, 12: {"lon": [4, 9, 1]}}


def test_without_an_origin_there_is_nothing_to_plan() -> None:
    with pytest.raises(SolverError, match="no origin to plan for"):
        plan((0, 0, 1), topology=Topology(origins=[], rtt_ms={}))


def test_hours_are_told_as_they_begin_and_without_demand_all_is_served() -> None:
    told: list[int] = []
    nothing = {"lon": (0, 0, 0)}
    made = plan_day({0: nothing, 12: nothing}, network(), ALL, FlowSolver().solve, told.append)
    assert told == [0, 12]
    assert [hour.served for hour in made.hours] == [1.0, 1.0]
    assert (made.needs, made.missing) == ([], 0)


UNITS = st.tuples(st.integers(0, 30), st.integers(0, 60), st.integers(0, 200))


@hypothesis.given(UNITS, UNITS, st.integers(0, 200), st.integers(0, 200), st.floats(0.1, 1))
def test_nothing_is_lost_and_no_limit_broken(
    lon: tuple[int, int, int], bos: tuple[int, int, int], fra: int, nyc: int, part: float
) -> None:
    limits = Limits(slots_part=part, link_part=1.0, reserve_fraction=0.01)
    made = plan(lon, bos, network(fra, nyc), limits)
    (hour,) = made.hours
    placed = math.fsum(each.units for each in hour.origins)
    assert placed + math.fsum(hour.unserved) == pytest.approx(sum(lon) + sum(bos))
    for each, slots in zip(hour.origins, (fra, nyc), strict=True):
        assert each.units <= part * slots + 1e-6
    if made.missing:
        assert math.fsum(hour.unserved) >= made.missing - 1e-6
