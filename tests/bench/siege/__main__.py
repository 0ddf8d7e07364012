"""`python -m tests.bench.siege`: what publishers notice while a crowd of viewers joins over TLS.

50 streams go through a PoP on one core; then again while 500 slow connections are held on each of
its ports (RTMP, HTTP, metrics and status page, with TLS and without) and 2,000 viewers join its
LL-HLS at once. The delay of their units, PoP in to origin, quiet beside siege.
"""

import argparse
import contextlib
import statistics
import sys
import tempfile
import threading
import time
import tomllib
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct

from edged.errors import EdgedError
from edged.roles.admin_http import CONNECTIONS_MAX
from edged.runtime.listeners import parse_address
from edged.runtime.tls import Identity
from edged.tools.cert import make_authority, make_host_certificate
from tests.bench.goals import exit_status, verdict
from tests.bench.ingest import edged_server, media
from tests.bench.ingest.bench import Port, choose_cores
from tests.bench.ingest.measure import WARM_UP_S, Bench, Run, Server, measure
from tests.bench.ingest.native import build
from tests.bench.ingest.processes import BenchError, Process
from tests.bench.siege.viewers import Joined
from tests.ports import take_port

GOAL_MS = 10.0  # By so much the p99 of the units' delay may be above the quiet one.
PROGRAM = ("-m", "tests.bench.siege.server")
LAG_POLL_S = 0.25
SLOW_S = 6.0  # Before the viewers: that all slow connections are there.
PLACES = {"status": CONNECTIONS_MAX}  # Where there are fewer: who has none comes again at once.
SLOW_SHARE_MIN = 0.9  # Of the slow connections: those that the server ends are made anew.


class Siege(Struct, frozen=True):
    """Who lays it."""

    viewers: int
    at_once: int
    slow: int  # Connections on each port.


class Besieged(Struct, frozen=True):
    """What the siege came to."""

    run: Run
    lag_s_max: float
    joined: Joined
    slow: dict[str, int]  # By port: so many slow connections there were on average.


class Outcome(Struct, frozen=True):
    """One round."""

    quiet: Run
    siege: Besieged


@contextlib.contextmanager
def besieged(bench: Bench, streams: int) -> Iterator[tuple[Server, Process, dict[str, int]]]:
    """The PoP, its sink, and its ports."""
    directory = bench.directory
    make_authority(directory, "bench", now=time.time())
    files = make_host_certificate(directory, Identity("pop", "viewers"), now=time.time())
    playback = (
        f'listen = "127.0.0.1:{take_port()}"\n'
        f'[playback.tls]\nlisten = "127.0.0.1:{take_port()}"\n'
        f'certificate = "{files.certificate}"\nkey = "{files.key}"'
    )
    edged_server.write_sink_files(directory, tls=False)
    arguments: list[str | Path] = [bench.programs.sink, "backbone", directory]
    with (
        Process(arguments, core=bench.cores.load, log=directory / "sink.log") as sink,
        edged_server.edged(
            streams, sink.hear(Port).port, bench, tls=False, samples=None,
            program=PROGRAM, playback=playback,
        ) as server,
    ):  # fmt: skip
        media.write_files(directory, server.url, server.keys)
        raw = tomllib.loads((directory / "pop.toml").read_text())
        tables = {
            "rtmp": raw["ingest"]["rtmp"], "rtmps": raw["ingest"]["rtmp"]["tls"],
            "http": raw["playback"], "https": raw["playback"]["tls"],
            "metrics": raw["metrics"], "status": raw["admin"],
        }  # fmt: skip
        yield (
            server,
            sink,
            {name: parse_address(table["listen"])[1] for name, table in tables.items()},
        )


