"""One viewer's connection over HTTP/2: many requests at a time, answers by the viewer's priorities.

The bounds are those of HTTP/1.1 (`exchange`): a viewer for whom something waits, be it for want of
its leave (flow control), takes at least PROGRESS_BYTES_MIN each PROGRESS_S_MAX, and on the whole
RESPONSE_BYTES_PER_S_MIN; no more than UNSENT_BYTES_MAX of answers' bodies wait for one.
"""

import math
from typing import TYPE_CHECKING, Final

import structlog

from edged.playback.exchange import (
    PROGRESS_BYTES_MIN,
    PROGRESS_S_MAX,
    RESPONSE_BYTES_PER_S_MIN,
    RESPONSE_S_SLACK,
)
from edged.playback.router import error_response
from edged.playback.waiting import Exchange, Waiters
from edged.runtime.connection import OUT_LOW_BYTES, Connection
from edged.runtime.kernel_bytes import unacknowledged_bytes
from edged.wire.h2 import H2Request, H2Session, RequestRefused, SessionEnded, StreamReset
from edged.wire.prepared import PreparedResponse, narrow
from edged.wire.request import RequestReceived

if TYPE_CHECKING:
    from edged.playback.http import HttpServer

# At a time: what is queued in the kernel and here no priority can overtake.
TAKE_BYTES: Final = 64 * 1024
UNSENT_BYTES_MAX = 64 * 2**20  # As the largest answer.
# A session that has ended leaves the socket open so long, and for as long as the viewer takes what
# the kernel has of it: closing on the window updates that come meanwhile would reset it away.
LEAVE_S: Final = 2.0
LEAVE_BYTES_MAX: Final = 4 * 2**20  # Of what is still said and not heard.
LARGE_BYTES: Final = 2**20  # Below it an answer is not held against that.

logger = structlog.get_logger("edged.http")

TOO_MUCH = error_response(503, f"{UNSENT_BYTES_MAX} bytes of answers wait for this connection")


class H2Exchange(Exchange):
    """One request, and its answer."""

    __slots__ = ("_expired", "_group", "_owner", "blocked_until", "request", "stream_id")

    def __init__(self, owner: "H2Connection", stream_id: int, request: RequestReceived) -> None:
        super().__init__(owner.connection)
        self.polled = owner.polled
        self.stream_id = stream_id
        self.request = request
        self.blocked_until = math.inf
        self._owner = owner
        self._group: Waiters | None = None
        self._expired = owner.server.failed

    def wait(self, group: Waiters, until: float, expired: PreparedResponse) -> None:
        """Wait in `group` for an answer, which is `expired` when that time has come."""
        self._group = group
        group[self] = None
        self.blocked_until = until
        self._expired = expired

    def leave(self) -> None:
        """Wait no more: nobody is there to be answered."""
        if self._group is not None:
            self._group.pop(self, None)
            self._group = None

    def expire(self, now: float) -> None:
        """Be answered with what was left for that."""
        self.leave()
        self._owner.answer(self, self._expired, now)

    def answer(self, response: PreparedResponse, now: float) -> None:
        """Answer the request, which waited; its group has let go of it."""
        self._group = None
        try:
            self._owner.answer(self, response, now)
            self._owner.flush(now)
        except Exception as error:
            self.connection.pump.fail(self.connection, error)

    def stamped(self, response: PreparedResponse, now: float) -> tuple[bytes, ...]:
        """Nobody else can send for it: `answer_ahead` says so."""
        raise AssertionError(f"an answer of {response.size} bytes at {now} is not for others")

    def retry(self, now: float) -> None:
        """Ask the service again; it may wait again."""
        self._group = None
        self.retrying = True
        try:
            self._owner.ask(self, now)
            self._owner.flush(now)
        except Exception as error:
            self.connection.pump.fail(self.connection, error)
        self.retrying = False


