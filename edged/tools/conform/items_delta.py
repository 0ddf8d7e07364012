"""Items 26 and 27: delta updates, and what EXT-X-VERSION they need (RFC 8216bis §6.2.5.1, §8)."""

from edged.tools.conform.answer import Answer
from edged.tools.conform.item import Advice, Item, Judgement, NotSeen, playlist_of, probed, settle
from edged.tools.conform.observe import Observation, edition_of
from edged.wire.m3u8_reader import ReadMedia, ReadSegment
from edged.wire.m3u8_values import US

LONG_WINDOW_S = 120  # From which on Apple asks for delta updates (authoring rules, 14.4).
SKIP, SKIP_V2 = "skip", "skip v2"
NO_UPDATE = "no update that skips something and a whole playlist of the same version were got"
# What a segment carries with it, and what an update says otherwise by its nature.
SEGMENT_TAGS = {
    *("EXTINF", "EXT-X-BYTERANGE", "EXT-X-DISCONTINUITY", "EXT-X-KEY", "EXT-X-MAP", "EXT-X-GAP"),
    *("EXT-X-PROGRAM-DATE-TIME", "EXT-X-BITRATE", "EXT-X-PART"),
    *("EXT-X-VERSION", "EXT-X-SKIP", "EXT-X-DATERANGE", "EXT-X-RENDITION-REPORT"),
}


def delta_updates(seen: Observation) -> Judgement:
    """26."""
    last = seen.main.last
    answers = {name: probed(seen, name) for name in (SKIP, SKIP_V2)}
    asked = {name: one for name, one in answers.items() if not isinstance(one, NotSeen)}
    until_s = last.seconds("CAN-SKIP-UNTIL")
    if until_s is None or last.ended:
        problems = [problem for answer in asked.values() for problem in _ignored(answer)]
        return problems or _not_offered(seen)
    entire, before = probed(seen, "skip entire"), probed(seen, "skip before")
    if isinstance(entire, NotSeen) or isinstance(before, NotSeen):
        return NotSeen("the server did not answer what was asked")
    found, known = playlist_of(entire), playlist_of(before)
    if isinstance(found, str) or isinstance(known, str):
        return [one for one in (found, known) if isinstance(one, str)]
    problems, count = [], 0
    for name, answer in asked.items():
        judged = _judge(answer, known, found, until_s, ranges=name == SKIP_V2)
        count += judged is not None
        problems += judged or []
    return settle(problems, count, NO_UPDATE)


def _not_offered(seen: Observation) -> Judgement:
    last = seen.main.last
    if last.ended:
        return NotSeen("the stream has ended")
    listed_s = sum(segment.media_us for segment in last.segments) / US
    told = (
        f"delta updates are not offered, no CAN-SKIP-UNTIL is there: {listed_s:.0f} s are listed, "
        f"from {LONG_WINDOW_S} s on they should be"
    )
    return Advice([f"{seen.main.name}: {told}"]) if listed_s > LONG_WINDOW_S else NotSeen(told)


def _ignored(answer: Answer) -> list[str]:
    """Whether `_HLS_skip` has no effect."""
    playlist = playlist_of(answer)
    if isinstance(playlist, str):
        return [playlist]
    if playlist.skip is None:
        return []
    line = playlist.tag_lines["EXT-X-SKIP"]
    why = "behind EXT-X-ENDLIST" if playlist.ended else "without CAN-SKIP-UNTIL"
    return [f"{answer.url}: line {line}: EXT-X-SKIP where it must be ignored, {why}"]


def _judge(
    answer: Answer, before: ReadMedia, entire: ReadMedia, until_s: float, *, ranges: bool
) -> list[str] | None:
    """An update, against the whole playlist of its version.

    None: it is of another, or has nothing to skip.
    """
    update = playlist_of(answer)
    if isinstance(update, str):
        return [update]
    # It may be wrong about its segments' numbers, or about its end, and is not of another for that.
    numbers = (update.media_sequence, update.last) == (entire.media_sequence, entire.last)
    if not numbers and edition_of(update) != edition_of(entire):
        return None
    skippable = _skippable(entire, until_s)
    if update.skip is None:  # A server may reckon without the segment that is not whole.
        told = f"no EXT-X-SKIP, though {skippable} segments are older than {until_s:g} s"
        return [f"{answer.url}: {told}"] if skippable > 1 else None
    where = f"{answer.url}: line {update.tag_lines['EXT-X-SKIP']}"
    if update.skip.segments > skippable:
        return [
            f"{where}: {update.skip.segments} segments are skipped, {skippable} are older than "
            f"CAN-SKIP-UNTIL, {until_s:g} s"
        ]
    rebuilt = playlist_of(answer, before)
    if isinstance(rebuilt, str):
        return [rebuilt]
    differences = [*_headers(rebuilt, entire), *_segments(rebuilt, entire)]
    differences += _dateranges(rebuilt, before, entire, removable=ranges)
    return [f"{where}: rebuilt from it, {difference}" for difference in differences]


def _skippable(playlist: ReadMedia, until_s: float) -> int:
    """Segments that end further from the playlist's end than the limit."""
    after_us, count = 0, 0
    for segment in reversed(playlist.segments):
        count += after_us > until_s * US
        after_us += segment.media_us
    return count


