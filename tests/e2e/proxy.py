"""A user-space TCP proxy on loopback that makes a network of it: delay, a rate, stalls by loss.

    Chromium == proxy ==> edge        what goes through is never looked at: TLS stays whole

Each direction of each connection is a `Pipe`, sans-IO and seeded. A pipe sends as TCP does over a
network with that round trip: bytes arrive half of it later, in order; all pipes of a direction
share one bottleneck (`Bottleneck`, a token bucket that can be set at any time); and a lost packet
of 1,460 bytes holds up its own connection until it has been sent again, as RFC 8985 (RACK-TLP) has
it and Linux does: what follows a packet tells of its loss within a round trip, behind the last one
a probe is sent after two, and a packet that is lost again waits for a timeout.
What is on its way is bounded (`in_flight_bytes_max`), then the sender waits.
"""

import contextlib
import random
import socket
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import trio

PACKET_BYTES = 1_460  # Of payload, as over Ethernet.
TIMEOUT_S_MIN = 0.2  # Linux's TCP_RTO_MIN, which comes on top of the round trip.
DUPLICATES = 3  # So many packets behind a lost one leave no doubt; fewer may be out of order:
REORDERING = 1.25  # then a quarter of a round trip is waited for it (RFC 8985, 6.2).
PROBE_TRIPS = 2  # Round trips to a tail loss probe (7.2), and TIMEOUT_S_MIN for an ack that delays.
PIPE_BYTES_MAX = 64 * 1024  # On its way or queued at the bottleneck; a router's buffer.
BURST_S = 0.02  # What an idle bottleneck saves up.
RECEIVE_BYTES = 16 * 1024  # 11 packets: these share a moment.


class Bottleneck:
    """A rate in bytes per second that pipes share; None is none."""

    def __init__(self, bytes_per_s: float | None = None) -> None:
        self.bytes_per_s = bytes_per_s
        self._free_at = 0.0

    def take(self, size: int, now: float) -> float:
        """When the last of so many bytes has passed, behind all that was before."""
        if self.bytes_per_s is None:
            self._free_at = now
            return now
        self._free_at = max(self._free_at, now - BURST_S) + size / self.bytes_per_s
        return max(now, self._free_at)


@dataclass
class Weather:
    """What the network is like; it may change while connections are open."""

    rtt_s: float = 0.0
    loss: float = 0.0  # Of packets.
    down: Bottleneck = field(default_factory=Bottleneck)
    up: Bottleneck = field(default_factory=Bottleneck)
    in_flight_bytes_max: int = PIPE_BYTES_MAX  # Of one direction of a connection.
    losses: int = 0  # So far.


