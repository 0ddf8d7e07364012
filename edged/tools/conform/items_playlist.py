"""Items 10 to 15 and 22 to 30: what the playlists say (RFC 8216bis §4.4, §6.2.5, B.1)."""

from collections import Counter

from edged.tools.conform.item import Item, Judgement, NotSeen, playlist_of, probed
from edged.tools.conform.item import status_of as _status
from edged.tools.conform.observe import Observation, RenditionLog
from edged.wire.m3u8_reader import US, ReadMedia

PART_SHARE_MIN = 0.85  # Of PART-TARGET.
VIDEO_CODECS = ("avc", "hvc", "hev", "av01", "vp0", "dvh")
VERSION_OF_SKIP, VERSION_OF_SKIPPED_RANGES = 9, 10


def has_parts(seen: Observation) -> bool:
    """Whether this is a low-latency stream at all."""
    return any(log.last.part_target_us for log in seen.renditions)


def part_inf(seen: Observation) -> Judgement:
    """10."""
    problems = []
    for log in seen.renditions:
        for one in log.seen:
            playlist = one.playlist
            listed = "EXT-X-PART" in playlist.tags
            if listed and playlist.part_target_us is None:
                problems.append(f"{log.name}: EXT-X-PART without EXT-X-PART-INF")
            if playlist.part_target_us is not None and playlist.seconds("PART-HOLD-BACK") is None:
                problems.append(f"{log.name}: EXT-X-PART-INF without PART-HOLD-BACK")
    return sorted(set(problems))


def part_hold_back(seen: Observation) -> Judgement:
    """11."""
    problems: list[str] = []
    for log in seen.renditions:
        target_us, hold_s = log.last.part_target_us, log.last.seconds("PART-HOLD-BACK")
        if target_us is None or hold_s is None:
            return NotSeen("there are no parts")
        if hold_s * US < 3 * target_us:  # 2 x by the RFC, which Apple's rules are stricter than.
            problems.append(f"{log.name}: {hold_s:g} s is {hold_s * US / target_us:.2f} x "
                            "PART-TARGET, 3 x at least")  # fmt: skip
    return problems


def server_control(seen: Observation) -> Judgement:
    """12."""
    problems: list[str] = []
    for log in seen.renditions:
        target_s, control = log.last.target_duration_s or 0, log.last.control
        for name, targets in (("CAN-SKIP-UNTIL", 6), ("HOLD-BACK", 3)):
            value = log.last.seconds(name)
            if value is not None and value < targets * target_s:
                problems.append(f"{log.name}: {name}={value:g} is less than {targets} x {target_s}")
        if "CAN-SKIP-DATERANGES" in control and "CAN-SKIP-UNTIL" not in control:
            problems.append(f"{log.name}: CAN-SKIP-DATERANGES without CAN-SKIP-UNTIL")
    return problems


def same_everywhere(seen: Observation) -> Judgement:
    """13."""
    found: dict[tuple[object, ...], str] = {}
    for log in seen.renditions:
        for one in log.seen:
            control = tuple(sorted(one.playlist.control.items()))
            found.setdefault((one.playlist.target_duration_s, control), log.name)
    if len(found) <= 1:
        return []
    return [f"{name}: TD {key[0]}, {dict(key[1])}" for key, name in found.items()]  # type: ignore[call-overload]


def part_durations(seen: Observation) -> Judgement:
    """14."""
    problems: dict[str, None] = {}
    for log in seen.renditions:
        for one in log.seen:
            target_us = one.playlist.part_target_us
            if target_us is None:
                continue
            for segment in one.playlist.segments:
                for index, part in enumerate(segment.parts):
                    where = f"{log.name}: part {segment.msn}.{index} of {part.duration_us / US:g} s"
                    if part.duration_us > target_us:
                        problems[f"{where}, PART-TARGET is {target_us / US:g} s"] = None
                    following = segment.parts[index + 1 : index + 2]
                    excepted = part.independent or part.gap or not following or following[0].gap
                    if not excepted and part.duration_us < PART_SHARE_MIN * target_us:
                        problems[f"{where}, 85 % of PART-TARGET at least"] = None
    return list(problems) if has_parts(seen) else NotSeen("there are no parts")


