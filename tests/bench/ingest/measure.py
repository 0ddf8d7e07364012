"""One run: a server between the load and the sink, watched for a while."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from msgspec import Struct

from tests.bench.ingest.native import Programs
from tests.bench.ingest.processes import (
    BenchError,
    Process,
    core_busy_s,
    cpu_s,
    family,
    memory_bytes,
    system_s,
)

OPEN_TIMEOUT_S: Final = 30.0
WARM_UP_S: Final = 3.0  # One GOP (rings fill, allocators settle) and a bit.
DRAIN_S: Final = 1.5  # What arrives later than this after the window counts as missing.
DISTURBANCE_MAX: Final = 0.1  # Of the server's core, by others; interrupts are some 0.03.
CORE_SHARE_MAX: Final = 0.9  # Of generator and sink together, for they share a core.
LATE_US_MAX: Final = (
    10_000  # p99 of the generator's own lateness; past it the load was not what it says.
)


class Percentiles(Struct, frozen=True):
    """Of a histogram, in microseconds."""

    count: int
    p50: int
    p99: int
    max: int


class Ready(Struct, frozen=True):
    ready: int


class Sent(Struct, frozen=True):
    """The generator's report."""

    units: list[int]
    pieces: int
    bytes: int
    blocked: int
    late_us: Percentiles


class Arrived(Struct, frozen=True):
    """The sink's report."""

    units: list[int]
    disordered: int
    unmarked: int
    delay_us: Percentiles
    quarter_1_us: Percentiles
    quarter_2_us: Percentiles
    quarter_3_us: Percentiles
    quarter_4_us: Percentiles


class Cores(NamedTuple):
    """Where things run; None: wherever the kernel likes (fewer than two cores)."""

    server: int | None
    load: int | None


class Bench(NamedTuple):
    """What a run is made with."""

    programs: Programs
    directory: Path  # Of this run alone: configurations, logs, what the programs read.
    cores: Cores


class Server(NamedTuple):
    """A server under measurement."""

    process: Process
    port: int
    url: str  # rtmp://HOST/APP, as publishers call it.
    keys: list[str]
    ring_bytes: Callable[[], int]  # What its rings hold now; may raise BenchError.


class Run(Struct, frozen=True, kw_only=True):
    """What one run found; the shares are of one core."""

    streams: int
    seconds: float
    server_share: float
    server_system_share: float  # The part of it spent in the kernel.
    server_core_share: float  # All that ran on the server's core, from /proc/stat: a cross-check.
    generator_share: float
    sink_share: float
    idle_bytes: int
    loaded_bytes: int
    ring_bytes: int | None  # None: a server too busy to say.
    units: int
    missing: int
    sent: Sent
    arrived: Arrived

    @property
    def percent_per_stream(self) -> float:
        """CPU, % of one core for each stream."""
        return 100 * self.server_share / self.streams

    @property
    def bytes_per_stream(self) -> float | None:
        """Memory for each stream, beyond what the rings hold; None when that is not known."""
        if self.ring_bytes is None:
            return None
        return (self.loaded_bytes - self.idle_bytes - self.ring_bytes) / self.streams

    @property
    def void_because(self) -> str | None:
        """Why these figures say nothing about the server, or None."""
        if (share := self.generator_share + self.sink_share) > CORE_SHARE_MAX:
            return f"generator and sink used {share:.0%} of their core (limit {CORE_SHARE_MAX:.0%})"
        if not self.sent.blocked and (late := self.sent.late_us.p99) > LATE_US_MAX:
            return f"the generator was late by {late} us at p99 (limit {LATE_US_MAX})"
        return None

    @property
    def disturbed_because(self) -> str | None:
        """What else ran beside the server, so that its figures are rougher; or None."""
        others = self.server_core_share - self.server_share
        if others > DISTURBANCE_MAX:
            return f"others used {others:.0%} of the server's core"
        return None

    @property
    def backlog_because(self) -> str | None:
        """How one sees that the server did not keep up, or None."""
        first, last = self.arrived.quarter_1_us, self.arrived.quarter_4_us
        if self.missing:
            return f"{self.missing} of {self.units} units missing"
        if self.sent.blocked:
            return f"the server let publishers' buffers fill up ({self.sent.blocked} refused sends)"
        if last.p50 > 2 * first.p50 + 5_000:
            return f"delay grew from {first.p50} to {last.p50} us (p50)"
        return None


