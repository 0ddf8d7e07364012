"""Channels from PoP to PoP, in a whole network: a viewer behind a relay must never notice.

All roles are in this process, so one loop has to do for a publisher, six roles and a viewer.
"""

import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from msgspec import Struct

import edged.roles.relaying
from edged.media.parts import StreamEnded
from edged.media.reach import Reach, ReachOrder
from edged.policy.reach_config import PopReachConfig
from edged.policy.relay_choice import AVOID_S
from edged.roles.origin import OriginRole
from edged.roles.pop import PopRole
from tests.backbone.network import free_address, until
from tests.e2e.viewer import Viewer
from tests.ingest.rtmp_peer import Encoder, admitted
from tests.roles.network import KEY, Network, broadcast, configure, raw_network, running
from tests.roles.throwing import go_on

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

NUMBERS = itertools.count(1)


class Relayed(Struct):
    """alice is published at west; a viewer at south watches her, and must not notice anything."""

    network: Network
    west: PopRole
    east: PopRole
    south: PopRole
    origins: list[OriginRole]
    encoder: Encoder
    viewer: Viewer

    def order(
        self,
        pop: PopRole,
        via: PopRole | None = None,
        *,
        ttl_s: float = 60.0,
        rungs: tuple[str, ...] = (),
    ) -> None:
        """Have a PoP hold alice, or take her from another; and these rungs of her alone."""
        relay = "" if via is None else name_of(via)
        order = ReachOrder("alice", hold=via is None, via=relay, rungs=rungs)
        pop.reaching.ordered(
            Reach(
                epoch=1,
                number=next(NUMBERS),
                ttl_s=ttl_s,
                orders=(order,),
                relays={} if via is None else {relay: via.relaying.address},
            )
        )

    def countermand(self, pop: PopRole) -> None:
        """Nothing is ordered any more."""
        pop.reaching.ordered(Reach(epoch=1, number=next(NUMBERS), ttl_s=60, orders=()))

    def sources(self, pop: PopRole) -> tuple[str, ...]:
        return pop.uplinks.parts.sources("alice")

    async def go_by_relay(self) -> None:
        """East holds alice, and south takes her from there."""
        self.order(self.east)
        await until(lambda: self.sources(self.east) == (self.at,))
        await until(lambda: self.east.relaying.replay("alice", lists=True, cold=False))
        self.order(self.south, self.east)
        await until(lambda: self.sources(self.south) == ("east/0",))
        await self.watched_further()
        assert self.east.relaying.relayed_on() == {"alice": 1}

    @property
    def at(self) -> str:
        return self.south.uplinks.origin_of("alice")

    async def watched_further(self, parts: int = 6) -> None:
        """The viewer gets several parts more of each rendition."""
        before = {name: len(track.arrivals) for name, track in self.viewer.tracks.items()}
        await until(
            lambda: all(
                len(track.arrivals) >= before[name] + parts
                for name, track in self.viewer.tracks.items()
            ),
            8.0,
        )

    def check(self, stall_s_max: float = 1.5) -> None:
        """No hole, no part twice, no discontinuity, no stall."""
        for track in self.viewer.tracks.values():
            track.check_flow(stall_s_max)
            uris = [arrival.uri for arrival in track.arrivals]
            assert len(set(uris)) == len(uris)
        window = self.south.hls.channels["alice"].newest
        assert window is not None
        statistics = window.window.statistics()
        assert (statistics.parts_missing, statistics.segments_missing) == (0, 0)


def name_of(pop: PopRole) -> str:
    return f"{pop.name.removeprefix('pop ')}/0"


