"""Plans made again from IRS's journal, and whether they are the same.

The solver goes on from its last solution, so a plan can be had again only from one with which it
began cold, through all that came between.
"""

from collections.abc import Iterable, Iterator
from typing import Literal, Protocol

from msgspec import Struct

from edged.policy.flows import FlowProblem, FlowSolution
from edged.policy.plan_journal import PlanRecord, digest_of
from edged.policy.planner import LeasePlan, plan_leases

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
        plan = _plan_again(record, solver)
        same = digest_of(plan) == record.digest and plan.failure == record.failure
        yield Replayed(record, "same" if same else "different", plan)


def _plan_again(record: PlanRecord, solver: Solver) -> LeasePlan:
    inputs = record.inputs
    return plan_leases(
        inputs.origins,
        inputs.pops,
        reserve_fraction=inputs.reserve_fraction,
        solve=solver.solve if inputs.policy == "leases" else None,
        horizon_s=inputs.horizon_s,
        links=inputs.links,
    )
