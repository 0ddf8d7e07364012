"""Whole networks in one process, over their real listeners."""

import hashlib
import socket as socket_module
import tomllib
from pathlib import Path

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from edged.api.admin import ask
from edged.errors import EdgedError
from edged.media.routing import RouteRequest
from edged.policy import rules_snapshot
from edged.policy.rules_replay import replay
from edged.roles.all_in_one import Process
from edged.roles.common import StreamLine
from edged.roles.origin import OriginRole
from edged.roles.pop import PopRole, RouteAnswer
from edged.roles.status import RoutesSeen, Status
from edged.runtime.connection import Connection
from edged.runtime.dscp import AF41, AF42, AF43, CS6
from edged.runtime.listeners import parse_address
from tests.backbone.network import free_address, until
from tests.ingest.rtmp_peer import encoder
from tests.roles.network import KEY, broadcast, configure, get, get_whole, raw_network, running


async def test_from_one_pop_to_the_other(tmp_path: Path) -> None:
    configs = [configure(raw) for raw in raw_network(tmp_path, pops=("west", "east"))]
    async with running(*configs) as network, encoder(network.rtmp("west"), KEY) as peer:
        assert set(network.addresses) == {"irs", "origin fra1", "pop west", "pop east", "metrics"}
        await peer.accepted()
        await broadcast(peer)
        with trio.fail_after(10):
            status, body = 0, b""
            while status != 200:
                status, body = await network.get("/live/alice/master.m3u8", "east")
        assert b"#EXT-X-STREAM-INF" in body
        media = next(line for line in body.decode().splitlines() if line.endswith("v0.m3u8"))
        status, body = await network.get(f"/live/alice/{media}", "east")
        assert status == 200
        part = next(
            line.split('URI="')[1].split('"')[0]
            for line in body.decode().splitlines()
            if line.startswith("#EXT-X-PART:")
        )
        folder = media.rpartition("/")[0]
        status, body = await network.get(f"/live/alice/{folder}/{part}", "east")
        assert status == 200
        assert body[4:8] == b"moof"

        lines = network.process.streams()
        assert [(line.role, line.goes_to) for line in lines] == [
            ("origin fra1", "LL-HLS"),
            ("pop west", "fra1"),
        ]
        assert lines[1].video == "h264 128x72 30 fps"


async def test_the_admin_door_answers(tmp_path: Path) -> None:
    configs = [configure(raw) for raw in raw_network(tmp_path)]
    socket = tmp_path / "admin.sock"
    async with running(*configs) as network, encoder(network.rtmp(), KEY) as peer:
        await peer.accepted()
        streams = msgspec.json.decode(await ask(socket, "streams", {}), type=list[StreamLine])
        assert {line.channel for line in streams} == {"alice"}
        answer = await ask(socket, "route-explain", {"channel": "alice"})
        (route,) = msgspec.json.decode(answer, type=list[RouteAnswer])
        assert route.live
        assert route.placed is not None
        assert route.placed.origin == "fra1"
        (other,) = network.process.explain(RouteRequest(channel="bob"))
        assert not other.live
        assert other.now.decision is not None
        seen = msgspec.json.decode(await ask(socket, "status", {"limit": "5"}), type=Status)
        assert [(stream.channel, stream.origin) for stream in seen.streams] == [("alice", "fra1")]
        (routes,) = msgspec.json.decode(await ask(socket, "routes", {}), type=list[RoutesSeen])
        assert [stream.channel for stream in routes.streams] == ["alice"]
        snapshot = rules_snapshot.decode(await ask(socket, "rules-snapshot", {}), "the door")
        (pop,) = snapshot.pops
        assert (pop.pop, [stream.request.channel for stream in pop.streams]) == ("west", ["alice"])
        assert pop.streams[0].request.protocol == "rtmp"
        (placed,) = replay(snapshot)
        assert (placed.origin, placed.now_at) == ("fra1", "fra1")
        with pytest.raises(EdgedError, match="sort 'age' is none of"):
            await ask(socket, "status", {"sort": "age"})
        with pytest.raises(EdgedError, match="route-explain needs a channel"):
            await ask(socket, "route-explain", {})
        with pytest.raises(
            EdgedError, match=r"known: .*reload.*routes, rules-snapshot, status, streams"
        ):
            await ask(socket, "dance", {})


@pytest.mark.parametrize("marks", [True, False])
async def test_only_sockets_between_our_own_hosts_are_marked(
    tmp_path: Path, *, marks: bool
) -> None:
    raw = [{**each, "backbone": {"dscp": marks}} for each in raw_network(tmp_path)]
    async with running(*map(configure, raw)) as network, encoder(network.rtmp(), KEY) as peer:
        await peer.accepted()
        pop = next(role for role in network.process.roles if isinstance(role, PopRole))
        origin = next(role for role in network.process.roles if isinstance(role, OriginRole))
        host, port = parse_address(network.addresses["pop west"]["http"])
        before = set(pop.pump._connections)
        async with await trio.open_tcp_stream(host, port):
            await until(lambda: set(pop.pump._connections) - before)
            (viewer,) = set(pop.pump._connections) - before
            seen = {fd: tos_of(each) for fd, each in pop.pump._connections.items()}
        backbone = sorted(tos_of(each) for each in origin.pump._connections.values())
    all_marks = sorted(dscp << 2 for dscp in (AF41, AF42, AF43, CS6))
    assert seen[viewer] == 0
    assert sorted(seen.values()) == [0, 0, *(all_marks if marks else [0] * 4)], "0: its publisher's"
    assert backbone == (all_marks if marks else [0] * 4)


