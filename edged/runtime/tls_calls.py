"""Reading and writing under TLS, without the calls of Python's that `ssl.SSLSocket` puts around."""

import contextlib
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any

TLS_WRITE_BYTES = 64 * 1024  # Joined per SSL_write: 4 records, and the copy stays in cache.

Buffer = bytes | memoryview
ReadInto = Callable[[int, memoryview], int]  # How many at most, and where to.
Write = Callable[[Buffer], int]


def tls_calls(sock: socket.socket) -> tuple[ReadInto | None, Write | None]:
    """The calls, which raise `SSLEOFError` where a peer closes without close_notify; None if plain.

    They are those of the object that CPython's `SSLSocket` has within, and its own elsewhere.
    """
    if not isinstance(sock, ssl.SSLSocket):
        return None, None
    within: Any = getattr(sock, "_sslobj", None) or sock
    return within.read, within.write


def encrypt(write: Write, chunks: Sequence[Buffer]) -> int:
    """Send these while nothing else waits; how many bytes of them have left.

    It is done in pieces of TLS_WRITE_BYTES, as else it is: OpenSSL wants a piece that it did not
    take again, and whole. Raises `SSLWantWriteError` if it does not take what is one piece.
    """
    data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    if (size := len(data)) <= TLS_WRITE_BYTES:
        return write(data)
    view, sent = memoryview(data), 0
    with contextlib.suppress(ssl.SSLWantWriteError, ssl.SSLWantReadError):
        while sent < size:
            sent += write(view[sent : sent + TLS_WRITE_BYTES])
    return sent
