import itertools
from fractions import Fraction

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.media.access_unit import AccessUnit
from edged.media.parts import InitSegment, PackagedEvent, Part, SegmentEnded
from edged.media.track import Track
from edged.policy import cutter as cutter_module
from edged.policy.boundary import Boundary
from edged.policy.cadence import measure_cadence
from edged.policy.cutter import UNITS_MAX, RenditionCutter
from tests.policy.synthetic import (
    CmafWriter,
    audio_track,
    segment,
    video_times,
    video_track,
    video_units,
)

THIRTY = Fraction(30)


def unit(
    dts: int, *, seq: int = 0, payload: bytes = b"x", random_access: bool = False
) -> AccessUnit:
    return AccessUnit(
        track_id=1,
        seq=seq,
        config_id=0,
        pts=dts,
        dts=dts,
        wallclock_us=dts,
        payload=payload,
        random_access=random_access,
    )


def make_cutter(track: Track, times: list[int]) -> RenditionCutter:
    units = [unit(dts, random_access=True).replaced(track_id=track.track_id) for dts in times]
    rendition = segment([track], units).rendition(f"{track.kind[0]}0")
    cadence = measure_cadence(track, times, 200_000)
    return RenditionCutter(track, rendition, cadence, CmafWriter())


def constant() -> RenditionCutter:
    return make_cutter(video_track(THIRTY), video_times(THIRTY, 1))


def irregular() -> RenditionCutter:
    """Pictures 1000 to 3000 ticks apart: parts of 20,000 ticks, at least 17,001."""
    return make_cutter(video_track(), [0, 1000, 4000, 6000])


def feed(cutter: RenditionCutter, times: list[int]) -> list[Part]:
    out: list[PackagedEvent] = []
    for seq, dts in enumerate(times):
        cutter.add_unit(unit(dts, seq=seq), out)
    return [event for event in out if isinstance(event, Part)]


def test_at_a_constant_rate_a_part_is_cut_when_its_last_unit_arrives() -> None:
    cutter = constant()
    assert feed(cutter, [0, 3000, 6000, 9000, 12_000]) == []
    assert cutter.pending_seq == 0
    assert cutter.tfdt == 0
    (part,) = feed(cutter, [15_000])
    assert (part.tfdt, part.duration, part.index) == (0, 18_000, 0)
    assert cutter.pending_seq is None
    assert cutter.tfdt == 18_000


def test_a_missing_unit_inside_a_part_lengthens_the_one_before() -> None:
    (part,) = feed(constant(), [0, 3000, 9000, 12_000, 15_000])
    assert part.duration == 18_000


def test_a_part_long_enough_ends_before_a_unit_that_does_not_fit() -> None:
    first, second = feed(
        constant(), [0, 3000, 6000, 9000, 12_000, 15_500, *range(18_500, 33_501, 3000)]
    )
    assert (first.duration, second.tfdt) == (15_500, 15_500)


def test_a_hole_that_begins_in_a_part_fills_it_up() -> None:
    cutter = constant()
    first, second = feed(cutter, [0, 3000, *range(60_000, 75_001, 3000)])
    assert (first.duration, first.last_seq, second.tfdt) == (18_000, 1, 60_000)
    assert cutter.ticks_missing == 42_000


def test_a_unit_off_the_grid_ends_the_foreseeing() -> None:
    """15,200 ticks would be 84.4 % of the part; with the unit there it is full."""
    cutter = constant()
    assert feed(cutter, [0, 3000, 6000, 9000, 12_000, 15_200]) == []
    (part,) = feed(cutter, [18_200])
    assert (part.duration, part.last_seq) == (18_000, 5)
    assert cutter.tfdt == 18_000, "the next one begins where this one ended"
    (part,) = feed(cutter, [21_200, 24_200, 27_200, 30_200, 33_200, 36_200])
    assert (part.tfdt, part.duration, cutter.tfdt) == (18_000, 18_000, 36_000)


