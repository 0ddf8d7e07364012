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


@pytest.mark.parametrize("by_end", [False, True])
@pytest.mark.parametrize("lost", [MISSING_MAX, MISSING_MAX + 1, 1000])
def test_more_lost_segments_than_the_limit_are_leapt_over(lost: int, by_end: bool) -> None:
    stream = make_window(whole(0), whole(1))
    window = stream.renditions["v0"]
    stream.add(ended(2 + lost, parts=0) if by_end else part(2 + lost, 0))
    listed = [segment.entry.msn for segment in window.listed]
    assert listed == list(range(listed[0], 3 + lost))
    assert (2 in window.segments) == (lost <= MISSING_MAX)
    assert stream.statistics().segments_missing == lost
    # Item 20: not shorter than three target durations, and what was listed can be fetched.
    assert window.listed_us >= 12_000_000
    for msn in (0, 1):
        assert stream.segment("v0", msn) is not None
    # Item 29: the times of what was lost lead up to those of what came.
    ends = [segment.entry.wallclock_us + segment.entry.duration_us for segment in window.listed]
    assert [s.entry.wallclock_us for s in list(window.listed)[1:]] == ends[:-1]
    assert window.listed[-1].entry.wallclock_us == part(2 + lost, 0).wallclock_us


def test_item_20_short_segments_do_not_make_a_short_playlist_of_what_was_leapt_over() -> None:
    stream = make_window(part(0, 0), ended(0, parts=1, duration=100), part(50, 0))
    window = stream.renditions["v0"]
    assert window.listed_us - window.listed[-1].entry.duration_us >= 12_000_000
    assert max(segment.entry.duration_us for segment in window.listed) < 4_000_000


def numbers(window: RenditionWindow) -> dict[int, int]:
    """The discontinuity sequence number of each listed segment, as a player counts it."""
    found, count = {}, window.discontinuity_sequence
    for segment in window.listed:
        count += segment.entry.discontinuity
        found[segment.entry.msn] = count
    return found


def test_item_29_a_discontinuity_lost_with_its_segment_is_made_up_for() -> None:
    stream = make_window(names=("v0", "a0"))
    feed(stream, whole(0), whole(0, "a0"))
    feed(stream, whole(1, "a0", discontinuity=True, discontinuity_sequence=1))
    for name in ("v0", "a0"):  # All of segment 1 of v0 was skipped on the way.
        feed(stream, whole(2, name, discontinuity_sequence=1))
        feed(stream, whole(3, name, discontinuity_sequence=1))
    video, audio = (numbers(stream.renditions[name]) for name in ("v0", "a0"))
    assert video == {0: 0, 1: 0, 2: 1, 3: 1}
    assert {msn: video[msn] for msn in (0, 2, 3)} == {msn: audio[msn] for msn in (0, 2, 3)}


@pytest.mark.parametrize("flagged", [False, True])
def test_item_29_several_lost_discontinuities_are_made_up_for(flagged: bool) -> None:
    stream = make_window(whole(0, discontinuity_sequence=2))
    window = stream.renditions["v0"]
    feed(stream, part(4, 0, discontinuity=flagged, discontinuity_sequence=5))
    assert numbers(window) == {0: 2, 1: 2, 2: 3, 3: 4, 4: 5}
    feed(stream, part(4, 1, discontinuity=flagged, discontinuity_sequence=5), ended(4, parts=2))
    feed(stream, part(5, 0, discontinuity_sequence=5))
    assert numbers(window)[5] == 5


def test_item_29_discontinuities_within_silence_are_caught_up_with() -> None:
    """Two passed while nothing came; what a playlist has shown is not changed."""
    stream = make_window(whole(0), ended(1, parts=0), ended(2, parts=0))
    window = stream.renditions["v0"]
    feed(stream, whole(3, discontinuity=True, discontinuity_sequence=2))
    assert numbers(window) == {0: 0, 1: 0, 2: 0, 3: 1}
    feed(stream, whole(4, discontinuity_sequence=2), whole(5, discontinuity_sequence=2))
    assert (numbers(window)[4], numbers(window)[5]) == (2, 2)


@pytest.mark.parametrize(("flagged", "expected"), [(False, 7), (True, 6)])
def test_item_29_a_leap_takes_the_numbers_of_what_came(flagged: bool, expected: int) -> None:
    stream = make_window(whole(0), whole(1, discontinuity=True, discontinuity_sequence=1))
    window = stream.renditions["v0"]
    feed(stream, part(40, 0, discontinuity=flagged, discontinuity_sequence=7))
    assert window.discontinuity_sequence == expected
    assert numbers(window)[40] == 7
    late = make_window(part(40, 0, discontinuity=flagged, discontinuity_sequence=7))
    assert numbers(late.renditions["v0"])[40] == 7


def test_item_29_a_segment_whose_first_parts_were_lost_begins_when_it_began() -> None:
    stream = make_window(whole(0), part(1, 3), part(1, 4), ended(1))
    entry = stream.renditions["v0"].listed[1].entry
    assert entry.wallclock_us == part(1, 0).wallclock_us
    assert [part.gap for part in entry.parts] == [True, True, True, False, False]


def test_an_end_that_was_none_is_undone() -> None:
    stream = make_window(whole(0), part(1, 0))
    window = stream.renditions["v0"]
    before = [(s.entry.duration_us, s.entry.tail_text, s.ended) for s in window.listed]
    window.end()
    version = window.version
    window.reopen()
    assert [(s.entry.duration_us, s.entry.tail_text, s.ended) for s in window.listed] == before
    assert window.version > version
    assert (window.hint_name, shape(window)[1]) == ("v0-1.1.m4s", (1, 1, False, False))
    feed(stream, *whole(1)[1:])
    window.end()
    window.reopen()
    assert (window.hint_name, shape(window)[1]) == ("v0-2.0.m4s", (1, 5, True, False))
    empty = make_window().renditions["v0"]
    empty.end()
    empty.reopen()
    assert empty.hint_name is None


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
