from edged.media.playlist import PartEntry, SegmentEntry
from edged.policy.window_segment import WindowSegment
from tests.policy.window_events import DIGEST, part


def test_parts_that_are_forgotten_are_listed_no_more() -> None:
    entry = SegmentEntry(
        msn=3,
        uri="v0-3.m4s",
        init_uri="v0.mp4",
        wallclock_us=0,
        parts=[PartEntry("v0-3.0.m4s", 400_000)],
        parts_text="#EXT-X-PART",
        parts_rendered=1,
    )
    segment = WindowSegment(entry=entry, init_digest=DIGEST, parts=[part(3, 0)], payload_bytes=100)
    segment.forget_parts()
    assert (segment.parts, entry.parts, entry.parts_text, entry.parts_rendered) == ([], [], "", 0)
    assert segment.payload_bytes == 100, "as long as it was"
