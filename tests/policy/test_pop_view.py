"""A PoP's own view: what blocks an origin, what is counted, what is told to IRS."""

import math

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.media.routing import (
    ORIGINS_MAX,
    OriginReport,
    OriginRow,
    OriginState,
    PathProbe,
    ReportedState,
    RouteRequest,
    RoutingTable,
)
from edged.media.stream import PriorityClass
from edged.policy.pop_view import HOLD_S_MAX, HOLD_S_MIN, TAGS_MAX, PopView

ALICE = RouteRequest(channel="alice", priority=PriorityClass.PARTNER, tags=("e:1",), cost=2)


def table(*rows: OriginRow, version: int = 1, ttl_s: float = 30.0) -> RoutingTable:
    return RoutingTable(
        epoch=1, version=version, issued=0.0, ttl_s=ttl_s, lease_ttl_s=10.0, rows=rows
    )


def row(origin: str, *, state: OriginState = OriginState.UP, quota: int = 5) -> OriginRow:
    return OriginRow(origin, f"{origin}:1", state, quota, 0.0, 1)


def report(origin: str, free: int = 10, state: ReportedState = ReportedState.UP) -> OriginReport:
    return OriginReport(origin, 1, state, 10, (free, free, free))


def make_view(*rows: OriginRow, ttl_s: float = 30.0) -> PopView:
    view = PopView("lhr")
    view.accept_table(table(*rows, ttl_s=ttl_s), 0.0)
    for known in rows:
        view.set_link(known.origin, up=True, now=0.0)
    return view


def blocked(view: PopView, origin: str) -> str:
    return view.by_name[origin].blocked


def test_nothing_goes_where_no_session_stands() -> None:
    view = PopView("lhr")
    view.accept_table(table(row("o1")), 0.0)
    assert blocked(view, "o1") == "not connected yet"
    view.set_link("o1", up=True, now=0.0)
    assert blocked(view, "o1") == ""
    view.set_link("o1", up=False, now=0.0, reason="reset")
    assert blocked(view, "o1") == "link down: reset"
    view.set_link("o1", up=False, now=0.0)
    assert blocked(view, "o1") == "link down"


def test_a_masked_row_blocks_until_the_table_is_stale() -> None:
    view = make_view(row("o1", state=OriginState.DOWN), ttl_s=30.0)
    assert blocked(view, "o1") == "masked in the table: down"
    view.handle_timeout(29.9)
    assert blocked(view, "o1") != ""
    assert view.next_timeout() == 30.0
    view.handle_timeout(30.0)
    assert blocked(view, "o1") == ""
    view.set_link("o1", up=True, now=31.0)  # And it stays so at any later refresh.
    assert blocked(view, "o1") == ""
    assert view.next_timeout() == math.inf


def test_a_table_from_disk_brings_no_leases_and_no_states() -> None:
    view = PopView("lhr")
    view.accept_table(table(row("o1", state=OriginState.DOWN)), 50.0, from_disk=True)
    view.set_link("o1", up=True, now=50.0)
    assert view.lease_until == -math.inf
    assert blocked(view, "o1") == ""
    assert view.version == 1


def test_own_heartbeats_block_whatever_the_table_says() -> None:
    view = make_view(row("o1"), row("o2"))
    for origin in ("o1", "o2"):
        assert view.heartbeat(report(origin), 0.0)[0].after is OriginState.UP
    view.heartbeat(report("o2"), 0.1)
    assert [change.after for change in view.handle_timeout(0.2)] == [OriginState.SUSPECT]
    assert blocked(view, "o1") == "suspect by its heartbeats here"
    assert blocked(view, "o2") == ""
    view.heartbeat(report("o1"), 0.25)
    assert blocked(view, "o1") == ""
    view.heartbeat(report("o2", state=ReportedState.DRAIN), 0.3)
    assert blocked(view, "o2") == "drain by its heartbeats here"


def test_origins_are_ranked_by_smoothed_rtt_the_unmeasured_last() -> None:
    view = make_view(row("o1"), row("o2"), row("o3"))
    view.observe_rtt("o3", 10.0)
    view.observe_rtt("o2", 20.0)
    view.observe_rtt("gone", 1.0)
    assert [known.origin for known in view.ranked] == ["o3", "o2", "o1"]
    view.observe_rtt("o3", 30.0)
    assert view.by_name["o3"].rtt_ms == pytest.approx(14.0)
    view.accept_table(table(row("o2"), row("o3"), version=2), 1.0)
    assert [known.origin for known in view.ranked] == ["o3", "o2"]


