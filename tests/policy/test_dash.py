"""Periods and sets of a manifest, from windows fed by hand and from whatever an origin may send."""

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st
from msgspec import Struct

from edged.media.latency import Latency
from edged.media.manifest import Manifest, Period, Representation
from edged.media.parts import PackagedEvent, Part, StreamEnded
from edged.policy.dash import LAG_SEGMENTS_MAX, DashTimeline
from edged.policy.window import StreamWindow
from edged.policy.window_limits import WindowLimits
from edged.policy.window_replay import make_replay
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

NOW_US = 1_700_000_100_000_000
BOTH = ("v0", "a0")


def first_shown(_: bytes, found: Part) -> int:
    """Pictures are presented two frames after they are decoded, sound at once."""
    return 80 if found.rendition.startswith("v") else 0


def both(msn: int, **changes: object) -> list[PackagedEvent]:
    return [*whole(msn, "v0", **changes), *whole(msn, "a0", **changes)]


def make(window: StreamWindow, timeline: DashTimeline | None = None) -> Manifest:
    manifest = (timeline or DashTimeline(first_shown)).make_manifest(window, NOW_US)
    assert manifest is not None
    return manifest


def rungs(period: Period) -> dict[str, Representation]:
    return {each.name: each for one in period.sets for each in one.representations}


def numbers(shown: Representation) -> list[int]:
    return list(range(shown.start_number, shown.start_number + len(shown.segments)))


def test_nothing_before_the_first_whole_segment() -> None:
    timeline = DashTimeline(first_shown)
    window = make_window(names=BOTH)
    assert timeline.make_manifest(window, NOW_US) is None
    feed(window, [part(0, index) for index in range(4)])
    assert timeline.make_manifest(window, NOW_US) is None


def test_one_period_of_pictures_and_sound() -> None:
    window = make_window(both(0), both(1), [part(2, 0)], names=BOTH)
    manifest = make(window)
    (period,) = manifest.periods
    assert period.name == "0"
    assert period.start_us == 1_700_000_000_000_000, "of what is presented first, the sound"
    assert [(one.number, one.kind.value, one.is_aligned) for one in period.sets] == [
        (0, "video", True),
        (1, "audio", True),
    ]
    video, audio = rungs(period)["v0"], rungs(period)["a0"]
    assert video.segments == ((80, 2000), (2080, 2000))
    assert audio.segments == ((0, 2000), (2000, 2000))
    assert (video.presentation_offset, video.start_number) == (0, 0)
    assert video.init_uri == f"v0-{DIGEST}.mp4"
    assert video.media_uri.replace("$Number$", "1") == "v0-1.m4s"
    assert (manifest.update_s, manifest.delay_s, manifest.segment_s_max) == (2.0, 12.0, 4.5)
    assert manifest.depth_s == 30.0
    assert manifest.published_us == NOW_US


def test_the_shape_of_samples_is_the_rungs_own() -> None:
    wide = rendition("v1", sar_num=4, sar_den=3)
    window = make_window(
        [rendition(), init(), wide, init("v1")], whole(0), whole(0, "v1"), names=()
    )
    (period,) = make(window).periods
    told = {name: (each.sar_num, each.sar_den) for name, each in rungs(period).items()}
    assert told == {"v0": (1, 1), "v1": (4, 3)}


def test_the_delay_is_the_class_s_hold_back() -> None:
    window = make_window([rendition(latency=Latency(hold_back_s=20)), init(), *whole(0)], names=())
    assert make(window).delay_s == 20.0


def test_what_all_renditions_have_is_named_and_no_more() -> None:
    window = make_window(both(0), both(1), whole(2, "v0"), names=BOTH)
    (period,) = make(window).periods
    assert numbers(rungs(period)["v0"]) == [0, 1]


