"""Fuzz target of the HTTP/2 core: whatever comes, and however it is cut."""

from collections.abc import Sequence

from edged.wire.h2 import frames
from edged.wire.h2.events import Event, RequestRefused, SessionEnded
from edged.wire.h2.frames import (
    ACK,
    CONTINUATION,
    END_HEADERS,
    PREFACE,
    ErrorCode,
    make_frame,
    make_goaway,
    make_ping,
    make_reset,
    make_settings,
    make_window_update,
)
from edged.wire.h2.head import H2Request
from edged.wire.h2.limits import H2Limits
from edged.wire.h2.session import H2Session
from tests.fuzz.script import Target, in_pieces
from tests.wire.h2.peer import GET, OK, POST, encode, headers, take_apart

LIMITS = H2Limits(streams_max=8, body_bytes_max=200, bodies_bytes_max=400, head_bytes_max=1024)
GREETING = PREFACE + make_settings([]) + make_frame(frames.SETTINGS, ACK, 0)
BODY = bytes(20_000)  # Of one answer in eight; the others fit into one frame.
TIMEOUTS_MAX = 100  # Until every session has ended that hears nothing more.


class Run:
    """A session that is looked at at every step, and answered at once or at the end."""

    def __init__(self, *, at_once: bool) -> None:
        self.at_once = at_once
        self.session = H2Session(now=0.0, limits=LIMITS)
        self.events: list[Event] = []
        self.told: set[int] = set()
        self.out_bytes = 0
        self.now = 0.0

    def feed(self, data: bytes) -> None:
        """Bytes come."""
        self._note(self.session.receive_data(data, 0.0))
        assert self.session.next_timeout() >= 0.0
        statistics = self.session.statistics()
        assert statistics.unanswered <= LIMITS.streams_max
        assert self.session._streams.bodies_bytes <= LIMITS.bodies_bytes_max

    def answer_all(self) -> None:
        """Answer what is not answered yet."""
        for stream_id in sorted(self.told):
            self._answer(stream_id)

    def take(self, bytes_max: int) -> bytes:
        """All that is to be sent."""
        out = b""
        while self.session.wants_output:
            piece = b"".join(self.session.take(bytes_max))
            assert len(piece) <= bytes_max + LIMITS.control_bytes_max + 2 * frames.FRAME_BYTES
            out += piece
        for frame in take_apart(out):
            assert len(frame.payload) <= frames.FRAME_BYTES_MAX
        self.out_bytes += len(out)
        return out

    def end(self) -> None:
        """Time passes until the session has ended by itself."""
        for _ in range(TIMEOUTS_MAX):
            if self.session.ended:
                return
            self.take(1 << 16)
            at = self.session.next_timeout()
            assert self.now <= at < float("inf"), "nothing waits for ever"
            self.now = at
            self._note(self.session.handle_timeout(at))
        raise AssertionError("the timer fires for ever")

    def _note(self, events: list[Event]) -> None:
        for event in events:
            assert not self.events or not isinstance(self.events[-1], SessionEnded)
            self.events.append(event)
            if isinstance(event, H2Request | RequestRefused):
                if isinstance(event, H2Request):
                    assert len(event.request.body) <= LIMITS.body_bytes_max
                    assert event.stream_id not in self.told
                self.told.add(event.stream_id)
                if self.at_once:
                    self._answer(event.stream_id)

    def _answer(self, stream_id: int) -> None:
        body = BODY if stream_id % 16 == 1 else BODY[:10]
        self.session.respond(stream_id, OK, [body], now=self.now)


def run_h2(data: bytes) -> int:
    """Whole, in pieces, and with the output taken meanwhile."""
    if not data:
        return 0
    size = 1 + data[0] % 64
    wire = data[1:] if data[0] & 128 else GREETING + data[1:]
    whole, split, live = Run(at_once=False), Run(at_once=False), Run(at_once=True)
    whole.feed(wire)
    for piece in in_pieces(wire, size):
        split.feed(piece)
        live.feed(piece)
        live.take(1 + data[0] * 100)
    assert repr(whole.events) == repr(split.events), "it does not depend on how TCP cut it"
    whole.answer_all()
    split.answer_all()
    assert whole.take(1 << 16) == split.take(1 << 16)
    live.end()
    return whole.out_bytes + live.out_bytes


BLOCK = encode(GET)
SEEDS = (
    headers(1) + headers(3) + make_reset(3, ErrorCode.CANCEL),
    headers(1, POST, END_HEADERS) + make_frame(0, 9, 1, b"\3hello\0\0\0"),
    headers(1, POST, END_HEADERS) + make_frame(0, 0, 1, b"hi") + headers(1, [("x", "y")]),
    make_frame(1, 1, 1, BLOCK[:5]) + make_frame(CONTINUATION, END_HEADERS, 1, BLOCK[5:]),
    make_frame(1, 0x25, 1, b"\x80\0\0\0\xff\x82\x87\x41\x83\x16\x9f\xff\x44\x81\x63"),
    headers(1, [*GET, ("cookie", "a=b"), ("cookie", "c=d"), ("priority", "u=1, i")]),
    headers(1, [*GET, ("content-length", "5")]) + headers(3, [*POST, ("expect", "x")]),
    make_settings([(4, 10), (5, 20_000), (1, 0)]) + headers(1) + make_window_update(1, 30_000),
    make_settings([(4, 1 << 20)]) + make_window_update(0, 1 << 20) + headers(1) + headers(17),
    make_frame(0x10, 0, 0, b"\0\0\0\1u=0") + headers(1) + make_frame(2, 0, 1, b"\0\0\0\3\x10"),
    make_ping(b"12345678", ack=False) + make_ping(b"12345678", ack=True) + headers(5),
    headers(1) + make_goaway(0, ErrorCode.NO_ERROR, "bye"),
    make_frame(0x2F, 0xFF, 1, b"grease") * 3 + headers(1),
    headers(1, POST, END_HEADERS) + make_goaway(0, ErrorCode.NO_ERROR, "bye"),
)


def h2_seeds() -> Sequence[bytes]:
    """What clients send, and other protocols."""
    wires = [bytes([3 * at]) + wire for at, wire in enumerate(SEEDS)]
    return [*wires, b"\x85" + GREETING + SEEDS[0], b"\x85GET / HTTP/1.1\r\nHost: e\r\n\r\n"]


TARGETS = [Target(name="h2", run=run_h2, seeds=h2_seeds)]
