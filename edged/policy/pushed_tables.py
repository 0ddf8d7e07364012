"""The tables that come of a plan: made in one place, for IRS that pushes them and for a replay.

A table is what its PoP was leased, the rules as far as the PoP knows their keys, and a few numbers.
"""

import hashlib
from collections.abc import Mapping

import msgspec
from msgspec import UNSET, Struct

from edged.media.routing import RoutingTable, Rule, Seconds, Unix
from edged.policy.planner import PopLeases
from edged.policy.rules import as_known

RULES_KEPT = 4  # Sets whose digests are remembered: those in force, as old and new PoPs know them.


class Variant(Struct, frozen=True):
    """What a PoP knows of tables."""

    rules_proto: int
    knows_kept: bool


class Push(Struct, frozen=True, kw_only=True):
    """What all tables of a plan have in common."""

    epoch: int
    version: int
    issued: Unix
    ttl_s: Seconds
    lease_ttl_s: Seconds

    def make_table(
        self, leases: PopLeases, rules: tuple[Rule, ...], variant: Variant
    ) -> RoutingTable:
        """One PoP's; `rules`: as it knows them."""
        return RoutingTable(
            epoch=self.epoch,
            version=self.version,
            issued=self.issued,
            ttl_s=self.ttl_s,
            lease_ttl_s=self.lease_ttl_s,
            rows=leases.rows,
            rules=rules,
            kept=leases.kept if variant.knows_kept else UNSET,
        )


class Pushed(Struct, frozen=True, kw_only=True):
    """A push, and what came of it."""

    push: Push
    rules: tuple[Rule, ...]  # Whole.
    variants: Mapping[str, Variant]  # Of the PoP shards that are pushed a table.
    tables: Mapping[str, RoutingTable]


def make_tables(
    push: Push,
    leases: Mapping[str, PopLeases],
    rules: tuple[Rule, ...],
    variants: Mapping[str, Variant],
) -> dict[str, RoutingTable]:
    """Every table of a push."""
    known: dict[int, tuple[Rule, ...]] = {}
    tables = {}
    for pop, variant in variants.items():
        proto = variant.rules_proto
        if proto not in known:
            known[proto] = as_known(rules, proto)
        tables[pop] = push.make_table(leases[pop], known[proto], variant)
    return tables


def digest_of_rules(rules: tuple[Rule, ...]) -> bytes:
    """The same only for the same rules."""
    return hashlib.sha256(msgspec.msgpack.encode(rules)).digest()[:16]


class TableDigests:
    """Digests of tables, without going through the same rules again for each of them."""

    def __init__(self) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        # By what is the same object: that it is the same one means that it is held here.
        self._rules: dict[int, tuple[tuple[Rule, ...], bytes]] = {}

    def of_rules(self, rules: tuple[Rule, ...]) -> bytes:
        """As `digest_of_rules`."""
        known = self._rules.get(id(rules))
        if known is None:
            known = self._rules[id(rules)] = (rules, digest_of_rules(rules))
            if len(self._rules) > RULES_KEPT:
                del self._rules[next(iter(self._rules))]
        return known[1]

    def of_tables(self, tables: Mapping[str, RoutingTable]) -> bytes:
        """What the tables of two pushes have in common if they are the same, byte for byte."""
        digest = hashlib.sha256()
        for pop, table in sorted(tables.items()):
            digest.update(pop.encode() + b"\0" + self.of_rules(table.rules))
            digest.update(self._encoder.encode(msgspec.structs.replace(table, rules=())))
        return digest.digest()[:16]
