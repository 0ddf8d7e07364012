"""Sharing out: whole units, fair to one, as much as there is; and what a PoP will need."""

import math

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.media.routing import UNITS_MAX
from edged.policy.flows import LinkLimit
from edged.policy.lease_shares import (
    HORIZON_S_MAX,
    OriginOffer,
    PopNeed,
    share_by_flows,
    share_out,
)
from edged.policy.solver import FlowSolver


@hypothesis.given(
    st.integers(0, 100_000), st.lists(st.floats(1.0, 1e6), max_size=50), st.integers(0, 60)
)
@hypothesis.settings(max_examples=50, deadline=None)
def test_shares_add_up_and_are_fair_to_a_unit(units: int, weights: list[float], first: int) -> None:
    shares = share_out(units, weights, first=first)
    assert len(shares) == len(weights)
    if weights:
        assert sum(shares) == units
        for share, weight in zip(shares, weights, strict=True):
            assert abs(share - units * weight / sum(weights)) < 1 + 1e-6


@hypothesis.given(st.lists(st.integers(0, 1000), min_size=1, max_size=50), st.integers(0, 60))
@hypothesis.settings(max_examples=50, deadline=None)
def test_of_less_than_is_wanted_nobody_gets_more_than_he_wants(
    wanted: list[int], first: int
) -> None:
    if sum(wanted):
        for units in {0, 1, sum(wanted) // 2, sum(wanted)}:
            shares = share_out(units, wanted, first=first)
            assert sum(shares) == units
            assert all(share <= most for share, most in zip(shares, wanted, strict=True))


def test_odd_units_go_round() -> None:
    assert share_out(1, [1.0, 1.0, 1.0]) == [1, 0, 0]
    assert share_out(1, [1.0, 1.0, 1.0], first=1) == [0, 1, 0]
    assert share_out(2, [1.0, 1.0, 1.0], first=2) == [1, 0, 1]


def pop(name: str, **given: object) -> PopNeed:
    usual = {
        "units": [(0, 0, 0)],
        "elsewhere": (0, 0, 0),
        "displaced": 0,
        "arrivals_per_s": 0.0,
        "rtt_ms": [1.0],
    }
    return PopNeed(name=name, **(usual | given))  # type: ignore[arg-type]


def offer(free: int, name: str = "o1") -> OriginOffer:
    return OriginOffer(name=name, free=free, capacity=(free, free, free))


def test_a_pop_needs_what_comes_and_what_may_have_to_move() -> None:
    assert pop("a").slots_needed(10.0) == 1  # Its first publisher is coming.
    assert pop("a", arrivals_per_s=10.0).slots_needed(10.0) == 100 + 2 * 10
    assert pop("a", arrivals_per_s=1.0).slots_needed(1e9) == math.ceil(30 + 2 * math.sqrt(30))
    assert HORIZON_S_MAX == 30.0
    assert pop("a", displaced=7).slots_needed(10.0) == 8


@pytest.mark.parametrize(
    ("rate", "coming"),
    [
        ((UNITS_MAX - 1) / 16, UNITS_MAX - 1),
        (UNITS_MAX / 16, UNITS_MAX),
        ((UNITS_MAX + 1) / 16, UNITS_MAX),
        (1e20, UNITS_MAX),
        (math.inf, UNITS_MAX),
    ],
)
def test_arrivals_that_cannot_be_are_planned_for_as_many(rate: float, coming: int) -> None:
    """HiGHS does not take what is infinite to it, and all leases would be proportional."""
    absurd = pop("a", arrivals_per_s=rate)
    assert absurd.demand(16.0) == (0, 0, coming)
    shares = share_by_flows([absurd, pop("b")], [offer(100)], FlowSolver().solve, horizon_s=16.0)
    assert sum(units for (units,) in shares.units) == 100
    assert shares.solution.unserved[0] == [0.0, 0.0, coming - 100]


def test_its_demand_is_what_is_there_and_comes_as_the_classes_are_mixed() -> None:
    assert pop("a").demand(10.0) == (0, 0, 0)
    assert pop("a", arrivals_per_s=0.31).demand(10.0) == (0, 0, 4)
    there = pop("a", units=[(1, 2, 0)], elsewhere=(0, 0, 7), arrivals_per_s=1.0)
    assert there.demand(10.0) == (2, 4, 14)


def test_when_slots_are_scarce_every_pop_gets_its_part() -> None:
    """Not the near ones all of them: who has no lease has to go by price."""
    pops = [
        pop("near", arrivals_per_s=3.0, rtt_ms=[1.0]),
        pop("far", arrivals_per_s=3.0, rtt_ms=[99.0]),
    ]
    shares = share_by_flows(pops, [offer(10)], FlowSolver().solve, horizon_s=10.0)
    assert shares.units == [[5], [5]]


def test_what_is_left_is_shared_by_arrivals_and_nearness() -> None:
    pops = [
        pop("near", arrivals_per_s=0.0, rtt_ms=[5.0, 25.0]),
        pop("busy", arrivals_per_s=9.0, rtt_ms=[5.0, 25.0]),
    ]
    needs = [1, 90 + 19]
    shares = share_by_flows(
        [*pops],
        [offer(1110, "here"), offer(110, "there")],
        FlowSolver().solve,
        horizon_s=10.0,
    )
    assert [row[1] for row in shares.units] == [10, 100]
    assert [row[0] - need for row, need in zip(shares.units, needs, strict=True)] == [91, 909]


def test_shares_keep_within_links_and_the_rest_goes_to_others() -> None:
    pops = [pop("over", arrivals_per_s=1.0), pop("here", arrivals_per_s=1.0)]
    cable = LinkLimit(name="cable", mbps=30.0, mbps_per_unit=6.0, pairs=(("over", "o1"),))
    shares = share_by_flows(pops, [offer(100)], FlowSolver().solve, horizon_s=10.0, links=(cable,))
    assert shares.units == [[5], [95]]
    dish = LinkLimit(name="dish", mbps=60.0, mbps_per_unit=6.0, pairs=(("here", "o1"),))
    shares = share_by_flows(
        pops, [offer(100)], FlowSolver().solve, horizon_s=10.0, links=(cable, dish)
    )
    assert shares.units == [[5], [10]]  # What no link carries stays free.


def test_what_a_link_has_no_room_for_goes_across_others_that_have() -> None:
    """Slots are idle only where every link to them is full."""
    pops = [pop("thin", arrivals_per_s=1.0), pop("wide", arrivals_per_s=1.0)]
    thin = LinkLimit(name="thin", mbps=30.0, mbps_per_unit=6.0, pairs=(("thin", "o1"),))
    for carries, gets in ((94, 94), (95, 95), (96, 95)):
        wide = LinkLimit(
            name="wide", mbps=6.0 * carries, mbps_per_unit=6.0, pairs=(("wide", "o1"),)
        )
        shares = share_by_flows(
            pops, [offer(100)], FlowSolver().solve, horizon_s=10.0, links=(thin, wide)
        )
        assert shares.units == [[5], [gets]]


@st.composite
def cables(draw: st.DrawFn) -> tuple[list[str], list[int], tuple[LinkLimit, ...]]:
    pops = [f"p{n}" for n in range(draw(st.integers(1, 5)))]
    free = draw(st.lists(st.integers(0, 60), min_size=1, max_size=3))
    pairs = st.sampled_from([(pop, f"o{n}") for pop in pops for n in range(len(free))])
    links = tuple(
        LinkLimit(
            name=f"l{n}",
            mbps=draw(st.floats(0.0, 400.0)),
            mbps_per_unit=6.0,
            pairs=tuple(draw(st.lists(pairs, min_size=1, max_size=6, unique=True))),
        )
        for n in range(draw(st.integers(0, 4)))
    )
    return pops, free, links


@hypothesis.given(cables(), st.data())
@hypothesis.settings(max_examples=60, deadline=None)
def test_no_slot_is_idle_but_for_links_that_are_full(
    given: tuple[list[str], list[int], tuple[LinkLimit, ...]], data: st.DataObject
) -> None:
    names, free, links = given
    pops = [
        pop(
            name,
            units=[(0, 0, 0)] * len(free),
            arrivals_per_s=data.draw(st.floats(0.0, 5.0)),
            rtt_ms=data.draw(
                st.lists(st.floats(0.0, 90.0), min_size=len(free), max_size=len(free))
            ),
        )
        for name in names
    ]
    origins = [offer(units, f"o{n}") for n, units in enumerate(free)]
    shares = share_by_flows(pops, origins, FlowSolver().solve, horizon_s=10.0, links=links)
    granted = {
        (name, origin.name): units
        for name, row in zip(names, shares.units, strict=True)
        for origin, units in zip(origins, row, strict=True)
    }
    left = {
        link.name: math.floor(link.units + 1e-6) - sum(granted[pair] for pair in link.pairs)
        for link in links
    }
    assert all(units >= 0 for units in left.values())
    for n, origin in enumerate(origins):
        idle = free[n] - sum(granted[name, origin.name] for name in names)
        assert idle >= 0
        for name in names:
            full = [
                link for link in links if (name, origin.name) in link.pairs and left[link.name] == 0
            ]
            assert idle == 0 or full, f"{name} could have {idle} more of {origin.name}"


def test_a_link_that_is_full_of_what_is_there_carries_nothing_new() -> None:
    pops = [pop("over", units=[(0, 0, 5)], arrivals_per_s=1.0), pop("here")]
    cable = LinkLimit(name="cable", mbps=30.0, mbps_per_unit=6.0, pairs=(("over", "o1"),))
    shares = share_by_flows(pops, [offer(100)], FlowSolver().solve, horizon_s=10.0, links=(cable,))
    assert shares.units == [[0], [100]]


@pytest.mark.parametrize("free", [0, 1])
def test_little_or_nothing_can_be_shared(free: int) -> None:
    shares = share_by_flows([pop("a"), pop("b")], [offer(free)], FlowSolver().solve, horizon_s=1.0)
    assert sum(units for (units,) in shares.units) == free


def test_what_crosses_a_link_to_all_its_origins_counts_together() -> None:
    pops = [pop("over", units=[(0, 0, 0)] * 2, rtt_ms=[1.0, 2.0])]
    cable = LinkLimit(
        name="cable", mbps=180.0, mbps_per_unit=6.0, pairs=(("over", "o1"), ("over", "o2"))
    )
    shares = share_by_flows(
        pops,
        [offer(20, "o1"), offer(20, "o2")],
        FlowSolver().solve,
        horizon_s=10.0,
        links=(cable,),
    )
    assert sum(shares.units[0]) == 30


def test_what_others_would_win_by_a_slot_is_its_price() -> None:
    """A PoP goes 2 ms farther, for another to come back from far away as its streams end."""
    near_both = pop("a", units=[(0, 0, 0)] * 3, arrivals_per_s=1.0, rtt_ms=[2.0, 4.0, 95.0])
    from_afar = pop("b", units=[(0, 0, 0), (0, 0, 0), (0, 0, 50)], rtt_ms=[3.0, 95.0, 90.0])
    origins = [
        offer(20, "o1"),
        offer(100, "o2"),
        OriginOffer(name="o3", free=0, capacity=(50, 50, 50)),
    ]
    shares = share_by_flows([near_both, from_afar], origins, FlowSolver().solve, horizon_s=10.0)
    assert shares.units[0][0] <= 4
    assert shares.units[0][1] >= 17
    assert shares.units[1][0] >= 16


@hypothesis.given(cables(), st.data())
@hypothesis.settings(max_examples=100, deadline=None)
def test_with_pins_the_best_placement_is_as_good_and_shares_keep_to_the_same(
    given: tuple[list[str], list[int], tuple[LinkLimit, ...]], data: st.DataObject
) -> None:
    """Against the program in which who may go to one origin alone is a row as any other."""
    names, free, links = given
    origins = [
        OriginOffer(
            name=f"o{n}",
            free=units,
            capacity=(units + 20, units + 15, units + 15),
            ladders=data.draw(st.sampled_from([None, 0, units // 2])),
        )
        for n, units in enumerate(free)
    ]
    places = [origin.name for origin in origins]
    needs = []
    for name in names:
        for part in range(data.draw(st.integers(1, 3))):
            allowed = data.draw(st.sets(st.sampled_from([*places, "gone"]), max_size=2))
            needs.append(
                pop(
                    f"{name} part {part}" if part else name,
                    units=[(1, 0, data.draw(st.integers(0, 30))) for _ in free],
                    arrivals_per_s=data.draw(st.floats(0.0, 5.0)),
                    rtt_ms=[float(data.draw(st.integers(0, 90))) for _ in free],
                    of_pop=name if part else "",
                    allowed=frozenset(allowed) if part else None,
                )
            )
    one, other = (
        share_by_flows(needs, origins, FlowSolver().solve, horizon_s=10.0, links=links, pins=pins)
        for pins in (True, False)
    )
    assert one.solution.cost_ms == pytest.approx(other.solution.cost_ms, rel=1e-9, abs=1e-3)
    assert len(one.problem.pins) + len(one.problem.pops) == len(other.problem.pops) == len(needs)
    for need, row in zip(needs, one.units, strict=True):
        assert all(units == 0 or need.may_go(at) for at, units in zip(places, row, strict=True))
    for place, origin in enumerate(origins):
        granted = [sum(row[place] for row in shares.units) for shares in (one, other)]
        assert max(granted) <= origin.free
        if not links:
            assert granted[0] == granted[1], "no slot is idle that another answer would share out"
