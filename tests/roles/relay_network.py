"""A real PoP's parts, beside a real origin and two PoPs that relay, on loopback."""

import contextlib
import random
from collections.abc import AsyncIterator

import trio

from edged.backbone.local_end import LocalEnd
from edged.backbone.relay_server import RelayServer
from edged.media.parts import PackagedEvent, Part
from edged.media.reach import Reach, ReachOrder
from edged.playback.hls import Channel
from edged.policy.reach_config import PopReachConfig
from edged.policy.reach_orders import ReachOrders
from edged.roles.relaying import Relaying
from edged.runtime.pump import Pump
from edged.runtime.supervision import Supervisor
from tests.backbone.network import Origin, until
from tests.backbone.test_relay_server import Host
from tests.policy.window_events import ended, init, part, rendition
from tests.roles.setting import Pop, live_at, package, running_pop

PART_S = 0.1
PARTS = 10  # Of a segment.


class Relay:
    """A PoP that relays alice."""

    def __init__(self, server: RelayServer, address: str, host: Host) -> None:
        self.server, self.address, self.host = server, address, host
        self.is_silent = False


class RelayNetwork:
    """What a test does to them."""

    def __init__(self, origin: Origin, pop: Pop, relays: dict[str, Relay]) -> None:
        self.origin, self.pop, self.relays = origin, pop, relays
        self.orders = ReachOrders()
        self.others: tuple[str, ...] = ()  # Relays of channels that are not here: linked to.
        self.is_silent = False  # The origin.
        self.place = (0, 0)
        self.parts = pop.uplinks.parts
        channels = {"alice": Channel("alice", 0.0)}
        self.relaying = Relaying(
            PopReachConfig(),
            self.orders,
            self.parts,
            channels=lambda: channels,
            origin_of=lambda _: "fra1",
            origin_ms=lambda _: 80.0,
            pump=pop.pump,
            local=LocalEnd(role="pop", name="sin1", instance=77),
            fence=pop.uplinks.fence,
            client_tls=None,
            server_tls=None,
            supervisor=Supervisor("pop sin1"),
            rng=random.Random(1),  # noqa: S311 - a test's chance
        )
        self.parts.relays = self.relaying
        pop.uplinks.relay_link = self.relaying.links.get
        begin: list[PackagedEvent] = [rendition(), init()]
        self.run = package(origin, "alice", begin)
        for relay in relays.values():
            relay.host.windows["alice"] = (self.run, list(begin))

    def order(self, via: str) -> None:
        orders = [ReachOrder("alice", via=via)] if via else []
        orders += [ReachOrder(f"to {other}", via=other) for other in self.others]
        reach = Reach(
            epoch=1,
            number=self.orders.stamp[1] + 1,
            ttl_s=600.0,
            orders=tuple(orders),
            relays={name: relay.address for name, relay in self.relays.items()},
        )
        assert self.orders.take(reach, self.pop.pump.now()) == ""

    @property
    def sources(self) -> tuple[str, ...]:
        return self.parts.sources("alice")

    @property
    def shown(self) -> list[tuple[int, int]]:
        batches = self.pop.playback.batches
        return [(e.msn, e.index) for _, events in batches for e in events if isinstance(e, Part)]

    async def to(self, relay: str) -> None:
        self.order(relay)
        await until(lambda: self.sources == (relay,))
        await trio.sleep(0.5)

    async def bring(self) -> None:
        while True:
            msn, index = self.place
            events: list[PackagedEvent] = [part(msn, index)]
            self.place = (msn, index + 1)
            if index + 1 == PARTS:
                events.append(ended(msn, parts=PARTS))
                self.place = (msn + 1, 0)
            if not self.is_silent:
                package(self.origin, "alice", events)
            for relay in self.relays.values():
                if not relay.is_silent:
                    relay.host.windows["alice"][1].extend(events)
                    relay.server.publish(self.run, events)
            await trio.sleep(PART_S)

    async def longest_gap(self, seconds: float) -> float:
        """The longest time in which nothing was shown."""
        longest, count, last = 0.0, len(self.shown), trio.current_time()
        end = last + seconds
        while trio.current_time() < end:
            await trio.sleep(0.02)
            if len(self.shown) != count:
                count, last = len(self.shown), trio.current_time()
            longest = max(longest, trio.current_time() - last)
        return longest

    def check_whole(self) -> None:
        """Every part has been shown, from the first to the last."""
        first, *_, last = seen = sorted(set(self.shown))
        span = (last[0] - first[0]) * PARTS + last[1] - first[1] + 1
        assert len(seen) == span


@contextlib.asynccontextmanager
async def _relay(name: str) -> AsyncIterator[Relay]:
    pump, host = Pump(), Host()
    local = LocalEnd(role="pop", name=name, instance=9)
    server = RelayServer(pump, host, local=local, listen="127.0.0.1:0", tls=None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump.run)
        yield Relay(server, await nursery.start(server.run), host)
        nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def relay_network() -> AsyncIterator[RelayNetwork]:
    """Alice is here, from fra1; a part of hers comes each PART_S."""
    origin = Origin("fra1")
    async with (
        origin.serving(),
        _relay("ams1") as one,
        _relay("lhr1") as other,
        running_pop(origin, name="sin1") as pop,
    ):
        await live_at(pop, origin)
        made = RelayNetwork(origin, pop, {"ams1/0": one, "lhr1/0": other})
        async with trio.open_nursery() as nursery:
            await nursery.start(made.relaying.run)
            nursery.start_soon(made.bring)
            made.parts.subscribe("alice")
            await until(lambda: len(made.shown) > 3)
            yield made
            nursery.cancel_scope.cancel()
