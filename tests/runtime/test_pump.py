"""The pump over real socket pairs: order, bounds, deadlines, fairness, TLS."""

import contextlib
import itertools
import math
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from unittest import mock

import pytest
import trio
from structlog.testing import capture_logs

from edged.errors import EdgedError
from edged.runtime import connection as connection_module
from edged.runtime.pace import TICK_S_MAX
from edged.runtime.pump import Connection, Pump, PumpClass


class Recorder:
    """A handler that keeps what it hears."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.received = bytearray()
        self.visits = 0
        self.lost: list[str] = []
        self.timeouts: list[float] = []
        self.drains = 0
        self.on_data: Callable[[bytes], None] = lambda data: None
        self.changed = trio.Event()

    def data_received(self, data: memoryview, now: float) -> None:
        self.visits += 1
        self.received += data
        self.on_data(bytes(data))
        self._change()

    def connection_lost(self, reason: str) -> None:
        self.lost.append(reason)
        self._change()

    def handle_timeout(self, now: float) -> None:
        self.timeouts.append(now)
        self._change()

    def drained(self) -> None:
        self.drains += 1
        self._change()

    def _change(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(5):
            while not condition():
                await self.changed.wait()


@asynccontextmanager
async def running_pump() -> AsyncIterator[Pump]:
    pump = Pump()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump.run)
        await trio.lowlevel.checkpoint()
        yield pump
        nursery.cancel_scope.cancel()


def pair(pump: Pump, pump_class: PumpClass = PumpClass.VIEWER) -> tuple[Recorder, socket.socket]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    connection = pump.add(ours, Recorder, pump_class, peer="test")
    assert isinstance(connection.handler, Recorder)
    return connection.handler, theirs


async def receive(sock: socket.socket, count: int) -> bytes:
    data = b""
    with trio.fail_after(5):
        while len(data) < count:
            await trio.lowlevel.wait_readable(sock)
            chunk = sock.recv(count - len(data))
            if not chunk:
                break
            data += chunk
    return data


async def test_bytes_go_both_ways() -> None:
    async with running_pump() as pump:
        handler, peer = pair(pump)
        with peer:
            peer.send(b"hello")
            await handler.until(lambda: bytes(handler.received) == b"hello")
            handler.connection.write(b"one ")
            handler.connection.write_many([b"two ", b"", b"three"])
            assert await receive(peer, 13) == b"one two three"
            assert handler.connection.sent_bytes == 13
            assert handler.connection.out_bytes == 0


async def test_a_peer_that_leaves_is_reported_once() -> None:
    async with running_pump() as pump:
        handler, peer = pair(pump)
        peer.close()
        await handler.until(lambda: bool(handler.lost))
        handler.connection.abort("again")
        await trio.testing.wait_all_tasks_blocked()
        assert handler.lost == ["closed by peer"]
        assert pump.statistics().connections == 0


async def test_an_operating_error_ends_that_session_only() -> None:
    async with running_pump() as pump:
        bad, bad_peer = pair(pump)
        good, good_peer = pair(pump)

        def refuse(data: bytes) -> None:
            raise EdgedError(f"cannot read {data!r}")

        bad.on_data = refuse
        with bad_peer, good_peer:
            bad_peer.send(b"x")
            await bad.until(lambda: bool(bad.lost))
            assert bad.lost == ["cannot read b'x'"]
            good_peer.send(b"y")
            await good.until(lambda: bytes(good.received) == b"y")
            assert await receive(bad_peer, 1) == b""


async def test_a_bug_ends_that_session_only() -> None:
    async with running_pump() as pump:
        bad, bad_peer = pair(pump)
        good, good_peer = pair(pump)

        def fail(data: bytes) -> None:
            raise ZeroDivisionError

        bad.on_data = fail
        with bad_peer, good_peer:
            bad_peer.send(b"x")
            await bad.until(lambda: bool(bad.lost))
            assert bad.lost == ["internal error: ZeroDivisionError()"]
            good_peer.send(b"y")
            await good.until(lambda: bytes(good.received) == b"y")


async def test_a_timer_fires_at_its_time_and_only_its_last_setting_counts() -> None:
    async with running_pump() as pump:
        handler, peer = pair(pump)
        with peer:
            set_at = pump.now()
            handler.connection.set_timeout(set_at + 0.01)
            handler.connection.set_timeout(set_at + 0.05)
            await handler.until(lambda: bool(handler.timeouts))
            assert handler.timeouts[0] >= set_at + 0.05
            handler.connection.set_timeout(pump.now() + 0.01)
            handler.connection.set_timeout(math.inf)
            await trio.sleep(0.03)
            assert len(handler.timeouts) == 1


async def test_a_timer_moved_forward_fires_early() -> None:
    async with running_pump() as pump:
        handler, peer = pair(pump)
        with peer:
            handler.connection.set_timeout(pump.now() + 60)
            handler.connection.set_timeout(pump.now() + 0.01)
            await handler.until(lambda: bool(handler.timeouts))


async def test_paused_reading_leaves_bytes_in_the_kernel() -> None:
    async with running_pump() as pump:
        handler, peer = pair(pump)
        with peer:
            handler.connection.pause_reading()
            peer.send(b"later")
            await trio.sleep(0.02)
            assert not handler.received
            handler.connection.resume_reading()
            await handler.until(lambda: bytes(handler.received) == b"later")


async def test_a_paused_peer_that_dies_is_noticed() -> None:
    async with running_pump() as pump:
        handler, peer = pair(pump)
        handler.connection.pause_reading()
        peer.close()
        await handler.until(lambda: bool(handler.lost))


@pytest.mark.parametrize("excess", [0, 1])
async def test_the_out_queue_is_bounded(excess: int) -> None:
    async with running_pump() as pump:
        ours, theirs = socket.socketpair()
        limit = 4 * 2**20
        connection = pump.add(ours, Recorder, PumpClass.VIEWER, out_bytes_max=limit)
        handler = connection.handler
        assert isinstance(handler, Recorder)
        with theirs:
            connection.write(bytes(limit))
            connection.write(bytes(excess))
            if excess:
                await handler.until(lambda: bool(handler.lost))
                assert handler.lost == [f"peer reads too slowly: over {limit} bytes are queued"]
            else:
                await trio.to_thread.run_sync(theirs.recv, 1)  # The kernel took its part.
                assert not handler.lost
                assert 0 < connection.out_bytes < limit


async def test_drained_is_told_when_the_peer_has_read() -> None:
    async with running_pump() as pump:
        handler, peer = pair(pump)
        with peer:
            size = 2 * 2**20
            handler.connection.write(bytes(size))
            await trio.sleep(0.01)
            assert handler.drains == 0
            assert len(await receive(peer, size)) == size
            await handler.until(lambda: handler.drains == 1)


async def test_close_flushes_what_is_queued() -> None:
    async with running_pump() as pump:
        handler, peer = pair(pump)
        with peer:
            size = 2 * 2**20
            handler.connection.write(bytes(size))
            handler.connection.close("done")
            handler.connection.write(b"too late")
            assert len(await receive(peer, size + 1)) == size
            await handler.until(lambda: bool(handler.lost))
            assert handler.lost == ["done"]


async def test_close_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "CLOSE_LINGER_S", 0.02)
    async with running_pump() as pump:
        handler, peer = pair(pump)
        with peer:
            handler.connection.write(bytes(2 * 2**20))
            handler.connection.close("done")
            await handler.until(lambda: bool(handler.lost))


async def test_at_flush_runs_once_per_turn_before_the_flush() -> None:
    async with running_pump() as pump:
        handler, peer = pair(pump)
        calls = []

        def frame() -> None:
            calls.append(1)
            handler.connection.write(b"framed")

        with peer:
            pump.at_flush(frame)
            pump.at_flush(frame)
            assert await receive(peer, 6) == b"framed"
            assert len(calls) == 1


async def test_receive_low_water_batches_visits() -> None:
    async with running_pump() as pump:
        listener = socket.create_server(("127.0.0.1", 0))
        peer = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
        connection = pump.add(accepted, Recorder, PumpClass.PUBLISHER)
        handler = connection.handler
        assert isinstance(handler, Recorder)
        with listener, peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.set_receive_low_water(4000)
            for _ in range(4):
                peer.send(bytes(1000))
                await trio.sleep(0.005)
            await handler.until(lambda: len(handler.received) == 4000)
            assert handler.visits == 1


async def test_many_events_bring_the_tick_and_quiet_removes_it() -> None:
    async with running_pump() as pump:
        pairs = [pair(pump, PumpClass.PUBLISHER) for _ in range(30)]
        until = time.monotonic() + 0.3
        while time.monotonic() < until:
            for _, peer in pairs:
                peer.send(b"x")
            await trio.sleep(0.001)
        assert pump.statistics().tick_s > 0
        await trio.sleep(0.01)
        for _, peer in pairs:
            peer.close()


async def test_publishers_are_served_before_viewers() -> None:
    pump = Pump()
    order: list[str] = []
    peers = []
    for name, pump_class in (("viewer", PumpClass.VIEWER), ("publisher", PumpClass.PUBLISHER)):
        handler, peer = pair(pump, pump_class)
        handler.on_data = lambda data, name=name: order.append(name)  # type: ignore[misc]
        peer.send(b"x")
        peers.append(peer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump.run)
        await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert order == ["publisher", "viewer"]
    for peer in peers:
        peer.close()


async def test_busy_viewers_hold_no_publisher_up() -> None:
    """200 ms of work for viewers, who are all served, in the order in which they came."""
    async with running_pump() as pump:
        order: list[int] = []
        with contextlib.ExitStack() as stack:

            def work(data: bytes) -> None:
                time.sleep(0.001)
                order.append(int.from_bytes(data, "big"))

            publisher, publishing = pair(pump, PumpClass.PUBLISHER)
            stack.enter_context(publishing)
            heard = trio.Event()
            publisher.on_data = lambda data: heard.set()
            viewers = [pair(pump) for _ in range(200)]
            for index, (viewer, peer) in enumerate(viewers):
                stack.enter_context(peer)
                viewer.on_data = work
                peer.send(index.to_bytes(2, "big"))
            await viewers[9][0].until(lambda: len(order) >= 10)
            publishing.send(b"x")
            before = len(order)
            await heard.wait()
            assert len(order) - before <= 10
            await viewers[-1][0].until(lambda: len(order) == 200)
            assert order == sorted(order)
            assert pump.lag_s > 0.05, "viewers had to wait, and new ones are told so"


async def test_busy_viewers_are_served_within_the_tick() -> None:
    """Many small questions, each sent when the one before is answered, are not one per tick."""
    async with running_pump() as pump:
        publishers = [pair(pump, PumpClass.PUBLISHER) for _ in range(30)]
        viewer, peer = pair(pump)
        viewer.on_data = viewer.connection.write
        with peer:
            until = time.monotonic() + 0.5
            answered = 0
            while time.monotonic() < until:
                for _, publishing in publishers:
                    publishing.send(b"x")
                peer.send(b"q")
                await receive(peer, 1)
                answered += 1
            assert pump.statistics().tick_s > 0
            assert answered > 2 * 0.5 / TICK_S_MAX
        for _, publishing in publishers:
            publishing.close()


async def test_viewers_who_never_rest_leave_the_others_their_turns() -> None:
    """Each asks again as soon as it is visited; publishers and tasks still come every tick."""
    async with running_pump() as pump:
        publisher, publishing = pair(pump, PumpClass.PUBLISHER)
        heard: list[float] = []
        publisher.on_data = lambda data: heard.append(time.monotonic())
        viewers = [pair(pump) for _ in range(50)]
        visits = 0

        def ask_again(data: bytes, peer: socket.socket) -> None:
            nonlocal visits
            time.sleep(0.0001)
            visits += 1
            peer.send(b"q")

        for viewer, peer in viewers:
            viewer.on_data = partial(ask_again, peer=peer)
            peer.send(b"q")
        waits, turns, until = [], [], time.monotonic() + 0.5
        while time.monotonic() < until:
            turns.append(time.monotonic())
            publishing.send(b"x")
            await trio.sleep(0.001)
            if len(heard) == len(turns):
                waits.append(heard[-1] - turns[-1])
        assert visits > 1000, "they were served meanwhile"
        gaps = sorted(later - at for at, later in itertools.pairwise(turns))
        assert gaps[len(gaps) // 2] < 10 * TICK_S_MAX
        assert waits
        assert sorted(waits)[len(waits) // 2] < 10 * TICK_S_MAX
        for sock in (publishing, *(peer for _, peer in viewers)):
            sock.close()


async def test_an_idle_pump_does_not_turn() -> None:
    """What woke it once does not wake it for ever."""
    async with running_pump() as pump:
        handler, peer = pair(pump)
        with peer:
            pump.at_flush(lambda: None)
            peer.send(b"x")
            await handler.until(lambda: bool(handler.received))
            await trio.sleep(0.1)
            before = pump.statistics().turns
            await trio.sleep(0.2)
            assert pump.statistics().turns - before <= 2


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_it_gives_back_every_descriptor() -> None:
    before = descriptors()
    async with running_pump() as pump:
        _, peer = pair(pump)
        peer.close()
        await trio.sleep(0.01)
    assert descriptors() == before


@pytest.mark.pure
async def test_a_tick_ends_at_its_time_though_viewers_come_late_in_it() -> None:
    """A turn is not put off by the time that viewers are left to gather."""
    async with running_pump() as pump:
        publishers = [pair(pump, PumpClass.PUBLISHER) for _ in range(30)]
        viewer, peer = pair(pump)
        ends, late = [math.inf], []
        pause, set_timer = pump._pause, pump._timer.set

        async def pause_and_note(until: float) -> None:
            ends.append(until)
            await pause(until)

        def set_and_note(after_s: float) -> None:
            late.append(trio.current_time() + after_s - ends[-1])
            set_timer(after_s)

        with contextlib.ExitStack() as stack:
            stack.enter_context(mock.patch.object(pump, "_pause", pause_and_note))
            stack.enter_context(mock.patch.object(pump._timer, "set", set_and_note))
            stack.enter_context(peer)
            for _, publishing in publishers:
                stack.enter_context(publishing)
            viewer.on_data = viewer.connection.write
            until = time.monotonic() + 0.3
            while time.monotonic() < until:
                for _, publishing in publishers:
                    publishing.send(b"x")
                peer.send(b"q")
                await receive(peer, 1)
        assert len(late) > 10
        assert sorted(late)[-3] < 0.0002, "but for what the machine takes between two lines"


async def test_spread_work_leaves_publishers_their_turns() -> None:
    async with running_pump() as pump:
        left = {"a": 30, "b": 30}
        order: list[str] = []
        done = trio.Event()

        def work(name: str, until: float) -> bool:
            while left[name] and trio.current_time() < until:
                time.sleep(0.0005)
                left[name] -= 1
                order.append(name)
            if not any(left.values()):
                done.set()
            return left[name] > 0

        def fail(until: float) -> bool:
            raise ValueError("a bug")

        publisher, peer = pair(pump, PumpClass.PUBLISHER)
        publisher.on_data = lambda data: order.append("publisher")
        with peer, capture_logs() as logs:
            pump.spread(partial(work, "a"))
            pump.spread(fail)
            pump.spread(partial(work, "b"))
            await trio.sleep(0.003)
            peer.send(b"x")
            with trio.fail_after(5):
                await done.wait()
        assert order.index("publisher") < 20
        assert 0 < order.index("b") < 20, "each in its turn"
        assert [line["event"] for line in logs] == ["spread work failed"]


async def test_stopping_the_pump_tells_every_handler() -> None:
    async with running_pump() as pump:
        handler, peer = pair(pump)
    assert handler.lost == ["the process is stopping"]
    peer.close()
