"""Examples of rules: what fails is named, with what was expected and what came."""

import tomllib
from pathlib import Path

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.config import parse_config
from edged.media.routing import Match, Rule
from edged.policy.rule_examples import (
    EXAMPLES_MAX,
    EXAMPLES_PER_RULE_MAX,
    ORIGINS_PER_EXAMPLE_MAX,
    PushedRules,
    RuleEntry,
    RuleExample,
    bare,
    check_examples,
    find_problems,
)

ROOT = Path(__file__).parents[2]


def entry(*examples: RuleExample, **keys: object) -> RuleEntry:
    return RuleEntry(examples=examples, **keys)  # type: ignore[arg-type]


SHOW = Match(channel="show")
EVERYTHING = entry(RuleExample(channel="any"), name="all", avoid=("lab1",))


def problem(*rules: RuleEntry) -> str:
    (found,) = find_problems(rules)
    return found


def test_examples_that_hold_are_no_problem() -> None:
    pinned = entry(
        RuleExample(channel="show"),
        RuleExample(channel="shows", matches=False),
        RuleExample(channel="show", origins=("lhr1", "fra1"), goes_to="fra1"),
        RuleExample(channel="show", origins=("lhr1", "fra1"), full=("fra1",), refused=True),
        RuleExample(channel="other", matches=False, origins=("lab1", "fra1"), goes_to="fra1"),
        match=SHOW,
        pin="fra1",
    )
    assert find_problems([pinned, EVERYTHING]) == []
    assert [(each.rule, each.example) for each in check_examples([pinned, EVERYTHING])] == [
        *((0, number) for number in range(5)),
        (1, 0),
    ]


def test_an_earlier_rule_that_matches_first_is_named() -> None:
    rule = entry(RuleExample(channel="show"), name="show", match=SHOW, pin="fra1")
    assert problem(EVERYTHING, rule) == (
        "rules[1].examples[0] (show): channel 'show' should match, but rules[0] (all) matches first"
    )


def test_what_does_not_hold_is_named_and_what_decides_instead() -> None:
    rule = entry(
        RuleExample(channel="show", class_="partner", tags=("a", "b"), protocol="rtmp", pop="ams1"),
        match=Match(tag="c"),
        pin="fra1",
    )
    assert problem(rule) == (
        "rules[0].examples[0] (tag=c): channel 'show' should match,"
        " but match.tag is 'c'; no rule matches"
    )
    assert problem(rule, EVERYTHING).endswith("but match.tag is 'c'; rules[1] (all) matches")


def test_a_match_that_should_not_be_is_named() -> None:
    rule = entry(RuleExample(channel="show", matches=False), match=Match(glob="s*"), pin="fra1")
    assert problem(rule) == (
        "rules[0].examples[0] (glob=s*): channel 'show' should not match,"
        " but this rule is the first that does"
    )


def test_where_it_goes_instead_is_named_with_the_mechanism() -> None:
    example = RuleExample(channel="show", origins=("lhr1", "fra1"), goes_to="lhr1")
    assert problem(entry(example, prefer=("fra1",))).endswith(
        "channel 'show' should go to lhr1, but goes to fra1 (prefer)"
    )
    example = RuleExample(channel="show", origins=("lhr1",), refused=True)
    assert problem(entry(example, prefer=("fra1",))).endswith(
        "should be refused, but goes to lhr1 (price)"
    )
    example = RuleExample(
        channel="show", origins=("a1", "b1"), rtts_ms=(20.0, 90.0), full=("a1",), goes_to="b1"
    )
    assert problem(entry(example, max_rtt_ms=80.0)).endswith(
        "should go to b1, but is refused (a1: no room by its heartbeats;"
        " b1: farther than the rule's 80 ms)"
    )


def test_what_is_asked_of_full_origins_can_be_tested() -> None:
    full = RuleExample(
        channel="show", class_="partner", origins=("a1",), full=("a1",), goes_to="a1"
    )
    assert "is refused" in problem(entry(full, reserve=True))
    assert find_problems([entry(full, on_full="preempt")]) == []
    assert find_problems([entry(full, on_full="source-only")]) == []


