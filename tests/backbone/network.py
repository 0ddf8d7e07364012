"""A PoP and an origin in one process, joined by real sockets on loopback."""

import contextlib
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import trio

from edged.backbone.directory import Directory
from edged.backbone.fence import Fence
from edged.backbone.forwarding import Forwarding
from edged.backbone.local_end import LocalEnd
from edged.backbone.receiver import BackboneServer
from edged.backbone.segments_out import Given
from edged.backbone.sender import OriginLink
from edged.backbone.session import BackboneSession
from edged.errors import PeerLostError, PublishRefusedError
from edged.media.access_unit import AccessUnit
from edged.media.parts import PackagedEvent
from edged.media.routing import OriginReport, ReportedState, Terms
from edged.media.stream import DescriptionChange, Grant, PriorityClass, StreamId
from edged.media.track import Track
from edged.runtime.hub import Hub, LiveStream
from edged.runtime.pump import Pump
from edged.wire.backbone.events import Expected, MessageReceived, PeerClosed
from edged.wire.backbone.link import BackboneLink, Event
from edged.wire.backbone.messages import DirectoryDelta, Message, ProbesOffered, StreamOpened
from tests.ports import take_port
from tests.wire.backbone.builders import make_hello, make_track, make_unit

if TYPE_CHECKING:
    import socket

WAIT_S_MAX = 5.0


