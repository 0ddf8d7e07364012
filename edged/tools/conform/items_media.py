"""Items 16 to 18, 23 and 25: the media behind the playlists, and when it comes."""

import itertools

from edged.tools.conform.answer import Answer
from edged.tools.conform.item import (
    NO_PARTS,
    Item,
    Judgement,
    has_parts,
    settle,
    settle_explained,
)
from edged.tools.conform.items_holes import missing_us
from edged.tools.conform.media import (
    OK,
    PARTIAL,
    PROBED_RANGE,
    Piece,
    Tracks,
    bytes_of,
    place_of,
    together,
    told,
)
from edged.tools.conform.observe import Observation, RenditionLog, Seen
from edged.tools.conform.pace import Pace
from edged.wire.cmaf.reader import ReadInit
from edged.wire.m3u8_reader import ReadHint, ReadPart, ReadRange, ReadSegment
from edged.wire.m3u8_values import US

LATE_S = 0.1  # Of a part, on top of PART-TARGET: the network between us.
LATE_SHARE = 0.5
SEGMENT_TARGETS_MAX = 1.5
LENGTH_US_MAX = 1_000  # Of each duration: what rounding makes of it.
BODY_S_MAX = 0.1  # From the first byte of a part to its last, and
BODY_BYTES_PER_S = 1_000_000  # what a link carries at least.


def _parts(log: RenditionLog, segment: ReadSegment) -> list[tuple[int, ReadPart, Piece]] | None:
    """All parts of a segment that are no gaps, if they were fetched."""
    listed = [(n, part) for n, part in enumerate(segment.parts) if not part.gap]
    found = [(n, part, log.parts.get(place_of(part))) for n, part in listed]
    known = [(n, part, piece) for n, part, piece in found if piece is not None]
    return known if listed and len(known) == len(listed) else None


def _unread(where: str, pieces: list[Piece]) -> list[str]:
    """Why some could not be had, or not be read."""
    return [
        f"{where}: {told(piece.place)}: "
        + (piece.problem if piece.came else f"status {piece.answer.status} ({piece.answer.url})")
        for piece in pieces
        if piece.problem or not piece.came
    ][:1]


def same_samples(seen: Observation) -> Judgement:
    """16."""
    problems: list[str] = []
    count = 0
    for log in seen.renditions:
        problems += _lengths(log)
        for segment, whole in log.fetched:
            parts = _parts(log, segment)
            if parts is None or any(part.gap for part in segment.parts):
                continue
            pieces = [piece for _, _, piece in parts]
            where = log.where(segment.msn)
            if unread := _unread(where, [whole, *pieces]):
                count, problems = count + 1, problems + unread
            elif whole.init is not None:
                count += 1
                problems += [
                    f"{where}: segment {segment.msn}, {told(whole.place)}, and its "
                    f"{len(pieces)} parts: {difference}"
                    for difference in _differences(whole.tracks, together(pieces))
                ]
    why = "no whole segment with all its parts, of MP4, was seen" if has_parts(seen) else NO_PARTS
    return settle(problems, count, why)


def _lengths(log: RenditionLog) -> list[str]:
    """Segments that are not as long as their parts, gaps and holes together.

    Parts that are listed with a segment as it becomes whole are all of them.
    """
    problems: list[str] = []
    judged: set[int] = set()
    fetched = set(log.segments)
    for one in log.seen:
        for segment in one.playlist.segments:
            msn, whole_us = segment.msn, segment.duration_us
            if not segment.is_whole or not segment.parts or whole_us is None or msn in judged:
                continue
            if msn <= log.first.last_whole and msn not in fetched:
                continue
            if not all(part.gap or place_of(part) in log.parts for part in segment.parts):
                continue  # It may have a hole.
            judged.add(msn)
            parts_us = sum(part.duration_us for part in segment.parts)
            slack_us = LENGTH_US_MAX * (len(segment.parts) + 1)
            apart_us = whole_us - parts_us
            if abs(apart_us) <= slack_us or abs(apart_us - missing_us(log, segment)) <= slack_us:
                continue  # What is missing in it is item 21's.
            problems.append(
                f"{log.at(one.playlist.line(msn))}: the {len(segment.parts)} parts of segment "
                f"{msn} last {parts_us / US:g} s, its EXTINF is {whole_us / US:g} s"
            )
    return problems


