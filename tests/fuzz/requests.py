"""Fuzz targets of what people and services send: API requests, stream keys, callback answers."""

import base64
import functools
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

import msgspec
from hypercorn.typing import (
    ASGIReceiveEvent,
    ASGISendEvent,
    HTTPRequestEvent,
    HTTPResponseStartEvent,
    HTTPScope,
)

from edged.api.app import ApiApp, Call
from edged.api.ingest import IngestHandlers
from edged.api.openapi import make_document
from edged.api.operations import Found, OperationTable
from edged.api.problems import CODES
from edged.api.streams import StreamHandlers
from edged.api.v1 import make_table
from edged.errors import EdgedError, PublishRefusedError
from edged.media.stream import Grant
from edged.policy import key_callback, stream_keys
from edged.policy.stream_keys import StaticKey, StreamKeys, make_signed_key
from tests.api.client import KEY, Side
from tests.fuzz.script import Script, Target, block

if TYPE_CHECKING:
    from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable

BODY_BYTES_MAX = 2048
TEXT_CHARS_MIN = 12  # Of a stream key: shorter ones occur in any text by chance.

# The API.


def _table(side: Side) -> OperationTable:
    return make_table(
        StreamHandlers(side, lambda: 100.0),
        IngestHandlers(side, bitrate_bps_max=10_000_000),
        list,
    )


@functools.cache
def _place() -> tuple[Side, OperationTable]:
    """A PoP; made once, as what requests change in it is put back."""
    side = Side()
    return side, _table(side)


@functools.cache
def _documented() -> dict[str, set[int]]:
    """The statuses that the document names for each operation."""
    document = make_document(_place()[1].operations)
    paths = cast("Mapping[str, Mapping[str, Mapping[str, object]]]", document["paths"])
    return {
        str(operation["operationId"]): {int(status) for status in _replies(operation)}
        for path in paths.values()
        for operation in path.values()
        if isinstance(operation, Mapping) and "operationId" in operation
    }


def _replies(operation: Mapping[str, object]) -> Iterable[str]:
    return cast("Mapping[str, object]", operation["responses"])


METHODS = ("GET", "POST", "PATCH")
PATHS = (
    *("/api/v1/streams", "/api/v1/streams/ingest", "/api/v1/streams/alice"),
    *("/api/v1/streams/bob", "/api/v1/health", "/api/v1/", "/api/v1/openapi.json"),
)
TYPES = (
    *(b"application/json", b"application/merge-patch+json", b"text/plain", b""),
    *(b"application/json; charset=utf-8", b"APPLICATION/JSON"),
)


class NeverReadyError(AssertionError):
    """An operation waits, though all that it asks answers at once."""


def _finish(work: Coroutine[object, None, None]) -> None:
    try:
        work.send(None)
    except StopIteration:
        return
    raise NeverReadyError("an operation waits for something")


def run_api(data: bytes) -> int:
    """A request to each operation: query, body in pieces, and credentials are anything."""
    script = Script(data)
    choice = script.number()
    method, path = METHODS[choice % 3], PATHS[choice // 3 % len(PATHS)]
    if choice >= 252:
        path = "/api/v1/streams/" + script.block().decode("latin-1")
    content_type = TYPES[script.below(len(TYPES))]
    key = KEY.encode() if script.number() & 1 else script.block()
    query, body = script.block(), script.rest()
    side, table = _place()
    found = table.find(method, path)
    if not isinstance(found, Found) or found.operation.handle is None:
        return 0
    side.add("alice", 3, title="Alice", category="c", labels=["l"])
    side.add("bob")
    side.clients.clear()
    side.changes.clear()
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query,
        "scheme": "https",
        "headers": [(b"content-type", content_type), (b"authorization", b"Bearer " + key)],
        "state": {"call": Call(found=found, client="192.0.2.1", body_bytes_max=BODY_BYTES_MAX)},
    }
    start, end = _ask(scope, body)
    assert start["type"] == "http.response.start"
    assert end["type"] == "http.response.body"
    secret = key.decode("latin-1") if found.operation.authorised else ""
    _check_answer(found.operation.name, start, end["body"], secret)
    return len(end["body"])


