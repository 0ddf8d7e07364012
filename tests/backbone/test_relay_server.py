"""A PoP that relays, with PoPs that subscribe over real sockets, and with such as do not behave."""

import contextlib
from collections.abc import AsyncIterator

import pytest
import trio
from msgspec import Struct

from edged.backbone.local_end import LocalEnd
from edged.backbone.relay_server import RelayServer
from edged.backbone.sender import OriginLink
from edged.media.parts import PackagedEvent, Part, StreamEnded
from edged.media.stream import StreamId
from edged.roles.relay_links import RELAY_ROLES
from edged.runtime.pump import Pump
from edged.wire.backbone.events import Expected
from edged.wire.backbone.link import BackboneLink
from edged.wire.backbone.messages import (
    DirectoryWanted,
    KeyFrameWanted,
    Message,
    SegmentWanted,
    SubscribeParts,
    SubscribeUnits,
    SubscriptionAccepted,
    SubscriptionRefused,
)
from tests.backbone.network import Pop, RawPeer, until
from tests.policy.window_events import init, part, rendition
from tests.wire.backbone.builders import make_hello

RUN, NEXT = StreamId("alice", 1, 1), StreamId("alice", 1, 2)
BEGIN: list[PackagedEvent] = [rendition(), init(), part(0, 0)]


class Host:
    """What a relay's role is to its server."""

    def __init__(self) -> None:
        self.why = ""
        self.windows: dict[str, tuple[StreamId, list[PackagedEvent]]] = {"alice": (RUN, BEGIN)}

    def why_not(self, channel: str) -> str:
        return self.why

    def replay(
        self, channel: str, *, lists: bool, cold: bool
    ) -> tuple[StreamId, list[PackagedEvent]] | None:
        return self.windows.get(channel)


class Relay(Struct):
    host: Host
    server: RelayServer
    address: str


@contextlib.asynccontextmanager
async def relay() -> AsyncIterator[Relay]:
    pump, host = Pump(), Host()
    local = LocalEnd(role="pop", name="ams1", instance=9)
    server = RelayServer(pump, host, local=local, listen="127.0.0.1:0", tls=None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump.run)
        address: str = await nursery.start(server.run)
        yield Relay(host, server, address)
        nursery.cancel_scope.cancel()


class Subscriber:
    """A PoP that takes a channel from the relay, and what came."""

    def __init__(self, link: OriginLink) -> None:
        self.link = link
        self.taken: list[tuple[StreamId, PackagedEvent]] = []
        self.ended: list[str] = []
        self.subscription = link.subscribe_parts(
            "alice",
            lambda stream_id, event: self.taken.append((stream_id, event)),
            on_end=lambda code, reason: self.ended.append(f"{code}: {reason}"),
        )


@contextlib.asynccontextmanager
async def subscriber(made: Relay, *, relay_name: str = "ams1/0") -> AsyncIterator[Subscriber]:
    import random  # noqa: PLC0415 - here alone

    pump, pop = Pump(), Pop("sin1")
    link = OriginLink(
        pump,
        pop.hub,
        pop,
        local=LocalEnd(role="pop", name="sin1", instance=77),
        origin=relay_name,
        address=made.address,
        tls=None,
        rng=random.Random(1),  # noqa: S311 - a test's chance
        fence=pop.fence,
        roles=RELAY_ROLES,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump.run)
        nursery.start_soon(link.run)
        yield Subscriber(link)
        nursery.cancel_scope.cancel()


async def test_a_subscriber_gets_the_replay_and_what_is_shown_after_it() -> None:
    async with relay() as made, subscriber(made) as pop:
        await until(lambda: len(pop.taken) == len(BEGIN))
        made.server.publish(RUN, [part(0, 1)])
        made.server.publish(StreamId("bob", 1), [part(0, 0)])
        await until(lambda: len(pop.taken) == len(BEGIN) + 1)
        assert pop.taken == [(RUN, event) for event in [*BEGIN, part(0, 1)]]
        assert made.server.counts() == {"alice": 1}
        pop.link.unsubscribe(pop.subscription)
        await until(lambda: made.server.subscriptions == 0)
        assert made.server.count("alice") == 0


