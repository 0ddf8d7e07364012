"""When streams are shed: not at once, but when no move has been able to save them for a while.

    plan ── some have to go ──▶ waits, `after_s` ── in every plan since ──▶ they go; rests `rests_s`
                                   └── all can stay, or nobody looks any more ──▶ nothing goes

A spike of bitrates, or what one second's telemetry has got wrong, ends nobody's broadcast. Nor does
a stream that has moved: for a while it is carried to both its homes, and told of at both
(`leaving`), until those who stay are all that is told of there. Nor is anybody shed for room that
is there, and not believed yet: what origins say is free counts little by little.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Self

from msgspec import Struct

from edged.media.routing import NO_UNITS
from edged.media.stream import PriorityClass
from edged.policy.capacitor import RAMP_PER_S
from edged.policy.handover import HANDOVER_S_MAX
from edged.policy.moves import UnitMoves
from edged.policy.shed_orders import Units
from edged.policy.shedding import UnitSheds

SHED_AFTER_S = 3.0  # Three telemetry intervals, in all of which somebody has to go.
# A PoP lets go of the home that was left after HANDOVER_S_MAX + 1; then come two telemetries.
LINGERS_S = HANDOVER_S_MAX + 3.0
RESTS_S = 1 / RAMP_PER_S  # What was shed makes room; by then all of it is believed.
GAP_S_MAX = 10.0  # Between two plans of which the newer goes on: the longest until moves settle.


_Place = tuple[str, str, PriorityClass]  # PoP shard, origin, class.


class _Leaving(Struct):
    """Units that were asked to leave a place, and how many stay there."""

    units: int
    stay: int
    until: float

    def left(self, there: int) -> int:
        """Those that may still be told of there; who has come since counts as one of them."""
        return min(self.units, max(0, there - self.stay))


class ShedPatience:
    """Of one planner. All times are monotonic."""

    def __init__(self, *, after_s: float, lingers_s: float, rests_s: float) -> None:
        """All 0: what a plan names goes at once."""
        self._after_s, self._lingers_s, self._rests_s = after_s, lingers_s, rests_s
        self._rests_until = -math.inf
        self._leaving: dict[_Place, _Leaving] = {}
        self._since: float | None = None  # Some have to go; None: all can stay.
        self._judged_at = 0.0

    @classmethod
    def of_production(cls) -> Self:
        """That of IRS, and of the simulator."""
        return cls(after_s=SHED_AFTER_S, lingers_s=LINGERS_S, rests_s=RESTS_S)

    def asked(
        self,
        moves: Sequence[UnitMoves],
        sheds: Sequence[UnitSheds],
        units: Units,
        now: float,
        done_at: float,
    ) -> None:
        """Some are to move until `done_at`, and these, if any, go now; `units`: as it was told."""
        self.moves_asked(moves, units, done_at)
        if sheds:
            self.gone(sheds, now)

    def moves_asked(self, moves: Sequence[UnitMoves], units: Units, done_at: float) -> None:
        """Streams are to leave their homes until then; `units`: what was told when it was asked."""
        asked = Counter[_Place]()
        for move in moves if self._lingers_s else ():
            asked[move.pop, move.from_origin, move.priority] += move.units
        for place, count in asked.items():
            there, known = _there(units, place), self._leaving.get(place)
            lingers = 0 if known is None else known.left(there)
            stay = max(0, there - lingers - count)
            self._leaving[place] = _Leaving(lingers + count, stay, done_at + self._lingers_s)

    def leaving(self, units: Units, now: float) -> list[UnitMoves]:
        """What of `units` is told of where it was, though it has moved, or is about to."""
        for place in [place for place, each in self._leaving.items() if each.until <= now]:
            del self._leaving[place]
        return [
            UnitMoves(
                pop=pop, from_origin=origin, to_origin="", priority=priority, units=left, reason=""
            )
            for (pop, origin, priority), each in self._leaving.items()
            if (left := each.left(_there(units, (pop, origin, priority))))
        ]

    def judge(self, sheds: Sequence[UnitSheds], now: float) -> list[UnitSheds]:
        """What of a plan is to go now: all of it, or nothing yet."""
        before, self._judged_at = self._judged_at, now
        if not sheds or now < self._rests_until:
            self._since = None
            return []
        if self._since is None or now - before > GAP_S_MAX:
            self._since = now
        return list(sheds) if now - self._since >= self._after_s else []

    def gone(self, sheds: Sequence[UnitSheds], now: float) -> None:
        """These go."""
        self._rests_until = now + self._rests_s
        self._since = None
        for each in sheds:
            if (known := self._leaving.get((each.pop, each.origin, each.priority))) is not None:
                known.stay = max(0, known.stay - each.units)

    def begin_anew(self) -> None:
        """All can stay, or another one plans: what was before counts no more."""
        self._since = None


def _there(units: Units, place: _Place) -> int:
    pop, origin, priority = place
    return units.get(pop, {}).get(origin, NO_UNITS)[priority]
