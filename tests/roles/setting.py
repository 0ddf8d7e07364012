"""A PoP's routing side in one pump, against real origins' listeners on loopback."""

import contextlib
from collections.abc import AsyncIterator

import trio

from edged.backbone.session import LocalEnd
from edged.media.parts import PackagedEvent
from edged.media.routing import OriginRow, OriginState, RouteRequest, RoutingTable, Rule
from edged.media.stream import Grant, StreamId
from edged.policy.pop_view import PopView
from edged.roles.uplinks import SESSIONS, Placement, Uplinks
from edged.runtime.hub import Hub, LiveStream
from edged.runtime.pump import Pump
from tests.backbone.network import Origin, until
from tests.wire.backbone.builders import make_track

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

    def __init__(self) -> None:
        self.pump = Pump()
        self.hub = Hub()
        self.view = PopView("ams1")
        local = LocalEnd(role="pop", name="ams1", shard=1, instance=77)
        self.uplinks = Uplinks(self.pump, self.hub, self.view, local, None)
        self.playback = self.uplinks.playback = Playback()
        self.given_up: list[tuple[str, str]] = []
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

    def open(self, channel: str = "alice", publication: int = 1) -> LiveStream:
        stream = self.hub.open(
            StreamId(channel, publication),
            Grant(channel=channel),
            started_at=self.pump.now(),
            came_from="test",
        )
        stream.set_track(make_track())
        return stream

    def place(self, stream: LiveStream, request: RouteRequest = REQUEST) -> Placement:
        def give_up(code: str, reason: str) -> None:
            self.given_up.append((code, reason))

        return self.uplinks.place(stream, request, give_up)


@contextlib.asynccontextmanager
async def running_pop(*origins: Origin, quota: int = 10) -> AsyncIterator[Pop]:
    """A PoP that is linked to these origins; the nearest is the first by name."""
    pop = Pop()
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
