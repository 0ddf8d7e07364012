"""The session's clock and its ends: deadlines, drains, statistics."""

import pytest

from edged.wire.h2 import frames
from edged.wire.h2.events import H2Statistics, SessionEnded
from edged.wire.h2.frames import (
    ACK,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    STREAM_ID_MAX,
    ErrorCode,
    make_frame,
    make_ping,
    make_settings,
    make_window_update,
)
from edged.wire.h2.head import H2Request
from edged.wire.h2.limits import H2Limits
from edged.wire.h2.session import H2Session
from tests.wire.h2.peer import OK, Peer, headers


def last_stream(payload: bytes) -> int:
    return int.from_bytes(payload[:4], "big")


def test_without_a_preface() -> None:
    peer = Peer(greet=False)
    peer.tell(PREFACE[:5])
    assert peer.wait_until(9.99) == []
    assert peer.wait_until(10.0) == [
        SessionEnded("PROTOCOL_ERROR: preface not complete after 10 s")
    ]
    assert peer.sent[-1].kind == GOAWAY


def test_settings_that_are_not_acknowledged() -> None:
    peer = Peer(greet=False)
    peer.tell(PREFACE + make_settings([]), headers(1))
    assert peer.wait_until(9.99) == []
    peer.wait_until(10.0)
    assert peer.ended == "SETTINGS_TIMEOUT: SETTINGS not acknowledged after 10 s"


@pytest.mark.parametrize(
    "wire", [headers(1)[:5], headers(1)[:-1], make_frame(HEADERS, 1, 1, b"\x82")]
)
def test_a_frame_or_block_that_is_not_whole(wire: bytes) -> None:
    peer = Peer()
    peer.now = 3.0
    peer.tell(wire)
    peer.now = 9.0
    assert peer.wait_until(12.99) == []
    peer.wait_until(13.0)
    assert peer.ended == "PROTOCOL_ERROR: frame or header block not complete after 10 s"


def test_frames_that_come_and_go_are_in_time() -> None:
    peer, ping = Peer(), make_ping(bytes(8), ack=False)
    for _ in range(20):
        peer.now += 3.0
        peer.tell(ping[5:] + ping[:5] if peer.now > 3.0 else ping[:5])
        peer.hear()
    assert peer.ended == ""


def test_idle() -> None:
    peer = Peer(body=b"x")
    assert peer.session.next_timeout() == 75.0
    peer.now = 50.0
    peer.tell(headers(1))
    peer.hear()
    assert peer.session.next_timeout() == 125.0
    assert peer.wait_until(124.9) == []
    assert peer.wait_until(125.0) == [SessionEnded("no request for 75 s")]
    assert (peer.sent[-1].kind, peer.sent[-1].code) == (GOAWAY, ErrorCode.NO_ERROR)
    assert peer.session.next_timeout() == float("inf")
    assert peer.session.handle_timeout(999.0) == []


def test_who_waits_for_an_answer_is_not_idle() -> None:
    peer = Peer()
    peer.tell(headers(1))
    assert peer.session.next_timeout() == float("inf")
    assert peer.wait_until(1000.0) == []
    peer.session.respond(1, OK, [bytes(100)], now=1000.0)
    peer.hear()
    assert peer.session.next_timeout() == 1075.0


def test_an_answer_that_the_shell_has_not_taken_is_no_idleness() -> None:
    peer = Peer()
    peer.tell(headers(1))
    peer.session.respond(1, OK, [bytes(100)], now=0.0)
    assert peer.session.next_timeout() == float("inf")


def test_a_peer_that_gives_no_window() -> None:
    peer = Peer(settings=[(frames.INITIAL_WINDOW_SIZE, 100)])
    peer.tell(headers(1))
    peer.session.respond(1, OK, [bytes(100_000)], now=0.0)
    peer.hear()
    assert peer.session.next_timeout() == 30.0
    for at in range(29):
        peer.now = float(at)
        peer.tell(make_window_update(1, 100))
        peer.hear()
    peer.wait_until(29.9)
    assert peer.ended == ""
    peer.wait_until(30.0)
    assert peer.ended.startswith("ENHANCE_YOUR_CALM: window for 2900 bytes in 30 s, least 16384")


def test_a_peer_that_gives_just_enough_window() -> None:
    peer = Peer(settings=[(frames.INITIAL_WINDOW_SIZE, 0)])
    peer.tell(headers(1), make_window_update(0, 1 << 20))
    peer.session.respond(1, OK, [bytes(100_000)], now=0.0)
    peer.hear()
    for at in range(1, 11):
        peer.wait_until(at * 20.0)
        assert peer.ended == ""
        peer.tell(make_window_update(1, 16_384))
        peer.hear()
    assert peer.session.statistics().unanswered == 0
    assert peer.session.next_timeout() == 140.0 + 75.0


