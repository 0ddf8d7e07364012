"""Choosing an origin: the order of the contract, and what may never happen."""

import gc
import statistics
import time
from collections.abc import Collection

import hypothesis
import msgspec
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
from edged.policy.full_paths import TOLD_S, FullPath
from edged.policy.pop_view import DRAINED, PopView
from edged.policy.routing_table import (
    HELD,
    LAST_ARE_LEASED,
    LEASE_USED_UP,
    NO_ROOM,
    PRICE_FULL_MS,
    choose_incumbent,
    choose_origin,
    choose_target,
    explain_origin,
    price_ms,
)

NAMES = [f"o{n}" for n in range(10)]
PARTNER, BASIC = PriorityClass.PARTNER, PriorityClass.BASIC


def make_view(
    quotas: dict[str, int],
    *rules: Rule,
    lease_ttl_s: float = 10.0,
    reserve: int = 0,
    domains: dict[str, str] | None = None,
    masked: Collection[str] = (),
) -> PopView:
    """Origins at 10, 20, 30 ... ms in the order given, connected, not heard yet."""
    rows = tuple(
        OriginRow(
            name,
            f"{name}:1",
            OriginState.SUSPECT if name in masked else OriginState.UP,
            quota,
            0.0,
            reserve,
            (domains or {}).get(name, ""),
        )
        for name, quota in sorted(quotas.items())
    )
    view = PopView("lhr")
    view.accept_table(
        RoutingTable(
            epoch=1,
            version=7,
            issued=0.0,
            ttl_s=30.0,
            lease_ttl_s=lease_ttl_s,
            rows=rows,
            rules=rules,
        ),
        0.0,
    )
    for place, name in enumerate(quotas, 1):
        view.set_link(name, up=True, now=0.0)
        view.observe_rtt(name, 10.0 * place)
    return view


def beat(view: PopView, name: str, free: int, *, total: int = 100, now: float = 0.0) -> None:
    view.heartbeat(OriginReport(name, 1, ReportedState.UP, total, (free, free, free)), now)


def want(
    channel: str = "alice",
    *,
    tags: tuple[str, ...] = (),
    priority: PriorityClass = BASIC,
    cost: int = 1,
) -> RouteRequest:
    return RouteRequest(channel=channel, tags=tags, priority=priority, protocol="rtmp", cost=cost)


def refusal(request: RouteRequest, view: PopView, now: float = 0.0) -> dict[str, str]:
    with pytest.raises(RouteUnavailableError) as caught:
        choose_origin(request, view, now)
    return caught.value.rejected


def test_nearest_with_room_by_lease() -> None:
    view = make_view({"o1": 2, "o2": 1})
    chosen = []
    for _ in range(3):
        decision = choose_origin(want(), view, 0.0)
        assert (decision.rule, decision.table_version) == ("nearest", 7)
        assert decision.address == f"{decision.origin}:1"
        view.placed(decision.origin, want())
        chosen.append(decision.origin)
    assert chosen == ["o1", "o1", "o2"]
    assert decision.alternatives == {"o1": LEASE_USED_UP}
    view.released("o1", want())
    assert choose_origin(want(), view, 0.0).origin == "o1"
    assert choose_origin(want(cost=1), view, 0.0).origin == "o1"
    assert "o1" in refusal(want(cost=2), view)


def test_over_a_full_link_only_a_lease_counts_and_higher_classes() -> None:
    view = make_view({"o1": 1, "o2": 0})
    beat(view, "o1", 50)
    view.full.told([FullPath("o1", BASIC, "sea")], until=9.0)
    assert choose_origin(want(), view, 0.0).rule == "nearest", "leases heed links"
    view.placed("o1", want())
    rejected = {"o1": "link sea is full", "o2": f"{LEASE_USED_UP}; no heartbeat heard here"}
    assert refusal(want(), view) == rejected
    assert choose_origin(want(priority=PARTNER), view, 0.0).origin == "o1"
    (first, _) = explain_origin(want(), view, 0.0).origins
    assert first.verdict == "link sea is full"
    beat(view, "o2", 50)
    assert choose_origin(want(), view, 0.0).origin == "o2", "there is room elsewhere"
    assert choose_origin(want(), view, 9.0).origin == "o1", "irs is gone"


