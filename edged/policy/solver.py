"""The solver: the linear program of `flows`, kept in HiGHS while PoPs, origins and links stay.

Columns: x[p,o,k], but where it is forbidden; u[p,k]; y[i,k] of the pins. Rows: demand by PoP and
class; capacity by origin and class; links. Every u is a way out, so no problem is infeasible.

A pin has one origin, so its demand y + u = d needs neither a row nor a u: of what is not served the
cost is in that of y, which is that much less, and 0 <= y <= d.

Whole units in, whole units out: without links the matrix is that of a network (the capacities of an
origin nest), whose vertices are whole.
"""

import math
from collections.abc import Iterator

import numpy as np
from msgspec import Struct

from edged.errors import SolverError
from edged.policy.flow_matrix import FlowColumns, flow_columns, flow_entries
from edged.policy.flows import (
    RTT_MS_MAX,
    RTT_UNKNOWN_MS,
    UNSERVED_MS,
    FlowProblem,
    FlowSolution,
    LinkLimit,
    find_places,
)
from edged.policy.linear_program import (
    INFINITY,
    Floats,
    LinearProgram,
    Numbers,
    Optimum,
)

PROGRAMS_MAX = 2  # Kept, by what does not change in them: those of a plan. Each takes some MB.
UNITS_STEP = 1e-9  # Finer differences from a whole unit are rounding.

_Key = tuple[tuple[str, ...], tuple[str, ...], int, frozenset[tuple[str, str]], tuple[object, ...]]


class _Program(Struct, frozen=True):
    flows: FlowColumns
    program: LinearProgram


class FlowSolver:
    """Solves one problem after another, from where it was with the last of the same shape."""

    def __init__(self) -> None:
        self._programs: dict[_Key, _Program] = {}  # The one used last is last.

    def restart(self) -> None:
        """Begin cold: the next solution depends on its problem alone."""
        self._programs = {}

    def solve(self, problem: FlowProblem) -> FlowSolution:
        """Solve; raises SolverError: too large, a number that is none, or HiGHS gives up."""
        pops, origins = len(problem.pops), len(problem.origins)
        if not origins or not (pops or problem.pins):
            return _nothing_to_choose(problem)
        width = len(problem.capacity[0])
        links = tuple((link.name, link.pairs) for link in problem.links)
        pins = tuple((pin.pop, pin.origin) for pin in problem.pins)
        names = (tuple(problem.pops), tuple(problem.origins))
        key = (*names, width, problem.forbidden, (links, pins))
        known = self._programs.pop(key, None) or _build(problem, width)
        self._programs[key] = known
        if len(self._programs) > PROGRAMS_MAX:
            del self._programs[next(iter(self._programs))]
        numbers = _numbers(problem, known.flows)
        return _solution(problem, known.program.solve(numbers), known.flows)


def _build(problem: FlowProblem, width: int) -> _Program:
    places = find_places(
        problem.pops, problem.origins, [problem.forbidden, *(link.pairs for link in problem.links)]
    )
    origins = len(problem.origins)
    flows = flow_columns(len(problem.pops), origins, width, places[0])
    more = []
    for order, crossing in enumerate(places[1:]):
        found = flows.crossing(row * origins + place for row, place in crossing)
        more.append((np.full(found.size, flows.rows + order), found, np.ones(found.size)))
    if pins := list(_pin_entries(problem, flows)):
        rows, columns = np.array(pins).T
        more.append((rows, columns, np.ones(rows.size)))
    program = LinearProgram(
        flow_entries(flows, more),
        columns=flows.columns + len(problem.pins) * width,
        rows=flows.rows + len(problem.links),
    )
    return _Program(flows, program)


def _pin_entries(problem: FlowProblem, flows: FlowColumns) -> Iterator[tuple[int, int]]:
    """Rows and columns where pins count: capacity of their class and those above it, and links."""
    width = flows.width
    places = {origin: place for place, origin in enumerate(problem.origins)}
    crossed: dict[tuple[str, str], list[int]] = {}
    for order, link in enumerate(problem.links) if problem.pins else ():
        for pair in dict.fromkeys(link.pairs):
            crossed.setdefault(pair, []).append(order)
    for number, pin in enumerate(problem.pins):
        if (place := places.get(pin.origin)) is None:
            continue
        for k in range(width):
            column = flows.columns + number * width + k
            for each in range(k + 1):
                yield (flows.pops + place) * width + each, column
            for order in crossed.get((pin.pop, pin.origin), ()):
                yield flows.rows + order, column


