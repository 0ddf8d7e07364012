"""Goals of a scenario: what figures of a policy are to be, by the mean of all seeds and the worst.

    [goals.leases]
    of_bound = 0.998        # At least: more of it is better.
    rejected_partner = 0.0  # At most.

A figure that did not occur is missed: a goal that cannot be missed shows nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from msgspec import Struct

from edged.tools.simulate.figures import MORE_IS_BETTER, SHARES, Figures

Policy = TypeVar("Policy", bound=str)
Wanted = Mapping[str, float]  # What each figure is to be.


class Verdict(Struct, frozen=True, kw_only=True):
    """One goal, and what came of it."""

    policy: str
    figure: str
    wanted: float
    is_least: bool  # Of what is wanted; else it is the most.
    mean: float | None
    worst: float | None
    reached: bool


def find_goal_problems(goals: Mapping[Policy, Wanted], policies: Sequence[Policy]) -> Iterator[str]:
    """Say which goals nobody can reach or miss."""
    figures = Figures.__struct_fields__
    for policy, wanted in goals.items():
        if policy not in policies:
            yield f"goals.{policy}: none of the scenario's policies, {', '.join(policies)}"
        for figure, value in wanted.items():
            key = f"goals.{policy}.{figure}"
            if figure not in figures:
                yield f"{key}: unknown; one of {', '.join(figures)}"
            elif figure in SHARES and value > 1:
                yield f"{key}: {value:g} is not allowed: a share is 0 to 1"


def judge(
    goals: Mapping[Policy, Wanted], policy: Policy, mean: Figures, worst: Figures
) -> Iterator[Verdict]:
    """Hold a policy's figures against its goals."""
    for figure, wanted in goals.get(policy, {}).items():
        is_least = figure in MORE_IS_BETTER
        both = [getattr(mean, figure), getattr(worst, figure)]
        yield Verdict(
            policy=policy,
            figure=figure,
            wanted=wanted,
            is_least=is_least,
            mean=both[0],
            worst=both[1],
            reached=all(
                value is not None and (value >= wanted if is_least else value <= wanted)
                for value in both
            ),
        )
