"""One rendition's share of a `StreamWindow`: its segments in order, those listed and those kept.

The media of a segment is in memory, on disk ("stored"), or still at an origin ("away").
"""

from collections import deque
from itertools import islice
from typing import Final

from edged.errors import RemoteProtocolError
from edged.media.parts import InitSegment, Part, Rendition, SegmentEnded
from edged.media.playlist import PartEntry, SegmentEntry, init_name, part_name, segment_name
from edged.policy.window_segment import WindowSegment

PARTS_MAX: Final = 512  # Of one segment: 5 s at a frame a part at 100 fps.
# Lost segments that are listed as gaps; beyond it the playlist leaps over some.
MISSING_MAX: Final = 16
PLAYLIST_TARGETS_MIN: Final = 3  # x target duration: RFC 8216bis §6.2.2.
PARTS_TARGETS: Final = 3  # x target duration from the end: older segments are listed without parts.
# The same: older ones are left out of delta updates (RFC 8216bis §4.4.3.8).
SKIP_TARGETS: Final = 6
# The same: a part can be fetched for 3 more when it is no longer listed (RFC 8216bis §6.2.2), and a
# segment is at most one long. Older ones are wanted whole alone, and may be on disk.
SETTLED_TARGETS: Final = PARTS_TARGETS + 4
US: Final = 1_000_000


