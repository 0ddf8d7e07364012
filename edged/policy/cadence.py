"""How a track's access units follow each other, and what that makes of PART-TARGET.

RFC 8216bis §4.4.4.9: a part lasts at most PART-TARGET and at least 85 % of it, exceptions apart. So
PART-TARGET must be a multiple of the unit's duration; and where durations differ by more than that
leaves room for, PART-TARGET grows until any part can end within its last 15 %.

PART-TARGET is then fixed, but the pace is not: an encoder may change its rate, and a phone's
follows the light. So `Pace` foresees the next unit only for as long as the units bear it out.
"""

import itertools
from collections import deque
from collections.abc import Sequence
from fractions import Fraction

import msgspec
from msgspec import Struct

from edged.media.track import Kind, Track

US = 1_000_000
PART_FLOOR = Fraction(85, 100)  # Of PART-TARGET: RFC 8216bis §4.4.4.9.
PART_US_MAX = US  # Of irregular tracks: beyond it latency suffers more than conformance gains.
JITTER_US = 1_000  # Wire timestamps of whole milliseconds: two of them are this far apart at most.
MEASURED_US = US  # What is enough to judge a track that does not say its rate.
MEASURED_DELTAS = 8  # What is enough to believe one that does.
REPACED_DELTAS = 24  # On a grid in a row, before one that has left its grid is foreseen again.
GRID_TICKS = 2  # A rounded time less a rounded time; what is off by more has left the grid.
SKIPS_MAX = 3  # Deltas in a row with units missing: units get lost, but not each second one.
# Hundredths of a unit: one that would begin so shortly before a segment's end may be in it, or not;
PLAN_SLACK = 1  # where ticks are no whole units,
PLAN_SLACK_JITTERED = 10  # and where times are whole milliseconds.
PERIOD_UNITS_MAX = 16  # Rates whose period is longer are off by up to a tick at a part's end.
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
    # Of audio: what a part is meant to last. Its parts end where so many of these have passed since
    # the segment began, as the picture's do, or a unit later; 0: each is as long as it may be.
    step_ticks: int = 0
    unit_ticks: int = 0  # Of audio: what a unit lasts, however its times jitter; 0: not known.

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
    cadence = _measure(track, dts, part_us)
    if track.kind is Kind.AUDIO:
        unit_ticks = _ceil(track.timescale / cadence.rate) if cadence.rate is not None else 0
        step_ticks = part_us * track.timescale // US
        cadence = msgspec.structs.replace(cadence, step_ticks=step_ticks, unit_ticks=unit_ticks)
    return cadence


def _measure(track: Track, dts: Sequence[int], part_us: int) -> Cadence:
    declared = declared_unit(track)
    deltas = [later - earlier for earlier, later in itertools.pairwise(dts)]
    if not deltas:
        if declared is not None:
            return _constant(track.timescale, declared, part_us)
        return _irregular(track.timescale, 0, part_us)
    candidates = _candidates(track, deltas)
    for unit in candidates:
        if _follows(dts, unit, Fraction(1), skips=unit == declared):
            return _constant(track.timescale, unit, part_us)
    jitter = Fraction(JITTER_US * track.timescale, US)
    mean = Fraction(sum(deltas), len(deltas))
    for unit in sorted(candidates, key=lambda unit: abs(unit - mean)):
        if _follows(dts, unit, jitter, skips=unit == declared):
            return _jittered(track.timescale, unit, part_us)
    return _irregular(track.timescale, max(deltas), part_us)


