"""Version 1 as it is served: its page, its document, and health."""

import msgspec
import pytest

from edged.api.operations import Operation, Reply
from edged.errors import ConfigError
from tests.api.client import World, serving


async def test_the_page_and_the_document_are_served() -> None:
    async with serving() as world, world.connect() as client:
        page = await client.ask("/api/v1/")
        assert page.fields["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in page.fields["content-security-policy"]
        assert b"/api/v1/streams/ingest" in page.body
        document = await client.ask("/api/v1/openapi.json")
        assert document.json["openapi"] == "3.1.0"
        assert document.fields["cache-control"] == "public, max-age=300"
        paths = document.json["paths"]
        assert isinstance(paths, dict)
        assert set(paths) == {each.path for each in world.table.operations}


async def test_health_says_why_not() -> None:
    async with serving() as world, world.connect() as client:
        answer = await client.ask("/api/v1/health")
        assert (answer.status, answer.json) == (200, {"status": "ok", "reasons": []})
        assert answer.fields["cache-control"] == "no-store"
        world.reasons = ["loop_lag", "no_origin"]
        answer = await client.ask("/api/v1/health")
        assert answer.status == 503
        assert answer.json == {"status": "failing", "reasons": ["loop_lag", "no_origin"]}


def test_an_added_operation_is_in_the_document_or_refused() -> None:
    added = Operation(
        name="whip",
        method="POST",
        path="/api/v1/whip/{channel}",
        summary="WHIP",
        description="",
        tag="ingest",
        replies={201: Reply(description="Created.")},
        body_types=("application/sdp",),
    )
    assert "whip" in {each.name for each in World(added=[added]).table.operations}
    clash = msgspec.structs.replace(added, path="/api/v1/streams/ingest")
    with pytest.raises(ConfigError, match="is there twice"):
        World(added=[clash])
