"""Which streams move next: at the budget's pace, refused ones stay, drains try again."""

import itertools
import math
from collections import Counter

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.media.epochs import DRAINS_MAX
from edged.media.stream import PriorityClass
from edged.policy import rehoming
from edged.policy.rehoming import (
    BUDGET_PER_S_MAX,
    IN_FLIGHT_MAX,
    JOBS_MAX,
    LOOKS_MAX,
    NONE_LEFT,
    NOT_THERE,
    RETRY_S_MAX,
    SAME_NUMBER,
    SETTLED_S,
    TOO_LATE,
    TOO_MANY,
    Due,
    Live,
    Picking,
    Refusal,
    Rehoming,
    Wish,
)

PARTNER, AFFILIATE, BASIC = PriorityClass


def lives(*channels: str, origin: str = "a", priority: PriorityClass = BASIC) -> list[Live]:
    return [Live(channel, origin, priority) for channel in channels]


def started(*wishes: Wish, picks: tuple[Picking, ...] = (), budget_per_s: float = 10.0) -> Rehoming:
    core = Rehoming()
    told = core.migrate(7, wishes, picks, deadline=5.0, budget_per_s=budget_per_s, now=0.0)
    assert told == []
    return core


def test_named_streams_go_one_by_one_at_the_budget_s_pace() -> None:
    core = started(*(Wish(name, "a", "b") for name in "xyz"), budget_per_s=2.0)
    here = lives("x", "y", "z")
    assert core.take_due(here, 0.0) == [Due("x", "a", "b", 7)]
    assert core.take_due(here, 0.4) == []
    assert core.next_timeout() == 0.5
    assert core.take_due(here, 0.5) == [Due("y", "a", "b", 7)]
    assert core.statistics().in_flight == 2
    assert core.statistics().waiting == 1


def test_what_is_refused_is_told_and_tried_no_more() -> None:
    core = started(Wish("x", "a", "b"))
    assert core.take_due(lives("x"), 0.0)
    assert core.settled("x", "full", 0.1) == [Refusal(7, "x", "a", "b", "full")]
    assert core.take_due(lives("x"), 9.0) == []
    assert core.next_timeout() == math.inf
    assert (core.statistics().moved, core.statistics().refused) == (0, 1)


def test_a_named_stream_that_is_not_there_is_told() -> None:
    core = started(Wish("gone", "a", "b"), Wish("elsewhere", "a", "b"), Wish("x", "a", "b"))
    here = lives("x") + lives("elsewhere", origin="c")
    assert core.take_due(here, 0.0) == [Due("x", "a", "b", 7)]
    assert [told.channel for told in core.expire(0.0)] == ["gone", "elsewhere"]
    assert core.settled("x", "", 1.0) == []
    started_again = started(Wish("gone", "a", "b"))
    assert started_again.take_due([], 0.0) == []
    assert started_again.expire(0.0) == [Refusal(7, "gone", "a", "b", NOT_THERE)]


def test_of_a_class_the_pop_picks_others_in_place_of_the_refused() -> None:
    core = started(picks=(Picking("a", "b", BASIC, 2),), budget_per_s=100)
    here = lives("p", priority=PARTNER) + lives("x", "y", "z") + lives("q", origin="c")
    assert [due.channel for due in core.take_due(here, 0.0)] == ["x"]
    assert core.settled("x", "a rule", 0.0) == []
    assert [due.channel for due in core.take_due(here, 0.1)] == ["y"]
    assert [due.channel for due in core.take_due(here, 0.2)] == ["z"]
    assert core.settled("y", "", 0.3) == []
    assert core.settled("z", "full", 0.3) == []
    assert core.take_due(here, 0.4) == []
    (told,) = core.expire(0.4)
    assert told == Refusal(7, "", "a", "b", "full", count=1, priority=BASIC)
    assert core.next_timeout() == math.inf


def test_what_rules_keep_is_passed_over_and_costs_no_turn() -> None:
    core = started(picks=(Picking("a", "b", BASIC, 2),), budget_per_s=2.0)
    here = lives("x", "y", "z")
    asked = []

    def why_not(due: Due) -> str:
        asked.append(due.channel)
        return "" if due.channel == "z" else "a rule"

    assert core.take_due(here, 0.0, why_not=why_not) == [Due("z", "a", "b", 7)]
    assert core.settled("z", "", 0.1) == []
    assert core.take_due(here, 0.5, why_not=why_not) == []
    (told,) = core.expire(0.5)
    assert told == Refusal(7, "", "a", "b", "a rule", count=1, priority=BASIC)
    assert asked == ["x", "y", "z", "z"], "once each, and again of who goes"