def test_a_rung_that_is_away_is_not_named_until_it_is_back() -> None:
    window = make_window(*(whole(0, name) for name in ("v0", "v1")), names=("v0", "v1"))
    timeline = DashTimeline(first_shown)
    assert list(rungs(make(window, timeline).periods[0])) == ["v0", "v1"]
    before = timeline.version(window)
    feed(window, rendition("v1", away=True), *whole(1))
    assert timeline.version(window) != before
    assert list(rungs(make(window, timeline).periods[-1])) == ["v0"]
    feed(window, rendition("v1"), *whole(2), *whole(2, "v1"))
    assert list(rungs(make(window, timeline).periods[-1])) == ["v0", "v1"]
    feed(window, rendition("v0", away=True), rendition("v1", away=True))
    assert list(rungs(make(window, timeline).periods[-1])) == ["v0", "v1"], "all, or none"


def test_who_lags_far_behind_holds_nobody_back() -> None:
    window = make_window(both(0), names=BOTH)
    for msn in range(1, LAG_SEGMENTS_MAX + 2):
        feed(window, whole(msn, "v0"))
    (period,) = make(window).periods
    assert numbers(rungs(period)["v0"]) == list(range(LAG_SEGMENTS_MAX + 2))
    assert numbers(rungs(period)["a0"]) == [0]


def test_a_discontinuity_begins_a_period_that_begins_where_it_does() -> None:
    window = make_window(both(0), names=BOTH)
    jump: dict[str, object] = {"discontinuity_sequence": 1}
    for name in BOTH:
        for index in range(5):
            at = 90_000 + index * 400 + (0 if name == "v0" else 30)
            first = index == 0
            feed(window, part(1, index, name, tfdt=at, discontinuity=first, **jump))
        feed(window, ended(1, name))
    one, two = make(window).periods
    assert (one.name, two.name) == ("0", "1")
    assert two.start_us - one.start_us == 2_000_000
    assert {each.presentation_offset for each in rungs(two).values()} == {90_030}
    assert rungs(two)["v0"].segments == ((90_080, 2000),)
    assert rungs(two)["v0"].start_number == 1
    assert [each.number for each in one.sets] == [each.number for each in two.sets]


def test_another_init_begins_a_period_and_is_named_there() -> None:
    window = make_window(both(0), names=BOTH)
    changed = rendition(codec_string="avc1.4d401f", width=640)
    feed(window, [changed, init("v0", OTHER_DIGEST)], whole(1, init_digest=OTHER_DIGEST))
    feed(window, whole(1, "a0"))
    one, two = make(window).periods
    assert (rungs(one)["v0"].init_uri, rungs(one)["v0"].codecs) == (
        f"v0-{DIGEST}.mp4",
        "avc1.64001f",
    )
    assert (rungs(two)["v0"].init_uri, rungs(two)["v0"].codecs) == (
        f"v0-{OTHER_DIGEST}.mp4",
        "avc1.4d401f",
    )
    assert two.name == "0-1"
    assert rungs(two)["a0"].start_number == 1


def test_absent_media_is_not_named_and_what_follows_has_a_period_of_its_own() -> None:
    window = make_window(both(0), names=BOTH)
    feed(window, whole(1, "v0"), ended(1, "a0", parts=0), both(2), both(3))
    one, two = make(window).periods
    assert numbers(rungs(one)["v0"]) == [0, 1]
    assert numbers(rungs(one)["a0"]) == [0]
    assert numbers(rungs(two)["v0"]) == numbers(rungs(two)["a0"]) == [2, 3]


def test_a_rendition_that_comes_later_begins_no_period() -> None:
    window = make_window(whole(0), names=("v0",))
    timeline = DashTimeline(first_shown)
    make(window, timeline)
    feed(window, [rendition("a0"), init("a0")], both(1), both(2))
    (period,) = make(window, timeline).periods
    assert numbers(rungs(period)["a0"]) == [1, 2]


def test_a_silent_rendition_leaves_pictures_as_they_are() -> None:
    window = make_window(both(0), names=BOTH)
    for msn in range(1, 6):
        feed(window, whole(msn, "v0"), ended(msn, "a0", parts=0))
    (period,) = make(window).periods
    assert numbers(rungs(period)["v0"]) == list(range(6))


