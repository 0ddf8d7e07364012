"""Problems for the migration program, what a set of moves comes to, and the best by trying all."""

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec
from hypothesis import strategies as st

from edged.media.stream import PriorityClass
from edged.policy.flows import LinkLimit
from edged.policy.moves import MigrationProblem, UnitMoves, is_wrong

Score = tuple[float, int, float]


@st.composite
def problems(draw: st.DrawFn, *, small: bool = False) -> MigrationProblem:
    """Small ones can be tried through; they have no links, which cut units into parts.

    In these something is mostly wrong.
    """
    most = 2 if small else 4
    pops = [f"p{n}" for n in range(draw(st.integers(1, most)))]
    origins = [f"o{n}" for n in range(draw(st.integers(2, 2) if small else st.integers(1, 4)))]
    width = draw(st.integers(1, 2 if small else 3))
    pairs = list(itertools.product(pops, origins))
    some_pairs = st.lists(st.sampled_from(pairs), max_size=len(pairs), unique=True)
    counts = st.lists(st.integers(0, 2 if small else 30), min_size=width, max_size=width)
    places = len(origins)
    return MigrationProblem(
        pops=pops,
        origins=origins,
        placed=[[draw(counts) for _ in range(places)] for _ in pops],
        room=[
            draw(st.lists(st.integers(-1, 4 if small else 40), min_size=width, max_size=width))
            for _ in origins
        ],
        rtt_ms=[
            [draw(st.sampled_from([1.0, 7.0, 40.0, 90.0, math.inf])) for _ in origins] for _ in pops
        ],
        budget=draw(st.integers(0, 3 if small else 60)),
        draining=frozenset(
            draw(st.lists(st.sampled_from(origins), min_size=int(small), max_size=1))
        ),
        forbidden=frozenset(draw(some_pairs)) if draw(st.booleans()) else frozenset(),
        behind=frozenset(draw(some_pairs)) if draw(st.booleans()) else frozenset(),
        links=tuple(
            LinkLimit(
                name=name,
                mbps=draw(st.floats(0, 200)),
                mbps_per_unit=draw(st.sampled_from([1.0, 6.0])),
                pairs=tuple(draw(some_pairs)),
            )
            for name in ("cable", "dish")[: draw(st.integers(0, 0 if small else 2))]
        ),
    )


def check_moves(problem: MigrationProblem, moves: Sequence[UnitMoves]) -> None:
    """Every limit is kept, and the placement is not worse."""
    rows = {name: row for row, name in enumerate(problem.pops)}
    places = {name: place for place, name in enumerate(problem.origins)}
    width = len(problem.room[0])
    lowest = PriorityClass.BASIC - width + 1
    left = Counter[tuple[str, str, int]]()
    arrived = Counter[tuple[str, int]]()
    for move in moves:
        k = move.priority - lowest
        assert move.units > 0
        assert move.from_origin != move.to_origin
        assert move.to_origin not in problem.draining
        assert (move.pop, move.to_origin) not in problem.forbidden
        left[move.pop, move.from_origin, k] += move.units
        for each in range(k + 1):
            arrived[move.to_origin, each] += move.units
    for (pop, origin, k), units in left.items():
        assert units <= problem.placed[rows[pop]][places[origin]][k]
    for (origin, k), units in arrived.items():
        assert units <= max(0, problem.room[places[origin]][k])
    assert sum(move.units for move in moves) <= problem.budget
    before, after = loads(problem, ()), loads(problem, moves)
    for link, load_before, load_after in zip(problem.links, before, after, strict=True):
        assert load_after <= max(link.units + 1e-6, load_before)
    assert score(problem, moves)[:2] <= score(problem, ())[:2]
    if is_wrong(problem):
        assert score(problem, moves) <= score(problem, ())


def after(problem: MigrationProblem, moves: Sequence[UnitMoves]) -> MigrationProblem:
    """What is where when they are made, and the room that they leave."""
    rows = {name: row for row, name in enumerate(problem.pops)}
    places = {name: place for place, name in enumerate(problem.origins)}
    lowest = PriorityClass.BASIC - len(problem.room[0]) + 1
    placed = [[list(classes) for classes in row] for row in problem.placed]
    room = [list(classes) for classes in problem.room]
    for move in moves:
        k = move.priority - lowest
        for origin, sign in ((move.from_origin, -1), (move.to_origin, 1)):
            placed[rows[move.pop]][places[origin]][k] += sign * move.units
            for each in range(k + 1):
                room[places[origin]][each] -= sign * move.units
    return msgspec.structs.replace(problem, placed=placed, room=room)


def loads(problem: MigrationProblem, moves: Sequence[UnitMoves]) -> list[int]:
    """Units on each link."""
    carried = []
    for link in problem.links:
        load = sum(
            sum(problem.placed[row][place])
            for row, pop in enumerate(problem.pops)
            for place, origin in enumerate(problem.origins)
            if (pop, origin) in link.pairs
        )
        for move in moves:
            load += move.units * ((move.pop, move.to_origin) in link.pairs)
            load -= move.units * ((move.pop, move.from_origin) in link.pairs)
        carried.append(load)
    return carried


def score(problem: MigrationProblem, moves: Sequence[UnitMoves]) -> Score:
    """Over links, at draining origins (against no moves), milliseconds (and those of moving)."""
    rows = {name: row for row, name in enumerate(problem.pops)}
    places = {name: place for place, name in enumerate(problem.origins)}
    over = sum(
        max(0.0, load - link.units)
        for load, link in zip(loads(problem, moves), problem.links, strict=True)
    )
    drained = sum(move.units for move in moves if move.from_origin in problem.draining)
    farther = 0.0
    for move in moves:
        row = rows[move.pop]
        to, place = places[move.to_origin], places[move.from_origin]
        farther += move.units * (problem.way_ms(row, to) - problem.rtt(row, place))
        steps = PriorityClass.BASIC - move.priority
        farther += move.units * (problem.gain_ms_min + 0.1 * problem.gain_ms_min * steps)
    return (round(over, 5), -drained, round(farther, 5))


def best_score(problem: MigrationProblem) -> Score:
    """The best of all sets of moves within the limits."""
    return min(score(problem, moves) for moves in _all_moves(problem))


def _all_moves(problem: MigrationProblem) -> Iterator[list[UnitMoves]]:
    width = len(problem.room[0])
    lowest = PriorityClass.BASIC - width + 1
    ways = [
        (row, k, place, to)
        for row in range(len(problem.pops))
        for k in range(width)
        for place, to in itertools.permutations(range(len(problem.origins)), 2)
        if problem.placed[row][place][k]
        and problem.origins[to] not in problem.draining
        and (problem.pops[row], problem.origins[to]) not in problem.forbidden
    ]
    counts = [
        range(min(problem.budget, problem.placed[row][place][k]) + 1) for row, k, place, _ in ways
    ]
    for units in itertools.product(*counts):
        if sum(units) > problem.budget:
            continue
        arrived = Counter[tuple[int, int]]()
        for (_, k, _, to), count in zip(ways, units, strict=True):
            for each in range(k + 1):
                arrived[to, each] += count
        if any(count > max(0, problem.room[to][k]) for (to, k), count in arrived.items()):
            continue
        yield [
            UnitMoves(
                pop=problem.pops[row],
                from_origin=problem.origins[place],
                to_origin=problem.origins[to],
                priority=PriorityClass(lowest + k),
                units=count,
                reason="",
            )
            for (row, k, place, to), count in zip(ways, units, strict=True)
            if count
        ]
