"""A pump on virtual time around real connections, a client, and an origin that makes parts."""

import math
import select
import socket
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msgspec import Struct

from edged.errors import EdgedError
from edged.media.parts import InitSegment, PackagedEvent, Part, Rendition, SegmentEnded
from edged.media.track import Kind
from edged.playback.http import OUT_BYTES_MAX, HttpServer, Router
from edged.runtime.connection import Connection, MakeHandler, PumpClass
from edged.runtime.serving import ServeBatch, serve_batch

PART_S = 0.2
PARTS = 10  # Of a segment: 2 s.
DIGEST = "0123456789abcdef"


class Answer(Struct):
    """A response as a client sees it."""

    status: int
    fields: dict[str, str]
    body: bytes


class FakePump:
    """Drives real `Connection`s over socket pairs; time moves only when told."""

    def __init__(self) -> None:
        self.serve: ServeBatch = serve_batch
        self.time = 1000.0
        self.connections: list[Connection] = []
        self._masks: dict[Connection, int] = {}
        self._timers: dict[Connection, float] = {}
        self._dirty: list[Connection] = []
        self._lost: list[Connection] = []

    def now(self) -> float:
        return self.time

    def mark_dirty(self, connection: Connection) -> None:
        self._dirty.append(connection)

    def mark_readable(self, connection: Connection) -> None:
        """Plain sockets tell of themselves."""

    def mark_lost(self, connection: Connection) -> None:
        self._lost.append(connection)

    def schedule(self, connection: Connection, at: float) -> None:
        connection.scheduled_at = at
        self._timers[connection] = at

    def interest(self, connection: Connection, mask: int) -> None:
        self._masks[connection] = mask

    def established(self, connection: Connection) -> None:
        """No TLS here."""

    def fail(self, connection: Connection, error: Exception) -> None:
        connection.abort(f"internal error: {error!r}")

    def connect(self, make_handler: MakeHandler) -> socket.socket:
        """The client's end of a new connection."""
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
        self.take(ours, make_handler)
        return theirs

    def take(self, ours: socket.socket, make_handler: MakeHandler) -> Connection:
        """Serve a connected socket."""
        connection = Connection(
            self,
            ours,
            make_handler,
            PumpClass.VIEWER,
            peer="test",
            out_bytes_max=OUT_BYTES_MAX,
        )
        self.connections.append(connection)
        self._masks[connection] = select.EPOLLIN
        connection.begin()
        return connection

    def turn(self) -> None:
        """Read, run due timers, flush, bury; as the pump does."""
        buffer = memoryview(bytearray(256 * 1024))
        for connection in list(self.connections):
            if self._masks[connection] & select.EPOLLIN and connection.lost is None:
                batch = deque([(connection, int(select.EPOLLIN))])
                self.serve(_Serving(), batch, buffer, self.time, math.inf)
            if self._masks[connection] & select.EPOLLOUT:
                connection.flush()
            if self._timers.get(connection, math.inf) <= self.time and connection.lost is None:
                del self._timers[connection]
                connection.scheduled_at = math.inf
                if connection.timeout_at > self.time:
                    self.schedule(connection, connection.timeout_at)
                else:
                    connection.run_timeout(self.time)
        self.flush()

    def flush(self) -> None:
        """Send what is queued and bury the lost."""
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            connection.flush()
        while self._lost:
            connection = self._lost.pop()
            self.connections.remove(connection)
            self._timers.pop(connection, None)
            self._masks.pop(connection, None)
            connection.removed()

    def advance(self, seconds: float) -> None:
        """Let time pass, timers at their time."""
        until = self.time + seconds
        while (at := min(self._timers.values(), default=math.inf)) <= until:
            self.time = max(self.time, at)
            self.turn()
        self.time = until
        self.turn()


class _Serving:
    """The pump as it is when it serves; what is no error of the peer's is the test's."""

    def visit(self, connection: Connection, mask: int, now: float) -> None:
        raise AssertionError("nothing but bytes comes here")

    def fail(self, connection: Connection, error: Exception) -> None:
        if not isinstance(error, EdgedError):
            raise error
        connection.abort(str(error))


