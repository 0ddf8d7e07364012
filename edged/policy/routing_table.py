"""Choosing an origin: decided at the PoP, without a round trip, from the table and its own view.

Order: the first rule that matches (pin; group; prefer) -> the nearest origin whose lease has room
-> the least price, from the origins' own heartbeats, where no lease has room or leases expired ->
where its rule says so, the first origin that takes it beyond its room: without a ladder, or in
place of a stream of a lower class -> refusal with a reason for each origin. Nothing ever goes to an
origin that is dead, masked, not connected, or held after a refusal of what it would be asked again;
nor, of classes that were shed from a full link, by price over it (`full_paths`).
The origin has the final word. Where origins tell how many more ladders they make, each step is for
those first that still make one for the class, and only then for those that would play source-only.
"""

import math
from collections.abc import Sequence

from msgspec import Struct

from edged.errors import RouteUnavailableError
from edged.media.routing import PLAIN_TERMS, OnFull, OriginState, RouteRequest, Rule, Terms
from edged.media.stream import PriorityClass
from edged.policy.bindings import group_order, why_forbidden, why_kept
from edged.policy.pop_view import Candidate, PopView
from edged.policy.rules import label, shared_tag, why_no_match

PRICE_FULL_MS = 400.0  # The last unit of an origin is worth a detour round the world.
PRICE_BASE = 1000.0  # So a half full origin costs 12 ms, one at 90 % 200 ms.

UNMATCHED_MAX = 8  # Rules that an explanation names beside the one that matches.

HELD = "held after a refusal"
NO_LADDER = "makes no ladder more for this class"
LEASE_USED_UP = "lease used up"
NO_ROOM = "no room by its heartbeats"
HELD_ASKED = "refused what the rule asks, a moment ago"
NOTHING_BEYOND: dict[OnFull, str] = {
    "source-only": "takes no more without a ladder",
    "preempt": "has nothing of a lower class",
}
LAST_ARE_LEASED = "its last units are for those who have leases"
LAST_UNITS_PART = 0.001  # Of an origin: what two heartbeats bring at the peak.
LEASED_PART = 0.0002  # So few knock beside who has leases; were it more, they would stand idle.
LAST_MS = 1000.0  # Beyond any price: only where there is nothing else.


class Decision(Struct, frozen=True):
    """Where a stream goes, and why.

    `rule`: what decided: "nearest" (by lease), "price", "pin", "group", "prefer", "incumbent", or
    "source-only" or "preempt", as nothing had room, or "moved" by IRS. `matched`: the configured
    rule that matched, "" for none. `alternatives`: the origins that would have come first, with why
    not. `terms`: what the origin is asked. `note`: why it gets no ladder there; "" if it may.
    """

    origin: str
    address: str
    rule: str
    table_version: int
    alternatives: dict[str, str]
    matched: str = ""
    terms: Terms = PLAIN_TERMS
    note: str = ""


class OriginVerdict(Struct, frozen=True, kw_only=True):
    """How one origin looks for one request, for people."""

    origin: str
    address: str
    table_state: OriginState
    heartbeat_state: OriginState | None  # None: none heard here.
    rtt_ms: float | None
    quota: int
    used: int
    room: int  # By its heartbeats, for this class.
    price_ms: float
    verdict: str  # "chosen", why not, or "farther".
    ladders: int | None = None  # That it would make more of this class; None: not told.


class Explanation(Struct, frozen=True, kw_only=True):
    """What `edged route explain` shows."""

    channel: str
    pop: str
    table: tuple[int, int] | None  # (epoch, version)
    lease_left_s: float  # 0 when expired.
    matched: str
    decision: Decision | None
    refusal: str
    origins: list[OriginVerdict]
    unmatched: dict[str, str] = {}  # Rules before the one that matched, with why they do not.


def price_ms(utilisation: float) -> float:
    """Milliseconds of RTT worth taking to go elsewhere: 0 when empty, PRICE_FULL_MS when full."""
    exponent = min(1.0, max(0.0, utilisation))
    return PRICE_FULL_MS * (math.pow(PRICE_BASE, exponent) - 1) / (PRICE_BASE - 1)


