"""Fuzz targets at the doors: HTTP/1.1 with playback behind it, playlist queries, the admin line."""

import functools
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import msgspec

from edged.api.admin import AdminAnswer, Arguments, answer
from edged.errors import EdgedError
from edged.media.stream import StreamId
from edged.playback.hls import HlsService
from edged.playback.http import HttpConnection, HttpServer, Router
from edged.playback.pages import LiveChannel, mount_streams, mount_time
from edged.playback.statistics import HttpStatistics
from edged.policy.blocking_reload import choose_answer, is_reached, parse_directives
from edged.policy.delivery_directives import PlaylistEdge, Wait
from edged.runtime.standing import StandingAnswers
from edged.wire.h1 import H1Session, KnownRequests
from edged.wire.h1_events import H1Limits, RequestRefused
from edged.wire.prepared import date_stamp
from tests.fuzz.fakes import StillConnection, StillPump
from tests.fuzz.script import Script, Target, block, in_pieces
from tests.playback.fakes import Origin

if TYPE_CHECKING:
    from edged.runtime.connection import Connection

STREAM = StreamId("demo", 1)


class Place:
    """A playback edge with one live channel; made once, as it holds nothing of a viewer.

    With `standing`, requests that are known are answered without a look.
    """

    def __init__(self, pump: StillPump, *, standing: bool) -> None:
        self.pump = pump
        self.hls = HlsService(
            lookup=lambda name: STREAM if name == "demo" else None,
            subscribe=lambda _: None,
            unsubscribe=lambda _: None,
            now=self.pump.now,
        )
        router = Router()
        mount_time(router, lambda: 1e9)
        mount_streams(router, lambda: [LiveChannel(channel="demo", title="", since=0.0, viewers=1)])
        self.server = HttpServer(router, unix_now=lambda: 1e9)
        if not standing:
            self.server.standing = StandingAnswers(_nobody, answers_max=0)
        self.server.mount("/live/", self.hls)
        self.hls._channel("demo", self.pump.time)
        origin = Origin()
        self.hls.window_updated(STREAM, [*origin.start(), *origin.segment(), *origin.segment()])


def _nobody(*_: object) -> None:
    raise AssertionError("nothing stands there")


@functools.cache
def places() -> tuple[Place, Place]:
    """The one edge as it is, and one that looks into every request."""
    pump = StillPump()
    return Place(pump, standing=True), Place(pump, standing=False)


class Visit:
    """A viewer's connection to one of them."""

    def __init__(self, edge: Place) -> None:
        self.edge = edge
        self.connection = StillConnection(edge.pump)
        self.handler = HttpConnection(edge.server, cast("Connection", self.connection))
        self.connection.handler = self.handler

    def send(self, data: bytes) -> None:
        """The viewer's bytes, or that it has taken ours."""
        if self.connection.reading:
            self.handler.data_received(memoryview(bytearray(data)), self.edge.pump.time)
        else:
            self.handler.drained()

    def wait(self) -> None:
        """Time has passed."""
        if self.edge.pump.time >= self.connection.timeout_at:
            self.connection.timeout_at = float("inf")
            self.handler.handle_timeout(self.edge.pump.time)

    def seen(self) -> tuple[object, ...]:
        """What the viewer sees, and when it will be looked at."""
        connection = self.connection
        return connection.sent_bytes, connection.sent_crc, connection.lost, connection.reading

    def leave(self) -> None:
        """Hang up; nothing is left of it."""
        self.connection.abort("the script is over")
        edge = self.edge
        assert edge.server.connections == 0, "connections are counted"
        channel = edge.hls._channels.get("demo")
        assert channel is not None
        assert not any(stream.blocked for stream in channel.streams.values()), "nobody waits on"
        edge.hls.sweep(0.0)
        for name in list(edge.hls._channels):
            if name != "demo":
                del edge.hls._channels[name]


def _counted(now: HttpStatistics, then: HttpStatistics) -> tuple[object, ...]:
    responses = Counter(now.responses_total)
    responses.subtract(then.responses_total)
    return now.body_bytes_total - then.body_bytes_total, +responses


def run_http(data: bytes) -> int:
    """A viewer's connection: pieces of bytes, and time between them; whether answers stand or not.

    Which is only seen by who counts the services' work.
    """
    script = Script(data)
    edges = places()
    pump = edges[0].pump
    pump.time = float(int(pump.time) + 2)  # Nothing stands of the input before.
    visit, plain = (Visit(edge) for edge in edges)
    before = [edge.server.statistics() for edge in edges]
    while not script.done and visit.connection.lost is None:
        choice = script.number()
        if choice < 200:
            piece = script.block()
            visit.send(piece)
            plain.send(piece)
        else:
            pump.time += (choice - 199) / 4
            visit.wait()
            plain.wait()
        pump.turn()
        assert visit.seen() == plain.seen(), "what stands is what would be answered"
    visit.leave()
    plain.leave()
    counts = [
        _counted(now, then)
        for now, then in zip((edge.server.statistics() for edge in edges), before, strict=True)
    ]
    assert counts[0] == counts[1], "and is counted"
    return visit.connection.sent_bytes


REQUESTS = (
    b"GET /live/demo/master.m3u8 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /live/demo/1/v0.m3u8?_HLS_msn=2&_HLS_part=0 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /live/demo/1/v0.m3u8?_HLS_msn=1&_HLS_part=3 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /live/demo/1/v0-1.3.m4s HTTP/1.1\r\nHost: a\r\nRange: bytes=0-9\r\n\r\n",
    b"GET /live/demo/1/v0-1.3.m4s HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD /live/demo/1/v0-0.m4s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"GET /live/other/1/v0.m3u8 HTTP/1.0\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /api HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /time HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    b"GET http://a/streams?x=%41 HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X-Y: z\r\n" * 120 + b"\r\n",
    b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
)


