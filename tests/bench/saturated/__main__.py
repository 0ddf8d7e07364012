"""`python -m tests.bench.saturated`: more is wanted than there are slots; who has to go without?

Plays config/scenarios/saturated.toml, 8 % beyond all slots at its peak, by the policies that edged
runs by, and holds the mean and the worst of its seeds against the goals.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from edged.tools.simulate.figures import Figures
from edged.tools.simulate.runner import PolicyReport, Report, choose, play
from edged.tools.simulate.scenario import PolicyName, load_scenario
from tests.bench.goals import exit_status, verdict

SCENARIO = Path(__file__).parents[3] / "config" / "scenarios" / "saturated.toml"
POLICIES: tuple[PolicyName, ...] = ("leases", "price")


class Goal(Struct, frozen=True):
    """What a figure is to be; the worst seed must reach it."""

    text: str
    of: Callable[[Figures], float | None]
    wanted: str
    reached: Callable[[float], bool]
    show: str
    policies: tuple[PolicyName, ...] = POLICIES


GOALS = (
    Goal("partners rejected", lambda f: f.rejected_partner, "0", lambda value: value == 0, ".5%"),
    Goal(
        "slots used while more was wanted",
        lambda f: f.full_use,
        ">= 99.9 %",
        lambda value: value >= 0.999,
        ".2%",
        ("leases",),
    ),
    Goal(
        "tries of a stream meanwhile",
        lambda f: f.offers_full,
        "<= 1.4",
        lambda value: value <= 1.4,
        ".3f",
    ),
)


def describe(report: Report) -> str:
    """Each goal of each policy, with whether it was reached."""
    lines = [
        f"{report.scenario}: {report.hours:g} h, {report.pops} PoPs, {report.slots} slots, seeds"
        f" {', '.join(map(str, report.seeds))}; the clairvoyant bound serves"
        f" {report.bound_served:.2%}"
    ]
    for each in report.policies:
        lines += [_line(goal, each) for goal in GOALS if each.policy in goal.policies]
    return "\n".join(lines)


def _line(goal: Goal, each: PolicyReport) -> str:
    mean, worst = goal.of(each.mean), goal.of(each.worst)
    if mean is None or worst is None:
        shown = "it was never so full"
    else:
        shown = f"mean {format(mean, goal.show)}, worst {format(worst, goal.show)}"
    reached = worst is not None and goal.reached(worst)
    return f"{each.policy}, {goal.text}: {shown}; goal {goal.wanted}: {verdict(reached=reached)}"


def main(arguments: list[str]) -> int:
    """Play and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.saturated", description=__doc__)
    parser.add_argument("--scenario", type=Path, default=SCENARIO)
    parser.add_argument("--seeds", type=int, help="so many, from 1 on, for the scenario's")
    given = parser.parse_args(arguments)
    loaded = choose(load_scenario(given.scenario), policies=POLICIES, seeds=given.seeds)

    def tell(name: PolicyName, seed: int) -> None:
        print(f"playing {name}, seed {seed}", file=sys.stderr, flush=True)

    text = describe(play(loaded, told=tell).report)
    print(text)
    return exit_status(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
