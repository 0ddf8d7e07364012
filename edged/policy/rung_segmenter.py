"""Cuts the rungs that an origin encodes, at the boundaries that the source's segmenter has set.

    the source's SegmentStarts ─┐
    encoded units ──────────────┴─▶ a cutter for each rung ─▶ events, some later than the source's

An encoded picture has the source's own time, and random access where the source has it. So a rung's
segments begin with the very pictures that the source's do, and an MSN means the same in all. A rung
may be away for a while, as when its encoder is begun anew or shed: what it misses is absent media,
said in time, so that its playlist is never behind the others'; it comes back with a segment's
beginning. Nothing here decides anything about the source.
"""

from collections import deque
from collections.abc import Collection, Iterable

from msgspec import Struct, field, structs

from edged.media.access_unit import AccessUnit
from edged.media.parts import PackagedEvent, Part, Rendition, SegmentEnded
from edged.media.track import Kind, Track
from edged.policy.cadence import US, Cadence, is_measured, measure_cadence
from edged.policy.cutter import AUDIO_HOLE_US_MAX, FragmentWriter, RenditionCutter
from edged.policy.gops import are_alike
from edged.policy.known_tracks import CONFIGS_MAX
from edged.policy.rendition_window import PARTS_MAX
from edged.policy.renditions import describe_rendition, init_digest
from edged.policy.segment_rule import WAIT_SPARE_S, WAIT_TARGETS, SegmenterConfig
from edged.policy.segment_starts import TIMELINE_S, SegmentStart
from edged.policy.waiting_units import JUMP_BACK_S_MAX, JUMP_S_MAX

STARTS_MAX = 32  # Known and not passed by all; beyond it the oldest are absent media.
WAITING_UNITS_MAX = 1024  # Of a rung that is measured, or whose segment is not decided yet;
WAITING_BYTES_MAX = 16 * 2**20  # beyond it they are dropped.
HOLE_S = 0.5  # Between two units: the encoder was begun anew between them.
NEAR_S = 0.25  # Behind a segment's beginning; a picture of a slow rung, or a unit of audio.


class _Rung(Struct):
    """One rung: what waits until it begins, then its cutter."""

    name: str
    configs: dict[int, Track]
    cutter: RenditionCutter | None = None
    starts: deque[SegmentStart] = field(default_factory=deque)  # Yet to be passed.
    current: SegmentStart | None = None  # Of the segment of now.
    before_us: int = 0  # How long the segment before the last one was.
    waiting: list[AccessUnit] = field(default_factory=list)
    waiting_bytes: int = 0
    is_away: bool = True  # It has not come to the beginning of a segment since it was lost.
    is_wanted: bool = True
    is_told_away: bool = False  # Viewers were told that nothing more of it comes.

    @property
    def track(self) -> Track:
        """As configured last."""
        return next(reversed(self.configs.values()))


class RungStatistics(Struct, frozen=True, kw_only=True):
    """What has been cut."""

    parts: int
    units_dropped: int  # Before a segment's beginning.
    segments_absent: int


