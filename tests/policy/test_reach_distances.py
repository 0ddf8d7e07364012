import math

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from edged.policy.earth import Place, cable_rtt_ms
from edged.policy.reach_distances import LOCAL_MS, estimate_ms
from edged.policy.reach_plan import Matrix, ReachPop

LONDON, PARIS = (51.51, -0.13), (48.86, 2.35)


def estimate(
    *pops: ReachPop,
    measured: dict[tuple[str, str], float] | None = None,
    sites: dict[str, str] | None = None,
    places: dict[str, Place] | None = None,
) -> Matrix:
    return estimate_ms(pops, measured=measured or {}, site_of_pop=sites or {}, places=places or {})


def test_no_way_is_longer_than_that_over_an_origin() -> None:
    pops = [
        ReachPop(pop="a/0", origin_ms={"fra1": 10.0, "nyc1": 80.0}),
        ReachPop(pop="b/0", origin_ms={"fra1": 15.0, "nyc1": 70.0}),
        ReachPop(pop="c/0", origin_ms={"syd1": 3.0}),
    ]
    made = estimate(*pops)
    assert made[0, 1] == made[1, 0] == 25.0
    assert math.isinf(made[0, 2])
    assert made[2, 2] == 0


def test_what_is_measured_holds_before_all_else() -> None:
    pops = [ReachPop(pop=name, origin_ms={"fra1": 1.0}) for name in ("a/0", "b/0")]
    assert estimate(*pops, measured={("b/0", "a/0"): 90.0})[0, 1] == 90.0
    both = {("b/0", "a/0"): 90.0, ("a/0", "b/0"): 80.0}
    assert estimate(*pops, measured=both)[0, 1] == 80.0


def test_the_map_tells_where_no_origin_does() -> None:
    pops = [ReachPop(pop="lon1/0"), ReachPop(pop="par1/0"), ReachPop(pop="par1/1")]
    made = estimate(
        *pops, sites={"lon1": "london", "par1": "paris"}, places={"london": LONDON, "paris": PARIS}
    )
    assert made[0, 1] == pytest.approx(LOCAL_MS + cable_rtt_ms(LONDON, PARIS))
    assert made[1, 2] == LOCAL_MS, "shards of one PoP"
    assert estimate(*pops, sites={"lon1": "x", "par1": "x"})[0, 1] == LOCAL_MS


@hypothesis.given(st.lists(st.dictionaries(st.sampled_from("xyz"), st.floats(0, 300)), max_size=6))
def test_it_is_the_same_both_ways(origins: list[dict[str, float]]) -> None:
    pops = [ReachPop(pop=f"p{number}/0", origin_ms=ms) for number, ms in enumerate(origins)]
    made = estimate(*pops)
    assert np.array_equal(made, made.T)
    assert (made >= 0).all()
