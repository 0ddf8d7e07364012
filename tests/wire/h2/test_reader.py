"""Frames out of bytes: however cut, and bounded."""

import hypothesis
from hypothesis import strategies as st

from edged.wire.h2 import frames
from edged.wire.h2.frames import CONTINUATION, END_HEADERS, HEADERS, PREFACE, ErrorCode, make_frame
from edged.wire.h2.limits import H2Limits
from edged.wire.h2.reader import Frame, FrameReader

LIMITS = H2Limits()
PIECES = [
    make_frame(frames.SETTINGS, 0, 0),
    make_frame(HEADERS, 0x5, 1, b"block"),
    make_frame(HEADERS, 0x2D, 1, b"\x01\0\0\0\x03\x07block\0"),
    make_frame(HEADERS, 0x1, 3, b"blo") + make_frame(CONTINUATION, END_HEADERS, 3, b"ck"),
    make_frame(frames.DATA, 0x8, 3, b"\x02data\0\0"),
    make_frame(frames.DATA, 0x1, 3, bytes(16_384)),
    make_frame(0x50, 0xFF, 1 << 31 | 5, b"?"),
    make_frame(frames.PING, 0, 0, bytes(8)),
    make_frame(frames.PING, 0, 0, bytes(7)),
]


def test_frames_without_padding_and_blocks_whole() -> None:
    reader = FrameReader(LIMITS)
    got = reader.receive(PREFACE + b"".join(PIECES[:7]))
    assert got == [
        (frames.SETTINGS, 0, 0, b"", 0),
        (HEADERS, 0x5, 1, b"block", -1),
        (HEADERS, 0x2D, 1, b"block", 3),
        (HEADERS, 0x1, 3, b"block", -1),
        (frames.DATA, 0x8, 3, b"data", 7),
        (frames.DATA, 0x1, 3, bytes(16_384), 16_384),
        (0x50, 0xFF, 5, b"?", 1),
    ]
    assert reader.started
    assert not reader.partial
    assert reader.fault is None


@hypothesis.settings(deadline=None)
@hypothesis.given(
    st.lists(st.sampled_from(PIECES) | st.binary(max_size=30), max_size=8),
    st.lists(st.integers(1, 9000), min_size=1, max_size=20),
)
def test_any_split_gives_the_same(pieces: list[bytes], cuts: list[int]) -> None:
    wire = PREFACE + b"".join(pieces)
    whole = FrameReader(LIMITS)
    expected = whole.receive(wire)
    split, got, count = FrameReader(LIMITS), list[Frame](), 0
    while wire and split.fault is None:
        cut, count = cuts[count % len(cuts)] if count > 30 else 1 + count % 3, count + 1
        got += split.receive(wire[:cut])
        wire = wire[cut:]
    assert got == expected
    assert repr(split.fault) == repr(whole.fault)
    assert split.partial == whole.partial


def test_what_came_before_a_fault_is_given() -> None:
    reader = FrameReader(LIMITS)
    got = reader.receive(PREFACE + PIECES[0] + PIECES[8] + PIECES[1])
    assert [frame[0] for frame in got] == [frames.SETTINGS]
    assert reader.fault is not None
    assert reader.fault.code == ErrorCode.FRAME_SIZE_ERROR
    assert "PING frame of 7 bytes instead of 8" in str(reader.fault)


def test_a_frame_too_large_is_not_waited_for() -> None:
    reader = FrameReader(LIMITS)
    reader.receive(PREFACE + make_frame(frames.DATA, 0, 1, bytes(16_385))[:9])
    assert "DATA frame of 16385 bytes, at most 16384" in str(reader.fault)
    reader = FrameReader(LIMITS)
    reader.receive(PREFACE + (1 << 23).to_bytes(3, "big") + bytes([0x50, 0, 0, 0, 0, 0]))
    assert "type 0x50 frame of 8388608 bytes" in str(reader.fault)


def test_preface_in_single_bytes_and_another_protocols() -> None:
    reader = FrameReader(LIMITS)
    for at in range(len(PREFACE)):
        assert not reader.started
        assert reader.receive(PREFACE[at : at + 1]) == []
    assert reader.started
    assert not reader.partial
    for wire, code in (
        (b"GET /a HTTP/1.1\r\nHost: e\r\n\r\n", ErrorCode.HTTP_1_1_REQUIRED),
        (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", ErrorCode.PROTOCOL_ERROR),
        (b"\x16\x03\x01\x02" * 6, ErrorCode.PROTOCOL_ERROR),
    ):
        reader = FrameReader(LIMITS)
        assert reader.receive(wire[:23]) == []
        assert reader.partial
        assert reader.receive(wire[23:]) == []
        assert reader.fault is not None
        assert reader.fault.code == code


def test_clear_lets_go() -> None:
    reader = FrameReader(LIMITS)
    reader.receive(PREFACE + make_frame(HEADERS, 1, 1, b"x") + b"\0\0")
    assert reader.partial
    reader.clear()
    assert not reader.partial
