"""Exceptions thrown in everything that runs: each ends what it must, and never anything else.

All against a whole network in this process with a publisher and a viewer who must not notice.
"""

import contextlib
import time
from collections.abc import AsyncIterator, Callable, MutableMapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import pytest
import trio
from msgspec import Struct
from structlog.testing import capture_logs

import edged.playback.hls
import edged.roles.sampler
import edged.runtime.listeners
import edged.runtime.tls
from edged.api.admin import ask
from edged.errors import ConfigError, EdgedError
from edged.ingest.rtmp import RtmpPublisher
from edged.media.stream import PriorityClass
from edged.playback.http import HttpConnection
from edged.roles.irs import IrsRole
from edged.roles.origin import OriginRole
from edged.roles.pop import PopRole
from edged.runtime.listeners import parse_address, peer_name
from edged.runtime.metrics import MetricSpec
from edged.runtime.tls import Identity
from edged.tools.cert import make_authority, make_host_certificate
from edged.wire.rtmp import Closed
from tests.backbone.network import free_address, until
from tests.e2e.viewer import Viewer
from tests.ingest.rtmp_peer import Encoder, encoder
from tests.roles.network import KEY, Network, broadcast, configure, get, raw_network, running
from tests.wire.rtmp.peers import AAC, H264, h264_unit, unit

OTHER_KEY = "another-key-of-bob"
FRAME_S = 1 / 30
AHEAD_FRAMES = 180  # What is there when the viewer comes: `broadcast`'s 6 s.
LINES_MAX = 3  # Of the faults that are thrown: each is logged.

LogLine = MutableMapping[str, Any]
T = TypeVar("T")


class BugError(RuntimeError):
    """What no code of ours expects."""


def fail(*_: object, **__: object) -> NoReturn:
    raise BugError("injected")


class Faults:
    """Makes calls fail, a few times each, and knows whether they did."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self.thrown = 0

    def throw(
        self,
        owner: object,
        name: str,
        *,
        times: int = 1,
        when: Callable[..., bool] = lambda *_, **__: True,
    ) -> None:
        """The next `times` calls of `owner.name` raise, of those for which `when` holds."""
        real = getattr(owner, name)
        left = times

        def call(*args: object, **kwargs: object) -> object:
            nonlocal left
            if left and when(*args, **kwargs):
                left -= 1
                self.thrown += 1
                fail()
            return real(*args, **kwargs)

        self._patch.setattr(owner, name, call)


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    return Faults(monkeypatch)


class Setting(Struct, kw_only=True):
    """A network with a healthy stream, and what was logged since it is."""

    network: Network
    irs: IrsRole
    origin: OriginRole
    pop: PopRole
    healthy: Encoder
    viewer: Viewer
    logs: list[LogLine]
    folder: Path
    ends_here: bool = False  # The test has ended the healthy stream itself.

    def failed(self, event: str) -> list[LogLine]:
        """The lines of an event that carry the exception thrown."""
        return [line for line in self.logs if line["event"] == event and _is_bug(line)]

    async def begun_anew(self, role: str, service: str) -> None:
        """A service failed, was logged and counted, and was begun anew."""
        supervisors = {
            "irs": self.irs.supervisor,
            "origin": self.origin.supervisor,
            "pop": self.pop.supervisor,
            "process": self.network.process.supervisor,
        }
        await until(lambda: supervisors[role].restarts[service] > 0)
        lines = self.failed("service failed, begun anew")
        assert {line["service"] for line in lines} == {service}
        text = self.network.process.metrics.render().decode()
        counted = [line for line in text.splitlines() if f'service="{service}"' in line]
        assert [line for line in counted if not line.endswith(" 0.0")]

    @contextlib.asynccontextmanager
    async def victim(self) -> AsyncIterator[Encoder]:
        """A second publisher of the same PoP, who has sent nothing yet."""
        async with encoder(self.pop_address("rtmp"), OTHER_KEY) as peer:
            await peer.accepted()
            yield peer

    def told(self, event: str) -> list[LogLine]:
        """The lines of an event that tell what was thrown."""
        return [
            line
            for line in self.logs
            if line["event"] == event and "BugError(" in str(line.values())
        ]

    def session_of(self, peer: Encoder) -> RtmpPublisher:
        """A publisher's session here."""
        assert isinstance(peer.stream, trio.SocketStream)
        name = peer_name(peer.stream.socket.getsockname())
        (found,) = [
            connection.handler
            for connection in self.pop.pump._connections.values()
            if connection.peer == name
        ]
        assert isinstance(found, RtmpPublisher)
        return found

    def pop_address(self, what: str) -> str:
        return self.network.addresses["pop west"][what]


