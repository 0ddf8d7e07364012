from msgspec.structs import replace

from edged.tools.conform.observe import Observation
from tests.tools.conform.faulty import Fault, change_probe, finds, verdict


def _asked_in_vain(seen: Observation) -> None:
    seen.main.seen[-1] = replace(seen.main.seen[-1], asked=(10**6, 0))


def _refused(seen: Observation) -> None:
    seen.main.refused.append(((7, 1), replace(seen.probes["plain"], status=500)))


def _skips_at_old(seen: Observation) -> None:
    old = seen.probes["old"]
    skip = b"#EXT-X-SKIP:SKIPPED-SEGMENTS=1\n#EXT-X-PROGRAM-DATE-TIME"
    body = old.body.replace(b"#EXT-X-PROGRAM-DATE-TIME", skip, 1)
    seen.probes["old"] = replace(old, body=body)


def _stalled(seen: Observation) -> None:
    plain = seen.probes["plain"]
    late = replace(plain, status=503, head_at=plain.asked_at + 60)
    seen.main.refused.append(((7, 1), late))


def _goes_back(seen: Observation) -> None:
    seen.main.seen.reverse()


def _differs(seen: Observation) -> None:
    again = seen.probes["again"]
    seen.probes["again"] = replace(again, body=again.body + b"#EXT-X-OF-ITS-OWN\n")
    seen.probes["once"] = again


FAULTS: list[Fault] = [
    (1, change_probe("whole", url="http://x/v0.m3u8?_HLS_msn=999999"), "fail", "the last whole"),
    (1, change_probe("whole", status=404), "fail", "status 404, not a playlist"),
    (2, _asked_in_vain, "fail", "asked for (1000000, 0), got up to"),
    (2, _refused, "fail", ": status 500"),
    (3, change_probe("beyond", url="http://x/?_HLS_msn=99&_HLS_part=7"), "fail", "got up to"),
    (4, _skips_at_old, "fail", "segments are skipped"),
    (4, change_probe("old", status=404), "fail", "status 404"),
    (4, change_probe("old", body=b"<html>"), "fail", "the first line is"),
    (6, change_probe("part alone", status=200), "fail", "_HLS_part=0: status 200, not 400"),
    (7, change_probe("far", status=503), "warn", "status 503, not 400"),
    (7, change_probe("far part", head_at=1e9), "warn", "400 only after"),
    (8, _stalled, "warn", "status 503 after 60.0 s, 3 x TD is 12 s"),
    (9, _goes_back, "fail", "back to"),
    (9, _differs, "fail", "differ"),
    (9, change_probe("reserved", status=400), "fail", "_HLS_of_no_meaning=1: status 400"),
]


test_faults_are_found = finds(FAULTS)


def test_behind_the_end_nothing_is_waited_for(good: Observation) -> None:
    assert verdict(good, 5).details == ["the stream is live"]
    for one in good.main.seen:
        one.playlist.ended = True
    assert verdict(good, 5).status == "fail", "400, as the stream was live"
    assert verdict(good, 7).status == "not seen"
    for name in ("far", "far part"):
        change_probe(name, status=200)(good)
    assert verdict(good, 5).status == "pass"
    change_probe("far", head_at=1e9)(good)
    assert verdict(good, 5).status == "fail"


def test_what_is_found_is_told_though_not_all_was_answered(good: Observation) -> None:
    change_probe("far", status=200)(good)
    del good.probes["far part"]
    assert verdict(good, 7).status == "warn"


def test_blocking_for_too_long_ends_by_503_in_time(good: Observation) -> None:
    assert verdict(good, 8).status == "not seen"
    plain, target_s = good.probes["plain"], good.main.last.target_duration_s
    assert target_s is not None
    in_time = replace(plain, status=503, head_at=plain.asked_at + 3 * target_s)
    good.main.refused.append(((7, 1), in_time))
    assert verdict(good, 8).status == "pass"


def test_without_blocking_or_answers_nothing_is_judged(good: Observation) -> None:
    for one in good.main.seen:
        one.playlist.control.pop("CAN-BLOCK-RELOAD", None)
    for number in (1, 3, 4, 6, 7):
        assert verdict(good, number).status == "not seen"
        assert "CAN-BLOCK-RELOAD" in verdict(good, number).details[0]
    change_probe("part alone", status=200)(good)
    change_probe("far", status=200)(good)
    assert verdict(good, 6).status == verdict(good, 7).status == "not seen", "it need not know it"
    good.main.last.control["CAN-BLOCK-RELOAD"] = "YES"
    good.probes.clear()
    for number in (1, 3, 4, 6, 7):
        assert verdict(good, number).status == "not seen"
    good.main.seen = good.main.seen[:1]
    good.renditions = [good.main]
    assert verdict(good, 2).status == "not seen"
