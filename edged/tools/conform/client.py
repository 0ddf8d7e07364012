"""HTTP as the checks need it: each answer with its times, and what the connection was like."""

import contextlib
import ssl
import zlib
from collections.abc import Sequence
from urllib.parse import quote, urlsplit

import h11
import trio
from msgspec import Struct

from edged.errors import PeerLostError, RemoteProtocolError

BODY_BYTES_MAX = 64 * 2**20
IDLE_MAX = 32  # Connections that are kept.
RECEIVE_BYTES = 256 * 1024
CONNECT_S_MAX = 10.0
_TCP_INFO_BYTES = 104
_OPTIONS_AT, _RTT_AT = 5, 68  # Of struct tcp_info (linux/tcp.h).
_GZIP = 16 + zlib.MAX_WBITS  # zlib.decompressobj's wbits.
_TIMESTAMPS, _ECN = 1, 8  # TCPI_OPT_*.


class Answer(Struct, frozen=True, kw_only=True):
    """A response; times are monotonic seconds."""

    url: str
    status: int
    fields: tuple[tuple[str, str], ...]  # Names in lower case.
    body: bytes  # Without its content coding.
    asked_at: float
    head_at: float
    first_at: float  # Of the body; `head_at` if it is empty.
    last_at: float
    wire_bytes: int  # Of the body, as it came.

    def get(self, name: str) -> str:
        """A field's value, or the values of all that have the name; empty without it."""
        return ", ".join(value for known, value in self.fields if known == name)

    @property
    def waited_s(self) -> float:
        """From the request until the head."""
        return self.head_at - self.asked_at


class Link(Struct, frozen=True, kw_only=True):
    """What a connection was like."""

    tls: str  # "TLSv1.3"; empty: plain.
    alpn: str  # What was chosen of h2 and http/1.1.
    timestamps: bool
    ecn: bool
    rtt_s: float


class HttpClient:
    """HTTP/1.1 with connections that are used again; as many at once as there are requests."""

    def __init__(self, *, insecure: bool = False) -> None:
        """`insecure`: certificates are not verified."""
        self._context = ssl.create_default_context()
        if insecure:
            self._context.check_hostname = False
            self._context.verify_mode = ssl.CERT_NONE
        self._idle: list[tuple[tuple[str, int, bool], _Connection]] = []

    async def get(
        self, url: str, *, fields: Sequence[tuple[str, str]] = (), within_s: float = 20.0
    ) -> Answer:
        """GET; raises `PeerLostError` or `RemoteProtocolError`, which name the URL."""
        place = _place(url)
        try:
            with trio.fail_after(within_s):
                return await self._get(place, url, fields)
        except trio.TooSlowError:
            raise PeerLostError(f"{url}: no answer within {within_s:g} s") from None
        except (OSError, trio.BrokenResourceError) as error:  # Of TLS its cause says more.
            raise PeerLostError(f"{url}: {error.__cause__ or error}") from None
        except (h11.ProtocolError, ValueError) as error:
            raise RemoteProtocolError(f"{url}: {error}") from None

    async def look(self, url: str) -> Link:
        """Connect, offering HTTP/2, and see what the connection is like."""
        place = _place(url)
        try:
            with trio.fail_after(CONNECT_S_MAX):
                connection = await self._connect(place, ("h2", "http/1.1"))
                link = connection.look()
                await connection.close()
                return link
        except trio.TooSlowError:
            raise PeerLostError(f"{url}: no connection within {CONNECT_S_MAX:g} s") from None
        except (OSError, trio.BrokenResourceError) as error:  # Of TLS its cause says more.
            raise PeerLostError(f"{url}: {error.__cause__ or error}") from None

    async def close(self) -> None:
        """Close what is kept."""
        idle, self._idle = self._idle, []
        for _, connection in idle:
            await connection.close()

    async def _get(
        self, place: tuple[str, int, bool], url: str, fields: Sequence[tuple[str, str]]
    ) -> Answer:
        kept = next((item for item in reversed(self._idle) if item[0] == place), None)
        if kept is not None:
            self._idle.remove(kept)
            lost = (RemoteProtocolError, h11.RemoteProtocolError, OSError, trio.BrokenResourceError)
            with contextlib.suppress(*lost):
                return await self._exchange(place, kept[1], url, fields)
        # A kept connection may have been closed meanwhile: once more on a new one.
        return await self._exchange(place, await self._connect(place, ("http/1.1",)), url, fields)

    async def _exchange(
        self,
        place: tuple[str, int, bool],
        connection: "_Connection",
        url: str,
        fields: Sequence[tuple[str, str]],
    ) -> Answer:
        reusable = False
        try:
            answer, reusable = await connection.exchange(url, fields)
            return answer
        finally:
            if reusable and len(self._idle) < IDLE_MAX:
                self._idle.append((place, connection))
            else:
                with trio.CancelScope(shield=True):
                    await connection.close()

    async def _connect(
        self, place: tuple[str, int, bool], protocols: Sequence[str]
    ) -> "_Connection":
        host, port, secure = place
        tcp = await trio.open_tcp_stream(host, port)
        tcp.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
        if not secure:
            return _Connection(tcp, tcp)
        self._context.set_alpn_protocols(list(protocols))
        stream = trio.SSLStream(tcp, self._context, server_hostname=host, https_compatible=True)
        try:
            await stream.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(tcp)
            raise
        return _Connection(stream, tcp)


