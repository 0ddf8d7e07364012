"""What is done about a transcoder that is too slow, and about one that fails.

Too slow: the rung that costs most is shed, and given back when there has been room for a while; the
cheapest one stays. Failed: it is begun anew after a delay that doubles with each failure in a row,
at the next random access; a unit that it fails at twice is left out with the whole GOP.
"""

import math

from msgspec import Struct

from edged.media.ladder import LadderPlan, VideoRung

SHED_QUEUE_S = 2.0  # So far behind the source, a rung is shed: viewers' buffers hold about that.
SHED_QUEUE_S_MAX = 6.0  # And so far behind whether it catches up or not.
CATCHES_UP = 1.05  # x real time: it has begun behind, as after a restart, and will be there soon.
EASY_QUEUE_S = 0.5  # Behind by no more, there may be room.
SETTLE_S = 3.0  # After a change, before the next: what is queued is to be seen through first.
ROOM = 1.3  # x real time that the ladder would have with the rung given back.
RETURN_S_MIN, RETURN_S_MAX = 10.0, 300.0  # So long there must be room; doubles when shed again.
FORGIVEN_S = 600.0  # Without shedding, what was before is forgotten.

BACKOFF_S_MIN, BACKOFF_S_MAX = 0.2, 10.0
HEALTHY_S = 60.0  # A transcoder that has run so long has no failures behind it.
FAILURES_AT_UNIT_MAX = 2


class Shed(Struct, frozen=True, kw_only=True):
    """A rung is not made any more."""

    name: str
    queue_s: float


class Returned(Struct, frozen=True, kw_only=True):
    """A rung is made again."""

    name: str
    factor: float  # x real time before.


class LoadRule:
    """Which rungs of a plan are made. `now` is monotonic."""

    def __init__(self, plan: LadderPlan) -> None:
        self._rungs = plan.video
        self._decode_cost = plan.decode_cost
        self._shed: list[VideoRung] = []  # The last one is the first to come back.
        self._changed_at = -math.inf
        self._shed_at = -math.inf
        self._room_since: float | None = None
        self._return_s = RETURN_S_MIN

    @property
    def shed(self) -> tuple[str, ...]:
        """What is not made."""
        return tuple(rung.name for rung in self._shed)

    @property
    def wanted(self) -> tuple[str, ...]:
        """What is made, in the plan's order."""
        return tuple(rung.name for rung in self._rungs if rung not in self._shed)

    def set_plan(self, plan: LadderPlan) -> None:
        """Rungs of the same name stay shed."""
        names = self.shed
        self._rungs, self._decode_cost = plan.video, plan.decode_cost
        self._shed = [rung for name in names for rung in plan.video if rung.name == name]

    def observe(self, queue_s: float, factor: float, now: float) -> Shed | Returned | None:
        """`queue_s`: behind the source; `factor`: x real time, lately (0: not known)."""
        if queue_s > EASY_QUEUE_S:
            self._room_since = None
        if now - self._changed_at < SETTLE_S:
            return None
        is_slow = 0 < factor < CATCHES_UP
        if queue_s > (SHED_QUEUE_S if is_slow else SHED_QUEUE_S_MAX):
            return self._take(queue_s, now)
        if not self._shed or queue_s > EASY_QUEUE_S:
            return None
        rung = self._shed[-1]
        cost = self._cost()
        expected = factor * cost / (cost + rung.cost) if cost + rung.cost else factor
        if expected < ROOM:
            self._room_since = None
            return None
        if self._room_since is None:
            self._room_since = now
        if now - self._room_since < self._return_s:
            return None
        self._shed.pop()
        self._changed_at, self._room_since = now, None
        return Returned(name=rung.name, factor=factor)

    def _take(self, queue_s: float, now: float) -> Shed | None:
        made = [rung for rung in self._rungs if rung not in self._shed]
        if len(made) <= 1:
            return None
        rung = max(made, key=lambda each: each.cost)
        if now - self._shed_at > FORGIVEN_S:
            self._return_s = RETURN_S_MIN
        else:
            self._return_s = min(2 * self._return_s, RETURN_S_MAX)
        self._shed.append(rung)
        self._changed_at = self._shed_at = now
        return Shed(name=rung.name, queue_s=queue_s)

    def _cost(self) -> float:
        return self._decode_cost + sum(r.cost for r in self._rungs if r not in self._shed)


class Restart(Struct, frozen=True, kw_only=True):
    """How to begin anew."""

    after_s: float
    skips_gop: bool  # Of the unit that it failed at.


class RestartRule:
    """When, and where, a transcoder that has failed begins anew."""

    def __init__(self) -> None:
        self.failures = 0
        self._backoff_s = BACKOFF_S_MIN
        self._seq: int | None = None
        self._times = 0

    def note_failure(self, seq: int | None, ran_s: float) -> Restart:
        """It failed at this unit of the source (None: at none), after it had run so long."""
        self.failures += 1
        if ran_s >= HEALTHY_S:
            self._backoff_s = BACKOFF_S_MIN
        after_s = self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, BACKOFF_S_MAX)
        self._times = self._times + 1 if seq is not None and seq == self._seq else 1
        self._seq = seq
        skips = seq is not None and self._times >= FAILURES_AT_UNIT_MAX
        return Restart(after_s=after_s, skips_gop=skips)
