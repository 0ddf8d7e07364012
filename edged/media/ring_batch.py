"""What a reader of a ring gets at a time."""

from msgspec import Struct

from edged.media.access_unit import AccessUnit


class RingBatch(Struct, frozen=True):
    """What a reader gets: consecutive units, and how many were jumped over just before them."""

    units: list[AccessUnit]
    skipped: int = 0  # Since the last read; also when `units` is empty.
