"""One end of a backbone session, sans-IO: hello, identity, control messages, liveness, media.

    client                                server
      HELLO ------------------------------->   checks proto, identity, purpose
      <------------------------------- HELLO   checks the same
      MESSAGE, UNIT, ...  <------------->  MESSAGE, EVENT, CREDIT, ...
      PING every second   <------------->  PING every second; each is answered by a PONG

Whoever hears nothing at all for SILENCE_S_MAX declares the peer lost. The shell drains what is
readable before it calls `handle_timeout`; and when that call itself comes late, the process was
paused or overloaded, and the silence is ours: the wait starts anew.
"""

import math
from typing import TYPE_CHECKING

import msgspec

from edged.errors import EdgedError, PeerLostError, RemoteProtocolError
from edged.wire.backbone.events import (
    EventReceived,
    Expected,
    LinkStatistics,
    MessageReceived,
    PeerAccepted,
    PeerClosed,
    UnitsReceived,
)
from edged.wire.backbone.flows import Chunk, Flow
from edged.wire.backbone.frames import (
    KIND_CREDIT,
    KIND_HELLO,
    KIND_MESSAGE,
    KIND_PING,
    KIND_PONG,
    FrameReader,
    make_token_frame,
    parse_credit,
    parse_token,
)
from edged.wire.backbone.messages import (
    PROTO,
    TEXT_CHARS_MAX,
    WINDOW_BYTES_MIN,
    Hello,
    Message,
    SessionClosed,
    make_hello_frame,
    make_message_frame,
    parse_hello,
    parse_message,
)
from edged.wire.backbone.receiving import MediaReceiver
from edged.wire.backbone.sending import MediaSender

if TYPE_CHECKING:
    from collections.abc import Callable

HELLO_S_MAX = 5.0  # From connect to the peer's hello: several round trips of the longest path.
PING_INTERVAL_S = 1.0
SILENCE_S_MAX = 3.0  # Three pings of the peer's, which wait behind nothing but a short queue.
LATE_S_MAX = 0.25  # A timer later than this says that it was us who slept.
PINGS_OUT_MAX = 8  # Unanswered ones remembered; the session is lost long before.
WINDOW_BYTES_MAX = 2**62
MESSAGES_PER_READ_MAX = 10_000  # In one read of 256 KiB: far above any burst of ours.
RTT_WEIGHT = 0.125  # RFC 6298 §2.3

assert SILENCE_S_MAX > PING_INTERVAL_S + LATE_S_MAX, "a stall of ours must not look like silence"


class PeerRefusedError(RemoteProtocolError):
    """We will not talk with this peer; `code` is for SessionClosed."""

    def __init__(self, code: str, reason: str) -> None:
        self.code = code
        super().__init__(reason)


Event = PeerAccepted | MessageReceived | UnitsReceived | EventReceived | PeerClosed


