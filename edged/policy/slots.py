"""Compute slots of an origin: what it admits, by class. The origin has the final word.

A stream costs one slot. `reserve` slots are kept for partners, so that the last ones are not gone
when they come; what is free for a class says so in every heartbeat.

When none is free a PoP may have asked for more: `source_only` streams are taken beyond the slots,
without a ladder, and get a slot, the first of the highest class first, when one is free; or a
stream of a lower class gives way, the newest of the lowest first.
"""

from msgspec import Struct

from edged.errors import PublishRefusedError
from edged.media.routing import CLASSES, PLAIN_TERMS, ByClass, Terms
from edged.media.stream import PriorityClass, StreamId


class _Held(Struct):
    """One stream that was admitted."""

    stream_id: StreamId
    priority: PriorityClass
    may_reserve: bool  # It may use what is kept for partners.
    arrival: int

    @property
    def rank(self) -> tuple[int, int]:
        return (self.priority, self.arrival)


class Slots:
    """Who holds a slot."""

    def __init__(self, total: int, reserve: int, source_only: int = 0) -> None:
        assert 0 <= reserve <= total, "the reserve is part of the total"
        self.total = total
        self.reserve = reserve
        self.source_only = source_only  # Streams beyond the slots, at most.
        self._held: dict[str, _Held] = {}
        self._beyond: dict[str, _Held] = {}  # Without a slot.
        self._arrivals = 0
        self.preempted_total = 0

    @property
    def used(self) -> int:
        """Slots that are held."""
        return len(self._held)

    @property
    def used_beyond(self) -> int:
        """Streams without a slot."""
        return len(self._beyond)

    @property
    def source_only_free(self) -> int:
        """How many more streams would be taken beyond the slots."""
        return max(0, self.source_only - len(self._beyond))

    def free(self, priority: PriorityClass, *, may_reserve: bool = False) -> int:
        """How many more streams of a class would be admitted."""
        left = max(0, self.total - len(self._held))
        if may_reserve or priority is PriorityClass.PARTNER:
            return left
        return max(0, left - self.reserve)

    def preemptible(self) -> ByClass:
        """How many streams would give way to one of each class."""
        counts = [0] * len(CLASSES)
        for held in self._held.values():
            for priority in CLASSES[: held.priority]:
                counts[priority] += 1
        return (counts[0], counts[1], counts[2])

    def resize(self, total: int, reserve: int, source_only: int = 0) -> None:
        """Have more slots or fewer; who holds one keeps it."""
        assert 0 <= reserve <= total, "the reserve is part of the total"
        self.total, self.reserve, self.source_only = total, reserve, source_only

    def is_source_only(self, channel: str) -> bool:
        """Whether a channel's stream is here without a slot."""
        return channel in self._beyond

    def take(
        self, stream_id: StreamId, priority: PriorityClass, terms: Terms = PLAIN_TERMS
    ) -> StreamId | None:
        """Hold a slot for a stream, or raise `PublishRefusedError` ("full").

        A newer run of a channel takes over the slot of the older one. Returns the stream that has
        to give way, if one has: its slot is held no more.
        """
        channel = stream_id.channel
        for places in (self._held, self._beyond):
            if channel in places:
                places[channel] = self._make(stream_id, priority, terms, places[channel].arrival)
                return None
        held = self._make(stream_id, priority, terms, self._arrivals)
        victim = None
        if self.free(priority, may_reserve=terms.reserve) > 0:
            self._held[channel] = held
        elif terms.on_full == "source-only" and self.source_only_free > 0:
            self._beyond[channel] = held
        elif terms.on_full == "preempt" and (victim := self._choose_victim(priority)) is not None:
            del self._held[victim.channel]
            self._held[channel] = held
            self.preempted_total += 1
        else:
            raise PublishRefusedError("full", self._why_full(priority, terms))
        self._arrivals += 1
        return victim

    def give_back(self, stream_id: StreamId) -> None:
        """Let go of a stream's slot, unless a newer run of its channel holds it now."""
        for places in (self._held, self._beyond):
            held = places.get(stream_id.channel)
            if held is not None and held.stream_id == stream_id:
                del places[stream_id.channel]

    def promote(self) -> list[StreamId]:
        """Give what is free to those without a slot, the first of the highest class first."""
        promoted = []
        for held in sorted(self._beyond.values(), key=lambda held: held.rank):
            if self.free(held.priority, may_reserve=held.may_reserve) > 0:
                channel = held.stream_id.channel
                self._held[channel] = self._beyond.pop(channel)
                promoted.append(held.stream_id)
        return promoted

    def _make(
        self, stream_id: StreamId, priority: PriorityClass, terms: Terms, arrival: int
    ) -> _Held:
        return _Held(stream_id, priority, terms.reserve, arrival)

    def _choose_victim(self, priority: PriorityClass) -> StreamId | None:
        lower = (h for h in self._held.values() if h.priority > priority)
        victim = max(lower, key=lambda held: held.rank, default=None)
        return None if victim is None else victim.stream_id

    def _why_full(self, priority: PriorityClass, terms: Terms) -> str:
        why = (
            f"no slot is free for class {priority.label}: {self.used} of {self.total} are used,"
            f" {self.reserve} are kept for partners"
        )
        if terms.on_full == "source-only":
            why += f"; {self.used_beyond} of {self.source_only} streams are here without a ladder"
        elif terms.on_full == "preempt":
            why += "; none of a lower class has one"
        return why
