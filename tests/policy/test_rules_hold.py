"""Rules hold, whatever leases, prices, heartbeats and refusals say; and examples say the truth."""

import fnmatch

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.errors import RouteUnavailableError
from edged.media.routing import (
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
    HELD_ASKED,
    LEASE_USED_UP,
    NO_ROOM,
    UNMATCHED_MAX,
    choose_incumbent,
    choose_origin,
    explain_origin,
)
from edged.policy.rule_examples import RuleEntry, RuleExample, check_examples
from edged.policy.rules import RuleSet, shared_tag, why_no_match

NAMES = ("o0", "o1", "o2", "o3")
TOTAL = 10
PARTNER, AFFILIATE, BASIC = PriorityClass

MATCHES = st.builds(
    Match,
    channel=st.sampled_from(["", "", "alice"]),
    glob=st.sampled_from(["", "", "a*", "?o?"]),
    tag=st.sampled_from(["", "", "e:1"]),
    class_=st.sampled_from([None, None, "partner", "basic"]),
    pop=st.sampled_from(["", "", "lhr", "ams"]),
    protocol=st.sampled_from(["", "", "rtmps"]),
)
NAMED = st.lists(st.sampled_from(NAMES), max_size=2, unique=True).map(tuple)
ON_FULL = st.sampled_from(["reject", "source-only", "preempt"])
DSCP = st.sampled_from(["af41", "af42", "af43"])
RULES = st.builds(
    Rule,
    match=MATCHES,
    prefer=NAMED,
    avoid=NAMED,
    group_by=st.sampled_from(["", "e:"]),
    anti_affinity=st.sampled_from(["", "p:"]),
    reserve=st.booleans(),
    max_rtt_ms=st.sampled_from([None, 25.0, 1000.0]),
    on_full=ON_FULL,
    dscp=DSCP,
) | st.builds(Rule, match=MATCHES, pin=st.sampled_from([*NAMES, "gone"]), on_full=ON_FULL)
REQUESTS = st.builds(
    RouteRequest,
    channel=st.sampled_from(["alice", "bob", "amy"]),
    priority=st.sampled_from(PriorityClass),
    tags=st.sampled_from([(), ("e:1",), ("p:1",), ("e:1", "p:1")]),
    protocol=st.sampled_from(["rtmp", "rtmps"]),
    cost=st.integers(1, 3),
)
ORIGINS = st.tuples(
    st.integers(0, 4),  # Quota,
    st.integers(0, 4) | st.none(),  # free by its heartbeats, None: none heard,
    st.integers(0, 2),  # without a ladder,
    st.integers(0, 3),  # and in place of others.
    st.sampled_from(["up", "up", "up", "link", "masked", "down", "held", "asked", "timed out"]),
)
WORLDS = st.lists(ORIGINS, min_size=len(NAMES), max_size=len(NAMES))
World = list[tuple[int, int | None, int, int, str]]


