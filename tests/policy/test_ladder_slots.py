import math
from collections.abc import Sequence

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.media.ladder import AudioRung, LadderPlan, VideoRung
from edged.media.stream import PriorityClass
from edged.policy.ladder_slots import (
    USUAL_WEIGHT,
    Change,
    Granted,
    LadderSlots,
    Preempted,
    Standing,
    Waiting,
    slots_of,
)

PARTNER, AFFILIATE, BASIC = PriorityClass


def told(changes: Sequence[Change[str]]) -> list[str]:
    words = {Granted: "+", Preempted: "-", Waiting: "?"}
    return [words[type(change)] + change.key for change in changes]


def filled(total: int, *claims: tuple[str, PriorityClass, int]) -> LadderSlots[str]:
    slots = LadderSlots[str](total)
    for claim in claims:
        slots.ask(*claim)
    return slots


def standing(slots: LadderSlots[str], key: str) -> Standing[str]:
    found = slots.standing(key)
    assert found is not None
    return found


def test_what_fits_is_granted_and_what_does_not_waits_with_the_reason() -> None:
    slots = LadderSlots[str](100)
    assert slots.ask("a", BASIC, 60) == [Granted(key="a", cost=60)]
    assert slots.ask("b", BASIC, 50) == [
        Waiting(key="b", before=0, reason="it needs 50 slots of 100; class basic could have 40")
    ]
    assert slots.ask("c", BASIC, 10) == [
        Waiting(key="c", before=1, reason="others of class basic came before it")
    ]
    assert (slots.used, slots.free) == (60, 40)
    assert slots.free_by_class() == (100, 100, 0), "basic ones come after those that wait"
    assert told(slots.give_back("a")) == ["+b", "+c"]


def test_a_ladder_of_a_usual_cost_is_as_those_are_that_there_are() -> None:
    slots = LadderSlots[str](500)
    assert slots.usual_cost(70) == 70
    for number in range(40):
        slots.ask(f"small {number}", BASIC, 10)
    slots.ask("never", BASIC, 501)  # As no slots are for it.
    assert slots.usual_cost(70) == math.ceil((USUAL_WEIGHT * 70 + 40 * 10) / (USUAL_WEIGHT + 40))
    assert LadderSlots[str](50).usual_cost(70) == 50, "none costs more than there is"
    assert LadderSlots[str](0).usual_cost(70) == 1, "being measured"


def test_classes_go_first_in_their_order_and_within_one_who_came_first() -> None:
    slots = filled(
        50, ("p", PARTNER, 50), ("b1", BASIC, 10), ("a", AFFILIATE, 30), ("b2", BASIC, 10)
    )
    assert [standing(slots, key).before for key in ("a", "b1", "b2")] == [0, 1, 2]
    assert told(slots.give_back("p")) == ["+a", "+b1", "+b2"]


def test_a_partner_preempts_the_newest_of_the_lowest_class_and_no_more_than_it_needs() -> None:
    slots = filled(100, ("old", BASIC, 30), ("affiliate", AFFILIATE, 40), ("new", BASIC, 30))
    assert told(slots.ask("partner", PARTNER, 20)) == ["-new", "+partner"]
    assert standing(slots, "new").preempted_by == "partner"
    assert told(slots.ask("second", PARTNER, 40)) == ["-old", "+second"]
    assert told(slots.ask("third", PARTNER, 10)) == ["-affiliate", "+third", "+old"]


def test_one_whose_room_turns_out_not_to_be_needed_is_spared() -> None:
    slots = filled(90, ("large", BASIC, 80), ("small", BASIC, 10))
    assert told(slots.ask("partner", PARTNER, 60)) == ["-large", "+partner"]


def test_nobody_is_preempted_if_even_that_would_not_do() -> None:
    slots = filled(100, ("p", PARTNER, 60), ("b", BASIC, 30))
    assert told(slots.ask("q", PARTNER, 50)) == ["?q"]
    assert standing(slots, "b").holds
    assert told(slots.ask("b2", BASIC, 10)) == ["+b2"], "it has what the partner has no use for"


