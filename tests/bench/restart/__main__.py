"""`python -m tests.bench.restart`: a PoP's first decision after a restart, while IRS is dead.

From the start of the process until it places a stream at an origin, by the routing table that it
kept; an encoder tries to reconnect every 10 ms.
"""

import argparse
import statistics
import sys

import trio

from tests.bench.goals import exit_status, verdict
from tests.e2e.clip import make_clip
from tests.e2e.network import wait_until
from tests.e2e.pair import open_pair
from tests.e2e.restart import restart_without_irs

GOAL_S = 1.0
RUN_S_MAX = 60.0


async def run_once() -> float:
    """The seconds that it took once."""
    clip = make_clip(seconds=14)
    with trio.fail_after(RUN_S_MAX):
        async with open_pair(("fra1",), doomed=("irs", "ams1")) as pair:
            await wait_until((pair.folder / "ams1.table").exists)
            pair.irs.process.kill()
            pair.pop.process.terminate()
            await pair.pop.process.wait()
            async with restart_without_irs(pair, clip, "one") as (_, took_s):
                return took_s


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.restart", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="restarts; their median is told")
    options = parser.parse_args(arguments)
    if options.runs < 1:
        parser.error("--runs must be at least 1")
    took_s = []
    for number in range(1, options.runs + 1):
        took_s.append(trio.run(run_once))
        print(f"restart {number}: {took_s[-1]:.2f} s", file=sys.stderr, flush=True)
    median_s = statistics.median(took_s)
    text = (
        f"from the process's start to its first decision: {median_s:.2f} s, "
        f"{max(took_s):.2f} s at most; goal < {GOAL_S:g} s: {verdict(reached=median_s < GOAL_S)}"
    )
    print(text)
    return exit_status(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
