"""Shedding: exactly what the flow program cannot serve, and nothing while moves would do."""

import math
from collections import Counter

import hypothesis
import msgspec
import pytest

from edged.media.stream import PriorityClass
from edged.policy.flows import LinkLimit
from edged.policy.moves import MigrationProblem, UnitMoves, find_overloaded
from edged.policy.shedding import UnitSheds, _flows, plan_sheds, without, without_leaving
from edged.policy.solver import FlowSolver
from tests.policy.migration_problems import problems

PARTNER, BASIC = PriorityClass.PARTNER, PriorityClass.BASIC


def island(
    *, mbps: float, room: int = 50, partners: int = 20, basics: int = 80
) -> MigrationProblem:
    """Two PoPs whose streams all cross one link to `far`; `near` has some room beside it."""
    return MigrationProblem(
        pops=["rio/0", "sao/0"],
        origins=["far", "near"],
        placed=[[[partners, 0, basics], [0, 0, 0]], [[partners, 0, basics], [0, 0, 0]]],
        room=[[500, 500, 500], [room, room, room]],
        rtt_ms=[[140.0, 10.0], [120.0, 2.0]],
        budget=1000,
        links=(
            LinkLimit(
                name="sea>", mbps=mbps, mbps_per_unit=1.0,
                pairs=(("rio/0", "far"), ("sao/0", "far")),
            ),
        ),
    )  # fmt: skip


@hypothesis.given(problems())
@hypothesis.settings(max_examples=150, deadline=None)
def test_exactly_what_the_program_leaves_unserved_is_shed(problem: MigrationProblem) -> None:
    solve = FlowSolver().solve
    sheds = plan_sheds(problem, solve)
    if not find_overloaded(problem):
        assert sheds == []
        return
    width = len(problem.room[0])
    found = Counter[tuple[str, int]]()
    for each in sheds:
        assert each.units > 0
        assert each.link in {link.name for link in problem.links}
        found[each.pop, each.priority - PriorityClass.BASIC + width - 1] += each.units
    flows = _flows(problem, width)
    solution = solve(flows)
    wanted = Counter[tuple[str, int]]()
    for pop, classes in (
        *zip(problem.pops, solution.unserved, strict=True),
        *zip([pin.pop for pin in flows.pins], solution.pins_unserved, strict=True),
    ):
        for k, exact in enumerate(classes):
            wanted[pop, k] += max(0, math.ceil(exact - 1e-6))
    assert found == wanted
    left = without(problem, sheds)
    assert all(units >= 0 for row in left.placed for classes in row for units in classes)
    after = _flows(left, width)
    rest = msgspec.structs.replace(
        flows, demand=after.demand, pins=after.pins
    )  # On the capacity of before: what is shed gives its slots back.
    assert sum(map(sum, solve(rest).all_unserved())) < 1e-3, "and no more was needed"


def test_what_can_be_moved_is_not_shed() -> None:
    assert plan_sheds(island(mbps=150.0), FlowSolver().solve) == []
    assert plan_sheds(island(mbps=200.0, room=0), FlowSolver().solve) == []


def test_the_lowest_class_goes_first_and_the_farthest_of_it() -> None:
    (shed,) = plan_sheds(island(mbps=100.0), FlowSolver().solve)
    assert shed == UnitSheds(pop="rio/0", origin="far", priority=BASIC, units=50, link="sea>")


def test_partners_go_when_nothing_else_is_left() -> None:
    sheds = plan_sheds(island(mbps=0.0, room=30), FlowSolver().solve)
    assert sum(each.units for each in sheds if each.priority is BASIC) == 160
    assert sum(each.units for each in sheds if each.priority is PARTNER) == 10


def test_what_leaves_is_not_counted_where_it_was() -> None:
    problem = island(mbps=200.0)
    move = UnitMoves(
        pop="rio/0", from_origin="far", to_origin="near", priority=BASIC, units=30, reason=""
    )
    left = without_leaving(problem, [move])
    assert left.placed[0] == [[20, 0, 50], [0, 0, 0]]
    assert left.placed[1] == problem.placed[1]
    more = msgspec.structs.replace(move, units=500, priority=PARTNER)
    assert without_leaving(problem, [more]).placed[0][0] == [0, 0, 80], "it may be gone already"
    gone = msgspec.structs.replace(move, pop="nobody/0")
    assert without_leaving(problem, [gone]).placed == problem.placed
    assert without_leaving(problem, []) is problem


@pytest.mark.parametrize("empty", ["pops", "origins"])
def test_nobody_and_nowhere_need_no_shedding(empty: str) -> None:
    nobody = MigrationProblem(
        pops=[], origins=[] if empty == "origins" else ["far"], placed=[],
        room=[] if empty == "origins" else [[1, 1, 1]], rtt_ms=[], budget=1,
    )  # fmt: skip
    assert plan_sheds(nobody, FlowSolver().solve) == []
    assert without(nobody, []) == nobody


def test_what_leaves_is_taken_off_the_rows_of_its_pop() -> None:
    """Of which of them it is, nobody tells; never more than there is, nor of another PoP."""
    problem = msgspec.structs.replace(
        island(mbps=100.0), pops=["rio/0", "rio/0 to near"], of=["rio/0", "rio/0"]
    )
    moves = [
        UnitMoves(pop=pop, from_origin="far", to_origin="near", priority=BASIC, units=units,
                  reason="")
        for pop, units in (("rio/0", 90), ("sao/0", 7))
    ]  # fmt: skip
    assert [row[0] for row in without_leaving(problem, moves).placed] == [[20, 0, 0], [20, 0, 70]]
    more = without_leaving(problem, [*moves, msgspec.structs.replace(moves[0], units=71)])
    assert [row[0] for row in more.placed] == [[20, 0, 0], [20, 0, 0]]
