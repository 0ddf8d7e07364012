"""PoPs in parts, by where their streams may go."""

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.media.routing import ByClass
from edged.policy.lease_shares import ARRIVALS_FLOOR
from edged.policy.planner import PopDemand
from edged.policy.pop_needs import (
    LAST_RESORT_MS,
    BoundDemand,
    find_parts,
    keep_within,
    wishes_of,
)

ORIGINS = ["o1", "o2", "o3"]
UNITS = st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
PLACES = st.sampled_from([*ORIGINS, "gone"])


def bound_of(
    names: list[str],
    cut: int,
    units: dict[str, ByClass],
    arrivals_per_s: float,
    newcomers: bool,
) -> BoundDemand:
    return BoundDemand(
        first=tuple(sorted(names[:cut])),
        then=tuple(sorted(names[cut:])),
        units=units,
        arrivals_per_s=arrivals_per_s,
        newcomers=newcomers,
    )


BOUNDS = st.builds(
    bound_of,
    st.lists(PLACES, max_size=3, unique=True),
    st.integers(0, 3),
    st.dictionaries(PLACES, UNITS, max_size=2),
    st.floats(0, 5),
    st.booleans(),
)
SHARDS = st.builds(
    PopDemand,
    pop=st.sampled_from(["a/0", "a/1", "a/2"]),
    units=st.dictionaries(PLACES, UNITS),
    arrivals_per_s=st.floats(0, 50),
    rtt_ms=st.dictionaries(PLACES, st.floats(0, 900)),
    bound=st.lists(BOUNDS, max_size=3, unique_by=lambda each: (each.first, each.then)).map(tuple),
)


@hypothesis.given(st.lists(SHARDS, min_size=1, max_size=3, unique_by=lambda shard: shard.pop))
def test_parts_are_the_whole_and_each_knows_where_it_may_go(shards: list[PopDemand]) -> None:
    parts = find_parts("a", shards, ORIGINS, {"o1", "o2"})
    whole, *others = [part.need for part in parts]
    assert (whole.name, whole.allowed) == ("a", None)
    assert len({part.need.name for part in parts}) == len(parts)
    assert {need.allowed for need in others} == {
        frozenset((*bound.first, *bound.then)) for shard in shards for bound in shard.bound
    }
    for part in parts:
        assert len(part.weights) == len(shards)
        assert any(part.weights)
    fits = all(  # What PoPs tell does: else they would have told more bound than there is.
        sum(bound.units.get(origin, (0, 0, 0))[k] for bound in shard.bound)
        <= shard.units.get(origin, (0, 0, 0))[k]
        for shard in shards
        for origin in (*ORIGINS, "gone")
        for k in range(3)
    )
    for place, origin in enumerate(ORIGINS):
        there = sum(sum(shard.units.get(origin, (0, 0, 0))) for shard in shards)
        found = sum(sum(part.need.units[place]) for part in parts)
        assert found == there if fits else found >= 0
    once = all(sum(bound.newcomers for bound in shard.bound) <= 1 for shard in shards)
    if once:
        assert sum(part.need.floor for part in parts) == pytest.approx(ARRIVALS_FLOOR, abs=1e-5)


def test_what_a_rule_puts_behind_costs_as_much_as_a_full_origin() -> None:
    bound = BoundDemand(first=("o1",), then=("o2", "o3"))
    shard = PopDemand(pop="a/0", rtt_ms={"o1": 9.0, "o2": 3.0}, bound=(bound,))
    whole, part = find_parts("a", [shard], ORIGINS, set(ORIGINS))
    assert whole.need.rtt_ms == [9.0, 3.0, float("inf")]
    assert part.need.rtt_ms == [9.0, 3.0 + LAST_RESORT_MS, 1000.0]
    assert part.need.name == "a to o1 or o2,o3"
    assert part.need.of_pop == "a"


def test_newcomers_count_once_and_where_they_go() -> None:
    bound = BoundDemand(first=("o1",), newcomers=True)
    shards = [PopDemand(pop="a/0", bound=(bound,)), PopDemand(pop="a/1", bound=(bound,))]
    whole, part = find_parts("a", shards, ORIGINS, set(ORIGINS))
    assert (whole.need.floor, part.need.floor) == (0.0, ARRIVALS_FLOOR)
    assert (whole.need.slots_needed(10.0), part.need.slots_needed(10.0)) == (0, 1)
    assert [wishes_of(shards[0], 0.5).at(origin) for origin in ORIGINS] == [0.5, 0.0, 0.0]
    assert wishes_of(PopDemand(pop="a/0", arrivals_per_s=2.0), 0.5).at("o2") == 2.5


def test_beyond_the_limit_preferences_go_first_and_then_the_least() -> None:
    def pop(name: str, *bounds: BoundDemand) -> PopDemand:
        return PopDemand(pop=f"{name}/0", bound=bounds)

    soft = BoundDemand(first=("o1",), then=("o2", "o3"), arrivals_per_s=9.0)
    partly = BoundDemand(first=("o1",), then=("o2",))
    pin = BoundDemand(first=("o3",), units={"o3": (1, 0, 0)})
    rare = BoundDemand(first=("o2",))
    pops = [pop("a", soft, partly, pin), pop("b", rare)]
    assert keep_within(pops, ORIGINS, 4) == pops
    without = BoundDemand(first=("o1", "o2"))
    assert keep_within(pops, ORIGINS, 3) == [pop("a", without, pin), pop("b", rare)]
    assert keep_within(pops, ORIGINS, 1) == [pop("a", pin), pop("b")]