def _numbers(problem: FlowProblem, flows: FlowColumns) -> Numbers:
    pops, origins, width = flows.pops, flows.origins, flows.width
    demand = _units(problem.demand, "demand", (pops, width)).ravel()
    capacity = _units(problem.capacity, "capacity", (origins, width)).ravel()
    rtt = np.array(problem.rtt_ms, dtype=np.float64).reshape(pops, origins)
    rtt = np.clip(np.where(np.isfinite(rtt), rtt, RTT_UNKNOWN_MS), 0.0, RTT_MS_MAX)
    unserved = np.tile(UNSERVED_MS[len(UNSERVED_MS) - width :], pops)
    row_upper = np.concatenate([demand, capacity, [_carried(link) for link in problem.links]])
    row_lower = np.full(row_upper.size, -INFINITY)
    row_lower[: demand.size] = demand
    cost, upper = [rtt[flows.pop, flows.origin], unserved], [np.full(flows.columns, INFINITY)]
    if problem.pins:
        wanted, of_pins = _pins(problem, width)
        known = np.isin([pin.origin for pin in problem.pins], problem.origins)
        upper.append(np.where(known[:, None], wanted, 0.0).ravel())
        cost.append(of_pins.ravel())
    return Numbers(
        cost=np.concatenate(cost),
        lower=np.zeros(flows.columns + len(problem.pins) * width),
        upper=np.concatenate(upper),
        row_lower=row_lower,
        row_upper=row_upper,
    )


def _pins(problem: FlowProblem, width: int) -> tuple[Floats, Floats]:
    """By pin and class: the demand, and what one unit costs more than one that is not served."""
    wanted = _units([pin.demand for pin in problem.pins], "demand", (len(problem.pins), width))
    rtt = np.array([pin.rtt_ms for pin in problem.pins], dtype=np.float64)
    rtt = np.clip(np.where(np.isfinite(rtt), rtt, RTT_UNKNOWN_MS), 0.0, RTT_MS_MAX)
    return wanted, rtt[:, None] - np.array(UNSERVED_MS[len(UNSERVED_MS) - width :])


def _units(given: object, what: str, shape: tuple[int, ...]) -> Floats:
    units = np.array(given, dtype=np.float64).reshape(shape)
    if np.isnan(units).any() or (what != "capacity" and np.isinf(units).any()):
        raise SolverError(f"{what}: not every one is a number")
    return np.maximum(units, 0.0)


def _carried(link: LinkLimit) -> float:
    if math.isnan(link.mbps) or not link.mbps_per_unit > 0:
        raise SolverError(
            f"link {link.name}: {link.mbps:g} Mbps at {link.mbps_per_unit:g} a unit is no limit"
        )
    return link.units


def _solution(problem: FlowProblem, optimum: Optimum, flows: FlowColumns) -> FlowSolution:
    pops, origins, width = flows.pops, flows.origins, flows.width
    values = np.maximum(_whole(optimum.values), 0.0)
    capacities = pops * width
    prices = np.maximum(optimum.row_prices, 0.0)
    units = np.zeros(pops * origins * width)
    units[flows.place] = values[: flows.flows]
    pinned, wanted, cost_ms = _no_pins(), _no_pins(), optimum.cost
    if problem.pins:
        wanted, _ = _pins(problem, width)
        pinned = values[flows.columns :].reshape(wanted.shape)
        weights = np.array(UNSERVED_MS[len(UNSERVED_MS) - width :])
        cost_ms += float((wanted * weights).sum())
    of_links = prices[capacities + origins * width :].tolist()
    return FlowSolution(
        units=units.reshape(pops, origins, width).tolist(),
        unserved=values[flows.flows : flows.columns].reshape(pops, width).tolist(),
        origin_prices=prices[capacities : capacities + origins * width]
        .reshape(origins, width)
        .tolist(),
        link_prices={
            link.name: price
            for link, price in zip(problem.links, of_links, strict=True)
            if price > 0
        },
        cost_ms=cost_ms,
        iterations=optimum.iterations,
        cold=optimum.cold,
        pinned=pinned.tolist(),
        pins_unserved=np.maximum(wanted - pinned, 0.0).tolist(),
    )


def _no_pins() -> Floats:
    return np.zeros((0, 0))


def _whole(values: Floats) -> Floats:
    nearest = np.round(values)
    return np.where(
        np.abs(values - nearest) < UNITS_STEP * np.maximum(1.0, nearest), nearest, values
    )


def _nothing_to_choose(problem: FlowProblem) -> FlowSolution:
    """Without an origin everything is unserved; without a PoP there is nothing."""
    left = [[max(0.0, float(units)) for units in classes] for classes in problem.demand]
    pins = [[max(0.0, float(units)) for units in pin.demand] for pin in problem.pins]
    return FlowSolution(
        units=[[] for _ in problem.pops],
        unserved=left,
        pinned=[[0.0] * len(classes) for classes in pins],
        pins_unserved=pins,
        origin_prices=[[0.0] * len(classes) for classes in problem.capacity],
        link_prices={},
        cost_ms=sum(
            weight * units
            for classes in (*left, *pins)
            for weight, units in zip(UNSERVED_MS[-len(classes) :], classes, strict=True)
        ),
        iterations=0,
        cold=True,
    )