def test_what_can_go_anywhere_is_left_for_those_moves_that_others_cannot_make() -> None:
    """`z` alone may go to c, `x` and `y` may go to both: the first of them leaves c alone."""
    picks = (Picking("a", "b", BASIC, 1), Picking("a", "c", BASIC, 1), Picking("a", "d", BASIC, 1))
    core = started(picks=picks)
    may = {"x": "bcd", "y": "cb", "z": "b"}
    here = lives(*may)

    def why_not(due: Due) -> str:
        return "" if due.to_origin in may[due.channel] else "a rule"

    due = [core.take_due(here, now, why_not=why_not) for now in (0.0, 0.1, 0.2)]
    assert due == [[Due("z", "a", "b", 7)], [Due("y", "a", "c", 7)], [Due("x", "a", "d", 7)]]


def test_rules_are_asked_for_the_sake_of_others_so_often_a_turn_and_then_go_on() -> None:
    picks = (Picking("a", "b", BASIC, 2), Picking("a", "c", BASIC, 1))
    core = started(picks=picks)
    here = lives(*(f"s{n:03}" for n in range(2 * LOOKS_MAX)))
    asked = Counter[str]()

    def why_not(due: Due) -> str:
        asked[due.to_origin] += 1
        return "a rule" if (due.to_origin, due.channel) == ("c", here[-1].channel) else ""

    (due,) = core.take_due(here, 0.0, why_not=why_not)
    assert (due.channel, asked.total()) == ("s000", LOOKS_MAX + 1), "it looked no farther"
    for turn in range(1, 5):
        (due,) = core.take_due(here, float(turn), why_not=why_not)
        if due.channel == here[-1].channel:
            break
        core.settled(due.channel, "full", float(turn))
    assert due.channel == here[-1].channel


def test_streams_that_rules_keep_are_passed_over_however_many_they_are() -> None:
    core = started(picks=(Picking("a", "b", BASIC, 1), Picking("a", "c", BASIC, 1)))
    here = lives(*(f"s{n:03}" for n in range(2 * LOOKS_MAX)), "x")
    (due,) = core.take_due(here, 0.0, why_not=lambda due: "" if due.channel == "x" else "a rule")
    assert due.channel == "x"


def test_a_rule_that_forbids_by_now_costs_no_turn() -> None:
    picks = (Picking("a", "b", BASIC, 2), Picking("a", "c", BASIC, 1))
    core, here = started(picks=picks), lives("x", "y", "z")
    assert core.take_due(here, 0.0, why_not=lambda _: "") == [Due("x", "a", "b", 7)]
    forbidden = Due("y", "a", "b", 7)
    due = core.take_due(here, 0.1, why_not=lambda due: "its group" if due == forbidden else "")
    assert due == [Due("z", "a", "b", 7)]


def test_nothing_to_pick_is_told_at_once() -> None:
    core = started(picks=(Picking("a", "b", PARTNER, 3),))
    assert core.take_due(lives("x"), 0.0) == []
    assert core.expire(0.0) == [Refusal(7, "", "a", "b", NONE_LEFT, count=3, priority=PARTNER)]


def test_what_was_moved_is_not_picked_again_so_soon() -> None:
    core = started(Wish("x", "a", "b"))
    core.take_due(lives("x"), 0.0)
    core.settled("x", "", 0.0)
    back = (Picking("b", "a", BASIC, 1),)
    core.migrate(8, (), back, deadline=100.0, budget_per_s=10, now=1.0)
    assert core.take_due(lives("x", origin="b"), 1.0) == []
    assert core.expire(1.0)[0].reason == NONE_LEFT
    core.migrate(9, (), back, deadline=100.0, budget_per_s=10, now=SETTLED_S)
    assert core.take_due(lives("x", origin="b"), SETTLED_S) == [Due("x", "b", "a", 9)]


def test_what_has_not_begun_by_the_deadline_stays() -> None:
    core = started(
        *(Wish(name, "a", "b") for name in "xy"),
        picks=(Picking("a", "b", BASIC, 2),),
        budget_per_s=0.2,
    )
    assert len(core.take_due(lives("x", "y"), 0.0)) == 1
    assert core.take_due(lives("x", "y"), 5.0) == []
    told = core.expire(5.0)
    assert told == [
        Refusal(7, "y", "a", "b", TOO_LATE),
        Refusal(7, "", "a", "b", f"{TOO_LATE}; {NONE_LEFT}", count=2, priority=BASIC),
    ]
    assert core.settled("x", "", 6.0) == []  # What had begun may end.
    assert core.next_timeout() == math.inf


