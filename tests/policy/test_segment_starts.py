"""Where segments begin, as the segmenter tells it while it cuts."""

from fractions import Fraction

import pytest

from edged.policy.segment_rule import SegmenterConfig
from edged.policy.segment_starts import SegmentStart
from edged.policy.segmenter import Segmenter
from tests.policy.synthetic import (
    CmafWriter,
    audio_track,
    audio_units,
    in_order,
    video_times,
    video_track,
    video_units,
)


def starts_of(gop_s: float, seconds: float, *, reorder: int = 0) -> list[SegmentStart]:
    segmenter = Segmenter(SegmenterConfig(), CmafWriter())
    told: list[SegmentStart] = []
    segmenter.on_boundary = told.append
    for track in (video_track(Fraction(30)), audio_track()):
        segmenter.add_track(track)
    pictures = video_units(video_times(Fraction(30), seconds), gop_s, reorder=reorder)
    for unit in in_order((90_000, pictures), (48_000, audio_units(seconds))):
        segmenter.add_unit(unit)
    return told


@pytest.mark.parametrize("reorder", [0, 6000])
def test_each_is_told_once_with_its_number_and_its_time(reorder: int) -> None:
    told = starts_of(2, 11, reorder=reorder)
    assert [start.msn for start in told] == [0, 1, 2, 3, 4, 5]
    assert [start.boundary.pts - reorder for start in told] == [n * 180_000 for n in range(6)]
    assert all(start.random_access for start in told)
    assert [start.boundary.segment_us for start in told][1:] == [2_000_000] * 5


def test_one_that_begins_in_the_midst_of_a_gop_says_so() -> None:
    told = starts_of(12, 14)
    assert [start.random_access for start in told] == [True, False, False, True]


def test_audio_alone_always_has_random_access() -> None:
    segmenter = Segmenter(SegmenterConfig(), CmafWriter())
    told: list[SegmentStart] = []
    segmenter.on_boundary = told.append
    segmenter.add_track(audio_track())
    for unit in in_order((48_000, audio_units(9))):
        segmenter.add_unit(unit)
    assert [start.msn for start in told] == [0, 1, 2, 3, 4]
    assert all(start.random_access for start in told)
