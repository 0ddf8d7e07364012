import msgspec
import pytest

from edged.media.parts import (
    InitSegment,
    PackagedEvent,
    Part,
    Rendition,
    SegmentEnded,
    StreamEnded,
)
from edged.media.track import Kind

EVENTS: list[PackagedEvent] = [
    Rendition(
        name="v0",
        kind=Kind.VIDEO,
        timescale=90_000,
        codec_string="avc1.64001f",
        part_target_us=200_000,
        target_duration_s=4,
    ),
    InitSegment(rendition="v0", digest="0123456789abcdef", data=b"ftypmoov"),
    Part(
        rendition="v0",
        msn=3,
        index=0,
        tfdt=2**40,
        duration=18_000,
        wallclock_us=1_700_000_000_000_000,
        init_digest="0123456789abcdef",
        payload=b"moofmdat",
    ),
    SegmentEnded(rendition="v0", msn=3, parts=10, duration=180_000),
    StreamEnded(reason="unpublished"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_what_is_pushed_is_plain_data(event: PackagedEvent) -> None:
    kind = type(event)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(event), type=kind) == event


def test_a_part_takes_no_position_of_its_fields_for_granted() -> None:
    with pytest.raises(TypeError):
        Part("v0", 3, 0)  # type: ignore[call-arg]
