"""Segments on their way to who asked: whole, within credit, and behind all that is live."""

from hypothesis import given, settings
from hypothesis import strategies as st

from edged.media.parts import SegmentPiece
from edged.wire.backbone.events import EventReceived, FlowEnded, MessageReceived, UnitsReceived
from edged.wire.backbone.flows import Chunk, FlowState
from edged.wire.backbone.frames import EVENT_HEADER_BYTES, FRAGMENT_BYTES_MAX
from edged.wire.backbone.messages import (
    PIECE_META,
    WINDOW_BYTES_MIN,
    SegmentOpened,
    StreamClosed,
)
from edged.wire.backbone.segment_flow import WHOLE
from edged.wire.backbone.sending import MediaSender
from tests.wire.backbone.builders import ListSource, Pair, make_unit

ROOM = 2**40
PIECE = FRAGMENT_BYTES_MAX + EVENT_HEADER_BYTES + len(PIECE_META)


def open_segment(pair: Pair, body: list[bytes]) -> int:
    """The origin gives a segment."""
    sender = pair.origin.sender
    stream_no = sender.reserve()
    pair.origin.send(SegmentOpened(stream_no, 1, sum(map(len, body))))
    sender.open_segment(stream_no, body)
    return stream_no


def exchange(pair: Pair, segment_bytes_max: int, rounds: int = 100) -> None:
    for _ in range(rounds):
        up = b"".join(pair.pop.data_to_send(ROOM))
        down = b"".join(pair.origin.data_to_send(ROOM, segment_bytes_max))
        pair.at_origin += pair.deliver(pair.origin, up)
        pair.at_pop += pair.deliver(pair.pop, down)


