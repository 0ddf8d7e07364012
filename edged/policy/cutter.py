"""Cuts one rendition's units into parts; where a segment ends, the `Segmenter` tells it.

A part ends as early as its length is known: at a constant rate when its last unit arrives, else
when the unit after it does. Decode times are cut, and `until` always means the decode time at which
a part ends: the sum of its samples' durations never says anything else.

Each part begins where the last one ended. So the decode time of a picture moves, if need be, when
it begins a part: because the last one had no room for all of a picture's time, or because its end
was foreseen at a pace that did not last. When it is presented does not change.

Where a publisher leaves units out, no part is listed for the hole: every rendition misses them, the
segment has all that there is, and GAP=YES would take the whole of it from players (RFC 8216bis
§4.4.4.7), up to the next key frame where 0.3 s are missing. They seek over a hole. GAP stands where
a part, or all of a segment, is not to be had.
"""

import itertools
from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

from edged.media.access_unit import AccessUnit
from edged.media.parts import InitSegment, PackagedEvent, Part, Rendition, SegmentEnded
from edged.media.track import Kind, Track
from edged.policy.boundary import Boundary
from edged.policy.cadence import US, Cadence, Pace, sound_part_is_due
from edged.policy.gops import Gops

UNITS_MAX = 512  # Of a part: units whose times do not advance; then it is cut early.
BYTES_MAX = 32 * 2**20  # Of a part: 1 s at 256 Mbps; then it is cut early.
AUDIO_SHIFT_US_MAX: Final = 1_000  # Audio is presented when it is decoded; nobody hears this much.
# Sound that misses less, as where a file begins anew, goes on a little early: for a hole that small
# a player stands still.
AUDIO_HOLE_US_MAX: Final = 100_000
# Of fragments: above the parts that a window takes of a segment.
SEQUENCES_PER_SEGMENT: Final = 1024


class FragmentWriter(Protocol):
    """What turns units into bytes; `wire.cmaf` in edged."""

    def make_init(self, track: Track) -> bytes:
        """The init segment of a track."""

    def make_fragment(
        self,
        kind: Kind,
        sequence: int,
        tfdt: int,
        units: Sequence[AccessUnit],
        durations: Sequence[int],
    ) -> bytes:
        """One fragment of the units, whose durations are ticks."""


