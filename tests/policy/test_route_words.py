"""Decisions and rules in words."""

import pytest

from edged.media.routing import Match, Rule
from edged.policy.route_words import PASSED_MAX, describe_effect, describe_match, explain_choice


def test_each_mechanism_has_its_sentence() -> None:
    assert explain_choice("fra1", "nearest", "", {}) == (
        "fra1 is the nearest origin whose lease has room"
    )
    assert explain_choice("fra1", "pin", "the final", {}) == (
        "fra1 is the only origin that the rule allows (rule 'the final')"
    )
    assert "heartbeats" in explain_choice("fra1", "price", "", {})
    assert "its group" in explain_choice("fra1", "group", "teams", {})
    assert "prefers" in explain_choice("fra1", "prefer", "", {})
    assert "goes on with" in explain_choice("fra1", "incumbent", "", {})
    assert "without a ladder" in explain_choice("fra1", "source-only", "", {})
    assert "of a lower class" in explain_choice("fra1", "preempt", "", {})
    assert explain_choice("fra1", "pin", "", {}, "no ladder there").endswith("; no ladder there")
    assert "chosen by hand" in explain_choice("fra1", "hand", "", {})


def test_what_stood_in_the_way_is_said_up_to_a_limit() -> None:
    passed = {f"o{number}": "lease used up" for number in range(PASSED_MAX)}
    told = explain_choice("fra1", "nearest", "", passed)
    assert told.endswith("; not o3: lease used up")
    told = explain_choice("fra1", "nearest", "", passed | {"last": "link down"})
    assert told.endswith("; not o3: lease used up; nor 1 more")
    assert "last" not in told


@pytest.mark.parametrize(
    ("rule", "does"),
    [
        (Rule(pin="fra1"), "pin to fra1"),
        (Rule(prefer=("a", "b"), avoid=("c",)), "prefer a, b; avoid c"),
        (Rule(group_by="team:", reserve=True), "together by team:; may use the reserve"),
        (Rule(anti_affinity="cam:", max_rtt_ms=20.0), "apart by cam:; at most 20 ms away"),
        (Rule(on_full="preempt"), "in place of a lower class where nothing has room"),
        (
            Rule(on_full="source-only", dscp="af42"),
            "without a ladder where nothing has room; carried as AF42",
        ),
        (Rule(on_full="reject"), "nothing: the nearest with room"),
        (Rule(), "nothing: the nearest with room"),
    ],
)
def test_rules(rule: Rule, does: str) -> None:
    assert describe_effect(rule) == does


def test_matches() -> None:
    assert describe_match(Rule()) == {}
    match = Match(glob="show*", class_="partner")
    assert describe_match(Rule(match=match)) == {"glob": "show*", "class": "partner"}
