"""Items 10 to 15, 22 and 24: what the playlists say (RFC 8216bis §4.4, §6.2.5, B.1)."""

import itertools

from edged.tools.conform.item import (
    NO_PARTS,
    Item,
    Judgement,
    NotSeen,
    has_parts,
    settle,
    settle_explained,
)
from edged.tools.conform.item import status_of as _status
from edged.tools.conform.media import map_of, place_of, told
from edged.tools.conform.observe import PART_SHARE_MIN, Observation, RenditionLog, Seen, deviating
from edged.tools.conform.pace import Pace
from edged.wire.m3u8_reader import ReadMedia
from edged.wire.m3u8_values import US


def part_inf(seen: Observation) -> Judgement:
    """10."""
    problems: dict[str, str] = {}  # What, and where it was first.
    for log in seen.renditions:
        for one in log.seen:
            playlist = one.playlist
            line = playlist.tag_lines.get("EXT-X-PART")
            if line is not None and playlist.part_target_us is None:
                problems.setdefault(
                    f"{log.name}: EXT-X-PART without EXT-X-PART-INF", f", line {line}"
                )
            if playlist.part_target_us is not None and playlist.seconds("PART-HOLD-BACK") is None:
                line = playlist.tag_lines.get("EXT-X-SERVER-CONTROL", 0)
                problems.setdefault(
                    f"{log.name}: EXT-X-PART-INF without PART-HOLD-BACK",
                    f" in EXT-X-SERVER-CONTROL, line {line}" if line else "",
                )
    told = [what + where for what, where in problems.items()]
    return settle(told, has_parts(seen), NO_PARTS)


def part_hold_back(seen: Observation) -> Judgement:
    """11."""
    problems: list[str] = []
    count = 0
    for log in seen.renditions:
        target_us, hold_s = log.last.part_target_us, log.last.seconds("PART-HOLD-BACK")
        if target_us is None or hold_s is None:
            continue  # What is missing is item 10's.
        count += 1
        if hold_s * US < 3 * target_us:  # 2 x by the RFC, which Apple's rules are stricter than.
            line = log.last.tag_lines.get("EXT-X-SERVER-CONTROL", 0)
            problems.append(
                f"{log.at(line)}: PART-HOLD-BACK of {hold_s:g} s is {hold_s * US / target_us:.2f} "
                f"x PART-TARGET, {target_us / US:g} s: 3 x at least"
            )
    return settle(problems, count, NO_PARTS)


def server_control(seen: Observation) -> Judgement:
    """12."""
    problems: list[str] = []
    count = 0
    for log in seen.renditions:
        target_s, control = log.last.target_duration_s or 0, log.last.control
        where = log.at(log.last.tag_lines.get("EXT-X-SERVER-CONTROL", 0))
        for name, targets in (("CAN-SKIP-UNTIL", 6), ("HOLD-BACK", 3)):
            value = log.last.seconds(name)
            count += value is not None
            if value is not None and value < targets * target_s:
                problems.append(f"{where}: {name}={value:g} is less than {targets} x {target_s} s")
        if "CAN-SKIP-DATERANGES" in control and "CAN-SKIP-UNTIL" not in control:
            problems.append(f"{where}: CAN-SKIP-DATERANGES without CAN-SKIP-UNTIL")
    return settle(problems, count, "neither CAN-SKIP-UNTIL nor HOLD-BACK is there")


def same_everywhere(seen: Observation) -> Judgement:
    """13."""
    found: dict[str, str] = {}  # What is said, and where it was first.
    for log in seen.renditions:
        for one in log.seen:
            control = ",".join(f"{k}={v}" for k, v in sorted(one.playlist.control.items()))
            line = one.playlist.tag_lines.get("EXT-X-SERVER-CONTROL", 0)
            told = (
                f"TD {one.playlist.target_duration_s}, SERVER-CONTROL {control or 'is not there'}"
            )
            found.setdefault(told, f"{log.at(line)} ({one.answer.url})")
    if len(found) <= 1:
        return []
    return [f"{where}: {told}" for told, where in found.items()]


def part_durations(seen: Observation) -> Judgement:
    """14."""
    problems: dict[str, str] = {}
    explained: dict[str, str] = {}
    for log in seen.renditions:
        pace: Pace | None = None
        for one in log.seen:
            target_us = one.playlist.part_target_us or 0
            for segment, index, is_short in deviating(one.playlist):
                part = segment.parts[index]
                told = f"part {segment.msn}.{index} of {part.duration_us / US:g} s"
                if is_short:
                    share = f"{part.duration_us / target_us:.0%}"
                    told += f" is {share} of PART-TARGET, 85 % at least"
                else:
                    told += f", PART-TARGET is {target_us / US:g} s"
                pace = pace or Pace(log)
                position = (segment.msn, index)
                low_us = round(PART_SHARE_MIN * target_us)
                why = pace.explain_length(position, low_us, target_us)
                if why:
                    _add(explained, one, log, position, f"{told}: {why}")
                else:
                    _add(problems, one, log, position, told)
    found, excused = list(problems.values()), list(explained.values())
    return settle_explained(found, excused, has_parts(seen), NO_PARTS)


