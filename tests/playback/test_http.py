"""Connections: order, deferral, who is too slow, and pages.

Over socket pairs, on virtual time; the tests of HTTPS run over the real pump on loopback.
"""

import contextlib
import gc
import math
import os
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from msgspec import Struct
from structlog.testing import capture_logs

from edged.playback.exchange import (
    PROGRESS_BYTES_MIN,
    PROGRESS_S_MAX,
    REFUSED_LINGER_S,
    RESPONSE_BYTES_PER_S_MIN,
    RESPONSE_S_SLACK,
    HttpConnection,
)
from edged.playback.http import (
    OUT_BYTES_MAX,
    RESPONSE_BYTES_MAX,
    HttpError,
    HttpServer,
    Response,
    Router,
    error_response,
)
from edged.playback.waiting import Exchange
from edged.runtime.connection import HEAR_OUT_S, OUT_LOW_BYTES
from edged.runtime.kernel_bytes import KERNEL_BYTES_AFTER, KERNEL_BYTES_MAX, KernelBytes
from edged.runtime.pump import Pump, PumpClass
from edged.runtime.tls import Identity, PublicTls, TlsFiles, make_server_context
from edged.tools.cert import make_authority, make_host_certificate
from edged.wire.h1_events import H1Limits
from edged.wire.prepared import PreparedResponse, prepare
from edged.wire.request import RequestReceived
from tests.playback.fakes import Client, World, world

SEGMENT = bytes(range(250)) * 1_200  # 300 KB: five writes of TLS, and more than a first window.
PART = bytes(range(200)) * 300  # 60 KB: the kernel holds it for many, and a socket pair takes it.
BIG = bytes(range(256)) * 16_384  # 4 MiB: beyond what a socket pair holds.


class Service:
    """Answers at once, later, or hugely."""

    def __init__(self) -> None:
        self.group: dict[Exchange, None] = {}
        self.until = math.inf
        self.asked: list[str] = []
        self.segment = prepare(
            200,
            [SEGMENT[:1000], SEGMENT[1000:]],
            content_type="video/mp4",
            cache_control="no-store",
        )
        self.lasting = {
            f"/live/{name}": prepare(
                200, [body], content_type="video/mp4", cache_control="max-age=24", lasting=True
            )
            for name, body in (("part", PART), ("init", b"init"))
        }
        self.big = prepare(200, [BIG], content_type="video/mp4", cache_control="no-store")

    def respond(
        self, request: RequestReceived, exchange: Exchange, now: float
    ) -> PreparedResponse | None:
        self.asked.append(request.path)
        if request.path == "/live/big":
            return self.big
        if request.path == "/live/segment":
            return self.segment
        if request.path == "/live/later":
            exchange.wait(self.group, self.until, error_response(503, "too long"))
            return None
        if request.path in self.lasting:
            return self.lasting[request.path]
        return self.text(request.path)

    def release(self, text: str, now: float) -> None:
        group, self.group = self.group, {}
        for exchange in group:
            exchange.answer(self.text(text), now)

    @staticmethod
    def text(text: str) -> PreparedResponse:
        return prepare(200, [text.encode()], content_type="text/plain", cache_control="no-store")


def hello(request: RequestReceived) -> Response:
    return Response(body=b"hello " + request.path.encode(), cache_control="max-age=3")


def test_a_page(edge: World) -> None:
    edge.server.router.get("/hello", hello)
    answer = edge.client().get("/hello?x")
    assert (answer.status, answer.body) == (200, b"hello /hello")
    assert answer.fields["cache-control"] == "max-age=3"
    assert answer.fields["content-type"] == "text/plain; charset=utf-8"
    assert answer.fields["date"] == "tue, 14 nov 2023 22:13:20 gmt"
    assert answer.fields["x-content-type-options"] == "nosniff"


class Anything:
    """A service that answers with what it was asked."""

    def respond(
        self, request: RequestReceived, exchange: Exchange, now: float
    ) -> PreparedResponse | None:
        text = f"{request.method} {request.path} {len(request.body)}"
        return prepare(200, [text.encode()], content_type="text/plain", cache_control="no-store")