def _ask(scope: Mapping[str, object], body: bytes) -> list[ASGISendEvent]:
    pieces = [body[at : at + 700] for at in range(0, len(body), 700)] or [b""]
    sent: list[ASGISendEvent] = []

    async def receive() -> ASGIReceiveEvent:
        event: HTTPRequestEvent = {
            "type": "http.request",
            "body": pieces.pop(0),
            "more_body": bool(pieces),
        }
        return event

    async def send(event: ASGISendEvent) -> None:
        sent.append(event)

    work = ApiApp()(
        cast("HTTPScope", scope),
        cast("ASGIReceiveCallable", receive),
        cast("ASGISendCallable", send),
    )
    _finish(work)
    return sent


def _check_answer(operation: str, start: HTTPResponseStartEvent, body: bytes, secret: str) -> None:
    """The answer is one that the document has; it is JSON, and a problem's text tells no key."""
    status, fields = start["status"], dict(start["headers"])
    assert status != HTTPStatus.INTERNAL_SERVER_ERROR, "an operation's bug"
    assert status in _documented()[operation], f"{status} is not in the document"
    assert all(b"\r" not in value and b"\n" not in value for value in fields.values())
    if b"json" not in fields[b"content-type"]:
        return
    told = msgspec.json.decode(body)
    if fields[b"content-type"].startswith(b"application/problem"):
        assert CODES[told["code"]][0] == status
        _check_text(told.get("detail", ""), secret)


def api_seeds() -> Sequence[bytes]:
    """Requests of each operation, right ones and nearly so."""

    def request(
        method: str, path: str, body: bytes = b"", query: bytes = b"", kind: int = 0
    ) -> bytes:
        choice = METHODS.index(method) + 3 * PATHS.index(path)
        return bytes([choice, kind, 1]) + block(query) + body

    streams, ingest, alice = PATHS[:3]
    asked = {"stream_key": KEY, "codec": "h264", "bitrate_bps": 6_000_000, "protocol": "rtmp"}
    change = {"title": "T\u00e4g", "category": None, "tags": ["a", "b"]}
    return [
        request("GET", streams),
        *(request("GET", streams, query=query) for query in QUERIES),
        request("POST", ingest, msgspec.json.encode(asked)),
        request("POST", ingest, msgspec.json.encode({"stream_key": "of-nobody-at-all"})),
        request("POST", ingest, b'{"stream_key": "\\ud800"}'),
        request("PATCH", alice, msgspec.json.encode(change)),
        request("PATCH", alice, msgspec.json.encode({"tags": ["x" * 30] * 9}), kind=1),
        request("PATCH", alice, b"[" * 1500),
        request("PATCH", alice, b'{"title": "\\u0000\\u202e\\ud83d\\ude00"}'),
        request("PATCH", alice, b'{"title": 1e999, "category": "' + b"c" * 200 + b'"}'),
        *(request("GET", path) for path in PATHS[3:]),
        b"\xff\0\1" + block(b"a%2f..%00") + block(b""),
    ]


QUERIES = (
    b"limit=1&category=c&tag=l",
    b"limit=1&cursor=kgCjYm9i",
    b"cursor=" + base64.urlsafe_b64encode(b"\x91" * 100),
    b"limit=0",
    b"limit=%ff&limit=2",
    b"&".join([b"a=b"] * 20),
)

# Stream keys.

SECRETS = {"new": "n" * 32, "old": "o" * 32}
STATIC = (
    StaticKey(channel="bob", key="static-key-of-bob"),
    StaticKey(channel="eve", key="static-key-of-eve", scope=("publish:srt",)),
)
NOW = 1_700_000_000.0


@functools.cache
def _keys() -> StreamKeys:
    return StreamKeys(STATIC, SECRETS)


