"""Calls to configured URLs: one POST, no redirects, TLS verified, all of it bounded.

No proxy and nothing else is taken from the environment, no cookies are kept, and no more than so
many bytes of an answer are read, as they come: compression is neither asked for nor undone.
"""

import contextlib
import http.cookiejar
import ssl
import urllib.request
from collections.abc import AsyncIterator, Mapping

import httpx
import trio
from msgspec import Struct

import edged
from edged.errors import ConfigError, EdgedError

KEEP_ALIVE_S = 1.0  # For bursts; a server that hangs up first would cost the next call an error.
CAUSES_MAX = 8  # Of an error: httpx wraps httpcore, which wraps anyio or Trio, which wrap ssl.
TEXT_CHARS_MAX = 200  # Of what a library says of an error.


class CallFailedError(EdgedError):
    """There is no whole answer: no connection, a certificate, a time-out, too many bytes."""


class Answer(Struct, frozen=True):
    """What came back."""

    status: int
    body: bytes
    retry_after: str = ""  # The field, as it came.


class Caller:
    """Connections to one URL; made by `open_caller`."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._client, self._url = client, url

    async def post(
        self, body: bytes, fields: Mapping[str, str], *, timeout_s: float, bytes_max: int
    ) -> Answer:
        """POST JSON; raises `CallFailedError`, whose text has neither URL nor body in it.

        `timeout_s` is for all of it, from the connection to the answer's last byte.
        """
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity", **fields}
        try:
            with trio.fail_after(timeout_s):
                request = self._client.build_request(
                    "POST", self._url, content=body, headers=headers
                )
                return await self._send(request, bytes_max)
        except trio.TooSlowError:
            raise CallFailedError(f"no whole answer within {timeout_s:g} s") from None
        except (httpx.HTTPError, OSError) as error:
            raise CallFailedError(_say(error)) from None

    async def _send(self, request: httpx.Request, bytes_max: int) -> Answer:
        response = await self._client.send(request, stream=True)
        try:
            answer = bytearray()
            # Ended from below: generators inside each other that are left half-way are not closed.
            with trio.CancelScope() as enough:
                async for data in response.aiter_raw():
                    answer += data[: bytes_max + 1 - len(answer)]
                    if len(answer) > bytes_max:
                        enough.cancel()
            if len(answer) > bytes_max:
                raise CallFailedError(f"answered with more than {bytes_max} bytes")
            return Answer(
                response.status_code, bytes(answer), response.headers.get("Retry-After", "")
            )
        finally:
            await response.aclose()


@contextlib.asynccontextmanager
async def open_caller(url: str, *, ca: str, connections_max: int) -> AsyncIterator[Caller]:
    """Connections to a URL that has been checked; raises `ConfigError` when `ca` cannot be used."""
    client = httpx.AsyncClient(
        verify=make_context(ca),
        trust_env=False,
        follow_redirects=False,
        timeout=None,  # noqa: S113 - each call as a whole has one
        limits=httpx.Limits(
            max_connections=connections_max,
            max_keepalive_connections=connections_max,
            keepalive_expiry=KEEP_ALIVE_S,
        ),
        headers={"User-Agent": f"edged/{edged.__version__}"},
    )
    client.cookies.jar.set_policy(_NoCookies())
    async with client:
        yield Caller(client, url)


def make_context(ca: str) -> ssl.SSLContext:
    """What verifies a server: the CAs of a PEM file alone, or those of the system."""
    try:
        return ssl.create_default_context(cafile=ca or None)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError.
        what = getattr(error, "strerror", None) or error
        raise ConfigError(f"ca {ca!r} cannot be used: {what}") from error


class _NoCookies(http.cookiejar.DefaultCookiePolicy):
    """Nothing of an answer goes into the next request."""

    def set_ok(self, cookie: http.cookiejar.Cookie, request: urllib.request.Request) -> bool:
        del cookie, request
        return False


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
