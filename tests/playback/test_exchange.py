"""Answers that are sent ahead of their bookkeeping; the rest of a connection is in `test_http`."""

import math

import pytest

from edged.playback.exchange import PROGRESS_S_MAX, HttpConnection
from edged.playback.release import Release
from edged.runtime.connection import send_to_all
from edged.wire.h1 import PreparedResponse
from tests.playback.fakes import Client, World
from tests.playback.test_http import BIG, Service


def waiting(edge: World, service: Service, method: str = "GET", fields: str = "") -> Client:
    client = edge.client()
    client.ask("/live/later", method, fields)
    assert service.group
    return client


def only(service: Service) -> HttpConnection:
    (exchange,) = service.group
    service.group.clear()
    return exchange


def send_ahead(exchange: HttpConnection, response: PreparedResponse, now: float) -> None:
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
    edge.server.draining = True
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
