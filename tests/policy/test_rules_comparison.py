"""A change of rules in figures: per rule, per origin, who moves and who would be refused."""

import pytest
from msgspec import structs

from edged.media.routing import Match, Rule
from edged.policy.rules_comparison import (
    AGE_S_MAX,
    Moved,
    OriginLoad,
    RuleEffect,
    Totals,
    compare,
)
from edged.policy.rules_snapshot import RulesSnapshot
from tests.policy.pops_taken import PARTNER, stream, take

NEAR = {"o1": 5.0, "o2": 20.0}
OLD = (Rule(name="show", match=Match(channel="show"), pin="o1"), Rule(name="lab", avoid=("lab1",)))
STREAMS = [
    stream("show", "o1", priority=PARTNER, for_s=9.0),
    stream("alice", "o1", for_s=5.0),
    stream("bob", "o1", for_s=4.0),
]


def test_what_changes_is_told_in_full() -> None:
    snapshot = RulesSnapshot(pops=(take(STREAMS, NEAR, rules=OLD),))
    new = (
        Rule(name="show", match=Match(channel="show"), pin="o2"),
        Rule(name="bobs", match=Match(glob="bob*"), pin="gone"),
    )
    found = compare(snapshot, new)
    asked = {"source-only": 0, "preempt": 0}
    assert found.before == Totals(
        streams=3, served=3, refused=0, rtt_ms=5.0, rtt_ms_max=5.0, asked=asked
    )
    assert found.after == Totals(
        streams=3, served=2, refused=1, rtt_ms=12.5, rtt_ms_max=20.0, asked=asked
    )
    assert found.as_it_is == 3
    assert found.rules == [
        RuleEffect(rule="show", before=1, after=1),
        RuleEffect(rule="bobs", before=None, after=1),
        RuleEffect(rule="lab", before=2, after=None),
        RuleEffect(rule="", before=0, after=1),
    ]
    assert found.origins == [
        OriginLoad(origin="o1", now=3, before=3, after=1),
        OriginLoad(origin="o2", now=0, before=0, after=1),
    ]
    assert found.moved == [
        Moved(
            pop="ams1",
            channel="show",
            priority="partner",
            before="o1",
            after="o2",
            matched_before="show",
            matched_after="show",
            why="pin",
        )
    ]
    (refused,) = found.refused
    assert (refused.channel, refused.before, refused.after) == ("bob", "o1", "")
    assert "gone: pinned to it, but it is not in the table" in refused.why
    assert found.is_worse
    assert found.notes == ["rules[1] (bobs) names gone, which is in no PoP's table"]


def test_the_same_rules_change_nothing() -> None:
    found = compare(RulesSnapshot(pops=(take(STREAMS, NEAR, rules=OLD),)), OLD)
    assert found.before == found.after
    assert (found.moved, found.refused, found.is_worse) == ([], [], False)
    assert found.notes == ["rules[1] (lab) names lab1, which is in no PoP's table"]


def test_who_would_be_served_where_it_was_refused_is_no_problem() -> None:
    old = (Rule(name="far", max_rtt_ms=1.0),)
    found = compare(RulesSnapshot(pops=(take(STREAMS, NEAR, rules=old),)), ())
    assert (found.before.served, found.after.served) == (0, 3)
    assert found.before.rtt_ms is None
    assert {each.before for each in found.moved} == {""}
    assert not found.is_worse


def test_what_was_beyond_the_snapshots_limit_is_noted() -> None:
    whole = take(STREAMS, NEAR, elsewhere={"zoe": ("o1", ("e:1",))})
    assert compare(RulesSnapshot(pops=(whole,)), []).notes == []
    count = len(STREAMS)
    part = structs.replace(whole, streams_total=count + 1, elsewhere_total=2)
    assert compare(RulesSnapshot(pops=(part,)), []).notes == [
        f"PoP ams1: {count} of its {count + 1} streams",
        "PoP ams1: 1 of 2 streams of other PoPs, which count by their tags",
    ]


def test_what_limits_the_comparison_is_noted() -> None:
    pop = take(STREAMS, NEAR, lease_s=0.0, at=39.0, rules=OLD)
    other = take([], NEAR, pop="lhr1", at=100.0)
    found = compare(
        RulesSnapshot(pops=(pop, other)), [Rule(name="x", match=Match(pop="fra1"), prefer=("o1",))]
    )
    assert found.ages_s == {"ams1": 61.0, "lhr1": 0.0}
    assert found.notes == [
        "rules[0] (x) is for PoP fra1, which is not in the snapshot",
        "the PoPs do not all have the same rules in force",
        "PoP ams1: 61 s older than the newest",
        "PoP ams1: its lease had expired, so price decides",
    ]


@pytest.mark.parametrize(("age_s", "is_noted"), [(AGE_S_MAX, False), (AGE_S_MAX + 1, True)])
def test_pops_that_were_asked_at_one_time_show_one_network(age_s: float, is_noted: bool) -> None:
    pops = (take([], NEAR, pop="ams1", at=1000.0 - age_s), take([], NEAR, pop="lhr1", at=1000.0))
    assert bool(compare(RulesSnapshot(pops=pops), ()).notes) is is_noted


def test_an_empty_network_is_no_problem() -> None:
    found = compare(RulesSnapshot(pops=()), OLD)
    assert found.before.streams == 0
    assert not found.is_worse
