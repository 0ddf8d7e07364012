"""Encoded rungs beside a source: the same segments, whatever becomes of their encoder."""

import heapq
import itertools
from collections.abc import Callable, Iterable
from fractions import Fraction

import hypothesis
import pytest
from hypothesis import strategies as st
from msgspec import Struct, structs

from edged.media.access_unit import AccessUnit
from edged.media.parts import PackagedEvent, Part, Rendition, SegmentEnded
from edged.media.stream import StreamId
from edged.media.track import Track
from edged.policy.rung_segmenter import STARTS_MAX, RungSegmenter
from edged.policy.segment_rule import SegmenterConfig
from edged.policy.segmenter import Segmenter
from edged.policy.window import StreamWindow
from tests.policy.synthetic import (
    EPOCH_US,
    CmafWriter,
    audio_track,
    audio_units,
    in_order,
    video_times,
    video_track,
    video_units,
)

RUNG, AAC = 101, 201
TS = 90_000


class Outcome(Struct):
    """What a source and its rungs have become, in the order in which it came about."""

    segmenter: Segmenter
    rungs: RungSegmenter
    events: list[PackagedEvent]

    def parts(self, name: str) -> list[Part]:
        return [e for e in self.events if isinstance(e, Part) and e.rendition == name]

    def segments(self, name: str) -> dict[int, SegmentEnded]:
        return {
            e.msn: e for e in self.events if isinstance(e, SegmentEnded) and e.rendition == name
        }

    def starts(self, name: str) -> dict[int, int]:
        """When each segment is decoded first, by the parts that begin one."""
        return {part.msn: part.tfdt for part in self.parts(name) if part.index == 0}


def encode(units: Iterable[AccessUnit], *, half: bool = False) -> list[AccessUnit]:
    """The pictures of a source as a rung has them: in order, of one's own bytes."""
    made, since = [], 0
    for unit in sorted((u for u in units if u.track_id == 1), key=lambda u: u.pts):
        since = 0 if unit.random_access else since + 1
        if half and since % 2:
            continue
        made.append(unit.replaced(track_id=RUNG, dts=unit.pts, payload=b"r" * 9))
    return made


def by_time(unit: AccessUnit) -> float:
    """When a unit comes: when it is decoded."""
    return unit.dts / (48_000 if unit.track_id in (2, AAC) else TS)


def run(
    tracks: list[Track],
    units: list[AccessUnit],
    made: list[AccessUnit],
    *,
    delay_s: float = 0.3,
    config: SegmenterConfig | None = None,
    at: Callable[[AccessUnit], float] = by_time,
    end: bool = True,
) -> Outcome:
    """The source's units at their time, the rungs' so much later; all through one window too."""
    config = config or SegmenterConfig()
    segmenter, rungs = Segmenter(config, CmafWriter()), RungSegmenter(config, CmafWriter())
    events: list[PackagedEvent] = []
    window = StreamWindow(StreamId(channel="ch", publication=1))

    def take(more: list[PackagedEvent]) -> None:
        for event in more:
            window.add(event)
        events.extend(more)

    segmenter.on_boundary = lambda start: take(rungs.begin_segment(start))
    for track in tracks:
        segmenter.add_track(track)
    rungs.add_track(rung_track(), "v480")
    rungs.add_track(structs.replace(audio_track(), track_id=AAC), "a128")
    keyed = [(at(unit), 0, position, unit) for position, unit in enumerate(units)]
    late = [(at(unit) + delay_s, 1, position, unit) for position, unit in enumerate(made)]
    for _, is_made, _, unit in heapq.merge(keyed, sorted(late, key=lambda item: item[:3])):
        take(rungs.add_unit(unit) if is_made else segmenter.add_unit(unit))
    if end:
        take(rungs.end())
        take(segmenter.end("over"))
    return Outcome(segmenter, rungs, events)


def rung_track(config_id: int = 0, width: int = 854) -> Track:
    track = video_track(config_id=config_id, width=width)
    return structs.replace(track, track_id=RUNG)


