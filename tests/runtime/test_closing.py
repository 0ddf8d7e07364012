"""How a connection ends over real TCP: nothing that was said is destroyed by a reset."""

import contextlib
import socket
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from edged.runtime import connection as connection_module
from edged.runtime.pump import (
    HANDSHAKES_PER_BATCH_MAX,
    SERVE_S_MAX,
    Connection,
    Pump,
    PumpClass,
)
from edged.runtime.tls import Identity, MutualTls
from edged.tools.cert import make_authority, make_host_certificate
from tests.runtime.test_pump import Recorder, receive, running_pump


@contextlib.contextmanager
def tcp_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection over loopback: ours, and the peer's, which is closed at the end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    with peer:
        peer.setblocking(False)
        yield ours, peer


@contextlib.asynccontextmanager
async def connected(pump_class: PumpClass) -> AsyncIterator[tuple[Recorder, socket.socket, Pump]]:
    async with running_pump() as pump:
        with tcp_pair() as (ours, peer):
            handler = pump.add(ours, Recorder, pump_class, peer="test").handler
            assert isinstance(handler, Recorder)
            yield handler, peer, pump


async def test_a_peer_that_is_still_sending_gets_our_last_word() -> None:
    async with connected(PumpClass.PUBLISHER) as (handler, peer, _):
        handler.connection.pause_reading()
        peer.send(bytes(5000))  # Unread: closing the socket now would reset the connection.
        handler.connection.write(b"taken over")
        handler.connection.close("taken over")
        await trio.sleep(0.05)
        peer.send(bytes(5000))
        assert await receive(peer, 100) == b"taken over"
        assert peer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        assert handler.lost == []
        peer.shutdown(socket.SHUT_WR)
        await handler.until(lambda: bool(handler.lost))
        assert handler.lost == ["taken over"]
        assert handler.received == b"", "what comes after the close is not heard"


async def test_a_peer_is_heard_out_for_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "HEAR_OUT_S", 0.05)
    async with connected(PumpClass.PUBLISHER) as (handler, peer, _):
        handler.connection.write(b"bye")
        started_at = trio.current_time()
        handler.connection.close("bye")
        await handler.until(lambda: bool(handler.lost))
        assert trio.current_time() - started_at >= 0.05
        assert await receive(peer, 4) == b"bye"


@pytest.mark.parametrize("excess", [0, 1])
async def test_a_peer_is_heard_out_for_so_many_bytes(
    monkeypatch: pytest.MonkeyPatch, excess: int
) -> None:
    monkeypatch.setattr(connection_module, "HEAR_OUT_BYTES_MAX", 1001)
    async with connected(PumpClass.PUBLISHER) as (handler, peer, _):
        handler.connection.write(b"bye")
        handler.connection.close("bye")
        await receive(peer, 4)
        peer.send(bytes(1000 + excess))
        await trio.sleep(0.05)
        assert handler.lost == (["bye"] if excess else [])


async def test_a_viewer_that_asks_no_more_still_gets_all() -> None:
    size = 8 * 2**20
    async with running_pump() as pump:
        with tcp_pair() as (ours, peer):
            made = pump.add(ours, Recorder, PumpClass.VIEWER, out_bytes_max=2 * size)
            handler = made.handler
            assert isinstance(handler, Recorder)
            handler.connection.write(bytes(size))
            peer.shutdown(socket.SHUT_WR)
            assert len(await receive(peer, size + 1)) == size
            await handler.until(lambda: bool(handler.lost))
            assert handler.lost == ["closed by peer"]


async def test_one_visit_reads_one_buffer_and_leaves_the_rest_for_the_next_turn() -> None:
    async with connected(PumpClass.PUBLISHER) as (handler, peer, pump):
        handler.connection.pause_reading()
        with contextlib.suppress(BlockingIOError):
            for _ in range(100):
                peer.send(bytes(65536))
                await trio.sleep(0.001)
        turns = pump.statistics().turns
        handler.connection.resume_reading()
        await handler.until(lambda: len(handler.received) > 2**20)
        assert pump.statistics().turns - turns >= handler.visits


async def test_what_has_come_is_heard_before_a_verdict_of_silence() -> None:
    """A receive low water mark hides bytes from the pump; a timer must not take it for silence."""
    async with connected(PumpClass.PUBLISHER) as (handler, peer, pump):
        handler.connection.set_receive_low_water(1000)
        handler.on_data = lambda _: handler.connection.set_timeout(pump.now() + 60)
        handler.connection.set_timeout(pump.now() + 0.05)
        peer.send(b"a whole message")
        await handler.until(lambda: bool(handler.received))
        await trio.sleep(0.02)
        assert handler.timeouts == []


@pytest.mark.pure
async def test_handshakes_are_bounded_in_each_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_authority(tmp_path, "test", now=time.time())
    made = MutualTls(make_host_certificate(tmp_path, Identity("pop", "a"), now=time.time()))
    steps: Counter[int] = Counter()
    done = trio.Event()
    take_handshake = Connection.take_handshake

    def note(connection: Connection) -> None:
        steps[pump.statistics().turns] += 1
        if steps.total() == 3 * HANDSHAKES_PER_BATCH_MAX:
            done.set()
        time.sleep(SERVE_S_MAX / 2)
        take_handshake(connection)

    monkeypatch.setattr(Connection, "take_handshake", note)
    async with running_pump() as pump:
        with contextlib.ExitStack() as stack:
            for _ in range(3 * HANDSHAKES_PER_BATCH_MAX):
                ours, peer = stack.enter_context(tcp_pair())
                client = made.client.wrap_socket(peer.dup(), do_handshake_on_connect=False)
                stack.enter_context(client)
                client.setblocking(False)
                with contextlib.suppress(ssl.SSLWantReadError):
                    client.do_handshake()  # Its hello waits for us.
                pump.add(ours, Recorder, PumpClass.VIEWER, tls=made.server)
            with trio.fail_after(5):
                await done.wait()
            assert max(steps.values()) <= 2, "then publishers are looked at again"
