"""Each flood ends its connection, one frame past its limit; and what players do stays below."""

from collections.abc import Callable

import pytest

from edged.wire.h2 import frames
from edged.wire.h2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    GOAWAY,
    PADDED,
    PRIORITY,
    ConnectionFaultError,
    ErrorCode,
    make_frame,
    make_ping,
    make_reset,
    make_settings,
    make_window_update,
)
from edged.wire.h2.head import H2Request
from edged.wire.h2.limits import FloodGuard, H2Limits
from tests.wire.h2.peer import GET, POST, Peer, data, encode, headers

FRAMES_MAX = 2_500  # Of any kind at once, beyond which no limit may lie.
FEW = H2Limits(
    resets_max=10,
    faults_max=10,
    settings_max=10,
    pings_max=10,
    empty_data_max=10,
    priorities_max=10,
    window_updates_max=10,
    late_max=10,
    unknown_max=10,
    continuations_max=10,
    settings_entries_max=10,
    control_bytes_max=400,
)


def rapid_reset(at: int) -> bytes:
    return headers(2 * at + 1) + make_reset(2 * at + 1, ErrorCode.CANCEL)


def made_to_reset(at: int) -> bytes:
    """CVE-2025-8671: streams that we reset ourselves cost as much."""
    return headers(2 * at + 1) + data(2 * at + 1, b"x")


def late(at: int) -> bytes:
    return data(1, b"x", end=False)


def malformed(at: int) -> bytes:
    return headers(2 * at + 1, [("x", "y")])


FLOODS: dict[str, Callable[[int], bytes]] = {
    "streams reset": rapid_reset,
    "streams in error": made_to_reset,
    "streams in error, malformed": malformed,
    "frames of streams reset": late,
    "PING frames": lambda _: make_ping(bytes(8), ack=False),
    "PING frames, acknowledged": lambda _: make_ping(bytes(8), ack=True),
    "empty DATA frames": lambda _: make_frame(DATA, 0, 1),
    "empty DATA frames, padded": lambda _: make_frame(DATA, PADDED, 1, b"\x02\0\0"),
    "PRIORITY frames": lambda _: make_frame(PRIORITY, 0, 1, bytes(5)),
    "PRIORITY frames, of RFC 9218": lambda _: make_frame(0x10, 0, 0, b"\0\0\0\1u=1"),
    "WINDOW_UPDATE frames": lambda _: make_window_update(0, 1),
    "unknown frames": lambda at: make_frame(0x11 + at, 0, 0),
    "unknown frames, ALTSVC": lambda _: make_frame(0x0A, 0, 0),
}


def prepare(peer: Peer, name: str) -> None:
    if "DATA" in name:
        peer.tell(headers(1, POST, END_HEADERS))
    elif name == "frames of streams reset":
        peer.tell(headers(1, [("x", "y")], END_HEADERS))
        peer.hear()


@pytest.mark.parametrize("name", FLOODS)
def test_floods(name: str) -> None:
    peer = Peer(FEW)
    prepare(peer, name)
    for at in range(10):
        peer.tell(FLOODS[name](at))
        peer.hear()
        assert peer.ended == ""
    peer.tell(FLOODS[name](10))
    assert peer.hear()[-1].code == ErrorCode.ENHANCE_YOUR_CALM
    assert f"more than 10 {name.partition(',')[0]}" in peer.ended


@pytest.mark.parametrize("name", FLOODS)
def test_as_shipped_no_flood_goes_on(name: str) -> None:
    """Whatever the limits are: so many frames cost us no more than a page with many pictures."""
    peer = Peer()
    prepare(peer, name)
    for at in range(FRAMES_MAX):
        peer.tell(FLOODS[name](at % 200 if "unknown" in name else at))
        peer.hear()
        if peer.ended:
            break
    assert peer.sent[-1].code == ErrorCode.ENHANCE_YOUR_CALM
    assert f" {name.partition(',')[0]}" in peer.ended


def test_as_shipped_settings_and_continuations_are_bounded() -> None:
    peer = Peer()
    for _ in range(FRAMES_MAX):
        peer.tell(make_settings([]))
        peer.hear()
        if peer.ended:
            break
    assert "SETTINGS frames" in peer.ended
    peer = Peer()
    peer.tell(make_frame(frames.HEADERS, 1, 1, encode(GET)))
    for _ in range(100):
        peer.tell(make_frame(CONTINUATION, 0, 1))
        if peer.ended:
            break
    assert "CONTINUATION frames in a header block" in peer.ended


@pytest.mark.parametrize("name", FLOODS)
def test_slowly_it_is_no_flood(name: str) -> None:
    peer = Peer(FEW)
    prepare(peer, name)
    for at in range(5 if "DATA" in name else 100):
        peer.now += FEW.flood_s / 10
        peer.tell(FLOODS[name](at))
        peer.hear()
    assert peer.ended == ""