class LagWatch(threading.Thread):
    """Reads the loop lag from the metrics page, again and again."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.lag_s_max = 0.0
        self._url = f"http://127.0.0.1:{port}/metrics"
        self._over = threading.Event()

    def run(self) -> None:
        """Until `stop`."""
        while not self._over.wait(LAG_POLL_S):
            with contextlib.suppress(OSError), urllib.request.urlopen(self._url, timeout=5) as page:  # noqa: S310 - our own server
                for line in page.read().decode().splitlines():
                    if line.startswith("edged_pump_lag_seconds"):
                        self.lag_s_max = max(self.lag_s_max, float(line.split()[-1]))

    def stop(self) -> None:
        """Read no more."""
        self._over.set()
        self.join()


def run_quiet(bench: Bench, streams: int, seconds: float) -> Run:
    """The streams alone."""
    with besieged(bench, streams) as (server, sink, _):
        return measure(server, sink, bench, seconds)


def run_siege(bench: Bench, streams: int, seconds: float, siege: Siege) -> Besieged:
    """The streams while viewers join, from the first measured second on."""
    load = bench.cores.load
    with besieged(bench, streams) as (server, sink, ports):
        crowd_of: list[str | Path] = [sys.executable, "-m", "tests.bench.siege.viewers"]
        crowd_of += [str(ports["https"]), str(siege.viewers), str(seconds - 1), str(siege.at_once)]
        slow_of: list[str | Path] = [sys.executable, "-m", "tests.bench.siege.slow"]
        slow_of += [str(siege.slow), *(f"{name}={port}" for name, port in ports.items())]
        logs, root = bench.directory, edged_server.ROOT
        with (
            Process(slow_of, core=load, log=logs / "slow.log", cwd=root) as slow,
            Process(crowd_of, core=load, log=logs / "viewers.log", cwd=root) as crowd,
        ):
            time.sleep(SLOW_S if siege.slow else 0.0)
            watch = LagWatch(ports["metrics"])
            watch.start()

            def begin() -> None:
                slow.say("count")
                crowd.say("go")

            starter = threading.Timer(WARM_UP_S + 1.5, begin)
            starter.start()
            run = measure(server, sink, bench, seconds)
            starter.join()
            joined = crowd.hear(Joined, seconds + 30)
            slow.say("stop")
            held = slow.hear(dict[str, int], 30)
            watch.stop()
            return Besieged(run, watch.lag_s_max, joined, held)


def run_round(streams: int, seconds: float, siege: Siege) -> Outcome:
    """Quiet, then siege. Raises EdgedError."""
    cores = choose_cores()
    with tempfile.TemporaryDirectory(prefix="edged-bench-") as name:
        programs = build(Path(name))
        (first, second) = (Path(name) / "quiet", Path(name) / "siege")
        first.mkdir()
        second.mkdir()
        quiet = run_quiet(Bench(programs, first, cores), streams, seconds)
        outcome = run_siege(Bench(programs, second, cores), streams, seconds, siege)
    if not outcome.joined.joined:
        raise BenchError(f"no viewer came in: {outcome.joined}")
    return Outcome(quiet, outcome)


def as_table(outcomes: Sequence[Outcome], siege_of: Siege) -> str:
    """Medians of the rounds."""

    def median(values: list[float]) -> float:
        return statistics.median(values)

    quiets = [o.quiet.arrived.delay_us for o in outcomes]
    sieges = [o.siege.run.arrived.delay_us for o in outcomes]
    quiet, siege = (median([delay.p99 / 1000 for delay in delays]) for delays in (quiets, sieges))
    quiet_p50, siege_p50 = (
        median([delay.p50 / 1000 for delay in delays]) for delays in (quiets, sieges)
    )
    quiet_max, siege_max = (
        max(delay.max / 1000 for delay in delays) for delays in (quiets, sieges)
    )
    joined = [o.siege.joined for o in outcomes]
    missing = sum(o.siege.run.missing for o in outcomes)
    in_least = min(j.joined for j in joined)
    slow = {name: median([o.siege.slow[name] for o in outcomes]) for name in outcomes[0].siege.slow}
    held = all(
        count >= SLOW_SHARE_MIN * min(siege_of.slow, PLACES.get(name, siege_of.slow))
        for name, count in slow.items()
    )
    return "\n".join([
        f"{outcomes[0].quiet.streams} streams, {siege_of.viewers} viewers join over TLS,"
        f" {siege_of.at_once} at once, {siege_of.slow} slow connections on each port; medians of"
        f" {len(outcomes)} rounds",
        f"unit delay p50   quiet {quiet_p50:6.1f} ms   siege {siege_p50:6.1f} ms",
        f"unit delay p99   quiet {quiet:6.1f} ms   siege {siege:6.1f} ms   goal: at most"
        f" {GOAL_MS:g} ms above, {verdict(reached=siege <= quiet + GOAL_MS)}",
        f"unit delay max   quiet {quiet_max:6.1f} ms   siege {siege_max:6.1f} ms",
        f"units missing    {missing}, {verdict(reached=not missing)}",
        f"loop lag         {max(o.siege.lag_s_max for o in outcomes) * 1000:.1f} ms at most",
        "slow connections " + ", ".join(f"{name} {count:.0f}" for name, count in slow.items())
        + f" on average, {verdict(reached=held)}",
        f"viewers in       {in_least}, {verdict(reached=in_least == siege_of.viewers)}; turned away"
        f" {median([float(j.turned_away) for j in joined]):.0f} times; join p50"
        f" {median([j.join_p50_ms for j in joined]) / 1000:.1f} s, p99"
        f" {median([j.join_p99_ms for j in joined]) / 1000:.1f} s;"
        f" {median([float(j.reloads) for j in joined]):.0f} reloads",
    ])  # fmt: skip


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.siege", description=__doc__)
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--viewers", type=int, default=2000)
    parser.add_argument("--at-once", type=int, help="so many are on their way in (default: all)")
    parser.add_argument("--slow", type=int, default=500, help="slow connections on each port")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args(arguments)
    siege = Siege(options.viewers, options.at_once or options.viewers, options.slow)
    outcomes = []
    try:
        for number in range(1, options.runs + 1):
            outcomes.append(run_round(options.streams, options.seconds, siege))
            print(f"round {number} done", file=sys.stderr, flush=True)
    except EdgedError as error:
        print(str(error), file=sys.stderr)
        return 1
    print(table := as_table(outcomes, siege))
    return exit_status(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
