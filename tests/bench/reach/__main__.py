"""`python -m tests.bench.reach`: replicas by plan beside pull-through, and what planning costs."""

import argparse
import sys

from tests.bench.goals import exit_status, verdict
from tests.bench.reach.bench import BIG_VIEWERS, Figures, measure

FIRST_S_GOAL = 0.5
PLAN_S_GOAL = 0.1
STEP_MS_GOAL = 50.0
AUDIENCES = {"regional": 0.02, "worldwide": 0.3}


def report(audience: str, found: list[Figures]) -> str:
    """The figures, means and worsts over the seeds, and whether goals were reached."""

    def mean(name: str) -> float:
        return float(sum(getattr(each, name) for each in found)) / len(found)

    first_s, plan_s = (max(getattr(e, name) for e in found) for name in ("plan_s", "replan_s"))
    step_ms = 1000 * max(each.step_s for each in found)
    return "\n".join(
        (
            f"{audience} audience, {len(found)} seeds: {mean('big'):.0f} channels have"
            f" {BIG_VIEWERS} viewers or more; of these:",
            f"  by plan {mean('replicas'):.1f} replicas, {max(e.replicas_most for e in found)} at"
            f" most, put {100 * mean('covered_mean'):.1f} % of viewers within 40 ms of a copy"
            f" ({100 * min(e.covered for e in found):.1f} % at the worst channel);"
            f" pull-through has copies at {mean('pulled'):.1f} PoPs",
            f"  with a relay at each replica {100 * mean('from_origins'):.0f} % of pull-through's"
            f" copies would leave an origin, carried over {100 * mean('carried'):.0f} % of its"
            f" round trips; a PoP's first part would come over {mean('first_ms'):.0f} ms in place"
            f" of {mean('first_pulled_ms'):.0f} ms",
            f"  replicas hold {mean('hold_mbps'):.0f} Mbps that nobody watches there;"
            f" of whole ladders it would be {mean('whole_mbps'):.0f} Mbps",
            f"  {mean('planned'):.0f} of {found[0].channels} channels are planned for in"
            f" {first_s:.2f} s of CPU at most; goal < {FIRST_S_GOAL:g} s:"
            f" {verdict(reached=first_s < FIRST_S_GOAL)}",
            f"  a plan after that looks at {max(e.looked_at for e in found)} of them at most, in"
            f" {plan_s:.3f} s; goal < {PLAN_S_GOAL:g} s: {verdict(reached=plan_s < PLAN_S_GOAL)}",
            f"  the loop is held up for {step_ms:.1f} ms at most; goal < {STEP_MS_GOAL:g} ms:"
            f" {verdict(reached=step_ms < STEP_MS_GOAL)}",
            f"  when all audiences change by 5 % by chance, {max(e.changed for e in found)} orders"
            " change at most",
        )
    )


def main(arguments: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.reach", description=__doc__)
    parser.add_argument("--channels", type=int, default=1000)
    parser.add_argument("--viewers", type=int, default=200_000)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args(arguments)
    print(f"100 PoPs, 10 origins, {given.channels} channels, {given.viewers} viewers", flush=True)
    texts = []
    for audience, everywhere in AUDIENCES.items():
        found = [
            measure(seed, given.channels, given.viewers, everywhere)
            for seed in range(1, given.seeds + 1)
        ]
        texts.append(report(audience, found))
        print(texts[-1], flush=True)
    return exit_status("\n".join(texts))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
