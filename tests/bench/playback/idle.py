"""What a viewer takes of memory who is connected and asks for nothing now."""

import socket
import ssl
import time
from typing import Final

from tests.bench.ingest.processes import BenchError, family
from tests.bench.playback.servers import ANSWER_S_MAX, resident_bytes

SETTLE_S: Final = 0.5


def idle_bytes(pid: int, port: int, path: str, count: int, *, tls: bool) -> int:
    """Bytes of the server's memory for each of `count` connections of HTTP/1.1 that stay open.

    Each has had one answer. What the kernel keeps for a socket is not in it. As many before them,
    which have left, have had the server grow what it needs for a crowd.
    """
    _open(port, path, count, tls=tls).close()
    time.sleep(SETTLE_S)
    before = resident_bytes(family(pid))
    crowd = _open(port, path, count, tls=tls)
    time.sleep(SETTLE_S)
    grown = resident_bytes(family(pid)) - before
    crowd.close()
    return round(grown / count)


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
    request = f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()
    for _ in range(count):
        sock = socket.create_connection(("127.0.0.1", port), ANSWER_S_MAX)
        if tls:
            sock = context.wrap_socket(sock)
        crowd.socks.append(sock)
        sock.sendall(request)
        _take_answer(sock)
    return crowd


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
        raise BenchError("the server hung up")
    return data
