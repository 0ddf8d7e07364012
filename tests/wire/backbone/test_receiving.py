import contextlib
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.errors import RemoteProtocolError
from edged.media.access_unit import AccessUnit
from edged.media.parts import StreamEnded
from edged.wire.backbone.events import EventReceived, UnitsReceived
from edged.wire.backbone.frames import (
    EVENT_HEADER,
    FRAGMENT_BYTES_MAX,
    FRAGMENT_HEADER,
    INTERLEAVE_MAX,
    ITEM_BYTES_MAX,
    KIND_EVENT,
    KIND_FRAGMENT,
    KIND_UNIT,
    META_BYTES_MAX,
    UNIT_HEADER,
    parse_credit,
)
from edged.wire.backbone.messages import (
    EventsOpened,
    StreamClosed,
    StreamOpened,
    TrackChanged,
    encode_event,
)
from edged.wire.backbone.receiving import STREAMS_MAX, TRACKS_MAX, MediaReceiver
from tests.wire.backbone.builders import (
    GRANT,
    STREAM_ID,
    ListSource,
    Pair,
    make_part,
    make_track,
    make_unit,
)

WINDOW = 2**24


def opened(stream_no: int, track_count: int = 1) -> StreamOpened:
    return StreamOpened(
        stream_no=stream_no,
        stream_id=STREAM_ID,
        grant=GRANT,
        tracks=[make_track(track_id) for track_id in range(1, track_count + 1)],
        first_seq=0,
    )


def make_receiver(
    *, session_window: int = WINDOW, stream_window: int = WINDOW, streams: int = 1
) -> MediaReceiver:
    receiver = MediaReceiver(session_window=session_window, stream_window=stream_window)
    for stream_no in range(1, streams + 1):
        receiver.note(opened(stream_no))
    return receiver


def unit_frame(
    seq: int, payload: bytes, *, stream_no: int = 1, whole: int | None = None, flags: int = 0
) -> memoryview:
    header = UNIT_HEADER.pack(
        *(55 + len(payload), KIND_UNIT, flags, 1, stream_no, 0),
        *(len(payload) if whole is None else whole, seq, 0, 0, 0, 7),
    )
    return memoryview(header + payload)


def fragment(payload: bytes, stream_no: int = 1) -> memoryview:
    header = FRAGMENT_HEADER.pack(4 + len(payload), KIND_FRAGMENT, stream_no)
    return memoryview(header + payload)


def event_frame(code: int, meta: bytes, body: bytes = b"", *, whole: int = -1) -> memoryview:
    header = EVENT_HEADER.pack(
        *(11 + len(meta) + len(body), KIND_EVENT, code, len(meta), 1),
        len(body) if whole < 0 else whole,
    )
    return memoryview(header + meta + body)


def units(receiver: MediaReceiver) -> list[AccessUnit]:
    events = receiver.take_events()
    return [unit for e in events if isinstance(e, UnitsReceived) for unit in e.units]


@given(st.lists(st.binary(min_size=9, max_size=80), max_size=5))
@settings(max_examples=80)
def test_garbage_raises_only_a_protocol_error(bodies: list[bytes]) -> None:
    for kind, least in ((KIND_UNIT, 60), (KIND_EVENT, 17), (KIND_FRAGMENT, 10)):
        receiver = make_receiver(streams=2)
        receiver.note(EventsOpened(3, 1, STREAM_ID))
        for body in bodies:
            for stream_no in range(4):
                frame = bytearray(body.ljust(least, b"\0"))
                frame[4] = kind
                frame[8 if kind != KIND_FRAGMENT else 5 :][:4] = stream_no.to_bytes(4, "big")
                with contextlib.suppress(RemoteProtocolError):
                    receiver.receive(memoryview(frame))
        receiver.take_events()


def test_a_unit_has_what_its_header_says() -> None:
    receiver = make_receiver()
    receiver.receive(unit_frame(3, b"abc", flags=1 | 2 | 4))
    receiver.receive(unit_frame(4, b""))
    first, second = units(receiver)
    assert (first.payload, first.random_access, first.discontinuity) == (b"abc", True, True)
    assert (first.capture_us, second.capture_us) == (7, None)
    assert (second.payload, second.random_access, second.discontinuity) == (b"", False, False)
    assert receiver.statistics().units_received == 2


