"""The rounds: each row once per round, so that what disturbs the machine disturbs them alike."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from msgspec import Struct

from edged.errors import EdgedError, ToolMissingError
from tests.bench.ingest import edged_server, media, nginx_server
from tests.bench.ingest.measure import Bench, Cores, Run, Server, measure
from tests.bench.ingest.native import Programs, build
from tests.bench.ingest.processes import Process
from tests.bench.ingest.report import Outcome, Row


class Port(Struct, frozen=True):
    """The sink's first line."""

    port: int


def choose_cores() -> Cores:
    """One core for the server, another for load and sink; none named where there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return Cores(usable[0], usable[1]) if len(usable) > 1 else Cores(None, None)


@contextlib.contextmanager
def started(
    row: Row, bench: Bench, samples: Path | None = None
) -> Iterator[tuple[Server, Process]]:
    """A row's server and the sink it feeds, idle; edged writes a profile to `samples`, if given."""
    programs, directory, cores = bench
    if row.tls and not programs.sink_has_tls:
        raise ToolMissingError("a sink with TLS needs OpenSSL's headers: install libssl-dev")
    arguments: list[str | Path] = [programs.sink, "rtmp"]
    if row.server == "edged":
        edged_server.write_sink_files(directory, tls=row.tls)
        arguments = [programs.sink, "backbone", directory, *(["tls"] if row.tls else [])]
    with Process(arguments, core=cores.load, log=directory / "sink.log") as sink:
        port = sink.hear(Port).port
        if row.server == "nginx":
            context = nginx_server.nginx(row.streams, port, bench)
        else:
            context = edged_server.edged(row.streams, port, bench, tls=row.tls, samples=samples)
        with context as server:
            media.write_files(directory, server.url, server.keys)
            yield server, sink


def run_row(row: Row, programs: Programs, cores: Cores, seconds: float) -> Run:
    """One run in a directory of its own. Raises EdgedError."""
    with tempfile.TemporaryDirectory(prefix="edged-bench-") as name:
        bench = Bench(programs, Path(name), cores)
        with started(row, bench) as (server, sink):
            return measure(server, sink, bench, seconds)


def run_rounds(
    rows: Sequence[Row], rounds: int, seconds: float, tell: Callable[[str], None]
) -> list[Outcome]:
    """All rows, `rounds` times over. A failed run is an outcome too. Raises ToolMissingError."""
    outcomes = []
    cores = choose_cores()
    with tempfile.TemporaryDirectory(prefix="edged-bench-") as name:
        programs = build(Path(name))
        for number in range(1, rounds + 1):
            for row in rows:
                try:
                    outcome = Outcome(row, number, run_row(row, programs, cores, seconds))
                except ToolMissingError:
                    raise
                except EdgedError as error:
                    outcome = Outcome(row, number, None, str(error))
                tell(f"round {number}, {row.name}: {_in_short(outcome)}")
                outcomes.append(outcome)
    return outcomes


def _in_short(outcome: Outcome) -> str:
    run = outcome.run
    if run is None:
        return f"failed: {outcome.failure}"
    delay_ms = run.arrived.delay_us.p99 / 1000
    return f"{run.percent_per_stream:.3f} %/stream, p99 {delay_ms:.2f} ms"
