"""`python -m tests.bench.latency`: glass to glass, with stock hls.js and with our watch page."""

import argparse
import sys

import trio

from edged.cli.run import until_signal
from edged.errors import EdgedError
from tests.bench.goals import exit_status
from tests.bench.latency import report
from tests.bench.latency.bench import leaves, run_rounds
from tests.bench.latency.report import ROWS, Outcome, Row

RUNS_MAX = 50
SECONDS_MIN, SECONDS_MAX = 1.0, 600.0  # The whole stream is encoded beforehand, and kept in memory.


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.latency", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="of each row (default 5)")
    parser.add_argument("--seconds", type=float, default=30.0, help="measured in each run")
    parser.add_argument(
        "--row",
        action="append",
        choices=[row.name for row in ROWS],
        help="only this row; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, every run included")
    found = parser.parse_args(arguments)
    if not 1 <= found.runs <= RUNS_MAX:
        parser.error(f"--runs must be in 1..{RUNS_MAX}")
    if not SECONDS_MIN <= found.seconds <= SECONDS_MAX:
        parser.error(f"--seconds must be in {SECONDS_MIN:g}..{SECONDS_MAX:g}")
    return found


def choose_rows(names: list[str] | None) -> list[Row]:
    """The rows, in the order in which each round runs them."""
    return [row for row in ROWS if names is None or row.name in names]


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    options = parse_arguments(arguments)
    rows = choose_rows(options.row)
    outcomes: list[Outcome] = []

    async def run() -> None:
        outcomes.extend(await run_rounds(rows, options.runs, options.seconds, tell))

    try:
        trio.run(until_signal, run)  # A signal, too, ends browser and network.
    except* EdgedError as group:
        for error in leaves(group):
            tell(str(error))
    if not outcomes:
        return 1  # It was told why, or it was interrupted.
    summaries = [report.summarize(row, outcomes) for row in rows]
    if options.json:
        print(report.as_json(summaries, outcomes))
    else:
        print(report.as_table(summaries), report.goal(summaries) or "", sep="\n")
    if not all(s.p50s_ms and not s.failed for s in summaries):
        return 1
    return exit_status(report.goal(summaries) or "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
