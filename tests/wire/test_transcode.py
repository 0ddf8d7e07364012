"""The transcoder's link: any split, garbage, and each limit."""

import contextlib

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.errors import RemoteProtocolError
from edged.media.access_unit import AccessUnit
from edged.media.ladder import LadderPlan
from edged.wire.backbone.frames import (
    FRAGMENT_BYTES_MAX,
    FRAGMENT_HEADER,
    ITEM_BYTES_MAX,
    KIND_FRAGMENT,
    KIND_PING,
    make_token_frame,
)
from edged.wire.transcode import (
    Event,
    InputEnded,
    Logged,
    Message,
    OutputEnded,
    Planned,
    Progressed,
    Ready,
    RungsWanted,
    TrackSet,
    TranscodeLink,
)
from tests.policy.synthetic import RATES, video_track

MESSAGES: list[Message] = [
    Planned(LadderPlan(video_track_id=1, notes=("why",))),
    TrackSet(video_track(RATES["30"])),
    RungsWanted(("720p", "160p")),
    InputEnded(),
    Ready(77),
    Progressed(5, 1000, 2),
    Logged("warning", "x"),
    OutputEnded(),
]

units = st.builds(
    AccessUnit,
    track_id=st.integers(0, 2**16 - 1),
    seq=st.integers(0, 2**64 - 1),
    config_id=st.integers(0, 2**32 - 1),
    pts=st.integers(-(2**63), 2**63 - 1),
    dts=st.integers(-(2**63), 2**63 - 1),
    wallclock_us=st.integers(-(2**63), 2**63 - 1),
    payload=st.binary(max_size=50) | st.just(bytes(FRAGMENT_BYTES_MAX + 1)),
    random_access=st.booleans(),
    discontinuity=st.booleans(),
    capture_us=st.none() | st.integers(1, 2**62),
)


def send(link: TranscodeLink, event: Event) -> None:
    if isinstance(event, AccessUnit):
        link.send_unit(event)
    else:
        link.send_message(event)


@hypothesis.settings(max_examples=30)
@hypothesis.given(st.lists(units | st.sampled_from(MESSAGES), max_size=4), st.data())
def test_any_split_gives_the_same(sent: list[Event], data: st.DataObject) -> None:
    sender, receiver = TranscodeLink(), TranscodeLink()
    for event in sent:
        send(sender, event)
    wire = sender.data_to_send()
    assert sender.data_to_send() == b""
    received: list[Event] = []
    while wire:
        cut = data.draw(st.integers(1, len(wire)))
        received += receiver.receive_data(wire[:cut])
        wire = wire[cut:]
    assert received == sent


@hypothesis.given(st.binary(max_size=300))
def test_garbage_raises_only_a_protocol_error(garbage: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        TranscodeLink().receive_data(garbage)


@hypothesis.given(st.data())
def test_a_changed_byte_raises_only_a_protocol_error(data: st.DataObject) -> None:
    sender = TranscodeLink()
    for message in MESSAGES:
        sender.send_message(message)
    sender.send_unit(unit_of(100_000))
    wire = bytearray(sender.data_to_send())
    wire[data.draw(st.integers(0, 2_000))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(RemoteProtocolError):
        TranscodeLink().receive_data(wire)


def unit_of(size: int) -> AccessUnit:
    return AccessUnit(
        track_id=1, seq=1, config_id=0, pts=0, dts=0, wallclock_us=0, payload=bytes(size)
    )


def test_the_largest_unit_and_one_byte_more() -> None:
    sender, receiver = TranscodeLink(), TranscodeLink()
    sender.send_unit(unit_of(ITEM_BYTES_MAX))
    (received,) = receiver.receive_data(sender.data_to_send())
    assert isinstance(received, AccessUnit)
    assert len(received.payload) == ITEM_BYTES_MAX
    with pytest.raises(AssertionError):
        sender.send_unit(unit_of(ITEM_BYTES_MAX + 1))
    wire = bytearray(make_wire(10))
    wire[16:20] = (ITEM_BYTES_MAX + 1).to_bytes(4, "big")
    with pytest.raises(RemoteProtocolError, match="8388609"):
        TranscodeLink().receive_data(wire)


def make_wire(size: int) -> bytes:
    sender = TranscodeLink()
    sender.send_unit(unit_of(size))
    return sender.data_to_send()


def test_what_does_not_belong_there() -> None:
    fragment = FRAGMENT_HEADER.pack(5, KIND_FRAGMENT, 1) + b"x"
    with pytest.raises(RemoteProtocolError, match="belongs to no unit"):
        TranscodeLink().receive_data(fragment)
    link = TranscodeLink()
    begun = make_wire(FRAGMENT_BYTES_MAX + 1)[: 60 + FRAGMENT_BYTES_MAX]
    assert link.receive_data(begun) == []
    with pytest.raises(RemoteProtocolError, match="inside of unit 1"):
        link.receive_data(make_wire(1))
    with pytest.raises(RemoteProtocolError, match="on a transcoder's link"):
        TranscodeLink().receive_data(make_token_frame(KIND_PING, 1))
