"""The playback edge's HTTP server: connections in the pump (`exchange`), answers in order.

One request of a connection is answered at a time; those pipelined behind it wait, unread beyond
one buffer. A service may answer later (blocking reload): the connection then waits in one of the
service's groups, and the publisher of what it waits for answers the whole group in one loop.
"""

import itertools
import math
import ssl
import time
from collections.abc import Callable

import structlog
import trio

from edged.playback.exchange import HttpConnection
from edged.playback.h2_connection import H2Connection
from edged.playback.release import Release, do_at_once
from edged.playback.router import (
    CORS,
    PREFLIGHT,
    Handler,
    HttpError,
    Response,
    Router,
    Service,
    error_response,
    prepare_page,
)
from edged.playback.statistics import HttpStatistics
from edged.playback.upgrades import Upgrades
from edged.playback.waiting import Exchange
from edged.runtime.connection import Connection, PumpClass
from edged.runtime.kernel_bytes import KernelPool
from edged.runtime.listeners import serve
from edged.runtime.pump import Pump
from edged.runtime.standing import StandingAnswer, StandingAnswers
from edged.wire.h1 import KnownRequests
from edged.wire.h1_events import H1Limits
from edged.wire.h2 import KnownStrings, date_block
from edged.wire.prepared import PreparedResponse, date_stamp
from edged.wire.request import RequestReceived

__all__ = [
    "CORS",
    "Handler",
    "HttpConnection",
    "HttpError",
    "HttpServer",
    "HttpStatistics",
    "Release",
    "Response",
    "Router",
    "Service",
    "do_at_once",
    "error_response",
]

RESPONSE_BYTES_MAX = 64 * 2**20  # A 10 s segment at 50 Mbps; larger ones are refused by services.
OUT_BYTES_MAX = RESPONSE_BYTES_MAX + 2**20  # One response, and small ones behind it.

logger = structlog.get_logger("edged.http")


