import gzip

import pytest

from edged.errors import RemoteProtocolError
from edged.tools.conform import answer as answer_module
from edged.tools.conform.answer import Incoming


def test_an_answer_knows_when_its_bytes_came() -> None:
    incoming = Incoming("http://x/a", 1.0)
    incoming.begin(200, [("a", "1"), ("b", "2"), ("a", "3")], 2.0)
    incoming.add(b"abc", 3.0)
    incoming.add(b"", 4.0)
    incoming.add(b"de", 5.0)
    answer = incoming.end("HTTP/2")
    assert (answer.status, answer.body, answer.wire_bytes) == (200, b"abcde", 5)
    assert (answer.waited_s, answer.first_at, answer.last_at) == (1.0, 3.0, 5.0)
    assert [answer.arrived_at(size) for size in (1, 3, 4, 5, 6)] == [3.0, 3.0, 5.0, 5.0, 5.0]
    assert (answer.get("a"), answer.get("c"), answer.version) == ("1, 3", "", "HTTP/2")


def test_an_answer_without_a_body() -> None:
    incoming = Incoming("http://x/a", 1.0)
    incoming.begin(404, [], 2.0)
    answer = incoming.end("HTTP/1.1")
    assert (answer.first_at, answer.last_at, answer.body) == (2.0, 2.0, b"")


def test_arrivals_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_module, "ARRIVALS_MAX", 2)
    incoming = Incoming("http://x/a", 0.0)
    incoming.begin(200, [], 0.0)
    for number in range(1, 5):
        incoming.add(b"a", float(number))
    answer = incoming.end("HTTP/1.1")
    assert answer.arrivals == ((1, 1.0), (4, 4.0))
    assert answer.body == b"aaaa"


@pytest.mark.parametrize(
    ("coding", "body", "told"),
    [
        ("gzip", b"yes", "broken gzip"),
        ("gzip", gzip.compress(b"yes", mtime=0)[:-2], "broken gzip, or more than"),
        ("br", b"yes", "content coding 'br' was not asked for"),
    ],
)
def test_what_cannot_be_unpacked_is_named(coding: str, body: bytes, told: str) -> None:
    incoming = Incoming("http://x/a", 0.0)
    incoming.begin(200, [("content-encoding", coding)], 0.0)
    incoming.add(body, 0.0)
    with pytest.raises(RemoteProtocolError, match=f"http://x/a: {told}"):
        incoming.end("HTTP/1.1")


def test_a_body_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_module, "BODY_BYTES_MAX", 3)
    incoming = Incoming("http://x/a", 0.0)
    incoming.begin(200, [], 0.0)
    incoming.add(b"abc", 0.0)
    with pytest.raises(RemoteProtocolError, match="more than 3 bytes"):
        incoming.add(b"d", 0.0)
