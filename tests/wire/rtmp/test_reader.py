"""The choice of a reader, and that the two are one: `twins` compares all that they do."""

import itertools

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.errors import RemoteProtocolError
from edged.media.access_unit import AccessUnit
from edged.wire.rtmp import (
    Phase,
    PublishRequested,
    RtmpClientSession,
    ServerEvent,
    flv,
    reader,
)
from edged.wire.rtmp import messages as m
from edged.wire.rtmp.chunks import ChunkStream, ChunkWriter, ReaderState
from edged.wire.rtmp.limits import RtmpLimits
from edged.wire.rtmp.messages import Message
from tests.wire.rtmp.peers import (
    AAC,
    AAC_CONFIG,
    H264,
    H264_CONFIG,
    URL,
    entropy,
    h264_unit,
    pieces,
)
from tests.wire.rtmp.twins import TwinSessions

if reader.HAS_FAST:
    from edged.wire.rtmp import fast

needs_both = pytest.mark.skipif(not reader.HAS_FAST, reason="the core was not compiled")
VIDEO_CONFIG = flv.make_config(H264_CONFIG.codec, H264_CONFIG.record, 0, enhanced=False)
AUDIO_CONFIG = flv.make_config(AAC_CONFIG.codec, AAC_CONFIG.record, 0, enhanced=False)
SET_CHUNK_SIZE = b"".join(
    ChunkWriter().write(2, Message(m.SET_CHUNK_SIZE, 0, 0, (4096).to_bytes(4, "big")))
)
# What lies between the wire's times of two messages: jitter, repeats, steps back, gaps, jumps.
STEPS = st.one_of(
    st.sampled_from([33, 34, 33, 20, 21, 22, 0, 1, -1, -40]),
    st.sampled_from([500, -999, -1001, 9_999, 10_001, 2**31 - 1, -(2**31), 2**24, 3_600_000]),
    st.integers(-3000, 12_000),
)
SHIFTS = st.sampled_from([0, 0, 33, 66, 67, 1, -1, 5000, -5000, 2**23 - 1, -(2**23)])
MEDIA = st.lists(
    st.tuples(st.integers(0, 11), STEPS, SHIFTS, st.sampled_from([5, 6, 40, 200])),
    min_size=1,
    max_size=40,
)


def test_the_choice_holds_for_sessions_from_now_on(core: str) -> None:
    assert reader.is_compiled() is (core == "compiled")
    made = reader.make_reader(RtmpLimits())
    assert type(made).__module__.endswith("fast" if core == "compiled" else "chunks")
    reader.use_compiled(not reader.is_compiled())
    try:
        assert reader.is_compiled() is (core != "compiled" and reader.HAS_FAST)
    finally:
        reader.use_compiled(core == "compiled")


def video(shift_ms: int, payload: bytes, first: int = 0x27, kind: int = 1) -> bytes:
    return bytes([first, kind]) + shift_ms.to_bytes(3, "big", signed=True) + payload


def message_of(what: int, timestamp: int, shift_ms: int, size: int) -> Message:
    """Mostly the usual units; else what is nearly one, or makes those after it unusual."""
    nal = h264_unit(0, size=size).payload
    body = {
        0: video(shift_ms, h264_unit(0, key=True, size=size).payload, 0x17),
        1: video(shift_ms, nal + (0).to_bytes(4, "big")),  # An empty NAL unit at its end.
        2: video(shift_ms, nal[:-1]),  # Cut short: an error.
        3: video(shift_ms, nal, 0x37),  # A disposable frame.
        4: video(shift_ms, b""),
        5: video(shift_ms, b"", kind=2),  # The end of a sequence.
        6: VIDEO_CONFIG,
        7: b"\xaf\x01" + bytes(size),
        8: b"\xaf\x01" + bytes(size),
        9: AUDIO_CONFIG,
    }.get(what, video(shift_ms, nal))
    return Message(m.AUDIO if what in (7, 8, 9) else m.VIDEO, timestamp, 1, body)


def published(limits: RtmpLimits | None = None) -> TwinSessions:
    """A twin that has been asked, answered, and told of both tracks."""
    client = RtmpClientSession(now=0.0, entropy=entropy, url=URL)
    twins = TwinSessions(limits)
    while up := client.data_to_send():
        for event in twins.receive_data(up, 0.0):
            assert isinstance(event, PublishRequested)
            twins.accept_publish(0.0)
        client.receive_data(twins.data_to_send(), 0.0)
    twins.receive_data(SET_CHUNK_SIZE, 0.0)  # As the writers of these tests have it.
    assert twins.compiled.phase is Phase.PUBLISHING
    return twins