def tags_precede_parts(seen: Observation) -> Judgement:
    """15."""
    return sorted(
        {
            f"{log.name}: {', '.join(segment.late_tags)} behind a part of segment {segment.msn}"
            for log in seen.renditions
            for one in log.seen
            for segment in one.playlist.segments
            if segment.late_tags
        }
    )


def hint_is_there(seen: Observation) -> Judgement:
    """22."""
    live = [(log, one.playlist) for log in seen.renditions for one in log.seen
            if not one.playlist.ended and one.playlist.part_target_us is not None]  # fmt: skip
    if not live:
        return NotSeen("no live playlist with parts was seen")
    missing = [log.name for log, playlist in live if "PART" not in _hints(playlist)]
    return [f"{name}: {missing.count(name)} playlists without" for name in sorted(set(missing))]


def _hints(playlist: ReadMedia) -> list[str]:
    return [hint.type for hint in playlist.hints]


def hints_end_and_are_one(seen: Observation) -> Judgement:
    """24."""
    judged = _status(seen, "unknown", 404)
    problems = list(judged) if isinstance(judged, list) else []
    for log in seen.renditions:
        for one in log.seen:
            kinds = _hints(one.playlist)
            if one.playlist.ended and kinds:
                problems.append(f"{log.name}: a hint behind EXT-X-ENDLIST")
            if len(set(kinds)) < len(kinds):
                problems.append(f"{log.name}: more than one hint of a type")
    return sorted(set(problems))


def byte_ranges(seen: Observation) -> Judgement:
    """25."""
    ranged = any(part.byte_range for log in seen.renditions for segment in log.last.segments
                 for part in segment.parts)  # fmt: skip
    return NotSeen("parts are byte ranges, which are not looked into") if ranged else []


def delta_updates(seen: Observation) -> Judgement:
    """26."""
    answer = probed(seen, "skip")
    if isinstance(answer, NotSeen):
        return answer
    playlist = playlist_of(answer)
    if isinstance(playlist, str):
        return [playlist]
    until_s = seen.main.last.seconds("CAN-SKIP-UNTIL")
    if until_s is None or playlist.ended:
        return ["EXT-X-SKIP where it must be ignored"] if playlist.skip is not None else []
    return _judge_skip(playlist, seen.main.last, until_s)


def _judge_skip(playlist: ReadMedia, entire: ReadMedia, until_s: float) -> list[str]:
    """Of an update: what is skipped is older than the limit, what is not is there."""
    skippable = _skippable(entire, until_s)
    if playlist.skip is None:
        return [f"no EXT-X-SKIP, {skippable} segments could be"] if skippable > 1 else []
    problems = []
    if playlist.tags.get("EXT-X-SKIP") != 1:
        problems.append("EXT-X-SKIP stands more than once")
    if playlist.skip.segments > skippable + 1:
        problems.append(f"{playlist.skip.segments} segments are skipped, {skippable} may be")
    for segment in playlist.segments:
        known = entire.segment(segment.msn)
        if known is not None and "" not in (known.uri, segment.uri) and known.uri != segment.uri:
            problems.append(f"segment {segment.msn} is {segment.uri}, not {known.uri}")
    return problems


def _skippable(playlist: ReadMedia, until_s: float) -> int:
    """Segments that end further from the playlist's end than the limit."""
    after_us, count = 0, 0
    for segment in reversed(playlist.segments):
        if after_us > until_s * US:
            count += 1
        after_us += segment.media_us
    return count


def versions(seen: Observation) -> Judgement:
    """27."""
    problems: list[str] = []
    for name in ("skip", "skip v2"):
        answer = probed(seen, name)
        if isinstance(answer, NotSeen):
            return answer
        playlist = playlist_of(answer)
        if isinstance(playlist, str):
            problems.append(f"{name}: {playlist}")
        elif playlist.skip is not None:
            ranges = "CAN-SKIP-DATERANGES" in seen.main.last.control and name == "skip v2"
            least = VERSION_OF_SKIPPED_RANGES if ranges else VERSION_OF_SKIP
            if playlist.version < least:
                problems.append(f"{name}: EXT-X-VERSION {playlist.version}, at least {least}")
    return problems


