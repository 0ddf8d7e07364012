"""A service that edged calls, on a real socket of loopback, with or without TLS."""

import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import trio
from msgspec import Struct

from edged.runtime.listeners import parse_address
from edged.runtime.tls import Identity
from edged.tools.cert import make_authority, make_host_certificate


class Received(Struct, kw_only=True):
    """One request."""

    path: str
    fields: dict[str, str]  # By lower-case name.
    body: bytes

    def json(self) -> dict[str, object]:
        read: dict[str, object] = json.loads(self.body)
        return read


Behaviour = Callable[[trio.abc.Stream, Received], Awaitable[None]]


def head(status: int, length: int, *fields: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Status", f"Content-Length: {length}", *fields]
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n"


def replying(status: int, body: object = b"", *fields: str) -> Behaviour:
    """Answer so; a body that is no bytes is sent as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def reply(stream: trio.abc.Stream, received: Received) -> None:
        await stream.send_all(head(status, len(data), *fields) + data)

    return reply


async def hanging(stream: trio.abc.Stream, received: Received) -> None:
    """Take the request and say nothing."""
    await trio.sleep_forever()


async def dripping(stream: trio.abc.Stream, received: Received) -> None:
    """A byte at a time: no pause is long, and there is no end."""
    await stream.send_all(head(200, 10_000))
    while True:
        await stream.send_all(b" ")
        await trio.sleep(0.01)


async def flooding(stream: trio.abc.Stream, received: Received) -> None:
    """More and more, of no length that is told."""
    await stream.send_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while True:
        await stream.send_all(b" " * 65536)


async def breaking_off(stream: trio.abc.Stream, received: Received) -> None:
    """Half an answer."""
    await stream.send_all(head(200, 100) + b'{"channel": "al')
    await stream.aclose()


class Service:
    def __init__(self) -> None:
        self.address = ""
        self.scheme = "http"
        self.received: list[Received] = []
        self.behaviour: Behaviour = replying(200, {})
        self.open = 0
        self.open_max = 0  # Requests at one time.
        self.scope = trio.CancelScope()

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.address}/hook?x=1"

    async def run(
        self,
        tls: ssl.SSLContext | None = None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until its scope is cancelled; at the address that it had before, if it had one."""
        host, port = parse_address(self.address) if self.address else ("127.0.0.1", 0)
        self.scope = trio.CancelScope()
        with self.scope:
            (listener,) = await trio.open_tcp_listeners(port, host=host)
            self.address = "{}:{}".format(*listener.socket.getsockname())
            self.scheme = "http" if tls is None else "https"
            task_status.started()
            await trio.serve_listeners(partial(self._handle, tls), [listener])

    async def _handle(self, tls: ssl.SSLContext | None, tcp: trio.SocketStream) -> None:
        stream: trio.abc.Stream = tcp if tls is None else trio.SSLStream(tcp, tls, server_side=True)
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async with stream:
                inbox = b""
                while (taken := await _receive(stream, inbox)) is not None:
                    received, inbox = taken
                    self.received.append(received)
                    self.open += 1
                    self.open_max = max(self.open_max, self.open)
                    try:
                        await self._answer(stream, received)
                    finally:
                        self.open -= 1

    async def _answer(self, stream: trio.abc.Stream, received: Received) -> None:
        """Behave until done, or until the other side has hung up."""
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    assert not await stream.receive_some(), "one request at a time"
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self.behaviour(stream, received)
            nursery.cancel_scope.cancel()


async def _receive(stream: trio.abc.Stream, inbox: bytes) -> tuple[Received, bytes] | None:
    while b"\r\n\r\n" not in inbox:
        data = await stream.receive_some(65536)
        if not data:
            return None
        inbox += data
    text, _, rest = inbox.partition(b"\r\n\r\n")
    first, *lines = text.decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    length = int(fields.get("content-length", "0"))
    while len(rest) < length:
        rest += await stream.receive_some(65536)
    method, path, _ = first.split(" ")
    assert method == "POST"
    return Received(path=path, fields=fields, body=rest[:length]), rest[length:]


@contextlib.asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Service]:
    service = Service()
    async with trio.open_nursery() as nursery:
        await nursery.start(service.run, tls)
        yield service
        nursery.cancel_scope.cancel()


def make_tls(folder: Path, *hosts: str, days_ago: int = 0, days: int = 30) -> ssl.SSLContext:
    """A server's context with a certificate for these hosts, of the CA in FOLDER/ca.pem."""
    if not (folder / "ca.pem").exists():
        make_authority(folder, "test", now=time.time())
    made_at = time.time() - days_ago * 86_400
    files = make_host_certificate(
        folder, Identity("pop", "service"), now=made_at, days=days, hosts=list(hosts)
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.certificate, files.key)
    return context
