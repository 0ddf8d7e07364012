"""The API over real sockets: a server with a network that is pretended, and a client."""

import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

import msgspec
import trio
from msgspec import Struct

from edged.api.config import ApiConfig
from edged.api.ingest import IngestHandlers, offer_of
from edged.api.operations import Operation
from edged.api.schemas import AudioView, MediaView, VideoView
from edged.api.service import ApiService, Exchange
from edged.api.streams import LiveEntry, StreamHandlers
from edged.api.v1 import make_table
from edged.errors import PublishRefusedError
from edged.media.routing import IngestOffer, PopRow, PopState
from edged.media.stream import Description, DescriptionChange, Grant
from edged.playback.http import HttpConnection, HttpServer, Router
from edged.runtime.listeners import parse_address
from edged.runtime.pump import Pump
from edged.wire.h1_events import H1Limits
from edged.wire.prepared import PreparedResponse, prepare
from edged.wire.request import RequestReceived

KEY = "key-of-alice"
UNIX = 1_700_000_000.0


class Answer(Struct):
    """A response as a client sees it."""

    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, object]:
        return msgspec.json.decode(self.body, type=dict[str, object])

    @property
    def code(self) -> object:
        assert self.fields["content-type"] == "application/problem+json"
        assert self.json["status"] == self.status
        return self.json["code"]


