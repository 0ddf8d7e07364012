"""When the segments of a rendition are, by EXT-X-PROGRAM-DATE-TIME: MSNs are each one's own."""

import bisect

from msgspec import Struct

from edged.tools.conform.observe import RenditionLog
from edged.wire.m3u8_reader import ReadSegment
from edged.wire.m3u8_values import US

Position = tuple[int, int]  # MSN and part.


class Span(Struct, frozen=True, kw_only=True):
    """A segment, from when to when."""

    msn: int
    start_us: int  # Since 1970.
    end_us: int
    dated: bool  # By a tag of its own; else it follows the one before.
    off_us: int  # How far its tag is from the end of the one before.
    sequence: int  # Its discontinuity sequence.


class Timeline:
    """All segments that a rendition has listed."""

    def __init__(self, log: RenditionLog) -> None:
        segments = segments_of(log)
        self._segments = {segment.msn: segment for segment in segments}
        self.spans = _spans(segments)
        self._by_msn = {span.msn: span for span in self.spans}
        self._positions = sorted({one.playlist.last for one in log.seen})
        self._times = [one.answer.head_at for one in log.seen]
        self._reached = [one.playlist.last for one in log.seen]

    def end_us(self, position: Position) -> int | None:
        """When a part ends, or a segment; None: it is not known."""
        span, segment = self._by_msn.get(position[0]), self._segments.get(position[0])
        if span is None or segment is None or position[1] >= max(len(segment.parts), 1):
            return None
        if not segment.parts or position[1] < 0:
            return span.end_us
        return span.start_us + sum(p.duration_us for p in segment.parts[: position[1] + 1])

    def between(self, since: float, until: float) -> tuple[Position, Position] | None:
        """From one part before what it had reached then to one behind what it reached until then.

        None: this was not watched.
        """
        first = bisect.bisect_right(self._times, since) - 1
        last = bisect.bisect_right(self._times, until) - 1
        if first < 0 or last + 1 == len(self._times):
            return None
        at = bisect.bisect_left(self._positions, self._reached[first])
        lowest = self._positions[max(at - 1, 0)]
        at = bisect.bisect_left(self._positions, self._reached[last])
        return lowest, self._positions[min(at + 1, len(self._positions) - 1)]


def segments_of(log: RenditionLog) -> list[ReadSegment]:
    """All segments that a rendition has listed, each as whole as it was, and with its parts."""
    known: dict[int, ReadSegment] = {}
    for one in log.seen:
        for segment in one.playlist.segments:
            old = known.get(segment.msn)
            # Parts are dropped as their segment grows old.
            if old is None or not old.is_whole or segment.parts or not old.parts:
                known[segment.msn] = segment
    return [known[msn] for msn in sorted(known)]


def _spans(segments: list[ReadSegment]) -> list[Span]:
    found: list[Span] = []
    for segment in segments:
        before = found[-1] if found and found[-1].msn == segment.msn - 1 else None
        if segment.discontinuity:  # Time may be another's from here on.
            before = None
        start_us = segment.date_time_us
        if start_us is None:
            if before is None:
                continue
            start_us = before.end_us
        found.append(
            Span(
                msn=segment.msn,
                start_us=start_us,
                end_us=start_us + segment.media_us,
                dated=segment.date_time_us is not None,
                off_us=start_us - before.end_us if before is not None else 0,
                sequence=segment.discontinuity_sequence,
            )
        )
    return found


def contradictions(ours: Timeline, theirs: Timeline, slack_us: int) -> list[tuple[Span, Span]]:
    """Segments of two renditions at the same time whose discontinuity sequences differ."""
    sorted_theirs = sorted(theirs.spans, key=lambda span: span.start_us)
    starts = [span.start_us for span in sorted_theirs]
    longest_us = max((span.end_us - span.start_us for span in sorted_theirs), default=0)
    found = []
    for one in ours.spans:
        first = bisect.bisect_left(starts, one.start_us - longest_us)
        for other in sorted_theirs[first : bisect.bisect_left(starts, one.end_us)]:
            shared_us = min(one.end_us, other.end_us) - max(one.start_us, other.start_us)
            if one.sequence != other.sequence and shared_us > slack_us:
                found.append((one, other))
    return found


def told_at(at_us: int) -> str:
    """A time of the day, in UTC."""
    seconds, fraction = divmod(at_us, US)
    minutes, second = divmod(seconds, 60)
    return f"{minutes // 60 % 24:02d}:{minutes % 60:02d}:{second:02d}.{fraction // 1000:03d}"
