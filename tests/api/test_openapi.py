"""The document: valid, complete, and true to what is answered."""

import re
from html.parser import HTMLParser

import msgspec
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate
from openapi_spec_validator.validation import OpenAPIV31SpecValidator

from edged.api.openapi import errors_of, make_document, make_page
from edged.api.problems import CODES
from tests.api.client import KEY, World, serving
from tests.api.test_app import ALICE, INGEST, operation, with_alice

WORLD = World()


def document() -> dict[str, object]:
    document: dict[str, object] = msgspec.to_builtins(make_document(WORLD.table.operations))
    return document


def test_it_is_valid() -> None:
    validate(document(), cls=OpenAPIV31SpecValidator)


def test_every_operation_is_in_it_and_no_other() -> None:
    paths = document()["paths"]
    assert isinstance(paths, dict)
    told = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert told == {(each.method, each.path) for each in WORLD.table.operations}
    assert len(told) >= 8


def test_a_body_that_is_too_large_is_refused_wherever_it_goes() -> None:
    assert all("body_too_large" in errors_of(each) for each in WORLD.table.operations)


def test_every_code_is_of_some_operation_or_of_what_is_none() -> None:
    codes = {code for each in WORLD.table.operations for code in errors_of(each)}
    # Of no operation: addresses without one, and requests that are no HTTP.
    elsewhere = {"not_found", "method_not_allowed", "malformed_request"}
    # Of plug-ins' operations, as publishers hear them.
    of_publishing = {"full", "unsupported_media"}
    assert codes | elsewhere | of_publishing == set(CODES)


async def test_answers_are_as_it_says() -> None:
    spec = document()
    paths = spec["paths"]
    assert isinstance(paths, dict)
    bearer = {"Authorization": f"Bearer {KEY}"}
    calls = [
        ("GET", "/api/v1/streams", "/api/v1/streams", None, {}),
        ("GET", "/api/v1/streams/{channel}", ALICE, None, {}),
        ("GET", "/api/v1/streams/{channel}", "/api/v1/streams/bob", None, {}),
        ("PATCH", "/api/v1/streams/{channel}", ALICE, {"tags": ["a"]}, bearer),
        ("PATCH", "/api/v1/streams/{channel}", ALICE, {"tags": 1}, bearer),
        ("POST", INGEST, INGEST, {"stream_key": KEY}, {}),
        ("POST", INGEST, INGEST, {"stream_key": "wrong"}, {}),
        ("GET", "/api/v1/health", "/api/v1/health", None, {}),
    ]
    async with serving(prepare_world=with_alice) as world, world.connect() as client:
        for failing in (False, True):
            world.reasons = ["no_table"] if failing else []
            for method, path, target, body, fields in calls:
                answer = await client.ask(target, method, body, fields)
                told = paths[path][method.lower()]["responses"][str(answer.status)]
                schema = told["content"][answer.fields["content-type"]]["schema"]
                whole = {**schema, "components": spec["components"]}
                OAS31Validator(whole).validate(msgspec.json.decode(answer.body))


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br"):
            self.open.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_has_every_operation_and_loads_nothing() -> None:
    added = operation("odd", summary="<script>alert(1)</script>")
    page = make_page([*WORLD.table.operations, added]).decode()
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    for each in WORLD.table.operations:
        assert re.search(rf"{each.method}\s+{re.escape(each.path)}", reader.text), each.name
    assert "bitrate_bps" in reader.text
    assert "<script" not in page
    assert reader.addresses == ["/api/v1/openapi.json"]