def test_what_was_just_shed_does_not_come_back_by_the_lease_that_counts_it_still() -> None:
    view = make_view({"o1": 5})
    view.full.told([FullPath("o1", BASIC, "sea")], until=30.0)
    view.full.shed("o1", 0.0)
    assert refusal(want(), view) == {"o1": "link sea is full"}
    assert view.table is not None
    view.accept_table(view.table, TOLD_S)
    assert choose_origin(want(), view, TOLD_S).origin == "o1"


def test_nothing_is_asked_beyond_the_room_of_an_origin_over_a_full_link() -> None:
    view = make_view({"o1": 0}, Rule(on_full="source-only"))
    report = OriginReport("o1", 1, ReportedState.UP, 100, (0, 0, 0), source_only_free=9)
    view.heartbeat(report, 0.0)
    assert choose_origin(want(), view, 0.0).rule == "source-only"
    view.full.told([FullPath("o1", BASIC, "sea")], until=30.0)
    assert "link sea is full" in refusal(want(), view)["o1"]


def test_without_a_table_nothing_is_chosen() -> None:
    assert refusal(want(), PopView("lhr")) == {}
    view = PopView("lhr")
    assert explain_origin(want(), view, 0.0).table is None


def test_held_and_blocked_origins_are_passed_over() -> None:
    view = make_view({"o1": 5, "o2": 5, "o3": 5})
    view.refused("o1", 0.0)
    view.set_link("o2", up=False, now=0.0)
    decision = choose_origin(want(), view, 0.0)
    assert decision.origin == "o3"
    assert decision.alternatives == {"o1": HELD, "o2": "link down"}
    assert choose_origin(want(), view, 0.6).origin == "o1"


def test_price_decides_when_leases_are_used_up_or_expired() -> None:
    view = make_view({"o1": 0, "o2": 0})
    assert refusal(want(), view) == {
        "o1": f"{LEASE_USED_UP}; no heartbeat heard here",
        "o2": f"{LEASE_USED_UP}; no heartbeat heard here",
    }
    beat(view, "o1", 50)
    beat(view, "o2", 90)
    decision = choose_origin(want(), view, 0.0)
    assert (decision.origin, decision.rule) == ("o2", "price")  # 12 ms of price beat 10 ms of RTT.
    assert decision.alternatives == {"o1": LEASE_USED_UP}
    beat(view, "o1", 95)
    view = make_view({"o1": 100, "o2": 100}, lease_ttl_s=5.0)
    beat(view, "o1", 60)
    beat(view, "o2", 60)
    assert choose_origin(want(), view, 4.99).rule == "nearest"
    decision = choose_origin(want(), view, 5.0)
    assert (decision.origin, decision.rule) == ("o1", "price")
    assert decision.alternatives == {"o2": "higher price"}


def test_a_surge_by_price_spreads_by_our_own_newest_placements() -> None:
    view = make_view({"o1": 0, "o2": 0, "o3": 0})
    for name in ("o1", "o2", "o3"):
        beat(view, name, 100)
    counts = dict.fromkeys(("o1", "o2", "o3"), 0)
    for _ in range(300):
        decision = choose_origin(want(), view, 0.0)
        counts[decision.origin] += 1
        view.placed(decision.origin, want())
    assert counts == {"o1": 100, "o2": 100, "o3": 100}
    assert set(refusal(want(), view).values()) == {f"{LEASE_USED_UP}; {NO_ROOM}"}


def test_the_reserve_is_for_partners_and_for_rules_that_say_so() -> None:
    rule = Rule(name="vip", match=Match(tag="vip"), reserve=True)
    view = make_view({"o1": 0}, rule, reserve=2)
    beat(view, "o1", 2)
    assert refusal(want(), view) == {"o1": f"{LEASE_USED_UP}; {NO_ROOM}"}
    assert choose_origin(want(priority=PARTNER, cost=2), view, 0.0).origin == "o1"
    decision = choose_origin(want(tags=("vip",)), view, 0.0)
    assert (decision.origin, decision.rule, decision.matched) == ("o1", "price", "vip")


