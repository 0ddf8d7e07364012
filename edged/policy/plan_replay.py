"""Plans made again from IRS's journal, and whether they are the same.

The solver goes on from its last solution, so a plan can be had again only from one with which it
began cold, through all that came between.
"""

from collections.abc import Iterable, Iterator
from typing import Literal, Protocol

from msgspec import Struct

from edged.policy.flows import FlowProblem, FlowSolution
from edged.policy.plan_journal import PlanRecord, digest_of
from edged.policy.planner import LeasePlan

Verdict = Literal["same", "different", "skipped"]


class Solver(Protocol):
    """What `solver.FlowSolver` is."""

    def solve(self, problem: FlowProblem) -> FlowSolution:
        """Raises SolverError."""

    def restart(self) -> None:
        """Begin cold."""


class Replayed(Struct, frozen=True):
    """A plan of the journal, and what it came to now."""

    record: PlanRecord
    verdict: Verdict  # "skipped": what the solver held then is not known.
    plan: LeasePlan | None  # As it is now; None where it was skipped.


def replay(records: Iterable[PlanRecord], solver: Solver) -> Iterator[Replayed]:
    """Make each plan again."""
    last: int | None = None  # The number of the last plan that `solver` has gone through.
    for record in records:
        by_solver = record.inputs.policy == "leases"
        follows = record.cold or (last is not None and record.number == last + 1)
        last = record.number if follows else None
        if record.cold:
            solver.restart()
        if by_solver and not follows:
            yield Replayed(record, "skipped", None)
            continue
        plan = record.inputs.make_plan(solver.solve)
        same = digest_of(plan) == record.digest and plan.failure == record.failure
        yield Replayed(record, "same" if same else "different", plan)