class RenditionCutter:
    """One rendition: its units since the last part, and where in the playlist they will stand."""

    def __init__(
        self, track: Track, rendition: Rendition, cadence: Cadence, writer: FragmentWriter
    ) -> None:
        self.track = track
        self.rendition = rendition
        self.is_video = rendition.kind is Kind.VIDEO
        self.config_id = track.config_id
        self.init_digest = ""
        self.msn = 0
        self.index = 0
        self.started = False  # A unit has come since the segment began.
        self.segment_start = 0  # dts of the segment's first unit.
        self.end_dts = 0  # Where the unit after the last is expected.
        self.last: AccessUnit | None = None  # Of this timeline.
        self.boundaries: deque[Boundary] = deque()
        self.expected_end: int | None = None  # dts from which units likely are of the next segment.
        # Where the segment ends, as exactly as it is foreseen; the one before is a little early.
        self.planned_end: int | None = None
        self.offset_ticks = 0
        self.discontinuity_sequence = 0
        self.parts_cut = 0
        self.segment_bytes = 0
        self.ticks_missing = 0  # Holes: where units are further apart than a part is long.
        self.lag_s = 0.0  # How far others were ahead when the last segment ended.
        self.gops = Gops()
        self._pace = Pace(track, cadence)
        self._writer = writer
        self._units: list[AccessUnit] = []
        self._bytes = 0
        self._cut_to: int | None = None  # Where the last part of this timeline ended.
        self._discontinuity = False

    @property
    def cadence(self) -> Cadence:
        """What is promised of its parts, and its pace of late."""
        return self._pace.cadence

    @property
    def pending_seq(self) -> int | None:
        """The oldest unit that is in no part yet."""
        return self._units[0].seq if self._units else None

    @property
    def tfdt(self) -> int:
        """Where the next part begins, as far as known."""
        if self._units:
            return self._units[0].dts + self.offset_ticks
        end = self.end_dts if self._cut_to is None else self._cut_to
        return end + self.offset_ticks

    @property
    def has_media(self) -> bool:
        """Whether any unit has come, ever."""
        return self.parts_cut > 0 or bool(self._units)

    def elapsed(self, dts: int) -> int:
        """Ticks from the segment's start to `dts`."""
        return dts - self.segment_start if self.started else 0

    @property
    def elapsed_us(self) -> int:
        """How long the segment is so far."""
        ticks = self.end_dts - self.segment_start if self.started else 0
        return ticks * US // self.track.timescale

    def past_s(self, boundary: Boundary) -> float:
        """Seconds by which its last unit is beyond a boundary of this timeline; at least 0."""
        if self.last is None:
            return 0.0
        past_s = self.last.dts / self.track.timescale - boundary.pts / boundary.timescale
        return max(past_s, 0.0)

    def announce(self, init: bytes, digest: str, out: list[PackagedEvent]) -> None:
        """Say the rendition and its init segment, which the next part needs."""
        self.init_digest = digest
        out.append(self.rendition)
        out.append(InitSegment(rendition=self.rendition.name, digest=digest, data=init))

    def switch(self, track: Track, rendition: Rendition) -> None:
        """Take a new configuration; the pace and the fixed times stay."""
        self.track = track
        self._pace.switch(track)
        self.rendition = rendition
        self.config_id = track.config_id

    def add_unit(self, unit: AccessUnit, out: list[PackagedEvent]) -> None:
        """Take the next unit of the segment."""
        last, pace = self.last, self._pace
        before = pace.last
        pace.note(unit.dts)
        if last is not None and unit.dts <= last.dts:
            # A fragment's times only rise. The presentation time stays as it was.
            unit = unit.replaced(dts=last.dts + 1)
        cadence = pace.cadence
        if self._units and unit.dts - self._units[0].dts >= cadence.floor_ticks:
            self._cut_before(unit, out)
        if not self._units and (dts := self._begin_at(unit.dts, before)) != unit.dts:
            unit = unit.replaced(dts=dts)
        if not self.started:
            self.started = True
            self.segment_start = unit.dts
        self.end_dts = max(pace.due, unit.dts + 1)
        self.last = unit
        self._units.append(unit)
        self._bytes += len(unit.payload)
        self.segment_bytes += len(unit.payload)
        if cadence.constant and self.end_dts - self._units[0].dts >= cadence.floor_ticks:
            self._cut_after(out)
        if len(self._units) >= UNITS_MAX or self._bytes >= BYTES_MAX:
            self._cut(len(self._units), self.end_dts, out)

    def end_segment(self, until: int | None, gap_ticks: int, out: list[PackagedEvent]) -> None:
        """End the segment; `until` is the next unit's decode time where the timeline goes on.

        What is pending becomes its last part. A segment that nothing came of is absent media, and
        lasts `gap_ticks`.
        """
        went_back = until is not None and self.last is not None and until <= self.last.dts
        end = self.end_dts if until is None or went_back else until
        if self._units:
            self._cut(len(self._units), end, out, ends_segment=True)
        if self.started:
            end = self._begin_at(end, self._pace.last)
        if self.has_media:
            duration = max(end - self.segment_start, 1) if self.started else gap_ticks
            out.append(
                SegmentEnded(
                    rendition=self.rendition.name,
                    msn=self.msn,
                    parts=self.index,
                    duration=duration,
                )
            )
        if self.started:
            self._discontinuity = False
        self.msn += 1
        self.index = 0
        self.segment_bytes = 0
        self.started = False
        self.expected_end = self.planned_end = None

    def restart(self, offset_ticks: int) -> None:
        """What follows stands behind a discontinuity, on a timeline of its own."""
        self.offset_ticks = offset_ticks
        self.discontinuity_sequence += 1
        self.last = None
        self._cut_to = None
        self._discontinuity = True
        self._pace.restart()

    def _begin_at(self, dts: int, before: int | None) -> int:
        """Where a part of a unit at `dts` begins: where the last one ended, if that is near.

        `before` is when the unit before it came. Further apart than a part is long is a hole.
        """
        if self._cut_to is None or before is None:
            return dts
        if self.rendition.kind is Kind.AUDIO:
            late_us = (dts - self._cut_to) * US // self.track.timescale
            near = -AUDIO_SHIFT_US_MAX <= late_us <= AUDIO_HOLE_US_MAX
        else:
            near = dts - before <= self.cadence.part_ticks
        return self._cut_to if near else dts

    def _cut_after(self, out: list[PackagedEvent]) -> None:
        """Cut if the part, long enough, has no room for another unit; the pace is constant."""
        pace = self.cadence
        total = self.end_dts - self._units[0].dts
        has_room = total + pace.period_ticks // pace.period_units <= pace.part_ticks
        if not has_room or self._is_due(self.end_dts):
            self._cut(len(self._units), self.end_dts, out)

    def _cut_before(self, unit: AccessUnit, out: list[PackagedEvent]) -> None:
        """Now that the last pending unit's duration is known, cut before it, after it, or wait."""
        pace = self.cadence
        start, previous = self._units[0].dts, self._units[-1].dts
        total = unit.dts - start
        if total > pace.part_ticks:
            if previous - start >= pace.floor_ticks:
                self._cut(len(self._units) - 1, previous, out)
                self._cut_before(unit, out)
                return
            # Too long with the last unit, too short without: media is absent for a while.
            self._cut(len(self._units), unit.dts, out)
            return
        gap_ticks = pace.gap_ticks
        if pace.unit_ticks and pace.rate is not None and not pace.constant:
            gap_ticks = pace.unit_ticks  # One that comes later than that begins the next part.
        has_room = total + gap_ticks <= pace.part_ticks
        if total >= pace.floor_ticks and (not has_room or self._is_due(unit.dts)):
            self._cut(len(self._units), unit.dts, out)

    def _is_due(self, end: int) -> bool:
        """Whether a part of audio is to end there, as short as it may be or longer.

        Units seldom fill a part evenly: where each took as many as it may, the segment's last part
        would be a short one, and hls.js passes over such when it comes late (to it a segment is
        whole when 0.2 s of it lack).
        """
        pace = self.cadence
        if not pace.step_ticks:
            return False
        if self.planned_end is None or pace.rate is None:
            return end - self.segment_start >= pace.step_ticks * (self.index + 1)
        first, timescale = self._units[0].dts, self.track.timescale
        return sound_part_is_due(end - first, self.planned_end - first, pace, timescale)

    def _cut(
        self, count: int, until: int, out: list[PackagedEvent], *, ends_segment: bool = False
    ) -> None:
        """Make a part of the first `count` pending units; it ends at `until`, or earlier."""
        units = self._units[:count]
        del self._units[:count]
        first, last = units[0], units[-1]
        end = max(min(until, first.dts + self.cadence.part_ticks), last.dts + 1)
        if self._cut_to is not None:
            self.ticks_missing += max(first.dts - self._cut_to, 0)
        self._cut_to = end
        durations = [later.dts - earlier.dts for earlier, later in itertools.pairwise(units)]
        durations.append(end - last.dts)
        tfdt = first.dts + self.offset_ticks
        kind = self.rendition.kind
        # The same units make the same bytes at any origin: nothing here counts from its start.
        sequence = self.msn * SEQUENCES_PER_SEGMENT + self.index + 1
        payload = self._writer.make_fragment(kind, sequence, tfdt, units, durations)
        ends = ends_segment or (self.expected_end is not None and until >= self.expected_end)
        out.append(
            Part(
                rendition=self.rendition.name,
                msn=self.msn,
                index=self.index,
                tfdt=tfdt,
                duration=end - first.dts,
                # Of what is presented first: behind a key picture, others may precede it.
                wallclock_us=min(unit.wallclock_us for unit in units),
                init_digest=self.init_digest,
                payload=payload,
                independent=kind is Kind.AUDIO or any(unit.random_access for unit in units),
                discontinuity=self._discontinuity,
                discontinuity_sequence=self.discontinuity_sequence,
                ends_segment=ends_segment,
                next_msn=self.msn + ends,
                next_index=0 if ends else self.index + 1,
                last_seq=last.seq,
            )
        )
        self._bytes = sum(len(unit.payload) for unit in self._units)
        self.index += 1
        self.parts_cut += 1
