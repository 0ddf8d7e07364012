"""When streams are shed: not at once, but when no move has been able to save them for a while.

    plan ── some have to go ──▶ waits, `after_s` ── in every plan since ──▶ they go; rests `rests_s`
                                   └── all can stay, or nobody looks any more ──▶ nothing goes

A spike of bitrates, or what one second's telemetry has got wrong, ends nobody's broadcast. Nor does
a stream that has moved: for a while it is carried to both its homes, and told of at both
(`leaving`). Nor is anybody shed for room that is there, and not believed yet: what origins say is
free counts little by little.
"""

import math
from collections.abc import Sequence

from msgspec import Struct

from edged.policy.capacitor import RAMP_PER_S
from edged.policy.handover import HANDOVER_S_MAX
from edged.policy.moves import UnitMoves
from edged.policy.shedding import UnitSheds

SHED_AFTER_S = 3.0  # Three telemetry intervals, in all of which somebody has to go.
# A PoP lets go of the home that was left after HANDOVER_S_MAX + 1; then come two telemetries.
LINGERS_S = HANDOVER_S_MAX + 3.0
RESTS_S = 1 / RAMP_PER_S  # What was shed makes room; by then all of it is believed.
GAP_S_MAX = 10.0  # Between two plans of which the newer goes on: the longest until moves settle.


class _Leaving(Struct, frozen=True):
    moves: tuple[UnitMoves, ...]
    until: float


class ShedPatience:
    """Of one planner. All times are monotonic."""

    def __init__(self, *, after_s: float, lingers_s: float, rests_s: float) -> None:
        """All 0: what a plan names goes at once."""
        self._after_s, self._lingers_s, self._rests_s = after_s, lingers_s, rests_s
        self._rests_until = -math.inf
        self._leaving: list[_Leaving] = []  # Plans are seconds apart, so they are few.
        self._since: float | None = None  # Some have to go; None: all can stay.
        self._judged_at = 0.0

    def moves_asked(self, moves: Sequence[UnitMoves], done_at: float) -> None:
        """Streams are to leave their homes until then."""
        if moves and self._lingers_s:
            self._leaving.append(_Leaving(tuple(moves), done_at + self._lingers_s))

    def leaving(self, now: float) -> list[UnitMoves]:
        """Moves whose streams may still be told of where they were."""
        self._leaving = [each for each in self._leaving if each.until > now]
        return [move for each in self._leaving for move in each.moves]

    def judge(self, sheds: Sequence[UnitSheds], now: float) -> list[UnitSheds]:
        """What of a plan is to go now: all of it, or nothing yet."""
        before, self._judged_at = self._judged_at, now
        if not sheds or now < self._rests_until:
            self._since = None
            return []
        if self._since is None or now - before > GAP_S_MAX:
            self._since = now
        return list(sheds) if now - self._since >= self._after_s else []

    def gone(self, now: float) -> None:
        """What had to go goes."""
        self._rests_until = now + self._rests_s
        self._since = None

    def begin_anew(self) -> None:
        """All can stay, or another one plans: what was before counts no more."""
        self._since = None
