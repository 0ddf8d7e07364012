"""A PoP's links against real origins: kept as the table says, let go of by what is heard."""

import time

import pytest
import trio
from structlog.testing import capture_logs

from edged.errors import PublishRefusedError
from edged.media.routing import OriginReport, ReportedState, RouteRequest
from edged.policy import departures
from edged.roles import uplinks as uplinks_module
from edged.roles.parts_in import LOST
from edged.roles.placement import CUT_OFF
from tests.backbone.network import Origin, append, free_address, until
from tests.roles.setting import Pop, events_of, live_at, package, running_pop

BOB = RouteRequest(channel="bob", protocol="rtmp")


async def test_what_ended_before_its_link_was_lost_waits_for_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uplinks_module, "TICK_S", 0.01)
    one = Origin("one")
    async with running_pop() as pop:
        async with one.serving():
            pop.push_table(one)
            await pop.connected(one)
            stream = pop.open()
            pop.place(stream)
            append(stream, 5)
            await until(lambda: one.units("alice"))
        link = pop.uplinks._links["one"].link
        await until(lambda: link.forwardings[0].state == "waiting")
        assert pop.uplinks.placements
        stream.end("publisher left")
        await until(lambda: not link.forwardings)


async def test_the_last_word_of_a_link_that_left_the_table_concerns_nobody() -> None:
    one = Origin("one")
    async with one.serving(), running_pop(one) as pop:
        pop.push_table()
        pop.uplinks.link_up("one", None)
        assert pop.view.link_state("one") == "link down: not in the table"


async def test_an_origin_that_left_the_table_and_came_back_is_subscribed_to_again() -> None:
    one = Origin("one")
    async with one.serving(), running_pop(one) as pop:
        await live_at(pop, one)
        pop.uplinks.parts.subscribe("alice")
        assert pop.uplinks.statistics()[0].subscriptions == 1
        pop.push_table()
        await pop.lose("one")
        with capture_logs() as logs:
            pop.push_table()
        assert "origin left the table" in [line["event"] for line in logs]
        assert pop.uplinks.statistics() == []
        assert pop.uplinks.lookup("alice") is None
        assert pop.playback.unavailable == [("alice", LOST)]
        assert [str(error) for error in pop.given_up] == [
            f"no_route: {CUT_OFF} (origin one: left the table)"
        ]
        assert not pop.uplinks.placements
        pop.push_table(one)
        await pop.connected(one)
        await live_at(pop, one, publication=2)
        await until(lambda: pop.uplinks.lookup("alice") is not None)
        pop.uplinks.parts.subscribe("alice")  # As playback does when a viewer asks.
        assert pop.uplinks.statistics()[0].subscriptions == 1
        package(one, "alice", events_of())
        await until(lambda: pop.playback.batches)


async def test_a_pop_can_wait_to_hear_who_is_live() -> None:
    """From every origin that is up, were it nobody; without a table it waits in vain."""
    one, two = Origin("one"), Origin("two")
    async with one.serving(), running_pop() as pop:
        assert not await pop.uplinks.wait_listed(0.05)
        async with trio.open_nursery() as nursery:

            async def appear() -> None:
                await trio.sleep(0.05)
                pop.push_table(one)

            nursery.start_soon(appear)
            assert await pop.uplinks.wait_listed(5.0)
        assert pop.uplinks.listing.has_heard("one")
        async with two.serving():
            pop.push_table(one, two)
            assert not pop.uplinks.listing.has_heard("two")
            assert await pop.uplinks.wait_listed(5.0)
            assert pop.uplinks.listing.has_heard("two")


async def test_a_pop_does_not_wait_for_an_origin_that_is_not_there() -> None:
    """The table that it kept says that it is up, and nobody has told otherwise since."""
    one, dead = Origin("one"), Origin("dead")
    dead.address = free_address()
    async with one.serving(), running_pop() as pop:
        pop.push_table(one, dead)
        began_at = trio.current_time()
        assert await pop.uplinks.wait_listed(5.0)
        assert pop.uplinks.listing.has_heard("one")
        assert trio.current_time() - began_at < 1.0


async def test_an_origin_that_moves_is_followed() -> None:
    one = Origin("one")
    async with running_pop() as pop:
        async with one.serving():
            pop.push_table(one)
            await pop.connected(one)
        one.address = "127.0.0.1:0"
        async with one.serving():
            pop.push_table(one)
            await until(lambda: len(pop.uplinks.statistics()[0].up) == 4)
            assert pop.uplinks.statistics()[0].reconnects >= 1


async def test_an_address_that_cannot_be_used_is_logged_and_harms_no_other() -> None:
    one, far = Origin("one"), Origin("far")
    far.address = "192.0.2.1:7410"  # Plain TCP to another host.
    async with one.serving(), running_pop() as pop:
        with capture_logs() as logs:
            pop.push_table(far, one)
            await pop.connected(one)
            pop.push_table(far, one)  # And is said once, not with each push.
        (line,) = [line for line in logs if line["event"] == "origin cannot be used"]
        assert line["origin"] == "far"
        assert "plain TCP on '192.0.2.1'" in line["reason"]
        far.address = "127.0.0.1:\N{SUPERSCRIPT TWO}"
        with capture_logs() as logs:
            pop.push_table(far, one)
            pop.push_table(one)
            pop.push_table(far, one)
        assert [line["reason"][:8] for line in logs if line["log_level"] == "error"] == [
            "address ",
            "address ",
        ]
        assert [link.origin for link in pop.uplinks.statistics()] == ["one"]


async def test_a_lost_link_blocks_its_origin_until_it_is_back() -> None:
    one = Origin("one")
    async with running_pop() as pop:
        async with one.serving():
            pop.push_table(one)
            await pop.connected(one)
            await until(lambda: pop.view.capacitor.state("one") is not None)
        await until(lambda: "link down" in pop.view.link_state("one"))
        with pytest.raises(PublishRefusedError, match="one: link down"):
            pop.place(pop.open())


