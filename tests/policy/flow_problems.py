"""Small problems for the solver, and what is best for them by trying everything."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TypeVar

from hypothesis import strategies as st

from edged.policy.flows import RTT_MS_MAX, RTT_UNKNOWN_MS, UNSERVED_MS, FlowProblem, LinkLimit

Item = TypeVar("Item")
Split = tuple[int, ...]  # Units of one PoP's class by origin, the last: unserved.


@st.composite
def problems(draw: st.DrawFn, *, links: bool = True) -> FlowProblem:
    """Few units, so that everything can be tried: in whole units, and with whole room of links."""
    pops = [f"p{n}" for n in range(draw(st.integers(1, 2)))]
    origins = [f"o{n}" for n in range(draw(st.integers(1, 3)))]
    width = draw(st.integers(1, 3))
    units = st.integers(0, 2)
    pairs = list(itertools.product(pops, origins))
    some_pairs = st.lists(st.sampled_from(pairs), max_size=len(pairs), unique=True)
    rtt = st.sampled_from([0.0, 1.0, 7.0, 40.0, 41.5, 900.0, math.inf])
    by_class = st.lists(units, min_size=width, max_size=width)
    slots = st.lists(st.integers(0, 4), min_size=width, max_size=width)
    return FlowProblem(
        pops=pops,
        origins=origins,
        demand=draw(_lists(by_class, len(pops))),
        capacity=draw(_lists(slots, len(origins))),
        rtt_ms=draw(_lists(_lists(rtt, len(origins)), len(pops))),
        forbidden=frozenset(draw(some_pairs)) if draw(st.booleans()) else frozenset(),
        links=(
            LinkLimit(
                name="cable",
                mbps=draw(st.integers(0, 4)) * 6.0,
                mbps_per_unit=6.0,
                pairs=tuple(draw(some_pairs)),
            ),
        )
        if links and draw(st.booleans())
        else (),
    )


def least_cost(problem: FlowProblem) -> float:
    """The least cost of all placements in whole units."""
    wants = [(row, k) for row, classes in enumerate(problem.demand) for k in range(len(classes))]
    choices = [
        list(_splits(int(problem.demand[row][k]), len(problem.origins) + 1)) for row, k in wants
    ]
    return min(
        _cost(problem, wants, placement)
        for placement in itertools.product(*choices)
        if allowed(problem, wants, placement)
    )


def allowed(
    problem: FlowProblem, wants: Sequence[tuple[int, int]], placement: Sequence[Split]
) -> bool:
    """Whether it keeps every limit."""
    for place, origin in enumerate(problem.origins):
        for each, limit in enumerate(problem.capacity[place]):
            counted = sum(
                split[place] for (_, k), split in zip(wants, placement, strict=True) if k >= each
            )
            if counted > limit:
                return False
        for (row, _), split in zip(wants, placement, strict=True):
            if split[place] and (problem.pops[row], origin) in problem.forbidden:
                return False
    for link in problem.links:
        crossing = sum(
            split[place]
            for (row, _), split in zip(wants, placement, strict=True)
            for place, origin in enumerate(problem.origins)
            if (problem.pops[row], origin) in link.pairs
        )
        if crossing * link.mbps_per_unit > link.mbps:
            return False
    return True


def _cost(
    problem: FlowProblem, wants: Sequence[tuple[int, int]], placement: Sequence[Split]
) -> float:
    cost = 0.0
    for (row, k), split in zip(wants, placement, strict=True):
        for place, units in enumerate(split[:-1]):
            rtt = problem.rtt_ms[row][place]
            rtt = min(rtt, RTT_MS_MAX) if math.isfinite(rtt) else RTT_UNKNOWN_MS
            cost += rtt * units
        cost += UNSERVED_MS[k - len(problem.demand[row])] * split[-1]
    return cost


def _splits(units: int, ways: int) -> Iterator[Split]:
    if ways == 1:
        yield (units,)
        return
    for first in range(units + 1):
        for rest in _splits(units - first, ways - 1):
            yield (first, *rest)


def _lists(items: st.SearchStrategy[Item], size: int) -> st.SearchStrategy[list[Item]]:
    return st.lists(items, min_size=size, max_size=size)
