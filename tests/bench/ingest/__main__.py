"""`python -m tests.bench.ingest`: what ingest and relay of a stream cost, beside nginx-rtmp."""

import argparse
import sys

from edged.errors import EdgedError
from tests.bench.goals import exit_status
from tests.bench.ingest import bench, nginx_server, profiling, report
from tests.bench.ingest.report import Row

STREAMS_MANY = 300  # The second load: to run without backlog.
SECONDS_MIN = 1.0


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.ingest", description=__doc__)
    parser.add_argument("--streams", type=int, default=100, help="publishers (default 100)")
    parser.add_argument(
        "--streams-many",
        type=int,
        default=STREAMS_MANY,
        help=f"publishers in the row that has to keep up (default {STREAMS_MANY}; 0: none)",
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="each run's measured window")
    parser.add_argument("--runs", type=int, default=5, help="rounds; the report has their medians")
    parser.add_argument(
        "--tls-backbone", action="store_true", help="a further row with the backbone under TLS"
    )
    parser.add_argument("--only", choices=["nginx", "edged"], help="leave out the other's rows")
    parser.add_argument("--json", action="store_true", help="print JSON, every run included")
    parser.add_argument(
        "--profile",
        metavar="ROW",
        nargs="?",
        const="edged",
        choices=["edged", "edged-tls", "nginx"],
        help="instead: one profiled run, and where its time goes (edged, edged-tls or nginx)",
    )
    found = parser.parse_args(arguments)
    if found.streams < 1 or found.runs < 1 or found.streams_many < 0:
        parser.error("--streams and --runs must be at least 1, --streams-many at least 0")
    if found.seconds < SECONDS_MIN:
        parser.error(f"--seconds must be at least {SECONDS_MIN:g}")
    return found


def choose_rows(streams: int, streams_many: int, *, tls_backbone: bool, nginx: bool) -> list[Row]:
    """The rows, in the order in which each round runs them."""
    rows = [Row("nginx", streams)] if nginx else []
    rows.append(Row("edged", streams))
    if tls_backbone:
        rows.append(Row("edged", streams, tls=True))
    if streams_many:
        rows.append(Row("edged", streams_many))
    return rows


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    options = parse_arguments(arguments)
    if bench.choose_cores().server is None:
        tell("only one core here: server, generator and sink share it; the figures say little")
    try:
        if options.profile is not None:
            server, _, kind = options.profile.partition("-")
            row = Row(server, options.streams, tls=kind == "tls")
            print(profiling.profile_row(row, options.seconds))
            return 0
        has_nginx = nginx_server.has_nginx()
        if not has_nginx:
            tell("nginx with libnginx-mod-rtmp is not installed: no ratios")
        rows = choose_rows(
            options.streams,
            options.streams_many,
            tls_backbone=options.tls_backbone,
            nginx=has_nginx,
        )
        rows = [row for row in rows if options.only in (None, row.server)]
        outcomes = bench.run_rounds(rows, options.runs, options.seconds, tell)
    except EdgedError as error:
        tell(str(error))
        return 1
    summaries = [report.summarize(row, outcomes) for row in rows]
    if options.json:
        print(report.as_json(summaries, outcomes))
    else:
        print(report.as_table(summaries), *report.goals(summaries), sep="\n")
    if not all(s.sound_runs for s in summaries):
        return 1
    return exit_status("\n".join(report.goals(summaries)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
