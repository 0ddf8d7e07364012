import math
from collections import Counter, defaultdict

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.media.parts import InitSegment, PackagedEvent, Part, Rendition, SegmentEnded, StreamEnded
from edged.policy.segment_ends import HEELS_S, TAIL_S_MAX, SegmentEnds
from edged.policy.segment_rule import SegmenterConfig
from edged.policy.segmenter import Segmenter
from tests.policy.synthetic import (
    RATES,
    CmafWriter,
    as_captured,
    audio_track,
    audio_units,
    video_times,
    video_track,
    video_units,
)
from tests.policy.window_events import ended, init, part, rendition, whole

NAMES = ("v0", "a0")
BEGIN: list[PackagedEvent] = [
    *(rendition(name) for name in NAMES), *(init(name) for name in NAMES)
]  # fmt: skip


def tail(msn: int = 0, index: int = 1, name: str = "v0", ms: int = 67) -> list[PackagedEvent]:
    """A last part and its segment's end."""
    last = part(msn, index, name, duration=ms, ends_segment=True)
    return [last, ended(msn, name, parts=index + 1)]


def begun() -> SegmentEnds:
    """A run of which viewers have the first part, as of the second 10."""
    ends = SegmentEnds()
    assert ends.take([*BEGIN, part(0, 0), part(0, 0, "a0")], 10.0)
    return ends


def test_what_comes_at_a_distance_is_shown_at_once() -> None:
    ends = begun()
    assert ends.take([part(0, 1)], 10.01) == [part(0, 1)], "no segment ends"
    assert ends.take(tail(0, 2), 10.01 + HEELS_S) == tail(0, 2)
    assert ends.due_at == math.inf


def test_what_was_shown_last_of_each_rendition_is_known() -> None:
    assert SegmentEnds().shown == []
    ends = begun()
    assert ends.shown == [("v0", part(0, 0)), ("a0", part(0, 0, "a0"))]
    ends.take([part(0, 1)], 10.2)
    assert ends.shown[0] == ("v0", part(0, 1))


def test_a_tail_on_the_heels_of_a_part_is_held_with_all_behind_it() -> None:
    ends = begun()
    assert ends.take(tail(), 10.02) == []
    assert ends.due_at == 10 + HEELS_S
    behind: list[PackagedEvent] = [init(digest="a" * 16), part(1, 0, discontinuity=True)]
    assert ends.take(behind, 10.03) == []
    assert ends.take([], 10.049) == []
    assert ends.take([], 10 + HEELS_S) == [*tail(), *behind]
    assert ends.due_at == math.inf
    assert ends.take(tail(1, 1), 10 + HEELS_S + 0.01) == [], "on the heels of what was held"


def test_a_tail_is_held_though_its_end_comes_later() -> None:
    last, end = tail()
    ends = begun()
    assert ends.take([last], 10.01) == []
    assert ends.take([end], 10.02) == []
    assert ends.take([part(1, 0)], 10.2) == [last, end, part(1, 0)]


def test_the_other_renditions_are_not_held() -> None:
    ends = begun()
    assert ends.take([*tail(), part(0, 1, "a0")], 10.02) == [part(0, 1, "a0")]
    assert ends.take([part(0, 2, "a0")], 10.04) == [part(0, 2, "a0")]
    assert ends.take(tail(0, 3, "a0"), 10.045) == []
    assert ends.due_at == 10 + HEELS_S, "the first of the two"
    assert ends.take([], 10 + HEELS_S) == tail()
    assert ends.due_at == 10.04 + HEELS_S


def test_what_no_player_takes_for_whole_is_not_held() -> None:
    long = tail(ms=round(TAIL_S_MAX * 1000) + 1)
    assert begun().take(long, 10.02) == long
    assert begun().take(tail(ms=round(TAIL_S_MAX * 1000)), 10.02) == []
    two = [part(0, 1, duration=150), *tail(0, 2, ms=110)]
    assert begun().take(two, 10.02) == two, "players see that more than that is missing"
    two = [part(0, 1, duration=100), *tail(0, 2, ms=100)]
    assert begun().take(two, 10.02) == []
    bare: list[PackagedEvent] = [ended(0, parts=1)]
    assert begun().take(bare, 10.02) == bare, "all its parts are shown"
    assert begun().take(tail(1), 10.02) == tail(1), "nobody has seen a part of it"


def test_a_replay_is_not_held() -> None:
    ends = SegmentEnds()
    assert ends.take([*BEGIN, *tail(), part(1, 0)], 10.0) == [*BEGIN, *tail(), part(1, 0)]
    burst = [*tail(1, 1), part(2, 0), *tail(2, 1), *whole(3)]
    assert ends.take(burst, 10.01) == burst
    ends = begun()
    assert ends.take(tail(), 10.01) == []
    assert ends.take(tail(1, 0), 10.02) == [*tail(), *tail(1, 0)], "a burst: no distance helps"


