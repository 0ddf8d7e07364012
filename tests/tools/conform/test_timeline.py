import pytest

from edged.tools.conform.answer import Answer
from edged.tools.conform.observe import RenditionLog
from edged.tools.conform.timeline import Timeline, contradictions, told_at

TEXT = """#EXTM3U
#EXT-X-TARGETDURATION:2
#EXT-X-PART-INF:PART-TARGET=1
#EXT-X-MEDIA-SEQUENCE:5
#EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:01:00Z
#EXTINF:2,
a
#EXTINF:2,
b
#EXT-X-DISCONTINUITY
#EXTINF:2,
c
#EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:02:00Z
#EXTINF:2,
d
#EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:02:03Z
#EXT-X-PART:DURATION=1,URI="e.0"
"""


def log_of(*versions: tuple[float, str]) -> RenditionLog:
    log = RenditionLog(name="v", url="http://x/v")
    for at, text in versions:
        answer = Answer(
            url=log.url, status=200, fields=(), body=text.encode(), asked_at=at, head_at=at,
            first_at=at, last_at=at, wire_bytes=0,
        )  # fmt: skip
        log.add(answer, None)
    return log


def test_dates_go_on_from_segment_to_segment() -> None:
    """But not over a discontinuity, behind which time is another's until it is said."""
    timeline = Timeline(log_of((0, TEXT)))
    assert [(s.msn, s.start_us // 10**6, s.off_us, s.dated) for s in timeline.spans] == [
        (5, 60, 0, True),
        (6, 62, 0, False),
        (8, 120, 0, True),
        (9, 123, 1_000_000, True),
    ]
    assert [s.sequence for s in timeline.spans] == [0, 0, 1, 1]
    assert timeline.end_us((5, -1)) == 62_000_000
    assert timeline.end_us((9, 0)) == 124_000_000
    assert [timeline.end_us(p) for p in ((7, -1), (9, 1), (99, 0))] == [None] * 3


def test_where_a_rendition_was_between_two_moments() -> None:
    more = [TEXT + f'#EXT-X-PART:DURATION=1,URI="e.{n}"\n' * n for n in range(4)]
    timeline = Timeline(log_of(*((float(n), text) for n, text in enumerate(more))))
    assert timeline.between(1.1, 1.2) == ((9, 0), (9, 2))
    assert timeline.between(0.0, 2.5) == ((9, 0), (9, 3))
    assert timeline.between(-1, 2) is None
    assert timeline.between(2, 3) is None, "what came then was not seen any more"


@pytest.mark.parametrize(
    ("minutes", "sequence", "count"), [("02:00", 1, 0), ("01:01", 1, 1), ("02:01", 0, 1)]
)
def test_discontinuity_sequences_belong_to_times(minutes: str, sequence: int, count: int) -> None:
    ours = Timeline(log_of((0, TEXT)))
    other = TEXT.partition("#EXT-X-MEDIA-SEQUENCE")[0] + (
        f"#EXT-X-DISCONTINUITY-SEQUENCE:{sequence}\n"
        f"#EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:{minutes}Z\n#EXTINF:1,\na\n"
    )
    theirs = Timeline(log_of((0, other)))
    assert len(contradictions(ours, theirs, 500_000)) == count


def test_times_are_told() -> None:
    assert told_at(86_400_000_000 + 3_661_250_000) == "01:01:01.250"
