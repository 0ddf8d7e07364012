"""Round trips and routes, against what is known of the Earth and of shortest ways."""

import itertools
import math

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.policy.earth import DETOUR, RTT_MS_PER_KM
from edged.tools.simulate.geography import (
    EQUIPMENT_MS,
    Geography,
    great_circle_km,
    share_slots,
)
from edged.tools.simulate.scenario import Link, Origin, Pop, WorldFile
from tests.tools.simulate.worlds import WORLD


def test_great_circles_are_as_long_as_they_are() -> None:
    nyc, _, lhr, nrt = WORLD.pops
    assert great_circle_km(nyc, lhr) == pytest.approx(5567, rel=0.01)
    assert great_circle_km(lhr, nrt) == pytest.approx(9560, rel=0.01)
    assert great_circle_km(nyc, nyc) == 0


def test_light_takes_its_time() -> None:
    """Measured round trips between New York and London are 70 to 76 ms."""
    geography = Geography(WORLD)
    assert geography.rtt_ms[0][1] == pytest.approx(73, abs=4)
    assert geography.rtt_ms[0][0] == EQUIPMENT_MS


def test_a_pop_without_a_link_hangs_on_the_nearest() -> None:
    geography = Geography(WORLD)
    tail_ms = EQUIPMENT_MS + RTT_MS_PER_KM * DETOUR * great_circle_km(*WORLD.pops[:2])
    assert geography.rtt_ms[1][1] == pytest.approx(geography.rtt_ms[0][1] + tail_ms)
    assert geography.routes[1] == geography.routes[0]


def test_a_cut_link_is_gone_round_and_comes_back() -> None:
    geography = Geography(WORLD)
    before = [list(row) for row in geography.rtt_ms]
    assert list(geography.routes[0][1]) == [(0, True)]
    geography.set_link("lhr-nyc", up=False)
    assert list(geography.routes[0][1]) == [(1, True), (2, False)]
    assert [geography.name_of(arc) for arc in geography.routes[0][1]] == ["nyc>nrt", "nrt>lhr"]
    assert geography.rtt_ms[0][1] > before[0][1]
    geography.set_link("nyc-lhr", up=True)
    assert geography.rtt_ms == before


def test_who_has_no_way_is_infinitely_far() -> None:
    geography = Geography(WORLD)
    geography.set_link("nyc-lhr", up=False)
    geography.set_link("nyc-nrt", up=False)
    assert math.isinf(geography.rtt_ms[0][1])
    assert geography.routes[0][1] == ()
    assert geography.rtt_ms[0][0] == EQUIPMENT_MS


def test_without_links_every_two_places_have_a_way() -> None:
    geography = Geography(msgspec.structs.replace(WORLD, links=()))
    assert all(math.isfinite(rtt) for row in geography.rtt_ms for rtt in row)
    assert not any(route for row in geography.routes for route in row)


@hypothesis.given(
    st.lists(st.tuples(st.floats(-80, 80), st.floats(-180, 180)), min_size=2, max_size=7),
    st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12),
)
@hypothesis.settings(max_examples=60, deadline=None)
def test_routes_are_shortest_and_add_up(
    places: list[tuple[float, float]], pairs: set[tuple[int, int]]
) -> None:
    pops = [
        Pop(name=f"p{index}", latitude=latitude, longitude=longitude, utc_h=0.0, weight=1.0)
        for index, (latitude, longitude) in enumerate(places)
    ]
    ends = {tuple(sorted(pair)) for pair in pairs if pair[0] != pair[1] and max(pair) < len(pops)}
    links = [Link(a=f"p{a}", b=f"p{b}", gbps=1.0) for a, b in sorted(ends)]
    world = WorldFile(
        pops=tuple(pops), origins=(Origin(name="o", at="p0", share=1.0),), links=tuple(links)
    )
    geography = Geography(world)
    hops = {
        frozenset((link.a, link.b)): EQUIPMENT_MS
        + RTT_MS_PER_KM * DETOUR * great_circle_km(pops[int(link.a[1:])], pops[int(link.b[1:])])
        for link in links
    }
    best = {pop.name: math.inf for pop in pops} | {"p0": 0.0}  # Bellman and Ford.
    for _ in pops:
        for (one, other), ms in ((tuple(ends), ms) for ends, ms in hops.items()):
            best[one] = min(best[one], best[other] + ms)
            best[other] = min(best[other], best[one] + ms)
    joined = {end for ends in hops for end in ends}
    for index, pop in enumerate(pops):
        if pop.name in joined and "p0" in joined and index:
            assert geography.rtt_ms[index][0] == pytest.approx(best[pop.name] + EQUIPMENT_MS)
            walked = [geography.name_of(arc).split(">") for arc in geography.routes[index][0]]
            for (_, end), (start, _) in itertools.pairwise(walked):
                assert end == start
            if walked:
                assert (walked[0][0], walked[-1][1]) == (pop.name, "p0")


@hypothesis.given(st.integers(100, 100_000), st.lists(st.floats(0.5, 100), min_size=1, max_size=20))
def test_slots_are_shared_by_size(total: int, shares: list[float]) -> None:
    slots = share_slots(total, shares)
    assert abs(sum(slots) - total) <= len(shares)
    assert min(slots) >= 1
