from collections.abc import Callable

import pytest
import structlog
import trio

from edged.backbone.directory import ENTRIES_MAX
from edged.backbone.local_end import LocalEnd
from edged.backbone.receiver import BackboneServer
from edged.backbone.session import OUT_BYTES_MAX
from edged.errors import ConfigError
from edged.media.parts import StreamEnded
from edged.media.stream import Grant, PriorityClass, StreamId
from edged.policy.descriptions import TITLE_CHARS_MAX
from edged.runtime.hub import Hub
from edged.runtime.pump import Pump
from edged.wire.backbone.events import UnitsSkipped
from edged.wire.backbone.messages import (
    DirectoryDelta,
    DirectoryEntry,
    DirectoryWanted,
    EventsOpened,
    Heartbeat,
    Message,
    SubscribeParts,
    encode_event,
    make_message_frame,
)
from tests.backbone.network import Origin, Pop, RawPeer, append, raw_pop, until

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
        server._directory.set(DirectoryEntry(stream_id=ALICE, title="a new title"))
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
        server._directory.set(DirectoryEntry(stream_id=ALICE))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(raw.run)
            raw.link.send(DirectoryWanted(99))
            await until(lambda: any(delta.changed for delta in wholes(raw)))
            assert wholes(raw)[-1].changed == [DirectoryEntry(stream_id=ALICE)]
            # Asked for thrice at once, as for each piece of a delta, it comes once.
            count = len(wholes(raw))
            for version in (1, 2, 3):
                raw.link.send(DirectoryWanted(version))
            await until(lambda: len(wholes(raw)) > count)
            await until(beats(raw, 2))
            assert len(wholes(raw)) == count + 1
            nursery.cancel_scope.cancel()


async def test_a_pop_that_lost_its_list_gets_it_with_the_next_change() -> None:
    origin, pop = Origin(), Pop()
    async with origin.serving() as server, pop.linked(origin):
        server._directory.set(DirectoryEntry(stream_id=ALICE))
        await until(lambda: pop.known.lookup("alice"))
        pop.known.forget("ams")
        server._directory.set(DirectoryEntry(stream_id=StreamId("bob", 7)))
        await until(lambda: pop.known.lookup("alice") and pop.known.lookup("bob"))


def wholes(raw: RawPeer) -> list[DirectoryDelta]:
    return [m for m in raw.messages if isinstance(m, DirectoryDelta) and m.from_version == 0]


def beats(raw: RawPeer, count: int) -> Callable[[], bool]:
    """Whether that many heartbeats have come since."""

    def heard() -> int:
        return sum(isinstance(message, Heartbeat) for message in raw.messages)

    before = heard()
    return lambda: heard() >= before + count


def long_entry(number: int, title: str = "") -> DirectoryEntry:
    channel = f"channel-{number}"
    return DirectoryEntry(stream_id=StreamId(channel, 7), title=title.ljust(TITLE_CHARS_MAX, "x"))


async def test_a_directory_at_its_limit_comes_whole_though_it_exceeds_what_may_be_queued() -> None:
    origin, pop, late = Origin(), Pop(), Pop("lon1")
    async with origin.serving() as server, pop.linked(origin):
        for number in range(ENTRIES_MAX):
            server._directory.set(long_entry(number))
        whole = sum(len(make_message_frame(delta)) for delta in server._directory.whole())
        assert whole > OUT_BYTES_MAX
        # The first gets it as one tick's changes, the second as the whole list.
        await until(lambda: entries(pop), 30.0)
        async with late.linked(origin, wait=False):
            await until(lambda: entries(late), 30.0)
            server._directory.set(long_entry(0, "changed meanwhile"))
            server._directory.remove("channel-1")
            for known in (pop, late):
                await until(lambda known=known: len(entries(known)) == ENTRIES_MAX - 1, 30.0)  # type: ignore[misc]
                await until(lambda known=known: entries(known)["channel-0"].title[:3] == "cha")  # type: ignore[misc]
                assert not known.lost


def entries(pop: Pop) -> dict[str, DirectoryEntry]:
    origin = pop.known._origins.get("ams")
    return {} if origin is None else origin.entries


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
            "fenced: publication 7 epoch 1 of 'alice' is not newer than publication 8 epoch 1, "
            "which is live here"
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
