"""How a track's access units follow each other, and what that makes of PART-TARGET.

RFC 8216bis §4.4.4.9: a part lasts at most PART-TARGET and at least 85 % of it, exceptions apart. So
PART-TARGET must be a multiple of the unit's duration; and where durations differ by more than that
leaves room for, PART-TARGET grows until any part can end within its last 15 %.
"""

import itertools
from collections.abc import Sequence
from fractions import Fraction

from msgspec import Struct

from edged.media.track import Kind, Track

US = 1_000_000
PART_FLOOR = Fraction(85, 100)  # Of PART-TARGET: RFC 8216bis §4.4.4.9.
PART_US_MAX = US  # Of irregular tracks: beyond it latency suffers more than conformance gains.
JITTER_US = 1_000  # Wire timestamps of whole milliseconds: two of them are this far apart at most.
MEASURED_US = US  # What is enough to judge a track that does not say its rate.
MEASURED_DELTAS = 8  # What is enough to believe one that does.
# Frames per second that encoders use; the commonest first, for ties.
_RATES = (
    *(Fraction(30), Fraction(60), Fraction(25), Fraction(50), Fraction(24)),
    *(Fraction(30_000, 1001), Fraction(60_000, 1001), Fraction(24_000, 1001)),
    *(Fraction(15), Fraction(20), Fraction(12), Fraction(10), Fraction(48), Fraction(120)),
)


class Cadence(Struct, frozen=True, kw_only=True):
    """What is known of a track's pace; all in ticks of its timescale."""

    part_ticks: int  # PART-TARGET: no part is longer.
    floor_ticks: int  # 85 % of it, rounded up: no part is shorter, exceptions apart.
    gap_ticks: int  # From one unit to the next, at most, as far as expected.
    period_units: int = 0  # So many units last exactly `period_ticks`; 0 when irregular.
    period_ticks: int = 0
    rate: Fraction | None = None  # Units per second, when constant.

    @property
    def constant(self) -> bool:
        """Whether a unit's duration is known when it arrives, and not only when the next does."""
        return self.period_units > 0


def declared_unit(track: Track) -> Fraction | None:
    """The duration of a unit in ticks, as the track's configuration tells it."""
    config = track.config
    if track.kind is Kind.VIDEO and config.frame_rate_num > 0 and config.frame_rate_den > 0:
        return Fraction(track.timescale * config.frame_rate_den, config.frame_rate_num)
    if track.kind is Kind.AUDIO and config.samples_per_unit > 0 and config.sample_rate > 0:
        return Fraction(track.timescale * config.samples_per_unit, config.sample_rate)
    return None


def is_measured(track: Track, dts: Sequence[int]) -> bool:
    """Whether these first decode times are enough for `measure_cadence`."""
    if len(dts) > MEASURED_DELTAS and declared_unit(track) is not None:
        return True
    return len(dts) > 1 and (dts[-1] - dts[0]) * US >= MEASURED_US * track.timescale


def measure_cadence(track: Track, dts: Sequence[int], part_us: int) -> Cadence:
    """Judge a track by its first decode times, which rise strictly.

    What the configuration declares counts only if the times bear it out.
    """
    declared = declared_unit(track)
    deltas = [later - earlier for earlier, later in itertools.pairwise(dts)]
    if not deltas:
        if declared is not None:
            return _constant(track.timescale, declared, part_us)
        return _irregular(track.timescale, 0, part_us)
    candidates = [declared] if declared is not None else []
    candidates.append(Fraction(min(deltas)))  # Opus, and encoders of odd rates.
    if track.kind is Kind.VIDEO:
        candidates += [track.timescale / rate for rate in _RATES]
    for unit in candidates:
        if _follows(dts, unit, Fraction(1), skips=unit is declared):
            return _constant(track.timescale, unit, part_us)
    jitter = Fraction(JITTER_US * track.timescale, US)
    mean = Fraction(sum(deltas), len(deltas))
    for unit in sorted(candidates, key=lambda unit: abs(unit - mean)):
        if _follows(dts, unit, jitter, skips=unit is declared):
            return _jittered(track.timescale, unit, part_us)
    return _irregular(track.timescale, max(deltas), part_us)


def _follows(dts: Sequence[int], unit: Fraction, tolerance: Fraction, *, skips: bool) -> bool:
    """Whether the times lie on the grid of `unit`; `skips` allows a minority of missing units."""
    low = high = Fraction(0)
    steps = 0
    skipped = 0
    for earlier, later in itertools.pairwise(dts):
        step = max(round((later - earlier) / unit), 1) if skips else 1
        skipped += step > 1
        steps += step
        error = later - dts[0] - steps * unit
        low, high = min(low, error), max(high, error)
    # The first time has an error too, so it is the spread that counts.
    return high - low <= tolerance and skipped * 2 < len(dts)


def _constant(timescale: int, unit: Fraction, part_us: int) -> Cadence:
    part_ticks = _ceil(_units_of_part(timescale, unit, part_us) * unit)
    return Cadence(
        part_ticks=part_ticks,
        floor_ticks=_ceil(part_ticks * PART_FLOOR),
        gap_ticks=_ceil(unit),
        period_units=unit.denominator,
        period_ticks=unit.numerator,
        rate=timescale / unit,
    )


def _jittered(timescale: int, unit: Fraction, part_us: int) -> Cadence:
    jitter = Fraction(JITTER_US * timescale, US)
    part_ticks = _ceil(_units_of_part(timescale, unit, part_us) * unit + jitter)
    return Cadence(
        part_ticks=part_ticks,
        floor_ticks=_ceil(part_ticks * PART_FLOOR),
        gap_ticks=_ceil(unit + jitter),
        rate=timescale / unit,
    )


def _irregular(timescale: int, gap_ticks: int, part_us: int) -> Cadence:
    room = gap_ticks / (1 - PART_FLOOR) if gap_ticks else Fraction(PART_US_MAX * timescale, US)
    part = max(Fraction(part_us * timescale, US), min(room, Fraction(PART_US_MAX * timescale, US)))
    part_ticks = max(_ceil(part), 1)
    return Cadence(
        part_ticks=part_ticks,
        floor_ticks=_ceil(part_ticks * PART_FLOOR),
        gap_ticks=max(gap_ticks, 1),
    )


def _units_of_part(timescale: int, unit: Fraction, part_us: int) -> int:
    return max(_ceil(Fraction(part_us * timescale, US) / unit), 1)


def _ceil(value: Fraction) -> int:
    return -(-value.numerator // value.denominator)
