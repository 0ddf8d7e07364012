"""While a stream moves, viewers get each part once, and no segment of two encoders."""

import math
from itertools import pairwise

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.media.parts import PackagedEvent, Part, SegmentEnded, SegmentsListed, StreamEnded
from edged.policy.handover import (
    EVENTS_MAX,
    HANDOVER_S_MAX,
    RECENT_MAX,
    SILENT_S_MAX,
    Handover,
)
from tests.policy.window_events import PARTS, ended, init, part, rendition, whole

NAMES = ("v0", "v720p")
NEW = b"made by the new home"


def made(first_msn: int, last_msn: int, *, new: bool = False) -> list[PackagedEvent]:
    """What a home pushes of two renditions: the rung's parts are its own."""
    events: list[PackagedEvent] = []
    for name in NAMES if new else ():
        events += [rendition(name), init(name)]
    for msn in range(first_msn, last_msn + 1):
        for index in range(PARTS):
            for name in NAMES:
                its = {"payload": NEW} if new and name == "v720p" else {}
                events.append(part(msn, index, name, **its))
        events += [ended(msn, name) for name in NAMES]
    return events


def of(event: PackagedEvent, name: str) -> bool:
    return getattr(event, "rendition", getattr(event, "name", "")) == name


def moving(msn: int = 5, index: int = 0, now: float = 10.0) -> Handover:
    """Viewers have the two renditions up to this part."""
    return Handover([(name, part(msn, index, name)) for name in NAMES], now)


def check_shown(
    shown: list[PackagedEvent], first_msn: int, last_msn: int, *, may_mix: bool = False
) -> None:
    for name in NAMES:
        parts = [event for event in shown if isinstance(event, Part) and of(event, name)]
        assert [(event.msn, event.index) for event in parts] == [
            (msn, index) for msn in range(first_msn, last_msn + 1) for index in range(PARTS)
        ]
        ends = [event.msn for event in shown if isinstance(event, SegmentEnded) and of(event, name)]
        assert ends == list(range(first_msn, last_msn + 1))
        for before, after in pairwise(parts if name == "v720p" and not may_mix else []):
            if (before.payload == NEW) != (after.payload == NEW):
                assert after.payload == NEW, "from the new home on it stays"
                assert after.index == 0, "at a segment's beginning"


def test_what_both_make_alike_changes_as_soon_as_the_new_home_has_caught_up() -> None:
    handover = moving(5, 2)
    replay = [rendition("v0"), init("v0"), *whole(4, "v0"), part(5, 0), part(5, 1)]
    assert handover.take_new(replay, 10.0) == []
    shown = handover.take_new([part(5, 2), part(5, 3)], 10.0)
    assert shown == [rendition("v0"), init("v0"), ended(4, "v0"), part(5, 3)]
    assert handover.take_old([part(5, 3), part(5, 4)], 10.1) == [], "the new one brings it"
    assert handover.take_new([part(5, 4)], 10.1) == [part(5, 4)]
    assert not handover.is_over, "of the rung nothing has come"


def test_what_each_encodes_by_itself_changes_where_a_segment_ends() -> None:
    handover = Handover([("v720p", part(5, 0, "v720p"))], 10.0)
    new = [each for each in made(5, 6, new=True) if of(each, "v720p")]
    assert handover.take_new(new[:4], 10.0) == []
    rest: list[PackagedEvent] = [part(5, index, "v720p") for index in range(1, PARTS)]
    assert handover.take_old(rest, 10.1) == rest
    assert handover.take_new(new[4:6], 10.1) == []
    shown = handover.take_old([ended(5, "v720p"), part(6, 0, "v720p")], 10.2)
    assert shown == [ended(5, "v720p"), rendition("v720p"), init("v720p")]
    assert handover.is_over
    assert not handover.is_done
    assert handover.take_new(new[6:], 10.3) == new[8:], "without the rest of 5 and its end"
    assert handover.is_done
    assert handover.due_at == math.inf