def _is_bug(line: LogLine) -> bool:
    """Whether a line has the traceback of what was thrown."""
    error = line.get("exc_info")
    if error is True:
        return True  # `logger.exception`, in its `except`.
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return isinstance(error, BugError)


async def go_on(peer: Encoder) -> None:
    """Broadcast in real time, behind what `broadcast` has sent, until it is stopped."""
    began_at, sound = trio.current_time(), int(AHEAD_FRAMES * FRAME_S * 48_000 / 1024 + 1) * 1024
    for count in range(10**6):
        frame = AHEAD_FRAMES + count
        await trio.sleep_until(began_at + count * FRAME_S)
        if peer.closed or any(isinstance(event, Closed) for event in peer.events):
            return  # Whether it may be is the test's to say.
        peer.session.send_unit(h264_unit(frame * 3000, key=frame % 60 == 0), H264)
        while sound / 48_000 < (frame + 1) * FRAME_S:
            peer.session.send_unit(unit(AAC, sound, b"sound"), AAC)
            sound += 1024
        with contextlib.suppress(trio.BrokenResourceError):
            await peer.flush()


@contextlib.asynccontextmanager
async def healthy_network(folder: Path, **tables: object) -> AsyncIterator[Setting]:
    """Run it; at the end the healthy stream must have lost nothing, and its viewer neither."""
    irs, origin, pop = raw_network(folder)
    keys = pop["stream_keys"]
    assert isinstance(keys, dict)
    keys["static"].append({"channel": "bob", "key": OTHER_KEY})
    pop["playback"] = {"listen": free_address()}  # The same when it listens anew.
    pop.update(tables)
    for raw in (origin, pop):
        client = raw["irs_client"]
        assert isinstance(client, dict)
        client["telemetry_interval_s"] = 0.1
    with capture_logs() as logs:
        async with (
            running(*map(configure, (irs, origin, pop))) as network,
            encoder(network.rtmp(), KEY) as healthy,
            trio.open_nursery() as nursery,
        ):
            await healthy.accepted()
            await broadcast(healthy)
            nursery.start_soon(go_on, healthy)
            viewer = Viewer(f"http://{network.addresses['pop west']['http']}", "alice")
            await viewer.join()
            nursery.start_soon(lambda: viewer.watch(join=False))
            roles = {role.name: role for role in network.process.roles}
            setting = Setting(
                network=network,
                irs=_as(IrsRole, roles["irs"]),
                origin=_as(OriginRole, roles["origin fra1"]),
                pop=_as(PopRole, roles["pop west"]),
                healthy=healthy,
                viewer=viewer,
                logs=logs,
                folder=folder,
            )
            await _watched_further(setting)
            logs.clear()
            yield setting
            if not setting.ends_here:
                await _check_healthy(setting)
            nursery.cancel_scope.cancel()


async def _watched_further(setting: Setting) -> None:
    """The viewer gets several parts more of each rendition."""
    before = {name: len(track.arrivals) for name, track in setting.viewer.tracks.items()}
    await until(
        lambda: all(
            len(track.arrivals) >= before[name] + 3 for name, track in setting.viewer.tracks.items()
        )
    )