async def test_round_trips_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uplinks_module, "TICK_S", 0.01)
    one = Origin("one")
    async with one.serving(), running_pop(one) as pop:
        pop.view._rtt_ms["one"] = 1e9
        await until(lambda: pop.view._rtt_ms["one"] < 9e8)


async def test_a_table_that_lacks_an_origin_cuts_no_healthy_stream() -> None:
    """As from an IRS that has just started and that this origin does not reach."""
    one, two = Origin("one"), Origin("two")
    async with one.serving(), two.serving(), running_pop(one, two) as pop:
        stream = pop.open()
        pop.place(stream)
        append(stream, 10)
        await until(lambda: len(one.units("alice")) == 10)
        pop.uplinks.parts.subscribe("alice")
        with capture_logs() as logs:
            pop.push_table(two)
            pop.push_table(two)
        said = [line["event"] for line in logs if line["log_level"] == "warning"]
        assert said.count("origin is missing from the table, kept while in use") == 1
        append(stream, 10)
        await until(lambda: len(one.units("alice")) == 20)
        package(one, "alice", events_of())
        await until(lambda: pop.playback.batches)
        assert (pop.given_up, pop.playback.unavailable) == ([], [])
        assert (
            pop.place(pop.open("bob"), BOB).decision.origin == "two"
        )  # But nothing new goes there.
        pop.push_table(one, two)
        assert pop.view.by_name["one"].used == 1
        assert pop.uplinks._links["one"].listed
        assert pop.uplinks.statistics()[0].reconnects == 0


async def test_an_origin_that_is_missing_goes_when_nothing_needs_it_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uplinks_module, "TICK_S", 0.01)
    one, two = Origin("one"), Origin("two")
    async with one.serving(), two.serving(), running_pop(one, two) as pop:
        await live_at(pop, one)
        stream = pop.uplinks.placements["alice"].stream
        pop.uplinks.parts.subscribe("alice")
        pop.push_table()
        assert [link.origin for link in pop.uplinks.statistics()] == [
            "one"
        ]  # The idle one is gone.
        pop.hub.close(stream, "publisher left")
        pop.uplinks.placing.end(stream)
        await until(lambda: one.hub.get("alice") is None)
        await trio.sleep(0.03)
        assert [link.origin for link in pop.uplinks.statistics()] == ["one"]  # Parts may come.
        pop.uplinks.parts.unsubscribe("alice")
        await until(lambda: not pop.uplinks.statistics())
        assert pop.view.link_state("one") == "link down: not in the table"
        assert pop.given_up == []


async def test_an_origin_that_is_missing_and_lost_goes_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uplinks_module, "TICK_S", 0.01)
    one = Origin("one")
    async with running_pop() as pop:
        async with one.serving():
            pop.push_table(one)
            await pop.connected(one)
            await live_at(pop, one)
            pop.push_table()
        await until(lambda: pop.given_up)
        assert pop.given_up[0].detail == "origin one: left the table"
        assert pop.uplinks.statistics() == []


async def test_a_dead_origin_s_channels_are_over_but_it_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uplinks_module, "TICK_S", 0.01)
    monkeypatch.setattr(departures, "LOST_S_MAX", 0.05)
    one = Origin("one")
    async with running_pop() as pop:
        async with one.serving():
            pop.push_table(one)
            await pop.connected(one)
            await live_at(pop, one)
            pop.uplinks.parts.subscribe("alice")
        await until(lambda: pop.uplinks._links["one"].lost_at is not None)
        await trio.sleep(0.07)
        assert pop.uplinks.lookup("alice")  # Its heartbeats have not convicted it.
        assert pop.given_up == []
        with capture_logs() as logs:
            pop.uplinks.heartbeat(OriginReport("one", 1, ReportedState.DOWN, 10, (0, 0, 0)))
            await until(lambda: pop.given_up)
            await trio.sleep(0.03)
        assert [line["event"] for line in logs].count("origin is lost") == 1
        assert pop.given_up[0].reason == CUT_OFF
        assert pop.given_up[0].detail.startswith("origin one: lost for ")
        assert pop.uplinks.lookup("alice") is None
        assert list(pop.uplinks.listing) == []
        assert pop.playback.unavailable == [("alice", LOST)]
        assert pop.view.by_name["one"].used == 0
        (link,) = pop.uplinks.statistics()
        assert (link.forwardings, link.subscriptions) == (0, 0)
        one = Origin("one", incarnation=2)
        one.address = link_address(pop)
        async with one.serving():
            await until(lambda: pop.view.reached)
            await live_at(pop, one, publication=2)
            assert not pop.uplinks._links["one"].forgotten


def link_address(pop: Pop) -> str:
    return pop.uplinks._links["one"].link.address


async def test_time_in_which_we_slept_convicts_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uplinks_module, "TICK_S", 0.02)
    monkeypatch.setattr(uplinks_module, "TICK_LATE_S_MAX", 0.03)
    monkeypatch.setattr(departures, "LOST_S_MAX", 0.08)
    one = Origin("one")
    async with running_pop() as pop:
        async with one.serving():
            pop.push_table(one)
            await pop.connected(one)
            await live_at(pop, one)
        await until(lambda: pop.uplinks._links["one"].lost_at is not None)
        pop.uplinks.heartbeat(OriginReport("one", 1, ReportedState.DOWN, 10, (0, 0, 0)))
        time.sleep(0.1)  # noqa: ASYNC251 - the whole process stands still
        await trio.sleep(0.02)
        assert pop.given_up == []
        await until(lambda: pop.given_up)
