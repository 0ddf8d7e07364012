"""Items 19 and 20: how long parts and segments are listed, and stay to be had behind that."""

from edged.tools.conform.item import (
    NO_PARTS,
    Advice,
    Item,
    Judgement,
    NotSeen,
    has_parts,
    settle,
)
from edged.tools.conform.media import Place, place_of, told
from edged.tools.conform.observe import Observation, RenditionLog
from edged.wire.m3u8_values import US

LISTED_TARGETS = 3
OK = (200, 206)


def parts_stay_for_a_while(seen: Observation) -> Judgement:
    """19: that they are listed for so long is advised, that they are to be had binds."""
    if not has_parts(seen):
        return NotSeen(NO_PARTS)
    problems: list[str] = []
    advice: list[str] = []
    for log in seen.renditions:
        problems += _gone(log) + _out_of_order(log)
        advice += _listed(log)
    return problems + advice if problems else Advice(advice)


def _gone(log: RenditionLog) -> list[str]:
    """Parts that are not to be had, though they are listed, or were not long ago."""
    target_s = log.last.target_duration_s or 0
    return [
        f"{log.name}: {told(part.place)}: status {part.answer.status}, though it is listed"
        for part in log.parts.values()
        if not part.came and not part.hinted
    ] + [
        f"{answer.url}: status {answer.status}, {since_s:.1f} s after it was listed, "
        f"{LISTED_TARGETS} x TD is {LISTED_TARGETS * target_s} s"
        for answer, since_s in log.unlisted
        if answer.status not in OK and since_s < LISTED_TARGETS * target_s
    ]


def _out_of_order(log: RenditionLog) -> list[str]:
    """Segments that lost their parts before an older one did."""
    problems: dict[str, None] = {}
    for one in log.seen:
        older: int | None = None
        for segment in one.playlist.segments:
            if segment.parts:
                older = segment.msn
            elif older is not None and segment.is_whole and not segment.gap:
                told_of = f"the parts of segment {segment.msn} went before those of {older}"
                problems[f"{log.name}: {told_of}"] = None
    return list(problems)


def _listed(log: RenditionLog) -> list[str]:
    """Parts that are listed for too long, or not for long enough."""
    problems: list[str] = []
    target_s, after_us = log.last.target_duration_s or 0, 0
    limit_us = LISTED_TARGETS * target_s * US
    for segment in reversed(log.last.segments):
        if segment.parts and after_us > limit_us + target_s * US:
            problems.append(
                f"{log.where(segment.msn, 0)}: parts of segment {segment.msn}, "
                f"{after_us / US:.1f} s from the end, are listed still, {LISTED_TARGETS} x TD "
                f"is {LISTED_TARGETS * target_s} s"
            )
            break
        young = segment.is_whole and after_us + segment.media_us <= limit_us
        if young and not segment.parts and not segment.gap and log.last.part_target_us:
            problems.append(
                f"{log.where(segment.msn)}: no parts of segment {segment.msn}, "
                f"{after_us / US:.1f} s from the end, {LISTED_TARGETS} x TD is "
                f"{LISTED_TARGETS * target_s} s"
            )
        after_us += segment.media_us
    return problems


def segments_stay(seen: Observation) -> Judgement:
    """20."""
    problems: list[str] = []
    count = 0
    for log in seen.renditions:
        count += len(log.left)
        problems += [f"{one.url}: status {one.status}, it has just left" for one in log.left
                     if one.status not in OK]  # fmt: skip
        target_s = log.last.target_duration_s or 0
        listed_us = sum(segment.media_us for segment in log.last.segments)
        if log.last.media_sequence > 0 and listed_us < LISTED_TARGETS * target_s * US:
            problems.append(
                f"{log.name}: {listed_us / US:.1f} s are listed, 3 x TD, "
                f"{LISTED_TARGETS * target_s} s, at least"
            )
        problems += _renamed(log)
    return settle(problems, count, "no segment left the playlist")


def _renamed(log: RenditionLog) -> list[str]:
    """Segments that were another resource before."""
    problems: dict[str, None] = {}
    known: dict[int, Place] = {}
    for one in log.seen:
        for segment in one.playlist.segments:
            place = place_of(segment)
            if segment.is_whole and known.setdefault(segment.msn, place) != place:
                where = log.at(one.playlist.line(segment.msn))
                problems[f"{where}: segment {segment.msn} is {told(place)}, it was "
                         f"{told(known[segment.msn])}"] = None  # fmt: skip
    return list(problems)


ITEMS = (
    Item(19, "must", "parts are listed for 3 x TD, and to be had as long again",
         parts_stay_for_a_while),
    Item(20, "must", "segments stay when they have left the playlist", segments_stay),
)  # fmt: skip
