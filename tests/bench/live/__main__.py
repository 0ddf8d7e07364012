"""`python -m tests.bench.live`: how soon an IRS that was killed knows again who is live where."""

import argparse
import logging
import sys

import structlog
import trio

from tests.bench.goals import exit_status, verdict
from tests.bench.live.bench import Rebuilt, rebuild

TOLD_S_GOAL = 1.0
RSS_MB_GOAL = 100.0
CORES_GOAL = 0.10


def report(rebuilt: Rebuilt) -> str:
    """The figures, and whether those that have goals reached them."""
    return "\n".join(
        (
            f"{rebuilt.channels} channels: the last PoP was back {rebuilt.joined_s:.2f} s after the"
            f" listener, all was known {rebuilt.known_s:.2f} s after it",
            f"all was known {rebuilt.told_s:.2f} s after the last PoP was back; goal <"
            f" {TOLD_S_GOAL:g} s: {verdict(reached=rebuilt.told_s < TOLD_S_GOAL)}",
            f"IRS, until then: {rebuilt.cpu_s:.2f} s of CPU; memory: {rebuilt.rss_mb:.0f} MB; goal"
            f" < {RSS_MB_GOAL:g} MB: {verdict(reached=rebuilt.rss_mb < RSS_MB_GOAL)}",
            f"IRS, while streams move: {100 * rebuilt.cores:.1f} % of a core; goal <"
            f" {100 * CORES_GOAL:g} %: {verdict(reached=rebuilt.cores < CORES_GOAL)}",
        )
    )


def main(arguments: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.live", description=__doc__)
    parser.add_argument("--pops", type=int, default=100)
    parser.add_argument("--streams", type=int, default=1000, help="at each PoP")
    parser.add_argument("--seconds", type=float, default=10.0, help="of streams that move")
    given = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    print(f"{given.pops} PoPs, {given.streams} streams at each", flush=True)
    rebuilt = trio.run(lambda: rebuild(given.pops, given.streams, seconds=given.seconds))
    text = report(rebuilt)
    print(text)
    return exit_status(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