@pytest.mark.parametrize("flags", [0, ACK])
def test_settings_floods(flags: int) -> None:
    peer = Peer(FEW)
    for _ in range(8):  # Two came before.
        peer.tell(make_frame(frames.SETTINGS, flags, 0))
        peer.hear()
    assert peer.ended == ""
    peer.tell(make_frame(frames.SETTINGS, flags, 0))
    assert "more than 10 SETTINGS frames" in peer.ended


def test_continuations() -> None:
    block = encode(GET)
    for count, ends in ((10, False), (11, True)):
        peer = Peer(FEW)
        peer.tell(make_frame(frames.HEADERS, 1, 1, block))
        for at in range(1, count + 1):
            peer.tell(make_frame(CONTINUATION, END_HEADERS if at == count else 0, 1))
        assert bool(peer.ended) == ends
        assert isinstance(peer.events[0], H2Request) != ends
    assert "more than 10 CONTINUATION frames" in peer.ended


def test_a_block_without_end() -> None:
    peer = Peer()
    peer.tell(make_frame(frames.HEADERS, 1, 1, bytes(16_384)))
    assert peer.ended == ""
    peer.tell(make_frame(CONTINUATION, 0, 1, bytes(1)))
    assert "header block of 16385 bytes, at most 16384" in peer.ended
    assert peer.hear()[-1].code == ErrorCode.ENHANCE_YOUR_CALM


def test_settings_in_one_frame() -> None:
    peer = Peer(FEW)
    peer.tell(make_settings([(3, 1)] * 10))
    assert peer.ended == ""
    peer.tell(make_settings([(3, 1)] * 11))
    assert "11 settings at once, at most 10" in peer.ended


def test_who_does_not_read_its_answers() -> None:
    peer = Peer(H2Limits(control_bytes_max=400, pings_max=1000))
    for _ in range(50):  # Of 8 bytes, as `control_bytes` has them.
        peer.tell(make_ping(bytes(8), ack=False))
    assert peer.ended == ""
    peer.tell(make_ping(bytes(8), ack=False))
    assert "408 bytes of answers to control frames are not read, at most 400" in peer.ended
    assert [frame.kind for frame in peer.hear()][-1] == GOAWAY


def test_buckets_empty_in_time() -> None:
    guard = FloodGuard(10.0)
    for _ in range(5):
        guard.count("x", 5, 0.0)
    with pytest.raises(ConnectionFaultError, match="more than 5 x at once, or in 10 s"):
        guard.count("x", 5, 1.9)
    guard.count("x", 5, 2.0)
    guard.count("x", 5, 2.0, allowed=1)
    guard.count("y", 5, 2.0)


def test_a_player_who_drags_the_seek_bar_stays_below() -> None:
    """For a minute ten requests a second of two renditions, each broken off by the next."""
    peer = Peer(body=b"x" * 100_000)
    stream_id = 1
    for _ in range(600):
        peer.now += 0.1
        peer.tell(headers(stream_id), headers(stream_id + 2))
        peer.hear()
        peer.tell(make_reset(stream_id, ErrorCode.CANCEL), make_window_update(0, 200_000))
        peer.tell(make_frame(0x10, 0, 0, (stream_id + 2).to_bytes(4, "big") + b"u=1,i"))
        peer.tell(make_window_update(stream_id + 2, 40_000))
        peer.hear()
        stream_id += 4
    assert peer.ended == ""


def test_a_client_that_gives_window_for_each_frame_stays_below() -> None:
    """As `h2` and others do: both windows, each frame; segments of 6 MB as fast as they come."""
    peer = Peer(body=bytes(6_000_000))
    for stream_id in (1, 3, 5):
        peer.tell(headers(stream_id))
        for _ in range(1000):
            for frame in peer.hear():
                if frame.kind == DATA and frame.payload:
                    size = len(frame.payload)
                    peer.tell(make_window_update(0, size), make_window_update(stream_id, size))
            if not peer.session.statistics().unanswered:
                break
        assert peer.ended == ""
    assert peer.session.statistics().body_bytes_sent == 18_000_000


def test_firefox_and_chromium_begin_below() -> None:
    """Firefox once sent five PRIORITY frames first; Chromium greases."""
    peer = Peer(
        body=b"x", settings=[(1, 65_536), (3, 1000), (4, 6_291_456), (6, 262_144), (0x1A2A, 1)]
    )
    peer.tell(make_window_update(0, 15_663_105))
    peer.tell(*(make_frame(PRIORITY, 0, at, bytes(5)) for at in (3, 5, 7, 9, 11)))
    for at in range(13, 1013, 2):
        peer.now += 0.05
        peer.tell(headers(at), make_frame(0x0B + 31 * 3, 0, 0) if at % 50 == 1 else b"")
        peer.hear()
    assert peer.ended == ""
