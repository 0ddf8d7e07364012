from typing import Any

import pytest

from edged.wire.request import RequestReceived


def test_a_field_is_found_in_any_case_and_the_first_counts() -> None:
    fields = [(b"Host", b"edge"), (b"ACCEPT", b"a"), (b"accept", b"b")]
    request = RequestReceived(method="GET", path="/", query="", fields=fields, keep_alive=True)
    assert request.field(b"host") == b"edge"
    assert request.field(b"accept") == b"a"
    assert request.field(b"range") == b""


REQUEST = RequestReceived(
    method="POST",
    path="/a",
    query="b",
    fields=[(b"host", b"edge")],
    keep_alive=True,
    body=b"c",
    upgrade=True,
    conditional=True,
)


@pytest.mark.parametrize(
    "other",
    [
        {"method": "GET"},
        {"path": "/b"},
        {"query": ""},
        {"fields": []},
        {"keep_alive": False},
        {"body": b""},
        {"upgrade": False},
        {"conditional": False},
    ],
)
def test_requests_are_equal_by_value(other: dict[str, Any]) -> None:
    names = ("method", "path", "query", "fields", "keep_alive", "body", "upgrade", "conditional")
    values = {name: getattr(REQUEST, name) for name in names}
    assert RequestReceived(**values) == REQUEST
    assert RequestReceived(**(values | other)) != REQUEST
    assert REQUEST != "a request"
    assert "POST '/a' ?'b'" in repr(REQUEST)


def test_the_same_client_may_ask_something_else() -> None:
    other = REQUEST.for_target("/c", "d")
    assert (other.method, other.path, other.query) == ("POST", "/c", "d")
    assert (other.body, other.upgrade) == (b"", False), "what it asked for is not this"
    assert other.fields is REQUEST.fields
    assert (other.keep_alive, other.conditional) == (True, True)


def test_a_body_may_come_later() -> None:
    whole = REQUEST.for_target(REQUEST.path, REQUEST.query, b"more")
    assert whole.body == b"more"
    assert (whole.method, whole.path, whole.query) == ("POST", "/a", "b")
