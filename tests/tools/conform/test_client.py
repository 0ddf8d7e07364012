import contextlib
import gzip
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from edged.errors import PeerLostError, RemoteProtocolError
from edged.runtime.tls import Identity
from edged.tools.cert import make_authority, make_host_certificate
from edged.tools.conform import answer as answer_module
from edged.tools.conform.client import HttpClient
from tests.tools.conform.h2_server import answer_of, h2_server

Server = Callable[[trio.abc.Stream], Awaitable[None]]
NOW = 1_800_000_000.0


@contextlib.asynccontextmanager
async def serving(
    serve: Server, context: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[str, list[int]]]:
    """A server; where it is, and one entry for each connection that it had."""
    connections: list[int] = []

    async def handle(stream: trio.SocketStream) -> None:
        connections.append(1)
        secured: trio.abc.Stream = stream
        if context is not None:
            secured = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        with contextlib.suppress(trio.BrokenResourceError, OSError, ssl.SSLError):
            await serve(secured)
        await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        yield f"http{'s' if context else ''}://127.0.0.1:{port}", connections
        nursery.cancel_scope.cancel()


def answering(*answers: bytes) -> Server:
    """Each connection gives these, one for each request, and then closes."""

    async def serve(stream: trio.abc.Stream) -> None:
        for answer in answers:
            asked = b""
            while not asked.endswith(b"\r\n\r\n"):
                data = await stream.receive_some()
                if not data:
                    return
                asked += data
            await stream.send_all(answer)

    return serve


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nCache-Control: a\r\nCache-control: b\r\n\r\nyes"


@contextlib.asynccontextmanager
async def client() -> AsyncIterator[HttpClient]:
    made = HttpClient(insecure=True)
    try:
        yield made
    finally:
        await made.close()


async def test_connections_are_used_again() -> None:
    async with serving(answering(OK, OK)) as (base, connections), client() as http:
        for number in range(3):
            answer = await http.get(f"{base}/a?n={number}")
            assert (answer.status, answer.body, answer.get("cache-control")) == (
                200,
                b"yes",
                "a, b",
            )
            assert answer.get("none") == ""
            assert answer.asked_at <= answer.head_at <= answer.first_at <= answer.last_at
            assert answer.waited_s >= 0
        assert len(connections) == 2, "the first gave two answers and closed"


async def test_each_request_has_a_connection_of_its_own_meanwhile() -> None:
    async with serving(answering(OK)) as (base, connections), client() as http:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(http.get, base)
        assert len(connections) == 5


async def test_codings_and_framings() -> None:
    zipped = gzip.compress(b"yes" * 100)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n0\r\n\r\n"
    to_the_end = b"HTTP/1.1 200 OK\r\n\r\nyes"
    for answer, body, size in (
        (head % len(zipped) + zipped, b"yes" * 100, len(zipped)),
        (chunked, b"yes", 3),
        (to_the_end, b"yes", 3),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"yes", 3),
    ):
        async with serving(answering(answer)) as (base, _), client() as http:
            found = await http.get(base)
            assert (found.body, found.wire_bytes) == (body, size)


