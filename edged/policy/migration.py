"""The migration program: which live streams to move, within a budget, for the most good.

    minimise  over[l] first, then what stays at draining origins, then round trips + cost of moves
    where     sum over o of stay[p,o,k] + move[p,o,k] = what PoP p has of class k
              stay[p,o,k] <= what is there;  sum of all moves <= budget
              sum over p, j >= k of move[p,o,j] <= room[o][k]
              sum over a link's pairs of stay + move - over[l] <= its units

While nothing is wrong what leaves an origin makes room there: the third is then

              sum over p, j >= k of stay[p,o,j] + move[p,o,j] <= what is there + room[o][k]

or origins that are full would keep who is there for ever, though a far one has slots. Of such moves
those are made that have room now; the others follow with the next plans.

All may stay where it is, so there is always an answer. Where links cut units into parts, whole
moves are made of them afterwards (`moves`).
"""

import numpy as np

from edged.policy.flows import TIGHT, UNSERVED_MS, find_places
from edged.policy.linear_program import INFINITY, Entries, Floats, LinearProgram, Numbers
from edged.policy.moves import MigrationProblem, UnitMoves, is_wrong, make_moves
from edged.policy.pop_needs import LAST_RESORT_MS

OVER_MS, DRAIN_MS = UNSERVED_MS[0], UNSERVED_MS[2]  # Per unit; both far beyond any detour.

_Key = tuple[object, ...]


class Migration:
    """Plans one set of moves after another, from where it was while names and links stay."""

    def __init__(self) -> None:
        self._key: _Key | None = None
        self._program: LinearProgram | None = None

    def restart(self) -> None:
        """Begin cold: the next plan depends on its problem alone."""
        self._key = self._program = None

    def plan(self, problem: MigrationProblem) -> list[UnitMoves]:
        """Plan; raises SolverError. The moves are in the order in which they should be made."""
        if problem.budget <= 0 or not problem.pops or not problem.origins:
            return []
        width = len(problem.room[0])
        placed = np.array(problem.placed, dtype=np.float64).reshape(
            len(problem.pops), len(problem.origins), width
        )
        pairs = tuple((link.name, link.pairs) for link in problem.links)
        steps = not is_wrong(problem)
        key = (tuple(problem.pops), tuple(problem.origins), width, pairs, steps)
        if key != self._key or self._program is None:
            self._program, self._key = _build(problem, width, steps=steps), key
        optimum = self._program.solve(_numbers(problem, placed, steps=steps))
        moved = optimum.values[placed.size : 2 * placed.size].reshape(placed.shape)
        stays = optimum.values[: placed.size].reshape(placed.shape)
        return make_moves(problem, moved.tolist(), (placed - stays).tolist())


def _build(problem: MigrationProblem, width: int, *, steps: bool) -> LinearProgram:
    pops, origins, links = len(problem.pops), len(problem.origins), len(problem.links)
    flows = pops * origins * width
    within = np.arange(flows)
    pop, origin, k = within // (origins * width), within // width % origins, within % width
    demand = pop * width + k
    rows, columns, values = [demand, demand], [within, flows + within], [np.ones(2 * flows)]
    first = pops * width
    for each in range(width):
        counted = within[k >= each]
        times = 2 if steps else 1
        rows += times * [first + origin[counted] * width + each]
        columns += [flows + counted, counted][:times]
        values.append(np.ones(times * counted.size))
    budget = first + origins * width
    rows.append(np.full(flows, budget))
    columns.append(flows + within)
    values.append(np.ones(flows))
    pairs = [link.pairs for link in problem.links]
    for order, crossing in enumerate(find_places(problem.pops, problem.origins, pairs)):
        found = within[np.isin(pop * origins + origin, [r * origins + o for r, o in crossing])]
        rows.append(np.full(2 * found.size + 1, budget + 1 + order))
        columns += [found, flows + found, np.array([2 * flows + order])]
        values += [np.ones(2 * found.size), -np.ones(1)]
    entries = Entries(
        np.concatenate(rows).astype(np.int32),
        np.concatenate(columns).astype(np.int32),
        np.concatenate(values),
    )
    return LinearProgram(entries, columns=2 * flows + links, rows=budget + 1 + links)


def _numbers(problem: MigrationProblem, placed: Floats, *, steps: bool) -> Numbers:
    pops, origins, width = placed.shape
    links = len(problem.links)
    rtt = np.array(
        [[problem.rtt(row, place) for place in range(origins)] for row in range(pops)],
        dtype=np.float64,
    ).reshape(pops, origins, 1)
    stay = np.broadcast_to(rtt, placed.shape).copy()
    move = rtt + np.array([problem.move_cost_ms(k) for k in range(width)])
    room_for_moves = np.full(placed.shape, INFINITY)
    for place, name in enumerate(problem.origins):
        if name in problem.draining:
            stay[:, place] += DRAIN_MS
            room_for_moves[:, place] = 0.0
    closed, behind = find_places(problem.pops, problem.origins, [problem.forbidden, problem.behind])
    for row, place in closed:
        room_for_moves[row, place] = 0.0
    for row, place in behind:
        move[row, place] += LAST_RESORT_MS
    demand = placed.sum(axis=1).ravel()
    room = np.maximum(np.array(problem.room, dtype=np.float64), 0.0)
    if steps:
        room += placed.sum(axis=0)[:, ::-1].cumsum(axis=1)[:, ::-1]  # Of each and those below it.
    limits = np.floor(np.array([link.units for link in problem.links]) + TIGHT)
    row_upper = np.concatenate([demand, room.ravel(), [float(problem.budget)], limits])
    row_lower = np.full(row_upper.size, -INFINITY)
    row_lower[: demand.size] = demand
    return Numbers(
        cost=np.concatenate([stay.ravel(), move.ravel(), np.full(links, OVER_MS)]),
        lower=np.zeros(2 * placed.size + links),
        upper=np.concatenate([placed.ravel(), room_for_moves.ravel(), np.full(links, INFINITY)]),
        row_lower=row_lower,
        row_upper=row_upper,
    )
