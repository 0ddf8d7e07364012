"""The DASH manifest of a window: the whole segments of its playlists, as periods.

    segments by MSN ─▶ periods: one timeline each, begun by a discontinuity, another init, or
                       where a rendition has media again behind absent media
    renditions      ─▶ adaptation sets: rungs of one codec together, each audio alone

In a period a segment's number is its MSN, and each rendition's numbers are without a hole, so its
addresses are a template of the very names that HLS has (ISO/IEC 23009-1 §5.3.9). What has been said
of a period stays: it is kept here, also when its first segment has left the window.
"""

from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct, field

from edged.media.manifest import AdaptationSet, Manifest, Period, Representation
from edged.media.parts import Part, Rendition
from edged.media.track import Kind
from edged.policy.rendition_window import US, RenditionWindow
from edged.policy.window import StreamWindow
from edged.policy.window_segment import WindowSegment

PERIOD_US_MIN = 1_000  # Manifests have milliseconds.
LAG_SEGMENTS_MAX = 2  # A rendition that is further behind does not hold the others back.
SEGMENT_S_MAX_OVER = 0.5  # A segment may exceed TARGETDURATION by less: it is rounded.

FirstShown = Callable[[bytes, Part], int]
"""Of an init and a segment's first part: ticks from its decode time until it is presented."""


class _Segment(Struct, frozen=True):
    """What is said of one segment."""

    time: int  # When it is presented first, in ticks.
    duration: int
    digest: str  # Of its init.
    is_independent: bool


class _Period(Struct):
    """A period, as it was begun."""

    name: str
    first_msn: int
    start_us: int
    time: int  # The media time at which it begins,
    timescale: int  # in these ticks.
    digests: dict[str, str] = field(default_factory=dict)  # By rendition.
    last_msns: dict[str, int] = field(default_factory=dict)  # Of what it has, by rendition.


