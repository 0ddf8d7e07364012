import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.errors import RemoteProtocolError
from edged.media.parts import StreamEnded
from edged.media.track import Track
from edged.wire.backbone.events import FlowEnded, MessageReceived
from edged.wire.backbone.flows import QUEUE_EVENTS_MAX, Chunk, FlowState
from edged.wire.backbone.frames import (
    FRAGMENT_BYTES_MAX,
    INTERLEAVE_MAX,
    ITEM_BYTES_MAX,
    UNIT_HEADER_BYTES,
)
from edged.wire.backbone.messages import (
    GRANTS_PER_WINDOW,
    WINDOW_BYTES_MIN,
    StreamClosed,
    encode_event,
)
from edged.wire.backbone.sending import MediaSender
from tests.wire.backbone.builders import ListSource, Pair, make_part, make_track, make_unit

ROOM = 2**40
WINDOWS = ("stream_window", "session_window")


def make_sender(session_window: int = ROOM, stream_window: int = ROOM) -> MediaSender:
    sender = MediaSender()
    sender.set_windows(session_window, stream_window)
    return sender


@given(
    sizes=st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from([0, 10, 5000, 70_000, 200_000])),
        max_size=30,
    ),
    budget=st.sampled_from([1, 100_000, ROOM]),
    data=st.data(),
)
@settings(max_examples=20, deadline=None)
def test_no_interleaving_or_split_reorders_a_stream(
    sizes: list[tuple[int, int]], budget: int, data: st.DataObject
) -> None:
    pair = Pair(cut=lambda left: data.draw(st.sampled_from([left, 1 + left // 3, left // 2])))
    sources = [ListSource() for _ in range(4)]
    sent: list[list[int]] = [[] for _ in range(4)]
    numbers = [pair.open_stream(source) for source in sources]
    flows = [pair.pop.sender._flows[number] for number in numbers]
    for which, size in sizes:
        sources[which].append(make_unit(len(sent[which]), size))
        sent[which].append(size)
        pair.pop.sender.wake(flows[which])
        if size == 10:
            pair.at_origin += pair.deliver(pair.origin, b"".join(pair.pop.data_to_send(budget)))
    pair.settle(media_bytes_max=budget, rounds=200)
    for which in range(4):
        assert pair.units(numbers[which]) == [
            make_unit(seq, size) for seq, size in enumerate(sent[which])
        ]


@given(
    stream_window=st.integers(0, 300_000),
    session_window=st.integers(0, 300_000),
    sizes=st.lists(st.integers(0, 150_000), min_size=1, max_size=12),
    grants=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 400_000)), max_size=10),
)
@settings(max_examples=40, deadline=None)
def test_credit_is_never_exceeded_and_never_sinks(
    stream_window: int, session_window: int, sizes: list[int], grants: list[tuple[int, int]]
) -> None:
    sender = make_sender(session_window, stream_window)
    limits = [session_window, stream_window, stream_window]
    for _ in range(2):
        source = ListSource()
        source.append(*(make_unit(seq, size) for seq, size in enumerate(sizes)))
        sender.open_units(sender.reserve(), source, {1: 0})
    out: list[Chunk] = []
    for stream_no, limit in [*grants, (0, 0)]:
        sender.fill(out, ROOM)
        flows = sender._flows
        assert sum(flow.sent for flow in flows.values()) == sum(map(len, out)) <= limits[0]
        for number in (1, 2):
            assert flows[number].sent <= limits[number]
        sender.grant(stream_no, limit)
        limits[stream_no] = max(limits[stream_no], limit)
    assert sender.statistics().session_credit >= 0


def test_a_stream_without_credit_blocks_no_other() -> None:
    sender = make_sender(stream_window=1000)
    stalled, lively = ListSource(), ListSource()
    stalled.append(*(make_unit(seq, 200) for seq in range(100)))
    first = sender.open_units(sender.reserve(), stalled, {1: 0})
    second = sender.open_units(sender.reserve(), lively, {1: 0})
    out: list[Chunk] = []
    sender.fill(out, ROOM)
    assert first.state is FlowState.BLOCKED
    for seq in range(50):
        lively.append(make_unit(seq, 200))
        sender.wake(second)
        sender.wake(first)
        sender.grant(second.stream_no, second.sent + 1000)
        assert sender.fill(out, ROOM) == 200 + UNIT_HEADER_BYTES
    assert first.sent <= 1000
    assert lively.lag_units == 0
    assert not sender.wants_to_send
    sender.grant(first.stream_no, ROOM)
    assert sender.wants_to_send
    sender.fill(out, ROOM)
    assert stalled.lag_units == 0


def test_streams_take_turns_of_a_fragment() -> None:
    sender = make_sender()
    large, small = ListSource(), ListSource()
    large.append(make_unit(0, 50 * FRAGMENT_BYTES_MAX))
    small.append(make_unit(0, 1000))
    sender.open_units(sender.reserve(), large, {1: 0})
    sender.open_units(sender.reserve(), small, {1: 0})
    out: list[Chunk] = []
    assert sender.fill(out, FRAGMENT_BYTES_MAX + UNIT_HEADER_BYTES + 1) < 70_000
    assert small.lag_units == 0
    assert sender.unfinished == 1
    assert sender.fill(out, ROOM) > 49 * FRAGMENT_BYTES_MAX
    assert sender.unfinished == 0
    assert sender.statistics().items_sent == 2


def test_at_most_so_many_items_are_unfinished_and_those_who_wait_get_their_turn() -> None:
    sender = make_sender()
    sources = [ListSource() for _ in range(3 * INTERLEAVE_MAX)]
    for source in sources:
        source.append(make_unit(0, 3 * FRAGMENT_BYTES_MAX))
        sender.open_units(sender.reserve(), source, {1: 0})
    out: list[Chunk] = []
    most = 0
    while sender.fill(out, 1):
        most = max(most, sender.unfinished)
    assert most == INTERLEAVE_MAX
    assert sender.unfinished == 0
    assert not any(source.lag_units for source in sources)


def test_a_slot_lost_to_a_blocked_stream_goes_to_another() -> None:
    sender = make_sender()
    sender.unfinished = INTERLEAVE_MAX
    out: list[Chunk] = []
    flows = []
    for _ in range(2):
        source = ListSource()
        source.append(make_unit(0, 2 * FRAGMENT_BYTES_MAX))
        flows.append(sender.open_units(sender.reserve(), source, {1: 0}))
    sender.fill(out, ROOM)
    assert [flow.state for flow in flows] == [FlowState.CROWDED] * 2
    flows[0].limit = 10
    sender.unfinished -= 1
    source = ListSource()
    source.append(make_unit(0))
    sender.open_units(sender.reserve(), source, {1: 0})
    sender.fill(out, ROOM)
    assert [flow.state for flow in flows] == [FlowState.BLOCKED, FlowState.IDLE]


def test_an_unfinished_stream_that_is_closed_frees_its_slot() -> None:
    pair = Pair()
    source = ListSource()
    source.append(make_unit(0, 3 * FRAGMENT_BYTES_MAX))
    stream_no = pair.open_stream(source)
    out = b"".join(pair.pop.data_to_send(1))
    flow = pair.pop.sender._flows[stream_no]
    assert pair.pop.sender.unfinished == 1
    pair.pop.close_flow(flow, "moved away")
    pair.pop.close_flow(flow, "twice")
    assert pair.pop.sender.unfinished == 0
    assert pair.pop.sender.take_events() == [FlowEnded(stream_no, "moved away", ended=False)]
    pair.deliver(pair.origin, out)
    pair.settle()
    assert pair.units(stream_no) == []
    assert pair.origin.receiver.statistics().partial_bytes == 0
    assert pair.origin.receiver.statistics().streams == 0
    pair.pop.sender.wake(flow)
    pair.settle()


def test_crowded_and_blocked_streams_can_be_closed() -> None:
    sender = make_sender()
    sender.unfinished = INTERLEAVE_MAX
    source = ListSource()
    source.append(make_unit(0, 2 * FRAGMENT_BYTES_MAX))
    flow = sender.open_units(sender.reserve(), source, {1: 0})
    out: list[Chunk] = []
    sender.fill(out, ROOM)
    assert flow.state is FlowState.CROWDED
    sender.close(flow, "x", out)
    sender.unfinished = 0
    assert sender.fill(out, ROOM) == 0
    assert sender.statistics().flows == 0


class BrokenSource(ListSource):
    """A `UnitSource` with a bug in what is asked before every unit of a new configuration."""

    def track(self, track_id: int, config_id: int) -> Track | None:
        raise KeyError("bug")


def test_a_stream_that_raises_is_closed_with_the_reason_and_no_other_notices() -> None:
    pair = Pair()
    broken, sound = BrokenSource(), ListSource()
    numbers = [pair.open_stream(broken), pair.open_stream(sound)]
    broken.append(make_unit(0), make_unit(1, config_id=1))  # The first is framed in the same turn.
    sound.append(make_unit(0))
    pair.settle()
    assert pair.units(numbers[0]) == []
    assert pair.units(numbers[1]) == [make_unit(0)]
    reason = "internal error: KeyError('bug')"
    (told,) = pair.pop.sender.take_events()
    assert isinstance(told, FlowEnded)
    assert (told.stream_no, told.reason, told.ended) == (numbers[0], reason, False)
    assert isinstance(told.error, KeyError), "for the log's traceback"
    closed = [
        event.message
        for event in pair.at_origin
        if isinstance(event, MessageReceived) and isinstance(event.message, StreamClosed)
    ]
    assert closed == [StreamClosed(numbers[0], reason, ended=False)]
    assert pair.pop.sender.statistics().flows == 1
    assert not pair.pop.sender.wants_to_send


@pytest.mark.pure
def test_a_stream_that_raises_amid_an_item_gives_its_slot_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sender = make_sender()
    sources = [ListSource() for _ in range(INTERLEAVE_MAX + 1)]
    flows = []
    for source in sources:
        source.append(make_unit(0, 3 * FRAGMENT_BYTES_MAX))
        flows.append(sender.open_units(sender.reserve(), source, {1: 0}))
    out: list[Chunk] = []
    while flows[-1].state is not FlowState.CROWDED:
        sender.fill(out, 1)
    assert sender.unfinished == INTERLEAVE_MAX
    broken = sender._ready[0]

    def fail(*_: object) -> int:
        raise KeyError("bug")

    monkeypatch.setattr(broken, "_continue", fail)
    sender.fill(out, 1)
    assert broken.state is FlowState.DONE
    sender.fill(out, ROOM)
    assert sender.unfinished == 0
    assert sender.statistics().flows == INTERLEAVE_MAX


def test_the_end_of_a_publication_is_reported() -> None:
    sender = make_sender()
    source = ListSource()
    source.append(make_unit(0))
    flow = sender.open_units(sender.reserve(), source, {1: 0})
    source.end_reason = "bye"
    out: list[Chunk] = []
    sender.fill(out, ROOM)
    assert sender.has_events
    assert sender.take_events() == [FlowEnded(flow.stream_no, "bye", ended=True)]
    assert not sender.has_events
    assert sender.statistics().items_sent == 1


def test_session_credit_holds_everyone_back_until_it_is_granted() -> None:
    sender = make_sender(session_window=500)
    source = ListSource()
    source.append(*(make_unit(seq, 200) for seq in range(5)))
    sender.open_units(sender.reserve(), source, {1: 0})
    out: list[Chunk] = []
    assert sender.fill(out, ROOM) == 260
    assert sender.fill(out, ROOM) == 0
    sender.grant(0, 260 * 5)
    assert sender.fill(out, ROOM) == 260 * 4


@pytest.mark.parametrize("least", [("stream_window",), ("session_window",), WINDOWS])
def test_in_the_least_windows_the_largest_unit_is_sent_whatever_was_sent_before(
    least: tuple[str, ...],
) -> None:
    pair = Pair(windows=dict.fromkeys(least, WINDOW_BYTES_MIN))
    source = ListSource(bytes_max=2**28)
    stream_no = pair.open_stream(source)
    flow = pair.pop.sender._flows[stream_no]
    limit = flow.limit
    left = WINDOW_BYTES_MIN // GRANTS_PER_WINDOW - 1  # A byte less than is granted anew.
    sizes = [FRAGMENT_BYTES_MAX] * (left // (FRAGMENT_BYTES_MAX + UNIT_HEADER_BYTES))
    sizes.append(left % (FRAGMENT_BYTES_MAX + UNIT_HEADER_BYTES) - UNIT_HEADER_BYTES)
    source.append(*(make_unit(seq, size) for seq, size in enumerate(sizes)))
    pair.settle()
    assert (flow.limit, flow.sent) == (limit, left)
    for seq in range(len(sizes), len(sizes) + 2):
        source.append(make_unit(seq, ITEM_BYTES_MAX))
        pair.pop.sender.wake(flow)
        pair.settle()
        assert pair.units(stream_no)[-1].seq == seq


def test_credit_for_what_was_never_opened_is_a_protocol_error() -> None:
    sender = make_sender()
    sender.reserve()
    sender.grant(1, 100)  # Reserved, or ended: nothing to do.
    with pytest.raises(RemoteProtocolError, match="never opened"):
        sender.grant(2, 100)


def test_what_was_skipped_is_counted() -> None:
    sender = make_sender()
    source = ListSource(bytes_max=60_000)
    sender.open_units(sender.reserve(), source, {1: 0})
    source.append(*(make_unit(seq, 1000) for seq in range(200)))
    sender.fill([], ROOM)
    events = sender.open_events(sender.reserve())
    for _ in range(QUEUE_EVENTS_MAX + 1):
        events.push(sender, encode_event(StreamEnded(reason="x")))
    statistics = sender.statistics()
    assert statistics.units_skipped == source.ring.first_seq
    assert statistics.events_skipped == QUEUE_EVENTS_MAX


def test_parts_and_units_share_a_session() -> None:
    pair = Pair()
    source = ListSource(tracks=[make_track()])
    source.append(make_unit(0, 100_000))
    stream_no = pair.open_stream(source)
    events = pair.pop.sender.open_events(pair.pop.sender.reserve())
    events.push(pair.pop.sender, encode_event(make_part(1, 0)))
    out: list[Chunk] = []
    pair.pop.sender.fill(out, ROOM)
    statistics = pair.pop.sender.statistics()
    assert (statistics.flows, statistics.items_sent) == (2, 2)
    assert stream_no == 1
