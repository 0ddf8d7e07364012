"""The pump: one task drains all ready sockets without awaits and flushes once per batch.

In Python the cost of a byte is the wake-up, so nobody here awaits a socket. One epoll per class of
connection hangs in a master epoll that Trio watches; a turn polls publishers and the backbone, each
up to its budget, feeds the sessions' cores from one reused buffer, runs due timers, lets at-flush
callbacks frame what was gathered, and flushes every dirty connection once. With few events there is
no tick (latency); with many, turns are spaced by an adaptive tick of up to TICK_S_MAX (measured in
tests/bench/ingest).

Viewers, chatters and TLS handshakes come behind, and have the time between: whatever they want,
publishers are looked at again after SERVE_S_MAX, twice over while work is spread (`spread`), and
REFILL_S_MAX more while sockets that had no room are refilled. That is done as soon as they have
some, tick or not: what one tick's bytes do not fit must not wait for the next.

What a session, a flush callback or spread work raises ends that alone. A bug of the pump itself
ends `run` and closes all its sockets; it can't be begun anew, so it ends the role and the process.
"""

import contextlib
import heapq
import itertools
import math
import os
import select
import socket
import ssl
from collections import deque
from collections.abc import Callable
from functools import partial

import structlog
import trio

from edged.errors import EdgedError
from edged.runtime.connection import OUT_BYTES_MAX, READS_TLS_MAX, Connection
from edged.runtime.pace import Pace
from edged.runtime.pumped import MakeHandler, PumpClass, PumpHandler, PumpStatistics
from edged.runtime.serving import Batch, serve_batch
from edged.runtime.timer_fd import TimerFd

__all__ = ["Connection", "MakeHandler", "Pump", "PumpClass", "PumpHandler", "PumpStatistics"]

RECEIVE_BYTES = 256 * 1024  # The one reused buffer: several ticks of a 30 Mbps publisher.
HANDSHAKE_S_MAX = 10.0  # TLS from accept to done.
HANDSHAKES_PER_BATCH_MAX = 16  # Each costs about 1 ms; beside viewers who are in already.
BUDGETS = {  # Connections visited per turn; what is left stays ready for the next.
    PumpClass.PUBLISHER: 2048,
    PumpClass.BACKBONE: 256,
}
SERVED = (PumpClass.VIEWER, PumpClass.CHATTER)  # In the time that is left.
SERVE_S_MAX = 0.002  # In one go, for those, and as much for spread work.
REFILL_S_MAX = 0.001  # In one go, for those of them whose socket has room again.
# All who are ready, so that a batch's time tells how late viewers are. For more of epoll's entries,
# of 12 bytes each, malloc would have pages mapped at each poll.
SERVE_BATCH_MAX = 5000
SERVE_INTERVAL_S_MIN = 0.003  # Between goes within a tick, if all is done: each costs a wake-up.
SERVE_AGAIN_MIN = 8  # Served at a time: then others have come meanwhile, likely.
WRITABLE_PER_TURN_MAX = 1024

logger = structlog.get_logger("edged.pump")

Work = Callable[[float], bool]


