"""`python -m tests.bench.playback`: what viewers cost, beside nginx and a loop in C."""

import argparse
import statistics
import sys
from collections.abc import Sequence

import msgspec

from edged.errors import EdgedError
from tests.bench.goals import exit_status, verdict
from tests.bench.playback.bench import PART_BYTES, Round, run_rounds

PLAYLIST_GOAL = 0.4  # Of nginx's requests/s per core, at least.
PART_GOAL = 1.0  # The same.
RELEASE_GOAL = 1.5  # Of the C loop's time, at most.


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.playback", description=__doc__)
    parser.add_argument("--seconds", type=int, default=5, help="of each load, in turns of 1 s")
    parser.add_argument("--waiters", type=int, default=2000, help="blocked requests to release")
    parser.add_argument("--runs", type=int, default=5, help="rounds; the table has their medians")
    parser.add_argument("--json", action="store_true", help="print JSON, every round included")
    found = parser.parse_args(arguments)
    if found.seconds < 1 or found.waiters < 1 or found.runs < 1:
        parser.error("--seconds, --waiters and --runs must be at least 1")
    return found


def as_table(rounds: Sequence[Round], waiters: int) -> str:
    """Medians of the rounds; each ratio is the median of the rounds' own."""

    def median(values: Sequence[float]) -> float:
        return statistics.median(values)

    playlist_bytes = rounds[0].edged_playlist.body_bytes
    lines = [f"{'':44}{'edged':>10}{'beside':>12}{'ratio':>8}   goal"]
    for what, ours, theirs, goal, words in (
        (f"playlist of {playlist_bytes} B, requests/s per core",
         [r.edged_playlist.per_cpu_s for r in rounds],
         [r.nginx_playlist.per_cpu_s for r in rounds], PLAYLIST_GOAL, ">= {:g} x nginx"),
        (f"part of {PART_BYTES // 1000} KB, requests/s per core",
         [r.edged_part.per_cpu_s for r in rounds],
         [r.nginx_part.per_cpu_s for r in rounds], PART_GOAL, ">= {:g} x nginx"),
        (f"release of {waiters} blocked, ms",
         [r.edged_release_us / 1000 for r in rounds],
         [r.c_release_us / 1000 for r in rounds], RELEASE_GOAL, "<= {:g} x C"),
    ):  # fmt: skip
        ratio = median([a / b for a, b in zip(ours, theirs, strict=True)])
        told = verdict(reached=ratio <= goal if words.startswith("<") else ratio >= goal)
        lines.append(
            f"{what:44}{median(ours):10,.1f}{median(theirs):12,.1f}{ratio:8.2f}"
            f"   {words.format(goal)}: {told}"
        )
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    options = parse_arguments(arguments)
    try:
        rounds = run_rounds(
            options.runs,
            options.seconds,
            options.waiters,
            lambda line: print(line, file=sys.stderr, flush=True),
        )
    except EdgedError as error:
        print(str(error), file=sys.stderr)
        return 1
    if options.json:
        print(msgspec.json.encode(rounds).decode())
    else:
        print(as_table(rounds, options.waiters))
    return exit_status(as_table(rounds, options.waiters))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
