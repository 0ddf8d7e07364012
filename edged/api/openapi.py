"""The API's document (OpenAPI 3.1) and its page for people, both made of the operations' table."""

import html
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from edged import __version__
from edged.api.operations import CHANNEL_PATTERN, Operation
from edged.api.problems import CODES, CONTENT_TYPE, Problem

COMMON_ERRORS = ("internal", "busy", "timeout", "body_too_large")  # Of every operation.
REF = "#/components/schemas/{name}"
ABOUT = (
    "Ask where to publish, see who is live, describe a stream. What a client may not know is not"
    " here: no addresses of viewers, no routes. Metrics are on an address of their own,"
    " `[metrics]`, which is not public."
)


def make_document(operations: Sequence[Operation]) -> dict[str, object]:
    """The OpenAPI 3.1 document."""
    types: list[type[Struct]] = [Problem]
    for operation in operations:
        found = [operation.body, *(reply.body for reply in operation.replies.values())]
        types += [kind for kind in found if kind is not None and kind not in types]
    schemas, components = msgspec.json.schema_components(types, ref_template=REF)
    refs = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, object]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _describe(operation, refs)
    return {
        "openapi": "3.1.0",
        "info": {"title": "edged", "version": __version__, "description": ABOUT},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "streamKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A stream key of the channel, or the admin token.",
                }
            },
        },
    }


def errors_of(operation: Operation) -> list[str]:
    """Codes of problems that an operation may answer with."""
    codes = [*operation.errors, *COMMON_ERRORS]
    if operation.limited:
        codes.append("rate_limited")
    if operation.query is not None:
        codes.append("invalid_query")
    if operation.body is not None:
        codes += ["malformed_body", "invalid_body", "unsupported_media_type"]
    if operation.authorised:
        codes += ["missing_credentials", "unknown_key", "expired_key"]
        codes += ["wrong_channel", "auth_unavailable"]
    return list(dict.fromkeys(codes))


def _describe(operation: Operation, refs: dict[type[Struct], dict[str, object]]) -> object:
    told: dict[str, object] = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.description,
    }
    parameters = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": _param_schema(name),
        }
        for name in operation.param_names
    ]
    if operation.query is not None:
        parameters += _query_parameters(operation.query)
    if parameters:
        told["parameters"] = parameters
    if operation.body is not None:
        schema = refs[operation.body]
        content = {content_type: {"schema": schema} for content_type in operation.body_types}
        told["requestBody"] = {"required": True, "content": content}
    elif operation.method in ("POST", "PATCH", "PUT"):
        told["requestBody"] = {"content": {kind: {} for kind in operation.body_types}}
    told["responses"] = _responses(operation, refs)
    if operation.authorised:
        told["security"] = [{"streamKey": []}]
    return told


def _param_schema(name: str) -> dict[str, object]:
    if name == "channel":  # ECMA-262 has no \Z; its $ means the same.
        return {"type": "string", "pattern": CHANNEL_PATTERN.replace("\\Z", "$")}
    return {"type": "string"}


def _query_parameters(query: type[Struct]) -> list[dict[str, object]]:
    _, components = msgspec.json.schema_components([query], ref_template=REF)
    properties: dict[str, dict[str, object]] = components[query.__name__]["properties"]
    found: list[dict[str, object]] = []
    for name, schema in properties.items():
        told = dict(schema)
        text = told.pop("description", "")
        found.append({"name": name, "in": "query", "description": text, "schema": told})
    return found


def _responses(
    operation: Operation, refs: dict[type[Struct], dict[str, object]]
) -> dict[str, dict[str, object]]:
    responses: dict[str, dict[str, object]] = {}
    for status, reply in operation.replies.items():
        told: dict[str, object] = {"description": reply.description}
        if reply.body is not None or reply.content_type != "application/json":
            schema: dict[str, object] = {} if reply.body is None else {"schema": refs[reply.body]}
            told["content"] = {reply.content_type: schema}
        responses[str(status)] = told
    by_status: dict[int, list[str]] = {}
    for code in errors_of(operation):
        by_status.setdefault(CODES[code][0], []).append(code)
    for status, codes in sorted(by_status.items()):
        text = " ".join(f"`{code}`: {CODES[code][1]}" for code in codes)
        known = responses.get(str(status))
        if known is not None:  # A status with a body of its own, as of health.
            known["description"] = f"{known['description']} {text}"
            content = known["content"]
            assert isinstance(content, dict), "a reply that shares its status has a body"
            content[CONTENT_TYPE] = {"schema": refs[Problem]}
        else:
            responses[str(status)] = {
                "description": text,
                "content": {CONTENT_TYPE: {"schema": refs[Problem]}},
            }
    return responses


STYLE = (
    ":root{color-scheme:light dark}a{color:#4a3fd0}"
    "body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;"
    "color:#1c1c22;background:#fff}code{font-family:ui-monospace,monospace;font-size:.92em}"
    "h2{margin-top:2.2rem;border-top:1px solid #ddd;padding-top:1rem;font-size:1.1rem}"
    "h2 b{display:inline-block;min-width:4.5rem}table{border-collapse:collapse}"
    "td{padding:.15rem 1rem .15rem 0;vertical-align:top}h2 code,td+td{overflow-wrap:anywhere}"
    "@media(prefers-color-scheme:dark){body{color:#e6e6ea;background:#16161a}h2{border-color:#333}"
    "a{color:#a9a2ff}}"
)


def make_page(operations: Sequence[Operation]) -> bytes:
    """The page at /api/v1/: each operation with what it takes and answers; no script."""
    out = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>edged API</title><style>{STYLE}</style></head><body><h1>edged API</h1>"
        f"<p>{_text(ABOUT)}</p>"
        '<p>The same for programs: <a href="/api/v1/openapi.json">openapi.json</a>, OpenAPI 3.1.'
        " Problems are <code>application/problem+json</code> (RFC 9457) with a"
        " <code>code</code>.</p>"
    ]
    for operation in operations:
        out.append(
            f'<h2 id="{operation.name}"><b>{operation.method}</b>'
            f" <code>{html.escape(operation.path)}</code></h2>"
            f"<p>{_text(operation.summary)}. {_text(operation.description)}</p>"
        )
        rows = [*_fields("query", operation.query), *_fields("body", operation.body)]
        rows += [
            (f"{status}", _text(reply.description)) for status, reply in operation.replies.items()
        ]
        rows += [
            (f"{CODES[code][0]} {code}", _text(CODES[code][1])) for code in errors_of(operation)
        ]
        cells = "".join(f"<tr><td><code>{name}</code></td><td>{t}</td></tr>" for name, t in rows)
        out.append(f"<table>{cells}</table>")
    out.append("</body></html>\n")
    return "".join(out).encode()


def _fields(where: str, kind: type[Struct] | None) -> list[tuple[str, str]]:
    if kind is None:
        return []
    _, components = msgspec.json.schema_components([kind], ref_template=REF)
    properties: dict[str, dict[str, object]] = components[kind.__name__]["properties"]
    return [
        (f"{where}: {html.escape(name)}", _text(str(schema.get("description", ""))))
        for name, schema in properties.items()
    ]


def _text(text: str) -> str:
    """Text as HTML; what stands between backticks is code."""
    pieces = html.escape(text).split("`")
    return "".join(
        f"<code>{piece}</code>" if index % 2 else piece for index, piece in enumerate(pieces)
    )
