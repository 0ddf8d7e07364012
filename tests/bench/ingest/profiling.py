"""Where the time goes: `--profile`.

Two views of one run: sampler.py's, by Python line and function (edged only); and perf's, if it is
installed, by native function: the interpreter, the kernel's TCP, OpenSSL.
"""

import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from tests.bench.ingest.bench import choose_cores, started
from tests.bench.ingest.measure import WARM_UP_S, Bench, await_live, open_generator
from tests.bench.ingest.native import build
from tests.bench.ingest.processes import BenchError, Process, cpu_s, family, on_core, system_s
from tests.bench.ingest.report import Row

TOP: Final = 40
FRAME_SHARE_MAX: Final = 0.99  # What is below everything (main, trio.run) tells nothing.
PERF_TOP: Final = 45
WRITE_TIMEOUT_S: Final = 10.0
PERF_HERTZ: Final = 499


class Samples(Struct, frozen=True):
    """What sampler.py wrote."""

    samples: int
    lines: dict[str, int]
    functions: dict[str, int]


def profile_row(row: Row, seconds: float) -> str:
    """Profile one run of `row`; returns a report for people. Raises EdgedError."""
    with tempfile.TemporaryDirectory(prefix="edged-bench-") as name:
        directory = Path(name)
        bench = Bench(build(directory), directory, choose_cores())
        samples = directory / "samples.json" if row.server == "edged" else None
        with (
            started(row, bench, samples) as (server, _sink),
            open_generator(server, bench) as generator,
        ):
            await_live(generator, server)
            time.sleep(WARM_UP_S)
            return _watch(server.process, row, bench, samples, seconds)
    raise AssertionError("no with block here swallows errors")


def _watch(process: Process, row: Row, bench: Bench, samples: Path | None, seconds: float) -> str:
    pids = family(process.pid)
    busy, system = cpu_s(pids), system_s(pids)
    if samples is not None:
        process.signal(signal.SIGUSR1)
    perf = _record(pids, seconds, bench.directory, bench.cores.load)
    if samples is not None:
        process.signal(signal.SIGUSR2)
    busy, system = cpu_s(pids) - busy, system_s(pids) - system
    parts = [
        f"{row.name}: {100 * busy / seconds / row.streams:.3f} % of a core per stream, profiled,"
        f" of it {100 * system / max(busy, 1e-9):.0f} % in the kernel"
    ]
    if samples is not None:
        parts.append(_tell_samples(_wait_for(samples)))
    parts.append(perf)
    return "\n\n".join(parts)


def _wait_for(output: Path) -> Samples:
    deadline = time.monotonic() + WRITE_TIMEOUT_S
    while not output.exists():
        if time.monotonic() > deadline:
            raise BenchError("the sampler wrote nothing")
        time.sleep(0.05)
    return msgspec.json.decode(output.read_bytes(), type=Samples)


def _tell_samples(samples: Samples) -> str:
    def top(title: str, counts: dict[str, int]) -> str:
        told = {name: n for name, n in counts.items() if n < FRAME_SHARE_MAX * samples.samples}
        ranked = sorted(told.items(), key=lambda item: -item[1])[:TOP]
        share = 100 / max(samples.samples, 1)
        return "\n".join([title, *(f"{share * count:6.1f} %  {name}" for name, count in ranked)])

    return "\n\n".join(
        (
            f"{samples.samples} samples of CPU time",
            top("By function, with what it called:", samples.functions),
            top("By line, itself (system calls and C functions included):", samples.lines),
        )
    )


def _record(pids: list[int], seconds: float, directory: Path, core: int | None) -> str:
    perf = shutil.which("perf")
    if perf is None:
        time.sleep(seconds)
        return "perf is not installed: no native view (Debian: linux-perf)"
    data = directory / "perf.data"
    record = [perf, "record", "-q", "-e", "cpu-clock", "-F", str(PERF_HERTZ), "-o", str(data)]
    record += ["-p", ",".join(map(str, pids)), "--", "sleep", str(seconds)]
    tell = [perf, "report", "--stdio", "-q", "-i", str(data), "--sort", "dso,symbol"]
    with on_core(core):
        recorded = subprocess.run(  # noqa: S603 - our own arguments
            record, capture_output=True, text=True, check=False, timeout=seconds + 30
        )
        if recorded.returncode != 0:
            return f"perf could not record: {recorded.stderr.strip()[-500:]}"
        told = subprocess.run(  # noqa: S603 - our own arguments
            tell, capture_output=True, text=True, check=False, timeout=60
        )
        by_dso = subprocess.run(  # noqa: S603 - our own arguments
            [*tell[:-1], "dso"], capture_output=True, text=True, check=False, timeout=60
        )
    lines = [line.rstrip() for line in told.stdout.splitlines() if line.strip()][:PERF_TOP]
    objects = [line.rstrip() for line in by_dso.stdout.splitlines() if line.strip()][:10]
    return "\n".join(["By object (perf):", *objects, "", "By native function (perf):", *lines])
