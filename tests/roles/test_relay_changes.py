"""From relay to relay and back, with all that can go wrong on the way: viewers go on."""

import itertools

import pytest
import trio
from msgspec import structs

from edged.errors import RemoteProtocolError
from edged.media.parts import PackagedEvent, Part
from edged.media.stream import PriorityClass, StreamId
from edged.wire.backbone.messages import SubscribeParts
from tests.backbone.network import until
from tests.policy.window_events import init, part, rendition
from tests.roles.relay_network import RelayNetwork, relay_network


async def test_to_a_relay_to_the_next_and_back() -> None:
    async with relay_network() as network:
        await network.to("ams1/0")
        await network.to("lhr1/0")
        network.order("")
        assert await network.longest_gap(1.0) < 0.7
        assert network.sources == ("fra1",)
        network.check_whole()


@pytest.mark.parametrize("both_linked", [True, False])
async def test_one_that_refuses_who_comes_from_another_relay_is_left_for_the_origin(
    both_linked: bool,
) -> None:
    async with relay_network() as network:
        network.others = ("lhr1/0", "ams1/0") if both_linked else ("lhr1/0",)
        await network.to("ams1/0")
        network.relays["lhr1/0"].host.why = "500 subscriptions of PoPs are open"
        network.order("lhr1/0")
        assert await network.longest_gap(2.0) < 1.2
        assert network.sources == ("fra1",)
        assert list(network.relaying.avoided()) == ["lhr1/0 alice"]
        network.check_whole()


async def test_what_stays_at_a_relay_as_its_origin_refused_is_watched_over_as_before() -> None:
    async with relay_network() as network:
        await network.to("ams1/0")
        assert network.origin.server is not None
        subscriptions = network.origin.server._subscriptions
        real, asked = subscriptions.subscribe, 0

        def refuse(session: object, message: SubscribeParts) -> None:
            nonlocal asked
            asked += 1
            subscriptions._refuse(session, message.sub_no, "full", "10000 are open")  # type: ignore[arg-type]

        subscriptions.subscribe = refuse  # type: ignore[method-assign, assignment]
        network.order("")
        await trio.sleep(1.0)
        assert network.sources == ("ams1/0",)
        assert network.relaying.source("alice") == "ams1/0"
        assert 1 <= asked <= 2, "it is not asked again at once"
        subscriptions.subscribe = real  # type: ignore[method-assign]
        network.relays["ams1/0"].is_silent = True
        assert await network.longest_gap(5.0) < 2.5
        assert network.sources == ("fra1",)
        network.check_whole()


async def _freeze_amid(network: RelayNetwork) -> None:
    """She comes from the one relay, and is to go to another, which brings nothing."""
    network.others = ("lhr1/0",)
    await network.to("ams1/0")
    network.relays["lhr1/0"].is_silent = True
    network.relays["lhr1/0"].host.windows["alice"] = (network.run, [])
    network.order("lhr1/0")
    await until(lambda: network.sources == ("lhr1/0", "ams1/0"))


async def test_the_way_to_a_relay_stays_until_the_next_has_caught_up() -> None:
    async with relay_network() as network:
        await _freeze_amid(network)
        await trio.sleep(0.4)
        assert network.relaying.links.is_up("ams1/0", PriorityClass.BASIC), "viewers hear it still"


async def test_a_next_one_that_brings_nothing_is_left_while_the_one_before_is_heard() -> None:
    async with relay_network() as network:
        await _freeze_amid(network)
        assert await network.longest_gap(3.0) < 0.7
        assert network.sources == ("fra1",)
        network.check_whole()


async def test_another_run_that_begins_amid_a_handover_has_nothing_of_the_one_before() -> None:
    async with relay_network() as network:
        relay, run = network.relays["ams1/0"], network.run
        network.is_silent = relay.is_silent = True
        await trio.sleep(0.25)
        msn, last = network.shown[-1]
        kept = [structs.replace(part(msn, last + n), payload=b"of run 1") for n in range(1, 4)]
        differs = structs.replace(part(msn, last), payload=b"other bytes")
        relay.host.windows["alice"] = (run, [rendition(), init(), differs, *kept])
        network.order("ams1/0")
        await until(lambda: network.sources == ("ams1/0", "fra1"))
        await trio.sleep(0.3)
        following = StreamId("alice", run.publication + 1, 1)
        relay.host.windows["alice"] = (following, [rendition(), init(), part(0, 0)])
        relay.server.publish(following, [rendition(), init(), part(0, 0)])
        for index in range(1, 10):
            await trio.sleep(0.1)
            relay.server.publish(following, [part(0, index)])
        shown = [
            (stream_id.publication, event.payload == b"of run 1")
            for stream_id, events in network.pop.playback.batches
            for event in events
            if isinstance(event, Part)
        ]
        assert (following.publication, False) in shown
        assert (following.publication, True) not in shown


async def test_who_subscribes_here_hears_when_playback_refuses_a_channel() -> None:
    async with relay_network() as network:
        gone: list[tuple[str, str]] = []
        network.relaying.gone = lambda *told: gone.append(told)  # type: ignore[method-assign]
        network.pop.playback.refuses_with = RemoteProtocolError("absurd part")
        await until(lambda: bool(network.pop.playback.unavailable))
        assert gone == [("alice", "broken media: absurd part")]


async def test_a_relay_that_brings_one_part_of_three_is_left() -> None:
    async with relay_network() as network:
        await network.to("ams1/0")
        server = network.relays["ams1/0"].server
        real, calls = server.publish, itertools.count()

        def publish(stream_id: StreamId, events: list[PackagedEvent]) -> None:
            if next(calls) % 3 == 0:
                real(stream_id, events)

        server.publish = publish  # type: ignore[method-assign]
        await until(lambda: network.sources == ("fra1",), 8.0)
        (why,) = network.relaying.avoided().values()
        assert why.startswith("parts of it are missing, or late")


async def test_what_a_relay_hears_again_does_not_go_to_its_subscribers_again() -> None:
    async with relay_network() as network:
        await network.to("ams1/0")
        relay = network.relays["ams1/0"]
        relay.is_silent = True
        before = relay.server._subscriptions.statistics().events_pushed
        relay.server.publish(network.run, list(relay.host.windows["alice"][1]))
        assert relay.server._subscriptions.statistics().events_pushed <= before + 2, (
            "what describes it, once"
        )