def source_of(
    rate: Fraction = Fraction(30), seconds: float = 14, gop_s: float = 2, reorder: int = 0
) -> tuple[list[Track], list[AccessUnit]]:
    pictures = video_units(video_times(rate, seconds), gop_s, reorder=reorder)
    units = in_order((TS, pictures), (48_000, audio_units(seconds)))
    return [video_track(rate), audio_track()], units


def check_parts(outcome: Outcome, name: str) -> None:
    """They follow each other, none is longer than promised, and segments say how many they are."""
    parts = outcome.parts(name)
    told = (e for e in outcome.events if isinstance(e, Rendition) and e.name == name)
    rendition = next(told, None)
    if rendition is None:  # It never came to the beginning of a segment.
        assert not parts
        assert not outcome.segments(name)
        return
    for part in parts:
        assert part.duration * 1_000_000 <= rendition.part_target_us * rendition.timescale
    for msn, ended in outcome.segments(name).items():
        have = [part.index for part in parts if part.msn == msn]
        assert have == list(range(len(have)))
        assert ended.parts >= len(have)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("reorder", [0, 6000])
@pytest.mark.parametrize(("rate", "gop_s"), [(30, 2), (60, 1), (50, 2.5), (25, 4)])
def test_a_rungs_segments_are_the_sources(
    rate: int, gop_s: float, reorder: int, half: bool
) -> None:
    tracks, units = source_of(Fraction(rate), gop_s=gop_s, reorder=reorder)
    outcome = run(tracks, units, encode(units, half=half))
    source, rung = outcome.starts("v0"), outcome.starts("v480")
    assert list(rung) == list(source)
    for msn, tfdt in rung.items():
        assert tfdt == source[msn] + reorder, "decoded when it is presented"
    check_parts(outcome, "v480")
    assert all(part.independent for part in outcome.parts("v480") if part.index == 0)
    lengths = [segment.duration for segment in outcome.segments("v0").values()]
    assert [e.duration for e in outcome.segments("v480").values()][:-1] == lengths[:-1]
    statistics = outcome.rungs.statistics()
    assert (statistics.units_dropped, statistics.segments_absent) == (0, 0)
    assert statistics.parts == len(outcome.parts("v480"))


def test_long_gops_are_cut_where_the_source_is() -> None:
    tracks, units = source_of(seconds=30, gop_s=12)
    outcome = run(tracks, units, encode(units))
    assert outcome.segmenter.long_gop_s is not None
    assert outcome.starts("v480") == outcome.starts("v0")
    assert not all(part.independent for part in outcome.parts("v480") if part.index == 0)


def test_audio_that_is_encoded_goes_along() -> None:
    tracks, units = source_of()
    made = [unit.replaced(track_id=AAC) for unit in units if unit.track_id == 2]
    outcome = run(tracks, units, made)
    source, encoded = (
        # How long the first segment is going to be, only the source's segmenter knew.
        [(part.msn, part.index, part.tfdt) for part in outcome.parts(name) if part.msn > 0]
        for name in ("a0", "a128")
    )
    assert encoded == source


@pytest.mark.parametrize(("units_lost", "is_whole"), [(1, True), (4, True), (5, False)])
def test_a_small_hole_of_sound_at_a_segments_end_is_no_absent_media(
    *, units_lost: int, is_whole: bool
) -> None:
    """It is closed: players would skip all of the segment for what none of it lacks."""
    tracks, units = source_of()
    end = 288_000  # At 6 s.
    made = [
        unit.replaced(track_id=AAC)
        for unit in units
        if unit.track_id == 2 and not end - 1024 * units_lost <= unit.dts < end
    ]
    outcome = run(tracks, units, made)
    parts = outcome.parts("a128")
    for before, after in itertools.pairwise(parts):
        assert after.tfdt == before.tfdt + before.duration
    for msn, ended in outcome.segments("a128").items():
        have = sum(part.msn == msn for part in parts)
        assert (ended.parts == have) is (is_whole or msn != 2)


def test_the_hint_of_a_segments_last_part_is_the_next_segment() -> None:
    tracks, units = source_of()
    outcome = run(tracks, units, encode(units))
    parts = outcome.parts("v480")
    for part, following in itertools.pairwise(parts):
        assert (part.next_msn, part.next_index) == (following.msn, following.index)


