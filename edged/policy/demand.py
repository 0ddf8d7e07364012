"""What a network is asked for, by slots of five minutes: what forecasts are made of.

The demand of a PoP in a slot is the most units that it had at a time, by class. What found no place
is counted beside it, as nobody knows how long it would have stayed.
"""

from collections.abc import Mapping

from msgspec import Struct

from edged.media.routing import NO_UNITS, ByClass, PopTelemetry

SLOT_S = 300
SLOTS_PER_DAY = 86_400 // SLOT_S


def slot_of(unix: float) -> int:
    """The slot that a time is in, counted from the Unix epoch."""
    return int(unix // SLOT_S)


class DemandRow(Struct, frozen=True, array_like=True):
    """One PoP in one slot."""

    slot: int
    pop: str
    units: ByClass  # The most at a time, of each class.
    unplaced: int  # Units that were refused, in all.


class _Shard(Struct):
    units: ByClass = NO_UNITS
    unplaced: int = 0


class DemandMeter:
    """Takes what PoP shards tell, and gives the rows of each slot that is over."""

    def __init__(self) -> None:
        self._slot = -1
        self._shards: dict[str, _Shard] = {}

    def note(self, shard: str, told: PopTelemetry, unix: float) -> list[DemandRow]:
        """A shard ("lhr/0") tells. A clock that goes back ends no slot again."""
        rows = self.turn(unix)
        known = self._shards.setdefault(shard, _Shard())
        known.units = _most(known.units, _sum(told.units))
        known.unplaced += told.unplaced
        return rows

    def turn(self, unix: float) -> list[DemandRow]:
        """The rows of the slot before, if one has begun since."""
        slot = slot_of(unix)
        if slot <= self._slot:
            return []
        rows = self.flush()
        self._slot = slot
        return rows

    def flush(self) -> list[DemandRow]:
        """The rows of this slot so far; what is told later in it makes rows of their own."""
        before, shards = self._slot, self._shards
        self._shards = {}
        rows: dict[str, DemandRow] = {}
        for shard, known in shards.items():
            pop = shard.partition("/")[0]
            units, unplaced = known.units, known.unplaced
            if (other := rows.get(pop)) is not None:  # Shards of a host peak together.
                units, unplaced = _add(units, other.units), unplaced + other.unplaced
            rows[pop] = DemandRow(before, pop, units, unplaced)
        return [rows[pop] for pop in sorted(rows)]


def _sum(units: Mapping[str, ByClass]) -> ByClass:
    total = NO_UNITS
    for counts in units.values():
        total = _add(total, counts)
    return total


def _most(one: ByClass, other: ByClass) -> ByClass:
    return (max(one[0], other[0]), max(one[1], other[1]), max(one[2], other[2]))


def _add(one: ByClass, other: ByClass) -> ByClass:
    return (one[0] + other[0], one[1] + other[1], one[2] + other[2])