def test_who_was_preempted_comes_back_when_its_cost_fits_again_and_before_who_came_later() -> None:
    slots = filled(100, ("b", BASIC, 60), ("p", PARTNER, 80), ("later", BASIC, 30))
    assert [standing(slots, key).holds for key in ("b", "p", "later")] == [False, True, False]
    assert told(slots.ask("p", PARTNER, 50)) == [], "50 are free, and it needs 60"
    assert told(slots.ask("p", PARTNER, 40)) == ["+b"]
    assert standing(slots, "b").preempted_by is None
    assert told(slots.give_back("p")) == ["+later"]


def test_a_ladder_that_grows_asks_again() -> None:
    slots = filled(100, ("a", AFFILIATE, 40), ("b", BASIC, 40))
    assert told(slots.ask("a", AFFILIATE, 60)) == [], "there is room"
    assert told(slots.ask("a", AFFILIATE, 70)) == ["-b"]
    assert told(slots.ask("a", AFFILIATE, 101)) == ["-a", "+b"]
    assert standing(slots, "a") == Standing(
        cost=101, holds=False, before=0, preempted_by="a", is_too_large=True
    )
    assert told(slots.ask("a", AFFILIATE, 60)) == ["+a"]


def test_one_that_is_too_large_is_in_nobodys_way() -> None:
    slots = LadderSlots[str](100)
    assert slots.ask("huge", PARTNER, 101) == [
        Waiting(key="huge", before=0, reason="it needs 101 slots of 100 in all")
    ]
    assert told(slots.ask("p", PARTNER, 100)) == ["+p"]
    assert standing(slots, "huge").is_too_large
    assert told(slots.resize(201)) == ["+huge"]


def test_fewer_slots_preempt_the_least_and_more_bring_them_back() -> None:
    slots = filled(100, ("p", PARTNER, 40), ("a", AFFILIATE, 30), ("b", BASIC, 30))
    assert told(slots.resize(75)) == ["-b"]
    assert told(slots.resize(100)) == ["+b"]
    assert told(slots.resize(30)) == ["-b", "-p"], "and 30 is what the affiliate has"
    assert [standing(slots, key).holds for key in "pab"] == [False, True, False]


def test_a_key_that_has_not_asked_is_nobody() -> None:
    slots = LadderSlots[str](1)
    assert slots.give_back("nobody") == []
    assert slots.standing("nobody") is None


def test_a_plan_costs_whole_slots_and_sound_alone_one() -> None:
    video = VideoRung(
        name="120p", track_id=1, width=2, height=2, bitrate_bps=1, maxrate_bps=1, buffer_bits=1,
        level=31, preset="", cost=1.2,
    )  # fmt: skip
    audio = AudioRung(
        name="aac", track_id=2, source_track_id=0, sample_rate=48_000, channels=2, bitrate_bps=1
    )
    assert slots_of(LadderPlan()) == 0
    assert slots_of(LadderPlan(video=(video,), decode_cost=0.9)) == 3
    assert slots_of(LadderPlan(audio=(audio,))) == 1
    assert slots_of(LadderPlan(video=(video,), decode_cost=0.8, audio=(audio,))) == 2


