"""What a rule leaves a stream: told as the decision itself would have it."""

from collections import Counter

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.errors import RouteUnavailableError
from edged.media.routing import (
    BOUNDS_MAX,
    BoundUnits,
    Match,
    OriginReport,
    OriginRow,
    OriginState,
    PopTelemetry,
    ReportedState,
    RouteRequest,
    RoutingTable,
    Rule,
)
from edged.media.stream import PriorityClass
from edged.policy import bindings
from edged.policy.bindings import Binding, Way, find_binding, find_way, why_rules_keep
from edged.policy.pop_view import PopView
from edged.policy.routing_table import choose_origin, choose_target
from edged.policy.rules import RuleSet

NAMES = ["o0", "o1", "o2", "o3"]
PARTNER, BASIC = PriorityClass.PARTNER, PriorityClass.BASIC
RULES = st.builds(
    Rule,
    match=st.builds(
        Match, channel=st.sampled_from(["", "alice"]), tag=st.sampled_from(["", "e:1"])
    ),
    prefer=st.sampled_from([(), ("o3",), ("o2", "o1")]),
    avoid=st.sampled_from([(), ("o0",), ("o1", "o2"), tuple(NAMES)]),
    group_by=st.sampled_from(["", "e:"]),
    anti_affinity=st.sampled_from(["", "p:"]),
    max_rtt_ms=st.sampled_from([None, 25.0, 1000.0]),
) | st.builds(Rule, pin=st.sampled_from(["o0", "o1", "o3", "gone"]))
REQUESTS = st.builds(
    RouteRequest,
    channel=st.sampled_from(["alice", "bob"]),
    priority=st.sampled_from(list(PriorityClass)),
    tags=st.sampled_from([(), ("e:1",), ("p:1",), ("e:1", "p:1")]),
    cost=st.integers(1, 3),
)


def make_view(*rules: Rule, quota: int = 100) -> PopView:
    """Origins at 10, 20, 30 ... ms; the first two in one failure domain."""
    rows = tuple(
        OriginRow(name, f"{name}:1", OriginState.UP, quota, 0.0, 0, "ab" if name < "o2" else "")
        for name in NAMES
    )
    view = PopView("lhr")
    view.accept_table(
        RoutingTable(
            epoch=1, version=1, issued=0.0, ttl_s=30.0, lease_ttl_s=10.0, rows=rows, rules=rules
        ),
        0.0,
    )
    for place, name in enumerate(NAMES):
        view.set_link(name, up=True, now=0.0)
        view.observe_rtt(name, 10.0 * (place + 1))
    return view


def told(view: PopView) -> tuple[BoundUnits, ...]:
    return view.take_telemetry().bound


@hypothesis.given(
    rules=st.lists(RULES, max_size=2), requests=st.lists(REQUESTS, min_size=1, max_size=8)
)
@hypothesis.settings(max_examples=100, deadline=None)
def test_a_stream_goes_where_its_binding_says(
    rules: list[Rule], requests: list[RouteRequest]
) -> None:
    """With room everywhere it goes to one of `first`, and nowhere but to these and `then`."""
    view = make_view(*rules)
    for request in requests:
        rule = view.rules.first_match(request) or Rule()
        binding = find_binding(request, rule, view)
        try:
            origin = choose_origin(request, view, 0.0).origin
        except RouteUnavailableError:
            assert binding == Binding((), ())
            continue
        assert origin in binding.first
        for name in binding.first:
            view.set_link(name, up=False, now=0.0)
        try:
            assert choose_origin(request, view, 0.0).origin in binding.then
        except RouteUnavailableError:
            assert not binding.then
        for name in binding.first:
            view.set_link(name, up=True, now=0.0)
        view.placed(origin, request)


@hypothesis.given(
    rules=st.lists(RULES, max_size=2), requests=st.lists(REQUESTS, max_size=8), data=st.data()
)
@hypothesis.settings(max_examples=50, deadline=None)
def test_what_is_told_is_part_of_what_is_there(
    rules: list[Rule], requests: list[RouteRequest], data: st.DataObject
) -> None:
    view = make_view(*rules)
    there: list[tuple[str, RouteRequest]] = []
    for request in requests:
        view.note_request(request, placed=True)
        there.append((data.draw(st.sampled_from(NAMES)), request))
        view.placed(*there[-1])
    for at in data.draw(st.lists(st.sampled_from(there), unique_by=id) if there else st.just([])):
        view.released(*at)
        there.remove(at)
    telemetry = view.take_telemetry()
    sums: dict[str, list[int]] = {}
    for each in telemetry.bound:
        for origin, units in each.units.items():
            of_origin = sums.setdefault(origin, [0, 0, 0])
            sums[origin] = [one + more for one, more in zip(of_origin, units, strict=True)]
    for origin, parts in sums.items():
        known = telemetry.units[origin]
        assert all(part <= whole for part, whole in zip(parts, known, strict=True))
    assert sum(each.arrivals for each in telemetry.bound) <= telemetry.arrivals
    assert sum(each.newcomers for each in telemetry.bound) <= 1
    if rules and rules[0].match == Match() and rules[0].pin:  # It binds all.
        expected = (rules[0].pin,) if rules[0].pin in NAMES else ()
        (each,) = telemetry.bound
        assert (each.first, each.then, each.newcomers) == (expected, (), True)
        assert sum(map(sum, sums.values())) == sum(request.cost for _, request in there)
    assert not any(each.arrivals or each.units for each in told(view)) or there
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(telemetry), type=PopTelemetry)
    assert again == telemetry


