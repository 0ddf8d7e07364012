"""Compute slots of an origin: what it admits, by class. The origin has the final word.

A stream costs one slot. `reserve` slots are kept for partners, so that the last ones are not gone
when they come; what is free for a class says so in every heartbeat.
"""

from edged.errors import PublishRefusedError
from edged.media.stream import PriorityClass, StreamId


class Slots:
    """Who holds a slot."""

    def __init__(self, total: int, reserve: int) -> None:
        assert 0 <= reserve <= total, "the reserve is part of the total"
        self.total = total
        self.reserve = reserve
        self._held: dict[str, StreamId] = {}

    @property
    def used(self) -> int:
        """Slots that are held."""
        return len(self._held)

    def free(self, priority: PriorityClass) -> int:
        """How many more streams of a class would be admitted."""
        left = max(0, self.total - len(self._held))
        return left if priority is PriorityClass.PARTNER else max(0, left - self.reserve)

    def resize(self, total: int, reserve: int) -> None:
        """Have more slots or fewer; who holds one keeps it."""
        assert 0 <= reserve <= total, "the reserve is part of the total"
        self.total, self.reserve = total, reserve

    def take(self, stream_id: StreamId, priority: PriorityClass) -> None:
        """Hold a slot for a stream, or raise `PublishRefusedError` ("full").

        A newer run of a channel takes over the slot of the older one.
        """
        if stream_id.channel not in self._held and self.free(priority) <= 0:
            raise PublishRefusedError(
                "full",
                f"no slot is free for class {priority.label}: {self.used} of {self.total} are used,"
                f" {self.reserve} are kept for partners",
            )
        self._held[stream_id.channel] = stream_id

    def give_back(self, stream_id: StreamId) -> None:
        """Let go of a stream's slot, unless a newer run of its channel holds it now."""
        if self._held.get(stream_id.channel) == stream_id:
            del self._held[stream_id.channel]