@pytest.mark.parametrize(
    ("answer", "error", "told"),
    [
        (b"SSH-2.0\r\n\r\n", RemoteProtocolError, "illegal status line"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nyes", RemoteProtocolError, "peer"),
        (b"", RemoteProtocolError, "closed"),
        (OK.replace(b"Cache-Control: a", b"Content-Encoding: gzip"), RemoteProtocolError, "gzip"),
        (OK.replace(b"Cache-Control: a", b"Content-Encoding: br"), RemoteProtocolError, "'br'"),
    ],
)
async def test_what_is_no_answer_is_named(answer: bytes, error: type[Exception], told: str) -> None:
    async with serving(answering(answer)) as (base, _), client() as http:
        with pytest.raises(error, match=told) as raised:
            await http.get(f"{base}/name")
        assert "/name: " in str(raised.value)


async def test_too_much_and_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(_: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    async with serving(hang) as (base, _), client() as http:
        with pytest.raises(PeerLostError, match=r"no answer within 0\.1 s"):
            await http.get(base, within_s=0.1)
    monkeypatch.setattr(answer_module, "BODY_BYTES_MAX", 2)
    async with serving(answering(OK)) as (base, _), client() as http:
        with pytest.raises(RemoteProtocolError, match="more than 2 bytes"):
            await http.get(base)
    bomb = gzip.compress(bytes(1000))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    monkeypatch.setattr(answer_module, "BODY_BYTES_MAX", 500)
    async with serving(answering(head + bomb)) as (base, _), client() as http:
        with pytest.raises(RemoteProtocolError, match="more than 500 bytes of it"):
            await http.get(base)
    async with client() as http:
        with pytest.raises(PeerLostError):
            await http.get("http://127.0.0.1:1/")
        with pytest.raises(PeerLostError):
            await http.look("http://127.0.0.1:1/")
        for url in ("file:///etc/passwd", "http:///x"):
            with pytest.raises(RemoteProtocolError, match="not an HTTP URL"):
                await http.get(url)


def secure(folder: Path, *protocols: str) -> ssl.SSLContext:
    make_authority(folder, "test", now=NOW)
    files = make_host_certificate(folder, Identity("pop", "ams1"), now=NOW)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    context.set_alpn_protocols(list(protocols))
    return context


async def test_what_a_connection_is_like(tmp_path: Path) -> None:
    context = secure(tmp_path, "http/1.1")
    async with serving(answering(OK), context) as (base, _), client() as http:
        link = await http.look(base)
        assert (link.tls, link.alpn, link.timestamps) == ("TLSv1.3", "http/1.1", True)
        assert 0 < link.rtt_s < 1
        assert (await http.get(base)).version == "HTTP/1.1"
        verifying = HttpClient()
        with pytest.raises(PeerLostError, match="certificate"):
            await verifying.get(base)
        with pytest.raises(PeerLostError, match="certificate"):
            await verifying.look(base)
    async with serving(answering(OK)) as (base, _), client() as http:
        assert (await http.look(base)).tls == ""


@pytest.mark.parametrize("protocols", [["h2", "http/1.1"], ["h2"]])
async def test_http_2_is_spoken_where_it_is_chosen(tmp_path: Path, protocols: list[str]) -> None:
    context = secure(tmp_path, *protocols)
    async with serving(h2_server(answer_of(b"yes")), context) as (base, made), client() as http:
        link = await http.look(base)
        assert (link.alpn, link.h2_problem) == ("h2", "")
        for number in range(3):
            answer = await http.get(f"{base}/a b?n={number}")
            assert (answer.body, answer.version) == (b"yes", "HTTP/2")
            assert answer.get("x-target") == f"/a%20b?n={number}"
        assert len(made) == 2, "one to look, one for all"


@pytest.mark.parametrize(
    ("body", "told"), [(b"", "status 404 over HTTP/2"), (b"no", "HTTP/2: ")], ids=["404", "garbage"]
)
async def test_http_2_that_does_not_work_is_said_and_left(
    tmp_path: Path, body: bytes, told: str
) -> None:
    """What else there is to be seen is asked for by HTTP/1.1."""

    async def serve(stream: trio.abc.Stream) -> None:
        assert isinstance(stream, trio.SSLStream)
        await stream.do_handshake()
        if stream.selected_alpn_protocol() != "h2":
            await answering(OK)(stream)
        elif body:
            await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            while await stream.receive_some():
                pass
        else:
            await h2_server(answer_of(b"", 404))(stream)

    async with serving(serve, secure(tmp_path, "h2", "http/1.1")) as (base, _), client() as http:
        link = await http.look(base)
        assert link.alpn == "h2"
        assert told in link.h2_problem
        assert (await http.get(base)).version == "HTTP/1.1"
