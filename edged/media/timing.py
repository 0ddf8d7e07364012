"""Exact time arithmetic: rescaling, roll-over, the frame grid, and the stream's wallclock.

All of it is in integers: a stream of a week must not drift by one tick. The three kinds of time
never mix: wire ticks (as a protocol sends them), pts/dts (ticks of a track's timescale, 64 bit),
wallclock (microseconds since 1970).
"""

from typing import Final, Self

from msgspec import Struct

US_PER_S: Final = 1_000_000
# Two ends of an interval, each quantised to a millisecond in a way of the encoder's choice (down,
# nearest).
GRID_TOLERANCE_MS: Final = 2


def rescale(value: int, from_timescale: int, to_timescale: int) -> int:
    """Ticks of one timescale as ticks of another: exact, halves rounded up (towards +infinity)."""
    return (2 * value * to_timescale + from_timescale) // (2 * from_timescale)


class Unroller(Struct):
    """Turns a wire timestamp of `bits` bits into one that does not wrap.

    Each value is taken as the nearest one, before or after, to the last; so steps back of less than
    half the range (out-of-order audio and video) stay steps back. The first value is itself. Plain
    data: the whole state is the fields.
    """

    bits: int
    value: int | None = None  # The last unrolled value.

    def unroll(self, wire: int) -> int:
        """The 64-bit timestamp for `wire`, which must fit `bits` bits."""
        last = self.value
        if last is None:
            value = wire
        else:
            half = 1 << (self.bits - 1)
            value = last + ((wire - last + half) & (2 * half - 1)) - half
        self.value = value
        return value


class FrameGrid(Struct):
    """The exact times of a constant-rate track whose wire times are quantised (to milliseconds).

    A frame lasts `frame_num / frame_den` ticks of `timescale`. Frame n is expected at anchor + n x
    that; a wire time within `tolerance` ticks of an expected time is that time (frames may be
    missing between), any other is taken as it is and becomes the new anchor. Plain data: the whole
    state is the fields.
    """

    timescale: int
    frame_num: int
    frame_den: int
    tolerance: int
    anchor: int | None = None  # None: the next frame is the first of a new grid.
    index: int = 0  # Of the last frame, from the anchor.
    last: int = 0  # Ticks given for it.

    @classmethod
    def for_audio(cls, sample_rate: int, samples_per_unit: int) -> Self:
        """The grid of a track whose timescale is its sample rate: AAC's is (48000, 1024)."""
        return cls.for_duration(sample_rate, samples_per_unit, 1)

    @classmethod
    def for_video(cls, timescale: int, frame_rate_num: int, frame_rate_den: int) -> Self:
        """The grid of constant-rate video: (90000, 30000, 1001) has frames of 3003 ticks."""
        return cls.for_duration(timescale, timescale * frame_rate_den, frame_rate_num)

    @classmethod
    def for_duration(cls, timescale: int, frame_num: int, frame_den: int) -> Self:
        """A grid of frames of `frame_num / frame_den` ticks, tolerant of milliseconds."""
        assert timescale > 0, "a timescale is ticks per second"
        assert frame_num > 0, "a frame lasts some time"
        assert frame_den > 0, "a frame lasts a finite time"
        # Less than half a frame, or every time would be on the grid.
        tolerance = min(timescale * GRID_TOLERANCE_MS // 1000, frame_num // (3 * frame_den))
        return cls(timescale, frame_num, frame_den, tolerance)

    def snap(self, wire_ticks: int) -> tuple[int, bool]:
        """The exact time of the next frame, and whether the grid had to be anchored anew.

        What it returns rises strictly unless it says `True` for a step back of more than a frame.
        (Hot path: each unit of each RTMP publisher passes here.)
        """
        anchor = self.anchor
        if anchor is None:
            self.anchor = self.last = wire_ticks
            self.index = 0
            return wire_ticks, False
        num, den = self.frame_num, self.frame_den
        index = (2 * (wire_ticks - anchor) * den + num) // (2 * num)
        ticks = anchor + (2 * index * num + den) // (2 * den)
        if index > self.index and -self.tolerance <= wire_ticks - ticks <= self.tolerance:
            if ticks <= self.last:  # Times repeated have pushed it beyond the grid.
                ticks = self.last + 1
            self.index = index
            self.last = ticks
            return ticks, False
        return self._resync(wire_ticks)

    def nearest(self, wire_ticks: int) -> int:
        """The grid time within the tolerance of `wire_ticks`, or that itself; moves nothing.

        For presentation times, which do not come in order; their grid is the decoding times' own.
        """
        anchor = self.anchor
        if anchor is None:
            return wire_ticks
        num, den = self.frame_num, self.frame_den
        index = (2 * (wire_ticks - anchor) * den + num) // (2 * num)
        ticks = anchor + (2 * index * num + den) // (2 * den)
        return ticks if -self.tolerance <= wire_ticks - ticks <= self.tolerance else wire_ticks

    def _resync(self, wire_ticks: int) -> tuple[int, bool]:
        behind = self.last - wire_ticks
        if 0 <= behind <= self.frame_num // self.frame_den + self.tolerance:
            # A time repeated or slightly back: decoding times must rise, and the grid stays good.
            self.last += 1
            return self.last, False
        self.anchor = self.last = wire_ticks
        self.index = 0
        return wire_ticks, True


class WallclockAnchor(Struct):
    """A stream's wallclock: anchor + (pts - pts0), the same for all its tracks.

    Made when the PoP first sees the stream, with that unit's pts, and anchored anew only at a
    discontinuity: so it does not jitter.
    """

    offset_us: int  # Wallclock of media time 0.

    @classmethod
    def at(cls, wallclock_us: int, pts: int, timescale: int) -> Self:
        """An anchor by which `pts` is presented at `wallclock_us`."""
        return cls(wallclock_us - rescale(pts, timescale, US_PER_S))

    def reanchor(self, wallclock_us: int, pts: int, timescale: int) -> None:
        """At a discontinuity: from here on `pts` is at `wallclock_us`."""
        self.offset_us = wallclock_us - rescale(pts, timescale, US_PER_S)

    def wallclock_us(self, pts: int, timescale: int) -> int:
        """Microseconds since 1970 at which `pts` is presented. Hot path: one per unit."""
        return self.offset_us + (2 * pts * US_PER_S + timescale) // (2 * timescale)
