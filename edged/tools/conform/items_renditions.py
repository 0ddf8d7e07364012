"""Items 28 and 29: renditions beside each other (RFC 8216bis §4.4.5.4, §6.2.4, B.1).

Each rendition counts its segments for itself: what they have in common is time.
"""

from edged.tools.conform.item import NO_PARTS, Item, Judgement, NotSeen, has_parts, settle
from edged.tools.conform.observe import Observation, RenditionLog, Seen
from edged.tools.conform.timeline import Position, Timeline, contradictions, told_at
from edged.wire.m3u8_reader import ReadReport
from edged.wire.m3u8_values import US

REPORT_S_SLACK = 0.3  # Between two answers of which each knows what the other one says.
LATE_US = 100_000  # Of a rendition behind another, beyond PART-TARGET: what rounding makes.
WHOLE_US = US  # What dates may be off by where there are no parts.


def rendition_reports(seen: Observation) -> Judgement:
    """28."""
    if len(seen.renditions) < 2:  # noqa: PLR2004 - one has no other
        return NotSeen("there is one rendition only")
    problems: dict[str, str] = {}  # What, and how it was first.
    count = 0
    timelines = {log.url: Timeline(log) for log in seen.renditions}
    for log in seen.renditions:
        for one in log.seen:
            if one.playlist.ended or one.playlist.part_target_us is None:
                continue
            count += 1
            lines = {_path(log.absolute(report.uri)): report for report in one.playlist.reports}
            for other in seen.renditions:
                if other is log:
                    continue
                report = lines.get(_path(other.url))
                if report is None:
                    what, how = f"{log.name}: no report of {other.name}", f" ({one.answer.url})"
                else:
                    what, how = _judge(one, report, log, other, timelines)
                if what:
                    problems.setdefault(what, how)
    told = [what + how for what, how in problems.items()]
    return settle(told, count, "too few" if has_parts(seen) else NO_PARTS)


def _judge(
    one: Seen,
    report: ReadReport,
    log: RenditionLog,
    other: RenditionLog,
    timelines: dict[str, Timeline],
) -> tuple[str, str]:
    """What is wrong with a report, and how; empty: nothing."""
    if "://" in report.uri or report.uri.startswith("//"):
        return f"{log.name}: the report of {other.name} has an absolute URI", f", {report.uri}"
    # What it leaves out is as in the playlist that it stands in (§4.4.5.4).
    last = one.playlist.last
    msn = last[0] if report.last_msn is None else report.last_msn
    reported = msn, last[1] if report.last_part is None else report.last_part
    told = f"({one.answer.url}: {other.name} at {reported}"
    ours, theirs = timelines[log.url], timelines[other.url]
    at = one.answer.head_at
    right = theirs.between(at - REPORT_S_SLACK, at + REPORT_S_SLACK)
    if right is not None and not right[0] <= reported <= right[1]:
        what = f"{log.name}: reports of {other.name} are wrong"
        return what, f" {told}, it was between {right[0]} and {right[1]})"
    ends = ours.end_us(last), theirs.end_us(reported)
    apart_us = 0 if None in ends else (ends[0] or 0) - (ends[1] or 0)
    limit_us = max(log.last.part_target_us or 0, other.last.part_target_us or 0) + LATE_US
    if abs(apart_us) > limit_us:
        what = f"{log.name} and {other.name} are more than one PART-TARGET apart"
        return what, f" {told}, {apart_us / US:.3f} s behind {_told(last)}, " + (
            f"{limit_us / US:.3f} s at most)"
        )
    return "", ""


def _told(position: Position) -> str:
    return f"{position[0]}.{position[1]}"


def _path(url: str) -> str:
    return url.partition("?")[0]