@given(
    st.lists(st.integers(0, 3 * FRAGMENT_BYTES_MAX), max_size=5),
    st.sampled_from([1, 70_000, ROOM]),
    st.data(),
)
@settings(max_examples=30, deadline=None)
def test_a_segment_comes_whole_however_it_is_cut(
    sizes: list[int], at_a_time: int, data: st.DataObject
) -> None:
    pair = Pair(cut=lambda left: data.draw(st.sampled_from([left, 1 + left // 3])))
    body = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
    stream_no = open_segment(pair, body)
    exchange(pair, at_a_time, rounds=20)
    pieces = [
        event.event.payload
        for event in pair.at_pop
        if isinstance(event, EventReceived) and isinstance(event.event, SegmentPiece)
    ]
    assert b"".join(pieces) == b"".join(body)
    assert all(0 < len(piece) <= FRAGMENT_BYTES_MAX for piece in pieces)
    assert pair.at_pop[-1] == MessageReceived(StreamClosed(stream_no, WHOLE, ended=True))
    assert pair.origin.sender.take_events() == [FlowEnded(stream_no, WHOLE, ended=True)]
    assert pair.origin.sender.unfinished == 0
    assert not pair.origin.sender.has_segments


def test_live_media_goes_first_at_any_time() -> None:
    sender = MediaSender()
    sender.set_windows(ROOM, ROOM)
    source = ListSource()
    live = sender.open_units(sender.reserve(), source, {1: 0})
    sender.open_segment(sender.reserve(), [bytes(10 * FRAGMENT_BYTES_MAX)])
    for seq in range(5):
        source.append(make_unit(seq, 100_000))
        sender.wake(live)
        out: list[Chunk] = []
        sender.fill(out, FRAGMENT_BYTES_MAX, ROOM)
        assert sender.statistics().items_sent == 2 * seq + 1, "no piece of the segment"
        sender.fill(out, ROOM, 1)
        assert source.lag_units == 0
    assert sender.statistics().items_sent == 10, "one piece each time that nothing live was left"


def test_no_more_than_allowed_is_framed_at_a_time() -> None:
    sender = MediaSender()
    sender.set_windows(ROOM, ROOM)
    sender.open_segment(sender.reserve(), [bytes(10 * FRAGMENT_BYTES_MAX)])
    out: list[Chunk] = []
    assert sender.fill(out, ROOM) == 0, "unless it is allowed, nothing"
    assert not sender.wants_to_send, "bursts do not grow for it"
    assert sender.fill(out, ROOM, -5) == 0
    assert sender.fill(out, ROOM, 1) == PIECE
    assert sender.fill(out, ROOM, PIECE + 1) == 2 * PIECE
    assert sender.fill(out, 1, ROOM) == PIECE, "nor more than the socket will take"


def test_segments_go_one_after_the_other() -> None:
    """In turns all would come late on a slow path, and none in time."""
    sender = MediaSender()
    sender.set_windows(ROOM, ROOM)
    flows = [sender.open_segment(sender.reserve(), [bytes(200_000)]) for _ in range(3)]
    for _ in range(3):
        sender.fill([], ROOM, 1)
    assert [flow.sent for flow in flows] == [3 * PIECE, 0, 0]
    while flows[1].sent == 0:
        sender.fill([], ROOM, 1)
    assert flows[0].state is FlowState.DONE
    assert flows[2].sent == 0


def test_half_of_the_credit_is_for_what_is_live() -> None:
    sender = MediaSender()
    sender.set_windows(10 * PIECE, ROOM)
    flow = sender.open_segment(sender.reserve(), [bytes(20 * FRAGMENT_BYTES_MAX)])
    assert sender.fill([], ROOM, ROOM) == 5 * PIECE
    assert flow.state is FlowState.READY
    source = ListSource()
    source.append(*(make_unit(seq, 50_000) for seq in range(6)))
    sender.open_units(sender.reserve(), source, {1: 0})
    sender.fill([], ROOM, ROOM)
    assert source.lag_units == 0
    sender.grant(0, 30 * PIECE)
    assert sender.fill([], ROOM, ROOM) > 10 * PIECE


def test_a_segment_without_credit_of_its_own_waits_for_some() -> None:
    sender = MediaSender()
    sender.set_windows(ROOM, PIECE + 1)
    flow = sender.open_segment(sender.reserve(), [bytes(2 * FRAGMENT_BYTES_MAX)])
    other = sender.open_segment(sender.reserve(), [bytes(10)])
    sender.fill([], ROOM, ROOM)
    assert (flow.state, other.state) == (FlowState.BLOCKED, FlowState.DONE)
    assert not sender.has_segments
    sender.grant(flow.stream_no, ROOM)
    assert sender.has_segments
    sender.fill([], ROOM, ROOM)
    assert flow.state is FlowState.DONE


def test_the_least_windows_carry_any_segment() -> None:
    pair = Pair(windows={"session_window": WINDOW_BYTES_MIN, "stream_window": WINDOW_BYTES_MIN})
    size = 2 * WINDOW_BYTES_MIN
    open_segment(pair, [bytes(size)])
    exchange(pair, ROOM, rounds=20)
    got = [event.event for event in pair.at_pop if isinstance(event, EventReceived)]
    assert sum(len(piece.payload) for piece in got if isinstance(piece, SegmentPiece)) == size


def test_a_segment_can_be_broken_off() -> None:
    pair = Pair()
    stream_no = open_segment(pair, [bytes(2**20)])
    exchange(pair, 1, rounds=3)
    flow = pair.origin.sender._flows[stream_no]
    pair.origin.close_flow(flow, "refused")
    exchange(pair, ROOM, rounds=3)
    assert pair.at_pop[-1] == MessageReceived(StreamClosed(stream_no, "refused", ended=False))
    assert not pair.origin.sender.has_segments
    source = ListSource()
    source.append(make_unit(0))
    number = pair.open_stream(source)
    exchange(pair, ROOM, rounds=3)
    assert [e.stream_no for e in pair.at_origin if isinstance(e, UnitsReceived)] == [number]


def test_a_bug_in_one_ends_that_one() -> None:
    sender = MediaSender()
    sender.set_windows(ROOM, ROOM)
    broken = sender.open_segment(sender.reserve(), [bytes(10)])
    sound = sender.open_segment(sender.reserve(), [bytes(10)])
    broken._pieces[0] = None  # type: ignore[assignment]
    sender.fill([], ROOM, ROOM)
    first, second = sender.take_events()
    assert isinstance(first, FlowEnded)
    assert (first.stream_no, first.ended) == (broken.stream_no, False)
    assert first.error is not None
    assert second == FlowEnded(sound.stream_no, WHOLE, ended=True)
