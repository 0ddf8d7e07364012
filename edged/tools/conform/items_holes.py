"""Item 21: media that is missing is told of, and so is what begins another timeline or format."""

import itertools
from collections.abc import Iterator

from msgspec import Struct

from edged.tools.conform.item import Item, Judgement, settle_explained
from edged.tools.conform.media import Piece, Tracks, map_of, place_of, told
from edged.tools.conform.observe import Observation, RenditionLog
from edged.tools.conform.pace import ROUNDING_US, Pace
from edged.tools.conform.timeline import segments_of
from edged.wire.cmaf.reader import ReadInit
from edged.wire.m3u8_reader import ReadPart, ReadSegment
from edged.wire.m3u8_values import US

TICKS_APART_MAX_S = 0.002  # What rounding makes of timestamps.


class Jump(Struct, frozen=True):
    """Where a track does not go on inside a segment."""

    track: int
    handler: str
    part: int | None  # That it is in, or before; None: the segment was looked into as a whole.
    at_s: float  # Where what came before ends.
    apart_s: float  # Below 0: it goes back.


def no_holes(seen: Observation) -> Judgement:
    """21."""
    problems: list[str] = []
    explained: list[str] = []
    count = 0
    for log in seen.renditions:
        problems += _unread(log) + _other_formats(log)
        for found in (_between(log), _inside(log, seen)):
            problems, explained = problems + found[0], explained + found[1]
            count += found[2]
    why = "no two segments without a discontinuity could be read"
    return settle_explained(problems, explained, count, why)


def _unread(log: RenditionLog) -> list[str]:
    """Segments that could not be had, or have nothing in them."""
    problems = []
    for segment, piece in log.fetched:
        where = f"{log.where(segment.msn)}: segment {segment.msn}, {told(piece.place)}"
        if not piece.came or piece.problem:
            problems.append(f"{where}: {piece.problem or f'status {piece.answer.status}'}")
        elif piece.init is not None and not any(piece.tracks.values()):
            problems.append(f"{where}: without a sample")
    return problems


def _other_formats(log: RenditionLog) -> list[str]:
    """Another EXT-X-MAP, of other tracks as far as is known, without a discontinuity."""
    problems = []
    for before, segment in itertools.pairwise(segments_of(log)):
        was, now = map_of(before), map_of(segment)
        if was is None or now is None or was == now or segment.discontinuity:
            continue
        known = log.inits.get(was)
        if segment.msn == before.msn + 1 and (not known or known != log.inits.get(now)):
            problems.append(
                f"{log.where(segment.msn)}: EXT-X-MAP of segment {segment.msn} is {told(now)}, "
                f"before it was {told(was)}, without EXT-X-DISCONTINUITY"
            )
    return problems


def _between(log: RenditionLog) -> tuple[list[str], list[str], int]:
    """From one whole segment to the next: problems, what the source explains, how many."""
    problems: list[str] = []
    explained: list[str] = []
    count = 0
    before: tuple[int, dict[int, float]] = (-2, {})  # MSN, and where its tracks end, in s.
    for segment, piece in log.fetched:
        if piece.init is None or not piece.came or piece.problem or not any(piece.tracks.values()):
            continue
        spans = _spans(piece.tracks, log.inits[piece.init])
        follows = before[0] == segment.msn - 1 and not segment.discontinuity
        for number, (begin_s, _) in spans.items() if follows else ():
            if number not in before[1]:
                continue
            count += 1
            apart_s = begin_s - before[1][number]
            if abs(apart_s) <= TICKS_APART_MAX_S:
                continue
            text = (
                f"{log.where(segment.msn)}: segment {segment.msn}, {told(piece.place)}: track "
                f"{number} begins {apart_s:+.3f} s off the end of segment "
                f"{before[0]}, without EXT-X-DISCONTINUITY or EXT-X-GAP"
            )
            last = log.last.segment(before[0])
            if apart_s > 0 and last is not None and _is_full(log, last.parts[-1:]):
                text += ": a variable frame rate: its last picture is longer than a part may be"
                explained.append(text)
            else:
                problems.append(text)
        before = segment.msn, {number: end_s for number, (_, end_s) in spans.items()}
    return problems, explained, count


