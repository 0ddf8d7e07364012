import contextlib
from collections.abc import Sequence
from typing import get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.errors import EdgedError, RemoteProtocolError
from edged.media.parts import (
    InitSegment,
    ListedSegment,
    PackagedEvent,
    Rendition,
    SegmentEnded,
    SegmentPiece,
    SegmentsListed,
    StreamEnded,
)
from edged.media.routing import PLAIN_TERMS, OriginReport, ReportedState, Terms
from edged.media.stream import PriorityClass
from edged.media.track import Kind, formats_of
from edged.wire.backbone import messages as m
from edged.wire.backbone.frames import (
    EVENT_HEADER_BYTES,
    FRAGMENT_HEADER_BYTES,
    FRAME_HEADER_BYTES,
    ITEM_BYTES_MAX,
    KIND_HELLO,
    KIND_MESSAGE,
    MESSAGE_BYTES_MAX,
    META_BYTES_MAX,
    make_frame,
)
from tests.wire.backbone.builders import GRANT, STREAM_ID, make_hello, make_part, make_track

RENDITION_ACK = m.RenditionAck("v0", 5, 2, 90_000, 1, "0123456789abcdef")
MESSAGES: Sequence[m.Message] = [
    m.SessionClosed("version", "too new"),
    m.StreamOpened(
        stream_no=1,
        stream_id=STREAM_ID,
        grant=GRANT,
        tracks=[make_track()],
        first_seq=3,
        packaged_seq=9,
        renditions=[RENDITION_ACK],
        splice=b"as packaged so far",
        takes_over=True,
        waiting=True,
        terms=Terms("preempt", True, "af41"),
    ),
    m.StreamAccepted(1, -1),
    m.StreamRefused(1, "fenced", "older", STREAM_ID),
    m.StreamClosed(1, "gone", ended=True),
    m.StreamWaiting(1, waiting=True),
    m.TrackChanged(1, make_track(config_id=1)),
    m.StreamDescribed(1, "title", "Music", ("live", "jazz")),
    m.DescriptionWanted("alice", "title", None, ()),
    m.UnitsAcked(
        [m.StreamAck(1, 1, 100, 90, [RENDITION_ACK]), m.StreamAck(2, 3, -1, -1, [], b"state")]
    ),
    m.KeyFrameWanted(1, 1),
    m.SubscribeParts(1, "alice", cold=True),
    m.SubscribeUnits(2, "alice"),
    m.RungsWanted(1, ("v0", "v1")),
    m.RungsWanted(1, None),
    m.Unsubscribe(1),
    m.SubscriptionAccepted(1),
    m.SubscriptionRefused(1, "not_live", "nobody"),
    m.EventsOpened(4, 1, STREAM_ID),
    m.SegmentWanted(3, STREAM_ID, "v0", 77),
    m.SegmentOpened(5, 3, 1_000_000),
    m.SegmentRefused(3, "gone", "it is not held here"),
    m.Heartbeat(OriginReport("ams", 5, ReportedState.UP, 10, (1, 2, 3), 4.5)),
    m.DirectoryDelta(
        origin="ams",
        incarnation=5,
        version=2,
        from_version=0,
        changed=[
            m.DirectoryEntry(
                stream_id=STREAM_ID,
                title="t",
                tags=("x",),
                category="c",
                labels=("y",),
                formats=formats_of([make_track()]),
                waiting=True,
            )
        ],
        removed=["bob"],
    ),
    m.DirectoryWanted(3),
    m.ProbesOffered(7410, 2**63 - 1, b"k" * 32),
]
EVENTS: Sequence[PackagedEvent] = [
    Rendition(
        name="v0",
        kind=Kind.VIDEO,
        timescale=90_000,
        codec_string="avc1.64001f",
        part_target_us=200_000,
        target_duration_s=4,
    ),
    InitSegment(rendition="v0", digest="0" * 16, data=b"ftyp"),
    make_part(3, 1, 1000),
    SegmentEnded(rendition="v0", msn=3, parts=10, duration=180_000),
    SegmentsListed(rendition="v0", oldest_msn=7),
    SegmentsListed(
        rendition="v0",
        oldest_msn=7,
        init_digest="0" * 16,
        segments=(
            ListedSegment(7, 180_000, 1_700_000_000_000_000, 1_000_000),
            ListedSegment(8, 180_000, 1_700_000_002_000_000, 0, True, 1, True),
        ),
    ),
    StreamEnded(reason="bye"),
]