def choose_origin(request: RouteRequest, own: PopView, now: float) -> Decision:
    """Choose; raises RouteUnavailableError with a reason for each origin when nothing will do."""
    if own.table is None:
        raise RouteUnavailableError(request.channel, 0, {})
    if now >= own.states_until:
        own.refresh(now)
    rule = own.rules.first_match(request) if own.rules else None
    passed: dict[str, str] = {}
    if rule is not None:
        return _choose_by_rule(request, rule, own, now)
    found, by_lease = _find(own.ranked, request, own, now, passed)
    if found is None:
        raise RouteUnavailableError(request.channel, own.version, passed)
    passed.pop(found.origin, None)
    how = "nearest" if by_lease else "price"
    note = _why_no_ladder(found, request, own) if own.tell_ladders else ""
    return Decision(found.origin, found.address, how, own.version, passed, note=note)


def _find(
    tier: list[Candidate],
    request: RouteRequest,
    own: PopView,
    now: float,
    passed: dict[str, str],
    *,
    rule: Rule | None = None,
) -> tuple[Candidate | None, bool]:
    """The one to choose of these, and whether by lease: one that makes a ladder, if any may be."""
    found = _find_any(tier, request, own, now, passed, rule=rule)
    first = found[0]
    if not own.tell_ladders or first is None or own.ladders(first, request.priority) != 0:
        return found
    makers = [each for each in tier if own.ladders(each, request.priority) != 0]
    better = _find_any(makers, request, own, now, passed, rule=rule)
    if better[0] is None:
        return found
    for candidate in tier[: tier.index(better[0])]:
        if candidate not in makers:
            passed.setdefault(candidate.origin, NO_LADDER)
    passed[first.origin] = NO_LADDER
    return better


def _find_any(
    tier: list[Candidate],
    request: RouteRequest,
    own: PopView,
    now: float,
    passed: dict[str, str],
    *,
    rule: Rule | None,
) -> tuple[Candidate | None, bool]:
    """By lease, the first; partners leave what is kept for them while anything else has room."""
    reserve = rule is not None and rule.reserve
    if now < own.lease_until:
        mine = _effective_class(request, reserve=reserve)
        shared = PriorityClass.BASIC if rule is None else mine
        found = _first_with_lease(tier, request, own, now, passed, quota_of=shared)
        if found is None and mine is not shared:
            found = _first_with_lease(tier, request, own, now, passed, quota_of=mine)
        if found is not None:
            return found, True
    return _least_price(tier, request, own, now, passed, reserve=reserve), False


def _why_no_ladder(found: Candidate, request: RouteRequest, own: PopView) -> str:
    """Why a stream plays source-only where it goes; "" if it need not."""
    if not own.tell_ladders or own.ladders(found, request.priority) != 0:
        return ""
    some = any(own.ladders(each, request.priority) != 0 for each in own.ranked)
    more, end = f"makes one more of {request.priority.label}", " may take it" if some else ""
    return f"no ladder until slots are free: no origin {'that ' if some else ''}{more}{end}"


def choose_incumbent(request: RouteRequest, own: PopView, incumbent: str) -> Decision | None:
    """Choose the origin that has the run already, if it may go on there; else None.

    It has the stream's slot, so neither lease nor price matter; rules do, and whether it can be
    reached and stays. A missed heartbeat or two is no reason to begin a run anew.
    """
    candidate = own.by_name.get(incumbent)
    if own.table is None or candidate is None or own.link_state(incumbent):
        return None
    state = own.capacitor.state(incumbent)
    if state in (OriginState.DOWN, OriginState.DRAIN):
        return None
    rule = own.rules.first_match(request) if own.rules else None
    if rule is not None and why_forbidden(candidate, rule):
        return None
    if rule is None:
        return Decision(incumbent, candidate.address, "incumbent", own.version, {})
    name, terms = label(rule), rule.terms
    return Decision(incumbent, candidate.address, "incumbent", own.version, {}, name, terms)