def test_a_rule_of_one_pop_is_tested_there() -> None:
    rule = entry(
        RuleExample(channel="x", pop="ams1"),
        RuleExample(channel="x", pop="lhr1", matches=False),
        RuleExample(channel="x", matches=False),
        match=Match(pop="ams1"),
        pin="fra1",
    )
    assert find_problems([rule]) == []


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"rtts_ms": (1.0,), "origins": ("a1", "b1")}, "rtts_ms has 1 values for 2 origins"),
        ({"origins": ("a1", "a1")}, "origins names one twice"),
        ({"origins": ("a1",), "full": ("b1",)}, "full names 'b1', which is not among origins"),
        ({"origins": ("a1",), "goes_to": "a1", "refused": True}, "give one of them"),
        ({"goes_to": "a1"}, "goes_to and refused need origins"),
        ({"refused": True}, "goes_to and refused need origins"),
        ({"origins": ("a1",), "goes_to": "b1"}, "goes_to 'b1' is not among origins"),
    ],
)
def test_keys_that_contradict_each_other(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RuleExample(channel="x", **keys)  # type: ignore[arg-type]


def test_the_limit_of_examples_and_one_past_it() -> None:
    examples = (RuleExample(channel="x"),) * EXAMPLES_PER_RULE_MAX
    rules = [entry(*examples, name=f"r{n}", match=Match(pop=f"p{n}")) for n in range(31)]
    good = entry(*(RuleExample(channel="x") for _ in range(16)), name="last")
    assert len(examples) * 31 + 16 == EXAMPLES_MAX
    checked = check_examples([*rules, good])
    assert len(checked) == EXAMPLES_MAX
    found = find_problems([*rules, entry(*good.examples, *good.examples[:1], name="last")])
    assert found[0] == f"rules: {EXAMPLES_MAX + 1} examples in all exceed {EXAMPLES_MAX}"


@pytest.mark.parametrize(
    ("kind", "key", "value", "limit"),
    [
        (RuleEntry, "examples", {"channel": "x"}, EXAMPLES_PER_RULE_MAX),
        (RuleExample, "origins", "", ORIGINS_PER_EXAMPLE_MAX),
    ],
)
def test_the_limits_of_one_rule_and_one_example(
    kind: type, key: str, value: object, limit: int
) -> None:
    def read(count: int) -> object:
        values = [value or f"o{n}" for n in range(count)]
        fields = {"channel": "x"} if kind is RuleExample else {}
        return msgspec.convert({**fields, key: values}, kind)

    assert len(getattr(read(limit), key)) == limit
    with pytest.raises(msgspec.ValidationError, match=f"length <= {limit}"):
        read(limit + 1)


def test_examples_stay_out_of_what_is_pushed() -> None:
    rule = entry(RuleExample(channel="x"), name="r", match=SHOW, pin="fra1", on_full="preempt")
    plain = Rule(name="r", match=SHOW, pin="fra1", on_full="preempt")
    assert bare([rule, plain]) == (plain, plain)
    pushed = PushedRules([rule])
    assert pushed.known_by(2) == (plain,)
    assert type(pushed.known_by(2)[0]) is Rule
    assert pushed.known_by(2) is pushed.known_by(9)
    assert pushed.known_by(1) == (Rule(name="r", match=SHOW, pin="fra1"),)
    assert pushed.known_by(1) is pushed.known_by(1)


def test_a_file_whose_examples_fail_is_refused_with_the_place() -> None:
    rule = {
        "name": "show",
        "match": {"channel": "show"},
        "pin": "fra1",
        "examples": [{"channel": "show"}, {"channel": "other"}, {"channel": 5}],
    }
    _, problems = parse_config({"irs": {"listen": "127.0.0.1:0", "rules": [rule]}})
    assert [each.key for each in problems] == ["irs.rules[0].examples[2].channel"]
    rule["examples"] = [{"channel": "show"}, {"channel": "other"}]
    _, problems = parse_config({"irs": {"listen": "127.0.0.1:0", "rules": [rule]}})
    assert [str(each) for each in problems] == [
        "irs.rules[0].examples[1] (show): channel 'other' should match,"
        " but match.channel is 'show'; no rule matches"
    ]


@hypothesis.given(st.text(max_size=20), st.text(max_size=8))
@hypothesis.settings(deadline=None)
def test_any_text_is_an_example(channel: str, glob: str) -> None:
    found = find_problems([entry(RuleExample(channel=channel), match=Match(glob=glob))])
    assert len(found) <= 1


def test_the_example_of_the_readme_holds() -> None:
    text = (ROOT / "README.md").read_text().partition("### Rules of the network")[2]
    raw = tomllib.loads(text.partition("```toml\n")[2].partition("```")[0])
    raw["irs"]["listen"] = "127.0.0.1:0"
    config, problems = parse_config(raw)
    assert problems == []
    assert config is not None
    assert config.irs is not None
    assert len(check_examples(config.irs.rules)) == 1
    raw["irs"]["rules"][0]["examples"][0]["goes_to"] = "fra1"
    assert len(parse_config(raw)[1]) == 1
