"""What a place holds of one packaged stream: the playlist window, what is kept beyond it, look-ups.

A PoP has one `StreamWindow` for each stream that it serves, an origin one for each that it packages
(for late subscribers). It is fed `PackagedEvent`s in order and is bounded in bytes.
"""

import re
from itertools import islice

from edged.errors import RemoteProtocolError
from edged.media.latency import Latency
from edged.media.parts import (
    InitSegment,
    PackagedEvent,
    Part,
    Rendition,
    SegmentEnded,
    SegmentsListed,
    StreamEnded,
)
from edged.media.playlist import (
    MediaPlaylist,
    MultivariantPlaylist,
    RenditionReport,
    init_name,
    playlist_name,
    segment_name,
)
from edged.media.stream import StreamId
from edged.media.track import Kind
from edged.policy.away import list_away, lose, lose_older
from edged.policy.rendition_window import (
    PARTS_MAX,
    PLAYLIST_TARGETS_MIN,
    SKIP_TARGETS,
    US,
    RenditionWindow,
)
from edged.policy.variants import make_multivariant
from edged.policy.window_limits import WindowLimits, WindowStatistics
from edged.policy.window_segment import WindowSegment

RENDITIONS_MAX = 32  # A ladder of eight rungs and some audio languages; more is a broken origin.
INITS_MAX = 128  # Of one rendition. Encoders change configuration a few times a day.
INIT_BYTES_MAX = 64 * 2**10  # Ours are below 1 KB; parameter sets may be large.
HOLD_BACK_TARGETS = 3  # x target duration: RFC 8216bis §4.4.3.8.
PART_HOLD_BACK_PARTS = 3  # x PART-TARGET: Apple's authoring rules; RFC 8216bis §4.4.3.8 asks for 2.
# What leaves a playlist stays for its own length and the longest playlist's (RFC 8216bis §6.2.2);
# a playlist is longer than asked for by up to a segment, and which one is dropped is told by parts.
NEEDED_SEGMENTS = 3
_NAME = re.compile(r"[a-z][a-z0-9]{0,15}")
_DIGEST = re.compile(r"[0-9a-f]{16}")


