"""Moving live streams: what is where, what is wrong with it, and whole moves that mend it.

In this order a placement is better than another: less beyond the limits of links; less at origins
that drain; and less round trip, where that pays for the moves.
"""

import math
from collections.abc import Iterable, Sequence

from msgspec import Struct, structs

from edged.media.routing import NO_UNITS, OriginState
from edged.media.stream import PriorityClass
from edged.policy.flows import RTT_MS_MAX, RTT_UNKNOWN_MS, TIGHT, LinkLimit, find_crossed
from edged.policy.lease_shares import HORIZON_S_MAX
from edged.policy.move_refusals import RefusedMove
from edged.policy.move_rows import MoveRow, find_rows
from edged.policy.planner import OriginSupply, PopDemand, find_reserves, rooms_of
from edged.policy.pop_needs import LAST_RESORT_MS

GAIN_MS_MIN = 5.0  # Of round trip, for which a stream is moved when nothing else is wrong.
CLASS_STEP = 0.1  # By which a class must gain more than the one below: the lower are moved first.

NEARER, DRAIN, MAKES_ROOM = "nearer", "drain", "makes room for others"


class MigrationProblem(Struct, frozen=True, kw_only=True):
    """What is where; lists are in the order of `pops` and `origins`, classes highest first.

    Where rules tell streams of a PoP apart it has several rows, each as a PoP of its own: `of` says
    of each row whose it is.
    """

    pops: Sequence[str]
    origins: Sequence[str]
    placed: Sequence[Sequence[Sequence[int]]]  # Units now, by PoP, origin, class.
    # Units more that each class and those below it may have, by origin, class. What leaves frees
    # nothing yet: the new home is made before the old one is left.
    room: Sequence[Sequence[int]]
    rtt_ms: Sequence[Sequence[float]]  # By PoP, origin; infinite: not known.
    budget: int  # Units that may move now.
    draining: frozenset[str] = frozenset()  # Origins to be left; nothing goes there.
    forbidden: frozenset[tuple[str, str]] = frozenset()  # (PoP, origin): nothing goes there.
    # (PoP, origin): who moves there would rather not, by LAST_RESORT_MS.
    behind: frozenset[tuple[str, str]] = frozenset()
    links: tuple[LinkLimit, ...] = ()  # Limits for all units, those there now included.
    gain_ms_min: float = GAIN_MS_MIN
    of: Sequence[str] = ()  # By row; empty: each is a PoP.
    hopeless_counts: bool = False  # What no move mends is wrong, too: so it was in format 2.

    def pop(self, row: int) -> str:
        """The PoP that a row is of."""
        return self.of[row] if self.of else self.pops[row]

    def rtt(self, row: int, place: int) -> float:
        """Milliseconds from a PoP to an origin, by their places."""
        rtt_ms = self.rtt_ms[row][place]
        return min(max(0.0, rtt_ms), RTT_MS_MAX) if math.isfinite(rtt_ms) else RTT_UNKNOWN_MS

    def way_ms(self, row: int, place: int) -> float:
        """The same as it counts for who moves there."""
        later = (self.pops[row], self.origins[place]) in self.behind
        return self.rtt(row, place) + (LAST_RESORT_MS if later else 0.0)

    def move_cost_ms(self, k: int) -> float:
        """Milliseconds that one unit of the class at place `k` must gain."""
        return self.gain_ms_min * (1.0 + CLASS_STEP * (len(self.room[0]) - 1 - k))


class MoveInputs(Struct, frozen=True, kw_only=True):
    """All that a plan of moves depends on, beside what its program holds since it began cold."""

    origins: list[OriginSupply]
    pops: list[PopDemand]
    links: tuple[LinkLimit, ...]
    budget: int
    reserve_fraction: float
    gain_ms_min: float
    drains: bool
    rules: bool = False  # Whether it keeps to rules: journals of format 2 have plans that did not.
    refused: tuple[RefusedMove, ...] = ()  # Not to be planned again.

    def problem(self) -> MigrationProblem:
        """As it is solved."""
        return migration_problem(
            self.origins,
            self.pops,
            budget=self.budget,
            reserve_fraction=self.reserve_fraction,
            links=self.links,
            gain_ms_min=self.gain_ms_min,
            drains=self.drains,
            rules=self.rules,
            refused=self.refused,
        )