@hypothesis.given(
    st.lists(
        st.tuples(st.sampled_from(["o1", "o2", "o3", "o4"]), st.sampled_from([5.0, 6.0, 80.0]))
    )
)
def test_origins_stand_in_order_after_every_measurement(measured: list[tuple[str, float]]) -> None:
    view = make_view(*(row(f"o{n}") for n in range(1, 5)))
    for origin, rtt_ms in measured:
        before = view.ranked
        view.observe_rtt(origin, rtt_ms)
        right = sorted(view.by_name.values(), key=lambda known: (known.rtt_ms, known.origin))
        assert view.ranked == right
        if before == right:  # A probe that changes no order sorts nothing.
            assert view.ranked is before


def test_streams_are_counted_also_across_tables_that_lose_their_origin() -> None:
    view = make_view(row("o1"), row("o2"))
    view.placed("o1", ALICE)
    view.placed("o2", ALICE)
    view.accept_table(table(row("o2"), version=2), 1.0)
    view.accept_table(table(row("o1"), row("o2"), version=3), 2.0)
    assert view.by_name["o1"].used == 2
    view.accept_table(table(row("o2"), version=4), 3.0)
    view.released("o1", ALICE)
    view.released("o2", ALICE)
    view.accept_table(table(row("o1"), version=5), 4.0)
    assert view.by_name["o1"].used == 0
    assert view.take_telemetry().units == {}
    with pytest.raises(AssertionError, match="released more"):
        view.released("o1", ALICE)


def test_room_counts_what_was_placed_since_the_heartbeat_and_keeps_the_reserve() -> None:
    view = make_view(row("o1"))
    known = view.by_name["o1"]
    partner, basic = PriorityClass.PARTNER, PriorityClass.BASIC
    assert view.room(known, priority=partner, now=0.0) == 0
    view.heartbeat(report("o1", free=5), 0.0)
    assert view.room(known, priority=partner, now=0.0) == 5
    assert view.room(known, priority=basic, now=0.0) == 4
    view.placed("o1", ALICE)
    assert view.room(known, priority=basic, now=0.0) == 2
    view.accept_table(table(row("o1"), version=2), 0.0)
    assert view.room(view.by_name["o1"], priority=basic, now=0.0) == 2
    view.accepted("o1", ALICE.channel, ALICE.priority)
    view.heartbeat(report("o1", free=3), 0.1)
    assert view.room(view.by_name["o1"], priority=basic, now=0.1) == 2


def test_a_heartbeat_does_not_know_of_what_is_on_its_way() -> None:
    """Else a burst, which heartbeats come between, goes to one origin and beyond its room."""
    view = make_view(row("o1"))
    partner = PriorityClass.PARTNER
    bob = RouteRequest(channel="bob", cost=3)

    def room(*, free: int | None = None) -> int:
        if free is not None:
            view.heartbeat(report("o1", free=free), 0.0)
        return view.room(view.by_name["o1"], priority=partner, now=0.0)

    assert room(free=9) == 9
    view.placed("o1", ALICE)
    assert room(free=9) == 7
    view.accept_table(table(row("o1"), version=2), 0.0)
    view.placed("o1", bob)
    assert room() == 4
    view.accepted("o1", ALICE.channel, ALICE.priority)
    assert room() == 4, "until a heartbeat tells of it"
    assert room(free=7) == 4
    view.released("o1", bob)  # It was refused.
    assert room() == 7
    assert room(free=7) == 7
    with_place = RouteRequest(channel="carol")
    view.placed("o1", with_place, is_there=True)
    assert room() == 6
    assert room(free=6) == 6


def test_holds_grow_until_a_stream_is_taken() -> None:
    view = make_view(row("o1"))
    lengths = [view.refused("o1", 0.0) for _ in range(6)]
    assert lengths == [HOLD_S_MIN, 1.0, 2.0, 4.0, HOLD_S_MAX, HOLD_S_MAX]
    assert view.by_name["o1"].held == (HOLD_S_MAX,) * 3
    view.accept_table(table(row("o1"), version=2), 1.0)
    assert view.by_name["o1"].held == (HOLD_S_MAX,) * 3
    view.accepted("o1", "any", PriorityClass.BASIC)
    assert view.timed_out("o1", 9.0) == HOLD_S_MIN
    assert view.timed_out("gone", 9.0) == HOLD_S_MIN