def rendition_reports(seen: Observation) -> Judgement:
    """28."""
    if len(seen.renditions) < 2:  # noqa: PLR2004 - one has no other
        return NotSeen("there is one rendition only")
    problems: dict[str, None] = {}
    urls = {_path(log.url): log for log in seen.renditions}
    for log in seen.renditions:
        for one in log.seen:
            if one.playlist.ended or one.playlist.part_target_us is None:
                continue
            reported = {_path(log.absolute(report.uri)): report for report in one.playlist.reports}
            for url, other in urls.items():
                report = reported.get(url)
                if other is log:
                    continue
                if report is None:
                    problems[f"{log.name}: no report of {other.name}"] = None
                elif report.last_msn is None or report.last_part is None:
                    problems[f"{log.name}: {other.name} without LAST-MSN or LAST-PART"] = None
                elif _apart(one.playlist, (report.last_msn, report.last_part)) > 1:
                    problems[f"{log.name}: at {one.playlist.last}, {other.name} at "
                             f"{(report.last_msn, report.last_part)}"] = None  # fmt: skip
    return list(problems) if has_parts(seen) else NotSeen("there are no parts")


def _apart(playlist: ReadMedia, other: tuple[int, int]) -> int:
    """By how many parts two renditions are apart, where they are in the same segment."""
    msn, part = playlist.last
    if msn == other[0]:
        return abs(part - other[1])
    return 0 if abs(msn - other[0]) == 1 else 2


def _path(url: str) -> str:
    return url.partition("?")[0]


def dates(seen: Observation) -> Judgement:
    """29."""
    problems: list[str] = []
    by_msn: dict[int, dict[str, int]] = {}
    for log in seen.renditions:
        dated = {s.msn: s.date_time_us for s in log.last.segments if s.date_time_us is not None}
        if not dated:
            problems.append(f"{log.name}: no EXT-X-PROGRAM-DATE-TIME")
        for msn, at in dated.items():
            by_msn.setdefault(msn, {})[log.name] = at
    target_us = max((log.last.part_target_us or US for log in seen.renditions), default=US)
    for msn, found in by_msn.items():
        apart_us = max(found.values()) - min(found.values())
        if apart_us > target_us:
            problems.append(f"segment {msn}: dates differ by {apart_us / US:.3f} s")
    return problems + _sequences(seen.renditions)


def _sequences(logs: list[RenditionLog]) -> list[str]:
    """Segments whose discontinuity sequence is not the same in all renditions."""
    found = {
        (segment.msn, segment.discontinuity_sequence)
        for log in logs
        for segment in log.last.segments
    }
    counts = Counter(msn for msn, _ in found)
    twice = sorted(msn for msn, count in counts.items() if count > 1)
    return [f"segment {msn}: discontinuity sequences differ" for msn in twice]


def multivariant(seen: Observation) -> Judgement:
    """30."""
    if seen.multivariant is None:
        return NotSeen("this is a media playlist")
    problems: list[str] = []
    for variant in seen.multivariant.variants:
        needed = ["BANDWIDTH", "AVERAGE-BANDWIDTH", "CODECS"]
        codecs = variant.attributes.get("CODECS", "").split(",")
        if any(codec.strip().startswith(VIDEO_CODECS) for codec in codecs):
            needed += ["RESOLUTION", "FRAME-RATE"]
        missing = [name for name in needed if not variant.attributes.get(name)]
        if missing:
            problems.append(f"{variant.uri}: no {', '.join(missing)}")
    return problems


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
    Item(25, "recommended", "byte ranges, where parts are such", byte_ranges),
    Item(26, "must", "delta updates skip what they may, once", delta_updates),
    Item(27, "must", "EXT-X-VERSION is as high as needed", versions),
    Item(28, "profile", "a report of each other rendition, all in step", rendition_reports),
    Item(29, "profile", "dates, and discontinuity sequences, are the same everywhere", dates),
    Item(30, "Apple must", "variants say codecs, bandwidths, resolution and frame rate",
         multivariant),
)  # fmt: skip
