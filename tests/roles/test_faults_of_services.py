"""Exceptions thrown into the services, listeners and pages that `test_faults` leaves out.

What is thrown ends one service, which is begun anew; the publisher and the viewer notice nothing.
"""

import ast
import contextlib
import hashlib
import itertools
import re
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

import edged
import edged.irs.history
import edged.irs.watch
import edged.origin.service
import edged.policy.demand
import edged.roles.admin_http
import edged.roles.reaching
import edged.runtime.tls
from edged.api.admin import ask
from edged.api.admin_access import AdminAccess
from edged.api.admin_url import COMMAND_PATH
from edged.irs.history_file import HistoryFile
from edged.irs.journal import journal_files
from edged.media.stream import PriorityClass
from edged.playback.rights import RightsGate
from edged.playback.router import Handler, Router
from edged.policy.network_history import NetworkHistory
from edged.policy.plan_journal import read_journal
from edged.policy.plan_replay import Replayed, replay
from edged.policy.restrictions import Restriction
from edged.policy.solver import FlowSolver
from edged.roles.pop import PopRole
from edged.roles.snapshot import Snapshots
from edged.runtime.listeners import parse_address
from edged.runtime.supervision import Supervisor
from edged.runtime.tls import Identity
from edged.tools.cert import make_authority, make_host_certificate
from tests.backbone.network import free_address, until
from tests.ingest.rtmp_peer import encoder
from tests.roles.network import broadcast, get
from tests.roles.throwing import LINES_MAX, OTHER_KEY, Faults, fail, healthy_network

TOKEN = "token-of-the-operators-of-this-test"  # noqa: S105 - a test's


def ask_nobody(raws: list[dict[str, Any]]) -> None:
    """A key callback whose service does not answer."""
    callback = {"url": f"http://{free_address()}/", "secret": "s" * 40}
    raws[2]["stream_keys"]["callback"] = callback


async def fail_soon() -> None:
    """A task that meets a bug."""
    fail()


def fail_within(service: object, faults: Faults) -> None:
    """A task of a service, in its nursery, meets a bug."""
    nursery = service._nursery  # type: ignore[attr-defined]
    assert isinstance(nursery, trio.Nursery)
    faults.thrown += 1
    nursery.start_soon(fail_soon)


async def test_the_key_callback_fails(tmp_path: Path, faults: Faults) -> None:
    async with healthy_network(tmp_path, ask_nobody) as setting:
        fail_within(setting.pop._key_callback, faults)
        await setting.begun_anew("pop", "key callback")
        async with setting.victim() as peer:  # Its key is in the file.
            await broadcast(peer, 0.5)
        async with encoder(setting.pop_address("rtmp"), "a-key-of-nobody") as stranger:
            await until(lambda: stranger.closed)  # Asked for, and refused.
        (line,) = [line for line in setting.logs if line["event"] == "publisher refused"]
        assert line["code"] == "auth_unavailable"


async def test_the_api_fails(tmp_path: Path, faults: Faults) -> None:
    async with healthy_network(tmp_path) as setting:
        fail_within(setting.pop.api, faults)
        await setting.begun_anew("pop", "api")
        http = setting.pop_address("http")
        await until_status(http, "/api/v1/streams/alice", 200)


async def until_status(address: str, path: str, wanted: int) -> None:
    """Ask until that is the answer."""
    with trio.fail_after(5):
        while True:
            try:
                if (await get(address, path))[0] == wanted:
                    return
            except (OSError, IndexError, trio.BrokenResourceError):
                pass
            await trio.sleep(0.05)


def listen_everywhere(folder: Path) -> Callable[[list[dict[str, Any]]], None]:
    """Have every listener that there is, at fixed ports: they are to listen there again."""

    def prepare(raws: list[dict[str, Any]]) -> None:
        make_authority(folder, "net", now=time.time())
        files = make_host_certificate(folder, Identity("pop", "west"), now=time.time())
        tls = {"certificate": files.certificate, "key": files.key, "listen": free_address()}
        raws[2]["playback"] = {"listen": free_address(), "tls": tls}
        relay_to_others(raws)
        token = hashlib.sha256(TOKEN.encode()).hexdigest()
        admin = {"listen": free_address(), "token_sha256": token}
        metrics = {"listen": free_address()}
        for raw in raws:
            raw["admin"] = raw["admin"] | admin
            raw["metrics"] = metrics

    return prepare


