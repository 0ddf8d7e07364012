"""Plans that are made again come out the same, from where the solver began cold, and why so."""

from collections import Counter

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.errors import SolverError
from edged.media.routing import OriginRow, OriginState
from edged.policy.flows import FlowProblem, FlowSolution
from edged.policy.plan_journal import digest_of
from edged.policy.plan_replay import (
    OriginPlanned,
    PlanExplanation,
    Replayed,
    explain_plan,
    replay,
)
from edged.policy.planner import LeasePlan, OriginSupply, PopDemand, PopLeases
from edged.policy.solver import FlowSolver
from tests.policy.journal_worlds import make_records


class Failing:
    """A solver that cannot."""

    def solve(self, problem: FlowProblem) -> FlowSolution:
        raise SolverError("nothing works")

    def restart(self) -> None:
        pass


def test_all_come_out_the_same() -> None:
    replayed = list(replay(make_records(60, per_checkpoint=16), FlowSolver()))
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
    for before, each in zip([None, *records], replay(records, FlowSolver()), strict=False):
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
    replayed = list(replay(records, Failing()))
    assert [each.verdict for each in replayed] == ["different"] * 5 + ["same"], "one needs none"
    assert replayed[0].plan is not None
    assert replayed[0].plan.failure == "nothing works"


def test_one_that_failed_then_and_fails_now_is_the_same() -> None:
    records = []
    for each in replay(make_records(2), Failing()):
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
    (first, *_) = replay(records, FlowSolver())
    with pytest.raises(SolverError, match="what the solver held then is not in the journal"):
        explain_plan(first)