def test_kept_units_are_for_partners_and_for_rules_that_say_so() -> None:
    view = make_view({"o1": 2, "o2": 1}, Rule(match=Match(channel="final"), reserve=True))
    table = view.table
    assert table is not None
    view.accept_table(msgspec.structs.replace(table, kept={"o1": 2, "gone": 9}), 0.0)
    partner, final = want(priority=PARTNER), want("final")
    chosen = []
    for request in (want(), want(), partner, want(), final, partner):
        try:
            decision = choose_origin(request, view, 0.0)
        except RouteUnavailableError as error:
            chosen.append(error.rejected["o1"])
            continue
        assert decision.rule == "nearest"
        view.placed(decision.origin, request)
        chosen.append(decision.origin)
    used_up = f"{LEASE_USED_UP}; no heartbeat heard here"
    # Partners leave what is kept for them while they find room beside it.
    assert chosen == ["o1", "o1", "o2", used_up, "o1", "o1"]
    view.released("o1", partner)  # Whoever leaves, it is a partner that may follow.
    assert LEASE_USED_UP in refusal(want(), view)["o1"]
    assert choose_origin(partner, view, 0.0).origin == "o1"
    quotas = {row.origin: row.quota for row in explain_origin(partner, view, 0.0).origins}
    assert quotas == {"o1": 4, "o2": 1}


def test_of_what_is_kept_at_several_the_nearest_is_taken() -> None:
    view = make_view({"o1": 0, "o2": 0})
    table = view.table
    assert table is not None
    view.accept_table(msgspec.structs.replace(table, kept={"o1": 1, "o2": 1}), 0.0)
    decision = choose_origin(want(priority=PARTNER), view, 0.0)
    assert (decision.origin, decision.alternatives) == ("o1", {"o2": LEASE_USED_UP})


def test_pin_is_that_origin_or_refusal() -> None:
    rule = Rule(name="pin-it", match=Match(channel="alice"), pin="o2")
    view = make_view({"o1": 5, "o2": 1}, rule)
    decision = choose_origin(want(), view, 0.0)
    assert (decision.origin, decision.rule, decision.matched) == ("o2", "pin", "pin-it")
    view.placed("o2", want())
    assert refusal(want(), view) == {
        "o1": "rule pins the stream to o2",
        "o2": f"{LEASE_USED_UP}; no heartbeat heard here",
    }
    assert choose_origin(want("bob"), view, 0.0).origin == "o1"
    gone = make_view({"o1": 5}, rule)
    assert refusal(want(), gone)["o2"] == "pinned to it, but it is not in the table"


def test_prefer_comes_first_in_its_order_while_there_is_room() -> None:
    rule = Rule(prefer=("o3", "o2"))
    view = make_view({"o1": 9, "o2": 1, "o3": 1}, rule)
    chosen = []
    for _ in range(3):
        decision = choose_origin(want(), view, 0.0)
        view.placed(decision.origin, want())
        chosen.append((decision.origin, decision.rule))
    assert chosen == [("o3", "prefer"), ("o2", "prefer"), ("o1", "nearest")]


def test_avoid_and_max_rtt_are_never_broken() -> None:
    view = make_view({"o1": 5, "o2": 5, "o3": 5}, Rule(avoid=("o1",), max_rtt_ms=25.0))
    view.refused("o2", 0.0)
    assert refusal(want(), view) == {
        "o1": "rule avoids it",
        "o2": HELD,
        "o3": "farther than the rule's 25 ms",
    }


def test_a_group_shares_its_origin_and_all_pops_begin_with_the_same() -> None:
    rule = Rule(group_by="e:")
    one = make_view({"o1": 5, "o2": 5, "o3": 5}, rule)
    two = make_view({"o3": 5, "o2": 5, "o1": 5}, rule)  # Another PoP, other distances.
    request = want(tags=("e:worlds",))
    first = choose_origin(request, one, 0.0)
    assert first.rule == "group"
    assert choose_origin(request, two, 0.0).origin == first.origin
    other = next(name for name in ("o1", "o2", "o3") if name != first.origin)
    one.learn_tags(other, ("e:worlds",))  # The directory says that it lives elsewhere.
    assert choose_origin(request, one, 0.0).origin == other
    one.set_link(other, up=False, now=0.0)
    assert choose_origin(request, one, 0.0).origin == first.origin
    assert choose_origin(want(), one, 0.0).rule == "nearest"  # No such tag, no group.