async def _check_healthy(setting: Setting) -> None:
    await _watched_further(setting)
    assert not setting.healthy.closed
    for track in setting.viewer.tracks.values():
        track.check_flow()
    live, there = setting.pop.hub.get("alice"), setting.origin.hub.get("alice")
    assert live is not None
    assert there is not None
    units = live.units
    await until(lambda: there.units >= units)
    (inbound,) = [i for i in setting.origin.server.streams if i.stream_id.channel == "alice"]
    assert inbound.units_lost == 0
    ended = [line for line in setting.logs if line["event"] == "publisher ended"]
    assert not [line for line in ended if line["channel"] == "alice"]


def _as(kind: type[T], value: object) -> T:
    assert isinstance(value, kind)
    return value


# Services, which are begun anew.


def _uplinks_tick(setting: Setting, faults: Faults) -> None:
    faults.throw(setting.pop.uplinks, "_tick", times=LINES_MAX)


def _irs_client(setting: Setting, faults: Faults) -> None:
    assert setting.pop.irs is not None
    faults.throw(setting.pop.irs, "_take_telemetry")


def _hls(setting: Setting, faults: Faults) -> None:
    faults.throw(setting.pop.hls, "sweep", times=LINES_MAX)


def _heartbeats(setting: Setting, faults: Faults) -> None:
    faults.throw(setting.origin, "report", times=LINES_MAX)


def _acks(setting: Setting, faults: Faults) -> None:
    faults.throw(setting.origin.server._inbound, "send_acks", times=LINES_MAX)


def _origin_client(setting: Setting, faults: Faults) -> None:
    assert setting.origin.irs is not None
    faults.throw(setting.origin.irs, "_report", times=LINES_MAX)


def _planner(setting: Setting, faults: Faults) -> None:
    faults.throw(setting.irs.service.planner, "plan_now", times=LINES_MAX)


def _sampler(setting: Setting, faults: Faults) -> None:
    sampler = setting.network.process._sampler
    assert sampler is not None
    faults.throw(sampler, "sample", times=LINES_MAX)


SERVICES: dict[str, tuple[str, str, Callable[[Setting, Faults], None]]] = {
    "uplinks tick": ("pop", "uplinks tick", _uplinks_tick),
    "irs client of a pop": ("pop", "irs client", _irs_client),
    "hls": ("pop", "hls", _hls),
    "heartbeats": ("origin", "backbone tick", _heartbeats),
    "acks": ("origin", "backbone tick", _acks),
    "irs client of an origin": ("origin", "irs client", _origin_client),
    "planner": ("irs", "irs planner", _planner),
    "sampler": ("process", "sampler", _sampler),
}


