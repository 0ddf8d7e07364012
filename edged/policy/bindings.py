"""Which origins a rule leaves a stream, and in what order: for its PoP, and for who plans.

A rule's word holds always (pin, avoid, max_rtt_ms) or while there is room (prefer, group_by,
anti_affinity). A binding is both without the reasons: where a stream is to go first, where then.
Of what is live a way says in how far that is also where it may be moved.
"""

import enum
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from edged.media.routing import BOUNDS_MAX, CLASSES, BoundUnits, ByClass, RouteRequest, Rule
from edged.media.stream import PriorityClass
from edged.policy.rules import RuleSet, shared_tag

if TYPE_CHECKING:
    from edged.policy.pop_view import Candidate, PopView

STREAMS_MAX = 50_000  # That are remembered one by one; those beyond count as free to go.
ARRIVALS_MAX = 5000  # Since IRS was told last; while it is gone, those of the first minutes.
SPARE_MAX = 1000  # Requests whose rule is remembered though they are not live.
_UNKNOWN = Rule()  # Of that request; it is none of any set.
_SOMEONE = RouteRequest(channel="", priority=PriorityClass.BASIC)


class Binding(Struct, frozen=True):
    """Origins by name, sorted."""

    first: tuple[str, ...]
    then: tuple[str, ...] = ()


def why_forbidden(candidate: "Candidate", rule: Rule) -> str:
    """Why the rule never lets a stream go there; "" when it may."""
    if rule.pin and candidate.origin != rule.pin:
        return f"rule pins the stream to {rule.pin}"
    if candidate.origin in rule.avoid:
        return "rule avoids it"
    if rule.max_rtt_ms is not None and candidate.rtt_ms > rule.max_rtt_ms:
        return f"farther than the rule's {rule.max_rtt_ms:g} ms"
    return ""


def group_order(group: str, allowed: list["Candidate"], own: "PopView") -> list["Candidate"]:
    """Where the group is already first; then an order by hash, on which all PoPs agree."""
    homes = own.homes(group)
    return sorted(
        allowed,
        key=lambda known: (
            -homes.get(known.origin, 0),
            zlib.crc32(f"{group}\0{known.origin}".encode()),
            known.origin,
        ),
    )


def find_binding(request: RouteRequest, rule: Rule, own: "PopView", *, at: str = "") -> Binding:
    """What the rule leaves a stream; `at`: the origin that has it, "" for one that comes."""
    allowed = _find_allowed(rule, own)
    home = _find_home(shared_tag(rule.group_by, request.tags), allowed, own, at=at)
    apart = shared_tag(rule.anti_affinity, request.tags)
    taken = _NONE if apart is None else _domains_of_others(apart, own, at)
    return _bind(rule, allowed, home, taken)


_Allowed = dict[str, "Candidate"]  # By name.
_NONE: frozenset[str] = frozenset()


def _find_allowed(rule: Rule, own: "PopView") -> _Allowed:
    return {name: known for name, known in own.by_name.items() if not why_forbidden(known, rule)}


def _find_home(group: str | None, allowed: _Allowed, own: "PopView", *, at: str) -> str:
    """The first of `group_order`; "": no group decides, nor does one that goes where it goes."""
    if group is None or not allowed:
        return ""
    homes = own.homes(group)
    if at and sum(homes.values()) <= 1:
        return ""
    found = {name: count for name, count in homes.items() if name in allowed}
    most = max(found.values(), default=0)
    firsts = [name for name, count in found.items() if count == most] or list(allowed)
    if len(firsts) == 1:
        return firsts[0]
    return group_order(group, [allowed[name] for name in firsts], own)[0].origin