def test_an_encoder_that_begins_late_begins_with_a_segment() -> None:
    tracks, units = source_of()
    made = [unit for unit in encode(units) if unit.pts >= 3.4 * TS]
    outcome = run(tracks, units, made)
    starts = outcome.starts("v480")
    assert list(starts) == list(outcome.starts("v0"))[2:]
    assert outcome.parts("v480")[0].independent
    check_parts(outcome, "v480")


def test_what_an_encoder_misses_is_absent_media_in_time() -> None:
    """It dies in the midst of a segment, and comes back in that of another."""
    tracks, units = source_of(seconds=30)
    made = [unit for unit in encode(units) if not 7.0 * TS <= unit.pts < 17.2 * TS]
    outcome = run(tracks, units, made)
    segments, starts = outcome.segments("v480"), outcome.starts("v480")
    assert list(segments) == list(outcome.segments("v0")), "no segment is left out"
    assert [msn for msn in segments if msn not in starts] == [4, 5, 6, 7, 8]
    broken = segments[3]
    have = [part for part in outcome.parts("v480") if part.msn == 3]
    assert broken.parts == len(have) + 5, "a second of it is missing"
    for msn in range(4, 9):
        assert segments[msn].parts == 0
    assert starts[9] == outcome.starts("v0")[9]
    said = {
        event.msn: position
        for position, event in enumerate(outcome.events)
        if isinstance(event, SegmentEnded) and event.rendition == "v480"
    }
    source = {
        event.msn: position
        for position, event in enumerate(outcome.events)
        if isinstance(event, SegmentEnded) and event.rendition == "v0"
    }
    for msn in range(4, 7):
        assert said[msn] < source[msn + 4], "its playlist goes on while it is away"
    window = StreamWindow(StreamId(channel="ch", publication=1))
    for event in outcome.events:
        window.add(event)
    listed = {e.msn: e.gap for e in (s.entry for s in window.renditions["v480"].listed)}
    assert [msn for msn, gap in listed.items() if gap] == [3, 4, 5, 6, 7, 8]


def test_a_rung_may_be_unwanted_before_its_track_has_come() -> None:
    _, units = source_of(seconds=2)
    rungs = RungSegmenter(SegmenterConfig(), CmafWriter())
    assert rungs.want(set()) == []
    rungs.add_track(rung_track(), "v480")
    made = encode(units)
    assert [event for unit in made for event in rungs.add_unit(unit)] == []
    assert rungs.statistics().units_dropped == len(made)


def test_a_rung_that_is_not_wanted_is_away_at_once_and_back_with_its_first_part() -> None:
    tracks, units = source_of(seconds=20)
    config = SegmenterConfig()
    segmenter, rungs = Segmenter(config, CmafWriter()), RungSegmenter(config, CmafWriter())
    events: list[PackagedEvent] = []
    segmenter.on_boundary = lambda start: events.extend(rungs.begin_segment(start))
    for track in tracks:
        segmenter.add_track(track)
    rungs.add_track(rung_track(), "v480")
    made = encode(units)
    for unit in units:
        if unit.track_id == 1 and unit.pts == 7 * TS:
            assert rungs.want({RUNG}) == [], "as it was"
            told = rungs.want(set())
            assert [(e.name, e.away) for e in told if isinstance(e, Rendition)] == [("v480", True)]
            assert rungs.want(set()) == [], "it is told once"
            events += told
        if unit.track_id == 1 and unit.pts == 11 * TS:
            assert rungs.want({RUNG}) == [], "nothing has come of it yet"
        events += segmenter.add_unit(unit)
        if unit.track_id == 1:
            events += rungs.add_unit(made.pop(0))
    window = StreamWindow(StreamId(channel="ch", publication=1))
    away: list[bool] = []
    for position, event in enumerate(events):
        window.add(event)
        shown = window.renditions.get("v480")
        if shown is not None and shown.rendition.away not in away[-1:]:
            away.append(shown.rendition.away)
            if len(away) > 2:
                later = [e for e in events[position:] if isinstance(e, Part)]
                first = next(part for part in later if part.rendition == "v480")
                assert first is later[0], "with its first part"
                assert (first.msn, first.index, first.independent) == (6, 0, True)
    assert away == [False, True, False]
    assert window.parts_refused == 0
    assert rungs.statistics().units_dropped > 4 * 30