def test_anti_affinity_keeps_backup_out_of_the_failure_domain() -> None:
    rule = Rule(anti_affinity="pair:")
    view = make_view(
        {"o1": 5, "o2": 5, "o3": 5}, rule, domains={"o1": "rack", "o2": "rack", "o3": ""}
    )
    request = want(tags=("pair:x",))
    view.placed("o1", request)
    assert choose_origin(request, view, 0.0).origin == "o3"
    view.set_link("o3", up=False, now=0.0)
    assert choose_origin(request, view, 0.0).origin == "o1"  # Better there than nowhere.


def test_a_class_that_was_refused_leaves_the_slots_kept_for_those_above() -> None:
    """By lease, by a rule and by price: full for basic says nothing of partners."""
    by_lease, by_price = make_view({"o1": 9}), make_view({"o1": 9}, lease_ttl_s=0.0)
    by_rule = make_view({"o1": 9}, Rule(prefer=("o1",)))
    for view in (by_lease, by_price, by_rule):
        beat(view, "o1", 9)
        view.refused("o1", 0.0, priority=BASIC)
        assert refusal(want(), view) == {"o1": HELD}
        assert choose_origin(want(priority=PARTNER), view, 0.0).origin == "o1"
        view.refused("o1", 0.0, priority=PriorityClass.AFFILIATE)
        assert refusal(want(priority=PriorityClass.AFFILIATE), view) == {"o1": HELD}
        assert choose_origin(want(priority=PARTNER), view, 0.0).origin == "o1"
        view.refused("o1", 0.0)
        assert refusal(want(priority=PARTNER), view) == {"o1": HELD}


def test_the_incumbent_goes_on_whatever_lease_and_price_say() -> None:
    view = make_view({"o0": 5, "o1": 0}, Rule(match=Match(channel="far"), max_rtt_ms=15.0))
    beat(view, "o1", 0)
    decision = choose_incumbent(want(), view, "o1")
    assert decision is not None
    assert (decision.origin, decision.address, decision.rule) == ("o1", "o1:1", "incumbent")
    view.refused("o1", 0.0)
    assert choose_incumbent(want(), view, "o1") is not None  # It has its slot.
    assert choose_incumbent(want(), view, "gone") is None
    assert choose_incumbent(want("far"), view, "o1") is None  # A rule forbids it.
    assert choose_incumbent(want("far"), view, "o0") is not None
    view.handle_timeout(0.25)
    assert view.by_name["o1"].blocked  # For new streams, by two heartbeats missed.
    assert choose_incumbent(want(), view, "o1") is not None
    view.heartbeat(OriginReport("o1", 1, ReportedState.DRAIN, 100, (0, 0, 0)), 0.3)
    assert choose_incumbent(want(), view, "o1") is None
    beat(view, "o1", 0, now=0.4)
    assert choose_incumbent(want(), view, "o1") is not None
    view.set_link("o1", up=False, now=0.5)
    assert choose_incumbent(want(), view, "o1") is None
    assert choose_incumbent(want(), PopView("lhr"), "o1") is None  # Without a table.


def why_not(request: RouteRequest, view: PopView, to: str, at: str = "o0") -> str:
    with pytest.raises(RouteUnavailableError) as caught:
        choose_target(request, view, 0.0, at=at, to=to)
    (why,) = caught.value.rejected.values()
    return why


