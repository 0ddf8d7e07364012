"""hypercorn's HTTP/1.1 engine on requests that are whole already.

The public port belongs to the pump: it reads a request to its end, bounded in bytes and time like
any viewer's, and sends the answer in its turn. In between hypercorn runs the ASGI application: it
gets the request's bytes, written anew from what the pump's parser understood (so that no two
parsers can disagree about where a request ends), and what it writes is the answer. So a connection
never changes hands: playlists, segments and API calls share it, and a client that is slow, either
way, holds no task.
"""

import contextlib
import string
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import quote

from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Event, RawData
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ConnectionState
from msgspec import Struct

from edged.errors import EdgedError
from edged.wire.prepared import PreparedResponse
from edged.wire.request import RequestReceived

ANSWER_BYTES_MAX = 4 * 2**20  # Ten times the longest list of streams.
# What describes the connection or how the body came; both are the pump's.
HOP_FIELDS = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer"),
        *(b"transfer-encoding", b"content-length", b"upgrade", b"http2-settings", b"expect"),
    }
)
_FINAL = frozenset(known.value for known in HTTPStatus if known >= HTTPStatus.OK)
_HEAD_END = b"\r\n\r\n"


class AnswerError(EdgedError):
    """The application's answer cannot be sent, or the request could not be understood."""


class Peer(Struct, frozen=True):
    """Where a request comes from."""

    address: str
    port: int
    secure: bool


class Engine:
    """Runs an ASGI application, one request at a time per call."""

    def __init__(self, app: ASGIFramework) -> None:
        self._app = ASGIWrapper(app)
        self._config = Config()
        self._config.errorlog = None  # What fails is logged by us.
        self._config.include_server_header = False
        self._config.include_date_header = False  # The pump's, made once a second.
        self._context = WorkerContext(None)

    async def answer(
        self, request: RequestReceived, peer: Peer, state: Mapping[str, object]
    ) -> PreparedResponse:
        """Run the application on a request, with `state` in its scope.

        Raises AnswerError when there is no answer that can be sent.
        """
        written = bytearray()
        protocol: H11Protocol

        async def send(event: Event) -> None:
            if isinstance(event, RawData):
                written.extend(event.data[: ANSWER_BYTES_MAX + 1 - len(written)])

        async with TaskGroup() as group:
            protocol = H11Protocol(
                self._app,
                self._config,
                self._context,
                group,
                ConnectionState(dict(state)),
                peer.secure,
                (peer.address, peer.port),
                None,
                send,
            )
            await protocol.initiate()
            await protocol.handle(RawData(write_request(request)))
        if len(written) > ANSWER_BYTES_MAX:
            raise AnswerError(f"an answer exceeds {ANSWER_BYTES_MAX} bytes")
        return read_answer(bytes(written))


def write_request(request: RequestReceived) -> bytes:
    """A request as its parser understood it: no upgrade, no coding, its own length.

    A HEAD is written as the GET whose answer it wants; the pump leaves the body out.
    """
    method = "GET" if request.method == "HEAD" else request.method
    target = quote(request.path, safe="/:@!$&'()*+,;=~-._")
    if request.query:
        # Read as Latin-1; what a URI may not hold as it is, is percent-encoded.
        query = quote(request.query, safe=string.punctuation.replace('"', ""), encoding="latin-1")
        target += f"?{query}"
    lines = [f"{method} {target} HTTP/1.1\r\n".encode()]
    for name, value in request.fields:
        if name.lower() not in HOP_FIELDS:
            lines.append(b"%b: %b\r\n" % (name, value))
    if not request.field(b"host"):  # HTTP/1.0 may do without.
        lines.append(b"Host: localhost\r\n")
    if request.body or method in ("POST", "PUT", "PATCH"):
        lines.append(b"Content-Length: %d\r\n" % len(request.body))
    return b"".join((*lines, b"\r\n", request.body))


def read_answer(written: bytes) -> PreparedResponse:
    """What hypercorn wrote, for the pump; AnswerError when the request was not to its liking."""
    head, end, body = written.partition(_HEAD_END)
    status = 0
    with contextlib.suppress(ValueError, IndexError):
        status = int(head.split(b" ", 2)[1])
    if not end or status not in _FINAL:
        raise AnswerError("no answer was written")
    if b"\r\nconnection: close" in head.lower():  # Only by hypercorn itself: it gave up.
        raise AnswerError(f"answered {status} by the HTTP engine")
    lines = head.decode("latin-1").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines)
    fields = tuple((name, value.strip()) for name, _, value in pairs)
    return PreparedResponse(status, fields, (body,) if body else ())