class Pipe:
    """One direction of a connection: when what came in may go out."""

    def __init__(self, weather: Weather, bottleneck: Bottleneck, rng: random.Random) -> None:
        self._weather = weather
        self._bottleneck = bottleneck
        self._rng = rng
        self._queue: deque[tuple[float, bytes]] = deque()
        self._last_due = 0.0
        # Of a last packet that is lost: when it was sent, would have come, what is before came.
        self._tail: tuple[float, float, float] | None = None
        self.queued_bytes = 0

    @property
    def is_full(self) -> bool:
        return self.queued_bytes >= self._weather.in_flight_bytes_max

    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes in. A packet after a lost one waits for it: TCP delivers in order."""
        self._tell_of_tail(now)
        starts = range(0, len(data), PACKET_BYTES)
        for at in starts:
            packet = data[at : at + PACKET_BYTES]
            due = self._bottleneck.take(len(packet), now) + self._weather.rtt_s / 2
            behind = len(starts) - 1 - at // PACKET_BYTES
            before, self._tail = self._last_due, None
            if self._is_lost():
                again_s = self._lost_again_s()
                if not behind:
                    self._tail = (now, due + again_s, before)
                due += self._found_s(behind) + again_s
            self._last_due = max(before, due)
            self._queue.append((self._last_due, packet))
        self.queued_bytes += len(data)

    def _tell_of_tail(self, now: float) -> None:
        """What is sent now is behind the last packet: if that is lost, it shows before a probe."""
        if self._tail is None or not self._queue:
            return
        sent_at, due, before = self._tail
        told = due + (now - sent_at) + REORDERING * self._weather.rtt_s
        if told < self._last_due:
            self._last_due = max(before, told)
            self._queue[-1] = (self._last_due, self._queue[-1][1])

    def _is_lost(self) -> bool:
        lost = self._rng.random() < self._weather.loss
        self._weather.losses += lost
        return lost

    def _found_s(self, behind: int) -> float:
        """After how long a lost packet with so many behind it is sent again."""
        rtt_s = self._weather.rtt_s
        if behind:
            return rtt_s * (1.0 if behind >= DUPLICATES else REORDERING)
        return PROBE_TRIPS * rtt_s + (0.0 if self._queue else TIMEOUT_S_MIN)

    def _lost_again_s(self) -> float:
        """How much longer it waits where that is lost as well: each time twice as long."""
        waited_s, timeout_s = 0.0, self._weather.rtt_s + TIMEOUT_S_MIN
        while self._is_lost():
            waited_s, timeout_s = waited_s + timeout_s, 2 * timeout_s
        return waited_s

    def next_timeout(self) -> float:
        """When there is something to send."""
        return self._queue[0][0] if self._queue else float("inf")

    def data_to_send(self, now: float) -> bytes:
        """All that has arrived by now."""
        arrived = []
        while self._queue and self._queue[0][0] <= now:
            arrived.append(self._queue.popleft()[1])
        data = b"".join(arrived)
        self.queued_bytes -= len(data)
        return data


class Proxy:
    """Made by `open_proxy`."""

    def __init__(self, target: tuple[str, int], weather: Weather, seed: int) -> None:
        self.port = 0
        self.connections = 0
        self.weather = weather
        self._target = target
        self._rng = random.Random(seed)  # noqa: S311 - a replayable network, no secret

    async def handle(self, near: trio.SocketStream) -> None:
        """Carry one connection until an end closes it."""
        self.connections += 1
        weather, rng = self.weather, self._rng
        try:
            far = await trio.open_tcp_stream(*self._target)
        except OSError:
            await near.aclose()
            return
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PIPE_BYTES_MAX)
        async with near, far, trio.open_nursery() as nursery:
            for source, sink, neck in ((near, far, weather.up), (far, near, weather.down)):
                pipe = Pipe(weather, neck, random.Random(rng.random()))  # noqa: S311 - as above
                nursery.start_soon(_carry, source, sink, pipe, nursery.cancel_scope)


async def _carry(
    source: trio.SocketStream, sink: trio.SocketStream, pipe: Pipe, both: trio.CancelScope
) -> None:
    """One direction. What an end had sent before it closed still arrives."""
    came, went = trio.Event(), trio.Event()
    ended = False

    async def receive() -> None:
        nonlocal went, ended
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await source.receive_some(RECEIVE_BYTES):
                pipe.receive_data(bytes(data), trio.current_time())
                came.set()
                while pipe.is_full:
                    went = trio.Event()
                    await went.wait()
        ended = True
        came.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while True:
                if pipe.queued_bytes == 0:
                    if ended:
                        break
                    came = trio.Event()
                    await came.wait()
                    continue
                await trio.sleep_until(pipe.next_timeout())
                await sink.send_all(pipe.data_to_send(trio.current_time()))
                went.set()
        both.cancel()


@contextlib.asynccontextmanager
async def open_proxy(port: int, weather: Weather, seed: int = 1) -> AsyncIterator[Proxy]:
    """Listen on a free port of loopback for 127.0.0.1:`port`, until the context ends."""
    proxy = Proxy(("127.0.0.1", port), weather, seed)
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        proxy.port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, proxy.handle, [listener])
        yield proxy
        nursery.cancel_scope.cancel()
