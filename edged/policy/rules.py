"""The network's rules: which of them a stream meets, and what is wrong with a set of them.

The first rule that matches decides. Rules for one named channel are looked up, not searched, so a
thousand pins cost a decision nothing.
"""

import fnmatch
import re
from collections.abc import Sequence

import msgspec
from msgspec import UNSET, Struct

from edged.media.routing import NAME_PATTERN, RULES_MAX, RULES_PROTO, RouteRequest, Rule

RULES_BYTES_MAX = 512 * 1024  # They travel in one snapshot, whose frame may hold twice that.


class _Compiled(Struct, frozen=True):
    order: int
    rule: Rule
    glob: re.Pattern[str] | None

    def matches(self, request: RouteRequest) -> bool:
        match = self.rule.match
        return not (
            (match.channel and match.channel != request.channel)
            or (self.glob is not None and self.glob.match(request.channel) is None)
            or (match.tag and match.tag not in request.tags)
            or (match.class_ is not None and match.class_ != request.priority.label)
            or (match.protocol and match.protocol != request.protocol)
        )


def why_no_match(rule: Rule, request: RouteRequest, pop: str) -> str:
    """Say what of a rule's match does not hold for a stream; "" when all of it does."""
    match = rule.match
    glob = match.glob
    holds = {
        "channel": match.channel in {"", request.channel},
        "glob": not glob or re.match(fnmatch.translate(glob), request.channel) is not None,
        "tag": not match.tag or match.tag in request.tags,
        "class": match.class_ in {None, request.priority.label},
        "protocol": match.protocol in {"", request.protocol},
        "pop": match.pop in {"", pop},
    }
    given = msgspec.to_builtins(match)
    return next((f"match.{key} is {given[key]!r}" for key in holds if not holds[key]), "")


class RuleSet:
    """The rules as one PoP meets them, ready for quick matching."""

    def __init__(self, rules: Sequence[Rule], pop: str) -> None:
        self._by_channel: dict[str, list[_Compiled]] = {}
        self._general: list[_Compiled] = []
        for order, rule in enumerate(rules):
            if rule.match.pop and rule.match.pop != pop:
                continue
            glob = re.compile(fnmatch.translate(rule.match.glob)) if rule.match.glob else None
            compiled = _Compiled(order, rule, glob)
            if rule.match.channel:
                self._by_channel.setdefault(rule.match.channel, []).append(compiled)
            else:
                self._general.append(compiled)

    def __bool__(self) -> bool:
        """Whether any rule could match here."""
        return bool(self._by_channel or self._general)

    def first_match(self, request: RouteRequest) -> Rule | None:
        """Return the rule that decides for this stream, if any."""
        named = self._by_channel.get(request.channel, ())
        found = next((compiled for compiled in named if compiled.matches(request)), None)
        for compiled in self._general:
            if found is not None and compiled.order > found.order:
                break
            if compiled.matches(request):
                return compiled.rule
        return None if found is None else found.rule


def label(rule: Rule) -> str:
    """Name a rule in logs: its own name, or what it matches."""
    if rule.name:
        return rule.name
    given = msgspec.to_builtins(rule.match)
    shown = ", ".join(f"{key}={value}" for key, value in given.items() if value)
    return shown or "every stream"


def as_known(rules: Sequence[Rule], proto: int) -> tuple[Rule, ...]:
    """The rules without the keys that a PoP does not know: it keeps to the rest of them."""
    if proto >= RULES_PROTO:
        return tuple(rules)
    return tuple(
        msgspec.structs.replace(rule, on_full=UNSET, dscp=UNSET)
        if rule.on_full is not UNSET or rule.dscp is not UNSET
        else rule
        for rule in rules
    )


def shared_tag(prefix: str, tags: Sequence[str]) -> str | None:
    """Return the tag by which `group_by` and `anti_affinity` relate streams, if there is one."""
    if not prefix:
        return None
    return next((tag for tag in tags if tag.startswith(prefix)), None)


def find_problems(rules: Sequence[Rule]) -> list[str]:
    """Say everything that is wrong with the rules beyond their types; empty: they can be used."""
    problems: list[str] = []
    if len(rules) > RULES_MAX:
        problems.append(f"rules: {len(rules)} rules exceed {RULES_MAX}")
    size = len(msgspec.msgpack.encode(rules))
    if size > RULES_BYTES_MAX:
        problems.append(f"rules: {size} bytes in all exceed {RULES_BYTES_MAX}")
    names: dict[str, int] = {}
    for index, rule in enumerate(rules):
        where = f"rules[{index}] ({label(rule)})"
        if rule.name and (first := names.setdefault(rule.name, index)) != index:
            problems.append(f"{where}: the same name as rules[{first}]; decisions are logged by it")
        problems.extend(f"{where}: {problem}" for problem in _rule_problems(rule))
    return problems


def _rule_problems(rule: Rule) -> list[str]:
    problems = [
        f"{key} {name!r} is no origin's name; it must match {NAME_PATTERN}"
        for key, names in (
            ("pin", (rule.pin,) if rule.pin else ()),
            ("prefer", rule.prefer),
            ("avoid", rule.avoid),
        )
        for name in names
        if re.match(NAME_PATTERN, name) is None
    ]
    if rule.pin and (rule.prefer or rule.avoid or rule.group_by or rule.anti_affinity):
        problems.append("pin leaves no choice to prefer, avoid, group_by and anti_affinity")
    if rule.on_full == "preempt" and rule.match.class_ == "basic":
        problems.append("on_full = 'preempt' is of no use to class basic: there is no lower one")
    if rule.group_by and rule.group_by == rule.anti_affinity:
        problems.append("group_by and anti_affinity contradict each other")
    if both := sorted(set(rule.prefer) & set(rule.avoid)):
        problems.append(f"prefer and avoid both name {', '.join(both)}")
    if rule.match.channel and rule.match.glob:
        problems.append("match.channel and match.glob: give one of them")
    return problems