class BackboneLink:
    """One end of a session. The client is who connected."""

    def __init__(self, hello: Hello, expected: Expected, *, client: bool, now: float) -> None:
        self.hello = hello
        self.peer: Hello | None = None
        self.sender = MediaSender()
        self.receiver = MediaReceiver(
            session_window=hello.session_window, stream_window=hello.stream_window
        )
        self._expected = expected
        self._client = client
        self._frames = FrameReader()
        self._outbox: list[Chunk] = []
        self._closed = False
        self._peer_closed = False
        self._events: list[Event] = []  # What came before a frame that broke the protocol.
        self._heard_at = now
        self._started_at = now
        self._ping_at = math.inf
        self._token = 0
        self._pings: dict[int, float] = {}
        self._rtt_s: float | None = None
        self._rtt_s_min: float | None = None
        self._late_timers = 0
        self._messages_received = 0
        self._control: dict[int, Callable[[memoryview, float, list[Event]], None]] = {
            KIND_HELLO: self._take_hello,
            KIND_MESSAGE: self._take_message,
            KIND_PING: self._take_ping,
            KIND_PONG: self._take_pong,
            KIND_CREDIT: self._take_credit,
        }
        if client:
            self._outbox.append(make_hello_frame(hello))

    def receive_data(self, data: bytes | memoryview, now: float) -> list[Event]:
        """Take bytes. On RemoteProtocolError `take_events` has what came before."""
        self._heard_at = now
        events: list[Event] = []
        try:
            self._receive(memoryview(data), now, events)
        except RemoteProtocolError:
            self._events = events
            raise
        finally:
            if self.receiver.has_events:
                events += self.receiver.take_events()
        return events

    def take_events(self) -> list[Event]:
        """Collect what came whole before a RemoteProtocolError."""
        events, self._events = self._events, []
        return events

    def _receive(self, view: memoryview, now: float, events: list[Event]) -> None:
        take = self._frames.take
        control = self._control
        receive_media = self.receiver.receive
        position, end = 0, len(view)
        while position < end and not self._peer_closed:
            frame, position = take(view, position)
            if frame is None:
                continue
            handle = control.get(frame[4])  # The kind.
            if handle is None:
                if self.hello.purpose != "media":
                    raise RemoteProtocolError(f"media frame {frame[4]:#04x} on a control session")
                receive_media(frame)
            else:
                handle(frame, now, events)

    def send(self, message: Message) -> None:
        """Queue a control message, before any media not yet framed."""
        assert self.peer is not None, "nothing is sent before the hellos"
        if not self._closed:
            self._outbox.append(make_message_frame(message))

    def send_encoded(self, frame: bytes) -> None:
        """Queue a MESSAGE frame made once for many sessions."""
        if not self._closed:
            self._outbox.append(frame)

    def close_flow(self, flow: Flow, reason: str) -> None:
        """End an outgoing stream at once."""
        self.sender.close(flow, reason, self._outbox)

    def refuse(self, error: EdgedError) -> None:
        """End the session and tell the peer why; the shell closes after sending."""
        code = error.code if isinstance(error, PeerRefusedError) else "protocol"
        self.close(code, str(error))

    def close(self, code: str, reason: str) -> None:
        """End the session with a reason; nothing follows it."""
        if not self._closed:
            self._outbox.append(make_message_frame(SessionClosed(code, reason[:TEXT_CHARS_MAX])))
            self._closed = True

    def data_to_send(self, media_bytes_max: int, segment_bytes_max: int = 0) -> list[Chunk]:
        """Collect what is to be sent: control first, then media up to about that many bytes.

        Of these, of segments that were asked for by name no more than about `segment_bytes_max`.
        """
        credit = self.receiver.credit_to_send()
        if credit:
            self._outbox.append(credit)
        out, self._outbox = self._outbox, []
        if media_bytes_max > 0 and self.peer is not None and not self._closed:
            self.sender.fill(out, media_bytes_max, segment_bytes_max)
        return out

    def next_timeout(self) -> float:
        """When `handle_timeout` is next to be called."""
        if self.peer is None:
            return self._started_at + HELLO_S_MAX
        return min(self._ping_at, self._heard_at + SILENCE_S_MAX)

    def handle_timeout(self, now: float) -> None:
        """Ping, or raise PeerLostError. Drain what is readable first."""
        due = self.next_timeout()
        if now < due:
            return
        late = now - due > LATE_S_MAX
        if late:
            self._late_timers += 1
        if self.peer is None:
            if not late:
                raise PeerLostError(f"no hello within {HELLO_S_MAX:g} s")
            self._started_at = now
            return
        if late:
            self._heard_at = now
        silence_s = now - self._heard_at
        if silence_s >= SILENCE_S_MAX:
            raise PeerLostError(f"silent for {silence_s:.1f} s, allowed are {SILENCE_S_MAX:g}")
        if now >= self._ping_at:
            self._ping(now)

    def statistics(self, now: float) -> LinkStatistics:
        """What is known of the session."""
        return LinkStatistics(
            rtt_s=self._rtt_s,
            rtt_s_min=self._rtt_s_min,
            silence_s=now - self._heard_at,
            late_timers=self._late_timers,
            messages_received=self._messages_received,
        )

    def _ping(self, now: float) -> None:
        self._token += 1
        self._pings[self._token] = now
        if len(self._pings) > PINGS_OUT_MAX:
            del self._pings[next(iter(self._pings))]
        self._outbox.append(make_token_frame(KIND_PING, self._token))
        self._ping_at = now + PING_INTERVAL_S

    def _take_hello(self, frame: memoryview, now: float, events: list[Event]) -> None:
        if self.peer is not None:
            raise RemoteProtocolError("a second hello")
        hello = parse_hello(frame)
        self._check_hello(hello)
        self.peer = hello
        self._frames.hello_only = False
        self.sender.set_windows(hello.session_window, hello.stream_window)
        if not self._client:
            # The session is for what the client says; the caller had no way to know.
            self.hello = msgspec.structs.replace(
                self.hello, purpose=hello.purpose, priority=hello.priority
            )
            self._outbox.append(make_hello_frame(self.hello))
        self._ping(now)
        events.append(PeerAccepted(hello))

    def _check_hello(self, hello: Hello) -> None:
        if hello.proto != PROTO:
            raise PeerRefusedError(
                "version", f"peer speaks backbone protocol {hello.proto}, we speak {PROTO}"
            )
        expected, who = self._expected, (hello.role, hello.name)
        if expected.certified is not None and expected.certified != who:
            raise PeerRefusedError(
                "identity",
                f"peer says it is {hello.role}/{hello.name}, "
                f"its certificate says {'/'.join(expected.certified)}",
            )
        if hello.role not in expected.roles:
            raise PeerRefusedError(
                "identity",
                f"peer is {hello.role}/{hello.name}, its role must be "
                f"{' or '.join(sorted(expected.roles))}",
            )
        if expected.name is not None and hello.name != expected.name:
            raise PeerRefusedError(
                "identity", f"peer is {hello.role}/{hello.name}, we wanted {expected.name}"
            )
        if hello.instance == self.hello.instance:
            raise PeerRefusedError("identity", "the peer is this very process")
        ours = (self.hello.purpose, self.hello.priority)
        if self._client and (hello.purpose, hello.priority) != ours:
            raise PeerRefusedError(
                "protocol", f"asked for a {ours[0]} session, got {hello.purpose}"
            )
        for window in (hello.stream_window, hello.session_window):
            if not WINDOW_BYTES_MIN <= window <= WINDOW_BYTES_MAX:
                raise PeerRefusedError(
                    "window", f"window of {window} bytes, allowed are {WINDOW_BYTES_MIN} to 2**62"
                )

    def _take_message(self, frame: memoryview, _now: float, events: list[Event]) -> None:
        message = parse_message(frame)
        self._messages_received += 1
        if self.receiver.has_events:  # Keeps the order within each stream.
            events += self.receiver.take_events()
        if isinstance(message, SessionClosed):
            self._peer_closed = True
            code, reason = message.code[:64], message.reason[:TEXT_CHARS_MAX]
            events.append(PeerClosed(f"closed by peer: {code}: {reason}"))
            return
        if self.peer is None:
            raise RemoteProtocolError(f"{type(message).__name__} before the hello")
        self.receiver.note(message)  # Now, because its units may follow in these very bytes.
        events.append(MessageReceived(message))
        if len(events) > MESSAGES_PER_READ_MAX:
            raise RemoteProtocolError(f"more than {MESSAGES_PER_READ_MAX} messages at once")

    def _take_ping(self, frame: memoryview, _now: float, _events: list[Event]) -> None:
        self._outbox.append(make_token_frame(KIND_PONG, parse_token(frame)))

    def _take_pong(self, frame: memoryview, now: float, _events: list[Event]) -> None:
        sent_at = self._pings.pop(parse_token(frame), None)
        if sent_at is None:
            return  # Of a ping forgotten, or never sent: it measures nothing.
        rtt_s = now - sent_at
        if self._rtt_s is None or self._rtt_s_min is None:
            self._rtt_s = self._rtt_s_min = rtt_s
        else:
            self._rtt_s += RTT_WEIGHT * (rtt_s - self._rtt_s)
            self._rtt_s_min = min(self._rtt_s_min, rtt_s)

    def _take_credit(self, frame: memoryview, _now: float, _events: list[Event]) -> None:
        for stream_no, limit in parse_credit(frame):
            self.sender.grant(stream_no, limit)
