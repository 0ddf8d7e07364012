"""Answers that are sent ahead of their bookkeeping; the rest of a connection is in `test_http`."""

import math

import pytest
from structlog.testing import capture_logs

from edged.playback.exchange import PROGRESS_S_MAX, HttpConnection
from edged.playback.release import Release
from edged.playback.waiting import Exchange
from edged.runtime import serving
from edged.runtime.kernel_bytes import KERNEL_BYTES_AFTER
from edged.runtime.sends import send_to_all
from edged.runtime.serving import serve_in_python
from edged.wire.h1_events import H1Limits
from edged.wire.prepared import PreparedResponse
from tests.conftest import require_found
from tests.playback.fakes import Client, World
from tests.playback.test_http import BIG, PART, Service

GET_PART = b"GET /live/part HTTP/1.1\r\nHost: edge\r\n\r\n"
IDLE_S_MAX = H1Limits().idle_s_max


def waiting(edge: World, service: Service, method: str = "GET", fields: str = "") -> Client:
    client = edge.client()
    client.ask("/live/later", method, fields)
    assert service.group
    return client


def only(service: Service) -> HttpConnection:
    (exchange,) = service.group
    assert isinstance(exchange, HttpConnection)
    service.group.clear()
    return exchange


def send_ahead(exchange: Exchange, response: PreparedResponse, now: float) -> None:
    """As a release does it."""
    assert exchange.answer_ahead(response)
    send_to_all([exchange.connection], b"".join(exchange.stamped(response, now)))


def test_the_bytes_leave_before_anything_is_noted(edge: World, service: Service) -> None:
    client = waiting(edge, service)
    exchange, now = only(service), edge.pump.now()
    send_ahead(exchange, service.text("part"), now)
    assert [answer.body for answer in client.answers()] == [b"part"]
    assert edge.server.statistics().responses_total == {}
    exchange.settle(now)
    exchange.settle(now)
    assert edge.server.statistics().responses_total == {200: 1}
    assert edge.server.statistics().body_bytes_total == len(b"part")
    assert client.get("/live/more").body == b"/live/more"


def test_a_request_that_comes_in_between_is_answered_once_and_in_order(
    edge: World, service: Service
) -> None:
    client = waiting(edge, service)
    exchange, now = only(service), edge.pump.now()
    send_ahead(exchange, service.text("part"), now)
    client.ask("/live/more")
    edge.pump.turn()
    assert [answer.body for answer in client.answers()] == [b"part", b"/live/more"]
    exchange.settle(now)
    assert edge.server.statistics().responses_total == {200: 2}


def test_a_request_that_was_pipelined_is_answered_when_it_is_settled(
    edge: World, service: Service
) -> None:
    client = waiting(edge, service)
    client.ask("/live/behind")
    edge.pump.turn()
    exchange, now = only(service), edge.pump.now()
    send_ahead(exchange, service.text("part"), now)
    exchange.settle(now)
    edge.pump.flush()
    assert [answer.body for answer in client.answers()] == [b"part", b"/live/behind"]


@pytest.mark.parametrize("fields", ["Connection: close\r\n", ""])
def test_what_is_not_simple_is_left_to_answer(edge: World, service: Service, fields: str) -> None:
    client = waiting(edge, service, "GET" if fields else "HEAD", fields)
    exchange, now = only(service), edge.pump.now()
    assert not exchange.answer_ahead(service.text("part"))
    exchange.settle(now)
    assert client.answers(head=not fields) == []
    exchange.answer(service.text("part"), now)
    edge.pump.flush()
    assert [answer.status for answer in client.answers(head=not fields)] == [200]


def test_a_pop_that_drains_closes_with_the_answer(edge: World, service: Service) -> None:
    client = waiting(edge, service)
    edge.server.drain(True)
    assert not Release(service.group, service.text("part"), edge.pump.now)(math.inf)
    edge.pump.turn()
    (answer,) = client.answers()
    assert answer.fields["connection"] == "close"


def test_who_leaves_in_between_is_counted_and_forgotten(edge: World, service: Service) -> None:
    client = waiting(edge, service)
    exchange, now = only(service), edge.pump.now()
    send_ahead(exchange, service.text("part"), now)
    client.close()
    edge.pump.turn()
    assert edge.server.connections == 0
    exchange.settle(now)
    assert edge.server.statistics().responses_total == {200: 1}