def test_a_service_may_take_any_method_and_others_get_none_but_theirs(edge: World) -> None:
    edge.server.mount("/live/", Service())
    edge.server.mount("/api/", Anything(), any_method=True)
    edge.server.router.get("/hello", hello)
    client = edge.client()
    client.ask("/api/x", "POST", "Content-Length: 2\r\n")
    client.send(b"ab")
    for method in ("PATCH", "OPTIONS", "DELETE", "GET"):
        client.ask("/api/x", method)
    assert [answer.body.decode() for answer in client.answers()] == [
        "POST /api/x 2",
        "PATCH /api/x 0",
        "OPTIONS /api/x 0",
        "DELETE /api/x 0",
        "GET /api/x 0",
    ]
    for target in ("/live/x", "/hello"):
        client.ask(target, "POST")
        client.ask(target, "OPTIONS")
        assert [answer.status for answer in client.answers()] == [405, 200]
    assert client.get("/hello").status == 200
    assert client.lost is None


def test_errors_say_why(edge: World) -> None:
    def refuse(request: RequestReceived) -> Response:
        raise HttpError(503, "no seats left")

    def fail(request: RequestReceived) -> Response:
        raise ValueError("a bug")

    edge.server.router.get("/refuse", refuse)
    edge.server.router.get("/fail", fail)
    client = edge.client()
    answer = client.get("/refuse")
    assert (answer.status, answer.body) == (503, b"no seats left\n")
    assert answer.fields["cache-control"] == "no-store"
    assert client.get("/fail").status == 500
    assert client.get("/absent").status == 404
    client.ask("/refuse", "POST", "Content-Length: 2\r\n")
    client.send(b"ab")
    (answer,) = client.answers()
    assert answer.status == 405
    assert answer.fields["allow"] == "get, head, options"
    assert client.lost is None, "the connection survives all of these"


def test_item_36_cors_is_on_everything(edge: World, service: Service) -> None:
    edge.server.router.get("/hello", hello)
    client = edge.client()
    for target in ("/hello", "/absent"):
        fields = client.get(target).fields
        assert fields["access-control-allow-origin"] == "*"
        assert fields["timing-allow-origin"] == "*"
        assert fields["access-control-expose-headers"] == "age, content-range, date, etag"
    client.ask("/live/x", "OPTIONS", "Access-Control-Request-Method: GET\r\n")
    (answer,) = client.answers()
    assert answer.status == 200
    assert answer.fields["access-control-allow-methods"] == "get, head, options"
    assert service.asked == []


def test_a_listener_for_operators_lets_no_web_page_read_it() -> None:
    def fail(request: RequestReceived) -> Response:
        raise ValueError("a bug")

    def refuse(request: RequestReceived) -> Response:
        raise HttpError(503, "no")

    with world() as made:
        server = HttpServer(made.server.router, cors=False)
        for path, handler in (("/hello", hello), ("/fail", fail), ("/refuse", refuse)):
            server.router.get(path, handler)
        client = World(made.pump, server, made.clients).client()
        answers = [client.get(path) for path in ("/hello", "/fail", "/refuse", "/absent")]
        client.ask("/hello", "OPTIONS", "Access-Control-Request-Method: GET\r\n")
        answers += client.answers()
        client.send(b"nonsense\r\n\r\n")
        answers += client.answers()
    assert [answer.status for answer in answers] == [200, 500, 503, 404, 405, 400]
    for answer in answers:
        assert answer.fields["x-content-type-options"] == "nosniff"
        assert not [name for name in answer.fields if name.startswith("access-control")]
        assert "timing-allow-origin" not in answer.fields
    assert answers[4].fields["allow"] == "get, head"


def test_head_has_the_length_but_no_body(edge: World, service: Service) -> None:
    client = edge.client()
    client.ask("/live/big", "HEAD")
    client.ask("/live/a", "HEAD")
    big, small = client.answers(head=True)
    assert big.fields["content-length"] == str(len(BIG))
    assert small.fields["content-length"] == "7"
    assert client.get("/live/a").body == b"/live/a"


