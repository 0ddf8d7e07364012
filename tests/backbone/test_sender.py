import random
import socket
import ssl
import time
from pathlib import Path

import msgspec
import pytest
import trio

from edged.backbone.fence import Fence
from edged.backbone.local_end import LocalEnd
from edged.backbone.sender import FORWARDINGS_MAX, OriginLink
from edged.backbone.session import DSCP, OUT_BYTES_MAX
from edged.errors import ConfigError, PublishRefusedError
from edged.media.routing import PLAIN_TERMS, Terms
from edged.media.stream import Description, DescriptionChange, PriorityClass, StreamId
from edged.runtime.dscp import CS6
from edged.runtime.hub import Hub
from edged.runtime.pump import Pump
from edged.runtime.tls import Identity, MutualTls
from edged.tools.cert import make_authority, make_host_certificate
from edged.wire.backbone.messages import Message, RenditionAck, StreamClosed
from tests.backbone.network import (
    Origin,
    Pop,
    RawPeer,
    append,
    free_address,
    raw_origin,
    until,
)
from tests.wire.backbone.builders import make_track

pytestmark = pytest.mark.e2e

RENDITIONS = [RenditionAck("v0", 3, 1, 1000, 0, "0" * 16)]


async def test_units_arrive_unchanged_and_are_acked() -> None:
    origin, pop = Origin(), Pop()
    async with origin.serving() as server, pop.linked(origin) as link:
        stream = pop.publish()
        append(stream, 25)
        forwarding = link.forward(stream)
        await forwarding.wait_decided()
        append(stream, 100, 30_000)
        append(stream, 1, 1_000_000)
        append(stream, 1)
        await until(lambda: forwarding.received_seq == 126)
        assert origin.units("alice") == stream.ring.reader(start=0).read(10**6, 2**40).units
        copy = origin.hub.get("alice")
        assert copy is not None
        assert copy.tracks == stream.tracks
        assert copy.grant == stream.grant
        assert forwarding.statistics().progress_at > 0
        assert link.statistics().up == ["affiliate", "basic", "control", "partner"]
        assert server.statistics().inbound.streams == 1
        assert link.is_up(None)
        assert link.forwardings == [forwarding]


async def test_bytes_are_counted_over_sessions_that_come_and_go() -> None:
    origin, pop = Origin(), Pop()
    async with origin.serving() as server, pop.linked(origin) as link:
        stream = pop.publish()
        append(stream, 25, 10_000)
        forwarding = link.forward(stream)
        await until(lambda: forwarding.received_seq == 24)
        before = link.statistics()
        assert before.address == origin.address
        assert before.sent_bytes > 250_000
        assert before.received_bytes > 0
        ((key, peer),) = server.peers().items()
        assert (key[0], peer.sessions) == ("fra1", 4)
        assert peer.received_bytes > 250_000
        for session in list(link._sessions.values()):
            session.connection.abort("the path broke")
        await until(lambda: not link.statistics().up)
        lost = link.statistics()
        assert lost.sent_bytes >= before.sent_bytes
        assert lost.received_bytes >= before.received_bytes
        await until(lambda: len(link.statistics().up) == 4)
        assert link.statistics().sent_bytes > lost.sent_bytes


async def test_packaged_acks_trim_the_ring_and_bring_what_a_splice_needs() -> None:
    origin, pop = Origin(), Pop()
    async with origin.serving() as server, pop.linked(origin) as link:
        stream = pop.publish()
        append(stream, 500)
        forwarding = link.forward(stream)
        await until(lambda: forwarding.received_seq == 499)
        assert stream.ring.first_seq == 0
        server.packaged(stream.stream_id, 399, RENDITIONS)
        await until(lambda: forwarding.packaged_seq == 399)
        assert forwarding.renditions == RENDITIONS
        assert 0 < stream.ring.first_seq <= 400
        await until(lambda: any(record.entry.renditions == 1 for record in pop.known))