def tos_of(connection: Connection) -> int:
    return connection.sock.getsockopt(socket_module.IPPROTO_IP, socket_module.IP_TOS)


async def test_metrics_of_all_roles_are_scraped(tmp_path: Path) -> None:
    configs = [configure(raw) for raw in raw_network(tmp_path)]
    async with running(*configs) as network:
        head, body = await get_whole(network.addresses["metrics"]["http"], "/metrics")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"access-control-allow-origin" not in head.lower(), "it is not for web pages"
        text = body.decode()
        assert 'edged_pump_turns_total{role="origin fra1"}' in text
        assert 'edged_pump_turns_total{role="pop west"}' in text
        assert "edged_irs_sessions" in text
        assert network.process.metrics.specs.keys() >= {
            "edged_ingest_accepted_total",
            "edged_playback_connections",
        }
        status, _ = await get(network.addresses["metrics"]["http"], "/")
        assert status == 404


async def test_without_a_pop_there_is_no_route_to_explain(tmp_path: Path) -> None:
    irs, origin, _ = raw_network(tmp_path)
    async with running(configure(irs), configure(origin)) as network:
        assert network.process.streams() == []
        with pytest.raises(EdgedError, match="is no PoP"):
            network.process.explain(RouteRequest(channel="alice"))
        with pytest.raises(EdgedError, match="is no PoP"):
            network.process.routes()


async def test_streams_are_told_with_what_was_measured(tmp_path: Path) -> None:
    configs = [configure(raw) for raw in raw_network(tmp_path)]
    async with running(*configs) as network, encoder(network.rtmp(), KEY) as peer:
        await peer.accepted()
        await broadcast(peer)
        await until(lambda: all(line.health for line in network.process.streams()))
        lines = {line.role: line for line in network.process.streams()}
        assert set(lines) == {"origin fra1", "pop west"}
        assert lines["pop west"].health == "ok"


async def test_all_roles_of_one_file(tmp_path: Path) -> None:
    irs, origin, pop = raw_network(tmp_path)
    with capture_logs() as logs:
        async with (
            running(configure(irs | origin | pop)) as network,
            encoder(network.rtmp(), KEY) as peer,
        ):
            await peer.accepted()
    started = [line["role"] for line in logs if line["event"] == "role started"]
    assert started == ["irs", "origin fra1", "pop west"]


async def test_the_development_file_runs_as_its_comments_say(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "config" / "dev.toml").read_text()
    assert "rtmp://127.0.0.1/live --key dev-stream-key" in text
    assert hashlib.sha256(b"dev-admin-token").hexdigest() in text
    for port in (1940, 7410):
        text = text.replace(f"127.0.0.1:{port}", free_address())
    for port in (1935, 8080, 9465):
        text = text.replace(f"127.0.0.1:{port}", "127.0.0.1:0")
    text = text.replace("/tmp/edged-dev", str(tmp_path))  # noqa: S108 - what the file has
    raw = tomllib.loads(text) | {"metrics": {"listen": "127.0.0.1:0"}}
    async with running(configure(raw)) as network:
        async with encoder(network.rtmp("dev"), "dev-stream-key") as peer:
            await peer.accepted()
        status, _ = await network.get("/watch/dev", "dev")
        assert status == 200
        status, _ = await get(network.addresses["admin"]["http"], "/")
        assert status == 200


async def test_a_second_process_on_the_admin_socket_is_refused(tmp_path: Path) -> None:
    irs, *_ = raw_network(tmp_path)
    async with running(configure(irs)):
        other = configure(raw_network(tmp_path)[0])
        with pytest.raises(BaseExceptionGroup) as caught:
            await Process([other]).run()
        assert "another edged answers there" in repr(leaf_of(caught.value))


async def test_the_end_of_the_process_tells_publishers_and_frees_everything(
    tmp_path: Path,
) -> None:
    configs = [configure(raw) for raw in raw_network(tmp_path)]
    async with trio.open_nursery() as nursery:
        process = Process(configs)
        scope = trio.CancelScope()
        addresses: dict[str, dict[str, str]] = {}

        async def run() -> None:
            with scope:
                async with trio.open_nursery() as inner:
                    addresses.update(await inner.start(process.run))

        nursery.start_soon(run)
        await until(lambda: addresses)
        async with encoder(addresses["pop west"]["rtmp"], KEY) as peer:
            await peer.accepted()
            scope.cancel()
            closed = await peer.stopped()
            assert closed.code == "NetStream.Publish.Rejected"
            assert closed.description == "the PoP is stopping; connect again"
    assert not (tmp_path / "admin.sock").exists()


def leaf_of(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