class Shell:
    """Whoever does as the changes say; the model that all is held against."""

    def __init__(self, total: int) -> None:
        self.slots = LadderSlots[int](total)
        self.claims: dict[int, tuple[PriorityClass, int]] = {}
        self.running: set[int] = set()
        self.is_fresh = False

    def do(self, changes: list[Change[int]], *, pruned: bool) -> None:
        seen: set[tuple[type[object], int]] = set()
        for change in changes:
            assert (type(change), change.key) not in seen, "each is said once"
            seen.add((type(change), change.key))
            match change:
                case Granted(key=key, cost=cost):
                    assert key not in self.running
                    assert cost == self.claims[key][1]
                    self.running.add(key)
                case Preempted(key=key, by=by, cost=cost):
                    self.running.remove(key)
                    assert by == key or self.claims[by][0] < self.claims[key][0]
                    if pruned and by != key:
                        assert by in self.running or any(
                            isinstance(each, Granted) and each.key == by for each in changes
                        ), "nobody is preempted in vain"
                        assert cost > self.slots.free, "no more is preempted than is needed"
                case Waiting(key=key):
                    assert key not in self.running
        preempted = {c.key for c in changes if isinstance(c, Preempted)}
        assert not preempted & {c.key for c in changes if isinstance(c, Granted)}
        self.check()

    def check(self) -> None:
        used = sum(self.claims[key][1] for key in self.running)
        assert self.slots.used == used <= self.slots.total
        assert self.slots.free == self.slots.total - used
        standings = {key: self.slots.standing(key) for key in self.claims}
        assert {key for key, each in standings.items() if each and each.holds} == self.running
        counts = self.slots.counts()
        assert counts.holding + counts.waiting == len(self.claims)
        by_class = self.slots.free_by_class()
        for priority in PriorityClass:
            lower = sum(
                self.claims[key][1] for key in self.running if self.claims[key][0] > priority
            )
            queue = [
                cost
                for key, (other, cost) in self.claims.items()
                if other is priority and key not in self.running and cost <= self.slots.total
            ]
            assert not queue or queue[0] > self.slots.free + lower, "the first would fit"
            assert by_class[priority] == (0 if queue else self.slots.free + lower)
        waiting = [
            (priority, key)
            for key, (priority, cost) in self.claims.items()
            if key not in self.running and cost <= self.slots.total
        ]
        for place, (_, key) in enumerate(sorted(waiting)):
            assert standings[key] is not None
            assert standings[key].before == place  # type: ignore[union-attr]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from(PriorityClass), st.integers(1, 120)),
        st.tuples(st.just("change"), st.integers(0, 30), st.integers(1, 120)),
        st.tuples(st.just("end"), st.integers(0, 30), st.just(0)),
        st.tuples(st.just("resize"), st.integers(0, 250), st.just(0)),
    ),
    max_size=60,
)


@hypothesis.given(st.integers(0, 250), STEPS)
def test_whatever_happens_the_rule_holds(
    total: int, steps: list[tuple[str, PriorityClass | int, int]]
) -> None:
    shell = Shell(total)
    for number, (what, which, cost) in enumerate(steps):
        known = list(shell.claims)
        if what == "ask":
            assert isinstance(which, PriorityClass)
            shell.claims[number] = (which, cost)
            shell.do(shell.slots.ask(number, which, cost), pruned=True)
        elif what == "resize":
            shell.do(shell.slots.resize(int(which)), pruned=False)
        elif known:
            key = known[int(which) % len(known)]
            if what == "change":
                shell.claims[key] = (shell.claims[key][0], cost)
                shell.do(shell.slots.ask(key, shell.claims[key][0], cost), pruned=True)
            else:
                del shell.claims[key]
                shell.running.discard(key)
                shell.do(shell.slots.give_back(key), pruned=True)


@hypothesis.given(STEPS)
def test_nobody_waits_for_ever(steps: list[tuple[str, PriorityClass | int, int]]) -> None:
    """When those who hold slots end, one after another, everyone has had its turn."""
    slots, had, fits = LadderSlots[int](100), set[int](), set[int]()
    for number, (what, which, cost) in enumerate(steps):
        if what == "ask":
            assert isinstance(which, PriorityClass)
            had |= {c.key for c in slots.ask(number, which, cost) if isinstance(c, Granted)}
            fits |= {number} if cost <= 100 else set()
    holding = {key for key in fits if standing_of(slots, key)}
    while holding:
        slots.give_back(min(holding))
        holding = {key for key in fits if standing_of(slots, key)}
        had |= holding
    assert had == fits


def standing_of(slots: LadderSlots[int], key: int) -> bool:
    found = slots.standing(key)
    return found is not None and found.holds


def test_a_ladder_that_makes_nothing_asks_for_nothing() -> None:
    with pytest.raises(AssertionError):
        LadderSlots[str](1).ask("a", BASIC, 0)
