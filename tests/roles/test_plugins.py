"""A PoP's plug-ins: begun anew with the file of now, and offered while they are up."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio
from msgspec import Struct, structs

from edged.errors import ConfigError
from edged.ingest import rtmp
from edged.ingest.plugin import Door, IngestPlugin
from edged.media.routing import PopState
from edged.roles import plugins as module
from edged.roles.pop import PopRole
from edged.runtime.listeners import parse_address
from tests.backbone.network import until
from tests.ingest.rtmp_peer import encoder
from tests.roles.network import KEY
from tests.roles.test_operations import OTHER_KEY, Host, hosting

Serve = Callable[[trio.TaskStatus[dict[str, str]]], Awaitable[None]]
STATIC = [{"channel": "alice", "key": KEY}, {"channel": "bob", "key": OTHER_KEY}]


class Faulty:
    """The RTMP plug-in, which fails when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, broken: bool = False) -> None:
        self.broken = broken  # It does not start.
        self.may_listen = trio.Event()
        self.may_listen.set()
        self.configs: list[Struct] = []  # Of each start.
        self._fail = trio.Event()
        faulty = structs.replace(rtmp.plugin, serve=self._serve)
        monkeypatch.setattr(module, "load_plugin", lambda name: self._named(name, faulty))

    def fail(self) -> None:
        """Fail now."""
        self._fail.set()

    @staticmethod
    def _named(name: str, plugin: IngestPlugin) -> IngestPlugin:
        assert name == "rtmp"
        return plugin

    async def _serve(
        self, config: Struct, door: Door, *, task_status: trio.TaskStatus[dict[str, str]]
    ) -> None:
        self.configs.append(config)
        if self.broken:
            raise ZeroDivisionError
        self._fail = trio.Event()
        async with trio.open_nursery() as nursery:
            addresses = await nursery.start(rtmp.plugin.serve, config, door)
            await self.may_listen.wait()
            task_status.started(addresses)
            await self._fail.wait()
            raise ZeroDivisionError


async def ask_where(pop_http: str) -> tuple[int, dict[str, object]]:
    """`POST /api/v1/streams/ingest` for alice."""
    body = json.dumps({"stream_key": KEY}).encode()
    head = "POST /api/v1/streams/ingest HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    answer = b""
    async with await trio.open_tcp_stream(*parse_address(pop_http)) as stream:
        await stream.send_all(head.encode() + body)
        async for piece in stream:
            answer += piece
    head_bytes, _, rest = answer.partition(b"\r\n\r\n")
    return int(head_bytes.split()[1]), json.loads(rest)


async def is_up(pop: PopRole, *, failures: int) -> None:
    part = pop.plugins.parts["rtmp"]
    await until(lambda: part.failures_total == failures and part.up, s_max=10)


async def test_what_failed_is_begun_with_what_the_file_says_by_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty = Faulty(monkeypatch)
    async with hosting(tmp_path) as host:
        host.set("stream_keys.static", STATIC)
        host.set("ingest.rtmp.publishers_max", 1)
        host.process.operations.reload()
        faulty.fail()
        await is_up(host.pop, failures=1)
        assert host.process.operations.reload().changed == []
        assert getattr(faulty.configs[-1], "publishers_max", None) == 1
        faulty.fail()
        await until(lambda: host.pop.plugins.parts["rtmp"].failures_total == 2)
        host.set("ingest.rtmp.publishers_max", 7)  # While it is down.
        host.process.operations.reload()
        await is_up(host.pop, failures=2)
        assert getattr(faulty.configs[-1], "publishers_max", None) == 7


@pytest.mark.parametrize("knows_of_reloads", [True, False])
async def test_a_file_read_anew_while_it_begins_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, knows_of_reloads: bool
) -> None:
    """It has its table, and is in none of the lists yet that a reload goes through."""
    faulty = Faulty(monkeypatch)
    async with hosting(tmp_path) as host:
        pop, door = host.pop, host.pop.door
        host.set("stream_keys.static", STATIC)
        faulty.may_listen = trio.Event()
        faulty.fail()
        await until(lambda: "rtmp" in door.prepares and len(faulty.configs) == 2, s_max=10)
        prepare = door.prepares.pop("rtmp")
        host.set("ingest.rtmp.publishers_max", 1)
        host.process.operations.reload()
        if knows_of_reloads:
            door.on_reload("rtmp", prepare)
        faulty.may_listen.set()
        await is_up(pop, failures=1)
        rtmp_now = next(urlsplit(u).netloc for u in pop.offers.own().urls if u[:5] == "rtmp:")
        async with encoder(rtmp_now, KEY) as one:
            await one.accepted()
            assert pop.offers.own().state is PopState.FULL
            if knows_of_reloads:
                async with encoder(rtmp_now, OTHER_KEY) as two:
                    assert "publishers" in (await two.refused()).description


