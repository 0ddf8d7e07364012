"""Connections whose requests never end: `python -m tests.bench.siege.slow COUNT NAME=PORT ...`.

COUNT of them on each port: a byte each STEP_S, and another in the place of each that is ended. The
head of a request on http ports, a ClientHello on those with TLS, the handshake's first packet on
rtmp. On a line on standard input it begins to count, on another it prints how many there were on
each port, on average ({"rtmp": 500, ...}), and ends.
"""

import contextlib
import selectors
import socket
import sys
import time

import msgspec

LOOK_S = 0.1
PER_ADDRESS = 50  # Of one address RTMP takes 64 that have not published yet.
STEP_S = 2.0  # Below every time-out for a peer that says nothing.
CLIENT_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"  # A record of 512 bytes, cut short.
BEGINNINGS = {
    "rtmp": b"\x03",  # C0 of version 3; C1 is 1536 bytes.
    **dict.fromkeys(("rtmps", "https"), CLIENT_HELLO),
    "http": b"GET /live/show/master.m3u8 HTTP/1.1\r\nHost: bench\r\nX-Slow: ",
    "metrics": b"GET /metrics HTTP/1.1\r\nHost: bench\r\nX-Slow: ",
    "status": b"GET / HTTP/1.1\r\nHost: bench\r\nX-Slow: ",
}


class Slow:
    """One place of the many."""

    def __init__(self, name: str, port: int, source: str) -> None:
        self.name, self.port, self.source = name, port, source
        self.begun = False
        self.due_at = 0.0
        self.sock = self.connect()

    def connect(self) -> socket.socket:
        """Begin, or begin again."""
        self.begun = False
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self.sock.bind((self.source, 0))
        with contextlib.suppress(BlockingIOError):
            self.sock.connect(("127.0.0.1", self.port))
        return self.sock

    def step(self, now: float) -> None:
        """A byte more, or the first ones."""
        self.sock.send(b"a" if self.begun else BEGINNINGS[self.name])
        self.begun = True
        self.due_at = now + STEP_S


def run(count: int, ports: dict[str, int]) -> dict[str, int]:
    """Hold them until told to stop; how many were there on each port while it counted."""
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ)
    places = _open(selector, count, ports)
    held, looks = dict.fromkeys(ports, 0), 0
    counting, again_at = False, 0.0
    while True:
        for key, events in selector.select(0.05):
            if key.data is not None:
                _go_on(selector, key.data, events)
                continue
            sys.stdin.readline()
            if counting:
                return {name: round(held[name] / max(looks, 1)) for name in ports}
            counting = True
        now = time.monotonic()
        if now >= again_at:
            again_at = now + LOOK_S
            _go_on_all(selector, places, now)
            looks += counting
            for place in places if counting else ():
                held[place.name] += place.begun


def _open(selector: selectors.BaseSelector, count: int, ports: dict[str, int]) -> list[Slow]:
    places = []
    for name, port in ports.items():
        for number in range(count):
            source = f"127.0.1.{1 + number // PER_ADDRESS}"
            places.append(Slow(name, port, source))
            selector.register(places[-1].sock, selectors.EVENT_WRITE, places[-1])
            if len(places) % 100 == 0:
                time.sleep(0.2)  # Not all at once, so that they do not time out all at once.
    return places


def _go_on_all(selector: selectors.BaseSelector, places: list[Slow], now: float) -> None:
    for place in places:
        if place.begun and now >= place.due_at:
            _go_on(selector, place, selectors.EVENT_WRITE)


def _go_on(selector: selectors.BaseSelector, place: Slow, events: int) -> None:
    try:
        if events & selectors.EVENT_READ and not place.sock.recv(4096):
            raise ConnectionError("ended by the server")
        if events & selectors.EVENT_WRITE:
            place.step(time.monotonic())
            selector.modify(place.sock, selectors.EVENT_READ, place)
    except OSError:
        selector.unregister(place.sock)
        place.sock.close()
        selector.register(place.connect(), selectors.EVENT_WRITE, place)


if __name__ == "__main__":
    named = dict(argument.split("=") for argument in sys.argv[2:])
    held = run(int(sys.argv[1]), {name: int(port) for name, port in named.items()})
    sys.stdout.buffer.write(msgspec.json.encode(held) + b"\n")
    sys.stdout.buffer.flush()
