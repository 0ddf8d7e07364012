"""The runs: edged beside nginx, in turns of a second, and beside the C loop, a release each.

In turns and on the same core, as a machine that others share is faster in one minute than in the
next.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec import Struct

from tests.bench.ingest.bench import choose_cores
from tests.bench.ingest.measure import Cores
from tests.bench.ingest.processes import on_core
from tests.bench.playback.idle import idle_bytes
from tests.bench.playback.load import Load, Protocol, Url, build_asker, load_in_turns
from tests.bench.playback.release import release_in_turns, release_over_tls
from tests.bench.playback.servers import Ports, edge, fetch, make_certificate, nginx

PART_BYTES: Final = 100_000
PROTOCOLS: Final[tuple[Protocol, ...]] = ("h1", "h1s", "h2")


class Options(Struct, frozen=True):
    """How long and how many."""

    seconds: float
    waiters: int
    idle: int


class Row(Struct, frozen=True):
    """One sort of requests, asked of both servers."""

    what: str  # "playlist" or "part".
    protocol: Protocol
    edged: Load
    nginx: Load


class Idle(Struct, frozen=True):
    """Bytes of memory for each connection that waits for its next request."""

    tls: bool
    edged: int
    nginx: int


class Round(Struct, frozen=True):
    """What one round gave."""

    rows: list[Row]
    idle: list[Idle]
    edged_release_us: int  # Medians of this round's.
    c_release_us: int
    edged_tls_release_us: int  # For which there is no loop in C, and no goal.


class Pair(Struct, frozen=True):
    """Both servers, up."""

    edged: Ports
    nginx: Ports
    paths: dict[str, str]  # Of edged, by what they give; nginx has it under that name.

    def row(self, asker: Path, protocol: Protocol, what: str, seconds: float, cores: Cores) -> Row:
        """Load both."""
        urls = [
            Url(ports.pid, ports.plain if protocol == "h1" else ports.tls, path)
            for ports, path in self._places(what)
        ]
        return Row(what, protocol, *load_in_turns(asker, protocol, urls, seconds, cores))

    def idle(self, count: int) -> list[Idle]:
        """Open so many connections to each."""
        (edged_plain, edged_tls), (nginx_plain, nginx_tls) = (
            idle_bytes(ports.pid, ports.plain, ports.tls, path, count)
            for ports, path in self._places("playlist")
        )
        return [Idle(False, edged_plain, nginx_plain), Idle(True, edged_tls, nginx_tls)]

    def _places(self, what: str) -> list[tuple[Ports, str]]:
        return [(self.edged, self.paths[what]), (self.nginx, f"/{what}")]


def run_round(options: Options) -> Round:
    """All of it once. Raises EdgedError."""
    cores = choose_cores()
    with tempfile.TemporaryDirectory(prefix="edged-bench-") as name, on_core(cores.load):
        directory = Path(name)
        asker, certificate = build_asker(directory), make_certificate(directory)
        with edge(directory, cores, certificate, part_bytes=PART_BYTES) as (process, place):
            ours = Ports(process.pid, place.port, place.tls_port)
            paths = {"playlist": place.playlist, "part": place.part}
            files = {what: fetch(ours.plain, path)[1] for what, path in paths.items()}
            with nginx(directory, cores, certificate, files) as theirs:
                pair = Pair(ours, theirs, paths)
                rows = [
                    pair.row(asker, protocol, what, options.seconds, cores)
                    for protocol in PROTOCOLS
                    for what in paths
                ]
                idle = pair.idle(options.idle)
            released = release_in_turns(directory, cores, (process, place), options.waiters)
            over_tls = release_over_tls((process, place), options.waiters)
    return Round(rows, idle, *released, over_tls)


def run_rounds(runs: int, options: Options, tell: Callable[[str], None]) -> list[Round]:
    """So many rounds, each told as it ends."""
    rounds = []
    for number in range(1, runs + 1):
        done = run_round(options)
        rounds.append(done)
        loads = ", ".join(
            f"{row.protocol} {row.what} {row.edged.per_cpu_s:,.0f} of {row.nginx.per_cpu_s:,.0f}"
            for row in done.rows
        )
        idle = " and ".join(f"{each.edged:,} B" for each in done.idle)
        tell(
            f"round {number}: {loads} per second of CPU; idle {idle}; release"
            f" {done.edged_release_us / 1000:.1f} ms, C {done.c_release_us / 1000:.1f} ms,"
            f" over TLS {done.edged_tls_release_us / 1000:.1f} ms"
        )
    return rounds
