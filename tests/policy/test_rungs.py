"""Several rungs of video, and several audio tracks, through the segmenter."""

import itertools
import random
from fractions import Fraction

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.media.parts import Part
from edged.media.stream import StreamId
from edged.policy.window import StreamWindow
from tests.policy.ladder import Rung, make_ladder, rung_tracks, rung_units
from tests.policy.synthetic import Run, audio_track, audio_units, in_order, segment, video_track
from tests.policy.test_segmenter import check_contiguous, check_part_durations, check_sums

TS = {"v": 90_000, "a": 48_000}


def starts_s(run: Run, name: str) -> dict[int, float]:
    """When each segment's first part is decoded."""
    return {p.msn: p.tfdt / TS[name[0]] for p in run.parts(name) if p.index == 0}


def ladder_run(*rungs: Rung, seconds: float = 13, audio: int = 1) -> Run:
    tracks, units = make_ladder(rungs, seconds, audio)
    return segment(tracks, units)


def check_whole(run: Run, rungs: int) -> None:
    """Nothing of any rung is missing, twice, or out of step in its numbers."""
    for index in range(rungs):
        name = f"v{index}"
        check_contiguous(run, name)
        check_part_durations(run, name)
        check_sums(run, name)
        # The last segment may end before a rung has come to its own key frame.
        assert len(run.segments("v0")) - len(run.segments(name)) <= 1
        assert [e.msn for e in run.segments(name)] == list(range(len(run.segments(name))))


@pytest.mark.parametrize("reorder", [0, 6000])
@pytest.mark.parametrize("gop_s", [1, 2, 4])
def test_aligned_rungs_have_the_same_segments(gop_s: float, reorder: int) -> None:
    rungs = [
        Rung(gop_s=gop_s, reorder=reorder, rate=Fraction(60)),
        Rung(gop_s=gop_s, reorder=reorder),
        Rung(gop_s=gop_s),
    ]
    run = ladder_run(*rungs)
    check_whole(run, 3)
    lengths = [[e.duration for e in run.segments(f"v{index}")] for index in range(3)]
    assert lengths[0] == lengths[1]
    assert lengths[0][1:-1] == lengths[2][1:-1]
    for index in range(3):
        assert all(p.independent for p in run.parts(f"v{index}") if p.index == 0)
    statistics = run.segmenter.statistics()
    assert (statistics.unaligned, statistics.units_dropped) == (0, 0)
    assert statistics.deviation_s == pytest.approx(0, abs=0.001)


@pytest.mark.parametrize("shift", [-1000, -300, 300, 1000])
def test_times_that_are_a_little_off_are_aligned_all_the_same(shift: int) -> None:
    """Millisecond rounding, or encoders that are a third of a frame apart."""
    run = ladder_run(Rung(), Rung(shift=shift))
    check_whole(run, 2)
    assert all(p.independent for p in run.parts("v1") if p.index == 0)
    for msn, start_s in starts_s(run, "v0").items():
        assert starts_s(run, "v1")[msn] == pytest.approx(start_s, abs=0.012)
    assert run.segmenter.statistics().unaligned == 0


@pytest.mark.parametrize("offset_s", [0.5, 1, 1.5])
def test_a_rung_with_key_frames_elsewhere_cuts_at_its_own(offset_s: float) -> None:
    run = ladder_run(Rung(), Rung(offset_s=offset_s))
    check_whole(run, 2)
    # Its first GOP is shorter: where the second one ends is not known yet.
    assert all(p.independent for p in run.parts("v1") if p.index == 0 and p.msn != 1)
    starts = starts_s(run, "v1")
    for msn, start_s in list(starts_s(run, "v0").items())[2:-1]:
        assert starts[msn] - start_s == pytest.approx(offset_s)
    statistics = run.segmenter.statistics()
    assert statistics.unaligned <= 1
    assert statistics.deviation_s == pytest.approx(offset_s)


def test_a_rung_with_key_frames_too_far_away_is_cut_at_the_boundary() -> None:
    """Its first key frame behind a boundary is waited for; then it is known that they are late."""
    run = ladder_run(Rung(), Rung(offset_s=1.9))
    check_whole(run, 2)
    starts = starts_s(run, "v1")
    late = [starts[msn] - start_s for msn, start_s in starts_s(run, "v0").items()]
    assert max(late) < 2 * 7 / 8 + 0.1
    assert late[3:] == pytest.approx([0] * len(late[3:]))
    assert run.segmenter.statistics().unaligned >= 4


