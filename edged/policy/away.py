"""Segments of a window whose media is still at an origin, which gives it by name.

A place that comes late lists them as all others do. Once nobody has the media of one, playlists
begin behind it: a segment that was listed may leave from the beginning, and may not become a gap
(RFC 8216bis §6.2.1). What is older and held here stays for those who have its name.
"""

from edged.media.parts import ListedSegment, Part, SegmentsListed
from edged.policy.rendition_window import US, RenditionWindow


def list_away(window: RenditionWindow, event: SegmentsListed) -> bool:
    """List what an origin says that it holds, behind what is known; returns whether any is new."""
    listed = [_list_one(window, one, event.init_digest) for one in event.segments]
    return any(listed)


def lose(window: RenditionWindow, msn: int) -> None:
    """Nobody has the media of a segment that is away: no playlist lists it, nor what is older."""
    segment = window.away[msn]
    while window.listed and window.listed[0].entry.msn <= msn:
        window.unlist()
        window.version += 1
    del window.segments[msn]
    window.kept_us -= segment.entry.duration_us
    window.drop_media(segment)


def lose_older(window: RenditionWindow, msn: int) -> bool:
    """Lose what is away, older than that and not kept here; returns whether there was any.

    The origin has nothing older from now on.
    """
    window.origin_msn = msn
    lost = [number for number, one in window.away.items() if number < msn and one.fetched is None]
    for number in lost:
        lose(window, number)
    return bool(lost)


def _list_one(window: RenditionWindow, listed: ListedSegment, init_digest: str) -> bool:
    """List the next one; what has begun to come of it, if anything, is let go of."""
    last = window.listed[-1] if window.listed else None
    if last is not None and listed.msn == last.entry.msn and not last.entry.complete:
        segment = last
        window.payload_bytes -= last.payload_bytes
        window.listed_bytes -= last.payload_bytes
        last.payload_bytes = 0
        last.forget_parts()
    else:
        first = _first_part(window, listed, init_digest)
        begun = window.segment_for(first)
        if begun is None:
            return False
        segment, begun.first = begun, first
    window.heard_msn = max(window.heard_msn, listed.msn if not listed.gap else -1)
    segment.entry.gap = listed.gap
    if not listed.gap:
        segment.away, segment.payload_bytes = True, listed.payload_bytes
        window.away[listed.msn] = window.in_memory.pop(listed.msn)
        window.listed_bytes += listed.payload_bytes
    window.complete(segment, listed.duration * US // window.rendition.timescale)
    if segment.away:
        window.stored_us += segment.entry.duration_us
    return True


def _first_part(window: RenditionWindow, listed: ListedSegment, init_digest: str) -> Part:
    """As its first part would be, for all that a playlist says of it."""
    return Part(
        rendition=window.rendition.name,
        msn=listed.msn,
        index=0,
        tfdt=listed.tfdt,
        duration=listed.duration,
        wallclock_us=listed.wallclock_us,
        init_digest=init_digest,
        payload=b"",
        independent=listed.independent,
        discontinuity=listed.discontinuity,
        discontinuity_sequence=listed.discontinuity_sequence,
    )
