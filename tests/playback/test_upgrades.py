"""Connections that leave playback for another protocol: in their turn, with all their bytes."""

import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from msgspec import Struct
from trio_websocket import open_websocket_url
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Ping, Request, TextMessage

from edged.playback.http import HttpServer, Response, Router
from edged.playback.router import error_response
from edged.playback.waiting import Exchange, Waiters
from edged.runtime.connection import Connection
from edged.runtime.pump import Pump
from edged.runtime.pumped import PumpHandler
from edged.runtime.tls import Identity, PublicTls
from edged.tools.cert import make_authority, make_host_certificate
from edged.wire.prepared import PreparedResponse, prepare
from edged.wire.request import RequestReceived
from tests.playback.fakes import World, world

REFUSED = error_response(403, "no chat for you")
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


class Shouting:
    """No WebSocket at all: gives all bytes back in capitals, and notes what it hears."""

    def __init__(self, connection: Connection, rest: bytes) -> None:
        self.connection = connection
        self.heard: list[str] = []
        connection.write(SWITCH)
        connection.write(rest.upper())

    def data_received(self, data: memoryview, now: float) -> None:
        self.connection.write(bytes(data).upper())

    def connection_lost(self, reason: str) -> None:
        self.heard.append(reason)

    def handle_timeout(self, now: float) -> None:
        self.heard.append(f"timer at {now:g}")

    def drained(self) -> None:
        self.heard.append("drained")


class Taker:
    def __init__(self) -> None:
        self.taken: list[Shouting] = []
        self.refuses = self.fails = False
        self.timeout_at: float | None = None

    def take(
        self, request: RequestReceived, connection: Connection, rest: bytes, now: float
    ) -> PumpHandler | PreparedResponse:
        if self.fails:
            raise ValueError("a bug")
        if self.refuses:
            return REFUSED
        self.taken.append(Shouting(connection, rest))
        if self.timeout_at is not None:
            connection.set_timeout(self.timeout_at)
        return self.taken[-1]


class Slow:
    """Answers when told."""

    def __init__(self) -> None:
        self.waiting: Waiters = {}

    def respond(self, request: RequestReceived, exchange: Exchange, now: float) -> None:
        exchange.wait(self.waiting, now + 5, REFUSED)


class Setting(Struct):
    world: World
    taker: Taker
    slow: Slow


@pytest.fixture
def setting() -> Iterator[Setting]:
    with world() as made:
        taker, slow = Taker(), Slow()
        made.server.upgrades.mount("/chat/ws", taker)
        made.server.mount("/slow/", slow)
        made.server.router.get("/chat/ws", lambda _: Response(body=b"no upgrade"))
        made.server.router.get("/page", lambda _: Response(body=b"page"))
        yield Setting(made, taker, slow)


def upgrade(path: str = "/chat/ws", protocol: str = "websocket", method: str = "GET") -> bytes:
    return (
        f"{method} {path} HTTP/1.1\r\nHost: e\r\n"
        f"Connection: keep-alive, Upgrade\r\nUpgrade: {protocol}\r\n\r\n"
    ).encode()


GET = b"GET /page HTTP/1.1\r\nHost: e\r\n\r\n"


def test_the_bytes_behind_the_request_go_along(setting: Setting) -> None:
    client = setting.world.client()
    client.send(upgrade() + b"first ")
    assert client.read() == SWITCH + b"FIRST "
    client.send(b"and more")
    assert client.read() == SWITCH + b"FIRST AND MORE"
    told = setting.world.server.statistics()
    assert (told.connections, told.upgraded_total, told.responses_total) == (0, 1, {})
    client.close()
    setting.world.pump.turn()
    assert setting.taker.taken[0].heard == ["closed by peer"]
    assert setting.world.server.statistics().connections == 0


def test_in_its_turn_behind_what_was_asked_before(setting: Setting) -> None:
    client = setting.world.client()
    client.send(GET + GET.replace(b"/page", b"/slow/x") + upgrade() + b"bytes")
    assert client.read().endswith(b"page")
    assert setting.taker.taken == []
    client.send(b" that wait")
    (exchange,) = setting.slow.waiting
    setting.slow.waiting.clear()
    done = prepare(200, [b"done"], content_type="text/plain", cache_control="no-store")
    exchange.answer(done, setting.world.pump.now())
    setting.world.pump.turn()
    assert client.read().endswith(b"done" + SWITCH + b"BYTES THAT WAIT")


def test_after_others_on_a_connection_that_is_kept(setting: Setting) -> None:
    client = setting.world.client()
    for _ in range(3):
        assert client.get("/page").body == b"page"
    client.send(upgrade())
    assert client.read() == SWITCH
    client.send(GET)
    assert client.read() == SWITCH + GET.upper()


@pytest.mark.parametrize(
    "sent",
    [
        upgrade("/page"),
        upgrade("/chat/ws/more"),
        upgrade(protocol="h2c"),
        upgrade(protocol=""),
        upgrade().replace(b"keep-alive, Upgrade", b"keep-alive"),
    ],
)
def test_what_is_not_mounted_is_answered_as_if_not_asked(setting: Setting, sent: bytes) -> None:
    client = setting.world.client()
    client.send(sent + GET)
    assert [answer.status for answer in client.answers()][1:] == [200]
    assert setting.taker.taken == []


