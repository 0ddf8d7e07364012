"""HTTP/2 at the playback edge: python-hyper's client over a socket pair, on virtual time."""

import contextlib
import gzip
import math
import socket
from collections.abc import Iterator

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from msgspec import Struct

from edged.media.stream import StreamId
from edged.playback import h2_connection as module
from edged.playback.exchange import PROGRESS_S_MAX, RESPONSE_BYTES_PER_S_MIN, RESPONSE_S_SLACK
from edged.playback.h2_connection import LEAVE_S, H2Connection
from edged.playback.hls import HlsService
from edged.playback.http import Response
from edged.playback.waiting import Exchange
from edged.wire.h2 import frames
from edged.wire.prepared import PreparedResponse, prepare
from edged.wire.request import RequestReceived
from tests.playback.fakes import PARTS, Origin, World, world
from tests.wire.h2.peer import headers, take_apart

BASE = "/live/demo/1f/"
BIG = bytes(range(256)) * 32_768  # 8 MiB: beyond what a socket pair holds, and any first window.


class Answer(Struct):
    """What has come of one."""

    status: int = 0
    fields: dict[str, str] = {}
    body: bytes = b""
    ended: bool = False
    reset: int | None = None


class Client:
    """A viewer who speaks HTTP/2."""

    def __init__(self, edge: World, *, window: int = 2**24) -> None:
        self.edge = edge
        self.sock: socket.socket = edge.pump.connect(lambda c: H2Connection(edge.server, c))
        self.connection = edge.pump.connections[-1]
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.answers: dict[int, Answer] = {}
        self.leaving: list[h2.events.ConnectionTerminated] = []
        self.takes = True  # Gives back what it has read of the windows.
        self.h2.initiate_connection()
        self.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        if window > 65_535:
            self.h2.increment_flow_control_window(window)
        self.send()
        self.read()  # And acknowledge the server's settings.

    def ask(self, path: str, method: str = "GET", *, body: bytes = b"", **fields: str) -> int:
        stream_id = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "https"), (":authority", "edge"), (":path", path)]
        head += [(name.replace("_", "-"), value) for name, value in fields.items()]
        self.h2.send_headers(stream_id, head, end_stream=not body)
        if body:
            self.h2.send_data(stream_id, body, end_stream=True)
        self.answers[stream_id] = Answer()
        self.send()
        return stream_id

    def send(self) -> None:
        self.sock.setblocking(True)
        with contextlib.suppress(BrokenPipeError):  # The server has ended it: see `lost`.
            self.sock.sendall(self.h2.data_to_send())
        self.sock.setblocking(False)
        self.edge.pump.turn()

    def read(self) -> None:
        """Take what has come, until nothing more does."""
        while data := self.receive():
            for event in self.h2.receive_data(data):
                self._take(event)
            self.send()

    def receive(self) -> bytes:
        """The next bytes; none when no more come."""
        for _ in range(3):  # What a first read has made room for.
            with contextlib.suppress(BlockingIOError, ConnectionResetError):
                return self.sock.recv(1 << 20)
            self.edge.pump.turn()
        return b""

    def _take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived(stream_id=int(stream_id), headers=headers):
                assert headers is not None
                answer = self.answers[stream_id]
                answer.fields = {str(name): str(value) for name, value in headers}
                answer.status = int(answer.fields[":status"])
            case h2.events.DataReceived(stream_id=int(stream_id), data=bytes(data)):
                self.answers[stream_id].body += data
                if self.takes:
                    self.h2.acknowledge_received_data(len(data), stream_id)
            case h2.events.StreamEnded(stream_id=int(stream_id)):
                self.answers[stream_id].ended = True
            case h2.events.StreamReset(stream_id=int(stream_id), error_code=code):
                self.answers[stream_id].reset = code
            case h2.events.ConnectionTerminated():
                self.leaving.append(event)
            case _:
                pass

    def get(self, path: str, method: str = "GET", **fields: str) -> Answer:
        """Ask, and expect the whole answer at once."""
        stream_id = self.ask(path, method, body=b"", **fields)
        self.read()
        assert self.answers[stream_id].ended, self.answers[stream_id]
        return self.answers[stream_id]

    def close(self) -> None:
        self.sock.close()


