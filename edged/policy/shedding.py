"""Live streams that have to go, where links cannot carry them all however they are moved.

    what is live ─▶ flow program: on all slots there are, within the limits of links
                       └── what it leaves unserved is shed: the lowest class first

Nothing else is: where a move can make room (`migration`), nobody loses a stream. Of a PoP's class
those go first that cross the most links beyond their limit, and of these the farthest.
"""

import math
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from edged.media.stream import PriorityClass
from edged.policy.flows import TIGHT, FlowPin, FlowProblem, FlowSolve, find_crossed
from edged.policy.moves import MigrationProblem, UnitMoves, find_overloaded


class UnitSheds(Struct, frozen=True, kw_only=True):
    """So many units of a PoP's class that an origin is to lose, and the link that is why."""

    pop: str  # Or a row of the problem: see `of_pops`.
    origin: str
    priority: PriorityClass
    units: int
    link: str


def plan_sheds(problem: MigrationProblem, solve: FlowSolve) -> list[UnitSheds]:
    """What is to be shed; nothing while no link is over its limit. Raises SolverError."""
    over = find_overloaded(problem)
    if not over or not problem.pops or not problem.origins:
        return []
    width = len(problem.room[0])
    flows = _flows(problem, width)
    solution = solve(flows)
    of_kept = {
        (pin.pop, pin.origin): left
        for pin, left in zip(flows.pins, solution.pins_unserved, strict=True)
    }
    crossed = find_crossed(problem.pops, problem.origins, problem.links)
    sheds = []
    for row, pop in enumerate(problem.pops):
        across = [over & set(crossed.get((row, at), ())) for at in range(len(problem.origins))]
        order = sorted(
            range(len(problem.origins)),
            key=lambda at: (-len(across[at]), -problem.rtt(row, at), at),
        )
        for k in range(width):
            left = math.ceil(solution.unserved[row][k] - TIGHT)
            for at in order:
                if (kept := of_kept.get((pop, problem.origins[at]))) is not None:
                    left = math.ceil(kept[k] - TIGHT)
                units = min(left, problem.placed[row][at][k])
                if units > 0:
                    left -= units
                    sheds.append(
                        UnitSheds(
                            pop=pop,
                            origin=problem.origins[at],
                            priority=PriorityClass(PriorityClass.BASIC - width + 1 + k),
                            units=units,
                            link=problem.links[min(across[at] or over)].name,
                        )
                    )
    return sheds


def of_pops(problem: MigrationProblem, sheds: Sequence[UnitSheds]) -> list[UnitSheds]:
    """The same by PoP shards, where those are by rows of the problem."""
    rows = {name: row for row, name in enumerate(problem.pops)}
    merged: dict[tuple[str, str, PriorityClass, str], UnitSheds] = {}
    for each in sheds:
        pop = problem.pop(rows[each.pop])
        key = (pop, each.origin, each.priority, each.link)
        units = each.units + (merged[key].units if key in merged else 0)
        merged[key] = msgspec.structs.replace(each, pop=pop, units=units)
    return list(merged.values())


def without(problem: MigrationProblem, sheds: Sequence[UnitSheds]) -> MigrationProblem:
    """What is left when these are gone. Their slots are not free yet."""
    width = len(problem.room[0]) if problem.room else 0
    placed = [[list(classes) for classes in row] for row in problem.placed]
    rows = {pop: row for row, pop in enumerate(problem.pops)}
    places = {origin: place for place, origin in enumerate(problem.origins)}
    for each in sheds:
        k = each.priority - PriorityClass.BASIC + width - 1
        placed[rows[each.pop]][places[each.origin]][k] -= each.units
    return msgspec.structs.replace(problem, placed=placed)


def without_leaving(problem: MigrationProblem, moves: Sequence[UnitMoves]) -> MigrationProblem:
    """What is left when these are gone from where they were, or less: some may be gone already.

    A stream that has moved goes to its old home for a while yet, and is told of at both.
    """
    if not moves:
        return problem
    width = len(problem.room[0]) if problem.room else 0
    placed = [[list(classes) for classes in row] for row in problem.placed]
    rows: dict[str, list[int]] = {}
    for row in range(len(problem.pops)):
        rows.setdefault(problem.pop(row), []).append(row)
    places = {origin: place for place, origin in enumerate(problem.origins)}
    for move in moves:
        left, place = move.units, places.get(move.from_origin)
        if place is None:
            continue
        k = move.priority - PriorityClass.BASIC + width - 1
        for row in rows.get(move.pop, ()):  # Of which, nobody tells.
            gone = min(left, placed[row][place][k])
            placed[row][place][k] -= gone
            left -= gone
    return msgspec.structs.replace(problem, placed=placed)


def _flows(problem: MigrationProblem, width: int) -> FlowProblem:
    """All that is live, wherever it may go, or where it is already.

    What may go nowhere is where it is, or it goes: of one row what is here must not count as there.
    """
    pops, origins = range(len(problem.pops)), range(len(problem.origins))
    there = [sum(sum(problem.placed[row][at]) for row in pops) for at in origins]
    kept = {
        row: None
        for row, pop in enumerate(problem.pops)
        if all((pop, origin) in problem.forbidden for origin in problem.origins)
    }
    return FlowProblem(
        pops=problem.pops,
        origins=problem.origins,
        demand=[
            [
                0.0 if row in kept else float(sum(problem.placed[row][at][k] for at in origins))
                for k in range(width)
            ]
            for row in pops
        ],
        capacity=[[float(there[at] + max(0, room)) for room in problem.room[at]] for at in origins],
        rtt_ms=problem.rtt_ms,
        forbidden=frozenset(
            (pop, origin)
            for row, pop in enumerate(problem.pops)
            for at, origin in enumerate(problem.origins)
            if (pop, origin) in problem.forbidden and not any(problem.placed[row][at])
        ),
        links=problem.links,
        pins=tuple(
            FlowPin(problem.pops[row], problem.origins[at], problem.placed[row][at], 0.0)
            for row in kept
            for at in origins
            if any(problem.placed[row][at])
        ),
    )
