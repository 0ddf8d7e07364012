"""`python -m tests.bench.transcode`: a whole ladder's CPU beside one ffmpeg's."""

import argparse
import logging
import subprocess
import sys
from typing import get_args

import av
import structlog

from edged.policy.ladder import PresetName
from tests.bench.goals import exit_status
from tests.bench.ingest.processes import BenchError
from tests.bench.transcode.bench import ROWS, as_line, run_once, summarize

RUNS_MAX = 50
SECONDS_MAX = 60


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.transcode", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="of each row (default 5)")
    parser.add_argument("--seconds", type=int, default=10, help="of the clip (default 10)")
    parser.add_argument("--row", action="append", choices=[row.name for row in ROWS])
    presets = [name for name in get_args(PresetName) if name != "auto"]
    parser.add_argument("--preset", choices=presets, default="veryfast")
    found = parser.parse_args(arguments)
    if not 1 <= found.runs <= RUNS_MAX:
        parser.error(f"--runs must be in 1..{RUNS_MAX}")
    if not 1 <= found.seconds <= SECONDS_MAX:
        parser.error(f"--seconds must be in 1..{SECONDS_MAX}")
    return found


def main(arguments: list[str]) -> int:
    options = parse_arguments(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    version = subprocess.run(
        ["ffmpeg", "-version"],  # noqa: S607
        capture_output=True, text=True, check=True, timeout=10,
    ).stdout.splitlines()[0]  # fmt: skip
    print(f"{version.split(' Copyright')[0]}; PyAV {av.__version__}", file=sys.stderr)
    lines = []
    for row in ROWS:
        if options.row is not None and row.name not in options.row:
            continue
        runs = []
        for number in range(1, options.runs + 1):
            try:
                runs.append(run_once(row, options.seconds, options.preset))
            except BenchError as error:
                print(f"{row.name} {number}: {error}", file=sys.stderr)
                return 1
            print(f"{row.name} {number}: {runs[-1].ratio:.3f} x", file=sys.stderr, flush=True)
        lines.append(as_line(summarize(row, options.seconds, runs)))
        print(lines[-1], flush=True)
    return exit_status("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
