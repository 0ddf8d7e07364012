"""What systemd is told of us: ready, stopping, a status line, signs of life (sd_notify(3)).

Wire: one datagram of `NAME=value` lines to the Unix socket that $NOTIFY_SOCKET names; a leading @
is an abstract name. Where there is no such socket nobody is told anything.
"""

import contextlib
import os
import socket
import time
from collections.abc import Mapping

import structlog
import trio

# Signs of life in each watchdog interval: one may come late.
SIGNS_PER_INTERVAL = 3
STATUS_CHARS_MAX = 200  # One line of `systemctl status`.

logger = structlog.get_logger("edged")


class ServiceManager:
    """The service manager that started us, if one did."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog_s = _watchdog_s(environ)
        self._running = ""  # What `ready` said that runs.

    @property
    def listens(self) -> bool:
        """Whether somebody wants to be told."""
        return bool(self._address)

    def ready(self, status: str) -> None:
        """All listeners are bound; what runs is said in one line."""
        self._running = status
        self._send("READY=1", f"STATUS={_line(status)}")

    def status(self, status: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={_line(status)}")

    def reloading(self) -> None:
        """The configuration is read again; `reloaded` says that it is done."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={int(time.monotonic() * 1e6)}")

    def reloaded(self, refused: str = "") -> None:
        """It was read again; `refused`: why it is as before."""
        status = f"{self._running}; last reload refused: {refused}" if refused else self._running
        self._send("READY=1", f"STATUS={_line(status)}")

    def stopping(self, within_s: float) -> None:
        """We were asked to end, and do; the manager shall wait so long, or as its unit says."""
        self._send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(within_s * 1e6)}")

    async def run_watchdog(self) -> None:
        """Give signs of life until cancelled: a loop that stands still gives none."""
        if self._watchdog_s is None:
            return
        while True:
            self._send("WATCHDOG=1")
            await trio.sleep(self._watchdog_s / SIGNS_PER_INTERVAL)

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        with contextlib.ExitStack() as stack:
            try:
                sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
                sock.setblocking(False)  # A manager that does not listen must not hold us up.
                sock.sendto("\n".join(lines).encode(), self._address)
            except OSError as error:
                logger.warning("service manager not told", what=lines[0], error=error.strerror)


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    """The interval in which a sign of life is due; None when none is (sd_watchdog_enabled(3))."""
    value, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not (value.isascii() and value.isdigit()) or int(value) == 0:
        return None
    if pid and pid != str(os.getpid()):
        return None  # Meant for the process that started us.
    return int(value) / 1e6


def _line(text: str) -> str:
    return " ".join(text.split())[:STATUS_CHARS_MAX]
