from fractions import Fraction

import msgspec
import pytest

from edged.media.access_unit import AccessUnit
from edged.media.parts import PackagedEvent, Rendition
from edged.policy.boundary import Boundary
from edged.policy.cadence import measure_cadence
from edged.policy.cutter import RenditionCutter
from edged.policy.segment_rule import PARTS_MAX, SegmenterConfig, SegmentRule
from tests.policy.synthetic import CmafWriter, audio_track, segment, video_track

THIRTY = Fraction(30)


def cutter(*random_access_s: float, audio: bool = False) -> RenditionCutter:
    """A cutter whose segment has begun at 10 s, with random access seen at these times."""
    track = audio_track() if audio else video_track(THIRTY)
    cadence = measure_cadence(track, [0], 200_000)
    rendition = msgspec.structs.replace(
        segment_rendition(), kind=track.kind, timescale=track.timescale
    )
    made = RenditionCutter(track, rendition, cadence, CmafWriter())
    out: list[PackagedEvent] = []
    made.add_unit(unit(10, track.timescale), out)
    for seconds in random_access_s:
        made.gops.note(unit(seconds, track.timescale))
    return made


def segment_rendition() -> Rendition:
    units = [unit(0, 90_000), unit(1, 90_000).replaced(seq=1)]
    return segment([video_track(THIRTY)], units).rendition("v0")


def unit(seconds: float, timescale: int, *, random_access: bool = True) -> AccessUnit:
    dts = round(seconds * timescale)
    return AccessUnit(
        track_id=1,
        seq=0,
        config_id=0,
        pts=dts,
        dts=dts,
        wallclock_us=0,
        payload=b"x",
        random_access=random_access,
    )


def ends(rule: SegmentRule, seconds: float, *seen_s: float, random_access: bool = True) -> bool:
    picture = unit(10 + seconds, 90_000, random_access=random_access)
    return rule.must_end(cutter(*seen_s), picture, leads=True)


def test_a_leading_segment_ends_at_random_access_once_it_is_long_enough() -> None:
    rule = SegmentRule(SegmenterConfig())
    assert not ends(rule, 1.8)
    assert ends(rule, 1.9), "a twentieth early"
    assert not ends(rule, 2, random_access=False)
    assert not ends(rule, 4.36, random_access=False)
    assert rule.long_gops == 0
    assert ends(rule, 4.37, random_access=False)
    assert rule.long_gops == 1
    assert rule.long_gop_ticks == round(4.37 * 90_000), "no random access is known of"
    assert ends(rule, 4.37, 9, random_access=False)
    assert rule.long_gop_ticks == round(5.37 * 90_000)


def test_it_ends_earlier_when_the_next_random_access_would_be_too_late() -> None:
    rule = SegmentRule(SegmenterConfig())
    assert ends(rule, 1.5, 1, 4)
    assert not ends(rule, 1.3, 1, 4), "3 s later is in time"
    assert not ends(rule, 0.9, 1, 4), "a stub"


def test_audio_that_leads_ends_at_the_nearest_unit() -> None:
    rule = SegmentRule(SegmenterConfig())
    leading = cutter(audio=True)
    assert not rule.must_end(leading, unit(11.98, 48_000), leads=True)
    assert rule.must_end(leading, unit(11.99, 48_000), leads=True)
    assert rule.expected_end(leading, 480_000) == 480_000 + 96_000 - 512


def test_a_follower_ends_by_itself_only_before_it_is_too_long() -> None:
    rule = SegmentRule(SegmenterConfig())
    follower = cutter(audio=True)
    assert not rule.must_end(follower, unit(14.45, 48_000), leads=False)
    assert rule.must_end(follower, unit(14.47, 48_000), leads=False)
    assert rule.late_ticks(48_000) == round(4.48 * 48_000)


