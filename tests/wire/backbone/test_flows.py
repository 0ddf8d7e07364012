from collections.abc import Sequence

import msgspec
import pytest

from edged.media.parts import InitSegment, Rendition, SegmentEnded, StreamEnded
from edged.media.track import Kind
from edged.wire.backbone.events import EventReceived, EventsSkipped, FlowEnded, UnitsSkipped
from edged.wire.backbone.flows import (
    QUEUE_BYTES_MAX,
    QUEUE_EVENTS_MAX,
    Chunk,
    EventFlow,
    FlowState,
    UnitFlow,
    choose_replay,
)
from edged.wire.backbone.frames import (
    FRAGMENT_BYTES_MAX,
    FRAGMENT_HEADER,
    INTERLEAVE_MAX,
    ITEM_BYTES_MAX,
    KIND_FRAGMENT,
    KIND_UNIT,
    MESSAGE_BYTES_MAX,
    UNIT_HEADER,
    UNIT_HEADER_BYTES,
)
from edged.wire.backbone.messages import EncodedEvent, encode_event
from edged.wire.backbone.receiving import MediaReceiver
from edged.wire.backbone.sending import MediaSender
from tests.wire.backbone.builders import (
    ListSource,
    Pair,
    make_part,
    make_track,
    make_unit,
)

ROOM = 2**40


def make_flow(source: ListSource, limit: int = ROOM) -> tuple[MediaSender, UnitFlow]:
    return MediaSender(), UnitFlow(3, limit, source, {1: 0})


def fill(sender: MediaSender, flow: UnitFlow | EventFlow, room: int = ROOM) -> list[Chunk]:
    out: list[Chunk] = []
    used = flow.fill(sender, out, room)
    assert used == sum(map(len, out)) or flow.state is FlowState.DONE
    return out


def test_a_units_bytes_are_handed_on_uncopied_behind_one_header() -> None:
    source = ListSource()
    unit = make_unit(0, 5000, random_access=True)
    source.append(unit)
    out = fill(*make_flow(source))
    assert len(out) == 2
    assert out[1] is unit.payload
    assert UNIT_HEADER.unpack(out[0]) == (
        *(5055, KIND_UNIT, 1, 1, 3, 0, 5000),
        *(0, unit.dts, unit.pts, unit.wallclock_us, 0),
    )


