"""edged and nginx, each with the same bytes on a plain and on a TLS port."""

import contextlib
import os
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from edged.errors import ToolMissingError
from edged.runtime.tls import Identity
from edged.tools.cert import make_authority, make_host_certificate
from tests.bench.ingest.measure import Cores
from tests.bench.ingest.nginx_server import find_nginx
from tests.bench.ingest.processes import BenchError, Process, wait_until_listening
from tests.bench.playback.server import Place
from tests.ports import take_port

ANSWER_S_MAX: Final = 20.0
TRIES_MAX: Final = 5

_NGINX = """\
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/nginx.log warn;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000000;
    open_file_cache max=100 inactive=60s;
    client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};
    uwsgi_temp_path {directory}; scgi_temp_path {directory};
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        listen 127.0.0.1:{tls_port} ssl http2 backlog=4096;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.3;
        root {directory}/root;
    }}
}}
"""


class Certificate(NamedTuple):
    """Files of a host's own, in PEM."""

    chain: str
    key: str


class Ports(NamedTuple):
    """Where a server listens."""

    pid: int
    plain: int
    tls: int


def make_certificate(directory: Path) -> Certificate:
    """One of a curve, as the public ones of today."""
    make_authority(directory, "bench", now=time.time())
    identity = Identity(role="pop", name="bench")
    files = make_host_certificate(directory, identity, now=time.time(), hosts=["localhost"])
    return Certificate(files.certificate, files.key)


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


@contextlib.contextmanager
def edge(
    directory: Path, cores: Cores, certificate: Certificate | None = None, *, part_bytes: int
) -> Iterator[tuple[Process, Place]]:
    """The edge, with its channel open."""
    arguments = [sys.executable, "-m", "tests.bench.playback.server", str(part_bytes)]
    with Process(
        [*arguments, *(certificate or ())], core=cores.server, log=directory / "edge.log"
    ) as process:
        place = process.hear(Place)
        fetch(place.port, "/live/bench/master.m3u8")  # It subscribes.
        yield process, place


@contextlib.contextmanager
def nginx(
    directory: Path, cores: Cores, certificate: Certificate, files: dict[str, bytes]
) -> Iterator[Ports]:
    """nginx with files."""
    program = find_nginx()
    if program is None:
        raise ToolMissingError("the playback bench compares with nginx: install it")
    (directory / "root").mkdir()
    for name, data in files.items():
        (directory / "root" / name).write_bytes(data)
    port, tls_port, configuration = take_port(), take_port(), directory / "nginx.conf"
    configuration.write_text(
        _NGINX.format(
            directory=directory,
            port=port,
            tls_port=tls_port,
            certificate=certificate.chain,
            key=certificate.key,
        )
    )
    directory.chmod(0o755)  # Its worker is another user where it is started by root.
    arguments: list[str | Path] = [program, "-p", directory, "-c", configuration]
    arguments += ["-e", directory / "nginx.log"]
    with Process(arguments, core=cores.server, log=directory / "nginx.stderr") as process:
        wait_until_listening(process, port)
        yield Ports(process.pid, port, tls_port)


def resident_bytes(pids: Iterable[int]) -> int:
    """What these processes have in memory, without what others share with them."""
    total = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError):
            fields = Path(f"/proc/{pid}/statm").read_text().split()
            total += (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")
    return total