class H2Connection:
    """The pump's handler of one connection."""

    __slots__ = (
        "_busy_since",
        "_check_at",
        "_closing",
        "_exchanges",
        "_leave_at",
        "_leave_left",
        "_leave_mark",
        "_sent_at_busy",
        "_sent_mark",
        "_session",
        "connection",
        "polled",
        "server",
    )

    def __init__(self, server: "HttpServer", connection: Connection) -> None:
        now = connection.pump.now()
        self.connection = connection
        self.server = server
        self.polled: int | None = None
        self._session = H2Session(now=now, known=server.known_strings)
        self._exchanges: dict[int, H2Exchange] = {}  # Those that are to be answered.
        self._closing: str | None = None
        self._leave_at = math.inf
        self._leave_left = self._leave_mark = 0
        self._busy_since: float | None = None  # Something waits since then.
        self._sent_at_busy = self._sent_mark = 0
        self._check_at = math.inf
        server.connections += 1
        server.connections_total += 1
        server.h2_connections += 1
        self.flush(now)

    # What the pump calls.

    def data_received(self, data: memoryview, now: float) -> None:
        """Take requests and answer what can be answered."""
        for event in self._session.receive_data(data, now):
            self._take(event, now)
        self.flush(now)

    def drained(self) -> None:
        """Go on: the viewer has taken most of what was queued."""
        self.flush(self.connection.pump.now())

    def handle_timeout(self, now: float) -> None:
        """End what took too long: a blocked request, a viewer, a request, an idle connection."""
        if self._leave_at < math.inf:
            self._leave(now)
            return
        due = [e for e in self._exchanges.values() if e.blocked_until <= now]
        for exchange in due:
            exchange.expire(now)
        if not self.connection.out_bytes and not self._session.has_unsent:
            self._busy_since = None  # The last of it left without a word: it was little.
        if self._busy_since is not None and not self._check_progress(now):
            return
        for event in self._session.handle_timeout(now):
            self._take(event, now)
        self.flush(now)

    def connection_lost(self, reason: str) -> None:
        """Leave the groups, if waiting, and let everything go."""
        self._leave_all()
        statistics = self._session.statistics()
        self._session.close()
        self.server.connections -= 1
        self.server.h2_connections -= 1
        logger.debug(
            "viewer connection ended",
            peer=self.connection.peer,
            why=reason,
            requests=statistics.requests,
            sent_bytes=self.connection.sent_bytes,
        )

    # What exchanges call.

    def ask(self, exchange: H2Exchange, now: float) -> None:
        """Have the service answer a request, or have it wait."""
        try:
            response = self.server.respond(exchange.request, exchange, now)
        except Exception:  # A bug that this request meets ends no other of the connection.
            logger.exception("request failed", peer=self.connection.peer)
            exchange.leave()
            response = self.server.failed
        if response is not None:
            self.answer(exchange, response, now)

    def answer(self, exchange: H2Exchange, response: PreparedResponse, now: float) -> None:
        """Queue an answer; nothing if its stream is gone."""
        self._exchanges.pop(exchange.stream_id, None)
        self.polled = exchange.polled
        server, request, session = self.server, exchange.request, self._session
        if request.conditional:
            response = narrow(request, response)
        if response.size > LARGE_BYTES and session.unsent_bytes > UNSENT_BYTES_MAX - response.size:
            response = TOO_MUCH
        if now >= server.stamped_until:
            server.tick(now)
        head_only = request.method == "HEAD"
        block = response.block(server.stamp_block)
        if not session.respond(
            exchange.stream_id, block, response.body, head_only=head_only, now=now
        ):
            return
        responses = server.responses
        responses[response.status] = responses.get(response.status, 0) + 1
        if not head_only:
            server.body_bytes += response.size
        if server.draining:
            session.drain(now)

    def flush(self, now: float) -> None:
        """Send what may go out, and set the timer."""
        connection, session = self.connection, self._session
        while session.wants_output and connection.out_bytes <= OUT_LOW_BYTES:
            chunks = session.take(TAKE_BYTES)
            if not chunks:
                break
            connection.send(chunks)
        if self._closing is not None and not session.wants_output:
            self._leave(now)
            return
        if not connection.out_bytes and not session.has_unsent:
            self._busy_since = None
        elif self._busy_since is None:
            self._busy_since = now
            self._sent_at_busy = self._sent_mark = connection.sent_bytes
            self._check_at = now + PROGRESS_S_MAX
        self._rearm()

    def _leave(self, now: float) -> None:
        """All is said: close once the viewer has it, or takes no more of it."""
        connection = self.connection
        assert self._closing is not None, "the session has ended"
        left = connection.out_bytes + unacknowledged_bytes(connection.fd)
        heard = connection.received_bytes - self._leave_mark
        if self._leave_at == math.inf:
            self._leave_mark = connection.received_bytes
            self._leave_left, self._check_at = left, now + PROGRESS_S_MAX
        elif heard > LEAVE_BYTES_MAX:
            connection.close(self._closing)
            return
        elif now < self._leave_at:
            return  # It has said something, which nobody hears.
        elif not left or (left >= self._leave_left and now >= self._check_at):
            connection.close(self._closing)
            return
        elif left < self._leave_left:
            self._leave_left, self._check_at = left, now + PROGRESS_S_MAX
        self._leave_at = now + LEAVE_S
        connection.set_timeout(self._leave_at)

    def _take(self, event: object, now: float) -> None:
        if type(event) is H2Request:  # Hot, and a pattern takes some looks.
            self.connection.spoke = True
            exchange = H2Exchange(self, event.stream_id, event.request)
            self._exchanges[event.stream_id] = exchange
            self.ask(exchange, now)
            return
        match event:
            case RequestRefused():
                self._refuse(event, now)
            case StreamReset(stream_id):
                exchange_gone = self._exchanges.pop(stream_id, None)
                if exchange_gone is not None:
                    exchange_gone.leave()
            case SessionEnded(reason):
                self._leave_all()
                self._closing = reason
            case _:
                raise AssertionError(f"unknown event {event!r}")

    def _refuse(self, refused: RequestRefused, now: float) -> None:
        server, status = self.server, refused.status
        if now >= server.stamped_until:
            server.tick(now)
        server.refused += 1
        server.responses[status] = server.responses.get(status, 0) + 1
        response = error_response(status, refused.reason, cors=server.cors)
        block = response.block(server.stamp_block)
        self._session.respond(
            refused.stream_id, block, response.body, head_only=refused.head_only, now=now
        )

    def _leave_all(self) -> None:
        for exchange in self._exchanges.values():
            exchange.leave()
        self._exchanges.clear()

    def _check_progress(self, now: float) -> bool:
        """Drop a viewer who stands still, or is too slow on the whole; False if it is."""
        connection, since = self.connection, self._busy_since
        assert since is not None, "something waits"
        if now < self._check_at:
            return True
        moved = connection.sent_bytes - self._sent_mark
        all_moved = connection.sent_bytes - self._sent_at_busy
        least = (now - since - RESPONSE_S_SLACK) * RESPONSE_BYTES_PER_S_MIN
        if moved < PROGRESS_BYTES_MIN:
            reason = f"{moved} bytes in {PROGRESS_S_MAX:g} s, least {PROGRESS_BYTES_MIN}"
        elif all_moved < least:
            reason = f"{all_moved} bytes in {now - since:.0f} s, least {least:.0f}"
        else:
            self._sent_mark = connection.sent_bytes
            self._check_at = now + PROGRESS_S_MAX
            # Of what a fast start has saved no more is kept than the slack, for a crawl behind it.
            spare = int(max(least, 0) + RESPONSE_S_SLACK * RESPONSE_BYTES_PER_S_MIN)
            self._sent_at_busy = max(self._sent_at_busy, connection.sent_bytes - spare)
            return True
        self.server.stalled += 1
        connection.abort(f"viewer reads too slowly: {reason}")
        return False

    def _rearm(self) -> None:
        """Set the connection's timer to the earliest of its deadlines."""
        at = self._session.next_timeout()
        if self._busy_since is not None:
            at = min(at, self._check_at)
        if self._exchanges:
            at = min(at, *(e.blocked_until for e in self._exchanges.values()))
        self.connection.set_timeout(at)
