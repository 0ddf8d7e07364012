"""What an operator does to a running process, over real listeners: kick, drain, reload, levels."""

import contextlib
import json
import shutil
import socket
import ssl
import time
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
import structlog
import trio
from structlog.testing import capture_logs

from edged.api.admin import ask
from edged.config import Config, load_config, parse_config
from edged.errors import ConfigError, EdgedError, PeerLostError
from edged.irs import seat as seat_module
from edged.irs.seat import HAND_OVER_S_MAX, SeatSeen
from edged.media.latency import LATENCY_LABELS, Latency
from edged.media.routing import RouteRequest
from edged.media.stream import Grant, StreamId
from edged.playback.token_keys import import_key, sign_token
from edged.policy.reach_config import ReachConfig
from edged.policy.stream_keys import make_signed_key
from edged.roles.all_in_one import Process
from edged.roles.draining import DrainLine
from edged.roles.irs import IrsRole
from edged.roles.operations import SHOWN_MAX, KickAnswer, ReloadAnswer
from edged.roles.origin import OriginRole
from edged.roles.pop import PopRole
from edged.roles.reloading import ReloadRefusedError, all_keys, effect_of
from edged.runtime.listeners import parse_address
from edged.runtime.log import LevelStatus, level_status, set_level
from edged.runtime.notify import ServiceManager
from edged.runtime.tls import Identity
from edged.tools.cert import make_authority, make_host_certificate
from edged.wire.rtmp import Closed, PublishRefused, ReconnectRequested
from tests.backbone.network import free_address, until
from tests.ingest.rtmp_peer import Encoder, admitted, encoder
from tests.roles.network import KEY, broadcast, configure, raw_network, running
from tests.runtime.test_tls import handshake
from tests.wire.rtmp.peers import H264, h264_unit

OTHER_KEY = "another-key-of-bob"
BOTH = (("alice", KEY), ("bob", OTHER_KEY))
SIGNER = {"main": "put-at-least-32-characters-of-chance-here"}


def to_toml(tables: Mapping[str, object], prefix: str = "") -> str:
    """Tables as a file; what is in lists is written inline."""
    lines, inner = [f"[{prefix}]"] if prefix else [], []
    for key, value in tables.items():
        path = f"{prefix}.{key}" if prefix else key
        if isinstance(value, dict):
            inner.append(to_toml(value, path))
        else:
            lines.append(f"{key} = {_inline(value)}")
    return "\n".join([*lines, *inner])