def test_a_live_stream_moves_where_irs_says_without_a_lease() -> None:
    view = make_view({"o0": 5, "o1": 0}, Rule(name="all", match=Match(channel="bob")))
    beat(view, "o1", 3)
    decision = choose_target(want(), view, 0.0, at="o0", to="o1")
    assert (decision.origin, decision.address, decision.rule) == ("o1", "o1:1", "moved")
    assert choose_target(want("bob"), view, 0.0, at="o0", to="o1").matched == "all"
    assert why_not(want(cost=4), view, "o1") == NO_ROOM
    assert why_not(want(), view, "o0") == "it is there"
    assert why_not(want(), view, "gone") == "not in the table"
    view.refused("o1", 0.0)
    assert why_not(want(), view, "o1") == HELD
    view.set_link("o1", up=False, now=0.0)
    assert why_not(want(), view, "o1") == "link down"
    assert why_not(want(), PopView("lhr"), "o1") == "not in the table"


def test_rules_forbid_a_move() -> None:
    view = make_view(
        {"o0": 5, "o1": 5, "o2": 5},
        Rule(match=Match(channel="pinned"), pin="o0"),
        Rule(match=Match(channel="shy"), avoid=("o1",)),
        Rule(match=Match(channel="near"), max_rtt_ms=15.0),
        Rule(match=Match(tag="event:1"), group_by="event:"),
        Rule(match=Match(tag="feed:1"), anti_affinity="feed:"),
        domains={"o1": "east", "o2": "east"},
    )
    for name in ("o0", "o1", "o2"):
        beat(view, name, 3)
    assert why_not(want("pinned"), view, "o1") == "rule pins the stream to o0"
    assert why_not(want("shy"), view, "o1") == "rule avoids it"
    assert "farther than" in why_not(want("near"), view, "o1")
    alone = want(tags=("event:1",))
    view.placed("o0", alone)
    assert choose_target(alone, view, 0.0, at="o0", to="o1").origin == "o1"
    view.placed("o0", alone)
    assert why_not(alone, view, "o1") == "its group 'event:1' is elsewhere"
    view.placed("o1", alone)
    assert choose_target(alone, view, 0.0, at="o0", to="o1").origin == "o1"
    feed = want(tags=("feed:1",))
    view.placed("o0", feed)
    assert choose_target(feed, view, 0.0, at="o0", to="o1").origin == "o1"
    view.placed("o2", feed)
    assert "in the same failure domain" in why_not(feed, view, "o1")
    assert choose_target(feed, view, 0.0, at="o2", to="o1").origin == "o1"


def test_a_stream_that_moves_is_not_another_of_its_group() -> None:
    rule, domains = Rule(anti_affinity="feed:"), {"o0": "east", "o1": "west", "o2": "east"}
    view = make_view({"o0": 5, "o1": 5, "o2": 5}, rule, domains=domains)
    feed = want(tags=("feed:1", "other"))
    view.placed("o0", feed)
    view.placed("o1", feed)
    view.set_drained(("o0",), 0.0)
    assert choose_target(feed, view, 0.0, at="o0", to="").origin == "o2", "the other is at o1"
    assert view.homes("feed:1") == {"o0": 1, "o1": 1}, "as before"
    view.placed("o0", feed)
    assert choose_target(feed, view, 0.0, at="o0", to="").origin == "o1", "one in each anyhow"
    view.set_drained(("o0", "o1", "o2"), 0.0)
    with pytest.raises(RouteUnavailableError):
        choose_target(feed, view, 0.0, at="o0", to="")
    assert view.homes("feed:1") == {"o0": 2, "o1": 1}, "after a refusal, too"


def test_from_an_origin_that_is_to_be_empty_a_stream_goes_where_a_new_one_would() -> None:
    view = make_view({"o0": 5, "o1": 5})
    assert why_not(want(), view, "") == "it is there"
    view.set_drained(("o0",), 0.0)
    assert choose_target(want(), view, 0.0, at="o0", to="").origin == "o1"
    assert choose_origin(want(), view, 0.0).alternatives == {"o0": DRAINED}
    beat(view, "o1", 5, now=1000.0)
    assert choose_origin(want(), view, 1000.0).origin == "o1"  # Also when the table is old.
    view.set_drained(("o0", "o1"), 1001.0)
    assert set(refusal(want(), view, 1001.0).values()) == {DRAINED}
    view.set_drained((), 1002.0)
    beat(view, "o0", 5, now=1002.0)
    assert choose_origin(want(), view, 1002.0).origin == "o0"