def _differences(whole: Tracks, parts: Tracks) -> list[str]:
    """How the samples of a segment and of its parts differ, by track."""
    found = []
    for number in sorted(whole.keys() | parts.keys()):
        ones, others = whole.get(number, []), parts.get(number, [])
        if ones == others:
            continue
        at = next(
            (n for n, pair in enumerate(zip(ones, others, strict=False)) if pair[0] != pair[1]),
            min(len(ones), len(others)),
        )
        one, other = ones[at : at + 1], others[at : at + 1]
        what = "ends" if not one or not other else "has other media"
        names = ("dts", "duration", "composition", "size", "sync")
        for name in names if one and other else ():
            values = getattr(one[0], name), getattr(other[0], name)
            if values[0] != values[1]:
                what = f"has {name} {values[0]}, in the parts {values[1]}"
                break
        found.append(
            f"track {number}, {len(ones)} samples and in the parts {len(others)}: "
            f"sample {at} {what}"
        )
    return found


def _is_independent(piece: Piece, init: ReadInit) -> bool:
    """Whether a player can begin here: of muxed tracks pictures decide."""
    video = [number for number, track in init.items() if track.handler == "vide"]
    tracks = [samples for number, samples in piece.tracks.items() if number in video or not video]
    return any(sample.sync for samples in tracks for sample in samples)


def independent_parts(seen: Observation) -> Judgement:
    """17."""
    problems: list[str] = []
    count = 0
    for log in seen.renditions:
        for segment, _ in log.fetched:
            parts = _parts(log, segment)
            for index, part, piece in parts or []:
                where = f"{log.where(segment.msn, index)}: {told(piece.place)}"
                if piece.problem:
                    problems.append(f"{where}: {piece.problem}")
                if piece.init is None or piece.problem or not piece.came:
                    continue
                count += 1
                independent = _is_independent(piece, log.inits[piece.init])
                if independent and not part.independent:
                    problems.append(f"{where} has an independent frame, without INDEPENDENT=YES")
                elif part.independent and not independent:
                    problems.append(f"{where} is marked INDEPENDENT=YES, and has no such frame")
            if parts and not any(part.independent for part in segment.parts):
                problems.append(
                    f"{log.where(segment.msn)}: segment {segment.msn} has no independent part"
                )
    return settle(problems, count, "no parts could be read" if has_parts(seen) else NO_PARTS)


def in_time(seen: Observation) -> Judgement:
    """18."""
    problems: list[str] = []
    explained: list[str] = []
    count = 0
    for log in seen.renditions:
        target_us, target_s = log.last.part_target_us, log.last.target_duration_s or 0
        fresh = [one for one in log.seen if one.asked is not None and not one.playlist.ended]
        if len(fresh) < 3:  # noqa: PLR2004 - two intervals
            continue
        count += len(fresh) > 3  # noqa: PLR2004 - the first may have found its part there
        if target_us is not None:
            late, excused = _late(log, fresh, target_us, seen.stall_s)
            problems, explained = problems + late, explained + excused
        whole = [one for before, one in itertools.pairwise(fresh)
                 if one.playlist.last_whole > before.playlist.last_whole]  # fmt: skip
        for before, one in itertools.pairwise(whole):
            took_s = one.answer.head_at - before.answer.head_at
            if took_s > SEGMENT_TARGETS_MAX * target_s + LATE_S + seen.stall_s:
                problems.append(
                    f"{log.name}: segment {one.playlist.last_whole} {took_s:.2f} s after the one "
                    f"before, {SEGMENT_TARGETS_MAX:g} x TD is {SEGMENT_TARGETS_MAX * target_s:g} s"
                )
    return settle_explained(problems, explained, count, "too few reloads")


def _late(
    log: RenditionLog, fresh: list[Seen], target_us: int, stall_s: float
) -> tuple[list[str], list[str]]:
    """Parts that came late, and those whose pictures did already.

    The first reload may have found the newest part already there.
    """
    late: list[str] = []
    explained: list[str] = []
    slack_s = max(LATE_S, LATE_SHARE * target_us / US) + stall_s
    limit_s = target_us / US + slack_s
    pace: Pace | None = None
    for before, one in itertools.pairwise(fresh[1:]):
        took_s = one.answer.head_at - before.answer.head_at
        if took_s <= limit_s:
            continue
        pace = pace or Pace(log)
        if pace.is_open(one.playlist.last):
            continue
        text = (
            f"{log.name}: part {one.playlist.last} {took_s:.3f} s after {before.playlist.last}, "
            f"{limit_s:.3f} s at most"
        )
        span_us = pace.span_us(one.playlist.last)
        if pace.usual_us <= target_us and span_us and took_s <= span_us / US + slack_s:
            text += f": a variable frame rate: its pictures took {span_us / US:.3f} s themselves"
            explained.append(text)
        else:
            late.append(text)
    return late, explained