class Usage(NamedTuple):
    """A moment's readings, in seconds: differences of two of them say what was used."""

    clock: float
    server: float
    server_system: float
    server_core: float
    generator: float
    sink: float


def open_generator(server: Server, bench: Bench) -> Process:
    """The load for `server`; its first line comes when all publish."""
    streams = str(len(server.keys))
    place = ["127.0.0.1", str(server.port), streams]
    return Process(
        [bench.programs.generator, *place, bench.directory],
        core=bench.cores.load,
        log=bench.directory / "generator.log",
    )


def await_live(generator: Process, server: Server) -> None:
    """Wait until all publish. Raises BenchError, with what the server logged."""
    try:
        generator.hear(Ready, OPEN_TIMEOUT_S)
    except BenchError as error:
        raise BenchError(f"{error}; the server's log: {server.process.tail()}") from error


def measure(server: Server, sink: Process, bench: Bench, seconds: float) -> Run:
    """Load `server`, whose output goes to `sink`, and watch for `seconds`. Raises BenchError."""
    idle_bytes = memory_bytes(family(server.process.pid))
    with open_generator(server, bench) as generator:
        await_live(generator, server)
        begin = time.monotonic() + WARM_UP_S
        for process in (generator, sink):
            process.say(f"window {int(begin * 1e9)} {int((begin + seconds) * 1e9)}")
        before = _read_usage_at(begin, server, generator, sink, bench.cores)
        after = _read_usage_at(begin + seconds, server, generator, sink, bench.cores)
        loaded_bytes = memory_bytes(family(server.process.pid))
        ring_bytes = _read_ring_bytes(server)
        time.sleep(DRAIN_S)
        for process in (generator, sink):
            process.say("report")
        sent, arrived = generator.hear(Sent), sink.hear(Arrived)
        server.process.check()
    elapsed = after.clock - before.clock
    shares = [(b - a) / elapsed for a, b in zip(before[1:], after[1:], strict=True)]
    return Run(
        streams=len(server.keys),
        seconds=elapsed,
        server_share=shares[0],
        server_system_share=shares[1],
        server_core_share=shares[2],
        generator_share=shares[3],
        sink_share=shares[4],
        idle_bytes=idle_bytes,
        loaded_bytes=loaded_bytes,
        ring_bytes=ring_bytes,
        units=sum(sent.units),
        missing=_count_missing(sent.units, arrived.units),
        sent=sent,
        arrived=arrived,
    )


def _read_usage_at(
    at: float, server: Server, generator: Process, sink: Process, cores: Cores
) -> Usage:
    time.sleep(max(0.0, at - time.monotonic()))
    pids = family(server.process.pid)
    return Usage(
        clock=time.monotonic(),
        server=cpu_s(pids),
        server_system=system_s(pids),
        server_core=core_busy_s(cores.server) if cores.server is not None else 0.0,
        generator=cpu_s([generator.pid]),
        sink=cpu_s([sink.pid]),
    )


def _read_ring_bytes(server: Server) -> int | None:
    try:
        return server.ring_bytes()
    except BenchError:
        return None


def _count_missing(sent: list[int], arrived: list[int]) -> int:
    """Stream by stream, so that one's surplus hides no other's loss."""
    padded = arrived + [0] * (len(sent) - len(arrived))
    return sum(max(0, wanted - got) for wanted, got in zip(sent, padded, strict=True))
