"""What a viewer takes of memory who is connected and asks for nothing now."""

import socket
import ssl
import time
from typing import Final

from tests.bench.ingest.processes import BenchError, family
from tests.bench.playback.servers import ANSWER_S_MAX, TRIES_MAX, resident_bytes

SETTLE_S: Final = 0.5
WARM: Final = 20


def idle_bytes(pid: int, plain: int, tls: int, path: str, count: int) -> tuple[int, int]:
    """Bytes of the server's memory for each of `count` connections of HTTP/1.1 that stay open.

    First of such on the plain port, then, while they stay, on the TLS port. Each has had one
    answer. What the kernel keeps for a socket is not in it. A few that came and went before have
    had the server make what it makes once. To be asked once of a server: the next crowd has the
    memory of the last one.
    """
    taken, crowds = [], []
    for port in (plain, tls):
        _open(port, path, WARM, tls=port == tls).close()
        time.sleep(SETTLE_S)
        before = resident_bytes(family(pid))
        crowds.append(_open(port, path, count, tls=port == tls))
        time.sleep(SETTLE_S)
        taken.append(round((resident_bytes(family(pid)) - before) / count))
    for crowd in crowds:
        crowd.close()
    return taken[0], taken[1]


class _Crowd:
    def __init__(self) -> None:
        self.socks: list[socket.socket] = []

    def close(self) -> None:
        for sock in self.socks:
            sock.close()


def _open(port: int, path: str, count: int, *, tls: bool) -> _Crowd:
    crowd = _Crowd()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    for _ in range(count):
        crowd.socks.append(_ask(port, path, context if tls else None))
    return crowd


def _ask(port: int, path: str, context: ssl.SSLContext | None) -> socket.socket:
    """A connection that has had an answer; again, if the server turns callers away."""
    request = f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()
    for _ in range(TRIES_MAX):
        sock = socket.create_connection(("127.0.0.1", port), ANSWER_S_MAX)
        try:
            if context is not None:
                sock = context.wrap_socket(sock)
            sock.sendall(request)
            _take_answer(sock)
        except (ConnectionError, ssl.SSLEOFError):
            sock.close()
            time.sleep(1.0)
        else:
            return sock
    raise BenchError("the server turns callers away")


def _take_answer(sock: socket.socket) -> None:
    data = bytearray()
    while b"\r\n\r\n" not in data:
        data += _more(sock)
    head, _, body = bytes(data).partition(b"\r\n\r\n")
    lines = [line.partition(b":") for line in head.lower().split(b"\r\n")]
    left = next(int(value) for name, _, value in lines if name == b"content-length") - len(body)
    while left > 0:
        left -= len(_more(sock))


def _more(sock: socket.socket) -> bytes:
    data = sock.recv(1 << 16)
    if not data:
        raise ConnectionResetError("the server hung up")
    return data
