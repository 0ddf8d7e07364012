import msgspec
import pytest

from edged.errors import RemoteProtocolError
from edged.policy.rendition_window import MISSING_MAX, RenditionWindow
from tests.policy.window_events import (
    DIGEST,
    OTHER_DIGEST,
    ended,
    feed,
    init,
    make_window,
    part,
    rendition,
    whole,
)


def shape(window: RenditionWindow) -> list[tuple[int, int, bool, bool]]:
    """MSN, parts, complete, gap of each listed segment."""
    return [(s.entry.msn, len(s.parts), s.entry.complete, s.entry.gap) for s in window.listed]


def test_a_segment_grows_and_ends() -> None:
    stream = make_window()
    window = stream.renditions["v0"]
    assert (window.last_msn, window.last_part, window.has_whole_segment) == (-1, -1, False)
    assert window.bandwidth_bps == 0
    feed(stream, part(3, 0), part(3, 1))
    assert (window.last_msn, window.last_part, window.has_whole_segment) == (3, 1, False)
    assert window.bandwidth_bps == 200 * 8 * 1000 // 800
    assert window.listed[0].entry.duration_us == 800_000
    feed(stream, part(3, 2), ended(3, parts=3, duration=1234))
    assert shape(window) == [(3, 3, True, False)]
    assert window.listed[0].entry.duration_us == 1_234_000
    assert (window.last_msn, window.last_part, window.has_whole_segment) == (3, 2, True)
    assert window.bandwidth_bps == 300 * 8 * 1000 // 1234


def test_whole_segments_are_those_listed_and_complete() -> None:
    stream = make_window()
    window = stream.renditions["v0"]
    assert (window.whole_segments, window.has_whole_segment) == (0, False)
    feed(stream, part(3, 0))
    assert (window.whole_segments, window.has_whole_segment) == (0, False)
    feed(stream, ended(3, parts=1))
    assert (window.whole_segments, window.has_whole_segment) == (1, True)
    feed(stream, part(4, 0))
    assert (window.whole_segments, window.has_whole_segment) == (1, True), "the second grows"
    feed(stream, part(6, 0))
    assert window.whole_segments == 3, "the second lost its end, the third is a gap"
    window.end()
    assert window.whole_segments == 4
    window.unlist()
    assert window.whole_segments == 3


def test_each_change_raises_the_version() -> None:
    stream = make_window()
    window = stream.renditions["v0"]
    seen = [window.version]
    for event in whole(0):
        stream.add(event)
        seen.append(window.version)
    assert seen == sorted(set(seen))
    assert not any(stream.add(event) for event in whole(0))
    assert window.version == seen[-1]


def test_item_23_the_hint_is_the_forecast_until_the_segment_ends() -> None:
    stream = make_window(part(0, 0))
    window = stream.renditions["v0"]
    assert window.hint_name == "v0-0.1.m4s"
    feed(stream, part(0, 1, next_msn=1, next_index=0))
    assert window.hint_name == "v0-1.0.m4s"
    feed(stream, part(0, 2, next_msn=9, next_index=4))
    assert window.hint_name == "v0-0.3.m4s", "an absurd forecast is not believed"
    feed(stream, part(0, 3, ends_segment=True))
    assert window.hint_name == "v0-1.0.m4s"
    feed(stream, ended(0, parts=4))
    assert window.hint_name == "v0-1.0.m4s"


def test_replays_are_refused() -> None:
    stream = make_window(whole(0), part(1, 0))
    window = stream.renditions["v0"]
    for event in (part(0, 2), part(0, 9), part(1, 0), ended(0)):
        assert not stream.add(event)
    assert stream.parts_refused == 3
    assert shape(window) == [(0, 5, True, False), (1, 1, False, False)]


def test_what_begins_within_a_segment_waits_for_the_next() -> None:
    stream = make_window(part(4, 2), part(4, 3), ended(4))
    window = stream.renditions["v0"]
    assert shape(window) == []
    assert stream.parts_refused == 2
    feed(stream, part(5, 0))
    assert shape(window) == [(5, 1, False, False)]


def test_item_21_lost_parts_make_a_gap() -> None:
    stream = make_window(whole(0), part(1, 0), part(1, 3), ended(1, parts=5))
    window = stream.renditions["v0"]
    assert shape(window) == [(0, 5, True, False), (1, 5, True, True)]
    assert [entry.gap for entry in window.listed[1].entry.parts] == [False, True, True, False, True]
    assert stream.parts_missing == 3
    assert stream.segment("v0", 1) is None
    assert stream.part("v0", 1, 1) is None
    assert stream.part("v0", 1, 3) == part(1, 3)
    assert window.bandwidth_bps == 2000, "of whole segments only"


