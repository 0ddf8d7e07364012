"""The API on the public port: one connection for all, limits, and nobody who disturbs others."""

import contextlib
import ssl
import time
from pathlib import Path

import pytest
import trio

from edged.api import service as module
from edged.api.config import ApiConfig
from edged.api.operations import ApiAnswer, ApiRequest
from edged.playback.http import HttpConnection
from edged.runtime.listeners import SHED_LAG_S
from edged.runtime.tls import Identity, make_server_context
from edged.tools.cert import make_authority, make_host_certificate
from edged.wire.h1_events import H1Limits
from edged.wire.prepared import prepare
from tests.api.client import KEY, LiveService, World, connected, serving
from tests.api.test_app import ALICE, INGEST, operation, with_alice

pytestmark = pytest.mark.e2e

HEALTH = "/api/v1/health"
PLAYLIST = f"{ALICE}/playlist.m3u8"


async def test_playlists_and_calls_share_one_connection() -> None:
    async with serving(prepare_world=with_alice) as world, world.connect() as client:
        for _ in range(3):
            assert (await client.ask("/live/alice/part.m4s")).body == b"/live/alice/part.m4s"
            assert (await client.ask(ALICE)).json["title"] == "Alice"
            assert (await client.ask(INGEST, "POST", {"stream_key": KEY})).status == 200
            answer = await client.ask(HEALTH, "HEAD")
            assert (answer.status, answer.fields["content-length"]) == (200, "28")
        assert world.server.statistics().connections_total == 1


async def test_pipelined_requests_are_answered_in_their_order() -> None:
    async with serving(prepare_world=with_alice) as world, world.connect() as client:
        await client.send("/live/one")
        await client.send(ALICE)
        await client.send("/live/two")
        await client.send(HEALTH)
        await client.send("/api/v1/nothing")
        await client.send("/live/three")
        answers = [await client.read() for _ in range(6)]
        assert [answer.body[:9] for answer in answers] == [
            b"/live/one",
            b'{"channel',
            b"/live/two",
            b'{"status"',
            b'{"type":"',
            b"/live/thr",
        ]


async def test_who_asks_for_one_answer_gets_it_and_the_end() -> None:
    async with serving() as world, world.connect() as client:
        answer = await client.ask(HEALTH, fields={"Connection": "close"})
        assert (answer.status, answer.fields["connection"]) == (200, "close")
        assert await client.closed()


async def test_the_same_under_tls(tmp_path: Path) -> None:
    make_authority(tmp_path, "test", now=time.time())
    files = make_host_certificate(
        tmp_path, Identity("pop", "p1"), now=time.time(), hosts=["edge.example"]
    )
    context = ssl.create_default_context(cafile=files.ca)
    tls = make_server_context(files.certificate, files.key)
    async with (
        serving(tls=tls, prepare_world=with_alice) as world,
        connected(world.tls_address, context) as client,
    ):
        for _ in range(3):
            assert (await client.ask(ALICE)).json["channel"] == "alice"
            assert (await client.ask("/live/x")).status == 200
            fields = {"Authorization": f"Bearer {KEY}"}
            assert (await client.ask(ALICE, "PATCH", {"title": "x"}, fields)).status == 200
        assert world.server.statistics().connections_total == 1


async def test_a_playlist_that_is_there_and_one_that_is_waited_for() -> None:
    async with serving() as world, world.connect() as client:
        await client.send(PLAYLIST)
        await until_waiting(world)
        text = prepare(200, [b"#EXTM3U"], content_type="text/plain", cache_control="max-age=2")
        world.playlists["alice"] = text
        waiting, world.waiting = world.waiting, {}
        for exchange in waiting:
            assert isinstance(exchange, HttpConnection)
            exchange.retry(world.pump.now())
        answer = await client.read()
        assert (answer.body, answer.fields["cache-control"]) == (b"#EXTM3U", "max-age=2")
        assert (await client.ask(PLAYLIST)).body == b"#EXTM3U"
        answer = await client.ask("/api/v1/streams/nobody/playlist.m3u8")
        assert (answer.status, answer.code) == (404, "not_live")
        assert (await client.ask(PLAYLIST, "HEAD")).status == 200
        answer = await client.ask("/api/v1/streams")  # Five requests, the one that waited once.
        assert answer.fields["ratelimit"].startswith('"client";r=995;')