def migration_problem(
    origins: Sequence[OriginSupply],
    pops: Sequence[PopDemand],
    *,
    budget: int,
    reserve_fraction: float,
    links: tuple[LinkLimit, ...] = (),
    gain_ms_min: float = GAIN_MS_MIN,
    drains: bool = True,
    rules: bool = True,
    refused: tuple[RefusedMove, ...] = (),
) -> MigrationProblem:
    """What is where by what IRS was told, by PoP shard: each moves its own streams.

    Origins that are down or suspect are left out: PoPs see to their streams there themselves.
    Those that drain are, too, where `drains` is not set. `rules`: whether streams go only where
    the rules of their PoP let them; else none is bound, nor is anything `refused`.
    """
    known = [
        origin
        for origin in sorted(origins, key=lambda origin: origin.origin)
        if origin.state.takes_streams or (drains and origin.state is OriginState.DRAIN)
    ]
    names = [origin.origin for origin in known]
    reserves = find_reserves(known, pops, fraction_max=reserve_fraction, horizon_s=HORIZON_S_MAX)
    draining = frozenset(each.origin for each in known if each.state is OriginState.DRAIN)
    nearest: dict[str, dict[str, float]] = {}
    for pop in pops:
        best = nearest.setdefault(pop.name, {})
        for name, rtt_ms in pop.rtt_ms.items():
            best[name] = min(rtt_ms, best.get(name, math.inf))
    if rules:
        rows = find_rows(pops, names, frozenset(names) - draining, refused)
    else:
        rows = [_whole(pop, names) for pop in pops]
    of_pop: dict[str, list[str]] = {}
    for row in rows:
        of_pop.setdefault(row.shard.partition("/")[0], []).append(row.label)
    measured = {pop.pop: _measured(pop, names, nearest[pop.name]) for pop in pops}
    return MigrationProblem(
        pops=[row.label for row in rows],
        of=[row.shard for row in rows],
        origins=names,
        placed=[row.placed for row in rows],
        room=[rooms_of(*each) for each in zip(known, reserves, strict=True)],
        rtt_ms=[measured[row.shard] for row in rows],
        budget=budget,
        draining=draining,
        forbidden=frozenset(
            (row.label, name)
            for row in rows
            if row.allowed is not None
            for name in names
            if name not in row.allowed
        ),
        behind=frozenset((row.label, name) for row in rows for name in row.behind),
        links=tuple(
            LinkLimit(
                name=link.name,
                mbps=link.mbps,
                mbps_per_unit=link.mbps_per_unit,
                pairs=tuple((key, name) for pop, name in link.pairs for key in of_pop.get(pop, ())),
            )
            for link in links
        ),
        gain_ms_min=gain_ms_min,
        hopeless_counts=not rules,
    )


def _whole(pop: PopDemand, names: Sequence[str]) -> MoveRow:
    """A shard whose streams may go anywhere."""
    placed = [pop.units.get(name, NO_UNITS) for name in names]
    return MoveRow(label=pop.pop, shard=pop.pop, placed=placed, allowed=None)


def _measured(pop: PopDemand, names: Sequence[str], nearest: dict[str, float]) -> list[float]:
    """Milliseconds to each origin. Nobody is moved from one only because it is not measured yet."""
    best = min((nearest[name] for name in names if name in nearest), default=math.inf)
    return [
        round(rtt)
        if math.isfinite(rtt := nearest.get(name, best if name in pop.units else math.inf))
        else math.inf
        for name in names
    ]


def is_wrong(problem: MigrationProblem) -> bool:
    """Whether a link is over its limit, or something is where it should not stay, and may leave.

    What rules keep there is no reason to move what is elsewhere.
    """
    crossed = find_crossed(problem.pops, problem.origins, problem.links)
    over = _overloaded(problem, crossed)
    if problem.hopeless_counts and over:
        return True
    if not over and not problem.draining:
        return False
    for row, pop in enumerate(problem.pops):
        targets = {
            place
            for place, name in enumerate(problem.origins)
            if name not in problem.draining and (pop, name) not in problem.forbidden
        }
        for place, classes in enumerate(problem.placed[row]):
            if not any(classes):
                continue
            hopes = targets or problem.hopeless_counts
            if problem.origins[place] in problem.draining and hopes:
                return True
            full = over & set(crossed.get((row, place), ()))
            if any(full - set(crossed.get((row, to), ())) for to in targets - {place}):
                return True
    return False


def find_overloaded(problem: MigrationProblem) -> frozenset[int]:
    """The places of links over their limit."""
    crossed = find_crossed(problem.pops, problem.origins, problem.links)
    return _overloaded(problem, crossed)


