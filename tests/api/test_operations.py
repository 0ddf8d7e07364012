"""The table: which operation a request is, and what a path has instead."""

import pytest

from edged.api.operations import ApiRequest, Found, Operation, OperationTable, Reply
from edged.errors import ConfigError


def operation(name: str, method: str, path: str) -> Operation:
    return Operation(
        name=name,
        method=method,
        path=path,
        summary=name,
        description="",
        tag="test",
        replies={200: Reply(description="ok")},
    )


TABLE = OperationTable(
    [
        operation("list", "GET", "/api/v1/streams"),
        operation("ingest", "POST", "/api/v1/streams/ingest"),
        operation("get", "GET", "/api/v1/streams/{channel}"),
        operation("patch", "PATCH", "/api/v1/streams/{channel}"),
        operation("playlist", "GET", "/api/v1/streams/{channel}/playlist.m3u8"),
        operation("two", "GET", "/api/v1/{one}/x/{two}"),
    ]
)


@pytest.mark.parametrize(
    ("method", "path", "name", "params"),
    [
        ("GET", "/api/v1/streams", "list", {}),
        ("POST", "/api/v1/streams/ingest", "ingest", {}),
        ("GET", "/api/v1/streams/ingest", "get", {"channel": "ingest"}),
        ("PATCH", "/api/v1/streams/alice", "patch", {"channel": "alice"}),
        ("GET", "/api/v1/streams/a%b\n", "get", {"channel": "a%b\n"}),
        ("GET", "/api/v1/streams/alice/playlist.m3u8", "playlist", {"channel": "alice"}),
        ("GET", "/api/v1/a/x/b", "two", {"one": "a", "two": "b"}),
    ],
)
def test_what_is_found(method: str, path: str, name: str, params: dict[str, str]) -> None:
    found = TABLE.find(method, path)
    assert isinstance(found, Found)
    assert (found.operation.name, found.params) == (name, params)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/api/v1/streams", ["GET"]),
        ("DELETE", "/api/v1/streams/ingest", ["GET", "PATCH", "POST"]),
        ("POST", "/api/v1/streams/alice", ["GET", "PATCH"]),
        ("GET", "/api/v1/streams/", []),
        ("GET", "/api/v1/streams/a/b", []),
        ("GET", "/api/v1/streams/alice/playlistXm3u8", []),
        ("GET", "/api/v1/streams\n", []),
    ],
)
def test_what_is_not(method: str, path: str, allowed: list[str]) -> None:
    assert TABLE.find(method, path) == allowed


@pytest.mark.parametrize(
    ("added", "problem"),
    [
        (operation("list", "GET", "/other"), "'list' is there twice"),
        (operation("other", "GET", "/api/v1/streams"), "GET /api/v1/streams is there twice"),
        (
            operation("other", "GET", "/api/v1/streams/{channel}"),
            "GET /api/v1/streams/{channel} is there twice",
        ),
        (operation("other", "GET", "/api/v1/a?b"), "is no path"),
        (operation("other", "GET", "no/slash"), "is no path"),
        (operation("other", "GET", "/{Bad}"), "is no path"),
    ],
)
def test_plug_ins_that_clash_are_named(added: Operation, problem: str) -> None:
    with pytest.raises(ConfigError) as raised:
        OperationTable([*TABLE.operations, added])
    assert problem in str(raised.value)


def test_the_names_of_a_path() -> None:
    assert operation("x", "GET", "/a/{one}/{two}").param_names == ["one", "two"]


def test_a_request_shows_no_secret() -> None:
    request = ApiRequest(
        method="POST",
        path="/api/v1/streams/ingest",
        params={},
        query=None,
        query_string="",
        body=b"secret",
        fields=[(b"Authorization", b"Bearer secret")],
        client="192.0.2.1",
        secure=True,
    )
    assert request.field(b"authorization") == "Bearer secret"
    assert request.field(b"cookie") == ""
    assert repr(request) == "ApiRequest(POST /api/v1/streams/ingest from 192.0.2.1)"
