"""The solver: the best there is, whole, the same each time, and an answer to everything."""

import math
import random

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.errors import SolverError
from edged.policy import linear_program
from edged.policy.flows import (
    UNSERVED_MS,
    FlowPin,
    FlowProblem,
    FlowSolution,
    LinkLimit,
    explain_flows,
)
from edged.policy.solver import PROGRAMS_MAX, FlowSolver
from tests.policy.flow_problems import least_cost, problems


def check_limits(problem: FlowProblem, solution: FlowSolution) -> None:
    """No limit is passed, no unit is lost or made, no number is none."""
    for row, pop in enumerate(problem.pops):
        for k, wanted in enumerate(problem.demand[row]):
            placed = [solution.units[row][place][k] for place in range(len(problem.origins))]
            assert min([*placed, solution.unserved[row][k]]) >= 0
            assert math.fsum([*placed, solution.unserved[row][k]]) == pytest.approx(wanted)
        for place, origin in enumerate(problem.origins):
            if (pop, origin) in problem.forbidden:
                assert not any(solution.units[row][place])
    for place in range(len(problem.origins)):
        for k, limit in enumerate(problem.capacity[place]):
            used = sum(sum(origins[place][k:]) for origins in solution.units)
            assert used <= limit + 1e-6
    for link in problem.links:
        used = sum(
            sum(solution.units[problem.pops.index(pop)][problem.origins.index(origin)])
            for pop, origin in link.pairs
        )
        assert used * link.mbps_per_unit <= link.mbps + 1e-6


@hypothesis.given(problems())
@hypothesis.settings(max_examples=150, deadline=None)
def test_nothing_is_better_of_all_that_there_is(problem: FlowProblem) -> None:
    solution = FlowSolver().solve(problem)
    check_limits(problem, solution)
    best = least_cost(problem)
    # A part of a unit may do better where a link cuts; without one all is whole.
    assert solution.cost_ms <= best + 1e-3
    if not problem.links:
        assert solution.cost_ms == pytest.approx(best, abs=1e-3)
        assert all(units == int(units) for row in solution.units for of in row for units in of)


@st.composite
def pinned(draw: st.DrawFn) -> FlowProblem:
    """With pins to origins that are there, one that is not, and none; some cross the link."""
    problem = draw(problems())
    width = len(problem.capacity[0])
    pins = tuple(
        FlowPin(
            f"pin{number}",
            draw(st.sampled_from([*problem.origins, *problem.origins, "gone", ""])),
            draw(st.lists(st.integers(0, 3), min_size=width, max_size=width)),
            draw(st.sampled_from([0.0, 7.0, 900.0, 2000.0, math.inf])),
        )
        for number in range(draw(st.integers(1, 4)))
    )
    pairs = [(pin.pop, pin.origin) for pin in pins if pin.origin in problem.origins]
    crossing = draw(st.sets(st.sampled_from(pairs))) if pairs else set[tuple[str, str]]()
    links = tuple(
        msgspec.structs.replace(link, pairs=(*link.pairs, *sorted(crossing)))
        for link in problem.links
    )
    return msgspec.structs.replace(problem, pins=pins, links=links)


def with_rows(problem: FlowProblem) -> FlowProblem:
    """Each pin as a PoP that may not go anywhere else."""
    pins = problem.pins
    return msgspec.structs.replace(
        problem,
        pins=(),
        pops=[*problem.pops, *(pin.pop for pin in pins)],
        demand=[*problem.demand, *(pin.demand for pin in pins)],
        rtt_ms=[*problem.rtt_ms, *([pin.rtt_ms] * len(problem.origins) for pin in pins)],
        forbidden=problem.forbidden
        | {(pin.pop, name) for pin in pins for name in problem.origins if name != pin.origin},
    )


@hypothesis.given(pinned())
@hypothesis.settings(max_examples=200, deadline=None)
def test_pins_are_as_good_as_the_rows_that_they_stand_for(problem: FlowProblem) -> None:
    solution, whole = FlowSolver().solve(problem), FlowSolver().solve(with_rows(problem))
    assert solution.cost_ms == pytest.approx(whole.cost_ms, rel=1e-9, abs=1e-3)
    assert solution.served == pytest.approx(whole.served, abs=1e-6)
    for k in range(len(problem.capacity[0])):
        left = math.fsum(classes[k] for classes in solution.all_unserved())
        assert left == pytest.approx(math.fsum(row[k] for row in whole.unserved), abs=1e-6)
    # Its answer is one of those of the whole program.
    rows = [
        [units if origin == pin.origin else [0.0] * len(units) for origin in problem.origins]
        for pin, units in zip(problem.pins, solution.pinned, strict=True)
    ]
    check_limits(
        with_rows(problem),
        msgspec.structs.replace(
            solution, units=[*solution.units, *rows], unserved=solution.all_unserved()
        ),
    )
    explained = explain_flows(problem, solution)
    assert sum(each.units for each in explained.unserved) == pytest.approx(
        math.fsum(map(math.fsum, solution.all_unserved())), abs=1e-4
    )
    assert all(each.why for each in explained.unserved)


