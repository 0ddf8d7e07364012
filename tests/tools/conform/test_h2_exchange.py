import contextlib
from collections.abc import AsyncIterator

import pytest
import trio
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from trio.testing import memory_stream_pair

from edged.errors import RemoteProtocolError
from edged.tools.conform import h2_exchange
from edged.tools.conform.h2_exchange import H2Exchange
from tests.tools.conform.h2_server import Respond, answer_of, h2_server

URL = "https://x:1/a?b=1"


@contextlib.asynccontextmanager
async def exchanging(respond: Respond) -> AsyncIterator[H2Exchange]:
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(h2_server(respond), theirs)
        yield H2Exchange(ours)
        nursery.cancel_scope.cancel()


async def test_requests_one_after_the_other() -> None:
    body = bytes(range(256)) * 200
    async with exchanging(answer_of(body)) as h2:
        for number in range(3):
            answer, reusable = await h2.exchange(URL, f"/a?n={number}", [("range", "bytes=0-1")])
            assert (answer.status, answer.body, answer.version) == (200, body, "HTTP/2")
            assert answer.get("x-target") == f"/a?n={number}"
            assert answer.arrivals[-1][0] == answer.wire_bytes == len(body)
            assert answer.asked_at <= answer.head_at <= answer.first_at <= answer.last_at
            assert reusable


def reset(h2: H2Connection, number: int, _: str) -> None:
    h2.reset_stream(number, ErrorCodes.INTERNAL_ERROR)


def go_away(h2: H2Connection, number: int, _: str) -> None:
    h2.close_connection(ErrorCodes.ENHANCE_YOUR_CALM, last_stream_id=0)


async def test_a_last_answer_before_the_end_is_taken() -> None:
    def last(h2: H2Connection, number: int, target: str) -> None:
        answer_of(b"yes")(h2, number, target)
        h2.close_connection()

    async with exchanging(last) as h2:
        answer, reusable = await h2.exchange(URL, "/", [])
        assert (answer.body, reusable) == (b"yes", False)


@pytest.mark.parametrize(
    ("respond", "told"),
    [
        (reset, "HTTP/2: RST_STREAM, .*INTERNAL"),
        (go_away, "HTTP/2: GOAWAY, .*CALM"),
    ],
)
async def test_what_is_no_answer_is_named(respond: Respond, told: str) -> None:
    ours, theirs = memory_stream_pair()

    async def serve() -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            await h2_server(respond)(theirs)
        await theirs.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with pytest.raises(RemoteProtocolError, match=told) as raised:
            await H2Exchange(ours).exchange(URL, "/a", [])
        assert str(raised.value).startswith(URL)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP/2: the answer is b'HTTP/1.1 400 Bad"),
        (bytes(9), "HTTP/2: "),
        (b"", "the server closed without an answer"),
    ],
)
async def test_garbage_is_named(data: bytes, told: str) -> None:
    ours, theirs = memory_stream_pair()
    await theirs.send_all(data)
    await theirs.send_eof()
    with pytest.raises(RemoteProtocolError, match=told) as raised:
        await H2Exchange(ours).exchange(URL, "/a", [])
    assert str(raised.value).startswith(URL)


async def test_a_connection_is_not_used_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h2_exchange, "STREAM_ID_MAX", 3)
    async with exchanging(answer_of(b"")) as h2:
        assert [(await h2.exchange(URL, "/", []))[1] for _ in range(2)] == [True, False]
