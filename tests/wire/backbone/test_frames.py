import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.errors import RemoteProtocolError
from edged.wire.backbone import frames as f
from edged.wire.backbone.frames import FrameReader

LIMITS = [
    (f.KIND_HELLO, 1, f.HELLO_BYTES_MAX),
    (f.KIND_MESSAGE, 1, f.MESSAGE_BYTES_MAX),
    (f.KIND_PING, 8, 8),
    (f.KIND_PONG, 8, 8),
    (f.KIND_CREDIT, 12, 12 * f.CREDIT_ENTRIES_MAX),
    (f.KIND_UNIT, 55, 55 + f.FRAGMENT_BYTES_MAX),
    (f.KIND_EVENT, 12, 11 + f.META_BYTES_MAX + f.FRAGMENT_BYTES_MAX),
    (f.KIND_FRAGMENT, 5, 4 + f.FRAGMENT_BYTES_MAX),
]


def open_reader() -> FrameReader:
    reader = FrameReader()
    reader.hello_only = False
    return reader


def read_all(reader: FrameReader, data: bytes | bytearray) -> list[bytes]:
    view, position, frames = memoryview(data), 0, []
    while position < len(view):
        frame, position = reader.take(view, position)
        if frame is not None:
            frames.append(bytes(frame))
    return frames


def read_bytewise(reader: FrameReader, data: bytes) -> None:
    for byte in data:
        read_all(reader, bytes([byte]))


def header(kind: int, length: int) -> bytes:
    return length.to_bytes(4, "big") + bytes([kind])


def test_header_sizes_are_those_of_the_layout() -> None:
    assert (f.UNIT_HEADER_BYTES, f.EVENT_HEADER_BYTES, f.FRAGMENT_HEADER_BYTES) == (60, 16, 9)


@given(st.lists(st.tuples(st.sampled_from(LIMITS), st.integers(0, 300)), max_size=8), st.data())
@settings(max_examples=60)
def test_any_split_gives_the_same_frames(
    wanted: list[tuple[tuple[int, int, int], int]], data: st.DataObject
) -> None:
    sent = [
        header(kind, min(least + extra, most)) + bytes(min(least + extra, most))
        for (kind, least, most), extra in wanted
    ]
    wire, reader, received = b"".join(sent), open_reader(), []
    while wire:
        cut = data.draw(st.integers(1, len(wire)))
        piece = bytearray(wire[:cut])
        received += read_all(reader, piece)
        piece[:] = bytes(len(piece))
        wire = wire[cut:]
    assert received == sent


@given(st.binary(max_size=200))
@settings(max_examples=100)
def test_garbage_raises_only_a_protocol_error(garbage: bytes) -> None:
    for reader in (FrameReader(), open_reader()):
        with contextlib.suppress(RemoteProtocolError):
            read_all(reader, garbage)


@pytest.mark.parametrize(("kind", "least", "most"), LIMITS)
def test_lengths_at_their_limits_and_past_them(kind: int, least: int, most: int) -> None:
    for length in (least, most):
        assert read_all(open_reader(), header(kind, length) + bytes(length)) == [
            header(kind, length) + bytes(length)
        ]
    for length in (least - 1, most + 1, 2**32 - 1):
        with pytest.raises(RemoteProtocolError, match=f"has {length} bytes"):
            read_all(open_reader(), header(kind, length))
        with pytest.raises(RemoteProtocolError, match=f"has {length} bytes"):
            read_bytewise(open_reader(), header(kind, length))


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="unknown kind 0x7f"):
        read_all(open_reader(), header(0x7F, 1))


def test_a_stranger_may_send_a_hello_or_a_refusal_and_little_else() -> None:
    assert read_all(FrameReader(), header(f.KIND_HELLO, f.HELLO_BYTES_MAX) + bytes(4096))
    assert read_all(FrameReader(), header(f.KIND_MESSAGE, f.HELLO_BYTES_MAX) + bytes(4096))
    for kind, length in ((f.KIND_PING, 8), (f.KIND_MESSAGE, f.HELLO_BYTES_MAX + 1)):
        with pytest.raises(RemoteProtocolError, match="before hello"):
            read_all(FrameReader(), header(kind, length))


def test_tokens_and_credit_make_the_way_there_and_back() -> None:
    assert f.parse_token(memoryview(f.make_token_frame(f.KIND_PING, 2**64 - 1))) == 2**64 - 1
    limits = {0: 5, 7: 2**63} | dict.fromkeys(range(100, 100 + f.CREDIT_ENTRIES_MAX), 9)
    frames = read_all(open_reader(), f.make_credit_frames(limits))
    assert len(frames) == 2
    assert dict(pair for frame in frames for pair in f.parse_credit(memoryview(frame))) == limits
    assert f.make_credit_frames({}) == b""


def test_credit_must_be_whole_entries() -> None:
    with pytest.raises(RemoteProtocolError, match="not whole entries"):
        f.parse_credit(memoryview(header(f.KIND_CREDIT, 13) + bytes(13)))


def test_a_frame_too_large_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="do not fit"):
        f.make_frame(f.KIND_HELLO, bytes(f.HELLO_BYTES_MAX + 1))