def run_keys(data: bytes) -> int:
    """A key of any text; or claims of any bytes, with the right MAC or a wrong one."""
    script = Script(data)
    choice = script.number()
    protocol = ("rtmp", "srt", "x")[choice % 3]
    if choice & 128:
        text = script.rest().decode("utf-8", errors="surrogateescape")
        genuine = text in {each.key for each in STATIC}
        if text.startswith(f"{stream_keys.PREFIX}.") and text.isascii():
            signed, _, mac = text.rpartition(".")
            genuine = mac in {stream_keys._mac(each.encode(), signed) for each in SECRETS.values()}
    else:
        genuine = bool(choice & 64)
        payload = base64.urlsafe_b64encode(script.rest()).rstrip(b"=").decode()
        signed = f"{stream_keys.PREFIX}.{payload}"
        text = f"{signed}.{stream_keys._mac(SECRETS['new'].encode(), signed)}"
        if not genuine:
            text = text[:-1] + ("A" if text[-1] != "A" else "B")
    try:
        grant = _keys().check("live", text, NOW, protocol)
    except PublishRefusedError as refusal:
        return _check_text(str(refusal), text)
    assert genuine, "who has no key gets no grant"
    _check_grant(grant)
    return len(msgspec.json.encode(grant))


def _check_text(told: str, key: str) -> int:
    assert len(key) < TEXT_CHARS_MIN or key not in told, "a key is told to nobody"
    return len(told)


def _check_grant(grant: Grant) -> None:
    """A grant is one that every part of the network can carry."""
    msgspec.convert(grant.channel, stream_keys.Channel)
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(grant), type=Grant)
    assert again == grant


def key_seeds() -> Sequence[bytes]:
    """Keys that are valid, and their claims."""
    keys = [
        make_signed_key(SECRETS["new"], "alice", signer="new"),
        make_signed_key(SECRETS["old"], "alice", signer="old", expires_at=NOW + 5, record=True),
        make_signed_key(
            SECRETS["new"],
            "a-b_c",
            signer="new",
            title="T\u00e4g",
            tags=("x", "team:a"),
            scope=("publish:rtmp", "publish:srt"),
            expires_at=NOW - 5,
        ),
    ]
    claims = [_payload(key) for key in keys]
    return [
        *(b"\x80" + key.encode() for key in keys),
        *(b"\x80" + each.key.encode() for each in STATIC),
        *(b"\x40" + each for each in claims),
        *(b"\x00" + each for each in claims),
        b"\x80sk1..",
        b"\x80" + b"." * 1000,
        b"\x40" + b"\x91" * 700,
    ]


def _payload(key: str) -> bytes:
    text = key.split(".")[1]
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def run_callback(data: bytes) -> int:
    """Any status and body from the service that is asked about keys."""
    script = Script(data)
    choice = script.number()
    status = (200, 200, 200, 401, 404, 302, 500)[choice % 7]
    key = "the-key-that-was-shown" if choice < 128 else script.block().decode("latin-1")
    body = script.rest()
    try:
        verdict = key_callback.read_answer(status, body, key)
        grant = key_callback.admit(verdict, NOW)
    except EdgedError as error:
        return _check_text(str(error), key)
    assert status == HTTPStatus.OK, "who is not let in gets no grant"
    _check_grant(grant)
    return 0


def callback_seeds() -> Sequence[bytes]:
    """Answers as the service should give them, and should not."""
    whole = {
        "channel": "alice",
        "class": "partner",
        "title": "T\u00e4g",
        "tags": ["x"],
        "ladder": "default",
        "record": False,
        "category": "c",
        "labels": ["l"],
        "expires_at": NOW + 60,
    }
    bodies = [
        msgspec.json.encode(whole),
        b'{"channel": "alice"}',
        b'{"channel": "the-key-that-was-shown\\u0000"}',
        b'{"reason": "the-key-that-was-shown is wrong"}',
        b"[" * 1000,
        b'{"channel": "a", "title": "\\ud800"}',
    ]
    return [bytes([choice]) + body for choice in (0, 3) for body in bodies]


TARGETS = [
    Target(name="api", run=run_api, seeds=api_seeds),
    Target(name="keys", run=run_keys, seeds=key_seeds, bytes_max=1600),
    Target(name="callback", run=run_callback, seeds=callback_seeds),
]
