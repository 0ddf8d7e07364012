"""Who may be moved where: the streams of a PoP shard in rows, by the origins that they may go to.

    free         what no rule binds                           anywhere
    bound        of those whom a rule binds alike             to its origins; to the first of them
    fixed        those who are where alone they may be, or    nowhere
                 whose group a move would part

A row of the migration program is one of these of one shard, so no move is planned that the PoP's
rules forbid, nor more of one than there are streams that they allow it. Of what a rule wants first
the rest is as far as behind a full origin: nothing is moved there only to come nearer, and what is
there comes back.
"""

import math
from collections.abc import Iterable, Sequence

from msgspec import Struct

from edged.media.routing import CLASSES, NO_UNITS, ByClass
from edged.policy.flows import RTT_MS_MAX, RTT_UNKNOWN_MS
from edged.policy.move_refusals import RefusedMove, targets_refused
from edged.policy.planner import PopDemand
from edged.policy.pop_needs import LAST_RESORT_MS, PARTS_MAX, BoundDemand


class MoveRow(Struct, frozen=True, kw_only=True):
    """Streams of a shard that may go to the same origins."""

    label: str
    shard: str
    placed: Sequence[ByClass]  # By origin.
    allowed: frozenset[str] | None  # None: all.
    first: frozenset[str] | None = None  # Those that a rule wants; None: all alike.

    def rtt_ms(self, origins: Sequence[str], measured: Sequence[float]) -> list[float]:
        """Milliseconds to each origin, as they weigh for these streams."""
        if self.first is None:
            return list(measured)
        return [
            rtt
            if origin in self.first
            else min(RTT_MS_MAX, (rtt if math.isfinite(rtt) else RTT_UNKNOWN_MS) + LAST_RESORT_MS)
            for origin, rtt in zip(origins, measured, strict=True)
        ]


_Key = tuple[tuple[str, ...] | None, tuple[str, ...]]  # First, allowed.
_Units = list[list[int]]  # By origin, class.


def find_rows(
    pops: Iterable[PopDemand],
    origins: Sequence[str],
    open_: frozenset[str],
    refused: Iterable[RefusedMove] = (),
    *,
    most: int = PARTS_MAX,
) -> list[MoveRow]:
    """Of each shard what is free; what is bound, at most so many in all; and what is fixed.

    `open_`: the origins where streams may go. What is beyond `most`, the least, is fixed.
    """
    targets = targets_refused(refused)
    shards = []
    for pop in pops:
        shard = _Shard(pop, origins, open_)
        for origin in pop.units if targets else ():
            for class_, closed in targets.get((pop.pop, origin), {}).items():
                shard.close(origin, class_, closed)
        shards.append(shard)
    bound = [(shard.weight(key), shard.pop, key) for shard in shards for key in shard.bound]
    if len(bound) > most:
        bound.sort(key=lambda each: (-each[0], each[1], _order(each[2])))
        kept = {each[1:] for each in bound[:most]}
        for shard in shards:
            for key in [each for each in shard.bound if (shard.pop, each) not in kept]:
                shard.fix(key)
    return [row for shard in shards for row in shard.rows()]


class _Shard:
    """One, while its streams are told apart."""

    def __init__(self, pop: PopDemand, origins: Sequence[str], open_: frozenset[str]) -> None:
        self.pop = pop.pop
        self._places = {name: place for place, name in enumerate(origins)}
        self._open = open_
        self._free = [list(pop.units.get(name, NO_UNITS)) for name in origins]
        self._fixed: _Units = []
        self.bound: dict[_Key, _Units] = {}
        for bound in pop.bound:
            self._bind(bound)

    def weight(self, key: _Key) -> int:
        """How many units."""
        return sum(map(sum, self.bound[key]))

    def fix(self, key: _Key) -> None:
        """Leave these where they are."""
        for place, units in enumerate(self.bound.pop(key)):
            for k, count in enumerate(units):
                self._fix(place, k, count)

    def close(self, origin: str, class_: str, targets: frozenset[str]) -> None:
        """Let nothing go from there to these; `class_` "": of no class."""
        place = self._places.get(origin)
        if place is None or not targets & self._open:
            return
        classes = [k for k, each in enumerate(CLASSES) if class_ in {"", each.label}]
        everywhere: _Key = (None, tuple(sorted(self._open)))
        for key, units in [(everywhere, self._free), *self.bound.items()]:
            allowed = frozenset(key[1]) - targets
            for k in classes if len(allowed) < len(key[1]) else ():
                self._add((key[0], tuple(sorted(allowed))), place, k, units[place][k])
                units[place][k] = 0
        self.bound = {key: units for key, units in self.bound.items() if any(map(any, units))}

    def rows(self) -> list[MoveRow]:
        """Their names tell them apart."""
        rows = [MoveRow(label=self.pop, shard=self.pop, placed=_by_class(self._free), allowed=None)]
        for key, units in sorted(self.bound.items(), key=lambda each: _order(each[0])):
            first, allowed = key
            wants = "" if first is None else f", first {','.join(first) or 'nowhere'}"
            rows.append(
                MoveRow(
                    label=f"{self.pop} to {','.join(allowed)}{wants}",
                    shard=self.pop,
                    placed=_by_class(units),
                    allowed=frozenset(allowed),
                    first=None if first is None else frozenset(first),
                )
            )
        if self._fixed:
            rows.append(
                MoveRow(
                    label=f"{self.pop} to nowhere",
                    shard=self.pop,
                    placed=_by_class(self._fixed),
                    allowed=frozenset(),
                )
            )
        return rows

    def _bind(self, bound: BoundDemand) -> None:
        first = frozenset(bound.first) & self._places.keys()
        allowed = first | (frozenset(bound.then) & self._places.keys())
        wants = None if len(first) == len(self._places) else tuple(sorted(first))
        of_all = (wants, tuple(sorted(allowed & self._open)))
        of_first = (wants, tuple(sorted(first & self._open)))
        nothing: ByClass = NO_UNITS
        for origin, counts in bound.units.items():
            place = self._places.get(origin)
            if place is None:
                continue
            firm, fixed = bound.firm.get(origin, nothing), bound.fixed.get(origin, nothing)
            for k, count in enumerate(counts):
                count = min(count, self._free[place][k])  # noqa: PLW2901 - not there: not bound
                stay = min(count, fixed[k])
                near = min(count - stay, firm[k])
                self._free[place][k] -= count
                self._fix(place, k, stay)
                self._add(of_first, place, k, near)
                self._add(of_all, place, k, count - stay - near)

    def _add(self, key: _Key, place: int, k: int, count: int) -> None:
        origins = {name for name in key[1] if self._places[name] != place}
        if not count:
            return
        if not origins:
            self._fix(place, k, count)
        elif key[0] is None and len(key[1]) == len(self._open):
            self._free[place][k] += count
        else:
            self.bound.setdefault(key, _nothing(len(self._places)))[place][k] += count

    def _fix(self, place: int, k: int, count: int) -> None:
        if count:
            self._fixed = self._fixed or _nothing(len(self._places))
            self._fixed[place][k] += count


def _order(key: _Key) -> tuple[bool, tuple[str, ...], tuple[str, ...]]:
    first, allowed = key
    return first is not None, first or (), allowed


def _nothing(places: int) -> _Units:
    return [[0] * len(CLASSES) for _ in range(places)]


def _by_class(units: _Units) -> list[ByClass]:
    return [(of[0], of[1], of[2]) for of in units]
