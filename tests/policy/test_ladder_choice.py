"""A stream goes first where it gets a ladder, then where it plays source-only; rules go first."""

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.errors import RouteUnavailableError
from edged.media.routing import (
    ByClass,
    Match,
    OriginReport,
    OriginRow,
    OriginState,
    ReportedState,
    RouteRequest,
    RoutingTable,
    Rule,
)
from edged.media.stream import PriorityClass
from edged.policy.pop_view import PopView
from edged.policy.routing_table import (
    LEASE_USED_UP,
    NO_LADDER,
    NO_ROOM,
    Decision,
    choose_origin,
    explain_origin,
)
from edged.policy.rules import RuleSet
from tests.policy.test_rules_hold import NAMES, REQUESTS, RULES, TOTAL, WORLDS, World
from tests.policy.test_rules_hold import make_view as make_any_view

PARTNER, AFFILIATE, BASIC = PriorityClass
USUAL = 40  # Slots that a ladder costs.


def make_view(
    quotas: dict[str, int], rules: tuple[Rule, ...] = (), *, lease_ttl_s: float = 10.0
) -> PopView:
    """Origins in the order of nearness."""
    rows = tuple(
        OriginRow(name, f"{name}:1", OriginState.UP, quota) for name, quota in quotas.items()
    )
    view = PopView("lhr")
    table = RoutingTable(
        epoch=1,
        version=1,
        issued=0.0,
        ttl_s=30.0,
        lease_ttl_s=lease_ttl_s,
        rows=rows,
        rules=rules,
    )
    view.accept_table(table, 0.0)
    for place, name in enumerate(quotas, 1):
        view.set_link(name, up=True, now=0.0)
        view.observe_rtt(name, 10.0 * place)
    return view


def beat(view: PopView, name: str, ladders: ByClass | None, *, free: int = 50) -> None:
    """A heartbeat; `ladders`: how many more of a usual cost it makes; None: it makes none ever."""
    slots = None if ladders is None else tuple(USUAL * each + USUAL - 1 for each in ladders)
    report = OriginReport(name, 1, ReportedState.UP, 100, (free, free, free))
    if slots is not None:
        report = msgspec.structs.replace(report, ladder_free=slots, ladder_cost=USUAL)
    view.heartbeat(report, 0.0)


def want(priority: PriorityClass = BASIC, channel: str = "alice") -> RouteRequest:
    return RouteRequest(channel=channel, priority=priority)


def choose(view: PopView, priority: PriorityClass = BASIC) -> Decision:
    return choose_origin(want(priority), view, 0.0)


def test_the_nearest_that_makes_a_ladder_goes_before_a_nearer_one_that_does_not() -> None:
    view = make_view({"o1": 50, "o2": 50, "o3": 50})
    beat(view, "o1", (0, 0, 0))
    beat(view, "o2", (9, 9, 9))
    beat(view, "o3", (99, 99, 99))
    decision = choose(view)
    assert (decision.origin, decision.rule) == ("o2", "nearest")
    assert decision.alternatives == {"o1": NO_LADDER}
    assert decision.note == ""
    verdicts = {each.origin: each for each in explain_origin(want(), view, 0.0).origins}
    assert [verdicts[name].ladders for name in ("o1", "o2", "o3")] == [0, 9, 99]
    assert (verdicts["o1"].verdict, verdicts["o2"].verdict) == (NO_LADDER, "chosen")


@pytest.mark.parametrize("lease_ttl_s", [0.0, 10.0])
def test_by_price_it_is_the_same(lease_ttl_s: float) -> None:
    """Whether the nearer one has a lease, or no lease holds any more."""
    view = make_view({"o1": 50, "o2": 0, "o3": 0}, lease_ttl_s=lease_ttl_s)
    beat(view, "o1", (0, 0, 0))
    beat(view, "o2", (9, 9, 9), free=1)
    beat(view, "o3", (9, 9, 9))
    decision = choose(view)
    assert (decision.origin, decision.rule) == ("o3", "price")
    assert decision.alternatives["o1"] == NO_LADDER
    beat(view, "o3", (9, 9, 9), free=0)
    assert choose(view).origin == "o2"


def test_where_none_makes_one_it_is_as_without_ladders_and_said() -> None:
    view = make_view({"o1": 50, "o2": 50})
    beat(view, "o1", (0, 0, 0))
    beat(view, "o2", (0, 0, 0))
    decision = choose(view)
    assert (decision.origin, decision.rule, decision.alternatives) == ("o1", "nearest", {})
    assert decision.note == "no ladder until slots are free: no origin makes one more of basic"
    beat(view, "o2", (3, 3, 3), free=0)
    view.by_name["o2"].quotas = (0, 0, 0)
    decision = choose(view)
    assert (decision.origin, decision.alternatives) == (
        "o1",
        {"o2": f"{LEASE_USED_UP}; {NO_ROOM}"},
    )
    assert decision.note.endswith("no origin that makes one more of basic may take it")


def test_a_partner_goes_where_basic_ladders_would_give_way() -> None:
    view = make_view({"o1": 50, "o2": 50})
    beat(view, "o1", (2, 0, 0))
    beat(view, "o2", (9, 9, 9))
    assert choose(view, PARTNER).origin == "o1"
    assert choose(view, AFFILIATE).origin == "o2"
    assert choose(view, BASIC).origin == "o2"