def choose_target(request: RouteRequest, own: PopView, now: float, *, at: str, to: str) -> Decision:
    """Choose where a live stream that is `at` an origin may move; RouteUnavailableError if nowhere.

    `to` "": wherever a new one would go, but not where it is. Else there alone: IRS has planned
    for it, so no lease of ours is asked; rules are, and whether there is room by its heartbeats.
    """
    if not to:
        with own.without_tags(at, request.tags):  # It is not another of its group.
            decision = choose_origin(request, own, now)
        if decision.origin == at:
            raise RouteUnavailableError(request.channel, own.version, {at: "it is there"})
        if decision.terms.on_full != "reject":  # None has to give way for what is served already.
            raise RouteUnavailableError(request.channel, own.version, {decision.origin: NO_ROOM})
        return decision
    if now >= own.states_until:
        own.refresh(now)
    rule = own.rules.first_match(request) if own.rules else None
    why = _why_no_target(request, rule, own, now, at=at, to=to)
    if why:
        raise RouteUnavailableError(request.channel, own.version, {to: why})
    address, matched = own.by_name[to].address, "" if rule is None else label(rule)
    terms = PLAIN_TERMS if rule is None else rule.terms
    return Decision(to, address, "moved", own.version, {}, matched, terms)


def _why_no_target(
    request: RouteRequest, rule: Rule | None, own: PopView, now: float, *, at: str, to: str
) -> str:
    candidate = own.by_name.get(to)
    if candidate is None or own.table is None:
        return "not in the table"
    if to == at:
        return "it is there"
    if candidate.blocked:
        return candidate.blocked
    if rule is not None and (why := why_kept(request, rule, own, at=at, to=to)):
        return why
    if candidate.held[request.priority] > now:
        return HELD
    reserve = rule is not None and rule.reserve
    priority = _effective_class(request, reserve=reserve)
    return "" if request.cost <= own.room(candidate, priority=priority, now=now) else NO_ROOM


def explain_origin(request: RouteRequest, own: PopView, now: float) -> Explanation:
    """Decide as `choose_origin` would now, and say how each origin looked."""
    rule = own.rules.first_match(request) if own.rules else None
    decision, refusal, reasons = None, "", {}
    try:
        decision = choose_origin(request, own, now)
        reasons = decision.alternatives
    except RouteUnavailableError as error:
        refusal, reasons = str(error), error.rejected
    priority = _effective_class(request, reserve=rule is not None and rule.reserve)
    origins = []
    for candidate in own.ranked:
        chosen = decision is not None and decision.origin == candidate.origin
        origins.append(
            OriginVerdict(
                origin=candidate.origin,
                address=candidate.address,
                table_state=candidate.row.state,
                heartbeat_state=own.capacitor.state(candidate.origin),
                rtt_ms=None if math.isinf(candidate.rtt_ms) else candidate.rtt_ms,
                quota=candidate.quotas[priority],
                used=candidate.used,
                room=own.room(candidate, priority=priority, now=now),
                price_ms=price_of(candidate, own),
                verdict="chosen" if chosen else reasons.get(candidate.origin, "farther"),
                ladders=own.ladders(candidate, request.priority),
            )
        )
    return Explanation(
        channel=request.channel,
        pop=own.pop,
        table=None if own.table is None else own.table.stamp,
        lease_left_s=max(0.0, own.lease_until - now),
        matched="" if rule is None else label(rule),
        decision=decision,
        refusal=refusal,
        origins=origins,
        unmatched={} if own.table is None else _unmatched(request, own.table.rules, own.pop),
    )


def _unmatched(request: RouteRequest, rules: Sequence[Rule], pop: str) -> dict[str, str]:
    """Why earlier rules do not match; those of other channels are no news."""
    found: dict[str, str] = {}
    for rule in rules:
        why = why_no_match(rule, request, pop)
        if not why or len(found) >= UNMATCHED_MAX:
            break
        if rule.match.channel in {"", request.channel}:
            found[label(rule)] = why
    return found


