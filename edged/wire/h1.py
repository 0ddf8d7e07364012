"""HTTP/1.1 for the playback edge's fast path, sans-IO (RFC 9112): requests in.

    request-line CRLF *( field-line CRLF ) CRLF [ body ]

`H1Session` reads one connection's requests with llhttp (httptools) and bounds everything that a
peer can make it hold. What goes out are `wire.prepared`'s ready bytes.
"""

import string
from typing import Final
from urllib.parse import unquote

import httptools

from edged.errors import RemoteProtocolError
from edged.wire.h1_events import (
    Event,
    H1Limits,
    H1Statistics,
    PeerTimedOut,
    RequestRefused,
)
from edged.wire.request import RequestReceived

# Requests of a few renditions' last parts, by a few dozen kinds of players.
KNOWN_MAX: Final = 4096
KNOWN_HEADS_MAX: Final = 256  # Kinds of players.
KNOWN_BYTES_MAX: Final = 2048  # Of each; browsers send 500 to 900.
_GET, _HTTP_1_1 = b"GET /", b" HTTP/1.1"
_USUAL = string.ascii_letters.encode() + string.digits.encode() + b"/?&=-_.~%+,:;@!$'()*"
# Fields that ask for less than all (RFC 9110 §13, §14), and their lengths, cheaper to see.
CONDITIONS = frozenset((b"range", b"if-range", b"if-match", b"if-none-match"))
CONDITION_SIZES = frozenset(map(len, CONDITIONS))


class KnownRequests:
    """Requests parsed before, by their very bytes: all viewers of a channel ask for the same parts.

    And, by what follows the request line, kinds of players: each sends the same fields whatever it
    asks for. Shared by the connections of a server. Bounded in entries and in the size of each;
    when it is full it is emptied, as old parts are not asked for.
    """

    def __init__(self, entries_max: int = KNOWN_MAX) -> None:
        self.entries_max = entries_max
        self.find = (known := dict[bytes, RequestReceived]()).get
        self._known = known
        self._heads: dict[bytes, RequestReceived] = {}  # The last one with that head.

    def __len__(self) -> int:
        return len(self._known)

    def add(self, data: bytes, request: RequestReceived) -> None:
        """Note what `data`, as a whole and by itself, was parsed into."""
        if len(self._known) >= self.entries_max:
            self._known.clear()
        self._known[data] = request
        if (parts := _split_get(data)) is not None:
            if len(self._heads) >= KNOWN_HEADS_MAX:
                self._heads.clear()
            self._heads[parts[1]] = request

    def find_like(self, data: bytes, target_bytes_max: int) -> RequestReceived | None:
        """What `data` is, whole and by itself, if one came that is like it but for its target."""
        parts = _split_get(data)
        if parts is None or len(parts[0]) > target_bytes_max:
            return None
        like = self._heads.get(parts[1])
        if like is None:
            return None
        path, _, query = parts[0].decode("ascii").partition("?")
        return like.for_target(unquote(path) if "%" in path else path, query)

    def is_whole(self, data: bytes, request: RequestReceived) -> bool:
        """Whether `data` is that request, and nothing else."""
        return self.find(data) is request or self.find_like(data, len(data)) == request


def _split_get(data: bytes) -> tuple[bytes, bytes] | None:
    """Target, and all behind the request line, of a GET of the usual form; None for others."""
    line, _, head = data.partition(b"\r\n")
    if not (line.startswith(_GET) and line.endswith(_HTTP_1_1)):
        return None
    target = line[len(_GET) - 1 : -len(_HTTP_1_1)]
    return None if target.translate(None, _USUAL) else (target, head)