@needs_both
@hypothesis.given(
    MEDIA,
    st.sampled_from([0, 5, 2**24 - 50, 2**32 - 70, 2**31 - 5]),
    st.lists(st.integers(0, 9000), max_size=12),
)
@hypothesis.settings(max_examples=300, deadline=None)
def test_whatever_a_publisher_sends_both_make_the_same_of_it(
    sent: list[tuple[int, int, int, int]], start: int, cuts: list[int]
) -> None:
    twins = published()
    writer = ChunkWriter(4096)
    wire = bytearray()
    times = itertools.accumulate((step for _, step, _, _ in sent), initial=start)
    first = [Message(m.VIDEO, start & 0xFFFFFFFF, 1, VIDEO_CONFIG)]
    first.append(Message(m.AUDIO, start & 0xFFFFFFFF, 1, AUDIO_CONFIG))
    rest = [
        message_of(what, time & 0xFFFFFFFF, shift, size)
        for (what, _, shift, size), time in zip(sent, times, strict=False)
    ]
    for message in first + rest:
        for piece in writer.write(4 if message.kind == m.AUDIO else 6, message):
            wire += piece
    try:
        for piece in pieces(bytes(wire), cuts):
            twins.receive_data(piece, 0.0)
    except RemoteProtocolError:
        twins.close("NetStream.Publish.Failed", "broken")
    twins.statistics()


@needs_both
def test_the_usual_units_are_made_in_the_reader() -> None:
    """Else all of the above would compare the assembler with itself."""
    twins = published()
    writer = ChunkWriter(4096)

    def send(*messages: Message) -> list[ServerEvent]:
        wire = b"".join(piece for one in messages for piece in writer.write(6, one))
        return twins.receive_data(wire, 0.0)

    send(Message(m.VIDEO, 0, 1, VIDEO_CONFIG), message_of(0, 0, 66, 200))
    compiled = twins.compiled._reader
    units = send(message_of(10, 33, 66, 5000), message_of(10, 67, 0, 200))
    assert compiled.only_units
    assert [unit.dts for unit in units if isinstance(unit, AccessUnit)] == [3000, 6000]
    assert not twins.python._reader.only_units
    send(message_of(10, 100, 0, 200), message_of(6, 100, 0, 9), message_of(10, 133, 0, 200))
    assert not compiled.only_units, "the assembler had its turn from the configuration on"
    state = twins.compiled.state()
    assert state.media.units == 5
    assert (state.media.unroller.value, state.media.tracks[1].last_ms) == (133, 133)


@needs_both
def test_clocks_out_of_bounds_are_the_assembler_s() -> None:
    """A timescale or a grid that 64 bits might not hold: the same times, the long way."""
    for change in (
        {"timescale": 192_001},
        {"frame_den": 2**20, "frame_num": 3000 * 2**20},
        {"frame_num": 2**40},
        {"anchor": -(2**41)},
        {"anchor": None},
    ):
        twins = published()
        writer = ChunkWriter(4096)
        wire = b"".join(writer.write(6, Message(m.VIDEO, 0, 1, VIDEO_CONFIG)))
        wire += b"".join(writer.write(6, message_of(0, 0, 0, 200)))
        twins.receive_data(wire, 0.0)
        for session in (twins.python, twins.compiled):
            session.statistics()  # What the reader knows is settled: it looks anew.
            track = session._media.state.tracks[1]
            assert track.grid is not None
            for name, value in change.items():
                if name == "timescale":
                    track.track = msgspec.structs.replace(track.track, timescale=value)
                else:
                    setattr(track.grid, name, value)
        units = twins.receive_data(b"".join(writer.write(6, message_of(10, 33, 66, 40))), 0.0)
        assert len(units) == 1
        assert not twins.compiled._reader.only_units, change


@needs_both
def test_after_an_error_nothing_is_written_beyond_a_message() -> None:
    """A session is over then; but one that goes on by mistake must not cost the process."""
    made = fast.ChunkReader(RtmpLimits())
    header = bytes([4, 0, 0, 0]) + (200).to_bytes(3, "big") + bytes([m.VIDEO, 1, 0, 0, 0])
    with pytest.raises(RemoteProtocolError, match="chunk stream 9 begins with fmt 2"):
        made.receive_data(header + bytes(128) + bytes([2 << 6 | 9, 0, 0, 0]))
    assert made.receive_data(bytes([3 << 6 | 4]) + bytes(71)) == []
    assert made.state().streams[4].missing == 1


@needs_both
@pytest.mark.parametrize(("left", "body"), [(101, 100), (-1, 100), (1, 201)])
def test_a_state_that_contradicts_itself_is_refused(left: int, body: int) -> None:
    stream = ChunkStream(length=200, kind=m.VIDEO, missing=100, body=bytearray(body))
    with pytest.raises(ValueError, match="bytes"):
        fast.ChunkReader(RtmpLimits(), ReaderState(current=4, left=left, streams={4: stream}))


def test_both_tracks_are_told() -> None:
    assert (H264.track_id, AAC.track_id) == (1, 2), "those that the reader knows"