def test_one_response_for_those_who_ask_to_close(edge: World, service: Service) -> None:
    for request in (
        b"GET /live/a HTTP/1.0\r\n\r\n",
        b"GET /live/a HTTP/1.1\r\nHost: e\r\nConnection: close\r\n\r\nGET /live/b HTTP/1.1\r\n\r\n",
    ):
        client = edge.client()
        client.send(request)
        (answer,) = client.answers()
        assert answer.fields["connection"] == "close"
        assert client.sock.recv(1) == b""
        edge.pump.advance(HEAR_OUT_S)
        assert client.lost == "one response was asked for"
    assert service.asked == ["/live/a", "/live/a"]


def test_a_pop_that_drains_answers_and_closes(edge: World, service: Service) -> None:
    """So viewers move; what they asked for before they get, and new ones are served."""
    client, waiting = edge.client(), edge.client()
    client.ask("/live/a")
    (answer,) = client.answers()
    assert "connection" not in answer.fields
    edge.server.drain(True)
    for each in (client, waiting):
        each.ask("/live/a")
        (answer,) = each.answers()
        assert (answer.status, answer.fields["connection"]) == (200, "close")
        assert each.sock.recv(1) == b""
        edge.pump.advance(HEAR_OUT_S)
        assert each.lost == "the PoP is draining"
    edge.server.drain(False)
    again = edge.client()
    again.ask("/live/a")
    (answer,) = again.answers()
    assert "connection" not in answer.fields


def test_a_large_last_response_is_not_cut_off(edge: World, service: Service) -> None:
    client = edge.client()
    client.ask("/live/big", fields="Connection: close\r\n")
    edge.pump.advance(9)  # Longer than a close may linger.
    assert client.lost is None
    (answer,) = client.answers()
    assert answer.body == BIG
    assert client.sock.recv(1) == b""
    client.close()
    edge.pump.turn()
    assert client.lost is not None


def test_pipelined_answers_keep_their_order(edge: World, service: Service) -> None:
    client = edge.client()
    names = ["/live/a", "/live/later", "/live/b", "/live/later", "/live/c", "/absent"]
    client.send(b"".join(f"GET {n} HTTP/1.1\r\nHost: e\r\n\r\n".encode() for n in names))
    assert [answer.body for answer in client.answers()] == [b"/live/a"]
    assert service.asked == ["/live/a", "/live/later"], "one at a time"
    service.release("first", edge.pump.time)
    edge.pump.flush()
    assert [answer.body for answer in client.answers()] == [b"first", b"/live/b"]
    service.release("second", edge.pump.time)
    edge.pump.flush()
    assert [answer.body for answer in client.answers()][:2] == [b"second", b"/live/c"]
    assert client.get("/live/d").body == b"/live/d"


def test_pipelining_while_blocked_is_bounded(edge: World, service: Service) -> None:
    client = edge.client()
    client.ask("/live/later")
    client.sock.setblocking(False)
    request = b"GET /live/a HTTP/1.1\r\nHost: e\r\n\r\n"
    sent = 0
    with contextlib.suppress(BlockingIOError):
        for _ in range(1000):
            sent += client.sock.send(request * 1000)
            edge.pump.turn()
    assert client.connection.received_bytes <= 256 * 1024 + len(request)
    assert sent > client.connection.received_bytes, "the rest is left in the kernel"
    service.release("late", edge.pump.time)
    edge.pump.flush()
    statuses = [answer.status for answer in client.answers()]
    assert statuses[:-1] == [200] * 64
    assert statuses[-1] == 503


def test_garbage_is_answered_in_turn_and_closed(edge: World, service: Service) -> None:
    client = edge.client()
    client.send(b"GET /live/a HTTP/1.1\r\nHost: e\r\n\r\n\x16\x03\x01")
    good, bad = client.answers()
    assert (good.status, bad.status) == (200, 400)
    assert bad.body.startswith(b"malformed request")
    assert bad.fields["connection"] == "close"
    client.send(b"more")  # Read and dropped, so that the answer is not reset away.
    assert client.lost is None
    edge.pump.advance(REFUSED_LINGER_S)
    assert client.lost is not None
    assert client.lost.startswith("refused: malformed request")
    assert edge.server.statistics().refused_total == 1


