"""Ports for servers that are told theirs before they listen.

One that the kernel chose (port 0) can be a caller's own by the time the server binds it, or another
test's: these are below all that it gives to callers, and no two tests of this machine get the same
one within some twenty thousand.
"""

import contextlib
import fcntl
import os
import socket
import tempfile
from pathlib import Path

FIRST = 10_000
LAST = 32_767  # Linux gives ports from 32768 on to callers, where nobody says otherwise.
RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def take_port(host: str = "127.0.0.1", *, neighbours: int = 0) -> int:
    """A port that is free for TCP and UDP, and so many after it; raises AssertionError if none is.

    The next one is noted in a file that all tests of a user share, as one at a time reads it.
    """
    path = Path(tempfile.gettempdir()) / f"edged-test-ports.{os.getuid()}"
    count = _last() - FIRST - neighbours
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        text = file.read()
        number = int(text) if text.isdecimal() else 0
        for _ in range(count):
            port = FIRST + number % count
            number = number % count + 1 + neighbours
            if all(_is_free(host, each) for each in range(port, port + 1 + neighbours)):
                file.truncate(0)
                file.write(str(number))
                return port
    raise AssertionError(f"no port of {FIRST}..{_last()} is free at {host}")


def _last() -> int:
    with contextlib.suppress(OSError, ValueError):
        return max(FIRST + 1_000, min(LAST, int(RANGE.read_text().split()[0]) - 1))
    return LAST


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(family, kind) as sock:
                sock.bind((host, port))
    except OSError:
        return False
    return True
