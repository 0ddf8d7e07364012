"""Leases: shares of what is free, never more than that."""

import hypothesis
from hypothesis import strategies as st

from edged.media.routing import OriginState
from edged.policy.planner import OriginSupply, PopDemand, plan_leases, share_out


def supply(
    origin: str, room: int, *, total: int = 1000, state: OriginState = OriginState.UP
) -> OriginSupply:
    return OriginSupply(
        origin=origin, address=f"{origin}:1", state=state, slots_total=total, room=room
    )


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


def test_odd_units_go_round() -> None:
    assert share_out(1, [1.0, 1.0, 1.0]) == [1, 0, 0]
    assert share_out(1, [1.0, 1.0, 1.0], first=1) == [0, 1, 0]
    assert share_out(2, [1.0, 1.0, 1.0], first=2) == [1, 0, 1]


SUPPLIES = st.builds(
    OriginSupply,
    origin=st.sampled_from(["o1", "o2", "o3", "o4"]),
    address=st.just("h:1"),
    state=st.sampled_from(list(OriginState)),
    slots_total=st.integers(0, 500),
    room=st.integers(0, 500),
)
DEMANDS = st.builds(
    PopDemand,
    pop=st.sampled_from(["a/0", "b/0", "c/0", "c/1"]),
    units=st.dictionaries(st.sampled_from(["o1", "o2", "gone"]), st.integers(0, 300)),
    arrivals_per_s=st.floats(0, 1e4),
)


@hypothesis.given(
    st.lists(SUPPLIES, max_size=4, unique_by=lambda known: known.origin),
    st.lists(DEMANDS, max_size=4, unique_by=lambda known: known.pop),
    st.floats(0, 0.5),
)
@hypothesis.settings(max_examples=40, deadline=None)
def test_no_plan_hands_out_more_than_is_free(
    origins: list[OriginSupply], pops: list[PopDemand], reserve: float
) -> None:
    rows = plan_leases(origins, pops, reserve_fraction=reserve)
    assert set(rows) == {pop.pop for pop in pops}
    for place, known in enumerate(sorted(origins, key=lambda known: known.origin)):
        leased = 0
        for pop in pops:
            row = rows[pop.pop][place]
            assert row.origin == known.origin
            assert row.state is known.state
            assert row.reserve >= known.slots_total * reserve
            leased += row.quota - pop.units.get(known.origin, 0)
        if known.state.takes_streams and pops:
            assert leased == max(0, known.room - row.reserve)
        else:
            assert leased == 0


def test_demand_gets_more_and_price_rises_with_use() -> None:
    pops = [PopDemand(pop="a/0", arrivals_per_s=2.0), PopDemand(pop="b/0", units={"o1": 7})]
    rows = plan_leases(
        [supply("o1", 400), supply("o2", 1000), supply("o3", 0, total=0)],
        pops,
        reserve_fraction=0.002,
    )
    assert [(row.origin, row.quota, row.reserve) for row in rows["a/0"]] == [
        ("o1", 299, 2),
        ("o2", 748, 2),
        ("o3", 0, 0),
    ]
    assert rows["b/0"][0].quota == 7 + 99
    assert rows["a/0"][0].price > rows["a/0"][1].price == 0.0


def test_a_pop_of_several_shards_is_one_pop_until_publishers_come() -> None:
    """Four shards that nobody publishes at take no more than another PoP of one process."""
    pops = [PopDemand(pop=f"lhr/{shard}") for shard in range(1, 5)] + [PopDemand(pop="ams/0")]
    rows = plan_leases([supply("o1", 800)], pops, reserve_fraction=0.0)
    quotas = {pop: row.quota for pop, (row,) in rows.items()}
    assert quotas == {"lhr/1": 100, "lhr/2": 100, "lhr/3": 100, "lhr/4": 100, "ams/0": 400}


def test_the_busy_shard_gets_more_than_its_siblings() -> None:
    pops = [PopDemand(pop="lhr/1", arrivals_per_s=7.0), PopDemand(pop="lhr/2")]
    rows = plan_leases([supply("o1", 800)], pops, reserve_fraction=0.0)
    assert {pop: row.quota for pop, (row,) in rows.items()} == {"lhr/1": 750, "lhr/2": 50}