def _choose_by_rule(request: RouteRequest, rule: Rule, own: PopView, now: float) -> Decision:
    passed: dict[str, str] = {}
    allowed: list[Candidate] = []
    for candidate in own.ranked:
        if why := why_forbidden(candidate, rule):
            passed[candidate.origin] = why
        else:
            allowed.append(candidate)
    if rule.pin and not allowed:
        passed.setdefault(rule.pin, "pinned to it, but it is not in the table")
    tiers = _tiers(request, rule, allowed, own)
    for mechanism, tier in tiers:
        found, by_lease = _find(tier, request, own, now, passed, rule=rule)
        if found is not None:
            is_priced = mechanism == "nearest" and not by_lease
            how = ("price" if is_priced else mechanism, rule.terms)
            return _decide(found, how, passed, request=request, rule=rule, own=own)
    asks, terms = rule.asks, rule.terms
    for _, tier in tiers if asks != "reject" else ():
        found = _first_to_ask(tier, request, asks, passed, own=own, now=now)
        if found is not None:
            how = (str(asks), Terms(asks, terms.reserve, terms.dscp))
            return _decide(found, how, passed, request=request, rule=rule, own=own)
    raise RouteUnavailableError(request.channel, own.version, passed)


def _decide(
    found: Candidate,
    how: tuple[str, Terms],
    passed: dict[str, str],
    *,
    request: RouteRequest,
    rule: Rule,
    own: PopView,
) -> Decision:
    """Say why not of each nearer origin, too: a rule passed those over that nothing else did."""
    passed.pop(found.origin, None)
    for candidate in own.ranked:
        if candidate is found:
            break
        if candidate.origin not in passed:
            passed[candidate.origin] = _why_later(candidate, found, request, rule, own)
    mechanism, terms = how
    more = (label(rule), terms, "" if rule.asks in how else _why_no_ladder(found, request, own))
    return Decision(found.origin, found.address, mechanism, own.version, passed, *more)


def _why_later(
    candidate: Candidate, found: Candidate, request: RouteRequest, rule: Rule, own: PopView
) -> str:
    """Why an origin that is allowed, and nearer, was not even tried."""
    apart = shared_tag(rule.anti_affinity, request.tags)
    if apart is not None:
        homes = [own.by_name[name] for name in own.homes(apart) if name in own.by_name]
        shared = next((home for home in homes if home.domain == candidate.domain), None)
        if shared is not None and shared.domain != found.domain:
            where = "it" if shared is candidate else f"{shared.origin}, in the same domain,"
            return f"{where} has a stream of {apart!r}"
    group = shared_tag(rule.group_by, request.tags)
    if group is not None:
        return f"streams of {group!r} go to {found.origin} first"
    return f"rule prefers {found.origin}"


def _first_to_ask(
    tier: list[Candidate],
    request: RouteRequest,
    asks: OnFull,
    passed: dict[str, str],
    *,
    own: PopView,
    now: float,
) -> Candidate | None:
    """The first that would take the stream beyond its room."""
    for candidate in tier:
        if candidate.blocked:
            continue
        if candidate.asked_until > now:
            why = HELD_ASKED
        elif request.cost > own.room_beyond(candidate, request.priority, asks):
            why = NOTHING_BEYOND[asks]
        elif not (why := own.full.why(candidate.origin, request.priority, now)):
            return candidate
        passed[candidate.origin] = f"{passed[candidate.origin]}; {why}"
    return None


