"""When to plan: at once when something failed or arrived, else at the push interval.

Each plan at the interval renews every lease; an urgent one reaches only the PoPs it changes.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Mapping

import structlog
import trio

from edged.errors import SolverError
from edged.irs.collectors import Collectors
from edged.media.stream import PriorityClass
from edged.policy.flows import (
    PLANS_PER_CHECKPOINT,
    FlowProblem,
    FlowSolution,
    FlowSolve,
    LinkLimit,
)
from edged.policy.plan_journal import PlanInputs
from edged.policy.planner import LeasePlan, PlanPolicy, PopLeases, without_coming
from edged.runtime.faults import contained
from edged.runtime.metrics import MetricSpec, Sample

PLAN_INTERVAL_S_MIN = 0.02  # A storm of changes is planned fifty times a second at most.

METRICS = (
    MetricSpec(name="edged_irs_plans_total", help="Plans made"),
    MetricSpec(name="edged_irs_plans_fallback_total", help="Plans made without the solver"),
    MetricSpec(name="edged_irs_plan_seconds", help="The last plan took"),
    MetricSpec(name="edged_irs_solve_seconds", help="The solver's part of it"),
    MetricSpec(
        name="edged_irs_unserved_units",
        help="Units, there or expected, that all origins together have no room for",
        labels=("class",),
    ),
)

Rows = dict[str, PopLeases]  # By PoP shard.
Keep = Callable[[int, bool, PlanInputs, LeasePlan], None]  # The plan's number, and if it was cold.

log = structlog.get_logger("edged.irs.planner")


class Planner:
    """Runs the plan and hands the rows on."""

    def __init__(
        self,
        collectors: Collectors,
        publish: Callable[[Rows, bool], None],
        *,
        push_interval_s: float,
        lease_ttl_s: float,
        reserve_fraction: float,
        policy: PlanPolicy = "leases",
        links: Callable[[], tuple[LinkLimit, ...]] = tuple,
        coming: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        """`publish(rows, renew)` is synchronous; with `renew` all are pushed, else the changed.

        `links`: what the backbone can carry now, for all that is placed. `coming`: live units on
        their way to each origin, for which room is to be left.
        """
        self._collectors = collectors
        self._publish = publish
        self.push_interval_s = push_interval_s
        self.lease_ttl_s = lease_ttl_s
        self.reserve_fraction = reserve_fraction
        self.policy: PlanPolicy = policy
        self._links, self._coming = links, coming
        self._solver = _Solver()
        if policy == "leases":
            self._solver.prepare()
        self._urgent = trio.Event()
        self.keepers: list[Keep] = []  # Called with each plan, once it is published.
        self.last: LeasePlan | None = None
        self.plans = self.fallbacks = 0
        self.plan_s = 0.0  # The last one took so long.

    def hurry(self) -> None:
        """Plan as soon as possible: an origin or a PoP came, went or changed."""
        self._urgent.set()

    async def run(self) -> None:
        """Plan until cancelled."""
        renew_at = trio.current_time()
        while True:
            with trio.move_on_at(renew_at):
                await self._urgent.wait()
            await trio.lowlevel.checkpoint()  # What arrived together is planned together.
            self._urgent = trio.Event()
            started = trio.current_time()
            renew = started >= renew_at
            if renew:
                renew_at = started + self.push_interval_s
            self.plan_now(renew=renew)
            await trio.sleep(max(PLAN_INTERVAL_S_MIN, self.plan_s))  # Half the loop at most.

    def plan_now(self, *, renew: bool) -> None:
        """Plan once."""
        now, started = trio.current_time(), time.perf_counter()
        number, cold = self.plans, self.plans % PLANS_PER_CHECKPOINT == 0
        if cold:
            self._solver.restart()
        self._solver.seconds = 0.0
        inputs = PlanInputs(
            origins=without_coming(self._collectors.supplies(now), self._coming()),
            pops=self._collectors.demands(now, self.lease_ttl_s),
            links=self._links(),
            policy=self.policy,
            reserve_fraction=self.reserve_fraction,
            horizon_s=self.lease_ttl_s,
            pins=True,
        )
        plan = inputs.make_plan(self._solver.solve)
        self.plans += 1
        self.plan_s = time.perf_counter() - started
        self._note(plan)
        self._publish(plan.leases, renew)
        for keep in self.keepers:
            with contained(log, "plan not kept"):
                keep(number, cold, inputs, plan)

    def read_metrics(self) -> Iterable[Sample]:
        """Values of METRICS."""
        yield Sample("edged_irs_plans_total", self.plans)
        yield Sample("edged_irs_plans_fallback_total", self.fallbacks)
        yield Sample("edged_irs_plan_seconds", self.plan_s)
        yield Sample("edged_irs_solve_seconds", self._solver.seconds)
        if self.last is None or (solution := self.last.solution) is None:
            return
        for each in PriorityClass:
            units = math.fsum(classes[each] for classes in solution.all_unserved())
            yield Sample("edged_irs_unserved_units", units, {"class": each.label})

    def _note(self, plan: LeasePlan) -> None:
        failed_before = self.last is not None and bool(self.last.failure)
        self.last = plan
        if plan.failure:
            self.fallbacks += 1
            if not failed_before:
                log.warning("leases planned without the solver", reason=plan.failure)
        elif failed_before:
            log.info("leases planned by the solver again")


class _Solver:
    """The solver, loaded by who plans with it: HiGHS and numpy take 25 MB, for IRS alone."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._solve: FlowSolve | None = None
        self._restart: Callable[[], None] = lambda: None
        self._missing = ""  # Why there is none.

    def prepare(self) -> None:
        """Load it now, so that no plan waits for that; if it cannot be, the first plan says so."""
        with contextlib.suppress(SolverError):
            self._load()

    def solve(self, problem: FlowProblem) -> FlowSolution:
        """As `FlowSolver.solve`, counting the time it takes."""
        solve = self._solve or self._load()
        started = time.perf_counter()
        try:
            return solve(problem)
        finally:
            self.seconds += time.perf_counter() - started

    def restart(self) -> None:
        """Begin cold next time."""
        self._restart()

    def _load(self) -> FlowSolve:
        if self._missing:
            raise SolverError(self._missing)
        try:
            from edged.policy.solver import FlowSolver  # noqa: PLC0415
        except ImportError as error:
            self._missing = f"the solver cannot be loaded: {error}"
            raise SolverError(self._missing) from error
        solver = FlowSolver()
        self._solve, self._restart = solver.solve, solver.restart
        return solver.solve