def test_a_discontinuity_of_the_source_is_every_rungs() -> None:
    first, second = (list(video_units(video_times(Fraction(30), 7), 2)) for _ in range(2))
    for unit in second:
        unit.pts += 100 * TS
        unit.dts += 100 * TS
        unit.wallclock_us += 7_000_000
        unit.config_id = 1
    second[0].discontinuity = True
    units = in_order((TS, [*first, *second]))
    tracks = [video_track(Fraction(30)), video_track(Fraction(30), config_id=1, width=640)]
    made = encode(units)
    for unit in made:
        unit.config_id = 0
    outcome = run(tracks, units, made)
    source = {p.msn: p.discontinuity_sequence for p in outcome.parts("v0")}
    assert set(source.values()) == {0, 1}
    assert {p.msn: p.discontinuity_sequence for p in outcome.parts("v480")} == source
    assert [p.msn for p in outcome.parts("v480") if p.discontinuity] == [
        p.msn for p in outcome.parts("v0") if p.discontinuity
    ]
    assert outcome.starts("v480") == outcome.starts("v0")


def jumping(by_s: float, *, gop_s: float) -> tuple[list[Track], list[AccessUnit]]:
    """7 s of pictures, then 7 more whose times begin so much on, or back."""
    first, second = (list(video_units(video_times(Fraction(30), 7), gop_s)) for _ in range(2))
    for unit in second:
        unit.pts += int((7 + by_s) * TS)
        unit.dts += int((7 + by_s) * TS)
        unit.wallclock_us += 7_000_000
    second[0].discontinuity = True
    return [video_track(Fraction(30))], [*first, *second]


@pytest.mark.parametrize("by_s", [-0.3, -0.9, -1.2, -2, -2.9, -6.5, 3.5, 100])
@pytest.mark.parametrize("gop_s", [1, 2])
@pytest.mark.parametrize("is_flagged", [False, True])
def test_a_rung_jumps_where_its_source_does(by_s: float, gop_s: float, is_flagged: bool) -> None:
    tracks, units = jumping(by_s, gop_s=gop_s)
    made = encode_in_order(units)
    for unit in made:
        unit.discontinuity &= is_flagged
    outcome = run(tracks, units, made, at=by_wallclock)
    assert outcome.starts("v480") == outcome.starts("v0")
    assert len(outcome.starts("v0")) >= 8
    assert outcome.rungs.statistics().units_dropped == 0


@pytest.mark.parametrize("by_s", [-0.3, -1.2, -2, -2.9, 3.5, 100])
@pytest.mark.parametrize("back_at_s", [6, 7, 8, 9, 11, 12, 13])
def test_an_encoder_that_comes_back_about_a_jump(by_s: float, back_at_s: int) -> None:
    """It may come back with another timeline than that of the segment of then."""
    tracks, units = jumping(by_s, gop_s=1)
    away = (EPOCH_US + 4_500_000, EPOCH_US + back_at_s * 1_000_000)
    made = [u for u in encode_in_order(units) if not away[0] <= u.wallclock_us < away[1]]
    outcome = run(tracks, units, made, at=by_wallclock)
    source, rung = outcome.starts("v0"), outcome.starts("v480")
    assert all(rung[msn] == source[msn] for msn in rung)
    missing = [msn for msn in source if msn not in rung]
    began = {p.msn: p.wallclock_us - EPOCH_US for p in outcome.parts("v0") if p.index == 0}
    assert all(3_000_000 < began[msn] < back_at_s * 1_000_000 for msn in missing), missing


