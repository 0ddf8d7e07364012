"""Whole moves of whatever is asked for: within every limit, never for the worse, with a reason."""

import hypothesis
from hypothesis import strategies as st

from edged.policy.flows import LinkLimit
from edged.policy.moves import (
    DRAIN,
    MAKES_ROOM,
    NEARER,
    MigrationProblem,
    UnitMoves,
    make_moves,
)
from tests.policy.migration_problems import check_moves, problems

Changes = list[list[list[float]]]


@st.composite
def asked(draw: st.DrawFn) -> tuple[MigrationProblem, Changes, Changes]:
    """Any problem, and changes that nothing vouches for."""
    problem = draw(problems())
    units = st.floats(0, 50) | st.integers(0, 50).map(float)

    def changes() -> Changes:
        return [
            [[draw(units) for _ in problem.room[0]] for _ in problem.origins] for _ in problem.pops
        ]

    return problem, changes(), changes()


@hypothesis.given(asked())
@hypothesis.settings(max_examples=200, deadline=None)
def test_whatever_is_asked_for_limits_hold_and_nothing_gets_worse(
    given: tuple[MigrationProblem, Changes, Changes],
) -> None:
    problem, arriving, leaving = given
    check_moves(problem, make_moves(problem, arriving, leaving))


PROBLEM = MigrationProblem(
    pops=["p"],
    origins=["near", "far"],
    placed=[[[0, 0, 5], [0, 0, 5]]],
    room=[[9, 9, 9], [9, 9, 9]],
    rtt_ms=[[5.0, 50.0]],
    budget=4,
)
CABLE = LinkLimit(name="cable", mbps=18.0, mbps_per_unit=6.0, pairs=(("p", "near"),))


def change(near: float, far: float) -> Changes:
    return [[[0.0, 0.0, near], [0.0, 0.0, far]]]


def made(arriving: Changes, leaving: Changes, **given: object) -> list[tuple[str, str, int, str]]:
    fields = {name: getattr(PROBLEM, name) for name in PROBLEM.__struct_fields__} | given
    return [named(move) for move in make_moves(MigrationProblem(**fields), arriving, leaving)]


def named(move: UnitMoves) -> tuple[str, str, int, str]:
    return (move.from_origin, move.to_origin, move.units, move.reason)


def test_parts_of_units_stay() -> None:
    assert made(change(2.9, 0), change(0, 2.9)) == [("far", "near", 2, NEARER)]
    assert made(change(2.9999999, 0), change(0, 3.0)) == [("far", "near", 3, NEARER)]
    assert made(change(0.9, 0), change(0, 0.9)) == []


def test_budget_room_and_what_is_there_bound_them() -> None:
    assert made(change(9, 0), change(0, 9)) == [("far", "near", 4, NEARER)]
    assert made(change(9, 0), change(0, 9), budget=99) == [("far", "near", 5, NEARER)]
    three = [[3, 3, 3], [0, 0, 0]]
    assert made(change(9, 0), change(0, 9), room=three) == [("far", "near", 3, NEARER)]


def test_a_move_for_the_worse_is_not_made() -> None:
    assert made(change(0, 3), change(3, 0)) == []


def test_an_overloaded_link_is_worth_a_detour_and_no_more_than_it_needs_is_added() -> None:
    assert made(change(0, 2), change(2, 0), links=(CABLE,)) == [("near", "far", 2, "link cable")]
    roomy = LinkLimit(name="cable", mbps=42.0, mbps_per_unit=6.0, pairs=CABLE.pairs)
    assert made(change(4, 0), change(0, 4), links=(roomy,)) == [("far", "near", 2, NEARER)]


def test_a_drain_is_worth_a_detour() -> None:
    drained = frozenset({"near"})
    assert made(change(0, 2), change(2, 0), draining=drained) == [("near", "far", 2, DRAIN)]
    assert made(change(2, 0), change(0, 2), draining=drained) == []


def test_what_makes_room_for_others_comes_first() -> None:
    """q leaves the dish at no gain, so that p can leave the cable that is cut."""
    problem = MigrationProblem(
        pops=["p", "q"],
        origins=["cut", "dish", "sea"],
        placed=[[[1], [0], [0]], [[0], [1], [0]]],
        room=[[9], [9], [9]],
        rtt_ms=[[5, 9, 9], [5, 9, 10]],
        budget=9,
        links=(
            LinkLimit(name="cable", mbps=0.0, mbps_per_unit=6.0, pairs=(("p", "cut"),)),
            LinkLimit(
                name="dish", mbps=6.0, mbps_per_unit=6.0, pairs=(("p", "dish"), ("q", "dish"))
            ),
        ),
    )
    arriving = [[[0.0], [1.0], [0.0]], [[0.0], [0.0], [1.0]]]
    leaving = [[[1.0], [0.0], [0.0]], [[0.0], [1.0], [0.0]]]
    assert [named(move) for move in make_moves(problem, arriving, leaving)] == [
        ("dish", "sea", 1, MAKES_ROOM),
        ("cut", "dish", 1, "link cable"),
    ]
    alone = [[[0.0], [1.0], [0.0]], [[0.0], [0.0], [0.0]]]
    assert make_moves(problem, alone, [[[1.0], [0.0], [0.0]], [[0.0], [0.0], [0.0]]]) == []


def test_moves_that_pay_are_made_without_those_that_do_not() -> None:
    """Together they would be for the worse."""
    problem = MigrationProblem(
        pops=["p", "q"],
        origins=["near", "far"],
        placed=[[[0], [1]], [[3], [0]]],
        room=[[9], [9]],
        rtt_ms=[[5, 50], [5, 50]],
        budget=9,
    )
    moves = make_moves(problem, [[[1.0], [0.0]], [[0.0], [3.0]]], [[[0.0], [1.0]], [[3.0], [0.0]]])
    assert [(move.pop, *named(move)) for move in moves] == [("p", "far", "near", 1, NEARER)]