def test_at_the_limits_it_says_so() -> None:
    core = Rehoming()
    for number in range(JOBS_MAX):
        wish = (Wish("x", "a", "b"),)
        assert not core.migrate(number, wish, (), deadline=9.0, budget_per_s=1, now=0.0)
    (told,) = core.migrate(99, wish, (), deadline=9.0, budget_per_s=1, now=0.0)
    assert told.reason == TOO_MANY
    (told,) = core.migrate(1, wish, (), deadline=9.0, budget_per_s=1, now=0.0)
    assert told.reason == SAME_NUMBER
    for number in range(DRAINS_MAX):
        assert core.drain(f"o{number}", until=9, budget_per_s=1, streams=1, now=0.0)
    assert not core.drain("one-more", until=9, budget_per_s=1, streams=1, now=0.0)
    assert core.drain("o1", until=19, budget_per_s=1, streams=1, now=0.0)
    assert core.drained["o1"] == 19


@pytest.mark.parametrize("budget_per_s", [BUDGET_PER_S_MAX, 10 * BUDGET_PER_S_MAX])
def test_no_budget_is_above_what_one_pop_may(budget_per_s: float) -> None:
    core = started(*(Wish(name, "a", "b") for name in "xy"), budget_per_s=budget_per_s)
    assert core.take_due(lives("x", "y"), 0.0)
    assert core.next_timeout() == 1 / BUDGET_PER_S_MAX
    core = Rehoming()
    core.drain("a", until=0.0, budget_per_s=budget_per_s, streams=2, now=0.0)
    assert core.take_due(lives("x", "y"), 0.0)
    assert core.next_timeout() == 1 / BUDGET_PER_S_MAX


def test_no_more_are_under_way_than_may_be() -> None:
    core = Rehoming()
    names = [f"c{number:03}" for number in range(IN_FLIGHT_MAX + 5)]
    core.drain("a", until=1.0, budget_per_s=100, streams=len(names), now=0.0)
    now = 0.0
    begun: list[Due] = []
    while len(begun) < IN_FLIGHT_MAX:
        begun += core.take_due(lives(*names), now)
        now += 0.05
    assert core.take_due(lives(*names), now) == []
    assert core.next_timeout() == math.inf  # Until one is settled.
    core.settled(begun[0].channel, "", now)
    assert len(core.take_due(lives(*names), now)) == 1


def test_a_drain_takes_partners_first_and_spreads_over_half_of_its_time() -> None:
    core = Rehoming()
    here = lives("x", "y") + lives("p", priority=PARTNER) + lives("f", priority=AFFILIATE)
    core.drain("a", until=9.6, lingers_s=8.0, budget_per_s=100, streams=len(here), now=0.0)
    order, times = [], []
    for turn in range(20):
        now = turn * 0.1
        for due in core.take_due(here, now):
            assert (due.from_origin, due.to_origin, due.number) == ("a", "", 0)
            order.append(due.channel)
            times.append(now)
            here = [each for each in here if each.channel != due.channel]
            core.settled(due.channel, "", now)
    assert order == ["p", "f", "x", "y"]
    assert times == pytest.approx([0.0, 0.2, 0.4, 0.6])


def test_a_drain_tries_again_ever_more_seldom_and_tells_once() -> None:
    core = Rehoming()
    core.drain("a", until=1.0, budget_per_s=100, streams=1, now=0.0)
    tried, told, now = [], [], 0.0
    while now < 100:
        for due in core.take_due(lives("x"), now):
            tried.append(now)
            told += core.settled(due.channel, "full", now)
        assert core.next_timeout() > now
        now += 0.25
    assert told == [Refusal(0, "x", "a", "", "full")]
    waits = [after - before for before, after in itertools.pairwise(tried)]
    assert waits[0] < waits[2] < waits[-1] <= RETRY_S_MAX + rehoming.STEP_S_MAX + 0.25
    assert core.undo_drain("a")
    assert not core.undo_drain("a")
    assert core.take_due(lives("x"), 200.0) == []


def test_a_drain_that_is_told_again_keeps_its_pace() -> None:
    core = Rehoming()
    for _ in range(2):
        core.drain("a", until=10.0, budget_per_s=2.0, streams=2, now=0.0)
        due = core.take_due(lives("x", "y"), 0.0)
    assert due == []
    assert len(core.take_due(lives("x", "y"), 0.5)) == 1


