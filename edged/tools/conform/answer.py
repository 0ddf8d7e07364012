"""An HTTP response as the checks need it, whichever version of HTTP brought it."""

import zlib

from msgspec import Struct

from edged.errors import RemoteProtocolError

BODY_BYTES_MAX = 64 * 2**20
ARRIVALS_MAX = 2_000  # Of a body's pieces; later ones count as one, whose time is the last's.
_GZIP = 16 + zlib.MAX_WBITS  # zlib.decompressobj's wbits.


class Answer(Struct, frozen=True, kw_only=True):
    """A response; times are monotonic seconds."""

    url: str
    status: int
    fields: tuple[tuple[str, str], ...]  # Names in lower case.
    body: bytes  # Without its content coding; empty where it is not kept.
    asked_at: float
    head_at: float
    first_at: float  # Of the body; `head_at` if it is empty.
    last_at: float
    wire_bytes: int  # Of the body, as it came.
    arrivals: tuple[tuple[int, float], ...] = ()  # How many bytes were there, and since when.
    version: str = "HTTP/1.1"

    def get(self, name: str) -> str:
        """A field's value, or the values of all that have the name; empty without it."""
        return ", ".join(value for known, value in self.fields if known == name)

    @property
    def waited_s(self) -> float:
        """From the request until the head."""
        return self.head_at - self.asked_at

    def arrived_at(self, size: int) -> float:
        """When so many bytes of the body were there."""
        return next((at for known, at in self.arrivals if known >= size), self.last_at)


class Incoming:
    """An answer that is on its way."""

    def __init__(self, url: str, asked_at: float) -> None:
        self._url, self._asked_at = url, asked_at
        self._head_at = asked_at
        self._status = 0
        self._fields: tuple[tuple[str, str], ...] = ()
        self._body = bytearray()
        self._arrivals: list[tuple[int, float]] = []

    def begin(self, status: int, fields: list[tuple[str, str]], now: float) -> None:
        """Its head has come."""
        self._status, self._fields, self._head_at = status, tuple(fields), now

    def add(self, data: bytes, now: float) -> None:
        """Some of its body; raises `RemoteProtocolError` beyond the limit."""
        self._body += data
        if len(self._body) > BODY_BYTES_MAX:
            raise RemoteProtocolError(f"{self._url}: more than {BODY_BYTES_MAX} bytes")
        if len(self._arrivals) == ARRIVALS_MAX:
            self._arrivals.pop()
        if data:
            self._arrivals.append((len(self._body), now))

    def end(self, version: str) -> Answer:
        """It is whole; raises `RemoteProtocolError` if it cannot be unpacked."""
        assert self._status, "its head comes first"
        coding = next((value for name, value in self._fields if name == "content-encoding"), "")
        return Answer(
            url=self._url,
            status=self._status,
            fields=self._fields,
            body=_decoded(bytes(self._body), coding, self._url),
            asked_at=self._asked_at,
            head_at=self._head_at,
            first_at=self._arrivals[0][1] if self._arrivals else self._head_at,
            last_at=self._arrivals[-1][1] if self._arrivals else self._head_at,
            wire_bytes=len(self._body),
            arrivals=tuple(self._arrivals),
            version=version,
        )


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
