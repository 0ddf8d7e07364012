"""The clairvoyant bound, against what can be worked out by hand."""

import math

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.tools.simulate.bound import Moment, solve, unserved_by_class
from edged.tools.simulate.geography import Arc


def moment(
    demand: list[int],
    slots: list[int],
    rtt_ms: list[list[float]],
    *,
    routes: list[list[tuple[Arc, ...]]] | None = None,
    gbps: tuple[float, ...] = (),
) -> Moment:
    return Moment(
        demand=demand,
        mbps=[10.0 * count for count in demand],
        slots=slots,
        rtt_ms=rtt_ms,
        routes=routes or [[()] * len(slots) for _ in demand],
        gbps=list(gbps),
    )


def test_the_nearest_first_and_whose_detour_is_least_gives_way() -> None:
    best = solve(moment([10, 10], [12, 20], [[1.0, 50.0], [5.0, 10.0]]))
    assert best.served == pytest.approx(20)
    assert best.placed[0] == pytest.approx([10, 0])
    assert best.placed[1] == pytest.approx([2, 8])
    assert best.rtt_ms == pytest.approx((10 + 10 + 80) / 20)


def test_serving_counts_more_than_any_detour() -> None:
    best = solve(moment([10, 10], [10, 10], [[1.0, 400.0], [2.0, 900.0]]))
    assert best.served == pytest.approx(20)


def test_a_link_carries_no_more_than_it_can() -> None:
    route: tuple[Arc, ...] = ((0, True),)
    best = solve(moment([100], [10, 200], [[1.0, 5.0]], routes=[[(), route]], gbps=(0.3,)))
    assert best.placed[0] == pytest.approx([10, 30]), "300 Mbps at 10 Mbps each"
    back = solve(moment([100], [10, 200], [[1.0, 5.0]], routes=[[(), ((0, False),)]], gbps=(0.3,)))
    assert back.served == pytest.approx(40), "each direction for itself"


def test_where_there_is_no_way_nothing_goes() -> None:
    best = solve(moment([5, 5], [100], [[1.0], [math.inf]]))
    assert best.placed == [[pytest.approx(5)], [0.0]]


def test_nothing_wanted_or_nowhere_to_go() -> None:
    assert solve(moment([0], [10], [[1.0]])).served == 0
    assert solve(moment([3], [10], [[math.inf]])).served == 0
    assert solve(moment([3], [0], [[1.0]])).rtt_ms == 0


@hypothesis.given(
    st.lists(st.integers(0, 200), min_size=1, max_size=6),
    st.lists(st.integers(0, 300), min_size=1, max_size=4),
    st.data(),
)
@hypothesis.settings(max_examples=40, deadline=None)
def test_without_links_all_that_fits_is_served(
    demand: list[int], slots: list[int], data: st.DataObject
) -> None:
    row = st.lists(st.floats(0.1, 300), min_size=len(slots), max_size=len(slots))
    rtt_ms = [data.draw(row) for _ in demand]
    best = solve(moment(demand, slots, rtt_ms))
    assert best.served == pytest.approx(min(sum(demand), sum(slots)), abs=1e-6)
    for wanted, placed in zip(demand, best.placed, strict=True):
        assert sum(placed) <= wanted + 1e-6
    for total, *placed in zip(slots, *best.placed, strict=True):
        assert sum(placed) <= total + 1e-6
    nearest = [min(row) * wanted for row, wanted in zip(rtt_ms, demand, strict=True)]
    if sum(demand) <= sum(slots):
        assert best.rtt_sum_ms >= sum(nearest) - 1e-3


def test_what_has_to_go_is_of_the_lowest_class() -> None:
    """Ten of each class at two PoPs behind one link that carries 25, the second farther."""
    route: tuple[Arc, ...] = ((0, True),)
    rows = moment([10] * 6, [100], [[5.0]] * 3 + [[9.0]] * 3, routes=[[route]] * 6, gbps=(0.25,))
    assert unserved_by_class(rows) == pytest.approx([0, 5, 10, 0, 10, 10])
    wide = moment([10] * 6, [100], [[5.0]] * 6, routes=[[route]] * 6, gbps=(0.6,))
    assert unserved_by_class(wide) == pytest.approx([0] * 6)