class Service:
    """Answers at once, later, hugely, or not at all."""

    def __init__(self) -> None:
        self.group: dict[Exchange, None] = {}
        self.until = math.inf
        self.asked: list[RequestReceived] = []
        self.big = prepare(200, [BIG], content_type="video/mp4", cache_control="max-age=24")

    def respond(
        self, request: RequestReceived, exchange: Exchange, now: float
    ) -> PreparedResponse | None:
        self.asked.append(request)
        if request.path == "/x/big":
            return self.big
        if request.path == "/x/bug":
            raise ZeroDivisionError
        if request.path == "/x/later":
            exchange.wait(self.group, self.until, text("too long", 503))
            return None
        return text(f"{request.method} {request.path} {request.query} {len(request.body)}")

    def release(self, edge: World, what: str) -> None:
        group, self.group = self.group, {}
        for exchange in group:
            exchange.answer(text(what), edge.pump.time)
        edge.pump.flush()


def text(what: str, status: int = 200) -> PreparedResponse:
    return prepare(
        status, [what.encode()], content_type="text/plain", cache_control="no-store", etag='"t"'
    )


class Setting(Struct):
    edge: World
    service: Service
    clients: list[Client] = []

    def client(self, **options: int) -> Client:
        client = Client(self.edge, **options)
        self.clients.append(client)
        return client


@pytest.fixture
def setting() -> Iterator[Setting]:
    with world() as edge:
        service = Service()
        edge.server.mount("/x/", service, any_method=True)
        edge.server.router.get("/page", lambda _: Response(body=b"a page"))
        made = Setting(edge, service)
        yield made
        for client in made.clients:
            client.close()


def test_answers_are_those_of_http_1(setting: Setting) -> None:
    client = setting.client()
    for path in ("/x/a?b=%20c", "/page", "/absent"):
        ours = client.get(path)
        theirs = setting.edge.client().get(path)
        assert (ours.status, ours.body) == (theirs.status, theirs.body)
        fields = {name: value.lower() for name, value in ours.fields.items() if name[0] != ":"}
        assert fields == theirs.fields, "Date and all"
    statistics = setting.edge.server.statistics()
    assert statistics.h2_connections == 1
    assert statistics.responses_total == {200: 4, 404: 2}


def test_head_bodies_conditions_and_ranges(setting: Setting) -> None:
    client = setting.client()
    head = client.get("/x/a", "HEAD")
    assert (head.status, head.body, head.fields["content-length"]) == (200, b"", "12")
    refused = client.get("/x/" + "a" * 10_000, "HEAD")
    assert (refused.status, refused.body) == (414, b"")
    assert int(refused.fields["content-length"]) > 0
    stream_id = client.ask("/x/post", "POST", body=b"hello")
    client.read()
    assert client.answers[stream_id].body == b"POST /x/post  5"
    assert client.get("/x/a", if_none_match='"t"').status == 304
    ranged = client.get("/x/a", range="bytes=4-6")
    assert (ranged.status, ranged.body) == (206, b"/x/")
    assert client.get("/absent", "OPTIONS").fields["access-control-allow-methods"]


def test_who_waits_holds_nobody_up_and_is_answered_when_it_comes(setting: Setting) -> None:
    client = setting.client()
    waiting = [client.ask("/x/later") for _ in range(3)]
    assert client.get("/x/now").status == 200
    assert [client.answers[each].status for each in waiting] == [0, 0, 0]
    setting.service.release(setting.edge, "there")
    client.read()
    assert [client.answers[each].body for each in waiting] == [b"there"] * 3


