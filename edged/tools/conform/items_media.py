"""Items 16 to 21 and 23: the media behind the playlists, and when it comes."""

import itertools

from edged.errors import RemoteProtocolError
from edged.tools.conform.client import Answer
from edged.tools.conform.item import Item, Judgement, NotSeen
from edged.tools.conform.items_playlist import has_parts
from edged.tools.conform.observe import FetchedPart, Observation, RenditionLog, Seen
from edged.wire.cmaf.reader import ReadSample, media_of, read_samples
from edged.wire.m3u8_reader import US, ReadSegment

LATE_S = 0.1  # Of a part, on top of PART-TARGET: the network between us.
LATE_SHARE = 0.5
SEGMENT_TARGETS_MAX = 1.5
LISTED_TARGETS = 3
BODY_S_MAX = 0.1  # From the first byte of a part to its last, and
BODY_BYTES_PER_S = 1_000_000  # what a link carries at least.
TICKS_APART_MAX_S = 0.002  # What rounding makes of timestamps.


def _segments(log: RenditionLog) -> list[tuple[ReadSegment, Answer, list[FetchedPart]]]:
    """The whole segments that were fetched, with their parts."""
    found = []
    for msn, answer in sorted(log.segments.items()):
        segment = log.last.segment(msn)
        if segment is not None:
            parts = [log.parts[part.uri] for part in segment.parts if part.uri in log.parts]
            if len(parts) == len([part for part in segment.parts if not part.gap]):
                found.append((segment, answer, parts))
    return found


def _samples(log: RenditionLog, data: bytes) -> list[ReadSample]:
    return [] if log.init is None else read_samples(data, log.init)


def same_samples(seen: Observation) -> Judgement:
    """16."""
    problems: list[str] = []
    count = 0
    for log in seen.renditions:
        for segment, answer, parts in _segments(log):
            count += 1
            bad = [one for one in (answer, *(part.answer for part in parts)) if one.status != 200]  # noqa: PLR2004
            if bad:
                problems.append(f"{log.name}: {bad[0].url}: status {bad[0].status}")
                continue
            together = b"".join(part.answer.body for part in parts)
            if together == answer.body:
                continue
            try:
                alike = _samples(log, together) == _samples(log, answer.body)
                alike = alike and media_of(together) == media_of(answer.body)
            except RemoteProtocolError as error:
                problems.append(f"{log.name}: segment {segment.msn}: {error}")
                continue
            if not alike:
                problems.append(f"{log.name}: segment {segment.msn} and its parts differ")
    return problems if count else NotSeen("no whole segment with all its parts was seen")


def independent_parts(seen: Observation) -> Judgement:
    """17."""
    problems: list[str] = []
    count = 0
    for log in seen.renditions:
        for segment, _, parts in _segments(log):
            if log.init is None:
                continue
            marked = {part.uri: part.independent for part in segment.parts}
            for part in parts:
                try:
                    samples = _samples(log, part.answer.body)
                except RemoteProtocolError as error:
                    problems.append(f"{log.name}: {part.uri}: {error}")
                    continue
                count += 1
                if any(sample.sync for sample in samples) and not marked[part.uri]:
                    problems.append(f"{log.name}: {part.uri} has an independent frame, unmarked")
                elif marked[part.uri] and not any(sample.sync for sample in samples):
                    problems.append(f"{log.name}: {part.uri} is marked, and has none")
            if not any(marked.values()):
                problems.append(f"{log.name}: segment {segment.msn} has no independent part")
    return problems if count else NotSeen("no parts could be read")


def in_time(seen: Observation) -> Judgement:
    """18."""
    problems: list[str] = []
    for log in seen.renditions:
        target_us, target_s = log.last.part_target_us, log.last.target_duration_s or 0
        fresh = [one for one in log.seen if one.asked is not None and not one.playlist.ended]
        if target_us is None or len(fresh) < 3:  # noqa: PLR2004 - two intervals
            continue
        limit_s = target_us / US + max(LATE_S, LATE_SHARE * target_us / US)
        problems += _late(log.name, fresh, limit_s)
        whole = [one for before, one in itertools.pairwise(fresh)
                 if one.playlist.last_whole > before.playlist.last_whole]  # fmt: skip
        for before, one in itertools.pairwise(whole):
            took_s = one.answer.head_at - before.answer.head_at
            if took_s > SEGMENT_TARGETS_MAX * target_s + LATE_S:
                problems.append(
                    f"{log.name}: segment {one.playlist.last_whole} after {took_s:.2f} s"
                )
    if not has_parts(seen):
        return NotSeen("there are no parts")
    return problems if len(seen.main.seen) > 3 else NotSeen("too few reloads")  # noqa: PLR2004


def _late(name: str, fresh: list[Seen], limit_s: float) -> list[str]:
    """Parts that came late; the first reload may have found the newest part already there."""
    problems = []
    for before, one in itertools.pairwise(fresh[1:]):
        took_s = one.answer.head_at - before.answer.head_at
        if took_s > limit_s:
            problems.append(
                f"{name}: part {one.playlist.last} after {took_s:.3f} s, {limit_s:.3f} s at most"
            )
    return problems


