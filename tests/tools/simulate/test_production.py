"""Production's policies in the simulator: real views, fed with what a PoP would hear."""

from typing import TYPE_CHECKING

import pytest

from edged.media.routing import OriginState
from edged.media.stream import PriorityClass, StreamId
from edged.tools.simulate.board import TICK_S
from edged.tools.simulate.policy import NOWHERE
from edged.tools.simulate.production import Leases, Price
from edged.tools.simulate.streams import Stream
from tests.tools.simulate.test_baselines import Bench, stream

if TYPE_CHECKING:
    from collections.abc import Callable


def offer(policy: Price, one: Stream, origin: int) -> None:
    one.origin = origin
    policy.offered(one)


def test_every_pop_has_its_own_view_of_one_capacitor() -> None:
    bench = Bench()
    policy = Price(bench.around)
    policy.begin(0.5)
    assert [view.pop for view in policy.views] == ["nyc", "bos", "lhr", "nrt"]
    assert {id(view.capacitor) for view in policy.views} == {id(bench.board.capacitor)}
    ranked = [[known.origin for known in view.ranked] for view in policy.views]
    assert ranked == [
        ["nyc1", "lhr1", "nrt1"],
        ["nyc1", "lhr1", "nrt1"],
        ["lhr1", "nyc1", "nrt1"],
        ["nrt1", "lhr1", "nyc1"],
    ]
    assert [policy.choose(stream(pop), 0.5) for pop in range(4)] == [0, 0, 1, 2]


def test_what_was_placed_counts_until_the_next_heartbeat() -> None:
    bench = Bench()
    policy = Price(bench.around)
    policy.begin(0.5)
    view = policy.views[0]
    offered = [stream(0) for _ in range(3)]
    for number, one in enumerate(offered):
        one.stream_id = StreamId(str(number), 1)
        offer(policy, one, 0)
    assert (view.by_name["nyc1"].placed_since, view.by_name["nyc1"].used) == (3, 3)
    policy.tick(0.6, [report for report in bench.board.heard if report.origin != "nyc1"], [])
    assert view.by_name["nyc1"].placed_since == 3
    policy.tick(0.7, bench.board.heard, [])
    assert view.by_name["nyc1"].placed_since == 3, "they may be on their way yet"
    for one in offered:
        policy.accepted(one)
    policy.tick(0.8, bench.board.heard, [])
    assert (view.by_name["nyc1"].placed_since, view.by_name["nyc1"].used) == (0, 3)


def test_a_refusal_is_told_to_the_view_and_holds() -> None:
    policy = Price(Bench().around)
    policy.begin(0.5)
    one = stream(0)
    offer(policy, one, 0)
    policy.refused(one, 0.6, drains=False)
    policy.released(one)
    assert policy.choose(stream(0), 0.7) == 1
    assert policy.choose(stream(0), 1.2) == 0, "it is held for half a second"
    view = policy.views[0]
    assert view.take_telemetry().refusals == {"nyc1": 1}
    partner = stream(0)
    partner.priority = PriorityClass.PARTNER
    assert policy.choose(partner, 0.7) == 0, "it said nothing of partners"
    offer(policy, one, 0)
    policy.refused(one, 2.0, drains=True)
    assert policy.choose(partner, 2.1) == 1, "who drains takes none of them"


def test_nothing_goes_where_no_session_stands_or_nothing_is_heard() -> None:
    bench = Bench()
    policy = Price(bench.around)
    policy.begin(0.5)
    policy.link_changed(0, 0, 0.5, up=False)
    assert policy.choose(stream(0), 0.5) == 1
    policy.link_changed(0, 0, 0.6, up=True)
    assert policy.choose(stream(0), 0.6) == 0
    bench.silence(0)
    policy.tick(1.5, bench.board.heard, [object()])  # type: ignore[list-item] # Any change.
    assert policy.choose(stream(0), 1.5) == 1
    for origin in (1, 2):
        policy.link_changed(0, origin, 1.5, up=False)
    assert policy.choose(stream(0), 1.5) == NOWHERE
    assert policy.views[0].take_telemetry().unplaced == 1


def test_a_silent_origin_is_voted_against() -> None:
    policy = Price(Bench().around)
    policy.begin(0.5)
    one = stream(0)
    offer(policy, one, 0)
    policy.unanswered(one, 1.0)
    assert policy.views[0].take_telemetry().timeouts == {"nyc1": 1}


def test_probes_rank_anew() -> None:
    policy = Price(Bench().around)
    policy.begin(0.5)
    for _ in range(40):
        policy.rtt_measured(0, 0, 300.0)
    assert policy.views[0].ranked[0].origin == "lhr1"
    assert policy.views[0].by_name["nyc1"].rtt_ms == pytest.approx(300.0, rel=0.01)


def test_leases_are_the_planners() -> None:
    bench = Bench()
    policy = Leases(bench.around)
    calls: list[tuple[float, Callable[[], None]]] = []
    bench.around.call_at = lambda at, call: calls.append((at, call))
    policy.begin(0.5)
    policy.tick(0.6, bench.board.heard, [])
    assert all(view.version == 1 for view in policy.views), "no plan has come yet"
    while calls:
        at, call = calls.pop(0)
        if at > 5:
            break
        call()
    quotas = dict.fromkeys(policy.origins, 0)
    for view in policy.views:
        assert view.version >= 2
        assert view.lease_until > 10
        for name, known in view.by_name.items():
            assert known.row.state is OriginState.UP
            quotas[name] += known.row.quota
    assert quotas == {"nyc1": 99, "lhr1": 49, "nrt1": 49}, "all that is free but the reserve"
    assert TICK_S == 0.1
