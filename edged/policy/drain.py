"""When a place lets go of what it has: one by one over a part of a deadline, the rest at its end.

All at once would have every publisher knock at the next door, or every stream's units replayed
from its ring, in the same moment. So the items go in equal steps over the first half of the
deadline, a step being STEP_S_MAX at most: few items are gone soon. The second half is for those
that leave by themselves after they were asked.
"""

from collections import deque
from collections.abc import Iterable
from math import inf
from typing import Generic, TypeVar

SPREAD_FRACTION = 0.5  # Of the deadline.
STEP_S_MAX = 0.5

Item = TypeVar("Item")


class Drain(Generic[Item]):
    """One drain. `now` is monotonic."""

    def __init__(
        self, items: Iterable[Item], *, now: float, deadline_s: float, notice_s: float = 0.0
    ) -> None:
        """`notice_s`: before the first goes, for others to hear that nothing new is taken here."""
        assert deadline_s >= 0, "the deadline lies ahead"
        known = list(items)
        self.total = len(known)
        self.ends_at = now + deadline_s
        notice_s = min(notice_s, SPREAD_FRACTION * deadline_s)
        step_s = min(STEP_S_MAX, (SPREAD_FRACTION * deadline_s - notice_s) / max(1, len(known)))
        first_at = now + notice_s
        self._waiting = deque((first_at + step_s * index, item) for index, item in enumerate(known))

    def take_due(self, now: float) -> list[Item]:
        """Return those whose turn has come, each once."""
        due: list[Item] = []
        while self._waiting and self._waiting[0][0] <= now:
            due.append(self._waiting.popleft()[1])
        return due

    def is_over(self, now: float) -> bool:
        """Whether what is still there is to be ended."""
        return now >= self.ends_at

    def next_timeout(self) -> float:
        """When the next turn comes, or the end."""
        return min(self._waiting[0][0] if self._waiting else inf, self.ends_at)