class Client:
    """One HTTP/1.1 connection of a viewer."""

    def __init__(self, pump: FakePump, server: HttpServer) -> None:
        self.pump = pump
        self.sock = pump.connect(server.make_handler)
        self.connection = pump.connections[-1]
        self.received = bytearray()

    @property
    def lost(self) -> str | None:
        """Why the server closed, else None."""
        return self.connection.lost

    def send(self, data: bytes) -> None:
        self.sock.setblocking(True)
        self.sock.settimeout(1)
        self.sock.sendall(data)
        self.sock.setblocking(False)
        self.pump.turn()
        self.pump.turn()  # What a first answer left room for.

    def ask(self, target: str, method: str = "GET", fields: str = "") -> None:
        self.send(f"{method} {target} HTTP/1.1\r\nHost: edge\r\n{fields}\r\n".encode())

    def read(self) -> bytes:
        """Take what has come."""
        try:
            while data := self.sock.recv(1 << 20):
                self.received += data
                self.pump.turn()
        except (BlockingIOError, ConnectionResetError):
            pass
        return bytes(self.received)

    def answers(self, *, head: bool = False) -> list[Answer]:
        """The whole responses that have come, taken off; `head` when they have no bodies."""
        self.read()
        answers = []
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            lines = bytes(self.received[:end]).decode().split("\r\n")
            fields = dict(line.lower().split(": ", 1) for line in lines[1:])
            bodiless = head or int(lines[0].split()[1]) == 304
            size = 0 if bodiless else int(fields["content-length"])
            if len(self.received) < end + 4 + size:
                break
            body = bytes(self.received[end + 4 : end + 4 + size])
            answers.append(Answer(int(lines[0].split()[1]), fields, body))
            del self.received[: end + 4 + size]
        return answers

    def get(self, target: str) -> Answer:
        """Ask, and expect the answer at once."""
        self.ask(target)
        (answer,) = self.answers()
        return answer

    def close(self) -> None:
        self.sock.close()


class World(Struct):
    """A pump and a server; clients are made by `client`."""

    pump: FakePump
    server: HttpServer
    clients: list[Client] = []

    def client(self) -> Client:
        client = Client(self.pump, self.server)
        self.clients.append(client)
        return client


@contextmanager
def world(unix_now: Callable[[], float] = lambda: 1_700_000_000.0) -> Iterator[World]:
    """A server that nobody has mounted anything on."""
    made = World(FakePump(), HttpServer(Router(), unix_now=unix_now))
    try:
        yield made
    finally:
        for connection in list(made.pump.connections):
            connection.abort("the test is over")
        made.pump.flush()
        for client in made.clients:
            client.close()


class Origin:
    """Makes the events of one run: video and audio, 200 ms parts, 2 s segments."""

    def __init__(self, first_msn: int = 0, part_bytes: int = 100, parts: int = PARTS) -> None:
        self.msn = first_msn
        self.index = 0
        self.part_bytes = part_bytes
        self.parts = parts  # Of a segment.
        self.count = 0

    def start(self, *names: str) -> list[PackagedEvent]:
        events: list[PackagedEvent] = []
        for name in names or ("v0", "a0"):
            video = name.startswith("v")
            events.append(
                Rendition(
                    name=name,
                    kind=Kind.VIDEO if video else Kind.AUDIO,
                    timescale=90_000 if video else 48_000,
                    codec_string="avc1.64001f" if video else "mp4a.40.2",
                    part_target_us=200_000,
                    target_duration_s=4,
                )
            )
            data = f"init of {name}".encode()
            events.append(InitSegment(rendition=name, digest=DIGEST, data=data))
        return events

    def part(self, name: str = "v0", *, ends: bool = False) -> list[PackagedEvent]:
        """The next part of one rendition, and the segment's end behind its last."""
        scale = 90_000 if name.startswith("v") else 48_000
        self.count += 1
        payload = f"{name}-{self.msn}.{self.index};".encode().ljust(self.part_bytes, b".")
        last = ends or self.index == self.parts - 1
        events: list[PackagedEvent] = [
            Part(
                rendition=name,
                msn=self.msn,
                index=self.index,
                tfdt=int(self.count * PART_S * scale),
                duration=int(PART_S * scale),
                wallclock_us=int((1_700_000_000 + self.count * PART_S) * 1_000_000),
                init_digest=DIGEST,
                payload=payload,
                independent=self.index == 0,
                ends_segment=last and not ends,  # `ends` is not foreseen, as the packager's may be.
                next_msn=self.msn + 1 if last and not ends else self.msn,
                next_index=0 if last and not ends else self.index + 1,
            )
        ]
        if last:
            events.append(
                SegmentEnded(
                    rendition=name,
                    msn=self.msn,
                    parts=self.index + 1,
                    duration=int((self.index + 1) * PART_S * scale),
                )
            )
        return events

    def both(self, *, ends: bool = False) -> list[PackagedEvent]:
        """The next part of each rendition."""
        events = self.part("v0", ends=ends) + self.part("a0", ends=ends)
        self._step(ends=ends)
        return events

    def segment(self) -> list[PackagedEvent]:
        """The next whole segment of each rendition, or the rest of the one that grows."""
        events: list[PackagedEvent] = []
        for _ in range(self.parts - self.index):
            events += self.both()
        return events

    def video(self, *, ends: bool = False) -> list[PackagedEvent]:
        """The next part of the video alone."""
        events = self.part("v0", ends=ends)
        self._step(ends=ends)
        return events

    def _step(self, *, ends: bool) -> None:
        self.index += 1
        if ends or self.index == self.parts:
            self.msn, self.index = self.msn + 1, 0
