"""Calls to configured URLs: one POST, no redirects, TLS verified, all of it bounded.

h11 says what the bytes mean, Trio carries them: a connection for each call, closed with it however
it ends. Nothing is taken from the environment (no proxy), nothing of one call goes into the next
(no cookies), and no more than so many bytes of an answer are read, as they come: compression is
neither asked for nor undone.
"""

import contextlib
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

import h11
import trio
from msgspec import Struct

import edged
from edged.errors import ConfigError, EdgedError

PORTS = {"https": 443, "http": 80}
RECEIVE_BYTES = 16 * 1024
HEAD_BYTES_MAX = 32 * 1024  # Of an answer: status line and fields.
CAUSES_MAX = 8  # Of an error: Trio wraps ssl, and groups what each address gave.
TEXT_CHARS_MAX = 200  # Of what a library says of an error.


class CallFailedError(EdgedError):
    """There is no whole answer: no connection, a certificate, a time-out, too many bytes."""


class Answer(Struct, frozen=True):
    """What came back."""

    status: int
    body: bytes
    retry_after: str = ""  # The field, as it came.


class Caller:
    """Calls one URL, which has been checked; raises `ConfigError` when `ca` cannot be used."""

    def __init__(self, url: str, *, ca: str) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or PORTS[parts.scheme]
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        name = f"[{self._host}]" if ":" in self._host else self._host
        is_usual = self._port == PORTS[parts.scheme]
        self._authority = name if is_usual else f"{name}:{self._port}"
        self._context = make_context(ca) if parts.scheme == "https" else None

    async def post(
        self, body: bytes, fields: Mapping[str, str], *, timeout_s: float, bytes_max: int
    ) -> Answer:
        """POST JSON; raises `CallFailedError`, whose text has neither URL nor body in it.

        `timeout_s` is for all of it, from the look-up of the name to the answer's last byte.
        """
        try:
            with trio.fail_after(timeout_s):
                return await self._call(body, fields, bytes_max)
        except trio.TooSlowError:
            raise CallFailedError(f"no whole answer within {timeout_s:g} s") from None
        except h11.RemoteProtocolError as error:
            raise CallFailedError(str(error)[:TEXT_CHARS_MAX]) from None
        except (OSError, trio.BrokenResourceError) as error:
            raise CallFailedError(_say(error)) from None

    async def _call(self, body: bytes, fields: Mapping[str, str], bytes_max: int) -> Answer:
        stream: trio.abc.Stream = await trio.open_tcp_stream(self._host, self._port)
        try:
            if self._context is not None:
                stream = trio.SSLStream(
                    stream, self._context, server_hostname=self._host, https_compatible=True
                )
                await stream.do_handshake()
            http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX)
            await self._send(stream, http, body, fields)
            return await _receive(stream, http, bytes_max)
        finally:
            await trio.aclose_forcefully(stream)

    async def _send(
        self, stream: trio.abc.Stream, http: h11.Connection, body: bytes, fields: Mapping[str, str]
    ) -> None:
        request = h11.Request(
            method="POST",
            target=self._target,
            headers=[
                ("Host", self._authority),
                ("User-Agent", f"edged/{edged.__version__}"),
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(body))),
                ("Accept-Encoding", "identity"),
                ("Connection", "close"),
                *fields.items(),
            ],
        )
        parts = (http.send(request), http.send(h11.Data(body)), http.send(h11.EndOfMessage()))
        # Who refuses a body may hang up early; the answer is there all the same.
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(b"".join(part for part in parts if part))


def make_context(ca: str) -> ssl.SSLContext:
    """What verifies a server: the CAs of a PEM file alone, or those of the system."""
    try:
        return ssl.create_default_context(cafile=ca or None)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError.
        what = getattr(error, "strerror", None) or error
        raise ConfigError(f"ca {ca!r} cannot be used: {what}") from error


async def _receive(stream: trio.abc.Stream, http: h11.Connection, bytes_max: int) -> Answer:
    status, retry_after, body = 0, "", bytearray()
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            data = bytes(await stream.receive_some(RECEIVE_BYTES))
            if not data and http.their_state is h11.SEND_RESPONSE:
                raise CallFailedError("closed the connection without an answer")
            http.receive_data(data)
        elif isinstance(event, h11.Response):
            status = event.status_code
            found = [value for name, value in event.headers if name == b"retry-after"]
            retry_after = found[0].decode("latin-1") if found else ""
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > bytes_max:
                raise CallFailedError(f"answered with more than {bytes_max} bytes")
        elif isinstance(event, h11.EndOfMessage):
            return Answer(status, bytes(body), retry_after)


def _say(error: BaseException) -> str:
    """What went wrong, in one line: of errors inside errors the innermost that says something."""
    texts: list[str] = []
    found: BaseException | None = error
    while found is not None and len(texts) < CAUSES_MAX:
        inside = found.exceptions[0] if isinstance(found, BaseExceptionGroup) else None
        texts.append("" if inside is not None else " ".join(str(found).split()))
        found = inside or found.__cause__ or found.__context__
    said = next((text for text in reversed(texts) if text), type(error).__name__)
    return said[:TEXT_CHARS_MAX]
