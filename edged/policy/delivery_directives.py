"""What a playlist request asks for, how far the playlist is, and what that comes to."""

from msgspec import Struct

WHOLE = 1 << 64  # Above every part index.


class ReloadDirectives(Struct, frozen=True):
    """What a playlist request asks for; `msn` None when it does not ask to block."""

    msn: int | None = None
    part: int | None = None
    skip: bool = False  # A delta update will do.


class PlaylistEdge(Struct, frozen=True, kw_only=True):
    """How far a media playlist is."""

    last_msn: int  # The newest segment, whole or growing; -1 before the first.
    last_part: int  # Index of its newest part, -1 when it has none.
    complete: bool  # Whether `last_msn` is whole.
    part_target_us: int  # 0: parts are not told, and the last segment is whole.
    ended: bool = False


class Wait(Struct, frozen=True):
    """Hold the request until the playlist has that part (or WHOLE) of `msn`, or anything later."""

    msn: int
    part: int


class Reject(Struct, frozen=True):
    """Answer 400 at once."""

    reason: str