class Client:
    """One HTTP/1.1 connection."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.received = bytearray()

    async def send(
        self,
        path: str,
        method: str = "GET",
        body: object = None,
        fields: Mapping[str, str] | None = None,
    ) -> None:
        told = {"Host": "edge.example", **(fields or {})}
        data = b""
        if body is not None:
            data = body if isinstance(body, bytes) else msgspec.json.encode(body)
            told = {"Content-Type": "application/json", **told, "Content-Length": str(len(data))}
        lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
        await self.stream.send_all(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + data)

    async def read(self, *, head: bool = False) -> Answer:
        with trio.fail_after(10):
            while (end := self.received.find(b"\r\n\r\n")) < 0:
                await self._receive()
            lines = bytes(self.received[:end]).decode().split("\r\n")
            pairs = [line.split(": ", 1) for line in lines[1:]]
            fields = {name.lower(): value for name, value in pairs}
            assert len(fields) == len(pairs), f"a field is there twice: {lines}"
            size = 0 if head else int(fields["content-length"])
            del self.received[: end + 4]
            while len(self.received) < size:
                await self._receive()
        answer = Answer(int(lines[0].split()[1]), fields, bytes(self.received[:size]))
        del self.received[:size]
        return answer

    async def ask(
        self,
        path: str,
        method: str = "GET",
        body: object = None,
        fields: Mapping[str, str] | None = None,
    ) -> Answer:
        await self.send(path, method, body, fields)
        return await self.read(head=method == "HEAD")

    async def closed(self) -> bool:
        """Whether the server closes now, saying no more."""
        with trio.fail_after(10):
            return not self.received and await self.stream.receive_some(65536) == b""

    async def _receive(self) -> None:
        data = await self.stream.receive_some(65536)
        assert data, f"closed in the middle of {bytes(self.received)!r}"
        self.received += data


@contextlib.asynccontextmanager
async def connected(address: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[Client]:
    host, port = parse_address(address)
    stream: trio.abc.Stream = await trio.open_tcp_stream(host, port)
    if tls is not None:
        stream = trio.SSLStream(stream, tls, server_hostname="edge.example", https_compatible=True)
    async with stream:
        yield Client(stream)


class Side:
    """A `StreamsSide` and an `IngestSide` without a network."""

    def __init__(self) -> None:
        self.live: dict[str, LiveEntry] = {}
        self.grants = {KEY: Grant(channel="alice", title="Alice")}
        self.scopes: dict[str, tuple[str, ...]] = {}  # By key.
        self.refusal: PublishRefusedError | None = None
        self.error: Exception | None = None
        self.clients: list[str] = []
        self.changes: list[tuple[str, DescriptionChange]] = []
        self.carried = {"rtmp": ("h264", "h265", "aac"), "rtmps": ("h264", "aac")}
        self.offer = IngestOffer(
            ("rtmp://ams1.example/live", "rtmps://ams1.example/live"), PopState.UP, 0.1
        )
        self.rows: list[PopRow] = []
        self.has_route = True
        self.gate: trio.Event | None = None  # What `describe` waits for.

    def add(self, channel: str, viewers: int = 0, **told: object) -> None:
        description = msgspec.convert(told, Description)
        self.live[channel] = LiveEntry(
            channel=channel, description=description, started_at=UNIX, viewers=viewers
        )

    def list_live(self) -> Iterable[LiveEntry]:
        return list(self.live.values())

    def find(self, channel: str) -> LiveEntry | None:
        return self.live.get(channel)

    def media(self, channel: str) -> MediaView | None:
        if channel != "alice":
            return None
        video = VideoView(codec="avc1.64001f", width=1280, height=720, frame_rate=30.0)
        return MediaView(video=[video], audio=[AudioView(codec="mp4a.40.2", channels=2)])

    async def channel_of(self, key: str, client: str) -> str:
        return self._grant(key, client).channel

    async def describe(self, channel: str, change: DescriptionChange) -> bool:
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        entry = self.live.get(channel)
        if entry is None:
            return False
        self.changes.append((channel, change))
        changed = change.apply(entry.description)
        self.live[channel] = msgspec.structs.replace(entry, description=changed)
        return True

    async def check(self, key: str, protocol: str, client: str) -> Grant:
        grant = self._grant(key, client)
        if protocol not in self.scopes.get(key, (protocol,)):
            raise PublishRefusedError("out_of_scope", f"not by {protocol}")
        return grant

    def codecs(self) -> dict[str, tuple[str, ...]]:
        return self.carried

    def own(self, grant: Grant, protocol: str) -> PopRow:
        return offer_of(PopRow("ams1", 1, self.offer), takes_it=self.has_route)

    def others(self) -> Iterable[PopRow]:
        return self.rows

    def _grant(self, key: str, client: str) -> Grant:
        self.clients.append(client)
        if self.refusal is not None:
            raise self.refusal
        if key not in self.grants:
            raise PublishRefusedError("unknown_key", "the stream key is not valid here")
        return self.grants[key]


class LiveService:
    """What is beside the API on the port: an answer at once, and one that waits."""

    def __init__(self) -> None:
        self.waiting: dict[Exchange, None] = {}

    def respond(
        self, request: RequestReceived, exchange: Exchange, now: float
    ) -> PreparedResponse | None:
        if request.path == "/live/later":
            exchange.wait(self.waiting, now + 10.0, self.text("expired"))
            return None
        return self.text(request.path)

    @staticmethod
    def text(text: str) -> PreparedResponse:
        return prepare(200, [text.encode()], content_type="text/plain", cache_control="no-store")


class World:
    """A PoP's public port, as far as the API is concerned."""

    def __init__(
        self,
        config: ApiConfig | None = None,
        added: Sequence[Operation] = (),
        limits: H1Limits | None = None,
    ) -> None:
        self.side = Side()
        self.reasons: list[str] = []
        self.lag_s = 0.0
        self.pump = Pump()
        self.config = config or ApiConfig()
        self.table = make_table(
            StreamHandlers(self.side, self.pump.now, self.config.admin_token_sha256),
            IngestHandlers(self.side, bitrate_bps_max=self.config.bitrate_bps_max),
            lambda: self.reasons,
            added,
        )
        self.service = ApiService(
            self.config, self.table, playlist=self.playlist, lag_s=lambda: self.lag_s
        )
        self.live = LiveService()
        self.waiting: dict[Exchange, None] = {}  # For playlists.
        self.playlists: dict[str, PreparedResponse] = {}
        self.server = HttpServer(Router(), limits=limits)
        self.server.mount("/live/", self.live)
        self.server.mount("/api/", self.service, any_method=True)
        self.address = self.tls_address = ""

    def playlist(
        self, channel: str, request: RequestReceived, exchange: Exchange, now: float
    ) -> PreparedResponse | None:
        if channel == "nobody":
            return prepare(404, [b"no"], content_type="text/plain", cache_control="no-store")
        if channel not in self.playlists:
            assert isinstance(exchange, HttpConnection)
            exchange.wait(self.waiting, now + 10.0, LiveService.text("expired"))
            return None
        return self.playlists[channel]

    def connect(self) -> "contextlib.AbstractAsyncContextManager[Client]":
        return connected(self.address)


@contextlib.asynccontextmanager
async def serving(
    config: ApiConfig | None = None,
    *,
    added: Sequence[Operation] = (),
    tls: ssl.SSLContext | None = None,
    limits: H1Limits | None = None,
    prepare_world: Callable[[World], None] = lambda _: None,
) -> AsyncIterator[World]:
    world = World(config, added, limits)
    prepare_world(world)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.pump.run)
        await nursery.start(world.service.run)
        world.address = await nursery.start(world.server.serve, world.pump, "127.0.0.1:0")
        if tls is not None:

            async def https(*, task_status: trio.TaskStatus[str]) -> None:
                await world.server.serve(
                    world.pump, "127.0.0.1:0", tls=tls, task_status=task_status
                )

            world.tls_address = await nursery.start(https)
        yield world
        nursery.cancel_scope.cancel()
