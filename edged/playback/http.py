"""The playback edge's HTTP server: connections in the pump, answers in order, nobody may dawdle.

One request of a connection is answered at a time; those pipelined behind it wait, unread beyond
one buffer. A service may answer later (blocking reload): the connection then waits in one of the
service's groups, and the publisher of what it waits for answers the whole group in one loop. A
viewer is bounded in bytes (one response beyond OUT_LOW_BYTES) and in time: it takes at least
PROGRESS_BYTES_MIN each PROGRESS_S_MAX while anything waits for it, and RESPONSE_BYTES_PER_S_MIN on
the whole. What it is slow to take stays in memory, though the window may have let go of it.
"""

import math
import ssl
import time
from collections.abc import Callable, Sequence

import structlog
import trio
from msgspec import Struct

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
from edged.runtime.connection import OUT_LOW_BYTES, Connection, PumpClass
from edged.runtime.kernel_bytes import (
    KERNEL_BYTES_MAX,
    KERNEL_BYTES_MIN,
    KernelPool,
)
from edged.runtime.listeners import serve
from edged.runtime.pump import Pump
from edged.wire.h1 import (
    Event,
    H1Limits,
    H1Session,
    KnownRequests,
    PreparedResponse,
    RequestReceived,
    RequestRefused,
    date_stamp,
)

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
PROGRESS_S_MAX = 10.0  # A viewer with bytes waiting takes at least
PROGRESS_BYTES_MIN = 16 * 1024  # this much in that time: 13 kbps, or nobody is there any more.
RESPONSE_BYTES_PER_S_MIN = 12_500  # And over a whole response 100 kbps: below any rung of video.
RESPONSE_S_SLACK = 10.0  # Beyond that time: a phone that changes cells stands still for seconds.
REFUSED_LINGER_S = 1.0  # Read on after a refusal: closing on unread bytes would reset it away.

logger = structlog.get_logger("edged.http")


