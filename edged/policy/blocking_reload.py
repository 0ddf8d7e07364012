"""Delivery directives: what to do with `_HLS_msn` and `_HLS_part` (RFC 8216bis §6.2.5).

The edge answers at once, waits for a segment or a part, or rejects. A wait is for `(msn, part)`;
`part` WHOLE means the whole segment. Waits compare as pairs, because a part that a segment turns
out not to have is part 0 of the next one, which comes after all the parts of this one.
"""

from typing import Final

from edged.errors import RemoteProtocolError
from edged.policy.delivery_directives import (
    WHOLE,
    PlaylistEdge,
    Reject,
    ReloadDirectives,
    Wait,
)

MSN_ADVANCE_MAX: Final = 2  # Beyond the last segment: "SHOULD immediately return Bad Request".
# Parts beyond the last one: this many seconds of parts, at least ADVANCE_PARTS_MIN.
ADVANCE_S: Final = 3
ADVANCE_PARTS_MIN: Final = 3
BLOCK_TARGETS_MAX = 3  # x target duration: a longer block ends with 503.
DIGITS_MAX: Final = 20  # A decimal-integer is below 2^64 (RFC 8216bis §4.2).
SKIP_VALUES: Final = ("YES", "v2")  # The second leaves out date ranges, too; we have none.
SECOND_US: Final = 1_000_000


NO_DIRECTIVES: Final = ReloadDirectives()


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
    if is_too_far(ahead, edge.part_target_us):
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


def is_too_far(ahead: int, part_target_us: int) -> bool:
    """Whether a part is so many past the last one, beyond the Advance Part Limit."""
    if part_target_us >= SECOND_US:
        return ahead > ADVANCE_PARTS_MIN
    return ahead * part_target_us > ADVANCE_S * SECOND_US


def _number(name: str, value: str, earlier: int | None) -> int:
    if earlier is not None:
        raise RemoteProtocolError(f"{name} is given twice")
    if not value.isascii() or not value.isdigit() or len(value) > DIGITS_MAX:
        raise RemoteProtocolError(f"{name} is not a decimal integer: {value[:40]!r}")
    return int(value)