async def test_a_run_that_was_re_homed_goes_on_under_its_new_epoch_with_nothing_lost() -> None:
    """What was shown in the same turn before it may still be queued when that happens."""
    async with relay() as made, subscriber(made) as pop:
        await until(lambda: len(pop.taken) == len(BEGIN))
        made.server.publish(RUN, [part(0, 1)])
        made.host.windows["alice"] = (NEXT, [*BEGIN, part(0, 1), part(0, 2)])
        made.server.publish(NEXT, [part(0, 2)])
        made.server.publish(RUN, [part(0, 3)])  # What is fenced off is not passed on.
        made.server.publish(NEXT, [part(0, 3)])
        made.server.publish(NEXT, [StreamEnded(reason="over")])
        await until(lambda: (NEXT, StreamEnded(reason="over")) in pop.taken)
        there = {event.index for _, event in pop.taken if isinstance(event, Part)}
        assert there == {0, 1, 2, 3}
        assert (RUN, part(0, 3)) not in pop.taken
        ids = [stream_id for stream_id, _ in pop.taken]
        assert ids == sorted(ids)


async def test_what_is_not_relayed_is_refused_with_the_reason() -> None:
    async with relay() as made:
        made.host.why = "it is taken from lhr1/0 itself"
        async with subscriber(made) as pop:
            await until(lambda: pop.ended)
            assert pop.ended == ["no_relay: it is taken from lhr1/0 itself"]
        made.host.why = ""
        made.host.windows.clear()
        async with subscriber(made) as pop:
            await until(lambda: pop.ended)
            assert pop.ended[0].startswith("not_live")
        assert made.server.refused == 1


async def test_what_comes_here_no_more_ends_there() -> None:
    async with relay() as made, subscriber(made) as pop:
        await until(lambda: pop.taken)
        made.server.end("alice", "gone", "nobody watches it here any more")
        await until(lambda: pop.ended)
        assert pop.ended == ["gone: nobody watches it here any more"]
        assert made.server.subscriptions == 0


async def test_a_relay_of_another_name_is_not_taken_for_it() -> None:
    async with relay() as made, subscriber(made, relay_name="lhr1/0") as pop:
        await trio.sleep(0.3)
        assert pop.taken == []
        assert made.server.subscriptions == 0


@contextlib.asynccontextmanager
async def raw(made: Relay, role: str = "pop", **fields: object) -> AsyncIterator[RawPeer]:
    host, _, port = made.address.rpartition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        expected = Expected(roles=frozenset({"pop"}))
        hello = make_hello(role, "raw", **fields)
        link = BackboneLink(hello, expected, client=True, now=trio.current_time())
        peer = RawPeer(stream, link)
        while link.peer is None and role == "pop":
            await stream.send_all(b"".join(link.data_to_send(0)))
            peer.take(await stream.receive_some(65536))
        yield peer


@pytest.mark.parametrize(
    "message",
    [
        SubscribeUnits(1, "alice"),
        SegmentWanted(1, RUN, "v0", 1),
        KeyFrameWanted(1, 1),
        DirectoryWanted(0),
    ],
    ids=lambda message: type(message).__name__,
)
async def test_it_relays_parts_alone(message: Message) -> None:
    async with relay() as made, raw(made) as peer:
        peer.link.send(message)
        reason = await peer.lost_reason()
        assert "to a PoP, which relays parts alone" in reason


async def test_a_control_session_says_nothing() -> None:
    async with relay() as made, raw(made, purpose="control") as peer:
        peer.link.send(SubscribeParts(1, "alice"))
        assert "relays parts alone" in await peer.lost_reason()


async def test_only_pops_are_let_in() -> None:
    async with relay() as made, raw(made, role="origin") as peer:
        assert "its role must be pop" in await peer.lost_reason()


async def test_a_stop_ends_all_sessions() -> None:
    async with relay() as made, raw(made) as peer:
        peer.link.send(SubscribeParts(1, "alice"))
        with trio.move_on_after(0.3):
            await peer.run()
        assert SubscriptionAccepted(1) in peer.messages
        assert not [each for each in peer.messages if isinstance(each, SubscriptionRefused)]
        for session in list(made.server._sessions):
            session.close("drain", "the PoP is stopping")
        assert "the PoP is stopping" in await peer.lost_reason()