def test_a_unit_earlier_than_foreseen_begins_where_the_last_part_ended() -> None:
    """From 30 fps to 60: the part was cut for a unit at 18,000, and it comes at 16,500."""
    cutter = constant()
    (first,) = feed(cutter, list(range(0, 15_001, 3000)))
    assert (first.duration, cutter.tfdt) == (18_000, 18_000)
    (second,) = feed(cutter, list(range(16_500, 36_001, 1500)))
    assert (second.tfdt, second.duration) == (18_000, 16_500)
    assert cutter.ticks_missing == 0
    assert not cutter.cadence.constant
    assert cutter.cadence.part_ticks == first.duration, "the promise stays"
    # When the new pace is sure, a part comes with its last unit again.
    feed(cutter, list(range(37_500, 61_501, 1500)))
    assert cutter.cadence.constant
    assert cutter.cadence.gap_ticks == 1500
    for dts in range(63_000, 99_001, 1500):
        for part in feed(cutter, [dts]):
            assert part.duration == 18_000
            assert part.tfdt + part.duration == dts + 1500
    assert cutter.parts_cut == 5


def test_a_unit_later_than_foreseen_begins_where_the_last_part_ended() -> None:
    """From 30 fps to 25: five pictures from 18,600 on have no room for the last 600 ticks."""
    cutter = constant()
    first, second = feed(cutter, [*range(0, 15_001, 3000), *range(18_600, 36_601, 3600)])
    assert (first.duration, second.tfdt, second.duration) == (18_000, 18_000, 18_000)
    assert (second.last_seq, cutter.tfdt) == (10, 36_000)
    assert cutter.ticks_missing == 0


def test_pictures_lost_where_a_part_ends_lengthen_the_next_one_at_most_by_a_part() -> None:
    cutter = constant()
    _, second = feed(cutter, [*range(0, 15_001, 3000), 33_000])
    assert (second.tfdt, second.duration, second.last_seq) == (18_000, 18_000, 6)
    cutter = constant()
    feed(cutter, [*range(0, 15_001, 3000), 33_001 + 3000])
    assert cutter.tfdt == 36_001, "further apart than a part is long: a hole"


def test_the_end_of_a_segment_is_the_end_of_its_parts() -> None:
    """The next segment's first unit comes at 16,500, after the part was cut at 18,000."""
    cutter = constant()
    out: list[PackagedEvent] = []
    for dts in range(0, 15_001, 3000):
        cutter.add_unit(unit(dts), out)
    cutter.end_segment(16_500, 1, out)
    assert [event.duration for event in out if isinstance(event, SegmentEnded)] == [18_000]
    cutter.add_unit(unit(16_500), out)
    assert (cutter.segment_start, cutter.tfdt) == (18_000, 18_000)


def test_audio_begins_when_it_is_presented() -> None:
    def next_part_at(dts: int) -> int:
        cutter = make_cutter(audio_track(), list(range(0, 10_240, 1024)))
        assert len(feed(cutter, list(range(0, 10_240, 1024)))) == 1
        feed(cutter, [dts])
        return cutter.tfdt

    assert next_part_at(10_240 - 48) == 10_240, "a millisecond is not heard"
    assert next_part_at(10_240 - 49) == 10_191
    assert next_part_at(10_240 + 4800) == 10_240, "a hole that players would stand still for"
    assert next_part_at(10_240 + 4801) == 15_041


def test_an_irregular_part_waits_for_the_next_unit() -> None:
    cutter = irregular()
    assert feed(cutter, [0, 3000, 6000, 9000, 12_000, 15_000]) == []
    (part,) = feed(cutter, [18_000])
    assert (part.duration, cutter.pending_seq) == (18_000, 0)


def test_an_irregular_part_ends_before_the_unit_that_would_make_it_too_long() -> None:
    first, second = feed(irregular(), [0, 9000, 16_000, 17_001, 30_000, 36_000])
    assert (first.duration, first.last_seq) == (17_001, 2)
    assert (second.tfdt, second.duration) == (17_001, 18_999)