def test_a_segment_that_waits_for_a_silent_track_ends_before_it_comes_too_late() -> None:
    """One of 4 s that should end at 10 s: at 11.75 s it is 5.75 s since the last one."""
    rule = SegmentRule(SegmenterConfig())
    waiting, other = cutter(audio=True), cutter()
    waiting.boundaries.append(Boundary(pts=900_000, timescale=90_000, segment_us=4_000_000))
    other.add_unit(unit(11.74, 90_000), [])
    assert not rule.is_silent(waiting, other)
    other.add_unit(unit(11.75, 90_000), [])
    assert rule.is_silent(waiting, other)
    assert not rule.is_silent(waiting, waiting), "it has not passed the boundary itself"
    waiting.lag_s = 0.5
    assert not rule.is_silent(waiting, other), "the last one came late, so this one may"
    other.add_unit(unit(12.25, 90_000), [])
    assert rule.is_silent(waiting, other)


def test_a_segment_of_too_many_parts_ends() -> None:
    rule = SegmentRule(SegmenterConfig())
    leading = cutter()
    leading.index = PARTS_MAX - 1
    assert not rule.must_end(leading, unit(10.1, 90_000), leads=True)
    leading.index = PARTS_MAX
    assert rule.must_end(leading, unit(10.1, 90_000), leads=True)
    assert rule.must_end(leading, unit(10.1, 90_000), leads=False)


def test_a_segment_that_has_not_begun_does_not_end() -> None:
    rule = SegmentRule(SegmenterConfig())
    leading = cutter()
    leading.end_segment(None, 0, [])
    assert not rule.must_end(leading, unit(99, 90_000), leads=True)


@pytest.mark.parametrize(("gop_s", "end_s"), [(1, 12), (1.5, 13), (2, 12), (4, 14)])
def test_expected_end(gop_s: float, end_s: float) -> None:
    rule = SegmentRule(SegmenterConfig())
    assert rule.expected_end(cutter(10 - gop_s), 900_000) is None
    assert rule.expected_end(cutter(10 - gop_s, 10), 900_000) == end_s * 90_000 - 1500


def test_expected_end_at_the_last_random_access_in_time() -> None:
    """Random access at 10.2 s, 11.4 s and 12.6 s: with a target of 2 s the last is too late."""
    rule = SegmentRule(SegmenterConfig(segment_s=2.0, target_duration_s=2))
    assert rule.expected_end(cutter(9.0, 10.2), 900_000) == round(11.4 * 90_000) - 1500


def test_expected_end_of_a_long_gop_is_the_limit() -> None:
    rule = SegmentRule(SegmenterConfig())
    assert rule.expected_end(cutter(1.7, 10), 900_000) == 900_000 + 396_000 - 2999


def waits(seconds: float, *seen_s: float) -> bool:
    """Whether a rung whose segment of 2 s should have ended at 12 s waits at a picture without."""
    rung = cutter(*seen_s)
    rung.boundaries.append(Boundary(pts=12 * 48_000, timescale=48_000, segment_us=2_000_000))
    return SegmentRule(SegmenterConfig()).awaits_random_access(
        rung, unit(10 + seconds, 90_000, random_access=False)
    )


def test_a_rung_waits_for_its_own_random_access_if_it_comes_in_time() -> None:
    assert waits(2.1), "nothing is known of its GOPs"
    assert waits(3.75)
    assert not waits(3.76), "the next boundary is at 14 s"
    assert waits(2.1, 9.5, 11.5), "at 13.5 s"
    assert not waits(2.1, 7.9, 11.9), "at 15.9 s"
    assert not waits(2.1, 8, 10), "at 14 s"


def test_the_forecast_of_a_rung_is_its_own_random_access_if_it_comes_in_time() -> None:
    rule = SegmentRule(SegmenterConfig())
    boundary, leader = 12 * 90_000, cutter(8, 10)
    assert rule.follower_end(cutter(), boundary, leader) == boundary
    assert rule.follower_end(cutter(8, 10), boundary, leader) == boundary, "the very same"
    assert rule.follower_end(cutter(9, 11), boundary, leader) == 13 * 90_000 - 1500
    assert rule.follower_end(cutter(5, 11), boundary, leader) == boundary, "at 17 s: too late"
    assert rule.follower_end(cutter(5, 9), boundary, leader) == 13 * 90_000 - 1500


def test_configuration_limits() -> None:
    with pytest.raises(msgspec.ValidationError, match="part_ms"):
        msgspec.convert({"part_ms": 49}, SegmenterConfig)
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.convert({"parts_ms": 200}, SegmenterConfig)
