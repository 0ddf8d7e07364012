"""Whole moves of whatever is asked for: within every limit, never for the worse, with a reason."""

import math

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.media.routing import ByClass, OriginState
from edged.policy.flows import RTT_UNKNOWN_MS, LinkLimit
from edged.policy.moves import (
    DRAIN,
    GAIN_MS_MIN,
    MAKES_ROOM,
    NEARER,
    MigrationProblem,
    UnitMoves,
    is_wrong,
    make_moves,
    migration_problem,
)
from edged.policy.planner import OriginSupply, PopDemand
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


@pytest.mark.parametrize("drains", [True, False])
def test_what_no_move_can_mend_is_wrong_in_journals_of_before_alone(drains: bool) -> None:
    """By what is wrong a plan is made with one program or another: a replay needs the same."""
    supply = OriginSupply(
        origin="a",
        address="a:1",
        state=OriginState.DRAIN if drains else OriginState.UP,
        slots_total=100,
        room=(50, 50, 50),
    )
    uplink = LinkLimit(name="uplink", mbps=10.0, mbps_per_unit=1.0, pairs=(("p", "a"),))
    for rules in (True, False):
        problem = migration_problem(
            [supply],
            [PopDemand(pop="p/0", units={"a": (0, 0, 30)}, rtt_ms={"a": 5.0})],
            budget=10,
            reserve_fraction=0.0,
            links=() if drains else (uplink,),
            rules=rules,
        )
        assert is_wrong(problem) == (not rules)


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


def supply(
    origin: str, room: ByClass, *, state: OriginState = OriginState.UP, total: int = 100
) -> OriginSupply:
    return OriginSupply(origin=origin, address="h:1", state=state, slots_total=total, room=room)


def test_the_problem_is_what_irs_was_told_by_shard() -> None:
    origins = [
        supply("new", (9, 9, 4)),
        supply("old", (50, 50, 50), state=OriginState.DRAIN),
        supply("dead", (0, 0, 0), state=OriginState.DOWN),
        supply("eaten", (1, 1, 1)),
    ]
    pops = [
        PopDemand(pop="lhr/1", units={"old": (1, 0, 5), "dead": (0, 0, 3)}, rtt_ms={"new": 8.4}),
        PopDemand(pop="lhr/2", units={"new": (0, 0, 2)}, rtt_ms={"new": 9.0, "old": 30.0}),
        PopDemand(pop="ams/0", units={"old": (0, 1, 0)}, rtt_ms={"new": 2.0}),
    ]
    cable = LinkLimit(
        name="cable", mbps=60.0, mbps_per_unit=6.0, pairs=(("lhr", "old"), ("far", "new"))
    )
    problem = migration_problem(origins, pops, budget=7, reserve_fraction=0.03, links=(cable,))
    assert problem.pops == ["lhr/1", "lhr/2", "ams/0"]
    assert problem.origins == ["eaten", "new", "old"]
    assert problem.placed[0] == [(0, 0, 0), (0, 0, 0), (1, 0, 5)]
    assert problem.room == [(1, 0, 0), (9, 6, 4), (0, 0, 0)]
    assert problem.draining == {"old"}
    assert (problem.budget, problem.gain_ms_min) == (7, GAIN_MS_MIN)
    assert [link.pairs for link in problem.links] == [(("lhr/1", "old"), ("lhr/2", "old"))]
    # Shards share what they measured; where a PoP has streams is never farther than it knows.
    assert problem.rtt_ms == [[math.inf, 8, 30], [math.inf, 8, 30], [math.inf, 2, 2]]


def test_nobody_is_moved_from_where_it_is_not_measured_yet() -> None:
    origins = [supply("o1", (9, 9, 9)), supply("o2", (9, 9, 9))]
    pops = [PopDemand(pop="lhr/0", units={"o1": (0, 0, 5)}, rtt_ms={"o2": 3.0})]
    problem = migration_problem(origins, pops, budget=9, reserve_fraction=0.0)
    assert problem.rtt_ms == [[3, 3]]
    unmeasured = [PopDemand(pop="lhr/0", units={"o1": (0, 0, 5)})]
    problem = migration_problem(origins, unmeasured, budget=9, reserve_fraction=0.0)
    assert {problem.rtt(0, place) for place in range(2)} == {RTT_UNKNOWN_MS}