@pytest.mark.parametrize("reads", [True, False])
def test_a_refusal_is_heard_behind_what_is_slowly_read(edge: World, reads: bool) -> None:
    """A body that is too large goes on, while the kernel has answers for a slow viewer.

    Closing then would reset away all that it has not read. Over TCP, as socket pairs reset nothing.
    """
    body = b"a" * 500_000
    edge.server.router.get("/all", lambda _: Response(body=body))
    with socket.socket() as listener, socket.socket() as end:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * 2**20)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        end.connect(listener.getsockname())
        ours, _ = listener.accept()
        ours.setblocking(False)
        connection = edge.pump.take(ours, lambda c: HttpConnection(edge.server, c))
        end.sendall(b"GET /all HTTP/1.1\r\nHost: e\r\n\r\n")
        edge.pump.advance(0.1)
        end.sendall(b"POST /x HTTP/1.1\r\nHost: e\r\nContent-Length: 9999999\r\n\r\n")
        end.sendall(bytes(70_000))
        end.settimeout(0.02)
        got = b""
        for _ in range(60):
            end.sendall(bytes(1000))
            edge.pump.advance(0.05)
            if reads:
                got += end.recv(4096)
        if not reads:
            assert connection.lost is None, "it may read yet"
            edge.pump.advance(PROGRESS_S_MAX)
            assert str(connection.lost).startswith("refused: body exceeds"), "but not for ever"
            return
        with contextlib.suppress(TimeoutError):
            while piece := end.recv(65_536):
                got += piece
                edge.pump.advance(0.05)
        first, _, rest = got.partition(b"\r\n\r\n")
        assert b" 200 " in first.split(b"\r\n")[0]
        assert b" 413 " in rest[len(body) :].split(b"\r\n")[0]
        edge.pump.advance(PROGRESS_S_MAX + 3 * REFUSED_LINGER_S)
        assert str(connection.lost).startswith("refused: body exceeds")


def test_a_header_flood_is_refused(edge: World) -> None:
    for flood in (b"X-A: b\r\n" * 100, b"X: " + b"y" * 40_000):
        client = edge.client()
        client.send(b"GET / HTTP/1.1\r\nHost: e\r\n" + flood)
        (answer,) = client.answers()
        assert answer.status == 431
        edge.pump.advance(REFUSED_LINGER_S)
        assert client.lost is not None


def test_upgrades_are_answered_as_if_not_asked(edge: World, service: Service) -> None:
    client = edge.client()
    upgrade = b"GET /live/%s HTTP/1.1\r\nHost: e\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    client.send(upgrade % b"a" + upgrade % b"b")
    assert [answer.body for answer in client.answers()] == [b"/live/a", b"/live/b"]


def test_a_blocked_request_is_answered_later(edge: World, service: Service) -> None:
    clients = [edge.client() for _ in range(3)]
    for client in clients:
        client.ask("/live/later")
        assert client.answers() == []
    assert len(service.group) == 3
    edge.pump.advance(100)  # Waiting is not idling.
    service.release("now", edge.pump.time)
    edge.pump.flush()
    for client in clients:
        assert [answer.body for answer in client.answers()] == [b"now"]
        assert client.get("/live/a").status == 200


def test_a_blocked_request_has_a_deadline(edge: World, service: Service) -> None:
    service.until = edge.pump.time + 12
    client = edge.client()
    client.ask("/live/later")
    edge.pump.advance(11.9)
    assert client.answers() == []
    edge.pump.advance(0.2)
    (answer,) = client.answers()
    assert (answer.status, answer.body) == (503, b"too long\n")
    assert service.group == {}
    assert client.get("/live/a").status == 200


def test_who_leaves_while_blocked_leaves_the_group(edge: World, service: Service) -> None:
    clients = [edge.client() for _ in range(3)]
    for client in clients:
        client.ask("/live/later")
    clients[1].close()
    edge.pump.turn()
    assert len(service.group) == 2
    assert edge.server.statistics().connections == 2
    service.release("now", edge.pump.time)
    edge.pump.flush()
    assert [len(client.answers()) for client in (clients[0], clients[2])] == [1, 1]