@contextlib.asynccontextmanager
async def relayed(folder: Path, *, origins: int = 1, **reach: object) -> AsyncIterator[Relayed]:
    irs, origin, *pops = raw_network(folder, pops=("west", "east", "south"))
    for pop in pops:
        table = pop["pop"]
        assert isinstance(table, dict)
        table["reach"] = {"listen": "127.0.0.1:0", "grace_s": 0.2, **reach}
    places = [origin]
    for number in range(1, origins):
        more = {**origin, "origin": {"name": f"fra{number + 1}", "listen": free_address()}}
        places.append(more)
    async with (
        running(*map(configure, (irs, *places, *pops))) as network,
        admitted(network.rtmp(), KEY) as encoder,
        trio.open_nursery() as nursery,
    ):
        await broadcast(encoder)
        nursery.start_soon(go_on, encoder)
        viewer = Viewer(f"http://{network.addresses['pop south']['http']}", "alice")
        await viewer.join()
        nursery.start_soon(lambda: viewer.watch(join=False))
        roles = {role.name: role for role in network.process.roles}
        west, east, south = (roles[f"pop {name}"] for name in ("west", "east", "south"))
        assert isinstance(west, PopRole)
        assert isinstance(east, PopRole)
        assert isinstance(south, PopRole)
        made = Relayed(
            network,
            west,
            east,
            south,
            [role for role in network.process.roles if isinstance(role, OriginRole)],
            encoder,
            viewer,
        )
        await made.watched_further(3)
        yield made
        nursery.cancel_scope.cancel()


async def test_to_a_relay_and_back_the_viewer_notices_nothing(tmp_path: Path) -> None:
    async with relayed(tmp_path) as made:
        await made.go_by_relay()
        made.check()
        (origin,) = made.origins
        assert origin.server.statistics().subscriptions.parts == 1, "to the relay alone"
        (seen,) = made.south.reaching.seen().sources
        assert (seen.source, seen.ordered, seen.why) == ("east/0", "east/0", "")
        assert made.south.uplinks.parts.handovers == 1
        assert made.south.uplinks.parts.handovers_forced == 0
        newest = made.south.hls.channels["alice"].newest
        assert newest is not None
        fetched: list[bytes | str] = []  # What is away is asked for where the run is.
        parts = made.south.uplinks.parts
        assert parts.fetch(newest.window.stream_id, "v0", 0, fetched.append)
        await until(lambda: fetched)
        assert isinstance(fetched[0], bytes)
        made.countermand(made.south)
        await until(lambda: made.sources(made.south) == ("fra1",))
        await until(lambda: made.east.relaying.relayed_on() == {})
        await made.watched_further()
        made.check()
        assert made.south.uplinks.parts.handovers_forced == 0


@pytest.mark.slow
async def test_orders_that_expire_end_relaying_and_renewed_ones_begin_it_again(
    tmp_path: Path,
) -> None:
    async with relayed(tmp_path) as made:
        await made.go_by_relay()
        made.order(made.south, made.east, ttl_s=0.3)
        await until(lambda: made.sources(made.south) == ("fra1",))
        made.order(made.south, made.east)
        await until(lambda: made.sources(made.south) == ("east/0",))
        await made.watched_further()
        made.check()