class H1Session:
    """The server's end of one HTTP/1.1 connection. It is its parser's callback object too.

    Bytes go to the parser in blocks of the connection's own grid of `head_bytes_max`, so that a
    limit is hit at the same byte however TCP cut the stream.
    """

    __deletable__ = ("_parser",)  # For mypyc.
    __slots__ = (
        "_began_at",
        "_block_end",
        "_body",
        "_conditional",
        "_ended",
        "_events",
        "_fields",
        "_fields_seen",
        "_head_bytes",
        "_head_complete",
        "_hosts",
        "_in_message",
        "_known",
        "_old",
        "_parser",
        "_progress",
        "_progress_before",
        "_quiet_since",
        "_received_bytes",
        "_refusal",
        "_requests",
        "_rest",
        "_target",
        "_unanswered",
        "limits",
    )

    def __init__(
        self, *, now: float, limits: H1Limits | None = None, known: KnownRequests | None = None
    ) -> None:
        self.limits = limits or H1Limits()
        self._known = known
        self._parser = httptools.HttpRequestParser(self)
        self._received_bytes = 0
        self._block_end = self.limits.head_bytes_max
        self._progress = self._progress_before = 0
        self._requests = 0
        self._unanswered = 0
        self._began_at: float | None = None
        self._quiet_since = now
        self._ended = False
        self._refusal: RequestRefused | None = None
        self._rest: bytes | None = None
        self._events: list[Event] = []
        self._clear()

    def receive_data(self, data: bytes | bytearray | memoryview, now: float) -> list[Event]:
        """Take bytes; never raises. A `RequestRefused` is the last event of the session."""
        assert self._rest is None, "an upgrade must be declined or taken before more is read"
        if self._ended:
            return []
        known = self._known
        whole = b""  # Of a request, perhaps, from its first byte to its last.
        if known is not None and self._began_at is None and len(data) <= KNOWN_BYTES_MAX:
            whole = bytes(data)
            request = known.find(whole)
            if request is None and len(whole) <= self.limits.head_bytes_max:
                request = known.find_like(whole, self.limits.target_bytes_max)
            if request is not None and self._unanswered < self.limits.unanswered_max:
                self._requests += 1
                self._unanswered += 1
                return [request]
        events: list[Event] = []
        self._events = events
        self._feed(data)
        if whole and known is not None and len(events) == 1 and not self._in_message:
            self._learn(known, whole, events[0])
        if self._in_message or not events:
            if self._began_at is None or events:
                self._began_at = now
        else:
            self._began_at = None
        return events

    @property
    def in_request(self) -> bool:
        """Whether a request has begun that is not whole."""
        return self._began_at is not None

    @property
    def upgrading(self) -> bool:
        """Whether the last event is an upgrade request that waits for a decision."""
        return self._rest is not None

    def decline_upgrade(self, now: float) -> list[Event]:
        """Go on in HTTP/1.1 after an upgrade request that is answered as if it were none."""
        rest = self.take_rest()
        return self.receive_data(rest, now) if rest else []

    def take_rest(self) -> bytes:
        """The bytes behind an upgrade request: another protocol's, if the upgrade is taken."""
        assert self._rest is not None, "no upgrade was requested"
        rest, self._rest = self._rest, None
        return rest

    def request_answered(self, now: float) -> float:
        """Count one answer: its place may be taken by another request; `next_timeout()` then."""
        self._unanswered -= 1
        self._quiet_since = now
        if self._unanswered or self._began_at is not None:
            return self.next_timeout()
        return now + self.limits.idle_s_max

    def answered_before(self, requests: int, at: float) -> None:
        """Count whole requests, each known by its bytes, that were answered without a look here.

        They came when none was in work; the last was answered at that time.
        """
        self._requests += requests
        self._quiet_since = at

    def answer_taken(self, now: float) -> None:
        """The peer has come to the end of a large answer: until now it was busy, not idle."""
        self._quiet_since = now

    def next_timeout(self) -> float:
        """When `handle_timeout` has something to say; infinite while requests await answers."""
        if self._began_at is not None:
            return self._began_at + self.limits.request_s_max
        if self._unanswered:
            return float("inf")
        return self._quiet_since + self.limits.idle_s_max

    def handle_timeout(self, now: float) -> PeerTimedOut | None:
        """A peer that has been too slow or idle for too long."""
        if now < self.next_timeout():
            return None
        if self._began_at is not None:
            return PeerTimedOut(f"request not complete after {self.limits.request_s_max:g} s")
        return PeerTimedOut(f"no request for {self.limits.idle_s_max:g} s")

    def statistics(self) -> H1Statistics:
        """Counters since the start."""
        return H1Statistics(self._requests, self._unanswered)

    def close(self) -> None:
        """Take no more; lets go of the parser, which refers back to the session."""
        self._ended = True
        if hasattr(self, "_parser"):
            del self._parser

    # The parser's callbacks.

    def on_message_begin(self) -> None:
        """A request line starts."""
        if self._ended:
            raise RemoteProtocolError("a request follows one that closes the connection")
        self._clear()
        self._in_message = True

    def on_url(self, piece: bytes) -> None:
        """The request target, or a piece of it."""
        self._progress += 1
        self._target += piece
        if len(self._target) > self.limits.target_bytes_max:
            self._refuse(414, f"request target exceeds {self.limits.target_bytes_max} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A whole field of the header, or of a chunked body's trailers (which we drop)."""
        self._progress += 1
        self._fields_seen += 1
        self._head_bytes += len(name) + len(value) + 4
        limits = self.limits
        if self._fields_seen > limits.fields_max:
            self._refuse(431, f"more than {limits.fields_max} header fields")
        if self._head_bytes > limits.head_bytes_max:
            self._refuse(431, f"header exceeds {limits.head_bytes_max} bytes")
        if self._head_complete:
            return
        self._fields.append((name, value))
        size = len(name)
        if size == 4 and name.lower() == b"host":  # noqa: PLR2004 - cheaper than lowering every name
            self._hosts += 1
        elif size == 6 and name.lower() == b"expect":  # noqa: PLR2004 - the same
            # RFC 9110 §10.1.1: 100 or a final status; no client sends us bodies worth a wait.
            self._refuse(417, "expectations are not supported")
        elif size in CONDITION_SIZES and name.lower() in CONDITIONS:
            self._conditional = True

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._head_complete = True
        version = self._parser.get_http_version()
        self._old = version == "1.0"
        if version != "1.1" and not self._old:
            self._refuse(505, f"HTTP version {version} is not supported here, 1.1 is")
        if self._hosts != 1 and (self._hosts or not self._old):
            self._refuse(400, f"{self._hosts} Host fields instead of one (RFC 9112 §3.2)")
        if self._parser.should_upgrade() and any(
            name.lower() in (b"content-length", b"transfer-encoding") for name, _ in self._fields
        ):
            # llhttp skips the body here; taken as the next request it would be smuggled in.
            self._refuse(400, "an upgrade request may have no body")

    def on_body(self, piece: bytes) -> None:
        """A piece of the body."""
        self._progress += 1
        self._body += piece
        if len(self._body) > self.limits.body_bytes_max:
            self._refuse(413, f"body exceeds {self.limits.body_bytes_max} bytes")

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._progress += 1
        self._in_message = False
        if self._unanswered >= self.limits.unanswered_max:
            self._refuse(503, f"more than {self.limits.unanswered_max} unanswered requests")
        parser = self._parser
        target = self._target.decode("latin-1")
        if not target.startswith("/"):
            target = _origin_form(target)
        path, _, query = target.partition("?")
        # HTTP/1.0 keep-alive would need a field of its own in each response.
        keep_alive = parser.should_keep_alive() and not self._old
        self._requests += 1
        self._unanswered += 1
        self._ended = not keep_alive
        self._events.append(
            RequestReceived(
                method=parser.get_method().decode("ascii"),
                path=unquote(path) if "%" in path else path,
                query=query,
                fields=self._fields,
                keep_alive=keep_alive,
                body=self._body,
                upgrade=parser.should_upgrade(),
                conditional=self._conditional,
            )
        )

    def _learn(self, known: KnownRequests, data: bytes, event: Event) -> None:
        """Note a request after which the parser is as it was before it."""
        if (
            isinstance(event, RequestReceived)
            and event.keep_alive
            and not event.upgrade
            and not event.body
            and data.endswith(b"\r\n\r\n")
        ):
            known.add(data, event)

    def _feed(self, data: bytes | bytearray | memoryview) -> None:
        start, size = self._received_bytes, len(data)
        offset = 0
        try:
            while self._received_bytes + size - offset >= self._block_end:
                end = offset + self._block_end - self._received_bytes
                piece = memoryview(data)[offset:end]
                self._received_bytes = self._block_end
                self._block_end += self.limits.head_bytes_max
                self._parser.feed_data(piece)
                offset = end
                if self._in_message and self._progress == self._progress_before:
                    self._refuse(431, f"header exceeds {self.limits.head_bytes_max} bytes")
                self._progress_before = self._progress
            if offset < size:
                self._received_bytes += size - offset
                self._parser.feed_data(memoryview(data)[offset:] if offset else data)
        except httptools.HttpParserUpgrade as upgrade:
            offset += upgrade.args[0]
            self._rest = bytes(memoryview(data)[offset:])
            self._received_bytes = start + offset
            block = self.limits.head_bytes_max
            self._block_end = (self._received_bytes // block + 1) * block
        except (httptools.HttpParserError, RemoteProtocolError) as error:
            if self._refusal is None and self._ended:
                return  # RFC 9112 §9.6: what follows a request that closes is ignored.
            if self._refusal is None and isinstance(error, httptools.HttpParserCallbackError):
                raise  # A fault of ours.
            status = 505 if "HTTP version" in str(error) else 400
            refusal = self._refusal or RequestRefused(status, f"malformed request: {error}")
            self._ended = True
            self._in_message = False
            self._unanswered += 1
            self._events.append(refusal)

    def _refuse(self, status: int, reason: str) -> None:
        self._refusal = RequestRefused(status, reason)
        raise RemoteProtocolError(reason)

    def _clear(self) -> None:
        self._in_message = self._head_complete = self._old = False
        self._conditional = False
        self._target = self._body = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._fields_seen: int = 0
        self._head_bytes: int = 0
        self._hosts: int = 0


def _origin_form(target: str) -> str:
    """A target in absolute form (RFC 9112 §3.2.2) as path and query; others as they are."""
    scheme, separator, rest = target.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        return target
    cut = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
    path = rest[cut:]
    return path if path.startswith("/") else f"/{path}"
