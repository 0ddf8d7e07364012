"""Viewers who wait for a part, and the moment in which it comes, beside a loop in C."""

import contextlib
import re
import shutil
import socket
import ssl
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct

from edged.errors import ToolMissingError
from tests.bench.ingest.bench import Port
from tests.bench.ingest.measure import Cores
from tests.bench.ingest.native import FLAGS
from tests.bench.ingest.processes import BenchError, Process
from tests.bench.playback.server import Place, Released
from tests.bench.playback.servers import ANSWER_S_MAX, TRIES_MAX, fetch

RELEASES: Final = 5  # Of a round, beside one that warms up.


class _Sent(Struct, frozen=True):
    took_us: int
    short: int


class Waiters:
    """Connections that ask for the same thing and wait for its answer."""

    def __init__(self, port: int, count: int, *, tls: bool = False) -> None:
        context = None
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.set_alpn_protocols(["http/1.1"])
        self.socks = [self._connect(port, context) for _ in range(count)]

    def _connect(self, port: int, context: ssl.SSLContext | None) -> socket.socket:
        """Again, if the server turns callers away: so it does for a moment after a stall."""
        for _ in range(TRIES_MAX):
            sock = socket.create_connection(("127.0.0.1", port), ANSWER_S_MAX)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                return sock if context is None else context.wrap_socket(sock)
            except (ConnectionError, ssl.SSLEOFError):
                sock.close()
                time.sleep(1.0)
        raise BenchError("the server turns callers away")

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


class EdgedRelease:
    """Viewers of the edge who wait for a part, released again and again."""

    def __init__(self, process: Process, place: Place, waiters: int, *, tls: bool = False) -> None:
        self._process, self._place = process, place
        self._waiting = Waiters(place.tls_port if tls else place.port, waiters, tls=tls)
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


def release_over_tls(edge: tuple[Process, Place], waiters: int) -> int:
    """Median us in which all who waited over TLS are sent their playlist, by edged."""
    with contextlib.closing(EdgedRelease(*edge, waiters, tls=True)) as ours:
        ours.once()
        return int(statistics.median(ours.once()[0] for _ in range(RELEASES)))