def test_an_irregular_part_may_leave_its_last_unit_to_the_next() -> None:
    """At 15,500 it is long enough but has room for one more; that one comes far too late."""
    cutter = make_cutter(video_track(), [0, 1000, 2000, 3500])
    assert cutter.cadence.part_ticks == 18_000
    first, second = feed(cutter, [0, 14_000, 15_500, 25_000, 34_000])
    assert (first.duration, first.last_seq) == (15_500, 1)
    assert (second.tfdt, second.duration, second.last_seq) == (15_500, 18_000, 3)


def test_an_irregular_hole_is_absent_media() -> None:
    cutter = irregular()
    first, second = feed(cutter, [0, 50_000, 99_000, 100_000])
    assert (first.duration, second.tfdt, second.duration) == (20_000, 50_000, 20_000)
    feed(cutter, [130_000])
    assert cutter.ticks_missing == 30_000 + 29_000


@pytest.mark.parametrize("rate", [Fraction(24_000, 1001), Fraction(60_000, 1001), Fraction(7)])
def test_rounded_times_leave_no_ticks_between_parts(rate: Fraction) -> None:
    times = video_times(rate, 12)
    parts = feed(make_cutter(video_track(rate), times), times)
    later = [(a, b) for a, b in itertools.pairwise(parts) if a.index > 3]
    assert all(b.tfdt == a.tfdt + a.duration for a, b in later)


def test_a_period_too_long_to_follow_leaves_no_ticks_either() -> None:
    rate = Fraction(1_000_003, 33_333)
    times = video_times(rate, 6)
    parts = feed(make_cutter(video_track(rate), times), times)
    assert len(parts) > 20
    assert all(b.tfdt == a.tfdt + a.duration for a, b in itertools.pairwise(parts))


def test_the_end_of_a_segment_flushes_and_starts_the_next() -> None:
    cutter = constant()
    out: list[PackagedEvent] = []
    for dts in (0, 3000):
        cutter.add_unit(unit(dts), out)
    cutter.end_segment(6000, 1, out)
    part, ended = out
    assert isinstance(part, Part)
    assert (part.ends_segment, part.next_msn, part.next_index, part.duration) == (True, 1, 0, 6000)
    assert ended == SegmentEnded(rendition="v0", msn=0, parts=1, duration=6000)
    out.clear()
    cutter.end_segment(None, 777, out)
    assert out == [SegmentEnded(rendition="v0", msn=1, parts=0, duration=777)]
    assert cutter.msn == 2


def test_a_segment_does_not_end_before_its_last_unit() -> None:
    """Behind a discontinuity times may go back, by less than shows that they began anew."""
    track = audio_track()
    cutter = make_cutter(track, [n * 1024 for n in range(20)])
    out: list[PackagedEvent] = []
    for n in range(20):
        cutter.add_unit(unit(n * 1024).replaced(track_id=2), out)
    cutter.end_segment(1024, 1, out)
    parts = [event for event in out if isinstance(event, Part)]
    ended = out[-1]
    assert isinstance(ended, SegmentEnded)
    assert ended.duration == sum(part.duration for part in parts) == 20 * 1024


def test_a_rendition_without_any_media_yet_has_no_gap_segments() -> None:
    cutter = constant()
    out: list[PackagedEvent] = []
    cutter.end_segment(None, 777, out)
    assert (out, cutter.msn) == ([], 1)


def test_a_discontinuity_marks_each_part_of_its_segment_even_behind_a_gap() -> None:
    cutter = constant()
    out: list[PackagedEvent] = []
    cutter.restart(90_000)
    cutter.end_segment(None, 1, out)
    for dts in range(0, 36_000, 3000):
        cutter.add_unit(unit(dts), out)
    cutter.end_segment(None, 1, out)
    cutter.add_unit(unit(36_000), out)
    cutter.end_segment(None, 1, out)
    parts = [event for event in out if isinstance(event, Part)]
    assert [part.discontinuity for part in parts] == [True, True, False]
    assert [part.tfdt for part in parts] == [90_000, 108_000, 126_000]
    assert cutter.discontinuity_sequence == 1