class StreamWindow:
    """The window of one stream, over all its renditions."""

    def __init__(self, stream_id: StreamId, limits: WindowLimits | None = None) -> None:
        self.stream_id = stream_id
        self.limits = limits or WindowLimits()
        self.renditions: dict[str, RenditionWindow] = {}
        self.version = 0  # Rises with each change of the multivariant playlist worth a new one.
        self.ended: StreamEnded | None = None
        self.parts_refused = 0  # Duplicates, and parts before the first whole segment.
        self.segments_lost = 0  # That nobody had any more.
        self.segments_evicted_early = 0  # Because of `payload_bytes_max`.
        self.segments_evicted_needed = 0  # Of these: players may still have asked for them.
        self._hold_back_us = 0
        self._main: frozenset[str] = frozenset()
        self._main_version, self._main_count = -1, 0  # Of how many renditions this is.

    @property
    def main(self) -> frozenset[str]:
        """The renditions of which every player follows one: the rungs of video, else of audio."""
        windows = self.renditions
        if self.version != self._main_version or len(windows) != self._main_count:
            videos = [name for name, w in windows.items() if w.rendition.kind is Kind.VIDEO]
            self._main = frozenset(videos or windows)
            self._main_version, self._main_count = self.version, len(windows)
        return self._main

    @property
    def prefix(self) -> str:
        """The publication as it stands in URLs: lower hex."""
        return f"{self.stream_id.publication:x}"

    @property
    def payload_bytes(self) -> int:
        """Bytes of media and init segments held."""
        return sum(window.payload_bytes for window in self.renditions.values())

    @property
    def parts_missing(self) -> int:
        """Parts that never came."""
        return sum(window.parts_missing for window in self.renditions.values())

    def statistics(self) -> WindowStatistics:
        """Counters since the start."""
        windows = self.renditions.values()
        return WindowStatistics(
            parts_refused=self.parts_refused,
            parts_missing=self.parts_missing,
            segments_missing=sum(window.segments_missing for window in windows),
            segments_lost=self.segments_lost,
            segments_evicted_early=self.segments_evicted_early,
            segments_evicted_needed=self.segments_evicted_needed,
        )

    @property
    def started(self) -> bool:
        """Whether each rendition has media, or one a whole segment while another is silent.

        From then on the media playlists and parts of this run are answered as its own.
        """
        windows = self.renditions.values()
        if any(window.has_whole_segment for window in windows):
            return True
        return bool(windows) and all(window.shown for window in windows)

    @property
    def ready(self) -> bool:
        """Whether a multivariant playlist made now will name every rendition that has media.

        A player reads it once, so it waits for the slowest rendition, but not beyond the second
        whole segment of another; and for a whole segment, without which hls.js gives up for good
        (`levelEmptyError`).
        """
        windows = self.renditions.values()
        if self.ended is not None:
            return any(window.shown for window in windows)
        if windows and all(window.has_whole_segment for window in windows):
            return True
        return any(window.whole_segments > 1 for window in windows)

    def add(self, event: PackagedEvent) -> bool:
        """Take the next event; False when it changed nothing, as a replay does.

        Raises `RemoteProtocolError` for what no origin of ours would send.
        """
        if self.ended is not None:
            return False
        if isinstance(event, Part):
            return self._add_part(event)
        if isinstance(event, SegmentEnded):
            return self._end_segment(event)
        if isinstance(event, StreamEnded):
            return self._end(event)
        return self._add_description(event)

    def reopen(self) -> None:
        """Go on with a run that ended here only: the next events are a replay of it."""
        self.ended = None
        for window in self.renditions.values():
            window.reopen()
        self.version += 1

    def needed_us(self, window: RenditionWindow) -> int:
        """How long players may ask for a segment after it has left the playlist."""
        if not self.limits.retention_s:
            return 0
        return self._playlist_us(window) + NEEDED_SEGMENTS * window.longest_us

    def part(self, rendition: str, msn: int, index: int) -> Part | None:
        """A part that is held, else None."""
        segment = self._segment(rendition, msn)
        if segment is None or not 0 <= index < len(segment.parts):
            return None
        return segment.parts[index]

    def segment(self, rendition: str, msn: int) -> list[bytes] | None:
        """The body of a whole segment as its parts' payloads, uncopied.

        None when it is not held, still growing, or a gap.
        """
        segment = self._segment(rendition, msn)
        if segment is None or segment.entry.gap or not segment.entry.complete or segment.stored:
            return None
        if segment.away:
            return None if segment.fetched is None else [segment.fetched]
        return [p.payload for p in segment.parts if p is not None]

    def stored_bytes_of(self, rendition: str, msn: int) -> int | None:
        """The size of a whole segment that is on disk; None for what is not."""
        segment = self._segment(rendition, msn)
        if segment is None or segment.entry.gap or not segment.stored:
            return None
        return segment.payload_bytes

    def away_bytes_of(self, rendition: str, msn: int) -> int | None:
        """The size of a segment that is still at an origin; None for what is not."""
        segment = self._segment(rendition, msn)
        return segment.payload_bytes if segment is not None and segment.away else None

    def away_needed(self) -> list[tuple[str, int]]:
        """Rendition and MSN of what is away of a playlist of the least length, the oldest first.

        Of what comes as a list alone none is needed before somebody asks.
        """
        return [
            (name, segment.entry.msn)
            for name, window in self.renditions.items()
            if not window.is_away
            for segment in islice(window.listed, window.droppable, None)
            if segment.away and segment.fetched is None
        ]

    def elsewhere_bytes_of(self, rendition: str, msn: int) -> int | None:
        """The size of a segment that is on disk or away; None for what is not."""
        stored = self.stored_bytes_of(rendition, msn)
        return self.away_bytes_of(rendition, msn) if stored is None else stored

    def lose(self, rendition: str, msn: int) -> None:
        """The origin has a segment no more that was away: playlists begin behind it."""
        window = self.renditions[rendition]
        if msn in window.away:
            lose(window, msn)
            self.segments_lost += 1

    def give_back(self, rendition: str, msn: int) -> None:
        """Keep no longer what an origin gave; it may give it again, or it is lost."""
        window = self.renditions[rendition]
        if msn in window.away:
            window.give_back(msn)
            if msn < window.origin_msn:
                self.lose(rendition, msn)

    def take_dropped(self) -> list[str]:
        """The names of segments that are gone here, and not from the disk."""
        names = []
        for name, window in self.renditions.items():
            names += [segment_name(name, msn) for msn in window.dropped]
            window.dropped.clear()
        return names

    def init(self, rendition: str, digest: str) -> bytes | None:
        """The bytes of an init segment, else None."""
        window = self.renditions.get(rendition)
        init = window.inits.get(digest) if window is not None else None
        return init.data if init is not None else None

    def is_hinted(self, name: str) -> bool:
        """Whether `name` is a part or init that a playlist now promises: a request for it waits."""
        windows = self.renditions.values()
        return any(
            name in (window.hint_name, window.hint_init_name) and not window.rendition.away
            for window in windows
        )

    def media_playlist(self, rendition: str) -> MediaPlaylist | None:
        """What to render for a rendition now; None while it has no media."""
        window = self.renditions.get(rendition)
        if window is None or not window.shown:
            return None
        target_s = window.rendition.target_duration_s
        return MediaPlaylist(
            target_duration_s=target_s,
            part_target_us=window.rendition.part_target_us if window.has_parts else 0,
            part_hold_back_us=self._hold_back_us,
            hold_back_s=max(HOLD_BACK_TARGETS * target_s, window.rendition.latency.hold_back_s),
            discontinuity_sequence=window.discontinuity_sequence,
            segments=window.shown_entries,
            parts_from=window.parts_from,
            skip_until_s=SKIP_TARGETS * target_s,
            skippable=window.skippable,
            reports=[
                RenditionReport(
                    playlist_name(name),
                    other.last_msn,
                    other.last_part if other.last_part >= 0 else None,
                )
                for name, other in self.renditions.items()
                if other is not window and other.shown and not other.rendition.away
            ],
            hint_uri=window.hint_name,
            hint_init_uri=window.hint_init_name,
            ended=self.ended is not None,
        )

    def multivariant_playlist(self) -> MultivariantPlaylist | None:
        """What to render for the stream now; None while nothing has media.

        Its URIs begin with the publication, because it stands one folder above. A rendition whose
        first segment is not whole yet is left out beside one that has some (see `ready`), and so is
        one that is away, or of which nothing has come for as long as the playlist is.
        """
        listed = [window for window in self.renditions.values() if window.listed]
        if not listed:
            return None
        shown = [window for window in listed if window.has_whole_segment] or listed
        here = [window for window in shown if not window.rendition.away] or shown
        heard = [window for window in here if not window.is_silent] or here
        return make_multivariant(self.prefix, heard)

    def _segment(self, rendition: str, msn: int) -> WindowSegment | None:
        window = self.renditions.get(rendition)
        return window.segments.get(msn) if window is not None else None

    def _window(self, name: str) -> RenditionWindow:
        window = self.renditions.get(name)
        if window is None:
            raise RemoteProtocolError(f"rendition {name[:40]!r} has not been announced")
        return window

    def _end(self, event: StreamEnded) -> bool:
        for window in self.renditions.values():
            window.end()
        self.ended = event
        self.version += 1
        return True

    def _add_description(self, event: Rendition | InitSegment | SegmentsListed) -> bool:
        if isinstance(event, Rendition):
            return self._add_rendition(event)
        if isinstance(event, InitSegment):
            return self._add_init(event)
        return self._list_away(event)

    def _add_rendition(self, event: Rendition) -> bool:
        window = self.renditions.get(event.name)
        if window is None:
            self._check_rendition(event)
            self.renditions[event.name] = RenditionWindow(event)
        elif window.rendition == event:
            return False
        elif _fixed(window.rendition) != _fixed(event):
            raise RemoteProtocolError(f"rendition {event.name!r} changed its fixed times")
        else:
            window.version += window.rendition.away != event.away  # Its playlist is there, or not.
            window.rendition = event
        windows = self.renditions.values()
        part_target_us = max(w.rendition.part_target_us for w in windows)
        least_us = event.latency.part_hold_back_ms * 1000
        hold_back_us = max(PART_HOLD_BACK_PARTS * part_target_us, least_us)
        if hold_back_us != self._hold_back_us:
            # RFC 8216bis §6.2.4: all media playlists have the same SERVER-CONTROL, so all change.
            self._hold_back_us = hold_back_us
            for other in windows:
                other.version += 1
        self.version += 1
        return True

    def _check_rendition(self, event: Rendition) -> None:
        if _NAME.fullmatch(event.name) is None:
            raise RemoteProtocolError(f"rendition name {event.name[:40]!r} is not 16 of a-z0-9")
        if len(self.renditions) >= RENDITIONS_MAX:
            raise RemoteProtocolError(f"rendition {event.name!r} exceeds {RENDITIONS_MAX}")
        if min(event.timescale, event.part_target_us, event.target_duration_s) <= 0:
            raise RemoteProtocolError(f"rendition {event.name!r} has a time of 0 or less")
        latency = event.latency
        if any(w.rendition.latency != latency for w in self.renditions.values()):
            raise RemoteProtocolError(
                f"rendition {event.name!r} has a latency of its own, {latency.name[:16]!r}"
            )
        target_s = event.target_duration_s
        if any(w.rendition.target_duration_s != target_s for w in self.renditions.values()):
            raise RemoteProtocolError(
                f"rendition {event.name!r} has a target duration of its own, {target_s} s"
            )

    def _add_init(self, event: InitSegment) -> bool:
        window = self._window(event.rendition)
        if event.digest == next(reversed(window.inits), None):
            return False
        if event.digest in window.inits:
            window.inits[event.digest] = window.inits.pop(event.digest)  # The newest again.
        else:
            self._check_init(window, event)
            window.inits[event.digest] = event
            window.payload_bytes += len(event.data)
        window.described[event.digest] = window.rendition
        if window.listed:
            changes = event.digest != window.listed[-1].init_digest
            name = init_name(event.rendition, event.digest)
            window.hint_init_name = name if changes and window.has_parts else None
            window.version += 1
        return True

    def _check_init(self, window: RenditionWindow, event: InitSegment) -> None:
        if _DIGEST.fullmatch(event.digest) is None:
            raise RemoteProtocolError(f"init digest {event.digest[:40]!r} is not 16 hex digits")
        if len(event.data) > INIT_BYTES_MAX:
            raise RemoteProtocolError(
                f"init of {event.rendition!r} has {len(event.data)} bytes, limit {INIT_BYTES_MAX}"
            )
        used = {segment.init_digest for segment in window.segments.values()}
        for digest in [digest for digest in window.inits if digest not in used]:
            window.payload_bytes -= len(window.inits.pop(digest).data)
            del window.described[digest]
        if len(window.inits) >= INITS_MAX:
            raise RemoteProtocolError(
                f"rendition {event.rendition!r} has more than {INITS_MAX} inits in use"
            )

    def _add_part(self, part: Part) -> bool:
        window = self._window(part.rendition)
        if not 0 <= part.index < PARTS_MAX or part.duration <= 0 or part.msn < 0:
            raise RemoteProtocolError(
                f"part {part.rendition}-{part.msn}.{part.index} of {part.duration} ticks is absurd"
            )
        first = not window.listed
        if not window.add_part(part):
            self.parts_refused += 1
            return False
        if first:
            window.tell_bandwidth()
            window.tell_formats()
            self.version += 1
        self._trim(window)
        return True

    def _end_segment(self, event: SegmentEnded) -> bool:
        window = self._window(event.rendition)
        if not 0 <= event.parts <= PARTS_MAX:
            raise RemoteProtocolError(
                f"segment {event.rendition}-{event.msn} has {event.parts} parts, limit {PARTS_MAX}"
            )
        had_whole = window.has_whole_segment
        if not window.end_segment(event):
            return False
        told = window.tell_bandwidth()
        named_now = not had_whole and len(self.renditions) > 1  # It was left out beside others.
        self.version += told or named_now
        self._trim(window)
        return True

    def _list_away(self, event: SegmentsListed) -> bool:
        window = self._window(event.rendition)
        for one in event.segments:
            if one.duration <= 0 or min(one.msn, one.payload_bytes) < 0:
                raise RemoteProtocolError(
                    f"segment {event.rendition}-{one.msn} of {one.duration} ticks and"
                    f" {one.payload_bytes} bytes is absurd"
                )
        away = len(window.away)
        lost = lose_older(window, event.oldest_msn)
        self.segments_lost += away - len(window.away)
        if not (list_away(window, event) or lost):
            return False
        window.tell_bandwidth()
        self.version += 1
        if window.listed:
            self._trim(window)
        return True

    def _playlist_us(self, window: RenditionWindow) -> int:
        least_us = PLAYLIST_TARGETS_MIN * window.rendition.target_duration_s * US
        return max(int(self.limits.playlist_s * US), least_us)

    def _trim(self, window: RenditionWindow) -> None:
        """Unlist what left the playlist window, drop what left retention, keep to the bytes."""
        playlist_us = self._playlist_us(window)
        while window.shown_us - window.listed[0].entry.duration_us >= playlist_us:
            window.unlist()
        retention_us = max(int(self.limits.retention_s * US), self.needed_us(window))
        while len(window.segments) > len(window.listed):
            oldest = next(iter(window.segments.values()))
            if window.kept_us - oldest.entry.duration_us < retention_us:
                break
            window.evict()
        while self.payload_bytes > self.limits.payload_bytes_max:
            self._evict_early()
        for other in self.renditions.values():
            self.version += other.tell_formats() + other.tell_silence()

    def _evict_early(self) -> None:
        """Drop a segment of the rendition that holds the longest time beyond what is needed.

        So all of them keep about the same seconds, and the playlists are shortened last.
        """
        several = [w for w in self.renditions.values() if len(w.segments) > 1]
        if not several:
            raise RemoteProtocolError(
                f"one segment a rendition is {self.payload_bytes} bytes,"
                f" limit {self.limits.payload_bytes_max}"
            )
        window = max(several, key=lambda w: w.kept_us + w.listed_us - self.needed_us(w))
        window.evict()
        self.segments_evicted_early += 1
        # What went had left the playlist that long ago.
        self.segments_evicted_needed += window.kept_us < self.needed_us(window)


def _fixed(rendition: Rendition) -> tuple[Kind, int, int, int, Latency]:
    """What never changes in the life of a stream."""
    return (
        rendition.kind,
        rendition.timescale,
        rendition.part_target_us,
        rendition.target_duration_s,
        rendition.latency,
    )
