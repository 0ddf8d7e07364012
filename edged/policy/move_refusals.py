"""Moves that PoPs did not make: for a while nobody plans the same again.

Of what telemetry tells a plan knows which streams rules let go where. What it cannot know the PoP
says: who is to be moved has just been, an origin refuses there, a rule of a newer table forbids.
The same move is then left alone, twice as long each time that it is refused again; but not where
others made it meanwhile: of forty that go one may always be refused.
"""

from collections.abc import Iterable

from msgspec import Struct

from edged.media.routing import CLASSES
from edged.policy.rehoming import NONE_LEFT, SAME_NUMBER, TOO_LATE, TOO_MANY

HOLD_S_MIN = 10.0  # A PoP holds an origin that refused for 0.5 to 8 s.
HOLD_S_MAX = 160.0
REFUSALS_MAX = 10_000  # 100 PoPs and 10 origins have as many, of a class; then the oldest go.
_CLASSES = ("", *(each.label for each in CLASSES))
NOT_TRIED = (TOO_MANY, SAME_NUMBER, f"{TOO_LATE}; {NONE_LEFT}")


class RefusedMove(Struct, frozen=True, array_like=True, order=True):
    """What is not to be planned: of this PoP shard from there to there; `class_` "": of any."""

    pop: str
    from_origin: str
    to_origin: str
    class_: str = ""


class _Hold(Struct):
    until: float
    length_s: float
    made: bool = False  # By some streams, since.


class MoveRefusals:
    """Of one IRS."""

    def __init__(self) -> None:
        self._holds: dict[RefusedMove, _Hold] = {}  # The one that was refused last is last.

    def note(self, move: RefusedMove, reason: str, now: float) -> None:
        """A PoP did not make a move, or not as often as it was asked.

        What it had no time for, or did not take on at all, says nothing about the move.
        """
        if reason.startswith(NOT_TRIED):
            return
        length_s = HOLD_S_MIN
        known = self._holds.pop(move, None)
        if known is not None and not known.made:
            # Refused again while it is held: that was asked before.
            again = now >= known.until
            length_s = min(HOLD_S_MAX, 2 * known.length_s) if again else known.length_s
        self._holds[move] = _Hold(now + length_s, length_s)
        if len(self._holds) > REFUSALS_MAX:
            del self._holds[next(iter(self._holds))]

    def made(self, pop: str, from_origin: str, to_origin: str) -> None:
        """A stream of any class has made a move: who is refused it next is so for the first time.

        What is held stays so.
        """
        for class_ in _CLASSES:
            hold = self._holds.get(RefusedMove(pop, from_origin, to_origin, class_))
            if hold is not None:
                hold.made = True

    def held(self, now: float) -> tuple[RefusedMove, ...]:
        """What is not to be planned now, in order."""
        for move in [each for each, hold in self._holds.items() if _is_past(hold, now)]:
            del self._holds[move]
        return tuple(sorted(each for each, hold in self._holds.items() if now < hold.until))

    def lasting(self, now: float) -> tuple[RefusedMove, ...]:
        """Of these what was refused again after its hold, so that nobody may count on it."""
        return tuple(
            move
            for move in self.held(now)
            if self._holds[move].length_s > HOLD_S_MIN and not self._holds[move].made
        )


def _is_past(hold: _Hold, now: float) -> bool:
    """Whether a move that is refused now is so for the first time."""
    return now >= hold.until + 2 * hold.length_s


def targets_refused(
    moves: Iterable[RefusedMove],
) -> dict[tuple[str, str], dict[str, frozenset[str]]]:
    """By PoP shard and origin to leave: by class, "" being all, where nothing of it is to go."""
    found: dict[tuple[str, str], dict[str, frozenset[str]]] = {}
    for move in moves:
        of_class = found.setdefault((move.pop, move.from_origin), {})
        of_class[move.class_] = of_class.get(move.class_, frozenset()) | {move.to_origin}
    return found