def test_a_drain() -> None:
    peer = Peer()
    peer.tell(headers(1))
    peer.session.drain(0.0)
    peer.session.drain(0.0)
    goaway, ping = peer.hear()
    assert (goaway.kind, last_stream(goaway.payload), goaway.code) == (GOAWAY, STREAM_ID_MAX, 0)
    assert (ping.kind, ping.flags) == (PING, 0)
    peer.tell(headers(3))  # On its way.
    assert isinstance(peer.events[-1], H2Request)
    peer.tell(make_ping(ping.payload, ack=True))
    (goaway,) = peer.hear()
    assert (goaway.kind, last_stream(goaway.payload)) == (GOAWAY, 3)
    before = len(peer.events)
    peer.tell(headers(5, flags=4), make_frame(0, 1, 5, b"x"), make_window_update(5, 1))
    assert len(peer.events) == before, "what comes later is dropped, as was said"
    for stream_id in (1, 3):
        peer.session.respond(stream_id, OK, [b"x"], now=0.5)
    peer.hear()
    assert peer.wait_until(0.5) == [SessionEnded("drained")]
    assert not peer.session.wants_output


def test_a_drain_of_a_peer_that_answers_no_ping() -> None:
    peer = Peer()
    peer.session.drain(5.0)
    peer.hear()
    assert peer.session.next_timeout() == 6.0
    assert peer.wait_until(5.9) == []
    assert peer.wait_until(6.0) == [SessionEnded("drained")]
    assert [frame.kind for frame in peer.sent[-2:]] == [PING, GOAWAY]


def test_a_foreign_ping_drains_nothing() -> None:
    peer = Peer()
    peer.tell(make_ping(b"drained?", ack=True))
    peer.session.drain(0.0)
    peer.hear()
    peer.tell(make_ping(bytes(8), ack=True))
    assert peer.hear() == []
    peer.tell(make_ping(b"drained?", ack=True))
    assert [frame.kind for frame in peer.hear()] == [GOAWAY]


def full(limits: H2Limits) -> Peer:
    """A peer that has read none of its answers to PINGs."""
    peer = Peer(limits)
    peer.tell(headers(1), headers(3))
    peer.tell(make_ping(bytes(8), ack=False), make_ping(bytes(8), ack=False))
    assert peer.ended == ""
    return peer


def test_who_reads_no_answers_ends_by_whatever_comes_next() -> None:
    for least in (16, 50, 60):  # Which of our own frames is one too many.
        peer = full(H2Limits(control_bytes_max=least))
        peer.session.drain(0.0)
        if least == 16:
            peer.session.reset(1, 0.0)
        peer.wait_until(2.0)
        assert "bytes of answers to control frames are not read" in peer.ended
    peer = full(H2Limits(control_bytes_max=16))
    peer.session.reset(1, 0.0)
    assert peer.session.next_timeout() == 0.0
    peer.tell(headers(5))
    assert "answers to control frames are not read" in peer.ended
    peer = full(H2Limits(control_bytes_max=16, request_s_max=5.0))
    peer.tell(headers(5, flags=4))
    assert peer.session.handle_timeout(5.0), "refused"
    assert isinstance(peer.session.handle_timeout(10.0)[-1], SessionEnded), "and reset"


def test_statistics() -> None:
    peer = Peer(body=b"12345")
    peer.tell(headers(1), headers(3, [("x", "y")]), make_ping(bytes(8), ack=False))
    peer.body = None
    peer.tell(headers(5), headers(7, [("expect", "x")]))
    assert peer.session.statistics() == H2Statistics(
        requests=2,
        refused=0,
        unanswered=1,
        resets_received=0,
        resets_sent=2,
        pings=1,
        body_bytes_sent=5,
        body_bytes_received=0,
    )


def test_close() -> None:
    peer = Peer()
    peer.tell(headers(1))
    peer.session.close()
    assert peer.session.ended
    assert not peer.session.wants_output
    assert peer.tell(headers(3)) == []
    assert not peer.session.respond(1, OK, [], now=0.0)
    peer.session.drain(0.0)
    peer.session.reset(1, 0.0)
    assert not peer.session.wants_output


def test_any_kind_of_bytes() -> None:
    for kind in (bytes, bytearray, memoryview):
        session = H2Session(now=0.0, limits=H2Limits())
        wire = PREFACE + make_settings([]) + make_frame(frames.SETTINGS, ACK, 0) + headers(1)
        (event,) = session.receive_data(kind(wire), 0.0)
        assert isinstance(event, H2Request)


def test_an_answer_that_had_stalled_and_is_cancelled_is_held_against_nobody() -> None:
    """Found by a review: a player who cancels, and then waits for long, lost its connection."""
    session = H2Session(now=0.0)
    session.receive_data(PREFACE + frames.make_settings(()) + frames.SETTINGS_ACK, 0.0)
    session.receive_data(headers(1), 1.0)
    session.respond(1, OK, [bytes(200_000)], now=1.0)
    while session.wants_output:
        session.take(1 << 16)
    assert session.next_timeout() == 1.0 + session.limits.blocked_s_max
    session.receive_data(frames.make_reset(1, frames.ErrorCode.CANCEL), 2.0)
    (waiting,) = session.receive_data(headers(3), 25.0)
    assert isinstance(waiting, H2Request)
    assert session.next_timeout() > 1000.0, "it waits for its answer, for as long as that takes"
    assert session.handle_timeout(32.0) == []
