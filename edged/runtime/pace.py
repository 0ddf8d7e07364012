"""How often a pump turns, by what comes; and how late it was lately."""

import math

TICK_S_MAX = 0.0075  # With what a turn takes, below the 10 ms that ingest may add.
BUSY_EVENTS_PER_S = 1500.0  # Above it turns are spaced by the whole tick, above a quarter by 2 ms.
RATE_WINDOW_S = 0.2
LAG_DECAY_S = 1.0  # Callers are let in again within a second or two of a slow turn.


class Pace:
    """One pump's. Times are its clock's, in seconds."""

    __slots__ = ("_lag_at", "_lag_s", "_rate", "tick_s")

    def __init__(self) -> None:
        self.tick_s = 0.0  # From the begin of one turn to the next; 0: whenever something comes.
        self._rate = 0.0
        self._lag_s, self._lag_at = 0.0, -math.inf

    def lag_s(self, now: float) -> float:
        """How late it ran lately; decays with time, not turns: an idle loop is not late."""
        return self._lag_s * math.exp((self._lag_at - now) / LAG_DECAY_S)

    def note_turn(self, events: int, since_s: float) -> None:
        """So many events came in the time since the turn before."""
        since_s = max(since_s, 1e-6)
        weight = min(1.0, since_s / RATE_WINDOW_S)
        self._rate += (events / since_s - self._rate) * weight
        if self._rate > BUSY_EVENTS_PER_S:
            self.tick_s = TICK_S_MAX
        else:
            self.tick_s = 0.002 if self._rate > BUSY_EVENTS_PER_S / 4 else 0.0

    def note_lag(self, late_s: float, now: float) -> None:
        """Something was done so late, or somebody may have waited so long."""
        if late_s >= self._lag_s * math.exp((self._lag_at - now) / LAG_DECAY_S):
            self._lag_s, self._lag_at = late_s, now
