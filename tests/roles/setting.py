"""A PoP's routing side in one pump, against real origins' listeners on loopback."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

import trio

from edged.backbone.local_end import LocalEnd
from edged.media.parts import PackagedEvent
from edged.media.routing import OriginRow, OriginState, RouteRequest, RoutingTable, Rule
from edged.media.stream import Grant, PriorityClass, StreamId
from edged.policy.pop_view import PopView
from edged.roles.placement import Placement
from edged.roles.uplinks import SESSIONS, Uplinks
from edged.runtime.hub import Hub, LiveStream
from edged.runtime.pump import Pump
from tests.backbone.network import Origin, append, until
from tests.policy.synthetic import RATES, segment, video_times, video_track, video_units
from tests.wire.backbone.builders import make_track

if TYPE_CHECKING:
    from edged.backbone.receiver import BackboneServer
    from edged.errors import PublishRefusedError

REQUEST = RouteRequest(channel="alice", protocol="rtmp")


class Playback:
    """A `Feeds` that keeps what it is given, by call."""

    def __init__(self) -> None:
        self.batches: list[tuple[StreamId, list[PackagedEvent]]] = []
        self.unavailable: list[tuple[str, str]] = []
        self.refuses_with: Exception | None = None

    def window_updated(self, stream_id: StreamId, events: list[PackagedEvent]) -> None:
        if self.refuses_with is not None:
            raise self.refuses_with
        self.batches.append((stream_id, events))

    def channel_unavailable(self, channel: str, reason: str) -> None:
        self.unavailable.append((channel, reason))


class Pop:
    """What a PoP's role has around its uplinks."""

    def __init__(self, name: str = "ams1") -> None:
        self.pump = Pump()
        self.hub = Hub()
        self.view = PopView(name)
        local = LocalEnd(role="pop", name=name, shard=1, instance=77)
        self.uplinks = Uplinks(self.pump, self.hub, self.view, local, None)
        self.playback = self.uplinks.parts.playback = Playback()
        self.given_up: list[PublishRefusedError] = []
        self.version = 0

    def push_table(self, *origins: Origin, quota: int = 10, rules: tuple[Rule, ...] = ()) -> None:
        """As IRS would: put a table in force, with these origins at their addresses."""
        self.version += 1
        table = RoutingTable(
            epoch=1,
            version=self.version,
            issued=1e9,
            ttl_s=30.0,
            lease_ttl_s=10.0,
            rows=tuple(
                OriginRow(origin.name, origin.address, OriginState.UP, quota) for origin in origins
            ),
            rules=rules,
        )
        self.view.accept_table(table, self.pump.now())
        self.uplinks.table_changed(table)

    async def connected(self, *origins: Origin) -> None:
        await until(
            lambda: (
                all(
                    len(link.up) == len(SESSIONS)
                    for link in self.uplinks.statistics()
                    if link.origin in {origin.name for origin in origins}
                )
                and all(not self.view.link_state(origin.name) for origin in origins)
            )
        )

    async def lose(self, origin: str) -> None:
        """As if the path to an origin broke: all its sessions are lost at once."""
        entry = self.uplinks._links[origin]
        for session in list(entry.link._sessions.values()):
            session.connection.abort("the path broke")
        await until(lambda: entry.lost_at is not None)

    def open(
        self,
        channel: str = "alice",
        publication: int = 1,
        *,
        priority: PriorityClass = PriorityClass.BASIC,
        tags: tuple[str, ...] = (),
    ) -> LiveStream:
        stream = self.hub.open(
            StreamId(channel, publication),
            Grant(channel=channel, priority=priority, tags=tags),
            started_at=self.pump.now(),
            came_from="test",
        )
        stream.set_track(make_track())
        return stream

    def place(self, stream: LiveStream, request: RouteRequest = REQUEST) -> Placement:
        return self.uplinks.placing.place(stream, request, self.given_up.append)


@contextlib.asynccontextmanager
async def running_pop(*origins: Origin, quota: int = 10, name: str = "ams1") -> AsyncIterator[Pop]:
    """A PoP that is linked to these origins; the nearest is the first by name."""
    pop = Pop(name)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pop.pump.run)
        await nursery.start(pop.uplinks.run)
        if origins:
            pop.push_table(*origins, quota=quota)
            await pop.connected(*origins)
            for place, origin in enumerate(sorted(origins, key=lambda known: known.name)):
                pop.view._rtt_ms[origin.name] = float(place)  # Not measured: given.
                pop.view.by_name[origin.name].rtt_ms = float(place)
            pop.view._rank()
        yield pop
        nursery.cancel_scope.cancel()


async def packaged(
    pop: Pop, origin: Origin, server: "BackboneServer", channel: str = "alice"
) -> Placement:
    """A stream at an origin that has said how to go on from unit 5."""
    stream = pop.open(channel)
    placement = pop.place(stream, RouteRequest(channel=channel, protocol="rtmp"))
    append(stream, 10)
    await until(lambda: len(origin.units(channel)) == 10)
    server.packaged(stream.stream_id, 5, [], b"as of unit 5")
    await until(lambda: placement.forwarding.splice)
    return placement


def events_of(seconds: float = 4.0, *, end: bool = False) -> list[PackagedEvent]:
    units = list(video_units(video_times(RATES["30"], seconds), 2))
    for seq, unit in enumerate(units):
        unit.seq = seq
    return segment([video_track(RATES["30"])], units, end=end).events


def package(origin: Origin, channel: str, events: Sequence[PackagedEvent]) -> StreamId:
    """As the origin's service would: keep a window, push what is new."""
    stream = origin.hub.get(channel)
    assert stream is not None
    assert origin.server is not None
    _, window = origin.windows.setdefault(channel, (stream.stream_id, []))
    for event in events:
        window.append(event)
        origin.server.publish_event(stream.stream_id, event)
    return stream.stream_id


async def live_at(pop: Pop, origin: Origin, *, publication: int = 1) -> None:
    """A channel that is published here and listed by its origin."""
    stream = pop.open(publication=publication)
    pop.place(stream)
    await until(lambda: pop.uplinks.lookup("alice") == stream.stream_id)
    append(stream, 10)
    await until(lambda: origin.units("alice"))
