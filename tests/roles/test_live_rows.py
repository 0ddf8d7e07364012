"""What is published at a PoP, as IRS is told of it."""

import trio
from msgspec import structs

from edged.media.live import LiveRow
from edged.media.stream import PriorityClass, StreamId
from edged.roles.live_rows import LiveRows
from tests.roles.crowd import add_stream, make_pop

UNIX = 1_700_000_000.0


async def test_rows_are_what_is_published_and_change_only_with_it() -> None:
    pop = make_pop()
    began_at = trio.current_time()
    unix = UNIX
    rows = LiveRows(pop.hub, pop.uplinks.placements, lambda: began_at + 5.0, lambda: unix)
    assert rows() == {}
    alice, bob = add_stream(pop, "alice"), add_stream(pop, "bob")
    alice.started_at = bob.started_at = began_at
    first = rows()
    assert first["alice"] == LiveRow(
        "alice", 0xABC, 2, "fra1", "basic", "rtmp", UNIX - 5.0, waits=False
    )
    again = rows()
    assert all(again[channel] is first[channel] for channel in ("alice", "bob"))

    unix += 3600.0  # The clock was set.
    bob.waiting_since = began_at + 4.0
    pop.uplinks.placements["alice"].decision = structs.replace(
        pop.uplinks.placements["alice"].decision, origin="fra2"
    )
    second = rows()
    assert second["alice"] == structs.replace(first["alice"], origin="fra2")
    assert second["bob"] == structs.replace(first["bob"], waits=True)

    bob.stream_id = StreamId("bob", 0xABC, 3)
    placement = pop.uplinks.placements.pop("alice")
    third = rows()
    assert (third["alice"].origin, third["alice"].protocol) == ("", "rtmp")
    assert third["bob"].home_epoch == 3
    assert third["bob"].since == UNIX - 5.0

    pop.uplinks.placements["alice"] = placement
    placement.request = structs.replace(placement.request, protocol="rtmps")
    pop.hub.close(bob, "it ended")
    fourth = rows()
    assert set(fourth) == {"alice"}
    assert fourth["alice"].protocol == "rtmps"


async def test_another_class_or_protocol_alone_is_a_change() -> None:
    """A run keeps its publication where it is: a new grant, or a publisher that is back by SRT."""
    pop = make_pop()
    rows = LiveRows(pop.hub, pop.uplinks.placements, lambda: 0.0, lambda: UNIX)
    alice = add_stream(pop, "alice")
    assert (rows()["alice"].class_, rows()["alice"].protocol) == ("basic", "rtmp")
    alice.grant = structs.replace(alice.grant, priority=PriorityClass.PARTNER)
    assert rows()["alice"].class_ == "partner"
    placement = pop.uplinks.placements["alice"]
    placement.request = structs.replace(placement.request, protocol="srt")
    assert rows()["alice"].protocol == "srt"
    placement.request = structs.replace(placement.request, protocol="")
    alice.came_from = "whip 10.0.0.7:50112"
    assert rows()["alice"].protocol == "whip"
    assert rows()["alice"] is rows()["alice"]
