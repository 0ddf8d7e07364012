"""Plans that are made again come out the same, from where the solver began cold, and why so."""

from collections import Counter
from collections.abc import Iterable

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.errors import SolverError
from edged.media.routing import OriginRow, OriginState
from edged.media.stream import PriorityClass
from edged.policy.flows import FlowProblem, FlowProgram, FlowSolution
from edged.policy.migration import Migration
from edged.policy.moves import MigrationProblem, UnitMoves
from edged.policy.plan_journal import PushedTo, Record, digest_of
from edged.policy.plan_replay import (
    OriginPlanned,
    PlanExplanation,
    Replayed,
    ReplayedMoves,
    explain_plan,
    replay,
)
from edged.policy.planner import LeasePlan, OriginSupply, PopDemand, PopLeases
from edged.policy.solver import FlowSolver
from tests.policy.journal_worlds import (
    VARIANTS,
    make_moves,
    make_records,
    make_sheds,
    rules_record,
)


class Failing:
    """A solver that cannot."""

    def solve(self, problem: FlowProblem) -> FlowSolution:
        raise SolverError("nothing works")

    def restart(self) -> None:
        pass


def replay_plans(records: Iterable[Record], solver: FlowProgram) -> list[Replayed]:
    return [plan_of(each) for each in replay(records, solver)]


def plan_of(each: Replayed | ReplayedMoves) -> Replayed:
    assert isinstance(each, Replayed)
    return each


def test_all_come_out_the_same() -> None:
    replayed = replay_plans(make_records(60, per_checkpoint=16), FlowSolver())
    assert Counter(each.verdict for each in replayed) == {"same": 60}
    solutions = [each.plan.solution for each in replayed if each.plan is not None]
    assert any(not each.cold for each in solutions if each is not None), "and some went on"


@hypothesis.settings(max_examples=20)
@hypothesis.given(st.integers(0, 1000), st.sets(st.integers(0, 39), max_size=6), st.integers(1, 30))
def test_behind_a_gap_it_goes_on_where_the_solver_began_cold(
    seed: int, missing: set[int], first: int
) -> None:
    records = [
        each
        for each in make_records(40, seed=seed, first=first, per_checkpoint=8)
        if each.number - first not in missing
    ]
    for before, each in zip([None, *records], replay_plans(records, FlowSolver()), strict=False):
        record = each.record
        follows = before is not None and before.number == record.number - 1
        if record.cold or record.inputs.policy == "proportional":
            assert each.verdict == "same"
        elif not follows:
            assert each.verdict == "skipped"
            assert each.plan is None
        assert each.verdict != "different"


def test_what_is_another_is_told() -> None:
    records = list(make_records(10))
    records[4] = msgspec.structs.replace(records[4], digest=b"x" * 16)
    verdicts = [each.verdict for each in replay(records, FlowSolver())]
    assert verdicts == ["same"] * 4 + ["different"] + ["same"] * 5


def test_a_solver_that_fails_now_is_another() -> None:
    records = list(make_records(6))
    replayed = replay_plans(records, Failing())
    assert [each.verdict for each in replayed] == ["different"] * 5 + ["same"], "one needs none"
    assert replayed[0].plan is not None
    assert replayed[0].plan.failure == "nothing works"


def test_one_that_failed_then_and_fails_now_is_the_same() -> None:
    records = []
    for each in replay_plans(make_records(2), Failing()):
        assert each.plan is not None
        digest = digest_of(each.plan)
        records.append(msgspec.structs.replace(each.record, failure="nothing works", digest=digest))
    assert [each.verdict for each in replay(records, Failing())] == ["same"] * 2
    assert [each.verdict for each in replay(records, FlowSolver())] == ["different"] * 2


def test_what_an_origin_leases_is_what_each_pop_may_add_there() -> None:
    """One that has more than its quota, as that was cut, takes nothing from another's."""
    fra = OriginRow(origin="fra", address="h:1", state=OriginState.UP, quota=9)
    leases = {
        "a/0": PopLeases((fra,), kept={"fra": 2}),
        "b/0": PopLeases((msgspec.structs.replace(fra, quota=3),)),
        "c/0": PopLeases(()),
    }
    supply = OriginSupply(
        origin="fra", address="h:1", state=OriginState.UP, slots_total=30, room=(12, 11, 10)
    )
    pops = [
        PopDemand(pop="a/0", units={"fra": (1, 0, 4)}, arrivals_per_s=0.5),
        PopDemand(pop="b/0", units={"fra": (0, 0, 8)}, arrivals_per_s=1.0),
        PopDemand(pop="c/0", units={"gone": (0, 0, 7)}),
    ]
    (record,) = make_records(1)
    inputs = msgspec.structs.replace(record.inputs, origins=[supply], pops=pops)
    record = msgspec.structs.replace(record, inputs=inputs)
    plan = LeasePlan(leases=leases, policy="proportional", failure="nothing works")
    assert explain_plan(Replayed(record, "same", plan)) == PlanExplanation(
        epoch=7, version=1, unix=record.unix, policy="proportional", failure="nothing works",
        verdict="same", pops=3, arrivals_per_s=1.5, flows=None,
        origins=[
            OriginPlanned(
                origin="fra", state="up", slots_total=30, room=12, used=13, leased=6, kept=2
            )
        ],
    )  # fmt: skip


