"""Shedding, giving back, and beginning anew."""

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.media.ladder import LadderPlan, VideoRung
from edged.policy.ladder_load import (
    BACKOFF_S_MAX,
    HEALTHY_S,
    RETURN_S_MIN,
    SETTLE_S,
    LoadRule,
    RestartRule,
    Returned,
    Shed,
)


def make_plan(**costs: float) -> LadderPlan:
    rungs = tuple(
        VideoRung(
            name=name,
            track_id=index,
            width=64,
            height=64,
            bitrate_bps=1,
            maxrate_bps=1,
            buffer_bits=1,
            level=20,
            preset="veryfast",
            cost=cost,
        )
        for index, (name, cost) in enumerate(costs.items())
    )
    return LadderPlan(video_track_id=1, video=rungs, decode_cost=10.0)


PLAN = make_plan(big=50.0, middle=20.0, small=5.0)


def test_the_costliest_goes_first_and_the_last_stays() -> None:
    rule = LoadRule(PLAN)
    assert rule.observe(2.0, 0.8, 0.0) is None
    assert rule.observe(2.1, 0.8, 0.0) == Shed(name="big", queue_s=2.1)
    assert (rule.shed, rule.wanted) == (("big",), ("middle", "small"))
    assert rule.observe(4.0, 0.8, SETTLE_S - 0.1) is None, "what is queued is seen through first"
    assert rule.observe(4.0, 0.8, SETTLE_S) == Shed(name="middle", queue_s=4.0)
    assert rule.observe(9.0, 0.8, 100.0) is None
    assert rule.wanted == ("small",)


def test_one_that_catches_up_is_let_catch_up() -> None:
    rule = LoadRule(PLAN)
    assert rule.observe(5.0, 1.2, 0.0) is None
    assert rule.observe(5.0, 0.0, 0.0) is None, "it has not begun"
    assert isinstance(rule.observe(6.1, 1.2, 0.0), Shed)


def test_given_back_when_there_has_been_room_for_a_while() -> None:
    rule = LoadRule(PLAN)
    rule.observe(3.0, 0.9, 0.0)
    assert rule.observe(0.1, 2.0, 5.0) is None, "35 of 85: 2.0 would be 0.82"
    assert rule.observe(0.1, 4.0, 6.0) is None
    assert rule.observe(0.6, 4.0, 10.0) is None, "behind again: the while begins anew"
    assert rule.observe(0.1, 4.0, 11.0) is None
    assert rule.observe(0.1, 4.0, 11.0 + RETURN_S_MIN) == Returned(name="big", factor=4.0)
    assert rule.shed == ()


def test_what_is_shed_again_stays_away_for_longer() -> None:
    rule, now = LoadRule(PLAN), 0.0
    waits: list[float] = []
    for _ in range(4):
        assert isinstance(rule.observe(3.0, 0.9, now), Shed)
        shed_at = now
        while rule.observe(0.0, 9.0, now) is None:
            now += 1.0
        waits.append(now - shed_at)
        now += SETTLE_S
    assert waits == sorted(waits)
    assert waits[3] > 3 * waits[0]


def test_another_plan_keeps_what_is_shed_by_name() -> None:
    rule = LoadRule(PLAN)
    rule.observe(3.0, 0.9, 0.0)
    rule.set_plan(make_plan(big=60.0, small=5.0))
    assert (rule.shed, rule.wanted) == (("big",), ("small",))
    rule.set_plan(make_plan(small=5.0))
    assert rule.shed == ()


@hypothesis.given(
    st.lists(st.tuples(st.floats(0, 20), st.floats(0, 10), st.floats(0, 60)), max_size=100)
)
def test_whatever_comes_each_rung_is_made_or_shed(
    seen: list[tuple[float, float, float]],
) -> None:
    rule, now = LoadRule(PLAN), 0.0
    for queue_s, factor, wait_s in seen:
        now += wait_s
        rule.observe(queue_s, factor, now)
        assert {*rule.shed, *rule.wanted} == {"big", "middle", "small"}
        assert rule.wanted
        assert not set(rule.shed) & set(rule.wanted)


def test_back_off_doubles_and_health_ends_it() -> None:
    rule = RestartRule()
    waits = [rule.note_failure(None, 1.0).after_s for _ in range(8)]
    assert waits[:4] == [0.2, 0.4, 0.8, 1.6]
    assert waits[-1] == BACKOFF_S_MAX
    assert rule.note_failure(None, HEALTHY_S).after_s == pytest.approx(0.2)
    assert rule.failures == 9


def test_a_unit_that_it_fails_at_twice_is_left_out() -> None:
    rule = RestartRule()
    assert not rule.note_failure(7, 1.0).skips_gop
    assert rule.note_failure(7, 1.0).skips_gop
    assert not rule.note_failure(9, 1.0).skips_gop
    assert not rule.note_failure(7, 1.0).skips_gop
    assert not rule.note_failure(None, 1.0).skips_gop
    assert not rule.note_failure(None, 1.0).skips_gop
