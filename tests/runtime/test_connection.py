"""One connection at a time: TLS on socket pairs, partial writes, bounds, and broken handshakes."""

import contextlib
import errno
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from unittest import mock

import pytest
import trio
from msgspec import Struct

from edged.errors import EdgedError
from edged.runtime import connection as connection_module
from edged.runtime import pump as pump_module
from edged.runtime.connection import (
    IOV_MAX,
    LOW_WATER_BYTES_MAX,
    OUT_LOW_BYTES,
    READS_BACKBONE_TLS_MAX,
    READS_TLS_MAX,
    Connection,
)
from edged.runtime.kernel_bytes import KernelBytes, KernelPool
from edged.runtime.pump import Pump, PumpClass
from edged.runtime.sends import send_to_all
from edged.runtime.tls import Identity, MutualTls
from edged.tools.cert import make_authority, make_host_certificate
from tests.runtime.test_pump import Recorder, pair, receive, running_pump


class Contexts(Struct, frozen=True):
    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> Contexts:
    folder = Path(tmp_path_factory.mktemp("tls"))
    make_authority(folder, "test", now=time.time())
    made = MutualTls(make_host_certificate(folder, Identity("pop", "a"), now=time.time()))
    return Contexts(made.server, made.client)


def recorder_of(connection: Connection) -> Recorder:
    assert isinstance(connection.handler, Recorder)
    return connection.handler


class Pair(Struct):
    """Both ends of a TLS connection in one pump, after the handshake."""

    pump: Pump
    ours: Recorder
    theirs: Recorder


@contextlib.asynccontextmanager
async def tls_pair(contexts: Contexts, out_bytes_max: int = 8 * 2**20) -> AsyncIterator[Pair]:
    async with running_pump() as pump:
        left, right = socket.socketpair()
        for sock in (left, right):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 * 1024)
        ours = pump.add(
            left, Recorder, PumpClass.VIEWER, tls=contexts.server, out_bytes_max=out_bytes_max
        )
        theirs = pump.add(
            right, Recorder, PumpClass.BACKBONE, tls=contexts.client, server_side=False
        )
        with trio.fail_after(5):
            await ours.wait_established()
            await theirs.wait_established()
        yield Pair(pump, recorder_of(ours), recorder_of(theirs))


