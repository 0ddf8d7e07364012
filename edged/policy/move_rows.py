"""Who may be moved where: the streams of a PoP shard in rows, by the origins that they may go to.

    free         what no rule binds                           anywhere
    bound        of those whom a rule binds alike             to its origins; to the first of them
    fixed        those who are where alone they may be, or    nowhere
                 whose group a move would part

A row of the migration program is one of these of one shard, so no move is planned that the PoP's
rules forbid, nor more of one than there are streams that they allow it. What a rule puts behind is
as far as a full origin for who would move there: nobody does only to come nearer. Rules themselves
move nothing: where a stream is it may stay.
"""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from edged.media.routing import CLASSES, NO_UNITS, ByClass
from edged.policy.move_refusals import RefusedMove, targets_refused
from edged.policy.planner import PopDemand
from edged.policy.pop_needs import PARTS_MAX, BoundDemand


class MoveRow(Struct, frozen=True, kw_only=True):
    """Streams of a shard that may go to the same origins."""

    label: str
    shard: str
    placed: Sequence[ByClass]  # By origin.
    allowed: frozenset[str] | None  # None: all.
    behind: frozenset[str] = frozenset()  # Of these, those that a rule puts behind others.


_Key = tuple[tuple[str, ...], tuple[str, ...]]  # Allowed, behind.
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
        bound.sort(key=lambda each: (-each[0], *each[1:]))
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
        everywhere: _Key = (tuple(sorted(self._open)), ())
        for key, units in [(everywhere, self._free), *self.bound.items()]:
            if targets.isdisjoint(key[0]):
                continue
            allowed, behind = (tuple(name for name in of if name not in targets) for of in key)
            for k in classes:
                self._add((allowed, behind), place, k, units[place][k])
                units[place][k] = 0
        self.bound = {key: units for key, units in self.bound.items() if any(map(any, units))}

    def rows(self) -> list[MoveRow]:
        """Their names tell them apart."""
        rows = [MoveRow(label=self.pop, shard=self.pop, placed=_by_class(self._free), allowed=None)]
        for (allowed, behind), units in sorted(self.bound.items()):
            last = f", last to {','.join(behind)}" if behind else ""
            rows.append(
                MoveRow(
                    label=f"{self.pop} to {','.join(allowed)}{last}",
                    shard=self.pop,
                    placed=_by_class(units),
                    allowed=frozenset(allowed),
                    behind=frozenset(behind),
                )
            )
        if self._fixed:
            rows.append(
                MoveRow(
                    label=f"{self.pop} that stay",  # No origin is called so.
                    shard=self.pop,
                    placed=_by_class(self._fixed),
                    allowed=frozenset(),
                )
            )
        return rows

    def _bind(self, bound: BoundDemand) -> None:
        first = tuple(sorted(self._open.intersection(bound.first)))
        behind = tuple(sorted(self._open.intersection(bound.then)))
        of_first: _Key = (first, ())
        of_all: _Key = (tuple(sorted((*first, *behind))), behind)
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
        if not count:
            return
        if not any(self._places[name] != place for name in key[0]):
            self._fix(place, k, count)
        elif len(key[0]) == len(self._open) and not key[1]:
            self._free[place][k] += count
        else:
            self.bound.setdefault(key, _nothing(len(self._places)))[place][k] += count

    def _fix(self, place: int, k: int, count: int) -> None:
        if count:
            self._fixed = self._fixed or _nothing(len(self._places))
            self._fixed[place][k] += count


def _nothing(places: int) -> _Units:
    return [[0] * len(CLASSES) for _ in range(places)]


def _by_class(units: _Units) -> list[ByClass]:
    return [(of[0], of[1], of[2]) for of in units]