def test_what_was_skipped_cannot_be_explained() -> None:
    _, *records = make_records(3)
    (first, *_) = replay_plans(records, FlowSolver())
    with pytest.raises(SolverError, match="what the solver held then is not in the journal"):
        explain_plan(first)


def test_tables_are_made_again_once_their_rules_are_known() -> None:
    records = list(make_records(8, per_checkpoint=4))
    for known, verdict in (([], "skipped"), ([rules_record()], "same")):
        replayed = list(replay([*known, *records], FlowSolver()))
        assert {plan_of(each).tables_verdict for each in replayed} == {verdict}
        assert {each.verdict for each in replayed} == {"same"}
    assert all(len(plan_of(each).tables) >= 4 for each in replayed)
    before = [msgspec.structs.replace(each, tables=None) for each in records]
    replayed = list(replay([rules_record(), *before], FlowSolver()))
    assert {plan_of(each).tables_verdict for each in replayed} == {"skipped"}


def test_tables_for_who_has_no_leases_are_others() -> None:
    (record,) = make_records(1)
    assert record.tables is not None
    to = (PushedTo(VARIANTS[0], ("gone/0",)),)
    strange = msgspec.structs.replace(record, tables=msgspec.structs.replace(record.tables, to=to))
    (each,) = replay([rules_record(), strange], FlowSolver())
    assert (each.verdict, plan_of(each).tables_verdict) == ("different", "different")


@hypothesis.settings(max_examples=20, deadline=None)
@hypothesis.given(st.integers(0, 100), st.sets(st.integers(0, 19), max_size=5))
def test_moves_are_made_again_from_where_their_program_began_cold(
    seed: int, missing: set[int]
) -> None:
    records = [each for each in make_moves(20, seed=seed, per_checkpoint=6)
               if each.number not in missing]  # fmt: skip
    last = None
    for each in replay(records, FlowSolver(), Migration()):
        assert isinstance(each, ReplayedMoves)
        number = each.record.number
        follows = each.record.cold or (last is not None and number == last + 1)
        assert each.verdict == ("same" if follows else "skipped")
        assert (each.moves is None) == (not follows)
        last = number if follows else None


def test_moves_that_are_others_or_asked_of_others_are_told() -> None:
    records = list(make_moves(12))
    assert all(each.verdict == "skipped" for each in replay(records, FlowSolver()))
    (place, *_) = [place for place, each in enumerate(records) if each.asked is not None]
    asked = records[place].asked
    assert asked is not None
    late = msgspec.structs.replace(asked, deadline=asked.deadline + 1)
    for other in (
        msgspec.structs.replace(records[place], asked=late),
        msgspec.structs.replace(records[place], failure="nothing worked"),
    ):
        changed = [*records[:place], other, *records[place + 1 :]]
        verdicts = [each.verdict for each in replay(changed, FlowSolver(), Migration())]
        expected = ["different" if n == place else "same" for n in range(12)]
        assert verdicts == expected
    failing = list(replay(records[:1], FlowSolver(), FailingMover()))
    assert isinstance(failing[0], ReplayedMoves)
    assert failing[0].failure == "no moves"


def test_what_had_to_go_is_named_again_and_so_are_the_orders() -> None:
    records = list(make_sheds(12))
    replayed = list(replay(records, FlowSolver(), Migration(), FlowSolver()))
    assert [each.verdict for each in replayed] == ["same"] * 12
    gone = [bool(each.sheds) for each in replayed if isinstance(each, ReplayedMoves)]
    assert gone == [each.sheds is not None and each.sheds.gone for each in records]
    assert Counter(gone) == {True: 8, False: 4}, "the others wait"
    unknown = [each.verdict for each in replay(records, FlowSolver(), Migration())]
    assert unknown == ["skipped"] * 12
    sheds = records[4].sheds
    assert sheds is not None
    assert sheds.asked is not None
    later = msgspec.structs.replace(sheds.asked, number=99)
    for other in (
        msgspec.structs.replace(sheds, digest=b"another"),
        msgspec.structs.replace(sheds, asked=later),
        msgspec.structs.replace(sheds, leaving=[LEAVES]),
    ):
        changed = [*records[:4], msgspec.structs.replace(records[4], sheds=other), *records[5:]]
        verdicts = [
            each.verdict for each in replay(changed, FlowSolver(), Migration(), FlowSolver())
        ]
        assert verdicts == ["different" if n == 4 else "same" for n in range(12)]


LEAVES = UnitMoves(
    pop="pop1/0", from_origin="fra", to_origin="ams", priority=PriorityClass.BASIC, units=9,
    reason="",
)  # fmt: skip


class FailingMover:
    """Plans none."""

    def plan(self, problem: MigrationProblem) -> list[UnitMoves]:
        raise SolverError("no moves")

    def restart(self) -> None:
        pass
