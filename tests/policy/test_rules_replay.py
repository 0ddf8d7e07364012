"""Streams of a snapshot placed anew: as PoPs would, and never beyond what origins have."""

import hypothesis
import msgspec
from hypothesis import strategies as st

from edged.media.routing import Match, OriginReport, ReportedState, Rule
from edged.media.stream import PriorityClass
from edged.policy.rules import RuleSet
from edged.policy.rules_replay import Outcome, replay
from edged.policy.rules_snapshot import PopTaken, RulesSnapshot, StreamTaken
from tests.policy.pops_taken import AFFILIATE, BASIC, PARTNER, stream, take

NEAR = {"o1": 5.0, "o2": 20.0}
VIP = Rule(name="vip", match=Match(class_="partner"), on_full="preempt")


def placed(rules: tuple[Rule, ...] | None, *pops: PopTaken) -> dict[str, str]:
    return {each.channel: each.origin for each in replay(RulesSnapshot(pops=pops), rules)}


def one(rules: tuple[Rule, ...] | None, channel: str, *pops: PopTaken) -> Outcome:
    outcomes = replay(RulesSnapshot(pops=pops), rules)
    return next(each for each in outcomes if each.channel == channel)


def test_by_the_rules_in_force_streams_go_where_they_are() -> None:
    rules = (Rule(match=Match(channel="far"), pin="o2"),)
    streams = [stream("far", "o2"), stream("alice", "o1"), stream("bob", "o1")]
    pop = take(streams, NEAR, rules=rules)
    assert placed(None, pop) == {"far": "o2", "alice": "o1", "bob": "o1"}
    outcome = one(None, "far", pop)
    assert (outcome.how, outcome.matched, outcome.rtt_ms) == ("pin", "channel=far", 20.0)
    assert placed((), pop) == {"far": "o1", "alice": "o1", "bob": "o1"}
    assert one((), "far", pop).now_at == "o2"


def test_who_came_first_has_what_there_is() -> None:
    streams = [stream("new", "o2", for_s=1.0), stream("old", "o1", for_s=9.0)]
    pop = take(streams, NEAR, free={"o1": 0, "o2": 0})
    assert placed((), pop) == {"old": "o1", "new": "o2"}
    outcome = one((Rule(pin="o1"),), "new", pop)
    assert (outcome.origin, outcome.matched) == ("", "every stream")
    assert "o1: lease used up; no room by its heartbeats" in outcome.why
    assert "o2: rule pins the stream to o1" in outcome.why


def test_an_origin_that_says_it_has_less_for_partners_keeps_no_reserve() -> None:
    pop = take([stream("a", "o1")], NEAR)
    lie = OriginReport("o1", 1, ReportedState.UP, 10, (1, 5, 5))
    origins = tuple(
        msgspec.structs.replace(each, report=lie) if each.row.origin == "o1" else each
        for each in pop.origins
    )
    assert placed((), msgspec.structs.replace(pop, origins=origins)) == {"a": "o1"}


def test_two_pops_share_what_an_origin_has() -> None:
    here = take([stream("a", "o1", for_s=2.0)], NEAR, free={"o1": 1, "o2": 5}, quota=0)
    there = take(
        [stream("b", "o2"), stream("c", "o2")], NEAR, pop="lhr1", free={"o1": 1, "o2": 5}, quota=0
    )
    outcome = placed((Rule(prefer=("o1",)),), here, there)
    assert sorted(outcome.values()) == ["o1", "o1", "o2"]
    assert outcome["a"] == "o1"


def test_a_stream_that_gives_way_is_placed_again() -> None:
    streams = [
        stream("p", "o2", priority=PARTNER),
        stream("b", "o1", for_s=5.0),
        stream("a", "o1", priority=AFFILIATE, for_s=4.0),
    ]
    full = take(streams, NEAR, free={"o1": 0, "o2": 0})
    assert placed((VIP,), full) == {"p": "o2", "b": "o1", "a": "o1"}
    pinned = Rule(name="vip", match=Match(class_="partner"), on_full="preempt", pin="o1")
    assert placed((pinned,), full) == {"p": "o1", "b": "o2", "a": "o1"}
    assert one((pinned,), "p", full).how == "preempt"
    narrow = take(streams[:2], NEAR, free={"o1": 0, "o2": 0})
    both = (pinned, Rule(max_rtt_ms=10.0))
    outcome = one(both, "b", narrow)
    assert (outcome.origin, outcome.matched) == ("", "every stream")