def test_without_rules_nothing_is_bound() -> None:
    view = make_view()
    view.note_request(RouteRequest(channel="alice"), placed=True)
    view.placed("o1", RouteRequest(channel="alice"))
    assert told(view) == ()
    assert told(PopView("lhr")) == ()


def test_rules_that_come_later_bind_what_is_there() -> None:
    view = make_view()
    alice = RouteRequest(channel="alice", priority=PARTNER)
    view.placed("o1", alice)
    pinned = make_view(Rule(match=Match(channel="alice"), pin="o2")).table
    assert pinned is not None
    view.accept_table(msgspec.structs.replace(pinned, version=2), 1.0)
    assert told(view) == (BoundUnits(("o2",), (), {"o1": (1, 0, 0)}),)
    view.released("o1", alice)
    assert told(view) == ()


def test_a_backup_is_bound_away_from_the_domain_of_the_primary_alone() -> None:
    view = make_view(Rule(anti_affinity="p:"))
    primary = RouteRequest(channel="alice", tags=("p:1",))
    backup = RouteRequest(channel="alice-backup", tags=("p:1",))
    view.placed("o0", primary)
    assert told(view) == ()  # Nothing stands in its own way.
    view.placed("o2", backup)
    one, none = (0, 0, 1), (0, 0, 0)
    assert told(view) == (
        BoundUnits(("o0", "o1", "o3"), ("o2",), {"o0": one}, held=((one, none),)),
        BoundUnits(("o2", "o3"), ("o0", "o1"), {"o2": one}, held=((none, one),)),
    ), "and one of them may be moved: both could meet at o3"
    view.released("o2", backup)
    view.placed("o2", backup)
    view.placed("o1", RouteRequest(channel="alice-third", tags=("p:1",)))
    held = {each.first: dict(zip(each.units, each.held, strict=True)) for each in told(view)}
    assert held == {
        ("o3",): {"o0": (one, none), "o1": (none, one)},
        ("o2", "o3"): {"o2": (none, one)},
    }, "one of those first that are not apart yet"


@hypothesis.given(
    rules=st.lists(RULES, max_size=2), requests=st.lists(REQUESTS, max_size=8), data=st.data()
)
@hypothesis.settings(max_examples=150, deadline=None)
def test_a_live_stream_may_be_moved_where_its_way_says(
    rules: list[Rule], requests: list[RouteRequest], data: st.DataObject
) -> None:
    """As the PoP itself would choose for it, with room everywhere."""
    view = make_view(*rules)
    there: list[tuple[str, RouteRequest]] = []
    for name in NAMES:
        report = OriginReport(name, 1, ReportedState.UP, 1000, (900, 900, 900))
        view.heartbeat(report, 0.0)
    for request in requests:
        there.append((data.draw(st.sampled_from(NAMES)), request))
        view.placed(*there[-1])
    for at, request in there:
        rule = view.rules.first_match(request)
        if rule is None:
            continue
        binding = find_binding(request, rule, view, at=at)
        way = find_way(request, rule, view, binding.first, at=at)
        ways = {Way.ALL: (*binding.first, *binding.then), Way.FIRST: binding.first, Way.NONE: ()}
        for to in set(ways[way]) - {at}:
            assert choose_target(request, view, 0.0, at=at, to=to).origin == to
        if not rule.group_by and not rule.anti_affinity:
            assert way is Way.ALL, "and nowhere else"


def test_of_a_group_that_is_parted_each_may_go_where_most_are() -> None:
    view = make_view(Rule(group_by="e:"))
    for channel, at in (("a", "o1"), ("b", "o1"), ("c", "o3")):
        view.placed(at, RouteRequest(channel=channel, tags=("e:1",)))
    none = (0, 0, 0)
    assert told(view) == (
        BoundUnits(
            ("o1",),
            ("o0", "o2", "o3"),
            {"o1": (0, 0, 2), "o3": (0, 0, 1)},
            held=(((0, 0, 2), none), ((0, 0, 1), none)),
        ),
    )


def test_who_is_all_of_its_group_takes_it_along() -> None:
    """Nothing keeps it far away but what its rule says of all; who comes goes where it is."""
    view = make_view(Rule(group_by="e:", avoid=("o1",)))
    view.placed("o3", RouteRequest(channel="a", tags=("e:1",)))
    free = ("o0", "o2", "o3")
    assert told(view) == (BoundUnits(free, (), {"o3": (0, 0, 1)}, newcomers=True),)
    newer = RouteRequest(channel="b", tags=("e:1",))
    view.note_request(newer, placed=True)
    (_, bound) = told(view)
    assert bound == BoundUnits(("o3",), ("o0", "o2"), arrivals=1)
    view.learn_tags("o3", newer.tags)  # It is at another PoP.
    (_, bound) = told(view)
    assert bound.first == ("o3",)
    assert bound.units == {"o3": (0, 0, 1)}


