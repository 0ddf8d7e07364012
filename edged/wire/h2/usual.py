"""A client's usual request: all of it as before, but for its path.

A player asks for part after part with the same fields. With an HPACK table that has not changed
since, the same bytes mean the same; so that of a header block as it came before only the path, a
literal that does not enter the table, is to be read. Whatever is out of the ordinary is left to
`hpack` and `requests`, which tell what is wrong with it.
"""

from typing import Final
from urllib.parse import unquote

from edged.errors import RemoteProtocolError
from edged.wire.h2.hpack import (
    BITS_4,
    BITS_7,
    HUFFMAN,
    INDEXED,
    SIZE_UPDATE,
    STATIC_TABLE,
    KnownStrings,
    read_integer,
)
from edged.wire.h2.limits import H2Limits
from edged.wire.h2.requests import TARGET_BYTES
from edged.wire.request import RequestReceived

SLASH: Final = 0x2F
_PATHS: Final = tuple(i for i, (name, _) in enumerate(STATIC_TABLE, 1) if name == b":path")


class UsualRequest:
    """What came, less its path, and the table's state that it is right for."""

    __slots__ = ("_after", "_before", "_like", "_rest_bytes", "changes", "priority")

    def __init__(
        self,
        before: bytes,
        after: bytes,
        like: RequestReceived,
        *,
        rest_bytes: int,
        changes: int,
        priority: tuple[int, bool],
    ) -> None:
        """`rest_bytes`: the header list's size without the path's value (RFC 9113 §6.5.2)."""
        self.changes: Final = changes
        self.priority: Final = priority
        self._before: Final = before
        self._after: Final = after
        self._like: Final = like
        self._rest_bytes: Final = rest_bytes

    def read(
        self, data: bytes, at: int, limits: H2Limits, known: KnownStrings
    ) -> RequestReceived | None:
        """The request whose header block is `data` from `at` on; None if it is not such a one."""
        path_at = at + len(self._before)
        end = len(data) - len(self._after)
        if path_at >= end or data[at:path_at] != self._before or data[end:] != self._after:
            return None
        first = data[path_at]
        start, size = path_at + 1, first & BITS_7
        try:
            if size == BITS_7:
                size, start = read_integer(data, start, BITS_7)
            if start + size != end:
                return None
            target = data[start:end]
            if first & HUFFMAN:
                target = known.find(target) or known.decode(target)
        except RemoteProtocolError:
            return None
        size = len(target)
        if (
            size == 0
            or target[0] != SLASH
            or size > limits.target_bytes_max
            or self._rest_bytes + size > limits.head_bytes_max
            or target.translate(None, TARGET_BYTES)
        ):
            return None
        path, _, query = target.decode("latin-1").partition("?")
        return self._like.for_target(unquote(path) if "%" in path else path, query)


def learn_usual(
    block: bytes,
    request: RequestReceived,
    *,
    rest_bytes: int,
    changes: int,
    priority: tuple[int, bool],
) -> UsualRequest | None:
    """What a header block that has not changed the table teaches; None if it is of another form."""
    at = 0
    while at < len(block) and INDEXED < block[at] < INDEXED | BITS_7:
        at += 1
    if at + 1 >= len(block) or block[at] >= SIZE_UPDATE or block[at] & BITS_4 not in _PATHS:
        return None
    at += 1
    start, size = at + 1, block[at] & BITS_7
    if size == BITS_7:
        size, start = read_integer(block, start, BITS_7)
    return UsualRequest(
        block[:at],
        block[start + size :],
        request,
        rest_bytes=rest_bytes,
        changes=changes,
        priority=priority,
    )