async def test_after_the_origins_restart_the_ring_is_sent_again_from_the_packaged_gop() -> None:
    first, second, pop = Origin(incarnation=1), Origin(incarnation=2), Pop()
    first.address = second.address = free_address()
    async with pop.linked(first, wait=False) as link:
        stream = pop.publish()
        forwarding = link.forward(stream)
        async with first.serving() as server:
            append(stream, 60)
            await until(lambda: forwarding.received_seq == 59)
            server.packaged(stream.stream_id, 44, RENDITIONS)
            await until(lambda: forwarding.packaged_seq == 44)
        append(stream, 20)
        await until(lambda: len(pop.lost) == 4)
        assert forwarding.state == "waiting"
        async with second.serving():
            await until(lambda: forwarding.received_seq == 79)
            assert [unit.seq for unit in second.units("alice")] == list(range(40, 80))
            assert second.opened[0].packaged_seq == 44
            assert second.opened[0].renditions == RENDITIONS
            assert forwarding.reopened == 1
            assert forwarding.units_skipped == 0
            append(stream, 5)
            await until(lambda: forwarding.received_seq == 84)
            await until(lambda: link.statistics().reconnects == 4)


async def test_a_broken_session_is_resumed_after_the_last_unit_received() -> None:
    origin, pop = Origin(), Pop()
    async with origin.serving() as server, pop.linked(origin) as link:
        stream = pop.publish()
        append(stream, 15)
        forwarding = link.forward(stream)
        await until(lambda: forwarding.received_seq == 14)
        session = link._sessions[PriorityClass.BASIC]
        session.connection.abort("cut by the test")
        append(stream, 10)
        await until(lambda: pop.lost)
        assert pop.lost == [(PriorityClass.BASIC, "cut by the test")]
        append(stream, 10)
        await until(lambda: forwarding.received_seq == 34)
        assert [unit.seq for unit in origin.units("alice")] == list(range(35))
        assert len(origin.opened) == 1
        assert server.statistics().inbound.resumed == 1
        assert not origin.closed


async def test_the_most_streams_come_back_though_their_offers_exceed_what_may_be_queued() -> None:
    origin, pop = Origin(), Pop()
    config = msgspec.structs.replace(make_track().config, record=bytes(1000))
    track = msgspec.structs.replace(make_track(), config=config)
    async with origin.serving() as server, pop.linked(origin, wait=False) as link:
        for number in range(FORWARDINGS_MAX):
            stream = pop.publish(f"channel-{number}")
            stream.set_track(track)
            link.forward(stream)
        for cuts in (0, 1):
            if cuts:
                link._sessions[PriorityClass.BASIC].connection.abort("cut by the test")
            wanted = FORWARDINGS_MAX * (cuts + 1)
            await until(lambda wanted=wanted: len(pop.accepted_streams) == wanted, 30.0)  # type: ignore[misc]
            assert link._sessions[PriorityClass.BASIC].connection.sent_bytes > OUT_BYTES_MAX
            assert len(pop.lost) == cuts
        assert all(forwarding.state == "open" for forwarding in link.forwardings)
        assert server.statistics().inbound.resumed == FORWARDINGS_MAX


async def test_the_origin_has_the_final_word() -> None:
    origin, pop = Origin(), Pop()
    origin.refusal = PublishRefusedError("full", "no slot of class basic")
    async with origin.serving(), pop.linked(origin) as link:
        stream = pop.publish()
        append(stream, 5)
        forwarding = link.forward(stream)
        with pytest.raises(PublishRefusedError, match="full: no slot of class basic"):
            await forwarding.wait_decided()
        assert pop.refusals == [(forwarding, "full", "no slot of class basic")]
        assert forwarding.finished
        assert not link.forwardings
        assert not origin.opened
        origin.refusal = None
        again = link.forward(stream)
        await again.wait_decided()
        await until(lambda: again.received_seq == 4)


async def test_a_stream_may_be_offered_before_the_link_is_up() -> None:
    origin, pop = Origin(), Pop()
    async with origin.serving(), pop.linked(origin, wait=False) as link:
        stream = pop.publish()
        forwarding = link.forward(stream)
        assert forwarding.state == "waiting"
        append(stream, 5)
        await forwarding.wait_decided()
        await until(lambda: forwarding.received_seq == 4)