def test_other_methods_and_a_list_of_protocols(setting: Setting) -> None:
    client = setting.world.client()
    client.send(upgrade(method="POST"))
    assert client.answers()[0].status == 405
    client.send(upgrade(protocol="h2c, WebSocket"))
    assert client.read() == SWITCH


def test_a_refusal_is_the_last_answer(setting: Setting) -> None:
    setting.taker.refuses = True
    client = setting.world.client()
    client.send(upgrade() + GET)
    (answer,) = client.answers()
    assert (answer.status, answer.fields["connection"]) == (403, "close")
    client.send(GET)
    assert client.answers() == []
    setting.world.pump.advance(2)
    assert client.lost == "an upgrade was refused"
    assert setting.world.server.statistics().responses_total == {403: 1}


def test_while_draining_nobody_is_taken(setting: Setting) -> None:
    setting.world.server.drain(True)
    client = setting.world.client()
    client.send(upgrade())
    (answer,) = client.answers()
    assert (answer.status, answer.fields["retry-after"]) == (503, "1")
    assert setting.taker.taken == []


def test_a_bug_of_the_taker_s_ends_that_connection_alone(setting: Setting) -> None:
    client, other = setting.world.client(), setting.world.client()
    setting.taker.fails = True
    with pytest.raises(ValueError, match="a bug"):  # A real pump fails the connection.
        client.send(upgrade())
    assert other.get("/page").status == 200


def test_the_timer_and_the_end_are_the_taker_s(setting: Setting) -> None:
    setting.taker.timeout_at = setting.world.pump.now() + 200
    client = setting.world.client()
    client.send(upgrade())
    setting.world.pump.advance(199)  # No idle timeout of playback's.
    assert (client.lost, setting.taker.taken[0].heard) == (None, [])
    setting.world.pump.advance(2)
    assert setting.taker.taken[0].heard == ["timer at 1200"]


def test_mounted_once(setting: Setting) -> None:
    with pytest.raises(AssertionError, match="mounted twice"):
        setting.world.server.upgrades.mount("/chat/ws", setting.taker)
    setting.world.server.upgrades.mount("/chat/ws", setting.taker, protocol="other")


# Real WebSockets, over the real pump.


class WebSocketEcho:
    """Echoes text messages; wsproto speaks for it."""

    def __init__(self, request: RequestReceived, connection: Connection, rest: bytes) -> None:
        self.connection = connection
        self.wire = WSConnection(ConnectionType.SERVER)
        target = request.path.encode()
        self.wire.initiate_upgrade_connection(list(request.fields), target)
        self._take(rest)

    def data_received(self, data: memoryview, now: float) -> None:
        self._take(bytes(data))

    def _take(self, data: bytes) -> None:
        if data:
            self.wire.receive_data(data)
        for event in self.wire.events():
            if isinstance(event, Request):
                self.connection.write(self.wire.send(AcceptConnection()))
            elif isinstance(event, TextMessage):
                piece = TextMessage(data=event.data, message_finished=event.message_finished)
                self.connection.write(self.wire.send(piece))
            elif isinstance(event, Ping | CloseConnection):
                self.connection.write(self.wire.send(event.response()))
                if isinstance(event, CloseConnection):
                    self.connection.close("closed by the client")

    def connection_lost(self, reason: str) -> None: ...

    def handle_timeout(self, now: float) -> None: ...

    def drained(self) -> None: ...


class EchoTaker:
    def take(
        self, request: RequestReceived, connection: Connection, rest: bytes, now: float
    ) -> PumpHandler:
        return WebSocketEcho(request, connection, rest)


@pytest.mark.e2e
async def test_websockets_beside_playback_on_one_port(tmp_path: Path) -> None:
    """Plain and under TLS, where HTTP/2 is offered too."""
    make_authority(tmp_path, "test", now=time.time())
    identity = Identity("pop", "a")
    made = make_host_certificate(tmp_path, identity, now=time.time(), hosts=["127.0.0.1"])
    public = PublicTls(str(made.certificate), str(made.key), ("h2", "http/1.1"))
    server, pump = HttpServer(Router()), Pump()
    server.upgrades.mount("/chat/ws", EchoTaker())
    client_tls = ssl.create_default_context()
    client_tls.check_hostname, client_tls.verify_mode = False, ssl.CERT_NONE
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.run)
            plain = await nursery.start(server.serve, pump, "127.0.0.1:0")

            async def https(*, task_status: trio.TaskStatus[str]) -> None:
                await server.serve(pump, "127.0.0.1:0", tls=public.context, task_status=task_status)

            secure = await nursery.start(https)
            for url in (f"ws://{plain}/chat/ws", f"wss://{secure}/chat/ws"):
                context = client_tls if url.startswith("wss") else None
                async with open_websocket_url(url, ssl_context=context) as websocket:
                    for size in (1, 1000, 100_000):
                        await websocket.send_message("x" * size)
                        assert await websocket.get_message() == "x" * size
                    await websocket.ping()
            assert server.statistics().upgraded_total == 2
            nursery.cancel_scope.cancel()