def test_what_many_ask_for_is_held_by_the_kernel_and_is_the_same(service: Service) -> None:
    """Until and since the fifth request of a second, and with the Date of the next one."""
    unix_s = [1_700_000_000.0]
    with world(lambda: unix_s[0]) as edge:
        edge.server.mount("/live/", service)
        pool = edge.server.kernel
        held = []
        for second in range(3):
            unix_s[0], dates = 1_700_000_000.0 + second, set()
            edge.pump.advance(1)
            for _ in range(KERNEL_BYTES_AFTER + 3):
                answer = edge.client().get("/live/segment")
                assert (answer.status, answer.body) == (200, SEGMENT)
                dates.add(answer.fields["date"])
                held.append(pool.bytes > len(SEGMENT))
            assert len(dates) == 1
            assert dates == {f"tue, 14 nov 2023 22:13:{20 + second} gmt"}
        once = [False] * KERNEL_BYTES_AFTER + [True] * 3
        assert held[: len(once)] == once
        assert pool.files == 1, "the one of an earlier second is given back"
        edge.pump.advance(1)
        unix_s[0] += 1
        assert edge.client().get("/live/small").status == 200
        assert pool.files == 0


def test_a_server_lets_go_of_its_descriptors_with_itself(service: Service) -> None:
    """Without the collector, which comes when it comes."""
    gc.disable()
    try:
        with world() as edge:
            edge.server.mount("/live/", service)
            client = edge.client()
            for _ in range(KERNEL_BYTES_AFTER + 2):
                client.get("/live/part")
            pool = edge.server.kernel
            assert pool.files == 1
        del edge, client
        held = next(iter(pool._sent.values()))
        assert isinstance(held, KernelBytes)
        fd = held.fd
        del pool, held
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    finally:
        gc.enable()


def test_one_who_is_slow_to_take_what_the_kernel_holds(edge: World, service: Service) -> None:
    for _ in range(KERNEL_BYTES_AFTER):
        edge.client().ask("/live/segment")
    slow = edge.client()
    slow.ask("/live/segment")
    assert edge.server.kernel.files == 1
    assert 0 < slow.connection.out_bytes < len(SEGMENT)
    edge.pump.advance(1)
    slow.ask("/live/small")
    assert edge.server.kernel.files == 0
    (first, second) = slow.answers()
    assert first.body == SEGMENT
    assert second.body == b"/live/small"


def test_what_is_large_is_not_copied_for_the_kernel(edge: World, service: Service) -> None:
    for _ in range(KERNEL_BYTES_AFTER + 2):
        edge.client().ask("/live/big")
    assert len(BIG) > KERNEL_BYTES_MAX
    assert edge.server.kernel.files == 0


def test_a_slow_viewer_is_bounded_in_bytes(edge: World, service: Service) -> None:
    client = edge.client()
    client.send(b"GET /live/big HTTP/1.1\r\nHost: e\r\n\r\n" * 6)
    assert service.asked == ["/live/big"], "the next waits until this one is nearly gone"
    assert OUT_LOW_BYTES < client.connection.out_bytes <= len(BIG) + 1024
    assert [answer.body == BIG for answer in client.answers()] == [True] * 6
    assert client.lost is None


def test_a_stalled_viewer_is_dropped_in_time(edge: World, service: Service) -> None:
    client = edge.client()
    client.ask("/live/big")
    edge.pump.advance(2 * PROGRESS_S_MAX - 0.1)  # In the first, the kernel's buffers took bytes.
    assert client.lost is None
    edge.pump.advance(0.2)
    assert client.lost is not None
    assert "reads too slowly: " in client.lost
    edge.pump.advance(0)
    assert edge.server.statistics().stalled_total == 1
    assert edge.server.statistics().connections == 0


def test_a_trickling_viewer_is_dropped_in_time(edge: World, service: Service) -> None:
    client = edge.client()
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.ask("/live/big")
    for _ in range(60):
        with_data = client.sock.recv(100)  # 1 kbps.
        assert with_data
        edge.pump.advance(1)
        if client.lost is not None:
            assert str(PROGRESS_BYTES_MIN) in client.lost
            return
    pytest.fail("it was never dropped")


def test_a_slow_but_steady_viewer_is_kept(edge: World, service: Service) -> None:
    client = edge.client()
    client.ask("/live/big")
    for _ in range(30):
        client.received += client.sock.recv(2 * PROGRESS_BYTES_MIN)
        edge.pump.advance(4)
    assert client.lost is None
    assert client.answers()[0].body == BIG


