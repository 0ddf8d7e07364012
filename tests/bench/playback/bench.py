"""The runs: edged beside nginx, in turns of a second, and beside the C loop, a release each.

In turns and on the same core, as a machine that others share is faster in one minute than in the
next.
"""

import contextlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from msgspec import Struct

from edged.errors import ToolMissingError
from tests.bench.ingest.bench import Port, choose_cores
from tests.bench.ingest.measure import Cores
from tests.bench.ingest.native import FLAGS
from tests.bench.ingest.nginx_server import find_nginx
from tests.bench.ingest.processes import (
    BenchError,
    Process,
    cpu_s,
    family,
    free_port,
    on_core,
    wait_until_listening,
)
from tests.bench.playback.server import Place, Released

PART_BYTES: Final = 100_000
LOAD_CONNECTIONS: Final = 64
TURN_S: Final = 1  # wrk counts in whole seconds.
RELEASES: Final = 5  # Of a round, beside one that warms up.
ANSWER_S_MAX: Final = 20.0
TRIES_MAX: Final = 5

_NGINX = """\
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/nginx.log warn;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000000;
    open_file_cache max=100 inactive=60s;
    client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};
    uwsgi_temp_path {directory}; scgi_temp_path {directory};
    server {{
        listen 127.0.0.1:{port};
        root {directory}/root;
    }}
}}
"""


class Load(Struct, frozen=True):
    """One server under one URL."""

    requests: int
    body_bytes: int
    per_cpu_s: float  # Requests for each second of the server's CPU: its requests/s per core.
    core_share: float  # How much of its core the server took.


class Round(Struct, frozen=True):
    """What one round gave."""

    edged_playlist: Load
    nginx_playlist: Load
    edged_part: Load
    nginx_part: Load
    edged_release_us: int  # Medians of this round's.
    c_release_us: int


class _Sent(Struct, frozen=True):
    took_us: int
    short: int


class _Url(NamedTuple):
    pid: int
    port: int
    path: str


class _Turn(NamedTuple):
    requests: int
    used_s: float  # Of CPU, by the server.
    took_s: float


