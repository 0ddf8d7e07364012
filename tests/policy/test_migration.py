"""Moves of live streams: the most urgent first, within every limit, never for the worse."""

import itertools
from collections import Counter

import hypothesis
import msgspec

from edged.media.stream import PriorityClass
from edged.policy.flows import LinkLimit
from edged.policy.migration import Migration
from edged.policy.moves import DRAIN, NEARER, MigrationProblem, UnitMoves, is_wrong
from tests.policy.migration_problems import after, best_score, check_moves, problems, score

BASIC = PriorityClass.BASIC


@hypothesis.given(problems())
@hypothesis.settings(max_examples=200, deadline=None)
def test_moves_keep_every_limit_and_are_never_for_the_worse(problem: MigrationProblem) -> None:
    moves = Migration().plan(problem)
    check_moves(problem, moves)


@hypothesis.given(problems(small=True))
@hypothesis.settings(max_examples=100, deadline=None)
def test_no_other_moves_within_the_budget_are_better(problem: MigrationProblem) -> None:
    """Tried one and all, in whole units. What is not urgent may take a step back."""
    hypothesis.assume(is_wrong(problem))
    found = score(problem, Migration().plan(problem))
    best = best_score(problem)
    assert found[:2] == best[:2]
    assert found[2] <= best[2] + 1e-6


@hypothesis.given(problems())
@hypothesis.settings(max_examples=100, deadline=None)
def test_steps_come_to_an_end_and_pay_together(problem: MigrationProblem) -> None:
    """Whatever goes farther for others: when none is left to be made, all of them have paid."""
    problem = msgspec.structs.replace(problem, links=(), draining=frozenset(), budget=5)
    spent, first = 0.0, score(problem, ())
    for _ in range(500):
        moves = Migration().plan(problem)
        if not moves:
            break
        check_moves(problem, moves)
        spent += score(problem, moves)[2]
        problem = after(problem, moves)
    else:
        raise AssertionError("it never ends")
    assert first == (0, 0, 0)
    assert spent <= 1e-6


def test_a_full_origin_is_left_for_a_far_one_so_that_others_come_nearer() -> None:
    """`p` can only come near when `q`, who loses little, makes room there."""
    full = problem_of(
        pops=["p", "q"],
        origins=["near", "far"],
        placed=[[[0, 0, 0], [0, 0, 8]], [[0, 0, 8], [0, 0, 0]]],
        room=[[0, 0, 0], [3, 3, 3]],
        rtt_ms=[[5.0, 90.0], [20.0, 30.0]],
    )
    seen = []
    for _ in range(8):
        moves = Migration().plan(full)
        seen.append(units(moves))
        full = after(full, moves)
    assert seen[0] == {("near", "far", "basic"): 3}
    assert full.placed == [[[0, 0, 8], [0, 0, 0]], [[0, 0, 0], [0, 0, 8]]]
    assert seen[-1] == {}


def problem_of(**given: object) -> MigrationProblem:
    """One PoP, two origins at 5 and 50 ms, room everywhere."""
    usual: dict[str, object] = {
        "pops": ["p"],
        "origins": ["near", "far"],
        "placed": [[[0, 0, 0], [1, 2, 3]]],
        "room": [[9, 9, 9], [9, 9, 9]],
        "rtt_ms": [[5.0, 50.0]],
        "budget": 100,
    }
    return MigrationProblem(**(usual | given))  # type: ignore[arg-type]


def units(moves: list[UnitMoves]) -> dict[tuple[str, str, str], int]:
    counted = Counter[tuple[str, str, str]]()
    for move in moves:
        counted[move.from_origin, move.to_origin, move.priority.label] += move.units
    return dict(counted)


def test_streams_return_to_the_nearer_origin_the_lowest_class_first() -> None:
    moves = Migration().plan(problem_of())
    assert sum(move.units for move in moves) == 6
    assert {move.reason for move in moves} == {NEARER}
    assert units(Migration().plan(problem_of(budget=4))) == {
        ("far", "near", "basic"): 3,
        ("far", "near", "affiliate"): 1,
    }
    assert Migration().plan(problem_of(budget=0)) == []


def test_not_for_less_than_it_is_worth() -> None:
    assert Migration().plan(problem_of(gain_ms_min=60.0)) == []
    nearly = problem_of(rtt_ms=[[45.5, 50.0]])
    assert Migration().plan(nearly) == []
    assert Migration().plan(problem_of(rtt_ms=[[44.0, 50.0]])) != []


def test_what_is_kept_for_partners_is_kept() -> None:
    moves = Migration().plan(problem_of(room=[[3, 2, 2], [0, 0, 0]]))
    assert units(moves) == {("far", "near", "basic"): 2, ("far", "near", "partner"): 1}


def test_a_draining_origin_is_left_whatever_the_way() -> None:
    drained = problem_of(placed=[[[0, 0, 4], [0, 0, 1]]], draining=frozenset({"near"}), budget=3)
    moves = Migration().plan(drained)
    assert units(moves) == {("near", "far", "basic"): 3}
    assert {move.reason for move in moves} == {DRAIN}


