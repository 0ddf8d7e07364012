"""The ASGI application: reads a request as its operation wants it, and writes the answer."""

from collections.abc import Iterable, Sequence
from urllib.parse import parse_qsl

import msgspec
import structlog
from hypercorn.typing import (
    ASGIReceiveCallable,
    ASGISendCallable,
    HTTPResponseBodyEvent,
    HTTPResponseStartEvent,
    HTTPScope,
    Scope,
)
from msgspec import Struct

from edged.api.engine import HOP_FIELDS
from edged.api.operations import ApiAnswer, ApiRequest, Found
from edged.api.problems import CONTENT_TYPE, ApiError

QUERY_FIELDS_MAX = 16
CORS = (
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Expose-Headers", "Date, Location, RateLimit, RateLimit-Policy, Retry-After"),
    ("X-Content-Type-Options", "nosniff"),
)
# The pages have no script, and nothing of the API is to be shown inside another site's page.
POLICY = (
    "Content-Security-Policy",
    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
)

logger = structlog.get_logger("edged.api")


class Call(Struct, frozen=True, kw_only=True):
    """What the application must know of a request beside its bytes. Passed in the scope's state."""

    found: Found
    client: str
    body_bytes_max: int
    fields: Sequence[tuple[str, str]] = ()  # To be sent with the answer.


class ApiApp:
    """An ASGI 3 application; `scope["state"]["call"]` is its `Call`."""

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Answer one request; whatever goes wrong becomes a problem."""
        assert scope["type"] == "http", "the engine writes plain HTTP"
        call = scope["state"]["call"]
        assert isinstance(call, Call), "the service made it"
        try:
            answer = await self._answer(scope, call, receive)
            status, content_type, body = answer.status, answer.content_type, _encode(answer.body)
            fields = [*answer.fields, ("Cache-Control", answer.cache_control)]
        except ApiError as error:
            status, content_type, body = error.status, CONTENT_TYPE, error.body()
            fields = [*error.fields, ("Cache-Control", "no-store")]
        except Exception as error:  # An operation's bug ends that request only.
            operation = call.found.operation.name
            logger.exception("operation failed", operation=operation, error=type(error).__name__)
            failure = ApiError("internal", "internal error")
            status, content_type, body = failure.status, CONTENT_TYPE, failure.body()
            fields = [("Cache-Control", "no-store")]
        if content_type.startswith("text/html"):
            fields.append(POLICY)
        fields = [("Content-Type", content_type), *CORS, *call.fields, *fields]
        start: HTTPResponseStartEvent = {
            "type": "http.response.start",
            "status": status,
            "headers": [*_encoded(fields), (b"content-length", b"%d" % len(body))],
        }
        await send(start)
        ended: HTTPResponseBodyEvent = {
            "type": "http.response.body",
            "body": body,
            "more_body": False,
        }
        await send(ended)

    async def _answer(
        self, scope: HTTPScope, call: Call, receive: ASGIReceiveCallable
    ) -> ApiAnswer:
        operation = call.found.operation
        assert operation.handle is not None, "the service answers the others"
        fields = list(scope["headers"])
        data = await _read_body(receive, call.body_bytes_max)
        body: object = data
        if operation.body is not None:
            body = _decode_body(data, operation.body, operation.body_types, fields)
        query = None
        if operation.query is not None:
            query = _decode_query(scope["query_string"], operation.query)
        return await operation.handle(
            ApiRequest(
                method=scope["method"],
                path=scope["path"],
                params=call.found.params,
                query=query,
                query_string=scope["query_string"].decode("latin-1"),
                body=body,
                fields=fields,
                client=call.client,
                secure=scope["scheme"] == "https",
            )
        )


async def _read_body(receive: ASGIReceiveCallable, bytes_max: int) -> bytes:
    body = bytearray()
    while True:
        event = await receive()
        if event["type"] != "http.request":
            raise ApiError("malformed_request", "the request was broken off")
        body += event["body"]
        if len(body) > bytes_max:
            raise ApiError("body_too_large", f"the body exceeds {bytes_max} bytes")
        if not event["more_body"]:
            return bytes(body)


def _decode_body(
    data: bytes,
    kind: type[Struct],
    accepted: Sequence[str],
    fields: Iterable[tuple[bytes, bytes]],
) -> Struct:
    told = next((value for name, value in fields if name.lower() == b"content-type"), b"")
    content_type = told.decode("latin-1").partition(";")[0].strip().lower()
    if content_type not in accepted:
        raise ApiError(
            "unsupported_media_type",
            f"Content-Type is {content_type[:64]!r}, wanted is {' or '.join(accepted)}",
        )
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:  # It names the field and what it takes, no value.
        raise ApiError("invalid_body", str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError("malformed_body", f"the body is not JSON: {error}") from None


def _decode_query(query: bytes, kind: type[Struct]) -> Struct:
    try:
        pairs = parse_qsl(
            query.decode("latin-1"), keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX
        )
        return msgspec.convert(dict(pairs), kind, strict=False)
    except (msgspec.ValidationError, ValueError) as error:
        raise ApiError("invalid_query", str(error)) from None


def _encode(body: object) -> bytes:
    return body if isinstance(body, bytes) else msgspec.json.encode(body)


def _encoded(fields: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Fields as ASGI has them, without those that are the connection's own."""
    encoded = [(name.lower().encode(), value.encode("latin-1")) for name, value in fields]
    return [(name, value) for name, value in encoded if name not in HOP_FIELDS]
