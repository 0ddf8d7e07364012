"""Heads of responses as HPACK blocks, for any connection: `wire.prepared` makes each once."""

from collections.abc import Iterable

from edged.wire.h2.hpack import encode_fields


def make_block(status: int, fields: Iterable[tuple[str, str]]) -> bytes:
    """A response's HPACK block; names in any case (RFC 9113 §8.2: they are sent in lower case)."""
    lines = [(":status", f"{status}"), *((name.lower(), value) for name, value in fields)]
    assert all(f"{name}{value}".isascii() for name, value in lines), "a header field is ours"
    assert all(f"{name}{value}".isprintable() for name, value in lines), "a header field is ours"
    return encode_fields((name.encode(), value.encode()) for name, value in lines)


def date_block(h1_stamp: bytes) -> bytes:
    """The Date field of `edged.wire.h1.date_stamp`, as HPACK."""
    name, _, value = h1_stamp.strip().partition(b": ")
    assert name == b"Date", "it is that field and the empty line"
    return encode_fields([(b"date", value)])
