"""Upgrades of HTTP/1.1 connections (RFC 9110 §7.8): who speaks the other protocol gets the socket.

So one public port carries playback and, say, WebSockets: a request for a path that is mounted here
is handed over in its turn, with the connection (TLS included) and the bytes that came behind it.
Over HTTP/2 there is none: browsers open an HTTP/1.1 connection for a WebSocket, as nothing here
says that it takes extended CONNECT (RFC 8441 §3).
"""

from typing import Protocol

from edged.runtime.connection import Connection
from edged.runtime.pumped import PumpHandler
from edged.wire.prepared import PreparedResponse
from edged.wire.request import RequestReceived

UPGRADED = "upgraded"


class UpgradeTaker(Protocol):
    """Who takes connections over."""

    def take(
        self, request: RequestReceived, connection: Connection, rest: bytes, now: float
    ) -> PumpHandler | PreparedResponse:
        """The connection's next handler; or the answer that refuses, after which it is closed.

        Who takes it has written the 101, and has `rest` to read: what came behind the request.
        Earlier answers may be queued still. The connection's timer is not set, and reading goes on.
        What is raised ends the connection.
        """


class Upgrades:
    """Which paths are upgraded, and to what."""

    def __init__(self) -> None:
        self.taken_total = 0
        self._takers: dict[tuple[str, str], UpgradeTaker] = {}

    def mount(self, path: str, taker: UpgradeTaker, *, protocol: str = "websocket") -> None:
        """Have requests for that very path, and that protocol, handed over."""
        assert path.startswith("/"), "paths are absolute"
        assert (path, protocol) not in self._takers, f"{path} is mounted twice"
        self._takers[path, protocol.lower()] = taker

    def find(self, request: RequestReceived) -> UpgradeTaker | None:
        """Who takes a request; None: it is answered as if it had not asked to be upgraded."""
        if not self._takers or not request.upgrade or request.method != "GET":
            return None
        for protocol in request.field(b"upgrade").decode("latin-1").lower().split(","):
            taker = self._takers.get((request.path, protocol.strip()))
            if taker is not None:
                return taker
        return None
