import math
from collections import defaultdict

import hypothesis
from hypothesis import strategies as st

from edged.media.parts import InitSegment, PackagedEvent, Part, Rendition, SegmentEnded, StreamEnded
from edged.policy.segment_ends import HOLD_SHARE, SegmentEnds
from tests.policy.window_events import PARTS, ended, init, part, rendition, whole

PART_S = 0.4
HOLD_S = HOLD_SHARE * PART_S
NAMES = ("v0", "a0")
BEGIN: list[PackagedEvent] = [
    *(rendition(name) for name in NAMES), *(init(name) for name in NAMES)
]  # fmt: skip


def begun() -> SegmentEnds:
    """A run of which viewers have the first part, as of the second 10."""
    ends = SegmentEnds()
    assert ends.take([*BEGIN, part(0, 0), part(0, 0, "a0")], 10.0)
    return ends


def test_a_segment_that_ends_in_the_usual_rhythm_is_shown_at_once() -> None:
    ends = begun()
    for index in range(1, PARTS - 1):
        assert ends.take([part(0, index)], 10 + index * PART_S) == [part(0, index)]
    last: list[PackagedEvent] = [part(0, PARTS - 1), ended(0)]
    assert ends.take(last, 10 + (PARTS - 1) * PART_S) == last
    assert ends.due_at == math.inf


def test_a_tail_on_the_heels_of_a_part_is_held_with_all_behind_it() -> None:
    ends = begun()
    tail: list[PackagedEvent] = [part(0, 1, duration=67), ended(0, parts=2, duration=467)]
    assert ends.take(tail, 10.02) == []
    assert ends.due_at == 10 + HOLD_S
    behind: list[PackagedEvent] = [init(digest="a" * 16), part(1, 0, discontinuity=True)]
    assert ends.take(behind, 10.1) == []
    assert ends.take([], 10.29) == []
    assert ends.take([], 10 + HOLD_S) == [*tail, *behind]
    assert ends.due_at == math.inf
    assert ends.take([part(1, 1)], 10.5) == [part(1, 1)]


def test_the_other_renditions_are_not_held() -> None:
    ends = begun()
    tail: list[PackagedEvent] = [part(0, 1), ended(0, parts=2)]
    assert ends.take([*tail, part(0, 1, "a0")], 10.02) == [part(0, 1, "a0")]
    assert ends.take([part(0, 2, "a0")], 10.2) == [part(0, 2, "a0")]
    assert ends.take([part(0, 3, "a0")], 10.31) == [part(0, 3, "a0"), *tail]


def test_what_no_player_can_take_for_whole_is_not_held() -> None:
    two: list[PackagedEvent] = [part(0, 1), part(0, 2), ended(0, parts=3)]
    assert begun().take(two, 10.02) == two, "players see that more than a part is missing"
    late: list[PackagedEvent] = [ended(0, parts=1)]
    assert begun().take(late, 10.02) == late, "all its parts are shown"
    assert begun().take(whole(1), 10.02) == whole(1), "nobody has seen a part of it"


def test_a_replay_is_not_held() -> None:
    replay = [*whole(0), *whole(1), *whole(2), part(3, 0)]
    ends = SegmentEnds()
    assert ends.take([*BEGIN, *whole(0), part(1, 0)], 10) == [*BEGIN, *whole(0), part(1, 0)]
    assert ends.take(replay, 10.01) == replay
    one_end: list[PackagedEvent] = [part(3, 1), ended(3, parts=2)]
    assert ends.take(one_end, 10.02) == []
    assert ends.take(whole(4), 10.03) == [*one_end, *whole(4)], "a burst: no rhythm helps"


def test_the_streams_end_ends_the_hold() -> None:
    ends = begun()
    tail: list[PackagedEvent] = [part(0, 1), ended(0, parts=2)]
    assert ends.take(tail, 10.02) == []
    assert ends.take([StreamEnded(reason="over")], 10.03) == [*tail, StreamEnded(reason="over")]
    ends = begun()
    assert ends.take([*tail, StreamEnded(reason="over")], 10.02)[:2] == tail, "and before any"
    ends = begun()
    ends.take(tail, 10.02)
    assert ends.let_go() == tail
    assert ends.due_at == math.inf


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[float, list[PackagedEvent]]]:
    """Two renditions' events in their order, in calls at random moments."""
    queues: dict[str, list[PackagedEvent]] = {}
    for name in NAMES:
        queue = queues[name] = [rendition(name), init(name)]
        for msn in range(draw(st.integers(1, 3))):
            count = draw(st.integers(1, 4))
            queue += [part(msn, index, name) for index in range(count)]
            queue.append(ended(msn, name, parts=count))
    calls: list[tuple[float, list[PackagedEvent]]] = []
    now = 0.0
    while any(queues.values()):
        now += draw(st.sampled_from([0.001, 0.02, 0.2, 0.4, 1.0]))
        events: list[PackagedEvent] = []
        for name in draw(st.permutations(NAMES)):
            taken = draw(st.integers(1, 4))
            events += queues[name][:taken]
            del queues[name][:taken]
        calls.append((now, events))
    return calls


def by_rendition(events: list[PackagedEvent]) -> dict[str, list[PackagedEvent]]:
    result: dict[str, list[PackagedEvent]] = defaultdict(list)
    for event in events:
        if isinstance(event, Rendition):
            result[event.name].append(event)
        elif isinstance(event, InitSegment | Part | SegmentEnded):
            result[event.rendition].append(event)
    return result


@hypothesis.given(histories())
def test_all_is_shown_in_order_and_nothing_is_held_longer_than_that(
    calls: list[tuple[float, list[PackagedEvent]]],
) -> None:
    ends, given, shown = SegmentEnds(), [], []
    parts_at: dict[tuple[str, int], float] = {}
    for now, events in calls:
        while ends.due_at <= now:
            due = ends.take([], ends.due_at)
            assert due, "what is due is shown"
            shown += due
        before = ends.due_at
        given += events
        now_shown = ends.take(events, now)
        shown += now_shown
        assert ends.due_at == math.inf or now < ends.due_at <= now + HOLD_S
        assert ends.due_at >= before or before == math.inf
        for name, told in by_rendition(now_shown).items():
            done = {event.msn for event in told if isinstance(event, SegmentEnded)}
            added = [event.msn for event in told if isinstance(event, Part)]
            if len(done) == 1 and added.count(msn := done.pop()) == 1 and added[-1] == msn:
                seen_at = parts_at.get((name, msn), -math.inf)
                assert now >= seen_at + HOLD_S, "the last part is on the heels of another"
            parts_at.update(((name, msn), now) for msn in added)
    shown += ends.let_go()
    assert by_rendition(shown) == by_rendition(given)