async def until_waiting(world: World) -> None:
    with trio.fail_after(5):
        while not world.waiting:  # noqa: ASYNC110 - what is waited for has no event
            await trio.sleep(0.002)


# Limits.


async def test_the_rate_at_the_limit_and_one_past_it() -> None:
    async with serving(ApiConfig(rate_per_minute=3)) as world, world.connect() as client:
        for left in (2, 1, 0):
            answer = await client.ask("/api/v1/streams")
            assert answer.status == 200
            assert answer.fields["ratelimit"].startswith(f'"client";r={left};t=')
        for path in ("/api/v1/streams", "/api/v1/nothing", PLAYLIST):
            answer = await client.ask(path)
            assert (answer.status, answer.code) == (429, "rate_limited")
            assert 0 < int(answer.fields["retry-after"]) <= 65
            assert answer.fields["ratelimit"].startswith('"client";r=0;t=')
            assert answer.fields["access-control-allow-origin"] == "*"
        assert (await client.ask(HEALTH)).status == 200  # A load balancer is let through,
        assert (await client.ask("/live/x")).status == 200  # and so are viewers.
        async with world.connect() as other:  # Another connection is no other client.
            assert (await other.ask("/api/v1/streams")).status == 429


async def test_a_thousand_requests_a_minute_by_default() -> None:
    """As many as come in a second; then none for the rest of the minute."""
    async with serving(ApiConfig()) as world, world.connect() as client:
        statuses = [(await client.ask("/api/v1/streams")).status for _ in range(1_010)]
    assert statuses == [200] * 1_000 + [429] * 10


async def test_the_same_request_again_counts_again() -> None:
    """By its bytes it is not parsed anew, so it is the very same object."""
    async with serving(ApiConfig(rate_per_minute=3)) as world, world.connect() as client:
        told = [await client.ask("/api/v1/streams") for _ in range(6)]
        assert [answer.status for answer in told] == [200] * 3 + [429] * 3


async def test_behind_a_proxy_of_ours_clients_are_told_apart() -> None:
    config = ApiConfig(rate_per_minute=1, trusted_proxies=("127.0.0.0/8",))
    async with serving(config) as world, world.connect() as client:
        for address, status in (("192.0.2.1", 200), ("192.0.2.1", 429), ("192.0.2.2", 200)):
            fields = {"X-Forwarded-For": address}
            assert (await client.ask("/api/v1/streams", fields=fields)).status == status
        fields = {"X-Forwarded-For": "192.0.2.3"}
        await client.ask(INGEST, "POST", {"stream_key": "wrong-key"}, fields)
        assert world.side.clients == ["192.0.2.3"]
    async with serving(ApiConfig(rate_per_minute=1)) as world, world.connect() as client:
        for status in (200, 429):  # Who is no proxy of ours may claim what it likes.
            fields = {"X-Forwarded-For": f"192.0.2.{status % 7}"}
            assert (await client.ask("/api/v1/streams", fields=fields)).status == status


async def test_no_more_in_work_than_allowed_and_a_place_that_comes_free() -> None:
    async with (
        serving(ApiConfig(requests_max=1), prepare_world=with_alice) as world,
        world.connect() as first,
        world.connect() as second,
    ):
        world.side.gate = trio.Event()
        fields = {"Authorization": f"Bearer {KEY}"}
        await first.send(ALICE, "PATCH", {"title": "now"}, fields)
        with trio.fail_after(5):
            while not world.service.counters.in_work:  # noqa: ASYNC110
                await trio.sleep(0.002)
        answer = await second.ask(ALICE)
        assert (answer.status, answer.code, answer.fields["retry-after"]) == (503, "busy", "1")
        assert (await second.ask("/live/x")).status == 200
        world.side.gate.set()
        assert (await first.read()).json["title"] == "now"
        assert (await second.ask(ALICE)).status == 200
        assert world.service.counters.in_work == 0