async def test_the_newest_publication_and_epoch_win() -> None:
    origin, old, new = Origin(), Pop("fra1"), Pop("lon1")
    async with origin.serving(), old.linked(origin) as a, new.linked(origin) as b:
        stream = old.publish(publication=7)
        append(stream, 5)
        first = a.forward(stream)
        await until(lambda: first.received_seq == 4)
        taking = new.publish(publication=8)
        append(taking, 3)
        second = b.forward(taking)
        await until(lambda: second.received_seq == 2)
        await until(lambda: old.refusals)
        assert old.refusals[0][:2] == (first, "fenced")
        assert first.fenced_by == taking.stream_id
        # What was frozen and comes back stays fenced, even when its successor has ended.
        taking.end("bye")
        await until(lambda: origin.hub.get("alice") is None)
        again = a.forward(stream)
        with pytest.raises(PublishRefusedError, match=r"fenced: .* which has ended here"):
            await again.wait_decided()
        assert again.fenced_by == taking.stream_id
        # The same publication re-homed has a higher epoch, and is newer than itself only.
        rehomed = a.forward(stream, StreamId("alice", 9, 2), after=first)
        await rehomed.wait_decided()
        assert origin.opened[-1].packaged_seq == first.packaged_seq


async def test_the_end_comes_after_the_last_unit() -> None:
    origin, pop = Origin(), Pop()
    async with origin.serving(), pop.linked(origin) as link:
        stream = pop.publish()
        forwarding = link.forward(stream)
        await forwarding.wait_decided()
        append(stream, 50, 30_000)
        stream.end("the publisher left")
        await until(lambda: origin.closed)
        closed, reason = origin.closed[0]
        assert reason == closed.ended == "the publisher left"
        assert closed.ring.next_seq == 50
        assert forwarding.state == "closed"
        assert not link.forwardings


async def test_a_stream_that_goes_elsewhere_is_closed_here() -> None:
    origin, pop = Origin(), Pop()
    async with origin.serving(), pop.linked(origin) as link:
        stream = pop.publish()
        append(stream, 5)
        forwarding = link.forward(stream)
        await until(lambda: forwarding.received_seq == 4)
        link.stop_forwarding(forwarding, "re-homed to lon")
        await until(lambda: origin.closed)
        assert origin.closed[0][1] == "sent elsewhere: re-homed to lon"
        unopened = link.forward(pop.publish("bob"))
        link.stop_forwarding(unopened, "at once")
        assert unopened.state == "closed"
        append(stream, 5)
        await until(lambda: len(origin.closed) == 2)


async def test_key_frame_requests_travel_upstream() -> None:
    origin, pop = Origin(), Pop()
    async with origin.serving() as server, pop.linked(origin) as link:
        stream = pop.publish()
        forwarding = link.forward(stream)
        await forwarding.wait_decided()
        server.want_key_frame(stream.stream_id, 1)
        await until(lambda: pop.key_frames)
        assert pop.key_frames == [(forwarding, 1)]


async def test_heartbeats_come_at_ten_per_second() -> None:
    origin, pop = Origin(), Pop()
    async with origin.serving(), pop.linked(origin):
        await until(lambda: pop.reports)
        started, count = trio.current_time(), len(pop.reports)
        await until(lambda: len(pop.reports) >= count + 5)
        assert 0.4 < trio.current_time() - started < 1.0
        assert pop.reports[0] == origin.report()


async def test_sockets_carry_the_classs_dscp() -> None:
    origin, pop = Origin(), Pop()
    async with origin.serving() as server, pop.linked(origin) as link:
        await until(lambda: server.statistics().sessions == 4)
        for end in (link._sessions.values(), server._sessions):
            seen = set()
            for session in end:
                tos = session.connection.sock.getsockopt(socket.IPPROTO_IP, socket.IP_TOS)
                hello = session.link.hello
                wanted = CS6 if hello.purpose == "control" else DSCP[hello.priority]
                assert tos == wanted << 2
                seen.add(tos >> 2)
            assert seen == {34, 36, 38, 48}


