import pytest
import structlog

from edged.backbone.receiver import BackboneServer
from edged.backbone.session import LocalEnd
from edged.errors import ConfigError
from edged.media.parts import StreamEnded
from edged.media.stream import Grant, PriorityClass, StreamId
from edged.runtime.hub import Hub
from edged.runtime.pump import Pump
from edged.wire.backbone.flows import UnitsSkipped
from edged.wire.backbone.messages import (
    DirectoryDelta,
    DirectoryEntry,
    DirectoryWanted,
    EventsOpened,
    Heartbeat,
    Message,
    SubscribeParts,
    encode_event,
)
from tests.backbone.network import Origin, Pop, append, raw_pop, until

pytestmark = pytest.mark.e2e

ALICE = StreamId("alice", 7, 1)


@pytest.mark.parametrize(
    ("purpose", "message", "reason"),
    [
        ("control", SubscribeParts(1, "alice"), "SubscribeParts on a control session"),
        ("media", DirectoryWanted(1), "DirectoryWanted on a media session"),
        ("media", Heartbeat(Origin().report()), "Heartbeat from a PoP"),
    ],
)
async def test_messages_out_of_place_end_the_session(
    purpose: str, message: Message, reason: str
) -> None:
    origin = Origin()
    async with origin.serving(), raw_pop(origin.address, purpose=purpose) as raw:
        raw.link.send(message)
        assert reason in await raw.lost_reason()


async def test_parts_from_a_pop_end_the_session() -> None:
    origin = Origin()
    async with origin.serving(), raw_pop(origin.address) as raw:
        stream_no = raw.link.sender.reserve()
        raw.link.send(EventsOpened(stream_no, 1, ALICE))
        flow = raw.link.sender.open_events(stream_no)
        flow.push(raw.link.sender, encode_event(StreamEnded(reason="x")))
        assert "from a PoP" in await raw.lost_reason()


async def test_the_directory_follows_the_streams() -> None:
    origin, pop = Origin(), Pop()
    async with origin.serving() as server, pop.linked(origin) as link:
        stream = pop.publish()
        forwarding = link.forward(stream)
        await until(lambda: pop.known.lookup("alice"))
        record = pop.known.lookup("alice")
        assert record is not None
        assert record.origin == "ams"
        entry = record.entry
        assert entry.stream_id == ALICE
        assert (entry.title, entry.priority, entry.pop) == ("hello", PriorityClass.BASIC, "fra1")
        assert entry.started_at > 1.7e9
        server.set_entry(DirectoryEntry(stream_id=ALICE, title="a new title"))
        await until(lambda: (r := pop.known.lookup("alice")) and r.entry.title == "a new title")
        late = Pop("lon1")
        async with late.linked(origin):
            await until(lambda: late.known.lookup("alice"))
            stream.end("bye")
            await until(lambda: pop.known.lookup("alice") is None)
            await until(lambda: late.known.lookup("alice") is None)
        assert forwarding.state == "closed"


async def test_a_pop_out_of_step_asks_for_the_whole_directory() -> None:
    origin = Origin()
    async with origin.serving() as server, raw_pop(origin.address, purpose="control") as raw:
        server.set_entry(DirectoryEntry(stream_id=ALICE))
        raw.link.send(DirectoryWanted(99))
        wholes: list[DirectoryDelta] = []

        async def collect() -> None:
            await raw.lost_reason()

        import trio  # noqa: PLC0415 - only this test waits by hand

        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect)
            await until(
                lambda: [
                    m
                    for m in raw.messages
                    if isinstance(m, DirectoryDelta) and m.from_version == 0 and m.changed
                ]
            )
            nursery.cancel_scope.cancel()
        wholes = [m for m in raw.messages if isinstance(m, DirectoryDelta)]
        assert wholes[-1].changed == [DirectoryEntry(stream_id=ALICE)]


async def test_plain_tcp_listens_on_loopback_only() -> None:
    def listen(address: str) -> BackboneServer:
        return BackboneServer(
            Pump(),
            Hub(),
            Origin(),
            local=LocalEnd(role="origin", name="ams", instance=1),
            listen=address,
            tls=None,
        )

    for address in ("0.0.0.0:0", "[::]:0", "192.0.2.1:4000"):
        with pytest.raises(ConfigError, match="plain TCP"):
            listen(address)
    with structlog.testing.capture_logs() as lines:
        listen("127.0.0.1:0")
    assert lines[0]["event"] == "plain TCP, allowed on loopback only"


async def test_a_takeover_keeps_the_newer_entry() -> None:
    origin, old, new = Origin(), Pop("fra1"), Pop("lon1")
    async with origin.serving() as server, old.linked(origin) as a, new.linked(origin) as b:
        first = a.forward(old.publish(publication=7))
        await first.wait_decided()
        second = b.forward(new.publish(publication=8))
        await second.wait_decided()
        await until(lambda: old.refusals)
        await until(lambda: (r := old.known.lookup("alice")) and r.entry.stream_id.publication == 8)
        server.packaged(ALICE, 1, [])
        assert [stream.stream_id.publication for stream in server.streams] == [8]
        assert [reason for _, reason in origin.closed] == [
            "fenced: a newer publication or epoch of the channel is here"
        ]


async def test_subscribers_that_skip_units_do_no_harm() -> None:
    origin, pop = Origin(), Pop()
    async with origin.serving() as server, pop.linked(origin) as link:
        forwarding = link.forward(pop.publish())
        await forwarding.wait_decided()
        await until(lambda: server.statistics().sessions == 4)
        server.flow_changed(next(iter(server._sessions)), UnitsSkipped(1, 5))
        append(forwarding.stream, 3)
        await until(lambda: forwarding.received_seq == 2)
        assert Grant(channel="alice", title="hello") == forwarding.stream.grant