def test_who_does_not_take_it_is_watched_from_then_on(edge: World, service: Service) -> None:
    client = waiting(edge, service)
    exchange, now = only(service), edge.pump.now()
    send_ahead(exchange, service.big, now)
    exchange.settle(now)
    assert exchange.connection.out_bytes > 0
    for _ in range(2):  # What the kernel took at once counts for the first.
        edge.pump.advance(PROGRESS_S_MAX + 1)
    assert client.lost is not None
    assert "reads too slowly" in client.lost
    assert edge.server.stalled == 1
    assert len(BIG) > exchange.connection.sent_bytes


def test_a_timer_in_between_settles_it(edge: World, service: Service) -> None:
    service.until = edge.pump.now() + 5
    client = waiting(edge, service)
    exchange = only(service)
    send_ahead(exchange, service.text("part"), edge.pump.now())
    edge.pump.advance(6)
    edge.pump.flush()
    assert [answer.status for answer in client.answers()] == [200], "and not 503 as well"
    assert edge.server.statistics().responses_total == {200: 1}


@pytest.fixture(params=["python", "compiled"])
def serving_edge(request: pytest.FixtureRequest, edge: World) -> World:
    """One whose pump serves in that way."""
    compiled = request.param == "compiled"
    if compiled:
        require_found("a compiled runtime", found=serving.serve_batch is not serve_in_python)
    edge.pump.serve = serving.serve_batch if compiled else serve_in_python
    return edge


def have_stand(edge: World, service: Service, path: str = "/live/part") -> Client:
    """Ask for that until it stands; who asked."""
    client = edge.client()
    for _ in range(KERNEL_BYTES_AFTER + 1):
        assert client.get(path).status == 200
    assert len(edge.server.standing.answers) == 1
    assert client.connection.standing is edge.server.standing
    service.asked.clear()
    return client


@pytest.mark.parametrize("path", ["/live/part", "/live/init"])
def test_what_stands_is_answered_without_asking(
    serving_edge: World, service: Service, path: str
) -> None:
    edge = serving_edge
    client = have_stand(edge, service, path)
    before, fields = edge.server.statistics(), client.get(path).fields
    others = [edge.client() for _ in range(3)]
    for other in others:
        other.get("/live/hello")  # From then on they are at rest.
    service.asked.clear()
    body = PART if path == "/live/part" else b"init"
    for asking in (client, *others):
        answer = asking.get(path)
        assert (answer.status, answer.body, answer.fields) == (200, body, fields)
    assert service.asked == []
    now = edge.server.statistics()
    assert now.responses_total[200] - before.responses_total[200] == 1 + 3 + 4
    sent = now.body_bytes_total - before.body_bytes_total
    assert sent == 5 * len(body) + 3 * len("/live/hello")
    assert edge.server.statistics() == now, "counted once"


@pytest.mark.parametrize("how", ["leaves", "asks", "is idle", "drains", "time"])
def test_what_stood_is_counted_however_it_ends(
    serving_edge: World, service: Service, how: str
) -> None:
    edge = serving_edge
    client = have_stand(edge, service)
    before = edge.server.statistics().responses_total[200]
    with capture_logs() as logs:
        for _ in range(3):
            client.get("/live/part")
        if how == "asks":
            client.get("/live/hello")
        elif how == "is idle":
            edge.pump.advance(2 * IDLE_S_MAX)
        elif how == "drains":
            edge.server.drain(True)
        elif how == "time":
            edge.pump.advance(1)
            edge.server.tick(edge.pump.time)
        client.close()
        edge.pump.turn()
    (line,) = (line for line in logs if line["event"] == "viewer connection ended")
    more = 3 + (how == "asks")
    assert line["requests"] == KERNEL_BYTES_AFTER + 1 + more
    assert edge.server.statistics().responses_total[200] == before + more
    sent = (KERNEL_BYTES_AFTER + 4) * len(PART) + (how == "asks") * len("/live/hello")
    assert edge.server.statistics().body_bytes_total == sent


def test_it_stands_for_its_second(serving_edge: World, service: Service) -> None:
    edge = serving_edge
    client = have_stand(edge, service)
    edge.pump.advance(1)
    assert client.get("/live/part").status == 200
    assert service.asked == ["/live/part"]
    assert edge.server.statistics().responses_total == {200: KERNEL_BYTES_AFTER + 2}