def test_who_waits_too_long_is_told(setting: Setting) -> None:
    client = setting.client()
    setting.service.until = setting.edge.pump.time + 12
    waiting = client.ask("/x/later")
    setting.edge.pump.advance(11.9)
    client.read()
    assert not client.answers[waiting].ended
    setting.edge.pump.advance(0.2)
    client.read()
    assert (client.answers[waiting].status, client.answers[waiting].body) == (503, b"too long")
    assert not setting.service.group
    assert client.get("/x/a").status == 200, "the connection goes on"


def test_who_gives_up_waits_no_more(setting: Setting) -> None:
    client = setting.client()
    first, second = client.ask("/x/later"), client.ask("/x/later")
    client.h2.reset_stream(first)
    client.send()
    assert len(setting.service.group) == 1
    setting.service.release(setting.edge, "there")
    client.read()
    assert client.answers[second].body == b"there"
    third = client.ask("/x/later")
    assert len(setting.service.group) == 1
    client.close()
    setting.edge.pump.turn()
    assert not setting.service.group, client.answers[third]
    assert setting.edge.server.statistics().h2_connections == 0


def test_a_request_that_waited_may_wait_again(setting: Setting) -> None:
    client = setting.client()
    waiting = client.ask("/x/later")
    group, setting.service.group = setting.service.group, {}
    for exchange in group:
        exchange.retry(setting.edge.pump.time)
    assert len(setting.service.group) == 1
    setting.service.release(setting.edge, "there")
    client.read()
    assert client.answers[waiting].body == b"there"


def test_large_answers_share_the_connection(setting: Setting) -> None:
    client = setting.client()
    big = [client.ask("/x/big", priority="u=5, i") for _ in range(2)]
    small = client.ask("/x/small", priority="u=0")
    client.read()
    for each in big:
        assert client.answers[each].body == BIG
    assert client.answers[small].ended
    assert setting.edge.server.statistics().body_bytes_total > 2 * len(BIG)


def test_what_is_urgent_overtakes(setting: Setting) -> None:
    client = setting.client()
    big = client.ask("/x/big", priority="u=5")
    urgent = client.ask("/x/urgent", priority="u=0")
    before = None
    while before is None and (data := client.receive()):
        for event in client.h2.receive_data(data):
            client._take(event)
        client.send()
        if client.answers[urgent].ended:
            before = len(client.answers[big].body)
    assert before is not None
    assert before < len(BIG) / 4, "what was in the kernel already"


def test_a_bug_fails_one_request(setting: Setting) -> None:
    client = setting.client()
    waiting = client.ask("/x/later")
    assert client.get("/x/bug").status == 500
    setting.service.release(setting.edge, "there")
    client.read()
    assert client.answers[waiting].body == b"there"


def test_what_is_no_request_we_take_is_told_why(setting: Setting) -> None:
    client = setting.client()
    answer = client.get("/x/" + "a" * 3000)
    assert answer.status == 414
    assert b"2048" in answer.body
    assert setting.edge.server.statistics().refused_total == 1
    assert client.get("/x/a").status == 200


def test_garbage_ends_the_connection_with_a_reason(setting: Setting) -> None:
    client = setting.client()
    client.read()
    client.sock.setblocking(True)
    client.sock.sendall(b"\x00\x00\x01\x00\x00\x00\x00\x00\x00x")  # DATA on stream 0.
    client.sock.setblocking(False)
    setting.edge.pump.turn()
    client.read()
    assert client.leaving
    setting.edge.pump.advance(LEAVE_S + 0.1)
    assert client.connection.lost is not None
    assert "PROTOCOL_ERROR" in client.connection.lost


def test_who_reads_nothing_is_dropped(setting: Setting) -> None:
    client = setting.client()
    client.ask("/x/big")
    setting.edge.pump.advance(PROGRESS_S_MAX + 1)
    assert "reads too slowly" in str(client.connection.lost)
    assert setting.edge.server.statistics().stalled_total == 1


