from msgspec.structs import replace

from edged.tools.conform.observe import FetchedPart, Observation
from edged.wire.m3u8_reader import ReadHint
from tests.tools.conform.faulty import Fault, change_part, finds, verdict


def _last_fetched(seen: Observation) -> int:
    return max(seen.main.segments)


def _other_segment(seen: Observation) -> None:
    """Its last byte is another: the same boxes, other media."""
    msn = _last_fetched(seen)
    answer = seen.main.segments[msn]
    seen.main.segments[msn] = replace(answer, body=answer.body[:-1] + b"\xee")


def _broken_segment(seen: Observation) -> None:
    msn = _last_fetched(seen)
    seen.main.segments[msn] = replace(seen.main.segments[msn], body=b"\0\0\0\7moof")


def _missing_segment(seen: Observation) -> None:
    msn = _last_fetched(seen)
    seen.main.segments[msn] = replace(seen.main.segments[msn], status=404)


def _empty_segment(seen: Observation) -> None:
    msn = _last_fetched(seen)
    seen.main.segments[msn] = replace(seen.main.segments[msn], body=b"")


def _unmarked(seen: Observation) -> None:
    change_part(seen, _last_fetched(seen), 0, independent=False)


def _marked(seen: Observation) -> None:
    change_part(seen, _last_fetched(seen), 1, independent=True)


def _late_part(seen: Observation) -> None:
    late = seen.main.seen[-1]
    seen.main.seen[-1] = replace(late, answer=replace(late.answer, head_at=late.answer.head_at + 1))


def _late_segment(seen: Observation) -> None:
    """All that comes after the first new segment comes ten seconds later."""
    first = seen.main.seen[0].playlist.last_whole
    later = False
    for index, one in enumerate(seen.main.seen):
        if later:
            answer = replace(one.answer, head_at=one.answer.head_at + 10)
            seen.main.seen[index] = replace(one, answer=answer)
        later = later or one.playlist.last_whole > first


def _no_parts(seen: Observation) -> None:
    for segment in seen.main.last.segments[:-2]:
        segment.parts.clear()


def _old_parts(seen: Observation) -> None:
    for segment in seen.main.last.segments[1:]:
        segment.duration_us = 60_000_000


def _listed_part_is_gone(seen: Observation) -> None:
    part = next(iter(seen.main.parts.values()))
    gone = replace(part.answer, status=404)
    seen.main.parts[part.uri] = FetchedPart(part.uri, gone)


def _segment_is_gone(seen: Observation) -> None:
    seen.main.left.append(replace(seen.probes["plain"], status=404))


def _short_playlist(seen: Observation) -> None:
    seen.main.last.media_sequence = 7
    del seen.main.last.segments[1:]


def _renamed(seen: Observation) -> None:
    seen.main.last.segments[0].uri = "another.m4s"


def _hole(seen: Observation) -> None:
    """A segment's media is that of the one before, a segment's duration early."""
    first, second = sorted(seen.main.segments)
    seen.main.segments[second] = replace(
        seen.main.segments[second], body=seen.main.segments[first].body
    )


def _hint_is_not_kept(seen: Observation) -> None:
    seen.main.seen[1].playlist.hints = [ReadHint("PART", "never.m4s")]


def _drips(seen: Observation) -> None:
    part = next(part for part in seen.main.parts.values() if part.hinted)
    slow = replace(part.answer, last_at=part.answer.head_at + 5)
    seen.main.parts[part.uri] = replace(part, answer=slow)


FAULTS: list[Fault] = [
    (16, _other_segment, "fail", "and its parts differ"),
    (16, _broken_segment, "fail", "box b'moof' of 7 bytes"),
    (16, _missing_segment, "fail", "status 404"),
    (17, _unmarked, "warn", "has an independent frame, unmarked"),
    (17, _marked, "warn", "is marked, and has none"),
    (18, _late_part, "fail", "at most"),
    (18, _late_segment, "fail", "v0.m3u8: segment"),
    (19, _no_parts, "warn", "v0.m3u8: no parts of segment"),
    (19, _old_parts, "warn", "are listed still"),
    (19, _listed_part_is_gone, "warn", "status 404"),
    (20, _segment_is_gone, "fail", "it has just left"),
    (20, _short_playlist, "fail", "3 x TD at least"),
    (20, _renamed, "fail", "another.m4s"),
    (21, _hole, "fail", "begins -2.000 s off"),
    (21, _broken_segment, "fail", "box b'moof'"),
    (21, _empty_segment, "fail", "without a sample"),
    (23, _hint_is_not_kept, "fail", "never.m4s was hinted"),
    (23, _drips, "fail", "s before it was whole"),
]


test_faults_are_found = finds(FAULTS)


def test_other_boxes_around_the_same_media_are_no_fault(good: Observation) -> None:
    """As from a server that packs a segment anew."""
    msn = max(good.main.segments)
    answer = good.main.segments[msn]
    styp = b"\0\0\0\x10stypmsdh\0\0\0\0"
    good.main.segments[msn] = replace(answer, body=styp + answer.body)
    assert verdict(good, 16).status == "pass"


def test_what_was_not_fetched_is_not_judged(good: Observation) -> None:
    for log in good.renditions:
        log.segments.clear()
        log.parts.clear()
        log.seen = log.seen[:1]
        log.last.hints.clear()
    for number in (16, 17, 18, 20, 21, 23):
        assert verdict(good, number).status == "not seen"