class HttpStatistics(Struct, frozen=True):
    """Counters since the start."""

    connections: int
    connections_total: int
    responses_total: dict[int, int]  # By status.
    body_bytes_total: int
    refused_total: int
    stalled_total: int


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
        self.limits = limits or H1Limits()
        self.known = KnownRequests()
        self.kernel = KernelPool()
        self.cors = cors
        self.stamp = b""  # The Date of this second; its identity tells responses to be made anew.
        self.responses: dict[int, int] = {}
        self.body_bytes = 0
        self.connections = self.connections_total = self.refused = self.stalled = 0
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

    def make_handler(self, connection: Connection) -> "HttpConnection":
        """The pump's maker of handlers."""
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
        return HttpStatistics(
            connections=self.connections,
            connections_total=self.connections_total,
            responses_total=dict(self.responses),
            body_bytes_total=self.body_bytes,
            refused_total=self.refused,
            stalled_total=self.stalled,
        )

    def tick(self, now: float) -> None:
        """Keep the Date field at this second."""
        if now >= self.stamped_until:
            unix_s = self._unix_now()
            self.stamp = date_stamp(unix_s)
            self.kernel.clear()  # What it holds has the Date of the second before.
            self.stamped_until = now + 1.0 - unix_s % 1.0

    def respond(
        self, request: RequestReceived, exchange: "HttpConnection", now: float
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
        except Exception as error:  # A page's bug must not end anyone's playback.
            logger.exception("page failed", path=path, error=repr(error))
            return self.failed
        return prepare_page(page, cors=self.cors)


class HttpConnection:
    """One viewer's connection: the pump's handler, and a service's exchange."""

    __slots__ = (
        "_blocked_until",
        "_check_at",
        "_closing",
        "_due_at",
        "_expired",
        "_group",
        "_linger_until",
        "_queue",
        "_request",
        "_sent_mark",
        "_server",
        "_session",
        "connection",
        "polled",
        "retrying",
    )

    def __init__(self, server: HttpServer, connection: Connection) -> None:
        now = connection.pump.now()
        self.connection = connection
        self.polled: int | None = None  # The playback service's note (`ViewerCount.note_poll`).
        self.retrying = False  # The service is asked again: it has counted the request.
        self._server = server
        self._session = H1Session(now=now, limits=server.limits, known=server.known)
        self._queue: list[Event] = []  # Bounded by `unanswered_max`.
        self._request: RequestReceived | None = None  # In work: a service has yet to answer it.
        self._group: dict[HttpConnection, None] | None = None
        self._blocked_until = math.inf
        self._expired = server.failed
        self._sent_mark = 0
        self._check_at = math.inf
        self._due_at = math.inf  # At the least rate all that is queued has been taken by then.
        self._linger_until = math.inf
        self._closing: str | None = None
        server.connections += 1
        server.connections_total += 1
        connection.set_timeout(self._session.next_timeout())

    # What services call.

    def wait(
        self, group: "dict[HttpConnection, None]", until: float, expired: PreparedResponse
    ) -> None:
        """Wait in `group` for an answer, which is `expired` when that time has come."""
        self._group = group
        group[self] = None
        self._blocked_until = until
        self._expired = expired

    def answer(self, response: PreparedResponse, now: float) -> None:
        """Answer the request that waited; its group, of which a bug ends only this one, let go."""
        self._group = None
        connection = self.connection
        try:
            self._send(response, now)
            if self._queue:
                self._go_on(now)
            if self._request is not None or connection.out_bytes or self._closing is not None:
                self._rearm()
        except Exception as error:
            connection.pump.fail(connection, error)

    def retry(self, now: float) -> None:
        """Ask the service again: what the request waited for has changed; it may wait again."""
        self._group = None
        request = self._request
        assert request is not None, "only a waiting request is retried"
        self.retrying = True
        try:
            response = self._server.respond(request, self, now)
        except Exception as error:  # As in `answer`.
            self.connection.pump.fail(self.connection, error)
            return
        self.retrying = False
        if response is not None:
            self.answer(response, now)
        else:
            self._rearm()

    # What the pump calls.

    def data_received(self, data: memoryview, now: float) -> None:
        """Take requests and answer what can be answered."""
        session = self._session
        events = session.receive_data(data, now)
        while session.upgrading:  # Nothing here is upgraded to: answered as if not asked.
            events += session.decline_upgrade(now)
        queue = self._queue
        for event in events:
            if self._request is None and not queue and self._has_room():
                self._take(event, now)
            else:
                queue.append(event)
        if queue:
            self.connection.pause_reading()
        self._rearm()

    def drained(self) -> None:
        """Go on: the viewer has taken most of what was queued."""
        if self._closing is not None:
            self.connection.close(self._closing)
            return
        now = self.connection.pump.now()
        self._session.answer_taken(now)
        self._go_on(now)
        self._rearm()

    def handle_timeout(self, now: float) -> None:
        """End what took too long: a blocked request, a viewer, a request, an idle connection."""
        if now >= self._linger_until:
            self.connection.close(self._closing or "refused")
            return
        if self._request is not None and now >= self._blocked_until:
            if self._group is not None:
                self._group.pop(self, None)
            self.answer(self._expired, now)
        if self.connection.out_bytes and not self._check_progress(now):
            return
        timed_out = self._session.handle_timeout(now)
        if timed_out is not None and not self.connection.out_bytes:
            self.connection.close(timed_out.reason)
            return
        self._rearm()

    def connection_lost(self, reason: str) -> None:
        """Leave the group, if waiting, and let everything go."""
        if self._group is not None:
            self._group.pop(self, None)
            self._group = None
        self._request = None
        self._queue.clear()
        self._session.close()
        self._server.connections -= 1
        logger.debug(
            "viewer connection ended",
            peer=self.connection.peer,
            why=reason,
            requests=self._session.statistics().requests,
            sent_bytes=self.connection.sent_bytes,
        )

    def _has_room(self) -> bool:
        return self._closing is None and self.connection.out_bytes <= OUT_LOW_BYTES

    def _take(self, event: Event, now: float) -> None:
        if isinstance(event, RequestRefused):
            self._refuse(event, now)
            return
        self._request, self.connection.spoke = event, True
        response = self._server.respond(event, self, now)
        if response is not None:
            self._send(response, now)

    def _go_on(self, now: float) -> None:
        """Answer what waits in the queue, as far as it goes."""
        while self._queue and self._request is None and self._has_room():
            self._take(self._queue.pop(0), now)
        if not self._queue and self._closing is None:
            self.connection.resume_reading()

    def _send(self, response: PreparedResponse, now: float) -> None:
        """Answer the request in work. Hot: of thousands in a row, each call here is some ms."""
        request, self._request = self._request, None
        assert request is not None, "each request is answered once"
        server, connection, size = self._server, self.connection, response.size
        if now >= server.stamped_until:
            server.tick(now)
        if request.keep_alive and request.method != "HEAD" and not server.draining:
            chunks = response.chunks(server.stamp)
            server.body_bytes += size
            if connection.out_bytes:
                self._write_behind(chunks, now)
            else:
                large = KERNEL_BYTES_MIN <= size <= KERNEL_BYTES_MAX and connection.ssl is None
                held = server.kernel.hold(response, chunks) if large else None
                if held is None:
                    connection.send(chunks)
                else:
                    connection.send_held(held)
                if connection.out_bytes:
                    self._note_waiting(chunks, now)
        else:
            self._send_rare(request, response, now)
        status = response.status
        server.responses[status] = server.responses.get(status, 0) + 1
        timeout_at = self._session.request_answered(now)
        if timeout_at < connection.timeout_at:  # One that is earlier looks again when it comes.
            connection.set_timeout(timeout_at)

    def _send_rare(self, request: RequestReceived, response: PreparedResponse, now: float) -> None:
        """To who asked for the head alone, or goes after this."""
        server = self._server
        with_body = request.method != "HEAD"
        close = not request.keep_alive or server.draining
        self._write(response.variant(server.stamp, body=with_body, close=close), now)
        if with_body:
            server.body_bytes += response.size
        if close:
            self._close(
                "the PoP is draining" if request.keep_alive else "one response was asked for"
            )

    def _write(self, chunks: Sequence[bytes], now: float) -> None:
        """Send a response."""
        connection = self.connection
        if connection.out_bytes:
            self._write_behind(chunks, now)
            return
        connection.send(chunks)
        if connection.out_bytes:
            self._note_waiting(chunks, now)

    def _write_behind(self, chunks: Sequence[bytes], now: float) -> None:
        """Queue a response behind what waits."""
        before = self.connection.out_bytes
        self.connection.write_many(chunks)
        # The time that a fast start has saved is not kept for what comes behind it.
        least_s = sum(map(len, chunks)) / RESPONSE_BYTES_PER_S_MIN
        self._due_at = min(self._due_at, now + before / RESPONSE_BYTES_PER_S_MIN) + least_s

    def _note_waiting(self, chunks: Sequence[bytes], now: float) -> None:
        """Not all of a response left at once: by when the viewer should have taken it."""
        connection, size = self.connection, sum(map(len, chunks))
        self._sent_mark = connection.sent_bytes + connection.out_bytes - size
        self._check_at = now + PROGRESS_S_MAX
        self._due_at = now + size / RESPONSE_BYTES_PER_S_MIN

    def _refuse(self, refused: RequestRefused, now: float) -> None:
        server = self._server
        server.tick(now)
        server.refused += 1
        server.responses[refused.status] = server.responses.get(refused.status, 0) + 1
        response = error_response(refused.status, refused.reason, cors=server.cors)
        self._write(response.variant(server.stamp, body=True, close=True), now)
        self._session.request_answered(now)
        self._closing = f"refused: {refused.reason}"
        self._linger_until = now + REFUSED_LINGER_S
        self.connection.resume_reading()

    def _close(self, reason: str) -> None:
        """Close once the response is on its way; `Connection.close` waits for its tail only."""
        self._closing = reason
        if self.connection.out_bytes <= OUT_LOW_BYTES:
            self.connection.close(reason)

    def _check_progress(self, now: float) -> bool:
        """Drop a viewer who stands still, or is too slow on the whole; False if it is."""
        connection = self.connection
        moved = connection.sent_bytes - self._sent_mark
        if now >= self._due_at + RESPONSE_S_SLACK:
            reason = f"{connection.out_bytes} bytes left, least {RESPONSE_BYTES_PER_S_MIN} bytes/s"
        elif now < self._check_at:
            return True
        elif moved < PROGRESS_BYTES_MIN:
            reason = f"{moved} bytes in {PROGRESS_S_MAX:g} s, least {PROGRESS_BYTES_MIN}"
        else:
            self._sent_mark = connection.sent_bytes
            self._check_at = now + PROGRESS_S_MAX
            return True
        self._server.stalled += 1
        connection.abort(f"viewer reads too slowly: {reason}")
        return False

    def _rearm(self) -> None:
        """Set the connection's timer to the earliest of its deadlines."""
        connection = self.connection
        if self._request is None and not connection.out_bytes and self._closing is None:
            connection.set_timeout(self._session.next_timeout())
            return
        at = math.inf
        if connection.out_bytes:
            at = min(self._check_at, self._due_at + RESPONSE_S_SLACK)
        if self._request is not None:
            at = min(at, self._blocked_until)
        elif not connection.out_bytes:
            at = self._session.next_timeout()
        connection.set_timeout(min(at, self._linger_until))