@pytest.mark.parametrize("late_s", [0, 0.2, 0.4, 1])
def test_sound_that_begins_behind_the_picture_on_a_new_timeline(late_s: float) -> None:
    """An encoder was begun anew; what the source has of it, a rung of the sound has, too."""
    before = [
        (TS, list(video_units(video_times(Fraction(30), 6), 2))),
        (48_000, list(audio_units(6))),
    ]
    after = [
        (TS, list(video_units(video_times(Fraction(30), 8), 2))),
        (48_000, list(audio_units(8 - late_s, start=int(late_s * 48_000)))),
    ]
    for timescale, anew in after:
        anew[0].discontinuity = True
        for unit in anew:
            unit.wallclock_us += 6_000_000
            unit.pts += 50 * timescale
            unit.dts += 50 * timescale
    units = in_order(*before) + in_order(*after)
    made = [u.replaced(track_id=RUNG if u.track_id == 1 else AAC) for u in units]
    outcome = run([video_track(Fraction(30)), audio_track()], units, made, at=by_wallclock)
    assert outcome.rungs.statistics().units_dropped == 0
    assert outcome.starts("a128") == outcome.starts("a0")
    source, rung = outcome.parts("a0"), outcome.parts("a128")
    assert sum(part.duration for part in rung) == sum(part.duration for part in source)


def encode_in_order(units: list[AccessUnit]) -> list[AccessUnit]:
    """As `encode`, of pictures that are in order."""
    return [unit.replaced(track_id=RUNG, payload=b"r" * 9) for unit in units]


def by_wallclock(unit: AccessUnit) -> float:
    return (unit.wallclock_us - EPOCH_US) / 1_000_000


def test_another_configuration_is_announced_before_its_part() -> None:
    tracks, units = source_of()
    made = encode(units)
    for unit in made:
        unit.config_id = int(unit.pts >= 6 * TS)
    outcome = run(tracks, units, made)
    assert outcome.parts("v480")
    # Only a track that is known is taken.
    rungs = outcome.rungs
    rungs.add_track(rung_track(config_id=2, width=640), "v480")
    assert outcome.starts("v480") == outcome.starts("v0")


def test_without_a_source_a_rung_waits_within_bounds() -> None:
    rungs = RungSegmenter(SegmenterConfig(), CmafWriter())
    rungs.add_track(rung_track(), "v480")
    _, units = source_of(seconds=60)
    assert [event for unit in encode(units) for event in rungs.add_unit(unit)] == []
    assert rungs.statistics().units_dropped > 0
    assert rungs.end() == []


def test_a_rung_that_never_comes_costs_nothing() -> None:
    tracks, units = source_of(seconds=3 * STARTS_MAX, gop_s=1)
    outcome = run(tracks, units, [], config=SegmenterConfig(segment_s=1, target_duration_s=2))
    assert not outcome.parts("v480")
    assert not outcome.segments("v480")


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(
    rate=st.sampled_from([24, 25, 30, 60]),
    gop_s=st.sampled_from([1, 1.5, 2, 3, 6]),
    delay_s=st.floats(0, 1.5),
    half=st.booleans(),
    away=st.lists(st.tuples(st.floats(0, 18), st.floats(0.05, 8)), max_size=3),
)
def test_whatever_is_missing_numbers_and_times_are_the_sources(
    rate: int, gop_s: float, delay_s: float, half: bool, away: list[tuple[float, float]]
) -> None:
    tracks, units = source_of(Fraction(rate), seconds=20, gop_s=gop_s)
    made, lost = [], False
    for unit in encode(units, half=half):
        lost |= any(start <= unit.pts / TS < start + length for start, length in away)
        lost &= not unit.random_access or any(
            start <= unit.pts / TS < start + length for start, length in away
        )
        if not lost:
            made.append(unit)  # An encoder that is begun anew begins with random access.
    outcome = run(tracks, units, made, delay_s=delay_s)
    source = outcome.starts("v0")
    for msn, tfdt in outcome.starts("v480").items():
        assert 0 <= tfdt - source[msn] <= 0.25 * TS
    check_parts(outcome, "v480")
    msns = list(outcome.segments("v480"))
    assert msns == list(range(msns[0], msns[0] + len(msns))) if msns else True
