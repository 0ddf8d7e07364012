"""When the pictures behind a rendition's parts come: what of its parts' lengths is the source's.

Parts are cut between pictures. Where these do not follow each other at one rate, the one that would
fill a part may last beyond PART-TARGET, which is fixed (RFC 8216bis §4.4.3.7): no server can help.
"""

import itertools
import statistics

from edged.policy.health_rules import UNEVEN_RATIO_MAX
from edged.tools.conform.media import Piece, Place, place_of
from edged.tools.conform.observe import RenditionLog
from edged.wire.m3u8_values import US

Position = tuple[int, int]  # MSN and part.
NOWHERE: Position = (-1, -1)
ROUNDING_US = 2_000  # Of timestamps in whole milliseconds, at both ends of a picture.


class Pace:
    """The pictures of all parts that were fetched; of audio alone its units. All in us."""

    def __init__(self, log: RenditionLog) -> None:
        places: dict[Position, Place] = {}
        breaks: set[int] = set()
        for one in log.seen:
            for segment in one.playlist.segments:
                if segment.discontinuity:
                    breaks.add(segment.msn)
                for index, part in enumerate(segment.parts):
                    if not part.gap:
                        places[segment.msn, index] = place_of(part)
        self._order = sorted(places)
        self._at = {position: at for at, position in enumerate(self._order)}
        self._times: dict[Position, list[int]] = {}  # When pictures are decoded,
        self._ends: dict[Position, list[int]] = {}  # and when a part's last one ends.
        for position, place in places.items():
            piece = log.parts.get(place)
            samples = _pictures(log, piece) if piece is not None else []
            if samples:
                self._times[position] = [dts for dts, _ in samples]
                self._ends[position] = [sum(samples[-1])]
        self._breaks = breaks
        steps = self._steps()
        self.usual_us = statistics.median_low(steps) if steps else 0
        turns = sum(abs(later - earlier) for earlier, later in itertools.pairwise(steps))
        # As of `fps_uneven` on the status page: how much one differs from the next.
        self.is_variable = turns > UNEVEN_RATIO_MAX * sum(steps)

    def explain_length(self, position: Position, low_us: int, target_us: int) -> str:
        """Why no cut could make a part of `low_us` to `target_us`; "" where the server could."""
        times, after = self._times.get(position), self._after(position)
        if not times:
            return ""
        ends = times[1:] + (self._times.get(after, []) or self._ends.get(position, []))
        steps = []
        for earlier, end in itertools.pairwise([times[0], *ends, *self._ends.get(after, [])]):
            steps.append(end - earlier)
            if end - times[0] > target_us + 1:
                break
            if end - times[0] >= low_us - 1:
                return ""
        else:
            return ""  # What would come next is not known, or there was room for all of it.
        if len(steps) not in (len(times), len(times) + 1):
            return ""  # It could have been nearer to that: one picture may cross, its last or next.
        if all(abs(step - self.usual_us) <= ROUNDING_US for step in steps):
            return ""  # It is as always: PART-TARGET does not suit the rate.
        return (
            f"a variable frame rate: no picture ends between {low_us / US:g} and "
            f"{target_us / US:g} s, one lasts {steps[-1] / US:.3f} s, "
            f"usual are {self.usual_us / US:.3f} s"
        )

    def span_us(self, position: Position) -> int | None:
        """How long a server had to wait for a part's pictures behind the part before's.

        It may have sent a part with its last picture, or when the one after it came. None: what
        comes before or behind is not known.
        """
        times, before = self._times.get(position), self._times.get(self._before(position))
        following = self._times.get(self._after(position))
        if not times or not before or not following:
            return None
        return max(following[0] - times[0], times[-1] - before[-1])

    def is_open(self, position: Position) -> bool:
        """Whether nothing was seen behind a part of a variable frame rate: its last picture's end.

        So nobody knows how long a server had to wait for it.
        """
        return self.is_variable and position >= self._order[-1]

    def _before(self, position: Position) -> Position:
        at = self._at.get(position, 0) - 1
        return self._order[at] if at >= 0 and self._is_next(self._order[at], position) else NOWHERE

    def _after(self, position: Position) -> Position:
        at = self._at.get(position, len(self._order)) + 1
        if at >= len(self._order) or not self._is_next(position, self._order[at]):
            return NOWHERE
        return self._order[at]

    def _is_next(self, one: Position, other: Position) -> bool:
        """Whether a part follows another on one timeline."""
        if other == (one[0], one[1] + 1):
            return True
        return other == (one[0] + 1, 0) and other[0] not in self._breaks

    def _steps(self) -> list[int]:
        """From each picture to the next."""
        steps: list[int] = []
        for position in self._order:
            times = self._times.get(position, [])
            following = self._times.get(self._after(position), [])[:1]
            steps += [b - a for a, b in itertools.pairwise(times + following) if b > a]
        return steps


def _pictures(log: RenditionLog, piece: Piece) -> list[tuple[int, int]]:
    """When its pictures are decoded, and how long each lasts; of audio alone its units."""
    init = log.inits.get(piece.init, {}) if piece.init is not None else {}
    numbers = sorted(piece.tracks.keys() & init.keys(), key=lambda n: init[n].handler != "vide")
    if not numbers:
        return []
    timescale = init[numbers[0]].timescale
    return sorted(
        (sample.dts * US // timescale, sample.duration * US // timescale)
        for sample in piece.tracks[numbers[0]]
    )
