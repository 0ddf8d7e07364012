import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
import trio
import trio.lowlevel

from edged.backbone.session import BACKLOG_BYTES, LISTS_MAX, OUT_BYTES_MAX, BackboneSession
from edged.media.stream import Grant, PriorityClass, StreamId
from edged.runtime.dscp import AF41, AF42, AF43, CS6
from edged.wire.backbone.frames import KIND_FRAGMENT, make_frame
from edged.wire.backbone.messages import (
    DirectoryDelta,
    DirectoryWanted,
    StreamClosed,
    StreamOpened,
    SubscribeParts,
    SubscriptionRefused,
    make_message_frame,
)
from tests.backbone.network import Origin, Pop, RawPeer, append, free_address, raw_pop, until
from tests.wire.backbone.builders import make_track

pytestmark = pytest.mark.e2e


async def test_a_protocol_error_ends_the_session_and_the_peer_is_told_why() -> None:
    origin, pop = Origin(), Pop()
    async with origin.serving() as server, pop.linked(origin):
        async with raw_pop(origin.address) as raw:
            await raw.stream.send_all(make_frame(KIND_FRAGMENT, bytes(5)))
            assert await raw.lost_reason() == (
                "closed by peer: protocol: media of stream 0, never opened"
            )
        await until(lambda: server.statistics().sessions == 4)  # The others live on.


async def test_the_last_words_before_a_close_are_heard() -> None:
    origin = Origin()
    async with origin.serving() as server, raw_pop(origin.address) as raw:
        await raw.stream.send_all(b"".join(raw.link.data_to_send(0)))
        offer = StreamOpened(
            stream_no=raw.link.sender.reserve(),
            stream_id=StreamId("alice", 7),
            grant=Grant(channel="alice"),
            tracks=[make_track()],
            first_seq=0,
        )
        raw.link.send(offer)
        raw.link.send(StreamClosed(offer.stream_no, "left", ended=True))
        raw.link.close("drain", "stopping")
        await raw.stream.send_all(b"".join(raw.link.data_to_send(0)))
        await until(lambda: origin.closed)
        assert origin.closed[0][1] == "left"
        await until(lambda: server.statistics().sessions == 0)


async def test_what_came_before_a_protocol_error_is_heard() -> None:
    origin = Origin()
    async with origin.serving(), raw_pop(origin.address) as raw:
        raw.link.send(SubscribeParts(1, "nobody"))
        data = b"".join(raw.link.data_to_send(0)) + make_frame(KIND_FRAGMENT, bytes(5))
        await raw.stream.send_all(data)
        assert "media of stream 0, never opened" in await raw.lost_reason()
        refusal = SubscriptionRefused(1, "not_live", "channel 'nobody' is not live here")
        assert refusal in raw.messages


