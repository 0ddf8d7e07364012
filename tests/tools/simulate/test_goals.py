"""Goals: both mean and worst have to reach them, and none can be set that nobody can miss."""

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.tools.simulate.figures import MORE_IS_BETTER, Figures
from edged.tools.simulate.goals import find_goal_problems, judge
from tests.tools.simulate.test_figures import made


@pytest.mark.parametrize(
    ("mean", "worst", "reached"),
    [(0.999, 0.998, True), (0.999, 0.9979, False), (0.9979, 0.9979, False), (None, None, False)],
)
def test_of_what_is_better_if_more_the_goal_is_the_least(
    mean: float | None, worst: float | None, *, reached: bool
) -> None:
    goals = {"leases": {"of_bound": 0.998}}
    (verdict,) = judge(goals, "leases", made(of_bound=mean), made(of_bound=worst))
    assert verdict.is_least
    assert (verdict.mean, verdict.worst, verdict.reached) == (mean, worst, reached)


@pytest.mark.parametrize(
    ("mean", "worst", "reached"), [(1.2, 1.4, True), (1.2, 1.400001, False), (1.5, 1.4, False)]
)
def test_else_it_is_the_most(mean: float, worst: float, *, reached: bool) -> None:
    goals = {"price": {"offers_full": 1.4}}
    (verdict,) = judge(goals, "price", made(offers_full=mean), made(offers_full=worst))
    assert (verdict.is_least, verdict.reached) == (False, reached)


@hypothesis.given(st.sampled_from(Figures.__struct_fields__), st.floats(0.1, 0.9))
def test_every_figure_can_be_a_goal_that_is_reached_and_missed(figure: str, wanted: float) -> None:
    goals = {"leases": {figure: wanted}}
    assert list(find_goal_problems(goals, ["leases"])) == []
    more, less = made(**{figure: wanted + 0.01}), made(**{figure: wanted - 0.01})
    good, bad = (more, less) if figure in MORE_IS_BETTER else (less, more)
    found = [
        [verdict.reached for verdict in judge(goals, "leases", *both)]
        for both in ((good, good), (good, bad), (bad, good), (bad, bad))
    ]
    assert found == [[True], [False], [False], [False]]
    exact = msgspec.structs.replace(good, **{figure: wanted})
    assert next(judge(goals, "leases", exact, exact)).reached


def test_goals_of_other_policies_are_not_judged() -> None:
    assert list(judge({"leases": {"cut": 0}}, "price", made(), made())) == []


def test_what_nobody_can_reach_or_miss_is_named() -> None:
    goals = {"leases": {"best": 1.0, "served": 99.8}, "greedy": {"cut": 0.0}}
    unknown, share, stranger = find_goal_problems(goals, ["leases", "price"])
    assert unknown.startswith("goals.leases.best: unknown; one of served, of_bound, ")
    assert share == "goals.leases.served: 99.8 is not allowed: a share is 0 to 1"
    assert stranger == "goals.greedy: none of the scenario's policies, leases, price"