def test_the_streams_end_ends_the_hold() -> None:
    over = StreamEnded(reason="over")
    ends = begun()
    assert ends.take(tail(), 10.02) == []
    assert ends.take([over], 10.03) == [*tail(), over]
    assert begun().take([*tail(), over], 10.02) == [*tail(), over], "and before any"
    ends = begun()
    ends.take(tail(), 10.02)
    assert ends.let_go() == tail()
    assert ends.due_at == math.inf


@pytest.mark.parametrize("gop_s", [1, 2, 3.3])
@pytest.mark.parametrize("rate", ["25", "29.97", "30", "60"])
def test_nothing_is_held_of_an_ordinary_stream(rate: str, gop_s: float) -> None:
    """Whose sound ends its segments amid a part, some 90 ms behind the part before.

    Not so at 59.94 fps with GOPs of 2 s: some are a frame longer than ten parts.
    """
    segmenter, ends = Segmenter(SegmenterConfig(), CmafWriter()), SegmentEnds()
    video, audio = video_track(RATES[rate]), audio_track()
    segmenter.add_track(video)
    segmenter.add_track(audio)
    units, times = as_captured(
        (video.timescale, 0, video_units(video_times(RATES[rate], 30), gop_s)),
        (audio.timescale, 1024, audio_units(30)),
    )
    count: Counter[str] = Counter()
    for seq, (unit, at) in enumerate(zip(units, times, strict=True)):
        unit.seq = seq
        events = segmenter.add_unit(unit)
        assert ends.take(events, at) == events
        count.update(event.rendition for event in events if isinstance(event, SegmentEnded))
    assert min(count["v0"], count["a0"]) >= 6


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[float, list[PackagedEvent]]]:
    """Two renditions' events in their order, in calls at random moments."""
    queues: dict[str, list[PackagedEvent]] = {}
    for name in NAMES:
        queue = queues[name] = [rendition(name), init(name)]
        for msn in range(draw(st.integers(1, 3))):
            count = draw(st.integers(0, 3))
            queue += [part(msn, index, name, duration=100) for index in range(count)]
            queue += tail(msn, count, name, draw(st.sampled_from([20, 200, 300])))
    calls: list[tuple[float, list[PackagedEvent]]] = []
    now = 0.0
    while any(queues.values()):
        now += draw(st.sampled_from([0.001, 0.02, 0.04, 0.2]))
        events: list[PackagedEvent] = []
        for name in draw(st.permutations(NAMES)):
            taken = draw(st.integers(0, 3)) if len(calls) < MOVES_MAX else len(queues[name])
            events += queues[name][:taken]
            del queues[name][:taken]
        calls.append((now, events))
    return calls


MOVES_MAX = 20


def by_rendition(events: list[PackagedEvent]) -> dict[str, list[PackagedEvent]]:
    result: dict[str, list[PackagedEvent]] = defaultdict(list)
    for event in events:
        if isinstance(event, Rendition):
            result[event.name].append(event)
        elif isinstance(event, InitSegment | Part | SegmentEnded):
            result[event.rendition].append(event)
    return result


@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.large_base_example])
@hypothesis.given(histories())
def test_all_is_shown_in_order_and_no_end_on_the_heels_of_a_part(
    calls: list[tuple[float, list[PackagedEvent]]],
) -> None:
    ends, given, shown = SegmentEnds(), [], []
    parts_at: dict[tuple[str, int], float] = {}

    def see(events: list[PackagedEvent], now: float) -> None:
        shown.extend(events)
        for name, told in by_rendition(events).items():
            parts = [event for event in told if isinstance(event, Part)]
            last = [event for event in parts if event.ends_segment]
            for event in last[:1] if len(last) == 1 else []:
                missing = sum(one.duration for one in parts if one.msn == event.msn)
                if missing <= TAIL_S_MAX * 1000:  # More is a replay, or is seen to be missing.
                    assert now >= parts_at.get((name, event.msn), -math.inf) + HEELS_S
            parts_at.update(((name, event.msn), now) for event in parts)

    for now, events in calls:
        while ends.due_at <= now:
            at = ends.due_at
            due = ends.take([], at)
            assert due, "what is due is shown"
            see(due, at)
        given += events
        see(ends.take(events, now), now)
        assert ends.due_at == math.inf or now < ends.due_at <= now + HEELS_S
    shown += ends.let_go()
    assert by_rendition(shown) == by_rendition(given)
