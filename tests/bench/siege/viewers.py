"""Viewers who join over TLS: `python -m tests.bench.siege.viewers PORT COUNT SECONDS AT_ONCE`.

Not more than AT_ONCE are on their way in at a time. Who is turned away comes again AGAIN_S later,
as players do. Each shakes hands without resumption, takes the multivariant playlist, the video's
playlist and a part, and then follows by blocking reloads, one each RELOAD_S. Starts when a line
comes on standard input; prints, at the end, how many were in and how long it took them.
"""

import contextlib
import selectors
import socket
import ssl
import sys
import time

import msgspec
from msgspec import Struct

AGAIN_S = 1.0
RELOAD_S = 2.0
RECEIVE_BYTES = 256 * 1024


class Joined(Struct):
    """What became of them."""

    joined: int
    turned_away: int  # Connections that were ended; who had one comes again.
    reloads: int
    join_p50_ms: float
    join_p99_ms: float


class Viewer:
    """One connection and where it is in its life."""

    def __init__(self, context: ssl.SSLContext, port: int, now: float) -> None:
        self.begun_at = now
        self.joined_at = 0.0
        self.reloads = 0
        self._context, self._port, self._msn = context, port, 0
        self.connect()

    def connect(self) -> None:
        """Begin, or begin again."""
        self._inbox, self._asked = bytearray(), 0
        self.due_at = 0.0
        self.sock: socket.socket = socket.socket()
        self.sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            self.sock.connect(("127.0.0.1", self._port))
        self.shaken = False

    @property
    def follows(self) -> bool:
        """Whether it is in, by the connection that it has now."""
        return self._asked >= 3

    def step(self, now: float) -> int:
        """Go on as far as it goes; the events to wait for, 0 when only time is waited for."""
        if not isinstance(self.sock, ssl.SSLSocket):
            if error := self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(error, "not connected")
            self.sock = self._context.wrap_socket(
                self.sock, do_handshake_on_connect=False, server_hostname="bench"
            )
        try:
            if not self.shaken:
                self.sock.do_handshake()
                self.shaken = True
                self._ask("/live/show/master.m3u8")
            while data := self.sock.recv(RECEIVE_BYTES):
                self._inbox += data
                while (body := self._take()) is not None:
                    self._answered(body, now)
        except ssl.SSLWantReadError:
            return selectors.EVENT_READ
        except ssl.SSLWantWriteError:
            return selectors.EVENT_WRITE
        raise ConnectionError("the server hung up")

    def reload(self, now: float) -> None:
        """Ask for the playlist with a part that is still to come."""
        self.due_at = now + RELOAD_S
        self._ask(f"/live/show/1/v0.m3u8?_HLS_msn={self._msn + 1}&_HLS_part=0")

    def _ask(self, path: str) -> None:
        self.sock.send(f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())

    def _take(self) -> bytes | None:
        end = self._inbox.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = bytes(self._inbox[:end])
        size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        if len(self._inbox) < end + 4 + size:
            return None
        body = bytes(self._inbox[end + 4 : end + 4 + size])
        del self._inbox[: end + 4 + size]
        if not head.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(head.split(b"\r\n")[0].decode())
        return body

    def _answered(self, body: bytes, now: float) -> None:
        self._asked += 1
        if self._asked == 1:
            self._ask("/live/show/1/v0.m3u8")
        elif self._asked == 2:
            part = body.rpartition(b"#EXT-X-PART:")[2].split(b'URI="')[1].split(b'"')[0].decode()
            self._msn = int(part.split("-")[1].split(".")[0])
            self._ask(f"/live/show/1/{part}")
        elif self._asked == 3:
            self.joined_at = self.joined_at or now
            self.due_at = now
        else:
            self.reloads += 1
            self._msn += 1


def run(port: int, count: int, seconds: float, at_once: int) -> Joined:
    """Join and follow until the time is over."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.options |= ssl.OP_NO_TICKET
    selector = selectors.DefaultSelector()
    viewers: list[Viewer] = []
    away: dict[Viewer, float] = {}  # Until when.
    turned_away = 0
    until = time.monotonic() + seconds
    while (now := time.monotonic()) < until:
        joining = sum(not viewer.joined_at for viewer in viewers)
        while len(viewers) < count and joining < at_once:
            viewer = Viewer(context, port, now)
            viewers.append(viewer)
            selector.register(viewer.sock, selectors.EVENT_WRITE, viewer)
            joining += 1
        for viewer in [viewer for viewer, back_at in away.items() if now >= back_at]:
            del away[viewer]
            viewer.connect()
            selector.register(viewer.sock, selectors.EVENT_WRITE, viewer)
        for viewer in viewers:
            if viewer.follows and now >= viewer.due_at and viewer not in away:
                with contextlib.suppress(OSError):
                    viewer.reload(now)
        for key, _ in selector.select(0.02):
            viewer = key.data
            try:
                selector.modify(viewer.sock, viewer.step(time.monotonic()), viewer)
            except (OSError, IndexError):
                turned_away += 1
                selector.unregister(viewer.sock)
                viewer.sock.close()
                away[viewer] = time.monotonic() + AGAIN_S
    times = sorted(1000 * (v.joined_at - v.begun_at) for v in viewers if v.joined_at)
    for viewer in viewers:
        viewer.sock.close()
    return Joined(
        joined=len(times),
        turned_away=turned_away,
        reloads=sum(viewer.reloads for viewer in viewers),
        join_p50_ms=round(times[len(times) // 2], 1) if times else 0.0,
        join_p99_ms=round(times[int(len(times) * 0.99)], 1) if times else 0.0,
    )


if __name__ == "__main__":
    sys.stdin.readline()
    joined = run(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
    sys.stdout.buffer.write(msgspec.json.encode(joined) + b"\n")
    sys.stdout.buffer.flush()
