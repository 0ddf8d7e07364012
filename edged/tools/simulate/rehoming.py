"""Leases, and live streams moved by production's planner of moves: make before break.

    look ─▶ MovePlanner ── moves, paced ──▶ offer to the new origin ── accepted: leave the old
                                                                    └── refused: stay

IRS looks with each push of leases, and each LOOK_S from a plan that relieves a link, or a change of
routes, until QUIET_S after the last; in life it looks twice a second at what it is told once. Which
streams of a PoP and class go is the PoP's choice: the oldest at that origin. Streams at an origin
that drains are not its to move, as in production: the origin lets go of them. What no move can save
where links are too full it names, and has PoPs end the newest of these, with production's patience;
and PoPs let nobody of their class back over such a link by price. They are told of it at each look,
at once.
"""

import math
from collections.abc import Callable

from edged.errors import SolverError
from edged.media.stream import PriorityClass
from edged.policy.full_links import FULL_S, FullLinks
from edged.policy.move_planner import LOOK_S, MovePlanner
from edged.policy.moves import MAKES_ROOM, NEARER, UnitMoves
from edged.policy.planner import PopLeases
from edged.policy.shed_patience import ShedPatience
from edged.policy.solver import FlowSolver
from edged.tools.simulate.irs import PUSH_S, Known
from edged.tools.simulate.policy import Surroundings
from edged.tools.simulate.production import Leases, channel_of, request_of
from edged.tools.simulate.streams import Stage, Stream

MOVES_PER_S = 1000  # Of the whole network: the most that IRS can be set to; its default is 100.
QUIET_S = 10.0
NOT_URGENT = (NEARER, MAKES_ROOM)

Places = dict[tuple[str, str, PriorityClass], list[Stream]]  # By PoP, origin, class.


class Rehoming(Leases):
    """`leases`, and live streams that are moved where they are better off."""

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self.moves_refused = 0
        self._planner = MovePlanner(
            moves_per_s=MOVES_PER_S,
            drains=False,
            shed=FlowSolver(),
            patience=ShedPatience.of_production(),
        )
        self.irs.coming = self._planner.coming
        self._full = FullLinks()
        self._closed = False  # PoPs were told of some.
        self._moved_at = -math.inf
        self._looks_again = False

    def irs_changed(self, now: float, *, up: bool) -> None:
        """What it has seen so far is no reason to shed, nor is a link full for who begins."""
        super().irs_changed(now, up=up)
        self._planner.stand_by()
        self._full.clear()

    def move_begun(self, stream: Stream, to: int) -> None:
        """It is offered to another origin, and counted at both."""
        view, request = self.views[stream.pop], request_of(stream)
        name = self.origins[to]
        view.placed(name, request)
        self.placed_since[name].append(view)

    def move_ended(self, stream: Stream, to: int, now: float, *, taken: bool) -> None:
        """It is counted at one again: where it is to stay."""
        view, request = self.views[stream.pop], request_of(stream)
        left = stream.origin if taken else to
        view.released(self.origins[left], request)
        if taken:
            view.accepted(self.origins[to], channel_of(stream), stream.priority)
        if not taken and stream.stage is Stage.LIVE:
            self.moves_refused += 1
            view.refused(self.origins[to], now, priority=stream.priority)

    def rerouted(self, now: float) -> None:
        """What is told of links from now on may be reason to move streams."""
        self._moved_at = now
        self._look_soon(now)

    def _accept(self, leases: dict[str, PopLeases], known: Known, now: float) -> None:
        super()._accept(leases, known, now)
        self._look(known, now)

    def _look(self, known: Known, now: float) -> None:
        plans = self._planner.plans
        self._full.look(known.links, known.demands, now)
        try:
            moves = self._planner.plan(
                known.supplies,
                known.demands,
                now=now,
                reserve_fraction=self.around.scenario.irs.reserve_fraction,
                links=known.links,
                known_at=known.at,
            )
        except SolverError:
            moves = []  # As production: it waits, and begins cold.
        made = self._planner.last
        if self._planner.plans > plans and made is not None and made.named:
            self._moved_at = now  # Somebody has to go: it looks until they may.
        if moves or self._planner.sheds:
            if any(move.reason not in NOT_URGENT for move in moves):
                self._moved_at = now
            self._full.shed(self._planner.sheds)
            self._tell_full(known, now)
            self._shed(now)
            self._pace(moves, now)
            self.irs.plan(known, now)  # What they are to have is in leases now.
        else:
            self._tell_full(known, now)
        if now < self._moved_at + QUIET_S:
            self._look_soon(now)

    def _look_soon(self, now: float) -> None:
        if not self._looks_again:
            self._looks_again = True
            self.around.call_at(now + LOOK_S, lambda: self._look_again(now + LOOK_S))

    def _look_again(self, now: float) -> None:
        self._looks_again = False
        if self.irs.alive:
            known, ready = self.irs.know(now), now + self.irs.age_s + PUSH_S
            self.around.call_at(ready, lambda: self._look(known, ready))

    def _tell_full(self, known: Known, now: float) -> None:
        """Tell PoPs which of their ways cross a full link."""
        paths = self._full.paths(known.links)
        if paths or self._closed:
            for view in self.views:
                view.full.told(paths.get(view.pop, ()), until=now + FULL_S)
        self._closed = bool(paths)

    def _shed(self, now: float) -> None:
        """End what IRS named: of a PoP's class at an origin the newest first."""
        sheds = self._planner.sheds
        wanted = {(each.pop.partition("/")[0], each.origin, each.priority) for each in sheds}
        places = self._find({self._places[each.origin] for each in sheds}, wanted)
        for each in sheds:
            streams = places.get((each.pop.partition("/")[0], each.origin, each.priority), [])
            for stream in streams[::-1][: each.units]:
                self.around.shed(stream)
                self.views[stream.pop].full.shed(each.origin, now)

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
