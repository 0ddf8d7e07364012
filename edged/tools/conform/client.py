"""HTTP/1.1 and HTTP/2 as the checks need them, and what a connection was like."""

import contextlib
import ssl
from collections.abc import Sequence
from urllib.parse import quote, urlsplit

import h11
import trio
from msgspec import Struct

from edged.errors import EdgedError, PeerLostError, RemoteProtocolError
from edged.tools.conform.answer import Answer, Incoming
from edged.tools.conform.h2_exchange import H2Exchange

IDLE_MAX = 32  # Connections that are kept.
RECEIVE_BYTES = 256 * 1024
CONNECT_S_MAX = 10.0
H2, HTTP1 = "h2", "http/1.1"  # ALPN's names.
_TCP_INFO_BYTES = 104
_OPTIONS_AT, _RTT_AT = 5, 68  # Of struct tcp_info (linux/tcp.h).
_TIMESTAMPS, _ECN = 1, 8  # TCPI_OPT_*.


class Link(Struct, frozen=True, kw_only=True):
    """What a connection was like."""

    tls: str  # "TLSv1.3"; empty: plain.
    alpn: str  # What was chosen of h2 and http/1.1.
    timestamps: bool
    ecn: bool
    rtt_s: float
    h2_problem: str = ""  # What a request over HTTP/2 ended with, where it was chosen.


class HttpClient:
    """HTTP with connections that are used again; as many at once as there are requests.

    As browsers do it offers HTTP/2 first, and speaks what is chosen; plain HTTP is HTTP/1.1.
    """

    def __init__(self, *, insecure: bool = False) -> None:
        """`insecure`: certificates are not verified."""
        self._context = ssl.create_default_context()
        if insecure:
            self._context.check_hostname = False
            self._context.verify_mode = ssl.CERT_NONE
        self._offered: tuple[str, ...] = (H2, HTTP1)
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
        """Connect, ask for the URL, and see what the connection is like.

        Where HTTP/2 is chosen and does not work HTTP/1.1 alone is offered from then on.
        """
        place = _place(url)
        try:
            with trio.fail_after(CONNECT_S_MAX):
                connection = await self._connect(place)
        except trio.TooSlowError:
            raise PeerLostError(f"{url}: no connection within {CONNECT_S_MAX:g} s") from None
        except (OSError, trio.BrokenResourceError) as error:  # Of TLS its cause says more.
            raise PeerLostError(f"{url}: {error.__cause__ or error}") from None
        try:
            problem = await self._try_h2(connection, url) if connection.alpn == H2 else ""
            if problem:
                self._offered = (HTTP1,)
            return connection.look(problem)
        finally:
            with trio.CancelScope(shield=True):
                await connection.close()

    async def _try_h2(self, connection: "_Connection", url: str) -> str:
        """What a real request over HTTP/2 ends with; empty: well."""
        try:
            with trio.fail_after(CONNECT_S_MAX):
                answer, _ = await connection.exchange(url, ())
        except trio.TooSlowError:
            return f"{url}: no answer over HTTP/2 within {CONNECT_S_MAX:g} s"
        except EdgedError as error:
            return str(error)
        except (OSError, trio.BrokenResourceError) as error:
            return f"{url}: HTTP/2: {error.__cause__ or error}"
        return "" if answer.status == 200 else f"{url}: status {answer.status} over HTTP/2"  # noqa: PLR2004

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
        return await self._exchange(place, await self._connect(place), url, fields)

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

    async def _connect(self, place: tuple[str, int, bool]) -> "_Connection":
        host, port, secure = place
        tcp = await trio.open_tcp_stream(host, port)
        tcp.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
        if not secure:
            return _Connection(tcp, tcp)
        self._context.set_alpn_protocols(list(self._offered))
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
        self.alpn = ""
        if isinstance(stream, trio.SSLStream):
            self.alpn = stream.selected_alpn_protocol() or ""
        self._h2 = H2Exchange(stream) if self.alpn == H2 else None
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=256 * 1024)

    async def exchange(self, url: str, fields: Sequence[tuple[str, str]]) -> tuple[Answer, bool]:
        """One request and its answer, and whether the connection can take another."""
        parts = urlsplit(url)
        target = quote(
            (parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
            safe="/?=&%:@!$'()*+,;~-._",
        )
        if self._h2 is not None:
            return await self._h2.exchange(url, target, fields)
        request = h11.Request(
            method="GET", target=target, headers=[("Host", parts.netloc), *fields]
        )
        incoming = Incoming(url, trio.current_time())
        data = self._h11.send(request) or b""
        await self._stream.send_all(data + (self._h11.send(h11.EndOfMessage()) or b""))
        while (event := await self._next_event(url)) is not None:
            if isinstance(event, h11.Response):
                named = [(name.decode(), value.decode("latin-1")) for name, value in event.headers]
                incoming.begin(event.status_code, named, trio.current_time())
            else:
                incoming.add(bytes(event.data), trio.current_time())
        answer = incoming.end("HTTP/1.1")
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

    def look(self, h2_problem: str) -> Link:
        """TLS, ALPN, and the kernel's view of TCP."""
        info = self._tcp.socket.getsockopt(
            trio.socket.IPPROTO_TCP, trio.socket.TCP_INFO, _TCP_INFO_BYTES
        )
        secure = self._stream if isinstance(self._stream, trio.SSLStream) else None
        return Link(
            tls=(secure.version() or "") if secure is not None else "",
            alpn=self.alpn,
            timestamps=bool(info[_OPTIONS_AT] & _TIMESTAMPS),
            ecn=bool(info[_OPTIONS_AT] & _ECN),
            rtt_s=int.from_bytes(info[_RTT_AT : _RTT_AT + 4], "little") / 1e6,
            h2_problem=h2_problem,
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