def sip(edge: World, client: Client, until: float) -> None:
    """Take 4 KiB a second: progress enough, but a third of the least rate."""
    while edge.pump.time + 1 < until:
        client.received += client.sock.recv(4096)
        edge.pump.advance(1)
        assert client.lost is None
    edge.pump.advance(until - edge.pump.time)


def test_a_slow_viewers_response_has_a_deadline(edge: World, service: Service) -> None:
    client = edge.client()
    started = edge.pump.time
    client.ask("/live/big")
    size = client.connection.sent_bytes + client.connection.out_bytes
    deadline = started + RESPONSE_S_SLACK + size / RESPONSE_BYTES_PER_S_MIN
    sip(edge, client, deadline - 0.01)
    assert client.lost is None
    assert client.connection.out_bytes > 0
    edge.pump.advance(0.02)
    assert client.lost is not None
    assert "too slowly" in client.lost
    assert "12500 bytes/s" in client.lost
    edge.pump.flush()
    assert edge.server.statistics().stalled_total == 1


def test_a_slow_viewer_who_has_all_before_the_deadline_is_kept(
    edge: World, service: Service
) -> None:
    client = edge.client()
    started = edge.pump.time
    client.ask("/live/big")
    size = client.connection.sent_bytes + client.connection.out_bytes
    sip(edge, client, started + RESPONSE_S_SLACK + size / RESPONSE_BYTES_PER_S_MIN - 0.01)
    assert client.answers()[0].body == BIG
    edge.pump.advance(20)
    assert client.lost is None, "who has just taken an answer is not idle"
    assert client.get("/live/a").body == b"/live/a"


def test_asking_for_more_gives_a_slow_viewer_no_more_time(edge: World, service: Service) -> None:
    """What is queued behind is small, so it moves the deadline by no more than its own bytes."""
    client = edge.client()
    client.send(b"GET /live/big HTTP/1.1\r\nHost: e\r\n\r\n")
    while client.connection.out_bytes > OUT_LOW_BYTES:
        client.received += client.sock.recv(1 << 14)
        edge.pump.turn()
    began = edge.pump.time
    while client.lost is None and edge.pump.time < began + 60:
        edge.pump.advance(1)
        if client.lost is None:
            client.ask("/live/a")
            client.sock.recv(4096)
    left_s = OUT_LOW_BYTES / RESPONSE_BYTES_PER_S_MIN
    assert client.lost is not None
    assert edge.pump.time - began <= left_s + RESPONSE_S_SLACK + 3


def test_a_request_that_trickles_is_dropped(edge: World) -> None:
    client = edge.client()
    for piece in b"GET / HTT":
        client.send(bytes([piece]))
        edge.pump.advance(1)
    assert client.lost is None
    edge.pump.advance(1.1)
    assert client.lost == "request not complete after 10 s"


def test_an_idle_connection_is_closed(edge: World, service: Service) -> None:
    client, silent = edge.client(), edge.client()
    edge.pump.advance(40)
    client.get("/live/a")
    edge.pump.advance(36)
    assert silent.lost == "no request for 75 s"
    assert client.lost is None
    edge.pump.advance(40)
    assert client.lost == "no request for 75 s"


def test_statistics(edge: World, service: Service) -> None:
    client = edge.client()
    client.get("/live/a")
    client.get("/absent")
    statistics = edge.server.statistics()
    assert statistics.connections == statistics.connections_total == 1
    assert statistics.responses_total == {200: 1, 404: 1}
    assert statistics.body_bytes_total == len("/live/a") + len("there is nothing at this address\n")


def test_the_out_queue_takes_the_largest_response() -> None:
    assert OUT_BYTES_MAX - RESPONSE_BYTES_MAX > OUT_LOW_BYTES


# HTTPS, over the real pump.


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the server has no tasks that could set an event
        await trio.sleep(0.005)


class TlsEdge(Struct):
    """A server on loopback, and how to reach it."""

    server: HttpServer
    pump: Pump
    port: int
    trusting: ssl.SSLContext

    async def connect(self) -> "TlsClient":
        stream = await trio.open_ssl_over_tcp_stream(
            "127.0.0.1", self.port, ssl_context=self.trusting, https_compatible=True
        )
        await stream.do_handshake()
        return TlsClient(stream)

    async def until_open(self, count: int) -> None:
        """Wait until so many connections are open."""
        await until(lambda: self.server.statistics().connections == count)


