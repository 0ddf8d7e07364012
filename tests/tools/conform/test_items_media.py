from msgspec.structs import replace

from edged.tools.conform.media import Piece, Sample, place_of
from edged.tools.conform.observe import Observation
from edged.wire.m3u8_reader import ReadHint, ReadRange
from tests.tools.conform.faulty import Change, Fault, change_part, finds, verdict


def _last_fetched(seen: Observation) -> int:
    return max(seen.main.segments)


def change_segment(**changes: object) -> Change:
    """Another whole segment, of those that were fetched the last."""

    def change(seen: Observation) -> None:
        msn = _last_fetched(seen)
        seen.main.segments[msn] = replace(seen.main.segments[msn], **changes)

    return change


def change_sample(index: int, **changes: object) -> Change:
    """Another sample in it."""

    def change(seen: Observation) -> None:
        ((_, samples),) = seen.main.segments[_last_fetched(seen)].tracks.items()
        samples[index] = replace(samples[index], **changes)

    return change


def missing_segment(seen: Observation) -> None:
    piece = seen.main.segments[_last_fetched(seen)]
    change_segment(answer=replace(piece.answer, status=404))(seen)


def _broken_part(seen: Observation) -> None:
    part = seen.main.last.segments[-2].parts[0]
    piece = seen.main.parts[place_of(part)]
    seen.main.parts[piece.place] = replace(piece, problem="box b'moof' of 7 bytes")


def _one_less(seen: Observation) -> None:
    ((_, samples),) = seen.main.segments[_last_fetched(seen)].tracks.items()
    samples.pop()


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


def _hint_is_not_kept(seen: Observation) -> None:
    seen.main.seen[1].playlist.hints = [ReadHint("PART", "never.m4s")]


def _drips(seen: Observation) -> None:
    part = next(part for part in seen.main.parts.values() if part.hinted)
    slow = replace(part.answer, last_at=part.answer.first_at + 5)
    seen.main.parts[part.place] = replace(part, answer=slow)


def _another_range_came(seen: Observation) -> None:
    """As it was hinted but for its length."""
    before, one = next(
        (before, one)
        for before, one in zip(seen.main.seen, seen.main.seen[1:], strict=False)
        if not one.playlist.segments[-1].is_whole and len(one.playlist.segments[-1].parts) > 1
    )
    segment = one.playlist.segments[-1]
    came = replace(segment.parts[-1], range=ReadRange(10, 20))
    one.playlist.segments[-1] = replace(segment, parts=[*segment.parts[:-1], came])
    before.playlist.hints[:] = [ReadHint("PART", came.uri, ReadRange(10, 21))]


def _whole_file_for_a_range(seen: Observation) -> None:
    place, part = next(iter(seen.main.parts.items()))
    told = "bytes 10-29: status 200, the whole resource"
    seen.main.parts[place] = replace(part, place=("all.mp4", ReadRange(10, 20)), range_problem=told)


def _longer_than_its_parts(seen: Observation) -> None:
    segment = seen.main.last.segment(_last_fetched(seen))
    assert segment is not None
    assert segment.duration_us is not None
    segment.duration_us += 200_000


def _a_range(**changes: object) -> Change:
    def change(seen: Observation) -> None:
        seen.probes["range"] = replace(seen.probes["range"], **changes)

    return change


FAULTS: list[Fault] = [
    (16, _longer_than_its_parts, "fail", "last 2 s, its EXTINF is 2.2 s"),
    (25, _a_range(body=bytes(90)), "warn", "a range of it is not what stands there"),
    (25, _a_range(body=b""), "warn", "0 bytes came, 90 were asked for"),
    (25, _a_range(fields=()), "warn", "Content-Range ''"),
    (16, change_sample(-1, digest=b"x"), "fail", "sample 59 has other media"),
    (16, change_sample(3, dts=7), "fail", "sample 3 has dts 7, in the parts "),
    (16, change_sample(0, sync=False), "fail", "has sync False, in the parts True"),
    (16, _one_less, "fail", "59 samples and in the parts 60: sample 59 ends"),
    (16, change_segment(problem="box b'moof' of 7 bytes"), "fail", "box b'moof' of 7 bytes"),
    (16, missing_segment, "fail", "status 404"),
    (16, _broken_part, "fail", "box b'moof' of 7 bytes"),
    (17, _unmarked, "warn", "has an independent frame, without INDEPENDENT=YES"),
    (17, _unmarked, "warn", "has no independent part"),
    (17, _marked, "warn", "is marked INDEPENDENT=YES, and has no such frame"),
    (17, _broken_part, "warn", "box b'moof' of 7 bytes"),
    (18, _late_part, "fail", "at most"),
    (18, _late_segment, "fail", "v0.m3u8: segment"),
    (23, _hint_is_not_kept, "fail", "never.m4s was hinted"),
    (23, _another_range_came, "fail", "bytes 10-30 was hinted behind"),
    (23, _drips, "fail", "s before it was whole"),
    (25, _whole_file_for_a_range, "warn", "all.mp4: bytes 10-29: status 200"),
]