class UnitMoves(Struct, frozen=True, kw_only=True):
    """So many units of a PoP's class that are to go from one origin to another."""

    pop: str
    from_origin: str
    to_origin: str
    priority: PriorityClass
    units: int
    reason: str  # "link NAME", DRAIN, NEARER or MAKES_ROOM.


class _Move:
    """Moves that may still become fewer."""

    __slots__ = ("k", "place", "row", "to", "units")

    def __init__(self, at: tuple[int, int], place: int, to: int, units: int) -> None:
        self.row, self.k = at
        self.place, self.to, self.units = place, to, units


Changes = Sequence[Sequence[Sequence[float]]]  # By PoP, origin, class.


def make_moves(problem: MigrationProblem, arriving: Changes, leaving: Changes) -> list[UnitMoves]:
    """Make whole moves of units that should arrive and leave, of which parts may be whole.

    Whatever is asked for: never more leave than are there, never more move than the budget, never
    more arrive than there is room, no link comes to be over its limit or farther over it, and the
    placement is not worse than before; but those for which there is room may go farther, if all
    that is asked for is better.
    """
    crossed = find_crossed(problem.pops, problem.origins, problem.links)
    before = _overloaded(problem, crossed)
    moves: list[_Move] = []
    for row in range(len(problem.pops)):
        width = len(problem.room[0]) if problem.room else 0
        for k in range(width):
            moves += _pair(problem, (row, k), arriving, leaving, crossed, over=before)
    _keep_links(problem, moves, crossed)
    whole = _score(problem, moves, crossed)
    _keep_budget_and_room(problem, moves)
    _keep_links(problem, moves, crossed)
    now, after = _score(problem, (), crossed), _score(problem, moves, crossed)
    # Others follow, and together they pay; not so where something is wrong, which comes first.
    is_step = whole <= now and after[:2] <= now[:2] and not is_wrong(problem)
    if after > now and not is_step:
        moves = [move for move in moves if _pays(problem, move, crossed, before)]
        _keep_links(problem, moves, crossed)
        if _score(problem, moves, crossed) > _score(problem, (), crossed):
            return []
    return _named(problem, [move for move in moves if move.units], crossed)


def _pair(
    problem: MigrationProblem,
    at: tuple[int, int],
    arriving: Changes,
    leaving: Changes,
    crossed: dict[tuple[int, int], list[int]],
    *,
    over: frozenset[int],
) -> list[_Move]:
    """Pair what leaves with what arrives, for one PoP and class: most urgent first, to the near."""
    row, k = at
    places = range(len(problem.origins))
    leave = {
        place: min(problem.placed[row][place][k], math.floor(leaving[row][place][k] + TIGHT))
        for place in places
    }
    arrive = {
        place: math.floor(arriving[row][place][k] + TIGHT)
        for place in places
        if problem.origins[place] not in problem.draining
        and (problem.pops[row], problem.origins[place]) not in problem.forbidden
    }
    sources = sorted(
        (place for place, units in leave.items() if units > 0),
        key=lambda place: (
            not over & set(crossed.get((row, place), ())),
            problem.origins[place] not in problem.draining,
            -problem.rtt(row, place),
            place,
        ),
    )
    targets = sorted(
        (place for place, units in arrive.items() if units > 0),
        key=lambda place: (problem.way_ms(row, place), place),
    )
    moves = []
    for place in sources:
        for to in targets:
            units = min(leave[place], arrive[to])
            if to != place and units > 0:
                moves.append(_Move(at, place, to, units))
                leave[place] -= units
                arrive[to] -= units
    return moves


def _keep_budget_and_room(problem: MigrationProblem, moves: list[_Move]) -> None:
    left = max(0, problem.budget)
    room = [[max(0, units) for units in classes] for classes in problem.room]
    for move in moves:
        counted = room[move.to][: move.k + 1]
        move.units = min(move.units, left, *counted)
        left -= move.units
        for k in range(move.k + 1):
            room[move.to][k] -= move.units


def _keep_links(
    problem: MigrationProblem, moves: list[_Move], crossed: dict[tuple[int, int], list[int]]
) -> None:
    """Take moves back until no link is over its limit that was not, nor farther than it was."""
    before = _loads(problem, (), crossed)
    cut = True
    while cut:
        cut = False
        after = _loads(problem, moves, crossed)
        for order, link in enumerate(problem.links):
            excess = after[order] - max(math.floor(link.units + TIGHT), before[order])
            for move in reversed(moves):
                if excess <= 0:
                    break
                if move.units and _adds(move, crossed, order) > 0:
                    taken = min(move.units, excess)
                    move.units -= taken
                    excess -= taken
                    cut = True
            if cut:
                break  # What stays may weigh on another.


