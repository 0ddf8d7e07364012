"""HTTP/2 for the playback edge, sans-IO (RFC 9113): requests in, ready bytes out.

`H2Session` is the server's end of one connection: `receive_data` takes bytes and tells of requests,
`respond` queues an answer, `take` gives what is to be sent. Frames are `reader`'s, header blocks
`hpack`'s, what a request is `requests`', the order of answers and the windows `sending`'s.

What one connection can make us hold, with the limits as they are: a frame of 16 KiB or a header
block of 16 KiB; the HPACK table's 4 KiB; 256 KiB of bodies; 128 streams, each with its request's
fields (16 KiB decoded at most, mostly shared with the table); 64 KiB of answers to control frames;
eight whole small answers. Answers' bodies are shared by all who get them.
"""

import math
from collections.abc import Sequence
from typing import Final

from edged.wire.h2 import frames
from edged.wire.h2.events import Event, H2Statistics, SessionEnded
from edged.wire.h2.frames import ConnectionFaultError, ErrorCode, name_code
from edged.wire.h2.hpack import KnownStrings
from edged.wire.h2.limits import H2Limits
from edged.wire.h2.receiving import DRAIN_MARK, Receiver
from edged.wire.h2.sending import Chunk, Sender
from edged.wire.h2.streams import StreamTable

INF: Final = math.inf


