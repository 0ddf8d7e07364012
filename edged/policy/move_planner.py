"""When live streams are to move: at once if something is wrong, else now and then, to come nearer.

    plan ── moves, so many a second ──▶ settled: PoPs have told what came of them ──▶ plan ...

What has been asked for is not asked for twice: until it is settled nothing new is. From then on an
overloaded link, or streams at an origin that drains, is reason enough; without one it takes
NEARER_S, but AGAIN_S where streams came nearer: they have made room for others. Asks and answers
are the shell's. What no move can save is named beside the moves, if that is wanted and it has been
so for long enough (`shed_patience`).
"""

import math
from collections.abc import Sequence

from msgspec import Struct, structs

from edged.policy.flows import PLANS_PER_CHECKPOINT, FlowProgram, LinkLimit
from edged.policy.migration import Migration
from edged.policy.move_refusals import MoveRefusals, RefusedMove
from edged.policy.moves import (
    GAIN_MS_MIN,
    MigrationProblem,
    MoveInputs,
    UnitMoves,
    find_overloaded,
    is_wrong,
)
from edged.policy.planner import OriginSupply, PopDemand, with_ladders_only
from edged.policy.shed_orders import units_of
from edged.policy.shed_patience import ShedPatience
from edged.policy.shedding import UnitSheds, of_pops, plan_sheds, without, without_leaving

NEARER_S = 20.0  # Between looks for what could come nearer; that is never urgent.
AGAIN_S = (
    5.0  # Origins that are all but full let few come at a time, and each leaves a slot behind.
)
WINDOW_S = 4.0  # Of moves asked for at once: long beside SETTLE_S, short beside a lease.
SETTLE_S = 2.0  # Two telemetry intervals after the last move is due.
LOOK_S = 1.0  # Between plans that bring no moves: PoPs tell nothing new before.


class MovePlan(Struct, frozen=True, kw_only=True):
    """A plan, by what it was made of."""

    number: int  # Since this planner began, from 0 on.
    cold: bool  # Its program began cold with it.
    inputs: MoveInputs
    lasting: tuple[RefusedMove, ...] = ()  # Of what was refused, what no shed may hope for.
    leaving: list[UnitMoves] = []  # That were made before, and may be told of at both homes.
    named: list[UnitSheds] | None = None  # What no move can save, by row; None: nobody has asked.
    sheds: list[UnitSheds] = []  # Of these what goes beside the moves: all, or nothing yet.

    def shed_problem(self) -> MigrationProblem:
        """What sheds are named in: nobody is ended for a move that was refused but once."""
        return structs.replace(self.inputs, refused=self.lasting).problem()


class MovePlanner:
    """One network's."""

    def __init__(
        self,
        *,
        moves_per_s: float,
        drains: bool = True,
        gain_ms_min: float = GAIN_MS_MIN,
        shed: FlowProgram | None = None,
        patience: ShedPatience | None = None,
    ) -> None:
        """`drains`: whether streams at origins that drain are this one's to move.

        `shed`: a `FlowSolver`, to name what no move can save; without one all stays, and links are
        beyond their limits. `patience`: for how long; without it nobody waits.
        """
        assert moves_per_s > 0, "the configuration bounds it"
        self.moves_per_s = moves_per_s
        self.drains = drains
        self.gain_ms_min = gain_ms_min
        self.plans = 0
        self.last: MovePlan | None = None
        self.sheds: list[UnitSheds] = []  # By the last plan.
        self.shed = self._shed_before = shed
        self._patience = patience or ShedPatience(after_s=0.0, lingers_s=0.0, rests_s=0.0)
        self._migration = Migration()
        self._settled_at = self._next_at = -math.inf
        self._looked_at = -math.inf
        self._moved = False  # By the last plan.
        self.refusals = MoveRefusals()  # Whoever hears of one notes it.
        self._coming: dict[str, int] = {}

    def plan(
        self,
        origins: Sequence[OriginSupply],
        pops: Sequence[PopDemand],
        *,
        now: float,
        reserve_fraction: float,
        links: tuple[LinkLimit, ...] = (),
        known_at: float | None = None,
    ) -> list[UnitMoves]:
        """What is to move now, in this order and within `moves_s` of it; mostly nothing.

        `pops`: those that can be asked. `known_at`: of when that is what is known, None being now;
        it is not settled before that tells of it. Raises SolverError; then it waits as after a
        plan.
        """
        self.sheds = []
        told_at = now if known_at is None else known_at
        if now < self._next_at or told_at < self._settled_at:
            return []
        inputs = MoveInputs(
            origins=list(origins),
            pops=list(pops),
            links=links,
            budget=max(1, math.floor(self.moves_per_s * WINDOW_S)),
            reserve_fraction=reserve_fraction,
            gain_ms_min=self.gain_ms_min,
            drains=self.drains,
            rules=True,
            refused=self.refusals.held(now),
        )
        problem = inputs.problem()
        over = self.shed is not None and bool(find_overloaded(problem))
        if not over:
            self._patience.begin_anew()
        if not (over or is_wrong(problem)):
            if now < self._looked_at + (AGAIN_S if self._moved else NEARER_S):
                return []
            # What only comes nearer keeps its ladder.
            inputs = structs.replace(inputs, origins=list(with_ladders_only(origins)))
            problem = inputs.problem()
        self._looked_at, self._moved = now, False
        self._next_at = now + LOOK_S
        # A replay goes on from there: so it must also know where who names what has to go began.
        cold = self.plans % PLANS_PER_CHECKPOINT == 0 or self.shed is not self._shed_before
        self._shed_before = self.shed
        if cold:
            self._restart()
        self.last = made = MovePlan(number=self.plans, cold=cold, inputs=inputs)
        self.plans += 1
        sheds = self._name_sheds(made, now, told_at) if over else []
        if sheds:
            problem = self.last.shed_problem()
        moves = self._migration.plan(without(problem, sheds))
        if sheds:
            self.sheds, self.last = of_pops(problem, sheds), structs.replace(self.last, sheds=sheds)
        self._moved = bool(moves)
        self._coming = {}
        for move in moves:
            self._coming[move.to_origin] = self._coming.get(move.to_origin, 0) + move.units
        if moves or sheds:
            done_at = now + self.moves_s(moves)
            self._settled_at = done_at + SETTLE_S
            self._patience.asked(moves, self.sheds, units_of(pops), now, done_at)
        return moves

    def stand_by(self) -> None:
        """Another IRS plans meanwhile: what is seen from then on counts alone."""
        self._patience.begin_anew()

    def _restart(self) -> None:
        self._migration.restart()
        if self.shed is not None:
            self.shed.restart()

    def _name_sheds(self, made: MovePlan, now: float, told_at: float) -> list[UnitSheds]:
        """What no move can save, and has to go now."""
        assert self.shed is not None, "else nobody asks"
        lasting, units = self.refusals.lasting(now), units_of(made.inputs.pops)
        leaving = self._patience.leaving(units, told_at)
        self.last = structs.replace(made, lasting=lasting, leaving=leaving, named=[])
        problem = without_leaving(self.last.shed_problem(), leaving)
        named = plan_sheds(problem, self.shed.solve)
        self.last = structs.replace(self.last, named=named)
        return self._patience.judge(named, told_at)

    def coming(self, known_at: float) -> dict[str, int]:
        """Units that were on their way to each origin when that was so, by what is known.

        No lease may have the slots that they will take, or have taken since.
        """
        return self._coming if known_at < self._settled_at else {}

    def moves_s(self, moves: Sequence[UnitMoves]) -> float:
        """How long they take."""
        return sum(move.units for move in moves) / self.moves_per_s
