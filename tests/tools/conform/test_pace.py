"""What of a rendition's parts is its source's: the length of each by its pictures, in ms."""

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from edged.tools.conform.answer import Answer
from edged.tools.conform.item import Judgement, Unavoidable
from edged.tools.conform.items_holes import no_holes
from edged.tools.conform.items_media import hints_are_kept, in_time, same_samples
from edged.tools.conform.items_playlist import part_durations
from edged.tools.conform.media import Piece, Sample
from edged.tools.conform.observe import Observation, RenditionLog
from edged.tools.conform.pace import Pace
from edged.wire.cmaf.reader import ReadTrack

INIT = ("i", None)
PART_MS = 200
Parts = Sequence[Sequence[int]]  # Of one segment each: the durations of its pictures.


def answer(url: str, at: float, body: bytes = b"") -> Answer:
    return Answer(
        url=url, status=200, fields=(), body=body, asked_at=at, head_at=at, first_at=at,
        last_at=at, wire_bytes=0,
    )  # fmt: skip


def samples(begin: int, pictures: Sequence[int], *, until: int | None = None) -> list[Sample]:
    """From `begin`; the last one is cut at `until`, as a server may."""
    found = []
    for number, duration in enumerate(pictures):
        cut = duration if until is None else min(duration, until - begin)
        found.append(Sample(begin, cut, 0, 1, sync=number == 0, digest=b""))
        begin += duration
    return found


def watched(
    *segments: Parts,
    listed: dict[tuple[int, int], int] | None = None,
    hinted: dict[tuple[int, int], str] | None = None,
    capped: bool = False,
) -> Observation:
    """A rendition whose parts came one by one, each when its last picture had lasted.

    `listed`: what the playlist says of a part beside what its pictures last; `hinted`: a hint
    behind a part which is another than its successor; `capped`: no part is longer than
    PART-TARGET, and what is missing of its last picture is a hole.
    """
    head = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-PART-INF:PART-TARGET={PART_MS / 1000}\n"
    head += '#EXT-X-MAP:URI="i"\n'
    log = RenditionLog(name="v", url="http://x/v")
    log.inits[INIT] = {1: ReadTrack(timescale=1000, handler="vide")}
    at, body = 0, head
    for msn, parts in enumerate(segments):
        whole: list[Sample] = []
        for index, pictures in enumerate(parts):
            uri = f"{msn}.{index}"
            pieces = samples(at, pictures, until=at + PART_MS if capped else None)
            length = sum(sample.duration for sample in pieces)
            length = (listed or {}).get((msn, index), length)
            at, whole = at + sum(pictures), whole + pieces
            first = ",INDEPENDENT=YES" if index == 0 else ""
            body += f'#EXT-X-PART:DURATION={length / 1000},URI="{uri}"{first}\n'
            if index == len(parts) - 1:
                body += f"#EXTINF:{sum(map(sum, parts)) / 1000},\ns{msn}\n"
            after = f"{msn}.{index + 1}" if index + 1 < len(parts) else f"{msn + 1}.0"
            hint = (hinted or {}).get((msn, index), after)
            text = f'{body}#EXT-X-PRELOAD-HINT:TYPE=PART,URI="{hint}"\n'
            log.add(answer(log.url, at / 1000, text.encode()), (msn, index))
            log.parts[uri, None] = Piece(
                place=(uri, None), answer=answer(uri, at / 1000), init=INIT, tracks={1: pieces}
            )
        log.segments[msn] = Piece(
            place=(f"s{msn}", None), answer=answer(f"s{msn}", 0), init=INIT, tracks={1: whole}
        )
    return Observation(url=log.url, renditions=[log])


def told(judgement: Judgement) -> tuple[str, list[str]]:
    if isinstance(judgement, list):
        return "fail" if judgement else "pass", judgement
    assert isinstance(judgement, Unavoidable), judgement
    return "warn", judgement.problems


FULL = [40] * 5
UNEVEN = [[20, 80, 20, 80], [20, 60, 20, 80, 20], [80, 20, 80, 20]]  # Parts of 200 ms.