def test_who_has_taken_all_and_is_quiet_stays(setting: Setting) -> None:
    """Found by a review: what was left of an answer went out without a word to the handler."""
    probe = setting.client()
    probe.takes = False
    probe.ask("/x/big")
    room = probe.connection.sent_bytes  # What the kernel takes at once.
    setting.service.big = prepare(
        200, [BIG[: room + 6000]], content_type="video/mp4", cache_control="max-age=24"
    )
    client = setting.client()
    client.takes = False
    asked = client.ask("/x/big")
    client.read()
    assert client.answers[asked].ended
    setting.edge.pump.advance(PROGRESS_S_MAX + 1)
    assert client.connection.lost is None


def test_who_gives_no_leave_is_dropped(setting: Setting) -> None:
    client = setting.client(window=65_535)
    client.takes = False
    client.ask("/x/big")
    client.read()
    setting.edge.pump.advance(PROGRESS_S_MAX + 1)
    assert "reads too slowly" in str(client.connection.lost)


def test_who_is_too_slow_on_the_whole_is_dropped(setting: Setting) -> None:
    client = setting.client(window=20_000)
    client.takes = False
    stream_id = client.ask("/x/big")
    began = setting.edge.pump.time
    while client.connection.lost is None:
        setting.edge.pump.advance(5)
        client.h2.increment_flow_control_window(20_000, stream_id)
        client.h2.increment_flow_control_window(20_000)
        client.send()
        client.read()
    took_s = setting.edge.pump.time - began
    assert RESPONSE_BYTES_PER_S_MIN > 20_000 / 5
    assert RESPONSE_S_SLACK < took_s < 60


def test_a_fast_start_pays_for_no_crawl(setting: Setting) -> None:
    """Found by a review: one stream that never ends kept the connection busy, and its credit."""
    client = setting.client(window=65_535)
    client.takes = False
    client.ask("/x/big")  # Held for ever.
    client.read()
    client.h2.increment_flow_control_window(2**30)
    for _ in range(4):
        fast = client.ask("/x/big")
        client.h2.increment_flow_control_window(len(BIG), fast)
        client.send()
        client.read()
        assert client.answers[fast].ended
    slow, began = client.ask("/x/big"), setting.edge.pump.time
    while client.connection.lost is None and setting.edge.pump.time - began < 600:
        setting.edge.pump.advance(9.5)
        if client.connection.lost is None:
            client.h2.increment_flow_control_window(17_500, slow)  # 15 kbps.
            client.send()
            client.read()
    assert setting.edge.pump.time - began < 60
    assert "reads too slowly" in str(client.connection.lost)


def test_no_more_than_so_much_waits_for_one(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UNSENT_BYTES_MAX", 2 * len(BIG))
    client = setting.client(window=65_535)
    client.takes = False
    ids = [client.ask("/x/big") for _ in range(4)]
    client.read()
    assert [client.answers[each].status for each in ids] == [200, 200, 503, 503]


def test_drained_it_finishes_what_it_was_asked(setting: Setting) -> None:
    client = setting.client()
    waiting = client.ask("/x/later")
    setting.edge.server.drain(True)
    client.ask("/x/b")
    got = client.receive()
    setting.edge.pump.advance(1.5)
    setting.service.release(setting.edge, "there")
    got += client.receive()
    sent = take_apart(got)  # python-hyper takes nothing behind a GOAWAY.
    assert [frame.kind for frame in sent].count(frames.GOAWAY) == 2
    bodies = [frame for frame in sent if frame.kind == frames.DATA]
    assert [frame.payload for frame in bodies] == [b"GET /x/b  0", b"there"]
    assert bodies[1].stream_id == waiting
    setting.edge.pump.advance(LEAVE_S + 0.1)
    assert client.connection.lost == "drained"


def test_drained_a_distant_viewer_gets_all_that_is_on_its_way() -> None:
    """Found by a review: its window updates met a closed socket, and reset what it had yet to read.

    Over TCP, as socket pairs reset nothing.
    """
    body = BIG[:1_000_000]
    with world() as edge, socket.socket() as listener, socket.socket() as end:
        edge.server.router.get("/all", lambda _: Response(body=body))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * 2**20)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        end.connect(listener.getsockname())
        ours, _ = listener.accept()
        ours.setblocking(False)
        connection = edge.pump.take(ours, lambda c: H2Connection(edge.server, c))
        edge.server.drain(True)
        hello = frames.PREFACE + frames.make_settings(((frames.INITIAL_WINDOW_SIZE, 2**24),))
        window = frames.make_frame(frames.WINDOW_UPDATE, 0, 0, (2**24).to_bytes(4, "big"))
        end.sendall(hello + window + frames.SETTINGS_ACK + headers(1, path("/all")))
        end.settimeout(0.02)
        got, raw = b"", b""
        while len(got) < len(body):
            with contextlib.suppress(TimeoutError):
                raw += end.recv(16_384)
            while len(raw) >= 9 and len(raw) >= 9 + int.from_bytes(raw[:3], "big"):
                size = 9 + int.from_bytes(raw[:3], "big")
                (frame,) = take_apart(raw[:size])
                raw = raw[size:]
                if frame.kind == frames.DATA:
                    got += frame.payload
                    more = len(frame.payload).to_bytes(4, "big")
                    end.sendall(frames.make_frame(frames.WINDOW_UPDATE, 0, 0, more))
                elif frame.kind == frames.PING and not frame.flags:
                    end.sendall(frames.make_frame(frames.PING, frames.ACK, 0, frame.payload))
            edge.pump.advance(0.02)
        assert got == body
        edge.pump.advance(LEAVE_S + PROGRESS_S_MAX)
        assert connection.lost == "drained"