async def test_a_file_that_it_cannot_take_while_it_begins_ends_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even at its first start, where a mistake in the file would be told and end the process."""
    faulty = Faulty(monkeypatch)
    async with hosting(tmp_path) as host:
        plugins, door = host.pop.plugins, host.pop.door
        faulty.may_listen = trio.Event()
        faulty.fail()
        await until(lambda: "rtmp" in door.prepares and len(faulty.configs) == 2, s_max=10)

        def refuse(config: Struct) -> Callable[[], None]:
            raise ConfigError(f"its certificate cannot be read, {config!r}")

        door.prepares["rtmp"] = refuse
        plugins._tables = {"rtmp": {**plugins._tables["rtmp"], "publishers_max": 3}}
        faulty.may_listen.set()
        part = plugins.parts["rtmp"]
        await until(lambda: "certificate" in part.failure, s_max=10)
        assert "ConfigError" not in part.failure
        await until(lambda: part.up, s_max=10)
        assert getattr(faulty.configs[-1], "publishers_max", None) == 3


async def test_it_is_offered_while_it_is_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty = Faulty(monkeypatch, broken=True)
    async with hosting(tmp_path) as host:
        http = host.addresses["pop a"]["http"]
        offers = host.pop.offers
        await until(lambda: host.pop.view.reached)
        assert offers.own().state is not PopState.UP
        status, problem = await ask_where(http)
        assert status == 503, problem
        assert "nothing listens" in str(problem)
        faulty.broken = False
        await until(lambda: offers.own().state is PopState.UP, s_max=10)
        status, answer = await ask_where(http)
        assert status == 200, answer
        assert str(answer["url"]).startswith("rtmp://127.0.0.1:")
        urls, codecs = offers.own().urls, offers.codecs
        faulty.fail()
        part = host.pop.plugins.parts["rtmp"]
        await until(lambda: not part.up)
        assert (offers.own().urls, offers.codecs) == ((), {})
        await until(lambda: part.up, s_max=10)
        assert len(offers.own().urls) == len(urls), "each is offered once"
        assert offers.codecs == codecs


async def test_what_is_offered_follows_the_file(tmp_path: Path) -> None:
    async with hosting(tmp_path) as host:
        host.set("stream_keys.static", STATIC)
        host.set("stream_keys.apps", ["studio", "live"])
        host.set("ingest.rtmp.publishers_max", 2)
        host.process.operations.reload()
        offers = host.pop.offers
        await until(lambda: offers.own().state is PopState.UP)
        assert [url.rpartition("/")[2] for url in offers.own().urls] == ["studio"] * 2
        async with encoder(host.rtmp(), KEY, "studio") as one:
            await one.accepted()
            assert (offers.own().state, offers.own().load) == (PopState.UP, 0.5)
            async with encoder(host.rtmp(), OTHER_KEY, "studio") as two:
                await two.accepted()
                assert offers.own().state is PopState.FULL


async def test_a_drained_pop_offers_nothing_until_that_is_undone(tmp_path: Path) -> None:
    async with hosting(tmp_path) as host:
        http = host.addresses["pop a"]["http"]
        await until(lambda: host.pop.offers.own().state is PopState.UP)
        assert (await ask_where(http))[0] == 200
        host.pop.drain_begin(None)
        assert host.pop.offers.own().state is PopState.DRAIN
        status, problem = await ask_where(http)
        assert (status, "drain" in str(problem)) == (503, True), problem
        assert b'"draining"' in await health_of(host)
        host.pop.drain_undo()
        assert (await ask_where(http))[0] == 200
        assert b'"draining"' not in await health_of(host)


async def health_of(host: Host) -> bytes:
    """The answer of `GET /api/v1/health`."""
    async with await trio.open_tcp_stream(*parse_address(host.addresses["pop a"]["http"])) as end:
        await end.send_all(b"GET /api/v1/health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = b""
        async for piece in end:
            answer += piece
    return answer
