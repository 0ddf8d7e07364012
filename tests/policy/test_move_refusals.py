"""What a PoP would not do is left alone for a while, longer each time, and nothing else is."""

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.policy import move_refusals
from edged.policy.move_refusals import (
    HOLD_S_MAX,
    HOLD_S_MIN,
    MoveRefusals,
    RefusedMove,
    targets_refused,
)
from edged.policy.rehoming import NONE_LEFT, SAME_NUMBER, TOO_LATE, TOO_MANY

MOVE = RefusedMove("lhr/0", "a", "b", "basic")
FORBIDDEN = "rule avoids it"


def test_it_is_held_twice_as_long_each_time_and_then_begins_anew() -> None:
    refusals, now, length_s = MoveRefusals(), 0.0, HOLD_S_MIN
    while length_s < 2 * HOLD_S_MAX:
        refusals.note(MOVE, FORBIDDEN, now)
        held_s = min(length_s, HOLD_S_MAX)
        assert refusals.held(now + held_s - 0.1) == (MOVE,)
        now += held_s
        assert refusals.held(now) == ()
        length_s *= 2
    now += 2 * HOLD_S_MAX
    assert refusals.held(now) == ()
    refusals.note(MOVE, FORBIDDEN, now)
    assert refusals.held(now + HOLD_S_MIN) == ()


def test_it_lasts_when_it_was_refused_again_after_its_hold() -> None:
    refusals = MoveRefusals()
    move = RefusedMove("p/0", "a", "b")
    refusals.note(move, "no session there", 0.0)
    refusals.note(move, "no session there", 1.0)
    assert (refusals.held(2.0), refusals.lasting(2.0)) == ((move,), ())
    refusals.note(move, "no session there", HOLD_S_MIN + 1.0)
    assert refusals.lasting(HOLD_S_MIN + 2.0) == (move,)
    refusals.made("p/0", "a", "b")
    assert refusals.lasting(HOLD_S_MIN + 2.0) == (), "others have made it"
    refusals = MoveRefusals()
    for at in (0.0, HOLD_S_MIN + 1.0):
        refusals.note(move, "no session there", at)
    assert refusals.lasting(4 * HOLD_S_MIN) == (), "it is not held any more"


def test_what_comes_late_of_the_same_plan_counts_once() -> None:
    refusals = MoveRefusals()
    refusals.note(MOVE, FORBIDDEN, 0.0)
    refusals.note(MOVE, FORBIDDEN, 1.0)
    assert refusals.held(HOLD_S_MIN + 0.9) == (MOVE,)
    assert refusals.held(HOLD_S_MIN + 1.0) == ()


def test_what_others_made_meanwhile_is_held_as_for_the_first_time() -> None:
    refusals, now = MoveRefusals(), 0.0
    refusals.made("lhr/0", "a", "b")
    for _ in range(3):
        refusals.note(MOVE, FORBIDDEN, now)
        refusals.made("lhr/0", "a", "b")
        refusals.made("lhr/0", "a", "c")
        assert refusals.held(now + HOLD_S_MIN - 0.1) == (MOVE,), "it is held all the same"
        now += HOLD_S_MIN
        assert refusals.held(now) == ()
    refusals.note(MOVE, FORBIDDEN, now)
    refusals.made("ams/0", "a", "b")
    refusals.note(MOVE, FORBIDDEN, now + HOLD_S_MIN)
    assert refusals.held(now + 3 * HOLD_S_MIN - 0.1) == (MOVE,)


@pytest.mark.parametrize("reason", [TOO_MANY, SAME_NUMBER, f"{TOO_LATE}; {NONE_LEFT}"])
def test_what_was_not_tried_says_nothing(reason: str) -> None:
    refusals = MoveRefusals()
    refusals.note(MOVE, reason, 0.0)
    assert refusals.held(0.0) == ()
    refusals.note(MOVE, f"{TOO_LATE}; {FORBIDDEN}", 0.0)
    assert refusals.held(0.0) == (MOVE,)


def test_of_too_many_the_oldest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(move_refusals, "REFUSALS_MAX", 2)
    refusals = MoveRefusals()
    moves = [RefusedMove("lhr/0", "a", name) for name in ("c", "b", "d")]
    for move in moves[:2]:
        refusals.note(move, NONE_LEFT, 0.0)
    assert refusals.held(0.0) == (moves[1], moves[0]), "in order"
    refusals.note(moves[2], NONE_LEFT, 0.0)
    assert refusals.held(0.0) == (moves[1], moves[2])


@hypothesis.given(
    st.lists(
        st.builds(RefusedMove, *[st.sampled_from("ab")] * 3, st.sampled_from(["", "basic"])),
        max_size=8,
    )
)
def test_by_whom_and_from_where(moves: list[RefusedMove]) -> None:
    found = targets_refused(moves)
    again = {
        RefusedMove(pop, origin, to, class_)
        for (pop, origin), of_class in found.items()
        for class_, targets in of_class.items()
        for to in targets
    }
    assert again == set(moves)