@pytest.mark.parametrize(
    ("parts", "status", "why"),
    [
        ([FULL, FULL, FULL, FULL], "pass", ""),
        # Too short, as the next picture would have been too long.
        (
            [FULL, [40, 40], [150, 40], FULL],
            "warn",
            "v:6: part 0.1 of 0.08 s is 40% of PART-TARGET, 85 % at least: a variable frame rate: "
            "no picture ends between 0.17 and 0.2 s, one lasts 0.150 s, usual are 0.040 s",
        ),
        # One picture, longer than any part may be; and the last one of a part.
        ([FULL, [230], FULL, FULL], "warn", "one lasts 0.230 s"),
        ([FULL, [40, 40, 40, 90], FULL, FULL], "warn", "one lasts 0.090 s"),
        # Too short, though there was room for the next picture,
        ([FULL, [40, 40], FULL, FULL], "fail", "part 0.1 of 0.08 s is 40%"),
        # and too long, though it could have ended before its last one.
        ([FULL, [40] * 5 + [90], FULL, FULL], "fail", "part 0.1 of 0.29 s, PART-TARGET is"),
        ([FULL, [40] * 6 + [90], FULL, FULL], "fail", "part 0.1 of 0.33 s, PART-TARGET is"),
        ([FULL, [130, 90, 40], FULL, FULL], "fail", "part 0.1 of 0.26 s, PART-TARGET is"),
        # A constant rate that PART-TARGET does not suit: 3 are too few, 4 too many.
        ([[55] * 4, [55] * 3, [55] * 3, [55] * 3], "fail", "part 0.1 of 0.165 s is 82%"),
        ([[250], [250], [250], [250]], "fail", "part 0.0 of 0.25 s, PART-TARGET is 0.2 s"),
        # Uneven as it may be: what is too short for no reason is.
        ([*UNEVEN, [20], *UNEVEN], "fail", "part 0.3 of 0.02 s is 10%"),
    ],
)
def test_a_length_is_the_sources_where_no_cut_fits(parts: Parts, status: str, why: str) -> None:
    found, problems = told(part_durations(watched(parts)))
    assert found == status, problems
    assert why in "".join(problems)
    if status == "fail":
        assert "variable" not in problems[0]


def test_a_length_that_is_not_explained_comes_first() -> None:
    parts = [FULL, [230], FULL, [40, 40], FULL, FULL]
    status, problems = told(part_durations(watched(parts)))
    assert status == "fail"
    assert [problem.split(": ")[1].split(" of ")[0] for problem in problems] == [
        "part 0.3", "part 0.1",
    ]  # fmt: skip


def test_what_cannot_be_looked_into_is_not_explained() -> None:
    parts = [FULL, [40, 40], [150, 40], FULL]
    for missing in ("0.1", "0.2"):
        seen = watched(parts)
        del seen.main.parts[missing, None]
        assert told(part_durations(seen))[0] == "fail", missing
    seen = watched(parts)
    seen.main.inits[INIT] = {}
    assert told(part_durations(seen))[0] == "fail"


def test_a_long_part_at_the_end_tells_its_length_itself() -> None:
    assert told(part_durations(watched([FULL, FULL, [40, 40, 160]])))[0] == "warn"
    # What the playlist says of it, and its pictures do not.
    status, _ = told(part_durations(watched([FULL, FULL, FULL], listed={(0, 2): 240})))
    assert status == "fail"


def test_a_part_is_late_with_its_pictures() -> None:
    seen = watched([FULL, FULL, FULL, [450], FULL, FULL], capped=True)
    status, problems = told(in_time(seen))
    assert status == "warn"
    assert problems == [
        "v: part (0, 3) 0.450 s after (0, 2), 0.300 s at most: a variable frame rate: "
        "its pictures took 0.450 s themselves"
    ]
    late = watched([FULL, FULL, FULL, [450], FULL, FULL], capped=True)
    for index, one in enumerate(late.main.seen[3:], 3):  # And longer than that.
        moved = replace(one.answer, head_at=one.answer.head_at + 0.2)
        late.main.seen[index] = replace(one, answer=moved)
    assert told(in_time(late))[0] == "fail"


def test_of_the_last_part_nobody_knows_how_long_its_picture_lasts() -> None:
    assert told(in_time(watched([*UNEVEN, *UNEVEN, [450]], capped=True)))[0] == "pass"
    assert told(in_time(watched([FULL] * 5 + [[450]], capped=True)))[0] == "fail"


def test_a_constant_rate_below_that_of_parts_is_late_for_no_reason() -> None:
    seen = watched([[350]] * 6, capped=True)
    status, problems = told(in_time(seen))
    assert status == "fail"
    assert "variable" not in problems[0]


