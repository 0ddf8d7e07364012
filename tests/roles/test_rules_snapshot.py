"""What a PoP's role gives for `edged rules snapshot`."""

import pytest
import trio

from edged.errors import EdgedError
from edged.media.routing import RouteRequest
from edged.policy.pop_view import PopView
from edged.policy.rules_replay import replay
from edged.policy.rules_snapshot import RulesSnapshot, StreamElsewhere
from edged.roles.rules_snapshot import take_snapshot
from tests.roles.crowd import RULES, add_stream, make_pop


async def test_a_pop_with_its_streams() -> None:
    pop = make_pop()
    add_stream(pop, "bob", matched="the final")
    add_stream(pop, "alice")
    pop.uplinks.placing.tags.learnt["carol"] = ("fra2", ("e:1",))
    taken = take_snapshot(pop, trio.current_time() + 3.0, 1004.0)
    assert (taken.pop, taken.shard, taken.at, taken.rules) == ("west", 0, 1004.0, RULES)
    assert (taken.epoch, taken.version, taken.streams_total) == (7, 42, 2)
    assert 6.9 < taken.lease_left_s <= 7.0
    assert [stream.request for stream in taken.streams] == [
        RouteRequest(channel="alice"),
        RouteRequest(channel="bob"),
    ]
    assert [(stream.origin, stream.matched) for stream in taken.streams] == [
        ("fra1", ""),
        ("fra1", "the final"),
    ]
    assert taken.streams[0].for_s == pytest.approx(3.0, abs=0.2)
    assert [origin.row.origin for origin in taken.origins] == ["fra1", "fra2"]
    assert taken.origins[0].down == "not connected yet"
    assert taken.origins[0].rtt_ms is None
    assert taken.elsewhere == (StreamElsewhere(channel="carol", origin="fra2", tags=("e:1",)),)
    outcomes = replay(RulesSnapshot(pops=(taken,)))
    assert {outcome.origin for outcome in outcomes} == {""}, "no link stands, so nothing goes"


async def test_a_pop_without_a_table_says_so() -> None:
    pop = make_pop()
    pop.view = PopView("west")
    with pytest.raises(EdgedError, match="no routing table yet"):
        take_snapshot(pop, 0.0, 0.0)