@pytest.mark.parametrize("path", ["/live/segment", "/live/small", "/live/big", "/missing"])
def test_what_may_be_another_the_next_time_never_stands(
    serving_edge: World, service: Service, path: str
) -> None:
    edge = serving_edge
    client = edge.client()
    for _ in range(KERNEL_BYTES_AFTER + 3):
        client.get(path)
    assert not edge.server.standing.answers


@pytest.mark.parametrize(
    "request_bytes",
    [
        GET_PART.replace(b"GET", b"HEAD"),
        GET_PART.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        GET_PART.replace(b"HTTP/1.1", b"HTTP/1.0"),
        GET_PART.replace(b"\r\n\r\n", b"\r\nContent-Length: 1\r\n\r\nx"),
    ],
)
def test_only_a_plain_get_stands(
    serving_edge: World, service: Service, request_bytes: bytes
) -> None:
    edge = serving_edge
    have_stand(edge, service)
    for _ in range(3):
        client = edge.client()
        client.get("/live/hello")
        service.asked.clear()
        client.send(request_bytes)
        assert service.asked == ["/live/part"]
        assert len(edge.server.standing.answers) == 1


def test_requests_in_pieces_and_pipelined_are_read_as_ever(
    serving_edge: World, service: Service
) -> None:
    edge = serving_edge
    client = have_stand(edge, service)
    client.send(GET_PART[:10])
    assert client.answers() == []
    client.send(GET_PART[10:] + GET_PART + GET_PART[:-1])
    assert [answer.body for answer in client.answers()] == [PART, PART]
    client.send(GET_PART[-1:])
    assert [answer.body for answer in client.answers()] == [PART]
    assert service.asked == ["/live/part"] * 3
    assert client.get("/live/part").body == PART
    assert service.asked == ["/live/part"] * 3


@pytest.mark.parametrize("ahead", [False, True])
def test_who_waits_is_not_answered_out_of_turn_and_then_rests(
    serving_edge: World, service: Service, ahead: bool
) -> None:
    edge = serving_edge
    client = have_stand(edge, service)

    def release() -> None:
        if not ahead:
            service.release("now", edge.pump.time)
            return
        exchange = only(service)
        send_ahead(exchange, service.text("now"), edge.pump.time)
        exchange.settle(edge.pump.time)

    client.ask("/live/later")
    client.send(GET_PART)
    assert client.answers() == []
    release()
    edge.pump.turn()
    assert [answer.body for answer in client.answers()] == [b"now", PART]
    client.ask("/live/later")
    release()
    service.asked.clear()
    client.send(GET_PART)
    assert [answer.body for answer in client.answers()] == [b"now", PART]
    assert service.asked == []


def test_who_is_slow_to_take_what_stands_is_bounded(serving_edge: World, service: Service) -> None:
    edge = serving_edge
    client = have_stand(edge, service)
    asked = 0
    while not client.connection.out_bytes:
        client.send(GET_PART)
        asked += 1
    assert service.asked == []
    client.send(GET_PART * 3)
    assert [answer.body for answer in client.answers()] == [PART] * (asked + 3)
    assert edge.server.statistics().responses_total == {200: KERNEL_BYTES_AFTER + asked + 4}
    while not client.connection.out_bytes:
        client.send(GET_PART)
    for _ in range(2):
        edge.pump.advance(PROGRESS_S_MAX + 1)
    assert client.lost is not None
    assert "reads too slowly" in client.lost


def test_a_pop_that_drains_lets_nothing_stand(serving_edge: World, service: Service) -> None:
    edge = serving_edge
    client, other = have_stand(edge, service), edge.client()
    other.get("/live/part")
    edge.server.drain(True)
    assert client.get("/live/part").fields["connection"] == "close"
    edge.pump.advance(2)
    assert other.get("/live/part").fields["connection"] == "close"
    assert not edge.server.standing.answers
    assert edge.server.standing.until == -math.inf, "nor what may yet come into it"
    edge.server.drain(False)
    have_stand(edge, service)