async def test_no_socket_is_marked_where_that_is_switched_off() -> None:
    origin, pop = Origin(), Pop()
    origin.marks = pop.marks = False
    async with origin.serving() as server, pop.linked(origin) as link:
        await until(lambda: server.statistics().sessions == 4)
        for session in (*link._sessions.values(), *server._sessions):
            assert session.connection.sock.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == 0


async def test_what_is_asked_for_a_stream_is_offered_with_it() -> None:
    origin, pop = Origin(), Pop()
    asked = Terms("preempt", True, "af41")
    async with origin.serving(), pop.linked(origin) as link:
        stream = pop.publish()
        forwarding = link.forward(stream, terms=asked)
        await forwarding.wait_decided()
        assert origin.terms == [asked]
        session = next(iter(link._by_stream_no))[0]
        assert session.link.hello.priority is PriorityClass.PARTNER  # It is a basic stream.
        assert link.forward(stream, after=forwarding, hold=True).terms == asked
        assert link.forward(stream).terms == PLAIN_TERMS


async def test_an_origin_that_moves_is_followed() -> None:
    old, new, pop = Origin(), Origin(), Pop()
    async with old.serving(), new.serving(), pop.linked(old) as link:
        forwarding = link.forward(pop.publish())
        await forwarding.wait_decided()
        link.move(old.address)
        link.move(new.address)
        await until(lambda: new.opened)
        assert len(pop.lost) == 4


def make_link(address: str, tls: ssl.SSLContext | None) -> OriginLink:
    return OriginLink(
        Pump(),
        Hub(),
        Pop(),
        local=LocalEnd(role="pop", name="fra1", instance=77),
        origin="ams",
        address=address,
        tls=tls,
        rng=random.Random(1),  # noqa: S311 - jitter, seeded on purpose
        fence=Fence(),
    )