def test_the_old_home_goes_on_until_the_new_one_has_caught_up() -> None:
    handover = moving(3, PARTS - 1)
    assert handover.take_new(made(1, 2, new=True), 10.0) == []
    assert handover.take_old(made(4, 5), 10.0) == made(4, 5)
    assert not handover.is_over
    shown = handover.take_new(made(3, 7, new=True), 10.0)
    shown += handover.take_old(made(6, 6), 10.0)
    assert handover.is_over
    check_shown([*made(4, 5), *shown, *handover.take_new(made(8, 8, new=True), 11.0)], 4, 8)


def test_after_the_old_home_has_died_the_source_goes_on_at_once_and_a_rung_soon() -> None:
    handover = moving(5, 2)
    shown = handover.take_new(made(4, 5, new=True), 10.0)
    assert [(e.msn, e.index) for e in shown if isinstance(e, Part) and of(e, "v0")] == [
        (5, 3),
        (5, 4),
    ]
    assert not [event for event in shown if of(event, "v720p")]
    assert handover.due_at == 10 + SILENT_S_MAX
    assert handover.handle_timeout(10.5) == []
    shown = handover.handle_timeout(10 + SILENT_S_MAX)
    assert [(event.msn, event.index) for event in shown if isinstance(event, Part)] == [
        (5, 3),
        (5, 4),
    ]
    assert handover.is_done


def test_an_old_home_that_has_caught_up_again_is_not_silent_when_both_are() -> None:
    """As when the publisher is gone for a while: no reason to mix a segment of two encoders."""
    handover = Handover([("v720p", part(5, 0, "v720p"))], 10.0)
    one, two = (part(5, index, "v720p", payload=NEW) for index in (0, 1))
    handover.take_new([rendition("v720p"), init("v720p"), one, two], 10.1)
    shown = handover.take_old([part(5, 1, "v720p"), part(5, 2, "v720p")], 10.2)
    assert len(shown) == 2
    assert handover.handle_timeout(10.3 + SILENT_S_MAX) == []
    assert handover.due_at == 10.0 + HANDOVER_S_MAX
    handover.take_new([part(5, 2, "v720p", payload=NEW), part(5, 3, "v720p", payload=NEW)], 12.0)
    assert handover.due_at == 12.0 + SILENT_S_MAX


def test_an_old_home_that_goes_on_is_not_silent() -> None:
    handover = moving(5, 0)
    handover.take_new(made(5, 5, new=True), 10.0)
    handover.take_old([part(5, 1, "v720p")], 10.9)
    assert handover.due_at == 10.9 + SILENT_S_MAX
    assert handover.handle_timeout(11.0) == []


def test_it_does_not_last_for_ever() -> None:
    handover = moving(5, 0)
    assert handover.due_at == 10 + HANDOVER_S_MAX
    handover.take_new([rendition("v0"), init("v0"), part(4, 0)], 10.0)
    shown = handover.handle_timeout(10 + HANDOVER_S_MAX)
    assert shown == [rendition("v0"), init("v0")]
    assert handover.is_over
    assert not handover.is_done
    assert handover.force() == []


def test_the_end_of_either_ends_it() -> None:
    end = StreamEnded(reason="publisher left")
    handover = moving()
    handover.take_new([part(6, 0, "v720p")], 10.0)
    assert handover.take_old([part(5, 1), end], 10.0) == [part(5, 1), part(6, 0, "v720p")]
    assert handover.take_new([part(5, 2), end], 10.0) == [part(5, 2), end]
    handover = moving()
    assert handover.take_new([part(5, 1), end], 10.0) == [part(5, 1), end]
    assert handover.is_over
    assert handover.take_old([part(5, 2)], 10.0) == []


