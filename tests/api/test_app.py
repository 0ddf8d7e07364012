"""The application over HTTP: bodies, queries, problems, fields; a bug ends one request."""

import json

import pytest
from structlog.testing import capture_logs

from edged.api.config import ApiConfig
from edged.api.operations import ApiAnswer, ApiRequest, Operation, Reply
from tests.api.client import KEY, World, serving

INGEST = "/api/v1/streams/ingest"
ALICE = "/api/v1/streams/alice"


def with_alice(world: World) -> None:
    world.side.add("alice", 2, title="Alice")


@pytest.mark.parametrize(
    ("content_type", "body", "status", "code"),
    [
        ("application/json", b"{", 400, "malformed_body"),
        ("application/json", b"", 400, "malformed_body"),
        ("application/json", b"\xff\xfe", 400, "malformed_body"),
        ("application/json", b'{"stream_key": 5}', 422, "invalid_body"),
        ("application/json", b"[" * 5000, 422, "invalid_body"),
        ("application/x-www-form-urlencoded", b"stream_key=x", 415, "unsupported_media_type"),
        ("", b"{}", 415, "unsupported_media_type"),
    ],
)
async def test_bodies_that_cannot_be_taken(
    content_type: str, body: bytes, status: int, code: str
) -> None:
    async with serving() as world, world.connect() as client:
        answer = await client.ask(INGEST, "POST", body, {"Content-Type": content_type})
        assert (answer.status, answer.code) == (status, code)
        assert (await client.ask(INGEST, "POST", {"stream_key": KEY})).status == 200


async def test_bodies_at_the_limit_and_one_past_it() -> None:
    async with serving(ApiConfig(body_bytes_max=1024)) as world, world.connect() as client:
        body = json.dumps({"stream_key": KEY}).encode()
        answer = await client.ask(INGEST, "POST", body.ljust(1024))
        assert answer.status == 200
        answer = await client.ask(INGEST, "POST", body.ljust(1025))
        assert (answer.status, answer.code) == (413, "body_too_large")
        assert answer.json["detail"] == "the body exceeds 1024 bytes"


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 200),
        ("limit=1&category=a%20b&tag=%C3%B6", 200),
        ("limit=500", 200),
        ("limit=501", 400),
        ("limit=x", 400),
        ("limti=1", 400),
        ("&".join(["tag=a"] * 17), 400),
        ("category=" + "x" * 101, 400),
    ],
)
async def test_queries(query: str, status: int) -> None:
    async with serving() as world, world.connect() as client:
        answer = await client.ask(f"/api/v1/streams?{query}")
        assert answer.status == status
        if status == 400:
            assert answer.code == "invalid_query"


async def test_what_answers_have_in_common() -> None:
    async with serving(prepare_world=with_alice) as world, world.connect() as client:
        for answer in (
            await client.ask(ALICE),
            await client.ask("/api/v1/streams/bob"),
            await client.ask("/api/v1/nothing"),
            await client.ask(ALICE, "PATCH", {}),
        ):
            assert answer.fields["access-control-allow-origin"] == "*"
            assert "RateLimit" in answer.fields["access-control-expose-headers"]
            assert answer.fields["x-content-type-options"] == "nosniff"
            assert answer.fields["date"].endswith("GMT")
            assert answer.fields["ratelimit-policy"] == '"client";q=1000;w=60'
            assert "server" not in answer.fields
        answer = await client.ask(ALICE, "PATCH", {})
        assert (answer.status, answer.code) == (401, "missing_credentials")
        assert answer.fields["www-authenticate"] == 'Bearer realm="edged"'
        answer = await client.ask("/api/v1/streams/bob")
        assert (answer.status, answer.code) == (404, "not_live")
        assert answer.fields["cache-control"] == "no-store"
        assert (await client.ask(ALICE)).fields["cache-control"] == "public, max-age=1"


async def test_a_merge_patch_is_taken_by_its_name() -> None:
    async with serving(prepare_world=with_alice) as world, world.connect() as client:
        fields = {
            "Content-Type": "application/merge-patch+json; charset=utf-8",
            "Authorization": f"bearer {KEY}",
        }
        answer = await client.ask(ALICE, "PATCH", {"title": "now"}, fields)
        assert (answer.status, answer.json["title"]) == (200, "now")


async def fails(request: ApiRequest) -> ApiAnswer:
    secret = request.field(b"authorization")
    raise ValueError(f"a bug in {request.path} with {len(secret)} characters")


async def with_fields_of_the_connection(_request: ApiRequest) -> ApiAnswer:
    fields = (("Connection", "close"), ("Transfer-Encoding", "chunked"), ("X-Own", "yes"))
    return ApiAnswer(body=b"plain", content_type="text/plain", fields=fields)


def operation(name: str, **fields: object) -> Operation:
    told = {
        "name": name,
        "method": "GET",
        "path": f"/api/v1/{name}",
        "summary": name,
        "description": "",
        "tag": "test",
        "replies": {200: Reply(description="ok")},
    }
    return Operation(**(told | fields))  # type: ignore[arg-type]


async def test_a_bug_ends_one_request_and_shows_nothing() -> None:
    added = [operation("fails", handle=fails)]
    with capture_logs() as logs:
        async with serving(added=added) as world, world.connect() as client:
            answer = await client.ask("/api/v1/fails", fields={"Authorization": "Bearer secret"})
            assert (answer.status, answer.code) == (500, "internal")
            assert b"bug" not in answer.body
            assert (await client.ask("/api/v1/health")).status == 200
    (line,) = [line for line in logs if line["event"] == "operation failed"]
    assert (line["operation"], line["error"]) == ("fails", "ValueError")
    assert "secret" not in str(logs)


async def test_the_connection_s_own_fields_are_the_pump_s() -> None:
    added = [operation("odd", handle=with_fields_of_the_connection)]
    async with serving(added=added) as world, world.connect() as client:
        answer = await client.ask("/api/v1/odd")
        assert (answer.status, answer.body, answer.fields["x-own"]) == (200, b"plain", "yes")
        assert "connection" not in answer.fields
        assert (await client.ask("/api/v1/health")).status == 200