def pattern(size: int) -> bytes:
    return bytes(range(251)) * (size // 251) + bytes(size % 251)


async def test_tls_carries_bytes_both_ways_and_proves_who_speaks(contexts: Contexts) -> None:
    async with tls_pair(contexts) as both:
        both.ours.connection.write_many([b"one ", b"", b"two"])
        both.theirs.connection.write(b"three")
        await both.theirs.until(lambda: bytes(both.theirs.received) == b"one two")
        await both.ours.until(lambda: bytes(both.ours.received) == b"three")
        assert both.ours.connection.ssl is not None
        assert both.ours.connection.ssl.version() == "TLSv1.3"
        assert both.ours.connection.sent_bytes == 7
        assert both.ours.connection.received_bytes == 5


async def test_partial_tls_writes_lose_and_repeat_nothing(contexts: Contexts) -> None:
    """The kernel's buffer holds a fraction of this: every send is cut somewhere."""
    data = pattern(1_500_000)
    async with tls_pair(contexts) as both:
        both.theirs.connection.pause_reading()
        sizes = (1, 100_000, 16_384, 7, 300_000)
        start = 0
        while start < len(data):
            size = sizes[start % len(sizes)]
            both.ours.connection.write(data[start : start + size])
            start += size
        await trio.sleep(0.01)
        assert 0 < both.ours.connection.out_bytes < len(data)
        both.theirs.connection.resume_reading()
        await both.theirs.until(lambda: len(both.theirs.received) >= len(data))
        assert bytes(both.theirs.received) == data
        assert both.ours.connection.out_bytes == 0
        assert both.ours.drains == 1


@pytest.mark.parametrize("excess", [0, 1])
async def test_the_out_queue_is_bounded_under_tls(contexts: Contexts, excess: int) -> None:
    limit = 2**20
    async with tls_pair(contexts, out_bytes_max=limit) as both:
        both.theirs.connection.pause_reading()
        both.ours.connection.write(bytes(limit + excess))
        await trio.sleep(0.01)
        slow = [f"peer reads too slowly: over {limit} bytes are queued"]
        assert both.ours.lost == (slow if excess else [])


async def test_what_tls_has_decrypted_is_not_forgotten(contexts: Contexts) -> None:
    """More records than one visit reads: no event will announce those that OpenSSL holds."""
    count = 2 * READS_BACKBONE_TLS_MAX
    async with tls_pair(contexts) as both:
        for _ in range(count):
            both.theirs.connection.write(bytes(16_384))
        await both.ours.until(lambda: len(both.ours.received) == count * 16_384)


async def test_pausing_in_the_midst_of_tls_records(contexts: Contexts) -> None:
    async with tls_pair(contexts) as both:
        both.ours.on_data = lambda data: both.ours.connection.pause_reading()
        both.theirs.connection.write(bytes(40_000))
        await both.ours.until(lambda: bool(both.ours.received))
        await trio.sleep(0.01)
        taken = len(both.ours.received)
        assert taken < 40_000
        while len(both.ours.received) < 40_000:
            before = len(both.ours.received)
            both.ours.connection.resume_reading()
            await both.ours.until(lambda before=before: len(both.ours.received) > before)  # type: ignore[misc]


async def test_close_flushes_under_tls(contexts: Contexts) -> None:
    async with tls_pair(contexts) as both:
        both.ours.connection.write(bytes(500_000))
        both.ours.connection.close("done")
        await both.theirs.until(lambda: bool(both.theirs.lost))
        assert len(both.theirs.received) == 500_000
        await both.ours.until(lambda: both.ours.lost == ["done"])


async def test_garbage_instead_of_a_handshake(contexts: Contexts) -> None:
    async with running_pump() as pump:
        ours, theirs = socket.socketpair()
        with theirs:
            connection = pump.add(ours, Recorder, PumpClass.VIEWER, tls=contexts.server)
            theirs.send(b"GET / HTTP/1.1\r\n\r\n")
            with trio.fail_after(5):
                await connection.wait_established()
            assert connection.handler is None
            assert connection.lost == "TLS handshake failed: HTTP_REQUEST"
            assert pump.statistics().connections == 0


async def test_a_peer_that_leaves_during_the_handshake(contexts: Contexts) -> None:
    async with running_pump() as pump:
        ours, theirs = socket.socketpair()
        connection = pump.add(ours, Recorder, PumpClass.VIEWER, tls=contexts.server)
        theirs.close()
        with trio.fail_after(5):
            await connection.wait_established()
        assert connection.lost is not None
        assert connection.lost.startswith("TLS handshake failed")


async def test_a_handshake_that_takes_too_long(
    contexts: Contexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump_module, "HANDSHAKE_S_MAX", 0.03)
    async with running_pump() as pump:
        ours, theirs = socket.socketpair()
        with theirs:
            connection = pump.add(ours, Recorder, PumpClass.VIEWER, tls=contexts.server)
            theirs.send(b"\x16\x03\x01\x02")  # The first bytes of a ClientHello, and then nothing.
            with trio.fail_after(5):
                await connection.wait_established()
            assert connection.lost == "TLS handshake took too long"


async def test_a_client_without_a_certificate_never_becomes_a_session(contexts: Contexts) -> None:
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname = False
    stranger.verify_mode = ssl.CERT_NONE
    made: list[Connection] = []

    def make(connection: Connection) -> Recorder:
        made.append(connection)
        return Recorder(connection)

    async with running_pump() as pump:
        left, right = socket.socketpair()
        ours = pump.add(left, make, PumpClass.BACKBONE, tls=contexts.server)
        pump.add(right, Recorder, PumpClass.BACKBONE, tls=stranger, server_side=False)
        with trio.fail_after(5):
            await ours.wait_established()
        assert made == []
        assert ours.lost == "TLS handshake failed: PEER_DID_NOT_RETURN_A_CERTIFICATE"


async def test_what_is_written_before_the_handshake_ends_leaves_after_it(
    contexts: Contexts,
) -> None:
    async with running_pump() as pump:
        left, right = socket.socketpair()
        ours = pump.add(left, Recorder, PumpClass.VIEWER, tls=contexts.server)
        ours.write(b"early")
        theirs = pump.add(right, Recorder, PumpClass.VIEWER, tls=contexts.client, server_side=False)
        with trio.fail_after(5):
            await theirs.wait_established()
        heard = recorder_of(theirs)
        await heard.until(lambda: bytes(heard.received) == b"early")


async def test_a_handler_that_cannot_be_made_ends_the_connection() -> None:
    def refuse(connection: Connection) -> Recorder:
        raise EdgedError("nobody is wanted here")

    async with running_pump() as pump:
        ours, theirs = socket.socketpair()
        with theirs:
            removed: list[int] = []
            connection = pump.add(ours, refuse, PumpClass.VIEWER)
            connection.on_removed = lambda: removed.append(1)
            theirs.setblocking(False)
            assert await receive(theirs, 1) == b""
            assert connection.lost == "nobody is wanted here"
            assert removed == [1]


async def test_many_small_writes_leave_in_order() -> None:
    async with running_pump() as pump:
        handler, peer = pair(pump)
        with peer:
            chunks = [index.to_bytes(4, "big") for index in range(3 * IOV_MAX)]
            handler.connection.write_many(chunks)
            assert await receive(peer, 4 * len(chunks)) == b"".join(chunks)


async def test_partial_plain_writes_lose_and_repeat_nothing() -> None:
    data = pattern(3_000_000)
    async with running_pump() as pump:
        handler, peer = pair(pump)
        with peer:
            handler.connection.write_many(
                [data[at : at + 9_999] for at in range(0, len(data), 9_999)]
            )
            await trio.sleep(0.01)
            assert 0 < handler.connection.out_bytes < len(data)
            assert await receive(peer, len(data)) == data


async def test_what_is_sent_at_once_and_what_is_queued_leave_in_order() -> None:
    data = pattern(2_000_000)
    async with running_pump() as pump:
        handler, peer = pair(pump)
        with peer:
            connection = handler.connection
            connection.send([data[:1000]])
            assert connection.out_bytes == 0
            assert peer.recv(2000) == data[:1000], "it did not wait for the turn's end"
            connection.send([data[1000:400_000], b"", data[400_000:800_000]])
            assert 0 < connection.out_bytes < 799_000
            connection.write(data[800_000:900_000])
            connection.send([data[900_000:]])
            assert await receive(peer, len(data) - 1000) == data[1000:]
            assert connection.sent_bytes == len(data)
            assert connection.out_bytes == 0


@pytest.mark.parametrize("behind", [False, True], ids=["at once", "behind what waits"])
async def test_what_the_kernel_holds_arrives_whole(behind: bool) -> None:
    data, pool = pattern(3_000_000), KernelPool()
    held = KernelBytes(pool, [data[:999], data[999:]])
    first = pattern(500_000) if behind else b""
    async with running_pump() as pump:
        handler, peer = pair(pump)
        with peer:
            connection = handler.connection
            connection.write(first)
            await trio.sleep(0.01)
            connection.send_held(held)
            del held
            connection.send([b"and more"])
            assert 0 < connection.out_bytes < len(first + data), "no socket takes so much at once"
            expected = first + data + b"and more"
            assert await receive(peer, len(expected)) == expected
            assert connection.sent_bytes == len(expected)
    assert pool.files == 0


async def test_what_the_kernel_holds_goes_through_tls_too(contexts: Contexts) -> None:
    data = pattern(1_000_000)
    held = KernelBytes(KernelPool(), [data[:999], data[999:]])
    async with tls_pair(contexts) as both:
        both.ours.connection.send_held(held)
        await both.theirs.until(lambda: len(both.theirs.received) == len(data))
        assert both.theirs.received == data


async def test_sending_what_the_kernel_holds_to_a_peer_that_is_gone() -> None:
    async with running_pump() as pump:
        handler, peer = pair(pump)
        peer.close()
        handler.connection.send_held(KernelBytes(KernelPool(), [b"x"]))
        await handler.until(lambda: handler.connection.lost is not None)


async def test_sending_to_a_peer_that_is_gone_ends_the_connection() -> None:
    async with running_pump() as pump:
        handler, peer = pair(pump)
        peer.close()
        handler.connection.send([b"x"])
        await handler.until(lambda: handler.connection.lost is not None)


async def test_the_same_bytes_to_many_and_what_one_of_them_does_not_take_is_queued() -> None:
    async with running_pump() as pump:
        pairs = [pair(pump) for _ in range(4)]
        connections = [handler.connection for handler, _ in pairs]
        assert all(connection.clear for connection in connections)
        pairs[1][1].close()
        data = pattern(2_000_000)  # Beyond what a socket pair holds.
        send_to_all(connections, b"first")
        send_to_all([connections[0], connections[2]], data)
        assert not connections[0].clear
        assert connections[3].clear
        assert connections[1].lost == "connection failed: Broken pipe"
        assert [c.sent_bytes for c in connections][1::2] == [0, 5]
        assert await receive(pairs[0][1], len(data) + 5) == b"first" + data
        assert connections[0].sent_bytes == len(data) + 5
        for _, peer in pairs:
            peer.close()


@pytest.mark.pure
async def test_a_bug_about_one_of_many_ends_that_one() -> None:
    async with running_pump() as pump:
        (one, slow), (two, peer) = pair(pump), pair(pump)
        one.connection.sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                one.connection.sock.send(bytes(1 << 16))
        with mock.patch.object(Connection, "note_sent", side_effect=RuntimeError("ours")):
            send_to_all([one.connection, two.connection], b"hello")
        assert await receive(peer, 5) == b"hello"
        await one.until(lambda: bool(one.lost))
        assert one.lost == ["internal error: RuntimeError('ours')"]
        assert two.connection.lost is None
        for sock in (slow, peer):
            sock.close()


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.EINTR])
async def test_what_was_interrupted_is_queued(code: int) -> None:
    async with running_pump() as pump:
        handler, peer = pair(pump)
        with peer:
            handler.connection.note_sent(-code, (b"whole", b" and more"))
            assert await receive(peer, 14) == b"whole and more"
            assert handler.connection.sent_bytes == 14