def test_rungs_of_a_codec_are_one_set_and_languages_are_their_own() -> None:
    window = make_window(
        [rendition("v0"), init("v0"), rendition("v1", codec_string="avc1.64001e"), init("v1")],
        [rendition("v2", codec_string="hvc1.1.6.L93"), init("v2")],
        [rendition("a0", language="en", channels=2), init("a0")],
        [rendition("a1", language="de", label="Deutsch"), init("a1")],
        *[whole(0, name) for name in ("v0", "v1", "v2", "a0", "a1")],
        names=(),
    )
    (period,) = make(window).periods
    assert [[each.name for each in one.representations] for one in period.sets] == [
        ["v0", "v1"],
        ["v2"],
        ["a0"],
        ["a1"],
    ]
    assert [(one.language, one.label, one.is_main) for one in period.sets[2:]] == [
        ("en", "", True),
        ("de", "Deutsch", False),
    ]


def test_rungs_that_are_not_aligned_are_not_said_to_be() -> None:
    later: list[PackagedEvent] = [part(0, i, "v1", tfdt=i * 400 + 40) for i in range(5)]
    window = make_window(whole(0), later, ended(0, "v1"), names=("v0", "v1"))
    (period,) = make(window).periods
    assert not period.sets[0].is_aligned


def test_without_random_access_at_each_beginning_it_is_not_said() -> None:
    window = make_window(whole(0), whole(1, independent=False))
    (period,) = make(window).periods
    assert not period.sets[0].begins_independent


def test_a_run_that_ended_has_a_length() -> None:
    window = make_window(both(0), both(1), names=BOTH)
    assert make(window).ended_us is None
    window.add(StreamEnded(reason="over"))
    ended_us = make(window).ended_us
    assert ended_us == 1_700_000_000_000_000 + 4_080_000, "the pictures end last"


def test_what_has_left_the_playlist_is_no_longer_named() -> None:
    window = make_window(names=BOTH, limits=WindowLimits(playlist_s=12.0))
    timeline = DashTimeline(first_shown)
    for msn in range(30):
        feed(window, both(msn))
        (period,) = make(window, timeline).periods
        assert (period.name, period.start_us) == ("0", 1_700_000_000_000_000)
        assert rungs(period)["v0"].start_number == window.renditions["v0"].listed[0].entry.msn
    assert all(len(known) <= 8 for known in timeline._segments.values())
    assert len(timeline._periods) == 1


def test_a_version_changes_with_each_whole_segment_and_with_no_part() -> None:
    window = make_window(both(0), both(1), names=BOTH)
    timeline = DashTimeline(first_shown)
    before = timeline.version(window)
    feed(window, [part(2, 0), part(2, 0, "a0")])
    assert timeline.version(window) == before
    feed(window, both(2))
    assert timeline.version(window) != before


class Step(Struct, frozen=True):
    """A segment of both renditions."""

    media: tuple[bool, bool]  # Else absent.
    discontinuity: bool = False
    other_init: bool = False
    asked: bool = True


STEPS = st.lists(
    st.builds(
        Step,
        media=st.tuples(st.booleans(), st.booleans()),
        discontinuity=st.integers(0, 5).map(lambda n: n == 0),
        other_init=st.integers(0, 5).map(lambda n: n == 0),
        asked=st.booleans(),
    ),
    max_size=40,
)