def dates(seen: Observation) -> Judgement:
    """29."""
    problems: list[str] = []
    timelines = [(log, Timeline(log)) for log in seen.renditions]
    for log, timeline in timelines:
        slack_us = log.last.part_target_us or WHOLE_US
        if not any(span.dated for span in timeline.spans):
            problems.append(f"{log.name}: no EXT-X-PROGRAM-DATE-TIME")
        problems += [
            f"{log.at(log.last.line(span.msn))}: segment {span.msn} is dated "
            f"{told_at(span.start_us)}, {span.off_us / US:+.3f} s off the end of the one before, "
            f"{slack_us / US:g} s at most"
            for span in timeline.spans
            if abs(span.off_us) > slack_us
        ]
        problems += _other_sequences(log)
    first, ours = timelines[0]
    for log, theirs in timelines[1:]:
        slack_us = max(first.last.part_target_us or WHOLE_US, log.last.part_target_us or WHOLE_US)
        problems += [
            f"{told_at(max(one.start_us, other.start_us))}: discontinuity sequences differ: "
            f"{one.sequence} in {first.at(first.last.line(one.msn))} (segment {one.msn}), "
            f"{other.sequence} in {log.at(log.last.line(other.msn))} (segment {other.msn})"
            for one, other in contradictions(ours, theirs, slack_us)
        ]
        problems += _media_apart((first, ours), (log, theirs), slack_us)
    return problems


def _other_sequences(log: RenditionLog) -> list[str]:
    """Segments whose discontinuity sequence is another than it was, as when dropped ones go."""
    problems: dict[int, str] = {}
    known: dict[int, int] = {}
    told = 0
    for one in log.seen:
        playlist, line = one.playlist, one.playlist.tag_lines.get("EXT-X-DISCONTINUITY-SEQUENCE", 0)
        if playlist.discontinuity_sequence < told:
            problems.setdefault(
                -1,
                f"{log.at(line)}: EXT-X-DISCONTINUITY-SEQUENCE is "
                f"{playlist.discontinuity_sequence}, it was {told}",
            )
        told = playlist.discontinuity_sequence
        for segment in playlist.segments:
            before = known.setdefault(segment.msn, segment.discontinuity_sequence)
            if before != segment.discontinuity_sequence:
                problems.setdefault(
                    segment.msn,
                    f"{log.at(playlist.line(segment.msn))}: the discontinuity sequence of segment "
                    f"{segment.msn} is {segment.discontinuity_sequence}, it was {before}",
                )
    return list(problems.values())


def _media_apart(
    ours: tuple[RenditionLog, Timeline], theirs: tuple[RenditionLog, Timeline], slack_us: int
) -> list[str]:
    """Whether what is dated the same has the same timestamps, where media was looked into."""
    found, others = _zeros(*ours), _zeros(*theirs)
    problems = []
    for sequence in sorted(found.keys() & others.keys()):
        apart_us = others[sequence] - found[sequence]
        if abs(apart_us) > slack_us:
            problems.append(
                f"{theirs[0].name}: media timestamps are {apart_us / US:+.3f} s off those of "
                f"{ours[0].name} that are dated the same, {slack_us / US:g} s at most "
                f"(discontinuity sequence {sequence})"
            )
    return problems


def _zeros(log: RenditionLog, timeline: Timeline) -> dict[int, int]:
    """By discontinuity sequence: what date the media timestamp 0 has, in us."""
    spans = {span.msn: span for span in timeline.spans}
    found: dict[int, int] = {}
    for msn, piece in log.segments.items():
        span = spans.get(msn)
        if span is None or piece.init is None:
            continue
        init = log.inits[piece.init]
        begins = [
            (min(s.dts + s.composition for s in samples) * US // init[number].timescale, number)
            for number, samples in piece.tracks.items()
            if samples
        ]
        video = [at for at, number in begins if init[number].handler == "vide"]
        if begins:
            at_us = video[0] if video else min(begins)[0]
            found.setdefault(span.sequence, span.start_us - at_us)
    return found


ITEMS = (
    Item(28, "profile", "a right report of each other rendition, all in step", rendition_reports),
    Item(29, "profile", "dates, discontinuities and timestamps agree everywhere", dates),
)
