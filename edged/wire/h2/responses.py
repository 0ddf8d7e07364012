"""Responses whose bytes are made once, and shared by all who get them over HTTP/2.

`H2Response.block` is the HPACK block of the status and the fields; the second's Date field is put
behind it, once in a second, too.
"""

from collections.abc import Iterable, Sequence

from edged.wire.h2.hpack import encode_fields


class H2Response:
    """A response for any connection: `H2Session.respond(stream_id, stamped(stamp), body, ...)`."""

    __slots__ = ("_stamp", "_stamped", "block", "body", "size", "status")

    def __init__(self, status: int, block: bytes, body: Sequence[bytes]) -> None:
        self.status = status
        self.block = block
        self.body = tuple(body)
        self.size = sum(map(len, self.body))
        self._stamp = b""
        self._stamped = block

    def stamped(self, stamp: bytes) -> bytes:
        """The whole block, with what `date_block` made; made again once a second."""
        if stamp is not self._stamp:
            self._stamped = self.block + stamp
            self._stamp = stamp
        return self._stamped


def make_block(status: int, fields: Iterable[tuple[str, str]]) -> bytes:
    """A response's HPACK block; names in any case (RFC 9113 §8.2: they are sent in lower case)."""
    lines = [(":status", f"{status}"), *((name.lower(), value) for name, value in fields)]
    assert all(f"{name}{value}".isascii() for name, value in lines), "a header field is ours"
    assert all(f"{name}{value}".isprintable() for name, value in lines), "a header field is ours"
    return encode_fields((name.encode(), value.encode()) for name, value in lines)


def prepare(
    status: int,
    body: Sequence[bytes],
    *,
    content_type: str,
    cache_control: str,
    fields: Iterable[tuple[str, str]] = (),
) -> H2Response:
    """Make a response, as `edged.wire.h1.prepare` does; it lacks its Date, which is stamped."""
    length = sum(map(len, body))
    own = (
        ("content-type", content_type),
        ("content-length", f"{length}"),
        ("cache-control", cache_control),
    )
    return H2Response(status, make_block(status, (*own, *fields)), body)


def date_block(h1_stamp: bytes) -> bytes:
    """The Date field of `edged.wire.h1.date_stamp`, as HPACK."""
    name, _, value = h1_stamp.strip().partition(b": ")
    assert name == b"Date", "it is that field and the empty line"
    return encode_fields([(b"date", value)])