def test_item_21_a_lost_end_makes_a_gap() -> None:
    stream = make_window(whole(0), part(1, 0), part(2, 0))
    window = stream.renditions["v0"]
    assert shape(window) == [(0, 5, True, False), (1, 2, True, True), (2, 1, False, False)]


def test_item_21_lost_segments_are_gaps_in_order() -> None:
    stream = make_window(whole(0), part(3, 0), ended(6))
    window = stream.renditions["v0"]
    assert [entry[0] for entry in shape(window)] == list(range(7))
    assert [entry[3] for entry in shape(window)] == [False, *[True] * 6]
    assert window.listed[1].entry.wallclock_us - window.listed[0].entry.wallclock_us == 2_000_000
    assert window.listed[1].entry.duration_us == 2_000_000


def test_absent_media_is_a_segment_without_parts() -> None:
    stream = make_window(whole(0), ended(1, parts=0), whole(2))
    window = stream.renditions["v0"]
    assert shape(window) == [(0, 5, True, False), (1, 0, True, True), (2, 5, True, False)]
    assert stream.segment("v0", 1) is None
    stream = make_window(ended(0, parts=0))
    assert shape(stream.renditions["v0"]) == [], "nothing to go on from"


@pytest.mark.parametrize("lost", [MISSING_MAX, MISSING_MAX + 1])
def test_more_lost_segments_than_the_limit_start_the_window_anew(lost: int) -> None:
    stream = make_window(whole(0), part(1 + lost, 0))
    window = stream.renditions["v0"]
    anew = lost > MISSING_MAX
    assert (0 in window.segments) == (not anew)
    assert len(window.segments) == (1 if anew else lost + 2)
    assert window.payload_bytes == (110 if anew else 610)
    stream = make_window(whole(0), ended(1 + lost, parts=0))
    assert bool(stream.renditions["v0"].listed) == (not anew)


def test_a_part_of_an_unknown_init_is_refused() -> None:
    stream = make_window(part(0, 0))
    unknown = part(1, 0, init_digest=OTHER_DIGEST)
    with pytest.raises(RemoteProtocolError, match=r"part v0-1\.0 names the unknown init 'ffff"):
        stream.add(unknown)
    feed(stream, init(digest=OTHER_DIGEST), unknown)
    entries = [segment.entry.init_uri for segment in stream.renditions["v0"].listed]
    assert entries == [f"v0-{DIGEST}.mp4", f"v0-{OTHER_DIGEST}.mp4"]


def test_the_end_completes_what_was_growing() -> None:
    window = RenditionWindow(rendition())
    window.inits[DIGEST] = init()
    window.end()
    assert window.hint_name is None
    window = RenditionWindow(rendition())
    window.inits[DIGEST] = init()
    window.add_part(part(0, 0))
    window.end()
    assert shape(window) == [(0, 1, True, False)]
    assert window.listed[0].ended == ended(0, parts=1, duration=400)


def test_discontinuities_that_leave_stay_counted() -> None:
    stream = make_window(whole(0), whole(1, discontinuity=True), whole(2))
    window = stream.renditions["v0"]
    assert [s.entry.discontinuity for s in window.listed] == [False, True, False]
    window.unlist()
    assert window.discontinuity_sequence == 0
    window.unlist()
    assert window.discontinuity_sequence == 1


def test_eviction_of_listed_and_of_kept_segments() -> None:
    stream = make_window(whole(0), whole(1), whole(2))
    window = stream.renditions["v0"]
    window.unlist()
    assert (window.listed_us, window.kept_us) == (4_000_000, 2_000_000)
    window.evict()
    assert (window.listed_us, window.kept_us, list(window.segments)) == (4_000_000, 0, [1, 2])
    version = window.version
    window.evict()
    assert (window.listed_us, window.kept_us, list(window.segments)) == (2_000_000, 0, [2])
    assert window.version == version + 1
    assert window.payload_bytes == 510


def test_parts_from() -> None:
    stream = make_window(*[whole(msn) for msn in range(12)])
    window = stream.renditions["v0"]
    # Segment 5 ends 12 s before the end, segment 4 before that.
    assert window.parts_from == 5
    assert make_window().renditions["v0"].parts_from == 0


def test_a_segment_of_no_length_has_no_bit_rate() -> None:
    stream = make_window(whole(0, duration=1), whole(1))
    assert stream.renditions["v0"].bandwidth_bps == 2000
    stream = make_window(part(0, 0), msgspec.structs.replace(ended(0, parts=1), duration=-5))
    assert stream.renditions["v0"].listed[0].entry.duration_us == 400_000


@pytest.mark.parametrize(("flagged", "expected"), [(False, 4), (True, 3)])
def test_a_late_window_counts_the_discontinuities_it_did_not_see(
    flagged: bool,
    expected: int,
) -> None:
    late = make_window(part(9, 0, discontinuity=flagged, discontinuity_sequence=4))
    assert late.renditions["v0"].discontinuity_sequence == expected
