"""An encoder for tests: `RtmpClientSession` on a real socket."""

import contextlib
import ssl
from collections.abc import AsyncIterator, Callable

import trio

from edged.runtime.listeners import parse_address
from edged.wire.rtmp import (
    ClientEvent,
    Closed,
    PublishAccepted,
    PublishRefused,
    RtmpClientOptions,
    RtmpClientSession,
    parse_url,
)
from tests.wire.rtmp.peers import entropy

WAIT_S_MAX = 5.0
TRIES_MAX, AGAIN_S = 3, 0.5


class Encoder:
    """One publisher; `run` must be running for it to hear anything."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        address: str,
        key: str = "secret",
        app: str = "live",
        options: RtmpClientOptions | None = None,
    ) -> None:
        self.stream = stream
        self.session = RtmpClientSession(
            now=trio.current_time(),
            entropy=entropy,
            url=parse_url(f"rtmp://{address}/{app}/{key}"),
            options=options,
        )
        self.events: list[ClientEvent] = []
        self.received = bytearray()
        self.closed = False  # By the other end.
        self.listening = trio.CancelScope()  # Cancelled, the encoder no longer reads.

    async def run(self) -> None:
        """Answer the server until it closes."""
        with self.listening:
            await self._run()

    async def _run(self) -> None:
        await self.flush()
        while True:
            try:
                data = await self.stream.receive_some(65536)
            except trio.BrokenResourceError:
                data = b""
            if not data:
                self.closed = True
                return
            self.received += data
            self.events += self.session.receive_data(bytes(data), trio.current_time())
            with contextlib.suppress(trio.BrokenResourceError):
                await self.flush()

    async def flush(self) -> None:
        """Send what the core has to say."""
        if data := self.session.data_to_send():
            await self.stream.send_all(data)

    async def accepted(self) -> None:
        await until(lambda: PublishAccepted() in self.events or self.closed)
        assert self.events == [PublishAccepted()], self.events

    async def refused(self) -> PublishRefused:
        await until(lambda: self.closed)
        (event,) = self.events
        assert isinstance(event, PublishRefused)
        return event

    async def stopped(self) -> Closed:
        await until(lambda: self.closed)
        event = self.events[-1]
        assert isinstance(event, Closed)
        return event


@contextlib.asynccontextmanager
async def encoder(
    address: str,
    key: str = "secret",
    app: str = "live",
    *,
    tls: ssl.SSLContext | None = None,
    options: RtmpClientOptions | None = None,
) -> AsyncIterator[Encoder]:
    """An encoder that has connected and asks to publish; leaving it closes its socket."""
    host, port = parse_address(address)
    stream: trio.abc.Stream = await trio.open_tcp_stream(host, port)
    if tls is not None:
        stream = trio.SSLStream(stream, tls, server_hostname=host, https_compatible=True)
    async with stream, trio.open_nursery() as nursery:
        peer = Encoder(stream, address, key, app, options)
        nursery.start_soon(peer.run)
        yield peer
        nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def admitted(address: str, key: str) -> AsyncIterator[Encoder]:
    """One that publishes; refused, it tries again, as encoders do: the network has just begun."""
    for _ in range(TRIES_MAX - 1):
        async with encoder(address, key) as peer:
            await until(lambda: peer.events or peer.closed)
            if peer.events == [PublishAccepted()]:
                yield peer
                return
            print("not let in:", peer.events)
        await trio.sleep(AGAIN_S)
    async with encoder(address, key) as peer:
        await peer.accepted()
        yield peer


async def until(condition: Callable[[], object]) -> None:
    """Wait until something holds."""
    with trio.fail_after(WAIT_S_MAX):
        while not condition():  # noqa: ASYNC110 - most conditions have no event
            await trio.sleep(0.002)
