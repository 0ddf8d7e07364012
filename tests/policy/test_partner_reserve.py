"""What is kept for partners: never more than the operator allows, and what those need who come."""

import math
import random

import hypothesis
from hypothesis import strategies as st

from edged.policy.partner_reserve import keep_for_partners
from edged.tools.simulate.demand import draw_poisson


@hypothesis.given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), max_size=8),
    st.floats(0, 1e9),
    st.floats(0, 0.5),
)
def test_it_is_never_more_than_the_fraction_of_each_origin(
    origins: list[tuple[int, int]], coming: float, fraction: float
) -> None:
    slots, partners = [total for total, _ in origins], [units for _, units in origins]
    kept = keep_for_partners(slots, partners, coming, fraction_max=fraction)
    most = [math.ceil(total * fraction) for total in slots]
    assert len(kept) == len(slots)
    assert all(0 <= units <= limit for units, limit in zip(kept, most, strict=True))
    assert all(units >= 1 for units, limit in zip(kept, most, strict=True) if limit)


def test_who_knows_nothing_of_partners_keeps_the_most() -> None:
    assert keep_for_partners([1000, 500], [0, 0], 3.0, fraction_max=0.01) == [10, 5]
    assert keep_for_partners([1000, 500], [4, 0], 0.0, fraction_max=0.01) == [10, 5]
    assert keep_for_partners([], [], 1.0, fraction_max=0.01) == []


def test_it_follows_partners_and_goes_where_they_are() -> None:
    """Of 100,000 slots, with 1.5 partners a second for 15 s, 44 are kept, not 200."""
    slots, partners = [60_000, 40_000], [4000, 1000]
    assert keep_for_partners(slots, partners, 22.5, fraction_max=0.002) == [35, 9]
    assert keep_for_partners(slots, partners, 90.0, fraction_max=0.002) == [103, 27]
    assert keep_for_partners(slots, partners, 900.0, fraction_max=0.002) == [120, 41]


def test_it_suffices_for_those_who_come() -> None:
    """Ten thousand times, by chance, with nobody leaving meanwhile."""
    rng = random.Random(1)  # noqa: S311 - replayable
    for coming in (0.5, 3.0, 25.0, 300.0):
        kept = sum(keep_for_partners([50_000, 50_000], [2000, 1000], coming, fraction_max=0.1))
        beyond = sum(draw_poisson(coming, rng) > kept for _ in range(10_000))
        assert beyond <= 5, f"{beyond} of 10,000 times more than {kept} came for {coming}"