def hints_are_kept(seen: Observation) -> Judgement:
    """23."""
    problems: list[str] = []
    explained: list[str] = []
    count = 0
    for log in seen.renditions:
        pace: Pace | None = None
        for before, one in itertools.pairwise(log.seen):
            hint = next((hint for hint in before.playlist.hints if hint.type == "PART"), None)
            known = {place_of(part) for part in _listed(before)}
            new = [part for part in _listed(one) if place_of(part) not in known]
            if hint is None or not new or new[0].gap:
                continue
            count += 1
            if _is_kept(hint, new[0]):
                continue
            text = (
                f"{log.at(before.playlist.tag_lines.get('EXT-X-PRELOAD-HINT', 0))}: "
                f"{told((hint.uri, hint.range))} was hinted behind "
                f"{before.playlist.last}, {told(place_of(new[0]))} came"
            )
            pace = pace or Pace(log)
            if pace.is_variable and _misjudged_end(log, hint, before, new[0]):
                text += ": a variable frame rate: where its segment ends is not known before"
                explained.append(text)
            else:
                problems.append(text)
        problems += _dripping(log, seen.stall_s)
    why = "no part came after a hint" if has_parts(seen) else NO_PARTS
    return settle_explained(problems, explained, count, why)


def _misjudged_end(log: RenditionLog, hint: ReadHint, before: Seen, came: ReadPart) -> bool:
    """Whether it is about where a segment ends: it went on, or the hinted part was none of it.

    Either the hinted part came as the first of the next segment, or what came did.
    """
    following = before.playlist.last[0] + 1
    firsts = [
        segment.parts[0]
        for one in log.seen
        if (segment := one.playlist.segment(following)) is not None and segment.parts
    ]
    if not firsts:  # It was not watched for so long; what was hinted may have been fetched.
        fetched = log.parts.get((hint.uri, hint.range))
        return fetched is not None and fetched.came
    return any(part == came or _is_kept(hint, part) for part in firsts)


def _listed(one: Seen) -> list[ReadPart]:
    return [part for segment in one.playlist.segments for part in segment.parts]


def _is_kept(hint: ReadHint, part: ReadPart) -> bool:
    """Whether a part is the one that was hinted: of a range its begin, its length if it is told."""
    # Without BYTERANGE-START it begins at 0, without a length it goes on (§4.4.5.3).
    hinted, came = hint.range or ReadRange(0), part.range or ReadRange(0)
    begins = hint.uri == part.uri and hinted.start == came.start
    return begins and hinted.length in (None, came.length)


def _dripping(log: RenditionLog, stall_s: float) -> list[str]:
    """Hinted parts that were begun before they were whole."""
    problems = []
    for part in log.parts.values():
        answer = part.answer
        if not part.hinted or not part.came:
            continue
        took_s = answer.last_at - answer.first_at
        limit_s = BODY_S_MAX + answer.wire_bytes / BODY_BYTES_PER_S + stall_s
        if took_s > limit_s:
            problems.append(
                f"{log.name}: {told(part.place)} began {took_s:.2f} s before it was whole, "
                f"{limit_s:.2f} s at most for {answer.wire_bytes} bytes"
            )
    return problems


def byte_ranges(seen: Observation) -> Judgement:
    """25."""
    problems: list[str] = []
    count = 0
    for log in seen.renditions:
        for piece in (*log.parts.values(), *log.segments.values()):
            count += piece.place[1] is not None
            if piece.range_problem:
                problems.append(f"{log.name}: {piece.place[0]}: {piece.range_problem}")
    found = seen.probes.get("range")
    if found is not None and found.status == PARTIAL:  # Who answers with all of it may do so.
        count += 1
        problems += _not_the_range(seen, found)
    why = "each part and segment that was fetched is a file of its own, and ranges are not served"
    return settle(problems, count, why)


def _not_the_range(seen: Observation, found: Answer) -> list[str]:
    """How a range of a segment is not what stands there in the whole of it."""
    entire = seen.probes.get("entire")
    body, problem = bytes_of(found, ("", PROBED_RANGE))
    if problem:
        return [f"{found.url}: {problem}"]
    start, length = PROBED_RANGE.start, PROBED_RANGE.length or 0
    if entire is not None and entire.status == OK and entire.body[start : start + length] != body:
        return [f"{found.url}: a range of it is not what stands there in the whole of it"]
    return []


ITEMS = (
    Item(16, "must", "the parts together are the segment", same_samples),
    Item(17, "should", "INDEPENDENT where a frame is; each segment has one", independent_parts),
    Item(18, "must", "a part each PART-TARGET, a segment each 1.5 x TD", in_time),
    Item(23, "must", "what is hinted comes, when it is whole", hints_are_kept),
    Item(25, "recommended", "byte ranges, where parts are such", byte_ranges),
)
