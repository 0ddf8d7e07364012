"""Delivery directives: what to do with `_HLS_msn` and `_HLS_part` (RFC 8216bis §6.2.5).

The edge answers at once, waits for a segment or a part, or rejects. A wait is for `(msn, part)`;
`part` WHOLE means the whole segment. Waits compare as pairs, because a part that a segment turns
out not to have is part 0 of the next one, which comes after all the parts of this one.
"""

from fractions import Fraction

from msgspec import Struct

from edged.errors import RemoteProtocolError

MSN_ADVANCE_MAX = 2  # Beyond the last segment: "SHOULD immediately return Bad Request".
ADVANCE_S = 3  # Parts beyond the last one: this many seconds of parts, at least ADVANCE_PARTS_MIN.
ADVANCE_PARTS_MIN = 3
BLOCK_TARGETS_MAX = 3  # x target duration: a longer block ends with 503.
DIGITS_MAX = 20  # A decimal-integer is below 2^64 (RFC 8216bis §4.2).
SKIP_VALUES = ("YES", "v2")  # The second leaves out date ranges, too; we have none.
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


NO_DIRECTIVES = ReloadDirectives()


def parse_directives(query: str) -> ReloadDirectives:
    """Read the delivery directives of a query; raises `RemoteProtocolError` for malformed ones.

    Other `_HLS_` parameters are reserved (§6.2.5) and ignored, as are all others.
    """
    if "_HLS_" not in query:
        return NO_DIRECTIVES
    msn = part = None
    skip = False
    for parameter in query.split("&"):
        name, _, value = parameter.partition("=")
        if name == "_HLS_msn":
            msn = _number(name, value, msn)
        elif name == "_HLS_part":
            part = _number(name, value, part)
        elif name == "_HLS_skip":
            skip = value in SKIP_VALUES
    if part is not None and msn is None:
        raise RemoteProtocolError("_HLS_part needs _HLS_msn")
    return ReloadDirectives(msn, part, skip)


def choose_answer(directives: ReloadDirectives, edge: PlaylistEdge) -> Wait | Reject | None:
    """Wait, reject, or None: answer now with the whole playlist.

    A playlist that has no segment yet can't tell what is too far ahead, so the caller waits for its
    first segment before asking.
    """
    msn, part = directives.msn, directives.part
    if msn is None or edge.ended or msn < edge.last_msn:
        return None  # An old segment is answered with the entire playlist, listed or not.
    last_whole = edge.last_msn if edge.complete else edge.last_msn - 1
    if msn > last_whole + MSN_ADVANCE_MAX:
        return Reject(f"_HLS_msn {msn} is more than {MSN_ADVANCE_MAX} past segment {last_whole}")
    if part is not None and not edge.part_target_us:
        # Where no segment has parts, each part is past the last one of its own (§6.2.5.2).
        return Wait(msn + 1, WHOLE) if msn <= last_whole else Wait(msn, WHOLE)
    if part is None:
        return None if msn <= last_whole else Wait(msn, WHOLE)
    # Parts between here and there: of a segment not begun yet, part N is at least N + 1 away.
    ahead = part - edge.last_part if msn == edge.last_msn else part + 1
    if ahead > advance_part_limit(edge.part_target_us):
        return Reject(f"_HLS_part {part} of segment {msn} is too far past part {edge.last_part}")
    # Past the last part of a whole segment is part 0 of the next.
    wait = Wait(msn + 1, 0) if msn == last_whole else Wait(msn, part)
    return None if msn == edge.last_msn and ahead <= 0 else wait


def is_reached(wait: Wait, edge: PlaylistEdge) -> bool:
    """Whether the playlist has what the request waits for, or something later, or ended."""
    if edge.ended:
        return True
    if wait.part == WHOLE and edge.complete:
        return edge.last_msn >= wait.msn
    return (edge.last_msn, edge.last_part) >= (wait.msn, wait.part)


def advance_part_limit(part_target_us: int) -> Fraction:
    """The Advance Part Limit: how many parts past the last one may be asked for."""
    if part_target_us >= 1_000_000:  # noqa: PLR2004 - one second
        return Fraction(ADVANCE_PARTS_MIN)
    return Fraction(ADVANCE_S * 1_000_000, part_target_us)


def _number(name: str, value: str, earlier: int | None) -> int:
    if earlier is not None:
        raise RemoteProtocolError(f"{name} is given twice")
    if not value.isascii() or not value.isdigit() or len(value) > DIGITS_MAX:
        raise RemoteProtocolError(f"{name} is not a decimal integer: {value[:40]!r}")
    return int(value)