LISTENERS = {
    "https": ("pop west", "https", "pop", "https listener"),
    "backbone": ("origin fra1", "backbone", "origin", "backbone listener"),
    "relay": ("pop west", "relay", "pop", "relay listener"),
    "metrics": ("metrics", "http", "process", "metrics"),
    "admin page": ("admin", "http", "process", "admin page"),
}


@pytest.mark.parametrize("name", LISTENERS)
async def test_a_listener_fails(name: str, tmp_path: Path, faults: Faults) -> None:
    who, what, role, service = LISTENERS[name]
    async with healthy_network(tmp_path, listen_everywhere(tmp_path)) as setting:
        address = setting.network.addresses[who][what]
        faults.break_accepts()
        link = setting.pop.uplinks._link("fra1")
        assert link is not None
        if name == "backbone":  # Who calls there are PoPs: the link is broken, and made again.
            link._sessions[PriorityClass.PARTNER].connection.abort("the path broke")
        else:
            await call(address)
        await setting.begun_anew(role, service)
        if name == "backbone":
            await until(lambda: len(link._sessions) == 4, s_max=5)
        elif name == "relay":
            await call(address)
        else:
            await until_answered(name, address, tmp_path / "ca.pem")


async def call(address: str) -> None:
    """Connect, and leave."""
    with contextlib.suppress(OSError):  # Closed on while it connected.
        async with await trio.open_tcp_stream(*parse_address(address)):
            await trio.sleep(0.05)


async def until_answered(name: str, address: str, ca: Path) -> None:
    """Ask until somebody who listens there again answers."""
    path = {"https": "/time", "metrics": "/metrics", "admin page": "/"}[name]
    host, port = parse_address(address)
    request = f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode()
    answer = b""
    with trio.fail_after(5):
        while not answer.startswith(b"HTTP/1.1 200 "):
            await trio.sleep(0.05)
            with contextlib.suppress(OSError, trio.BrokenResourceError):
                tcp = await trio.open_tcp_stream(host, port)
                stream: trio.abc.Stream = tcp
                if name == "https":
                    context = ssl.create_default_context(cafile=str(ca))
                    context.check_hostname = False
                    stream = trio.SSLStream(tcp, context)
                async with tcp:
                    await stream.send_all(request)
                    answer = bytes(await stream.receive_some())


async def test_the_rtmp_plugins_listener_fails(tmp_path: Path, faults: Faults) -> None:
    """The plug-in begins anew; who publishes goes on."""
    rtmp = {"rtmp": {"listen": free_address()}}
    async with healthy_network(tmp_path, ingest=rtmp) as setting:
        address = setting.pop_address("rtmp")
        faults.break_accepts()
        await call(address)
        await until(lambda: setting.failed("part failed, the others go on"))
        await until(lambda: setting.pop.plugins.parts["rtmp"].up, s_max=5)
        async with encoder(address, OTHER_KEY) as peer:
            await peer.accepted()
            await broadcast(peer, 0.5)


async def test_the_irs_listener_fails(tmp_path: Path, faults: Faults) -> None:
    async with healthy_network(tmp_path) as setting:
        faults.break_trio_accepts()
        address = setting.network.addresses["irs"]["irs"]
        await call(address)
        await call(address)  # The one that waited in `accept` had begun before.
        await setting.begun_anew("irs", "irs listener")
        await until(lambda: setting.irs.service.status().pops, s_max=5)
        await until(lambda: setting.pop.irs is not None and setting.pop.irs.sessions, s_max=5)


async def test_the_admin_socket_fails(tmp_path: Path, faults: Faults) -> None:
    socket = tmp_path / "admin.sock"
    async with healthy_network(tmp_path) as setting:
        faults.break_trio_accepts()
        for _ in range(2):
            async with await trio.open_unix_socket(socket):
                await trio.sleep(0.05)
        await setting.begun_anew("process", "admin")
        await until(socket.exists, s_max=5)
        assert b"alice" in await ask(socket, "streams", {})


