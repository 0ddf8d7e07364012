"""The compute that an origin has for ladders: who gets it, who waits, and who has to give it back.

A slot is what a plan's cost counts (`edged.media.ladder`): a megapixel per second of x264 at preset
`veryfast`. A ladder holds as many as its plan costs, the rungs that are shed included: they are to
come back, and what they have been shed for is that there is too little.

    ask ──▶ waiting ──granted──▶ holding ──give_back──▶ gone
               ▲                    │
               └─────preempted──────┘

Classes are seen to in their order, and within a class who came first. The first of a class that
waits gets what is free; if that is too little, ladders of lower classes are preempted for it, the
newest of the lowest class first, and none that is not needed. If even that is too little it waits,
and nobody of its class passes it; lower classes may have meanwhile what it has no use for. Who is
preempted keeps its place in the queue, and comes back when its cost fits into what is free or what
lower classes hold. So, after each call, the first who waits of a class would not fit if all lower
classes held nothing. What costs more than there is in all waits for nothing, in nobody's way.
"""

import math
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from msgspec import Struct

from edged.media.ladder import LadderPlan
from edged.media.routing import CLASSES, ByClass
from edged.media.stream import PriorityClass

AUDIO_SLOTS = 1  # Of sound alone; beside a picture it is next to nothing.
USUAL_WEIGHT = 4  # Ladders by which the first ones do not yet say what is usual.

Key = TypeVar("Key", bound=Hashable)


class Granted(Struct, Generic[Key], frozen=True, kw_only=True):
    """A ladder may be made."""

    key: Key
    cost: int


class Preempted(Struct, Generic[Key], frozen=True, kw_only=True):
    """A ladder has to give way, to one of a higher class or to its own growth; it waits again."""

    key: Key
    by: Key  # Itself: it costs more now than is free.
    cost: int


class Waiting(Struct, Generic[Key], frozen=True, kw_only=True):
    """A ladder has asked, and has to wait."""

    key: Key
    before: int
    reason: str


Change = Granted[Key] | Preempted[Key] | Waiting[Key]


class Standing(Struct, Generic[Key], frozen=True, kw_only=True):
    """How a ladder stands with the slots."""

    cost: int
    holds: bool
    before: int  # Who would come first, of those that wait.
    preempted_by: Key | None  # Since when it waits again; itself: it had grown.
    is_too_large: bool  # It costs more than there is in all.


class SlotCounts(Struct, frozen=True, kw_only=True):
    """How the slots are used."""

    total: int
    used: int
    holding: int  # Ladders.
    waiting: int  # The preempted included.
    preempted: int  # Of those that wait.
    preemptions: int  # Since the start.


class _Claim(Struct, Generic[Key]):
    """One ladder."""

    key: Key
    priority: PriorityClass
    cost: int
    arrival: int
    holds: bool = False
    preempted_by: Key | None = None


def slots_of(plan: LadderPlan) -> int:
    """What a plan costs, in whole slots; 0 if there is nothing to make."""
    return max(math.ceil(plan.cost), AUDIO_SLOTS if plan.audio else 0)


