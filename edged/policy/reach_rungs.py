"""Which rungs of a channel are watched where, and what it costs to bring them; pure.

What nobody watches is not brought, so a channel that all watch at 160p costs as much as that. Sets
of rungs are numbers, a bit for each: many are joined and compared in a plan.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from edged.media.reach import RUNGS_MAX, AudienceRow

GUESS_MBPS: Final = 10.0  # Of a channel, or a rung, whose rate nobody has measured.
NAMES_MAX: Final = 2 * RUNGS_MAX  # Of a channel at all PoPs: a ladder that just changes has both.


class ChannelRungs:
    """Of one channel, by what PoPs tell; a PoP is a number."""

    def __init__(self, places: Sequence[int], rows: Sequence[AudienceRow]) -> None:
        self._bits: dict[str, int] = {}
        self.base_mbps = max((row.base_mbps for row in rows), default=0.0)  # Of sound, with any.
        rates: dict[str, float] = {}
        for row in rows:
            for rung, mbps in row.mbps.items():
                if mbps > rates.get(rung, 0.0):
                    rates[rung] = mbps
        self.set_of(rates)
        self.watched = self._note_watched(places, rows)
        guess = max(rates.values(), default=GUESS_MBPS)
        self._rates = [rates.get(rung, guess) for rung in self._bits]
        if not self._bits:
            self.base_mbps = max(self.base_mbps, GUESS_MBPS)
        self._known = {0: 0.0}

    def _note_watched(self, places: Sequence[int], rows: Sequence[AudienceRow]) -> dict[int, int]:
        watched = {
            place: self.set_of(row.rungs) if row.rungs else 0
            for place, row in zip(places, rows, strict=True)
            if row.viewers
        }
        everywhere = 0
        for mask in watched.values():
            everywhere |= mask
        self.unknown = everywhere or (1 << len(self._bits)) - 1
        for place, mask in watched.items():
            if not mask:  # They watch, and are not told apart: whatever is watched elsewhere.
                watched[place] = self.unknown
        return watched

    def _bit(self, rung: str) -> int:
        known = self._bits.get(rung)
        if known is None:
            if len(self._bits) >= NAMES_MAX:
                return 0
            known = self._bits[rung] = 1 << len(self._bits)
        return known

    def set_of(self, rungs: Iterable[str]) -> int:
        """These as a set."""
        mask = 0
        for rung in rungs:
            mask |= self._bits.get(rung) or self._bit(rung)
        return mask

    def known_of(self, rungs: Iterable[str]) -> int:
        """Those of these that there are."""
        mask = 0
        for rung in rungs:
            mask |= self._bits.get(rung, 0)
        return mask

    def names(self, mask: int) -> tuple[str, ...]:
        """A set's rungs by name; so many that no order can have them are all of them: ()."""
        names = tuple(sorted(rung for rung, bit in self._bits.items() if mask & bit))
        return names if len(names) <= RUNGS_MAX else ()

    def mbps(self, mask: int) -> float:
        """What the rungs of a set come to, without what comes along with them."""
        known = self._known.get(mask)
        if known is None:
            known = sum(rate for bit, rate in enumerate(self._rates) if mask >> bit & 1)
            self._known[mask] = known
        return known

    def extra_mbps(self, place: int, mask: int) -> float:
        """What it costs a PoP to hold a set, beyond what its own viewers have it take."""
        own = self.watched.get(place)
        if own is None:
            return self.mbps(mask) + self.base_mbps
        return self.mbps(mask & ~own)