class Pump:
    """All data-plane sockets of one role.

    `share_ports`: its listeners share their ports with those of the role's other processes.
    """

    def __init__(self, *, share_ports: bool = False) -> None:
        self.share_ports = share_ports
        self._pace = Pace()
        self._master = select.epoll()
        self._epolls = {pump_class: select.epoll() for pump_class in PumpClass}
        self._handshakes = select.epoll()
        self._writers = select.epoll()  # Those that wait for room: the backbone, publishers
        self._served_writers = select.epoll()  # and the others;
        self._waiting = 0  # how many they are.
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._soon = select.epoll()  # Whom the tick does not hold up.
        writers = self._writers, self._served_writers
        for epoll in (*self._epolls.values(), self._handshakes, *writers):
            self._master.register(epoll.fileno(), select.EPOLLIN)
        served = [self._epolls[pump_class] for pump_class in SERVED]
        for epoll in (*served, self._handshakes, *writers):
            self._soon.register(epoll.fileno(), select.EPOLLIN)
        self._timer = TimerFd()  # Of the tick.
        self._soon.register(self._timer.fd, select.EPOLLIN)
        self._master.register(self._wake_fd, select.EPOLLIN)
        self._connections: dict[int, Connection] = {}
        self._buffer = memoryview(bytearray(RECEIVE_BYTES))
        self._dirty: list[Connection] = []
        self._readable: list[Connection] = []
        self._lost: list[Connection] = []
        self._batch: Batch = deque()  # Served in order, over some goes;
        self._batch_at = 0.0  # polled then.
        self._again: dict[Connection, None] = {}  # Of the next batch: TLS may hold bytes of theirs.
        self._room: deque[int] = deque()  # Whose sockets have room, as of the last poll.
        self._spread: deque[Work] = deque()
        self._flush_callbacks: dict[Callable[[], None], None] = {}
        self._timers: list[tuple[float, int, Connection]] = []
        self._timer_ids = itertools.count()
        self._in_turn = self._woken = False
        self._turns = self._events = 0
        self._served = 0  # Events between turns.

    @property
    def lag_s(self) -> float:
        """How late the loop ran lately; decays with time."""
        return self._pace.lag_s(trio.current_time())

    async def run(self) -> None:
        """Turn until cancelled; every connection left is then closed."""
        last = trio.current_time()
        try:
            while True:
                if not self._pace.tick_s:
                    with trio.move_on_at(self._next_timer()):
                        await trio.lowlevel.wait_readable(self._master.fileno())
                started = trio.current_time()
                events = self._turn(started)
                ended = trio.current_time()
                self._pace.note_turn(events + self._served, started - last)
                self._note_lag(ended - started)
                last, self._served = started, 0
                if not self._pace.tick_s:
                    continue
                # Many events: the next turn has some, whenever it comes.
                if (until := started + self._pace.tick_s) > ended:
                    await self._pause(until)
                else:
                    await trio.lowlevel.checkpoint()
                    self._note_lag(trio.current_time() - ended)
        finally:
            self._shut()

    def add(
        self,
        sock: socket.socket,
        make_handler: MakeHandler,
        pump_class: PumpClass,
        *,
        tls: ssl.SSLContext | None = None,
        server_side: bool = True,
        server_hostname: str | None = None,
        out_bytes_max: int = OUT_BYTES_MAX,
        peer: str = "",
    ) -> Connection:
        """Take a connected socket over; its handler is made when it can carry bytes (after TLS).

        Raises OSError or ValueError, with the socket closed, when the peer is gone already.
        """
        sock.setblocking(False)
        if tls is not None:
            try:
                sock.getpeername()  # A peer that has reset by now: `wrap_socket` would leak it.
                sock = tls.wrap_socket(
                    sock,
                    server_side=server_side,
                    do_handshake_on_connect=False,
                    server_hostname=server_hostname,
                    suppress_ragged_eofs=True,
                )
            except (OSError, ValueError):
                sock.close()
                raise
        connection = Connection(
            self, sock, make_handler, pump_class, peer=peer, out_bytes_max=out_bytes_max
        )
        self._connections[connection.fd] = connection
        epoll = self._handshakes if tls is not None else self._epolls[pump_class]
        epoll.register(connection.fd, select.EPOLLIN)
        if tls is None:
            self._guard(connection, connection.begin)
        else:
            connection.set_timeout(self.now() + HANDSHAKE_S_MAX)
            if not server_side:  # A client speaks first.
                self._readable.append(connection)
                self._wake()
        return connection

    def at_flush(self, callback: Callable[[], None]) -> None:
        """Call back once, at the end of this turn and before its flush."""
        if callback not in self._flush_callbacks:
            self._flush_callbacks[callback] = None
            self._wake()

    def spread(self, work: Work) -> None:
        """Do what may take long beside publishers: `work(until)` again and again, while True.

        It goes on until that monotonic time at most, and returns whether there is more.
        """
        self._spread.append(work)
        self._wake()

    def now(self) -> float:
        """Monotonic seconds, the clock of every core in this pump."""
        return trio.current_time()

    def statistics(self) -> PumpStatistics:
        """Counters for metrics and `edged top`."""
        return PumpStatistics(
            turns=self._turns,
            events=self._events,
            connections=len(self._connections),
            lag_s=self.lag_s,
            tick_s=self._pace.tick_s,
        )

    # What connections call.

    def mark_dirty(self, connection: Connection) -> None:
        """Flush this connection at the end of the turn."""
        self._dirty.append(connection)
        self._wake()

    def mark_readable(self, connection: Connection) -> None:
        """Visit this connection in the next turn."""
        self._readable.append(connection)
        self._wake(force=True)

    def mark_lost(self, connection: Connection) -> None:
        """Take this connection out at the end of the turn."""
        self._lost.append(connection)
        self._wake()

    def schedule(self, connection: Connection, at: float) -> None:
        """Run the connection's timeout at that time."""
        if at < math.inf:
            connection.scheduled_at = at
            heapq.heappush(self._timers, (at, next(self._timer_ids), connection))
            self._wake()

    def interest(self, connection: Connection, mask: int) -> None:
        """Change what the descriptor is watched for."""
        if connection.handshaking:
            self._handshakes.modify(connection.fd, mask)
            return
        self._epolls[connection.pump_class].modify(connection.fd, mask & select.EPOLLIN)
        waits = bool(mask & select.EPOLLOUT)
        writers = self._writers_of(connection)
        if waits and not connection.waits_for_room:
            writers.register(connection.fd, select.EPOLLOUT)
            self._waiting += 1
        elif connection.waits_for_room and not waits:
            writers.unregister(connection.fd)
            self._waiting -= 1
        connection.waits_for_room = waits

    def established(self, connection: Connection) -> None:
        """Move a connection from the handshakes to its class."""
        self._handshakes.unregister(connection.fd)
        self._epolls[connection.pump_class].register(connection.fd, select.EPOLLIN)

    def fail(self, connection: Connection, error: Exception) -> None:
        """End one session: its peer's fault, or a bug of ours; never the others."""
        if isinstance(error, EdgedError):
            connection.abort(str(error))
        else:
            logger.error("session failed", peer=connection.peer, exc_info=error)
            connection.abort(f"internal error: {error!r}")

    # One turn.

    def _turn(self, now: float) -> int:
        self._in_turn = True
        self._turns += 1
        if self._woken:
            self._woken = False
            os.eventfd_read(self._wake_fd)
        events = 0
        readable, self._readable = self._readable, []
        for connection in readable:
            if connection.pump_class in SERVED:
                self._again[connection] = None
            else:
                self.visit(connection, select.EPOLLIN, now)
        for pump_class, budget in BUDGETS.items():
            ready = self._epolls[pump_class].poll(0, budget)
            events += len(ready)
            self._visit_all(ready, now)
        self._refill()
        self._run_timers(now)
        self._flush()
        events += self._serve()
        self._end_turn()
        self._events += events
        return events

    def _serve(self, until: float = math.inf) -> int:
        """Visit viewers, chatters and handshakes, at most SERVE_S_MAX long; then spread work."""
        now = trio.current_time()
        until, batch = min(until, now + SERVE_S_MAX), self._batch
        if not batch:
            self._batch_at = now
            for pump_class in SERVED:
                self._take_batch(self._epolls[pump_class].poll(0, SERVE_BATCH_MAX))
            self._take_batch(self._handshakes.poll(0, HANDSHAKES_PER_BATCH_MAX))
            batch.extend((connection, select.EPOLLIN) for connection in self._again)
            self._again.clear()
        visited = serve_batch(self, batch, self._buffer, trio.current_time(), until)
        now = trio.current_time()
        if visited and not batch:
            self._note_lag(now - self._batch_at)
        if self._spread:  # For longer where there are few publishers: each go costs something.
            self._do_spread(now + (SERVE_S_MAX if self._pace.tick_s else 2 * SERVE_S_MAX))
        return visited

    def _take_batch(self, ready: list[tuple[int, int]]) -> None:
        connections = self._connections
        for fd, mask in ready:
            connection = connections.get(fd)
            if connection is not None:
                self._again.pop(connection, None)
                self._batch.append((connection, mask))

    def _do_spread(self, until: float) -> None:
        """Each in its turn, a go at least; a work that fails has failed whoever asked for it."""
        for _ in range(len(self._spread)):
            work = self._spread.popleft()
            try:
                more = work(until)
            except Exception:
                logger.exception("spread work failed", work=repr(work))
                more = False
            if more:
                self._spread.append(work)
            if trio.current_time() >= until:
                break

    def _end_turn(self) -> None:
        self._flush()
        self._in_turn = False
        if self._readable or self._dirty or self._lost or self._flush_callbacks or self.unserved:
            self._wake()

    @property
    def unserved(self) -> bool:
        """Whether viewers, chatters, handshakes or spread work wait for their next go."""
        return bool(self._batch or self._again or self._spread or self._room)

    async def _pause(self, until: float) -> None:
        """The rest of the tick: for viewers, and for those whose socket has room again."""
        timer, wait_readable = self._timer, trio.lowlevel.wait_readable
        served, now = 0, trio.current_time()
        while True:
            if self.unserved:
                await trio.lowlevel.checkpoint()
            elif not served:  # Else some have come while it slept, likely.
                timer.set(until - now)
                await wait_readable(self._soon.fileno())
            if trio.current_time() >= until:
                break
            self._in_turn = True
            served = self._serve_on(until)
            self._served += served
            self._in_turn = False
            if not self.unserved:
                timer.set(min(SERVE_INTERVAL_S_MIN, until - trio.current_time()))
                await wait_readable(timer.fd)
            if (now := trio.current_time()) >= until:
                break
        self._note_lag(trio.current_time() - until)

    def _serve_on(self, until: float) -> int:
        """Serve, again at once while it is worth it: every return to Trio costs a few dozen."""
        served = 0
        while True:
            self._refill()
            served += (visited := self._serve(until))
            self._flush()
            if visited < SERVE_AGAIN_MIN or self._spread or trio.current_time() >= until:
                return served

    def _refill(self) -> None:
        """Send to whose socket has room again; for who is served, REFILL_S_MAX long."""
        if not self._waiting:
            self._room.clear()
            return
        for fd, _ in self._writers.poll(0, WRITABLE_PER_TURN_MAX):
            self._flush_waiting(fd)
        room = self._room
        if not room:
            room.extend(fd for fd, _ in self._served_writers.poll(0, WRITABLE_PER_TURN_MAX))
        until = trio.current_time() + REFILL_S_MAX
        while room:
            self._flush_waiting(room.popleft())
            if trio.current_time() >= until:
                break

    def _flush_waiting(self, fd: int) -> None:
        connection = self._connections.get(fd)
        if connection is not None and connection.waits_for_room:
            self._guard(connection, connection.flush)

    def _writers_of(self, connection: Connection) -> select.epoll:
        return self._served_writers if connection.pump_class in SERVED else self._writers

    def _visit_all(self, ready: list[tuple[int, int]], now: float) -> None:
        connections, buffer = self._connections, self._buffer
        for fd, mask in ready:
            connection = connections.get(fd)
            if connection is None:
                continue
            if mask != select.EPOLLIN or connection.handshaking or connection.lost is not None:
                self.visit(connection, mask, now)
                continue
            try:  # As `visit` does; the usual case pays no call for it.
                connection.take_readable(buffer, now)
            except Exception as error:
                self.fail(connection, error)

    def visit(self, connection: Connection, mask: int, now: float) -> None:
        """Do what is to be done for one connection."""
        if connection.lost is not None:
            return
        try:
            if connection.handshaking:
                connection.take_handshake()
                return
            if mask & select.EPOLLIN:
                connection.take_readable(self._buffer, now)
            if mask & (select.EPOLLHUP | select.EPOLLERR) and not connection.ended:
                connection.take_hangup()
        except Exception as error:
            self.fail(connection, error)

    def _run_timers(self, now: float) -> None:
        timers = self._timers
        while timers and timers[0][0] <= now:
            at, _, connection = heapq.heappop(timers)
            if at != connection.scheduled_at or connection.lost is not None:
                continue
            connection.scheduled_at = math.inf
            if connection.timeout_at > now:
                self.schedule(connection, connection.timeout_at)
                continue
            # What has come is heard before a verdict; under TLS that may be several records.
            for _ in range(READS_TLS_MAX if connection.ssl is not None else 1):
                self.visit(connection, select.EPOLLIN, now)
            if not connection.ended and connection.timeout_at <= now:
                self._guard(connection, partial(connection.run_timeout, now))

    def _flush(self) -> None:
        while self._flush_callbacks:
            callbacks, self._flush_callbacks = self._flush_callbacks, {}
            for callback in callbacks:
                try:
                    callback()
                except Exception:  # One service's bug must not end the others' sockets.
                    logger.exception("flush callback failed", callback=repr(callback))
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            self._guard(connection, connection.flush)
        while self._lost:
            lost, self._lost = self._lost, []
            for connection in lost:
                self._remove(connection)

    def _remove(self, connection: Connection) -> None:
        if self._connections.pop(connection.fd, None) is None:
            return
        epoll = self._handshakes if connection.handshaking else self._epolls[connection.pump_class]
        with contextlib.suppress(OSError):
            epoll.unregister(connection.fd)
        if connection.waits_for_room:
            self._waiting -= 1
            with contextlib.suppress(OSError):
                self._writers_of(connection).unregister(connection.fd)
        self._guard(connection, connection.removed)

    def _guard(self, connection: Connection, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            self.fail(connection, error)

    def _next_timer(self) -> float:
        return self._timers[0][0] if self._timers else math.inf

    def _wake(self, *, force: bool = False) -> None:
        if (force or not self._in_turn) and not self._woken:
            self._woken = True
            os.eventfd_write(self._wake_fd, 1)

    def _note_lag(self, late_s: float) -> None:
        self._pace.note_lag(late_s, trio.current_time())

    def _shut(self) -> None:
        for connection in list(self._connections.values()):
            connection.abort("the process is stopping")
        self._in_turn = True
        self._flush()
        writers = self._writers, self._served_writers
        for epoll in (*self._epolls.values(), self._handshakes, *writers, self._soon, self._master):
            epoll.close()
        self._timer.close()
        os.close(self._wake_fd)
        self._woken = True  # For ever: nobody wakes it any more.