class TlsClient:
    """One HTTPS connection of a viewer."""

    def __init__(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        self.stream = stream
        self.received = bytearray()

    async def ask(self, *paths: str) -> None:
        requests = [f"GET {path} HTTP/1.1\r\nHost: e\r\n\r\n" for path in paths]
        await self.stream.send_all("".join(requests).encode())

    async def body(self) -> bytes:
        """The next response's body; its status is 200."""
        while (end := self.received.find(b"\r\n\r\n")) < 0:
            await self.receive()
        head = bytes(self.received[:end]).decode().lower().split("\r\n")
        assert head[0] == "http/1.1 200 ok"
        (size,) = [int(line[16:]) for line in head if line.startswith("content-length: ")]
        while len(self.received) < end + 4 + size:
            await self.receive()
        body = bytes(self.received[end + 4 : end + 4 + size])
        del self.received[: end + 4 + size]
        return body

    async def receive(self) -> None:
        data = await self.stream.receive_some()
        assert data, "the server closed"
        self.received += data


@asynccontextmanager
async def over_tls(folder: Path, service: Service) -> AsyncIterator[TlsEdge]:
    make_authority(folder, "test", now=time.time())
    files = make_host_certificate(
        folder, Identity("pop", "p1"), now=time.time(), hosts=["127.0.0.1"]
    )
    pump, server = Pump(), HttpServer(Router())
    server.mount("/live/", service)
    server.router.get("/hello", hello)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.run)
            context = make_server_context(files.certificate, files.key)
            address: str = await nursery.start(
                lambda task_status: server.serve(
                    pump, "127.0.0.1:0", tls=context, task_status=task_status
                )
            )
            trusting = ssl.create_default_context(cafile=files.ca)
            yield TlsEdge(server, pump, int(address.rpartition(":")[2]), trusting)
            nursery.cancel_scope.cancel()


@pytest.mark.e2e
async def test_https_keeps_the_connection_alive(tmp_path: Path) -> None:
    service = Service()
    async with over_tls(tmp_path, service) as edge:
        client = await edge.connect()
        for _ in range(3):
            for path, expected in (
                ("/live/a", b"/live/a"),
                ("/live/segment", SEGMENT),
                ("/hello", b"hello /hello"),
                ("/live/big", BIG),
            ):
                await client.ask(path)
                assert await client.body() == expected, path
        await client.ask("/live/segment", "/live/later", "/live/segment", "/live/b")
        assert await client.body() == SEGMENT
        await until(lambda: bool(service.group))
        service.release("late", edge.pump.now())
        assert [await client.body() for _ in range(3)] == [b"late", SEGMENT, b"/live/b"]
        statistics = edge.server.statistics()
        assert (statistics.connections, statistics.connections_total) == (1, 1)
        assert statistics.responses_total == {200: 16}
        assert client.received == b"", "not a byte too many"
        await client.stream.aclose()
        await edge.until_open(0)


@pytest.mark.e2e
async def test_a_renewed_certificate_is_shown_and_open_viewers_go_on(tmp_path: Path) -> None:
    make_authority(tmp_path, "test", now=time.time())

    def make() -> TlsFiles:
        identity = Identity("pop", "p1")
        return make_host_certificate(tmp_path, identity, now=time.time(), hosts=["127.0.0.1"])

    files, service, pump, server = make(), Service(), Pump(), HttpServer(Router())
    server.mount("/live/", service)
    public = PublicTls(files.certificate, files.key)
    trusting = ssl.create_default_context(cafile=files.ca)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.run)
            serve = partial(server.serve, pump, "127.0.0.1:0", tls=public.context)
            address: str = await nursery.start(serve)
            edge = TlsEdge(server, pump, int(address.rpartition(":")[2]), trusting)
            here, waits = await edge.connect(), await edge.connect()
            await here.ask("/live/segment")
            assert await here.body() == SEGMENT
            await waits.ask("/live/later")
            await until(lambda: bool(service.group))
            make()
            assert public.reload_if_changed()
            new = await edge.connect()
            serials = [client.stream.getpeercert()["serialNumber"] for client in (here, waits, new)]
            assert serials[0] == serials[1] != serials[2]
            for client in (here, new):
                await client.ask("/live/segment")
                assert await client.body() == SEGMENT
            service.release("late", pump.now())
            assert await waits.body() == b"late"
            assert server.statistics().connections_total == 3
            for client in (here, waits, new):
                await client.stream.aclose()
            nursery.cancel_scope.cancel()


