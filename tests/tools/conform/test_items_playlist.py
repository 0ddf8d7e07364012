from msgspec.structs import replace

from edged.tools.conform.observe import Observation
from edged.wire.m3u8_reader import ReadHint, ReadReport, ReadVariant
from tests.tools.conform.faulty import Change, Fault, change_part, change_probe, finds, verdict


def change_control(name: str, value: str | None, *, only_last: bool = False) -> Change:
    """Another attribute of SERVER-CONTROL."""

    def change(seen: Observation) -> None:
        for log in seen.renditions:
            for one in log.seen[-1:] if only_last else log.seen:
                one.playlist.control.pop(name, None)
                if value is not None:
                    one.playlist.control[name] = value

    return change


def _parts_without_inf(seen: Observation) -> None:
    for one in seen.main.seen:
        one.playlist.part_target_us = None


def _another_target(seen: Observation) -> None:
    seen.main.seen[-1].playlist.target_duration_s = 9


def _short_part(seen: Observation) -> None:
    change_part(seen, seen.main.last.last_whole, 2, duration_us=100_000)


def _long_part(seen: Observation) -> None:
    change_part(seen, seen.main.last.last_whole, 2, duration_us=300_000)


def _late_map(seen: Observation) -> None:
    seen.main.last.segments[0].late_tags.append("EXT-X-MAP")


def _no_hint(seen: Observation) -> None:
    seen.main.seen[1].playlist.hints.clear()


def _two_hints(seen: Observation) -> None:
    seen.main.last.hints.append(ReadHint("PART", "another"))


def _hint_at_the_end(seen: Observation) -> None:
    seen.main.last.ended = True


def _no_reports(seen: Observation) -> None:
    seen.main.seen[1].playlist.reports.clear()


def _reports(msn: int | None, part: int | None) -> Change:
    def change(seen: Observation) -> None:
        playlist = seen.main.seen[1].playlist
        playlist.reports = [ReadReport(report.uri, msn, part) for report in playlist.reports]

    return change


def _no_dates(seen: Observation) -> None:
    for segment in seen.main.last.segments:
        segment.date_time_us = None


def _other_dates(seen: Observation) -> None:
    segment = seen.main.last.segments[1]
    assert segment.date_time_us is not None
    segment.date_time_us += 3_000_000


def _other_discontinuity(seen: Observation) -> None:
    seen.main.last.segments[1].discontinuity_sequence += 1


def _no_codecs(seen: Observation) -> None:
    assert seen.multivariant is not None
    (variant,) = seen.multivariant.variants
    attributes = {k: v for k, v in variant.attributes.items() if k not in ("CODECS", "BANDWIDTH")}
    seen.multivariant.variants = [ReadVariant(variant.uri, attributes)]


def _no_resolution(seen: Observation) -> None:
    assert seen.multivariant is not None
    (variant,) = seen.multivariant.variants
    attributes = {k: v for k, v in variant.attributes.items() if k != "RESOLUTION"}
    seen.multivariant.variants = [ReadVariant(variant.uri, attributes)]