class LadderSlots(Generic[Key]):
    """Grants slots to ladders. Each call returns what has changed, in order."""

    def __init__(self, total: int) -> None:
        assert total >= 0, "there is no less than nothing"
        self.total = total
        self.preemptions = 0
        self._claims: dict[Key, _Claim[Key]] = {}  # By arrival.
        self._arrivals = 0

    @property
    def used(self) -> int:
        """Slots that are held."""
        return sum(claim.cost for claim in self._claims.values() if claim.holds)

    @property
    def free(self) -> int:
        """Slots that nobody holds."""
        return self.total - self.used

    def free_by_class(self) -> ByClass:
        """What a new ladder of each class could have: what is free, and what lower classes hold.

        Nothing where others of its class wait: it would come after them.
        """
        by = [0 if any(self._queue(each)) else self._reach(each) for each in CLASSES]
        return (by[0], by[1], by[2])

    def usual_cost(self, expected: int) -> int:
        """What a ladder costs here: as those that there are, and a few of the expected cost."""
        costs = [each.cost for each in self._claims.values() if each.cost <= self.total]
        mean = (USUAL_WEIGHT * expected + sum(costs)) / (USUAL_WEIGHT + len(costs))
        return max(1, min(math.ceil(mean), self.total))

    def counts(self) -> SlotCounts:
        """How the slots are used."""
        waiting = [claim for claim in self._claims.values() if not claim.holds]
        return SlotCounts(
            total=self.total,
            used=self.used,
            holding=len(self._claims) - len(waiting),
            waiting=len(waiting),
            preempted=sum(claim.preempted_by is not None for claim in waiting),
            preemptions=self.preemptions,
        )

    def standing(self, key: Key) -> Standing[Key] | None:
        """How a ladder stands; None if it has not asked."""
        claim = self._claims.get(key)
        if claim is None:
            return None
        return Standing(
            cost=claim.cost,
            holds=claim.holds,
            before=0 if claim.holds else self._before(claim),
            preempted_by=claim.preempted_by,
            is_too_large=claim.cost > self.total,
        )

    def ask(self, key: Key, priority: PriorityClass, cost: int) -> list[Change[Key]]:
        """A ladder wants to be made, or costs something else now; it keeps its place."""
        assert cost > 0, "a ladder that makes nothing asks for nothing"
        claim = self._claims.get(key)
        if claim is None:
            claim = self._claims[key] = _Claim(key, priority, cost, self._arrivals)
            self._arrivals += 1
            is_news = True
        else:
            is_news, claim.cost = claim.cost != cost and not claim.holds, cost
        changes = self._settle_growth(claim) + self._settle()
        if is_news and not claim.holds:
            changes.append(
                Waiting(key=key, before=self._before(claim), reason=self._why_waits(claim))
            )
        return changes

    def give_back(self, key: Key) -> list[Change[Key]]:
        """A ladder is over: what it held is free at once."""
        return [] if self._claims.pop(key, None) is None else self._settle()

    def resize(self, total: int) -> list[Change[Key]]:
        """There are more slots or fewer; who has no room any more is preempted."""
        assert total >= 0, "there is no less than nothing"
        self.total = total
        changes: list[Change[Key]] = []
        for claim in self._least_first():
            if self.free >= 0:
                break
            changes.append(self._preempt(claim, claim.key))
        return _without_returns(changes + self._settle())

    def _settle_growth(self, claim: _Claim[Key]) -> list[Change[Key]]:
        """If a ladder has outgrown what it holds, it asks like everyone."""
        if not claim.holds or self.free >= 0:
            return []
        claim.holds = False
        changes = self._settle()
        if claim.holds:  # Others gave way.
            return [change for change in changes if change.key != claim.key]
        claim.preempted_by = claim.key
        self.preemptions += 1
        return [Preempted(key=claim.key, by=claim.key, cost=claim.cost), *changes]

    def _settle(self) -> list[Change[Key]]:
        """Grant what can be granted; one look at each class is enough, as only lower ones lose."""
        changes: list[Change[Key]] = []
        for priority in CLASSES:
            for claim in list(self._queue(priority)):
                if claim.cost > self._reach(priority):
                    break
                victims = self._choose_victims(claim)
                changes += [self._preempt(victim, claim.key) for victim in victims]
                claim.holds, claim.preempted_by = True, None
                changes.append(Granted(key=claim.key, cost=claim.cost))
        return changes

    def _choose_victims(self, claim: _Claim[Key]) -> list[_Claim[Key]]:
        """Who gives way: as few as will do, the newest of the lowest class first."""
        missing = claim.cost - self.free
        victims: list[_Claim[Key]] = []
        for other in self._least_first():
            if missing <= 0:
                break
            assert other.priority > claim.priority, "it fits by what lower classes hold"
            victims.append(other)
            missing -= other.cost
        for victim in reversed(victims.copy()):  # Whose room is not needed after all is spared.
            if missing + victim.cost <= 0:
                victims.remove(victim)
                missing += victim.cost
        return victims

    def _preempt(self, claim: _Claim[Key], by: Key) -> Preempted[Key]:
        claim.holds, claim.preempted_by = False, by
        self.preemptions += 1
        return Preempted(key=claim.key, by=by, cost=claim.cost)

    def _queue(self, priority: PriorityClass) -> Iterator[_Claim[Key]]:
        """Those of a class that wait for something, the first first."""
        for claim in self._claims.values():
            if claim.priority is priority and not claim.holds and claim.cost <= self.total:
                yield claim

    def _least_first(self) -> list[_Claim[Key]]:
        """Those that hold slots, the newest of the lowest class first."""
        holding = [claim for claim in self._claims.values() if claim.holds]
        return sorted(holding, key=lambda claim: (claim.priority, claim.arrival), reverse=True)

    def _reach(self, priority: PriorityClass) -> int:
        """What a class could have."""
        claims = self._claims.values()
        higher = (c.cost for c in claims if c.holds and c.priority <= priority)
        return max(0, self.total - sum(higher))

    def _before(self, claim: _Claim[Key]) -> int:
        """How many of those that wait are seen to first."""
        mine = (claim.priority, claim.arrival)
        return sum(
            not other.holds and other.cost <= self.total and (other.priority, other.arrival) < mine
            for other in self._claims.values()
        )

    def _why_waits(self, claim: _Claim[Key]) -> str:
        if claim.cost > self.total:
            return f"it needs {claim.cost} slots of {self.total} in all"
        reach = self._reach(claim.priority)
        if claim.cost <= reach:
            return f"others of class {claim.priority.label} came before it"
        return (
            f"it needs {claim.cost} slots of {self.total};"
            f" class {claim.priority.label} could have {reach}"
        )


def _without_returns(changes: list[Change[Key]]) -> list[Change[Key]]:
    """What is preempted and granted again in one step has not changed."""
    lost = {change.key for change in changes if isinstance(change, Preempted)}
    back = {change.key for change in changes if isinstance(change, Granted)}
    return [change for change in changes if change.key not in lost & back]
