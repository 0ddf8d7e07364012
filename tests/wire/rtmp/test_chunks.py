import contextlib

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.errors import RemoteProtocolError
from edged.wire.rtmp import messages as m
from edged.wire.rtmp.chunks import ChunkWriter, ReaderState
from edged.wire.rtmp.limits import RtmpLimits
from edged.wire.rtmp.messages import Message
from edged.wire.rtmp.reader import ChunkReader, make_reader
from tests.wire.rtmp.peers import even_pieces, pieces

LIMITS = RtmpLimits()
Plain = tuple[int, int, int, bytes]
SENT = st.lists(
    st.tuples(
        st.sampled_from([2, 3, 4, 63]),  # Chunk stream id.
        st.sampled_from([m.AUDIO, m.VIDEO]),
        st.sampled_from([0, 1, 40, 0xFFFFFE, 0xFFFFFF, 0x1000000, 2**32 - 1]),
        st.sampled_from([0, 1]),
        st.sampled_from([0, 1, 127, 128, 129, 300]),  # Body size.
    ),
    max_size=8,
)


def read(reader: ChunkReader, wire: list[bytes]) -> list[Plain]:
    """The messages, as plain values, each piece given in a buffer that is overwritten after."""
    out: list[Plain] = []
    for piece in wire:
        buffer = bytearray(piece)
        for message in reader.receive_data(memoryview(buffer)):
            assert isinstance(message, Message)  # No unit is made where no track is known.
            body = bytes(message.body)
            out.append((message.kind, message.timestamp, message.stream_id, body))
        buffer[:] = len(buffer) * b"\xee"
    return out


def plain(*messages: Message) -> list[Plain]:
    return [(i.kind, i.timestamp, i.stream_id, bytes(i.body)) for i in messages]


def chunk(csid: int, fmt: int, header: bytes, payload: bytes = b"") -> bytes:
    return bytes([fmt << 6 | csid]) + header + payload


def full(
    timestamp: int, length: int, kind: int = m.AUDIO, stream_id: int = 1, extended: bytes = b""
) -> bytes:
    head = timestamp.to_bytes(3, "big") + length.to_bytes(3, "big") + bytes([kind])
    return head + stream_id.to_bytes(4, "little") + extended