def _add(
    problems: dict[str, str], one: Seen, log: RenditionLog, part: tuple[int, int], what: str
) -> None:
    """A problem of a part, once, with where it stood first."""
    where = log.at(one.playlist.line(*part))
    problems.setdefault(f"{log.name} {what}", f"{where}: {what}")


def tags_precede_parts(seen: Observation) -> Judgement:
    """15."""
    problems: dict[str, str] = {}
    for log in seen.renditions:
        for one in log.seen:
            for segment in one.playlist.segments:
                if segment.late_tags:
                    what = f"{', '.join(segment.late_tags)} behind a part of segment {segment.msn}"
                    _add(problems, one, log, (segment.msn, 0), what)
    return settle(list(problems.values()), has_parts(seen), NO_PARTS)


def hint_is_there(seen: Observation) -> Judgement:
    """22."""
    live = [(log, one.playlist) for log in seen.renditions for one in log.seen
            if not one.playlist.ended and one.playlist.part_target_us is not None]  # fmt: skip
    if not live:
        return NotSeen("no live playlist was seen" if has_parts(seen) else NO_PARTS)
    missing = [log.name for log, playlist in live if "PART" not in _hints(playlist)]
    problems = [
        f"{name}: {missing.count(name)} playlists without a hint at the next part"
        for name in sorted(set(missing))
    ]
    return problems + [problem for log in seen.renditions for problem in _unhinted_maps(log)]


def _unhinted_maps(log: RenditionLog) -> list[str]:
    """Parts that came as they were hinted, with another init that was not."""
    problems = []
    for before, one in itertools.pairwise(log.seen):
        hinted = {(hint.uri, hint.range) for hint in before.playlist.hints}
        known = {map_of(segment) for segment in before.playlist.segments[-1:]}
        for segment in one.playlist.segments:
            init = map_of(segment)
            if init is None or not known or init in known | hinted:
                continue
            if any((part.uri, part.range) in hinted for part in segment.parts):
                problems.append(
                    f"{log.at(one.playlist.line(segment.msn))}: no hint of TYPE=MAP at "
                    f"{told(init)}, though a part was hinted that needs it"
                )
    return problems


def _hints(playlist: ReadMedia) -> list[str]:
    return [hint.type for hint in playlist.hints]


def hints_end_and_are_one(seen: Observation) -> Judgement:
    """24."""
    judged = _status(seen, "unknown", 404)
    problems: dict[str, str] = {}  # What, and where it was first.
    for log in seen.renditions:
        for one in log.seen:
            kinds = _hints(one.playlist)
            if one.playlist.ended and kinds:
                problems.setdefault(f"{log.name}: a hint behind EXT-X-ENDLIST", _hint_line(one))
            if len(set(kinds)) < len(kinds):
                told = f"{log.name}: more than one hint of a type: {', '.join(kinds)}"
                problems.setdefault(told, _hint_line(one))
    found = judged if isinstance(judged, list) else []
    abandoned = [problem for log in seen.renditions for problem in _abandoned(log)]
    return [*found, *(what + where for what, where in problems.items()), *abandoned]


def _abandoned(log: RenditionLog) -> list[str]:
    """Hinted parts that never came into the playlist, and were answered all the same."""
    problems = []
    listed = {
        place_of(part)
        for one in log.seen
        for segment in one.playlist.segments
        for part in segment.parts
    }
    awaited = {(hint.uri, hint.range) for hint in log.last.hints}
    for piece in log.parts.values():
        if not piece.hinted or piece.place in listed or piece.place in awaited:
            continue
        if piece.answer.status != 404:  # noqa: PLR2004 - as of any unknown name
            problems.append(
                f"{log.name}: {told(piece.place)} was hinted and never came: status "
                f"{piece.answer.status}, not 404"
            )
    return problems


def _hint_line(one: Seen) -> str:
    line = one.playlist.tag_lines.get("EXT-X-PRELOAD-HINT")
    return f", line {line}" if line else ""


ITEMS = (
    Item(10, "must", "EXT-X-PART-INF with parts, and PART-HOLD-BACK with it", part_inf),
    Item(11, "Apple must", "PART-HOLD-BACK is 3 x PART-TARGET or more", part_hold_back),
    Item(12, "must", "CAN-SKIP-UNTIL is 6 x TD or more, HOLD-BACK 3 x TD", server_control),
    Item(13, "must", "the same SERVER-CONTROL and TD everywhere, always", same_everywhere),
    Item(14, "must", "parts last 85 to 100 % of PART-TARGET", part_durations),
    Item(15, "must", "what applies to a segment stands before its first part", tags_precede_parts),
    Item(22, "profile", "a live playlist hints at the next part", hint_is_there),
    Item(24, "should", "404 for unknown names; one hint of a type, none at the end",
         hints_end_and_are_one),
)  # fmt: skip
