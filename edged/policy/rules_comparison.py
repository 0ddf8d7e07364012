"""A change of rules, by what it would do to the streams of a snapshot: counts, moves, refusals."""

import math
from collections import Counter
from collections.abc import Sequence

from msgspec import Struct

from edged.media.routing import Rule
from edged.policy.rules import RuleSet, label
from edged.policy.rules_replay import Outcome, replay
from edged.policy.rules_snapshot import RulesSnapshot

AGE_S_MAX = 60.0  # Between PoPs of a snapshot; beyond it they hardly show one network.
ASKED = ("source-only", "preempt")


class RuleEffect(Struct, frozen=True, kw_only=True):
    """How many streams meet a rule; None: it is not among those rules."""

    rule: str
    before: int | None
    after: int | None


class OriginLoad(Struct, frozen=True, kw_only=True):
    """Streams at an origin: where they are, and where each set of rules would put them."""

    origin: str
    now: int
    before: int
    after: int


class Totals(Struct, frozen=True, kw_only=True):
    """What one set of rules does."""

    streams: int
    served: int
    refused: int
    rtt_ms: float | None  # Mean over those served whose RTT is known.
    rtt_ms_max: float | None
    asked: dict[str, int]  # Taken as nothing had room: "source-only", "preempt".


class Moved(Struct, frozen=True, kw_only=True):
    """A stream that the other rules would put elsewhere, or refuse, or take."""

    pop: str
    channel: str
    priority: str
    before: str  # Origins; "" = refused.
    after: str
    matched_before: str
    matched_after: str
    why: str  # How it is chosen, or why it is refused, by the rules to be.


class Comparison(Struct, frozen=True, kw_only=True):
    """What `edged rules check --against` shows."""

    pops: list[str]
    ages_s: dict[str, float]  # Of each PoP's part of the snapshot, to the newest.
    before: Totals
    after: Totals
    as_it_is: int  # Streams that the rules in force would put where they are.
    rules: list[RuleEffect]
    origins: list[OriginLoad]
    moved: list[Moved]
    refused: list[Moved]  # By the rules to be, and not by those in force.
    notes: list[str]

    @property
    def is_worse(self) -> bool:
        """Whether a stream that is served by the rules in force would be refused."""
        return bool(self.refused)


def compare(snapshot: RulesSnapshot, rules: Sequence[Rule]) -> Comparison:
    """Say what these rules would do in place of those in force at each PoP."""
    before, after = replay(snapshot), replay(snapshot, rules)
    changes = [
        _describe(old, new)
        for old, new in zip(before, after, strict=True)
        if old.origin != new.origin
    ]
    newest = max((pop.at for pop in snapshot.pops), default=0.0)
    return Comparison(
        pops=[pop.key for pop in snapshot.pops],
        ages_s={pop.key: round(newest - pop.at, 1) for pop in snapshot.pops},
        before=_add_up(before),
        after=_add_up(after),
        as_it_is=sum(old.origin == old.now_at for old in before),
        rules=_count_rules(snapshot, rules),
        origins=_count_origins(snapshot, before, after),
        moved=[change for change in changes if change.after],
        refused=[change for change in changes if not change.after],
        notes=_find_notes(snapshot, rules),
    )


def _add_up(outcomes: Sequence[Outcome]) -> Totals:
    served = [outcome for outcome in outcomes if outcome.origin]
    rtts = [outcome.rtt_ms for outcome in served if outcome.rtt_ms is not None]
    return Totals(
        streams=len(outcomes),
        served=len(served),
        refused=len(outcomes) - len(served),
        rtt_ms=round(math.fsum(rtts) / len(rtts), 2) if rtts else None,
        rtt_ms_max=round(max(rtts), 2) if rtts else None,
        asked={how: sum(outcome.how == how for outcome in served) for how in ASKED},
    )


def _describe(old: Outcome, new: Outcome) -> Moved:
    return Moved(
        pop=new.pop,
        channel=new.channel,
        priority=new.priority.label,
        before=old.origin,
        after=new.origin,
        matched_before=old.matched,
        matched_after=new.matched,
        why=new.how or new.why,
    )


def _count_rules(snapshot: RulesSnapshot, rules: Sequence[Rule]) -> list[RuleEffect]:
    """In the order of the rules to be; then those that would be gone, and the streams of none."""
    before, after = Counter[str](), Counter[str]()
    gone: dict[str, None] = {}
    for pop in snapshot.pops:
        old, new = RuleSet(pop.rules, pop.pop), RuleSet(rules, pop.pop)
        gone |= dict.fromkeys(map(label, pop.rules))
        for stream in pop.streams:
            for known, counts in ((old, before), (new, after)):
                rule = known.first_match(stream.request)
                counts["" if rule is None else label(rule)] += 1
    names = dict.fromkeys(map(label, rules))
    return [
        *(
            RuleEffect(rule=name, before=before[name] if name in gone else None, after=after[name])
            for name in names
        ),
        *(
            RuleEffect(rule=name, before=before[name], after=None)
            for name in gone
            if name not in names
        ),
        RuleEffect(rule="", before=before[""], after=after[""]),
    ]


def _count_origins(
    snapshot: RulesSnapshot, before: Sequence[Outcome], after: Sequence[Outcome]
) -> list[OriginLoad]:
    now = Counter(outcome.now_at for outcome in before)
    old, new = (Counter(outcome.origin for outcome in each) for each in (before, after))
    listed = {origin.row.origin for pop in snapshot.pops for origin in pop.origins}
    return [
        OriginLoad(origin=name, now=now[name], before=old[name], after=new[name])
        for name in sorted(listed | set(now))
    ]


def _find_notes(snapshot: RulesSnapshot, rules: Sequence[Rule]) -> list[str]:
    """What is hardly meant, or limits what the comparison can say."""
    notes = []
    listed = {origin.row.origin for pop in snapshot.pops for origin in pop.origins}
    pops = {pop.pop for pop in snapshot.pops}
    for index, rule in enumerate(rules):
        where = f"rules[{index}] ({label(rule)})"
        named = dict.fromkeys((*((rule.pin,) if rule.pin else ()), *rule.prefer, *rule.avoid))
        if strange := [name for name in named if name not in listed]:
            notes.append(f"{where} names {', '.join(strange)}, which is in no PoP's table")
        if rule.match.pop and rule.match.pop not in pops:
            notes.append(f"{where} is for PoP {rule.match.pop}, which is not in the snapshot")
    if any(pop.rules != snapshot.pops[0].rules for pop in snapshot.pops):
        notes.append("the PoPs do not all have the same rules in force")
    newest = max((pop.at for pop in snapshot.pops), default=0.0)
    for pop in snapshot.pops:
        if newest - pop.at > AGE_S_MAX:
            notes.append(f"PoP {pop.key}: {newest - pop.at:.0f} s older than the newest")
        if pop.streams_total > len(pop.streams):
            notes.append(f"PoP {pop.key}: {len(pop.streams)} of its {pop.streams_total} streams")
        if pop.elsewhere_total > len(pop.elsewhere):
            kept = f"{len(pop.elsewhere)} of {pop.elsewhere_total}"
            notes.append(f"PoP {pop.key}: {kept} streams of other PoPs, which count by their tags")
        if pop.lease_left_s <= 0:
            notes.append(f"PoP {pop.key}: its lease had expired, so price decides")
        notes += [
            f"PoP {pop.key}: its RTT to {origin.row.origin} is not known"
            for origin in pop.origins
            if origin.rtt_ms is None and not origin.down
        ]
    return notes