@pytest.mark.parametrize("rest", [0, 1, FRAGMENT_BYTES_MAX, FRAGMENT_BYTES_MAX + 1])
def test_large_units_go_in_fragments_that_are_views(rest: int) -> None:
    source = ListSource()
    unit = make_unit(0, FRAGMENT_BYTES_MAX + rest)
    source.append(unit)
    sender, flow = make_flow(source)
    chunks: list[Chunk] = []
    while source.lag_units or flow.unfinished:
        chunks += fill(sender, flow)
    assert len(chunks) == 2 * (1 + -(-rest // FRAGMENT_BYTES_MAX))
    assert b"".join(chunks[1::2]) == unit.payload
    for header, piece in zip(chunks[2::2], chunks[3::2], strict=True):
        assert FRAGMENT_HEADER.unpack(header) == (len(piece) + 4, KIND_FRAGMENT, 3)
        assert isinstance(piece, memoryview)
        assert piece.obj is unit.payload
    assert sender.unfinished == 0
    assert flow.sent == sum(map(len, chunks))


def test_an_idle_flow_waits_and_a_blocked_one_keeps_what_it_read() -> None:
    source = ListSource()
    sender, flow = make_flow(source, limit=2 * (UNIT_HEADER_BYTES + 100) + 99)
    assert fill(sender, flow) == []
    assert flow.state is FlowState.IDLE
    source.append(*(make_unit(seq) for seq in range(3)))
    assert len(fill(sender, flow)) == 4
    assert (flow.state, flow.credit) == (FlowState.BLOCKED, 99)
    flow.limit += 60
    assert fill(sender, flow) == []
    flow.limit += 1
    assert len(fill(sender, flow)) == 2
    assert source.lag_units == 0


def test_a_unit_begins_only_when_credit_covers_all_of_it() -> None:
    source = ListSource()
    source.append(make_unit(0, 3 * FRAGMENT_BYTES_MAX))
    whole = UNIT_HEADER_BYTES + 3 * FRAGMENT_BYTES_MAX + 2 * 9
    sender, flow = make_flow(source, limit=whole - 1)
    assert fill(sender, flow) == []
    assert flow.state is FlowState.BLOCKED
    flow.limit = whole
    for _ in range(3):
        fill(sender, flow)
    assert flow.credit == 0
    assert not flow.unfinished


def test_the_sessions_credit_starves_units_and_fragments() -> None:
    source = ListSource()
    source.append(make_unit(0, 2 * FRAGMENT_BYTES_MAX))
    sender, flow = make_flow(source)
    assert fill(sender, flow, room=UNIT_HEADER_BYTES + FRAGMENT_BYTES_MAX - 1) == []
    assert flow.state is FlowState.STARVED
    fill(sender, flow, room=UNIT_HEADER_BYTES + FRAGMENT_BYTES_MAX)
    assert fill(sender, flow, room=FRAGMENT_BYTES_MAX + 8) == []
    assert flow.state is FlowState.STARVED
    fill(sender, flow, room=FRAGMENT_BYTES_MAX + 9)
    assert not flow.unfinished


def test_a_crowd_of_unfinished_units_admits_no_more() -> None:
    source = ListSource()
    source.append(make_unit(0, 2 * FRAGMENT_BYTES_MAX))
    sender, flow = make_flow(source)
    sender.unfinished = INTERLEAVE_MAX
    assert fill(sender, flow) == []
    assert flow.state is FlowState.CROWDED
    sender.unfinished -= 1
    assert fill(sender, flow)
    assert sender.unfinished == INTERLEAVE_MAX


def test_a_lagging_reader_skips_says_so_and_marks_the_gap() -> None:
    source = ListSource(bytes_max=60_000)
    sender, flow = make_flow(source)
    source.append(make_unit(0))
    fill(sender, flow)
    source.append(*(make_unit(seq, 1000) for seq in range(1, 200)))
    out = fill(sender, flow)
    skipped = sender.take_events()
    first = source.ring.first_seq
    assert skipped == [UnitsSkipped(3, first - 1)]
    assert flow.skipped == first - 1
    assert UNIT_HEADER.unpack(out[0])[2] & 2
    assert UNIT_HEADER.unpack(out[0])[7] == first
    following = fill(sender, flow)
    assert UNIT_HEADER.unpack(following[0])[2] & 2 == 0


def test_discontinuity_and_capture_time_are_carried() -> None:
    source = ListSource()
    source.append(make_unit(0, discontinuity=True, capture_us=-5), make_unit(1, capture_us=0))
    sender, flow = make_flow(source)
    out = fill(sender, flow) + fill(sender, flow)
    first, second = UNIT_HEADER.unpack(out[0]), UNIT_HEADER.unpack(out[2])
    assert (first[2], first[11]) == (1 | 2 | 4, -5)
    assert (second[2], second[11]) == (4, 0)


def test_a_configuration_is_announced_before_the_first_unit_that_needs_it() -> None:
    pair = Pair()
    tracks = [make_track(), make_track(config_id=1), make_track(2)]
    source = ListSource(tracks=tracks)
    source.append(
        make_unit(0), make_unit(1, config_id=1), make_unit(2, track_id=2), make_unit(3, config_id=1)
    )
    stream_no = pair.open_stream(source)
    pair.settle()
    assert [unit.seq for unit in pair.units(stream_no)] == [0, 1, 2, 3]
    names = [type(getattr(event, "message", event)).__name__ for event in pair.at_origin]
    assert names == [
        *("PeerAccepted", "StreamOpened", "UnitsReceived", "TrackChanged", "UnitsReceived"),
        *("TrackChanged", "UnitsReceived"),
    ]


def test_units_that_nobody_could_take_are_left_out() -> None:
    source = ListSource()
    source.append(make_unit(0), make_unit(1, config_id=9), make_unit(2))
    source.append(make_unit(3, payload=bytes(ITEM_BYTES_MAX + 1)), make_unit(4))
    sender, flow = make_flow(source)
    out: list[Chunk] = []
    for _ in range(10):
        out += fill(sender, flow)
    headers = [UNIT_HEADER.unpack(chunk) for chunk in out[::2]]
    assert [(header[7], header[2] & 2) for header in headers] == [(0, 0), (2, 2), (4, 2)]
    assert sender.take_events() == [UnitsSkipped(3, 1), UnitsSkipped(3, 1)]


def test_a_configuration_too_large_for_a_message_takes_its_units_with_it() -> None:
    small = make_track(config_id=1)
    config = msgspec.structs.replace(small.config, record=bytes(MESSAGE_BYTES_MAX))
    source = ListSource(tracks=[msgspec.structs.replace(small, config=config)])
    source.append(make_unit(0), make_unit(1, config_id=1), make_unit(2))
    sender, flow = make_flow(source)
    out: list[Chunk] = []
    for _ in range(5):
        out += fill(sender, flow)
    assert [UNIT_HEADER.unpack(chunk)[7] for chunk in out[::2]] == [0, 2]


def test_the_largest_unit_fits() -> None:
    pair = Pair()
    source = ListSource()
    unit = make_unit(0, ITEM_BYTES_MAX)
    source.append(unit, make_unit(1, 0))
    stream_no = pair.open_stream(source)
    pair.settle()
    assert pair.units(stream_no) == [unit, make_unit(1, 0)]


def test_the_end_comes_after_the_last_unit() -> None:
    source = ListSource()
    source.append(make_unit(0))
    sender, flow = make_flow(source)
    source.end_reason = "bye"
    assert len(fill(sender, flow)) == 2
    assert b"stream_closed" in b"".join(fill(sender, flow))
    assert flow.state is FlowState.DONE
    assert flow.final == FlowEnded(flow.stream_no, "bye", ended=True)


# Packaged events.


def drain(sender: MediaSender, flow: EventFlow) -> Sequence[object]:
    """What a PoP gets of what a flow holds."""
    receiver = MediaReceiver(session_window=2**40, stream_window=2**40)
    receiver._open(flow.stream_no, packaged=True)
    out: list[Chunk] = []
    while flow.fill(sender, out, ROOM):
        pass
    assert flow.queued_bytes == 0
    pair_frames = memoryview(b"".join(out))
    while pair_frames:
        size = 5 + int.from_bytes(pair_frames[:4], "big")
        receiver.receive(pair_frames[:size])
        pair_frames = pair_frames[size:]
    events = receiver.take_events()
    return [event.event for event in events if isinstance(event, EventReceived)]


def make_event_flow() -> tuple[MediaSender, EventFlow]:
    sender = MediaSender()
    sender.set_windows(ROOM, ROOM)
    return sender, sender.open_events(sender.reserve())


def describe(name: str = "v0") -> list[EncodedEvent]:
    rendition = Rendition(
        name=name,
        kind=Kind.VIDEO,
        timescale=1000,
        codec_string="x",
        part_target_us=200_000,
        target_duration_s=4,
    )
    init = InitSegment(rendition=name, digest="0" * 16, data=b"init" * 10)
    return [encode_event(rendition), encode_event(init)]


def test_events_keep_their_order_and_their_bytes() -> None:
    sender, flow = make_event_flow()
    events = [make_part(1, index, 100_000 * index) for index in range(4)]
    for event in [*describe(), *map(encode_event, events)]:
        flow.push(sender, event)
    ended = SegmentEnded(rendition="v0", msn=1, parts=4, duration=4)
    flow.push(sender, encode_event(ended))
    assert drain(sender, flow) == [*(e.event for e in describe()), *events, ended]


@pytest.mark.parametrize(("size", "per_segment"), [(QUEUE_BYTES_MAX // 40, 10), (100, 200)])
def test_at_the_limit_everything_before_the_newest_segment_is_dropped(
    size: int, per_segment: int
) -> None:
    sender, flow = make_event_flow()
    for event in describe():
        flow.push(sender, event)
    parts = [
        encode_event(make_part(msn, index, size))
        for msn in range(1, 7)
        for index in range(per_segment)
    ]
    for part in parts:
        flow.push(sender, part)
        assert flow.queued_bytes <= QUEUE_BYTES_MAX
    got = drain(sender, flow)
    assert got[:2] == [event.event for event in describe()]
    msns = [event.msn for event in got[2:]]  # type: ignore[attr-defined]
    assert msns == sorted(msns)
    assert got[2].index == 0  # type: ignore[attr-defined]
    assert got[2].msn > 1  # type: ignore[attr-defined]
    assert got[-1] == parts[-1].event
    skipped = [event for event in sender.take_events() if isinstance(event, EventsSkipped)]
    assert sum(event.events for event in skipped) == len(parts) - len(got) + 2 == flow.skipped


def test_a_segment_that_is_too_large_by_itself_is_dropped_up_to_the_next() -> None:
    sender, flow = make_event_flow()
    for event in [*describe(), *describe("a0")]:
        flow.push(sender, event)
    size = QUEUE_BYTES_MAX // 4
    for index in range(6):
        flow.push(sender, encode_event(make_part(1, index, size)))
        flow.push(sender, encode_event(make_part(1, index, 10, "a0")))
    flow.push(sender, encode_event(SegmentEnded(rendition="v0", msn=1, parts=6, duration=1)))
    assert flow.queued_bytes < 2000
    whole = [make_part(2, 0), make_part(2, 1), make_part(2, 0, 10, "a0")]
    for part in whole:
        flow.push(sender, encode_event(part))
    flow.push(sender, encode_event(StreamEnded(reason="x")))
    described = [event.event for event in (*describe(), *describe("a0"))]
    assert sorted(map(repr, drain(sender, flow))) == sorted(
        map(repr, [*described, *whole, StreamEnded(reason="x")])
    )


def test_small_events_are_counted_too() -> None:
    sender, flow = make_event_flow()
    for _ in range(QUEUE_EVENTS_MAX + 1):
        flow.push(sender, encode_event(StreamEnded(reason="x")))
    assert len(drain(sender, flow)) == 1


def test_parts_dropped_behind_what_was_sent_break_the_rendition_until_the_next_segment() -> None:
    sender, flow = make_event_flow()
    flow.push(sender, encode_event(make_part(1, 0)))
    assert len(drain(sender, flow)) == 1
    size = QUEUE_BYTES_MAX // 4
    for index in range(1, 6):
        flow.push(sender, encode_event(make_part(1, index, size)))
    flow.push(sender, encode_event(make_part(1, 6)))
    flow.push(sender, encode_event(make_part(2, 1)))
    assert drain(sender, flow) == []
    flow.push(sender, encode_event(make_part(2, 0)))
    assert drain(sender, flow) == [make_part(2, 0)]


def test_an_event_flow_waits_for_credit_and_ends_after_its_queue() -> None:
    sender, flow = make_event_flow()
    part = encode_event(make_part(1, 0, 10))
    whole = 16 + len(part.meta) + 10
    flow.limit = whole - 1
    flow.push(sender, part)
    assert not flow.ending
    flow.end_after(sender, "over")
    assert flow.ending
    out: list[Chunk] = []
    assert sender.fill(out, ROOM) == 0
    sender.grant(flow.stream_no, whole)
    assert sender.fill(out, ROOM) == whole
    assert flow.state is FlowState.DONE
    assert out[2] is part.body
    assert b"over" in out[-1]


def replay_of(msns: int, parts: int, size: int, renditions: tuple[str, ...]) -> list[EncodedEvent]:
    """A window's replay: descriptions, then segments; each rendition's parts have that size."""
    events = [event for name in renditions for event in describe(name)]
    for msn in range(msns):
        for name in renditions:
            events += [encode_event(make_part(msn, index, size, name)) for index in range(parts)]
            ended = SegmentEnded(rendition=name, msn=msn, parts=parts, duration=1)
            events.append(encode_event(ended))
    return events


def msns_of(events: list[EncodedEvent], rendition: str) -> list[int]:
    return [
        encoded.event.msn
        for encoded in events
        if isinstance(encoded.event, SegmentEnded) and encoded.event.rendition == rendition
    ]


def test_a_replay_that_fits_is_whole() -> None:
    events = [*replay_of(8, 10, 1000, ("v0", "a0")), encode_event(StreamEnded(reason="x"))]
    assert choose_replay(events) == events
    assert choose_replay(describe()) == describe()
    assert choose_replay([]) == []


def test_a_replay_is_the_newest_segments_of_all_renditions_that_half_a_queue_holds() -> None:
    size = QUEUE_BYTES_MAX // 2 // 40
    events = [*replay_of(8, 5, size, ("v0", "a0")), encode_event(StreamEnded(reason="x"))]
    chosen = choose_replay(events)
    assert msns_of(chosen, "v0") == msns_of(chosen, "a0") == [5, 6, 7]  # A fourth has the headers.
    assert chosen[:4] == events[:4]
    assert chosen[-1] == events[-1]
    sender, flow = make_event_flow()
    for encoded in chosen:
        flow.push(sender, encoded)
    assert flow.skipped == 0
    assert flow.queued_bytes <= QUEUE_BYTES_MAX // 2


def test_a_replay_is_bounded_by_events_too_and_has_the_newest_segment_at_least() -> None:
    assert msns_of(choose_replay(replay_of(8, 99, 1, ("v0",))), "v0") == [3, 4, 5, 6, 7]
    large = replay_of(2, 3, QUEUE_BYTES_MAX // 4, ("v0",))
    assert msns_of(choose_replay(large), "v0") == [1]