@pytest.mark.parametrize("how", ["is gone", "has moved"])
def test_who_comes_back_to_a_drained_origin_is_told_of_anew(how: str) -> None:
    core = Rehoming()
    core.drain("a", until=1.0, budget_per_s=100, streams=1, now=0.0)
    refused = [Refusal(0, "x", "a", "", "full")]
    core.take_due(lives("x"), 0.0)
    assert core.settled("x", "full", 0.0) == refused
    if how == "is gone":
        core.take_due([], 2.0)
    else:
        assert core.take_due(lives("x"), 2.0)
        assert core.settled("x", "", 2.0) == []
        core.take_due(lives("x", origin="b"), 3.0)
    assert core.take_due(lives("x"), 9.0)
    assert core.settled("x", "full", 9.0) == refused


def test_a_drain_that_is_undone_forgets_what_is_in_flight_when_that_is_settled() -> None:
    core = Rehoming()
    core.drain("a", until=1.0, budget_per_s=100, streams=1, now=0.0)
    core.take_due(lives("x"), 0.0)
    core.undo_drain("a")
    assert core.settled("x", "full", 0.1) == [Refusal(0, "x", "a", "", "full")]
    assert core.statistics().in_flight == 0


@hypothesis.given(
    channels=st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from(list(PriorityClass))),
        min_size=1,
        max_size=30,
    ),
    budget=st.floats(0.5, 200),
    counts=st.lists(st.tuples(st.sampled_from(list(PriorityClass)), st.integers(1, 9)), max_size=3),
    answers=st.lists(st.sampled_from(["", "", "full"]), min_size=1, max_size=20),
    drains=st.booleans(),
)
def test_whatever_is_wanted_the_budget_holds_and_all_is_accounted_for(
    channels: list[tuple[str, PriorityClass]],
    budget: float,
    counts: list[tuple[PriorityClass, int]],
    answers: list[str],
    drains: bool,
) -> None:
    core = Rehoming()
    here = {
        f"c{number}": Live(f"c{number}", origin, priority)
        for number, (origin, priority) in enumerate(channels)
    }
    wishes = [Wish(name, "a", "b") for name in list(here)[:5]]
    picks = [Picking("a", "b", priority, count) for priority, count in counts]
    wanted = len(wishes) + sum(count for _, count in counts)
    told = core.migrate(1, wishes, picks, deadline=20.0, budget_per_s=budget, now=0.0)
    if drains:
        core.drain("a", until=10.0, budget_per_s=budget, streams=len(here), now=0.0)
    begun: dict[int, list[float]] = {0: [], 1: []}
    moved, under_way, now = 0, [], 0.0
    for turn in range(3000):
        for due in core.take_due(here.values(), now):
            begun[due.number].append(now)
            under_way.append(due)
            assert here[due.channel].origin == due.from_origin == "a"
        told += core.expire(now)
        assert core.next_timeout() > now
        if under_way and turn % 2:
            due = under_way.pop(0)
            answer = answers[turn % len(answers)]
            if not answer:
                here[due.channel] = Live(due.channel, "b", here[due.channel].priority)
                moved += due.number == 1
            told += core.settled(due.channel, answer, now)
        now += 0.01
    for times in begun.values():
        for at in times:
            in_a_second = [time for time in times if at <= time < at + 0.999]
            assert len(in_a_second) <= max(1, math.ceil(budget))
    assert moved + sum(refusal.count for refusal in told if refusal.number == 1) == wanted
    assert core.statistics().waiting == 0
    if drains and not any(answers) and budget >= 2:
        assert all(live.origin == "b" for live in here.values())


def test_what_an_irs_wanted_is_forgotten_when_another_follows_but_not_what_is_under_way() -> None:
    core = started(*(Wish(name, "a", "b") for name in "xyz"), budget_per_s=2.0)
    assert (
        core.migrate(8, [], [Picking("a", "b", BASIC, 5)], deadline=9, budget_per_s=1, now=0) == []
    )
    here = lives("x", "y", "z")
    assert [due.channel for due in core.take_due(here, 0.0)] == ["x", "y"]
    assert core.forget_migrations() == 6
    assert core.take_due(here, 5.0) == []
    assert core.statistics().waiting == 0
    assert core.statistics().in_flight == 2
    assert core.settled("x", "", 5.1) == []
    assert core.settled("y", "full", 5.1) == [], "no other is tried in its place"
    assert core.next_timeout() == math.inf
    assert core.migrate(7, [Wish("z", "a", "b")], [], deadline=9, budget_per_s=1, now=6) == []
    assert [due.channel for due in core.take_due(here, 6.0)] == ["z"], "the numbers are free again"
