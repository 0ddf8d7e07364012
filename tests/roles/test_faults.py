"""Exceptions thrown in everything that runs: each ends what it must, and never anything else.

All against a whole network in this process with a publisher and a viewer who must not notice.
"""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

import edged.playback.hls
import edged.roles.ingest_health
import edged.roles.sampler
import edged.runtime.listeners
import edged.runtime.tls
from edged.api.admin import ask
from edged.errors import ConfigError, EdgedError
from edged.ingest.rtmp_publisher import RtmpPublisher
from edged.media.stream import PriorityClass
from edged.playback.http import HttpConnection
from edged.runtime.listeners import parse_address
from edged.runtime.metrics import MetricSpec
from edged.runtime.tls import Identity
from edged.tools.cert import make_authority, make_host_certificate
from tests.backbone.network import free_address, until
from tests.ingest.rtmp_peer import encoder
from tests.roles.network import broadcast, configure, get, raw_network, running
from tests.roles.throwing import (
    AHEAD_FRAMES,
    LINES_MAX,
    OTHER_KEY,
    Faults,
    Setting,
    fail,
    healthy_network,
)
from tests.wire.rtmp.peers import H264, h264_unit

pytestmark = pytest.mark.pure

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


def _ingest_health(setting: Setting, faults: Faults) -> None:
    faults.throw(setting.pop.ingest_health, "_look", times=LINES_MAX)


def _door(setting: Setting, faults: Faults) -> None:
    faults.throw(setting.pop.door._grace, "next_timeout", times=LINES_MAX)
    setting.pop.door._waits.set()  # As when a publisher is lost.


def _parts_in(setting: Setting, faults: Faults) -> None:
    parts = setting.pop.uplinks.parts
    faults.throw(parts, "_due_at", times=LINES_MAX)
    assert parts._sooner is not None
    parts._sooner.set()  # As when something is held.


def _irs_watch(setting: Setting, faults: Faults) -> None:
    capacitor = setting.irs.service.collectors.capacitor
    faults.throw(capacitor, "next_timeout", times=LINES_MAX)


SERVICES: dict[str, tuple[str, str, Callable[[Setting, Faults], None]]] = {
    "uplinks tick": ("pop", "uplinks tick", _uplinks_tick),
    "irs client of a pop": ("pop", "irs client", _irs_client),
    "hls": ("pop", "hls", _hls),
    "heartbeats": ("origin", "backbone tick", _heartbeats),
    "acks": ("origin", "backbone tick", _acks),
    "irs client of an origin": ("origin", "irs client", _origin_client),
    "planner": ("irs", "irs planner", _planner),
    "sampler": ("process", "sampler", _sampler),
    "ingest health": ("pop", "ingest health", _ingest_health),
    "door": ("pop", "door", _door),
    "parts in": ("pop", "parts in", _parts_in),
    "irs watch": ("irs", "irs watch", _irs_watch),
}


@pytest.mark.parametrize("name", SERVICES)
async def test_a_service_that_fails_is_begun_anew(
    name: str, tmp_path: Path, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    role, service, inject = SERVICES[name]
    monkeypatch.setattr(edged.playback.hls, "SWEEP_INTERVAL_S", 0.05)
    monkeypatch.setattr(edged.roles.sampler, "INTERVAL_S", 0.05)
    monkeypatch.setattr(edged.roles.ingest_health, "TICK_S", 0.05)
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


async def test_a_listener_that_fails_listens_anew(tmp_path: Path, faults: Faults) -> None:
    async with healthy_network(tmp_path) as setting:
        address = setting.pop_address("http")
        faults.break_accepts()
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
        faults.throw(setting.pop.hls, "respond_master", when=lambda name, *_, **__: name == "bob")
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


async def test_a_scrape_has_the_metrics_of_all_but_the_one_that_fails(
    tmp_path: Path, faults: Faults
) -> None:
    """And where all of it fails, the next scrape is answered again."""
    async with healthy_network(tmp_path) as setting:
        spec = MetricSpec(name="edged_test_value", help="Fails.")
        setting.network.process.metrics.register([spec], fail)
        address = setting.network.addresses["metrics"]["http"]
        status, body = await get(address, "/metrics")
        assert status == 200
        assert b'edged_hub_streams{role="pop west"} 1.0' in body
        assert b"edged_metrics_failures_total 1.0" in body
        assert setting.failed("metrics of a service failed")
        faults.throw(setting.network.process.metrics, "render")
        assert await get(address, "/metrics") == (500, b"internal error\n")
        assert setting.failed("page failed")
        assert (await get(address, "/metrics"))[0] == 200


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
