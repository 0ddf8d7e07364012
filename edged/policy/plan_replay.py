"""Plans made again from IRS's journal: whether they are the same, and why each is as it is.

The solver goes on from its last solution, so a plan can be had again only from one with which it
began cold, through all that came between.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, Protocol

from msgspec import Struct, structs

from edged.errors import SolverError
from edged.media.routing import NO_UNITS, RoutingTable, Rule
from edged.media.stream import PriorityClass
from edged.policy.flows import (
    FlowExplanation,
    FlowProgram,
    explain_flows,
)
from edged.policy.move_orders import digest_of_moves
from edged.policy.moves import MigrationProblem, UnitMoves
from edged.policy.plan_journal import (
    MovesRecord,
    PlanInputs,
    PlanRecord,
    Record,
    RulesRecord,
    digest_of,
)
from edged.policy.planner import LeasePlan
from edged.policy.pushed_tables import TableDigests
from edged.policy.shed_orders import digest_of_units
from edged.policy.shedding import UnitSheds, of_pops, plan_sheds, without, without_leaving

Verdict = Literal["same", "different", "skipped"]


class Mover(Protocol):
    """What `migration.Migration` is."""

    def plan(self, problem: MigrationProblem) -> list[UnitMoves]:
        """Raises SolverError."""

    def restart(self) -> None:
        """Begin cold."""


class Replayed(Struct, frozen=True):
    """A plan of the journal, and what it came to now.

    `tables_verdict`: of the tables that were pushed; "skipped" where what made them is not known:
    the plan was skipped, its journal is of format 1, or the rules are not in what can be read.
    """

    record: PlanRecord
    verdict: Verdict  # "skipped": what the solver held then is not known.
    plan: LeasePlan | None  # As it is now; None where it was skipped.
    tables: dict[str, RoutingTable] = {}  # By PoP shard, as they are now.
    tables_verdict: Verdict = "skipped"


class ReplayedMoves(Struct, frozen=True):
    """A plan of moves, and what it came to now: the moves, and what PoPs are asked of them.

    So are sheds, where it has any.
    """

    record: MovesRecord
    verdict: Verdict
    moves: list[UnitMoves] | None  # None where it was skipped.
    failure: str = ""  # Why the solver makes none now.
    sheds: list[UnitSheds] = []  # That had to go.


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


def replay(
    records: Iterable[Record],
    solver: FlowProgram,
    mover: Mover | None = None,
    shed: FlowProgram | None = None,
) -> Iterator[Replayed | ReplayedMoves]:
    """Make each plan again; without a `mover` those of moves are skipped.

    `shed`: another solver, which names what no move can save; without it plans for which that was
    asked are skipped.
    """
    leases, moves = _Sequence(), _Sequence()
    rules: dict[bytes, tuple[Rule, ...]] = {}
    digests = TableDigests()
    for record in records:
        match record:
            case RulesRecord():
                rules[record.digest] = record.rules
            case PlanRecord():
                yield _replay_plan(record, solver, leases, rules, digests)
            case MovesRecord():
                yield _replay_moves(record, mover, moves, shed)


class _Sequence:
    """Which plan a solver has gone through last."""

    def __init__(self) -> None:
        self._last: int | None = None

    def follows(self, number: int, *, cold: bool) -> bool:
        """Whether a plan can be made again: the solver holds what it held then."""
        follows = cold or (self._last is not None and number == self._last + 1)
        self._last = number if follows else None
        return follows


def _replay_plan(
    record: PlanRecord,
    solver: FlowProgram,
    sequence: _Sequence,
    known: dict[bytes, tuple[Rule, ...]],
    digests: TableDigests,
) -> Replayed:
    follows = sequence.follows(record.number, cold=record.cold)
    if record.cold:
        solver.restart()
    if record.inputs.policy == "leases" and not follows:
        return Replayed(record, "skipped", None)
    plan = record.inputs.make_plan(solver.solve)
    same = digest_of(plan) == record.digest and plan.failure == record.failure
    verdict: Verdict = "same" if same else "different"
    rules = None if record.tables is None else known.get(record.tables.rules)
    if record.tables is None or rules is None:
        return Replayed(record, verdict, plan)
    try:
        tables = record.make_tables(plan, rules)
    except KeyError:  # A PoP that was pushed a table has no leases in the plan now.
        return Replayed(record, "different", plan, {}, "different")
    alike = digests.of_tables(tables) == record.tables.digest
    return Replayed(record, verdict, plan, tables, "same" if alike else "different")


def _replay_moves(
    record: MovesRecord, mover: Mover | None, sequence: _Sequence, shed: FlowProgram | None
) -> ReplayedMoves:
    asks = record.sheds
    follows = sequence.follows(record.number, cold=record.cold)
    if not follows or mover is None or (asks is not None and shed is None):
        return ReplayedMoves(record, "skipped", None)
    if record.cold:
        mover.restart()
    if record.cold and shed is not None:
        shed.restart()
    moves, named, failure = list[UnitMoves](), list[UnitSheds](), ""
    problem, gone = record.inputs.problem(), list[UnitSheds]()
    try:
        if asks is not None and shed is not None:
            of_sheds = structs.replace(record.inputs, refused=asks.refused).problem()
            named = plan_sheds(without_leaving(of_sheds, asks.leaving), shed.solve)
            if asks.gone:
                problem, gone = of_sheds, named
        moves = mover.plan(without(problem, gone))
    except SolverError as error:
        failure, gone = str(error), []
    same = digest_of_moves(moves) == record.digest and failure == record.failure
    if same and record.asked is not None:
        same = record.asked.remake(moves) == record.asked.digest
    sheds = of_pops(problem, gone)
    same = same and _are_same_sheds(record, named, sheds)
    return ReplayedMoves(record, "same" if same else "different", moves, failure, sheds)


def _are_same_sheds(
    record: MovesRecord, named: Sequence[UnitSheds], sheds: Sequence[UnitSheds]
) -> bool:
    """`sheds`: what is `named` by row of the problem, by PoP."""
    if record.sheds is None:
        return True
    asked = record.sheds.asked
    if digest_of_units(named) != record.sheds.digest:
        return False
    return asked is None or asked.remake(sheds, record.inputs.pops) == asked.digest


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
