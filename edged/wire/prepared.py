"""Responses as ready bytes: made once, shared by all who get them (RFC 9110, 9112).

`PreparedResponse` is a head, then the second's Date field and the empty line (`date_stamp`), then
the body. Whoever asks for less, a range or nothing that he has already, gets what `narrow` makes.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from http import HTTPStatus

from edged.wire.h2.responses import make_block
from edged.wire.request import RequestReceived

JOIN_BYTES_MAX = 16 * 1024  # A body below it is copied behind its head: one iovec, one TLS record.
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)
DIGITS_MAX = 18  # Of a range's numbers: more than any body's.

Fields = tuple[tuple[str, str], ...]


class PreparedResponse:
    """A response's bytes, made once and shared by everyone who gets it."""

    __slots__ = (
        "_block",
        "_block_stamp",
        "_block_stamped",
        "_stamp",
        "_stamped",
        "body",
        "etag",
        "fields",
        "head",
        "lasting",
        "size",
        "status",
    )

    def __init__(
        self,
        status: int,
        fields: Fields,
        body: Sequence[bytes],
        *,
        lasting: bool = False,
        etag: str = "",
    ) -> None:
        """`fields`: all but Date, Connection and ETag.

        `lasting`: who made it need not be asked again for a second, as any cache would not.
        `etag`: names these very bytes among all that the address ever has; then `narrow` can help.
        """
        if etag:
            fields = (*fields, ("ETag", etag))
        self.status = status
        self.fields = fields
        self.etag = etag
        self.lasting = lasting
        self.body = tuple(body)
        self.size = sum(map(len, self.body))
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
        lines += [f"{name}: {value}" for name, value in fields]
        self.head = "".join(f"{line}\r\n" for line in lines).encode("latin-1")
        self._stamp = self._block_stamp = self._block = self._block_stamped = b""
        self._stamped: tuple[bytes, ...] = ()

    def block(self, stamp: bytes) -> bytes:
        """The same head for HTTP/2, as HPACK, with the Date field that `date_block` made."""
        if stamp is not self._block_stamp:
            if not self._block:
                self._block = make_block(self.status, self.fields)
            self._block_stamped = self._block + stamp
            self._block_stamp = stamp
        return self._block_stamped

    def chunks(self, stamp: bytes) -> tuple[bytes, ...]:
        """All bytes, for a connection that stays; made again once a second, with the stamp."""
        if stamp is not self._stamp:
            if self.size <= JOIN_BYTES_MAX:
                self._stamped = (b"".join((self.head, stamp, *self.body)),)
            else:
                self._stamped = (self.head + stamp, *self.body)
            self._stamp = stamp
        return self._stamped

    def variant(self, stamp: bytes, *, body: bool, close: bool) -> tuple[bytes, ...]:
        """The rare forms: without the body (HEAD), and for a connection that closes."""
        head = self.head + (b"Connection: close\r\n" if close else b"") + stamp
        return (head, *self.body) if body else (head,)


def prepare(
    status: int,
    body: Sequence[bytes],
    *,
    content_type: str,
    cache_control: str,
    fields: Iterable[tuple[str, str]] = (),
    lasting: bool = False,
    etag: str = "",
) -> PreparedResponse:
    """Make a response; the head lacks its Date and its empty line, which are `date_stamp`'s."""
    all_fields = (
        ("Content-Type", content_type),
        ("Content-Length", str(sum(map(len, body)))),
        ("Cache-Control", cache_control),
        *fields,
    )
    texts = (etag, *(text for field in all_fields for text in field))
    assert all(text.isascii() and text.isprintable() for text in texts), "a field is ours"
    return PreparedResponse(status, all_fields, body, lasting=lasting, etag=etag)


