"""A stream's wallclock through the jumps of its tracks' timestamps.

An encoder that begins its timestamps anew does so on every track, but not in the same moment: for a
while units of the old timeline arrive among those of the new one. The clock is anchored once for
each jump. A track stays on the old anchor until it jumps too; so no unit gets a wallclock an hour
off, which would empty the ring, and PROGRAM-DATE-TIME (RFC 8216bis §4.4.4.6) moves once.
"""

from collections.abc import Callable

from edged.media.timing import WallclockAnchor

# Tracks jump together, give or take what lies between them in the encoder and on the way.
SAME_JUMP_US_MAX = 2_000_000
TRANSITION_US_MAX = 5_000_000  # After it no unit of the old timeline is still to come.


class StreamClock:
    """Gives each unit its wallclock. While `anchor` is not None it holds for all tracks."""

    def __init__(self) -> None:
        self.anchor: WallclockAnchor | None = None
        self._old: WallclockAnchor | None = None  # Only between a jump and its end.
        self._new: WallclockAnchor | None = None
        self._jumped: set[int] = set()
        self._jumped_at_us = 0

    def stamp(
        self,
        track_id: int,
        pts: int,
        timescale: int,
        now_us: Callable[[], int],
        *,
        discontinuity: bool,
    ) -> int:
        """Microseconds since 1970 at which a unit of that track is presented.

        `now_us` is the wallclock at its arrival. Where `anchor` is set and the unit is no
        discontinuity, callers may ask the anchor itself.
        """
        now = now_us()
        if self.anchor is None and self._new is None:
            self.anchor = WallclockAnchor.at(now, pts, timescale)
        elif self._new is not None and now - self._jumped_at_us > TRANSITION_US_MAX:
            self._settle()
        if discontinuity and not self._follows(track_id, pts, timescale, now):
            self._old = self.anchor or self._new
            self._new = WallclockAnchor.at(now, pts, timescale)
            self.anchor = None
            self._jumped = set()
            self._jumped_at_us = now
        if self.anchor is not None:
            return self.anchor.wallclock_us(pts, timescale)
        return self._stamp_in_transition(track_id, pts, timescale, now, discontinuity=discontinuity)

    def _follows(self, track_id: int, pts: int, timescale: int, now: int) -> bool:
        """Whether a track's jump is the one that another track has made."""
        if self._new is None or track_id in self._jumped:
            return False
        return abs(self._new.wallclock_us(pts, timescale) - now) <= SAME_JUMP_US_MAX

    def _stamp_in_transition(
        self, track_id: int, pts: int, timescale: int, now: int, *, discontinuity: bool
    ) -> int:
        assert self._old is not None, "a transition has two anchors"
        assert self._new is not None, "a transition has two anchors"
        new_us = self._new.wallclock_us(pts, timescale)
        if track_id not in self._jumped:
            old_us = self._old.wallclock_us(pts, timescale)
            if not discontinuity and abs(old_us - now) <= abs(new_us - now):
                return old_us
            self._jumped.add(track_id)
        return new_us

    def _settle(self) -> None:
        """The jump is over."""
        self.anchor, self._old, self._new = self._new, None, None
        self._jumped.clear()
