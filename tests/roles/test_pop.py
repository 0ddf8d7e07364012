"""The PoP role: its listeners, pages, answers and numbers, in a network of one origin."""

import contextlib
from pathlib import Path

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from edged.config import Config
from edged.errors import ConfigError
from edged.media.routing import OriginRow, OriginState, RouteRequest, RoutingTable
from edged.roles import pop_metrics
from edged.roles.irs import IrsRole
from edged.roles.origin import OriginRole
from edged.roles.placement import NO_ROUTE
from edged.roles.pop import STOP_S_MAX, PopRole
from edged.runtime.listeners import open_listener, parse_address, peer_name
from edged.runtime.metrics import Metrics
from edged.wire.table import encode_file
from tests.api.service import serving
from tests.backbone.network import free_address, until
from tests.ingest.rtmp_peer import encoder
from tests.roles.network import KEY, broadcast, configure, raw_network, running
from tests.roles.test_all_in_one import leaf_of


async def test_viewers_find_a_channel_by_every_door(tmp_path: Path) -> None:
    configs = [configure(raw) for raw in raw_network(tmp_path)]
    async with running(*configs) as network:
        assert (await network.get("/watch/alice"))[0] == 200
        assert (await network.get("/live/alice/master.m3u8"))[0] == 404
        async with encoder(network.rtmp(), KEY) as peer:
            await peer.accepted()
            await broadcast(peer)
            (pop,) = [role for role in network.process.roles if isinstance(role, PopRole)]
            await until(lambda: pop.uplinks.lookup("alice"))
            status, body = await network.get("/streams.json")
            assert status == 200
            assert b'"alice"' in body
            assert b"Alice" in body
            assert b"127.0.0.1" not in body  # The public side shows no addresses.
            assert b"fra1" not in body  # Nor routes.
            with trio.fail_after(10):
                while (await network.get("/live/alice/master.m3u8"))[0] != 200:
                    pass
            status, body = await network.get("/time")
            assert status == 200


async def test_a_lost_publisher_is_waited_for_and_goes_on(tmp_path: Path) -> None:
    """From the encoder's socket to the numbers, and to what people are told."""
    configs = [configure(raw) for raw in raw_network(tmp_path)]
    async with running(*configs) as network:
        roles = network.process.roles
        (pop,) = [role for role in roles if isinstance(role, PopRole)]
        (origin,) = [role for role in roles if isinstance(role, OriginRole)]

        def states() -> set[str]:
            return {line.state for role in (pop, origin) for line in role.streams()}

        async with encoder(network.rtmp(), KEY) as peer:
            await peer.accepted()
            await broadcast(peer)
            await until(lambda: is_packaged(pop))
            assert states() == {"live"}
            run = pop.uplinks.placements["alice"].stream.stream_id
        await until(lambda: states() == {"waiting for its publisher 0 s"})
        assert read_metrics(pop)["edged_ingest_waiting"] == 1
        async with encoder(network.rtmp(), KEY) as peer:
            await peer.accepted()
            await broadcast(peer)
            await until(lambda: states() == {"live"})
            assert pop.uplinks.placements["alice"].stream.stream_id == run
            seen = read_metrics(pop)
            assert (seen["edged_ingest_waiting"], seen["edged_ingest_returned_total"]) == (0, 1)
            peer.session.close()  # In good order: nothing waits.
            await peer.flush()
            await until(lambda: not states())


def is_packaged(pop: PopRole) -> bool:
    record = pop.uplinks.listing.lookup("alice")
    return record is not None and bool(record.entry.formats)


def read_metrics(pop: PopRole) -> dict[str, float]:
    return {sample.name: sample.value for sample in pop_metrics.read(pop)}


async def test_what_it_decided_and_would_decide(tmp_path: Path) -> None:
    configs = [configure(raw) for raw in raw_network(tmp_path)]
    async with running(*configs) as network, encoder(network.rtmp(), KEY) as peer:
        await peer.accepted()
        (pop,) = [role for role in network.process.roles if isinstance(role, PopRole)]
        answer = pop.explain(RouteRequest(channel="alice"))
        assert answer.live
        assert answer.placed == pop.uplinks.placements["alice"].decision
        assert answer.table_age_s is not None
        assert 0 <= answer.table_age_s < 60
        other = pop.explain(RouteRequest(channel="bob"))
        assert (other.live, other.placed) == (False, None)
        assert other.now.channel == "bob"
        assert msgspec.json.decode(msgspec.json.encode(other), type=type(other)) == other


