"""How far back there is room for: the newest of what comes by number."""

from collections.abc import Mapping


def first_within(
    sizes: Mapping[int, int], counts: Mapping[int, int], bytes_max: int, count_max: int
) -> int:
    """The number from which on all are no more than that, in bytes and pieces; else the newest.

    `sizes` and `counts` are by number; 0 where there is none.
    """
    first = max(sizes, default=0)
    for number in sorted(sizes, reverse=True):
        bytes_max -= sizes[number]
        count_max -= counts[number]
        if bytes_max < 0 or count_max < 0:
            break
        first = number
    return first
