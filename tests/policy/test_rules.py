"""Rules: first match wins, and every mistake in them is found."""

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.media.routing import RULES_MAX, Match, RouteRequest, Rule
from edged.media.stream import PriorityClass
from edged.policy.rules import (
    RULES_BYTES_MAX,
    RuleSet,
    as_known,
    find_problems,
    label,
    shared_tag,
    why_no_match,
)


def request(channel: str = "alice", **values: object) -> RouteRequest:
    fields = {"channel": channel, "protocol": "rtmp", "tags": ("event:x",), **values}
    return msgspec.convert(fields, RouteRequest)


@pytest.mark.parametrize(
    ("match", "holds"),
    [
        (Match(), True),
        (Match(channel="alice"), True),
        (Match(channel="alic"), False),
        (Match(glob="a*e"), True),
        (Match(glob="A*"), False),
        (Match(glob="al"), False),
        (Match(glob="[a-c]l?ce"), True),
        (Match(tag="event:x"), True),
        (Match(tag="event:"), False),
        (Match(class_="basic"), True),
        (Match(class_="partner"), False),
        (Match(pop="lhr"), True),
        (Match(pop="ams"), False),
        (Match(protocol="rtmp"), True),
        (Match(protocol="srt"), False),
        (Match(channel="alice", protocol="srt"), False),
        (Match(channel="alice", tag="event:x", class_="basic", pop="lhr", protocol="rtmp"), True),
    ],
)
def test_every_key_given_must_hold(match: Match, *, holds: bool) -> None:
    rules = RuleSet([Rule(match=match, pin="o1")], "lhr")
    assert (rules.first_match(request()) is not None) is holds


MATCHES = st.builds(
    Match,
    channel=st.sampled_from(["", "", "a", "b"]),
    glob=st.sampled_from(["", "a*", "*"]),
    tag=st.sampled_from(["", "t"]),
    class_=st.sampled_from([None, "basic", "partner"]),
    pop=st.sampled_from(["", "", "lhr", "ams"]),
    protocol=st.sampled_from(["", "rtmp"]),
)


def holds_plainly(match: Match, wanted: RouteRequest) -> bool:
    return (
        match.channel in {"", wanted.channel}
        and (match.glob in {"", "*"} or wanted.channel.startswith("a"))
        and (match.tag == "" or match.tag in wanted.tags)
        and match.class_ in {None, wanted.priority.label}
        and match.pop in {"", "lhr"}
        and match.protocol in {"", wanted.protocol}
    )


@hypothesis.given(
    st.lists(MATCHES, max_size=8),
    st.sampled_from(["a", "b", "ab"]),
    st.sampled_from([(), ("t",)]),
    st.sampled_from(list(PriorityClass)),
)
@hypothesis.settings(max_examples=80, deadline=None)
def test_the_first_that_matches_wins(
    matches: list[Match], channel: str, tags: tuple[str, ...], priority: PriorityClass
) -> None:
    rules = [Rule(name=f"r{n}", match=match) for n, match in enumerate(matches)]
    wanted = RouteRequest(channel=channel, tags=tags, priority=priority, protocol="rtmp")
    found = RuleSet(rules, "lhr").first_match(wanted)
    expected = next((rule for rule in rules if holds_plainly(rule.match, wanted)), None)
    assert found == expected


def test_empty_set_is_false_also_when_all_rules_are_for_other_pops() -> None:
    assert not RuleSet([], "lhr")
    assert not RuleSet([Rule(match=Match(pop="ams"))], "lhr")
    assert RuleSet([Rule(match=Match(channel="x"))], "lhr")


def test_shared_tag_is_the_first_with_the_prefix() -> None:
    assert shared_tag("event:", ("a", "event:x", "event:y")) == "event:x"
    assert shared_tag("event:", ("a",)) is None
    assert shared_tag("", ("a",)) is None


