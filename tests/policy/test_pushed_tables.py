"""Tables of a push: what each PoP knows, and digests that any difference changes."""

import random

import msgspec
import pytest
from msgspec import UNSET

from edged.media.routing import OriginRow, OriginState, RoutingTable, Rule
from edged.policy import pushed_tables
from edged.policy.planner import PopLeases
from edged.policy.pushed_tables import (
    Push,
    TableDigests,
    Variant,
    digest_of_rules,
    make_tables,
)

RULES = (Rule(name="vip", avoid=("ams",), on_full="preempt"),)
PUSH = Push(epoch=7, version=3, issued=1.5, ttl_s=30.0, lease_ttl_s=10.0)
LEASES = PopLeases((OriginRow("ams", "ams:1", OriginState.UP, 5),), {"ams": 2})
NEW, OLD = Variant(2, knows_kept=True), Variant(1, knows_kept=False)


def test_a_pop_gets_what_it_knows() -> None:
    tables = make_tables(PUSH, {"a": LEASES, "b": LEASES, "c": LEASES}, RULES, {"a": NEW, "b": OLD})
    assert tables.keys() == {"a", "b"}
    assert (tables["a"].rules, tables["a"].kept) == (RULES, {"ams": 2})
    assert (tables["b"].rules, tables["b"].kept) == ((Rule(name="vip", avoid=("ams",)),), UNSET)
    assert tables["a"].stamp == (7, 3)
    assert (tables["a"].issued, tables["a"].ttl_s, tables["a"].lease_ttl_s) == (1.5, 30.0, 10.0)


def test_any_difference_is_another_digest() -> None:
    tables = make_tables(PUSH, {"a": LEASES, "b": LEASES}, RULES, {"a": NEW, "b": OLD})
    digest = TableDigests().of_tables(tables)
    again = {pop: msgspec.msgpack.decode(msgspec.msgpack.encode(table), type=RoutingTable)
             for pop, table in reversed(tables.items())}  # fmt: skip
    assert TableDigests().of_tables(again) == digest
    table = tables["a"]
    for change in (
        {"epoch": 8},
        {"version": 4},
        {"issued": 1.6},
        {"ttl_s": 31.0},
        {"lease_ttl_s": 11.0},
        {"rules": RULES * 2},
        {"rules": ()},
        {"rows": ()},
        {"kept": UNSET},
    ):
        other = msgspec.structs.replace(table, **change)
        assert TableDigests().of_tables({**tables, "a": other}) != digest, change
    assert TableDigests().of_tables({"b": tables["a"], "a": tables["b"]}) != digest
    assert TableDigests().of_tables({"a": table}) != digest


def test_digests_of_rules_are_remembered_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Rule, ...]] = []

    def count(rules: tuple[Rule, ...]) -> bytes:
        calls.append(rules)
        return digest_of_rules(rules)

    monkeypatch.setattr(pushed_tables, "digest_of_rules", count)
    digests = TableDigests()
    sets = [tuple(list(RULES) * n) for n in range(1, pushed_tables.RULES_KEPT + 2)]
    for rules in (*sets, *sets[1:]):
        assert digests.of_rules(rules) == digest_of_rules(rules)
    assert len(calls) == len(sets), "one more than is kept, and no other twice"
    order = random.Random(1)  # noqa: S311 - no secret
    for _ in range(50):
        rules = order.choice(sets)
        assert digests.of_rules(rules) == digest_of_rules(rules)
        assert len(digests._rules) <= pushed_tables.RULES_KEPT