class RenditionWindow:
    """One rendition's segments; changed only by its `StreamWindow`, read by whoever serves it."""

    def __init__(self, rendition: Rendition) -> None:
        self.rendition = rendition
        self.version = 0  # Rises with each change of the media playlist.
        self.inits: dict[str, InitSegment] = {}  # By digest, the newest last.
        self.described: dict[str, Rendition] = {}  # What each init was announced with.
        # By MSN, in order: kept, then listed. Only among the kept a leap leaves a hole.
        self.segments: dict[int, WindowSegment] = {}
        self.listed: deque[WindowSegment] = deque()  # In the playlist; the last may be growing.
        self.entries: list[SegmentEntry] = []  # The same, as the playlist has them.
        self.in_memory: dict[int, WindowSegment] = {}  # Of `segments`, those pushed and not stored.
        self.away: dict[int, WindowSegment] = {}  # Of `segments`, those at an origin.
        self.dropped: list[int] = []  # Stored ones that are gone, for who has to delete them.
        self.listed_us = 0
        self.listed_bytes = 0
        self.kept_us = 0  # Of segments no longer listed.
        self.longest_us = 0  # The longest segment so far.
        self.payload_bytes = 0  # In memory.
        self.stored_bytes = 0  # On disk;
        self.stored_us = 0  # and so long, what is away included.
        self.fetched_bytes = 0  # In memory, of what is away.
        self.origin_msn = 0  # The oldest that an origin has.
        self.parts_missing = 0
        self.segments_missing = 0  # Of which nothing came, not even their end.
        self.discontinuity_sequence = 0
        self.hint_name: str | None = None
        self.hint_init_name: str | None = None
        self._bandwidth_bps = 0  # Peak of whole segments.
        self._bandwidth_bps_told = 0
        self._oldest_init_told = ""
        self._listed_discontinuities = 0
        self.heard_msn = -1  # The newest segment that any part came of.
        self._silent_told = False
        self._cut_short = False  # `end` completed the last segment; more of it may exist.

    @property
    def has_parts(self) -> bool:
        """Whether viewers are told of parts; else of whole segments alone."""
        return self.rendition.latency.parts

    @property
    def shown(self) -> int:
        """How many of the listed segments viewers are told of: all but one that grows unseen."""
        return len(self.listed) - self._hides_last

    @property
    def shown_entries(self) -> list[SegmentEntry]:
        """These, as the playlist has them."""
        # What grows unseen makes no new version, so it may not appear in one that has been made.
        return self.entries if self.has_parts else self.entries[: self.shown]

    @property
    def shown_us(self) -> int:
        """How long these are."""
        return self.listed_us - (self.listed[-1].entry.duration_us if self._hides_last else 0)

    @property
    def _hides_last(self) -> bool:
        return not (self.has_parts or not self.listed or self.listed[-1].entry.complete)

    @property
    def last_msn(self) -> int:
        """The newest segment that viewers are told of; -1 before the first."""
        shown = self.shown
        return self.entries[shown - 1].msn if shown else -1

    @property
    def last_part(self) -> int:
        """Index of the newest part of `last_msn`; -1 when it has none, or none is told."""
        return len(self.listed[-1].parts) - 1 if self.listed and self.has_parts else -1

    @property
    def is_away(self) -> bool:
        """Whether it comes as a list alone: its newest whole segment is at an origin."""
        return self.whole_segments > 0 and self.listed[self.whole_segments - 1].away

    @property
    def has_whole_segment(self) -> bool:
        """Whether any segment is complete."""
        return self.whole_segments > 0

    @property
    def whole_segments(self) -> int:
        """How many listed segments are complete."""
        growing = bool(self.listed) and not self.listed[-1].entry.complete
        return len(self.listed) - growing

    @property
    def bandwidth_bps(self) -> int:
        """Peak segment bit rate so far; of what there is before the first whole segment."""
        return max(self._bandwidth_bps, self.bandwidth_bps_mean)

    @property
    def bandwidth_bps_mean(self) -> int:
        """Bit rate over the listed segments."""
        return self.listed_bytes * 8 * US // max(self.listed_us, 1)

    def tell_bandwidth(self) -> bool:
        """Whether the peak is off by a tenth from what it was when this last said so."""
        told, now = self._bandwidth_bps_told, self.bandwidth_bps
        if abs(now - told) * 10 <= told:
            return False
        self._bandwidth_bps_told = now
        return True

    @property
    def codec_strings(self) -> list[str]:
        """Of every format that is listed or announced, the newest first."""
        digests = {segment.init_digest for segment in self.listed}
        older = [self.described[d].codec_string for d in reversed(self.inits) if d in digests]
        return list(dict.fromkeys([self.rendition.codec_string, *older]))

    def tell_formats(self) -> bool:
        """Whether formats have left the playlist since this last said so."""
        oldest = self.listed[0].init_digest if self.listed else ""
        if oldest == self._oldest_init_told:
            return False
        self._oldest_init_told = oldest
        return True

    @property
    def is_silent(self) -> bool:
        """Whether all that is listed is absent media: the track has stopped."""
        return bool(self.listed) and self.heard_msn < self.listed[0].entry.msn

    def tell_silence(self) -> bool:
        """Whether it has fallen silent, or come back, since this last said so."""
        silent = self.is_silent
        changed, self._silent_told = silent is not self._silent_told, silent
        return changed

    @property
    def parts_from(self) -> int:
        """Index in `listed` of the first segment that ends near enough to be listed with parts."""
        return self._first_within(PARTS_TARGETS) if self.has_parts else self.shown

    @property
    def skippable(self) -> int:
        """How many of the oldest shown segments a delta update may leave out."""
        return self._first_within(SKIP_TARGETS)

    @property
    def settled(self) -> int:
        """How many of the oldest listed segments are only wanted whole; those kept are, too."""
        return self._first_within(SETTLED_TARGETS)

    @property
    def droppable(self) -> int:
        """How many of the oldest listed segments a playlist of the least length can do without."""
        return self._first_within(PLAYLIST_TARGETS_MIN)

    def _first_within(self, targets: int) -> int:
        """Index in `listed` of the first shown that ends within so many target durations."""
        room_us = targets * self.rendition.target_duration_s * US
        first = self.shown
        after_us = 0
        for segment in islice(reversed(self.listed), self._hides_last, None):
            if after_us > room_us:
                break
            first -= 1
            after_us += segment.entry.duration_us
        return first

    def add_part(self, part: Part) -> bool:
        """List the next part; False for a duplicate and for one before the first whole segment."""
        growing = self.segment_for(part)
        if growing is None:
            return False
        while len(growing.parts) < part.index:
            self._list_missing(growing)
        growing.parts.append(part)
        self.heard_msn = part.msn
        self._list(
            growing, part.duration * US // self.rendition.timescale, part.independent, part.gap
        )
        growing.payload_bytes += len(part.payload)
        self.listed_bytes += len(part.payload)
        self.payload_bytes += len(part.payload)
        msn, index = part.next_msn, part.next_index
        if part.ends_segment:
            msn, index = part.msn + 1, 0
        elif (msn, index) != (part.msn + 1, 0):
            msn, index = part.msn, part.index + 1
        if self.has_parts:
            self.hint_name = part_name(part.rendition, msn, index)
            self.hint_init_name = None
            self.version += 1
        return True

    def end_segment(self, event: SegmentEnded) -> bool:
        """Complete a segment; one that no part came of is listed as a gap."""
        if not self.listed:
            return False
        last = self.listed[-1]
        if event.msn < last.entry.msn or (event.msn == last.entry.msn and last.entry.complete):
            return False
        if event.msn > last.entry.msn:
            self._fill_until(event.msn)
            last = self._begin_gap(self.listed[-1], event.msn)
        while len(last.parts) < event.parts:
            self._list_missing(last)
        self.complete(last, max(event.duration, 0) * US // self.rendition.timescale)
        if event.parts == len(last.parts):
            last.ended = event  # Exact to the tick, so that every PoP renders the same text.
        return True

    def end(self) -> None:
        """The stream ended: what was growing is whole, and nothing is promised any more."""
        if self.listed and not self.listed[-1].entry.complete:
            self.complete(self.listed[-1], 0)
            self._cut_short = True
        self.hint_name = self.hint_init_name = None
        self.version += 1

    def reopen(self) -> None:
        """The stream goes on after all: what `end` cut short grows again."""
        self.version += 1
        if not self.listed:
            return
        last = self.listed[-1]
        if self._cut_short:
            last.entry.complete, last.entry.tail_text, last.ended = False, "", None
        self._cut_short = False
        msn, index = last.entry.msn, len(last.parts)
        if last.entry.complete:
            msn, index = msn + 1, 0
        if self.has_parts:
            self.hint_name = part_name(self.rendition.name, msn, index)

    def unlist(self) -> None:
        """Take the oldest listed segment out of the playlist, and keep it."""
        segment = self.listed.popleft()
        del self.entries[0]
        self._listed_discontinuities -= segment.entry.discontinuity
        self.listed_bytes -= segment.payload_bytes
        self.listed_us -= segment.entry.duration_us
        self.kept_us += segment.entry.duration_us
        # RFC 8216bis §6.2.2: a discontinuity that leaves with its segment stays counted.
        self.discontinuity_sequence += segment.entry.discontinuity

    def evict(self) -> None:
        """Drop the oldest segment, listed or kept."""
        msn = next(iter(self.segments))
        segment = self.segments[msn]
        if self.listed and self.listed[0] is segment:
            self.unlist()
            self.version += 1
        del self.segments[msn]
        self.kept_us -= segment.entry.duration_us
        self.drop_media(segment)

    def drop_media(self, segment: WindowSegment) -> None:
        """A segment that is held no more is counted no more."""
        msn = segment.entry.msn
        if segment.stored:
            self.stored_bytes -= segment.payload_bytes
            self.stored_us -= segment.entry.duration_us
            self.dropped.append(msn)
        elif segment.away:
            self.give_back(msn)
            self.stored_us -= segment.entry.duration_us
            del self.away[msn]
        else:
            self.payload_bytes -= segment.payload_bytes
            del self.in_memory[msn]

    def store(self, msn: int) -> None:
        """The media of a segment that is settled is on disk, and no longer here."""
        if msn in self.away:
            self.give_back(msn)
            segment = self.away.pop(msn)
            segment.away = False
        else:
            segment = self.in_memory.pop(msn)
            assert segment.entry.complete, "what grows is not settled"
            self.payload_bytes -= segment.payload_bytes
            self.stored_us += segment.entry.duration_us
            segment.forget_parts()
        segment.leaving, segment.stored = False, True
        self.stored_bytes += segment.payload_bytes

    def hold(self, msn: int, payload: bytes) -> None:
        """Keep what an origin gave of a segment that is away."""
        segment = self.away[msn]
        if segment.fetched is None:
            segment.fetched = payload
            self.fetched_bytes += len(payload)

    def give_back(self, msn: int) -> None:
        """Let go of that, if it is kept."""
        segment = self.away[msn]
        if segment.fetched is not None:
            self.fetched_bytes -= len(segment.fetched)
            segment.fetched = None

    def segment_for(self, part: Part) -> WindowSegment | None:
        """The growing segment of `part`, begun if need be; None when the part is not wanted."""
        last = self.listed[-1] if self.listed else None
        if last is not None and part.msn == last.entry.msn:
            return None if last.entry.complete or part.index < len(last.parts) else last
        if last is not None and part.msn < last.entry.msn:
            return None
        if last is None and (part.index > 0 or part.msn <= next(reversed(self.segments), -1)):
            # A segment whose beginning we missed is of no use to a player that starts with it; one
            # that was here before all that was listed got lost is kept.
            return None
        if part.init_digest not in self.inits:
            raise RemoteProtocolError(
                f"part {part.rendition}-{part.msn}.{part.index} names the unknown init"
                f" {part.init_digest[:16]!r}"
            )
        gaps = self._fill_until(part.msn)
        if gaps == len(self.listed):
            self._begin_anew(part)
        return self._begin(
            SegmentEntry(
                msn=part.msn,
                uri=segment_name(part.rendition, part.msn),
                init_uri=init_name(part.rendition, part.init_digest),
                wallclock_us=self._start_us(part),
                discontinuity=self._count_discontinuities(part, gaps),
            ),
            part.init_digest,
        )

    def _start_us(self, part: Part) -> int:
        """The wallclock of a segment by the first part that came of it; see `_list_missing`."""
        return part.wallclock_us - part.index * self.rendition.part_target_us

    def _begin_anew(self, part: Part) -> None:
        """No playlist has shown what is listed: it is as the segment that follows has it.

        So a PoP that comes late, or lost much, has the same numbers and times as all others.
        """
        before = part.discontinuity_sequence - part.discontinuity
        self.discontinuity_sequence = max(self.discontinuity_sequence, before)
        until_us = self._start_us(part)
        for segment in reversed(self.listed):
            until_us -= segment.entry.duration_us
            segment.entry.wallclock_us = until_us

    def _count_discontinuities(self, part: Part, gaps: int) -> bool:
        """Whether a discontinuity stands before the segment that begins with `part`.

        Those lost with their segments are made up for, or the sequence numbers and times of this
        rendition would not match the others' (RFC 8216bis §6.2.4): one here, where the times of
        what came begin to differ, and more before the `gaps` that no playlist has shown.
        """
        counted = self.discontinuity_sequence + self._listed_discontinuities
        lost = part.discontinuity_sequence - counted
        for segment in islice(reversed(self.listed), min(gaps, max(lost - 1, 0))):
            self._listed_discontinuities += not segment.entry.discontinuity
            segment.entry.discontinuity = True
        return part.discontinuity or lost > 0

    def _begin(self, entry: SegmentEntry, init_digest: str) -> WindowSegment:
        segment = WindowSegment(entry=entry, init_digest=init_digest)
        self.listed.append(segment)
        self.entries.append(entry)
        self._listed_discontinuities += entry.discontinuity
        self.segments[entry.msn] = self.in_memory[entry.msn] = segment
        return segment

    def _begin_gap(self, last: WindowSegment, msn: int, skipped_us: int = 0) -> WindowSegment:
        """Begin a segment without media, `skipped_us` behind the end of `last`."""
        entry = SegmentEntry(
            msn=msn,
            uri=segment_name(self.rendition.name, msn),
            init_uri=last.entry.init_uri,
            wallclock_us=last.entry.wallclock_us + last.entry.duration_us + skipped_us,
            gap=True,
        )
        return self._begin(entry, last.init_digest)

    def _fill_until(self, msn: int) -> int:
        """Complete the growing segment and list lost ones as gaps: the next may be `msn`.

        Returns how many. Beyond MISSING_MAX only the last are listed, and nothing before them; what
        was listed is kept for those who have its names (RFC 8216bis §6.2.2).
        """
        if not self.listed:
            return 0
        last = self.listed[-1]
        if not last.entry.complete:
            self._list_missing(last)  # Its end never came, so neither did its last part.
            self.complete(last, 0)
        lost = msn - last.entry.msn - 1
        self.segments_missing += lost
        duration_us, skipped_us = last.entry.duration_us, 0
        if lost > MISSING_MAX:
            # A playlist may not be shorter than that, and hls.js gives up on one without segments.
            least_us = PLAYLIST_TARGETS_MIN * self.rendition.target_duration_s * US
            duration_us = max(self.listed_us // len(self.listed), -(-least_us // MISSING_MAX))
            skipped_us = (lost - MISSING_MAX) * duration_us
            lost = MISSING_MAX
            while self.listed:
                self.unlist()
        for gap_msn in range(msn - lost, msn):
            gap = self._begin_gap(last, gap_msn, skipped_us)
            self.complete(gap, duration_us)
            last, skipped_us = gap, 0
        return lost

    def count_bandwidth(self, segment: WindowSegment) -> None:
        """Count a whole segment towards the peak."""
        entry = segment.entry
        if not entry.gap and entry.duration_us > 0:
            bandwidth_bps = segment.payload_bytes * 8 * US // entry.duration_us
            self._bandwidth_bps = max(self._bandwidth_bps, bandwidth_bps)

    def _list_missing(self, segment: WindowSegment) -> None:
        self.parts_missing += 1
        segment.parts.append(None)
        self._list(segment, self.rendition.part_target_us, independent=False, gap=True)

    def _list(self, segment: WindowSegment, duration_us: int, independent: bool, gap: bool) -> None:
        entry = segment.entry
        entry.gap = entry.gap or gap  # One absent part makes the whole segment unloadable.
        name = part_name(self.rendition.name, entry.msn, len(entry.parts))
        entry.parts.append(PartEntry(name, duration_us, independent, gap))
        entry.duration_us += duration_us
        self.listed_us += duration_us

    def complete(self, segment: WindowSegment, duration_us: int) -> None:
        """A segment is whole and, unless that is 0, so long."""
        entry = segment.entry
        if duration_us > 0:
            self.listed_us += duration_us - entry.duration_us
            entry.duration_us = duration_us
        self.longest_us = max(self.longest_us, entry.duration_us)
        entry.complete = True
        self.count_bandwidth(segment)
        segment.ended = SegmentEnded(
            rendition=self.rendition.name,
            msn=entry.msn,
            parts=len(segment.parts),
            duration=entry.duration_us * self.rendition.timescale // US,
        )
        if self.has_parts:
            self.hint_name = part_name(self.rendition.name, entry.msn + 1, 0)
        self.version += 1