def test_what_was_placed_since_the_last_heartbeat_counts() -> None:
    view = make_view({"o1": 50, "o2": 50})
    beat(view, "o1", (2, 2, 2))
    beat(view, "o2", (9, 9, 9))
    placed = []
    for _ in range(3):
        decision = choose(view)
        view.placed(decision.origin, want())
        view.accepted(decision.origin, want().channel, want().priority)
        placed.append(decision.origin)
    assert placed == ["o1", "o1", "o2"]
    beat(view, "o1", (1, 1, 1))
    assert choose(view).origin == "o1"


def test_one_that_makes_none_at_all_comes_after_those_that_do_and_one_not_heard_does_not() -> None:
    view = make_view({"o1": 50, "o2": 50, "o3": 50})
    beat(view, "o1", None)
    beat(view, "o2", (1, 1, 1))
    assert choose(view).origin == "o2"
    view = make_view({"o1": 50, "o2": 50})
    beat(view, "o2", (1, 1, 1))
    assert choose(view).origin == "o1", "its first heartbeat has not come; the lease holds"


def test_a_rule_goes_first() -> None:
    for rule in (
        Rule(pin="o1"),
        Rule(prefer=("o1",)),
        Rule(max_rtt_ms=15.0),
        Rule(avoid=("o2",)),
    ):
        view = make_view({"o1": 50, "o2": 50}, (rule,))
        beat(view, "o1", (0, 0, 0))
        beat(view, "o2", (9, 9, 9))
        decision = choose(view)
        assert decision.origin == "o1"
        assert decision.note
    view = make_view({"o1": 50, "o2": 50, "o3": 50}, (Rule(prefer=("o3",)),))
    beat(view, "o1", (0, 0, 0))
    beat(view, "o2", (9, 9, 9))
    beat(view, "o3", (9, 9, 9), free=0)
    view.refused("o3", 0.0)
    decision = choose(view)
    assert (decision.origin, decision.alternatives["o1"]) == ("o2", NO_LADDER)


def test_source_only_is_asked_as_before_where_nothing_has_room() -> None:
    view = make_view({"o1": 0, "o2": 0}, (Rule(match=Match(), on_full="source-only"),))
    for name in ("o1", "o2"):
        view.heartbeat(
            OriginReport(
                name, 1, ReportedState.UP, 100, (0, 0, 0), 0.0, (90, 90, 90), 1, ladder_cost=USUAL
            ),
            0.0,
        )
    assert choose(view).rule == "source-only"


LADDERS = st.lists(
    st.none() | st.tuples(*[st.integers(0, 2)] * 3), min_size=len(NAMES), max_size=len(NAMES)
)


def with_ladders(view: PopView, world: World, ladders: list[ByClass | None], now: float) -> None:
    for name, (_, free, alone, lower, state), each in zip(NAMES, world, ladders, strict=True):
        if free is None or state == "down":
            continue
        report = OriginReport(
            name,
            1,
            ReportedState.UP,
            TOTAL,
            (free, free, free),
            ladder_free=each,
            source_only_free=alone,
            preemptible=(lower, lower // 2, 0),
            ladder_cost=0 if each is None else 1,
        )
        view.heartbeat(report, now)


@hypothesis.given(
    WORLDS, LADDERS, st.lists(RULES, max_size=2), REQUESTS, st.sampled_from([0.1, 20.0])
)
@hypothesis.settings(max_examples=300, deadline=None)
def test_no_limit_is_broken_for_a_ladder(
    world: World,
    ladders: list[ByClass | None],
    rules: list[Rule],
    request: RouteRequest,
    now: float,
) -> None:
    """Beside where it would go without: as allowed, never where that is not, and with a ladder."""
    plain, view = make_any_view(world, rules, now), make_any_view(world, rules, now)
    with_ladders(plain, world, [None] * len(NAMES), now)
    with_ladders(view, world, ladders, now)
    without = attempt(request, plain, now)
    decision = attempt(request, view, now)
    assert (decision is None) == (without is None), "who is refused does not depend on it"
    if decision is None or without is None:
        return
    asks = {"source-only", "preempt"}
    assert (decision.rule in asks) == (without.rule in asks)
    assert (decision.matched, decision.terms) == (without.matched, without.terms)
    chosen = view.by_name[decision.origin]
    assert not chosen.blocked
    rule = RuleSet(rules, "lhr").first_match(request)
    if rule is not None:
        assert decision.origin not in rule.avoid
        assert not rule.pin or rule.pin == decision.origin
        assert rule.max_rtt_ms is None or chosen.rtt_ms <= rule.max_rtt_ms
    if decision.rule not in asks:
        assert chosen.held[request.priority] <= now
        priority = PARTNER if rule is not None and rule.reserve else request.priority
        leased = now < view.lease_until and chosen.used + request.cost <= chosen.quotas[priority]
        assert leased or view.room(chosen, priority=priority, now=now) >= request.cost
    if decision.origin != without.origin:
        assert view.ladders(chosen, request.priority) != 0
        assert view.ladders(view.by_name[without.origin], request.priority) == 0


@hypothesis.given(WORLDS, st.lists(RULES, max_size=2), REQUESTS, st.sampled_from([0.1, 20.0]))
@hypothesis.settings(max_examples=100, deadline=None)
def test_where_no_origin_makes_ladders_nothing_is_said_of_them(
    world: World, rules: list[Rule], request: RouteRequest, now: float
) -> None:
    view = make_any_view(world, rules, now)
    decision = attempt(request, view, now)
    if decision is not None:
        assert decision.note == ""
        assert NO_LADDER not in decision.alternatives.values()


def attempt(request: RouteRequest, view: PopView, now: float) -> Decision | None:
    try:
        return choose_origin(request, view, now)
    except RouteUnavailableError:
        return None