def test_a_hint_fails_at_the_end_of_a_segment_whose_pictures_are_uneven() -> None:
    hinted = {(0, 1): "1.0"}  # The segment goes on.
    status, problems = told(hints_are_kept(watched(UNEVEN, UNEVEN, hinted=hinted)))
    assert status == "warn", problems
    assert "1.0 was hinted behind (0, 1), 0.2 came: a variable frame rate" in problems[0]
    hinted = {(0, 2): "0.3"}  # It ends before.
    assert told(hints_are_kept(watched(UNEVEN, UNEVEN, hinted=hinted)))[0] == "warn"


@pytest.mark.parametrize(
    ("parts", "hinted"),
    [
        ([FULL, FULL, FULL], {(0, 1): "1.0"}),  # A constant rate.
        (UNEVEN, {(0, 0): "0.2"}),  # Not about a segment's end.
        (UNEVEN, {(0, 0): "never"}),
        (UNEVEN, {(1, 0): "2.0"}),  # Which was never seen.
    ],
)
def test_other_hints_are_not_excused(parts: Parts, hinted: dict[tuple[int, int], str]) -> None:
    status, problems = told(hints_are_kept(watched(parts, parts, hinted=hinted)))
    assert status == "fail"
    assert "variable" not in problems[0]


def test_a_hint_at_a_segment_that_was_not_watched_may_have_been_fetched() -> None:
    seen = watched(UNEVEN, UNEVEN, hinted={(1, 0): "2.0"})
    came = seen.main.parts["1.1", None]
    seen.main.parts["2.0", None] = Piece(place=("2.0", None), answer=came.answer)
    assert told(hints_are_kept(seen))[0] == "warn"


def test_a_hole_behind_a_picture_that_no_part_has_room_for() -> None:
    ends = [*UNEVEN, [20, 380]]
    status, problems = told(no_holes(watched(ends, UNEVEN, capped=True)))
    assert status == "warn"
    assert "begins +0.200 s off the end of segment 0" in problems[0]
    assert problems[0].endswith(": its last picture is longer than a part may be")
    # A constant rate loses something; and a last part with room to spare is too short.
    lost = watched([*[FULL] * 12, [40, 380]], [FULL], capped=True)
    assert told(no_holes(lost))[0] == "fail"
    seen = watched(ends, UNEVEN, capped=True, listed={(0, 3): 150})
    assert told(no_holes(seen))[0] == "fail"
    seen = watched(ends, UNEVEN, capped=True)
    seen.main.last.part_target_us = None
    assert told(no_holes(seen))[0] == "fail"


def test_a_hole_inside_a_segment_behind_such_a_picture() -> None:
    """And then its parts are not as long as it is."""
    amid = [*UNEVEN, [20, 380], FULL]
    seen = watched(amid, UNEVEN, capped=True)
    status, problems = told(no_holes(seen))
    assert status == "warn", problems
    assert "part 4: track 1 goes on +0.200 s off its end before" in problems[0]
    assert problems[0].endswith(": a picture is longer than a part may be")
    assert same_samples(seen) == [], "what is missing is told of by item 21"
    seen = watched(amid, UNEVEN, capped=True, listed={(0, 0): 150})
    status, problems = told(same_samples(seen))
    assert status == "fail"
    assert "the 5 parts of segment 0 last 0.95 s, its EXTINF is 1.2 s" in problems[0]
    lost = watched([*[FULL] * 4, [40, 380], FULL], [FULL], capped=True)
    assert told(no_holes(lost))[0] == "warn", "there is no other rendition that has it"


def test_a_discontinuity_ends_a_timeline() -> None:
    seen = watched([FULL, FULL], [FULL, FULL])
    assert Pace(seen.main).span_us((0, 1)) == 200_000
    assert Pace(seen.main).span_us((0, 0)) is None, "nothing is known of what was before"
    assert Pace(seen.main).span_us((1, 1)) is None, "nor of what comes"
    assert Pace(seen.main).span_us((7, 7)) is None
    seen.main.last.segments[1].discontinuity = True
    assert Pace(seen.main).span_us((0, 1)) is None


def test_of_several_tracks_the_pictures_count() -> None:
    seen = watched([FULL, [230], FULL, FULL])
    log = seen.main
    log.inits[INIT] = {0: ReadTrack(timescale=1000, handler="soun"), **log.inits[INIT]}
    for place, piece in log.parts.items():
        begin = piece.tracks[1][0].dts
        tracks = {0: samples(begin, [10] * 20), **piece.tracks}
        log.parts[place] = Piece(place=place, answer=piece.answer, init=INIT, tracks=tracks)
    assert told(part_durations(seen))[0] == "warn"
    assert Pace(RenditionLog(name="v", url="http://x/v")).usual_us == 0
