"""Decides where a stream's parts and segments end (RFC 8216bis §6.2, Appendix B.1).

    units in `seq` order -> [start: measure each track] -> a cutter for each rendition -> events

One rendition leads: the video with the lowest track id, else the first audio. Its segments end at
random access; the others follow at the first unit with that presentation time, other rungs at
their own random access (see `segment_rule`), so that an MSN means the same seconds in all. If a
leading rung falls silent and another goes on, that one leads from then on. Everything follows from
the order of the units alone, never from a clock: another origin makes the same bytes of them.
"""

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from edged.errors import RemoteProtocolError
from edged.media.access_unit import AccessUnit
from edged.media.parts import PackagedEvent, Rendition, StreamEnded
from edged.media.track import Kind, Track
from edged.policy.boundary import Boundary
from edged.policy.cadence import US, Cadence, measure_cadence
from edged.policy.cutter import FragmentWriter, RenditionCutter
from edged.policy.held_units import HELD_S_MAX, HeldUnits, is_decided
from edged.policy.known_tracks import KnownTracks
from edged.policy.renditions import describe_rendition, init_digest
from edged.policy.segment_rule import SegmenterConfig, SegmentRule
from edged.policy.segment_starts import SegmentStart
from edged.policy.segmenter_report import RenditionMark, SegmenterStatistics
from edged.policy.waiting_units import JUMP_BACK_S_MAX, JUMP_S_MAX, WaitingUnits

SEGMENT_BYTES_MAX = 48 * 2**20  # Of all renditions: 4.4 s at 91 Mbps; a window holds two of it.
DISCONTINUITIES_MAX: Final = 16  # At once; each segment that ends without one allows one more.
OFFSET_MAX: Final = 2**31  # Ticks from dts to pts: a fragment has 32 bits for it.
TIME_MAX: Final = 2**62  # Ticks: a fragment has 64 bits for it.


def _to_nobody(_: SegmentStart) -> None:
    pass