def _headers(rebuilt: ReadMedia, entire: ReadMedia) -> list[str]:
    """What is said of all segments."""
    found = []
    for name in (
        *("target_duration_s", "part_target_us", "control", "discontinuity_sequence"),
        *("ended", "hints"),
    ):
        ours, theirs = getattr(rebuilt, name), getattr(entire, name)
        if ours != theirs:
            found.append(f"{name} is {ours}, in the whole playlist {theirs}")
    for tag in sorted((rebuilt.tags.keys() | entire.tags.keys()) - SEGMENT_TAGS):
        ours, theirs = rebuilt.tags.get(tag, 0), entire.tags.get(tag, 0)
        if ours != theirs:
            found.append(f"{tag} stands {ours} times, in the whole playlist {theirs}")
    urls = [{report.uri for report in playlist.reports} for playlist in (rebuilt, entire)]
    if urls[0] != urls[1]:
        found.append(f"EXT-X-RENDITION-REPORT of {sorted(urls[0] ^ urls[1])} is in one only")
    return found


def _segments(rebuilt: ReadMedia, entire: ReadMedia) -> list[str]:
    """The first segment that is another: those behind it may be so for the same reason."""
    if len(rebuilt.segments) != len(entire.segments):
        return [f"{len(rebuilt.segments)} segments, in the whole playlist {len(entire.segments)}"]
    for ours, theirs in zip(rebuilt.segments, entire.segments, strict=True):
        names = [
            name for name in ReadSegment.__struct_fields__
            if name not in ("parts", "late_tags") and getattr(ours, name) != getattr(theirs, name)
        ]  # fmt: skip
        for name in names[:1]:
            values = f"{getattr(ours, name)!r}, in the whole playlist {getattr(theirs, name)!r}"
            return [f"segment {ours.msn}: {name} is {values}"]
        # Parts may be dropped as their segment grows old, of what is skipped too.
        skipped = rebuilt.skip is not None and ours.msn < (
            rebuilt.media_sequence + rebuilt.skip.segments
        )
        if not skipped and _parts(ours) != _parts(theirs):
            return [f"segment {ours.msn}: its {len(ours.parts)} parts are not the "
                    f"{len(theirs.parts)} of the whole playlist"]  # fmt: skip
    return []


def _parts(segment: ReadSegment) -> list[object]:
    """Its parts without their lines."""
    return [(p.uri, p.range, p.duration_us, p.independent, p.gap) for p in segment.parts]


def _dateranges(
    rebuilt: ReadMedia, before: ReadMedia, entire: ReadMedia, *, removable: bool
) -> list[str]:
    """EXT-X-DATERANGE: all stand in an update, but of v2 those that were known (§4.4.5.2)."""
    wanted = {one.get("ID", ""): one for one in entire.dateranges}
    ours = {one.get("ID", ""): one for one in rebuilt.dateranges}
    if removable and rebuilt.skip is not None and "CAN-SKIP-DATERANGES" in rebuilt.control:
        known = {one.get("ID", ""): one for one in before.dateranges}
        for name in rebuilt.skip.removed_dateranges.split("\t"):
            known.pop(name, None)
        ours = {**known, **ours}
    return [
        f"EXT-X-DATERANGE {name!r} is {ours.get(name)}, in the whole playlist {wanted.get(name)}"
        for name in sorted(ours.keys() | wanted.keys())
        if ours.get(name) != wanted.get(name)
    ][:1]


def versions(seen: Observation) -> Judgement:
    """27."""
    found: list[tuple[str, ReadMedia]] = [
        (log.at(log.last.tag_lines.get("EXT-X-VERSION", 0)), log.last) for log in seen.renditions
    ]
    for name in (SKIP, SKIP_V2):
        answer = probed(seen, name)
        playlist = None if isinstance(answer, NotSeen) else playlist_of(answer)
        if isinstance(answer, Answer) and isinstance(playlist, ReadMedia):
            found.append((answer.url, playlist))
    problems, advice = [], []
    for where, playlist in found:
        needed, why = _needed(playlist, seen)
        if playlist.version < needed:
            problems.append(f"{where}: EXT-X-VERSION {playlist.version}, at least {needed}{why}")
        elif playlist.version > needed:
            advice.append(f"{where}: EXT-X-VERSION {playlist.version}, {needed} is enough")
    return problems or (Advice(advice) if advice else [])


def _needed(playlist: ReadMedia, seen: Observation) -> tuple[int, str]:
    """The version that a playlist needs: by its tags, and by the date ranges that are missing."""
    skip = playlist.skip
    if skip is None:
        return playlist.version_needed, ""
    entire = probed(seen, "skip entire")
    whole = playlist_of(entire) if isinstance(entire, Answer) else None
    if isinstance(whole, ReadMedia) and len(playlist.dateranges) < len(whole.dateranges):
        return max(playlist.version_needed, 10), ", as EXT-X-DATERANGE is skipped"
    return playlist.version_needed, ", as there is EXT-X-SKIP"


ITEMS = (
    Item(26, "must", "delta updates rebuild the whole playlist", delta_updates),
    Item(27, "must", "EXT-X-VERSION is as high as needed, and no higher", versions),
)
