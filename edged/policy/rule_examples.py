"""Tests of the rules by example, each in the table of the rule that it is about.

An example is a stream, and what is expected of the rule: that it decides for it (it is the first
that matches), or that it does not; and, given a few origins, where the stream goes. It is decided
by the very code that a PoP decides with.
"""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from edged.errors import RouteUnavailableError
from edged.media.routing import (
    RULES_PROTO,
    TAGS_PER_RULE_MAX,
    ClassLabel,
    OriginReport,
    OriginRow,
    OriginState,
    ReportedState,
    RouteRequest,
    RoutingTable,
    Rule,
    Text,
)
from edged.media.stream import PriorityClass
from edged.policy.pop_view import PopView
from edged.policy.routing_table import choose_origin
from edged.policy.rules import RuleSet, as_known, label, why_no_match

EXAMPLES_PER_RULE_MAX = 64
EXAMPLES_MAX = 2000  # In all: each may have to look at every rule, while IRS waits.
ORIGINS_PER_EXAMPLE_MAX = 16
RTT_STEP_MS = 10.0  # From one origin to the next, where an example does not say.
SLOTS = 100  # Of each of its origins.

Origins = Annotated[tuple[Text, ...], Meta(max_length=ORIGINS_PER_EXAMPLE_MAX)]


class RuleExample(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"class_": "class"}
):
    """`[[irs.rules.examples]]`: a stream, and what is expected of the rule.

    `origins`: those that there are, the nearest first, all with room but those that are `full`;
    `rtts_ms`: how far each is. A full one has streams of every class, and takes others without a
    ladder. With them `goes_to` or `refused` say what becomes of the stream.
    """

    channel: Text
    class_: ClassLabel = "basic"
    tags: Annotated[tuple[Text, ...], Meta(max_length=TAGS_PER_RULE_MAX)] = ()
    pop: Text = ""
    protocol: Text = ""
    matches: bool = True
    origins: Origins = ()
    rtts_ms: Annotated[
        tuple[Annotated[float, Meta(ge=0, le=1e6)], ...], Meta(max_length=ORIGINS_PER_EXAMPLE_MAX)
    ] = ()
    full: Origins = ()
    goes_to: Text = ""
    refused: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError where keys contradict each other."""
        if self.rtts_ms and len(self.rtts_ms) != len(self.origins):
            raise ValueError(
                f"rtts_ms has {len(self.rtts_ms)} values for {len(self.origins)} origins"
            )
        if len(set(self.origins)) < len(self.origins):
            raise ValueError("origins names one twice")
        if strange := sorted(set(self.full) - set(self.origins)):
            raise ValueError(f"full names {strange[0]!r}, which is not among origins")
        if self.goes_to and self.refused:
            raise ValueError("goes_to and refused: give one of them")
        if (self.goes_to or self.refused) and not self.origins:
            raise ValueError("goes_to and refused need origins")
        if self.goes_to and self.goes_to not in self.origins:
            raise ValueError(f"goes_to {self.goes_to!r} is not among origins")

    @property
    def request(self) -> RouteRequest:
        """The stream."""
        return RouteRequest(
            channel=self.channel,
            priority=PriorityClass[self.class_.upper()],
            tags=self.tags,
            protocol=self.protocol,
        )


class RuleEntry(Rule, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[irs.rules]]`: a rule with its examples, which stay where they are written."""

    examples: Annotated[tuple[RuleExample, ...], Meta(max_length=EXAMPLES_PER_RULE_MAX)] = ()