class Segmenter:
    """One stream's segmenter.

    Units that cannot be packaged raise `RemoteProtocolError`; a codec that cannot,
    `UnsupportedMediaError`.
    """

    def __init__(self, config: SegmenterConfig, writer: FragmentWriter) -> None:
        assert config.target_duration_s >= config.segment_s
        self.config = config  # Of whom it goes on from, if it does.
        self._rule = SegmentRule(config)
        self._statistics = SegmenterStatistics()
        self._writer = writer
        self._tracks = KnownTracks()
        self._waiting = WaitingUnits(self._tracks)
        self._held = HeldUnits()
        self._cutters: dict[int, RenditionCutter] = {}
        self._leader: RenditionCutter | None = None
        self._skipped: set[int] = set()
        self._offset_s = 0
        self._discontinuities_left = DISCONTINUITIES_MAX
        self._last_seq = -1
        self._expected_pts: int | None = None  # Of the leader's next boundary.
        self.on_boundary: Callable[[SegmentStart], None] = (
            _to_nobody  # In order, as they are decided.
        )

    @property
    def packaged_seq(self) -> int:
        """All units up to this one are in parts, or will never be; -1 before the first."""
        pending = [cutter.pending_seq for cutter in self._cutters.values()]
        pending += self._waiting.first_seqs + self._held.first_seqs
        return min((seq - 1 for seq in pending if seq is not None), default=self._last_seq)

    @property
    def received_seq(self) -> int:
        """The last unit taken; -1 before the first."""
        return self._last_seq

    @property
    def leader(self) -> str:
        """The rendition at whose segments the others follow; empty before the start."""
        return "" if self._leader is None else self._leader.rendition.name

    @property
    def long_gop_s(self) -> float | None:
        """How long the last GOP was at least that a segment could not wait for; None: none yet."""
        if self._leader is None or not self._rule.long_gops:
            return None
        return self._rule.long_gop_ticks / self._leader.rendition.timescale

    @property
    def misaligned(self) -> bool:
        """Whether the rungs' random access is not at the same times."""
        return self._statistics.misaligned

    def statistics(self) -> SegmenterStatistics:
        """What has been cut, and what was wrong with the stream."""
        leader = self._leader
        gop_s = leader.gops.ticks / leader.rendition.timescale if leader is not None else 0.0
        cutters = self._cutters.values()
        missing_s = [c.ticks_missing / c.rendition.timescale for c in cutters]
        return msgspec.structs.replace(
            self._statistics,
            parts=sum(cutter.parts_cut for cutter in cutters),
            long_gops=self._rule.long_gops,
            gop_s=gop_s,
            missing_s=max(missing_s, default=0.0),
        )

    def marks(self) -> list[RenditionMark]:
        """How far each rendition is."""
        return [
            RenditionMark(
                name=cutter.rendition.name,
                msn=cutter.msn,
                part=cutter.index - 1,
                tfdt=cutter.tfdt,
                discontinuity_sequence=cutter.discontinuity_sequence,
                init_digest=cutter.init_digest,
            )
            for cutter in self._cutters.values()
        ]

    def announced(self) -> list[tuple[Rendition, Track, str]]:
        """What has been announced and is in force: renditions, their tracks, their inits' digests.

        Those of a segmenter that goes on from another's state were announced elsewhere.
        """
        return [(c.rendition, c.track, c.init_digest) for c in self._cutters.values()]

    def add_track(self, track: Track) -> None:
        """Take a track, or a track's new configuration; data tracks are not packaged."""
        if track.kind is not Kind.DATA:
            self._tracks.add(track)

    def skip_units(self) -> list[PackagedEvent]:
        """Units have been lost before the next one: what follows stands behind a discontinuity."""
        out: list[PackagedEvent] = []
        self._let_go(list(self._held.by_track), out)
        self._skipped = set(self._cutters)
        return out

    def add_unit(self, unit: AccessUnit) -> list[PackagedEvent]:
        """Take the next unit of the publication; returns what it completes."""
        out: list[PackagedEvent] = []
        self._last_seq = unit.seq
        self._statistics.units += 1
        if abs(unit.dts) > TIME_MAX or abs(unit.pts - unit.dts) >= OFFSET_MAX:
            raise RemoteProtocolError(
                f"unit {unit.seq} of track {unit.track_id}: dts {unit.dts}, pts {unit.pts}"
            )
        cutter, held = self._cutters.get(unit.track_id), self._held.by_track
        if cutter is not None:
            if self._skipped and self._is_lost(cutter, unit):
                return out
            if held or (cutter.is_video and unit.random_access):
                self._offer(cutter, unit, out)
            else:
                self._push(cutter, unit, out)
        elif unit.track_id in self._tracks:
            self._wait(unit, out)
        return out

    def end(self, reason: str) -> list[PackagedEvent]:
        """The publication ended: what is pending is cut, and nothing follows."""
        out: list[PackagedEvent] = []
        self._let_go(list(self._held.by_track), out)
        if self._waiting:
            self._start(list(self._waiting.by_track), out)
        for cutter in self._cutters.values():
            if cutter.started:
                cutter.end_segment(None, 0, out)
        out.append(StreamEnded(reason=reason))
        return out

    def _wait(self, unit: AccessUnit, out: list[PackagedEvent]) -> None:
        """Keep a unit of a track that is not measured yet."""
        waiting = self._waiting
        self._statistics.units_dropped += waiting.add(unit)
        if self._cutters:
            if waiting.full or waiting.is_measured(unit.track_id):
                self._start([unit.track_id], out)
        elif waiting.full or waiting.may_start():
            self._start(list(waiting.by_track), out)

    def _start(self, track_ids: Iterable[int], out: list[PackagedEvent]) -> None:
        """Begin these tracks' renditions, with all that has waited."""
        starting = self._waiting.take(track_ids)
        if not self._cutters:
            self._statistics.units_dropped += self._waiting.drop_before_video(starting)
            for track_id, units in starting.items():
                # Whole seconds are exact in every timescale.
                offset_s = -(units[0].dts // self._tracks.timescale(track_id)) if units else 0
                self._offset_s = max(self._offset_s, offset_s)
        # By their ids: in which order they came says nothing.
        begun = [self._begin(units, out) for _, units in sorted(starting.items()) if units]
        if self._leader is None or not self._leader.is_video:
            video = [cutter for cutter in begun if cutter.is_video]
            if video or (self._leader is None and begun):
                first = (video or begun)[0]
                if self._leader is None:
                    unit = starting[first.track.track_id][0]
                    self.on_boundary(SegmentStart.of_first(first, unit, self._offset_s))
                self._lead(first)
        for unit in sorted((u for units in starting.values() for u in units), key=lambda u: u.seq):
            self._push(self._cutters[unit.track_id], unit, out)

    def _lead(self, cutter: RenditionCutter) -> None:
        self._leader = cutter
        self._expected_pts = None

    def _begin(self, units: list[AccessUnit], out: list[PackagedEvent]) -> RenditionCutter:
        """Make the cutter of a track from its first units."""
        track = self._tracks.of(units[0])
        cadence = measure_cadence(track, [u.dts for u in units], self.config.part_ms * 1000)
        rendition = self._rendition(track, cadence)
        cutter = RenditionCutter(track, rendition, cadence, self._writer)
        cutter.offset_ticks = self._offset_s * track.timescale
        if (leader := self._leader) is not None:
            cutter.msn = leader.msn + len(leader.boundaries)
            ahead = sum(boundary.discontinuity for boundary in leader.boundaries)
            cutter.discontinuity_sequence = leader.discontinuity_sequence + ahead
        init, digest = self._make_init(track)
        self._cutters[track.track_id] = cutter
        cutter.announce(init, digest, out)
        return cutter

    def _rendition(self, track: Track, cadence: Cadence) -> Rendition:
        name = self._tracks.name(track)
        config = self.config
        return describe_rendition(name, track, cadence, config.target_duration_s, config.latency)

    def _make_init(self, track: Track) -> tuple[bytes, str]:
        init = self._writer.make_init(track)
        return init, init_digest(init)

    def _offer(self, cutter: RenditionCutter, unit: AccessUnit, out: list[PackagedEvent]) -> None:
        """Push a unit, or hold it until the leading rung has come as far; then let others go."""
        if unit.random_access and cutter.is_video and self._takes_lead(cutter, unit):
            self._lead(cutter)
        held, leader = self._held, self._leader
        if unit.track_id in held.by_track or self._is_early(cutter, unit):
            held.add(unit)
        else:
            self._push(cutter, unit, out)
        if not held or leader is None:
            return
        over, in_vain = held.due(self._cutters, leader, cutter, unit)
        if in_vain:
            self._lead(self._cutters[min(in_vain)])
        if over or in_vain:
            self._let_go(over + in_vain, out)

    def _is_early(self, cutter: RenditionCutter, unit: AccessUnit) -> bool:
        """Whether a rung comes to a key frame where the leading one, not there yet, may end."""
        leader = self._leader
        if leader is None or cutter is leader or not (cutter.is_video and unit.random_access):
            return False
        if not cutter.started or not leader.started or cutter.boundaries or unit.discontinuity:
            return False
        if unit.config_id != cutter.config_id or is_decided(leader, unit, cutter.track.timescale):
            return False
        if self._ahead_s(cutter, unit, leader) > HELD_S_MAX:
            return False
        dts = unit.pts * leader.track.timescale // cutter.track.timescale - leader.gops.shift
        return self._rule.may_end(leader, leader.elapsed(dts))

    def _let_go(self, track_ids: list[int], out: list[PackagedEvent]) -> None:
        units = [unit for track_id in track_ids for unit in self._held.by_track.pop(track_id)]
        for unit in sorted(units, key=lambda unit: unit.seq):
            self._push(self._cutters[unit.track_id], unit, out)

    def _push(self, cutter: RenditionCutter, unit: AccessUnit, out: list[PackagedEvent]) -> None:
        """Put a unit into the segment that it belongs to, ending others before."""
        leader = self._leader
        init = self._new_init(cutter, unit, out) if unit.config_id != cutter.config_id else None
        jumped = self._has_jumped(cutter, unit)
        apart = jumped or unit.discontinuity or init is not None
        if self._skipped and unit.track_id in self._skipped:
            self._skipped.remove(unit.track_id)
            apart = True
        if apart and cutter.has_media:
            self._discontinue(cutter, unit, out, jumped=jumped)
        elif self._rule.must_end(cutter, unit, leads=cutter is leader):
            if not cutter.boundaries:
                self._add_boundary(cutter, unit, out)
            self._pass_boundary(cutter, unit, out)
        while cutter.boundaries and self._is_past(cutter, unit):
            self._pass_boundary(cutter, unit, out)
        if init is not None:
            cutter.announce(*init, out)
        if unit.dts + cutter.offset_ticks < 0:
            self._statistics.units_dropped += 1
            return
        if (unit.random_access and cutter.is_video) or (cutter is leader and not cutter.started):
            self._note_start(cutter, unit)
        cutter.add_unit(unit, out)
        if cutter is self._leader and self._is_beyond_end(cutter, unit):
            self._expect_segment_end(cutter, cutter.segment_start, after=unit.dts)
        self._bound_segments(cutter, out)

    def _bound_segments(self, cutter: RenditionCutter, out: list[PackagedEvent]) -> None:
        """After a unit of `cutter`: bound all segments in bytes, and in time the silent ones."""
        segment_bytes = 0
        for other in self._cutters.values():
            segment_bytes += other.segment_bytes
            if other.boundaries and self._rule.is_silent(other, cutter):
                self._pass_boundary(other, None, out)
        if segment_bytes > SEGMENT_BYTES_MAX:
            raise RemoteProtocolError(
                f"segment of {segment_bytes} bytes in all renditions, limit {SEGMENT_BYTES_MAX}"
            )

    def _is_lost(self, cutter: RenditionCutter, unit: AccessUnit) -> bool:
        """Whether a picture cannot be decoded, as units before it are missing."""
        lost = unit.track_id in self._skipped and cutter.is_video and not unit.random_access
        self._statistics.units_dropped += lost
        return lost

    def _takes_lead(self, cutter: RenditionCutter, unit: AccessUnit) -> bool:
        """Whether a rung takes the lead at this random access, as the one that has it is silent."""
        leader = self._leader
        if leader is None or cutter is leader or cutter.boundaries or leader.boundaries:
            return False
        return self._ahead_s(cutter, unit, leader) > HELD_S_MAX

    @staticmethod
    def _ahead_s(cutter: RenditionCutter, unit: AccessUnit, leader: RenditionCutter) -> float:
        """By how much a rung's unit is further than the leading rung."""
        timescale = cutter.track.timescale
        if leader.last is None:
            return cutter.elapsed(unit.dts) / timescale  # At least: it has nothing here yet.
        return unit.dts / timescale - leader.last.dts / leader.track.timescale

    def _new_init(
        self, cutter: RenditionCutter, unit: AccessUnit, out: list[PackagedEvent]
    ) -> tuple[bytes, str] | None:
        """Take the unit's configuration; None when it makes no other init segment."""
        track = self._tracks.of(unit)
        init, digest = self._make_init(track)
        rendition = msgspec.structs.replace(
            self._rendition(track, cutter.cadence),
            part_target_us=cutter.rendition.part_target_us,
        )
        told = cutter.rendition
        cutter.switch(track, rendition)
        if digest != cutter.init_digest:
            return init, digest
        if rendition != told:
            out.append(rendition)  # Another name or language.
        return None

    def _discontinue(
        self, cutter: RenditionCutter, unit: AccessUnit, out: list[PackagedEvent], *, jumped: bool
    ) -> None:
        """End the segment before a unit that stands behind a discontinuity."""
        if not any(boundary.discontinuity for boundary in cutter.boundaries):
            self._add_boundary(cutter, unit, out, discontinuity=True, jumped=jumped)
        while not self._pass_boundary(cutter, unit, out).discontinuity:
            pass
        cutter.gops.forget()

    def _has_jumped(self, cutter: RenditionCutter, unit: AccessUnit) -> bool:
        """Whether the unit lies on another timeline than the last one of its track."""
        if cutter.last is None:
            return False
        step = unit.dts - cutter.last.dts
        timescale = cutter.track.timescale
        if step < -JUMP_BACK_S_MAX * timescale:
            return True
        if step <= JUMP_S_MAX * timescale:
            return False
        # This track alone has been silent if another is where it is now.
        return not any(
            other.last is not None
            and abs(other.last.dts / other.track.timescale - unit.dts / timescale) < JUMP_S_MAX
            for other in self._cutters.values()
            if other is not cutter
        )

    def _is_past(self, cutter: RenditionCutter, unit: AccessUnit) -> bool:
        """Whether the unit lies beyond the cutter's next boundary."""
        boundary = cutter.boundaries[0]
        timescale = cutter.rendition.timescale
        past_s = unit.pts / timescale - boundary.pts / boundary.timescale
        if boundary.jumped:
            return abs(past_s) < JUMP_S_MAX
        if cutter.is_video:
            return self._is_rung_past(cutter, unit, past_s)
        return unit.pts * boundary.timescale >= boundary.pts * timescale

    def _is_rung_past(self, cutter: RenditionCutter, unit: AccessUnit, past_s: float) -> bool:
        if past_s < -cutter.cadence.gap_ticks / cutter.rendition.timescale / 2:
            return False
        boundary, last = cutter.boundaries[0], cutter.last
        if not cutter.started and not boundary.discontinuity and last is not None:
            # Nothing came of the segment. If the one before was ended for it late, this one has yet
            # to come; else it is absent media.
            return unit.dts - last.dts > cutter.cadence.part_ticks
        if boundary.discontinuity or cutter is self._leader:
            return unit.random_access
        if not unit.random_access:
            if self._rule.awaits_random_access(cutter, unit):
                return False
            self._statistics.unaligned += 1
        self._statistics.deviation_s = max(self._statistics.deviation_s, past_s)
        return True

    def _add_boundary(
        self,
        cutter: RenditionCutter,
        unit: AccessUnit,
        out: list[PackagedEvent],
        *,
        discontinuity: bool = False,
        jumped: bool = False,
    ) -> None:
        """Let the segment end in all renditions, at this unit's presentation."""
        timescale = cutter.track.timescale
        if jumped:
            self._offset_s = max(0, -(unit.dts // timescale))
        for other in self._cutters.values():
            while other.boundaries and (discontinuity or other is not cutter):
                # It has not come to the last boundary: it is silent, or a segment behind.
                self._pass_boundary(other, unit if other is cutter else None, out)
        boundary = Boundary(
            pts=unit.pts,
            timescale=timescale,
            segment_us=cutter.elapsed_us or max(c.elapsed_us for c in self._cutters.values()),
            discontinuity=discontinuity,
            jumped=jumped,
            offset_s=self._offset_s,
        )
        if discontinuity:
            self._statistics.discontinuities += 1
            self._discontinuities_left -= 1
            if self._discontinuities_left < 0:
                raise RemoteProtocolError(
                    f"more than {DISCONTINUITIES_MAX} discontinuities with no segment between"
                )
        else:
            left = self._discontinuities_left + 1
            self._discontinuities_left = min(left, DISCONTINUITIES_MAX)
        for other in self._cutters.values():
            other.boundaries.append(boundary)
            self._rule.expect(other, self._leader, self._expected_pts)
        assert self._leader is not None, "who adds a boundary has begun"
        independent = unit.random_access or not cutter.is_video
        self.on_boundary(SegmentStart.of_next(self._leader, unit, random_access=independent))

    def _pass_boundary(
        self, cutter: RenditionCutter, unit: AccessUnit | None, out: list[PackagedEvent]
    ) -> Boundary:
        """End the cutter's segment at its next boundary."""
        boundary = cutter.boundaries.popleft()
        ahead = (other for other in self._cutters.values() if not other.boundaries)
        cutter.lag_s = max((other.past_s(boundary) for other in ahead), default=0.0)
        timescale = cutter.track.timescale
        until = unit.dts if unit is not None and not boundary.jumped else None
        if until is not None:
            # A hole at the end may not make the segment longer than its rounded limit.
            late = self._rule.late_ticks(timescale)
            until = min(until, max(cutter.segment_start + late, cutter.end_dts))
        cutter.end_segment(until, max(boundary.segment_us * timescale // US, 1), out)
        if boundary.discontinuity:
            cutter.restart(boundary.offset_s * timescale)
        if boundary.jumped:
            cutter.gops.forget()
        self._rule.expect(cutter, self._leader, self._expected_pts)
        return boundary

    def _note_start(self, cutter: RenditionCutter, unit: AccessUnit) -> None:
        """A rung has random access, or the leading segment begins: foresee the next boundary."""
        if unit.random_access and cutter.is_video:
            cutter.gops.note(unit)
        if (leader := self._leader) is not cutter:
            self._rule.expect(cutter, self._leader, self._expected_pts)
            return
        self._expect_segment_end(leader, leader.segment_start if leader.started else unit.dts)

    def _is_beyond_end(self, leader: RenditionCutter, unit: AccessUnit) -> bool:
        """Whether the segment goes on with a unit from which on the next one was foreseen."""
        end, end_pts = leader.expected_end, self._expected_pts
        if end is None or end_pts is None or leader.boundaries:
            return False
        return unit.dts >= end and unit.pts >= end_pts

    def _expect_segment_end(
        self, leader: RenditionCutter, start: int, after: int | None = None
    ) -> None:
        """Foresee the next boundary, behind `after` if it did not come where it was foreseen."""
        end = self._rule.expected_end(leader, start, after)
        self._expected_pts = None if end is None else end + leader.gops.shift
        for other in self._cutters.values():
            self._rule.expect(other, self._leader, self._expected_pts)
