"""Where segments end."""

from msgspec import Struct


class Boundary(Struct, frozen=True, kw_only=True):
    """The end of a segment for all renditions, as a presentation time."""

    pts: int
    timescale: int
    segment_us: int  # How long the segment is where it was decided.
    discontinuity: bool = False
    jumped: bool = False  # The timeline goes on elsewhere: times on its two sides do not compare.
    offset_s: int = 0  # Added to all times after it.