def test_what_is_listed_comes_with_its_rendition_and_rungs_of_the_new_home_alone_last() -> None:
    handover = Handover([("v0", part(5, 0))], 10.0)
    listed = SegmentsListed(rendition="v0", oldest_msn=3)
    rung: list[PackagedEvent] = [rendition("v480p"), init("v480p"), part(5, 0, "v480p")]
    assert handover.take_new([rendition("v0"), listed, *rung], 10.0) == []
    assert handover.take_new([part(5, 0)], 10.0) == [rendition("v0"), listed, *rung]
    assert handover.take_new([part(5, 1, "v480p")], 10.0) == [part(5, 1, "v480p")]
    assert handover.take_new([part(5, 0, "v240p")], 10.0) == [part(5, 0, "v240p")]


def test_it_keeps_no_more_than_its_limit() -> None:
    handover = moving()
    shown = handover.take_new([rendition("v0"), init("v0"), part(5, 0)], 10.0)
    assert shown == [rendition("v0"), init("v0")], "which is kept no more"
    kept: list[PackagedEvent] = [part(9, index, "v720p") for index in range(EVENTS_MAX)]
    assert handover.take_new(kept, 10.0) == []
    assert not handover.is_over
    more = part(9, EVENTS_MAX, "v720p")
    assert handover.take_new([more], 10.0) == [*kept, more]
    assert handover.is_over


@pytest.mark.parametrize(("behind", "is_known"), [(RECENT_MAX - 1, True), (RECENT_MAX, False)])
def test_a_new_home_that_is_some_behind_is_compared_with_what_was_shown(
    behind: int, is_known: bool
) -> None:
    handover = Handover([("v0", part(5, 0))], 10.0)
    handover.take_old([part(5, index) for index in range(1, behind + 1)], 10.0)
    following = part(5, behind + 1)
    shown = handover.take_new([part(5, 0), following], 10.1)
    assert shown == ([following] if is_known else [])


def test_a_part_that_is_known_by_name_alone_says_nothing_of_who_made_it() -> None:
    handover = Handover([("v0", part(5, 0, payload=b""))], 10.0)
    assert handover.take_new([part(5, 0), part(5, 1)], 10.0) == []
    assert handover.take_old([part(5, 1)], 10.1) == [part(5, 1)]
    assert handover.take_new([part(5, 2)], 10.1) == [part(5, 2)], "they are alike"


@hypothesis.given(
    starts=st.integers(0, 4),
    lag=st.integers(0, 12),
    lagging=st.integers(0, 8),
    cuts=st.lists(st.integers(1, 9), min_size=1),
    dies_after=st.integers(1, 200),
)
def test_whatever_comes_when_nothing_is_missing(
    starts: int, lag: int, lagging: int, cuts: list[int], dies_after: int
) -> None:
    """The new home begins `starts` segments back, some turns late, and its rung lags behind."""
    handover = moving(9, PARTS - 1)
    for name in NAMES:
        handover.take_old([ended(9, name)], 10.0)
    old = made(10, 22)
    dies = dies_after < len(old)
    old = old[:dies_after]
    new = made(10 - starts, 22, new=True)
    new.sort(key=lambda event: _place(event, lagging))
    shown: list[PackagedEvent] = []
    turn, now = 0, 10.0
    while old or new:
        step = cuts[turn % len(cuts)]
        shown += handover.take_old(old[:step], now)
        old = old[step:]
        if turn >= lag:
            shown += handover.take_new(new[: 2 * step], now)
            new = new[2 * step :]
        turn += 1
        now += 0.01
    if not handover.is_over:
        shown += handover.force()
    check_shown(shown, 10, 22, may_mix=dies)


def _place(event: PackagedEvent, lagging: int) -> float:
    """Where it comes in the order of time, in parts; a stable sort leaves the rest."""
    if not isinstance(event, Part | SegmentEnded):
        return -1.0
    index = event.index if isinstance(event, Part) else PARTS - 0.5
    return float(event.msn * PARTS + index + (lagging if of(event, "v720p") else 0))