class H2Session:
    """The server's end of one HTTP/2 connection."""

    __slots__ = (
        "_drain_at",
        "_ended",
        "_partial_since",
        "_quiet_since",
        "_receiver",
        "_seen_at",
        "_sender",
        "_stall_at",
        "_stall_mark",
        "_started_at",
        "_streams",
        "limits",
    )

    def __init__(
        self, *, now: float, limits: H2Limits | None = None, known: KnownStrings | None = None
    ) -> None:
        self.limits = limits = limits or H2Limits()
        self._streams = StreamTable()
        settings = frames.make_settings(
            (
                (frames.MAX_CONCURRENT_STREAMS, limits.streams_max),
                (frames.INITIAL_WINDOW_SIZE, limits.body_bytes_max + 1),  # One too many is a 413.
                (frames.MAX_HEADER_LIST_SIZE, limits.head_bytes_max),
                (frames.NO_RFC7540_PRIORITIES, 1),
            )
        )
        self._sender = Sender(settings, self._streams, limits)
        self._receiver = Receiver(self._sender, self._streams, limits, known)
        self._ended = False
        self._started_at = self._quiet_since = self._seen_at = now
        self._partial_since: float | None = None
        self._drain_at = INF
        self._stall_at = INF  # When the peer should have given some window;
        self._stall_mark = 0  # and what had been sent when that began.

    @property
    def wants_output(self) -> bool:
        """Whether `take` has anything to give."""
        return self._sender.wants_output

    @property
    def has_unsent(self) -> bool:
        """Whether anything waits to go out, be it for the peer's leave."""
        return not self._sender.is_empty

    @property
    def unsent_bytes(self) -> int:
        """Of the answers' bodies."""
        return sum(stream.left for stream in self._sender.schedule)

    @property
    def ended(self) -> bool:
        """Whether `SessionEnded` was told: once `wants_output` is false, close."""
        return self._ended

    def receive_data(self, data: bytes | bytearray | memoryview, now: float) -> list[Event]:
        """Take bytes; never raises. `SessionEnded` is the last event: all streams are gone."""
        if self._ended:
            return []
        self._seen_at = now
        receiver = self._receiver
        whole = data if type(data) is bytes else bytes(data)
        if self._stall_at == INF and (usual := receiver.receive_usual(whole, now)) is not None:
            return [usual]
        events = receiver.receive(whole, now)
        if receiver.reader.partial:
            if self._partial_since is None or receiver.progressed:
                self._partial_since = now
        else:
            self._partial_since = None
        if receiver.fault is not None:
            return self._fail(events, receiver.fault.code, str(receiver.fault))
        if self._stall_at < INF and not self._sender.schedule.queue:
            self._stall_at = INF  # What had stalled is wanted no more.
        if events and not self._streams.live:
            self._quiet_since = now
        if receiver.drain_acked and self._drain_at < INF:
            self._refuse_more()
        if receiver.peer_leaving and self._is_done():
            return self._end(events, receiver.peer_leaving)
        return events

    def respond(
        self,
        stream_id: int,
        block: bytes,
        body: Sequence[bytes],
        *,
        head_only: bool = False,
        now: float,
    ) -> bool:
        """Queue an answer; False if its stream has died meanwhile, or is answered.

        `block` is a whole header block (`responses`), `body` is not copied unless it is small.
        """
        stream = self._streams.live.get(stream_id)
        if stream is None or stream.answered:
            return False
        self._sender.respond(stream, block, () if head_only else body)
        self._quiet_since = self._seen_at = now
        return True

    def reset(self, stream_id: int, now: float) -> None:
        """Break off a stream whose answer failed (INTERNAL_ERROR)."""
        stream = self._streams.live.get(stream_id)
        if stream is None or self._ended:
            return
        self._sender.forget(stream)
        self._streams.close(stream)
        self._streams.remember_reset(stream_id)
        self._quiet_since = self._seen_at = now
        try:
            self._sender.send_control(frames.make_reset(stream_id, ErrorCode.INTERNAL_ERROR))
        except ConnectionFaultError as fault:
            self._receiver.fault = fault  # Told with what comes next, or by the timer.

    def take(self, bytes_max: int) -> list[Chunk]:
        """The next chunks to send: whole frames, of `bytes_max` and at most one frame more."""
        sender = self._sender
        chunks = sender.take(bytes_max)
        if sender.schedule.queue:
            if sender.stalled and self._stall_at == INF:
                self._stall_at = self._seen_at + self.limits.blocked_s_max
                self._stall_mark = sender.sent_bytes
        elif self._stall_at < INF:
            self._stall_at = INF
            self._quiet_since = self._seen_at
        return chunks

    def next_timeout(self) -> float:
        """When `handle_timeout` has something to do."""
        if self._ended:
            return INF
        limits, receiver, streams = self.limits, self._receiver, self._streams
        at = min(self._drain_at, self._stall_at)
        if self._is_done():
            if receiver.intake.refusing or receiver.peer_leaving:
                return self._seen_at
            at = min(at, self._quiet_since + limits.idle_s_max)
        elif streams.receiving:
            oldest = next(iter(streams.receiving.values()))
            at = min(at, oldest.began_at + limits.request_s_max)
        if self._partial_since is not None:
            at = min(at, self._partial_since + limits.request_s_max)
        if not receiver.settled:
            at = min(at, self._started_at + self._settle_s_max())
        return self._seen_at if receiver.fault is not None else max(at, self._seen_at)

    def handle_timeout(self, now: float) -> list[Event]:
        """End what took too long; never raises."""
        events: list[Event] = []
        if self._ended or now < self.next_timeout():
            return events
        self._seen_at = now
        if self._drain_at <= now:
            self._refuse_more()
        try:
            self._receiver.intake.expire(now, events)
        except ConnectionFaultError as fault:
            self._receiver.fault = fault
        overdue = self._receiver.fault or self._find_overdue(now)
        if overdue is not None:
            return self._fail(events, overdue.code, str(overdue))
        if self._is_leaving() and self._is_done():
            return self._end(events, self._receiver.peer_leaving or "drained")
        return events

    def _find_overdue(self, now: float) -> ConnectionFaultError | None:
        """What the whole connection has not done in time."""
        limits, receiver = self.limits, self._receiver
        late = f"not complete after {limits.request_s_max:g} s"
        code, told = ErrorCode.PROTOCOL_ERROR, ""
        if not receiver.settled and now >= self._started_at + self._settle_s_max():
            told = f"preface {late}"
            if receiver.reader.started:
                code = ErrorCode.SETTINGS_TIMEOUT
                told = f"SETTINGS not acknowledged after {limits.settings_s_max:g} s"
        elif self._partial_since is not None and now >= self._partial_since + limits.request_s_max:
            told = f"frame or header block {late}"
        elif now >= self._stall_at and self._is_stalled(now):
            code = ErrorCode.ENHANCE_YOUR_CALM
            told = (
                f"window for {self._sender.sent_bytes - self._stall_mark} bytes "
                f"in {limits.blocked_s_max:g} s, least {limits.blocked_bytes_min}"
            )
        elif self._is_done() and now >= self._quiet_since + limits.idle_s_max:
            code, told = ErrorCode.NO_ERROR, f"no request for {limits.idle_s_max:g} s"
        return ConnectionFaultError(code, told) if told else None

    def drain(self, now: float) -> None:
        """Take no more requests than those on their way; ends when all are answered.

        RFC 9113 §6.8: first a GOAWAY that refuses nothing, and once the peer has heard it the
        one that says which request was the last.
        """
        if self._ended or self._receiver.draining:
            return
        self._seen_at = now
        self._receiver.draining = True
        self._drain_at = now + self.limits.drain_s_max
        try:
            goaway = frames.make_goaway(frames.STREAM_ID_MAX, ErrorCode.NO_ERROR, "draining")
            self._sender.send_control(goaway)
            self._sender.send_control(frames.make_ping(DRAIN_MARK, ack=False))
        except ConnectionFaultError as fault:
            self._receiver.fault = fault

    def statistics(self) -> H2Statistics:
        """Counters since the start."""
        receiver = self._receiver
        return H2Statistics(
            requests=receiver.intake.requests,
            refused=receiver.intake.refused,
            unanswered=len(self._streams.live),
            resets_received=receiver.resets_received,
            resets_sent=receiver.resets_sent,
            pings=receiver.pings,
            body_bytes_sent=self._sender.sent_bytes,
            body_bytes_received=receiver.intake.body_bytes,
        )

    def close(self) -> None:
        """Take no more, and let go of everything."""
        self._ended = True
        self._receiver.reader.clear()
        self._streams.clear()
        self._sender.end(b"")
        self._sender.take(0)

    def _is_leaving(self) -> bool:
        return self._receiver.intake.refusing or bool(self._receiver.peer_leaving)

    def _settle_s_max(self) -> float:
        """Until the preface, and then until our SETTINGS are acknowledged."""
        limits = self.limits
        return limits.settings_s_max if self._receiver.reader.started else limits.request_s_max

    def _is_done(self) -> bool:
        return not self._streams.live and self._sender.is_empty

    def _is_stalled(self, now: float) -> bool:
        """Whether too little went out since the mark, for want of window; else a new mark."""
        sender = self._sender
        if sender.stalled and sender.sent_bytes - self._stall_mark < self.limits.blocked_bytes_min:
            return True
        self._stall_at = now + self.limits.blocked_s_max if sender.schedule.queue else INF
        self._stall_mark = sender.sent_bytes
        return False

    def _refuse_more(self) -> None:
        """The second GOAWAY of a drain."""
        self._drain_at = INF
        self._receiver.intake.refusing = True
        goaway = frames.make_goaway(self._streams.last_id, ErrorCode.NO_ERROR, "drained")
        try:
            self._sender.send_control(goaway)
        except ConnectionFaultError as fault:
            self._receiver.fault = fault

    def _fail(self, events: list[Event], code: ErrorCode, reason: str) -> list[Event]:
        goaway = frames.make_goaway(self._streams.last_id, code, reason)
        self._sender.end(goaway)
        told = reason if code == ErrorCode.NO_ERROR else f"{name_code(code)}: {reason}"
        return self._end(events, told)

    def _end(self, events: list[Event], reason: str) -> list[Event]:
        self._ended = True
        self._streams.clear()
        self._receiver.reader.clear()
        events.append(SessionEnded(reason))
        return events