async def test_who_waits_for_another_pop_holds_no_place() -> None:
    """More of them than are answered at a time: health goes ahead."""
    fields = {"Authorization": f"Bearer {KEY}"}
    async with serving(prepare_world=with_alice) as world, contextlib.AsyncExitStack() as stack:
        world.side.gate = trio.Event()
        waiting = [
            await stack.enter_async_context(world.connect()) for _ in range(module.RUNNING_MAX + 1)
        ]
        for client in waiting:
            await client.send(ALICE, "PATCH", {"title": "now"}, fields)
        with trio.fail_after(5):
            while world.service.counters.in_work < len(waiting):  # noqa: ASYNC110
                await trio.sleep(0.002)
        async with world.connect() as other:
            with trio.fail_after(5):
                assert (await other.ask(HEALTH)).status == 200
        world.side.gate.set()
        for client in waiting:
            assert (await client.read()).status == 200


async def test_an_operation_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        serving(ApiConfig(request_timeout_s=0.1), prepare_world=with_alice) as world,
        world.connect() as client,
    ):
        world.side.gate = trio.Event()
        fields = {"Authorization": f"Bearer {KEY}"}
        answer = await client.ask(ALICE, "PATCH", {"title": "now"}, fields)
        assert (answer.status, answer.code) == (504, "timeout")
        assert (await client.ask(ALICE)).json["title"] == "Alice"
        assert world.service.counters.requests["PATCH", "/api/v1/streams/{channel}", 504] == 1


async def test_while_the_loop_lags_only_the_load_balancer_is_answered() -> None:
    async with serving(prepare_world=with_alice) as world, world.connect() as client:
        world.lag_s = SHED_LAG_S + 0.01
        assert (await client.ask(ALICE)).code == "busy"
        assert (await client.ask(HEALTH)).status == 200
        world.lag_s = SHED_LAG_S
        assert (await client.ask(ALICE)).status == 200


async def test_a_client_that_leaves_is_answered_nothing_and_holds_no_place() -> None:
    async with serving(prepare_world=with_alice) as world:
        world.side.gate = trio.Event()
        fields = {"Authorization": f"Bearer {KEY}"}
        async with world.connect() as client:
            await client.send(ALICE, "PATCH", {"title": "now"}, fields)
            with trio.fail_after(5):
                while not world.service.counters.in_work:  # noqa: ASYNC110
                    await trio.sleep(0.002)
        with trio.fail_after(5):
            while world.server.connections:  # noqa: ASYNC110
                await trio.sleep(0.002)
        world.side.gate.set()
        with trio.fail_after(5):
            while world.service.counters.in_work:  # noqa: ASYNC110
                await trio.sleep(0.002)
        assert world.service.counters.requests == {}


async def test_who_sends_slowly_or_not_to_the_end_holds_nothing_up() -> None:
    """Slowloris: a request is the pump's until it is whole; no task waits for it."""
    limits = H1Limits(request_s_max=0.3)
    async with serving(limits=limits, prepare_world=with_alice) as world, world.connect() as good:
        slow = []
        for index in range(50):
            stream = await trio.open_tcp_stream("127.0.0.1", int(world.address.rpartition(":")[2]))
            head = b"POST " + INGEST.encode() + b" HTTP/1.1\r\nHost: x\r\n"
            body = b"Content-Type: application/json\r\nContent-Length: 30\r\n\r\n{"
            await stream.send_all(head + body if index % 2 else head)
            slow.append(stream)
        for _ in range(10):
            started = time.perf_counter()
            assert (await good.ask(ALICE)).status == 200
            assert time.perf_counter() - started < 0.25
        assert world.service.counters.in_work == 0
        with trio.fail_after(5):
            for stream in slow:
                assert await stream.receive_some(1000) == b""  # Closed, after its time.
                await stream.aclose()
        assert (await good.ask(ALICE)).status == 200