def _adds(move: _Move, crossed: dict[tuple[int, int], list[int]], order: int) -> int:
    """What one unit of a move adds to a link: 1, 0 or -1."""
    comes = order in crossed.get((move.row, move.to), ())
    goes = order in crossed.get((move.row, move.place), ())
    return comes - goes


def _loads(
    problem: MigrationProblem,
    moves: Iterable[_Move],
    crossed: dict[tuple[int, int], list[int]],
) -> list[int]:
    """Units on each link after the moves."""
    loads = [0] * len(problem.links)
    for (row, place), orders in crossed.items():
        for order in orders:
            loads[order] += sum(problem.placed[row][place])
    for move in moves:
        for order in crossed.get((move.row, move.to), ()):
            loads[order] += move.units
        for order in crossed.get((move.row, move.place), ()):
            loads[order] -= move.units
    return loads


def _overloaded(
    problem: MigrationProblem, crossed: dict[tuple[int, int], list[int]]
) -> frozenset[int]:
    loads = _loads(problem, (), crossed)
    return frozenset(
        order
        for order, (load, link) in enumerate(zip(loads, problem.links, strict=True))
        if load > link.units + TIGHT
    )


def _score(
    problem: MigrationProblem,
    moves: Iterable[_Move],
    crossed: dict[tuple[int, int], list[int]],
) -> tuple[float, int, float]:
    """What is wrong after the moves, the worst first; compared with that of no moves."""
    moves = list(moves)
    loads = _loads(problem, moves, crossed)
    over = math.fsum(
        max(0.0, load - link.units) for load, link in zip(loads, problem.links, strict=True)
    )
    left = sum(move.units for move in moves if problem.origins[move.place] in problem.draining)
    farther = math.fsum(
        move.units * (problem.move_cost_ms(move.k) - _gain(problem, move)) for move in moves
    )
    return (round(over, 6), -left, round(farther, 6))


def _pays(
    problem: MigrationProblem,
    move: _Move,
    crossed: dict[tuple[int, int], list[int]],
    overloaded: frozenset[int],
) -> bool:
    """Whether a move is worth it by itself."""
    return _reason(problem, move, crossed, overloaded) != MAKES_ROOM


def _reason(
    problem: MigrationProblem,
    move: _Move,
    crossed: dict[tuple[int, int], list[int]],
    overloaded: frozenset[int],
) -> str:
    for order in sorted(overloaded):
        if _adds(move, crossed, order) < 0:
            return f"link {problem.links[order].name}"
    if problem.origins[move.place] in problem.draining:
        return DRAIN
    return NEARER if _gain(problem, move) >= problem.move_cost_ms(move.k) else MAKES_ROOM


def _gain(problem: MigrationProblem, move: _Move) -> float:
    """Milliseconds by which one unit of the move comes nearer."""
    return problem.rtt(move.row, move.place) - problem.way_ms(move.row, move.to)


def _named(
    problem: MigrationProblem, moves: list[_Move], crossed: dict[tuple[int, int], list[int]]
) -> list[UnitMoves]:
    """In the order in which they should be made: first what makes room, then the most urgent."""
    overloaded = _overloaded(problem, crossed)
    lowest = PriorityClass.BASIC - (len(problem.room[0]) - 1 if problem.room else 0)
    named = [
        UnitMoves(
            pop=problem.pop(move.row),
            from_origin=problem.origins[move.place],
            to_origin=problem.origins[move.to],
            priority=PriorityClass(lowest + move.k),
            units=move.units,
            reason=_reason(problem, move, crossed, overloaded),
        )
        for move in moves
    ]
    order = {MAKES_ROOM: 0, DRAIN: 2, NEARER: 3}
    return sorted(_merge(named), key=lambda each: order.get(each.reason, 1))


def _merge(moves: Iterable[UnitMoves]) -> list[UnitMoves]:
    """One of several rows' alike: which of its streams go the PoP sees by its rules."""
    merged: dict[tuple[str, str, str, PriorityClass, str], UnitMoves] = {}
    for move in moves:
        key = (move.pop, move.from_origin, move.to_origin, move.priority, move.reason)
        known = merged.get(key)
        merged[key] = (
            move if known is None else structs.replace(move, units=known.units + move.units)
        )
    return list(merged.values())
