"""An accepted publisher's way into the network: where a plug-in puts its units."""

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec
import structlog

from edged.media.access_unit import AccessUnit
from edged.media.stream_clock import StreamClock
from edged.media.timing import US_PER_S
from edged.media.track import Track
from edged.runtime.hub import LiveStream

if TYPE_CHECKING:
    from edged.media.stream import Grant

CODEC_TOLD_S_MIN = 10.0  # Between two lines of one publication about codecs that change.

logger = structlog.get_logger("edged.ingest")


class Joins(Protocol):
    """Judges whether a publisher can go on with a run; what it sends passes through meanwhile."""

    fits: bool | None  # None until it shows.
    config_shifts: dict[int, int]  # By track: what is added to its config ids, also afterwards.

    @property
    def done(self) -> bool:
        """Whether it fits, and nothing is left to do but to add `config_shifts`."""

    def add_track(self, track: Track) -> None:
        """Take a track, or the new configuration of one."""

    def add_units(self, units: Sequence[AccessUnit]) -> None:
        """Take units, in order of arrival."""

    def take(self) -> list[Track | AccessUnit]:
        """What goes on now."""


class Publication:
    """An accepted session: where a plug-in puts its units. All of it is synchronous.

    One that joins a run puts them there when it has shown that it fits; else the network has given
    it a run of its own by then, which is `stream` from then on.
    """

    def __init__(
        self,
        stream: LiveStream,
        *,
        wallclock_us: Callable[[], int],
        close: Callable[["Publication", str, bool], None],
        joins: Joins | None = None,
        settle: Callable[["Publication", bool], LiveStream] | None = None,
    ) -> None:
        """`close` is told why it is over, and whether the publisher may come back.

        `joins`: the stream is live already. Then `settle` is told once whether the publisher fits,
        and says in which stream it goes on.
        """
        assert (joins is None) is (settle is None), "who joins is settled"
        self.stream = stream
        self.grant: Grant = stream.grant
        self.over: str | None = None  # Why nothing more is taken of it, though the run may go on.
        self._wallclock_us = wallclock_us
        self._close = close
        self._joins, self._settle = joins, settle
        self._config_shifts: dict[int, int] = {}
        self._clock = StreamClock()
        self._begins: set[int] = set()  # Tracks whose first unit from this publisher is to come.
        self._seq = stream.ring.next_seq
        self._codec_changes, self._codec_told_at = 0, -math.inf

    @property
    def ended(self) -> str | None:
        """Why the publication is over, if it is."""
        return self.over or self.stream.ended

    def set_track(self, track: Track) -> None:
        """Announce a track or its new configuration, before the units that need it."""
        if self.ended is not None:
            return
        if self._joins is not None:
            self._joins.add_track(track)
            self._go_on(self._joins)
            return
        if shift := self._config_shifts.get(track.track_id, 0):
            track = msgspec.structs.replace(track, config_id=track.config_id + shift)
        self._set_track(track)

    def append(self, units: Sequence[AccessUnit]) -> None:
        """Take units in order of arrival; numbers them and gives them the stream's wallclock."""
        if self.over is not None or self.stream.ended is not None:
            return
        if self._joins is not None:
            self._joins.add_units(units)
            self._go_on(self._joins)
            return
        if self._config_shifts:
            for unit in units:
                unit.config_id += self._config_shifts.get(unit.track_id, 0)
        self._append(units)

    def end(self, reason: str) -> None:
        """The publisher left, or was made to."""
        self._finish(reason, may_return=False)

    def lose(self, reason: str) -> None:
        """The publisher is gone without a word: it may come back, and the run waits for it."""
        self._finish(reason, may_return=True)

    def _finish(self, reason: str, *, may_return: bool) -> None:
        self.over = self.over or reason
        self._close(self, reason, may_return)

    def _go_on(self, joins: Joins) -> None:
        """Put what has been held into the stream, once it is known into which."""
        if joins.fits is None:
            return
        if self._settle is not None:
            settle, self._settle = self._settle, None
            self.stream = settle(self, joins.fits)
            self._seq = self.stream.ring.next_seq
            self._begins = set(self.stream.tracks)
        items = joins.take()
        if joins.done or not joins.fits:
            self._joins = None
            self._config_shifts = {k: shift for k, shift in joins.config_shifts.items() if shift}
        if self.ended is not None:  # No origin takes the run of its own.
            return
        units: list[AccessUnit] = []
        for item in items:
            if isinstance(item, AccessUnit):
                units.append(item)
                continue
            self._append(units)
            units = []
            self._set_track(item)
        self._append(units)

    def _set_track(self, track: Track) -> None:
        before = self.stream.tracks.get(track.track_id)
        self.stream.set_track(track)
        if before is not None and before.codec is not track.codec:
            self._note_codec(before, track)

    def _note_codec(self, before: Track, after: Track) -> None:
        """Tell of a change, but not of each where there is no end to them."""
        self._codec_changes += 1
        now = time.monotonic()
        if now < self._codec_told_at + CODEC_TOLD_S_MIN:
            return
        self._codec_told_at = now
        logger.warning(
            "codec changes: viewers pass a discontinuity, who cannot play it sees no more",
            channel=self.stream.channel,
            track=after.track_id,
            before=before.config.codec_string,
            after=after.config.codec_string,
            changes=self._codec_changes,
        )

    def _append(self, units: Sequence[AccessUnit]) -> None:
        seq = self._seq
        tracks, clock = self.stream.tracks, self._clock
        for unit in units:
            timescale = tracks[unit.track_id].timescale
            unit.seq = seq
            if (anchor := clock.anchor) is not None and not unit.discontinuity:
                # As `WallclockAnchor.wallclock_us`, which would be a call for each unit.
                unit.wallclock_us = anchor.offset_us + (2 * unit.pts * US_PER_S + timescale) // (
                    2 * timescale
                )
            else:
                if unit.discontinuity:
                    self._note_jump(units, unit)
                unit.wallclock_us = clock.stamp(
                    unit.track_id,
                    unit.pts,
                    timescale,
                    self._wallclock_us,
                    discontinuity=unit.discontinuity,
                )
            seq += 1
        self._seq = seq
        if units:
            self.stream.append(units)

    def _note_jump(self, units: Sequence[AccessUnit], unit: AccessUnit) -> None:
        """Of how much, from the unit before it: in this batch, or the last one appended.

        The first of a publisher that goes on with a run is none: its timeline is its own.
        """
        if unit.track_id in self._begins:
            self._begins.discard(unit.track_id)
            self.stream.note_splice(unit.track_id)
            return
        last_dts = self.stream.track_statistics[unit.track_id].last_dts
        for known in units:
            if known is unit:
                break
            if known.track_id == unit.track_id:
                last_dts = known.dts
        self.stream.note_jump(unit.track_id, unit.dts - last_dts)
