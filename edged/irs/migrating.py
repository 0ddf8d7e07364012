"""Moves of live streams: planned from what is collected, and handed to who has PoPs make them.

So is what no move can save, where links are too full: who sheds it, if anybody may, is told.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import structlog
import trio

from edged.errors import SolverError
from edged.irs.collectors import Collectors
from edged.irs.shedding import Shedding
from edged.policy.flows import FlowProgram, LinkLimit
from edged.policy.move_refusals import RefusedMove
from edged.policy.moves import DRAIN, MAKES_ROOM, NEARER, UnitMoves
from edged.policy.planner import PlanPolicy
from edged.policy.shed_patience import ShedPatience
from edged.runtime.faults import contained
from edged.runtime.metrics import MetricSpec, Sample
from edged.wire.table import Moved, MoveRefused

if TYPE_CHECKING:
    from edged.policy.move_planner import MovePlan, MovePlanner

LOOK_INTERVAL_S = 0.5  # A link that fills, or an origin that drains, waits no longer to be seen.

TELEMETRY_S_MAX = 2.0  # Between two words of a PoP: what is younger is not late.
LATE_S_MAX = 15.0  # One that tells nothing at all does not keep the others from being moved.

METRICS = (
    MetricSpec(
        name="edged_irs_moves_planned_total",
        help="Moves of live streams that were asked for",
        labels=("reason",),
    ),
)
_REASONS = {DRAIN: "drain", NEARER: "nearer", MAKES_ROOM: "room"}  # The rest: "link".

# The plan, what it came to, and why the solver made none.
KeepMoves = Callable[["MovePlan", Sequence[UnitMoves], str], None]

log = structlog.get_logger("edged.irs.migrating")


class Migrating:
    """Looks twice a second whether streams should move."""

    def __init__(
        self,
        collectors: Collectors,
        request: Callable[[Sequence[UnitMoves], float], object],
        *,
        moves_per_s: float,
        reserve_fraction: float,
        policy: PlanPolicy,
        warmup_s: float,
        links: Callable[[], tuple[LinkLimit, ...]] = tuple,
        may: Callable[[], bool] = lambda: True,
        shedding: Shedding | None = None,
    ) -> None:
        """`request(moves, within_s)` has them made; `warmup_s`: until the origins are there.

        `may`: whether this IRS is the one to ask for moves now. `shedding`: who has streams ended
        that no move can save, where it is enabled.

        Streams at origins that drain are not this one's to move: PoPs do, told that it drains.
        """
        self.moves_per_s = moves_per_s
        self.reserve_fraction = reserve_fraction
        self.policy: PlanPolicy = policy
        self.warmup_s = warmup_s
        self.planned = Counter[str]()  # Units, by reason.
        self._collectors = collectors
        self._request = request
        self._links, self._may, self._shedding = links, may, shedding
        self._planner: MovePlanner | None = None
        self._shedder: FlowProgram | None = None
        self._failure = ""
        self.keepers: list[KeepMoves] = []  # Called with each plan, once PoPs are asked.

    async def run(self) -> None:
        """Look until cancelled, while plans are the solver's."""
        await trio.sleep(self.warmup_s)  # Until the origins have been heard.
        while True:
            await trio.sleep(LOOK_INTERVAL_S)
            if self.policy == "leases" and self._may():
                self.look()
            else:
                self._stand_by()

    def look(self) -> None:
        """Plan once, if it is time, and ask for what comes of it."""
        now, links = trio.current_time(), self._links()
        here = {pop.pop for pop in self._collectors.pops() if pop.connected}
        demands = [pop for pop in self._collectors.demands(now, math.inf) if pop.pop in here]
        if self._shedding is not None:
            self._shedding.keep(demands, links)
        try:
            planner = self._load()
            planner.moves_per_s = self.moves_per_s
            plans = planner.plans
            moves = planner.plan(
                self._collectors.supplies(now),
                demands,
                now=now,
                reserve_fraction=self.reserve_fraction,
                links=links,
                known_at=self._known_at(now),
            )
        except (SolverError, ImportError) as error:
            if str(error) != self._failure:
                log.warning("no moves planned", reason=str(error))
            self._failure = str(error)
            if isinstance(error, SolverError):
                self._keep([], str(error))
            return
        if planner.plans == plans:
            return
        self._failure = ""
        if planner.sheds and self._shedding is not None:
            self._shedding.order(planner.sheds, demands, links)
        if moves:
            self._ask(moves, planner.moves_s(moves))
        self._keep(moves, "")

    def refused(self, pop: str, refused: MoveRefused) -> None:
        """A PoP has not made moves that it was asked for: for a while nobody asks the same."""
        if self._planner is None or not refused.number:
            return
        move = RefusedMove(pop, refused.from_origin, refused.to_origin, refused.class_)
        self._planner.refusals.note(move, refused.reason, trio.current_time())

    def moved(self, pop: str, moved: Moved) -> None:
        """A PoP has made a move that it was asked for."""
        if self._planner is not None and moved.number:
            self._planner.refusals.made(pop, moved.from_origin, moved.to_origin)

    def coming(self) -> dict[str, int]:
        """Units that were asked to move to each origin, and may not be there yet.

        What is there origins tell themselves, ten times a second: a PoP that is late to tell keeps
        no free slots from leases.
        """
        return {} if self._planner is None else self._planner.coming(trio.current_time())

    def _known_at(self, now: float) -> float:
        """Of when what is known is: now, unless a PoP is late to tell."""
        told_at = self._collectors.told_at()
        if told_at is None:
            return now
        return min(now, max(told_at + TELEMETRY_S_MAX, now - LATE_S_MAX))

    def _stand_by(self) -> None:
        """Another IRS plans, or nobody does by programs: what was seen so far is no reason."""
        if self._planner is not None:
            self._planner.stand_by()
        if self._shedding is not None:
            self._shedding.stand_by()

    def _ask(self, moves: Sequence[UnitMoves], within_s: float) -> None:
        reasons = Counter[str]()
        for move in moves:
            reasons[move.reason] += move.units
            self.planned[_REASONS.get(move.reason, "link")] += move.units
        log.info("streams are to move", streams=reasons.total(), reasons=dict(reasons))
        self._request(moves, within_s)

    def _keep(self, moves: Sequence[UnitMoves], failure: str) -> None:
        if self._planner is None or (plan := self._planner.last) is None:
            return
        for keep in self.keepers:
            with contained(log, "plan of moves not kept"):
                keep(plan, moves, failure)

    def read_metrics(self) -> Iterable[Sample]:
        """Values of METRICS."""
        for reason in ("link", *_REASONS.values()):
            yield Sample("edged_irs_moves_planned_total", self.planned[reason], {"reason": reason})

    def _load(self) -> "MovePlanner":
        """The planner, with the solver: loaded when it is first needed, for IRS alone."""
        if self._planner is None:
            from edged.policy.move_planner import MovePlanner  # noqa: PLC0415

            self._planner = MovePlanner(
                moves_per_s=self.moves_per_s,
                drains=False,
                patience=ShedPatience.of_production(),
            )
        self._planner.shed = self._shed_solver()
        if self._planner.shed is None:
            self._planner.stand_by()  # Switched on again it waits anew.
        return self._planner

    def _shed_solver(self) -> FlowProgram | None:
        """What names what has to go."""
        if self._shedding is None or not self._shedding.enabled:
            self._shedder = None
        elif self._shedder is None:
            from edged.policy.solver import FlowSolver  # noqa: PLC0415

            self._shedder = FlowSolver()
        return self._shedder