def _bind(rule: Rule, allowed: _Allowed, home: str, taken: frozenset[str]) -> Binding:
    """By where a stream's group is, and the domains that it is to be apart from."""
    first = [home] if home else [name for name in allowed if name in rule.prefer] or [*allowed]
    if taken:
        outside = [name for name, known in allowed.items() if known.domain not in taken]
        first = [name for name in first if name in outside] or outside or first
    return Binding(
        first=tuple(sorted(first)),
        then=tuple(sorted(name for name in allowed if name not in first)),
    )


def _domains_of_others(tag: str, own: "PopView", at: str) -> frozenset[str]:
    """The failure domains that others with this tag are in than the stream that is `at` one."""
    return frozenset(
        [
            known.domain
            for name, count in own.homes(tag).items()
            if count > (name == at) and (known := own.by_name.get(name)) is not None
        ]
    )


def parts_relatives(request: RouteRequest, rule: Rule, own: "PopView", *, at: str, to: str) -> str:
    """Why a move would part a group, or join what is to be apart; "" when it does neither."""
    group = shared_tag(rule.group_by, request.tags)
    if group is not None:
        homes = own.homes(group)
        if sum(homes.values()) > 1 and not homes.get(to):
            return f"its group {group!r} is elsewhere"
    apart = shared_tag(rule.anti_affinity, request.tags)
    if apart is not None and own.by_name[to].domain in _domains_of_others(apart, own, at):
        return f"another with {apart!r} is in the same failure domain"
    return ""


def why_kept(request: RouteRequest, rule: Rule, own: "PopView", *, at: str, to: str) -> str:
    """Why a rule does not let a live stream move there; "" when it does."""
    return why_forbidden(own.by_name[to], rule) or parts_relatives(request, rule, own, at=at, to=to)


def why_rules_keep(request: RouteRequest, own: "PopView", *, at: str, to: str) -> str:
    """The same of all rules, for what is live; what is not in the table is no matter of rules."""
    rule = own.rule_of(request) if own.rules and to in own.by_name else None
    return "" if rule is None else why_kept(request, rule, own, at=at, to=to)


class Way(enum.Enum):
    """Where a live stream that a rule binds may be moved."""

    ALL = enum.auto()
    FIRST = enum.auto()  # To those alone that its binding has first.
    NONE = enum.auto()


def find_way(
    request: RouteRequest, rule: Rule, own: "PopView", first: tuple[str, ...], *, at: str
) -> Way:
    """Where a live stream may be moved, whose binding has these first: all of them, or none.

    Never farther than `parts_relatives` lets it. Of a group that is at several origins each stream
    may go where most of it is.
    """
    group = shared_tag(rule.group_by, request.tags)
    apart = shared_tag(rule.anti_affinity, request.tags)
    taken = None if apart is None else _domains_of_others(apart, own, at)
    return _way({} if group is None else own.homes(group), taken, own, first)


def _way(
    homes: dict[str, int], taken: frozenset[str] | None, own: "PopView", first: tuple[str, ...]
) -> Way:
    """By where the group is, and the domains that it is to be apart from; None: from none."""
    together = sum(homes.values()) > 1
    if not together and taken is None:
        return Way.ALL
    if together and not all(homes.get(name) for name in first):
        return Way.NONE
    if taken and any(own.by_name[name].domain in taken for name in first):
        return Way.NONE
    return Way.FIRST


class _Sum:
    __slots__ = ("arrivals", "firm", "fixed", "newcomers", "units")

    def __init__(self) -> None:
        self.units: dict[str, list[int]] = {}
        self.firm: dict[str, list[int]] = {}  # Of these, by Way.FIRST
        self.fixed: dict[str, list[int]] = {}  # and by Way.NONE.
        self.arrivals = 0
        self.newcomers = False

    def add(self, origin: str, priority: PriorityClass, units: int, way: Way) -> None:
        """Count what is at an origin."""
        _add(self.units, origin, priority, units)
        if way is Way.FIRST:
            _add(self.firm, origin, priority, units)
        elif way is Way.NONE:
            _add(self.fixed, origin, priority, units)

    def let_go(self, origin: str, priority: PriorityClass, units: int) -> None:
        """Count so much of what is fixed as what may be moved to the first."""
        self.fixed[origin][priority] -= units
        _add(self.firm, origin, priority, units)

    @property
    def weight(self) -> tuple[bool, int]:
        """What matters most is told, where not all can be."""
        return self.newcomers, self.arrivals + sum(map(sum, self.units.values()))


