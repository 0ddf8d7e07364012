"""Requests with bodies, at every limit; and what a peer can make us hold."""

import sys

import pytest

from edged.wire.h2 import frames
from edged.wire.h2.events import RequestRefused, StreamReset
from edged.wire.h2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    PADDED,
    RST_STREAM,
    WINDOW_UPDATE,
    ErrorCode,
    make_frame,
)
from edged.wire.h2.head import H2Request
from edged.wire.h2.limits import H2Limits
from tests.wire.h2.peer import GET, POST, Peer, data, headers


def post(stream_id: int = 1, *more: tuple[str, str]) -> bytes:
    return headers(stream_id, [*POST, *more], END_HEADERS)


def status(peer: Peer) -> int:
    (event,) = peer.events
    assert isinstance(event, RequestRefused)
    assert event.reason
    return event.status


def test_a_body() -> None:
    peer = Peer()
    peer.tell(post(), data(1, b"hel", end=False), make_frame(DATA, 9, 1, b"\x03lo\0\0\0"))
    (event,) = peer.events
    assert isinstance(event, H2Request)
    assert event.request.body == b"hello"
    assert event.request.method == "POST"
    peer.session.respond(1, b"\x88", [], now=0.0)
    assert peer.session.statistics().body_bytes_received == 5


@pytest.mark.parametrize("length", [None, 100, 101])
@pytest.mark.parametrize("size", [100, 101])
def test_bodies_at_their_limit(size: int, length: int | None) -> None:
    more = [] if length is None else [("content-length", f"{length}")]
    peer = Peer(H2Limits(body_bytes_max=100))
    peer.tell(post(1, *more), data(1, bytes(size)))
    if length == 100 < size:
        assert peer.events == []
        assert peer.hear()[-1].code == ErrorCode.PROTOCOL_ERROR
    elif size > 100 or length == 101:
        assert status(peer) == 413
    else:
        assert isinstance(peer.events[0], H2Request)
    assert peer.ended == ""


def test_all_bodies_together() -> None:
    peer = Peer(H2Limits(bodies_bytes_max=100))
    peer.tell(post(1), data(1, bytes(60)), post(3), data(3, bytes(40)), post(5))
    assert len(peer.events) == 2
    peer.tell(data(5, b"x"))
    refused = peer.events[-1]
    assert isinstance(refused, RequestRefused)
    assert (refused.stream_id, refused.status) == (5, 503)
    for stream_id in (1, 3, 5):
        peer.session.respond(stream_id, b"\x88", [], now=0.0)
    peer.tell(post(7), data(7, bytes(100)))
    assert isinstance(peer.events[-1], H2Request), "what is answered counts no longer"


def test_heads_at_their_limits() -> None:
    limits = H2Limits(fields_max=6, head_bytes_max=400, target_bytes_max=20)
    sized = sum(len(name) + len(value) + 32 for name, value in GET)
    for fields, expected in (
        ([*GET, ("a", "b"), ("a", "b")], 0),
        ([*GET, ("a", "b"), ("a", "b"), ("a", "b")], 431),
        ([*GET, ("a", "b" * (400 - sized - 33))], 0),
        ([*GET, ("a", "b" * (400 - sized - 32))], 431),
        ([*GET[:3], (":path", "/" + 19 * "a")], 0),
        ([*GET[:3], (":path", "/" + 20 * "a")], 414),
        ([*GET, ("expect", "100-continue")], 417),
        ([(":method", "CONNECT"), (":authority", "e:1")], 501),
    ):
        peer = Peer(limits)
        peer.tell(headers(1, fields))
        if expected:
            assert status(peer) == expected
        else:
            assert isinstance(peer.events[0], H2Request)
        assert peer.session.respond(1, b"\x88", [b"x"], now=0.0), "either has its answer"


def test_a_refused_one_may_go_on_sending() -> None:
    peer = Peer()
    peer.tell(post(1, ("content-length", "99999")), data(1, bytes(9000), end=False))
    assert status(peer) == 413
    peer.tell(data(1, bytes(9000), end=False), headers(1, [("x", "y")]))
    assert len(peer.events) == 1
    assert peer.hear() == []
    peer.session.respond(1, b"\x88", [b"x"], now=0.0)
    assert [frame.kind for frame in peer.hear()] == [1, 0], "it has come to its end"


def test_windows_are_given_back() -> None:
    peer = Peer(H2Limits(body_bytes_max=1 << 20, bodies_bytes_max=1 << 21))
    peer.tell(post())
    returned = 0
    for _ in range(40):
        peer.tell(data(1, bytes(16_000), end=False))
        for frame in peer.hear():
            assert (frame.kind, frame.stream_id) == (WINDOW_UPDATE, 0)
            returned += int.from_bytes(frame.payload, "big")
    assert 640_000 - 32_768 <= returned <= 640_000
    assert peer.ended == ""