def make_view(world: World, rules: list[Rule], now: float) -> PopView:
    view = PopView("lhr")
    rows = tuple(
        OriginRow(
            name,
            f"{name}:1",
            OriginState.SUSPECT if state == "masked" else OriginState.UP,
            quota,
            reserve=1,
            domain="rack" if name in {"o0", "o1"} else "",
        )
        for name, (quota, _, _, _, state) in zip(NAMES, world, strict=True)
    )
    table = RoutingTable(
        epoch=1, version=1, issued=0.0, ttl_s=30.0, lease_ttl_s=10.0, rows=rows, rules=tuple(rules)
    )
    view.accept_table(table, 0.0)
    for place, (name, (_, free, alone, lower, state)) in enumerate(zip(NAMES, world, strict=True)):
        view.set_link(name, up=state != "link", now=now)
        view.observe_rtt(name, 10.0 * (place + 1))
        if free is not None or state == "down":
            left = free or 0
            report = OriginReport(
                name,
                1,
                ReportedState.DOWN if state == "down" else ReportedState.UP,
                TOTAL,
                (left, left, left),
                source_only_free=alone,
                preemptible=(lower, lower // 2, 0),
            )
            view.heartbeat(report, now)
        if state in {"held", "asked"}:
            view.refused(name, now, asked=state == "asked")
        elif state == "timed out":
            view.timed_out(name, now)
    return view


def first_plainly(rules: list[Rule], request: RouteRequest) -> Rule | None:
    """The contract in the plainest words: the first of which all that is given holds."""
    for rule in rules:
        match = rule.match
        if (
            match.channel in ("", request.channel)
            and (not match.glob or fnmatch.fnmatchcase(request.channel, match.glob))
            and (not match.tag or match.tag in request.tags)
            and match.class_ in (None, request.priority.label)
            and match.pop in ("", "lhr")
            and match.protocol in ("", request.protocol)
        ):
            return rule
    return None


@hypothesis.given(st.lists(RULES, max_size=5), REQUESTS)
def test_the_first_that_matches_is_that_of_a_plain_search(
    rules: list[Rule], request: RouteRequest
) -> None:
    first = RuleSet(rules, "lhr").first_match(request)
    assert first is first_plainly(rules, request)
    for rule in rules:
        if rule is first:
            assert why_no_match(rule, request, "lhr") == ""
            break
        assert why_no_match(rule, request, "lhr").startswith("match.")


@hypothesis.given(
    WORLDS,
    st.lists(RULES, max_size=3),
    st.lists(REQUESTS, min_size=1, max_size=6),
    st.sampled_from([0.1, 9.9, 10.1]),
)
@hypothesis.settings(max_examples=150, deadline=None)
def test_no_decision_breaks_the_rule_that_matches(
    world: World, rules: list[Rule], requests: list[RouteRequest], now: float
) -> None:
    view = make_view(world, rules, now)
    states = {name: origin[4] for name, origin in zip(NAMES, world, strict=True)}
    for request in requests:
        rule = first_plainly(rules, request) or Rule()
        for name in NAMES:
            incumbent = choose_incumbent(request, view, name)
            assert incumbent is None or is_allowed(rule, name, view)
        before = {name: (known.used, known.placed_since) for name, known in view.by_name.items()}
        explained = explain_origin(request, view, now)
        decision = explained.decision
        if decision is None:
            with pytest.raises(RouteUnavailableError) as caught:
                choose_origin(request, view, now)
            assert set(caught.value.rejected) >= set(NAMES)
            continue
        assert choose_origin(request, view, now) == decision
        origin = decision.origin
        assert is_allowed(rule, origin, view)
        assert states[origin] in {"up", "held", "timed out", "asked"}
        assert origin not in decision.alternatives
        assert decision.terms.reserve is rule.reserve
        assert decision.terms.carried_as(request.priority) is carried(rule, request)
        asks = decision.terms.on_full
        assert asks in {"reject", rule.asks}
        used, since = before[origin]
        quota, free, alone, lower, state = world[NAMES.index(origin)]
        if asks == "reject":
            assert state == "up"
            by_lease = now < 10.0 and used + request.cost <= quota
            spare = 0 if request.priority is PARTNER or rule.reserve else 1
            assert by_lease or request.cost <= (free or 0) - since - spare
        else:
            assert decision.rule == asks
            assert state not in {"asked", "timed out"}
            there = alone if asks == "source-only" else (lower, lower // 2, 0)[request.priority]
            assert request.cost <= there - since
            assert_nothing_had_room(decision.alternatives)
        nearer = NAMES[: NAMES.index(origin)]
        assert set(nearer) <= set(decision.alternatives)  # Each with why not.
        assert all(decision.alternatives.values())
        view.placed(origin, request)


def is_allowed(rule: Rule, origin: str, view: PopView) -> bool:
    near = rule.max_rtt_ms is None or view.by_name[origin].rtt_ms <= rule.max_rtt_ms
    return rule.pin in {"", origin} and origin not in rule.avoid and near


def carried(rule: Rule, request: RouteRequest) -> PriorityClass:
    known: dict[object, PriorityClass] = {"af41": PARTNER, "af42": AFFILIATE, "af43": BASIC}
    return known.get(rule.dscp, request.priority)


def assert_nothing_had_room(alternatives: dict[str, str]) -> None:
    assert "higher price" not in alternatives.values()


@hypothesis.given(st.lists(RULES, min_size=1, max_size=4), REQUESTS, st.data())
@hypothesis.settings(max_examples=60, deadline=None)
def test_an_example_is_judged_as_a_pop_decides(
    rules: list[Rule], request: RouteRequest, data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, len(rules) - 1))
    full = data.draw(st.sets(st.sampled_from(NAMES)))
    world: World = [(0, 0 if name in full else TOTAL, 100, 100, "up") for name in NAMES]
    view = make_view(world, rules, 100.0)
    for candidate in view.by_name.values():
        candidate.domain = f"origin {candidate.origin}"  # Those of an example are all apart.
    try:
        goes_to = choose_origin(one_unit(request), view, 100.0).origin
    except RouteUnavailableError:
        goes_to = ""
    example = RuleExample(
        channel=request.channel,
        class_=request.priority.label,  # type: ignore[arg-type] # One of the three.
        tags=request.tags,
        pop="lhr",
        protocol=request.protocol,
        matches=first_plainly(rules, request) is rules[index],
        origins=NAMES,
        full=tuple(sorted(full)),
        goes_to=goes_to,
        refused=not goes_to,
    )
    tested = list(rules)
    fields = {name: getattr(rules[index], name) for name in Rule.__struct_fields__}
    tested[index] = RuleEntry(**fields, examples=(example,))
    (result,) = check_examples(tested)
    assert result.problem == ""


def one_unit(request: RouteRequest) -> RouteRequest:
    return RouteRequest(
        channel=request.channel,
        priority=request.priority,
        tags=request.tags,
        protocol=request.protocol,
    )


# What is asked when nothing has room.


def full_world(*, alone: int = 0, lower: int = 0, state: str = "up") -> World:
    return [
        (0, 0, 0, 0, "up"),
        (0, 0, alone, lower, state),
        (0, 0, alone, lower, "up"),
        (0, 0, 0, 0, "up"),
    ]


def want(channel: str = "alice", priority: PriorityClass = PARTNER) -> RouteRequest:
    return RouteRequest(channel=channel, priority=priority, protocol="rtmp")


@pytest.mark.parametrize("asks", ["source-only", "preempt"])
def test_the_nearest_that_would_is_asked_when_nothing_has_room(asks: str) -> None:
    rule = Rule(name="vip", on_full=asks)  # type: ignore[arg-type]
    view = make_view(full_world(alone=1, lower=1), [rule], 0.0)
    decision = choose_origin(want(), view, 0.0)
    assert (decision.origin, decision.rule, decision.matched) == ("o1", asks, "vip")
    assert decision.terms.on_full == asks
    assert decision.alternatives["o0"].startswith(f"{LEASE_USED_UP}; {NO_ROOM}; ")
    view.placed("o1", want())
    assert choose_origin(want("bob"), view, 0.0).origin == "o2"  # Our newest is counted.
    view.refused("o1", 0.0, asked=True)
    view.refused("o2", 0.0, asked=True)
    with pytest.raises(RouteUnavailableError, match=HELD_ASKED):
        choose_origin(want("bob"), view, 0.0)
    view.heartbeat(
        OriginReport("o2", 1, ReportedState.UP, TOTAL, (0, 0, 0), 0.0, None, 1, (1, 1, 0)), 0.6
    )
    assert choose_origin(want("bob"), view, 0.6).origin == "o2"


def test_one_with_room_comes_before_one_that_is_asked() -> None:
    world = full_world(alone=9, lower=9)
    world[3] = (1, None, 0, 0, "up")
    view = make_view(world, [Rule(on_full="preempt")], 0.0)
    assert choose_origin(want(), view, 0.0).origin == "o3"


def test_without_the_word_the_refusal_is_as_ever() -> None:
    for rules in ([], [Rule(reserve=True)], [Rule(on_full="reject")]):
        view = make_view(full_world(alone=9, lower=9), rules, 0.0)
        with pytest.raises(RouteUnavailableError) as caught:
            choose_origin(want(), view, 0.0)
        assert set(caught.value.rejected.values()) == {f"{LEASE_USED_UP}; {NO_ROOM}"}


def test_the_lowest_class_preempts_nobody() -> None:
    view = make_view(full_world(lower=9), [Rule(on_full="preempt")], 0.0)
    with pytest.raises(RouteUnavailableError, match="has nothing of a lower class"):
        choose_origin(want(priority=BASIC), view, 0.0)


def test_an_origin_of_before_is_asked_nothing() -> None:
    view = make_view(full_world(), [Rule(on_full="source-only")], 0.0)
    view.heartbeat(OriginReport("o1", 1, ReportedState.UP, TOTAL, (0, 0, 0)), 0.0)
    with pytest.raises(RouteUnavailableError, match="takes no more without a ladder"):
        choose_origin(want(), view, 0.0)


# What `alternatives` say of origins that a rule passed over, nearer as they are.


def roomy() -> World:
    return [(5, None, 0, 0, "up")] * 4


def test_prefer_says_why_not_the_nearer() -> None:
    view = make_view(roomy(), [Rule(prefer=("o2",))], 0.0)
    decision = choose_origin(want(), view, 0.0)
    assert decision.alternatives == {"o0": "rule prefers o2", "o1": "rule prefers o2"}
    verdicts = [each.verdict for each in explain_origin(want(), view, 0.0).origins]
    assert verdicts == ["rule prefers o2", "rule prefers o2", "chosen", "farther"]


def test_group_by_says_why_not_the_nearer() -> None:
    view = make_view(roomy(), [Rule(group_by="e:")], 0.0)
    view.learn_tags("o3", ("e:1",))
    request = RouteRequest(channel="alice", tags=("e:1",))
    said = "streams of 'e:1' go to o3 first"
    assert choose_origin(request, view, 0.0).alternatives == dict.fromkeys(NAMES[:3], said)


def test_anti_affinity_says_why_not_the_nearer() -> None:
    view = make_view(roomy(), [Rule(anti_affinity="p:")], 0.0)
    view.learn_tags("o0", ("p:1",))
    request = RouteRequest(channel="alice", tags=("p:1",))
    decision = choose_origin(request, view, 0.0)
    assert decision.origin == "o2"
    assert decision.alternatives == {
        "o0": "it has a stream of 'p:1'",
        "o1": "o0, in the same domain, has a stream of 'p:1'",
    }
    assert shared_tag("p:", request.tags) == "p:1"


def test_why_earlier_rules_do_not_match_is_explained() -> None:
    rules = [
        Rule(name="tagged", match=Match(tag="e:1"), pin="o3"),
        Rule(name="another's", match=Match(channel="bob"), pin="o3"),
        Rule(name="here", match=Match(channel="alice", class_="basic"), pin="o3"),
        Rule(name="all"),
        Rule(name="later", match=Match(tag="x")),
    ]
    explained = explain_origin(want(), make_view(roomy(), rules, 0.0), 0.0)
    assert explained.matched == "all"
    assert explained.unmatched == {
        "tagged": "match.tag is 'e:1'",
        "here": "match.class is 'basic'",
    }
    many = [Rule(name=f"r{n}", match=Match(tag="x")) for n in range(UNMATCHED_MAX + 1)]
    explained = explain_origin(want(), make_view(roomy(), many, 0.0), 0.0)
    assert (explained.matched, len(explained.unmatched)) == ("", UNMATCHED_MAX)
