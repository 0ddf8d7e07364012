from msgspec.structs import replace

from edged.tools.conform.observe import Observation
from edged.wire.m3u8_reader import ReadReport
from tests.tools.conform.faulty import Change, Fault, finds, verdict


def _no_reports(seen: Observation) -> None:
    seen.main.seen[1].playlist.reports.clear()


def _reports(msn: int | None, part: int | None) -> Change:
    def change(seen: Observation) -> None:
        playlist = seen.main.seen[len(seen.main.seen) // 2].playlist
        playlist.reports = [ReadReport(report.uri, msn, part) for report in playlist.reports]

    return change


def _absolute(seen: Observation) -> None:
    playlist = seen.main.seen[1].playlist
    url = seen.renditions[1].url
    playlist.reports = [replace(report, uri=url) for report in playlist.reports]


def _late(seen: Observation) -> None:
    """The other rendition is right about itself, and two seconds behind."""
    for one in seen.renditions[1].seen:
        for segment in one.playlist.segments:
            if segment.date_time_us is not None:
                segment.date_time_us = segment.date_time_us // 10**9 * 10**9  # Each once.
    begun = seen.main.first.segments[0].date_time_us
    assert begun is not None
    for one in seen.renditions[1].seen:
        at = begun - 2_000_000
        for segment in one.playlist.segments:
            segment.date_time_us, at = at, at + segment.media_us


def _no_dates(seen: Observation) -> None:
    for one in seen.main.seen:
        for segment in one.playlist.segments:
            segment.date_time_us = None


def _other_timestamps(seen: Observation) -> None:
    """Media that is dated three seconds before what it was encoded with."""
    log = seen.renditions[1]
    for msn, piece in log.segments.items():
        assert piece.init is not None
        ((number, samples),) = piece.tracks.items()
        ticks = 3 * log.inits[piece.init][number].timescale
        moved = [replace(sample, dts=sample.dts + ticks) for sample in samples]
        log.segments[msn] = replace(piece, tracks={number: moved})


def _other_dates(seen: Observation) -> None:
    segment = seen.main.last.segments[1]
    assert segment.date_time_us is not None
    segment.date_time_us += 3_000_000


def _other_discontinuity(seen: Observation) -> None:
    seen.main.last.segments[1].discontinuity_sequence += 1


def _goes_back(seen: Observation) -> None:
    """All renditions alike: what has been dropped is counted no more."""
    for log in seen.renditions:
        for one in log.seen:
            playlist = one.playlist
            playlist.discontinuity_sequence = 3 if one is not log.seen[-1] else 0
            playlist.segments = [
                replace(each, discontinuity_sequence=playlist.discontinuity_sequence)
                for each in playlist.segments
            ]


FAULTS: list[Fault] = [
    (29, _goes_back, "fail", "EXT-X-DISCONTINUITY-SEQUENCE is 0, it was 3"),
    (29, _goes_back, "fail", "the discontinuity sequence of segment 0 is 0, it was 3"),
    (28, _no_reports, "fail", "v0.m3u8: no report of a0.m3u8"),
    (28, _reports(999, 0), "fail", "a0.m3u8 at (999, 0), it was between"),
    (28, _reports(0, 0), "fail", "a0.m3u8 at (0, 0), it was between"),
    (28, _absolute, "fail", "the report of a0.m3u8 has an absolute URI"),
    (28, _late, "fail", "v0.m3u8 and a0.m3u8 are more than one PART-TARGET apart"),
    (29, _no_dates, "fail", "no EXT-X-PROGRAM-DATE-TIME"),
    (29, _other_dates, "fail", "+3.000 s off the end of the one before"),
    (29, _other_discontinuity, "fail", "discontinuity sequences differ: "),
    (29, _other_timestamps, "fail", "a0.m3u8: media timestamps are -3."),
]


test_faults_are_found = finds(FAULTS)


def _renumber(seen: Observation, by: int) -> None:
    """The other rendition counts its segments from elsewhere."""
    other = seen.renditions[1]
    moved: set[int] = set()
    for one in other.seen:
        one.playlist.media_sequence += by
        for segment in one.playlist.segments:
            if id(segment) not in moved:
                moved.add(id(segment))
                segment.msn += by
    other.segments = {msn + by: piece for msn, piece in other.segments.items()}
    for one in seen.main.seen:
        one.playlist.reports = [
            replace(report, last_msn=report.last_msn + by)
            for report in one.playlist.reports
            if report.last_msn is not None
        ]


def test_each_rendition_may_count_for_itself(good: Observation) -> None:
    """RFC 8216bis §6.2.4: clients MUST NOT assume that MSNs of renditions match."""
    _renumber(good, 1000)
    assert verdict(good, 28).details == []
    assert verdict(good, 29).details == []
    assert verdict(good, 28).status == verdict(good, 29).status == "pass"


def test_a_report_may_leave_out_what_is_the_same(good: Observation) -> None:
    """RFC 8216bis §4.4.5.4: as the last of the playlist that it stands in."""
    for log in good.renditions:
        for one in log.seen:
            msn, part = one.playlist.last
            one.playlist.reports = [
                replace(
                    report,
                    last_msn=None if report.last_msn == msn else report.last_msn,
                    last_part=None if (report.last_msn, report.last_part) == (msn, part)
                    else report.last_part,
                )
                for report in one.playlist.reports
            ]  # fmt: skip
    assert verdict(good, 28).status == "pass"


def test_what_a_stream_gives_no_occasion_for(good: Observation) -> None:
    for log in good.renditions:
        for one in log.seen:
            one.playlist.part_target_us = None
    assert verdict(good, 28).details == ["there are no parts: it does not apply"]
    good.renditions = [good.main]
    assert verdict(good, 28).details == ["there is one rendition only"]