FAULTS: list[Fault] = [
    (10, _parts_without_inf, "fail", "EXT-X-PART without EXT-X-PART-INF"),
    (10, change_control("PART-HOLD-BACK", None), "fail", "without PART-HOLD-BACK"),
    (11, change_control("PART-HOLD-BACK", "0.45"), "fail", "0.45 s is 2."),
    (12, change_control("HOLD-BACK", "5"), "fail", "HOLD-BACK=5 is less than 3 x 4"),
    (12, change_control("CAN-SKIP-UNTIL", "23.9"), "fail", "CAN-SKIP-UNTIL=23.9 is less than 6"),
    (12, change_control("CAN-SKIP-DATERANGES", "YES"), "fail", "without CAN-SKIP-UNTIL"),
    (13, change_control("HOLD-BACK", "13", only_last=True), "fail", "'HOLD-BACK': '13'"),
    (13, _another_target, "fail", "TD 9"),
    (14, _short_part, "fail", "of 0.1 s, 85 % of PART-TARGET at least"),
    (14, _long_part, "fail", "of 0.3 s, PART-TARGET is"),
    (15, _late_map, "fail", "EXT-X-MAP behind a part of segment"),
    (22, _no_hint, "fail", "v0.m3u8: 1 playlists without"),
    (24, change_probe("unknown", status=200), "warn", "status 200, not 404"),
    (24, _two_hints, "warn", "more than one hint"),
    (24, _hint_at_the_end, "warn", "a hint behind EXT-X-ENDLIST"),
    (26, change_probe("skip", status=400), "fail", "status 400"),
    (27, change_probe("skip v2", status=400), "fail", "skip v2: status 400"),
    (28, _no_reports, "fail", "v0.m3u8: no report of a0.m3u8"),
    (28, _reports(1, None), "fail", "a0.m3u8 without LAST-MSN or LAST-PART"),
    (28, _reports(999, 0), "fail", "a0.m3u8 at (999, 0)"),
    (29, _no_dates, "fail", "no EXT-X-PROGRAM-DATE-TIME"),
    (29, _other_dates, "fail", "dates differ by"),
    (29, _other_discontinuity, "fail", "discontinuity sequences differ"),
    (30, _no_codecs, "fail", "no BANDWIDTH, CODECS"),
    (30, _no_resolution, "fail", "no RESOLUTION"),
]


test_faults_are_found = finds(FAULTS)


def with_skip(seen: Observation, count: int, version: int = 9, *, times: int = 1) -> None:
    """An update that skips so many of the first segments."""
    entire = seen.probes["plain"]
    text = entire.body.decode().replace("#EXT-X-VERSION:6", f"#EXT-X-VERSION:{version}")
    head, *segments = text.split("#EXT-X-PROGRAM-DATE-TIME")
    skip = f"#EXT-X-SKIP:SKIPPED-SEGMENTS={count}\n" * times
    left = "".join("#EXT-X-PROGRAM-DATE-TIME" + segment for segment in segments[count:])
    seen.probes["skip"] = seen.probes["skip v2"] = replace(
        entire, body=(head + skip + left).encode()
    )


def test_delta_updates(good: Observation) -> None:
    assert verdict(good, 26).status == "pass", "ignored, as it must be"
    with_skip(good, 1)
    assert verdict(good, 26).details == ["EXT-X-SKIP where it must be ignored"]
    assert verdict(good, 27).status == "pass"
    change_control("CAN-SKIP-UNTIL", "1")(
        good
    )  # So that this short playlist has something to skip.
    assert verdict(good, 26).status == "pass"
    with_skip(good, 99)
    assert "99 segments are skipped" in verdict(good, 26).details[0]
    with_skip(good, 1, times=2)
    assert "stands twice" in verdict(good, 26).details[0]
    with_skip(good, 1, version=8)
    assert verdict(good, 27).details[0] == "skip: EXT-X-VERSION 8, at least 9"
    good.probes["skip"] = good.probes["plain"]
    assert "no EXT-X-SKIP" in verdict(good, 26).details[0]
    good.main.last.control["CAN-SKIP-DATERANGES"] = "YES"
    with_skip(good, 1)
    assert verdict(good, 27).details == ["skip v2: EXT-X-VERSION 9, at least 10"]
    good.probes.clear()
    assert verdict(good, 26).status == verdict(good, 27).status == "not seen"


def test_what_a_stream_gives_no_occasion_for(good: Observation) -> None:
    change_part(good, good.main.last.last_whole, 0, byte_range="10@0")
    assert verdict(good, 25).status == "not seen"
    good.multivariant = None
    assert verdict(good, 30).status == "not seen"
    for log in good.renditions:
        for one in log.seen:
            one.playlist.part_target_us = None
            one.playlist.tags.pop("EXT-X-PART", None)
    for number in (11, 14, 22, 28):
        assert verdict(good, number).status == "not seen"
    good.renditions = [good.main]
    assert verdict(good, 28).details == ["there is one rendition only"]