@hypothesis.given(st.lists(st.integers(0, 1000), min_size=2, max_size=5), st.floats(0.5, 1.5))
@hypothesis.settings(max_examples=20, deadline=None)
def test_with_pins_warm_is_as_good_as_cold(seeds: list[int], load: float) -> None:
    solver = FlowSolver()
    for seed in seeds:
        problem = world(seed, load=load)
        pins = tuple(
            FlowPin(name, problem.origins[row % 4], [0, 1, 9 + seed % 7], 5.0)
            for row, name in enumerate(problem.pops)
        )
        problem = msgspec.structs.replace(problem, pins=pins)
        warm = solver.solve(problem)
        whole = FlowSolver().solve(with_rows(renamed(problem)))
        assert warm.cost_ms == pytest.approx(whole.cost_ms, rel=1e-9)
    assert not warm.cold


def renamed(problem: FlowProblem) -> FlowProblem:
    pins = tuple(msgspec.structs.replace(pin, pop=f"pin {pin.pop}") for pin in problem.pins)
    return msgspec.structs.replace(problem, pins=pins)


def test_pins_alone_are_a_problem_too() -> None:
    problem = FlowProblem(
        pops=[],
        origins=["o"],
        demand=[],
        capacity=[[3.0]],
        rtt_ms=[],
        pins=(FlowPin("p", "o", [2.0], 5.0), FlowPin("q", "o", [2.0], 7.0)),
    )
    solution = FlowSolver().solve(problem)
    assert (solution.pinned, solution.pins_unserved) == ([[2.0], [1.0]], [[0.0], [1.0]])
    (left,) = explain_flows(problem, solution).unserved
    assert (left.pop, left.units, left.why) == ("q", 1.0, {"o": "full"})
    nowhere = msgspec.structs.replace(problem, origins=[], capacity=[])
    assert FlowSolver().solve(nowhere).pins_unserved == [[2.0], [2.0]]


def world(seed: int, *, pops: int = 12, origins: int = 4, load: float = 0.9) -> FlowProblem:
    """A network like a real one."""
    rng = random.Random(seed)  # noqa: S311 - a world, not a secret
    demand = [[float(rng.randrange(20 * size)) for size in (1, 3, 9)] for _ in range(pops)]
    total = sum(map(sum, demand)) / load
    sizes = [rng.uniform(0.5, 1.5) for _ in range(origins)]
    capacity = [math.ceil(total * size / sum(sizes)) for size in sizes]
    return FlowProblem(
        pops=[f"p{n}" for n in range(pops)],
        origins=[f"o{n}" for n in range(origins)],
        demand=demand,
        capacity=[[slots, slots - 2, slots - 2] for slots in capacity],
        rtt_ms=[[round(rng.uniform(1, 150), 1) for _ in range(origins)] for _ in range(pops)],
    )


def test_the_same_problem_from_cold_gives_the_same_bytes() -> None:
    first = FlowSolver().solve(world(1))
    busy = FlowSolver()
    for seed in (2, 3, 1):
        busy.solve(world(seed))
    busy.restart()
    again = busy.solve(world(1))
    assert (first.cold, again) == (True, first)


def test_a_sequence_from_a_checkpoint_gives_the_same_bytes() -> None:
    """Warm starts depend on what came before; the same before gives the same after."""
    runs = []
    for _ in range(2):
        solver = FlowSolver()
        runs.append([solver.solve(world(seed)) for seed in (1, 2, 3, 1)])
    assert runs[0] == runs[1]
    assert [solution.cold for solution in runs[0]] == [True, False, False, False]


@hypothesis.given(st.lists(st.integers(0, 1000), min_size=2, max_size=5), st.floats(0.5, 1.5))
@hypothesis.settings(max_examples=30, deadline=None)
def test_warm_is_as_good_as_cold(seeds: list[int], load: float) -> None:
    solver = FlowSolver()
    for seed in seeds:
        problem = world(seed, load=load)
        warm = solver.solve(problem)
        check_limits(problem, warm)
        assert warm.cost_ms == pytest.approx(FlowSolver().solve(problem).cost_ms, rel=1e-9)


def test_the_lowest_class_is_left_out_first() -> None:
    problem = FlowProblem(
        pops=["p"],
        origins=["far"],
        demand=[[4.0, 4.0, 4.0]],
        capacity=[[6.0, 5.0, 5.0]],
        rtt_ms=[[900.0]],
    )
    solution = FlowSolver().solve(problem)
    assert solution.unserved == [[0.0, 2.0, 4.0]]


def test_the_reserve_is_for_partners() -> None:
    """Of 10 slots the others may have 8, whatever they want."""
    problem = FlowProblem(
        pops=["p"], origins=["o"], demand=[[3, 0, 20]], capacity=[[10, 8, 8]], rtt_ms=[[1]]
    )
    solution = FlowSolver().solve(problem)
    assert solution.units == [[[3.0, 0.0, 7.0]]]
    none = FlowProblem(
        pops=["p"], origins=["o"], demand=[[0, 0, 20]], capacity=[[10, 8, 8]], rtt_ms=[[1]]
    )
    assert FlowSolver().solve(none).units == [[[0.0, 0.0, 8.0]]]


