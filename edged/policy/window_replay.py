"""What a late subscriber gets first of a window: the playlists of now.

The newest segments are pushed; what is older is listed, for who can fetch it by name. To a place
where nobody watches yet that is no more than what is listed with its parts: players there wait for
all of it.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from edged.media.newest import first_within
from edged.media.parts import ListedSegment, PackagedEvent, SegmentsListed
from edged.policy.rendition_window import RenditionWindow
from edged.policy.window import StreamWindow
from edged.policy.window_segment import WindowSegment

# A flow leaves out of a replay what is more than 8 MiB or 512 events (`flows.choose_replay`).
PUSHED_BYTES_MAX: Final = 8 * 2**20 - 64 * 2**10  # What is listed included;
PUSHED_EVENTS_MAX: Final = 390  # what describes a rendition is DESCRIBING_EVENTS of them.
DESCRIBING_EVENTS: Final = 4
PART_BYTES: Final = 320  # Of a part beside its media.
LISTED_BYTES: Final = 48  # Of a segment that is listed.
# Of all renditions: 30 h of one of 2 s segments, or 6 h of five. Some 2 MB on the way.
LISTED_MAX: Final = 54_000
# In one event: it takes who hears it some 4 ms, and some 110 of them are all that can be listed.
LISTED_EVENT_MAX: Final = 512

Pushed = list[tuple[RenditionWindow, WindowSegment]]


def make_replay(
    stream: StreamWindow, *, lists: bool = False, cold: bool = False
) -> list[PackagedEvent]:
    """The events that give a late subscriber the playlists of now.

    `lists`: it knows SegmentsListed, and gets all that is held, else what is listed and in memory;
    `cold`: it holds nothing of the stream yet, and nobody waits for parts that it missed.
    """
    pushed = _choose_pushed(stream, cold=lists and cold, bounded=lists)
    events: list[PackagedEvent] = []
    digests: dict[str, str] = {}
    for window in stream.renditions.values():
        first = next((s for w, s in pushed if w is window), None)
        listed = _choose_listed(stream, window, first) if lists else []
        oldest = listed[0] if listed else first
        digest = "" if oldest is None else oldest.init_digest
        events.append(window.described.get(digest, window.rendition))
        if lists:
            events += _list(window, listed, digests)
    for window, segment in pushed:
        events += _introduce(window, segment.init_digest, digests)
        events += [part for part in segment.parts if part is not None]
        if segment.ended is not None:
            events.append(segment.ended)
    for name, window in stream.renditions.items():
        newest = next(reversed(window.inits), None)
        if window.described.get(digests.get(name, "")) != window.rendition:
            events.append(window.rendition)
        if newest is not None and digests.get(name) != newest:
            events.append(window.inits[newest])
    if stream.ended is not None:
        events.append(stream.ended)
    return events


def _choose_pushed(stream: StreamWindow, *, cold: bool, bounded: bool) -> Pushed:
    """The newest listed segments in memory, by MSN; those of one MSN in the renditions' order."""
    held = [
        (segment.entry.msn, order, window, segment)
        for order, window in enumerate(stream.renditions.values())
        for segment in window.listed
        if not (segment.stored or segment.away)
    ]
    first = 0
    if bounded:
        first = _first_within(stream, [segment for *_, segment in held])
    if cold:
        heard = [window for window in stream.renditions.values() if not window.is_silent]
        first = max(first, min((_first_in_parts(window) for window in heard), default=0))
    chosen = [one for one in sorted(held, key=lambda one: one[:2]) if one[0] >= first]
    return [(window, segment) for _, _, window, segment in chosen]


def _first_in_parts(window: RenditionWindow) -> int:
    """The MSN of the first that is listed with its parts, or is whole if there are none."""
    place = min(window.parts_from, window.whole_segments - 1)
    return window.listed[place].entry.msn if place >= 0 else 0


def _first_within(stream: StreamWindow, segments: Sequence[WindowSegment]) -> int:
    """The MSN from which on all of them are no more than is pushed; the newest in any case."""
    sizes: dict[int, int] = {}
    counts: dict[int, int] = {}
    for segment in segments:
        msn = segment.entry.msn
        sizes[msn] = sizes.get(msn, 0) + segment.payload_bytes + PART_BYTES * len(segment.parts)
        counts[msn] = counts.get(msn, 0) + len(segment.parts) + 1
    windows = stream.renditions.values()
    room = PUSHED_BYTES_MAX - LISTED_BYTES * sum(len(window.segments) for window in windows)
    places = PUSHED_EVENTS_MAX - DESCRIBING_EVENTS * len(windows)
    return first_within(sizes, counts, room, places)


def _choose_listed(
    stream: StreamWindow, window: RenditionWindow, first: WindowSegment | None
) -> list[WindowSegment]:
    """Its whole segments before the first that is pushed, the newest of them."""
    before = None if first is None else first.entry.msn
    whole = [
        segment
        for msn, segment in window.segments.items()
        if segment.entry.complete and (before is None or msn < before)
    ]
    return whole[-(LISTED_MAX // len(stream.renditions)) :]


def _list(
    window: RenditionWindow, listed: Sequence[WindowSegment], digests: dict[str, str]
) -> Iterator[PackagedEvent]:
    """Tell of these, and of how old what is held is at most."""
    name, oldest_msn = window.rendition.name, next(iter(window.segments), 0)
    if not listed:
        yield SegmentsListed(rendition=name, oldest_msn=oldest_msn)
        return
    sequences = _count_discontinuities(window)
    told: list[ListedSegment] = []
    for segment, following in zip(listed, [*listed[1:], None], strict=True):
        entry, ended, opening = segment.entry, segment.ended, segment.opening
        assert ended is not None, "it is whole"
        told.append(
            ListedSegment(
                msn=entry.msn,
                duration=max(1, ended.duration),
                wallclock_us=entry.wallclock_us,
                payload_bytes=0 if entry.gap else segment.payload_bytes,
                discontinuity=entry.discontinuity,
                discontinuity_sequence=sequences[entry.msn],
                gap=entry.gap,
                tfdt=0 if opening is None else opening.tfdt,
                independent=opening is None or opening.independent,
            )
        )
        digest = segment.init_digest
        if following is None or following.init_digest != digest or len(told) >= LISTED_EVENT_MAX:
            yield from _introduce(window, digest, digests)
            yield SegmentsListed(
                rendition=name, oldest_msn=oldest_msn, init_digest=digest, segments=tuple(told)
            )
            told = []


def _introduce(
    window: RenditionWindow, digest: str, digests: dict[str, str]
) -> Iterator[PackagedEvent]:
    """The init that what follows needs, unless it has it.

    Not earlier: whoever adds an init forgets those that no segment uses. Each with its own
    description, or CODECS would name the newest format alone.
    """
    name = window.rendition.name
    if digests.get(name) == digest:
        return
    if name in digests:
        yield window.described[digest]
    digests[name] = digest
    yield window.inits[digest]


def _count_discontinuities(window: RenditionWindow) -> dict[int, int]:
    """By MSN: the discontinuities of the run so far, the segment's own included."""
    first_msn = window.listed[0].entry.msn if window.listed else None
    kept = [msn for msn in window.segments if first_msn is None or msn < first_msn]
    sequences: dict[int, int] = {}
    count = window.discontinuity_sequence
    for msn in reversed(kept):
        sequences[msn] = count
        count -= window.segments[msn].entry.discontinuity
    count = window.discontinuity_sequence
    for segment in window.listed:
        count += segment.entry.discontinuity
        sequences[segment.entry.msn] = count
    return sequences