class Bindings:
    """Of the streams of one PoP shard."""

    def __init__(self) -> None:
        self._streams: dict[tuple[str, RouteRequest], int] = {}  # By origin: how many.
        self._arrived: dict[RouteRequest, int] = {}
        self._rules: RuleSet | None = None  # By which `_matched` was found.
        self._matched: dict[RouteRequest, Rule | None] = {}

    def count(self, origin: str, request: RouteRequest, sign: int) -> None:
        """A stream went to an origin, or left it."""
        at = origin, request
        left = self._streams.get(at, 0) + sign
        if left > 0 and (at in self._streams or len(self._streams) < STREAMS_MAX):
            self._streams[at] = left
        else:
            self._streams.pop(at, None)
            self._matched.pop(request, None)

    def arrived(self, request: RouteRequest) -> None:
        """A stream asked for a place."""
        if request in self._arrived or len(self._arrived) < ARRIVALS_MAX:
            self._arrived[request] = self._arrived.get(request, 0) + 1

    def take(self, own: "PopView") -> tuple[BoundUnits, ...]:
        """What is to be told of them; arrivals are counted anew from here on."""
        arrived, self._arrived = self._arrived, {}
        if not own.rules or not own.by_name:
            return ()
        sums = _Sums(own, self.match)
        for (origin, request), streams in self._streams.items():
            sums.add(origin, request, streams)
        sums.let_one_of_each_go()
        for request, streams in arrived.items():
            if (known := sums.of(request)) is not None:
                known.arrivals += streams * request.cost
        if (known := sums.of(_SOMEONE)) is not None:
            known.newcomers = True
        if len(self._matched) > len(self._streams) + SPARE_MAX:
            self._matched = {}
        return _told(sums.known)

    def match(self, request: RouteRequest, rules: RuleSet) -> Rule | None:
        """The rule that decides for a stream that is live, remembered while these are in force."""
        if rules is not self._rules:
            self._rules, self._matched = rules, {}
        found = self._matched.get(request, _UNKNOWN)
        if found is _UNKNOWN:
            found = self._matched[request] = rules.first_match(request)
        return found


def _add(sums: dict[str, list[int]], origin: str, priority: PriorityClass, units: int) -> None:
    counts = sums.get(origin)
    if counts is None:
        counts = sums[origin] = [0] * len(CLASSES)
    counts[priority] += units


class _Apart(Struct, frozen=True):
    """A stream that is to be apart from others, and may be moved."""

    sum: _Sum
    origin: str
    request: RouteRequest
    joined: bool  # Another is in the same failure domain.