def test_prices_say_what_one_more_unit_is_worth() -> None:
    """With a slot more at the near origin one stream would save 40 ms; the far one has room."""
    problem = FlowProblem(
        pops=["p"], origins=["far", "near"], demand=[[5]], capacity=[[9], [3]], rtt_ms=[[50, 10]]
    )
    solution = FlowSolver().solve(problem)
    assert solution.units == [[[2.0], [3.0]]]
    assert solution.origin_prices == [[0.0], [40.0]]
    linked = FlowProblem(
        pops=["p"],
        origins=["far", "near"],
        demand=[[5]],
        capacity=[[9], [9]],
        rtt_ms=[[50, 10]],
        links=(LinkLimit(name="cable", mbps=12, mbps_per_unit=6, pairs=(("p", "near"),)),),
    )
    solution = FlowSolver().solve(linked)
    assert solution.units == [[[3.0], [2.0]]]
    assert solution.link_prices == {"cable": 40.0}


@pytest.mark.parametrize(
    ("pops", "origins", "unserved"), [([], [], []), (["p"], [], [[1.0, 0.0, 2.0]]), ([], ["o"], [])]
)
def test_without_pops_or_origins_there_is_an_answer(
    pops: list[str], origins: list[str], unserved: list[list[float]]
) -> None:
    solution = FlowSolver().solve(
        FlowProblem(
            pops=pops,
            origins=origins,
            demand=[[1, 0, 2] for _ in pops],
            capacity=[[5, 5, 5] for _ in origins],
            rtt_ms=[[] for _ in pops],
        )
    )
    assert solution.unserved == unserved
    assert solution.cost_ms == (UNSERVED_MS[0] + 2 * UNSERVED_MS[2] if pops else 0)


def test_what_is_not_measured_comes_after_what_is() -> None:
    problem = FlowProblem(
        pops=["p", "new"],
        origins=["far", "unknown"],
        demand=[[4], [2]],
        capacity=[[5], [5]],
        rtt_ms=[[300.0, math.nan], [math.inf, math.inf]],
    )
    solution = FlowSolver().solve(problem)
    assert solution.units[0] == [[4.0], [0.0]]
    assert sum(solution.units[1][place][0] for place in range(2)) == 2


def test_zero_and_negative_capacity_leave_all_unserved() -> None:
    problem = FlowProblem(
        pops=["p"],
        origins=["a", "b"],
        demand=[[1, 2, 3]],
        capacity=[[0] * 3, [-5] * 3],
        rtt_ms=[[1, 2]],
    )
    solution = FlowSolver().solve(problem)
    assert solution.unserved == [[1.0, 2.0, 3.0]]
    assert solution.units == [[[0.0] * 3, [0.0] * 3]]


@pytest.mark.parametrize("what", ["demand", "capacity", "link"])
def test_a_number_that_is_none_is_an_error_and_the_next_problem_is_solved(what: str) -> None:
    def problem(value: float) -> FlowProblem:
        return FlowProblem(
            pops=["p"],
            origins=["o"],
            demand=[[value if what == "demand" else 1.0]],
            capacity=[[value if what == "capacity" else 1.0]],
            rtt_ms=[[1.0]],
            links=(
                LinkLimit(
                    name="cable",
                    mbps=value if what == "link" else 1.0,
                    mbps_per_unit=1.0,
                    pairs=(("p", "o"),),
                ),
            ),
        )

    solver = FlowSolver()
    solver.solve(problem(1.0))
    with pytest.raises(SolverError, match=what):
        solver.solve(problem(math.nan))
    assert solver.solve(problem(1.0)).unserved == [[0.0]]


def test_too_large_a_problem_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_program, "COLUMNS_MAX", 12 * 4 * 3 + 12 * 3)
    FlowSolver().solve(world(1))
    with pytest.raises(SolverError, match=r"of 195 columns exceeds 180"):
        FlowSolver().solve(world(1, pops=13))


def test_programs_that_are_kept_are_bounded_and_used_again() -> None:
    solver = FlowSolver()
    for pops in range(3, 4 + PROGRAMS_MAX):
        solver.solve(world(1, pops=pops))
    assert solver.solve(world(1, pops=3)).cold
    assert not solver.solve(world(1, pops=3 + PROGRAMS_MAX)).cold


def test_more_room_never_costs_and_more_demand_never_saves() -> None:
    base = world(5, load=1.05)
    cost = FlowSolver().solve(base).cost_ms
    for place in range(len(base.origins)):
        capacity = [list(classes) for classes in base.capacity]
        capacity[place] = [units + 10 for units in capacity[place]]
        roomier = msgspec.structs.replace(base, capacity=capacity)
        assert FlowSolver().solve(roomier).cost_ms <= cost
    for row in range(len(base.pops)):
        demand = [list(classes) for classes in base.demand]
        demand[row][0] += 1
        assert FlowSolver().solve(msgspec.structs.replace(base, demand=demand)).cost_ms >= cost
