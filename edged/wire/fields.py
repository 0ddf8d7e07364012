"""Header fields."""

from collections.abc import Sequence


def find_field(fields: Sequence[tuple[bytes, bytes]], name: bytes) -> bytes:
    """The first of that lower-case name, in whatever case it is; else empty."""
    size = len(name)
    for candidate, value in fields:
        if len(candidate) == size and (candidate == name or candidate.lower() == name):
            return value
    return b""