def test_how_far_it_is_beyond_a_boundary() -> None:
    cutter = constant()
    boundary = Boundary(pts=48_000, timescale=48_000, segment_us=2_000_000)
    assert cutter.past_s(boundary) == 0
    feed(cutter, [45_000])
    assert cutter.past_s(boundary) == 0
    feed(cutter, [135_000])
    assert cutter.past_s(boundary) == 0.5
    cutter.restart(0)
    assert cutter.past_s(boundary) == 0, "another timeline"


def test_a_part_has_the_date_of_what_is_presented_first() -> None:
    cutter = constant()
    out: list[PackagedEvent] = []
    for dts, wallclock_us in ((0, 90), (3000, 30), (6000, 60)):
        cutter.add_unit(unit(dts).replaced(wallclock_us=wallclock_us), out)
    cutter.end_segment(None, 1, out)
    part = out[0]
    assert isinstance(part, Part)
    assert part.wallclock_us == 30


def test_forecast() -> None:
    cutter = constant()
    cutter.expected_end = 36_000 - 1500
    first, second = feed(cutter, list(range(0, 36_000, 3000)))
    assert (first.next_msn, first.next_index) == (0, 1)
    assert (second.next_msn, second.next_index, second.ends_segment) == (1, 0, False)


def test_a_new_configuration_is_announced_and_named_by_the_parts_behind_it() -> None:
    cutter = constant()
    out: list[PackagedEvent] = []
    cutter.announce(b"one", "1" * 16, out)
    track = video_track(THIRTY, config_id=3, width=640)
    rendition = msgspec.structs.replace(cutter.rendition, width=640)
    cutter.switch(track, rendition)
    assert (cutter.track, cutter.config_id) == (track, 3)
    cutter.announce(b"two", "2" * 16, out)
    cutter.add_unit(unit(0), out)
    cutter.end_segment(None, 1, out)
    assert out[2:4] == [
        rendition,
        InitSegment(rendition="v0", digest="2" * 16, data=b"two"),
    ]
    part = out[4]
    assert isinstance(part, Part)
    assert part.init_digest == "2" * 16


def test_a_part_is_bounded_in_units_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = feed(irregular(), [5] * (UNITS_MAX + 1))
    assert [part.last_seq for part in parts] == [UNITS_MAX - 1]
    monkeypatch.setattr(cutter_module, "BYTES_MAX", 2)
    parts = feed(irregular(), [5, 6, 7])
    assert [part.last_seq for part in parts] == [1]


def test_whole_segments_of_synthetic_units_have_random_access() -> None:
    out: list[PackagedEvent] = []
    cutter = constant()
    for picture in video_units(video_times(THIRTY, 1), 0.5):
        cutter.add_unit(picture, out)
    parts = [event for event in out if isinstance(event, Part)]
    assert [part.independent for part in parts] == [True, False, True, False, False]


@hypothesis.settings(max_examples=50)
@hypothesis.given(st.lists(st.integers(-5000, 50_000), min_size=1, max_size=60), st.booleans())
def test_any_times_make_parts_that_rise_and_are_never_too_long(
    deltas: list[int], is_constant: bool
) -> None:
    cutter = constant() if is_constant else irregular()
    times = list(itertools.accumulate(deltas))
    out: list[PackagedEvent] = []
    for seq, dts in enumerate(times):
        cutter.add_unit(unit(dts + 400_000, seq=seq), out)
    cutter.end_segment(None, 1, out)
    parts = [event for event in out if isinstance(event, Part)]
    assert parts[-1].last_seq == len(times) - 1
    for part in parts:
        assert 0 < part.duration <= cutter.cadence.part_ticks
        assert part.duration >= cutter.cadence.floor_ticks or part.ends_segment
    for before, after in itertools.pairwise(parts):
        assert after.tfdt > before.tfdt
