"""The HTTP engine on whole requests: written anew, answered, and bounded."""

import h11
import hypothesis
import pytest
import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope
from hypothesis import strategies as st

from edged.api import engine as module
from edged.api.engine import AnswerError, Engine, Peer, read_answer, write_request
from edged.wire.h1 import H1Session
from edged.wire.request import RequestReceived

PEER = Peer("192.0.2.1", 5, secure=True)


def request(
    method: str = "GET",
    path: str = "/api/x",
    query: str = "",
    fields: tuple[tuple[bytes, bytes], ...] = ((b"Host", b"edge"),),
    body: bytes = b"",
) -> RequestReceived:
    return RequestReceived(
        method=method, path=path, query=query, fields=fields, keep_alive=True, body=body
    )


class Echo:
    """An application that answers with what it was given."""

    def __init__(self, *, answer: bytes | None = None, status: int = 200) -> None:
        self.answer = answer
        self.status = status
        self.scopes: list[Scope] = []
        self.bodies: list[bytes] = []

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        assert scope["type"] == "http"
        body = b""
        while True:
            event = await receive()
            assert event["type"] == "http.request"
            body += event["body"]
            if not event["more_body"]:
                break
        self.scopes.append(scope)
        self.bodies.append(body)
        answer = body if self.answer is None else self.answer
        await send(
            {
                "type": "http.response.start",
                "status": self.status,
                "headers": [(b"content-length", b"%d" % len(answer))],
            }
        )
        await send({"type": "http.response.body", "body": answer, "more_body": False})


async def test_an_application_is_asked_and_answers() -> None:
    app = Echo(status=201)
    asked = request("POST", "/api/a b/ö", "x=1&y=%20", body=b"hello")
    response = await Engine(app).answer(asked, PEER, {"call": "the call"})
    assert (response.status, response.body) == (201, (b"hello",))
    assert response.head == b"HTTP/1.1 201 Created\r\ncontent-length: 5\r\n"
    (scope,) = app.scopes
    assert scope["type"] == "http"
    assert (scope["method"], scope["path"], scope["scheme"]) == ("POST", "/api/a b/ö", "https")
    assert scope["query_string"] == b"x=1&y=%20"
    assert scope["client"] == ("192.0.2.1", 5)
    assert scope["state"] == {"call": "the call"}


async def test_many_at_a_time_do_not_mix() -> None:
    engine = Engine(Echo())
    answers: dict[int, bytes] = {}

    async def ask(number: int) -> None:
        asked = request("POST", body=b"%d" % number)
        answers[number] = (await engine.answer(asked, PEER, {})).body[0]

    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(ask, number)
    assert answers == {number: b"%d" % number for number in range(50)}


async def test_the_answer_to_head_is_that_to_get() -> None:
    app = Echo(answer=b"abc")
    response = await Engine(app).answer(request("HEAD"), PEER, {})
    assert (response.status, response.size) == (200, 3)
    assert app.scopes[0]["type"] == "http"
    assert app.scopes[0]["method"] == "GET"


async def test_nothing_but_one_plain_request_reaches_the_engine() -> None:
    """No upgrade to another protocol, no coding of the body, no length but the true one."""
    fields = (
        (b"Host", b"edge"),
        (b"Connection", b"Upgrade, HTTP2-Settings"),
        (b"Upgrade", b"h2c"),
        (b"HTTP2-Settings", b"AAMAAABkAAQAoAAAAAIAAAAA"),
        (b"Transfer-Encoding", b"chunked"),
        (b"Content-Length", b"99"),
        (b"Expect", b"100-continue"),
        (b"X-Kept", b"yes"),
    )
    written = write_request(request("POST", fields=fields, body=b"abc"))
    assert written == (
        b"POST /api/x HTTP/1.1\r\nHost: edge\r\nX-Kept: yes\r\nContent-Length: 3\r\n\r\nabc"
    )
    assert (await Engine(Echo()).answer(request(fields=fields), PEER, {})).status == 200
    assert b"Host: localhost\r\n" in write_request(request(fields=()))


async def test_an_answer_too_long_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_BYTES_MAX", 1000)
    head = len(b"HTTP/1.1 200 \r\ncontent-length: 900\r\n\r\n")
    fits = await Engine(Echo(answer=b"x" * (1000 - head))).answer(request(), PEER, {})
    assert fits.size == 1000 - head
    with pytest.raises(AnswerError, match="exceeds 1000 bytes"):
        await Engine(Echo(answer=b"x" * (1001 - head))).answer(request(), PEER, {})


async def test_a_request_that_the_engine_does_not_like_is_said() -> None:
    twice = ((b"Host", b"edge"), (b"Host", b"other"))
    with pytest.raises(AnswerError, match="answered 400 by the HTTP engine"):
        await Engine(Echo()).answer(request(fields=twice), PEER, {})


async def test_an_application_that_fails_or_says_nothing_has_no_answer() -> None:
    async def fails(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        raise ValueError("a bug")

    async def silent(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await trio.lowlevel.checkpoint()

    for app in (fails, silent):
        with pytest.raises(AnswerError, match="answered 500"):
            await Engine(app).answer(request(), PEER, {})


@pytest.mark.parametrize("written", [b"", b"HTTP/1.1 200 OK\r\n", b"x\r\n\r\n", b"a 100 b\r\n\r\n"])
def test_what_is_no_answer(written: bytes) -> None:
    with pytest.raises(AnswerError):
        read_answer(written)


@hypothesis.given(
    st.binary(min_size=1, max_size=60),
    st.binary(max_size=60),
    st.lists(st.tuples(st.sampled_from([b"X-A", b"Cookie"]), st.binary(max_size=20)), max_size=3),
    st.binary(max_size=50),
)
@hypothesis.settings(deadline=None)
def test_what_one_parser_took_for_one_request_the_other_does_too(
    path: bytes, query: bytes, fields: list[tuple[bytes, bytes]], body: bytes
) -> None:
    """Whatever is taken from the wire is written as one request, with nothing behind it."""
    wire = b"POST /api/" + path + b"?" + query + b" HTTP/1.1\r\nHost: edge\r\n"
    wire += b"".join(b"%b: %b\r\n" % field for field in fields)
    wire += b"Content-Length: %d\r\n\r\n" % len(body) + body
    taken = [
        event
        for event in H1Session(now=0.0).receive_data(wire, 0.0)
        if isinstance(event, RequestReceived)
    ]
    for first in taken[:1]:
        again = H1Session(now=0.0).receive_data(write_request(first), 0.0)
        assert len(again) == 1
        second = again[0]
        assert isinstance(second, RequestReceived)
        assert (second.method, second.path, second.body) == (first.method, first.path, first.body)
        assert requests_by_h11(write_request(first)) <= 1


def requests_by_h11(wire: bytes) -> int:
    """How many requests hypercorn's parser sees."""
    parser, count = h11.Connection(h11.SERVER), 0
    parser.receive_data(wire)
    try:
        while not isinstance(event := parser.next_event(), type):
            count += isinstance(event, h11.Request)
            if isinstance(event, h11.EndOfMessage):
                assert parser.trailing_data[0] == b""
    except h11.RemoteProtocolError:
        pass
    return count
