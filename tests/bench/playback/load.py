"""Viewers who ask as fast as they are answered, over HTTP/1.1, TLS and HTTP/2, by a loop in C."""

import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

from msgspec import Struct

from edged.errors import ToolMissingError
from tests.bench.ingest.measure import Cores
from tests.bench.ingest.native import FLAGS
from tests.bench.ingest.processes import BenchError, Process, cpu_s, family
from tests.bench.playback.servers import TRIES_MAX

CONNECTIONS: Final = 64
STREAMS: Final = 1  # At a time on each connection of HTTP/2, as over HTTP/1.1.
TURN_S: Final = 1.0
TURNED_AWAY: Final = ("the server hung up", "the TLS handshake failed")

Protocol = Literal["h1", "h1s", "h2"]


class Load(Struct, frozen=True):
    """One server under one sort of requests."""

    requests: int
    body_bytes: int  # Of one answer.
    per_cpu_s: float  # Requests for each second of the server's CPU: its requests/s per core.
    core_share: float  # How much of its core the server took.


class Url(NamedTuple):
    """Of which server to ask what."""

    pid: int
    port: int
    path: str


class _Ready(Struct, frozen=True):
    pass


class _Answered(Struct, frozen=True):
    requests: int
    body_bytes: int


class _Turn(NamedTuple):
    requests: int
    body_bytes: int
    used_s: float  # Of CPU, by the server.
    took_s: float


def build_asker(directory: Path) -> Path:
    """Compile the load. Raises ToolMissingError without a compiler or the libraries."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise ToolMissingError("the playback bench compiles its load: install gcc")
    program, source = directory / "asker", Path(__file__).with_name("asker.c")
    libraries = ["-lnghttp2", "-lssl", "-lcrypto"]
    done = subprocess.run(  # noqa: S603 - our own arguments
        [compiler, *FLAGS, "-o", str(program), str(source), *libraries],
        check=False, timeout=60, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        told = done.stderr.strip()[-500:]
        raise ToolMissingError(f"the load needs libnghttp2-dev and libssl-dev: {told}")
    return program


def load_in_turns(
    asker: Path, protocol: Protocol, urls: Sequence[Url], seconds: float, cores: Cores
) -> list[Load]:
    """Load each server for so many seconds, a turn of one after a turn of the other."""
    turns: list[list[_Turn]] = [[] for _ in urls]
    for number in range(max(round(seconds / TURN_S), 1)):
        order = range(len(urls)) if number % 2 == 0 else reversed(range(len(urls)))
        for index in order:
            turns[index].append(_load(asker, protocol, urls[index], cores))
    loads = []
    for url, taken in zip(urls, turns, strict=True):
        requests, body_bytes, used_s, took_s = (sum(values) for values in zip(*taken, strict=True))
        if not requests:
            raise BenchError(f"{url.path}: nothing was answered")
        size = round(body_bytes / requests)  # Some were under way as the turn ended.
        loads.append(Load(int(requests), size, requests / used_s, used_s / took_s))
    return loads


def _load(asker: Path, protocol: Protocol, url: Url, cores: Cores) -> _Turn:
    """One turn; again, if the server turns callers away: so it does for a moment after a stall."""
    for _ in range(TRIES_MAX - 1):
        try:
            return _try(asker, protocol, url, cores)
        except BenchError as error:
            if not any(told in str(error) for told in TURNED_AWAY):
                raise
            time.sleep(1.0)
    return _try(asker, protocol, url, cores)


def _try(asker: Path, protocol: Protocol, url: Url, cores: Cores) -> _Turn:
    """Handshakes are over when it begins."""
    streams = STREAMS if protocol == "h2" else 1
    arguments = (url.port, CONNECTIONS, streams, TURN_S, protocol, url.path)
    log = asker.with_name("asker.log")
    with Process([asker, *map(str, arguments)], core=cores.load, log=log) as process:
        process.hear(_Ready)
        time.sleep(0.05)  # What a handshake leaves to be done.
        pids = family(url.pid)
        before, begun = cpu_s(pids), time.monotonic()
        process.say("go")
        done = process.hear(_Answered)
        took_s, used_s = time.monotonic() - begun, cpu_s(pids) - before
    return _Turn(done.requests, done.body_bytes, used_s, took_s)