def test_without_a_ladder_beyond_the_slots() -> None:
    streams = [stream("a", "o1", for_s=2.0), stream("b", "o2"), stream("c", "o2")]
    pop = take(streams, NEAR, free={"o1": 0, "o2": 0}, source_only=1)
    rule = Rule(match=Match(glob="[bc]"), pin="o1", on_full="source-only")
    outcomes = {each.channel: each for each in replay(RulesSnapshot(pops=(pop,)), (rule,))}
    assert (outcomes["b"].origin, outcomes["b"].how) == ("o1", "source-only")
    assert outcomes["c"].origin == ""
    assert "takes no more without a ladder" in outcomes["c"].why


def test_tags_relate_streams_of_several_pops_and_of_those_that_are_not_here() -> None:
    rules = (Rule(group_by="e:"),)
    here = take([stream("a", "o1", tags=("e:1",), for_s=1.0)], NEAR)
    there = take([stream("b", "o2", tags=("e:1",))], {"o2": 5.0, "o1": 20.0}, pop="lhr1")
    outcome = placed(rules, here, there)
    assert outcome["a"] == outcome["b"]
    away = {"x": ("o2", ("e:1",)), "y": ("o1", ())}
    here = take([stream("a", "o1", tags=("e:1",))], NEAR, elsewhere=away)
    assert placed(rules, here) == {"a": "o2"}
    away = {"b": ("o1", ("e:1",))}  # It is in the snapshot itself.
    here = take([stream("a", "o1", tags=("e:1",), for_s=1.0)], NEAR, elsewhere=away)
    first = placed(rules, here, there)["a"]
    here = take([stream("a", "o1", tags=("e:1",), for_s=1.0)], NEAR)
    assert placed(rules, here, there)["a"] == first


def test_an_expired_lease_leaves_it_to_the_price() -> None:
    pop = take([stream("a", "o1")], NEAR, lease_s=0.0)
    assert one(None, "a", pop).how == "price"


STREAMS = st.lists(
    st.builds(
        stream,
        st.sampled_from([f"c{n}" for n in range(12)]),
        st.sampled_from(sorted(NEAR)),
        priority=st.sampled_from(PriorityClass),
        tags=st.sampled_from([(), ("e:1",), ("p:1",)]),
        for_s=st.floats(0, 100),
    ),
    max_size=12,
    unique_by=lambda each: each.request.channel,
)
RULES = st.lists(
    st.builds(
        Rule,
        match=st.builds(
            Match,
            class_=st.sampled_from([None, "partner", "basic"]),
            glob=st.sampled_from(["", "c[0-5]"]),
        ),
        avoid=st.sampled_from([(), ("o1",)]),
        prefer=st.sampled_from([(), ("o2",)]),
        group_by=st.sampled_from(["", "e:"]),
        anti_affinity=st.sampled_from(["", "p:"]),
        max_rtt_ms=st.sampled_from([None, 10.0]),
        on_full=st.sampled_from(["reject", "source-only", "preempt"]),
    ),
    max_size=3,
)


@hypothesis.given(STREAMS, RULES, st.integers(0, 2), st.integers(0, 2), st.integers(0, 1))
@hypothesis.settings(max_examples=60, deadline=None)
def test_each_stream_has_one_outcome_within_rules_and_slots(
    streams: list[StreamTaken], rules: list[Rule], free: int, source_only: int, quota: int
) -> None:
    pop = take(streams, NEAR, free=dict.fromkeys(NEAR, free), source_only=source_only, quota=quota)
    snapshot = RulesSnapshot(pops=(pop,))
    outcomes = replay(snapshot, rules)
    assert outcomes == replay(snapshot, rules), "there is no luck in it"
    assert sorted(each.channel for each in outcomes) == sorted(
        each.request.channel for each in streams
    )
    known = RuleSet(rules, "ams1")
    requests = {each.request.channel: each.request for each in streams}
    for outcome in outcomes:
        rule = known.first_match(requests[outcome.channel]) or Rule()
        if outcome.origin:
            assert outcome.origin not in rule.avoid
            assert rule.max_rtt_ms is None or NEAR[outcome.origin] <= rule.max_rtt_ms
            assert outcome.how not in {"source-only", "preempt"} or outcome.how == rule.asks
        else:
            assert outcome.why
    for name in NEAR:
        there = [each for each in outcomes if each.origin == name]
        beyond = sum(each.how == "source-only" for each in there)
        ours = sum(each.origin == name for each in streams)
        assert beyond <= source_only
        assert len(there) - beyond <= ours + free
    if not any(rule.asks == "preempt" for rule in rules) and not rules:
        assert all(each.origin for each in outcomes) or free + quota == 0
    assert BASIC > AFFILIATE