@hypothesis.given(
    rules=st.lists(RULES, max_size=2), requests=st.lists(REQUESTS, max_size=8), data=st.data()
)
@hypothesis.settings(max_examples=150, deadline=None)
def test_what_is_told_is_what_is_so_of_each(
    rules: list[Rule], requests: list[RouteRequest], data: st.DataObject
) -> None:
    """Of those that are to be apart as many may be moved as there are tags, and no other."""
    view = make_view(*rules)
    there = [(data.draw(st.sampled_from(NAMES)), request) for request in requests]
    for at, request in there:
        view.placed(at, request)
    free = Binding(tuple(NAMES))
    units, kept = Counter[tuple[Binding, str]](), 0
    for at, request in there:
        rule = view.rules.first_match(request)
        if rule is None:
            continue
        binding = find_binding(request, rule, view, at=at)
        way = find_way(request, rule, view, binding.first, at=at)
        if binding != free or way is Way.NONE:
            units[binding, at] += request.cost
            kept += request.cost * (way is Way.NONE)
    bound = told(view)
    assert units == {
        (Binding(each.first, each.then), at): sum(counts)
        for each in bound
        for at, counts in each.units.items()
    }
    assert kept <= sum(sum(fixed) for each in bound for _, fixed in each.held)


def test_what_no_move_may_touch_is_told_though_it_could_come_anywhere() -> None:
    """Four of a kind in all three domains: one more would go anywhere, and none is moved."""
    view = make_view(Rule(anti_affinity="p:"))
    for channel, at in (("a", "o0"), ("b", "o0"), ("c", "o2"), ("d", "o3")):
        view.placed(at, RouteRequest(channel=channel, tags=("p:1",)))
    held = [each.held for each in told(view) if each.first == tuple(NAMES)]
    assert held == [(((0, 0, 0), (0, 0, 2)),)]


def test_of_more_sets_than_can_be_told_the_least_are_not() -> None:
    names = [f"p{n:02}" for n in range(BOUNDS_MAX + 1)]
    rows = tuple(OriginRow(name, f"{name}:1", OriginState.UP, 9) for name in names)
    rules = tuple(Rule(match=Match(channel=name), pin=name) for name in names)
    view = PopView("lhr")
    for version, known in ((1, rules[:BOUNDS_MAX]), (2, rules)):
        table = RoutingTable(
            epoch=1, version=version, issued=0, ttl_s=9, lease_ttl_s=9, rows=rows, rules=known
        )
        view.accept_table(table, 0.0)
        if version == 1:
            for name in names:
                view.placed(name, RouteRequest(channel=name, cost=2 if name != "p07" else 1))
        bound = told(view)
        assert len(bound) == BOUNDS_MAX
        assert ("p07" in {each.first[0] for each in bound}) == (version == 1)


def test_the_rule_of_a_live_stream_is_searched_once_while_the_rules_stand() -> None:
    view = make_view(Rule(match=Match(channel="a"), pin="o1"))
    a, b = RouteRequest(channel="a"), RouteRequest(channel="b")
    view.placed("o0", a)
    assert why_rules_keep(a, view, at="o0", to="o2") == "rule pins the stream to o1"
    assert why_rules_keep(a, view, at="o0", to="o1") == ""
    assert why_rules_keep(b, view, at="o0", to="o2") == ""
    assert view.table is not None
    newer = (Rule(match=Match(channel="b"), pin="o3"),)
    view.accept_table(msgspec.structs.replace(view.table, version=2, rules=newer), 1.0)
    assert why_rules_keep(a, view, at="o0", to="o2") == ""
    assert why_rules_keep(b, view, at="o0", to="o2") == "rule pins the stream to o3"
    searched: list[RouteRequest] = []

    class Counting(RuleSet):
        def first_match(self, request: RouteRequest) -> Rule | None:
            searched.append(request)
            return super().first_match(request)

    view.rules = Counting(newer, "lhr")
    for to in NAMES:
        why_rules_keep(a, view, at="o0", to=to)
    assert searched == [a]


def test_streams_beyond_the_limit_are_free_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bindings, "STREAMS_MAX", 2)
    monkeypatch.setattr(bindings, "ARRIVALS_MAX", 2)
    known, view = bindings.Bindings(), make_view(Rule(pin="o1"))
    for channel in ("a", "b", "c"):
        known.count("o1", RouteRequest(channel=channel), 1)
        known.arrived(RouteRequest(channel=channel))
    (each,) = known.take(view)
    assert (each.units, each.arrivals) == ({"o1": (0, 0, 2)}, 2)
    known.count("o1", RouteRequest(channel="c"), -1)
    known.count("o1", RouteRequest(channel="a"), -1)
    assert known.take(view)[0].units == {"o1": (0, 0, 1)}