def test_price_curve() -> None:
    assert price_ms(0.0) == price_ms(-1.0) == 0.0
    assert price_ms(1.0) == price_ms(2.0) == PRICE_FULL_MS
    assert 10 < price_ms(0.5) < 15
    assert 190 < price_ms(0.9) < 210


def test_stale_masks_fall_by_themselves() -> None:
    view = PopView("lhr")
    row = OriginRow("o1", "o1:1", OriginState.DOWN, 5)
    view.accept_table(
        RoutingTable(epoch=1, version=1, issued=0.0, ttl_s=1.0, lease_ttl_s=5.0, rows=(row,)), 0.0
    )
    view.set_link("o1", up=True, now=0.0)
    assert refusal(want(), view, 0.5) == {"o1": "masked in the table: down"}
    assert choose_origin(want(), view, 1.0).origin == "o1"


def test_explain_says_how_every_origin_looked() -> None:
    view = make_view({"o1": 1, "o2": 5, "o3": 5})
    view.placed("o1", want())
    beat(view, "o2", 80)
    shown = explain_origin(want(), view, 4.0)
    assert shown.decision is not None
    assert (shown.pop, shown.table, shown.matched) == ("lhr", (1, 7), "")
    assert shown.lease_left_s == 6.0
    assert [(known.origin, known.verdict) for known in shown.origins] == [
        ("o1", LEASE_USED_UP),
        ("o2", "chosen"),
        ("o3", "farther"),
    ]
    assert (shown.origins[1].room, shown.origins[1].heartbeat_state) == (80, OriginState.UP)
    pinned = make_view({"o1": 5}, Rule(pin="o9"))
    pinned.accept_table(pinned.table, 0.0) if pinned.table else None
    shown = explain_origin(want(), pinned, 0.0)
    assert shown.decision is None
    assert shown.refusal.startswith("no route for 'alice', table v7: o1: rule pins")
    assert shown.matched == "every stream"


STATES = st.sampled_from(["up", "up", "up", "link", "masked", "dead", "held"])
RULES = st.builds(
    Rule,
    match=st.builds(
        Match, channel=st.sampled_from(["", "alice"]), tag=st.sampled_from(["", "e:1"])
    ),
    pin=st.just(""),
    prefer=st.sampled_from([(), ("o3",), ("o2", "o1")]),
    avoid=st.sampled_from([(), ("o0",), ("o1", "o2")]),
    group_by=st.sampled_from(["", "e:"]),
    anti_affinity=st.sampled_from(["", "p:"]),
    reserve=st.booleans(),
    max_rtt_ms=st.sampled_from([None, 25.0, 1000.0]),
) | st.builds(Rule, pin=st.sampled_from(["o0", "o1", "o3"]))


@hypothesis.given(
    quotas=st.lists(st.integers(0, 4), min_size=4, max_size=4),
    frees=st.lists(st.integers(0, 4) | st.none(), min_size=4, max_size=4),
    states=st.lists(STATES, min_size=4, max_size=4),
    rules=st.lists(RULES, max_size=2),
    requests=st.lists(
        st.builds(
            RouteRequest,
            channel=st.sampled_from(["alice", "bob"]),
            priority=st.sampled_from(list(PriorityClass)),
            tags=st.sampled_from([(), ("e:1",), ("p:1",), ("e:1", "p:1")]),
            cost=st.integers(1, 3),
        ),
        min_size=1,
        max_size=8,
    ),
    now=st.sampled_from([0.1, 9.9, 10.1]),
)
@hypothesis.settings(max_examples=50, deadline=None)
def test_what_may_never_happen(
    *,
    quotas: list[int],
    frees: list[int | None],
    states: list[str],
    rules: list[Rule],
    requests: list[RouteRequest],
    now: float,
) -> None:
    view = make_world(quotas, frees, states, rules, now)
    left = {name: free or 0 for name, free in zip(NAMES[:4], frees, strict=True)}
    for request in requests:
        rule = view.rules.first_match(request) or Rule()
        lease_left = {name: known.row.quota - known.used for name, known in view.by_name.items()}
        decision = explain_origin(request, view, now).decision
        if decision is None:
            assert set(refusal(request, view, now)) >= set(view.by_name)
            continue
        assert choose_origin(request, view, now) == decision
        origin = decision.origin
        assert states[NAMES.index(origin)] == "up"
        assert origin not in decision.alternatives
        assert_rule_holds(rule, request, origin, view)
        if now >= 10.0 or request.cost > lease_left[origin]:  # Not by lease, so by heartbeats.
            may_use_reserve = request.priority is PARTNER or rule.reserve
            assert request.cost <= left[origin] - (0 if may_use_reserve else 1)
        view.placed(origin, request)
        left[origin] -= request.cost