@pytest.mark.parametrize("name", SERVICES)
async def test_a_service_that_fails_is_begun_anew(
    name: str, tmp_path: Path, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    role, service, inject = SERVICES[name]
    monkeypatch.setattr(edged.playback.hls, "SWEEP_INTERVAL_S", 0.05)
    monkeypatch.setattr(edged.roles.sampler, "INTERVAL_S", 0.05)
    async with healthy_network(tmp_path) as setting:
        inject(setting, faults)
        await until(lambda: faults.thrown)
        await setting.begun_anew(role, service)


async def test_webhooks_that_fail_are_begun_anew(tmp_path: Path, faults: Faults) -> None:
    hook = {"name": "hook", "url": "http://127.0.0.1:1/", "secret": "s" * 40}
    async with healthy_network(tmp_path, webhooks=[hook]) as setting:
        faults.throw(setting.pop.webhooks._subscription, "receive")
        async with setting.victim() as peer:
            await broadcast(peer, 1.0)
            await until(lambda: faults.thrown)
        await setting.begun_anew("pop", "webhooks")


async def test_a_links_task_that_fails_takes_no_stream_with_it(
    tmp_path: Path, faults: Faults
) -> None:
    async with healthy_network(tmp_path) as setting:
        link = setting.pop.uplinks._link("fra1")
        assert link is not None
        faults.throw(link, "_connect")
        link._sessions[PriorityClass.PARTNER].connection.abort("the path broke")
        await setting.begun_anew("pop", "link")
        assert [line["of"] for line in setting.failed("service failed, begun anew")] == ["fra1"]
        await until(lambda: len(link._sessions) == 4)


@pytest.mark.parametrize("what", ["http", "rtmp", "backbone"])
async def test_a_caller_who_meets_a_bug_closes_the_door_to_nobody(
    what: str, tmp_path: Path, faults: Faults
) -> None:
    async with healthy_network(tmp_path) as setting:
        addresses = setting.network.addresses
        address = addresses["origin fra1" if what == "backbone" else "pop west"][what]
        faults.throw(edged.runtime.listeners, "_prepare")
        host, port = parse_address(address)
        async with await trio.open_tcp_stream(host, port) as stream:
            with trio.fail_after(5), contextlib.suppress(trio.BrokenResourceError):
                assert await stream.receive_some() == b""
        assert setting.failed("caller failed")
        async with await trio.open_tcp_stream(host, port):
            pass


async def test_a_listener_that_fails_listens_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        """As the bound of a loop it raises, once."""

        thrown = False

        def __index__(self) -> int:
            if self.thrown:
                return 64
            self.thrown = True
            fail()

    async with healthy_network(tmp_path) as setting:
        address = setting.pop_address("http")
        monkeypatch.setattr(edged.runtime.listeners, "ACCEPTS_PER_TURN_MAX", Broken())
        with contextlib.suppress(OSError, IndexError, trio.BrokenResourceError):
            await get(address, "/time")
        await setting.begun_anew("pop", "http listener")

        async def answers() -> None:
            with trio.fail_after(5):
                while True:
                    with contextlib.suppress(OSError, trio.BrokenResourceError):
                        assert (await get(address, "/time"))[0] == 200
                        return
                    await trio.sleep(0.05)

        await answers()


async def test_certificates_that_fail_to_reload_are_looked_at_again(
    tmp_path: Path, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edged.runtime.tls, "RELOAD_INTERVAL_S", 0.05)
    make_authority(tmp_path, "net", now=time.time())
    files = make_host_certificate(tmp_path, Identity("pop", "west"), now=time.time())
    tls = {"certificate": str(files.certificate), "key": str(files.key), "listen": "127.0.0.1:0"}
    playback = {"listen": free_address(), "tls": tls}
    async with healthy_network(tmp_path, playback=playback) as setting:
        assert setting.pop._public is not None
        faults.throw(setting.pop._public, "reload_if_changed", times=LINES_MAX)
        await setting.begun_anew("pop", "https certificates")


async def test_what_is_wrong_at_the_start_still_ends_the_process(tmp_path: Path) -> None:
    irs, origin, pop = raw_network(tmp_path)
    backbone = origin["origin"]
    assert isinstance(backbone, dict)
    pop["playback"] = {"listen": backbone["listen"]}
    with pytest.raises(ExceptionGroup) as caught, trio.fail_after(5):
        async with running(*map(configure, (irs, origin, pop))):
            pytest.fail("it must not start")
    assert caught.group_contains(ConfigError, match="cannot listen on")


# Sessions, which end alone.


@pytest.mark.parametrize("call", ["_authorise", "_ask_door"])
async def test_a_publisher_who_comes_ends_alone(call: str, tmp_path: Path, faults: Faults) -> None:
    async with healthy_network(tmp_path) as setting:
        faults.throw(RtmpPublisher, call)
        async with encoder(setting.pop_address("rtmp"), OTHER_KEY) as peer:
            await until(lambda: peer.closed)
        assert setting.failed("session failed")


@pytest.mark.parametrize("call", ["data_received", "handle_timeout", "_append"])
async def test_a_publishers_session_ends_alone(call: str, tmp_path: Path, faults: Faults) -> None:
    async with healthy_network(tmp_path) as setting, setting.victim() as peer:
        session = setting.session_of(peer)
        faults.throw(session, call)
        if call == "handle_timeout":
            session._connection.set_timeout(trio.current_time())
        else:
            with contextlib.suppress(trio.BrokenResourceError):
                await broadcast(peer, 0.5)
        await until(lambda: peer.closed)
        assert setting.failed("session failed")


async def test_a_publisher_who_fails_to_be_stopped_stops_nobody_else(
    tmp_path: Path, faults: Faults
) -> None:
    """Who takes over gets in, and at the PoP's end every other publisher is told."""
    async with healthy_network(tmp_path) as setting, setting.victim() as peer:
        await broadcast(peer, 1.0)
        faults.throw(setting.session_of(peer), "stop")
        async with encoder(setting.pop_address("rtmp"), OTHER_KEY) as newcomer:
            await newcomer.accepted()
            assert setting.failed("publisher failed to be stopped")
            setting.logs.clear()
            await broadcast(newcomer, 1.0)
            faults.throw(setting.session_of(newcomer), "stop")
            setting.pop.door.stop_all("Rejected", "the PoP is stopping")
            assert setting.failed("publisher failed to be stopped")
            await until(lambda: setting.healthy.closed)
        setting.ends_here = True


async def test_a_page_and_a_service_of_the_playback(tmp_path: Path, faults: Faults) -> None:
    async with healthy_network(tmp_path) as setting:
        http = setting.pop_address("http")
        setting.pop.http.router.get("/bug", lambda _: fail())
        assert await get(http, "/bug") == (500, b"internal error\n")
        assert setting.failed("page failed")
        faults.throw(setting.pop.hls, "respond_master", when=lambda name, *_: name == "bob")
        with pytest.raises(IndexError):  # It is closed on: there is no status line.
            await get(http, "/live/bob/master.m3u8")
        assert setting.failed("session failed")


async def test_an_operation_of_the_api(tmp_path: Path, faults: Faults) -> None:
    async with healthy_network(tmp_path) as setting:
        faults.throw(setting.pop.uplinks.listing, "lookup", when=lambda name: name == "bob")
        status, body = await get(setting.pop_address("http"), "/api/v1/streams/bob")
        assert status == 500
        assert b"internal" in body
        assert setting.failed("operation failed")


async def test_a_viewer_whose_answer_fails_leaves_the_others_theirs(
    tmp_path: Path, faults: Faults
) -> None:
    """All who wait for one playlist are answered in one loop."""
    async with healthy_network(tmp_path) as setting:
        track = setting.viewer.tracks["v0"]
        stream = setting.pop.hls._channels["alice"].newest
        assert stream is not None
        msn = stream.window.renditions["v0"].last_msn
        path = f"{track.url.removeprefix(setting.viewer.base)}?_HLS_msn={msn + 1}"
        wanted, answers = f"_HLS_msn={msn + 1}", list[int]()

        async def wait_for_playlist() -> None:
            try:
                answers.append((await get(setting.pop_address("http"), path))[0])
            except IndexError:
                answers.append(0)

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(wait_for_playlist)

            def waiting() -> list[HttpConnection]:
                return [each for each in _exchanges(setting) if wanted in _asks(each)]

            await until(lambda: len(waiting()) >= 20)
            bad = set(map(id, waiting()[5:7]))
            faults.throw(HttpConnection, "_send", times=2, when=lambda one, *_: id(one) in bad)
        assert faults.thrown == 2
        assert sorted(answers) == [0, 0] + [200] * 18
        assert len(setting.failed("session failed")) == 2


def _exchanges(setting: Setting) -> list[HttpConnection]:
    handlers = [each.handler for each in setting.pop.pump._connections.values()]
    return [handler for handler in handlers if isinstance(handler, HttpConnection)]


def _asks(exchange: HttpConnection) -> str:
    return exchange._request.query if exchange._request is not None else ""


@pytest.mark.parametrize("where", ["hls", "packager", "segmenter", "receiver", "sender", "reader"])
async def test_one_stream_ends_alone(where: str, tmp_path: Path, faults: Faults) -> None:
    async with healthy_network(tmp_path) as setting, setting.victim() as peer:
        await broadcast(peer)
        there = setting.origin.service._streams
        await until(lambda: "bob" in there and there["bob"].events)
        event = _break_stream(where, setting, faults)
        if where == "hls":
            await until(lambda: setting.pop.uplinks.lookup("bob") is not None)
            await get(setting.pop_address("http"), "/live/bob/master.m3u8")
        peer.session.send_unit(h264_unit(AHEAD_FRAMES * 3000, key=True), H264)
        await peer.flush()
        await until(lambda: faults.thrown)
        await until(lambda: setting.failed(event) or setting.told(event))


def _break_stream(where: str, setting: Setting, faults: Faults) -> str:
    """Make bob's stream fail there; the event that is to be logged."""
    entry, here = setting.origin.service._streams["bob"], setting.pop.hub.get("bob")
    assert here is not None
    if where == "hls":
        of_bob = lambda stream_id, _: stream_id.channel == "bob"  # noqa: E731
        faults.throw(setting.pop.hls, "window_updated", when=of_bob)
        return "playback failed"
    if where == "packager":
        faults.throw(entry.packager, "wake")
        return "packager failed"
    if where == "segmenter":
        faults.throw(entry.packager._segmenter, "add_unit")
        return "packager failed"
    if where == "receiver":
        faults.throw(entry.stream, "append")
        return "stream failed"
    if where == "sender":
        (forwarding,) = [
            each
            for link in setting.pop.uplinks._links.values()
            for each in link.link.forwardings
            if each.stream_id.channel == "bob"
        ]
        assert forwarding._flow is not None
        faults.throw(forwarding._flow, "fill")
        return "forwarding broke off"

    def read(_: object) -> None:
        faults.thrown += 1
        fail()

    here.watch(read)
    return "reader failed"


async def test_the_directory(tmp_path: Path, faults: Faults) -> None:
    """What comes of it on the control session fails: that session is made anew, and lists anew."""
    async with healthy_network(tmp_path) as setting:
        faults.throw(setting.pop.uplinks.listing, "apply")
        async with setting.victim() as peer:
            await broadcast(peer, 1.0)
            await until(lambda: faults.thrown)
            assert setting.failed("session failed")
            await until(lambda: setting.pop.uplinks.lookup("bob") is not None)


async def test_a_scrape_has_the_metrics_of_all_but_the_one_that_fails(tmp_path: Path) -> None:
    async with healthy_network(tmp_path) as setting:
        spec = MetricSpec(name="edged_test_value", help="Fails.")
        setting.network.process.metrics.register([spec], fail)
        address = setting.network.addresses["metrics"]["http"]
        status, body = await get(address, "/metrics")
        assert status == 200
        assert b'edged_hub_streams{role="pop west"} 1.0' in body
        assert b"edged_metrics_failures_total 1.0" in body
        assert setting.failed("metrics of a service failed")


async def test_an_admin_handler(tmp_path: Path, faults: Faults) -> None:
    async with healthy_network(tmp_path) as setting:
        faults.throw(setting.pop, "explain")
        socket = tmp_path / "admin.sock"
        with pytest.raises(EdgedError, match=r"internal error.*route-explain.*log"):
            await ask(socket, "route-explain", {"channel": "alice"})
        assert setting.failed("admin command failed")
        assert b"alice" in await ask(socket, "route-explain", {"channel": "alice"})


async def test_a_drain_that_fails_ends_no_process(tmp_path: Path, faults: Faults) -> None:
    async with healthy_network(tmp_path) as setting, setting.victim():
        faults.throw(setting.pop, "drain_one", times=1)
        faults.throw(setting.origin, "drain_one", times=1)
        faults.throw(setting.pop, "drain_streams", times=0)
        await ask(tmp_path / "admin.sock", "drain", {"deadline_s": "0.4"})
        await until(lambda: faults.thrown)
        await ask(tmp_path / "admin.sock", "drain-undo", {})
        assert setting.failed("drain failed")
