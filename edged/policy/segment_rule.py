"""Where a segment may end, where it must, and where it will if the stream goes on as it does.

One rendition leads. Another rung of video follows at its own random access: at the very same time
where the encoder aligns its key frames, else as soon as there is one, or without where none comes
in time. So an MSN means about the same seconds in all, whatever the encoder does.
"""

from typing import Annotated

from msgspec import Meta, Struct

from edged.media.access_unit import AccessUnit
from edged.media.latency import DEFAULT_LATENCY, Latency
from edged.media.track import Kind
from edged.policy.cadence import US
from edged.policy.cutter import RenditionCutter

# EXTINF is rounded to whole seconds before it is held against TARGETDURATION (RFC 8216bis
# §4.4.3.1), so a segment may exceed it by less than half a second.
LATE_S_MAX = 0.40  # Of the leading rendition.
FOLLOWER_LATE_S_MAX = 0.48  # Of those that follow it: a unit or two later.
EARLY_DEN = 20  # A segment may be a twentieth short, or GOPs a frame short of it would double it.
WAIT_TARGETS = 1.5  # x target duration from one segment to the next: RFC 8216bis §6.2.1.
WAIT_SPARE_S = 0.25  # Of that: units do not come at the very pace of their times.
PARTS_MAX = 480  # Of a segment: 4.4 s in parts of 10 ms; below what a window takes.
# Of the leading segment's length: so long a rung waits for random access that lies elsewhere. It
# must be past its boundary before the leading one comes to the next.
UNALIGNED_NUM, UNALIGNED_DEN = 7, 8


class SegmenterConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long parts and segments are."""

    part_ms: Annotated[int, Meta(ge=50, le=1000)] = 200
    segment_s: Annotated[float, Meta(gt=0, le=10)] = 2.0
    target_duration_s: Annotated[int, Meta(ge=1, le=20)] = 4  # TARGETDURATION; >= segment_s.
    latency: Latency = DEFAULT_LATENCY  # What it is announced as.


class SegmentRule:
    """The rule of one stream."""

    def __init__(self, config: SegmenterConfig) -> None:
        self.long_gops = 0  # Segments that had to end without random access.
        self.long_gop_ticks = 0  # How far into its GOP the last of them ended.
        self._config = config

    def late_ticks(self, timescale: int) -> int:
        """The longest segment of a rendition that follows."""
        return int((self._config.target_duration_s + FOLLOWER_LATE_S_MAX) * timescale)

    def is_silent(self, waiting: RenditionCutter, cutter: RenditionCutter) -> bool:
        """Whether a segment that waits for its end would come too late if it waited any longer.

        `cutter` is as far as units have come, if it has passed that boundary itself.
        """
        if cutter.boundaries:
            return False
        boundary = waiting.boundaries[0]
        since_last_s = boundary.segment_us / US - waiting.lag_s + cutter.past_s(boundary)
        return since_last_s >= WAIT_TARGETS * self._config.target_duration_s - WAIT_SPARE_S

    def awaits_random_access(self, cutter: RenditionCutter, unit: AccessUnit) -> bool:
        """Whether a rung that is past its boundary goes on to its own random access.

        It does unless that is, or may be, too far away; `unit` has none.
        """
        boundary = cutter.boundaries[0]
        timescale = cutter.rendition.timescale
        start = boundary.pts * timescale // boundary.timescale
        room = boundary.segment_us * timescale * UNALIGNED_NUM // (US * UNALIGNED_DEN)
        if unit.pts - start > room:
            return False
        following = cutter.gops.next_from(unit.dts + 1)
        return following is None or following + cutter.gops.shift - start <= room

    def follower_end(self, cutter: RenditionCutter, dts: int, leader: RenditionCutter) -> int:
        """Where a rung's segment will end whose boundary is at its decode time `dts`."""
        half_gap = cutter.cadence.gap_ticks // 2
        following = cutter.gops.next_from(dts - half_gap)
        segment_s = max(self._config.segment_s, leader.gops.ticks / leader.rendition.timescale)
        room = int(segment_s * cutter.rendition.timescale)
        if following is None or (following - dts) * UNALIGNED_DEN > room * UNALIGNED_NUM:
            return dts
        return following - half_gap if following > dts + half_gap else dts

    def must_end(self, cutter: RenditionCutter, unit: AccessUnit, *, leads: bool) -> bool:
        """Whether the segment ends before `unit`, by the rendition's own measure."""
        if not cutter.started:
            return False
        if cutter.index >= PARTS_MAX:
            return True
        if leads:
            return self._leader_must_end(cutter, unit)
        late = self.late_ticks(cutter.rendition.timescale)
        return cutter.elapsed(unit.dts) + cutter.cadence.gap_ticks > late

    def _leader_must_end(self, cutter: RenditionCutter, unit: AccessUnit) -> bool:
        timescale = cutter.rendition.timescale
        elapsed = cutter.elapsed(unit.dts)
        gap = cutter.cadence.gap_ticks
        segment = self._config.segment_s * timescale
        if cutter.rendition.kind is Kind.AUDIO:
            return elapsed + gap / 2 >= segment
        if unit.random_access:
            return self.may_end(cutter, elapsed)
        limit = self._limit_ticks(timescale)
        if elapsed + gap > limit:
            self.long_gops += 1
            last = cutter.gops.last_dts
            self.long_gop_ticks = elapsed if last is None else unit.dts - last
            return True
        return False

    def may_end(self, leader: RenditionCutter, elapsed: int) -> bool:
        """Whether the leading rung's segment ends at random access so many ticks from its start."""
        timescale = leader.rendition.timescale
        segment = self._config.segment_s * timescale
        if elapsed + segment / EARLY_DEN >= segment:
            return True
        # The next one may come too late; but a stub of a segment helps nobody.
        late = elapsed + leader.gops.ticks > self._limit_ticks(timescale)
        return late and elapsed * 2 >= segment

    def expected_end(
        self, cutter: RenditionCutter, start: int, after: int | None = None
    ) -> int | None:
        """The decode time from which on units of the leading rendition are of the next segment.

        `start` is that of the segment's first unit. Where the end did not come as foreseen, as with
        a key frame that got lost, it is behind `after`. None while the length of a GOP is not
        known, and while GOPs differ so that nobody can tell.
        """
        end = self._foreseen_end(cutter, start, after)
        return None if end is None or (after is not None and end <= after) else end

    def _foreseen_end(self, cutter: RenditionCutter, start: int, after: int | None) -> int | None:
        timescale = cutter.rendition.timescale
        half_gap = self._early_ticks(cutter)
        segment = int(self._config.segment_s * timescale)
        if cutter.rendition.kind is Kind.AUDIO:
            return start + segment - half_gap
        last, gop = cutter.gops.last_dts, cutter.gops.ticks
        if last is None or gop <= 0:
            return None
        least = start + segment - segment // EARLY_DEN
        if after is not None:
            if not cutter.gops.is_steady:
                return None
            least = max(least, after + cutter.cadence.gap_ticks)
        gops = max(1, -(-(least - last) // gop))
        end = last + gops * gop
        limit = self._limit_ticks(timescale)
        if end - start > limit:
            gops = (start + limit - last) // gop
            end = last + gops * gop
            is_over = after is not None and end - half_gap <= after
            if gops < 1 or is_over or (end - start) * 2 < segment:
                return start + limit - cutter.cadence.gap_ticks + 1
        return end - half_gap

    def expect(
        self, cutter: RenditionCutter, leader: RenditionCutter | None, leader_pts: int | None
    ) -> None:
        """Tell a cutter from which decode time on units likely belong to the next segment.

        `leader_pts` is where the leading rendition's segment of now is expected to end.
        """
        early, is_sure = 0, True
        if cutter.boundaries:
            pts, timescale = cutter.boundaries[0].pts, cutter.boundaries[0].timescale
        elif leader is None or leader_pts is None or cutter.msn != leader.msn:
            cutter.expected_end = cutter.planned_end = None
            return
        else:
            pts, timescale = leader_pts, leader.rendition.timescale
            if leader.is_video:
                early, is_sure = self._early_ticks(leader), leader.gops.is_steady
        # Those with B-frames decode earlier than they present, all by about as much.
        end = -(-pts * cutter.rendition.timescale // timescale)
        if cutter.is_video:
            end -= cutter.gops.shift
            if leader is not None and cutter is not leader:
                end = self.follower_end(cutter, end, leader)
        cutter.expected_end = end
        planned = end + early * cutter.rendition.timescale // timescale
        cutter.planned_end = planned if is_sure else None

    @staticmethod
    def _early_ticks(leader: RenditionCutter) -> int:
        """How much sooner than foreseen the end is expected: times are not exact."""
        return leader.cadence.gap_ticks // 2

    def _limit_ticks(self, timescale: int) -> int:
        return int((self._config.target_duration_s + LATE_S_MAX) * timescale)
