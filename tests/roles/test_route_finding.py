"""Where a stream could go now, and the wait for a first route: against real origins."""

import pytest
import trio

from edged.errors import PublishRefusedError
from edged.media.routing import Match, RouteRequest, Rule
from edged.media.stream import PriorityClass
from edged.policy.full_paths import FullPath
from edged.roles import route_finding
from edged.roles.placement import LINK_FULL
from tests.backbone.network import Origin
from tests.roles.setting import REQUEST, running_pop


async def test_a_publisher_may_wait_for_the_first_origin() -> None:
    one = Origin("one")
    async with running_pop() as pop, trio.open_nursery() as nursery:
        routed = trio.Event()

        async def wait() -> None:
            await pop.uplinks.placing.routes.wait_route(REQUEST)
            routed.set()

        nursery.start_soon(wait)
        await trio.sleep(0.01)
        assert not routed.is_set()
        async with one.serving():
            pop.push_table(one)
            with trio.fail_after(5):
                await routed.wait()
            assert pop.place(pop.open()).decision.origin == "one"


async def test_who_is_refused_for_a_full_link_is_told_so() -> None:
    one = Origin("one")
    async with one.serving(), running_pop(one, quota=0) as pop:
        now = pop.pump.now()
        pop.view.full.told([FullPath("one", PriorityClass.BASIC, "sea")], until=now + 60)
        with pytest.raises(PublishRefusedError) as refused:
            pop.place(pop.open())
        assert (refused.value.code, refused.value.reason) == ("full", LINK_FULL.format("basic"))
        assert "link sea is full" in refused.value.detail, "which, only the log has"


async def test_it_waits_no_longer_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route_finding, "ROUTE_WAIT_S_MAX", 0.02)
    async with running_pop() as pop:
        with trio.fail_after(2):
            await pop.uplinks.placing.routes.wait_route(REQUEST)
        with pytest.raises(PublishRefusedError, match=r"no_route: .*no origins"):
            pop.place(pop.open())


async def test_once_origins_were_there_nobody_waits_for_a_full_one() -> None:
    one = Origin("one")
    async with one.serving(), running_pop(one, quota=0) as pop:
        with trio.fail_after(1):
            await pop.uplinks.placing.routes.wait_route(RouteRequest(channel="alice", cost=100))


async def test_a_publisher_waits_for_the_first_heartbeat_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With IRS dead there are no leases: a link alone makes no route."""
    one = Origin("one")
    async with one.serving() as server, running_pop() as pop, trio.open_nursery() as nursery:
        monkeypatch.setattr(server, "tick", lambda _: None)  # It beats when we say so.
        pop.push_table(one)
        pop.view.lease_until = 0.0
        routed = trio.Event()

        async def wait() -> None:
            await pop.uplinks.placing.routes.wait_route(REQUEST)
            routed.set()

        nursery.start_soon(wait)
        await pop.connected(one)
        await trio.sleep(0.02)
        assert not routed.is_set()
        pop.uplinks.heartbeat(one.report())
        with trio.fail_after(1):
            await routed.wait()
        assert pop.place(pop.open()).decision.rule == "price"


async def test_it_waits_for_a_route_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for one that another stream could take: it would be refused at its end."""
    one = Origin("one")
    async with one.serving() as server, running_pop() as pop:
        monkeypatch.setattr(server, "tick", lambda _: None)
        pop.push_table(one, rules=(Rule(match=Match(channel="bob"), avoid=("one",)),))
        await pop.connected(one)
        with trio.fail_after(1):
            await pop.uplinks.placing.routes.wait_route(REQUEST)
        with trio.move_on_after(0.02) as waited:
            await pop.uplinks.placing.routes.wait_route(RouteRequest(channel="bob"))
        assert waited.cancelled_caught