def _tiers(
    request: RouteRequest, rule: Rule, allowed: list[Candidate], own: PopView
) -> list[tuple[str, list[Candidate]]]:
    """Put the allowed origins in order: a later tier is tried when an earlier one has no room."""
    if rule.pin:
        return [("pin", allowed)]
    group = shared_tag(rule.group_by, request.tags)
    if group is not None:
        tiers = [("group", [candidate]) for candidate in group_order(group, allowed, own)]
    else:
        named = {name: order for order, name in enumerate(rule.prefer)}
        first = sorted(
            (known for known in allowed if known.origin in named),
            key=lambda known: named[known.origin],
        )
        rest = [known for known in allowed if known.origin not in named]
        tiers = [("prefer", [candidate]) for candidate in first] + [("nearest", rest)]
    apart = shared_tag(rule.anti_affinity, request.tags)
    if apart is None:
        return tiers
    homes = own.homes(apart)
    taken = {known.domain for name in homes if (known := own.by_name.get(name)) is not None}
    outside = [(name, [c for c in tier if c.domain not in taken]) for name, tier in tiers]
    inside = [(name, [c for c in tier if c.domain in taken]) for name, tier in tiers]
    return outside + inside  # Better in the same domain than nowhere.


def _first_with_lease(
    tier: list[Candidate],
    request: RouteRequest,
    own: PopView,
    now: float,
    passed: dict[str, str],
    *,
    quota_of: PriorityClass,
) -> Candidate | None:
    for candidate in tier:
        if candidate.blocked:
            passed[candidate.origin] = candidate.blocked
        elif candidate.held[request.priority] > now:
            passed[candidate.origin] = HELD
        elif candidate.used + request.cost > candidate.quotas[quota_of]:
            passed[candidate.origin] = LEASE_USED_UP
        elif why := own.full.why(candidate.origin, request.priority, now, leased=True):
            passed[candidate.origin] = why
        else:
            return candidate
    return None


def _least_price(
    tier: list[Candidate],
    request: RouteRequest,
    own: PopView,
    now: float,
    passed: dict[str, str],
    *,
    reserve: bool,
) -> Candidate | None:
    priority = _effective_class(request, reserve=reserve)
    best: Candidate | None = None
    best_cost = 0.0
    for candidate in tier:
        held = HELD if candidate.held[request.priority] > now else ""
        full = own.full.why(candidate.origin, request.priority, now)
        if not_there := candidate.blocked or held or full:
            passed[candidate.origin] = not_there
            continue
        room = own.room(candidate, priority=priority, now=now)
        if request.cost > room:
            why = NO_ROOM if candidate.origin in own.capacitor else "no heartbeat heard here"
            before = passed.get(candidate.origin)
            passed[candidate.origin] = f"{before}; {why}" if before == LEASE_USED_UP else why
            continue
        is_last = room < request.cost + last_units(candidate, own)
        if (
            now < own.lease_until
            and priority is not PriorityClass.PARTNER
            and room < request.cost + last_units(candidate, own, LEASED_PART)
        ):
            passed[candidate.origin] = LAST_ARE_LEASED
            continue
        rtt = min(candidate.rtt_ms, 2 * PRICE_FULL_MS)  # Unknown: after everything measured.
        cost = rtt + price_of(candidate, own) + (LAST_MS if is_last else 0.0)
        if best is None or cost < best_cost:
            best, best_cost = candidate, cost
    if best is not None:
        for candidate in tier:
            if candidate is not best:
                passed.setdefault(candidate.origin, "higher price")
    return best


def last_units(candidate: Candidate, own: PopView, part: float = LAST_UNITS_PART) -> int:
    """Units of an origin for which many PoPs may knock before the next heartbeat."""
    report = own.capacitor.report(candidate.origin)
    total = 0 if report is None else report.slots_total
    return math.floor(total * part)


def price_of(candidate: Candidate, own: PopView) -> float:
    """Price by the origin's last heartbeat here, our newest placements counted; else by IRS."""
    report = own.capacitor.report(candidate.origin)
    if report is None or not report.slots_total:
        return candidate.row.price
    free = report.slots_free[PriorityClass.PARTNER] - candidate.placed_since
    return price_ms(1 - free / report.slots_total)


def _effective_class(request: RouteRequest, *, reserve: bool) -> PriorityClass:
    return PriorityClass.PARTNER if reserve else request.priority