def sound_part_is_due(ticks: int, left_ticks: int, cadence: Cadence, timescale: int) -> bool:
    """Whether a part of audio ends after `ticks`; its segment does `left_ticks` from its start.

    The segment's last part is as long as it may be, or as can be, and those before it are about
    alike. Needs a rate. Hot path: one or two of a part; so whole numbers only.
    """
    rate = cadence.rate
    assert rate is not None, "asked for nothing else"
    per, unit = rate.numerator, rate.denominator * timescale  # Units are ticks * per / unit.
    slack = PLAN_SLACK if cadence.constant else PLAN_SLACK_JITTERED
    if cadence.period_units == 1:
        slack = 0
    units = -(-(left_ticks * per * 100 + slack * unit) // (100 * unit))
    most = max(cadence.part_ticks * per // unit, 1)
    before_last = -(-units // most) - 1
    if before_last < 1:
        return False  # It is the last one, and has what comes.
    least = min(-(-cadence.floor_ticks * per // unit), most)
    rest = units - min(most, units - before_last * least)
    due = (2 * rest + before_last) // (2 * before_last)
    return (2 * ticks * per + unit) // (2 * unit) >= due


class Pace:
    """Foresees a track's next unit, for as long as its units come as they have.

    A unit off the grid ends that at once, because a part whose end was foreseen wrongly cannot be
    taken back. REPACED_DELTAS on one grid, the old or another, and it goes on.
    """

    def __init__(self, track: Track, cadence: Cadence) -> None:
        self.cadence = cadence  # What was measured, with the pace of late; PART-TARGET stays.
        self.last: int | None = None  # The last unit's decode time, on this timeline.
        self.due = 0  # Where the unit after it is expected, or may be.
        self._track = track
        self._times: deque[int] = deque(maxlen=REPACED_DELTAS + 1)  # Since the grid was lost.
        self._skips = 0

    def note(self, dts: int) -> None:
        """Take the next unit's decode time. Hot path: one per unit."""
        times, last = self._times, self.last
        step = 0 if last is None else dts - last
        if last is not None:
            if not self.cadence.constant:
                if step <= 0:
                    times.clear()  # Times that go back show no pace.
            elif dts == self.due:
                self._skips = 0
            elif not self._is_on_grid(step):
                self._lose_grid(step)
        times.append(dts)
        self.last = dts
        if not self.cadence.constant and len(times) > REPACED_DELTAS:
            self._judge()
        self.due = dts + self._next_step(step)

    def switch(self, track: Track) -> None:
        """Another configuration, which may declare another rate."""
        self._track = track

    def restart(self) -> None:
        """What follows is on a timeline of its own."""
        self.last = None
        self._times.clear()
        self._skips = 0

    def _is_on_grid(self, step: int) -> bool:
        """Whether this many ticks are one unit, or several because some were lost."""
        num, den = self.cadence.period_ticks, self.cadence.period_units
        units = max((2 * step * den + num) // (2 * num), 1)
        if abs(step * den - units * num) > GRID_TICKS * den:
            return False
        self._skips = self._skips + 1 if units > 1 else 0
        return self._skips <= SKIPS_MAX

    def _lose_grid(self, step: int) -> None:
        gap_ticks = max(self.cadence.gap_ticks, min(step, self.cadence.part_ticks))
        self.cadence = msgspec.structs.replace(
            self.cadence, gap_ticks=gap_ticks, period_units=0, period_ticks=0, rate=None
        )
        self._times.clear()
        self._skips = 0

    def _judge(self) -> None:
        """Look whether the units since the grid was lost are on one again."""
        times = list(self._times)
        deltas = [later - earlier for earlier, later in itertools.pairwise(times)]
        unit = None
        if max(deltas) - min(deltas) <= GRID_TICKS:  # All others are none: most are seen cheaply.
            units = (u for u in _candidates(self._track, deltas) if u <= self.cadence.part_ticks)
            unit = next((u for u in units if _follows(times, u, Fraction(1), skips=False)), None)
        if unit is None:
            gap_ticks = min(max(deltas), self.cadence.part_ticks)
            self.cadence = msgspec.structs.replace(self.cadence, gap_ticks=gap_ticks)
            self._times.clear()
            self._times.append(times[-1])
            return
        self.cadence = msgspec.structs.replace(
            self.cadence,
            gap_ticks=_ceil(unit),
            period_units=unit.denominator,
            period_ticks=unit.numerator,
            rate=self._track.timescale / unit,
        )

    def _next_step(self, step: int) -> int:
        """From the last unit to the next one."""
        pace, times = self.cadence, self._times
        if not pace.constant:
            return min(step if step > 0 else pace.gap_ticks, pace.part_ticks)
        ticks, units = pace.period_ticks, pace.period_units
        if units <= PERIOD_UNITS_MAX and len(times) >= units:
            # Over a whole period the rounding of a rate like 23.976 is gone.
            exact = times[-units] + ticks - times[-1]
            if 0 <= exact - ticks // units <= 1:
                return exact
        return ticks // units


def _candidates(track: Track, deltas: Sequence[int]) -> list[Fraction]:
    """Durations that a unit of the track may have; the declared one first."""
    declared = declared_unit(track)
    candidates = [declared] if declared is not None else []
    candidates.append(Fraction(min(deltas)))  # Opus, and encoders of odd rates.
    if track.kind is Kind.VIDEO:
        candidates += [track.timescale / rate for rate in _RATES]
    return candidates


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
        floor_ticks=_floor(timescale, part_ticks),
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
        floor_ticks=_floor(timescale, part_ticks),
        gap_ticks=_ceil(unit + jitter),
        rate=timescale / unit,
    )


def _irregular(timescale: int, gap_ticks: int, part_us: int) -> Cadence:
    room = gap_ticks / (1 - PART_FLOOR) if gap_ticks else Fraction(PART_US_MAX * timescale, US)
    part = max(Fraction(part_us * timescale, US), min(room, Fraction(PART_US_MAX * timescale, US)))
    part_ticks = max(_ceil(part), 1)
    return Cadence(
        part_ticks=part_ticks,
        floor_ticks=_floor(timescale, part_ticks),
        gap_ticks=max(gap_ticks, 1),
    )


def _floor(timescale: int, part_ticks: int) -> int:
    """The shortest part; playlists say PART-TARGET in whole microseconds, rounded up."""
    floor_us = _ceil(_ceil(Fraction(part_ticks * US, timescale)) * PART_FLOOR)
    return min(_ceil(Fraction(floor_us * timescale, US)), part_ticks)


def _units_of_part(timescale: int, unit: Fraction, part_us: int) -> int:
    return max(_ceil(Fraction(part_us * timescale, US) / unit), 1)


def _ceil(value: Fraction) -> int:
    return -(-value.numerator // value.denominator)
