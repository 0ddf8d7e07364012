"""Links over which streams were shed, while they are full: who may not come back over them.

PoPs decide by leases, which heed links, and else by price, which knows none: without a word of IRS
an encoder that was shed, and connects again, would be placed over the very same link. So IRS tells
every PoP which of its ways cross such a link. Of the classes that had to go, and those below, only
what a lease has room for goes there; a higher class goes as ever, and one of these gives way.

A link is open again when it has had room for OPEN_S. Leases fill it before that.
"""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from edged.media.stream import PriorityClass
from edged.policy.flows import LinkLimit
from edged.policy.full_paths import FullPath
from edged.policy.planner import PopDemand
from edged.policy.shedding import UnitSheds

OPEN_S = 10.0  # So long it has room: what a lease lets in again takes less to show.
FULL_S = 30.0  # A PoP believes that a link is full for so long: longer than a take-over.
ROOM_PART = 0.05  # Of its units, and one at least: less is what comes and goes.


class _Full(Struct):
    priority: PriorityClass
    has_room_since: float | None = None


class FullLinks:
    """Of one network."""

    def __init__(self) -> None:
        self._links: dict[str, _Full] = {}  # By name, as limits have it.

    @property
    def names(self) -> dict[str, PriorityClass]:
        """The highest class that was shed of each."""
        return {name: full.priority for name, full in self._links.items()}

    def shed(self, sheds: Iterable[UnitSheds]) -> None:
        """These have to go: their links are full."""
        for each in sheds:
            known = self._links.setdefault(each.link, _Full(each.priority))
            known.priority = min(known.priority, each.priority)
            known.has_room_since = None

    def look(self, limits: Sequence[LinkLimit], pops: Iterable[PopDemand], now: float) -> list[str]:
        """Open what has had room for long enough; returns which. A link without limit is wide."""
        if not self._links:
            return []
        there: dict[tuple[str, str], int] = {}
        for pop in pops:
            for origin, units in pop.units.items():
                there[pop.name, origin] = there.get((pop.name, origin), 0) + sum(units)
        has_room = dict.fromkeys(self._links, True)
        for limit in limits:
            if limit.name in has_room:
                left = limit.units - sum(there.get(pair, 0) for pair in set(limit.pairs))
                has_room[limit.name] = left >= max(1.0, ROOM_PART * limit.units)
        opened = []
        for name, open_now in has_room.items():
            full = self._links[name]
            if not open_now:
                full.has_room_since = None
            elif full.has_room_since is None:
                full.has_room_since = now
            elif now - full.has_room_since >= OPEN_S:
                opened.append(name)
                del self._links[name]
        return opened

    def clear(self) -> None:
        """None is full, as far as this one says."""
        self._links = {}

    def paths(self, limits: Sequence[LinkLimit]) -> Mapping[str, tuple[FullPath, ...]]:
        """Of each PoP that has any, by origin: of two links the one that leaves out more."""
        found: dict[str, dict[str, FullPath]] = {}
        for limit in limits:
            full = self._links.get(limit.name)
            for pop, origin in limit.pairs if full is not None else ():
                assert full is not None, "else there are no pairs"
                known = found.setdefault(pop, {}).get(origin)
                if known is None or full.priority < known.priority:
                    found[pop][origin] = FullPath(origin, full.priority, limit.name)
        return {pop: tuple(of[origin] for origin in sorted(of)) for pop, of in found.items()}