@hypothesis.given(SENT, st.sampled_from([128, 129, 4096]), st.lists(st.integers(0, 4000)))
@hypothesis.settings(max_examples=60, deadline=None)
def test_any_split_and_any_hand_over_give_the_same(
    sent: list[tuple[int, int, int, int, int]], chunk_size: int, cuts: list[int]
) -> None:
    writer = ChunkWriter(chunk_size)
    messages = [
        (csid, Message(kind, timestamp, stream_id, bytes(range(97, 107)) * (size // 10 + 1)))
        for csid, kind, timestamp, stream_id, size in sent
    ]
    for (_, message), (*_, size) in zip(messages, sent, strict=True):
        message.body = message.body[:size]
    wire = b"".join(b"".join(writer.write(csid, message)) for csid, message in messages)
    reader = make_reader(LIMITS, ReaderState(chunk_size))
    received: list[Plain] = []
    for piece in pieces(wire, cuts):
        received += read(reader, [piece])
        packed = msgspec.msgpack.encode(reader.state())
        reader = make_reader(LIMITS, msgspec.msgpack.decode(packed, type=ReaderState))
    assert received == plain(*(message for _, message in messages))
    assert reader.state().reserved == 0


@hypothesis.given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4))
@hypothesis.settings(max_examples=100, deadline=None)
def test_garbage_raises_only_a_protocol_error(garbage: bytes, cuts: list[int]) -> None:
    with contextlib.suppress(RemoteProtocolError):
        read(make_reader(LIMITS), pieces(garbage, cuts))


def test_headers_are_as_short_as_the_protocol_allows() -> None:
    writer = ChunkWriter()
    sizes = []
    for timestamp, size in ((0, 10), (40, 11), (80, 11), (120, 11), (120, 11), (100, 11)):
        (only,) = writer.write(4, Message(m.AUDIO, timestamp, 1, bytes(size)))
        sizes.append(len(only) - size)
    # Full; another length; the same length; the same delta too; another delta; a step back.
    assert sizes == [12, 8, 1, 1, 4, 12]


def test_interleaved_chunk_streams() -> None:
    reader = make_reader(LIMITS)
    wire = [
        chunk(4, 0, full(10, 200, m.VIDEO), 128 * b"v"),
        chunk(5, 0, full(11, 3, m.AUDIO), b"aaa"),
        chunk(4, 3, b"", 72 * b"v"),
    ]
    assert read(reader, wire) == [(m.AUDIO, 11, 1, b"aaa"), (m.VIDEO, 10, 1, 200 * b"v")]


@pytest.mark.parametrize(
    ("basic", "csid"), [(b"\x00\x00", 64), (b"\x00\xff", 319), (b"\x01\x00\x01", 320)]
)
def test_long_chunk_stream_ids(basic: bytes, csid: int) -> None:
    reader = make_reader(LIMITS)
    wire = basic + full(5, 130) + 128 * b"x" + bytes([basic[0] | 0xC0]) + basic[1:] + b"yz"
    assert read(reader, even_pieces(wire, 1)) == [(m.AUDIO, 5, 1, 128 * b"x" + b"yz")]
    assert list(reader.state().streams) == [csid]


def test_a_new_message_of_fmt_3_repeats_the_delta() -> None:
    reader = make_reader(LIMITS)
    wire = [chunk(4, 0, full(40, 1), b"a"), chunk(4, 3, b"", b"b")]
    # §5.3.1.2.4: after fmt 0 the delta is the timestamp.
    wire += [chunk(4, 2, b"\0\0\x07", b"c"), chunk(4, 3, b"", b"d")]
    assert [time for _, time, _, _ in read(reader, wire)] == [40, 80, 87, 94]


def test_the_wrap_to_extended_timestamps_at_4_h_39_m() -> None:
    """0xFFFFFF ms are 4 h 39 m 37 s: what has stopped many a broadcast."""
    writer, reader = ChunkWriter(), make_reader(LIMITS)
    times = [0xFFFFFF - 40, 0xFFFFFF - 1, 0xFFFFFF, 0x1000000, 0x1000000 + 33]
    sent = [Message(m.VIDEO, time, 1, bytes(300)) for time in times]
    # Full headers, so that each time itself is on the wire.
    wire = [b"".join(ChunkWriter().write(4, message)) for message in sent]
    assert read(reader, wire) == plain(*sent)
    # Three chunks each; the last three messages repeat four bytes in each of them.
    assert [len(one) - 300 for one in wire] == [14, 14, 26, 26, 26]
    assert wire[4].count(b"\x01\x00\x00\x21") == 3
    # The same with deltas, as encoders send it.
    wire = [b"".join(writer.write(4, message)) for message in sent]
    assert read(make_reader(LIMITS), wire) == plain(*sent)


def test_the_wrap_of_32_bits() -> None:
    writer, reader = ChunkWriter(), make_reader(LIMITS)
    times = [2**32 - 20, 13, 46]
    sent = [Message(m.AUDIO, time, 1, bytes(200)) for time in times]
    assert read(reader, [b"".join(writer.write(4, message)) for message in sent]) == plain(*sent)


def test_an_encoder_that_does_not_repeat_the_extended_timestamp() -> None:
    reader = make_reader(LIMITS)
    extended = (0x1000000).to_bytes(4, "big")
    wire = chunk(4, 0, full(0xFFFFFF, 300, extended=extended), 128 * b"v")
    wire += chunk(4, 3, b"", 128 * b"v") + chunk(4, 3, b"", 44 * b"v")
    assert read(reader, even_pieces(wire, 1)) == [(m.AUDIO, 0x1000000, 1, 300 * b"v")]


def test_fmt_3_after_an_extended_fmt_0_is_the_same_time() -> None:
    """The letter of §5.3.1.2.4 would add 4 h 39 m; librtmp means the same time."""
    reader = make_reader(LIMITS)
    extended = (0x1000005).to_bytes(4, "big")
    wire = chunk(4, 0, full(0xFFFFFF, 1, extended=extended), b"a")
    wire += chunk(4, 3, extended, b"b") + chunk(4, 1, b"\0\0\x07" + b"\0\0\x01\x08", b"c")
    assert [time for _, time, _, _ in read(reader, [wire])] == [0x1000005, 0x1000005, 0x100000C]


def test_set_chunk_size_takes_effect_within_a_piece() -> None:
    reader = make_reader(LIMITS)
    wire = chunk(2, 0, full(0, 4, m.SET_CHUNK_SIZE, 0), (300).to_bytes(4, "big"))
    wire += chunk(4, 0, full(0, 300), 300 * b"a")
    assert [len(body) for _, _, _, body in read(reader, [wire])] == [4, 300]
    assert reader.chunk_size == 300


@pytest.mark.parametrize(
    ("value", "taken"),
    [
        (1, 1),
        (127, 127),
        (0xFFFFFF, 0xFFFFFF),
        (2**31 - 1, 0xFFFFFF),
        (2**31, None),
        (0, None),
    ],
)
def test_chunk_sizes_at_the_limits_and_one_past_them(value: int, taken: int | None) -> None:
    reader = make_reader(LIMITS)
    wire = chunk(2, 0, full(0, 4, m.SET_CHUNK_SIZE, 0), value.to_bytes(4, "big"))
    if taken is None:
        with pytest.raises(RemoteProtocolError, match=f"chunk size {value} is not in 1\\."):
            read(reader, [wire])
    else:
        read(reader, [wire])
        assert reader.chunk_size == taken


def test_a_piece_of_tiny_chunks_at_the_limit_and_one_past_it() -> None:
    limits = RtmpLimits(messages_per_s_max=500)
    tiny = chunk(2, 0, full(0, 4, m.SET_CHUNK_SIZE, 0), (2).to_bytes(4, "big"))
    read(make_reader(limits), [tiny + bytes([4]) + full(0, 700) + bytes(1000 - 12)])
    with pytest.raises(RemoteProtocolError, match="more than 500 chunks of 2 bytes in one piece"):
        read(make_reader(limits), [tiny + bytes([4]) + full(0, 700) + bytes(1001 - 12)])


def test_interleaved_messages_are_not_waited_for() -> None:
    reader = make_reader(LIMITS)
    read(reader, [chunk(4, 0, full(0, 3000), bytes(128))])
    read(reader, [chunk(5, 0, full(0, 10, m.AUDIO), bytes(10))])
    begun = bytes([0xC4]) + bytes(100)
    read(reader, [begun])
    assert reader.bytes_wanted == 28, "what is left of the chunk, not of the message"
    state = msgspec.msgpack.decode(msgspec.msgpack.encode(reader.state()), type=ReaderState)
    assert make_reader(LIMITS, state).bytes_wanted == 28


def test_abort_forgets_a_message_begun() -> None:
    reader = make_reader(LIMITS)
    wire = chunk(4, 0, full(0, 300, m.VIDEO), 128 * b"x")
    wire += chunk(2, 0, full(0, 4, m.ABORT, 0), (4).to_bytes(4, "big"))
    wire += chunk(2, 0, full(0, 4, m.ABORT, 0), (9).to_bytes(4, "big"))  # Of none such.
    wire += chunk(4, 0, full(1, 2, m.VIDEO), b"ok")
    assert read(reader, [wire])[-1] == (m.VIDEO, 1, 1, b"ok")
    assert reader.state().reserved == 0


def test_message_bytes_at_the_limit_and_one_past_it() -> None:
    limits = RtmpLimits(message_bytes_max=1000)
    message = Message(m.VIDEO, 0, 1, bytes(1000))
    assert read(make_reader(limits), ChunkWriter().write(4, message)) == plain(message)
    with pytest.raises(RemoteProtocolError, match="1001 bytes on chunk stream 4 exceeds 1000"):
        read(make_reader(limits), [chunk(4, 0, full(0, 1001))])


def test_a_great_chunk_size_lifts_no_limit() -> None:
    limits = RtmpLimits(message_bytes_max=1000, buffered_bytes_max=1500)
    state = ReaderState(chunk_size=0xFFFFFF)
    message = Message(m.VIDEO, 0, 1, bytes(1000))
    wire = ChunkWriter(0xFFFFFF).write(4, message)
    assert read(make_reader(limits, state), wire) == plain(message)
    with pytest.raises(RemoteProtocolError, match="1001 bytes on chunk stream 4 exceeds 1000"):
        read(make_reader(limits, state), [chunk(4, 0, full(0, 1001))])


def test_messages_begun_count_whatever_the_chunk_size() -> None:
    limits = RtmpLimits(message_bytes_max=1000, buffered_bytes_max=1500)
    begun = chunk(4, 0, full(0, 1000), bytes(128))
    begun += chunk(2, 0, full(0, 4, m.SET_CHUNK_SIZE, 0), (1000).to_bytes(4, "big"))
    reader = make_reader(limits)
    assert len(read(reader, [begun + chunk(5, 0, full(0, 500), b"x")])) == 1
    assert reader.state().reserved == 1500
    assert len(read(reader, [bytes(499) + chunk(4, 3, b"", bytes(872))])) == 2
    assert reader.state().reserved == 0
    with pytest.raises(RemoteProtocolError, match="hold 1501 bytes, more than 1500"):
        read(make_reader(limits), [begun + chunk(5, 0, full(0, 501), b"x")])


def test_buffered_bytes_at_the_limit_and_one_past_it() -> None:
    limits = RtmpLimits(message_bytes_max=1000, buffered_bytes_max=1500)
    begun = [chunk(4, 0, full(0, 1000), bytes(128)), chunk(5, 0, full(0, 500), bytes(128))]
    reader = make_reader(limits)
    assert read(reader, begun) == []
    assert reader.state().reserved == 1500
    begun[1] = chunk(5, 0, full(0, 501), bytes(128))
    with pytest.raises(RemoteProtocolError, match="hold 1501 bytes, more than 1500"):
        read(make_reader(limits), begun)


def test_chunk_streams_at_the_limit_and_one_past_it() -> None:
    limits = RtmpLimits(chunk_streams_max=3)
    wire = [chunk(csid, 0, full(0, 0)) for csid in (3, 4, 5, 6)]
    assert len(read(make_reader(limits), wire[:3])) == 3
    with pytest.raises(RemoteProtocolError, match="chunk stream 6 is one more than 3"):
        read(make_reader(limits), wire)


def test_messages_in_a_piece_at_the_limit_and_one_past_it() -> None:
    limits = RtmpLimits(messages_per_s_max=10)
    wire = chunk(4, 0, full(0, 0)) + 9 * b"\xc4"
    assert len(read(make_reader(limits), [wire])) == 10
    with pytest.raises(RemoteProtocolError, match="more than 10 messages in one piece"):
        read(make_reader(limits), [wire + b"\xc4"])


def test_librtmp_begins_its_control_stream_with_fmt_1() -> None:
    wire = chunk(2, 1, b"\0\0\0\0\0\x06\x04", b"\0\x07abcd")
    assert read(make_reader(LIMITS), [wire]) == [(m.USER_CONTROL, 0, 0, b"\0\x07abcd")]


@pytest.mark.parametrize("fmt", [2, 3])
def test_a_chunk_stream_cannot_begin_in_the_middle(fmt: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"chunk stream 4 begins with fmt {fmt}"):
        read(make_reader(LIMITS), [chunk(4, fmt, b"\0\0\0")])


def test_a_message_cannot_begin_inside_another() -> None:
    wire = chunk(4, 0, full(0, 300), bytes(128)) + chunk(4, 0, full(0, 300))
    with pytest.raises(RemoteProtocolError, match="fmt 0 on chunk stream 4 inside a message, 172"):
        read(make_reader(LIMITS), [wire])


@hypothesis.given(st.integers(1, 2000), st.sampled_from([128, 1000]), st.integers(1, 2200))
@hypothesis.settings(max_examples=60, deadline=None)
def test_bytes_wanted_never_reaches_into_the_next_message(
    size: int, chunk_size: int, cut: int
) -> None:
    wire = b"".join(ChunkWriter(chunk_size).write(4, Message(m.VIDEO, 0, 1, bytes(size))))
    reader = make_reader(LIMITS, ReaderState(chunk_size))
    read(reader, [wire[:cut]])
    left = len(wire) - min(cut, len(wire))
    # Inside a header it is not known; then one byte is asked for.
    assert reader.bytes_wanted in {1, left}
    if cut > 12 and reader.state().current is not None:
        assert reader.bytes_wanted == left