def _inline(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_inline, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {_inline(item)}' for key, item in value.items())}}}"
    if isinstance(value, datetime):
        return value.isoformat()
    return json.dumps(value)


class Host:
    """A process that plays all roles, under TLS, by one file; and what the test has at it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "edged.toml"
        self.tables = self._tables()
        self.write()
        self.process = Process([load_config(self.path)], self.path)
        self.addresses: dict[str, dict[str, str]] = {}
        irs, origin, pop = self.process.roles
        assert isinstance(irs, IrsRole)
        assert isinstance(origin, OriginRole)
        assert isinstance(pop, PopRole)
        self.irs, self.origin, self.pop = irs, origin, pop

    def _tables(self) -> dict[str, object]:
        make_authority(self.folder, "test", now=time.time())
        tls = {role: self.certificate(role) for role in ("irs", "origin", "pop")}
        public = {name: tls["pop"][name] for name in ("certificate", "key")}
        irs, any_port = free_address(), "127.0.0.1:0"
        return {
            "irs": {"listen": irs, "warmup_s": 0.0, "tls": tls["irs"]},
            "origin": {
                "name": "a",
                "listen": free_address(),
                "cache": {"directory": str(self.folder / "origin-cache")},
                "tls": tls["origin"],
            },
            "pop": {"name": "a", "tls": tls["pop"]},
            "irs_client": {"addresses": [irs]},
            "ingest": {"rtmp": {"listen": any_port, "tls": {**public, "listen": any_port}}},
            "playback": {
                "listen": any_port,
                "cache": {"directory": str(self.folder / "cache")},
                "tls": {**public, "listen": any_port},
            },
            "stream_keys": {"static": [{"channel": "alice", "key": KEY}]},
            "admin": {"socket": str(self.folder / "admin.sock")},
            "metrics": {"listen": any_port},
        }

    def certificate(self, role: str, name: str = "a") -> dict[str, object]:
        identity = Identity(role, name)
        made = make_host_certificate(self.folder, identity, now=time.time(), hosts=["127.0.0.1"])
        return {"ca": made.ca, "certificate": made.certificate, "key": made.key}

    def write(self) -> None:
        self.path.write_text(to_toml(self.tables))

    def set(self, key: str, value: object) -> None:
        """Have another value in the file."""
        *tables, name = key.split(".")
        at = self.tables
        for table in tables:
            at = at.setdefault(table, {})  # type: ignore[assignment]
        at[name] = value
        self.write()

    def rtmp(self, scheme: str = "rtmp") -> str:
        return self.addresses["pop a"][scheme]

    async def ask(self, command: str, **arguments: str) -> bytes:
        return await ask(self.folder / "admin.sock", command, arguments)


@contextlib.asynccontextmanager
async def hosting(folder: Path) -> AsyncIterator[Host]:
    host = Host(folder)
    async with trio.open_nursery() as nursery:
        host.addresses = await nursery.start(host.process.run)
        yield host
        nursery.cancel_scope.cancel()


async def send(peer: Encoder, frames: int = 2) -> None:
    peer.session.send_track(H264)
    for frame in range(frames):
        peer.session.send_unit(h264_unit(frame * 3000, key=not frame), H264)
    await peer.flush()


# What a changed key does. Each gets the host after the reload.

Check = Callable[[Host], Awaitable[None]]


def compare(read: Callable[[Host], object], value: object) -> Check:
    async def check(host: Host) -> None:
        assert read(host) == value

    return check


def serial_of(host: Host, role: str) -> str:
    """The number of a role's certificate in its file."""
    tables = host.tables[role]
    assert isinstance(tables, dict)
    return str(ssl._ssl._test_decode_cert(tables["tls"]["certificate"])["serialNumber"])  # type: ignore[attr-defined]


async def greet(host: Host, address: str) -> str:
    """The number of the certificate that a listener shows, to a host of the network."""
    context = ssl.create_default_context(cafile=str(host.folder / "ca.pem"))
    context.check_hostname = False
    tls = host.certificate("pop", "probe")
    context.load_cert_chain(str(tls["certificate"]), str(tls["key"]))
    stream = await trio.open_ssl_over_tcp_stream(*parse_address(address), ssl_context=context)
    async with stream:
        await stream.do_handshake()
        shown = stream.getpeercert()
        assert shown is not None
        return str(shown["serialNumber"])


def shows(role: str, *listener: str) -> Check:
    async def check(host: Host) -> None:
        address = host.addresses
        for name in listener:
            address = address[name]  # type: ignore[assignment]
        assert await greet(host, str(address)) == serial_of(host, role)

    return check


async def pop_shows(host: Host) -> None:
    """The PoP is a client on the backbone: what it shows an origin from now on."""
    assert host.pop._tls is not None
    assert host.origin._tls is not None
    _, server = handshake(host.pop._tls.client, host.origin._tls.server)
    shown = server.getpeercert()
    assert shown is not None
    assert shown["serialNumber"] == serial_of(host, "pop")


async def takes_bob(host: Host, app: str = "live", key: str = OTHER_KEY) -> None:
    async with encoder(host.rtmp(), key, app) as peer:
        await peer.accepted()


async def takes_signed(host: Host) -> None:
    await takes_bob(host, key=make_signed_key(SIGNER["main"], "bob", signer="main"))


async def takes_app(host: Host) -> None:
    async with encoder(host.rtmp(), "no-such-key", "other") as peer:
        assert "not valid here" in (await peer.refused()).description


async def packages_anew(host: Host) -> None:
    """A stream that begins now, as `origin.*` says now."""
    async with encoder(host.rtmp(), OTHER_KEY) as peer:
        await peer.accepted()
        await send(peer)
        await until(lambda: host.origin.service._streams.get("bob"))
        entry = host.origin.service._streams["bob"]
        limits, cache = entry.window.limits, host.origin.service.cache._limits
        assert (limits.playlist_s, limits.retention_s, limits.payload_bytes_max) == (
            (20.0, 60.0, 2**21)
        )
        assert (cache.memory_bytes_max, cache.disk_bytes_max) == (2**28, 2**27)
        config = entry.packager.config
        assert (config.part_ms, config.segment_s, config.target_duration_s) == (300, 3.0, 5)


async def closes_strangers(host: Host) -> None:
    """No handshake within the new time."""
    async with await trio.open_tcp_stream(*parse_address(host.rtmp())) as stream:
        with trio.fail_after(3):
            assert await stream.receive_some(1) == b""


async def closes_idlers(host: Host) -> None:
    """No publish within the new time, counted from the handshake."""
    async with await trio.open_tcp_stream(*parse_address(host.rtmp())) as stream:
        await stream.send_all(b"\3" + bytes(1536))
        left = 1 + 2 * 1536
        with trio.fail_after(3):
            while left:
                left -= len(await stream.receive_some(left))
            await stream.send_all(bytes(1536))
            with contextlib.suppress(trio.BrokenResourceError):
                while await stream.receive_some(4096):
                    pass


async def closes_the_silent(host: Host) -> None:
    async with encoder(host.rtmp(), OTHER_KEY) as peer:
        await peer.accepted()
        assert "no audio or video for 0.1 s" in (await peer.stopped()).description


async def takes_no_large_frames(host: Host) -> None:
    async with encoder(host.rtmp(), OTHER_KEY) as peer:
        await peer.accepted()
        peer.session.send_track(H264)
        large = h264_unit(0, key=True, size=70_000)
        peer.session.send_unit(large, H264)
        with contextlib.suppress(trio.BrokenResourceError):
            await peer.flush()
        assert "exceeds 65536" in (await peer.stopped()).description


async def takes_no_second(host: Host) -> None:
    async with encoder(host.rtmp(), OTHER_KEY) as peer:
        assert "full: this PoP takes 1 publishers" in (await peer.refused()).description


async def tells_pops(host: Host) -> None:
    """The table that the PoP has now is made by the new times and rules."""

    def holds() -> bool:
        table = host.pop.view.table
        return table is not None and (table.lease_ttl_s, table.ttl_s) == (8.0, 20.0) and (
            [rule.avoid for rule in table.rules] == [("lab1",)]
        )  # fmt: skip

    await until(holds)
    planner = host.irs.service.planner
    assert (planner.push_interval_s, planner.lease_ttl_s) == (0.5, 8.0)
    assert planner.reserve_fraction == 0.1
    assert planner.last is not None
    assert (planner.policy, planner.last.policy) == ("proportional", "proportional")
    assert host.irs.service.moving.moves_per_s == 7.0


async def knows_its_links(host: Host) -> None:
    """From what the PoP measures on its path, probes over UDP and all."""
    links = host.irs.service.links

    def is_measured() -> bool:
        (link,) = links.status()
        return link.state == "up" and link.rtt_ms is not None and 0 < link.rtt_ms < 100

    await until(is_measured)
    path = host.pop.view.path("a")
    assert path is not None
    assert path.probed
    assert host.process.links() == links.status()
    assert [limit.name for limit in links.limits()] == ["x-y to y"]


async def keeps_away(host: Host) -> None:
    links = host.irs.service.links
    await until(lambda: links.status()[0].state == "closed")
    assert links.status()[0].why == "maintenance: a long one"


async def is_open_again(host: Host) -> None:
    await until(lambda: host.irs.service.links.status()[0].state == "up")


async def clients_are_told(host: Host) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # It lets in, and says nothing.
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        for client in (host.pop.irs, host.origin.irs):
            assert client is not None
            assert client.config.reconnect_s_max == 0.5
            began_at = trio.current_time()
            with trio.fail_after(2), pytest.raises(PeerLostError, match=r"no answer in 0\.2 s"):
                await client._run_session(address)
            assert trio.current_time() - began_at >= 0.2
    assert host.pop.irs is not None
    config = host.pop.irs.config
    assert (config.telemetry_interval_s, config.persist_interval_s) == (0.5, 1.0)


async def windows_are_told(host: Host) -> None:
    channel = host.pop.hls._channels["alice"]
    assert channel.newest is not None
    for limits in (host.pop.hls._limits, channel.newest.window.limits):
        assert (limits.playlist_s, limits.retention_s, limits.payload_bytes_max) == (
            (20.0, 60.0, 2**21)
        )
    assert host.pop.hls._unwatched_s == 90.0
    cache = host.pop.hls.cache._limits
    assert (cache.memory_bytes_max, cache.disk_bytes_max) == (2**28, 2**27)


async def asks_bob_s_viewers(host: Host) -> None:
    """Whoever shows no token of the new key and audience, in a form that is allowed, is refused."""
    key = import_key("HS256", SIGNER["main"].encode())
    claims = {"channels": "bob", "exp": int(time.time()) - 20, "aud": "edge"}
    bearer = sign_token(claims, key, algorithm="HS256", key_id="a")  # The skew lets it live on.
    cases = {"": 401, "Authorization: Bearer x": 401, f"Cookie: edged_token={bearer}": 401}
    for field, status in {**cases, f"Authorization: Bearer {bearer}": 404}.items():
        async with await trio.open_tcp_stream(*parse_address(host.rtmp("http"))) as viewer:
            lines = ["GET /live/bob/master.m3u8 HTTP/1.1", "Host: a", *([field] if field else [])]
            await viewer.send_all(("\r\n".join(lines) + "\r\n\r\n").encode())
            with trio.fail_after(3):
                assert (await viewer.receive_some(65536)).startswith(f"HTTP/1.1 {status}".encode())
    assert host.pop.rights.gate.rights.config.tokens_max == 1000
    with pytest.raises(ConfigError, match="No such file"):  # Nothing has changed then.
        host.pop.prepare_reload(parsed(host, "playback.rights.jwks", "/none.json"))


def parsed(host: Host, key: str, value: object) -> Config:
    """The file as it would be, but for what its files hold."""
    tables = tomllib.loads(to_toml(host.tables))
    *inner, name = key.split(".")
    at = tables
    for table in inner:
        at = at[table]
    at[name] = value
    config, _ = parse_config(tables)
    assert config is not None
    return config


def rights(host: Host) -> dict[str, object]:
    secret, jwks = host.folder / "rights.key", host.folder / "jwks.json"
    secret.write_text(SIGNER["main"])
    jwks.write_text('{"keys": []}')
    keys: dict[str, object] = {
        "channels": ["bob"],
        "forms": ["header"],
        "keys": [{"id": "a", "algorithm": "HS256", "file": str(secret)}],
        "jwks": str(jwks),
        "audience": "edge",
        "clock_skew_s": 60.0,
        "tokens_max": 1000,
    }
    return {f"playback.rights.{name}": value for name, value in keys.items()}


async def levels_are_told(host: Host) -> None:
    assert level_status().configured == "debug"
    renderers = [type(step).__name__ for step in structlog.get_config()["processors"]]
    assert "JSONRenderer" in renderers
    (bounded,) = [
        step
        for step in structlog.get_config()["processors"]
        if getattr(step, "__name__", "") == "bounded"
    ]
    admitted = 0
    for _ in range(20_000):
        with contextlib.suppress(structlog.DropEvent):
            bounded(None, "", {})
            admitted += 1
    assert 4_900 <= admitted <= 10_000  # Of one second, or of two; other lines are among them.


async def drains_so(host: Host) -> None:
    """A drain that is told neither how long nor where to, and what a stop would take."""
    assert host.process.operations.config.drain.on_stop_s == 1.0  # Stops have tests of their own.
    await until(lambda: host.process.explain(RouteRequest(channel="bob"))[0].now.decision)
    async with encoder(host.rtmp(), OTHER_KEY) as peer:
        await peer.accepted()
        line = lines_of(await host.ask("drain"))["pop a"]
        assert (line.state, line.left) == ("draining", 2)
        assert 19 < line.seconds_left <= 20
        await until(lambda: len(peer.events) > 1)
        asked = ReconnectRequested("rtmp://other.example.net/live", "this PoP is draining")
        assert peer.events[1] == asked
        assert lines_of(await host.ask("drain-undo"))["pop a"].state == "serving"


def renew(role: str) -> Callable[[Host], dict[str, object]]:
    """Other files with a new certificate, and a CA file of another name."""

    def make(host: Host) -> dict[str, object]:
        made = host.certificate(role)
        places: dict[str, object] = {}
        for name, path in made.items():
            places[name] = f"{host.folder}/{role}-renewed-{name}.pem"
            shutil.copy(str(path), str(places[name]))
        return places

    return make


def public(table: str) -> Callable[[Host], dict[str, object]]:
    def make(host: Host) -> dict[str, object]:
        made = renew("pop")(host)
        return {f"{table}.tls.{name}": made[name] for name in ("certificate", "key")}

    return make


def mutual(role: str) -> Callable[[Host], dict[str, object]]:
    return lambda host: {f"{role}.tls.{name}": value for name, value in renew(role)(host).items()}


def values(**keys: object) -> Callable[[Host], dict[str, object]]:
    return lambda _: {key.replace("__", "."): value for key, value in keys.items()}


async def reach_is_told(host: Host) -> None:
    board = host.irs.service.reach
    assert board.config is not None
    assert (board.config.interval_s, board.config.orders_per_pop_max) == (6.0, 300)
    assert (board.config.link_share, board.config.gain_min) == (0.3, 0.2)
    assert (board.config.hold_plans, board.config.moves_max) == (4, 30)
    reaching, relaying = host.pop.reaching, host.pop.relaying
    assert (reaching.holding.holds_max, reaching.holding.grace_s) == (100, 20.0)
    assert (reaching._config.hold_mbps_max, relaying._config.relay_mbps_max) == (1000.0, 4000.0)
    assert (relaying._config.relays_max, relaying.choice.relayed_max) == (400, 150)
    assert reaching._pace.per_s == relaying._pace.per_s == 40.0


async def packages_by_class(host: Host) -> None:
    """A stream of each class that begins now, as `origin.packager` says now."""
    wanted = zip(LATENCY_LABELS, (300, 310, 320, 330), (False, False, False, True), strict=True)
    for label, part_ms, parts in wanted:
        key = make_signed_key(SIGNER["main"], label, signer="main", latency=label)
        async with encoder(host.rtmp(), key) as peer:
            await peer.accepted()
            await send(peer)
            await until(lambda: host.origin.service._streams.get(label))  # noqa: B023
            config = host.origin.service._streams[label].packager.config
            assert (config.part_ms, config.segment_s, config.target_duration_s) == (part_ms, 3.0, 5)
            told = Latency(
                name=label, parts=parts, part_hold_back_ms=900 if parts else 0, hold_back_s=20
            )
            assert config.latency == told


def figures(part_ms: int, *, parts: bool = False) -> dict[str, object]:
    return {
        "part_ms": part_ms,
        "segment_s": 3.0,
        "target_duration_s": 5,
        "parts": parts,
        "part_hold_back_ms": 900,
        "hold_back_s": 20,
    }


CLASSES = {"low": figures(310), "ultra": figures(320), "standard": figures(330, parts=True)}
BOB: list[object] = [{"channel": "alice", "key": KEY}, {"channel": "bob", "key": OTHER_KEY}]
STEPS: list[tuple[Callable[[Host], dict[str, object]], Check]] = [
    (
        values(pop__publisher_grace_s=0.0),
        compare(lambda host: host.pop.door._grace.enabled, False),
    ),
    (values(stream_keys__static=BOB), takes_bob),
    (values(stream_keys__secrets=SIGNER), takes_signed),
    (values(stream_keys__apps=["live", "other"]), takes_app),
    (
        values(
            origin__packager__part_ms=300,
            origin__packager__segment_s=3.0,
            origin__packager__target_duration_s=5,
            origin__playlist_s=20.0,
            origin__retention_s=60.0,
            origin__payload_bytes_max=2**21,
            origin__cache__memory_bytes_max=2**28,
            origin__cache__disk_bytes_max=2**27,
        ),
        packages_anew,
    ),
    (
        values(
            origin__packager__parts=False,
            origin__packager__part_hold_back_ms=900,
            origin__packager__hold_back_s=20,
            **{
                f"origin__packager__classes__{label}__{key}": value
                for label, table in CLASSES.items()
                for key, value in table.items()
            },
        ),
        packages_by_class,
    ),
    (
        values(origin__slots=7, origin__slots_reserve=2, origin__slots_source_only=3),
        compare(
            lambda host: (
                host.origin.report().slots_total,
                host.origin.report().slots_free,
                host.origin.report().source_only_free,
            ),
            (7, (6, 4, 4), 3),
        ),
    ),
    (values(ingest__rtmp__handshake_timeout_s=0.1), closes_strangers),
    (values(ingest__rtmp__publish_timeout_s=0.1), closes_idlers),
    (values(ingest__rtmp__silence_timeout_s=0.1), closes_the_silent),
    (
        values(
            ingest__rtmp__message_bytes_max=65536,
            # Again what they were.
            ingest__rtmp__silence_timeout_s=10.0,
            ingest__rtmp__publish_timeout_s=10.0,
            ingest__rtmp__handshake_timeout_s=5.0,
        ),
        takes_no_large_frames,
    ),
    (values(ingest__rtmp__publishers_max=1), takes_no_second),
    (
        values(
            irs__push_interval_s=0.5,
            irs__lease_ttl_s=8.0,
            irs__table_ttl_s=20.0,
            irs__reserve_fraction=0.1,
            irs__policy="proportional",
            irs__moves_per_s=7.0,
            irs__rules=[{"avoid": ["lab1"], "match": {"glob": "sport-*"}}],
        ),
        tells_pops,
    ),
    (
        values(
            irs__sites=[{"name": "x", "pops": ["a"]}, {"name": "y", "origins": ["a"]}],
            irs__links=[{"name": "x-y", "ends": ["x", "y"], "mbps": 100}],
            irs__paths=[{"pop": "a", "origin": "a", "links": ["x-y"]}],
        ),
        knows_its_links,
    ),
    (
        values(
            irs__sources={
                "maintenance": {
                    "windows": [
                        {
                            "link": "x-y",
                            "from": datetime(2020, 1, 1, tzinfo=UTC),
                            "until": datetime(2100, 1, 1, tzinfo=UTC),
                            "reason": "a long one",
                        }
                    ]
                }
            },
        ),
        keeps_away,
    ),
    (values(irs__sources={}), is_open_again),
    (
        values(
            irs_client__telemetry_interval_s=0.5,
            irs_client__persist_interval_s=1.0,
            irs_client__connect_timeout_s=0.2,
            irs_client__reconnect_s_max=0.5,
        ),
        clients_are_told,
    ),
    (
        values(
            playback__hls__playlist_s=20.0,
            playback__hls__retention_s=60.0,
            playback__hls__payload_bytes_max=2**21,
            playback__hls__unwatched_s=90.0,
            playback__cache__memory_bytes_max=2**28,
            playback__cache__disk_bytes_max=2**27,
        ),
        windows_are_told,
    ),
    (
        values(irs__reach={}, pop__reach={}),
        compare(lambda host: host.irs.service.reach.config, ReachConfig()),
    ),
    (
        values(irs__shedding=False),
        compare(lambda host: host.irs.service.shedding.enabled, False),
    ),
    (
        values(
            irs__reach__interval_s=6.0,
            irs__reach__ttl_s=90.0,
            irs__reach__near_ms=50.0,
            irs__reach__viewers_per_replica=60,
            irs__reach__replicas_max=11,
            irs__reach__margin_ms=6.0,
            irs__reach__orders_per_pop_max=300,
            irs__reach__link_share=0.3,
            irs__reach__gain_min=0.2,
            irs__reach__hold_plans=4,
            irs__reach__moves_max=30,
            pop__reach__holds_max=100,
            pop__reach__hold_mbps_max=1000.0,
            pop__reach__grace_s=20.0,
            pop__reach__changes_per_s=40.0,
            pop__reach__relays_max=400,
            pop__reach__relay_mbps_max=4000.0,
            pop__reach__relayed_max=150,
        ),
        reach_is_told,
    ),
    (rights, asks_bob_s_viewers),
    (
        values(
            drain__deadline_s=20.0,
            drain__on_stop_s=1.0,
            drain__redirect="rtmp://other.example.net/live",
            ingest__rtmp__publishers_max=2,  # Bob gets in again.
        ),
        drains_so,
    ),
    (
        values(webhooks=[{"name": "studio", "url": "https://127.0.0.1:1/x", "secret": "s" * 32}]),
        compare(lambda host: list(host.pop.webhooks._webhooks), ["studio"]),
    ),
    (
        values(log__level="debug", log__format="json", log__lines_per_second_max=5000),
        levels_are_told,
    ),
    (mutual("irs"), shows("irs", "irs", "irs")),
    (mutual("origin"), shows("origin", "origin a", "backbone")),
    (mutual("pop"), pop_shows),
    (public("ingest.rtmp"), shows("pop", "pop a", "rtmps")),
    (public("playback"), shows("pop", "pop a", "https")),
]


async def test_each_live_key_takes_effect_and_disconnects_nobody(tmp_path: Path) -> None:
    """All at one process, with a publisher and a viewer at it that stay connected throughout."""
    done: set[str] = set()
    async with hosting(tmp_path) as host, admitted(host.rtmp(), KEY) as peer:
        await broadcast(peer)
        viewer = await trio.open_tcp_stream(*parse_address(host.rtmp("http")))
        async with viewer:
            await until_watched(viewer)
            for make, check in STEPS:
                changes = make(host)
                for key, value in changes.items():
                    host.set(key, value)
                answer = host.process.operations.reload()
                changed = {change.key for change in answer.changed}
                assert changed <= set(changes)
                assert all(change.effect.live for change in answer.changed)
                await check(host)
                done |= changed
                await send(peer)
                assert not peer.closed, changes
                assert [line.channel for line in host.pop.streams()][:1] == ["alice"], changes
                assert await is_watched(viewer), changes
        assert host.process.operations.reload().changed == []
    live = {key for key in all_keys() if effect_of(key).live}
    assert live - done == set(), "is it in effect? add a step"


async def until_watched(viewer: trio.SocketStream) -> None:
    with trio.fail_after(10):
        while not await is_watched(viewer):  # noqa: ASYNC110 - the directory takes its time
            await trio.sleep(0.02)


async def is_watched(viewer: trio.SocketStream) -> bool:
    """One more request on the connection that is kept alive."""
    await viewer.send_all(b"GET /live/alice/master.m3u8 HTTP/1.1\r\nHost: a\r\n\r\n")
    answer = b""
    with trio.fail_after(10):
        while b"\r\n\r\n" not in answer:
            more = await viewer.receive_some(65536)
            assert more, "the viewer was disconnected"
            answer += more
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"Connection: close" not in head
        size = next(
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        )
        while len(body) < size:
            body += await viewer.receive_some(65536)
    return b" 200 " in head.split(b"\r\n")[0]


# The rest: what is refused, and what the door answers.


async def test_a_file_with_mistakes_changes_nothing(tmp_path: Path) -> None:
    async with hosting(tmp_path) as host:
        before = host.process.operations.config
        host.set("stream_keys.static", [{"channel": "bob", "key": OTHER_KEY}])
        host.set("log.level", "loud")
        host.set("drain.deadline_s", 0)
        with capture_logs() as logs, pytest.raises(ConfigError, match="2 problems") as refusal:
            host.process.operations.reload()
        assert "log.level" in str(refusal.value)
        assert "drain.deadline_s" in str(refusal.value)
        assert [line["event"] for line in logs] == ["configuration not reloaded"]
        assert host.process.operations.config is before
        async with encoder(host.rtmp(), OTHER_KEY) as peer:
            assert "not valid here" in (await peer.refused()).description


async def test_a_key_that_cannot_change_has_all_refused(tmp_path: Path) -> None:
    async with hosting(tmp_path) as host:
        host.set("stream_keys.static", [{"channel": "bob", "key": OTHER_KEY}])
        host.set("pop.name", "b")
        host.set("metrics.listen", "127.0.0.1:9999")
        with pytest.raises(ReloadRefusedError, match="2 keys cannot change without a restart"):
            host.process.operations.reload()
        async with encoder(host.rtmp(), OTHER_KEY) as peer:
            assert "not valid here" in (await peer.refused()).description


async def test_certificates_that_cannot_be_used_change_nothing(tmp_path: Path) -> None:
    async with hosting(tmp_path) as host:
        host.set("stream_keys.static", [{"channel": "bob", "key": OTHER_KEY}])
        broken = tmp_path / "broken.pem"
        broken.write_text("no PEM")
        host.set("playback.tls.certificate", str(broken))
        with pytest.raises(ConfigError, match=r"broken\.pem"):
            host.process.operations.reload()
        async with encoder(host.rtmp(), OTHER_KEY) as peer:
            assert "not valid here" in (await peer.refused()).description


async def test_certificates_renewed_in_place_are_read_again(tmp_path: Path) -> None:
    async with hosting(tmp_path) as host:
        host.certificate("origin")
        assert host.process.operations.reload().changed == []
        await shows("origin", "origin a", "backbone")(host)


async def test_who_is_live_with_a_key_that_is_gone_is_told(tmp_path: Path) -> None:
    async with hosting(tmp_path) as host, encoder(host.rtmp(), KEY) as peer:
        await peer.accepted()
        host.set("stream_keys.static", [{"channel": "bob", "key": OTHER_KEY}])
        answer = msgspec.json.decode(await host.ask("reload"), type=ReloadAnswer)
        assert [change.key for change in answer.changed] == ["stream_keys.static"]
        assert (
            "channel 'alice' is live, though its stream key is no longer valid" in answer.notes[0]
        )
        assert not peer.closed


async def test_without_a_file_there_is_nothing_to_read_again(tmp_path: Path) -> None:
    host = Host(tmp_path)
    with pytest.raises(EdgedError, match="runs without a file"):
        Process([load_config(host.path)]).operations.reload()


async def test_the_service_manager_is_told_of_reloads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(
        ServiceManager, "_send", lambda _, *lines: told.append(lines[0].partition("\n")[0])
    )
    async with hosting(tmp_path) as host:
        host.process.operations.reload()
        host.set("pop.name", "b")
        with pytest.raises(ReloadRefusedError):
            host.process.operations.reload()
    assert told == ["RELOADING=1", "READY=1"] * 2


@pytest.mark.parametrize("at", ["prepare", "take"])
async def test_a_plug_ins_bug_in_a_reload_ends_nothing(
    at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything has changed it refuses the file; after that the rest goes into use."""
    told: list[str] = []
    monkeypatch.setattr(
        ServiceManager, "_send", lambda _, *lines: told.append(lines[0].partition("\n")[0])
    )

    def fail() -> None:
        raise ValueError("a plug-in's bug")

    def prepare(table: object) -> Callable[[], None]:
        if at == "prepare":
            fail()
        return fail

    async with hosting(tmp_path) as host:
        host.pop.door.prepares["rtmp"] = prepare
        host.set("stream_keys.static", [{"channel": "bob", "key": OTHER_KEY}])
        host.set("drain.on_stop_s", 0.5)
        before = host.process.operations.config
        if at == "prepare":
            problem = r"ingest\.rtmp: its plug-in failed to check it: ValueError"
            with pytest.raises(ConfigError, match=problem):
                host.process.operations.reload()
            assert host.process.operations.config is before
        else:
            notes = host.process.operations.reload().notes
            assert [note for note in notes if note.startswith("ingest.rtmp: not all of the file")]
            assert host.process.operations.config.drain.on_stop_s == 0.5
            async with encoder(host.rtmp(), OTHER_KEY) as peer:
                await peer.accepted()
    assert told == ["RELOADING=1", "READY=1"]


async def test_a_roles_bug_in_a_reload_leaves_the_others_theirs(tmp_path: Path) -> None:
    async with hosting(tmp_path) as host:

        def fail(_: object) -> None:
            raise ZeroDivisionError

        host.pop.webhooks.reload = fail  # type: ignore[method-assign, assignment]
        host.set("drain.on_stop_s", 0.5)
        notes = host.process.operations.reload().notes
        assert any(
            note.startswith(f"{host.pop.name}: webhooks: not all of the file") for note in notes
        )
        assert host.process.operations.config.drain.on_stop_s == 0.5


async def test_kick_by_the_door(tmp_path: Path) -> None:
    async with hosting(tmp_path) as host, encoder(host.rtmp(), KEY) as peer:
        await peer.accepted()
        with pytest.raises(EdgedError, match="'bob' is not published here; live here: alice"):
            await host.ask("kick", channel="bob")
        answer = msgspec.json.decode(
            await host.ask("kick", channel="alice", reason=" no\n rights ", block_s="60"),
            type=KickAnswer,
        )
        assert answer == KickAnswer(channel="alice", kicked=["pop a"], blocked_s=60.0)
        told = await peer.stopped()
        assert told == Closed("NetStream.Publish.Rejected", "kicked: no rights")
        async with encoder(host.rtmp(), KEY) as again:
            refusal = await again.refused()
            assert refusal.description.startswith("kicked: no rights; refused for another")
        # To refuse a channel it need not be live.
        answer = msgspec.json.decode(
            await host.ask("kick", channel="bob", block_s="60"), type=KickAnswer
        )
        assert answer.kicked == []
        with pytest.raises(EdgedError, match="live here: nothing"):
            await host.ask("kick", channel="alice")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "kick needs a channel"),
        ({"channel": "a", "block_s": "soon"}, "block_s 'soon' is no number"),
        ({"channel": "a", "block_s": "0"}, "above 0 and up to 604800"),
        ({"channel": "a", "block_s": "604801"}, "above 0 and up to 604800"),
        ({"channel": "a", "block_s": "nan"}, "is no number"),
        ({"channel": "a", "reason": "x" * 201}, "reason of 201 characters, allowed are 200"),
    ],
)
async def test_kick_refuses_nonsense(
    arguments: dict[str, str], problem: str, tmp_path: Path
) -> None:
    host = Host(tmp_path)
    with pytest.raises(EdgedError, match=problem):
        host.process.operations._kick(arguments)


async def test_who_is_no_pop_says_where_to_kick(tmp_path: Path) -> None:
    async with hosting(tmp_path) as host, encoder(host.rtmp(), KEY) as peer:
        await peer.accepted()
        await until(host.origin.streams)
        operations = host.process.operations
        operations._roles = [host.origin]
        with pytest.raises(EdgedError, match="no publisher is connected here; live here: alice"):
            operations.kick("alice")
        operations._roles = [host.origin, host.pop]
        host.pop.door.published[0].came_from = "backbone pop/b"
        assert operations._live("alice").startswith("; it comes from backbone pop/a: kick it there")


async def test_what_is_live_is_told_within_bounds(tmp_path: Path) -> None:
    host = Host(tmp_path)
    for number in range(SHOWN_MAX + 3):
        host.pop.hub.open(*stream_of(f"c{number:02}"), started_at=0.0, came_from="rtmp a")
    told = host.process.operations._live("nobody")
    assert told.startswith("; live here: c00, c01")
    assert told.endswith("c19 and 3 more")


def stream_of(channel: str) -> tuple[StreamId, Grant]:
    return StreamId(channel, 1), Grant(channel=channel)


def lines_of(answer: bytes) -> dict[str, DrainLine]:
    return {line.role: line for line in msgspec.json.decode(answer, type=list[DrainLine])}


async def test_drain_by_the_door(tmp_path: Path) -> None:
    """Ours can reconnect, and is asked; then it leaves by itself."""
    async with hosting(tmp_path) as host, encoder(host.rtmp(), KEY) as peer:
        await peer.accepted()
        await until(host.origin.streams)
        lines = lines_of(await host.ask("drain", deadline_s="20", to="rtmp://b.example/live"))
        assert {name: (line.state, line.left) for name, line in lines.items()} == {
            "irs": ("serving", 0),
            "origin a": ("draining", 1),
            "pop a": ("draining", 1),
        }
        assert "nothing to drain" in lines["irs"].note
        await until(lambda: len(peer.events) > 1)
        assert peer.events[1] == ReconnectRequested("rtmp://b.example/live", "this PoP is draining")
        assert not peer.closed
        async with encoder(host.rtmp(), KEY) as again:
            assert await again.refused() == PublishRefused(
                "NetStream.Publish.BadName",
                "drain: this PoP is draining; publish to rtmp://b.example/live",
            )
        assert host.pop.http.draining
        peer.session.close()
        await peer.flush()
        await until(lambda: host.pop.drainer.line().state == "drained")
        await until(lambda: host.origin.drainer.line().state == "drained")
        assert lines_of(await host.ask("drain-status"))["pop a"].left == 0
        assert lines_of(await host.ask("drain-undo"))["pop a"].state == "serving"
        assert not host.pop.http.draining
        await until(
            lambda: host.process.explain(RouteRequest(channel="alice"))[0].now.decision
        )  # Heard of by PoPs.
        await takes(host, KEY)


async def takes(host: Host, key: str) -> None:
    async with encoder(host.rtmp(), key) as peer:
        await peer.accepted()


@pytest.mark.parametrize(
    "arguments", [{"to": "http://other/live"}, {"to": "rtmp://other"}, {"deadline_s": "601"}]
)
async def test_drain_refuses_nonsense(arguments: dict[str, str], tmp_path: Path) -> None:
    async with hosting(tmp_path) as host:
        with pytest.raises(EdgedError, match="is no"):
            await host.ask("drain", **arguments)
        assert host.pop.drainer.line().state == "serving"


async def test_before_the_end_what_is_live_is_let_go_of(tmp_path: Path) -> None:
    said: list[str] = []
    async with hosting(tmp_path) as host:
        operations = host.process.operations
        with trio.fail_after(0.2):  # At once when nothing is live.
            await operations.drain_to_stop(said.append)
        assert said == []
        async with encoder(host.rtmp(), KEY) as peer:
            await peer.accepted()
            host.set("drain.on_stop_s", 0.5)
            operations.reload()
            began_at = trio.current_time()
            await operations.drain_to_stop(said.append)
            assert 0.4 < trio.current_time() - began_at < 2
            told = await peer.stopped()
            assert told.description == "drain: this PoP is draining; connect again"
        assert said[0].startswith("stopping: ")


async def test_a_stop_does_not_wait_for_a_publisher_that_was_lost_unasked(tmp_path: Path) -> None:
    """Of two, whose turns come one after the other, the second is lost before its own."""
    async with hosting(tmp_path) as host, trio.open_nursery() as nursery:
        host.set("stream_keys.static", [{"channel": c, "key": k} for c, k in BOTH])
        host.process.operations.reload()
        async with encoder(host.rtmp(), KEY) as first, encoder(host.rtmp(), OTHER_KEY) as second:
            for peer in (first, second):
                await peer.accepted()
                nursery.start_soon(broadcast, peer, 30)
            await until(lambda: len(host.origin.streams()) == 2)
            await until(lambda: all(stream.units for stream in host.pop.drain_streams()))
            stopped = trio.Event()

            async def stop() -> None:
                await host.process.operations.drain_to_stop(lambda _: None)
                stopped.set()

            began_at = trio.current_time()
            nursery.start_soon(stop)
            await until(lambda: len(first.events) > 1)
            assert isinstance(second.stream, trio.SocketStream)
            await second.stream.send_eof()
            await until(lambda: host.pop.door.waiting == 1)
            assert trio.current_time() - began_at < 0.4, "before its turn"
            host.pop.door.kick("alice", "enough")
            with trio.fail_after(2.5):  # Half of `drain.on_stop_s`.
                await stopped.wait()
            nursery.cancel_scope.cancel()


async def test_without_time_to_stop_nothing_is_drained(tmp_path: Path) -> None:
    async with hosting(tmp_path) as host, encoder(host.rtmp(), KEY) as peer:
        await peer.accepted()
        host.set("drain.on_stop_s", 0)
        host.process.operations.reload()
        await host.process.operations.drain_to_stop(lambda _: None)
        assert not peer.closed


async def test_levels_by_the_door(tmp_path: Path) -> None:
    async with hosting(tmp_path) as host:
        try:
            answer = await host.ask("log-level", level="debug", logger="edged.pop", for_s="60")
            status = msgspec.json.decode(answer, type=LevelStatus)
            assert [(entry.logger, entry.level) for entry in status.set] == [("edged.pop", "debug")]
            status = msgspec.json.decode(await host.ask("log-level"), type=LevelStatus)
            assert len(status.set) == 1
            with pytest.raises(EdgedError, match="level 'loud' is none of debug, info"):
                await host.ask("log-level", level="loud")
            with pytest.raises(EdgedError, match=r"no logger 'edged\.x'"):
                await host.ask("log-level", level="debug", logger="edged.x")
            answer = await host.ask("log-level", level="configured", logger="edged.pop")
            assert msgspec.json.decode(answer, type=LevelStatus).set == []
        finally:
            set_level(None, "edged.pop")


async def test_an_irs_gives_its_epochs_back_when_told_to_and_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seat_module, "STAND_BY_S", 0.2)
    raws = raw_network(tmp_path)
    for raw in raws[1:]:
        client = raw["irs_client"]
        assert isinstance(client, dict)
        raw["irs_client"] = {"addresses": [*client["addresses"], free_address()]}
    async with running(*map(configure, raws)) as network:
        process = network.process
        (irs,) = [role for role in process.roles if isinstance(role, IrsRole)]
        (pop,) = [role for role in process.roles if isinstance(role, PopRole)]
        seat = irs.service.seat
        await until(lambda: seat.status().standing == "active")
        admin = tmp_path / "admin.sock"
        (seen,) = msgspec.json.decode(await ask(admin, "irs-standby", {}), type=list[SeatSeen])
        assert (seen.standing, seen.leads) == ("standby", False)
        with pytest.raises(EdgedError, match="this irs stands by"):
            await ask(admin, "irs-standby", {})
        assert pop.irs is not None
        assert pop.irs.grants is not None
        grants = pop.irs.grants
        await until(lambda: not grants.active(trio.current_time()))
        await until(lambda: seat.status().standing == "active")  # Nobody else has taken over.
        with trio.fail_after(HAND_OVER_S_MAX):
            await process.operations.hand_over()
        assert not grants.active(trio.current_time())
        await trio.sleep(0.4)
        assert seat.status().standing == "standby"


async def test_one_that_is_no_irs_stands_by_for_nobody(tmp_path: Path) -> None:
    async with hosting(tmp_path) as host:
        operations = host.process.operations
        operations._roles = [role for role in operations._roles if not isinstance(role, IrsRole)]
        with pytest.raises(EdgedError, match="this edged is no IRS: ask the one that is to"):
            await host.ask("irs-standby")
        await operations.hand_over()