def test_every_message_is_tried() -> None:
    assert {type(message) for message in MESSAGES} == set(get_args(m.Message))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_messages_make_the_way_there_and_back(message: m.Message) -> None:
    frame = m.make_message_frame(message)
    assert m.parse_message(memoryview(frame)) == message


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_elements_that_a_newer_peer_adds_are_ignored(message: m.Message) -> None:
    array = msgspec.msgpack.decode(m.make_message_frame(message)[FRAME_HEADER_BYTES:])
    frame = make_frame(KIND_MESSAGE, msgspec.msgpack.encode([*array, "new"]))
    assert m.parse_message(memoryview(frame)) == message


def test_peers_of_before_and_of_now_offer_each_other_streams() -> None:
    """The older one ignores the element that it does not know, and asks for nothing itself."""
    opened = m.StreamOpened(
        stream_no=1,
        stream_id=STREAM_ID,
        grant=GRANT,
        tracks=[],
        first_seq=3,
        terms=Terms("preempt"),
    )
    elements = msgspec.msgpack.decode(msgspec.msgpack.encode(opened))
    assert elements[-1] == ["preempt", False, ""]
    frame = make_frame(KIND_MESSAGE, msgspec.msgpack.encode(elements[:-1]))
    assert m.parse_message(memoryview(frame)) == msgspec.structs.replace(opened, terms=PLAIN_TERMS)
    elements[-1] += ["of the future"]
    frame = make_frame(KIND_MESSAGE, msgspec.msgpack.encode([*elements, "more of it"]))
    assert m.parse_message(memoryview(frame)) == opened


def test_a_refusal_of_an_older_peer_does_not_say_by_what_it_is_fenced() -> None:
    frame = make_frame(
        KIND_MESSAGE, msgspec.msgpack.encode(["stream_refused", 1, "fenced", "older"])
    )
    assert m.parse_message(memoryview(frame)) == m.StreamRefused(1, "fenced", "older", None)


def test_the_form_is_an_array_that_begins_with_the_name() -> None:
    frame = m.make_message_frame(m.StreamAccepted(1, -1))
    assert frame == b"\x00\x00\x00\x13\x02\x93\xafstream_accepted\x01\xff"


def test_hello_makes_the_way_there_and_back() -> None:
    hello = make_hello(instance=2**63 - 1, priority=PriorityClass.PARTNER, shard=3)
    assert m.parse_hello(memoryview(m.make_hello_frame(hello))) == hello


