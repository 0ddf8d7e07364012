"""What a network is asked for, by quarters of an hour: what forecasts are made of.

A PoP's demand is how many units it has, sampled while all of its shards tell. A row is the sum of a
slot's samples, so the parts of a slot that a restart divides add up, and what a clock that goes
back counts twice has the same mean. What nobody told is not known: it has no row, and is never 0.
"""

from msgspec import Struct

from edged.media.routing import PopTelemetry

SLOT_S = 900
SLOTS_PER_DAY = 86_400 // SLOT_S
SAMPLE_S = 10.0
SAMPLES_PER_SLOT = int(SLOT_S / SAMPLE_S)
FRESH_S = 5.0  # A shard tells once a second; one that has not for so long may have anything.
FORGET_S = 60.0  # A shard that is silent for so long is none of its PoP any more.
SHARDS_MAX = 1024  # Twice as many as IRS lets in; beyond it the longest silent is forgotten.


def slot_of(unix: float) -> int:
    """The slot that a time is in, counted from the Unix epoch."""
    return int(unix // SLOT_S)


class DemandRow(Struct, frozen=True, array_like=True):
    """One PoP in one slot; all but `slot` and `pop` are sums.

    `units`: of the samples, partner, affiliate, basic. `mbps`: of the samples, on the backbone, to
    origins and from them. `unplaced`: units that found no origin; whoever tries again is one more.
    """

    slot: int
    pop: str
    samples: int
    units: tuple[int, int, int]
    mbps: tuple[float, float] = (0.0, 0.0)
    unplaced: int = 0

    def plus(self, other: "DemandRow") -> "DemandRow":
        """Both together, of the same slot and PoP."""
        return DemandRow(
            slot=self.slot,
            pop=self.pop,
            samples=self.samples + other.samples,
            units=(
                self.units[0] + other.units[0],
                self.units[1] + other.units[1],
                self.units[2] + other.units[2],
            ),
            mbps=(self.mbps[0] + other.mbps[0], self.mbps[1] + other.mbps[1]),
            unplaced=self.unplaced + other.unplaced,
        )


class _Sum:
    """Of one PoP in this slot."""

    __slots__ = ("mbps", "samples", "units", "unplaced")

    def __init__(self) -> None:
        self.samples = self.unplaced = 0
        self.units = [0, 0, 0]
        self.mbps = [0.0, 0.0]


class DemandMeter:
    """Takes what PoP shards tell, and gives the rows of each slot that is over."""

    def __init__(self, unix: float) -> None:
        self.lost = 0  # Samples and refusals of PoPs that are one more than SHARDS_MAX in a slot.
        self._slot = slot_of(unix)
        self._shards: dict[str, tuple[float, PopTelemetry]] = {}  # And when they told.
        self._sums: dict[str, _Sum] = {}

    def note(self, shard: str, told: PopTelemetry, now: float) -> None:
        """A shard ("lhr/0") tells; `now` is monotonic."""
        if shard not in self._shards and len(self._shards) >= SHARDS_MAX:
            del self._shards[min(self._shards, key=lambda key: self._shards[key][0])]
        self._shards[shard] = (now, told)
        if told.unplaced and (of_pop := self._sum(_pop_of(shard))) is not None:
            of_pop.unplaced += told.unplaced

    def sample(self, now: float, unix: float) -> list[DemandRow]:
        """Count what is there; the rows of the slot before, if this is another one.

        To be called each SAMPLE_S. Whichever way the clock went, a slot is told as it is left, and
        one that comes again begins anew.
        """
        rows: list[DemandRow] = []
        if (slot := slot_of(unix)) != self._slot:
            rows, self._slot = self.flush(), slot
        pops: dict[str, list[tuple[float, PopTelemetry]]] = {}
        for shard, known in list(self._shards.items()):
            if now - known[0] > FORGET_S:
                del self._shards[shard]
            else:
                pops.setdefault(_pop_of(shard), []).append(known)
        for pop, shards in pops.items():
            if all(now - at <= FRESH_S for at, _ in shards):
                self._count(pop, [told for _, told in shards])
        return rows

    def flush(self) -> list[DemandRow]:
        """The rows of this slot so far; what comes later in it makes rows of their own."""
        sums, self._sums = self._sums, {}
        return [
            DemandRow(
                slot=self._slot,
                pop=pop,
                samples=each.samples,
                units=(each.units[0], each.units[1], each.units[2]),
                mbps=(each.mbps[0], each.mbps[1]),
                unplaced=each.unplaced,
            )
            for pop, each in sorted(sums.items())
        ]

    def _count(self, pop: str, shards: list[PopTelemetry]) -> None:
        if (of_pop := self._sum(pop)) is None:
            return
        of_pop.samples += 1
        for told in shards:
            for counts in told.units.values():
                for k, units in enumerate(counts):
                    of_pop.units[k] += units
            for both in told.mbps.values():
                of_pop.mbps[0] += both[0]
                of_pop.mbps[1] += both[1]

    def _sum(self, pop: str) -> _Sum | None:
        if pop not in self._sums:
            if len(self._sums) >= SHARDS_MAX:
                self.lost += 1
                return None
            self._sums[pop] = _Sum()
        return self._sums[pop]


def _pop_of(shard: str) -> str:
    return shard.partition("/")[0]
