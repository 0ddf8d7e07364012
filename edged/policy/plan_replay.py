"""Plans made again from IRS's journal: whether they are the same, and why each is as it is.

The solver goes on from its last solution, so a plan can be had again only from one with which it
began cold, through all that came between.
"""

from collections.abc import Iterable, Iterator
from typing import Literal, Protocol

from msgspec import Struct

from edged.errors import SolverError
from edged.media.routing import NO_UNITS
from edged.media.stream import PriorityClass
from edged.policy.flows import FlowExplanation, FlowProblem, FlowSolution, explain_flows
from edged.policy.plan_journal import PlanInputs, PlanRecord, digest_of
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


class OriginPlanned(Struct, frozen=True, kw_only=True):
    """An origin in one plan."""

    origin: str
    state: str
    slots_total: int
    room: int  # Units that are free.
    used: int  # Units that PoPs have there.
    leased: int  # Units that PoPs may add.
    kept: int  # Of them for partners alone.


class PlanExplanation(Struct, frozen=True, kw_only=True):
    """Why one plan is as it is."""

    epoch: int
    version: int
    unix: float
    policy: str
    failure: str
    verdict: Verdict
    origins: list[OriginPlanned]
    pops: int
    arrivals_per_s: float
    flows: FlowExplanation | None  # None: the solver made none.


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


def explain_plan(replayed: Replayed) -> PlanExplanation:
    """Explain a plan that was made again; raises SolverError where it was skipped."""
    record, plan = replayed.record, replayed.plan
    if plan is None:
        raise SolverError(
            f"the plan of table {record.epoch} v{record.version} cannot be made again: what the"
            " solver held then is not in the journal"
        )
    flows = None
    if plan.problem is not None and plan.solution is not None:
        flows = explain_flows(plan.problem, plan.solution)
    return PlanExplanation(
        epoch=record.epoch,
        version=record.version,
        unix=record.unix,
        policy=plan.policy,
        failure=plan.failure,
        verdict=replayed.verdict,
        origins=_origins_planned(record.inputs, plan),
        pops=len(record.inputs.pops),
        arrivals_per_s=sum(pop.arrivals_per_s for pop in record.inputs.pops),
        flows=flows,
    )


def _origins_planned(inputs: PlanInputs, plan: LeasePlan) -> list[OriginPlanned]:
    planned = []
    for supply in sorted(inputs.origins, key=lambda each: each.origin):
        used = leased = kept = 0
        for pop in inputs.pops:
            leases, here = plan.leases[pop.pop], sum(pop.units.get(supply.origin, NO_UNITS))
            quota = sum(row.quota for row in leases.rows if row.origin == supply.origin)
            used += here
            kept += leases.kept.get(supply.origin, 0)
            leased += max(0, quota - here)
        planned.append(
            OriginPlanned(
                origin=supply.origin,
                state=supply.state.value,
                slots_total=supply.slots_total,
                room=supply.room[PriorityClass.PARTNER],
                used=used,
                leased=leased + kept,
                kept=kept,
            )
        )
    return planned
