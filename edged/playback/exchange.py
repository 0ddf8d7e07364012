"""One viewer's connection: requests in, answers out in order, and nobody may dawdle.

A viewer is bounded in bytes (one response beyond OUT_LOW_BYTES) and in time: it takes at least
PROGRESS_BYTES_MIN each PROGRESS_S_MAX while anything waits for it, and RESPONSE_BYTES_PER_S_MIN on
the whole. What it is slow to take stays in memory, though the window may have let go of it.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import structlog

from edged.playback.router import error_response
from edged.playback.upgrades import UPGRADED, UpgradeTaker
from edged.playback.waiting import Exchange, Waiters
from edged.runtime.connection import OUT_LOW_BYTES, Connection
from edged.runtime.kernel_bytes import (
    KERNEL_BYTES_MAX,
    KERNEL_BYTES_MIN,
    unacknowledged_bytes,
)
from edged.runtime.standing import StandingAnswer
from edged.wire.h1 import H1Session
from edged.wire.h1_events import Event, RequestRefused
from edged.wire.prepared import PreparedResponse, narrow
from edged.wire.request import RequestReceived

if TYPE_CHECKING:
    from edged.playback.http import HttpServer

PROGRESS_S_MAX: Final = 10.0  # A viewer with bytes waiting takes at least
# this much in that time: 13 kbps, or nobody is there any more.
PROGRESS_BYTES_MIN: Final = 16 * 1024
# And over a whole response 100 kbps: below any rung of video.
RESPONSE_BYTES_PER_S_MIN: Final = 12_500
# Beyond that time: a phone that changes cells stands still for seconds.
RESPONSE_S_SLACK: Final = 10.0
# Read on after a refusal, and again for as long while the viewer takes what the kernel has of it:
# closing on unread bytes would reset it away (RFC 9112 §9.6).
REFUSED_LINGER_S: Final = 1.0

logger = structlog.get_logger("edged.http")

DRAINING = error_response(503, "the PoP is draining; connect again", fields=(("Retry-After", "1"),))


class HttpConnection(Exchange):
    """One viewer's connection: the pump's handler, and a service's exchange."""

    __slots__ = (
        "_ahead",
        "_blocked_until",
        "_check_at",
        "_closing",
        "_due_at",
        "_expired",
        "_group",
        "_linger_left",
        "_linger_until",
        "_queue",
        "_request",
        "_sent_mark",
        "_server",
        "_session",
        "_standing",
    )

    def __init__(self, server: "HttpServer", connection: Connection) -> None:
        super().__init__(connection)
        now = connection.pump.now()
        self._server = server
        encrypts = connection.ssl is not None
        self._standing = server.standing_encrypted if encrypts else server.standing
        self._session = H1Session(now=now, limits=server.limits, known=server.known)
        self._queue: list[Event] = []  # Bounded by `unanswered_max`.
        self._request: RequestReceived | None = None  # In work: a service has yet to answer it.
        self._ahead: PreparedResponse | None = None  # Sent, and not settled.
        self._group: Waiters | None = None
        self._blocked_until = math.inf
        self._expired = server.failed
        self._sent_mark = 0
        self._check_at = math.inf
        self._due_at = math.inf  # At the least rate all that is queued has been taken by then.
        self._linger_until = math.inf
        self._linger_left = 0
        self._closing: str | None = None
        server.connections += 1
        server.connections_total += 1
        connection.set_timeout(self._session.next_timeout())

    # What services call.

    def wait(self, group: Waiters, until: float, expired: PreparedResponse) -> None:
        """Wait in `group` for an answer, which is `expired` when that time has come."""
        self._group = group
        group[self] = None
        self._blocked_until = until
        self._expired = expired

    def answer(self, response: PreparedResponse, now: float) -> None:
        """Answer the request that waited; its group, of which a bug ends only this one, let go."""
        self._group = None
        try:
            self._send(response, now)
            self._go_on_after(now)
        except Exception as error:
            self.connection.pump.fail(self.connection, error)

    def answer_ahead(self, response: PreparedResponse) -> bool:
        """Take that for the answer to the request that waited: who calls sends it, then `settle`s.

        For one of thousands, of whom the last is not to wait for the others' bookkeeping. False,
        nothing changed, where it is not as simple as that: then it is for `answer`.
        """
        request = self._request
        if request is None or not request.keep_alive or request.method == "HEAD":
            return False
        if request.conditional:
            return False
        if not self.connection.clear or self._server.draining:
            return False
        self._group, self._ahead = None, response
        return True

    def stamped(self, response: PreparedResponse, now: float) -> tuple[bytes, ...]:
        """The bytes of a response, with the Date of now."""
        server = self._server
        if now >= server.stamped_until:
            server.tick(now)
        return response.chunks(server.stamp)

    def settle(self, now: float) -> None:
        """Note the answer that was sent ahead, if none of the connection's events has done so."""
        response, self._ahead = self._ahead, None
        if response is None:
            return
        self._request = None
        try:
            if self.connection.out_bytes:
                self._note_waiting(response.chunks(self._server.stamp), now)
            self._server.body_bytes += response.size
            self._note_answered(response, now)
            self._go_on_after(now)
        except Exception as error:
            self.connection.pump.fail(self.connection, error)

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
        connection = self.connection
        if connection.standing is not None and self._answer_standing(data, now):
            return
        if connection.stood or self._ahead is not None:
            self._count_standing()
            self.settle(now)
        connection.standing = None  # Settling may have found it at rest; these bytes end that.
        session, answered = self._session, None
        events = session.receive_data(data, now)
        while session.upgrading and not self._is_taken(events[-1]):
            events += session.decline_upgrade(now)  # Answered as if not asked.
        queue = self._queue
        for event in events:
            if self._request is None and not queue and self._has_room():
                answered = self._take(event, now)
            else:
                queue.append(event)
        if queue:
            connection.pause_reading()
        elif events and self._at_rest():
            connection.standing = self._standing
            if answered is not None and answered.lasting:
                self._have_stand(answered, events[0], bytes(data))
            if not connection.out_bytes:
                return  # The answer has set the timer.
        self._rearm()

    def drained(self) -> None:
        """Go on: the viewer has taken most of what was queued."""
        if self._closing is not None:
            self.connection.close(self._closing)
            return
        now = self.connection.pump.now()
        self.settle(now)
        self._session.answer_taken(now)
        self._go_on(now)
        self._rearm()

    def handle_timeout(self, now: float) -> None:
        """End what took too long: a blocked request, a viewer, a request, an idle connection."""
        self.settle(now)
        self._count_standing()
        if now >= self._linger_until and not self._linger_on(now):
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
        self._queue.clear()
        self.settle(self.connection.pump.now())
        self._count_standing()
        if self._group is not None:
            self._group.pop(self, None)
            self._group = None
        self._request = None
        self._session.close()
        self._server.connections -= 1
        logger.debug(
            "viewer connection ended",
            peer=self.connection.peer,
            why=reason,
            requests=self._session.statistics().requests,
            sent_bytes=self.connection.sent_bytes,
        )

    def _answer_standing(self, data: memoryview, now: float) -> bool:
        """Send what stands for these bytes; False, nothing done, without any."""
        connection, standing = self.connection, self.connection.standing
        assert standing is not None, "it is at rest"
        stands = None if connection.out_bytes else standing.find(data, now)
        if stands is None:
            return False
        connection.send_standing(stands, now)
        if connection.out_bytes:
            self.stood_short(stands, now)
        return True

    def _at_rest(self) -> bool:
        """Whether what comes next begins a request, and can be answered at once."""
        nothing = self._request is None and not self._queue and self._closing is None
        return nothing and not self._session.in_request

    def _has_room(self) -> bool:
        return self._closing is None and self.connection.out_bytes <= OUT_LOW_BYTES

    def _take(self, event: Event, now: float) -> PreparedResponse | None:
        """Have the next in turn answered; with what, if it was at once."""
        if isinstance(event, RequestRefused):
            self._refuse(event, now)
            return None
        if event.upgrade and (taker := self._server.upgrades.find(event)) is not None:
            self._hand_over(event, taker, now)
            return None
        self._request, self.connection.spoke = event, True
        response = self._server.respond(event, self, now)
        if response is not None:
            self._send(response, now)
        return response

    def _have_stand(self, response: PreparedResponse, event: Event, data: bytes) -> None:
        """Have what `event` was answered stand for all who send the same bytes and nothing else."""
        server = self._server
        if not isinstance(event, RequestReceived) or event.method != "GET" or event.conditional:
            return
        if not server.known.is_whole(data, event):
            return
        encrypts = self.connection.ssl is not None
        held = None if encrypts else server.kernel.find(response)
        if held is not None or encrypts or response.size < KERNEL_BYTES_MIN:  # Else soon there is.
            chunks = response.chunks(server.stamp)
            self._standing.add(data, response, chunks, held, asker=self.connection.fd)

    def stood_short(self, answer: StandingAnswer, now: float) -> None:
        """Not all of what stood left at once: from here on it is as any other answer."""
        self._count_standing()
        self._note_waiting(answer.chunks, now)
        self._rearm()

    def _count_standing(self) -> None:
        """Tell the session what was answered without it."""
        connection = self.connection
        if connection.stood:
            self._session.answered_before(connection.stood, connection.stood_at)
            connection.stood = 0

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
        if request.conditional:
            response = narrow(request, response)
        server, connection, size = self._server, self.connection, response.size
        if now >= server.stamped_until:
            server.tick(now)
        chunks = response.chunks(server.stamp)
        if request.keep_alive and request.method != "HEAD" and not server.draining:
            server.body_bytes += size
            if connection.out_bytes:
                self._write_behind(chunks, now)
            else:
                large = KERNEL_BYTES_MIN <= size <= KERNEL_BYTES_MAX and connection.ssl is None
                shared = large and not request.conditional
                held = server.kernel.hold(response, chunks) if shared else None
                if held is None:
                    connection.send(chunks)
                else:
                    connection.send_held(held)
                if connection.out_bytes > 0:
                    self._note_waiting(chunks, now)
        else:
            self._send_rare(request, response, now)
        self._note_answered(response, now)

    def _note_answered(self, response: PreparedResponse, now: float) -> None:
        status, responses = response.status, self._server.responses
        responses[status] = responses.get(status, 0) + 1
        timeout_at = self._session.request_answered(now)
        if (
            timeout_at < self.connection.timeout_at
        ):  # One that is earlier looks again when it comes.
            self.connection.set_timeout(timeout_at)

    def _go_on_after(self, now: float) -> None:
        """Behind an answer given late: what was asked since then, and the deadlines."""
        if self._queue:
            self._go_on(now)
        if self._at_rest():
            self.connection.standing = self._standing
        if self._request is not None or self.connection.out_bytes or self._closing is not None:
            self._rearm()

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
        if connection.out_bytes > 0:
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
        server.refused += 1
        response = error_response(refused.status, refused.reason, cors=server.cors)
        self._end_with(response, f"refused: {refused.reason}", now)

    def _end_with(self, response: PreparedResponse, reason: str, now: float) -> None:
        """Send the connection's last answer, and hear it out for a moment."""
        server = self._server
        server.tick(now)
        server.responses[response.status] = server.responses.get(response.status, 0) + 1
        self._write(response.variant(server.stamp, body=True, close=True), now)
        self._session.request_answered(now)
        self._closing = reason
        self._linger_until = now + REFUSED_LINGER_S
        self.connection.resume_reading()

    def _linger_on(self, now: float) -> bool:
        """Whether the viewer is still to hear why: it takes what comes before that, if slowly."""
        left = self.connection.out_bytes + unacknowledged_bytes(self.connection.fd)
        if not left or (left >= self._linger_left and now >= self._check_at):
            return False
        if left < self._linger_left or self._linger_left == 0:
            self._linger_left, self._check_at = left, now + PROGRESS_S_MAX
        self._linger_until = now + REFUSED_LINGER_S
        return True

    def _is_taken(self, event: Event) -> bool:
        upgrades = self._server.upgrades
        return isinstance(event, RequestReceived) and upgrades.find(event) is not None

    def _hand_over(self, request: RequestReceived, taker: UpgradeTaker, now: float) -> None:
        """Let go of the connection, to who speaks what it is upgraded to; or refuse."""
        connection, server, session = self.connection, self._server, self._session
        rest = session.take_rest()
        connection.spoke = True
        connection.set_timeout(math.inf)
        drained = DRAINING if server.draining else None
        taken = drained or taker.take(request, connection, rest, now)
        if isinstance(taken, PreparedResponse):
            self._end_with(taken, "an upgrade was refused", now)
            session.close()
            return
        self._count_standing()
        # Viewers' connections are read once in their turn: nothing more comes to this one.
        connection.handler, connection.standing = taken, None
        connection.resume_reading()
        server.upgrades.taken_total += 1
        self._closing = UPGRADED
        self.connection_lost(UPGRADED)

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
        if connection.handler is not self:
            return  # It is another's.
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