@hypothesis.given(STEPS)
def test_whatever_comes_the_manifest_names_what_there_is(steps: list[Step]) -> None:
    window = make_window(
        both(0), names=BOTH, limits=WindowLimits(playlist_s=12.0, retention_s=40.0)
    )
    for name in BOTH:
        window.add(init(name, OTHER_DIGEST))
    timeline = DashTimeline(first_shown)
    told: dict[str, tuple[int, dict[str, int]]] = {}
    sets: dict[str, int] = {}
    sequence, shift = 0, 0
    for msn, step in enumerate(steps, 1):
        if step.discontinuity:
            sequence, shift = sequence + 1, shift + 7777
        for name, has_media in zip(BOTH, step.media, strict=True):
            for index in range(5) if has_media else ():
                made = part(msn, index, name)
                feed(
                    window,
                    msgspec.structs.replace(
                        made,
                        tfdt=made.tfdt + shift,
                        discontinuity=step.discontinuity and index == 0,
                        discontinuity_sequence=sequence,
                        init_digest=OTHER_DIGEST if step.other_init else DIGEST,
                    ),
                )
            feed(window, ended(msn, name, parts=5 if has_media else 0))
        if step.asked:
            manifest = timeline.make_manifest(window, NOW_US)
            if manifest is not None:
                check(window, manifest, told, sets)


def check(
    window: StreamWindow,
    manifest: Manifest,
    told: dict[str, tuple[int, dict[str, int]]],
    sets: dict[str, int],
) -> None:
    """All that is named is there and as it is told; and what was told before stays."""
    starts = [period.start_us for period in manifest.periods]
    assert starts == sorted(set(starts))
    names = [period.name for period in manifest.periods]
    assert len(names) == len(set(names))
    found: dict[str, list[int]] = {}
    for period in manifest.periods:
        offsets = {name: each.presentation_offset for name, each in rungs(period).items()}
        known_start, known = told.setdefault(period.name, (period.start_us, {}))
        assert known_start == period.start_us
        assert all(known.setdefault(name, value) == value for name, value in offsets.items())
        for one in period.sets:
            for each in one.representations:
                assert sets.setdefault(each.name, one.number) == one.number
                check_representation(window, each)
                found.setdefault(each.name, []).extend(numbers(each))
    for name, listed in found.items():
        entries = {s.entry.msn: s.entry for s in window.renditions[name].listed}
        whole_ones = [m for m, entry in entries.items() if not entry.gap and entry.complete]
        assert listed == whole_ones


def check_representation(window: StreamWindow, each: Representation) -> None:
    times = [time for time, _ in each.segments]
    assert times == sorted(set(times))
    for (time, length), following in zip(each.segments, times[1:], strict=False):
        assert time + length == following, "no hole in a period"
    for number in numbers(each):
        assert window.segment(each.name, number) is not None
        segment = window.renditions[each.name].segments[number]
        assert each.init_uri == f"{each.name}-{segment.init_digest}.mp4"


@pytest.mark.parametrize("times", [1, 2])
def test_a_clock_that_was_set_back_does_not_turn_periods_round(times: int) -> None:
    window = make_window(both(0), names=BOTH)
    for msn in range(1, times + 1):
        early = 1_600_000_000_000_000 - msn
        changes = {"discontinuity_sequence": msn, "wallclock_us": early}
        for name in BOTH:
            for index in range(5):
                feed(window, part(msn, index, name, discontinuity=index == 0, **changes))
            feed(window, ended(msn, name))
    starts = [period.start_us for period in make(window).periods]
    assert starts == [1_700_000_000_000_000 + n * 1000 for n in range(times + 1)]


def test_a_place_that_came_late_says_the_same() -> None:
    """Of segments that are still at an origin, too, before and after they were on its disk."""
    limits = WindowLimits(playlist_s=60.0, retention_s=100.0, payload_bytes_max=2**30)
    early = make_window(names=("v0", "a0"), limits=limits)
    timeline = DashTimeline(first_shown)
    for msn in range(20):
        if msn == 12:
            feed(early, init(digest=OTHER_DIGEST))
        digest = OTHER_DIGEST if msn >= 12 else DIGEST
        feed(early, whole(msn, init_digest=digest), whole(msn, "a0"))
        made = make(early, timeline)
    for msn in range(5):
        early.renditions["v0"].store(msn)
    late = StreamWindow(early.stream_id, limits)
    feed(late, make_replay(early, lists=True, cold=True))
    assert list(late.renditions["v0"].away) == list(range(13))
    assert make(late) == made