@given(st.binary(min_size=1, max_size=100))
@settings(max_examples=100)
def test_garbage_raises_only_a_protocol_error(garbage: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        m.parse_hello(memoryview(make_frame(KIND_HELLO, garbage)))
    with contextlib.suppress(RemoteProtocolError):
        m.parse_message(memoryview(make_frame(KIND_MESSAGE, garbage)))
    for code in range(9):
        with contextlib.suppress(RemoteProtocolError):
            m.parse_event_meta(code, memoryview(garbage))
    with contextlib.suppress(RemoteProtocolError):
        m.with_body(SegmentsListed(rendition="v0", oldest_msn=0), garbage)


@pytest.mark.parametrize(
    "array",
    [
        ["unknown", 1],
        ["stream_accepted"],
        ["stream_accepted", "1", 2],
        {"type": "stream_accepted"},
        ["heartbeat", ["Not A Name", 1, "up", 1, [1, 2, 3], 0.0]],
    ],
)
def test_wrong_messages_are_protocol_errors(array: object) -> None:
    frame = make_frame(KIND_MESSAGE, msgspec.msgpack.encode(array))
    with pytest.raises(RemoteProtocolError, match="malformed message"):
        m.parse_message(memoryview(frame))


def test_a_message_at_the_limit_and_one_past_it() -> None:
    overhead = m.encoded_bytes(m.SessionClosed("", "")) + 4  # The longer form of a string.
    most = m.SessionClosed("", "x" * (MESSAGE_BYTES_MAX - overhead))
    assert len(m.make_message_frame(most)) == FRAME_HEADER_BYTES + MESSAGE_BYTES_MAX
    with pytest.raises(EdgedError, match="SessionClosed of 1048577 bytes, allowed are 1048576"):
        m.make_message_frame(m.SessionClosed("", most.reason + "x"))


def test_deep_nesting_is_a_protocol_error() -> None:
    frame = make_frame(KIND_MESSAGE, b"\x92\xaastream_ack" + b"\x91" * 100_000)
    with pytest.raises(RemoteProtocolError, match="malformed message"):
        m.parse_message(memoryview(frame))
    frame = make_frame(KIND_MESSAGE, b"\x93\xafstream_accepted\x01\x01" + b"\x91" * 100_000)
    with pytest.raises(RemoteProtocolError, match="malformed message"):
        m.parse_message(memoryview(frame))


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_packaged_events_travel_as_meta_and_body(event: PackagedEvent) -> None:
    encoded = m.encode_event(event)
    assert encoded.event is event
    parsed = m.parse_event_meta(encoded.code, memoryview(encoded.meta))
    assert m.with_body(parsed, encoded.body) == event
    assert len(encoded.meta) < 400


def test_a_parts_bytes_are_not_copied() -> None:
    part = make_part(1, 0, 5000)
    assert m.encode_event(part).body is part.payload


def test_a_piece_of_a_segment_is_its_body_alone() -> None:
    parsed = m.parse_event_meta(m.CODE_PIECE, memoryview(m.PIECE_META))
    assert m.with_body(parsed, b"abc") == SegmentPiece(b"abc")


def test_many_segments_are_listed_in_little() -> None:
    segments = tuple(
        ListedSegment(n, 180_000, 1_700_000_000_000_000 + 2_000_000 * n, 1_500_000)
        for n in range(4096)
    )
    encoded = m.encode_event(SegmentsListed(rendition="v0", oldest_msn=0, segments=segments))
    assert len(encoded.body) / len(segments) < 40
    assert len(encoded.meta) < META_BYTES_MAX


def test_an_older_origin_does_not_hear_that_a_subscriber_is_cold() -> None:
    """It ignores the element that it does not know; one of an older PoP is not there."""
    frame = make_frame(KIND_MESSAGE, msgspec.msgpack.encode(["subscribe_parts", 1, "alice"]))
    assert m.parse_message(memoryview(frame)) == m.SubscribeParts(1, "alice", cold=False)


def test_a_list_that_is_none_is_a_protocol_error() -> None:
    with pytest.raises(RemoteProtocolError, match="malformed list of segments"):
        m.with_body(SegmentsListed(rendition="v0", oldest_msn=0), b"\xc1")


def test_a_body_where_none_belongs_and_unknown_codes() -> None:
    with pytest.raises(RemoteProtocolError, match="StreamEnded has a body of 3 bytes"):
        m.with_body(StreamEnded(reason="x"), b"abc")
    with pytest.raises(RemoteProtocolError, match="unknown code 9"):
        m.parse_event_meta(9, memoryview(b"\x80"))


def test_the_least_window_less_what_is_not_yet_granted_anew_holds_the_largest_item() -> None:
    largest = EVENT_HEADER_BYTES + META_BYTES_MAX + ITEM_BYTES_MAX + 128 * FRAGMENT_HEADER_BYTES
    assert largest <= m.WINDOW_BYTES_MIN - m.WINDOW_BYTES_MIN // m.GRANTS_PER_WINDOW
    assert m.WINDOW_BYTES_MIN <= m.STREAM_WINDOW_BYTES <= m.SESSION_WINDOW_BYTES


def test_default_windows_carry_30_mbps_at_200_ms() -> None:
    rate_bytes_s = 30e6 / 8
    in_flight = rate_bytes_s * 0.2
    assert ITEM_BYTES_MAX + in_flight < m.STREAM_WINDOW_BYTES * 3 / 4
    # 1 Gbps in one session at 200 ms.
    assert m.SESSION_WINDOW_BYTES * 3 / 4 > 1e9 / 8 * 0.2