CABLE = LinkLimit(name="cable", mbps=12.0, mbps_per_unit=6.0, pairs=(("p", "near"),))


def test_an_overloaded_link_comes_before_a_drain_and_a_drain_before_round_trips() -> None:
    """Four over a cable for two, two at an origin that drains, two farther than need be."""
    both = problem_of(
        pops=["p", "q", "r"],
        origins=["near", "far", "old"],
        placed=[
            [[0, 0, 4], [0, 0, 0], [0, 0, 0]],
            [[0, 0, 0], [0, 0, 0], [0, 0, 2]],
            [[0, 0, 0], [0, 0, 2], [0, 0, 0]],
        ],
        room=[[9] * 3, [9] * 3, [9] * 3],
        rtt_ms=[[5, 50, 60]] * 3,
        draining=frozenset({"old"}),
        links=(CABLE,),
    )
    reasons = []
    for budget in range(1, 8):
        moves = Migration().plan(_with_budget(both, budget))
        reasons.append(Counter[str]())
        for move in moves:
            reasons[-1][move.reason] += move.units
    assert [dict(each) for each in reasons] == [
        {"link cable": 1},
        {"link cable": 2},
        {"link cable": 2, DRAIN: 1},
        {"link cable": 2, DRAIN: 2},
        {"link cable": 2, DRAIN: 2, NEARER: 1},
        {"link cable": 2, DRAIN: 2, NEARER: 2},
        {"link cable": 2, DRAIN: 2, NEARER: 2},
    ]


def _with_budget(problem: MigrationProblem, budget: int) -> MigrationProblem:
    fields = {name: getattr(problem, name) for name in problem.__struct_fields__}
    return MigrationProblem(**(fields | {"budget": budget}))


def test_one_stream_makes_room_on_a_link_for_another() -> None:
    """p can only leave its cut cable by the dish, which q fills, who has another way."""
    chain = problem_of(
        pops=["p", "q"],
        origins=["cut", "dish", "sea"],
        placed=[[[0, 0, 2], [0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 2], [0, 0, 0]]],
        room=[[9] * 3, [9] * 3, [9] * 3],
        rtt_ms=[[5, 9, 9], [5, 9, 10]],
        forbidden=frozenset({("p", "sea"), ("q", "cut")}),
        links=(
            LinkLimit(name="cable", mbps=0.0, mbps_per_unit=6.0, pairs=(("p", "cut"),)),
            LinkLimit(
                name="dish", mbps=12.0, mbps_per_unit=6.0, pairs=(("p", "dish"), ("q", "dish"))
            ),
        ),
    )
    moves = Migration().plan(chain)
    assert [(move.pop, move.from_origin, move.to_origin, move.units) for move in moves] == [
        ("q", "dish", "sea", 2),  # First: then there is room.
        ("p", "cut", "dish", 2),
    ]
    check_moves(chain, moves)


def test_a_cut_cable_is_clear_after_some_budgets() -> None:
    """As from one second to the next: what a plan leaves over, the next takes up."""
    pops = [f"p{n}" for n in range(8)]
    placed = [[[2, 4, 14], [0, 0, 0], [0, 0, 0]] for _ in pops]
    cable = LinkLimit(
        # A part of a unit more than 40.
        name="cable",
        mbps=6.0 * 40 + 5.0,
        mbps_per_unit=6.0,
        pairs=tuple((pop, "west") for pop in pops),
    )
    migration, moved = Migration(), 0
    for _ in itertools.repeat(None, 20):
        problem = problem_of(
            pops=pops,
            origins=["west", "east", "south"],
            placed=placed,
            room=[[0, 0, 0], [90, 90, 90], [60, 60, 60]],
            rtt_ms=[[5, 80, 90]] * 8,
            links=(cable,),
            budget=25,
        )
        moves = migration.plan(problem)
        check_moves(problem, moves)
        if not moves:
            break
        for move in moves:
            row, k = pops.index(move.pop), move.priority
            placed[row][problem.origins.index(move.from_origin)][k] -= move.units
            placed[row][problem.origins.index(move.to_origin)][k] += move.units
            moved += move.units
    assert moved == 160 - 40
    assert sum(sum(placed[row][0]) for row in range(8)) == 40


def test_the_same_problem_from_cold_gives_the_same_moves() -> None:
    first = Migration().plan(problem_of())
    used = Migration()
    used.plan(problem_of(budget=2))
    used.plan(problem_of(placed=[[[3, 0, 0], [0, 0, 0]]]))
    used.restart()
    assert used.plan(problem_of()) == first


def test_nothing_to_plan_for_gives_no_moves() -> None:
    assert Migration().plan(problem_of(pops=[], placed=[], rtt_ms=[])) == []
    assert Migration().plan(problem_of(origins=[], placed=[[]], room=[], rtt_ms=[[]])) == []