def test_fragments_of_any_size_make_the_unit() -> None:
    receiver = make_receiver(streams=2)
    receiver.receive(unit_frame(0, b"a", whole=10))
    receiver.receive(unit_frame(0, b"x", stream_no=2, whole=2))
    assert receiver.statistics().partial_bytes == 2
    receiver.receive(fragment(b"bcdefghi"))
    assert not receiver.has_events
    receiver.receive(fragment(b"y", 2))
    receiver.receive(fragment(b"j"))
    assert [unit.payload for unit in units(receiver)] == [b"xy", b"abcdefghij"]
    assert receiver.statistics().partial_bytes == 0


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([unit_frame(0, b"", stream_no=0)], "stream 0, never opened"),
        ([unit_frame(0, b"", stream_no=2)], "stream 2, never opened"),
        ([fragment(b"a")], "a fragment of nothing"),
        ([unit_frame(0, b"a", whole=3), unit_frame(1, b"")], "inside of another item"),
        ([unit_frame(0, b"a", whole=3), fragment(b"abc")], "exceed the item's 3 bytes"),
        ([unit_frame(1, b""), unit_frame(1, b"")], "unit 1 after unit 1"),
        ([unit_frame(1, b""), unit_frame(0, b"")], "unit 0 after unit 1"),
        ([unit_frame(0, b"", whole=5)], "first fragment of 0 bytes of 5"),
        ([unit_frame(0, b"abc", whole=2)], "first fragment of 3 bytes of 2"),
        ([unit_frame(0, b"a", whole=ITEM_BYTES_MAX + 1)], "allowed are 8388608"),
        ([event_frame(5, b"\x80")], "an event inside of another item"),
    ],
)
def test_what_breaks_the_rules_is_a_protocol_error(frames: list[memoryview], message: str) -> None:
    receiver = make_receiver()
    for frame in frames[:-1]:
        receiver.receive(frame)
    with pytest.raises(RemoteProtocolError, match=message):
        receiver.receive(frames[-1])


def test_a_configuration_must_be_announced() -> None:
    receiver = make_receiver()
    receiver.note(TrackChanged(1, make_track(config_id=1)))
    with pytest.raises(RemoteProtocolError, match="config 0 of track 1, which was not announced"):
        receiver.receive(unit_frame(0, b""))