def narrow(request: RequestReceived, response: PreparedResponse) -> PreparedResponse:
    """What a request that is `conditional` gets instead of the whole (RFC 9110 §13.2.2, §14.2).

    304 when it has these bytes already, 412 when it insists on others, 206 and 416 for a range of
    them. Several ranges in one request are answered with the whole, as they may be.
    """
    if response.status != HTTPStatus.OK or not response.etag:
        return response
    wanted = request.field(b"if-match")
    if wanted and not _matches(wanted, response.etag, weakly=False):
        return _bare(HTTPStatus.PRECONDITION_FAILED, response)
    known = request.field(b"if-none-match")
    if known:
        if _matches(known, response.etag, weakly=True):
            return _bare(HTTPStatus.NOT_MODIFIED, response)
        return response if not request.field(b"range") else _ranged(request, response)
    return _ranged(request, response)


def _ranged(request: RequestReceived, response: PreparedResponse) -> PreparedResponse:
    value = request.field(b"range")
    held = request.field(b"if-range")
    if request.method != "GET" or not value:
        return response
    if held and not _matches(held, response.etag, weakly=False):
        return response  # Parts of something else, or a date, which we do not give.
    size = response.size
    found = _parse_range(value, size)
    if found is None:
        return response
    first, last = found
    if first >= size or last < first:
        return _bare(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            response,
            ("Content-Range", f"bytes */{size}"),
            ("Content-Length", "0"),
        )
    fields = [
        (name, str(last + 1 - first) if name == "Content-Length" else text)
        for name, text in response.fields
    ]
    fields.append(("Content-Range", f"bytes {first}-{last}/{size}"))
    body = _cut(response.body, first, last + 1)
    return PreparedResponse(HTTPStatus.PARTIAL_CONTENT, tuple(fields), body)


def _parse_range(value: bytes, size: int) -> tuple[int, int] | None:
    """First and last byte; None for what is to be ignored (RFC 9110 §14.2: malformed, other units).

    A range that is not in the body has a first byte beyond it.
    """
    unit, separator, text = value.partition(b"=")
    first, dash, last = text.strip().partition(b"-")
    if unit.strip().lower() != b"bytes" or not separator or not dash:
        return None
    if any(
        number and not (number.isdigit() and len(number) <= DIGITS_MAX) for number in (first, last)
    ):
        return None
    if not first:
        if not last:
            return None
        return (max(size - int(last), 0), size - 1) if int(last) else (size, size)
    if last and int(last) < int(first):
        return None
    return int(first), min(int(last), size - 1) if last else size - 1


def _cut(body: Sequence[bytes], start: int, stop: int) -> list[bytes]:
    """Those bytes of a body; what is whole is shared, not copied."""
    pieces: list[bytes] = []
    for piece in body:
        if start < len(piece) and stop > 0:
            pieces.append(piece[max(start, 0) : stop])  # All of it is itself: bytes do not change.
        start -= len(piece)
        stop -= len(piece)
    return pieces


def _matches(value: bytes, etag: str, *, weakly: bool) -> bool:
    """Whether a list of entity tags, or "*", has this one (RFC 9110 §8.8.3.2); ours are strong."""
    text = value.decode("latin-1").strip()
    tags = (tag.strip() for tag in text.split(","))  # None of ours has a comma.
    return text == "*" or any((tag.removeprefix("W/") if weakly else tag) == etag for tag in tags)


def _bare(status: int, response: PreparedResponse, *more: tuple[str, str]) -> PreparedResponse:
    """An answer without a body, with the fields that the whole would have had."""
    left_out = ("Content-Length", "Content-Type", "Content-Encoding")
    fields = tuple(field for field in response.fields if field[0] not in left_out)
    if status != HTTPStatus.NOT_MODIFIED:  # This asker's mistake is no other's answer.
        fields = tuple(field for field in fields if field[0] != "Cache-Control")
        fields += (("Cache-Control", "no-store"),)
    if status == HTTPStatus.PRECONDITION_FAILED:
        more = (("Content-Length", "0"),)
    return PreparedResponse(status, (*fields, *more), [])


def date_stamp(unix_s: float) -> bytes:
    """The Date field (RFC 9110 §5.6.7) and the empty line that ends a head."""
    at = datetime.fromtimestamp(int(unix_s), tz=UTC)
    day, month = WEEKDAYS[at.weekday()], MONTHS[at.month - 1]
    text = f"Date: {day}, {at.day:02d} {month} {at.year:04d} {at:%H:%M:%S} GMT\r\n\r\n"
    return text.encode()
