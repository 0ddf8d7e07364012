"""A batch served: in Python and compiled, what stands and all the rest."""

import errno
import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Iterator

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.errors import EdgedError
from edged.runtime import serving
from edged.runtime.connection import Connection, PumpClass
from edged.runtime.kernel_bytes import KernelPool
from edged.runtime.serving import ServeBatch, serve_in_python
from edged.runtime.standing import StandingAnswer, StandingAnswers
from tests.conftest import require_found

HEAD = b"Host: edge\r\n\r\n"
ASK, OTHER = b"GET /part HTTP/1.1\r\n" + HEAD, b"GET /else HTTP/1.1\r\n" + HEAD
SMALL = b"HTTP/1.1 200 OK\r\n\r\nsmall"
LARGE = bytes(range(256)) * 400
NOW = 100.0
IN = int(select.EPOLLIN)


@pytest.fixture(params=["python", "compiled"])
def serve(request: pytest.FixtureRequest) -> ServeBatch:
    if request.param == "python":
        return serve_in_python
    require_found("a compiled runtime", found=serving.serve_batch is not serve_in_python)
    return serving.serve_batch


class Handler:
    """As an HTTP connection does it: at rest it looks for what stands by itself."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.heard: list[bytes] = []
        self.short: list[int] = []
        self.ended: list[str] = []

    def data_received(self, data: memoryview, now: float) -> None:
        connection = self.connection
        if connection.standing is not None and not connection.out_bytes:
            answer = connection.standing.find(data, now)
            if answer is not None:
                connection.send_standing(answer, now)
                if connection.out_bytes:
                    connection.standing.on_short(connection, answer, now)
                return
        self.heard.append(said := bytes(data))
        if said == b"fault":
            raise EdgedError("it says so")
        if said == b"bug":
            raise RuntimeError("ours")

    def connection_lost(self, reason: str) -> None:
        self.ended.append(reason)

    def handle_timeout(self, now: float) -> None:
        """No timers here."""

    def drained(self) -> None:
        """Nobody waits."""


class Place:
    """A pump of which only serving is real, and what stands."""

    def __init__(self, serve: ServeBatch) -> None:
        self.serve_batch = serve
        self.standing = StandingAnswers(self._short)
        self.standing.begin(NOW + 1)
        self.connections: list[Connection] = []
        self.peers: list[socket.socket] = []
        self.visited: list[int] = []
        self.failed: list[str] = []
        self.buffer = memoryview(bytearray(1 << 18))

    def _short(self, connection: Connection, answer: StandingAnswer, now: float) -> None:
        assert isinstance(connection.handler, Handler)
        connection.handler.short.append(connection.out_bytes)

    def connect(self, *, tcp: bool = False) -> tuple[Connection, socket.socket]:
        if tcp:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                theirs = socket.create_connection(listener.getsockname())
                ours, _ = listener.accept()
        else:
            ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        connection = Connection(self, ours, Handler, PumpClass.VIEWER, peer="test")
        connection.begin()
        connection.standing = self.standing
        self.connections.append(connection)
        self.peers.append(theirs)
        return connection, theirs

    def serve(self, *entries: tuple[Connection, int], now: float = NOW, for_s: float = 60) -> int:
        batch = deque(entries or [(connection, IN) for connection in self.connections])
        before = len(batch)
        visited = self.serve_batch(self, batch, self.buffer, now, now + for_s)
        assert visited == before - len(batch)
        return visited

    def close(self) -> None:
        for sock in (*self.peers, *(connection.sock for connection in self.connections)):
            sock.close()

    # As a pump.

    def visit(self, connection: Connection, mask: int, now: float) -> None:
        self.visited.append(mask)

    def fail(self, connection: Connection, error: Exception) -> None:
        self.failed.append(str(error))
        connection.abort(str(error))

    def mark_dirty(self, connection: Connection) -> None:
        """Nothing is flushed here."""

    def mark_readable(self, connection: Connection) -> None:
        """There is no TLS here."""

    def mark_lost(self, connection: Connection) -> None:
        """Nobody is buried here."""

    def schedule(self, connection: Connection, at: float) -> None:
        """Nor are there timers."""

    def interest(self, connection: Connection, mask: int) -> None:
        """All are served when told."""

    def established(self, connection: Connection) -> None:
        """There is no TLS here."""

    def now(self) -> float:
        return NOW


@pytest.fixture
def place(serve: ServeBatch) -> Iterator[Place]:
    made = Place(serve)
    yield made
    made.close()


def handler_of(connection: Connection) -> Handler:
    assert isinstance(connection.handler, Handler)
    return connection.handler


def take(sock: socket.socket) -> bytes:
    data = bytearray()
    try:
        while piece := sock.recv(1 << 20):
            data += piece
    except BlockingIOError:
        pass
    return bytes(data)


def stand(place: Place, kind: str) -> bytes:
    """Have something stand for ASK; its bytes."""
    if kind == "small":
        place.standing.add(ASK, "small", (SMALL,))
        return SMALL
    chunks = (LARGE[:1000], LARGE[1000:])
    held = None
    if kind == "held":
        pool = KernelPool()
        for _ in range(10):
            held = pool.hold("large", chunks)
        assert held is not None
    place.standing.add(ASK, kind, chunks, held)
    return LARGE


@pytest.mark.parametrize("kind", ["small", "pieces", "held"])
def test_what_stands_is_sent_without_the_handler(place: Place, kind: str) -> None:
    expected = stand(place, kind)
    pairs = [place.connect() for _ in range(3)]
    for _ in range(2):
        for _, peer in pairs:
            peer.send(ASK)
        assert place.serve() == 3
        assert [take(peer) for _, peer in pairs] == [expected] * 3
    for connection, _ in pairs:
        assert handler_of(connection).heard == []
        assert connection.stood == 2
        assert connection.stood_at == pytest.approx(NOW, abs=30)
        assert connection.sent_bytes == 2 * len(expected)
        assert connection.received_bytes == 2 * len(ASK)
        assert connection.lost is None
    assert list(place.standing.counts()) == [(kind, 6)]


@pytest.mark.parametrize(
    "data",
    [
        *(ASK[:-1], ASK + ASK, OTHER, b"x" * 5000, b"\0", ASK[:20], ASK[:19], ASK[:18]),
        *(b"GET HTTP/1.1\r\n" + HEAD, b"\r\n" + HEAD, b"GET /part?a b HTTP/1.1\r\n" + HEAD),
        *(b"GET /part?\xc3 HTTP/1.1\r\n" + HEAD, b"GET /part?\r HTTP/1.1\r\n" + HEAD),
        *(b"HEAD /part HTTP/1.1\r\n" + HEAD, b"GET /part HTTP/1.0\r\n" + HEAD),
        *(ASK.replace(b"edge", b"Edge"), b"GET /part\r\n" + HEAD, b"GET /part HTTP/1.1\n" + HEAD),
    ],
)
def test_all_else_is_the_handlers(place: Place, data: bytes) -> None:
    stand(place, "small")
    connection, peer = place.connect()
    peer.send(data)
    place.serve()
    assert handler_of(connection).heard == [data]
    assert (connection.received_bytes, connection.sent_bytes, connection.stood) == (len(data), 0, 0)


TOKENS = [
    *(b"GET ", b"GET", b"HEAD ", b" HTTP/1.1", b" HTTP/1.0", b"/part", b"/else", b"/", HEAD),
    *(b"\r\n", b"\r", b"\n", b" ", b"?", b"?n=1", b"\x7f", b"\xff", b"\0", b"a" * 4100),
]


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """What stands for something, spoilt or not; or its pieces in any order."""
    if draw(st.booleans()):
        return b"".join(draw(st.lists(st.sampled_from(TOKENS), min_size=1, max_size=8)))
    query = draw(st.sampled_from([b"", b"?", b"?n=1", b"?n=\x21\x7e", b"?\x20", b"?n=\x7f", b"??"]))
    data = bytearray(draw(st.sampled_from([ASK, OTHER])).replace(b" HTTP", query + b" HTTP"))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 3))] = draw(st.sampled_from([b"", *TOKENS[:-1]]))
    return bytes(data) or b"G"


@hypothesis.settings(max_examples=500)
@hypothesis.given(st.lists(requests(), min_size=1, max_size=6), st.sampled_from(["small", "held"]))
def test_both_do_the_same_with_whatever_comes(said: list[bytes], kind: str) -> None:
    """One after the other, as the compiled one remembers what it found last."""
    require_found("a compiled runtime", found=serving.serve_batch is not serve_in_python)
    seen = []
    for serve in (serve_in_python, serving.serve_batch):
        place = Place(serve)
        try:
            stand(place, kind)
            pairs = [place.connect() for _ in said]
            for (_, peer), data in zip(pairs, said, strict=True):
                peer.send(data)
            place.serve()
            seen.append(
                [
                    (handler_of(connection).heard, take(peer), connection.stood, connection.lost)
                    for connection, peer in pairs
                ]
            )
        finally:
            place.close()
    assert seen[0] == seen[1]
    for data, (heard, got, stood, _) in zip(said, seen[0], strict=True):
        assert (heard == [data]) != bool(stood), "either stands, or is the handler's, as it came"
        assert bool(got) == bool(stood)


@pytest.mark.parametrize("query", [b"?", b"?n=1", b"?a?b=%20&c"])
def test_a_query_says_nothing(place: Place, query: bytes) -> None:
    expected = stand(place, "held")
    connection, peer = place.connect()
    peer.send(ASK.replace(b"/part", b"/part" + query))
    place.serve()
    assert take(peer) == expected
    assert connection.stood == 1


def test_nothing_is_sent_to_who_is_not_at_rest(place: Place) -> None:
    stand(place, "small")
    connection, peer = place.connect()
    connection.standing = None
    peer.send(ASK)
    place.serve()
    assert handler_of(connection).heard == [ASK]
    assert take(peer) == b""


def test_nor_when_its_second_is_over(place: Place) -> None:
    stand(place, "small")
    connection, peer = place.connect()
    peer.send(ASK)
    place.serve(now=NOW + 1)
    assert handler_of(connection).heard == [ASK]


@pytest.mark.parametrize("kind", ["small", "pieces", "held"])
def test_what_the_kernel_does_not_take_is_queued_and_told(place: Place, kind: str) -> None:
    expected = stand(place, kind)
    connection, peer = place.connect()
    sent = b""
    while not connection.out_bytes:  # Its buffer fills up.
        peer.send(ASK)
        place.serve()
        sent += expected
    handler = handler_of(connection)
    assert handler.short == [connection.out_bytes]
    assert 0 < connection.out_bytes <= len(expected)
    assert connection.sent_bytes + connection.out_bytes == len(sent)
    peer.send(ASK)
    place.serve()
    assert handler.heard == [ASK], "while some of it waits, the next is the handler's"
    got = b""
    while len(got) < len(sent):
        got += take(peer)
        connection.flush()
    assert got == sent
    assert (connection.out_bytes, connection.lost) == (0, None)


def test_a_peer_that_goes(place: Place) -> None:
    stand(place, "small")
    connection, peer = place.connect()
    peer.close()
    place.serve()
    assert connection.lost == "closed by peer"


def test_a_peer_that_resets(place: Place) -> None:
    stand(place, "held")
    connection, peer = place.connect(tcp=True)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    while connection.lost is None:
        place.serve()
    assert connection.lost == f"connection failed: {os.strerror(errno.ECONNRESET)}"


@pytest.mark.parametrize("kind", ["small", "pieces", "held"])
def test_a_peer_that_asks_and_is_gone(place: Place, kind: str) -> None:
    stand(place, kind)
    connection, peer = place.connect()
    peer.send(ASK)
    peer.close()
    place.serve()
    assert connection.lost == f"connection failed: {os.strerror(errno.EPIPE)}"
    assert handler_of(connection).short == []


def test_one_that_has_sent_nothing_stays(place: Place) -> None:
    connection, _ = place.connect()
    place.serve()
    assert connection.lost is None
    assert connection.standing is place.standing


def test_what_is_raised_ends_that_one_alone(place: Place) -> None:
    stand(place, "small")
    said: list[bytes] = [b"fault", ASK, b"bug", ASK]
    pairs = [place.connect() for _ in said]
    for (_, peer), data in zip(pairs, said, strict=True):
        peer.send(data)
    assert place.serve() == 4
    assert place.failed == ["it says so", "ours"]
    assert [take(peer) for _, peer in pairs] == [b"", SMALL, b"", SMALL]
    assert [connection.lost for connection, _ in pairs] == ["it says so", None, "ours", None]


def test_what_an_unforeseen_answer_raises_ends_that_one_alone(place: Place) -> None:
    stand(place, "small")
    connection, peer = place.connect()
    place.standing.answers[b"/part"] = None  # type: ignore[assignment]
    peer.send(ASK)
    place.serve()
    assert handler_of(connection).heard == [ASK], "as none"


def test_nothing_stands_for_one_that_closes(place: Place) -> None:
    stand(place, "small")
    connection, peer = place.connect()
    connection.write(b"the last of it")
    connection.close("enough")
    connection.flush()  # Its side is shut, and the peer is heard out.
    peer.send(ASK)
    place.serve()
    assert take(peer) == b"the last of it"
    assert (connection.stood, handler_of(connection).heard) == (0, [])


def test_the_lost_are_left_alone(place: Place) -> None:
    stand(place, "small")
    connection, peer = place.connect()
    peer.send(ASK)
    connection.abort("gone")
    place.serve()
    assert take(peer) == b""
    assert place.visited == [IN], "as the pump does it"


def test_who_shakes_hands_is_the_pumps(place: Place) -> None:
    connection, peer = place.connect()
    connection.handshaking = True
    peer.send(ASK)
    place.serve()
    assert place.visited == [IN]
    assert handler_of(connection).heard == []


@pytest.mark.parametrize("mask", [select.EPOLLIN | select.EPOLLHUP, select.EPOLLERR])
def test_other_events_are_the_pumps(place: Place, mask: int) -> None:
    stand(place, "small")
    connection, peer = place.connect()
    peer.send(ASK)
    place.serve((connection, int(mask)))
    assert place.visited == [mask]
    assert take(peer) == b""


def test_it_ends_at_its_time_and_goes_on_in_order(place: Place) -> None:
    stand(place, "small")

    def slowly(data: memoryview, now: float) -> None:
        time.sleep(0.02)

    pairs = [place.connect() for _ in range(10)]
    for connection, peer in pairs:
        connection.standing = None
        handler_of(connection).data_received = slowly  # type: ignore[method-assign]
        peer.send(ASK)
    batch = deque((connection, IN) for connection, _ in pairs)
    visited = place.serve_batch(place, batch, place.buffer, NOW, NOW + 0.05)
    assert 1 <= visited <= 4
    assert [entry[0] for entry in batch] == place.connections[visited:]
    assert place.serve_batch(place, batch, place.buffer, NOW, NOW) == 1, "one at least"


def test_the_buffer_is_let_go_of(place: Place) -> None:
    """Else it could never be resized, nor its memory be had back."""
    stand(place, "small")
    _, peer = place.connect()
    room = bytearray(1 << 16)
    for data in (ASK, OTHER, b"bug"):
        peer.send(data)
        batch = deque([(place.connections[0], IN)])
        with memoryview(room) as view:
            place.serve_batch(place, batch, view, NOW, NOW + 1)
    assert place.failed == ["ours"]
    room.clear()
