"""Decides where a stream's parts and segments end (RFC 8216bis §6.2, Appendix B.1).

    units in `seq` order -> [start: measure each track] -> a cutter for each rendition -> events

One rendition leads: the first video, else the first audio. Its segments end at random access; the
others follow at the first unit with that presentation time, so that an MSN means the same seconds
in all. Everything follows from the order of the units alone, never from a clock: another origin
that replays them makes the same bytes.
"""

import hashlib
from collections.abc import Iterable

import msgspec
from msgspec import Struct

from edged.errors import RemoteProtocolError
from edged.media.parts import PackagedEvent, Rendition, StreamEnded
from edged.media.track import AccessUnit, Kind, Track
from edged.policy.cadence import US, Cadence, is_measured, measure_cadence
from edged.policy.cutter import Boundary, FragmentWriter, RenditionCutter
from edged.policy.segment_rule import SegmenterConfig, SegmentRule

START_S = 1  # The longest wait for a track that has been announced but is silent.
START_VIDEO_S = 3  # The same when audio waits for the first picture.
WAITING_UNITS_MAX = 2048  # Before the start, over all tracks; then it starts with what it knows.
WAITING_BYTES_MAX = 32 * 2**20  # The same: 3 s at 85 Mbps.
SEGMENT_BYTES_MAX = 48 * 2**20  # Of all renditions: 4.4 s at 91 Mbps; a window holds two of it.
DISCONTINUITIES_MAX = 16  # At once; each segment that ends without one allows one more.
TRACKS_MAX = 32  # What a window takes.
CONFIGS_MAX = 4  # Of a track: units in flight name the last one or the one before.
JUMP_BACK_S_MAX = 1  # Further back is another timeline; less is an encoder's disorder.
JUMP_S_MAX = 3  # Further on is another timeline, unless another track is there as well.
OFFSET_MAX = 2**31  # Ticks from dts to pts: a fragment has 32 bits for it.
TIME_MAX = 2**62  # Ticks: a fragment has 64 bits for it.


class SegmenterStatistics(Struct, kw_only=True):
    """What has been cut, and what was wrong with the stream."""

    units: int = 0
    units_dropped: int = 0  # Before the first random access, or earlier than their timeline.
    parts: int = 0
    long_gops: int = 0  # Segments that had to end at a picture without random access.
    gop_s: float = 0.0  # The leading rendition's last GOP.
    discontinuities: int = 0
    missing_s: float = 0.0  # Absent media, of the rendition that misses most.


class RenditionMark(Struct, frozen=True, kw_only=True):
    """How far a rendition is packaged: what an ack carries, and what a new home goes on from."""

    name: str
    msn: int
    part: int  # Index of the last one of `msn`; -1 when there is none yet.
    tfdt: int  # Where the next part begins.
    discontinuity_sequence: int
    init_digest: str


