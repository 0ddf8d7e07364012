"""One track is silent for a day, or its clock leaps by one: the others' segments go on.

A day of pictures at one a second is 86,400 units; the shorter runs are CI's.
"""

from collections import Counter
from fractions import Fraction

import pytest

from edged.media.access_unit import AccessUnit
from edged.media.parts import Part, SegmentEnded
from edged.policy.segment_rule import SegmenterConfig
from edged.policy.segmenter import Segmenter
from edged.policy.splice import save
from tests.policy.synthetic import (
    CmafWriter,
    audio_track,
    audio_units,
    in_order,
    video_track,
    video_units,
)

BEFORE_S = 10
DAY_S = 86_400
SHORT_S = 3_600
SEGMENT_S = 2
PENDING_UNITS_MAX = 200  # Two segments of sound: what waits for nobody.
SPLICE_BYTES_MAX = 16 * 1024
VIDEO_HZ, AUDIO_HZ = 90_000, 48_000


class Cut:
    """A segmenter and what came out of it."""

    def __init__(self) -> None:
        self.segmenter = Segmenter(SegmenterConfig(), CmafWriter())
        self.segmenter.add_track(video_track(Fraction(1)))
        self.segmenter.add_track(audio_track())
        self.parts: dict[str, list[Part]] = {"v0": [], "a0": []}
        self.ended: Counter[str] = Counter()
        self.pending_max = 0

    def go_on(self, units: list[AccessUnit]) -> None:
        """Feed what follows, numbered on."""
        for seq, unit in enumerate(units, self.segmenter.received_seq + 1):
            unit.seq = seq
        self.feed(units)

    def feed(self, units: list[AccessUnit]) -> None:
        for unit in units:
            unit.payload = b"unit"
            for event in self.segmenter.add_unit(unit):
                if isinstance(event, Part):
                    self.parts[event.rendition].append(event)
                elif isinstance(event, SegmentEnded):
                    self.ended[event.rendition] += 1
            pending = self.segmenter.received_seq - self.segmenter.packaged_seq
            self.pending_max = max(self.pending_max, pending)


def pictures(seconds: int, start_s: int = 0) -> list[AccessUnit]:
    times = [at * VIDEO_HZ for at in range(start_s, start_s + seconds)]
    return list(video_units(times, SEGMENT_S))


def sound(seconds: int, start_s: int = 0) -> list[AccessUnit]:
    units = list(audio_units(seconds))
    for unit in units:
        unit.dts += start_s * AUDIO_HZ
        unit.pts += start_s * AUDIO_HZ
    return units


def together(video: list[AccessUnit], audio: list[AccessUnit]) -> list[AccessUnit]:
    return in_order((VIDEO_HZ, video), (AUDIO_HZ, audio))


DAYS = [
    pytest.param(SHORT_S, id="an hour"),
    pytest.param(DAY_S, id="a day", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("silence_s", DAYS)
def test_sound_is_silent_and_comes_back(silence_s: int) -> None:
    end_s = BEFORE_S + silence_s
    cut = Cut()
    audio = [*sound(BEFORE_S), *sound(BEFORE_S, end_s)]
    cut.feed(together(pictures(end_s + BEFORE_S), audio))
    check(cut, goes_on="v0", silent="a0", hz=AUDIO_HZ, end_s=end_s)
    assert len(cut.parts["v0"]) >= end_s, "a part for each picture"


@pytest.mark.parametrize(
    "silence_s", [SHORT_S // 8, pytest.param(DAY_S, id="a day", marks=pytest.mark.slow)]
)
def test_pictures_are_silent_and_come_back(silence_s: int) -> None:
    """Of sound there are 47 units a second: the day is fed by the hour."""
    end_s = BEFORE_S + silence_s
    cut = Cut()
    cut.feed(together(pictures(BEFORE_S), sound(BEFORE_S)))
    for start_s in range(BEFORE_S, end_s, SHORT_S):
        cut.go_on(sound(min(SHORT_S, end_s - start_s), start_s))
    cut.go_on(together(pictures(BEFORE_S, end_s), sound(BEFORE_S, end_s)))
    check(cut, goes_on="a0", silent="v0", hz=VIDEO_HZ, end_s=end_s)


def check(cut: Cut, *, goes_on: str, silent: str, hz: int, end_s: int) -> None:
    """The one has all of its segments, the other's are where they belong, and nothing has grown."""
    segments = {part.msn for part in cut.parts[goes_on]}
    assert segments == set(range(max(segments) + 1)), "none is missing"
    assert cut.ended[silent] >= cut.ended[goes_on] - 1, "the silent one's playlist goes on, too"
    assert cut.pending_max < PENDING_UNITS_MAX
    assert len(save(cut.segmenter)) < SPLICE_BYTES_MAX
    back = [part for part in cut.parts[silent] if part.tfdt >= end_s * hz]
    assert back, "it is heard again"
    other = {part.msn for part in cut.parts[goes_on]}
    assert {part.msn for part in back} <= other, "in the segments of that time"
    assert cut.segmenter.statistics().units_dropped == 0


@pytest.mark.parametrize("leaps", ["video", "audio"])
@pytest.mark.parametrize("by_s", [DAY_S, -DAY_S // 24])
def test_one_clock_leaps_by_a_day(leaps: str, by_s: int) -> None:
    cut = Cut()
    start_s = 2 * DAY_S
    after = start_s + BEFORE_S
    video, audio = pictures(BEFORE_S, start_s), sound(BEFORE_S, start_s)
    cut.feed(together(video, audio))
    before = {name: len(parts) for name, parts in cut.parts.items()}
    more_video = pictures(60, after + (by_s if leaps == "video" else 0))
    more_audio = sound(60, after + (by_s if leaps == "audio" else 0))
    seq = max(unit.seq for unit in [*video, *audio]) + 1
    by_arrival = sorted(
        [(unit.dts / VIDEO_HZ - more_video[0].dts / VIDEO_HZ, unit) for unit in more_video]
        + [(unit.dts / AUDIO_HZ - more_audio[0].dts / AUDIO_HZ, unit) for unit in more_audio],
        key=lambda pair: pair[0],
    )
    units = [unit for _, unit in by_arrival]
    for number, unit in enumerate(units, seq):
        unit.seq = number
    cut.feed(units)
    gained = {name: len(parts) - before[name] for name, parts in cut.parts.items()}
    assert gained["v0"] >= 40, gained
    assert gained["a0"] >= 100, gained
    assert cut.pending_max < 40 * PENDING_UNITS_MAX
    assert len(save(cut.segmenter)) < 8 * SPLICE_BYTES_MAX
    assert cut.ended["v0"] < 200, "no segment for each second of the leap"