def test_the_largest_item_and_the_most_unfinished_ones() -> None:
    receiver = make_receiver(session_window=2**40, streams=INTERLEAVE_MAX + 1)
    piece = bytes(FRAGMENT_BYTES_MAX)
    receiver.receive(unit_frame(0, piece, whole=ITEM_BYTES_MAX))
    for _ in range(ITEM_BYTES_MAX // FRAGMENT_BYTES_MAX - 1):
        receiver.receive(fragment(piece))
    assert len(units(receiver)[0].payload) == ITEM_BYTES_MAX
    for stream_no in range(1, INTERLEAVE_MAX + 1):
        receiver.receive(unit_frame(1, b"a", stream_no=stream_no, whole=2))
    with pytest.raises(RemoteProtocolError, match="more than 64 unfinished items"):
        receiver.receive(unit_frame(1, b"a", stream_no=INTERLEAVE_MAX + 1, whole=2))


def test_stream_numbers_only_rise_and_streams_are_counted() -> None:
    receiver = make_receiver(streams=3)
    for stream_no in (0, 3, 2**32):
        with pytest.raises(RemoteProtocolError, match="numbers only rise"):
            receiver.note(opened(stream_no))
    for stream_no in range(4, STREAMS_MAX + 1):
        receiver.note(EventsOpened(stream_no, 1, STREAM_ID))
    assert receiver.statistics().streams == STREAMS_MAX
    with pytest.raises(RemoteProtocolError, match="more than 10000 streams"):
        receiver.note(opened(STREAMS_MAX + 1))
    receiver.note(StreamClosed(5, "x", ended=True))
    receiver.note(opened(STREAMS_MAX + 1))


def test_tracks_are_counted_and_bounded() -> None:
    receiver = MediaReceiver(session_window=WINDOW, stream_window=WINDOW)
    receiver.note(opened(1, TRACKS_MAX))
    with pytest.raises(RemoteProtocolError, match="more than 64 tracks"):
        receiver.note(TrackChanged(1, make_track(TRACKS_MAX + 1)))
    for track in (make_track(2**16), make_track(-1), make_track(1, 2**32), make_track(1, -1)):
        with pytest.raises(RemoteProtocolError, match="16 and 32 bits"):
            receiver.note(TrackChanged(1, track))


def test_a_timescale_must_be_one() -> None:
    receiver = make_receiver()
    track = make_track()
    for timescale in (0, -1, 2**32):
        bad = type(track)(track_id=1, codec=track.codec, timescale=timescale, config=track.config)
        with pytest.raises(RemoteProtocolError, match="timescale"):
            receiver.note(TrackChanged(1, bad))


def test_messages_about_other_streams() -> None:
    receiver = make_receiver()
    receiver.note(StreamClosed(1, "x", ended=False))
    receiver.note(StreamClosed(1, "again", ended=False))
    receiver.note(TrackChanged(1, make_track()))
    for message in (StreamClosed(2, "x", ended=True), TrackChanged(0, make_track())):
        with pytest.raises(RemoteProtocolError, match="never opened"):
            receiver.note(message)
    with pytest.raises(RemoteProtocolError, match="stream 1, after it was closed"):
        receiver.receive(unit_frame(0, b""))


def test_refused_streams_are_dropped_without_harm() -> None:
    receiver = make_receiver(streams=2)
    receiver.receive(unit_frame(0, b"kept back"))
    receiver.receive(unit_frame(1, b"a", whole=100))
    receiver.refuse(1)
    receiver.refuse(77)
    receiver.receive(fragment(b"b"))
    receiver.receive(unit_frame(5, b""))
    receiver.receive(unit_frame(0, b"fine", stream_no=2))
    assert [unit.payload for unit in units(receiver)] == [b"fine"]
    receiver.note(StreamClosed(1, "x", ended=False))
    assert receiver.statistics().streams == 1


# Credit.


def grants(receiver: MediaReceiver) -> dict[int, int]:
    data = receiver.credit_to_send()
    return dict(parse_credit(memoryview(data))) if data else {}


def test_credit_is_renewed_by_quarters() -> None:
    receiver = make_receiver(session_window=100_000, stream_window=4000, streams=2)
    receiver.receive(unit_frame(0, bytes(939)))
    assert grants(receiver) == {}
    receiver.receive(unit_frame(1, b"x"))
    assert grants(receiver) == {1: 999 + 61 + 4000}
    assert grants(receiver) == {}
    for seq in range(2, 30):
        receiver.receive(unit_frame(seq, bytes(940)))
    assert grants(receiver)[0] > 100_000


def test_credit_at_the_limit_and_one_past_it() -> None:
    for size, fits in ((940, True), (941, False)):
        receiver = make_receiver(stream_window=1000)
        with (
            contextlib.nullcontext()
            if fits
            else pytest.raises(RemoteProtocolError, match="stream 1: credit of 1000 bytes exceeded")
        ):
            receiver.receive(unit_frame(0, bytes(size)))
        receiver = make_receiver(session_window=1000)
        with (
            contextlib.nullcontext()
            if fits
            else pytest.raises(RemoteProtocolError, match="session credit of 1000 bytes exceeded")
        ):
            receiver.receive(unit_frame(0, bytes(size)))


def test_a_refused_stream_gets_no_credit_and_the_others_do() -> None:
    receiver = make_receiver(stream_window=4000, streams=2)
    receiver.receive(unit_frame(0, bytes(2000)))
    receiver.refuse(1)
    receiver.receive(unit_frame(1, bytes(500)))
    receiver.receive(unit_frame(0, bytes(2000), stream_no=2))
    assert list(grants(receiver)) == [2]


@pytest.mark.pure
def test_a_stalled_stream_blocks_no_other_end_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair()
    sources = [ListSource(bytes_max=2**22) for _ in range(3)]
    numbers = [pair.open_stream(source) for source in sources]
    pair.settle()
    grant, held_back = pair.pop.sender.grant, [0]

    def stall(stream_no: int, limit: int) -> None:
        if stream_no == numbers[0]:
            held_back.append(limit)
        else:
            grant(stream_no, limit)

    monkeypatch.setattr(pair.pop.sender, "grant", stall)
    flows = [pair.pop.sender._flows[number] for number in numbers]
    for seq in range(400):
        for source, flow in zip(sources, flows, strict=True):
            source.append(make_unit(seq, 60_000))
            pair.pop.sender.wake(flow)
        pair.settle()
    assert len(pair.units(numbers[0])) < 300
    assert len(pair.units(numbers[1])) == len(pair.units(numbers[2])) == 400
    monkeypatch.undo()
    pair.pop.sender.grant(numbers[0], held_back[-1])
    pair.settle()
    got = [unit.seq for unit in pair.units(numbers[0])]
    assert got == sorted(set(got))
    assert got[-1] == 399
    skipped = flows[0].skipped
    assert len(got) + skipped == 400
    assert skipped > 0
    resumed = pair.units(numbers[0])[
        [b - a for a, b in itertools.pairwise(got)].index(skipped + 1) + 1
    ]
    assert resumed.discontinuity
    assert resumed.random_access


# Packaged events.


def test_events_come_with_their_bytes() -> None:
    receiver = MediaReceiver(session_window=WINDOW, stream_window=WINDOW)
    receiver.note(EventsOpened(1, 1, STREAM_ID))
    part = make_part(1, 0, 10)
    encoded = encode_event(part)
    receiver.receive(event_frame(3, encoded.meta, part.payload[:4], whole=10))
    receiver.receive(fragment(part.payload[4:]))
    receiver.receive(event_frame(5, encode_event(StreamEnded(reason="x")).meta))
    assert receiver.take_events() == [
        EventReceived(1, part),
        EventReceived(1, StreamEnded(reason="x")),
    ]
    assert receiver.statistics().events_received == 2


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (unit_frame(0, b""), "a unit inside of another item"),
        (event_frame(9, b"\x80"), "unknown code 9"),
        (event_frame(5, b"\x80"), "malformed packaged event"),
        (event_frame(5, b"", b"x"), "0 bytes of meta"),
        (event_frame(5, bytes(META_BYTES_MAX + 1)), "4097 bytes of meta"),
        (event_frame(5, encode_event(StreamEnded(reason="")).meta, b"x"), "has a body of 1"),
    ],
)
def test_wrong_events_are_protocol_errors(frame: memoryview, message: str) -> None:
    receiver = MediaReceiver(session_window=WINDOW, stream_window=WINDOW)
    receiver.note(EventsOpened(1, 1, STREAM_ID))
    with pytest.raises(RemoteProtocolError, match=message):
        receiver.receive(frame)