class Segmenter:
    """One stream's segmenter.

    Units that cannot be packaged raise `RemoteProtocolError`; a codec that cannot,
    `UnsupportedMediaError`.
    """

    def __init__(self, config: SegmenterConfig, writer: FragmentWriter) -> None:
        assert config.target_duration_s >= config.segment_s
        self._config = config
        self._rule = SegmentRule(config)
        self._statistics = SegmenterStatistics()
        self._writer = writer
        self._tracks: dict[int, dict[int, Track]] = {}  # By track and configuration.
        self._names: dict[int, str] = {}
        self._waiting: dict[int, list[AccessUnit]] = {}
        self._waiting_bytes = 0
        self._cutters: dict[int, RenditionCutter] = {}
        self._leader: RenditionCutter | None = None
        self._skipped: set[int] = set()
        self._offset_s = 0
        self._discontinuities_left = DISCONTINUITIES_MAX
        self._last_seq = -1
        self._expected_pts: int | None = None  # Of the leader's next boundary.
        self._random_access_shift = 0  # From dts to pts, where the leader has random access.

    @property
    def packaged_seq(self) -> int:
        """All units up to this one are in parts, or will never be; -1 before the first."""
        pending = [cutter.pending_seq for cutter in self._cutters.values()]
        pending += [units[0].seq for units in self._waiting.values() if units]
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

    def statistics(self) -> SegmenterStatistics:
        """What has been cut, and what was wrong with the stream."""
        leader = self._leader
        gop_s = self._rule.gop_ticks / leader.rendition.timescale if leader is not None else 0.0
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
        if track.kind is Kind.DATA:
            return
        configs = self._tracks.get(track.track_id)
        if track.timescale <= 0 or (
            configs is not None
            and (track.kind, track.timescale)
            != (self._kind(track.track_id), self._timescale(track.track_id))
        ):
            raise RemoteProtocolError(
                f"track {track.track_id} may not become {track.kind} of timescale {track.timescale}"
            )
        if configs is None:
            if len(self._tracks) >= TRACKS_MAX:
                raise RemoteProtocolError(f"track {track.track_id} exceeds {TRACKS_MAX} tracks")
            configs = self._tracks[track.track_id] = {}
            taken = sum(name.startswith(track.kind[0]) for name in self._names.values())
            self._names[track.track_id] = f"{track.kind[0]}{taken}"
        configs[track.config_id] = track
        if len(configs) > CONFIGS_MAX:
            del configs[min(configs)]

    def skip_units(self) -> None:
        """Units have been lost before the next one: what follows stands behind a discontinuity."""
        self._skipped = set(self._cutters)

    def add_unit(self, unit: AccessUnit) -> list[PackagedEvent]:
        """Take the next unit of the publication; returns what it completes."""
        out: list[PackagedEvent] = []
        self._last_seq = unit.seq
        self._statistics.units += 1
        if abs(unit.dts) > TIME_MAX or abs(unit.pts - unit.dts) >= OFFSET_MAX:
            raise RemoteProtocolError(
                f"unit {unit.seq} of track {unit.track_id}: dts {unit.dts}, pts {unit.pts}"
            )
        cutter = self._cutters.get(unit.track_id)
        if cutter is not None:
            self._push(cutter, unit, out)
        elif unit.track_id in self._tracks:
            self._wait(unit, out)
        return out

    def end(self, reason: str) -> list[PackagedEvent]:
        """The publication ended: what is pending is cut, and nothing follows."""
        out: list[PackagedEvent] = []
        if any(self._waiting.values()):
            self._start(list(self._waiting), out)
        for cutter in self._cutters.values():
            if cutter.started:
                cutter.end_segment(None, 0, out)
        out.append(StreamEnded(reason=reason))
        return out

    def _wait(self, unit: AccessUnit, out: list[PackagedEvent]) -> None:
        """Keep a unit of a track that is not measured yet."""
        units = self._waiting.setdefault(unit.track_id, [])
        track = self._track_of(unit)
        if not units and track.kind is Kind.VIDEO and not unit.random_access:
            self._statistics.units_dropped += 1
            return
        if units:
            step = unit.dts - units[-1].dts
            if not -JUMP_BACK_S_MAX * track.timescale <= step <= JUMP_S_MAX * track.timescale:
                self._statistics.units_dropped += len(units)
                self._waiting_bytes -= sum(len(waiting.payload) for waiting in units)
                units.clear()
            elif step <= 0:
                unit = msgspec.structs.replace(unit, dts=units[-1].dts + 1)
        units.append(unit)
        self._waiting_bytes += len(unit.payload)
        full = self._waiting_bytes >= WAITING_BYTES_MAX
        full = full or sum(map(len, self._waiting.values())) >= WAITING_UNITS_MAX
        if self._cutters:
            if full or self._measured(unit.track_id):
                self._start([unit.track_id], out)
        elif full or self._may_start():
            self._start([track_id for track_id, units in self._waiting.items() if units], out)

    def _may_start(self) -> bool:
        kinds = {self._kind(track_id) for track_id in self._tracks}
        measured = [track_id for track_id in self._waiting if self._measured(track_id)]
        if len(kinds) > 1 and len(measured) == len(self._tracks):
            return True
        awaits_video = Kind.VIDEO in kinds and not any(
            units and self._kind(track_id) is Kind.VIDEO
            for track_id, units in self._waiting.items()
        )
        patience_s = START_VIDEO_S if awaits_video else START_S
        return any(
            units and units[-1].dts - units[0].dts >= patience_s * self._timescale(track_id)
            for track_id, units in self._waiting.items()
        )

    def _start(self, track_ids: Iterable[int], out: list[PackagedEvent]) -> None:
        """Begin these tracks' renditions, with all that has waited."""
        starting = {track_id: self._waiting.pop(track_id) for track_id in track_ids}
        self._waiting_bytes = sum(len(u.payload) for units in self._waiting.values() for u in units)
        if not self._cutters:
            self._drop_before_video(starting)
            for track_id, units in starting.items():
                # Whole seconds are exact in every timescale.
                offset_s = -(units[0].dts // self._timescale(track_id)) if units else 0
                self._offset_s = max(self._offset_s, offset_s)
        for track_id in sorted(starting, key=list(self._tracks).index):
            if starting[track_id]:
                self._begin(starting[track_id], out)
        for unit in sorted((u for units in starting.values() for u in units), key=lambda u: u.seq):
            self._push(self._cutters[unit.track_id], unit, out)

    def _drop_before_video(self, starting: dict[int, list[AccessUnit]]) -> None:
        """Audio from before the first picture would make the first segments differ."""
        video = [units[0] for key, units in starting.items() if self._kind(key) is Kind.VIDEO]
        if not video:
            return
        first = video[0]
        timescale = self._timescale(first.track_id)
        for track_id, units in starting.items():
            if self._kind(track_id) is Kind.AUDIO:
                own = self._timescale(track_id)
                kept = [unit for unit in units if unit.dts * timescale >= first.dts * own]
                self._statistics.units_dropped += len(units) - len(kept)
                units[:] = kept

    def _begin(self, units: list[AccessUnit], out: list[PackagedEvent]) -> None:
        """Make the cutter of a track from its first units."""
        track = self._track_of(units[0])
        cadence = measure_cadence(track, [u.dts for u in units], self._config.part_ms * 1000)
        rendition = self._rendition(track, cadence)
        cutter = RenditionCutter(track, rendition, cadence, self._writer)
        cutter.offset_ticks = self._offset_s * track.timescale
        if self._leader is not None:
            cutter.msn = self._leader.msn + len(self._leader.boundaries)
            cutter.discontinuity_sequence = self._leader.discontinuity_sequence
        init, digest = self._make_init(track)
        self._cutters[track.track_id] = cutter
        if self._leader is None or (
            track.kind is Kind.VIDEO and self._leader.rendition.kind is Kind.AUDIO
        ):
            self._leader = cutter
            self._rule.forget_gops()
            self._expected_pts = None
        cutter.announce(init, digest, out)

    def _rendition(self, track: Track, cadence: Cadence) -> Rendition:
        config = track.config
        rate_num, rate_den = config.frame_rate_num, config.frame_rate_den
        if track.kind is Kind.VIDEO and cadence.rate is not None:
            rate_num, rate_den = cadence.rate.numerator, cadence.rate.denominator
        return Rendition(
            name=self._names[track.track_id],
            kind=track.kind,
            timescale=track.timescale,
            codec_string=config.codec_string,
            part_target_us=-(-cadence.part_ticks * US // track.timescale),
            target_duration_s=self._config.target_duration_s,
            width=config.width,
            height=config.height,
            frame_rate_num=rate_num,
            frame_rate_den=rate_den,
            channels=config.channels,
            language=track.language,
        )

    def _make_init(self, track: Track) -> tuple[bytes, str]:
        init = self._writer.make_init(track)
        return init, hashlib.sha256(init).hexdigest()[:16]

    def _push(self, cutter: RenditionCutter, unit: AccessUnit, out: list[PackagedEvent]) -> None:
        """Put a unit into the segment that it belongs to, ending others before."""
        init = self._new_init(cutter, unit) if unit.config_id != cutter.config_id else None
        jumped = self._has_jumped(cutter, unit)
        apart = jumped or unit.discontinuity or init is not None or unit.track_id in self._skipped
        self._skipped.discard(unit.track_id)
        if apart and cutter.has_media:
            self._discontinue(cutter, unit, out, jumped=jumped)
        elif self._rule.must_end(cutter, unit, leads=cutter is self._leader):
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
        if cutter is self._leader and (unit.random_access or not cutter.started):
            self._forecast(cutter, unit)
        cutter.add_unit(unit, out)
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

    def _new_init(self, cutter: RenditionCutter, unit: AccessUnit) -> tuple[bytes, str] | None:
        """Take the unit's configuration; None when it makes no other init segment."""
        track = self._track_of(unit)
        init, digest = self._make_init(track)
        rendition = msgspec.structs.replace(
            self._rendition(track, cutter.cadence),
            part_target_us=cutter.rendition.part_target_us,
        )
        cutter.switch(track, rendition)
        return (init, digest) if digest != cutter.init_digest else None

    def _discontinue(
        self, cutter: RenditionCutter, unit: AccessUnit, out: list[PackagedEvent], *, jumped: bool
    ) -> None:
        """End the segment before a unit that stands behind a discontinuity."""
        if not any(boundary.discontinuity for boundary in cutter.boundaries):
            self._add_boundary(cutter, unit, out, discontinuity=True, jumped=jumped)
        while not self._pass_boundary(cutter, unit, out).discontinuity:
            pass
        if cutter is self._leader:
            self._rule.forget_gops()

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
        if cutter.rendition.kind is Kind.VIDEO:
            half_s = cutter.cadence.gap_ticks / timescale / 2
            return past_s >= -half_s and unit.random_access
        return unit.pts * boundary.timescale >= boundary.pts * timescale

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
        boundary = Boundary(
            pts=unit.pts,
            timescale=timescale,
            segment_us=(cutter.end_dts - cutter.segment_start) * US // timescale,
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
            while other is not cutter and other.boundaries:
                # It has not come to the last boundary: it is silent, or a segment behind.
                self._pass_boundary(other, None, out)
            other.boundaries.append(boundary)
            self._expect(other)

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
        self._expect(cutter)
        return boundary

    def _forecast(self, leader: RenditionCutter, unit: AccessUnit) -> None:
        """Foresee the next boundary, for the preload hints."""
        if unit.random_access:
            self._rule.note_random_access(unit)
            self._random_access_shift = unit.pts - unit.dts
        start = leader.segment_start if leader.started else unit.dts
        end = self._rule.expected_end(leader, start)
        self._expected_pts = None if end is None else end + self._random_access_shift
        for cutter in self._cutters.values():
            self._expect(cutter)

    def _expect(self, cutter: RenditionCutter) -> None:
        """Tell a cutter from which decode time on units likely belong to the next segment."""
        leader = self._leader
        if cutter.boundaries:
            pts, timescale = cutter.boundaries[0].pts, cutter.boundaries[0].timescale
        elif leader is None or self._expected_pts is None or cutter.msn != leader.msn:
            cutter.expected_end = None
            return
        else:
            pts, timescale = self._expected_pts, leader.rendition.timescale
        # Those with B-frames decode earlier than they present, all by about as much.
        shift = self._random_access_shift if cutter.rendition.kind is Kind.VIDEO else 0
        cutter.expected_end = -(-pts * cutter.rendition.timescale // timescale) - shift

    def _measured(self, track_id: int) -> bool:
        units = self._waiting.get(track_id, [])
        return bool(units) and is_measured(self._track_of(units[0]), [u.dts for u in units])

    def _track_of(self, unit: AccessUnit) -> Track:
        track = self._tracks[unit.track_id].get(unit.config_id)
        if track is None:
            raise RemoteProtocolError(
                f"unit {unit.seq} of track {unit.track_id} names unknown config {unit.config_id}"
            )
        return track

    def _kind(self, track_id: int) -> Kind:
        return next(iter(self._tracks[track_id].values())).kind

    def _timescale(self, track_id: int) -> int:
        return next(iter(self._tracks[track_id].values())).timescale
