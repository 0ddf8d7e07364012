"""Items 1 to 9: blocking reload (RFC 8216bis §6.2.5.2)."""

import itertools
import re

from edged.tools.conform.answer import Answer
from edged.tools.conform.item import (
    AT_ONCE_S_MAX,
    NO_BLOCKING,
    NO_PARTS,
    Item,
    Judgement,
    NotSeen,
    blocks,
    has_parts,
    playlist_of,
    probed,
    settle,
)
from edged.tools.conform.item import status_of as _status
from edged.tools.conform.observe import Observation, RenditionLog, Seen
from edged.wire.m3u8_reader import ReadMedia

BLOCK_TARGETS_MAX = 3
BLOCK_S_SLACK = 1.5


def _reached(seen: Observation, name: str) -> tuple[ReadMedia, int, int | None] | Judgement:
    """The playlist that a probe got, and the MSN and part that it had asked for."""
    answer = probed(seen, name)
    if isinstance(answer, NotSeen):
        return answer
    if not blocks(seen):
        return NotSeen(NO_BLOCKING)
    playlist = playlist_of(answer)
    if isinstance(playlist, str):
        return [playlist]
    found = re.search(r"_HLS_msn=(\d+)(?:&_HLS_part=(\d+))?", answer.url)
    assert found is not None, "we asked for it"
    return playlist, int(found[1]), None if found[2] is None else int(found[2])


def whole_segment(seen: Observation) -> Judgement:
    """1."""
    found = _reached(seen, "whole")
    if not isinstance(found, tuple):
        return found
    playlist, msn, _ = found
    if playlist.ended or playlist.last_whole >= msn:
        return []
    return [
        f"_HLS_msn={msn} was answered when segment {playlist.last_whole} was the last whole one"
    ]


def part_is_there(seen: Observation) -> Judgement:
    """2."""
    problems: list[str] = []
    count = 0
    for log in seen.renditions:
        for one in log.seen:
            if one.asked is None or one.playlist.ended or one.asked[1] is None:
                continue
            count += 1
            if one.playlist.last < one.asked:
                problems.append(f"{one.answer.url}: asked for {one.asked}, got up to "
                                f"{one.playlist.last}")  # fmt: skip
        problems += [f"{answer.url}: status {answer.status}" for _, answer in log.refused]
    why = "no blocking reload by part was made" if has_parts(seen) else NO_PARTS
    return settle(problems, count, why)


def beyond_the_last(seen: Observation) -> Judgement:
    """3."""
    if not has_parts(seen):
        return NotSeen(NO_PARTS)
    found = _reached(seen, "beyond")
    if not isinstance(found, tuple):
        return found
    playlist, msn, part = found
    if playlist.ended or playlist.last >= (msn + 1, 0):
        return []
    return [f"part {part} of segment {msn}, which is its end: got up to {playlist.last}"]


def old_segment(seen: Observation) -> Judgement:
    """4."""
    found = _reached(seen, "old")
    if not isinstance(found, tuple):
        return found
    playlist, msn, _ = found
    problems = []
    if playlist.skip is not None:
        problems.append(f"_HLS_msn={msn}: segments are skipped")
    if len(playlist.segments) < len(seen.main.first.segments) - 1:
        problems.append(f"_HLS_msn={msn}: {len(playlist.segments)} segments of "
                        f"{len(seen.main.first.segments)}")  # fmt: skip
    return problems


def after_the_end(seen: Observation) -> Judgement:
    """5."""
    if not seen.main.last.ended or not seen.main.first.ended:
        return NotSeen("the stream is live")
    answers = [probed(seen, name) for name in ("far", "far part")]
    there = [answer for answer in answers if not isinstance(answer, NotSeen)]
    problems = [
        f"{answer.url}: status {answer.status} after {answer.waited_s:.1f} s, 200 within "
        f"{AT_ONCE_S_MAX:g} s is wanted"
        for answer in there
        if answer.status != 200 or answer.waited_s > AT_ONCE_S_MAX  # noqa: PLR2004
    ]
    return settle(problems, len(there), "the server did not answer what was asked")


def part_alone(seen: Observation) -> Judgement:
    """6."""
    if not blocks(seen):
        return NotSeen(NO_BLOCKING)
    return _status(seen, "part alone", 400)


def too_far(seen: Observation) -> Judgement:
    """7."""
    if seen.main.last.ended:
        return NotSeen("the stream has ended")
    if not blocks(seen):
        return NotSeen(NO_BLOCKING)
    names = ("far", "far part") if has_parts(seen) else ("far",)
    judged = [_status(seen, name, 400, at_once=True) for name in names]
    there = [found for found in judged if isinstance(found, list)]
    problems = [problem for found in there for problem in found]
    return settle(problems, len(there), "the server did not answer what was asked")


def blocked_too_long(seen: Observation) -> Judgement:
    """8."""
    problems: list[str] = []
    count = 0
    for log in seen.renditions:
        limit_s = BLOCK_TARGETS_MAX * (log.last.target_duration_s or 0)
        answers = [one.answer for one in log.seen] + [answer for _, answer in log.refused]
        for answer in answers:
            count += answer.status == 503  # noqa: PLR2004
            if answer.waited_s > limit_s + BLOCK_S_SLACK:
                problems.append(f"{answer.url}: status {answer.status} after "
                                f"{answer.waited_s:.1f} s, 3 x TD is {limit_s} s")  # fmt: skip
    return settle(problems, count, "the stream did not stall")


def idempotent(seen: Observation) -> Judgement:
    """9."""
    problems: list[str] = []
    once, again = seen.probes.get("once"), seen.probes.get("again")
    if once is not None and again is not None:
        problems += _differ(once, again)
    judged = _status(seen, "reserved", 200)
    problems += judged if isinstance(judged, list) else []
    for log in seen.renditions:
        problems += _goes_back(log)
    return problems


def _differ(once: Answer, again: Answer) -> list[str]:
    first, second = playlist_of(once), playlist_of(again)
    if isinstance(first, str) or isinstance(second, str):
        return [] if once.status == again.status else [f"{once.status} and {again.status} at once"]
    same = first.last != second.last or once.body == again.body
    return [] if same else [f"{again.url}: two playlists that end at {first.last} differ"]


def _goes_back(log: RenditionLog) -> list[str]:
    problems = []

    def version(one: Seen) -> tuple[int, tuple[int, int]]:
        return one.playlist.media_sequence, one.playlist.last

    for before, after in itertools.pairwise(log.seen):
        was, now = version(before), version(after)
        if now[0] < was[0] or now[1] < was[1]:
            problems.append(f"{log.name}: EXT-X-MEDIA-SEQUENCE and last part go from {was} back "
                            f"to {now}")  # fmt: skip
    return problems


ITEMS = (
    Item(1, "must", "_HLS_msn waits for the whole segment", whole_segment),
    Item(2, "must", "_HLS_msn and _HLS_part wait for the part", part_is_there),
    Item(3, "must", "a part beyond a segment's last is the next one's first", beyond_the_last),
    Item(4, "must", "an old _HLS_msn gets the entire playlist", old_segment),
    Item(5, "must", "behind EXT-X-ENDLIST nothing is waited for", after_the_end),
    Item(6, "must", "_HLS_part without _HLS_msn is refused with 400", part_alone),
    Item(7, "should", "what is too far ahead is refused with 400 at once", too_far),
    Item(8, "should", "blocked longer than 3 x TD: 503", blocked_too_long),
    Item(9, "profile", "the same request has the same answer; nothing goes back", idempotent),
)