def test_rules_are_named_for_people() -> None:
    assert label(Rule(name="big")) == "big"
    assert label(Rule()) == "every stream"
    assert label(Rule(match=Match(glob="esl-*", class_="partner"))) == "glob=esl-*, class=partner"


def test_rules_read_from_toml() -> None:
    text = """
        name = "esl"
        match = { glob = "esl-*", class = "partner" }
        prefer = ["ams1", "fra1"]
        group_by = "event:"
        max_rtt_ms = 80
    """
    rule = msgspec.toml.decode(text, type=Rule)
    assert rule.match.class_ == "partner"
    assert rule.prefer == ("ams1", "fra1")
    for wrong in ('pinn = "x"', 'match = {chanel = "x"}', "max_rtt_ms = 0"):
        with pytest.raises(msgspec.ValidationError):
            msgspec.toml.decode(wrong, type=Rule)


def test_every_problem_is_found_at_once() -> None:
    rules = [
        Rule(name="same", pin="o1", prefer=("o2",)),
        Rule(name="same", pin="Bad Name"),
        Rule(group_by="e:", anti_affinity="e:"),
        Rule(prefer=("o1", "o2"), avoid=("o2",)),
        Rule(match=Match(channel="a", glob="b*")),
    ]
    assert [problem.split(": ", 1)[0] for problem in find_problems(rules)] == [
        "rules[0] (same)",
        "rules[1] (same)",
        "rules[1] (same)",
        "rules[2] (every stream)",
        "rules[3] (every stream)",
        "rules[4] (channel=a, glob=b*)",
    ]
    assert find_problems([Rule(name="fine", pin="o1")]) == []


def test_limits_at_and_one_past() -> None:
    assert find_problems([Rule()] * RULES_MAX) == []
    assert find_problems([Rule()] * (RULES_MAX + 1)) == ["rules: 1001 rules exceed 1000"]
    wide = Rule(avoid=tuple(f"o{n:062}" for n in range(64)))
    many = [wide] * (RULES_BYTES_MAX // len(msgspec.msgpack.encode(wide)))
    assert find_problems(many) == []
    assert "bytes in all exceed" in find_problems([*many, wide])[0]


def test_why_a_rule_does_not_match_names_the_first_key_that_does_not_hold() -> None:
    match = Match(channel="alice", tag="event:x", class_="basic", pop="lhr", protocol="rtmp")
    rule = Rule(match=match)
    assert why_no_match(rule, request(), "lhr") == ""
    assert why_no_match(rule, request("bob"), "lhr") == "match.channel is 'alice'"
    assert why_no_match(rule, request(tags=()), "lhr") == "match.tag is 'event:x'"
    partner = request(priority=PriorityClass.PARTNER)
    assert why_no_match(rule, partner, "lhr") == "match.class is 'basic'"
    assert why_no_match(rule, request(protocol="srt"), "lhr") == "match.protocol is 'rtmp'"
    assert why_no_match(rule, request(), "ams") == "match.pop is 'lhr'"
    assert why_no_match(Rule(match=Match(glob="b*")), request(), "") == "match.glob is 'b*'"


def test_a_pop_of_before_is_told_what_it_knows() -> None:
    rules = (Rule(name="a", pin="o1"), Rule(name="b", on_full="preempt", dscp="af41", pin="o2"))
    assert as_known(rules, 2) == rules
    assert as_known(rules, 3) == rules
    older = as_known(rules, 1)
    assert older == (rules[0], Rule(name="b", pin="o2"))
    assert older[0] is rules[0]


def test_the_lowest_class_cannot_preempt() -> None:
    (problem,) = find_problems([Rule(match=Match(class_="basic"), on_full="preempt")])
    assert problem == (
        "rules[0] (class=basic): on_full = 'preempt' is of no use to class basic:"
        " there is no lower one"
    )
    assert find_problems([Rule(match=Match(class_="affiliate"), on_full="preempt")]) == []
    assert find_problems([Rule(match=Match(class_="basic"), on_full="source-only")]) == []