class HttpServer:
    """What all connections of one listener share."""

    def __init__(
        self,
        router: Router,
        *,
        limits: H1Limits | None = None,
        cors: bool = True,
        unix_now: Callable[[], float] = time.time,
    ) -> None:
        """Without `cors` no web page may read what is answered, even one open on this host."""
        self.router = router
        self.upgrades = Upgrades()
        self.limits = limits or H1Limits()
        self.known = KnownRequests()
        self.kernel = KernelPool()
        # What is encrypted has nothing of the kernel's, so each sort has its own.
        self.standing = StandingAnswers(_stood_short)
        self.standing_encrypted = StandingAnswers(_stood_short)
        self.cors = cors
        self.known_strings = KnownStrings()
        self.h2_connections = 0
        self.stamp_block = b""  # The same for HTTP/2.
        self.stamp = b""  # The Date of this second; its identity tells responses to be made anew.
        self.responses: dict[int, int] = {}
        self.body_bytes = 0
        self.connections = self.connections_total = self.refused = self.stalled = 0
        self._stood = 0
        self.draining = False  # Then each answer closes its connection, so that viewers move.
        self._unix_now = unix_now
        self.stamped_until = -math.inf
        self._services: list[tuple[str, Service]] = []
        self._for_any_method: list[tuple[str, Service]] = []
        methods = "GET, HEAD, OPTIONS" if cors else "GET, HEAD"
        why, allow = f"only {methods} are answered here", (("Allow", methods),)
        self._not_allowed = error_response(405, why, fields=allow, cors=cors)
        self._not_found = error_response(404, "there is nothing at this address", cors=cors)
        self.failed = error_response(500, "internal error", cors=cors)

    def mount(self, prefix: str, service: Service, *, any_method: bool = False) -> None:
        """Give everything below `prefix` ("/live/") to a service; earlier mounts go first.

        With `any_method` it gets more than GET and HEAD: bodies, and what others are refused.
        """
        assert prefix.startswith("/"), "paths are absolute"
        assert prefix.endswith("/"), "a service is mounted on a folder"
        self._services.append((prefix, service))
        if any_method:
            self._for_any_method.append((prefix, service))

    def remount(self, prefix: str, service: Service) -> None:
        """Have another service answer below a prefix that is mounted, from the next request on."""
        at = [mounted for mounted, _ in self._services].index(prefix)
        self._services[at] = (prefix, service)
        self._count_standing()
        self._begin_standing()

    def make_handler(self, connection: Connection) -> HttpConnection | H2Connection:
        """The pump's maker of handlers: by what TLS has agreed upon (RFC 7301)."""
        if connection.ssl is not None and connection.ssl.selected_alpn_protocol() == "h2":
            return H2Connection(self, connection)
        return HttpConnection(self, connection)

    async def serve(
        self,
        pump: Pump,
        address: str,
        *,
        tls: ssl.SSLContext | None = None,
        connections_max: int = 100_000,
        task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen until cancelled; starts with the address bound."""
        await serve(
            pump,
            address,
            self.make_handler,
            PumpClass.VIEWER,
            tls=tls,
            connections_max=connections_max,
            makes_room=True,
            out_bytes_max=OUT_BYTES_MAX,
            task_status=task_status,
        )

    def statistics(self) -> HttpStatistics:
        """Counters for metrics."""
        self._count_standing()
        return HttpStatistics(
            connections=self.connections,
            h2_connections=self.h2_connections,
            connections_total=self.connections_total,
            responses_total=dict(self.responses),
            body_bytes_total=self.body_bytes,
            refused_total=self.refused,
            stalled_total=self.stalled,
            upgraded_total=self.upgrades.taken_total,
        )

    def stood_total(self) -> int:
        """Requests that no service was asked for, as what it answered before still stood: media."""
        self._count_standing()
        return self._stood

    def tick(self, now: float) -> None:
        """Keep the Date field at this second."""
        if now >= self.stamped_until:
            unix_s = self._unix_now()
            self.stamp = date_stamp(unix_s)
            self.stamp_block = date_block(self.stamp)
            self.kernel.clear()  # What it holds has the Date of the second before.
            self._count_standing()
            self.stamped_until = now + 1.0 - unix_s % 1.0
            self._begin_standing()

    def drain(self, draining: bool) -> None:
        """Close each connection with its next answer, or no longer."""
        self.draining = draining
        self._count_standing()
        self._begin_standing()

    def _begin_standing(self) -> None:
        for standing in (self.standing, self.standing_encrypted):
            standing.begin(-math.inf if self.draining else self.stamped_until)

    def _count_standing(self) -> None:
        standing = (self.standing.counts(), self.standing_encrypted.counts())
        for response, times in itertools.chain(*standing):
            assert isinstance(response, PreparedResponse), "`_have_stand` put it there"
            self.responses[response.status] = self.responses.get(response.status, 0) + times
            self.body_bytes += response.size * times
            self._stood += times

    def respond(
        self, request: RequestReceived, exchange: Exchange, now: float
    ) -> PreparedResponse | None:
        """The answer, or None when a service has made the exchange wait."""
        path = request.path
        plain = request.method in ("GET", "HEAD")
        for prefix, service in self._services if plain else self._for_any_method:
            if path.startswith(prefix):
                return service.respond(request, exchange, now)
        if not plain:
            preflight = self.cors and request.method == "OPTIONS"
            return PREFLIGHT if preflight else self._not_allowed
        handler = self.router.find(path)
        if handler is None:
            return self._not_found
        try:
            page = handler(request)
        except HttpError as error:
            return error_response(error.status, str(error), cors=self.cors)
        except Exception as bug:  # A page's bug must not end anyone's playback.
            logger.exception("page failed", path=path, error=repr(bug))
            return self.failed
        return prepare_page(page, cors=self.cors)


def _stood_short(connection: Connection, answer: StandingAnswer, now: float) -> None:
    """Not a server's method: it would be held by what it holds, with the kernel's bytes of it."""
    assert isinstance(connection.handler, HttpConnection), "it had a server's answers"
    connection.handler.stood_short(answer, now)


def too_large(name: str, bytes_max: int) -> PreparedResponse:
    """The answer for what no connection may be given at once."""
    return error_response(503, f"{name} exceeds {bytes_max} bytes")