@pytest.mark.parametrize("role", ["irs", "origin", "pop", "rtmp"])
async def test_certificates_fail_to_be_looked_at(
    role: str, tmp_path: Path, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between hosts, and a publisher's: those of playback are in `test_faults`."""
    monkeypatch.setattr(edged.runtime.tls, "RELOAD_INTERVAL_S", 0.05)
    supervisors: dict[str, Supervisor] = {}
    real = Supervisor.start_soon

    def start_soon(
        one: Supervisor, nursery: trio.Nursery, name: str, run: Callable[[], object]
    ) -> None:
        supervisors[one._role.partition(" ")[0]] = one
        real(one, nursery, name, run)  # type: ignore[arg-type]

    monkeypatch.setattr(Supervisor, "start_soon", start_soon)
    async with healthy_network(tmp_path, speak_tls(tmp_path)) as setting:
        kinds = {"irs": setting.irs._tls, "origin": setting.origin._tls, "pop": setting.pop._tls}
        if role == "rtmp":
            faults.throw(edged.runtime.tls.PublicTls, "reload_if_changed", times=LINES_MAX)
        else:
            faults.throw(kinds[role], "reload_if_changed", times=LINES_MAX)
        named = "ingest.rtmp" if role == "rtmp" else role
        await until(lambda: supervisors[named].restarts["certificates"] > 0)
        await until(lambda: setting.failed("service failed, begun anew"))


def speak_tls(folder: Path) -> Callable[[list[dict[str, Any]]], None]:
    """Give every role a certificate, and publishers RTMPS."""

    def prepare(raws: list[dict[str, Any]]) -> None:
        make_authority(folder, "net", now=time.time())
        names = {"irs": "irs", "origin": "fra1", "pop": "west"}
        for raw, (role, name) in zip(raws, names.items(), strict=True):
            files = make_host_certificate(folder, Identity(role, name), now=time.time())
            raw[role]["tls"] = msgspec.to_builtins(files)
        public = {"certificate": files.certificate, "key": files.key, "listen": "127.0.0.1:0"}
        raws[2]["ingest"]["rtmp"]["tls"] = public

    return prepare


# The status page's, each with what its handler calls.
ADMIN_PAGES: dict[str, tuple[object, str]] = {
    "/status.json": (Snapshots, "make"),  # The first: what it made once is kept for a while.
    "/": (edged.roles.admin_http, "_file"),
    "/web/": (edged.roles.admin_http, "_asset"),
    "/login": (AdminAccess, "login"),
    "/logout": (AdminAccess, "logout"),
    "/network": (edged.roles.admin_http, "_file"),
    "/network.jsonl": (NetworkHistory, "after"),
}


async def test_each_page_of_the_status_page_fails(
    tmp_path: Path, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    routers: list[Router] = []

    def make_router() -> Router:
        routers.append(Router())
        return routers[-1]

    monkeypatch.setattr(edged.roles.admin_http, "Router", make_router)
    async with healthy_network(tmp_path, listen_everywhere(tmp_path)) as setting:
        address = setting.network.addresses["admin"]["http"]
        head = f"Authorization: Bearer {TOKEN}\r\n"
        named = re.search(rb'"(/web/[^"]+\.js)"', (await ask_page(address, "/", ""))[1])
        assert named is not None
        asked = {path: named[1].decode() if path == "/web/" else path for path in ADMIN_PAGES}
        (router,) = routers
        assert router._exact.keys() == ADMIN_PAGES.keys(), "no page is left out"
        for count, (path, (owner, name)) in enumerate(ADMIN_PAGES.items(), 1):
            faults.throw(owner, name)
            assert await ask_page(address, asked[path], head) == (500, b"internal error\n")
            assert len(setting.failed("page failed")) == count
            assert [(await ask_page(address, each, head))[0] for each in asked.values()] == (
                [200] * len(ADMIN_PAGES)
            )
        faults.throw(edged.roles.admin_http.AdminPages, "answer_command")
        with pytest.raises(IndexError):  # It is closed on: there is no status line.
            await ask_page(address, COMMAND_PATH, head)
        assert setting.failed("session failed")
        assert (await ask_page(address, COMMAND_PATH, head))[0] == 405, "it takes commands again"


async def ask_page(address: str, path: str, fields: str) -> tuple[int, bytes]:
    """A request with fields of its own."""
    async with await trio.open_tcp_stream(*parse_address(address)) as stream:
        head = f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{fields}\r\n"
        await stream.send_all(head.encode())
        answer = b"".join([data async for data in stream])
    status, _, body = answer.partition(b"\r\n\r\n")
    return int(status.split()[1]), body


PAGES = {
    "/": "/",
    "/watch/": "/watch/alice",
    "/web/": "",  # As the watch page names one.
    "/time": "/time",
    "/streams.json": "/streams.json",
    "/streams/": "/streams/alice.json",
}


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_fails(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with healthy_network(tmp_path) as setting:
        router, http = setting.pop.http.router, setting.pop_address("http")
        named = re.search(rb'"(/web/[^"]+\.js)"', (await get(http, "/watch/alice"))[1])
        assert named is not None
        pages = {**PAGES, "/web/": named[1].decode()}
        real, bad = router.find, router.find(pages[path])
        assert bad is not None, "there is such a page"

        def find(where: str) -> Handler | None:
            return fail if real(where) is bad else real(where)

        monkeypatch.setattr(router, "find", find)
        assert await get(http, pages[path]) == (500, b"internal error\n")
        assert setting.failed("page failed")
        others = [asked for name, asked in pages.items() if name != path]
        assert [(await get(http, each))[0] for each in others] == [200] * len(others)


async def test_no_page_is_left_out(tmp_path: Path, faults: Faults) -> None:
    """Nor what answers beside them: "/live/" fails in `test_faults`, "/api/" below."""
    async with healthy_network(tmp_path) as setting:
        assert setting.pop.http.router._exact.keys() == PAGES.keys()
        services = [prefix for prefix, _ in setting.pop.http._services]
        assert services == ["/live/", "/t/", "/api/"]
        faults.throw(RightsGate, "respond")
        http, path = setting.pop_address("http"), "/t/x/live/alice/master.m3u8"
        with pytest.raises(IndexError):  # It is closed on: there is no status line.
            await get(http, path)
        assert setting.failed("session failed")
        assert (await get(http, path))[0] == 200


@pytest.mark.parametrize("path", ["/api/v1/", "/api/v1/openapi.json"])
async def test_a_page_of_the_api_fails(path: str, tmp_path: Path, faults: Faults) -> None:
    async with healthy_network(tmp_path) as setting:
        assert setting.pop.api is not None
        faults.throw(setting.pop.api._engine, "answer", times=1)
        http = setting.pop_address("http")
        with pytest.raises(IndexError):  # It is closed on: there is no status line.
            await get(http, path)
        assert setting.failed("answering failed")
        assert (await get(http, path))[0] == 200


async def test_what_an_origin_holds_is_looked_after_though_that_fails(
    tmp_path: Path, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edged.origin.service, "SWEEP_INTERVAL_S", 0.05)
    async with healthy_network(tmp_path) as setting:
        faults.throw(setting.origin.service, "sweep", times=LINES_MAX)
        await until(lambda: faults.thrown)
        await setting.begun_anew("origin", "windows")


async def test_the_ladders_fail(tmp_path: Path, faults: Faults) -> None:
    def with_ladders(raws: list[dict[str, Any]]) -> None:
        raws[1]["origin"]["ladder"] = {"slots": 50}

    async with healthy_network(tmp_path, with_ladders) as setting:
        ladders = setting.origin.service.ladders
        await until(lambda: ladders is not None and ladders._nursery is not None)
        fail_within(ladders, faults)
        await setting.begun_anew("origin", "ladders")
        await until(lambda: setting.origin.service.ladders._nursery is not None)  # type: ignore[union-attr]


async def test_what_plans_moves_fails(tmp_path: Path, faults: Faults) -> None:
    def soon(raws: list[dict[str, Any]]) -> None:
        raws[0]["irs"]["warmup_s"] = 0

    async with healthy_network(tmp_path, soon) as setting:
        faults.throw(setting.irs.service.migrating, "look")
        await setting.begun_anew("irs", "irs migrating")


async def test_the_re_homing_fails(tmp_path: Path, faults: Faults) -> None:
    async with healthy_network(tmp_path) as setting:
        faults.throw(setting.pop.rehomer, "turn")
        setting.pop.rehomer._woken.set()
        await setting.begun_anew("pop", "re-homing")


async def test_the_path_probes_fail(tmp_path: Path, faults: Faults) -> None:
    async with healthy_network(tmp_path) as setting:
        await until(lambda: is_probed(setting.pop))
        faults.throw(setting.pop.uplinks.paths, "tick", times=1)
        await setting.begun_anew("pop", "path probes")
        setting.pop.view._probes.clear()
        await until(lambda: is_probed(setting.pop))


async def test_the_answers_to_probes_fail(tmp_path: Path, faults: Faults) -> None:
    async with healthy_network(tmp_path) as setting:
        await until(lambda: is_probed(setting.pop))
        faults.throw(setting.origin.server.probes, "_answer", times=1)
        await setting.begun_anew("origin", "probe answers")
        answered = setting.origin.server.probes.statistics().answered
        await until(lambda: setting.origin.server.probes.statistics().answered > answered + 2)
        assert setting.origin.server.probes.statistics().keys == 1


def is_probed(pop: PopRole) -> bool:
    path = pop.view.path("fra1")
    return path is not None and path.probed


async def test_the_links_of_the_backbone_fail(tmp_path: Path, faults: Faults) -> None:
    async with healthy_network(tmp_path) as setting:
        faults.throw(setting.irs.service.links, "update", times=1)
        await setting.begun_anew("irs", "irs links")


async def test_who_is_live_where_fails(tmp_path: Path, faults: Faults) -> None:
    async with healthy_network(tmp_path) as setting:
        live = setting.irs.service.live
        await until(live.registry.counts)
        faults.throw(live.registry, "next_timeout", times=1)
        live._woken.set()
        await setting.begun_anew("irs", "irs live")
        assert not live.registry.unlisted()


async def test_what_plans_reach_fails(tmp_path: Path, faults: Faults) -> None:
    async with healthy_network(tmp_path, plan_reach) as setting:
        reach = setting.irs.service.reach
        await until(lambda: reach.answer().planned_s_ago is not None)
        faults.throw(reach, "_is_ready", times=1)
        await setting.begun_anew("irs", "irs reach")
        number = setting.pop.reaching.orders.stamp
        await until(lambda: setting.pop.reaching.orders.stamp > number)


def plan_reach(raws: list[dict[str, object]]) -> None:
    irs = raws[0]["irs"]
    assert isinstance(irs, dict)
    irs["reach"] = {"interval_s": 0.5, "ttl_s": 5.0}


async def test_what_carries_orders_of_reach_out_fails(tmp_path: Path, faults: Faults) -> None:
    async with healthy_network(tmp_path) as setting:
        reaching = setting.pop.reaching
        faults.throw(edged.roles.reaching, "contained", times=1)
        reaching._woken.set()
        await setting.begun_anew("pop", "reach")


@pytest.mark.pure
async def test_what_relays_fails(tmp_path: Path, faults: Faults) -> None:
    async with healthy_network(tmp_path, relay_to_others) as setting:
        relaying = setting.pop.relaying
        faults.throw(relaying, "tick", times=1)
        await setting.begun_anew("pop", "relays")
        setting.logs.clear()
        relaying.links.keep(["ams1/0"], {"ams1/0": relaying.address}, set(), 0.0)
        link = relaying.links._links["ams1/0"].link
        faults.throw(link, "_connect", times=1)
        await setting.begun_anew("pop", "relay link")


def relay_to_others(raws: list[dict[str, Any]]) -> None:
    raws[2]["pop"]["reach"] = {"listen": free_address()}


async def test_what_samples_the_network_fails(
    tmp_path: Path, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edged.irs.watch, "SAMPLE_INTERVAL_S", 0.05)
    async with healthy_network(tmp_path) as setting:
        watch = setting.irs.service.watch
        await until(lambda: watch.history.statistics().lines)
        faults.throw(edged.irs.watch, "contained", times=1)
        await setting.begun_anew("irs", "irs network")
        lines = watch.history.statistics().lines
        await until(lambda: watch.history.statistics().lines > lines)


class BrokenSource:
    """Another's code, which fails wherever it is asked."""

    def restrictions(self, now_unix: float) -> list[Restriction]:
        return fail()

    async def run(self) -> None:
        fail()


async def test_failure_sources_fail(tmp_path: Path, faults: Faults) -> None:
    async with healthy_network(tmp_path) as setting:
        sources = setting.irs.service.sources
        faults.throw(sources, "update", times=1)
        await setting.begun_anew("irs", "irs sources")
        faults.thrown += 2
        sources.use({"broken": BrokenSource()})
        await until(lambda: setting.irs.supervisor.restarts["irs source"] > 0)
        await until(lambda: setting.failed("failure source failed"))
        sources.use({})


async def test_the_journal_of_plans_fails(tmp_path: Path, faults: Faults) -> None:
    folder = tmp_path / "plans"

    def with_journal(raws: list[dict[str, Any]]) -> None:
        raws[0]["irs"]["journal"] = {"directory": str(folder)}

    async with healthy_network(tmp_path, with_journal) as setting:
        journal = setting.irs.journal
        assert journal is not None
        setting.irs.service.migrating.keepers.clear()  # A gap among plans of moves is none there.
        await until(lambda: journal.kept and not journal._queue and not journal._thread.busy)
        faults.throw(journal, "_write", times=1)
        await setting.begun_anew("irs", "irs journal")
        kept = journal.kept
        await until(lambda: journal.kept > kept)
    records = [
        record
        for path in journal_files(folder)
        for record in read_journal(path.read_bytes(), path.name)[1]
    ]
    replayed = [each for each in replay(records, FlowSolver()) if isinstance(each, Replayed)]
    numbers = [each.record.number for each in replayed]
    missed = [a for a, b in itertools.pairwise(numbers) if b != a + 1]
    assert len(missed) == 1, "what it had in hand as it failed"
    for each in replayed:
        if each.record.number <= missed[0]:
            assert (each.verdict, each.tables_verdict) == ("same", "same")
    assert "different" not in {each.verdict for each in replayed}


async def test_the_history_of_demand_fails(
    tmp_path: Path, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edged.policy.demand, "SLOT_S", 0.5)
    monkeypatch.setattr(edged.irs.history, "SAMPLE_S", 0.1)
    path = tmp_path / "demand.db"

    def with_history(raws: list[dict[str, Any]]) -> None:
        raws[0]["irs"]["history"] = {"file": str(path)}

    async with healthy_network(tmp_path, with_history) as setting:
        history = setting.irs.history
        assert history is not None
        await until(lambda: history.kept)
        for what in ("_write", "_queue"):
            faults.throw(history, what, times=1)
            await setting.begun_anew("irs", "irs demand")
            kept = history.kept
            await until(lambda kept=kept: history.kept > kept)  # type: ignore[misc]
        history.problem = "the disk is full"
        assert "demand is not kept for forecasts: the disk is full" in [
            fault.what for fault in setting.irs.faults()
        ]
    file = HistoryFile(path, read_only=True)
    rows = [row for chunk in file.records(0, 2**40) for row in chunk]
    heard = file.network(0, 2**40)
    file.close()
    assert {row[1] for row in rows} == {"west"}
    assert max(row[5] / row[2] for row in rows) == 1, "the one stream"
    assert heard is not None
    assert list(heard.network.origins) == ["fra1"]


async def test_the_asking_for_epochs_fails(tmp_path: Path, faults: Faults) -> None:
    async with healthy_network(tmp_path) as setting:
        seat = setting.irs.service.seat
        faults.throw(seat.claim, "next_timeout", times=1)
        seat._woken.set()
        await setting.begun_anew("irs", "irs seat")


async def test_the_keeping_of_state_fails(tmp_path: Path, faults: Faults) -> None:
    def prepare(raws: list[dict[str, Any]]) -> None:
        raws[0]["irs"]["state_file"] = str(tmp_path / "irs.sqlite")

    async with healthy_network(tmp_path, prepare) as setting:
        keeper = setting.irs.service.seat.keeper
        await until(lambda: keeper.saved > 0)
        faults.throw(keeper, "_save", times=1)
        keeper.keep()
        await setting.begun_anew("irs", "irs state")
        saved = keeper.saved
        keeper.keep()
        await until(lambda: keeper.saved > saved)


def supervised_names() -> set[str]:
    """Of every service that the code has a supervisor run."""
    names: set[str] = set()
    for path in Path(edged.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called, given = node.func, list(node.args)
            if isinstance(called, ast.Name) and called.id == "partial" and given:
                called = given.pop(0)
            of = ast.unparse(called)
            if re.search(r"supervisor\.(start_soon|start|keep|run)$", of):
                names |= {
                    word.value
                    for word in given[:2]
                    if isinstance(word, ast.Constant) and isinstance(word.value, str)
                }
    return names


def test_no_supervised_service_is_left_out() -> None:
    """Each stands in a test that makes it fail."""
    names = supervised_names()
    assert len(names) >= 25
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_faults*.py"))
    assert {name for name in names if f'"{name}"' not in tests} == set()