@pytest.mark.e2e
async def test_https_ends_after_the_last_response_is_whole(tmp_path: Path) -> None:
    async with over_tls(tmp_path, Service()) as edge:
        client = await edge.connect()
        await client.stream.send_all(
            b"GET /live/segment HTTP/1.1\r\nHost: e\r\nConnection: close\r\n\r\n"
        )
        assert await client.body() == SEGMENT
        assert await client.stream.receive_some() == b""
        await client.stream.aclose()
        await edge.until_open(0)


@pytest.mark.e2e
@pytest.mark.parametrize("reset", [False, True])
async def test_who_leaves_https_early_ends_only_that_connection(
    tmp_path: Path, reset: bool
) -> None:
    """While a body is half sent, while blocked, and within the handshake."""
    service = Service()
    async with over_tls(tmp_path, service) as edge:
        stays = await edge.connect()
        await stays.ask("/live/later")
        reads, waits = await edge.connect(), await edge.connect()
        await reads.ask("/live/big", "/live/segment")
        await reads.receive()
        await waits.ask("/live/later")
        half = await trio.open_tcp_stream("127.0.0.1", edge.port)
        await half.send_all(b"\x16\x03\x01\x02\x00\x01")
        await until(lambda: len(service.group) == 2)
        assert edge.server.statistics().connections == 3
        with capture_logs() as logs:
            for stream in (reads.stream.transport_stream, waits.stream.transport_stream, half):
                if reset:
                    linger = struct.pack("ii", 1, 0)
                    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                await stream.aclose()  # Without TLS's farewell, as a phone that goes.
            await edge.until_open(1)
        assert not [log for log in logs if log["log_level"] in ("warning", "error")]
        assert len(service.group) == 1, "nobody else is left waiting"
        assert service.asked.count("/live/segment") == 0, "what it had piped is not made"
        service.release("still here", edge.pump.now())
        assert await stays.body() == b"still here"
        await stays.ask("/live/segment")
        assert await stays.body() == SEGMENT
        await until(lambda: edge.pump.statistics().connections == 1)
        await stays.stream.aclose()


@pytest.mark.parametrize("records", [1, 2, 3])
async def test_over_tls_all_that_came_in_time_is_heard_before_a_verdict(
    tmp_path: Path, records: int
) -> None:
    """The rest of a request is there before its deadline; the loop is held up beyond that."""
    make_authority(tmp_path, "net", now=time.time())
    identity = Identity("pop", "a")
    files = make_host_certificate(tmp_path, identity, now=time.time(), hosts=["127.0.0.1"])
    theirs = ssl.create_default_context(cafile=files.ca)
    pump, server = Pump(), HttpServer(Router(), limits=H1Limits(request_s_max=0.3))
    server.mount("/live/", Service())
    ours, far = socket.socketpair()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.run)
            context = make_server_context(files.certificate, files.key)
            pump.add(ours, server.make_handler, PumpClass.VIEWER, tls=context)
            shake = partial(theirs.wrap_socket, far, server_hostname="127.0.0.1")
            viewer = await trio.to_thread.run_sync(shake)
            request = b"GET /live/now HTTP/1.1\r\nHost: e\r\nA: b\r\n\r\n"
            viewer.sendall(request[:5])
            await trio.sleep(0.15)
            rest, size = request[5:], -(-len(request[5:]) // records)
            for at in range(0, len(rest), size):
                viewer.sendall(rest[at : at + size])
            time.sleep(0.3)  # noqa: ASYNC251 - the loop is held up
            await trio.sleep(0.1)
            viewer.settimeout(5)
            answer = await trio.to_thread.run_sync(viewer.recv, 4096)
            assert answer.startswith(b"HTTP/1.1 200"), answer
            viewer.close()
            nursery.cancel_scope.cancel()