class RungSegmenter:
    """The encoded rungs of one stream."""

    def __init__(self, config: SegmenterConfig, writer: FragmentWriter) -> None:
        self._config, self._writer = config, writer
        self._rungs: dict[int, _Rung] = {}
        self._last: SegmentStart | None = None  # The newest that is known.
        self._wanted: Collection[int] | None = None  # None: all.
        self._dropped = self._absent = 0

    def add_track(self, track: Track, name: str) -> None:
        """Take a rung's track, or its new configuration; `name` is its rendition's, for good."""
        rung = self._rungs.get(track.track_id)
        if rung is None:
            rung = self._rungs[track.track_id] = _Rung(name=name, configs={})
            rung.is_wanted = self._wanted is None or track.track_id in self._wanted
            if self._last is not None:
                rung.starts.append(self._last)
        rung.configs.pop(track.config_id, None)
        rung.configs[track.config_id] = track
        if len(rung.configs) > CONFIGS_MAX:
            del rung.configs[next(iter(rung.configs))]

    def want(self, track_ids: Collection[int]) -> list[PackagedEvent]:
        """These rungs are made from now on; viewers of another are told at once that it is away.

        It is announced again with the first part that comes of it when it is made again.
        """
        out: list[PackagedEvent] = []
        self._wanted = frozenset(track_ids)
        for track_id, rung in self._rungs.items():
            rung.is_wanted = track_id in track_ids
            if rung.is_wanted or rung.is_told_away:
                continue
            self._dropped += len(rung.waiting)
            rung.waiting, rung.waiting_bytes = [], 0
            if rung.cutter is not None:
                rung.is_told_away = True
                out.append(structs.replace(rung.cutter.rendition, away=True))
        return out

    def begin_segment(self, start: SegmentStart) -> list[PackagedEvent]:
        """The source's next segment begins there; what no rung will come to is absent media."""
        out: list[PackagedEvent] = []
        self._last = start
        for rung in self._rungs.values():
            rung.starts.append(start)
            if rung.cutter is None:
                while len(rung.starts) > STARTS_MAX:
                    rung.starts.popleft()
                continue
            while self._is_silent(rung.starts) or len(rung.starts) > STARTS_MAX:
                self._pass(rung, rung.cutter, None, out)
            self._expect(rung, rung.cutter)
        return out

    def add_unit(self, unit: AccessUnit) -> list[PackagedEvent]:
        """Take the next unit of a rung, whose track is known; returns what it completes."""
        out: list[PackagedEvent] = []
        rung = self._rungs[unit.track_id]
        if not rung.is_wanted:  # Its encoder has not heard of it yet.
            self._dropped += 1
            return out
        if rung.cutter is not None:
            self._push(rung, rung.cutter, unit, out)
            if rung.is_told_away and any(isinstance(event, Part) for event in out):
                rung.is_told_away = False
                out.insert(0, rung.cutter.rendition)
            return out
        is_full = len(rung.waiting) >= WAITING_UNITS_MAX or rung.waiting_bytes > WAITING_BYTES_MAX
        if is_full or _is_behind_hole(rung.waiting, unit, rung.track):
            self._dropped += len(rung.waiting)
            rung.waiting, rung.waiting_bytes = [], 0
        rung.waiting.append(unit)
        rung.waiting_bytes += len(unit.payload)
        if self._may_begin(rung):
            self._begin(rung, out)
        return out

    def end(self) -> list[PackagedEvent]:
        """The source has ended: what is pending is cut."""
        out: list[PackagedEvent] = []
        for rung in self._rungs.values():
            if rung.cutter is None and rung.waiting and rung.starts:
                self._begin(rung, out)
            if rung.cutter is not None and rung.cutter.started:
                rung.cutter.end_segment(None, 0, out)
        return out

    def statistics(self) -> RungStatistics:
        """What has been cut, and what could not be."""
        cutters = [rung.cutter for rung in self._rungs.values() if rung.cutter is not None]
        return RungStatistics(
            parts=sum(cutter.parts_cut for cutter in cutters),
            units_dropped=self._dropped,
            segments_absent=self._absent,
        )

    def _may_begin(self, rung: _Rung) -> bool:
        """Whether its pace can be judged, and a segment that it has the beginning of is known."""
        units = self._from_a_start(rung)
        return bool(units) and is_measured(rung.track, [unit.dts for unit in units])

    def _from_a_start(self, rung: _Rung) -> list[AccessUnit]:
        """What waits, from the beginning of a segment on; earlier units are let go of."""
        starts, waiting = rung.starts, rung.waiting
        while starts and waiting:
            first = waiting[0]
            for _ in range(_count_passed(starts[0], list(starts)[1:], first, rung.track)):
                starts.popleft()
            if _is_at(first, rung.track, starts[0]):
                return waiting
            self._dropped += 1
            rung.waiting_bytes -= len(waiting.pop(0).payload)
        return []

    def _begin(self, rung: _Rung, out: list[PackagedEvent]) -> None:
        """Announce a rung, and cut what has waited."""
        units = self._from_a_start(rung)
        if not units:
            return
        track = rung.configs.get(units[0].config_id, rung.track)
        part_us = self._config.part_ms * 1000
        cadence = measure_cadence(track, [unit.dts for unit in units], part_us)
        rendition = self._describe(rung, track, cadence)
        rung.cutter = cutter = RenditionCutter(track, rendition, cadence, self._writer)
        start = rung.starts.popleft()
        cutter.offset_ticks = start.boundary.offset_s * track.timescale
        cutter.discontinuity_sequence = start.discontinuity_sequence
        self._enter(rung, cutter, start)
        init = self._writer.make_init(track)
        cutter.announce(init, init_digest(init), out)
        rung.waiting, rung.waiting_bytes, rung.is_away = [], 0, False
        for unit in units:
            self._push(rung, cutter, unit, out)

    def _enter(self, rung: _Rung, cutter: RenditionCutter, start: SegmentStart) -> None:
        """A cutter's next segment is this one."""
        if rung.current is not None:
            rung.before_us = rung.current.boundary.segment_us or start.boundary.segment_us
        rung.current = start
        cutter.msn = start.msn
        self._expect(rung, cutter)

    @staticmethod
    def _expect(rung: _Rung, cutter: RenditionCutter) -> None:
        """Foresee the end of the segment of now: mostly the source is ahead."""
        timescale = cutter.track.timescale
        cutter.expected_end = cutter.planned_end = None
        if rung.starts and not rung.starts[0].boundary.jumped:
            boundary = rung.starts[0].boundary
            cutter.expected_end = -(-boundary.pts * timescale // boundary.timescale)
            cutter.planned_end = cutter.expected_end
        elif not rung.starts and rung.current is not None:
            begun = rung.current.boundary
            if begun.segment_us and are_alike(begun.segment_us, rung.before_us):
                length = begun.segment_us * timescale // US
                cutter.planned_end = -(-begun.pts * timescale // begun.timescale) + length

    def _push(
        self, rung: _Rung, cutter: RenditionCutter, unit: AccessUnit, out: list[PackagedEvent]
    ) -> None:
        """Put a unit into the segment that it belongs to, ending others before."""
        if rung.starts:
            assert rung.current is not None, "it has begun"
            for _ in range(_count_passed(rung.current, rung.starts, unit, cutter.track)):
                self._pass(rung, cutter, unit, out)
        if rung.is_away and rung.current is not None and not cutter.started:
            rung.is_away = not _is_at(unit, cutter.track, rung.current)
        if rung.is_away or unit.dts + cutter.offset_ticks < 0:
            self._dropped += 1
            return
        if unit.config_id != cutter.config_id:
            self._switch(rung, cutter, unit, out)
        cutter.add_unit(unit, out)

    def _pass(
        self,
        rung: _Rung,
        cutter: RenditionCutter,
        unit: AccessUnit | None,
        out: list[PackagedEvent],
    ) -> None:
        """End the segment of now, before `unit`, where there is one."""
        start = rung.starts.popleft()
        boundary, timescale = start.boundary, cutter.track.timescale
        end = None if boundary.jumped else -(-boundary.pts * timescale // boundary.timescale)
        until, whole_ticks = end, cutter.cadence.gap_ticks
        if unit is not None and end is not None and _is_at(unit, cutter.track, start):
            until = unit.dts
            if not cutter.is_video:  # What is missing is closed, and none of it is absent.
                whole_ticks = max(whole_ticks, AUDIO_HOLE_US_MAX * timescale // US)
        hole_ticks = 0
        if cutter.started and until is not None:
            hole_ticks = until - cutter.end_dts
        self._absent += not cutter.started
        parts_missing = max(-(-hole_ticks // cutter.cadence.part_ticks), 0)
        if hole_ticks <= whole_ticks:
            parts_missing = 0  # It is whole: a picture may last a little longer.
        gap_ticks = max(boundary.segment_us * timescale // US, 1)
        cutter.end_segment(until if cutter.started else None, gap_ticks, out)
        if parts_missing and isinstance(ended := out[-1], SegmentEnded):
            out[-1] = structs.replace(ended, parts=min(ended.parts + parts_missing, PARTS_MAX))
        if boundary.discontinuity:
            cutter.restart(boundary.offset_s * timescale)
        self._enter(rung, cutter, start)
        rung.is_away = unit is None or not _is_at(unit, cutter.track, start)

    def _switch(
        self, rung: _Rung, cutter: RenditionCutter, unit: AccessUnit, out: list[PackagedEvent]
    ) -> None:
        """Take the unit's configuration; its encoder may have been begun anew."""
        track = rung.configs.get(unit.config_id, cutter.track)
        described = self._describe(rung, track, cutter.cadence)
        fixed = structs.replace(described, part_target_us=cutter.rendition.part_target_us)
        cutter.switch(track, fixed)
        init = self._writer.make_init(track)
        digest = init_digest(init)
        if digest != cutter.init_digest:
            cutter.announce(init, digest, out)

    def _describe(self, rung: _Rung, track: Track, cadence: Cadence) -> Rendition:
        config = self._config
        return describe_rendition(
            rung.name, track, cadence, config.target_duration_s, config.latency
        )

    def _is_silent(self, starts: deque[SegmentStart]) -> bool:
        """Whether a segment would come too late if it waited any longer (RFC 8216bis §6.2.1)."""
        waited_us = sum(start.boundary.segment_us for start in list(starts)[1:])
        limit_s = WAIT_TARGETS * self._config.target_duration_s - WAIT_SPARE_S
        return len(starts) > 1 and waited_us >= limit_s * US


def _is_behind_hole(waiting: list[AccessUnit], unit: AccessUnit, track: Track) -> bool:
    """Whether a unit tells nothing of how those before it follow each other."""
    return bool(waiting) and not 0 < unit.dts - waiting[-1].dts <= HOLE_S * track.timescale


def _offset_s(unit: AccessUnit, track: Track) -> float:
    """What names a unit's timeline: the wallclock of its time 0."""
    return unit.wallclock_us / US - unit.pts / track.timescale


def _are_one(offset_s: float, start: SegmentStart) -> bool:
    """Whether a unit of a timeline is on that of a segment's beginning."""
    return abs(offset_s - start.offset_s) < TIMELINE_S


def _count_passed(
    before: SegmentStart, starts: Iterable[SegmentStart], unit: AccessUnit, track: Track
) -> int:
    """How many of the beginnings to come, after the one `before`, a unit lies beyond."""
    offset_s, passed = _offset_s(unit, track), 0
    for count, start in enumerate(starts, 1):
        if _are_one(offset_s, start):
            begins = not _are_one(before.offset_s, start)
            boundary = start.boundary
            if begins or unit.pts * boundary.timescale >= boundary.pts * track.timescale:
                passed = count
        elif unit.wallclock_us >= start.wallclock_us + JUMP_BACK_S_MAX * US:
            passed = count  # It is of a timeline that began later.
        before = start
    return passed


def _is_at(unit: AccessUnit, track: Track, start: SegmentStart) -> bool:
    """Whether a rung may begin a segment with a unit: it is its first, and as the source's is."""
    if track.kind is Kind.VIDEO and start.random_access and not unit.random_access:
        return False
    if not _are_one(_offset_s(unit, track), start):
        return False
    past_s = unit.pts / track.timescale - start.boundary.pts / start.boundary.timescale
    if not start.boundary.discontinuity:
        return 0 <= past_s < NEAR_S
    # Sound may begin later than the picture, or a little earlier.
    return -NEAR_S < past_s < (NEAR_S if track.kind is Kind.VIDEO else JUMP_S_MAX)
