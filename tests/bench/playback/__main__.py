"""`python -m tests.bench.playback`: what viewers cost, beside nginx and a loop in C."""

import argparse
import statistics
import sys
from collections.abc import Sequence

import msgspec

from edged.errors import EdgedError
from tests.bench.goals import exit_status, verdict
from tests.bench.playback.bench import Options, Round, run_rounds
from tests.bench.playback.load import Protocol

GOALS: dict[
    tuple[str, Protocol], float
] = {  # Of nginx's requests/s per core, at least: by what is asked for, and how.
    ("playlist", "h1"): 0.4,
    ("part", "h1"): 1.0,
    ("playlist", "h1s"): 0.7,
    ("part", "h1s"): 0.9,
    ("playlist", "h2"): 0.6,
    ("part", "h2"): 0.85,
}
RELEASE_GOAL = 1.5  # Of the C loop's time, at most.
IDLE_GOALS = {False: 4096, True: 20480}  # Bytes of a connection at most: plain, TLS.
NAMES: dict[Protocol, str] = {"h1": "", "h1s": " over TLS", "h2": " over TLS and HTTP/2"}


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.playback", description=__doc__)
    parser.add_argument("--seconds", type=int, default=5, help="of each load, in turns of 1 s")
    parser.add_argument("--waiters", type=int, default=2000, help="blocked requests to release")
    parser.add_argument("--idle", type=int, default=1000, help="connections that wait")
    parser.add_argument("--runs", type=int, default=5, help="rounds; the table has their medians")
    parser.add_argument("--json", action="store_true", help="print JSON, every round included")
    found = parser.parse_args(arguments)
    if min(found.seconds, found.waiters, found.idle, found.runs) < 1:
        parser.error("--seconds, --waiters, --idle and --runs must be at least 1")
    return found


def as_table(rounds: Sequence[Round], waiters: int) -> str:
    """Medians of the rounds; each ratio is the median of the rounds' own."""
    lines = [f"{'':57}{'edged':>10}{'beside':>10}{'ratio':>7}   goal"]
    for index, row in enumerate(rounds[0].rows):
        rows = [each.rows[index] for each in rounds]
        goal = GOALS[row.what, row.protocol]
        size = f"{row.edged.body_bytes:,} B"
        ratio = statistics.median(r.edged.per_cpu_s / r.nginx.per_cpu_s for r in rows)
        lines.append(
            _line(
                f"{row.what} of {size}{NAMES[row.protocol]}, /s per core",
                statistics.median(r.edged.per_cpu_s for r in rows),
                statistics.median(r.nginx.per_cpu_s for r in rows),
                f"{ratio:.2f}",
                f">= {goal:g} x nginx: {verdict(reached=ratio >= goal)}",
            )
        )
    for index, idle in enumerate(rounds[0].idle):
        ours = statistics.median(each.idle[index].edged for each in rounds)
        theirs = statistics.median(each.idle[index].nginx for each in rounds)
        goal = IDLE_GOALS[idle.tls]
        what = f"idle connection{' over TLS' if idle.tls else ''}, bytes of memory"
        reached = verdict(reached=ours <= goal)
        lines.append(_line(what, ours, theirs, "", f"<= {goal:,}: {reached}"))
    ratio = statistics.median(each.edged_release_us / each.c_release_us for each in rounds)
    lines.append(
        _line(
            f"release of {waiters} blocked, ms",
            statistics.median(each.edged_release_us for each in rounds) / 1000,
            statistics.median(each.c_release_us for each in rounds) / 1000,
            f"{ratio:.2f}",
            f"<= {RELEASE_GOAL:g} x C: {verdict(reached=ratio <= RELEASE_GOAL)}",
        )
    )
    over_tls = statistics.median(each.edged_tls_release_us for each in rounds) / 1000
    lines.append(f"{f'release of {waiters} blocked over TLS, ms':57}{over_tls:10,.1f}")
    return "\n".join(lines)


def _line(what: str, ours: float, theirs: float, ratio: str, goal: str) -> str:
    digits = 0 if ours >= 1000 else 1
    return f"{what:57}{ours:10,.{digits}f}{theirs:10,.{digits}f}{ratio:>7}   {goal}"


def main(arguments: list[str]) -> int:
    options = parse_arguments(arguments)
    try:
        rounds = run_rounds(
            options.runs,
            Options(options.seconds, options.waiters, options.idle),
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