def make_world(
    quotas: list[int], frees: list[int | None], states: list[str], rules: list[Rule], now: float
) -> PopView:
    names = NAMES[:4]
    masked = [name for name, state in zip(names, states, strict=True) if state == "masked"]
    view = make_view(dict(zip(names, quotas, strict=True)), *rules, reserve=1, masked=masked)
    for name, free, state in zip(names, frees, states, strict=True):
        if free is not None:
            beat(view, name, free, total=10, now=now)
        if state == "link":
            view.set_link(name, up=False, now=now)
        elif state == "dead":
            view.heartbeat(OriginReport(name, 1, ReportedState.DOWN, 10, (9, 9, 9)), now)
        elif state == "held":
            view.refused(name, now)
    return view


def assert_rule_holds(rule: Rule, request: RouteRequest, origin: str, view: PopView) -> None:
    assert rule.pin in {"", origin}
    assert origin not in rule.avoid
    assert rule.max_rtt_ms is None or view.by_name[origin].rtt_ms <= rule.max_rtt_ms


def test_a_decision_costs_microseconds() -> None:
    """The bench reports the exact figures; here only an order of magnitude may fail."""
    view = make_view(dict.fromkeys(NAMES, 10_000_000))
    request = want()
    samples = []
    gc.disable()
    try:
        for _ in range(5000):
            started = time.perf_counter_ns()
            choose_origin(request, view, 0.0)
            samples.append(time.perf_counter_ns() - started)
    finally:
        gc.enable()
    assert statistics.median(samples) < 10_000


def test_a_move_asks_nobody_to_give_way_and_keeps_the_terms_of_its_rule() -> None:
    rule = Rule(name="vip", match=Match(channel="alice"), on_full="preempt", dscp="af41")
    view = make_view({"o0": 5, "o1": 0}, rule)
    beat(view, "o1", 3)
    decision = choose_target(want("alice"), view, 0.0, at="o0", to="o1")
    assert (decision.terms.on_full, decision.terms.dscp) == ("reject", "af41")
    full = make_view({"o0": 0, "o1": 0}, rule)
    report = OriginReport("o1", 1, ReportedState.UP, 10, (0, 0, 0), preemptible=(3, 3, 3))
    full.heartbeat(report, 0.0)
    full.set_link("o1", up=True, now=0.0)
    asked = choose_origin(want("alice"), full, 0.0)
    assert (asked.origin, asked.terms.on_full) == ("o1", "preempt"), "a new one may ask"
    assert why_not(want("alice"), full, "") == NO_ROOM


def test_the_last_units_go_by_lease_alone_while_there_are_leases() -> None:
    """Of an origin of 5,000: for its last 5 many knock before they hear of each other."""
    view = make_view({"o1": 0, "o2": 0}, lease_ttl_s=0.1)
    beat(view, "o1", 1, total=5000)
    beat(view, "o2", 2, total=5000)
    assert choose_origin(want(), view, 0.0).origin == "o2"
    beat(view, "o2", 1, total=5000)
    assert set(refusal(want(), view).values()) == {LAST_ARE_LEASED}
    assert choose_origin(want(priority=PARTNER), view, 0.0).origin == "o1"
    beat(view, "o1", 5, total=5000)
    assert choose_origin(want(), view, 0.1).origin == "o1", "without leases somebody has them"
    beat(view, "o2", 6, total=5000, now=0.1)
    view.by_name["o2"].rtt_ms = 2 * PRICE_FULL_MS
    assert choose_origin(want(), view, 0.2).origin == "o2", "but where there is more, first"
