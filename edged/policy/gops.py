"""How far apart a rendition's random access units are, as far as known."""

from msgspec import Struct

from edged.media.access_unit import AccessUnit

ALIKE_DEN = 500  # 4 ms of 2 s: rounding, and no picture more or less.


def are_alike(one: int, other: int) -> bool:
    """Whether two lengths in ticks are the same but for rounding."""
    return abs(one - other) * ALIKE_DEN <= max(one, other)


class Gops(Struct, array_like=True):
    """What has been seen of one rendition; all in ticks of its timescale. Plain data."""

    last_dts: int | None = None  # Of the last random access on this timeline.
    ticks: int = 0  # The last whole GOP; 0 before the first.
    shift: int = 0  # From dts to pts at random access.
    is_steady: bool = True  # The last one was as long as the one before it.

    def note(self, unit: AccessUnit) -> None:
        """A unit with random access has come."""
        last = self.last_dts
        if last is not None and unit.dts > last:
            ticks = unit.dts - last
            self.is_steady = self.ticks == 0 or are_alike(ticks, self.ticks)
            self.ticks = ticks
        self.last_dts = unit.dts
        self.shift = unit.pts - unit.dts

    def forget(self) -> None:
        """What follows is on another timeline."""
        self.last_dts = None

    def next_from(self, dts: int) -> int | None:
        """The first random access at or after `dts`, if they go on as they do."""
        last, ticks = self.last_dts, self.ticks
        if last is None or ticks <= 0:
            return None
        return last + max(-(-(dts - last) // ticks), 0) * ticks