def test_a_refusal_holds_its_class_and_those_below() -> None:
    view = make_view(row("o1"))
    basic = PriorityClass.BASIC
    assert [view.refused("o1", 0.0, priority=basic) for _ in range(2)] == [HOLD_S_MIN, 1.0]
    assert view.by_name["o1"].held == (-math.inf, -math.inf, 1.0)
    assert view.refused("o1", 0.0, priority=PriorityClass.AFFILIATE) == HOLD_S_MIN
    assert view.by_name["o1"].held == (-math.inf, HOLD_S_MIN, 2.0)
    view.accepted("o1", "any", PriorityClass.PARTNER)  # It says nothing of the classes below.
    assert view.refused("o1", 0.0, priority=basic) == 4.0
    view.accepted("o1", "any", PriorityClass.AFFILIATE)
    assert view.refused("o1", 0.0, priority=PriorityClass.AFFILIATE) == HOLD_S_MIN
    view.accepted("o1", "any", basic)
    assert view.refused("o1", 0.0, priority=basic) == HOLD_S_MIN
    view.accepted("never refused", "any", basic)


def test_an_origin_is_reached_by_its_link_and_its_heartbeats() -> None:
    view = PopView("lhr")
    assert not view.reached
    view.accept_table(table(row("o1"), row("o2")), 0.0)
    view.heartbeat(report("o1"), 0.0)
    assert not view.reached
    view.set_link("o2", up=True, now=0.0)
    assert not view.reached
    view.set_link("o1", up=True, now=0.0)
    assert view.reached
    view.handle_timeout(0.2)
    assert view.capacitor.state("o1") is OriginState.SUSPECT
    assert view.reached
    view.handle_timeout(0.3)
    assert view.capacitor.state("o1") is OriginState.DOWN
    assert not view.reached
    view.heartbeat(report("o1"), 0.4)
    assert view.reached
    view.accept_table(table(row("o2"), version=2), 0.4)
    assert not view.reached


def test_tags_say_where_a_group_is() -> None:
    view = make_view(row("o1"))
    view.placed("o1", ALICE)
    view.learn_tags("o2", ("e:1", "e:2"))
    assert view.homes("e:1") == {"o1": 1, "o2": 1}
    view.released("o1", ALICE)
    view.learn_tags("o2", ("e:1", "e:2"), -1)
    view.learn_tags("o2", ("e:3",), -1)
    assert view.homes("e:1") == {}


def test_a_stream_can_be_left_out_of_what_is_known_of_tags() -> None:
    view = make_view(row("o1"))
    view.learn_tags("o1", ("e:1",))
    view.learn_tags("o2", ("e:2",))
    with view.without_tags("o1", ("e:1", "e:2", "e:3")):
        assert (view.homes("e:1"), view.homes("e:2")) == ({}, {"o2": 1})
    with pytest.raises(KeyError), view.without_tags("o2", ("e:2",)):
        raise KeyError("bug")
    homes = [view.homes(tag) for tag in ("e:1", "e:2", "e:3")]
    assert homes == [{"o1": 1}, {"o2": 1}, {}], "as before"


def test_tags_are_bounded() -> None:
    view = PopView("lhr")
    for n in range(TAGS_MAX + 1):
        view.learn_tags("o1", (f"t{n}",))
    assert view.homes(f"t{TAGS_MAX - 1}") == {"o1": 1}
    assert view.homes(f"t{TAGS_MAX}") == {}


def test_what_is_known_of_strangers_is_bounded() -> None:
    view = make_view(row("o1"))
    for n in range(2 * ORIGINS_MAX + 1):
        view.set_link(f"x{n}", up=True, now=0.0)
        view.observe_path(f"x{n}", PathProbe(1.0))
        view.carried_mbps[f"x{n}"] = (1.0, 1.0)
    view.accept_table(table(row("o1"), version=2), 1.0)
    assert view.link_state("x0") == "not connected yet"
    assert view.path("x0") is None
    assert view.carried_mbps == {}
    assert view.link_state("o1") == ""


def test_telemetry_counts_since_the_last_one() -> None:
    view = make_view(row("o1"), row("o2"))
    view.placed("o1", ALICE)
    view.note_request(ALICE, placed=True)
    view.note_request(RouteRequest(channel="bob"), placed=False)
    view.refused("o2", 0.0)
    view.timed_out("o1", 0.0)
    view.observe_rtt("o1", 12.0, loss=0.01, goodput_mbps=100.0)
    view.observe_rtt("gone", 1.0)
    view.carried_mbps |= {"o1": (6.0, 12.0), "o2": (0.0, 0.0), "gone": (1.0, 1.0)}
    told = view.take_telemetry()
    assert told.units == {"o1": (2, 0, 0)}
    assert (told.arrivals, told.unplaced) == (3, 1)
    assert (told.refusals, told.timeouts) == ({"o2": 1}, {"o1": 1})
    assert told.probes == {"o1": PathProbe(12.0, 0.01, 100.0)}
    assert told.mbps == {"o1": (6.0, 12.0)}
    again = view.take_telemetry()
    assert again.units == {"o1": (2, 0, 0)}
    assert (again.arrivals, again.unplaced, again.refusals, again.timeouts) == (0, 0, {}, {})