def parts_are_listed_for_a_while(seen: Observation) -> Judgement:
    """19."""
    if not has_parts(seen):
        return NotSeen("there are no parts")
    problems: list[str] = []
    for log in seen.renditions:
        target_s = log.last.target_duration_s or 0
        after_us = 0
        for segment in reversed(log.last.segments):
            old = after_us > (LISTED_TARGETS + 1) * target_s * US
            if old and segment.parts:
                problems.append(
                    f"{log.name}: parts of segment {segment.msn}, {after_us / US:.1f} s from the "
                    "end, are listed still"
                )
                break
            young = (
                segment.is_whole and after_us + segment.media_us <= LISTED_TARGETS * target_s * US
            )
            if young and not segment.parts and not segment.gap and log.last.part_target_us:
                problems.append(f"{log.name}: no parts of segment {segment.msn}, "
                                f"{after_us / US:.1f} s from the end")  # fmt: skip
            after_us += segment.media_us
        problems += [
            f"{log.name}: {part.uri}: status {part.answer.status}"
            for part in log.parts.values()
            if part.answer.status != 200 and not part.hinted  # noqa: PLR2004
        ]
    return problems


def segments_stay(seen: Observation) -> Judgement:
    """20."""
    problems: list[str] = []
    count = 0
    for log in seen.renditions:
        count += len(log.left)
        problems += [f"{one.url}: status {one.status}, it has just left" for one in log.left
                     if one.status != 200]  # noqa: PLR2004  # fmt: skip
        target_s = log.last.target_duration_s or 0
        listed_us = sum(segment.media_us for segment in log.last.segments)
        if log.last.media_sequence > 0 and listed_us < LISTED_TARGETS * target_s * US:
            problems.append(f"{log.name}: {listed_us / US:.1f} s are listed, 3 x TD at least")
        known: dict[int, str] = {}
        for one in log.seen:
            for segment in one.playlist.segments:
                if segment.is_whole and known.setdefault(segment.msn, segment.uri) != segment.uri:
                    problems.append(
                        f"{log.name}: segment {segment.msn} is {known[segment.msn]}, {segment.uri}"
                    )
    return problems if count or problems else NotSeen("no segment left the playlist")


def no_holes(seen: Observation) -> Judgement:
    """21."""
    problems: list[str] = []
    count = 0
    for log in seen.renditions:
        if log.init is None:
            continue
        end: tuple[int, int] | None = None  # MSN, ticks.
        for segment, answer, _ in _segments(log):
            try:
                samples = _samples(log, answer.body)
            except RemoteProtocolError as error:
                problems.append(f"{log.name}: segment {segment.msn}: {error}")
                continue
            if not samples:
                problems.append(f"{log.name}: segment {segment.msn} without a sample")
                continue
            if end is not None and end[0] == segment.msn - 1 and not segment.discontinuity:
                count += 1
                apart_s = (samples[0].dts - end[1]) / log.init.timescale
                if abs(apart_s) > TICKS_APART_MAX_S:
                    problems.append(
                        f"{log.name}: segment {segment.msn} begins {apart_s:+.3f} s off"
                    )
            end = segment.msn, samples[-1].dts + samples[-1].duration
    return problems if count or problems else NotSeen("no two segments without a discontinuity")


def hints_are_kept(seen: Observation) -> Judgement:
    """23."""
    problems: list[str] = []
    count = 0
    for log in seen.renditions:
        for before, one in itertools.pairwise(log.seen):
            hinted = [hint.uri for hint in before.playlist.hints if hint.type == "PART"]
            listed = [part.uri for segment in one.playlist.segments for part in segment.parts]
            known = {part.uri for segment in before.playlist.segments for part in segment.parts}
            new = [uri for uri in listed if uri not in known]
            if hinted and new:
                count += 1
                if hinted[0] != new[0]:
                    problems.append(f"{log.name}: {hinted[0]} was hinted, {new[0]} came")
        for part in log.parts.values():
            answer = part.answer
            if not part.hinted or answer.status != 200:  # noqa: PLR2004
                continue
            took_s = answer.last_at - answer.head_at
            if took_s > BODY_S_MAX + answer.wire_bytes / BODY_BYTES_PER_S:
                problems.append(f"{log.name}: {part.uri} began {took_s:.2f} s before it was whole")
    return problems if count else NotSeen("no part came after a hint")


ITEMS = (
    Item(16, "must", "the parts together are the segment", same_samples),
    Item(17, "should", "INDEPENDENT where a frame is; each segment has one", independent_parts),
    Item(18, "must", "a part each PART-TARGET, a segment each 1.5 x TD", in_time),
    Item(19, "should", "parts are listed for 3 x TD", parts_are_listed_for_a_while),
    Item(20, "must", "segments stay when they have left the playlist", segments_stay),
    Item(21, "must", "no hole without EXT-X-GAP or EXT-X-DISCONTINUITY", no_holes),
    Item(23, "must", "what is hinted comes, when it is whole", hints_are_kept),
)  # fmt: skip