async def test_plain_tcp_is_refused_off_loopback() -> None:
    with pytest.raises(ConfigError, match="backbone to ams: plain TCP"):
        make_link("192.0.2.1:4000", None)
    make_link("192.0.2.1:4000", ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    with pytest.raises(ConfigError, match="backbone to ams: plain TCP"):
        make_link("127.0.0.1:4000", None).move("192.0.2.1:4000")


# TLS.


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    make_authority(folder, "test", now=time.time())
    return folder


def tls_of(folder: Path, role: str, name: str) -> MutualTls:
    return MutualTls(make_host_certificate(folder, Identity(role, name), now=time.time()))


async def test_units_and_parts_go_under_mutual_tls(certificates: Path) -> None:
    origin, pop = Origin(), Pop()
    server_tls = tls_of(certificates, "origin", "ams").server
    client_tls = tls_of(certificates, "pop", "fra1").client
    async with origin.serving(server_tls), pop.linked(origin, client_tls) as link:
        stream = pop.publish()
        append(stream, 5)
        forwarding = link.forward(stream)
        await forwarding.wait_decided()
        append(stream, 200, 40_000)
        await until(lambda: forwarding.received_seq == 204)
        assert origin.units("alice") == stream.ring.reader(start=0).read(10**6, 2**40).units


@pytest.mark.pure
@pytest.mark.parametrize(
    ("client", "server", "message"),
    [
        (("irs", "fra1"), ("origin", "ams"), "certificate says irs/fra1"),
        (("origin", "fra1"), ("origin", "ams"), "certificate says origin/fra1"),
        (("pop", "lon1"), ("origin", "ams"), "certificate says pop/lon1"),
        (("pop", "fra1"), ("pop", "ams"), "certificate says pop/ams"),
        (("pop", "fra1"), ("origin", "lon"), "certificate says origin/lon"),
    ],
)
async def test_the_wrong_certificate_is_refused(
    certificates: Path, client: tuple[str, str], server: tuple[str, str], message: str
) -> None:
    origin, pop = Origin(), Pop()
    server_tls = tls_of(certificates, *server).server
    client_tls = tls_of(certificates, *client).client
    async with origin.serving(server_tls), pop.linked(origin, client_tls, wait=False) as link:
        forwarding = link.forward(pop.publish())
        reasons: list[str] = []
        original = link._connect

        async def watched(priority: PriorityClass | None) -> object:
            session = await original(priority)
            await session.lost_event.wait()
            reasons.append(session.lost or "")
            return session

        link._connect = watched  # type: ignore[method-assign, assignment]
        await until(lambda: reasons)
        assert message in reasons[0]
        assert forwarding.state == "waiting"
        assert not origin.opened


async def test_a_stranger_and_a_plain_caller_are_refused(
    certificates: Path, tmp_path: Path
) -> None:
    origin, pop, stranger = Origin(), Pop(), Pop()
    make_authority(tmp_path, "theirs", now=time.time())
    server_tls = tls_of(certificates, "origin", "ams").server
    foreign = tls_of(tmp_path, "pop", "fra1").client
    async with (
        origin.serving(server_tls) as server,
        pop.linked(origin, None, wait=False),
        stranger.linked(origin, foreign, wait=False),
    ):
        await trio.sleep(0.3)
        assert not pop.up
        assert not stranger.up
        assert server.statistics().sessions == 0


CHANGED = Description(title="changed", category="Music", labels=("live",))


async def test_a_description_goes_to_the_origin_and_to_every_pop() -> None:
    origin, pop, other = Origin(), Pop(), Pop("lon1")
    async with origin.serving(), pop.linked(origin) as link, other.linked(origin):
        stream = pop.publish()
        forwarding = link.forward(stream)
        await until(lambda: other.known.lookup("alice"))
        stream.grant = stream.grant.described(CHANGED)
        forwarding.describe()
        await until(lambda: described(other) == described(pop) == CHANGED)
        held = origin.hub.get("alice")
        assert held is not None
        assert held.grant == stream.grant


async def test_a_description_changed_without_a_session_comes_with_the_next() -> None:
    origin, pop = Origin(), Pop()
    async with origin.serving(), pop.linked(origin) as link:
        stream = pop.publish()
        forwarding = link.forward(stream)
        await until(lambda: pop.known.lookup("alice"))
        link._sessions[PriorityClass.BASIC].connection.abort("the path broke")
        await until(lambda: forwarding.state == "waiting")
        stream.grant = stream.grant.described(CHANGED)
        forwarding.describe()
        await until(lambda: described(pop) == CHANGED)


async def test_another_pop_asks_the_one_where_it_is_published() -> None:
    origin, pop, other = Origin(), Pop(), Pop("lon1")
    change = DescriptionChange(title="asked for elsewhere", labels=())
    async with origin.serving(), pop.linked(origin) as link, other.linked(origin) as beside:
        link.forward(pop.publish())
        await until(lambda: other.known.lookup("alice"))
        assert beside.want_description("alice", change)
        assert beside.want_description("nobody", change)  # Passed on to nobody.
        await until(lambda: pop.wanted)
        assert pop.wanted == [("alice", change)]
        assert other.wanted == []


async def test_who_does_not_know_the_messages_is_not_sent_them() -> None:
    heard: list[Message] = []

    async def act(peer: RawPeer) -> None:
        peers.append(peer)
        try:
            await peer.run()
        finally:
            heard.extend(peer.messages)

    peers: list[RawPeer] = []
    pop = Pop()
    async with raw_origin(act) as address:
        origin = Origin()
        origin.address = address
        async with pop.linked(origin) as link:
            forwarding = link.forward(pop.publish())
            await until(lambda: forwarding.state == "opening")
            assert not link.want_description("alice", DescriptionChange(title="x"))
            forwarding.describe()
            link.stop_forwarding(forwarding, "over")
            await until(lambda: any(isinstance(m, StreamClosed) for p in peers for m in p.messages))
    kinds = {type(message).__name__ for message in heard}
    assert "StreamOpened" in kinds
    assert not kinds & {"StreamDescribed", "DescriptionWanted"}


def described(pop: Pop) -> Description | None:
    record = pop.known.lookup("alice")
    if record is None:
        return None
    entry = record.entry
    return Description(title=entry.title, category=entry.category, labels=entry.labels)
