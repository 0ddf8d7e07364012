"""One HTTP request, whichever version of HTTP it came by."""

from collections.abc import Sequence
from typing import Final

from mypy_extensions import mypyc_attr

from edged.wire.content_coding import takes_gzip
from edged.wire.fields import find_field

UNKNOWN: Final = -1


@mypyc_attr(acyclic=True)
class RequestReceived:  # noqa: PLW1641 - equal by value, and nobody hashes it
    """One whole request. `path` is percent-decoded, `query` is not; both without "?".

    It is shared by those who ask the same, and never changed.
    """

    __slots__ = (
        *("_gzip", "body", "conditional", "fields", "keep_alive", "method", "path", "query"),
        "upgrade",
    )

    def __init__(
        self,
        *,
        method: str,
        path: str,
        query: str,
        fields: Sequence[tuple[bytes, bytes]],
        keep_alive: bool,
        body: bytes = b"",
        upgrade: bool = False,
        conditional: bool = False,
    ) -> None:
        """`fields`: as sent, names in any case, in order.

        `upgrade`: the session holds still until `decline_upgrade` or `take_rest`. `conditional`: it
        may want less than the whole, see `prepared.narrow`.
        """
        self.method: Final = method
        self.path: Final = path
        self.query: Final = query
        self.fields: Final = fields
        self.keep_alive: Final = keep_alive
        self.body: Final = body
        self.upgrade: Final = upgrade
        self.conditional: Final = conditional
        self._gzip = UNKNOWN

    @property
    def takes_gzip(self) -> bool:
        """Whether the answer may be gzip."""
        if self._gzip == UNKNOWN:
            self._gzip = takes_gzip(find_field(self.fields, b"accept-encoding"))
        return self._gzip == 1

    def field(self, name: bytes) -> bytes:
        """The first header field of that lower-case name, else empty."""
        return find_field(self.fields, name)

    def for_target(self, path: str, query: str, body: bytes = b"") -> "RequestReceived":
        """What the same client asks when it asks for something else, or with a body; no upgrade."""
        other = RequestReceived(
            method=self.method,
            path=path,
            query=query,
            fields=self.fields,
            keep_alive=self.keep_alive,
            body=body,
            conditional=self.conditional,
        )
        other._gzip = self._gzip
        return other

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, RequestReceived)
            and self.method == other.method
            and self.path == other.path
            and self.query == other.query
            and self.fields == other.fields
            and self.keep_alive == other.keep_alive
            and self.body == other.body
            and self.upgrade == other.upgrade
            and self.conditional == other.conditional
        )

    def __repr__(self) -> str:
        told = f"{self.method} {self.path!r} ?{self.query!r} {self.fields!r} {self.body!r}"
        flags = f"{self.keep_alive=} {self.upgrade=} {self.conditional=}".replace("self.", "")
        return f"RequestReceived({told} {flags})"
