"""The best that can be had at one moment, by a linear program that knows everything.

    x[p, o] streams of PoP p at origin o, u[p] at none
    min  sum rtt[p, o] x[p, o] + UNSERVED sum u[p]
    s.t. sum_o x[p, o] + u[p] = demand[p]; sum_p x[p, o] <= slots[o]
         per link and direction: sum mbps[p] x[p, o] over routes through it <= its bandwidth

It may move every stream at any moment, so no policy places more at that moment, or as many for
less. It is written apart from production's solver, so that it can judge that too.
"""

import math
from collections.abc import Sequence

import highspy
import numpy as np
from msgspec import Struct

from edged.errors import EdgedError
from edged.tools.simulate.geography import Arc

BY_CLASS_MS = (1e6, 1e5, 1e4)  # Where there is a row for each: partner, affiliate, basic.
UNSERVED_MS = 10_000.0  # More than any detour: first all that can be served, then the least RTT.


class Moment(Struct, frozen=True, kw_only=True):
    """The network at one moment."""

    demand: list[int]  # Streams that want to be live, by PoP.
    mbps: list[float]  # Of these in all.
    slots: list[int]  # By origin.
    rtt_ms: list[list[float]]  # [PoP][origin]; infinity: no way.
    routes: list[list[tuple[Arc, ...]]]
    gbps: list[float]  # By link.


class Best(Struct, frozen=True):
    """The solution."""

    served: float  # Streams.
    rtt_sum_ms: float  # Over these: the cost.
    placed: list[list[float]]  # [PoP][origin]

    @property
    def rtt_ms(self) -> float:
        """Their mean."""
        return self.rtt_sum_ms / self.served if self.served else 0.0


def unserved_by_class(moment: Moment) -> list[float]:
    """Of a moment with a row for each class of each PoP: what has to go, the lowest class first."""
    placed = solve(moment, BY_CLASS_MS).placed
    return [units - math.fsum(row) for units, row in zip(moment.demand, placed, strict=True)]


def solve(moment: Moment, unserved_ms: Sequence[float] = (UNSERVED_MS,)) -> Best:
    """What could be had. `unserved_ms`: of one row after the other, over and over."""
    pairs = [
        (pop, origin)
        for pop, wanted in enumerate(moment.demand)
        for origin in range(len(moment.slots))
        if wanted and math.isfinite(moment.rtt_ms[pop][origin])
    ]
    placed = [[0.0] * len(moment.slots) for _ in moment.demand]
    if not pairs:
        return Best(0.0, 0.0, placed)
    values = _run(_model(moment, pairs, unserved_ms))
    served = cost = 0.0
    for (pop, origin), value in zip(pairs, values, strict=False):
        placed[pop][origin] = value
        served += value
        cost += value * moment.rtt_ms[pop][origin]
    return Best(served, cost, placed)


def _model(
    moment: Moment, pairs: Sequence[tuple[int, int]], unserved_ms: Sequence[float]
) -> highspy.HighsLp:
    pops, origins = len(moment.demand), len(moment.slots)
    arcs = sorted({arc for pop, origin in pairs for arc in moment.routes[pop][origin]})
    rows = {arc: pops + origins + place for place, arc in enumerate(arcs)}
    starts, indices, coefficients = [0], [], []
    for pop, origin in pairs:
        mbps = moment.mbps[pop] / moment.demand[pop]
        indices += [pop, pops + origin]
        coefficients += [1.0, 1.0]
        for arc in sorted(moment.routes[pop][origin]):
            indices.append(rows[arc])
            coefficients.append(mbps)
        starts.append(len(indices))
    for pop in range(pops):
        indices.append(pop)
        coefficients.append(1.0)
        starts.append(len(indices))
    wanted = [float(count) for count in moment.demand]
    upper = [float(total) for total in moment.slots]
    upper += [1000 * moment.gbps[link] for link, _ in arcs]
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = len(pairs) + pops, pops + len(upper)
    costs = [moment.rtt_ms[pop][origin] for pop, origin in pairs]
    costs += [unserved_ms[pop % len(unserved_ms)] for pop in range(pops)]
    lp.col_cost_ = np.array(costs)
    lp.col_lower_ = np.zeros(lp.num_col_)
    lp.col_upper_ = np.full(lp.num_col_, highspy.kHighsInf)
    lp.row_lower_ = np.array(wanted + [-highspy.kHighsInf] * len(upper))
    lp.row_upper_ = np.array(wanted + upper)
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_ = np.array(starts)
    lp.a_matrix_.index_ = np.array(indices)
    lp.a_matrix_.value_ = np.array(coefficients)
    return lp


def _run(lp: highspy.HighsLp) -> list[float]:
    solver = highspy.Highs()
    solver.silent()
    for name, value in (("threads", 1), ("solver", "simplex")):
        solver.setOptionValue(name, value)
    solver.passModel(lp)
    solver.run()
    if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        status = solver.modelStatusToString(solver.getModelStatus())
        raise EdgedError(f"the bound's linear program has no optimum: {status}")
    return list(solver.getSolution().col_value)