async def test_garbage_instead_of_a_hello_is_refused() -> None:
    origin = Origin()
    async with origin.serving() as server:
        host, _, port = origin.address.rpartition(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
            answer = await stream.receive_some(1000)
            assert b"session_closed" in answer
            assert await stream.receive_some(1000) == b""
        assert server.statistics().sessions == 0


async def test_another_version_is_refused_with_the_reason() -> None:
    origin = Origin()
    async with origin.serving():
        with pytest.raises(Exception, match="version: peer speaks backbone protocol 2, we speak 1"):
            async with raw_pop(origin.address, proto=2):
                pass


async def test_a_peer_that_reads_slowly_makes_streams_lag_in_the_ring_only() -> None:
    origin, pop = Origin(), Pop()
    async with origin.serving() as server, pop.linked(origin) as link:
        stream = pop.publish()
        forwarding = link.forward(stream)
        await forwarding.wait_decided()
        await until(lambda: server.statistics().sessions == 4)
        for session in server._sessions:
            session.connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            session.connection.pause_reading()
        session = link._sessions[PriorityClass.BASIC]
        payload = bytes(100_000)
        for _ in range(200):
            append(stream, 1, payload=payload)
            await trio.lowlevel.checkpoint()
            assert session.connection.out_bytes <= 4 * BACKLOG_BYTES
        assert forwarding.statistics().lag_units > 50
        for other in server._sessions:
            other.connection.resume_reading()
        await until(lambda: forwarding.received_seq == 199)
        assert forwarding.units_skipped == 0
        await until(lambda: session.connection.out_bytes == 0)


@contextlib.asynccontextmanager
async def joined() -> AsyncIterator[tuple[BackboneSession, RawPeer]]:
    """A server's control session, and its peer, which reads only when the test says so."""
    origin = Origin()
    async with (
        origin.serving() as server,
        raw_pop(origin.address, purpose="control") as raw,
    ):
        await until(lambda: server.statistics().sessions)
        (session,) = server._sessions
        session.connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        yield session, raw


def removals(count: int, size: int, made: list[int]) -> Iterator[bytes]:
    for number in range(count):
        made.append(number)
        yield make_message_frame(
            DirectoryDelta(
                origin="ams",
                incarnation=1,
                version=number,
                from_version=1,
                changed=[],
                removed=["x" * size],
            )
        )


async def test_a_list_is_made_as_the_peer_reads_and_comes_whole_and_in_order() -> None:
    size = 100_000
    count = 2 * OUT_BYTES_MAX // size
    async with joined() as (session, raw), trio.open_nursery() as nursery:
        made: list[int] = []
        session.send_list(removals(count, size, made))
        session.send_list(removals(1, 1, []))
        await trio.sleep(0.1)
        assert 0 < session.connection.out_bytes < BACKLOG_BYTES + 2 * size
        assert len(made) < count / 2
        nursery.start_soon(raw.lost_reason)
        session.send(DirectoryWanted(7))  # Is not held up by the list.
        await until(lambda: DirectoryWanted(7) in raw.messages)
        assert len(made) < count
        await until(
            lambda: (
                [
                    message.version
                    for message in raw.messages
                    if isinstance(message, DirectoryDelta) and message.removed
                ]
                == [*range(count), 0]
            )
        )
        nursery.cancel_scope.cancel()


async def test_lists_at_the_limit_and_one_past_it() -> None:
    async with joined() as (session, _raw):
        made: list[int] = []
        for _ in range(LISTS_MAX):
            session.send_list(removals(100, 100_000, made))
        await trio.sleep(0.02)
        assert session.usable
        session.send_list(removals(1, 1, made))
        await until(lambda: session.lost)
        assert session.lost == f"peer reads too slowly: {LISTS_MAX} lists wait for it"
        count = len(made)
        session.send_list(removals(1, 1, made))
        session.flush()
        assert len(made) == count


async def test_a_bug_in_a_list_ends_the_session() -> None:
    async with joined() as (session, _raw):
        frames: dict[str, bytes] = {}
        session.send_list(map(frames.__getitem__, ["bug"]))
        await until(lambda: session.lost)
        assert session.lost == "internal error: KeyError('bug')"


async def test_a_lost_session_takes_nothing_more() -> None:
    origin, pop = Origin(), Pop()
    async with origin.serving(), pop.linked(origin) as link:
        session = link._sessions[PriorityClass.BASIC]
        assert session.usable
        session.close("drain", "enough")
        session.close("drain", "twice")
        await until(lambda: session.lost is not None)
        assert session.lost == "drain: enough"
        session.send(DirectoryWanted(1))
        session.send_encoded(b"x")
        session.flush()
        session.close("drain", "thrice")
        assert not session.usable
        assert session.peer.name == "ams"


@pytest.mark.pure
async def test_timers_ping_and_convict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edged.wire.backbone.link.PING_INTERVAL_S", 0.05)
    monkeypatch.setattr("edged.wire.backbone.link.SILENCE_S_MAX", 0.3)
    origin, pop = Origin(), Pop()
    async with origin.serving() as server, pop.linked(origin) as link:
        basic = link._sessions[PriorityClass.BASIC]
        await until(lambda: server.statistics().sessions == 4)
        before = basic.connection.received_bytes
        await until(lambda: basic.connection.received_bytes > before + 60)
        assert basic.usable
        remote: list[BackboneSession] = [
            session
            for session in server._sessions
            if session.peer.purpose == "media" and session.peer.priority is PriorityClass.BASIC
        ]
        remote[0].connection.set_timeout(float("inf"))
        monkeypatch.setattr(remote[0], "flush", lambda: None)
        monkeypatch.setattr(remote[0], "handle_timeout", lambda now: None)
        monkeypatch.setattr(remote[0], "data_received", lambda data, now: None)
        await until(lambda: basic.lost)
        assert "silent for 0." in (basic.lost or "")


async def test_nobody_answers_at_first() -> None:
    origin, pop = Origin(), Pop()
    origin.address = free_address()
    async with pop.linked(origin, wait=False) as link:
        await trio.sleep(0.05)
        assert not link.is_up(None)
        async with origin.serving():
            await until(lambda: link.is_up(None))


async def test_ipv6_carries_the_classs_dscp_too_at_both_ends() -> None:
    origin, pop = Origin(), Pop()
    origin.address = "[::1]:0"
    async with origin.serving() as server, pop.linked(origin) as link:
        await until(lambda: server.statistics().sessions == 4)
        for end in (link._sessions.values(), server._sessions):
            seen = set()
            for session in end:
                sock = session.connection.sock
                assert sock.family == socket.AF_INET6
                seen.add(sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS))
            assert seen == {AF41 << 2, AF42 << 2, AF43 << 2, CS6 << 2}
