"""Nobody sees whether requests are looked into: moves of three viewers, in each of the ways."""

import contextlib
import socket
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from edged.runtime import serving
from edged.runtime.kernel_bytes import KERNEL_BYTES_AFTER
from edged.runtime.sends import send_to_all
from edged.runtime.serving import ServeBatch, serve_in_python
from edged.runtime.standing import StandingAnswers
from tests.playback.fakes import World, world
from tests.playback.test_exchange import GET_PART, IDLE_S_MAX
from tests.playback.test_http import Service

if TYPE_CHECKING:
    from edged.playback.waiting import Exchange

Move = tuple[str, int, int]
VIEWERS = 3
PIECES = (
    GET_PART,
    GET_PART.replace(b"part", b"init"),
    GET_PART.replace(b"part", b"part?n=1"),
    GET_PART.replace(b"part", b"init?n=1"),
    GET_PART.replace(b"part", b"part?a b"),
    GET_PART.replace(b"part", b"part#a"),
    GET_PART.replace(b"HTTP/1.1", b"HTTP/1.0"),
    GET_PART.replace(b"\r\n\r\n", b"\r\nAccept: */*\r\n\r\n"),
    GET_PART.replace(b"part", b"init").replace(b"\r\n\r\n", b"\r\nAccept: */*\r\n\r\n"),
    GET_PART.replace(b"part", b"later"),
    GET_PART.replace(b"part", b"hello"),
    GET_PART.replace(b"GET", b"HEAD"),
    GET_PART[:-4],
    GET_PART[-4:],
    GET_PART + GET_PART[:20],
    GET_PART.replace(b"part", b"later") * 2,
    b"POST /live/x HTTP/1.1\r\nHost: e\r\nContent-Length: %d\r\n\r\n" % len(GET_PART),
    GET_PART.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
    GET_PART.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"),
    b"GET /live/x HTTP/1.1\r\nX: ",
)
MOVES = st.one_of(
    st.tuples(
        st.just("send"), st.integers(0, 2), st.sampled_from((0, 0, 0, 2, *range(len(PIECES))))
    ),
    st.tuples(st.sampled_from(["read", "leave"]), st.integers(0, 2), st.just(0)),
    st.tuples(st.sampled_from(["send_ahead", "settle", "release"]), st.just(0), st.just(0)),
    st.tuples(st.sampled_from(["wait", "drain"]), st.just(0), st.integers(0, 1)),
)
WARM: list[Move] = [
    *[("send", 0, 0), ("read", 0, 0)] * (KERNEL_BYTES_AFTER + 1),
    *[("send", 0, 1)] * 2,
]
LAST: list[Move] = [
    ("settle", 0, 0),
    ("release", 0, 0),
    *(("read", viewer, 0) for viewer in range(VIEWERS)),
]


class Play:
    """One server, its viewers, and what they got."""

    def __init__(self, edge: World) -> None:
        self.edge = edge
        self.service = Service()
        edge.server.mount("/live/", self.service, any_method=True)
        self.clients = [edge.client() for _ in range(VIEWERS)]
        self.got = [b""] * VIEWERS
        self.ahead: list[Exchange] = []

    def send(self, viewer: int, piece: int) -> None:
        with contextlib.suppress(OSError):
            self.clients[viewer].sock.send(PIECES[piece])

    def read(self, viewer: int, _: int) -> None:
        self.got[viewer] = self.clients[viewer].read()

    def leave(self, viewer: int, _: int) -> None:
        with contextlib.suppress(OSError):
            self.clients[viewer].sock.shutdown(socket.SHUT_WR)

    def send_ahead(self, _: int, __: int) -> None:
        exchange = next(iter(self.service.group), None)
        response = self.service.text("ahead")
        if exchange is not None and exchange.answer_ahead(response):
            del self.service.group[exchange]
            data = b"".join(exchange.stamped(response, self.edge.pump.time))
            send_to_all([exchange.connection], data)
            self.ahead.append(exchange)

    def settle(self, _: int, __: int) -> None:
        while self.ahead:
            self.ahead.pop().settle(self.edge.pump.time)

    def release(self, _: int, __: int) -> None:
        self.service.release("now", self.edge.pump.time)

    def drain(self, _: int, draining: int) -> None:
        self.edge.server.drain(bool(draining))

    def wait(self, _: int, times: int) -> None:
        self.edge.pump.advance(0.4 if not times else IDLE_S_MAX / 2)


def play(serve: ServeBatch | None, moves: list[Move]) -> list[object]:
    """What the viewers get, how they end, and what is counted; with None nothing stands."""
    with world() as edge:
        edge.pump.serve = serve or serve_in_python
        if serve is None:
            edge.server.standing = StandingAnswers(lambda *_: None, answers_max=0)
        made = Play(edge)
        for name, viewer, what in (*WARM, *moves, *LAST):
            getattr(made, name)(viewer, what)
            edge.pump.turn()
        ends = [client.lost for client in made.clients]
        return [*made.got, ends, edge.server.statistics()]


@settings(max_examples=150)
@given(st.lists(MOVES, max_size=40))
def test_nobody_sees_what_stands(moves: list[Move]) -> None:
    plain = play(None, moves)
    assert play(serve_in_python, moves) == plain
    assert play(serving.serve_batch, moves) == plain