def _spans(tracks: Tracks, init: ReadInit) -> dict[int, tuple[float, float]]:
    """From when to when each track of a segment has samples, in s."""
    return {
        number: (
            samples[0].dts / init[number].timescale,
            (samples[-1].dts + samples[-1].duration) / init[number].timescale,
        )
        for number, samples in tracks.items()
        if samples
    }


def _is_full(log: RenditionLog, parts: list[ReadPart]) -> bool:
    """Whether a part of a variable frame rate is of PART-TARGET: its picture may last longer."""
    target_us = log.last.part_target_us
    if not parts or target_us is None:
        return False
    return parts[0].duration_us >= target_us - ROUNDING_US and Pace(log).is_variable


def _inside(log: RenditionLog, seen: Observation) -> tuple[list[str], list[str], int]:
    """From sample to sample, and from part to part, of a segment."""
    problems: list[str] = []
    explained: list[str] = []
    count = 0
    for segment in segments_of(log):
        count += sum(_is_read(log.parts.get(place_of(part))) for part in segment.parts) > 1
        for jump in jumps(log, segment):
            where = f"segment {segment.msn}"
            where += "" if jump.part is None else f", part {jump.part}"
            text = (
                f"{log.where(segment.msn, jump.part)}: {where}: track {jump.track} goes on "
                f"{jump.apart_s:+.3f} s off its end before, without a part of GAP=YES"
            )
            full = segment.parts[jump.part - 1 : jump.part] if jump.part else []
            if jump.apart_s > 0 and _is_full(log, full):
                explained.append(
                    f"{text}: a variable frame rate: a picture is longer than a part may be"
                )
            elif jump.apart_s > 0 and not _is_elsewhere(seen, log, jump):
                explained.append(f"{text}: no rendition has it: the source may have left it out")
            else:
                problems.append(text)
    return problems, explained, count


def jumps(log: RenditionLog, segment: ReadSegment) -> Iterator[Jump]:
    """Where tracks do not go on inside a segment, as far as its parts, or it as a whole, came."""
    ends: dict[int, float] = {}
    pieces: list[tuple[int | None, Piece | None]] = [
        (index, None if part.gap else log.parts.get(place_of(part)))
        for index, part in enumerate(segment.parts)
    ]
    for index, piece in pieces or [(None, log.segments.get(segment.msn))]:
        if piece is None or piece.init is None or not _is_read(piece):
            ends = {}  # What comes behind it, or behind a gap, may begin anywhere.
            continue
        init = log.inits[piece.init]
        for number, samples in piece.tracks.items():
            timescale = init[number].timescale
            for sample in samples:
                begin_s = sample.dts / timescale
                end_s = ends.get(number, begin_s)
                if abs(begin_s - end_s) > TICKS_APART_MAX_S:
                    yield Jump(number, init[number].handler, index, end_s, begin_s - end_s)
                ends[number] = (sample.dts + sample.duration) / timescale


def _is_read(piece: Piece | None) -> bool:
    return piece is not None and piece.init is not None and piece.came and not piece.problem


def missing_us(log: RenditionLog, segment: ReadSegment) -> int:
    """How much of its pictures, or of sound alone, is missing inside a segment."""
    found = list(jumps(log, segment))
    video = [jump for jump in found if jump.handler == "vide"]
    return round(sum(jump.apart_s for jump in video or found) * US)


def _is_elsewhere(seen: Observation, log: RenditionLog, jump: Jump) -> bool:
    """Whether another rendition has media of the kind where one misses it."""
    at_s = jump.at_s + jump.apart_s / 2
    for other in seen.renditions:
        if other is log:
            continue
        for piece in (*other.parts.values(), *other.segments.values()):
            init = other.inits.get(piece.init, {}) if piece.init is not None else {}
            for number, samples in piece.tracks.items():
                track = init[number]
                at = at_s * track.timescale
                if track.handler == jump.handler and any(
                    sample.dts <= at < sample.dts + sample.duration for sample in samples
                ):
                    return True
    return False


ITEMS = (Item(21, "must", "no hole without GAP, nothing new without DISCONTINUITY", no_holes),)
