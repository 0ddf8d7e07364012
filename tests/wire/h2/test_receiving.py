"""What frames mean, where a client of many words shows it: streams, settings, goodbyes."""

import hypothesis
from hypothesis import strategies as st

from edged.wire.h2 import frames
from edged.wire.h2.events import RequestRefused, SessionEnded, StreamReset
from edged.wire.h2.frames import (
    PREFACE,
    RST_STREAM,
    ErrorCode,
    make_frame,
    make_goaway,
    make_ping,
    make_reset,
    make_settings,
    make_window_update,
)
from edged.wire.h2.head import H2Request
from edged.wire.h2.session import H2Session
from tests.wire.h2.peer import GET, POST, Peer, data, headers

PIECES = [
    headers(1),
    headers(3, POST, 4),
    headers(3, [("x", "y")]),
    data(3, b"hello", end=False),
    headers(5, [*GET, ("priority", "u=0")]),
    headers(7, [("bad", "x")]),
    make_reset(1, ErrorCode.CANCEL),
    make_reset(7, ErrorCode.CANCEL),
    make_settings([(4, 0), (5, 16_384), (1, 0)]),
    make_settings([(4, 1 << 20)]),
    make_window_update(0, 1000),
    make_window_update(1, 10),
    make_ping(bytes(8), ack=False),
    make_frame(0x10, 0, 0, b"\0\0\0\5u=2, i"),
    make_frame(0x2F, 0xFF, 0, b"grease"),
    make_goaway(0, ErrorCode.NO_ERROR),
    b"\0\0",
    b"\xff",
]


def run(pieces: list[bytes]) -> tuple[list[object], bytes]:
    """All events and all output, of a shell that answers and sends at the end."""
    session = H2Session(now=0.0)
    told: list[object] = []
    for piece in pieces:
        told += session.receive_data(piece, 0.0)
    for event in told:
        if isinstance(event, H2Request | RequestRefused):
            session.respond(event.stream_id, b"\x88", [bytes(30_000)], now=0.0)
    out = b""
    while session.wants_output:
        out += b"".join(session.take(1000))
    return told, out


@hypothesis.settings(deadline=None)
@hypothesis.given(
    st.lists(st.sampled_from(PIECES) | st.binary(max_size=20), max_size=12),
    st.lists(st.integers(1, 60), min_size=1, max_size=9),
)
def test_any_split_gives_the_same(pieces: list[bytes], cuts: list[int]) -> None:
    wire = PREFACE + make_settings([]) + frames.SETTINGS_ACK + b"".join(pieces)
    split: list[bytes] = []
    at = 0
    while at < len(wire):
        cut = cuts[len(split) % len(cuts)]
        split.append(wire[at : at + cut])
        at += cut
    told, out = run(split)
    again, out_again = run([wire[at : at + 1] for at in range(len(wire))])
    assert told == again
    assert out == out_again
    assert sum(isinstance(event, SessionEnded) for event in told) <= 1


def test_cancelled_requests_are_told_once() -> None:
    peer = Peer()
    peer.tell(headers(1), headers(3), make_reset(1, ErrorCode.CANCEL))
    assert peer.events[2:] == [StreamReset(1, "reset by the peer: CANCEL")]
    peer.session.respond(3, b"\x88", [bytes(100_000)], now=0.0)
    peer.tell(make_frame(RST_STREAM, 0, 3, b"\0\0\1\0"))
    assert peer.events[3:] == [StreamReset(3, "reset by the peer: error 0x100")]
    peer.tell(headers(5, POST, 4), make_reset(5, ErrorCode.NO_ERROR))
    assert len(peer.events) == 4, "what was not told is not told to be gone"
    assert peer.session.statistics().resets_received == 3


def test_reset_by_us_then_what_was_on_its_way() -> None:
    peer = Peer()
    peer.tell(headers(1, [*POST, ("content-length", "1")], 4), data(1, b"ab", end=False))
    (reset,) = peer.hear()
    assert reset.code == ErrorCode.PROTOCOL_ERROR
    peer.tell(data(1, b"cd"), make_window_update(1, 5), headers(1, [("x", "y")]))
    peer.tell(make_reset(1, ErrorCode.CANCEL))
    assert (peer.events, peer.hear()) == ([], [])


def test_a_peer_that_leaves_gets_its_answers_first() -> None:
    peer = Peer()
    peer.tell(headers(1), make_goaway(0, ErrorCode.NO_ERROR, "x" * 500))
    assert peer.ended == ""
    peer.session.respond(1, b"\x88", [b"x"], now=0.0)
    assert peer.wait_until(0.0) == [], "it has not been sent"
    peer.hear()
    assert peer.session.next_timeout() == 0.0
    peer.wait_until(0.0)
    assert peer.ended == f"the peer leaves: NO_ERROR '{'x' * 80}'"
    assert peer.session.ended


def test_settings_we_ignore_and_those_in_order() -> None:
    peer = Peer(settings=[(2, 0), (3, 0), (6, 1), (8, 1), (9, 1), (0xF0F0, 7)])
    peer.tell(make_settings([(9, 1)]), make_settings([(9, 0)]))
    assert "NO_RFC7540_PRIORITIES of 0" in peer.ended
