"""The solver's answer in words: what binds, what it costs, who is left out and why."""

import hypothesis

from edged.policy.flows import (
    RTT_MS_MAX,
    RTT_UNKNOWN_MS,
    UNSERVED_MS,
    FlowProblem,
    LinkLimit,
    explain_flows,
    find_crossed,
    find_places,
)
from edged.policy.solver import FlowSolver
from tests.policy.flow_problems import problems


def test_no_detour_outweighs_a_unit_served_nor_a_class_the_one_above() -> None:
    partner, affiliate, basic = UNSERVED_MS
    assert partner >= 10 * affiliate >= 100 * basic >= 1000 * RTT_MS_MAX
    assert RTT_UNKNOWN_MS < RTT_MS_MAX


def test_each_limit_that_binds_has_its_price_and_each_left_out_its_reasons() -> None:
    problem = FlowProblem(
        pops=["ams", "lhr"],
        origins=["full", "kept", "over-there", "shut"],
        demand=[[0, 0, 4], [0, 0, 1]],
        capacity=[[2, 2, 2], [3, 1, 1], [9, 9, 9], [9, 9, 9]],
        rtt_ms=[[5, 9, 20, 1], [5, 9, 20, 1]],
        forbidden=frozenset({("ams", "shut"), ("lhr", "shut")}),
        links=(
            LinkLimit(
                name="cable",
                mbps=6,
                mbps_per_unit=6,
                pairs=(("ams", "over-there"), ("lhr", "over-there"), ("gone", "full")),
            ),
        ),
    )
    solution = FlowSolver().solve(problem)
    explained = explain_flows(problem, solution)
    (left_out,) = explained.unserved
    assert (left_out.class_label, left_out.units) == ("basic", 1.0)
    assert left_out.why == {
        "full": "full",
        "kept": "full but for what is kept for partners",
        "over-there": "link cable is full",
        "shut": "forbidden",
    }
    dearest = explained.binding[0]
    assert dearest.name == "full"
    assert dearest.price_ms == UNSERVED_MS[2] - 5
    assert {(each.kind, each.name) for each in explained.binding} == {
        ("origin", "full"),
        ("origin", "kept"),
        ("link", "cable"),
    }
    assert {each.name: each.limit for each in explained.binding if each.kind == "link"} == {
        "cable": 1.0
    }


def test_nothing_binds_where_there_is_room() -> None:
    problem = FlowProblem(
        pops=["ams"], origins=["o"], demand=[[1, 1, 1]], capacity=[[9, 9, 9]], rtt_ms=[[1]]
    )
    explained = explain_flows(problem, FlowSolver().solve(problem))
    assert (explained.binding, explained.unserved) == ([], [])


@hypothesis.given(problems())
@hypothesis.settings(max_examples=60, deadline=None)
def test_who_is_left_out_is_told_a_limit_for_every_origin(problem: FlowProblem) -> None:
    solution = FlowSolver().solve(problem)
    explained = explain_flows(problem, solution)
    left = sum(units for classes in solution.unserved for units in classes)
    assert sum(each.units for each in explained.unserved) == left
    for each in explained.unserved:
        assert set(each.why) == set(problem.origins)
        # A unit is left out at the cost of every origin that it may use, so none of them has room.
        assert "its room serves others better" not in each.why.values()
    prices = [each.price_ms for each in explained.binding]
    assert prices == sorted(prices, reverse=True)


def test_pairs_are_found_by_their_places_once_and_the_others_left_out() -> None:
    pairs = [("b", "o1"), ("a", "o2"), ("b", "o1"), ("gone", "o1"), ("a", "gone")]
    assert find_places(["a", "b"], ["o1", "o2"], [pairs, [], frozenset({("b", "o2")})]) == [
        [(1, 0), (0, 1)],
        [],
        [(1, 1)],
    ]
    assert find_places([], [], [pairs]) == [[]]


def test_links_that_a_pair_crosses_are_each_there_once() -> None:
    def link(name: str, *pairs: tuple[str, str]) -> LinkLimit:
        return LinkLimit(name=name, mbps=1, mbps_per_unit=1, pairs=pairs)

    links = (
        link("x", ("b", "o1"), ("a", "o2"), ("b", "o1")),
        link("nobody's"),
        link("y", ("gone", "o1"), ("b", "o1")),
    )
    assert find_crossed(["a", "b"], ["o1", "o2"], links) == {(1, 0): [0, 2], (0, 1): [0]}
    assert find_crossed(["a"], ["o1"], ()) == {}