def path(target: str) -> tuple[tuple[str, str], ...]:
    """A request's fields."""
    return ((":method", "GET"), (":scheme", "https"), (":authority", "edge"), (":path", target))


def test_who_takes_nothing_of_the_last_is_not_waited_for(setting: Setting) -> None:
    client = setting.client()
    setting.edge.server.drain(True)
    client.ask("/x/a")
    setting.edge.pump.advance(1.5)
    setting.edge.pump.advance(PROGRESS_S_MAX - LEAVE_S)
    assert client.connection.lost is None
    setting.edge.pump.advance(2 * LEAVE_S)
    assert client.connection.lost == "drained"


def test_an_idle_connection_is_closed(setting: Setting) -> None:
    client = setting.client()
    assert client.get("/x/a").status == 200
    setting.edge.pump.advance(74)
    assert client.connection.lost is None
    setting.edge.pump.advance(2)
    client.read()
    setting.edge.pump.advance(LEAVE_S + 0.1)
    assert "no request for 75 s" in str(client.connection.lost)


def test_a_player_s_requests_over_one_connection() -> None:
    """Playlists that block, parts that are hinted, gzip and delta updates, all at once."""
    with world() as edge:
        live = {"demo": StreamId(channel="demo", publication=0x1F)}
        service = HlsService(
            lookup=live.get,
            subscribe=lambda _: None,
            unsubscribe=lambda _: None,
            now=edge.pump.now,
        )
        edge.server.mount("/live/", service)
        client, origin = Client(edge), Origin()
        master = client.ask("/live/demo/master.m3u8")

        def push(events: list[object]) -> None:
            service.window_updated(live["demo"], events)  # type: ignore[arg-type]
            edge.pump.flush()

        push([*origin.start()])
        for _ in range(2 * PARTS):
            push([*origin.both()])
        client.read()
        assert client.answers[master].status == 200
        blocked = [
            client.ask(BASE + f"{name}.m3u8?_HLS_msn=2&_HLS_part=0", accept_encoding="gzip")
            for name in ("v0", "a0")
        ]
        hinted = client.ask(BASE + "v0-2.0.m4s")
        assert client.get(BASE + "v0-1.3.m4s").status == 200
        assert service.statistics().blocked == 3
        push([*origin.both()])
        client.read()
        for each in blocked:
            playlist = gzip.decompress(client.answers[each].body)
            assert b"-2.0.m4s" in playlist
        assert client.answers[hinted].body.startswith(b"v0-2.0;")
        assert service.viewers("demo") == 1
        client.close()