async def test_without_irs_publishers_are_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edged.roles.route_finding.ROUTE_WAIT_S_MAX", 0.02)
    _, _, pop = raw_network(tmp_path)
    async with running(configure(pop)) as network:
        with capture_logs() as logs:
            async with encoder(network.rtmp(), KEY) as peer:
                refusal = await peer.refused()
        assert refusal.description == f"no_route: {NO_ROUTE}"
        assert network.process.streams() == []
    (line,) = [line for line in logs if line["event"] == "publisher refused"]
    assert line["detail"] == "no route for 'alice', table v0: no origins"


async def test_the_first_publisher_after_a_start_with_irs_dead_is_let_in(tmp_path: Path) -> None:
    """It waits for the first origin's first heartbeat: without leases there is no other room."""
    _, origin, pop = raw_network(tmp_path)
    address = section(origin, "origin")["listen"]
    assert isinstance(address, str)
    row = OriginRow("fra1", address, OriginState.UP, 10)
    table = RoutingTable(epoch=1, version=1, issued=1.0, ttl_s=30.0, lease_ttl_s=10.0, rows=(row,))
    file = tmp_path / "table"
    file.write_bytes(encode_file(table))
    section(pop, "irs_client")["table_file"] = str(file)
    async with running(configure(pop)) as network, encoder(network.rtmp(), KEY) as peer:
        async with running(configure(origin | {"admin": {"socket": str(tmp_path / "other.sock")}})):
            await peer.accepted()
        (role,) = [role for role in network.process.roles if isinstance(role, PopRole)]
        assert role.uplinks.placements["alice"].decision.rule == "price"


async def test_a_restart_of_irs_cuts_no_stream_whose_origin_it_does_not_hear(
    tmp_path: Path,
) -> None:
    """The path from one origin to IRS is broken, and IRS, new, pushes tables without it."""
    irs, origin, pop = raw_network(tmp_path)
    heard = {**origin, "origin": {"name": "ams1", "listen": free_address()}}
    path = BrokenPath(section(irs, "irs")["listen"])
    unheard = {**origin, "irs_client": {"addresses": [path.address]}}
    rule = {"match": {"channel": "alice"}, "prefer": ["fra1"]}
    irs_config = configure({**irs, "irs": {**section(irs, "irs"), "rules": [rule]}})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(path.run)
        first, second = trio.CancelScope(), trio.CancelScope()
        await nursery.start(run_irs, irs_config, first)
        async with running(*(configure(raw) for raw in (heard, unheard, pop))) as network:
            (role,) = [role for role in network.process.roles if isinstance(role, PopRole)]
            await until(lambda: not role.view.link_state("fra1") and "fra1" in role.view.by_name)
            async with encoder(network.rtmp(), KEY) as peer:
                await peer.accepted()
                forwarding = role.uplinks.placements["alice"].forwarding
                assert forwarding.origin == "fra1"
                path.scope.cancel()
                first.cancel()
                await broadcast(peer, 1.0)
                await nursery.start(run_irs, irs_config, second)
                await until(lambda: list(role.view.by_name) == ["ams1"])
                received_seq = forwarding.received_seq
                await broadcast(peer, 1.0)
                await until(lambda: forwarding.received_seq > received_seq)
                assert not peer.closed
                assert (
                    role.explain(RouteRequest(channel="bob")).now.decision is not None
                )  # Others go to the other.
        nursery.cancel_scope.cancel()


