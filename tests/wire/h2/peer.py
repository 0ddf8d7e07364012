"""A client of few words for the HTTP/2 core: frames made by hand; what comes back is parsed."""

from collections.abc import Iterable, Sequence

import hpack
from msgspec import Struct

from edged.wire.h2 import frames
from edged.wire.h2.events import Event, RequestRefused, SessionEnded
from edged.wire.h2.frames import END_HEADERS, END_STREAM, PREFACE, ErrorCode, make_frame
from edged.wire.h2.head import H2Request
from edged.wire.h2.limits import H2Limits
from edged.wire.h2.responses import make_block
from edged.wire.h2.session import H2Session

GET = ((":method", "GET"), (":scheme", "https"), (":authority", "edge"), (":path", "/a"))
POST = ((":method", "POST"), *GET[1:])
OK = make_block(200, [("content-type", "text/plain")])


class Sent(Struct, frozen=True):
    """A frame of the session's."""

    kind: int
    flags: int
    stream_id: int
    payload: bytes

    @property
    def code(self) -> ErrorCode:
        at = 4 if self.kind == frames.GOAWAY else 0
        return ErrorCode(int.from_bytes(self.payload[at : at + 4], "big"))


def take_apart(data: bytes) -> list[Sent]:
    """Whole frames."""
    sent = []
    while data:
        size = int.from_bytes(data[:3], "big")
        assert len(data) >= 9 + size, "frames come whole"
        stream_id = int.from_bytes(data[5:9], "big")
        sent.append(Sent(data[3], data[4], stream_id, data[9 : 9 + size]))
        data = data[9 + size :]
    return sent


def encode(fields: Iterable[tuple[str, str]]) -> bytes:
    """A block that leaves no trace in any table."""
    encoder = hpack.Encoder()
    return encoder.encode([hpack.NeverIndexedHeaderTuple(*field) for field in fields])


def headers(
    stream_id: int,
    fields: Sequence[tuple[str, str]] = GET,
    flags: int = END_HEADERS | END_STREAM,
) -> bytes:
    return make_frame(frames.HEADERS, flags, stream_id, encode(fields))


def data(stream_id: int, body: bytes, *, end: bool = True) -> bytes:
    return make_frame(frames.DATA, END_STREAM if end else 0, stream_id, body)


class Peer:
    """The client's end of a session in virtual time; it answers all requests if told to."""

    def __init__(
        self,
        limits: H2Limits | None = None,
        *,
        body: bytes | None = None,
        settings: Sequence[tuple[int, int]] = (),
        greet: bool = True,
    ) -> None:
        self.now = 0.0
        self.body = body
        self.session = H2Session(now=0.0, limits=limits)
        self.events: list[Event] = []
        self.sent: list[Sent] = []
        if greet:
            self.tell(PREFACE + frames.make_settings(settings) + frames.SETTINGS_ACK)
            assert [frame.kind for frame in self.hear()] == [frames.SETTINGS] * 2

    def tell(self, *wire: bytes) -> list[Event]:
        """Send bytes; the events, and answers to requests are given."""
        told: list[Event] = []
        for piece in wire:
            told += (events := self.session.receive_data(piece, self.now))
            for event in events:
                if self.body is not None and isinstance(event, H2Request | RequestRefused):
                    self.session.respond(event.stream_id, OK, [self.body], now=self.now)
        assert self.session.next_timeout() >= self.now, "never in the past"
        self.events += told
        return told

    def hear(self, bytes_max: int = 1 << 16) -> list[Sent]:
        """All that the session sends now."""
        heard = []
        while self.session.wants_output:
            heard += take_apart(b"".join(self.session.take(bytes_max)))
        self.sent += heard
        return heard

    def wait_until(self, now: float) -> list[Event]:
        """The session's timer, as often as it fires until then."""
        told: list[Event] = []
        for _ in range(1000):
            if (at := self.session.next_timeout()) > now:
                self.now = now
                self.events += told
                return told
            self.now = max(self.now, at)
            told += self.session.handle_timeout(self.now)
            self.hear()
        raise AssertionError("the timer fires for ever")

    @property
    def ended(self) -> str:
        """Why the session ended; empty if it has not."""
        ends = [event.reason for event in self.events if isinstance(event, SessionEnded)]
        assert len(ends) <= 1
        assert not ends or isinstance(self.events[-1], SessionEnded), "it is the last event"
        return ends[0] if ends else ""