@pytest.mark.parametrize(("size", "drains"), [(OUT_LOW_BYTES, 0), (OUT_LOW_BYTES + 1, 1)])
async def test_drained_is_told_only_after_the_low_water_mark(size: int, drains: int) -> None:
    async with running_pump() as pump:
        handler, peer = pair(pump)
        with peer:
            handler.connection.write(bytes(size))
            assert len(await receive(peer, size)) == size
            await trio.sleep(0.005)
            assert handler.drains == drains


async def test_after_its_end_a_connection_takes_nothing() -> None:
    async with running_pump() as pump:
        handler, peer = pair(pump)
        with peer:
            connection = handler.connection
            connection.abort("enough")
            calls: list[Callable[[], None]] = [
                lambda: connection.write(b"x"),
                lambda: connection.write_many([b"x"]),
                lambda: connection.send([b"x"]),
                connection.pause_reading,
                connection.resume_reading,
                lambda: connection.set_timeout(0.0),
                lambda: connection.set_receive_low_water(5000),
                lambda: connection.close("again"),
                lambda: connection.abort("again"),
            ]
            for call in calls:
                call()
            await handler.until(lambda: bool(handler.lost))
            assert handler.lost == ["enough"]
            assert connection.out_bytes == 0
            assert not handler.timeouts