async def test_who_reads_nothing_is_held_by_the_pump_alone() -> None:
    async with serving() as world, world.connect() as deaf, world.connect() as good:
        for number in range(3000):
            world.side.add(f"c{number}")
        for _ in range(64):
            await deaf.send("/api/v1/streams?limit=500")
        started = time.perf_counter()
        busy = True  # As long as there is room, the next is answered.
        while time.perf_counter() - started < (10 if busy else 0.5):
            assert (await good.ask(HEALTH)).status == 200
            busy = world.service.counters.in_work > 0
        assert not busy
        # As for any viewer: one answer beyond what is low, the rest is not even asked for.
        listed = world.service.counters.requests.get(("GET", "/api/v1/streams", 200), 0)
        assert 0 < listed < 64


async def waits(_request: ApiRequest) -> ApiAnswer:
    await trio.sleep(0.5)
    return ApiAnswer(body=b"late")


async def test_operations_that_wait_do_not_hold_up_those_that_do_not() -> None:
    added = [operation("waits", handle=waits, quick=False, timeout_s=5.0)]
    async with serving(added=added) as world, trio.open_nursery() as nursery:

        async def ask() -> None:
            async with world.connect() as client:
                assert (await client.ask("/api/v1/waits")).body == b"late"

        for _ in range(4 * module.RUNNING_MAX):
            nursery.start_soon(ask)
        async with world.connect() as client:
            await trio.sleep(0.1)
            started = time.perf_counter()
            assert (await client.ask(HEALTH)).status == 200
            assert time.perf_counter() - started < 0.3


# Methods and paths.


async def test_methods() -> None:
    async with serving(prepare_world=with_alice) as world, world.connect() as client:
        answer = await client.ask(ALICE, "DELETE")
        assert (answer.status, answer.code) == (405, "method_not_allowed")
        assert answer.fields["allow"] == "GET, PATCH, HEAD, OPTIONS"
        answer = await client.ask("/api/v2/")
        assert (answer.status, answer.code) == (404, "not_found")
        answer = await client.ask(ALICE, "OPTIONS", fields={"Origin": "https://example.org"})
        assert (answer.status, answer.body) == (200, b"")
        assert answer.fields["access-control-allow-origin"] == "*"
        assert "PATCH" in answer.fields["access-control-allow-methods"]
        assert "Authorization" in answer.fields["access-control-allow-headers"]
        assert (await client.ask("/live/x", "POST", {})).status == 405


async def test_upgrades_are_not_taken() -> None:
    fields = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMA"}
    async with serving() as world, world.connect() as client:
        assert (await client.ask(HEALTH, fields=fields)).json == {"status": "ok", "reasons": []}
        fields = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "x"}
        assert (await client.ask(HEALTH, fields=fields)).json == {"status": "ok", "reasons": []}


async def test_before_it_runs_it_is_busy() -> None:
    world = World()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.pump.run)
        world.address = await nursery.start(world.server.serve, world.pump, "127.0.0.1:0")
        async with world.connect() as client:
            assert (await client.ask(HEALTH)).code == "busy"
        nursery.cancel_scope.cancel()


async def test_what_is_counted() -> None:
    async with serving(prepare_world=with_alice) as world, world.connect() as client:
        await client.ask(ALICE)
        await client.ask(ALICE, "HEAD")
        await client.ask("/api/v1/nothing")
        await client.ask("/api/v1/streams/bob")
        world.playlists["alice"] = LiveService.text("#EXTM3U")
        await client.ask(PLAYLIST)
        counters = world.service.counters
        assert counters.requests == {
            ("GET", "/api/v1/streams/{channel}", 200): 2,
            ("any", "other", 404): 1,
            ("GET", "/api/v1/streams/{channel}", 404): 1,
            ("GET", "/api/v1/streams/{channel}/playlist.m3u8", 200): 1,
        }
        assert counters.seconds["/api/v1/streams/{channel}"] > 0
