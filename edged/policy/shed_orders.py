"""What PoPs are ordered to shed, and which streams one then ends.

    plan ─▶ ShedOrder of each PoP: so many of a class at an origin, of so many that IRS knows there
    PoP  ─▶ choose_sheds: the newest of them; never one more, nor what has gone by itself since

An order says how many there are by what IRS knew, so it is as good as "leave so many": what has
left meanwhile counts, and another order made of the same telemetry, by the same IRS or another one,
ends nothing. Orders have rising numbers within an epoch; one that is not newer is not obeyed.

The newest go first: who came last gives way. How many watch, a PoP knows of its own viewers alone,
and one whom thousands watch elsewhere is not to go before one whom two watch here.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec import Struct

from edged.media.routing import NO_UNITS, ByClass
from edged.media.stream import PriorityClass
from edged.policy.planner import PopDemand
from edged.policy.shedding import UnitSheds

Units = Mapping[str, Mapping[str, ByClass]]  # Of each PoP shard, by origin.


class ShedTarget(Struct, frozen=True, array_like=True):
    """So many units of a class at an origin; `there`: of so many, by what IRS was told last."""

    origin: str
    priority: PriorityClass
    units: int
    there: int
    link: str


class ShedOrder(Struct, frozen=True, kw_only=True):
    """Of one PoP shard."""

    pop: str
    targets: tuple[ShedTarget, ...]

    @property
    def units(self) -> int:
        """How many have to go."""
        return sum(target.units for target in self.targets)


class ShedsAsked(Struct, frozen=True, kw_only=True):
    """What PoPs were ordered to shed; `told`: those that could be."""

    epoch: int
    number: int
    targets_max: int
    told: tuple[str, ...]
    digest: bytes  # Of the orders to these, `digest_of_sheds`.

    def remake(self, sheds: Sequence[UnitSheds], pops: Iterable[PopDemand]) -> bytes:
        """The digest as it is now, of these sheds."""
        orders = make_shed_orders(sheds, units_of(pops), targets_max=self.targets_max)
        told = [order for order in orders if order.pop in self.told]
        return digest_of_sheds(told, self.epoch, self.number)


def units_of(pops: Iterable[PopDemand]) -> Units:
    """What is where, as a plan was made of it."""
    return {pop.pop: pop.units for pop in pops}


def make_shed_orders(
    sheds: Sequence[UnitSheds], units: Units, *, targets_max: int
) -> list[ShedOrder]:
    """An order for each PoP. What is beyond `targets_max` stays, and the next plan sees it."""
    by_pop: dict[str, list[ShedTarget]] = {}
    for each in sheds:
        there = units.get(each.pop, {}).get(each.origin, NO_UNITS)[each.priority]
        target = ShedTarget(each.origin, each.priority, each.units, there, each.link)
        by_pop.setdefault(each.pop, []).append(target)
    return [
        ShedOrder(pop=pop, targets=tuple(targets[:targets_max])) for pop, targets in by_pop.items()
    ]


def digest_of_units(sheds: Sequence[UnitSheds]) -> bytes:
    """Of what a plan named."""
    return hashlib.sha256(msgspec.msgpack.encode(sheds)).digest()[:16]


def digest_of_sheds(orders: Sequence[ShedOrder], epoch: int, number: int) -> bytes:
    """What two sets of orders have in common if they are the same, byte for byte."""
    return hashlib.sha256(msgspec.msgpack.encode((epoch, number, orders))).digest()[:16]


class Sheddable(Struct, frozen=True):
    """A live stream at a PoP, as far as it matters for who has to go."""

    channel: str
    origin: str
    priority: PriorityClass
    units: int
    started_at: float
    moves: bool = False  # It is about to leave that origin by itself.


class ShedNumbers:
    """Which orders are new. A PoP obeys each once, whatever comes again."""

    def __init__(self) -> None:
        self._last = (-1, -1)

    def is_new(self, epoch: int, number: int) -> bool:
        """Whether it is newer than all before; then it is the last."""
        if (epoch, number) <= self._last:
            return False
        self._last = (epoch, number)
        return True


def choose_sheds(streams: Iterable[Sheddable], target: ShedTarget, *, have: int) -> list[Sheddable]:
    """Which streams end, of all that are live, the newest first.

    `have`: units of that class that this PoP has at that origin now, counted as IRS was told them.
    Together they never have more units than are to go, nor than are too many.
    """
    left = min(target.units, have - (target.there - target.units))
    found = [
        stream
        for stream in streams
        if (stream.origin, stream.priority) == (target.origin, target.priority)
    ]
    found.sort(key=lambda stream: (stream.moves, -stream.started_at, stream.channel))
    chosen = []
    for stream in found:
        if 0 < stream.units <= left:
            chosen.append(stream)
            left -= stream.units
    return chosen