class _Sums:
    """By binding, as a view is now."""

    def __init__(
        self, own: "PopView", match: Callable[[RouteRequest, RuleSet], Rule | None]
    ) -> None:
        self.known: dict[Binding, _Sum] = {}
        self._own, self._match = own, match
        self._free = Binding(tuple(sorted(own.by_name)))
        self._alike: dict[int, _Sum | None] = {}  # Of rules that bind all their streams alike.
        # Of the others, by rule: most of their streams have the same ties.
        self._allowed: dict[int, _Allowed] = {}
        self._bound: dict[tuple[int, str, frozenset[str]], Binding] = {}
        self._grouped: dict[tuple[int, str | None], tuple[_Sum | None, Way]] = {}  # And none apart.
        self._apart: dict[str, list[_Apart]] = {}  # By tag.

    def of(self, request: RouteRequest) -> _Sum | None:
        """Where a stream that comes counts; None: it is free to go anywhere."""
        rule = self._match(request, self._own.rules)
        if rule is None:
            return None
        if id(rule) in self._alike:
            return self._alike[id(rule)]
        binding = find_binding(request, rule, self._own)
        found = None if binding == self._free else self._sum_of(binding)
        if not (rule.group_by or rule.anti_affinity):
            self._alike[id(rule)] = found
        return found

    def add(self, origin: str, request: RouteRequest, streams: int) -> None:
        """Count what is at an origin, unless it is free to go anywhere."""
        own = self._own
        rule = self._match(request, own.rules)
        if rule is None:
            return
        if not (rule.group_by or rule.anti_affinity):
            if (known := self.of(request)) is not None:
                known.add(origin, request.priority, streams * request.cost, Way.ALL)
            return
        group = shared_tag(rule.group_by, request.tags)
        apart = shared_tag(rule.anti_affinity, request.tags)
        found = self._grouped.get((id(rule), group)) if apart is None else None
        taken = None if apart is None else _domains_of_others(apart, own, origin)
        if found is None:
            found = self._tie(rule, group, taken, origin)
            if apart is None:
                self._grouped[id(rule), group] = found
        known, way = found
        if known is None:
            return
        if apart is not None and taken is not None and way is not Way.NONE:
            here = own.by_name.get(origin)
            joined = here is not None and here.domain in taken
            self._apart.setdefault(apart, []).append(_Apart(known, origin, request, joined))
            way = Way.NONE
        known.add(origin, request.priority, streams * request.cost, way)

    def let_one_of_each_go(self) -> None:
        """Of streams that are to be apart one at a time may be moved: two could meet elsewhere."""
        for found in self._apart.values():
            one = next((each for each in found if each.joined), found[0])
            one.sum.let_go(one.origin, one.request.priority, one.request.cost)

    def _tie(
        self, rule: Rule, group: str | None, taken: frozenset[str] | None, origin: str
    ) -> tuple[_Sum | None, Way]:
        """Where what is live counts, None being nowhere, and its way; as `find_binding` has it."""
        allowed = self._allowed.get(id(rule))
        if allowed is None:
            allowed = self._allowed[id(rule)] = _find_allowed(rule, self._own)
        home = _find_home(group, allowed, self._own, at=origin)
        ties = id(rule), home, taken or _NONE
        binding = self._bound.get(ties)
        if binding is None:
            binding = self._bound[ties] = _bind(rule, allowed, home, taken or _NONE)
        homes = {} if group is None else self._own.homes(group)
        way = _way(homes, taken, self._own, binding.first)
        if way is not Way.NONE and binding == self._free:
            return None, way
        return self._sum_of(binding), way

    def _sum_of(self, binding: Binding) -> _Sum:
        found = self.known.get(binding)
        if found is None:
            found = self.known[binding] = _Sum()
        return found


def _told(sums: dict[Binding, _Sum]) -> tuple[BoundUnits, ...]:
    most = sorted(sums, key=lambda binding: (sums[binding].weight, binding.first), reverse=True)[
        :BOUNDS_MAX
    ]
    return tuple(
        BoundUnits(
            first=binding.first,
            then=binding.then,
            units={origin: _by_class(units) for origin, units in sums[binding].units.items()},
            arrivals=sums[binding].arrivals,
            newcomers=sums[binding].newcomers,
            held=_told_held(sums[binding]),
        )
        for binding in sorted(most, key=lambda each: (each.first, each.then))
    )


def _told_held(known: _Sum) -> tuple[tuple[ByClass, ByClass], ...]:
    if not known.firm and not known.fixed:
        return ()
    nothing = [0] * len(CLASSES)
    return tuple(
        (_by_class(known.firm.get(origin, nothing)), _by_class(known.fixed.get(origin, nothing)))
        for origin in known.units
    )


def _by_class(units: list[int]) -> ByClass:
    return (units[0], units[1], units[2])