def load_in_turns(urls: Sequence[_Url], seconds: int, cores: Cores) -> list[Load]:
    """Load each server for so many seconds, a turn of one after a turn of the other."""
    turns: list[list[_Turn]] = [[] for _ in urls]
    for number in range(seconds // TURN_S):
        order = range(len(urls)) if number % 2 == 0 else reversed(range(len(urls)))
        for index in order:
            turns[index].append(_load(urls[index], cores))
    loads = []
    for url, taken in zip(urls, turns, strict=True):
        requests, used_s, took_s = (sum(values) for values in zip(*taken, strict=True))
        _, body = fetch(url.port, url.path)
        loads.append(Load(int(requests), len(body), requests / used_s, used_s / took_s))
    return loads


def _load(url: _Url, cores: Cores) -> _Turn:
    """Ask for one URL over LOAD_CONNECTIONS connections, each again as soon as it is answered."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise ToolMissingError("the playback bench asks with wrk: install it")
    pids = family(url.pid)
    before, begun = cpu_s(pids), time.monotonic()
    with on_core(cores.load):
        done = subprocess.run(  # noqa: S603 - our own arguments
            [wrk, "-t1", f"-c{LOAD_CONNECTIONS}", f"-d{TURN_S}s",
             f"http://127.0.0.1:{url.port}{url.path}"],
            capture_output=True, text=True, check=True, timeout=TURN_S + 30,
        )  # fmt: skip
    took_s, used_s = time.monotonic() - begun, cpu_s(pids) - before
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise BenchError(f"{url.path}: {done.stdout}")
    found = re.search(r"(\d+) requests in", done.stdout)
    assert found is not None, "wrk says how many"
    return _Turn(int(found[1]), used_s, took_s)


def fetch(port: int, path: str) -> tuple[bytes, bytes]:
    """One request; head and body of its answer. Raises BenchError unless it is 200.

    Again, if the server turns callers away: so it does for a moment after a stall.
    """
    data = bytearray()
    for _ in range(TRIES_MAX):
        try:
            with socket.create_connection(("127.0.0.1", port), ANSWER_S_MAX) as sock:
                sock.sendall(
                    f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode()
                )
                while piece := sock.recv(1 << 20):
                    data += piece
            break
        except ConnectionResetError:
            time.sleep(1.0)
    head, _, body = bytes(data).partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise BenchError(f"{path}: {head[:300]!r}")
    return head, body


class Waiters:
    """Connections that ask for the same thing and wait for its answer."""

    def __init__(self, port: int, count: int) -> None:
        self.socks = []
        for _ in range(count):
            sock = socket.create_connection(("127.0.0.1", port), ANSWER_S_MAX)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socks.append(sock)

    def ask(self, path: str) -> None:
        """All ask."""
        request = f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()
        for sock in self.socks:
            sock.sendall(request)

    def take(self) -> int:
        """Take each one's answer whole; their size, which is the same for all."""
        sizes = set()
        for sock in self.socks:
            data = bytearray()
            while b"\r\n\r\n" not in data:
                data += self._more(sock)
            head, _, body = bytes(data).partition(b"\r\n\r\n")
            size = int(re.search(rb"Content-Length: (\d+)", head, re.IGNORECASE)[1])  # type: ignore[index]
            while len(body) < size:
                body += self._more(sock)
            sizes.add(len(body))
        if len(sizes) != 1:
            raise BenchError(f"not all were answered alike: {sizes}")
        return sizes.pop()

    def close(self) -> None:
        """Hang up."""
        for sock in self.socks:
            sock.close()

    def _more(self, sock: socket.socket) -> bytes:
        try:
            data = sock.recv(1 << 16)
        except TimeoutError:
            raise BenchError("a blocked request was not answered") from None
        if not data:
            raise BenchError("the server hung up")
        return data


@contextlib.contextmanager
def edge(directory: Path, cores: Cores) -> Iterator[tuple[Process, Place]]:
    """The edge, with its channel open."""
    arguments = [sys.executable, "-m", "tests.bench.playback.server", str(PART_BYTES)]
    with Process(arguments, core=cores.server, log=directory / "edge.log") as process:
        place = process.hear(Place)
        fetch(place.port, "/live/bench/master.m3u8")  # It subscribes.
        yield process, place


@contextlib.contextmanager
def nginx(directory: Path, cores: Cores, files: dict[str, bytes]) -> Iterator[_Url]:
    """nginx with files."""
    program = find_nginx()
    if program is None:
        raise ToolMissingError("the playback bench compares with nginx: install it")
    (directory / "root").mkdir()
    for name, data in files.items():
        (directory / "root" / name).write_bytes(data)
    port, configuration = free_port(), directory / "nginx.conf"
    configuration.write_text(_NGINX.format(directory=directory, port=port))
    directory.chmod(0o755)  # Its worker is another user where it is started by root.
    arguments: list[str | Path] = [
        program,
        "-p",
        directory,
        "-e",
        directory / "nginx.log",
        "-c",
        configuration,
    ]
    with Process(arguments, core=cores.server, log=directory / "nginx.stderr") as process:
        wait_until_listening(process, port)
        yield _Url(process.pid, port, "/")


class EdgedRelease:
    """Viewers of the edge who wait for a part, released again and again."""

    def __init__(self, process: Process, place: Place, waiters: int) -> None:
        self._process, self._place = process, place
        self._waiting = Waiters(place.port, waiters)
        self._count = waiters
        process.say("push")
        self._reload = process.hear(Released).reload

    def once(self) -> tuple[int, str]:
        """Let all ask, and release them: the us it took, and what they were sent, as a path."""
        self._waiting.ask(self._reload)
        time.sleep(0.5)  # All have arrived: nothing but the release is measured.
        self._process.say("push")
        done = self._process.hear(Released)
        if done.released != self._count:
            raise BenchError(f"{done.released} of {self._count} were released")
        self._waiting.take()
        answered, self._reload = self._reload, done.reload
        return done.took_us, answered

    def close(self) -> None:
        """They hang up."""
        self._waiting.close()


class CRelease:
    """The same bytes to as many connections, by the C loop."""

    def __init__(self, process: Process, waiters: int) -> None:
        self._process = process
        self._waiting = Waiters(process.hear(Port).port, waiters)

    def once(self) -> int:
        """The us that one release took."""
        self._waiting.ask("/")
        time.sleep(0.5)
        self._process.say("go")
        done = self._process.hear(_Sent)
        if done.short:
            raise BenchError(f"{done.short} sends were not taken whole")
        self._waiting.take()
        return done.took_us

    def close(self) -> None:
        """They hang up."""
        self._waiting.close()


@contextlib.contextmanager
def send_loop(directory: Path, cores: Cores, waiters: int, answer: bytes) -> Iterator[Process]:
    """The C loop, which answers with these bytes."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise ToolMissingError("the playback bench compiles its floor: install gcc")
    program, file = directory / "send_loop", directory / "answer"
    file.write_bytes(answer)
    source = Path(__file__).with_name("send_loop.c")
    subprocess.run([compiler, *FLAGS, "-o", str(program), str(source)], check=True, timeout=60)  # noqa: S603
    arguments: list[str | Path] = [program, str(waiters), file]
    with Process(arguments, core=cores.server, log=directory / "c.log") as process:
        yield process


def release_in_turns(
    directory: Path, cores: Cores, edge: tuple[Process, Place], waiters: int
) -> tuple[int, int]:
    """Median us in which all who waited are sent their playlist, by edged and by the C loop."""
    process, place = edge
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(contextlib.closing(EdgedRelease(process, place, waiters)))
        _, answered = ours.once()  # It warms up and does not count.
        answer = b"\r\n\r\n".join(fetch(place.port, answered))
        loop = stack.enter_context(send_loop(directory, cores, waiters, answer))
        floor = stack.enter_context(contextlib.closing(CRelease(loop, waiters)))
        floor.once()
        took_us = [(ours.once()[0], floor.once()) for _ in range(RELEASES)]
    edged_us, c_us = zip(*took_us, strict=True)
    return int(statistics.median(edged_us)), int(statistics.median(c_us))


def run_round(seconds: int, waiters: int) -> Round:
    """All of it once. Raises EdgedError."""
    cores = choose_cores()
    with (
        tempfile.TemporaryDirectory(prefix="edged-bench-") as name,
        on_core(cores.load),
        edge(Path(name), cores) as (process, place),
    ):
        ours = {
            what: _Url(process.pid, place.port, path)
            for what, path in (("playlist", place.playlist), ("part", place.part))
        }
        files = {what: fetch(url.port, url.path)[1] for what, url in ours.items()}
        with nginx(Path(name), cores, files) as root:
            playlists, parts = (
                load_in_turns([url, root._replace(path=f"/{what}")], seconds, cores)
                for what, url in ours.items()
            )
        edged_us, c_us = release_in_turns(Path(name), cores, (process, place), waiters)
    return Round(
        edged_playlist=playlists[0],
        nginx_playlist=playlists[1],
        edged_part=parts[0],
        nginx_part=parts[1],
        edged_release_us=edged_us,
        c_release_us=c_us,
    )


def run_rounds(runs: int, seconds: int, waiters: int, tell: Callable[[str], None]) -> list[Round]:
    """So many rounds, each told as it ends."""
    rounds = []
    for number in range(1, runs + 1):
        rounds.append(run_round(seconds, waiters))
        done = rounds[-1]
        tell(
            f"round {number}: playlists {done.edged_playlist.per_cpu_s:,.0f} of nginx"
            f" {done.nginx_playlist.per_cpu_s:,.0f}, parts {done.edged_part.per_cpu_s:,.0f} of"
            f" {done.nginx_part.per_cpu_s:,.0f} per second of CPU; release"
            f" {done.edged_release_us / 1000:.1f} ms, C {done.c_release_us / 1000:.1f} ms"
        )
    return rounds