def bare(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """The rules without their examples, as PoPs get them."""
    names = Rule.__struct_fields__
    return tuple(
        rule if type(rule) is Rule else Rule(**{name: getattr(rule, name) for name in names})
        for rule in rules
    )


class PushedRules:
    """What PoPs get of the rules."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._whole = bare(rules)
        self._known: dict[int, tuple[Rule, ...]] = {}

    def known_by(self, proto: int) -> tuple[Rule, ...]:
        """Those for a PoP with this RULES_PROTO; always the same tuple, so quick to compare."""
        proto = min(proto, RULES_PROTO)
        if proto not in self._known:
            self._known[proto] = as_known(self._whole, proto)
        return self._known[proto]


class ExampleResult(Struct, frozen=True, kw_only=True):
    """What came of one example. `problem`: "" when it is as expected."""

    rule: int
    example: int
    rule_label: str
    channel: str
    problem: str


def check_examples(rules: Sequence[Rule]) -> list[ExampleResult]:
    """Decide for every example of the rules, in order, but those beyond EXAMPLES_MAX."""
    plain = bare(rules)
    pops = {rule.match.pop for rule in plain}
    sets: dict[str, RuleSet] = {}
    results: list[ExampleResult] = []
    for index, rule in enumerate(rules):
        examples = rule.examples if isinstance(rule, RuleEntry) else ()
        for number, example in enumerate(examples[: EXAMPLES_MAX - len(results)]):
            place = example.pop if example.pop in pops else ""  # To others all are the same.
            if place not in sets:
                sets[place] = RuleSet(plain, place)
            results.append(
                ExampleResult(
                    rule=index,
                    example=number,
                    rule_label=label(rule),
                    channel=example.channel,
                    problem=_judge(plain, index, example, sets[place]),
                )
            )
    return results


def find_problems(rules: Sequence[Rule]) -> list[str]:
    """Name every example that fails: its rule, what was expected, and what came."""
    count = sum(len(rule.examples) for rule in rules if isinstance(rule, RuleEntry))
    problems = []
    if count > EXAMPLES_MAX:
        problems.append(f"rules: {count} examples in all exceed {EXAMPLES_MAX}")
    for result in check_examples(rules):
        if result.problem:
            where = f"rules[{result.rule}].examples[{result.example}] ({result.rule_label})"
            problems.append(f"{where}: channel {result.channel!r} {result.problem}")
    return problems


def _judge(rules: Sequence[Rule], index: int, example: RuleExample, known: RuleSet) -> str:
    rule, request = rules[index], example.request
    first = known.first_match(request)
    came = next((place for place, each in enumerate(rules) if each is first), None)
    if (came == index) is not example.matches:
        return _explain_match(rules, rule, example, came)
    if not example.origins:
        return ""
    goes_to, why = decide(example, known)
    if example.refused and goes_to:
        return f"should be refused, but goes to {goes_to} ({why})"
    if example.goes_to and goes_to != example.goes_to:
        came_of_it = f"goes to {goes_to} ({why})" if goes_to else f"is refused ({why})"
        return f"should go to {example.goes_to}, but {came_of_it}"
    return ""


def _explain_match(
    rules: Sequence[Rule], rule: Rule, example: RuleExample, came: int | None
) -> str:
    if not example.matches:
        return "should not match, but this rule is the first that does"
    why = why_no_match(rule, example.request, example.pop)
    first = "no rule" if came is None else f"rules[{came}] ({label(rules[came])})"
    if not why:
        return f"should match, but {first} matches first"
    return f"should match, but {why}; {first} matches"


def decide(example: RuleExample, known: RuleSet) -> tuple[str, str]:
    """Where an example's stream goes, "" for refused, and why."""
    view = PopView(example.pop)
    table = RoutingTable(
        epoch=1,
        version=1,
        issued=0.0,
        ttl_s=1e9,
        lease_ttl_s=0.0,
        rows=tuple(
            OriginRow(name, f"{name}:1", OriginState.UP) for name in sorted(example.origins)
        ),
    )
    view.accept_table(table, 0.0)
    view.rules = known
    for place, name in enumerate(example.origins):
        view.set_link(name, up=True, now=0.0)
        rtt_ms = example.rtts_ms[place] if example.rtts_ms else RTT_STEP_MS * (place + 1)
        view.observe_rtt(name, rtt_ms)
        free = 0 if name in example.full else SLOTS
        report = OriginReport(
            name,
            1,
            ReportedState.UP,
            SLOTS,
            (free, free, free),
            source_only_free=SLOTS,
            preemptible=(SLOTS, SLOTS, 0),
        )
        view.heartbeat(report, 0.0)
    try:
        decision = choose_origin(example.request, view, 0.0)
    except RouteUnavailableError as error:
        return "", "; ".join(f"{name}: {why}" for name, why in sorted(error.rejected.items()))
    return decision.origin, decision.rule