class _Connection:
    """One connection."""

    def __init__(
        self,
        stream: "trio.SocketStream | trio.SSLStream[trio.SocketStream]",
        tcp: trio.SocketStream,
    ) -> None:
        self._stream, self._tcp = stream, tcp
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=256 * 1024)

    async def exchange(self, url: str, fields: Sequence[tuple[str, str]]) -> tuple[Answer, bool]:
        """One request and its answer, and whether the connection can take another."""
        parts = urlsplit(url)
        target = quote(
            (parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
            safe="/?=&%:@!$'()*+,;~-._",
        )
        request = h11.Request(
            method="GET", target=target, headers=[("Host", parts.netloc), *fields]
        )
        asked_at = trio.current_time()
        data = self._h11.send(request) or b""
        await self._stream.send_all(data + (self._h11.send(h11.EndOfMessage()) or b""))
        head: h11.Response | None = None
        head_at = first_at = last_at = asked_at
        body = bytearray()
        while (event := await self._next_event(url)) is not None:
            if isinstance(event, h11.Response):
                head, head_at = event, trio.current_time()
                first_at = last_at = head_at
                continue
            last_at = trio.current_time()
            first_at = first_at if body else last_at
            body += event.data
            if len(body) > BODY_BYTES_MAX:
                raise RemoteProtocolError(f"{url}: more than {BODY_BYTES_MAX} bytes")
        assert head is not None, "h11 has it come first"
        named = tuple((name.decode(), value.decode("latin-1")) for name, value in head.headers)
        coding = next((value for name, value in named if name == "content-encoding"), "")
        answer = Answer(
            url=url, status=head.status_code, fields=named, body=_decoded(bytes(body), coding, url),
            asked_at=asked_at, head_at=head_at, first_at=first_at, last_at=last_at,
            wire_bytes=len(body),
        )  # fmt: skip
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
            return answer, True
        return answer, False

    async def _next_event(self, url: str) -> h11.Response | h11.Data | None:
        """The next of the answer; None at its end."""
        while True:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                data = bytes(await self._stream.receive_some(RECEIVE_BYTES))
                if not data and self._h11.their_state is h11.SEND_RESPONSE:
                    raise RemoteProtocolError(f"{url}: the server closed without an answer")
                self._h11.receive_data(data)
            elif isinstance(event, h11.Response | h11.Data):
                return event
            elif not isinstance(event, h11.InformationalResponse):
                return None

    def look(self) -> Link:
        """TLS, ALPN, and the kernel's view of TCP."""
        info = self._tcp.socket.getsockopt(
            trio.socket.IPPROTO_TCP, trio.socket.TCP_INFO, _TCP_INFO_BYTES
        )
        secure = self._stream if isinstance(self._stream, trio.SSLStream) else None
        return Link(
            tls=(secure.version() or "") if secure is not None else "",
            alpn=(secure.selected_alpn_protocol() or "") if secure is not None else "",
            timestamps=bool(info[_OPTIONS_AT] & _TIMESTAMPS),
            ecn=bool(info[_OPTIONS_AT] & _ECN),
            rtt_s=int.from_bytes(info[_RTT_AT : _RTT_AT + 4], "little") / 1e6,
        )

    async def close(self) -> None:
        """Close it, whatever the peer does."""
        await trio.aclose_forcefully(self._stream)


def _place(url: str) -> tuple[str, int, bool]:
    """Host, port, and whether it is under TLS."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise RemoteProtocolError(f"{url}: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise RemoteProtocolError(f"{url}: not an HTTP URL")
    secure = parts.scheme == "https"
    return parts.hostname, port or (443 if secure else 80), secure


def _decoded(body: bytes, coding: str, url: str) -> bytes:
    if coding in ("", "identity"):
        return body
    if coding != "gzip":
        raise RemoteProtocolError(f"{url}: content coding {coding!r} was not asked for")
    unpacker = zlib.decompressobj(_GZIP)
    try:
        data = unpacker.decompress(body, BODY_BYTES_MAX)
    except zlib.error as error:
        raise RemoteProtocolError(f"{url}: broken gzip: {error}") from None
    if not unpacker.eof:
        raise RemoteProtocolError(f"{url}: broken gzip, or more than {BODY_BYTES_MAX} bytes of it")
    return data