@pytest.mark.parametrize(("leading", "following"), [(2, 4), (1, 4), (2, 3), (2, 8), (1.5, 2)])
def test_a_rung_with_longer_gops_stays_in_step(leading: float, following: float) -> None:
    run = ladder_run(Rung(gop_s=leading), Rung(gop_s=following), seconds=25)
    check_whole(run, 2)
    starts = starts_s(run, "v1")
    for msn, start_s in starts_s(run, "v0").items():
        assert -0.1 < starts[msn] - start_s < 2
    assert max(e.duration for e in run.segments("v1")) <= 4.48 * 90_000
    if following == 4:  # Each second one falls together.
        assert starts[10] == starts_s(run, "v0")[10]


@hypothesis.given(st.integers(0, 2**32))
@hypothesis.settings(max_examples=40, deadline=None)
def test_any_ladder_is_whole_and_in_step(seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - replayable, not secret
    rungs = [
        Rung(
            gop_s=rng.choice([0.5, 1, 2, 3, 4, 8]),
            offset_s=rng.choice([0, 0, 0.3, 1, 1.9]),
            rate=Fraction(rng.choice([24, 30, 60])),
            reorder=rng.choice([0, 6000]),
            shift=rng.choice([0, 0, 90, -400]),
        )
        for _ in range(rng.randint(2, 4))
    ]
    run = ladder_run(*rungs, seconds=15, audio=rng.randint(0, 2))
    check_whole(run, len(rungs))
    leading = starts_s(run, "v0")
    for index in range(1, len(rungs)):
        starts = starts_s(run, f"v{index}")
        for msn in list(leading)[1:-1]:
            assert abs(starts[msn] - leading[msn]) < 4.5
    window = StreamWindow(StreamId("c", 1))
    for event in run.events:
        window.add(event)
    assert window.statistics().parts_missing == window.parts_refused == 0


def test_hints_come_true_in_all_rungs() -> None:
    """Once GOPs are known, also where key frames are elsewhere (item 23)."""
    run = ladder_run(Rung(), Rung(reorder=6000), Rung(offset_s=1), Rung(offset_s=1.9), seconds=19)
    for name in ("v0", "v1", "v2", "v3", "a0"):
        parts = run.parts(name)
        known = [p for p in parts if p.msn >= 4]
        wrong = [
            (before.msn, before.index)
            for before, after in itertools.pairwise(known)
            if (before.next_msn, before.next_index) != (after.msn, after.index)
        ]
        assert wrong == [], name


def test_the_lowest_track_leads_and_is_v0_in_whatever_order_tracks_come() -> None:
    tracks, units = make_ladder([Rung(gop_s=2), Rung(gop_s=1)])
    run = segment(list(reversed(tracks)), units)
    assert run.segmenter.leader == "v0"
    assert run.rendition("v0").width == 1920
    assert [e.duration for e in run.segments("v0")][1:-1] == [180_000] * 5


def test_a_rung_that_stops_becomes_gaps_and_the_others_go_on() -> None:
    tracks, units = make_ladder([Rung(), Rung()], seconds=21)
    kept = [u for u in units if u.track_id != 3 or u.dts < 7 * 90_000]
    run = segment(tracks, kept)
    assert [e.duration for e in run.segments("v0")] == [180_000] * 10 + [90_000]
    gaps = [e for e in run.segments("v1") if e.msn > 3]
    assert [e.parts for e in gaps] == [0] * 5, "each is known to be one 5.75 s after the last"
    assert {e.duration for e in gaps} == {180_000}


@pytest.mark.parametrize("stop_s", [6, 6.5, 7, 7.9, 8.03])
@pytest.mark.parametrize("gop_s", [1, 2, 4])
def test_another_rung_leads_when_the_leading_one_stops(stop_s: float, gop_s: float) -> None:
    tracks, units = make_ladder([Rung(gop_s=gop_s), Rung(gop_s=gop_s)], seconds=25)
    kept = [u for u in units if u.track_id != 1 or u.dts < stop_s * 90_000]
    run = segment(tracks, kept)
    assert run.segmenter.leader == "v1"
    check_contiguous(run, "v1")
    assert all(p.independent for p in run.parts("v1") if p.index == 0)
    lengths = [e.duration / 90_000 for e in run.segments("v1")]
    assert lengths[-4:-1] == [max(2, gop_s)] * 3
    assert max(lengths) <= 4.48
    assert len(run.segments("a0")) == len(run.segments("v1"))
    assert run.segments("v0")[-1].parts == 0


def test_a_leading_rung_that_comes_back_follows() -> None:
    tracks, units = make_ladder([Rung(), Rung()], seconds=25)
    kept = [u for u in units if u.track_id != 1 or not 7 <= u.dts / 90_000 < 15]
    run = segment(tracks, kept)
    assert run.segmenter.leader == "v1"
    assert list(starts_s(run, "v0").items())[-5:] == list(starts_s(run, "v1").items())[-5:]
    assert run.segmenter.statistics().discontinuities == 0


def test_a_rung_that_appears_joins_at_the_newest_segment() -> None:
    tracks, units = make_ladder([Rung(), Rung()], seconds=15)
    kept = [u for u in units if u.track_id != 3 or u.dts >= 7 * 90_000]
    late = segment(tracks[:1] + tracks[2:], [])
    for unit in kept:
        if unit.track_id == 3 and not late.parts("v1"):
            late.segmenter.add_track(tracks[1])
        late.events += late.segmenter.add_unit(unit)
    late.events += late.segmenter.end("over")
    starts = starts_s(late, "v1")
    assert min(starts) == 3 or min(starts) == 4
    for msn in list(starts)[1:]:
        assert starts[msn] == starts_s(late, "v0")[msn]


def test_a_rung_that_appears_behind_a_discontinuity_has_its_number() -> None:
    tracks, units = make_ladder([Rung(), Rung()], seconds=17)
    broken = next(u for u in units if u.track_id == 1 and u.dts >= 4 * 90_000)
    broken.discontinuity = True
    kept = [u for u in units if u.track_id != 3 or u.dts >= 9 * 90_000]
    run = segment(tracks, kept)
    assert {part.discontinuity_sequence for part in run.parts("v1")} == {1}
    window = StreamWindow(StreamId("c", 1))
    for event in run.events:
        window.add(event)
    totals = [
        playlist.discontinuity_sequence + sum(entry.discontinuity for entry in playlist.segments)
        for name in ("v0", "v1", "a0")
        if (playlist := window.media_playlist(name)) is not None
    ]
    assert totals == [1, 1, 1]


@pytest.mark.parametrize("changed", [(1, 3, 5), (3,), (5, 1)])
def test_a_new_configuration_is_one_discontinuity_in_all_rungs(changed: tuple[int, ...]) -> None:
    tracks, units = make_ladder([Rung(), Rung(), Rung()])
    for index, track in enumerate(rung_tracks([Rung()] * 3)):
        if track.track_id in changed:
            config = msgspec.structs.replace(track.config, width=800 + index)
            tracks.append(msgspec.structs.replace(track, config=config, config_id=1))
    for unit in units:
        if unit.track_id in changed and unit.dts >= 6 * 90_000:
            unit.config_id = 1
    run = segment(tracks, units)
    assert run.segmenter.statistics().discontinuities == 1
    for name in ("v0", "v1", "v2", "a0"):
        first = [p for p in run.parts(name) if p.discontinuity and p.index == 0]
        # Where the leading rung is past the boundary already it is at the next one.
        msn = 4 if changed == (3,) else 3
        assert [(p.msn, p.discontinuity_sequence) for p in first] == [(msn, 1)], name
        assert {p.discontinuity_sequence for p in run.parts(name) if p.msn >= msn} == {1}


def test_pictures_behind_lost_units_wait_for_their_random_access() -> None:
    """A reader that skipped goes on at the leading rung's key frame; the others' come later."""
    tracks, units = make_ladder([Rung(), Rung(offset_s=1)])
    kept = [u for u in units if not 3.5 <= u.dts / (48_000 if u.track_id == 2 else 90_000) < 6]
    run = segment(tracks, [])
    skipped = False
    for unit in kept:
        if not skipped and unit.track_id == 1 and unit.dts >= 6 * 90_000:
            run.segmenter.skip_units()
            skipped = True
        run.events += run.segmenter.add_unit(unit)
    first = next(p for p in run.parts("v1") if p.discontinuity)
    assert first.independent
    assert first.tfdt == 7 * 90_000
    assert run.segmenter.statistics().units_dropped >= 29


def test_names_and_languages_are_told_and_a_change_of_them_too() -> None:
    english = msgspec.structs.replace(audio_track(), language="en", name="English")
    german = msgspec.structs.replace(audio_track(track_id=4), language="de")
    renamed = msgspec.structs.replace(german, language="de", name="Deutsch", config_id=1)
    units = in_order(
        (90_000, rung_units(0, Rung(), 5)),
        (48_000, audio_units(5)),
        (48_000, audio_units(5, track_id=4)),
    )
    for unit in units:
        unit.config_id = int(unit.track_id == 4 and unit.dts > 3 * 48_000)
    run = segment([video_track(Fraction(30)), english, german, renamed], units)
    assert (run.rendition("a0").language, run.rendition("a0").label) == ("en", "English")
    assert (run.rendition("a1").language, run.rendition("a1").label) == ("de", "Deutsch")
    assert len(run.inits("a1")) == 1
    assert run.segmenter.statistics().discontinuities == 0
    assert [p.msn for p in run.parts("a0")] == [p.msn for p in run.parts("a1")]
    assert all(isinstance(p, Part) for p in run.parts("a1"))