def test_padding_is_given_back_to_its_stream() -> None:
    peer = Peer()
    peer.tell(post())
    for _ in range(1000):
        peer.tell(make_frame(DATA, PADDED, 1, b"\xc8x" + bytes(200)))
    updates = [frame for frame in peer.hear() if frame.stream_id == 1]
    assert {int.from_bytes(frame.payload, "big") for frame in updates} == {201}
    assert peer.ended == ""
    peer.tell(data(1, b"y"))
    assert isinstance(peer.events[0], H2Request)


def test_more_than_the_streams_window() -> None:
    peer = Peer(H2Limits(body_bytes_max=10))
    peer.tell(post())
    for _ in range(5):
        peer.tell(data(1, bytes(16_000), end=False))
    resets = [frame for frame in peer.hear() if frame.kind == RST_STREAM]
    assert [frame.code for frame in resets] == [ErrorCode.FLOW_CONTROL_ERROR]
    assert [type(event) for event in peer.events] == [RequestRefused, StreamReset]


def test_a_request_that_is_never_whole_is_refused_then_dropped() -> None:
    peer = Peer(H2Limits(idle_s_max=1000))
    peer.tell(post(), data(1, b"x", end=False))
    assert peer.wait_until(9.9) == []
    (refused,) = peer.wait_until(10.0)
    assert isinstance(refused, RequestRefused)
    assert refused.status == 408
    (gone,) = peer.wait_until(30.0)
    assert gone == StreamReset(1, "request not complete after 10 s")
    assert peer.sent[-1].code == ErrorCode.CANCEL
    peer.tell(data(1, b"late"))
    assert peer.ended == ""


def test_only_the_old_are_too_late() -> None:
    peer = Peer()
    peer.tell(post(1))
    peer.now = 5.0
    peer.tell(post(3))
    assert peer.wait_until(14.0) == [RequestRefused(1, 408, "request not complete after 10 s")]
    assert peer.session.next_timeout() == 15.0


def test_the_table_stays_whole_whatever_a_request_is() -> None:
    """Refused, malformed or one too many: its block has changed the table all the same."""
    import hpack  # noqa: PLC0415 - beside its use

    encoder = hpack.Encoder()
    peer = Peer(H2Limits(streams_max=1, fields_max=8))

    def ask(stream_id: int, *more: tuple[str, str]) -> None:
        block = encoder.encode([*GET, *more])
        peer.tell(make_frame(frames.HEADERS, END_HEADERS | END_STREAM, stream_id, block))

    ask(1, *((f"n{at}", "v") for at in range(9)))
    ask(3, ("one", "too-many"))
    peer.session.respond(1, b"\x88", [], now=0.0)
    ask(5, ("Bad", "x"))
    ask(7, ("n3", "v"), ("one", "too-many"), ("last", "1"))
    event = peer.events[-1]
    assert isinstance(event, H2Request)
    assert [*event.request.fields][1:] == [(b"n3", b"v"), (b"one", b"too-many"), (b"last", b"1")]


def test_what_one_connection_holds() -> None:
    """By far the most would be bodies and fields, and they are bounded."""
    limits = H2Limits()
    peer = Peer(limits)
    for at in range(128):
        peer.tell(post(2 * at + 1, *((f"x{at}-{n}", "v" * 200) for n in range(40))))
        peer.tell(data(2 * at + 1, bytes(16_000), end=False))
    assert peer.ended == ""
    streams = peer.session._streams
    bodies = [stream.body for stream in streams.live.values() if stream.body is not None]
    assert sum(map(len, bodies)) <= limits.bodies_bytes_max
    fields = [
        len(value) + sys.getsizeof(value) - len(value)
        for stream in streams.live.values()
        if stream.request is not None
        for field in stream.request.fields
        for value in field
    ]
    assert sum(fields) < 128 * 2 * limits.head_bytes_max


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_who_asks_for_a_head_is_refused_with_a_head(method: str) -> None:
    def ask(stream_id: int, path: str, *more: tuple[str, str]) -> bytes:
        fields = [(":method", method), (":path", path), *(f for f in GET if f[0] not in PSEUDO)]
        return headers(stream_id, [*fields, *more], END_HEADERS)

    peer = Peer(H2Limits(target_bytes_max=100, body_bytes_max=10))
    peer.tell(ask(1, "/" + "x" * 100), ask(3, "/x"), data(3, bytes(11)))
    told = [event for event in peer.events if isinstance(event, RequestRefused)]
    assert [event.status for event in told] == [414, 413]
    assert [event.head_only for event in told] == [method == "HEAD"] * 2


PSEUDO = (":method", ":path")