@pytest.mark.parametrize(
    ("wanted", "set_to"), [(0, 1), (1, 1), (5000, 5000), (10**9, LOW_WATER_BYTES_MAX)]
)
async def test_the_receive_low_water_mark_is_bounded(wanted: int, set_to: int) -> None:
    async with running_pump() as pump:
        listener = socket.create_server(("127.0.0.1", 0))
        peer = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
        with listener, peer:
            connection = pump.add(accepted, Recorder, PumpClass.PUBLISHER)
            connection.set_receive_low_water(wanted)
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == set_to


async def test_a_closing_connection_gives_up_on_a_peer_that_reads_nothing(
    monkeypatch: pytest.MonkeyPatch, contexts: Contexts
) -> None:
    monkeypatch.setattr(connection_module, "CLOSE_LINGER_S", 0.02)
    async with tls_pair(contexts) as both:
        both.theirs.connection.pause_reading()
        both.ours.connection.write(bytes(2**20))
        both.ours.connection.close("done")
        both.ours.connection.set_timeout(both.pump.now() + 1000)  # Its own timer counts no more.
        await both.ours.until(lambda: bool(both.ours.lost))
        assert both.ours.lost == ["done"]


async def test_one_who_pipelines_under_tls_keeps_no_newcomer_out(contexts: Contexts) -> None:
    """More records than a visit reads, always: it is visited again, as others are."""
    async with tls_pair(contexts) as both:
        flooding = both.theirs.connection
        goes_on = True

        def again(data: bytes) -> None:
            if goes_on and flooding.out_bytes < 64 * 1024:
                for _ in range(4 * READS_TLS_MAX):
                    flooding.write(b"GET / HTTP/1.1\r\n\r\n")
                    flooding.flush()

        both.ours.on_data = again
        again(b"")
        await both.ours.until(lambda: both.ours.visits > 50)
        newcomer, peer = pair(both.pump)
        publisher, publishing = pair(both.pump, PumpClass.PUBLISHER)
        with peer, publishing:
            publishing.send(b"x")
            peer.send(b"q")
            await newcomer.until(lambda: bool(newcomer.received))
            await publisher.until(lambda: bool(publisher.received))
            await trio.sleep(1.0)
            assert both.pump.lag_s < 0.5, "nobody has been kept waiting"
        goes_on = False


async def test_what_is_sent_under_tls_leaves_at_once(contexts: Contexts) -> None:
    """So that its time counts as its sender's; `drained` is still told at the turn's end."""
    async with tls_pair(contexts) as both:
        both.ours.connection.send([b"one ", b"two"])
        assert both.ours.connection.out_bytes == 0
        data = pattern(300_000)
        both.ours.connection.send([data])
        assert 0 < both.ours.connection.out_bytes < len(data), "the kernel has no more room"
        before = both.ours.connection.out_bytes
        both.ours.connection.send([b"three"])
        assert both.ours.connection.out_bytes == before + 5
        assert both.ours.drains == 0
        await both.theirs.until(lambda: len(both.theirs.received) >= 7 + len(data) + 5)
        assert bytes(both.theirs.received) == b"one two" + data + b"three"
        await both.ours.until(lambda: both.ours.drains == 1)