class Origin:
    """An `OriginHost` that keeps what it is told."""

    def __init__(self, name: str = "ams", incarnation: int = 1) -> None:
        self.name = name
        self.incarnation = incarnation
        self.hub = Hub()
        self.admitted: list[StreamId] = []
        self.opened: list[StreamOpened] = []
        self.closed: list[tuple[LiveStream, str]] = []
        self.refusal: PublishRefusedError | None = None
        self.marks = True
        self.terms: list[Terms] = []  # Of each that was offered.
        self.windows: dict[str, tuple[StreamId, list[PackagedEvent]]] = {}
        self.replays: list[tuple[bool, bool]] = []  # `lists`, `cold` of each that was asked for.
        self.segments: dict[tuple[str, int], Sequence[bytes]] = {}
        self.asked: list[tuple[StreamId, str, int]] = []
        self.withheld: list[Given] | None = None  # Who waits, while a test says so.
        self.server: BackboneServer | None = None
        self.address = "127.0.0.1:0"
        self.probe_port: int | None = None

    def admit(self, stream_id: StreamId, grant: Grant, tracks: list[Track], terms: Terms) -> None:
        self.terms.append(terms)
        if self.refusal is not None:
            raise self.refusal
        self.admitted.append(stream_id)

    def stream_opened(self, stream: LiveStream, opened: StreamOpened) -> None:
        self.opened.append(opened)

    def stream_closed(self, stream: LiveStream, reason: str) -> None:
        self.closed.append((stream, reason))

    def replay(
        self, channel: str, *, lists: bool, cold: bool
    ) -> tuple[StreamId, list[PackagedEvent]] | None:
        self.replays.append((lists, cold))
        return self.windows.get(channel)

    def give_segment(self, stream_id: StreamId, rendition: str, msn: int, given: Given) -> None:
        self.asked.append((stream_id, rendition, msn))
        if self.withheld is not None:
            self.withheld.append(given)
        else:
            given(self.segments.get((rendition, msn), "gone"))

    def report(self) -> OriginReport:
        return OriginReport(self.name, self.incarnation, ReportedState.UP, 10, (5, 5, 5), 1.0)

    @contextlib.asynccontextmanager
    async def serving(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[BackboneServer]:
        """A pump and a server of its own; leaving it is a crash or a stop, as you like."""
        pump = Pump()
        self.server = BackboneServer(
            pump,
            self.hub,
            self,
            local=LocalEnd(
                role="origin", name=self.name, instance=self.incarnation, marks=self.marks
            ),
            listen=self.address,
            tls=tls,
            probe_port=self.probe_port,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.run)
            self.address = await nursery.start(self.server.run)
            yield self.server
            nursery.cancel_scope.cancel()

    def units(self, channel: str) -> list[AccessUnit]:
        stream = self.hub.get(channel)
        if stream is None:
            return []
        return stream.ring.reader(start=stream.ring.first_seq).read(10**6, 2**40).units


class Pop:
    """A `LinkOwner` that keeps what it is told."""

    def __init__(self, name: str = "fra1") -> None:
        self.name = name
        self.marks = True
        self.hub = Hub()
        self.fence = Fence()
        self.reports: list[OriginReport] = []
        self.known = Directory()
        self.up: list[PriorityClass | None] = []
        self.lost: list[tuple[PriorityClass | None, str]] = []
        self.accepted_streams: list[StreamId] = []
        self.refusals: list[tuple[Forwarding, str, str]] = []
        self.key_frames: list[tuple[Forwarding, int]] = []
        self.wanted: list[tuple[str, DescriptionChange]] = []
        self.offers: list[tuple[str, socket.socket, ProbesOffered]] = []
        self.link: OriginLink | None = None

    def heartbeat(self, report: OriginReport) -> None:
        self.reports.append(report)

    def directory(self, delta: DirectoryDelta) -> bool:
        return self.known.apply(delta)

    def link_up(self, origin: str, priority: PriorityClass | None) -> None:
        self.up.append(priority)

    def link_lost(self, origin: str, priority: PriorityClass | None, reason: str) -> None:
        self.lost.append((priority, reason))

    def accepted(self, forwarding: Forwarding) -> None:
        self.accepted_streams.append(forwarding.stream_id)

    def refused(self, forwarding: Forwarding, code: str, reason: str) -> None:
        self.refusals.append((forwarding, code, reason))

    def key_frame_wanted(self, forwarding: Forwarding, track_id: int) -> None:
        self.key_frames.append((forwarding, track_id))

    def description_wanted(self, channel: str, change: DescriptionChange) -> None:
        self.wanted.append((channel, change))

    def probes_offered(self, session: BackboneSession, offer: ProbesOffered) -> None:
        self.offers.append((session.peer.name, session.connection.sock, offer))

    @contextlib.asynccontextmanager
    async def linked(
        self, origin: Origin, tls: ssl.SSLContext | None = None, *, wait: bool = True
    ) -> AsyncIterator[OriginLink]:
        pump = Pump()
        self.link = OriginLink(
            pump,
            self.hub,
            self,
            local=LocalEnd(role="pop", name=self.name, instance=77, marks=self.marks),
            origin=origin.name,
            address=origin.address,
            tls=tls,
            rng=random.Random(1),  # noqa: S311 - jitter, seeded on purpose
            fence=self.fence,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.run)
            nursery.start_soon(self.link.run)
            if wait:
                await until(lambda: len(self.up) >= 4)
            yield self.link
            nursery.cancel_scope.cancel()

    def publish(
        self, channel: str = "alice", publication: int = 7, home_epoch: int = 1
    ) -> LiveStream:
        stream = self.hub.open(
            StreamId(channel, publication, home_epoch),
            Grant(channel=channel, title="hello"),
            started_at=0.0,
            came_from="test",
        )
        stream.set_track(make_track())
        return stream


def append(stream: LiveStream, count: int, size: int = 2000, payload: bytes | None = None) -> None:
    """Append that many units, a random access every ten."""
    first = stream.ring.next_seq
    fields = {} if payload is None else {"payload": payload}
    stream.append([make_unit(seq, size, **fields) for seq in range(first, first + count)])


class RawPeer:
    """A peer that says whatever a test wants it to, with a core of its own."""

    def __init__(self, stream: trio.SocketStream, link: BackboneLink) -> None:
        self.stream, self.link = stream, link
        self.events: list[Event] = []

    async def run(self) -> None:
        """Feed the core and send what it has, until the other end closes."""
        while True:
            with trio.move_on_after(0.005):
                data = await self.stream.receive_some(65536)
                if not data:
                    return
                self.take(data)
            await self.stream.send_all(b"".join(self.link.data_to_send(2**30)))

    def take(self, data: bytes) -> None:
        """Feed the core; PeerLostError when the other end says that it closes."""
        self.events += self.link.receive_data(data, trio.current_time())
        if self.events and isinstance(last := self.events[-1], PeerClosed):
            raise PeerLostError(last.reason)

    async def lost_reason(self) -> str:
        """Run until the other end says that it closes, and why."""
        with trio.fail_after(WAIT_S_MAX):
            try:
                await self.run()
            except PeerLostError as error:
                return str(error)
        return "closed without a word"

    @property
    def messages(self) -> list[Message]:
        return [event.message for event in self.events if isinstance(event, MessageReceived)]


@contextlib.asynccontextmanager
async def raw_pop(address: str, **fields: object) -> AsyncIterator[RawPeer]:
    """Connect to a server as a PoP, up to its hello."""
    host, _, port = address.rpartition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        expected = Expected(roles=frozenset({"origin"}))
        link = BackboneLink(
            make_hello("pop", "raw", **fields), expected, client=True, now=trio.current_time()
        )
        peer = RawPeer(stream, link)
        while link.peer is None:
            await stream.send_all(b"".join(link.data_to_send(0)))
            peer.take(await stream.receive_some(65536))
        yield peer


@contextlib.asynccontextmanager
async def raw_origin(
    act: Callable[[RawPeer], Awaitable[None]], **fields: object
) -> AsyncIterator[str]:
    """Serve as an origin that answers hellos and then does `act` on each session."""

    async def handle(stream: trio.SocketStream) -> None:
        expected = Expected(roles=frozenset({"pop"}))
        link = BackboneLink(
            make_hello("origin", "ams", **fields), expected, client=False, now=trio.current_time()
        )
        peer = RawPeer(stream, link)
        with contextlib.suppress(trio.BrokenResourceError, PeerLostError):
            while link.peer is None:
                data = await stream.receive_some(65536)
                if not data:
                    return
                peer.take(data)
            await act(peer)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        yield f"127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


def free_address() -> str:
    """An address that nobody listens on yet."""
    return f"127.0.0.1:{take_port()}"


async def until(condition: Callable[[], object], s_max: float = WAIT_S_MAX) -> None:
    """Wait until something holds."""
    with trio.fail_after(s_max):
        while not condition():  # noqa: ASYNC110 - what is awaited is on the far side of a socket
            await trio.sleep(0.002)


@contextlib.asynccontextmanager
async def withholding() -> AsyncIterator[tuple[Origin, OriginLink, list[Given]]]:
    """An origin that gives segments when the test does, and a PoP's link to it that is up."""
    origin, pop = Origin(), Pop()
    withheld: list[Given] = []
    origin.withheld = withheld
    async with origin.serving(), pop.linked(origin) as link:
        await until(lambda: link.is_up(PriorityClass.BASIC))
        yield origin, link, withheld