@pytest.mark.parametrize("path", ["/live/part", "/live/init"])
def test_who_is_answered_so_is_idle_from_the_last_on(
    serving_edge: World, service: Service, path: str
) -> None:
    edge = serving_edge
    client, other = have_stand(edge, service, path), edge.client()
    other.get("/live/hello")
    for _ in range(10):  # Somebody else has it stand in each of these seconds.
        edge.pump.advance(IDLE_S_MAX / 2)
        for _ in range(KERNEL_BYTES_AFTER + 1):
            other.get(path)
        service.asked.clear()
        client.get(path)
        assert service.asked == []
    edge.pump.advance(IDLE_S_MAX - 0.1)
    assert client.lost is None
    edge.pump.advance(0.2)
    assert client.lost == f"no request for {IDLE_S_MAX:g} s"


def unsettled(edge: World, service: Service) -> tuple[Client, HttpConnection]:
    """Who had something stand and was then sent an answer ahead."""
    client = have_stand(edge, service)
    client.ask("/live/later")
    exchange = only(service)
    send_ahead(exchange, service.text("now"), edge.pump.time)
    return client, exchange


@pytest.mark.parametrize("case", ["waits", "half", "body", "refused"])
def test_what_comes_behind_an_answer_sent_ahead_ends_the_rest(
    serving_edge: World, service: Service, case: str
) -> None:
    """Settling it finds the connection at rest; what comes next may begin what is not whole."""
    edge = serving_edge
    client, _exchange = unsettled(edge, service)
    post = b"POST /live/x HTTP/1.1\r\nHost: e\r\nContent-Length: %d\r\n\r\n" % len(GET_PART)
    client.send(
        {
            "waits": b"GET /live/later HTTP/1.1\r\nHost: edge\r\n\r\n",
            "half": b"GET /live/hello HTTP/1.1\r\nHost: edge\r\nX: ",
            "body": post,
            "refused": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        }[case]
    )
    assert client.connection.standing is None
    client.send(GET_PART)
    answers = [(answer.status, answer.body) for answer in client.answers()]
    assert answers[0] == (200, b"now")
    assert (200, PART) not in answers
    if case == "waits":
        service.release("then", edge.pump.time)
        edge.pump.turn()
        assert [answer.body for answer in client.answers()] == [b"then", PART]


def test_an_answer_behind_which_another_request_waits_is_no_rest(
    serving_edge: World, service: Service
) -> None:
    edge = serving_edge
    client = have_stand(edge, service)
    client.send(2 * b"GET /live/later HTTP/1.1\r\nHost: edge\r\n\r\n")
    for text in ("one", "two"):
        service.release(text, edge.pump.time)
        edge.pump.flush()
        client.send(GET_PART)
        edge.pump.turn()
        bodies = [answer.body for answer in client.answers()]
        assert bodies == ([b"one"] if text == "one" else [b"two", PART, PART])


def test_half_a_request_behind_a_whole_one_ends_the_rest(
    serving_edge: World, service: Service
) -> None:
    edge = serving_edge
    client = have_stand(edge, service)
    client.send(b"GET /live/hello HTTP/1.1\r\nHost: edge\r\n\r\nGET /live/x HTTP/1.1\r\nX: ")
    client.send(GET_PART)
    client.send(b"Host: edge\r\n\r\n")
    bodies = [answer.body for answer in client.answers()]
    assert PART not in bodies
    assert bodies[0] == b"/live/hello"


def test_who_does_not_read_is_not_read_on(serving_edge: World, service: Service) -> None:
    edge = serving_edge
    client = have_stand(edge, service)
    for _ in range(200):
        try:
            client.sock.send(GET_PART)
        except BlockingIOError:
            break
        edge.pump.turn()
    assert client.connection.out_bytes <= 64 * 1024 + 2 * len(PART)
    assert edge.server.statistics().responses_total[200] < 20
    for _ in range(2):
        edge.pump.advance(PROGRESS_S_MAX + 1)
    assert client.lost is not None
    assert "reads too slowly" in client.lost


def test_an_answer_sent_ahead_lets_nothing_out_of_turn(
    serving_edge: World, service: Service
) -> None:
    edge = serving_edge
    client, exchange = unsettled(edge, service)
    client.send(GET_PART)
    exchange.settle(edge.pump.time)
    assert [answer.body for answer in client.answers()] == [b"now", PART]
    assert edge.server.statistics().responses_total == {200: KERNEL_BYTES_AFTER + 3}