async def test_webhooks_are_told_also_of_the_end_of_the_pop(tmp_path: Path) -> None:
    irs, origin, raw = raw_network(tmp_path)
    stop, metrics = trio.CancelScope(), Metrics()
    async with serving() as service:
        hook = {"name": "studio", "url": service.url, "secret": "0123456789abcdef" * 2}
        pop = configure({**raw, "webhooks": [hook]})

        async def run_pop(*, task_status: trio.TaskStatus[dict[str, str]]) -> None:
            with stop:
                await PopRole(pop, metrics).run(task_status=task_status)

        async with running(configure(irs), configure(origin)), trio.open_nursery() as nursery:
            addresses: dict[str, str] = await nursery.start(run_pop)
            async with encoder(addresses["rtmp"], KEY) as peer:
                await peer.accepted()
                await until(lambda: service.received)
                text = metrics.render().decode()
                stop.cancel()
                await peer.stopped()
                await until(lambda: len(service.received) == 2)
    assert 'edged_events_webhook_queued{role="pop west",webhook="studio"}' in text
    assert 'edged_events_emitted_total{kind="stream_went_live",role="pop west"} 1.0' in text
    live, offline = (received.json() for received in service.received)
    assert (live["event"], offline["event"]) == ("stream_went_live", "stream_went_offline")
    assert "the PoP is stopping" in str(offline["reason"])


class BrokenPath:
    """A way to an address, until its scope is cancelled."""

    def __init__(self, to: object) -> None:
        self.address = free_address()
        self.scope = trio.CancelScope()
        self._to = str(to)

    async def run(self) -> None:
        host, port = parse_address(self.address)
        with self.scope:
            await trio.serve_tcp(self._handle, port, host=host)

    async def _handle(self, near: trio.SocketStream) -> None:
        far = await trio.open_tcp_stream(*parse_address(self._to))
        async with far, trio.open_nursery() as nursery:

            async def carry(one: trio.SocketStream, other: trio.SocketStream) -> None:
                with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    async for data in one:
                        await other.send_all(data)
                nursery.cancel_scope.cancel()

            nursery.start_soon(carry, near, far)
            nursery.start_soon(carry, far, near)


async def run_irs(
    config: Config, scope: trio.CancelScope, *, task_status: trio.TaskStatus[object]
) -> None:
    with scope:
        await IrsRole(config, Metrics()).run(task_status=task_status)


def section(raw: dict[str, object], name: str) -> dict[str, object]:
    table = raw[name]
    assert isinstance(table, dict)
    return table


async def test_origins_hear_at_once_that_the_streams_of_a_stopping_pop_have_ended(
    tmp_path: Path,
) -> None:
    irs, origin, pop = (configure(raw) for raw in raw_network(tmp_path))
    stop = trio.CancelScope()

    async def run_pop(*, task_status: trio.TaskStatus[dict[str, str]]) -> None:
        with stop:
            await PopRole(pop, Metrics()).run(task_status=task_status)

    async with running(irs, origin) as network, trio.open_nursery() as nursery:
        addresses: dict[str, str] = await nursery.start(run_pop)
        async with encoder(addresses["rtmp"], KEY) as peer:
            await peer.accepted()
            await broadcast(peer, 1.0)
            (there,) = [role for role in network.process.roles if isinstance(role, OriginRole)]
            await until(lambda: there.hub.get("alice"))
            copy = there.hub.get("alice")
            assert copy is not None
            stop.cancel()
            assert "the PoP is stopping" in (await peer.stopped()).description
            with trio.fail_after(2 * STOP_S_MAX):
                await until(lambda: copy.ended)
            assert "lost" not in (copy.ended or "")


@pytest.mark.parametrize("table", ["ingest", "playback"])
async def test_an_address_in_use_is_named(tmp_path: Path, table: str) -> None:
    with open_listener("127.0.0.1:0") as taken:
        address = peer_name(taken.getsockname())
        _, _, raw = raw_network(tmp_path)
        raw[table] = {"rtmp": {"listen": address}} if table == "ingest" else {"listen": address}
        role = PopRole(configure(raw), Metrics())
        with pytest.raises(BaseExceptionGroup) as caught, trio.fail_after(5):
            await role.run()
        error = leaf_of(caught.value)
        assert isinstance(error, ConfigError)
        assert str(error) == f"cannot listen on '{address}': Address already in use"


def test_it_is_made_before_any_loop_runs(tmp_path: Path) -> None:
    """As `edged run` does: no part of it may ask for the time."""
    raw = raw_network(tmp_path)[2]
    table = raw["pop"]
    assert isinstance(table, dict)
    table["reach"] = {"listen": "127.0.0.1:0"}
    assert PopRole(configure(raw), Metrics()).name == "pop west"