class DashTimeline:
    """One stream's periods; ask for the manifest of now."""

    def __init__(self, first_shown: FirstShown) -> None:
        self._first_shown = first_shown
        self._periods: list[_Period] = []
        self._segments: dict[str, dict[int, _Segment]] = {}  # By rendition and MSN.
        self._sets: dict[tuple[Kind, str], int] = {}  # A codec's, or an audio rendition's.
        self._next_msn: int | None = None
        self._is_apart = True  # What comes next begins a period.

    def make_manifest(self, window: StreamWindow, now_us: int) -> Manifest | None:
        """The manifest of now, `now_us` since 1970; None while no segment is whole."""
        windows = _named(window)
        if not windows:
            return None
        self._follow(windows, _edge(windows))
        periods = tuple(period for period in self._describe(windows) if period.sets)
        if not periods:
            return None
        target_s = windows[0].rendition.target_duration_s
        latency = windows[0].rendition.latency
        return Manifest(
            periods=periods,
            published_us=now_us,
            update_s=max(target_s / 2, 1.0),
            depth_s=max(window.limits.playlist_s, 3.0 * target_s),
            delay_s=float(max(3 * target_s, latency.hold_back_s)),
            segment_s_max=target_s + SEGMENT_S_MAX_OVER,
            ended_us=None if window.ended is None else self._end_us(windows),
        )

    def version(self, window: StreamWindow) -> object:
        """Changes whenever the manifest does, but for its time."""
        windows = _named(window)
        firsts = tuple(each.listed[0].entry.msn for each in windows)
        edge = _edge(windows) if windows else -1
        return window.version, edge, firsts, window.ended is not None

    def _follow(self, windows: Sequence[RenditionWindow], edge: int) -> None:
        """Look at all segments that are new, and forget those that have left."""
        oldest = min(each.listed[0].entry.msn for each in windows)
        for msn in range(max(self._next_msn or 0, oldest), edge + 1):
            self._add(windows, msn)
        self._next_msn = edge + 1
        for segments in self._segments.values():
            for msn in [msn for msn in segments if msn < oldest]:
                del segments[msn]
        while len(self._periods) > 1 and self._periods[1].first_msn <= oldest:
            del self._periods[0]

    def _add(self, windows: Sequence[RenditionWindow], msn: int) -> None:
        found: list[tuple[RenditionWindow, WindowSegment, _Segment]] = []
        for window in windows:
            held = window.segments.get(msn)
            if held is None:
                continue
            self._is_apart |= held.entry.discontinuity
            segment = self._read(window, held)
            if segment is not None:
                found.append((window, held, segment))
        if not found:
            return
        period = self._periods[-1] if self._periods else None
        if period is None or self._is_apart or _is_apart(period, found, msn):
            period = self._begin(found, msn)
        for window, _, segment in found:
            name = window.rendition.name
            period.digests[name], period.last_msns[name] = segment.digest, msn
            self._segments.setdefault(name, {})[msn] = segment

    def _begin(
        self, found: list[tuple[RenditionWindow, WindowSegment, _Segment]], msn: int
    ) -> _Period:
        """Begin a period with what is presented first of these."""
        window, held, segment = min(
            found, key=lambda each: each[2].time / each[0].rendition.timescale
        )
        part = held.opening
        assert part is not None, "a segment that lacks a part is absent media"
        name = str(part.discontinuity_sequence)
        if any(known.name.partition("-")[0] == name for known in self._periods):
            name = f"{name}-{msn}"
        start_us = held.entry.wallclock_us
        if self._periods:  # A clock that was set back does not turn periods round.
            start_us = max(start_us, self._periods[-1].start_us + PERIOD_US_MIN)
        period = _Period(
            name=name,
            first_msn=msn,
            start_us=start_us,
            time=segment.time,
            timescale=window.rendition.timescale,
        )
        self._is_apart = False
        self._periods.append(period)
        return period

    def _read(self, window: RenditionWindow, held: WindowSegment) -> _Segment | None:
        """What is to be said of a segment; None of absent media, and of what has no length."""
        first = held.opening
        if held.entry.gap or not held.entry.complete or first is None:
            return None
        timescale = window.rendition.timescale
        duration = held.ended.duration if held.ended is not None else 0
        duration = duration or held.entry.duration_us * timescale // US
        init = window.inits.get(held.init_digest)
        if duration <= 0 or init is None:
            return None
        time = first.tfdt + self._shift(window, held, init.data, first)
        return _Segment(max(time, 0), duration, held.init_digest, first.independent)

    def _shift(self, window: RenditionWindow, held: WindowSegment, init: bytes, first: Part) -> int:
        """What `FirstShown` says, of a segment that is elsewhere as of another with its init."""
        if not held.parts:
            alike = (s for s in reversed(window.in_memory.values()) if s.entry.complete)
            found = (s.parts[0] for s in alike if s.parts and s.init_digest == held.init_digest)
            first = next((part for part in found if part is not None), first)
        return self._first_shown(init, first)

    def _describe(self, windows: Sequence[RenditionWindow]) -> Iterator[Period]:
        for index, period in enumerate(self._periods):
            following = self._periods[index + 1 : index + 2]
            end = following[0].first_msn if following else self._next_msn or 0
            sets: dict[int, list[tuple[RenditionWindow, Representation, bool]]] = {}
            for window in windows:
                made = self._represent(window, period, end)
                if made is not None:
                    number = self._number(window.rendition, made[0].codecs)
                    sets.setdefault(number, []).append((window, *made))
            yield Period(
                name=period.name,
                start_us=period.start_us,
                sets=tuple(_make_set(number, sets[number]) for number in sorted(sets)),
            )

    def _represent(
        self, window: RenditionWindow, period: _Period, end: int
    ) -> tuple[Representation, bool] | None:
        """A rendition in a period, and whether each of its segments begins with random access."""
        shown, oldest = window.rendition, window.listed[0].entry.msn
        known = self._segments.get(shown.name, {})
        numbers = [n for n in range(max(period.first_msn, oldest), end) if n in known]
        if not numbers:
            return None
        segments = [known[number] for number in numbers]
        digest = segments[0].digest
        described = window.described.get(digest, shown)
        made = Representation(
            name=shown.name,
            codecs=described.codec_string,
            bandwidth_bps=window.bandwidth_bps,
            timescale=shown.timescale,
            presentation_offset=period.time * shown.timescale // period.timescale,
            start_number=numbers[0],
            segments=tuple(_lengths(segments)),
            init_uri=f"{shown.name}-{digest}.mp4",
            media_uri=f"{shown.name}-$Number$.m4s",
            width=described.width,
            height=described.height,
            sar_num=described.sar_num,
            sar_den=described.sar_den,
            frame_rate_num=described.frame_rate_num,
            frame_rate_den=described.frame_rate_den,
            channels=described.channels,
        )
        return made, all(segment.is_independent for segment in segments)

    def _number(self, rendition: Rendition, codecs: str) -> int:
        """The set of a rendition: rungs of a codec together, each audio by itself."""
        is_rung = rendition.kind is Kind.VIDEO
        key = rendition.kind, codecs.partition(".")[0] if is_rung else rendition.name
        return self._sets.setdefault(key, len(self._sets))

    def _end_us(self, windows: Sequence[RenditionWindow]) -> int:
        """When the last segment ends, by the last period's timeline."""
        period = self._periods[-1]
        ends = []
        for window in windows:
            timescale = window.rendition.timescale
            last = self._segments.get(window.rendition.name, {}).get(
                period.last_msns.get(window.rendition.name, -1)
            )
            if last is not None:
                offset = period.time * timescale // period.timescale
                ends.append((last.time + last.duration - offset) * US // timescale)
        return period.start_us + max(ends, default=0)


def _named(stream: StreamWindow) -> list[RenditionWindow]:
    """Those that players are told of: as in the multivariant playlist, none that is away."""
    whole = [window for window in stream.renditions.values() if window.has_whole_segment]
    return [window for window in whole if not window.rendition.away] or whole


def _edge(windows: Sequence[RenditionWindow]) -> int:
    """The newest segment that all renditions have, or say that they have not."""
    lasts = [each.listed[-1].entry.msn - (not each.listed[-1].entry.complete) for each in windows]
    return min(last for last in lasts if last >= max(lasts) - LAG_SEGMENTS_MAX)


def _is_apart(
    period: _Period, found: list[tuple[RenditionWindow, WindowSegment, _Segment]], msn: int
) -> bool:
    """Whether a rendition has another init, or has been away, within the period."""
    for window, _, segment in found:
        name = window.rendition.name
        if name in period.digests and (
            period.digests[name] != segment.digest or period.last_msns[name] != msn - 1
        ):
            return True
    return False


def _lengths(segments: list[_Segment]) -> Iterator[tuple[int, int]]:
    """When each begins, and how long it lasts: until the next one, which has no hole before it."""
    for index, segment in enumerate(segments):
        duration = segment.duration
        if index + 1 < len(segments) and segments[index + 1].time > segment.time:
            duration = segments[index + 1].time - segment.time
        yield segment.time, duration


def _make_set(
    number: int, members: list[tuple[RenditionWindow, Representation, bool]]
) -> AdaptationSet:
    first = members[0][0].rendition
    timelines = {(made.timescale, made.start_number, made.segments) for _, made, _ in members}
    return AdaptationSet(
        number=number,
        kind=first.kind,
        representations=tuple(made for _, made, _ in members),
        language=first.language,
        label=first.label if first.kind is not Kind.VIDEO else "",
        is_main=first.name in ("v0", "a0") or first.kind is Kind.VIDEO,
        is_aligned=len(timelines) == 1,
        begins_independent=all(independent for _, _, independent in members),
    )
