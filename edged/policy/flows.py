"""Who should stream where: the problem that the solver solves, its answer, and both in words.

    minimise  sum rtt[p,o] x[p,o,k]  +  sum weight[k] u[p,k]
    where     sum over o of x[p,o,k] + u[p,k] = demand[p,k]
              sum over p, j >= k of x[p,o,j] <= capacity[o][k]    (k and the classes below it)
              sum over a link's pairs of x <= its Mbps / Mbps per unit

A class may be left unserved (u), so there is always an answer. Leaving a class unserved costs far
more than the one below it, and that far more than any detour.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Protocol

from msgspec import Struct

from edged.media.routing import CLASSES

UNSERVED_MS = (1e7, 1e6, 1e5)  # Per unit of partner, affiliate, basic.
RTT_MS_MAX = 1000.0  # A hundredth of the least of these: ten origins' detours do not outweigh it.
RTT_UNKNOWN_MS = 800.0  # Not measured yet: after everything measured, as in the PoP's own price.
PLANS_PER_CHECKPOINT = 256  # Then the solver begins cold: a plan can be had again from there.
TIGHT = 1e-6  # Units by which a limit may be missed and still be reached.


class LinkLimit(Struct, frozen=True, kw_only=True):
    """A link of the backbone, and who crosses it."""

    name: str
    mbps: float  # That these units may take, in all.
    mbps_per_unit: float
    pairs: tuple[tuple[str, str], ...]  # (PoP, origin)

    @property
    def units(self) -> float:
        """How many units it carries."""
        return max(0.0, self.mbps) / self.mbps_per_unit


Pairs = Iterable[tuple[str, str]]  # (PoP, origin)


def find_places(
    pops: Sequence[str], origins: Sequence[str], pairs_of: Iterable[Pairs]
) -> list[list[tuple[int, int]]]:
    """The places in these lists of each of the pairs, once; those that are not there are left out.

    By `pairs_of`: of several links, or of one set.
    """
    rows = {name: row for row, name in enumerate(pops)}
    places = {name: place for place, name in enumerate(origins)}
    return [
        [
            (rows[pop], places[origin])
            for pop, origin in dict.fromkeys(pairs)
            if pop in rows and origin in places
        ]
        for pairs in pairs_of
    ]


def find_crossed(
    pops: Sequence[str], origins: Sequence[str], links: Sequence[LinkLimit]
) -> dict[tuple[int, int], list[int]]:
    """The places of the links that each (PoP, origin) crosses; without those that cross none."""
    crossed: dict[tuple[int, int], list[int]] = {}
    for order, crossing in enumerate(find_places(pops, origins, [link.pairs for link in links])):
        for at in crossing:
            crossed.setdefault(at, []).append(order)
    return crossed


class FlowPin(Struct, frozen=True):
    """Units that one origin alone may have; "": none may.

    As a row of the problem that forbids all others, but that takes neither a row nor a choice.
    """

    pop: str  # Its name for links; several may have the same.
    origin: str
    demand: Sequence[float]  # By class.
    rtt_ms: float


class FlowProblem(Struct, frozen=True, kw_only=True):
    """What is wanted and what there is; lists are in the order of `pops` and `origins`.

    Demand and capacity have an item per class, highest first. They may be of one class alone, which
    then weighs as the lowest. `capacity` of a class is what it and those below it may have
    together, so a lower one leaves a reserve to those above.
    """

    pops: Sequence[str]
    origins: Sequence[str]
    demand: Sequence[Sequence[float]]  # Units by PoP, class.
    capacity: Sequence[Sequence[float]]  # Units by origin, class.
    rtt_ms: Sequence[Sequence[float]]  # By PoP, origin; infinite: not known.
    forbidden: frozenset[tuple[str, str]] = frozenset()  # (PoP, origin)
    links: tuple[LinkLimit, ...] = ()
    pins: tuple[FlowPin, ...] = ()  # Beside `demand`; each has the classes that this has.


class FlowSolution(Struct, frozen=True, kw_only=True):
    """The answer, in the order of the problem."""

    units: list[list[list[float]]]  # By PoP, origin, class.
    unserved: list[list[float]]  # By PoP, class.
    origin_prices: list[list[float]]  # By origin, class: ms saved by one more unit of that limit.
    link_prices: dict[str, float]  # ms saved by one more unit; only those above 0.
    cost_ms: float
    iterations: int
    cold: bool  # Begun anew, not from the last solution.
    pinned: list[list[float]] = []  # Of the pins, those that are placed, by class.
    pins_unserved: list[list[float]] = []

    @property
    def served(self) -> float:
        """Units placed."""
        return math.fsum(
            units
            for origins in (*self.units, self.pinned)
            for classes in origins
            for units in classes
        )

    def all_unserved(self) -> list[list[float]]:
        """Units that find no place, by class, of each PoP and each pin."""
        return [*self.unserved, *self.pins_unserved]


class FlowSolve(Protocol):
    """What `solver.FlowSolver.solve` does; raises SolverError."""

    def __call__(self, problem: FlowProblem) -> FlowSolution: ...


class FlowProgram(Protocol):
    """What `solver.FlowSolver` is."""

    def solve(self, problem: FlowProblem) -> FlowSolution:
        """Raises SolverError."""

    def restart(self) -> None:
        """Begin cold."""


class Binding(Struct, frozen=True, kw_only=True):
    """A limit that is reached, and what one more unit of it would be worth."""

    kind: str  # "origin" or "link"
    name: str
    class_label: str  # "" for a link.
    limit: float  # Units.
    price_ms: float


class Unserved(Struct, frozen=True, kw_only=True):
    """Demand that finds no place, and what stands in its way."""

    pop: str
    class_label: str
    units: float
    why: dict[str, str]  # By origin.


class FlowExplanation(Struct, frozen=True, kw_only=True):
    """The answer for people."""

    binding: list[Binding]  # Dearest first.
    unserved: list[Unserved]


def explain_flows(problem: FlowProblem, solution: FlowSolution) -> FlowExplanation:
    """Say which limits bind, what they cost, and who is left out and why."""
    labels = _labels(problem)
    binding = [
        Binding(
            kind="origin",
            name=name,
            class_label=label,
            limit=problem.capacity[place][k],
            price_ms=solution.origin_prices[place][k],
        )
        for place, name in enumerate(problem.origins)
        for k, label in enumerate(labels)
        if solution.origin_prices[place][k] > 0
    ]
    binding += [
        Binding(
            kind="link",
            name=link.name,
            class_label="",
            limit=link.units,
            price_ms=solution.link_prices[link.name],
        )
        for link in problem.links
        if link.name in solution.link_prices
    ]
    binding.sort(key=lambda each: (-each.price_ms, each.kind, each.name, each.class_label))
    unserved = []
    full_links = _full_links(problem, solution)
    for row, pop in enumerate(problem.pops):
        for k, label in enumerate(labels):
            if (units := solution.unserved[row][k]) > TIGHT:
                why = {
                    origin: _why_not(problem, solution, full_links, (row, place, k))
                    for place, origin in enumerate(problem.origins)
                }
                unserved.append(Unserved(pop=pop, class_label=label, units=units, why=why))
    places = {origin: place for place, origin in enumerate(problem.origins)}
    for pin, left in zip(problem.pins, solution.pins_unserved, strict=True):
        for k, label in enumerate(labels):
            if left[k] > TIGHT:
                why = dict.fromkeys(problem.origins, "forbidden")
                if (place := places.get(pin.origin)) is not None:
                    link = full_links.get((pin.pop, pin.origin), "")
                    why[pin.origin] = _why_full(problem, solution, link, (place, k))
                unserved.append(Unserved(pop=pin.pop, class_label=label, units=left[k], why=why))
    return FlowExplanation(binding=binding, unserved=unserved)


def _labels(problem: FlowProblem) -> list[str]:
    """Of the classes that the problem has: the lowest ones."""
    width = next((len(of) for of in (*problem.demand, *problem.capacity)), len(CLASSES))
    return [each.label for each in CLASSES[len(CLASSES) - width :]]


def _full_links(problem: FlowProblem, solution: FlowSolution) -> dict[tuple[str, str], str]:
    """Which full link each (PoP, origin) crosses."""
    full: dict[tuple[str, str], str] = {}
    of_links = find_places(problem.pops, problem.origins, [link.pairs for link in problem.links])
    for link, crossing in zip(problem.links, of_links, strict=True):
        used = math.fsum(units for row, place in crossing for units in solution.units[row][place])
        pairs = set(link.pairs)
        for pin, units in zip(problem.pins, solution.pinned, strict=True):
            if (pin.pop, pin.origin) in pairs:
                used += math.fsum(units)
        if used >= link.units - TIGHT:
            full.update(dict.fromkeys(link.pairs, link.name))
    return full


def _why_not(
    problem: FlowProblem,
    solution: FlowSolution,
    full_links: dict[tuple[str, str], str],
    wanted: tuple[int, int, int],
) -> str:
    """Why one more unit of this (PoP, origin, class), by their places, has no room."""
    row, place, k = wanted
    pair = problem.pops[row], problem.origins[place]
    if pair in problem.forbidden:
        return "forbidden"
    return _why_full(problem, solution, full_links.get(pair, ""), (place, k))


def _why_full(
    problem: FlowProblem, solution: FlowSolution, full_link: str, wanted: tuple[int, int]
) -> str:
    place, k = wanted
    if full_link:
        return f"link {full_link} is full"
    origin = problem.origins[place]
    pinned = [
        units
        for pin, units in zip(problem.pins, solution.pinned, strict=True)
        if pin.origin == origin
    ]
    for width in range(k + 1):
        there = (*(origins[place] for origins in solution.units), *pinned)
        used = math.fsum(units for classes in there for units in classes[width:])
        limit = problem.capacity[place][width]
        if used >= limit - TIGHT:
            return "full" if width == 0 else f"full but for {limit_name(problem, width)}"
    return "its room serves others better"


def limit_name(problem: FlowProblem, width: int) -> str:
    """For whom what lies beyond this limit is kept: the classes above it."""
    return f"what is kept for {_labels(problem)[width - 1]}s"