test_faults_are_found = finds(FAULTS)


def test_a_gap_counts_among_the_parts(good: Observation) -> None:
    change_part(good, _last_fetched(good), 2, gap=True)
    assert verdict(good, 16).status == "pass"


def test_a_server_may_answer_a_range_with_all(good: Observation) -> None:
    assert verdict(good, 25).status == "pass"
    _a_range(status=200)(good)
    assert verdict(good, 25).status == "not seen"


def test_ranges_are_kept_that_are_as_hinted(good: Observation) -> None:
    """Without BYTERANGE-START a hint is of a resource's begin, without a length of its rest."""
    log = good.main
    assert verdict(good, 23).status == "pass"
    ranges = [
        (ReadRange(0, 20), None),
        (ReadRange(10, 20), ReadRange(10)),
        (ReadRange(10, 20), ReadRange(10, 20)),
    ]
    for came, hinted in ranges:
        for one in log.seen:
            for segment in one.playlist.segments:
                segment.parts = [replace(part, range=came) for part in segment.parts]
            one.playlist.hints[:] = [replace(hint, range=hinted) for hint in one.playlist.hints]
        assert verdict(good, 23).status == "pass", (came, hinted)


def test_how_late_we_are_ourselves_is_not_held_against_it(good: Observation) -> None:
    _late_part(good)
    _drips(good)
    assert verdict(good, 18).status == verdict(good, 23).status == "fail"
    good.stall_s = 6
    assert verdict(good, 18).status == verdict(good, 23).status == "pass"


def test_pictures_decide_where_sound_is_muxed_in(good: Observation) -> None:
    """Each frame of sound is independent, which says nothing of a part."""
    for place, piece in good.main.parts.items():
        assert piece.init is not None
        (number, track), *_ = good.main.inits[piece.init].items()
        good.main.inits[piece.init][number + 1] = replace(track, handler="soun")
        sound = [Sample(0, 1, 0, 1, sync=True, digest=b"")]
        good.main.parts[place] = replace(piece, tracks={**piece.tracks, number + 1: sound})
    assert verdict(good, 17).status == "pass"


def test_what_cannot_be_looked_into_is_not_judged(good: Observation) -> None:
    """As MPEG-TS, or what is encrypted as a whole."""

    def closed(piece: Piece) -> Piece:
        return replace(piece, init=None, tracks={})

    for log in good.renditions:
        log.parts = {place: closed(piece) for place, piece in log.parts.items()}
        log.segments = {msn: closed(piece) for msn, piece in log.segments.items()}
    for number in (16, 17, 21):
        assert verdict(good, number).status == "not seen"


def test_what_one_rendition_lacks_does_not_hide_what_another_does(good: Observation) -> None:
    _late_part(good)
    good.renditions[1].last.part_target_us = None
    good.renditions.reverse()
    good.main.seen = good.main.seen[-1:]
    assert verdict(good, 18).status == "fail"


def test_what_was_not_fetched_is_not_judged(good: Observation) -> None:
    for log in good.renditions:
        log.segments.clear()
        log.parts.clear()
        log.seen = log.seen[:1]
        log.last.hints.clear()
    for number in (16, 17, 18, 20, 21, 23):
        assert verdict(good, number).status == "not seen"


def test_without_parts_segments_in_time_are_judged_all_the_same(good: Observation) -> None:
    for log in good.renditions:
        for one in log.seen:
            one.playlist.part_target_us = None
    assert verdict(good, 18).status == "pass"
    _late_segment(good)
    assert verdict(good, 18).status == "fail"


def test_without_parts_what_is_of_them_does_not_apply(good: Observation) -> None:
    for log in good.renditions:
        log.parts.clear()
        for one in log.seen:
            one.playlist.part_target_us, one.playlist.hints = None, []
            one.playlist.tag_lines.pop("EXT-X-PART", None)
            for segment in one.playlist.segments:
                segment.parts.clear()
    for number in (3, 10, 11, 14, 15, 16, 17, 19, 22, 23, 28, 35):
        assert verdict(good, number).details == ["there are no parts: it does not apply"], number
