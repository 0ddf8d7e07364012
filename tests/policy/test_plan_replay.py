"""Plans that are made again come out the same, from where the solver began cold."""

from collections import Counter

import hypothesis
import msgspec
from hypothesis import strategies as st

from edged.errors import SolverError
from edged.policy.flows import FlowProblem, FlowSolution
from edged.policy.plan_journal import digest_of
from edged.policy.plan_replay import replay
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