@pytest.mark.parametrize("how", ["silent", "lost"])  # Frozen: `test_relay_dies`.
async def test_a_relay_that_fails_is_left_at_once_without_irs(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with relayed(tmp_path) as made:
        await made.go_by_relay()
        server = made.east.relaying.server
        assert server is not None
        began = trio.current_time()
        if how == "silent":
            monkeypatch.setattr(server, "publish", lambda *_: None)
        else:
            for session in list(server._sessions):
                session.connection.abort("killed")
        await until(lambda: made.sources(made.south) == ("fra1",))
        assert trio.current_time() - began < 1.0
        await made.watched_further()
        made.check()
        (why,) = made.south.relaying.avoided().values()
        expected = "the way there was lost" if how == "lost" else "nothing came of it any more"
        assert why.startswith(expected)
        (seen,) = made.south.reaching.seen().sources
        assert seen.source == "fra1"
        assert seen.why == f"avoided: {expected}"
        made.order(made.south, made.east)  # Though it is ordered again.
        await made.watched_further()
        assert made.sources(made.south) == ("fra1",)


@pytest.mark.slow
async def test_a_relay_that_was_avoided_is_gone_to_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edged.policy.relay_choice.AVOID_S", 0.5)
    assert AVOID_S > 10
    async with relayed(tmp_path) as made:
        await made.go_by_relay()
        assert made.east.relaying.server is not None
        for session in list(made.east.relaying.server._sessions):
            session.connection.abort("killed")
        await until(lambda: made.sources(made.south) == ("fra1",))
        await until(lambda: made.sources(made.south) == ("east/0",))
        await made.watched_further()
        made.check()


@pytest.mark.slow
async def test_a_relay_that_refuses_costs_nothing(tmp_path: Path) -> None:
    """It does not hold the channel: the origin is heard all the time."""
    async with relayed(tmp_path) as made:
        made.order(made.south, made.east)
        await until(made.south.relaying.avoided)
        await until(lambda: made.sources(made.south) == ("fra1",))
        (why,) = made.south.relaying.avoided().values()
        assert why.startswith("no_relay: it is not here")
        await made.watched_further()
        made.check()


async def test_two_that_are_ordered_to_take_from_each_other_make_no_loop(tmp_path: Path) -> None:
    async with relayed(tmp_path) as made:
        made.order(made.east)
        await until(lambda: made.sources(made.east) == ("fra1",))
        await until(lambda: made.east.relaying.replay("alice", lists=True, cold=False))
        made.order(made.south, made.east)
        made.order(made.east, made.south)
        for _ in range(40):
            await trio.sleep(0.05)
            both = (made.sources(made.east)[:1], made.sources(made.south)[:1])
            settled = [sources for sources in both if sources == ("fra1",)]
            asks = [made.east.relaying.source("alice"), made.south.relaying.source("alice")]
            assert settled or "fra1" in (*made.sources(made.east), *made.sources(made.south))
            served = made.east.relaying.relayed_on(), made.south.relaying.relayed_on()
            assert not (served[0] and asks[0]), "who relays takes it from its origin"
            assert not (served[1] and asks[1])
        await made.watched_further()
        made.check()


@pytest.mark.slow
async def test_who_takes_a_channel_from_a_relay_relays_it_to_nobody(tmp_path: Path) -> None:
    async with relayed(tmp_path) as made:
        await made.go_by_relay()
        assert made.south.relaying.why_not("alice") == "it is taken from east/0 itself"
        made.order(made.west, made.south)
        viewer = Viewer(f"http://{made.network.addresses['pop west']['http']}", "alice")
        await viewer.join()
        await until(made.west.relaying.avoided)
        await until(lambda: made.sources(made.west) == ("fra1",))
        made.order(made.east, made.south)  # And who relays it goes nowhere.
        await made.watched_further()
        (seen,) = made.east.reaching.seen().sources
        assert seen.why == "it goes from here to 1 PoPs"
        assert made.sources(made.east) == ("fra1",)
        made.check()


@pytest.mark.slow
async def test_what_others_take_from_here_stays_without_an_order(tmp_path: Path) -> None:
    async with relayed(tmp_path) as made:
        await made.go_by_relay()
        made.countermand(made.east)
        await trio.sleep(1.5)  # Beyond its grace.
        made.east.hls.sweep(made.east.pump.now())
        await made.watched_further()
        assert made.sources(made.south) == ("east/0",)
        made.check()


async def test_the_end_of_a_stream_comes_by_a_relay(tmp_path: Path) -> None:
    async with relayed(tmp_path) as made:
        await made.go_by_relay()
        stream = made.west.hub.get("alice")
        assert stream is not None
        made.west.door.stop(stream, "Rejected", "over")
        await until(lambda: all(track.ended for track in made.viewer.tracks.values()), 8.0)
        newest = made.south.hls.channels["alice"].newest
        assert newest is not None
        assert isinstance(newest.window.ended, StreamEnded)
        await until(lambda: made.east.relaying.relayed_on() == {})


async def test_a_drained_origin_is_followed_by_the_relay(tmp_path: Path) -> None:
    """The run goes on under a newer epoch, and the viewer's PoP hears it from where it was."""
    async with relayed(tmp_path, origins=2) as made:
        await made.go_by_relay()
        before = made.at
        other = "fra2" if before == "fra1" else "fra1"
        placing = made.west.uplinks.placing
        await until(lambda: placing.moves.begin("alice", other, "migrate", lambda _: None) == "")
        await until(lambda: made.at == other)
        await until(lambda: made.sources(made.east) == (other,), 10.0)
        await made.watched_further(12)
        assert made.sources(made.south) == ("east/0",)
        newest = made.south.hls.channels["alice"].newest
        assert newest is not None
        assert newest.window.stream_id == made.south.uplinks.lookup("alice")
        made.check()


@pytest.mark.slow
async def test_limits_of_a_relay_are_said(tmp_path: Path) -> None:
    async with relayed(tmp_path) as made:
        made.order(made.east)
        await until(lambda: made.east.relaying.why_not("alice") == "")
        relaying = made.east.relaying
        relaying._mbps_out = 1e9
        assert "Mbps are relayed already" in relaying.why_not("alice")
        relaying._mbps_out = 0.0
        relaying.reconfigure(PopReachConfig(listen="127.0.0.1:0", relays_max=1))
        made.order(made.south, made.east)
        await until(lambda: made.sources(made.south) == ("east/0",))
        assert relaying.why_not("alice") == "1 subscriptions of PoPs are open"
        made.east.reaching.draining = True
        assert relaying.why_not("alice") == "the PoP drains"
        assert relaying.relays_max == 0
        made.south.relaying.reconfigure(PopReachConfig(relayed_max=0))
        made.countermand(made.south)
        await until(lambda: made.sources(made.south) == ("fra1",))
        made.east.reaching.draining = False
        made.order(made.south, made.east)
        why = "0 channels come from relays already"
        await until(lambda: [each.why for each in made.south.reaching.seen().sources] == [why])
        made.check()
        text = made.network.process.metrics.render().decode()
        for spec in edged.roles.relaying.SPECS:
            assert spec.name in text


def is_list(pop: PopRole, rendition: str) -> bool:
    """Whether a rendition comes to a PoP as a list of whole segments alone."""
    channel = pop.hls.channels.get("alice")
    if channel is None or channel.newest is None:
        return False
    window = channel.newest.window.renditions.get(rendition)
    return window is not None and window.is_away


@pytest.mark.slow  # Unit tests show it as well.
async def test_a_rung_that_nobody_watches_comes_when_somebody_does(tmp_path: Path) -> None:
    """East holds alice by a rung that she has not: her only one is listed until a viewer asks."""
    async with relayed(tmp_path) as made:
        made.order(made.east, rungs=("v9",))
        await until(lambda: is_list(made.east, "v0"), 10.0)
        assert not is_list(made.east, "a0")
        assert made.east.relaying.rungs_pushed("alice") == ("v9",)
        assert made.east.reaching.way("alice").rungs == ["v9"]
        there = Viewer(f"http://{made.network.addresses['pop east']['http']}", "alice")
        await there.join()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: there.watch(join=False))
            await until(
                lambda: (
                    bool(there.tracks) and all(len(t.arrivals) > 12 for t in there.tracks.values())
                ),
                12.0,
            )
            await until(lambda: not is_list(made.east, "v0"), 5.0)
            nursery.cancel_scope.cancel()
        assert made.east.relaying.rungs_pushed("alice") == ("a0", "v0", "v9")
        for track in there.tracks.values():
            uris = [arrival.uri for arrival in track.arrivals]
            assert len(set(uris)) == len(uris)
        newest = made.east.hls.channels["alice"].newest
        assert newest is not None
        statistics = newest.window.statistics()
        assert (statistics.parts_missing, statistics.segments_missing) == (0, 0)
        made.check()


@pytest.mark.slow  # Unit tests show it as well.
async def test_a_relay_has_the_rungs_that_are_watched_behind_it(tmp_path: Path) -> None:
    """South is watched, and goes to a relay that holds alice by another rung: it gets v0, too."""
    async with relayed(tmp_path) as made:
        made.order(made.east, rungs=("v9",))
        await until(lambda: is_list(made.east, "v0"), 10.0)
        made.order(made.south, made.east, rungs=("v0",))
        await until(lambda: made.sources(made.south) == ("east/0",), 10.0)
        await made.watched_further(12)
        assert made.sources(made.south) == ("east/0",)
        assert "v0" in (made.east.relaying.rungs_pushed("alice") or ())
        assert not is_list(made.east, "v0")
        assert not is_list(made.south, "v0")
        way = made.south.reaching.way("alice")
        assert (way.source, way.relay, way.why, way.origin) == ("east/0", "east/0", "", "fra1")
        made.check()
