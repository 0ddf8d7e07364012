"""PoPs, links, origins and IRS as the status shows them: over a real network in one process."""

from pathlib import Path

import trio

from edged.roles.irs import IrsRole
from edged.roles.origin import OriginRole
from edged.roles.pop import PopRole
from edged.roles.sampler import Sampler
from edged.roles.snapshot import StatusQuery
from edged.roles.snapshot_network import describe_irs_link, describe_origins, describe_pop
from edged.roles.status import Status
from tests.backbone.network import until
from tests.ingest.rtmp_peer import encoder
from tests.roles.crowd import add_stream, make_pop
from tests.roles.network import KEY, Network, broadcast, configure, raw_network, running


def look(network: Network) -> Status:
    assert network.process.snapshots is not None
    return network.process.snapshots.make(StatusQuery())


async def test_a_whole_network(tmp_path: Path) -> None:
    configs = [configure(raw) for raw in raw_network(tmp_path, pops=("west", "east"))]
    async with running(*configs) as network, encoder(network.rtmp("west"), KEY) as peer:
        await peer.accepted()
        await broadcast(peer)

        def is_complete() -> bool:
            status = look(network)
            pops = status.irs[0].pops
            links = [link for pop in status.pops for link in pop.links]
            return (
                len(links) == 2
                and all(len(link.sessions) == link.sessions_wanted for link in links)
                and all(link.rtt_ms is not None for link in links)
                and all(pop.acked is not None and pop.rtt_ms for pop in pops)
                and sum(pop.streams.get("fra1", 0) for pop in pops) == 1
            )

        await until(is_complete)
        status = look(network)
        west, east = status.pops
        assert (west.pop, west.role, west.publishers, west.accepted_total) == (
            "west",
            "pop west",
            1,
            1,
        )
        assert (east.publishers, east.viewers) == (0, 0)
        assert west.irs.connected
        assert west.table is not None
        assert west.lease_left_s > 0
        (link,) = west.links
        assert (link.origin, link.down, link.forwardings) == ("fra1", "", 1)
        (origin,) = west.origins
        assert (origin.state, origin.blocked, origin.slots_total) == ("up", "", 500)
        assert (origin.used, origin.nearness) == (1, 1)
        (here,) = status.origins
        assert (here.origin, here.state, here.slots_used) == ("fra1", "up", 1)
        assert here.irs.connected
        assert {(pop.pop, pop.sessions, pop.streams) for pop in here.pops} == {
            ("west", 4, 1),
            ("east", 4, 0),
        }
        (irs,) = status.irs
        assert {pop.pop for pop in irs.pops} == {"west/0", "east/0"}
        assert [(seen.origin, seen.state, seen.connected) for seen in irs.origins] == [
            ("fra1", "up", True)
        ]
        assert irs.origins[0].address == link.address
        assert [role.kind for role in status.roles] == ["irs", "origin", "pop", "pop"]


async def test_irs_that_is_gone_is_told_with_how_long() -> None:
    pop = make_pop()
    sampler = Sampler([pop], [])
    samples = sampler.of(pop)
    seen = describe_irs_link(None, samples.started_at + 7.0, samples)
    assert (seen.connected, seen.for_s) == (False, 7.0)


async def test_a_session_to_irs_that_comes_and_goes_is_noted(tmp_path: Path) -> None:
    irs, origin, west = raw_network(tmp_path)
    async with running(configure(irs), configure(origin), configure(west)) as network:
        pop = next(role for role in network.process.roles if isinstance(role, PopRole))
        host = next(role for role in network.process.roles if isinstance(role, OriginRole))
        service = next(role for role in network.process.roles if isinstance(role, IrsRole)).service
        for client in (pop.irs, host.irs):
            assert client is not None
            await until(lambda client=client: client.sessions)  # type: ignore[misc]
            assert client.changed_at is not None
        assert pop.irs is not None
        before = pop.irs.changed_at
        await trio.sleep(0.01)
        for session in list(service._sessions):
            session.driver.end("for the test")
        await until(lambda: pop.irs is not None and pop.irs.changed_at != before)


async def test_origins_of_a_table_that_are_not_reached() -> None:
    pop = make_pop()
    fra1, fra2 = describe_origins(pop.view)
    assert (fra1.state, fra1.heartbeat_state, fra1.blocked) == ("up", None, "not connected yet")
    assert (fra2.state, fra2.table_state, fra2.domain) == ("drain", "drain", "rack 2")
    assert (fra1.slots_total, fra1.slots_free, fra1.rtt_ms) == (None, None, None)
    add_stream(pop, "alice")
    sampler = Sampler([pop], [])
    seen = describe_pop(pop, sampler.of(pop), trio.current_time(), 1003.0)
    assert (seen.table, seen.table_age_s, seen.links) == ((7, 42), 3.0, [])


async def test_an_origin_tells_the_shards_of_a_pop_apart(tmp_path: Path) -> None:
    raws = raw_network(tmp_path, pops=("west", "west"))
    for shard, raw in enumerate(raws[2:], 1):
        raw["pop"] = {"name": "west", "shard": shard}
    async with (
        running(*map(configure, raws)) as network,
        encoder(network.rtmp("west/2"), KEY) as peer,
    ):
        await peer.accepted()
        await broadcast(peer)

        def seen() -> list[tuple[str, int, int]]:
            (origin,) = look(network).origins
            return [(pop.pop, pop.sessions, pop.streams) for pop in origin.pops]

        await until(lambda: seen() == [("west/1", 4, 0), ("west/2", 4, 1)])