def http_seeds() -> Sequence[bytes]:
    """Requests alone, behind each other, in pieces, and with waits."""
    alone = [b"\0" + block(request) for request in REQUESTS]
    pieces = [
        b"".join(b"\0" + block(piece) for piece in in_pieces(request, 7)) for request in REQUESTS
    ]
    waits = [b"\0" + block(request) + b"\xdc" * 3 for request in REQUESTS[:5]]
    part = REQUESTS[4]
    again = [
        part,
        part,
        part + b"GET / HTTP/1.1\r\nX: ",
        part,
        b"\r\nHost: a\r\n\r\n",
        part,
        part[:9],
    ]
    heads = [part.replace(b"GET", b"HEAD")] * 4
    split = [part[:-4], part[-4:], part[-4:], part]
    goes = [part.replace(b"1.1", b"1.0")] * 2
    often = [
        b"".join(b"\0" + block(request) for request in (part, *others, REQUESTS[1], part, part))
        + b"\xc9" * 5
        + alone[4]
        for others in (again, heads, split, goes)
    ]
    return [*alone, *pieces, *waits, *often, b"\0" + block(b"".join(REQUESTS[:5]))]


END = b"\r\n\r\n"
LIMITS = H1Limits(unanswered_max=10_000)  # Answers come after each piece, so the cut would count.


def run_h1(data: bytes) -> int:
    """The parser alone: whole, in pieces, and with what others asked before."""
    if not data:
        return 0
    size = 1 + data[0] % 64
    whole, split = _events(data[1:], len(data)), _events(data[1:], size)
    assert repr(whole) == repr(split), "requests do not depend on how TCP cut them"
    known = KnownRequests(entries_max=1 + data[0] % 5)
    for piece in data[1:].split(END):  # Requests that come alone are remembered.
        _events(piece + END, 4096, known)
    assert len(known) <= known.entries_max
    requests = [piece + END for piece in data[1:].split(END)]
    assert repr(_events_of(requests)) == repr(_events_of(requests, known)), "nor on what is known"
    assert repr(_events(data[1:], size, known)) == repr(split)
    return 0


def _events(data: bytes, size: int, known: KnownRequests | None = None) -> list[object]:
    return _events_of(in_pieces(data, size), known)


def _events_of(pieces: Sequence[bytes], known: KnownRequests | None = None) -> list[object]:
    session = H1Session(now=0.0, limits=LIMITS, known=known)
    events: list[object] = []
    for piece in pieces:
        got = session.receive_data(piece, 0.0)
        while session.upgrading:
            got += session.decline_upgrade(0.0)
        events += got
        for event in got:
            if isinstance(event, RequestRefused):
                session.close()
                events[-1] = RequestRefused(0, "the first of several reasons may be another")
                return events
            session.request_answered(0.0)
    session.close()
    return events


def h1_seeds() -> Sequence[bytes]:
    """The same requests."""
    return [bytes([n]) + request for n, request in enumerate(REQUESTS)] + [
        b"\5" + b"".join(REQUESTS[:5])
    ]


def run_reload(data: bytes) -> int:
    """A playlist's query, against a playlist that is anywhere."""
    script = Script(data)
    edge = PlaylistEdge(
        last_msn=script.number(2) - 1,
        last_part=script.number() - 1,
        complete=bool(script.number() & 1),
        part_target_us=1 + script.number(3),
        ended=script.number() == 255,
    )
    try:
        directives = parse_directives(script.rest().decode("latin-1"))
    except EdgedError:
        return 0
    wait = choose_answer(directives, edge)
    if isinstance(wait, Wait):
        assert not is_reached(wait, edge), "who waits waits for something"
    return 0


def reload_seeds() -> Sequence[bytes]:
    """What players ask."""
    edges = [bytes([0, 5, 3, 0, 3, 13, 64, 0]), bytes([0, 5, 10, 1, 3, 13, 64, 0]), bytes(8)]
    queries = [b"_HLS_msn=4", b"_HLS_msn=4&_HLS_part=3", b"_HLS_part=1", b"_HLS_msn=5&_HLS_part=0"]
    return [
        edge + query for edge in edges for query in [*queries, b"a=b&_HLS_msn=04&_HLS_skip=YES"]
    ]


def run_admin(data: bytes) -> int:
    """A line at the admin socket: every answer is one line of JSON."""

    def streams(arguments: Arguments) -> object:
        return dict(arguments)

    def refuse(_: Arguments) -> object:
        raise EdgedError("no")

    line = answer(data, {"streams": streams, "refuse": refuse})
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    msgspec.json.decode(line, type=AdminAnswer)
    return len(line)


def admin_seeds() -> Sequence[bytes]:
    """Questions."""
    return [
        b'{"command": "streams", "arguments": {"a": "b"}}',
        b'{"command": "refuse"}',
        b'{"command": "nothing"}',
        b"[" * 2000,
        b'{"command": "\\ud800"}',
    ]


TARGETS = [
    Target(name="http", run=run_http, seeds=http_seeds),
    Target(name="h1", run=run_h1, seeds=h1_seeds),
    Target(name="reload", run=run_reload, seeds=reload_seeds, bytes_max=512),
    Target(name="admin", run=run_admin, seeds=admin_seeds),
]
assert date_stamp(0.0), "the stamp of a response can be made"
