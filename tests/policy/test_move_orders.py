"""Orders: of all moves, each PoP its own, and of the budget its part."""

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.media.stream import PriorityClass
from edged.policy.move_orders import (
    BUDGET_PER_S_MIN,
    MovesAsked,
    digest_of_moves,
    digest_of_orders,
    make_orders,
)
from edged.policy.moves import NEARER, UnitMoves

MOVES = st.lists(
    st.builds(
        UnitMoves,
        pop=st.sampled_from(["a/0", "b/0", "c/0"]),
        from_origin=st.just("o1"),
        to_origin=st.sampled_from(["o2", "o3"]),
        priority=st.sampled_from(list(PriorityClass)),
        units=st.integers(1, 99),
        reason=st.just(NEARER),
    ),
    min_size=1,
    max_size=12,
)


@hypothesis.given(MOVES, st.integers(1, 4))
def test_each_pop_gets_its_moves_in_order_and_its_part_of_the_budget(
    moves: list[UnitMoves], picks_max: int
) -> None:
    orders = make_orders(moves, moves_per_s=50.0, picks_max=picks_max)
    assert {order.pop for order in orders} == {move.pop for move in moves}
    total = sum(move.units for move in moves)
    for order in orders:
        own = [move for move in moves if move.pop == order.pop][:picks_max]
        assert order.picks == tuple(
            (move.from_origin, move.to_origin, move.priority.label, move.units) for move in own
        )
        assert order.units == sum(move.units for move in own)
        assert order.budget_per_s == pytest.approx(
            max(50.0 * order.units / total, BUDGET_PER_S_MIN)
        )
    assert sum(order.budget_per_s for order in orders) <= 50.0 + 3 * BUDGET_PER_S_MIN
    told = tuple(order.pop for order in orders[1:])
    asked = MovesAsked(
        number=3, deadline=9.0, left_s=4.0, moves_per_s=50.0, picks_max=picks_max, told=told,
        digest=digest_of_orders(orders[1:], 3, 9.0, 4.0),
    )  # fmt: skip
    assert asked.remake(moves) == asked.digest
    assert digest_of_moves(moves) == digest_of_moves(list(moves))
    if len(moves) > 1:
        assert digest_of_moves(moves[1:]) != digest_of_moves(moves)


def test_nothing_is_asked_of_nobody() -> None:
    assert make_orders([], moves_per_s=1.0, picks_max=5) == []
