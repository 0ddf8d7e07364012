"""Leases, and live streams moved by production's migration program: make before break.

    plan ─▶ Migration ── moves, paced ──▶ offer to the new origin ── accepted: leave the old
                                                                └── refused: stay

It looks each PLAN_S for nearer origins, and with each push of leases while a link is beyond its
limit or an origin drains. Which streams of a PoP and class go is the PoP's choice: the oldest here.
"""

import math
from collections.abc import Callable

from edged.errors import SolverError
from edged.media.stream import PriorityClass
from edged.policy.flows import LinkLimit
from edged.policy.migration import Migration
from edged.policy.moves import MigrationProblem, UnitMoves, migration_problem
from edged.policy.planner import PopLeases
from edged.tools.simulate.irs import PLANS_PER_CHECKPOINT, Known
from edged.tools.simulate.policy import Surroundings
from edged.tools.simulate.production import REQUESTS, Leases
from edged.tools.simulate.streams import Stage, Stream

PLAN_S = 60.0  # While nothing is wrong.
MOVES_PER_S = 1000  # Of the whole network.

Places = dict[tuple[str, str, PriorityClass], list[Stream]]  # By PoP, origin, class.


class Rehoming(Leases):
    """`leases`, and live streams that are moved where they are better off."""

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self.moves_refused = 0
        self._migration = Migration()
        self._plans = 0
        self._planned_at = -math.inf

    def move_begun(self, stream: Stream, to: int) -> None:
        """It is offered to another origin, and counted at both."""
        view, request = self.views[stream.pop], REQUESTS[stream.priority]
        name = self.origins[to]
        view.placed(name, request)
        self.placed_since[name].append(view)

    def move_ended(self, stream: Stream, to: int, now: float, *, taken: bool) -> None:
        """It is counted at one again: where it is to stay."""
        view, request = self.views[stream.pop], REQUESTS[stream.priority]
        left = stream.origin if taken else to
        view.released(self.origins[left], request)
        if not taken and stream.stage is Stage.LIVE:
            self.moves_refused += 1
            view.refused(self.origins[to], now, priority=stream.priority)

    def _accept(self, leases: dict[str, PopLeases], known: Known, now: float) -> None:
        super()._accept(leases, known, now)
        config = self.around.scenario.irs
        problem = migration_problem(
            known.supplies,
            known.demands,
            budget=round(MOVES_PER_S * config.push_interval_s),
            reserve_fraction=config.reserve_fraction,
            links=known.links,
        )
        if now - self._planned_at < PLAN_S and not _is_wrong(problem):
            return
        self._planned_at = now
        if self._plans % PLANS_PER_CHECKPOINT == 0:
            self._migration.restart()
        self._plans += 1
        try:
            moves = self._migration.plan(problem)
        except SolverError:
            return  # As production: the next plan begins cold.
        if moves:
            self._pace(moves, now)

    def _pace(self, moves: list[UnitMoves], now: float) -> None:
        """Have the moves made, evenly over time."""
        wanted = {_key(move) for move in moves}
        places = self._find({self._places[move.from_origin] for move in moves}, wanted)
        order = 0
        for move in moves:
            streams = places.get(_key(move), [])
            chosen, streams[:] = streams[: move.units], streams[move.units :]
            to = self._places[move.to_origin]
            for stream in chosen:
                self.around.call_at(now + order / MOVES_PER_S, self._moving(stream, to))
                order += 1

    def _find(self, origins: set[int], wanted: set[tuple[str, str, PriorityClass]]) -> Places:
        found: Places = {}
        for origin in sorted(origins):
            name = self.origins[origin]
            for stream in self.around.streams_at(origin):
                key = (self.pops[stream.pop], name, stream.priority)
                if key in wanted:
                    found.setdefault(key, []).append(stream)
        return found

    def _moving(self, stream: Stream, to: int) -> Callable[[], None]:
        return lambda: self.around.move(stream, to)


def _key(move: UnitMoves) -> tuple[str, str, PriorityClass]:
    """Of the PoP, which has one shard here."""
    return (move.pop.partition("/")[0], move.from_origin, move.priority)


def _is_wrong(problem: MigrationProblem) -> bool:
    """Whether a link is beyond its limit, or something is where it should leave."""
    if any(
        any(units)
        for row in problem.placed
        for origin, units in zip(problem.origins, row, strict=True)
        if origin in problem.draining
    ):
        return True
    return any(_load(problem, link) > link.units for link in problem.links)


def _load(problem: MigrationProblem, link: LinkLimit) -> int:
    rows = {name: row for row, name in enumerate(problem.pops)}
    places = {name: place for place, name in enumerate(problem.origins)}
    return sum(
        sum(problem.placed[rows[pop]][places[origin]])
        for pop, origin in link.pairs
        if pop in rows and origin in places
    )
