import re

import pytest
from msgspec.structs import replace

from edged.tools.conform.observe import Observation
from edged.wire.m3u8_reader import read_media
from tests.tools.conform.faulty import change_control, verdict

HEAD = """#EXTM3U
#EXT-X-VERSION:6
#EXT-X-TARGETDURATION:4
#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=24,PART-HOLD-BACK=0.6%s
#EXT-X-PART-INF:PART-TARGET=0.2
#EXT-X-MEDIA-SEQUENCE:%d
#EXT-X-INDEPENDENT-SEGMENTS
"""
TAIL = """#EXT-X-PART:DURATION=0.2,URI="open.0"
#EXT-X-PRELOAD-HINT:TYPE=PART,URI="open.1"
"""
RANGES = [f'#EXT-X-DATERANGE:ID="{name}",START-DATE="2026-01-01T00:00:00Z"\n' for name in "abc"]


def playlist(first: int, last: int, *, ranges: str = "", control: str = "") -> str:
    """Segments of 4 s; the init and a discontinuity go with what is skipped."""
    segments = "".join(segment(msn, at_first=msn == first) for msn in range(first, last + 1))
    return HEAD % (control, first) + ranges + segments + TAIL


def segment(msn: int, *, at_first: bool) -> str:
    text = "#EXT-X-DISCONTINUITY\n" if msn == 2 else ""
    text += '#EXT-X-MAP:URI="init.mp4"\n' if at_first else ""
    return text + f"#EXTINF:4.0,\n{msn}.mp4\n"


def update_of(text: str, count: int) -> str:
    """What a server makes of a whole playlist."""
    at = text.index("#EXT-X-MAP")
    if "#EXT-X-DISCONTINUITY" in text[:at]:
        at = text.index("#EXT-X-DISCONTINUITY")
    first = int(re.findall(r"SEQUENCE:(\d+)", text)[0])
    behind = text.index(f"{first + count - 1}.mp4\n") + len(f"{first + count - 1}.mp4\n")
    head = text[:at].replace("VERSION:6", "VERSION:9")
    return head + f"#EXT-X-SKIP:SKIPPED-SEGMENTS={count}\n" + text[behind:]


ENTIRE = playlist(1, 10)  # 6 segments are within 24 s of the end, the open one of 0.2 s is too.
UPDATE = update_of(ENTIRE, 4)


def probe(seen: Observation, **texts: str) -> None:
    """What was answered: `update`, `v2`, `entire`, `before`."""
    texts = {"update": UPDATE, "entire": ENTIRE, "before": playlist(0, 9), **texts}
    texts.setdefault("v2", texts["update"])
    names = {"update": "skip", "v2": "skip v2", "entire": "skip entire", "before": "skip before"}
    for name, text in texts.items():
        plain = seen.probes["plain"]
        seen.probes[names[name]] = replace(plain, body=text.encode())
    read_media(texts["entire"].encode())
    for one in seen.main.seen:
        one.playlist.control = read_media(texts["entire"].encode()).control


def test_an_update_that_rebuilds_the_whole_passes(good: Observation) -> None:
    probe(good)
    assert verdict(good, 26).details == []
    assert verdict(good, 26).status == verdict(good, 27).status == "pass"
    probe(good, update=update_of(ENTIRE, 3))
    assert verdict(good, 26).status == "pass", "fewer may be skipped"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("SKIPPED-SEGMENTS=4", "SKIPPED-SEGMENTS=5", "5 segments are skipped, 4 are older than"),
        ("SKIPPED-SEGMENTS=4", "SKIPPED-SEGMENTS=3", "10 segments, in the whole playlist 11"),
        (
            "#EXT-X-SKIP:SKIPPED-SEGMENTS=4\n",
            2 * "#EXT-X-SKIP:SKIPPED-SEGMENTS=4\n",
            "stands twice",
        ),
        ("7.mp4", "8.mp4", "segment 7: uri is '8.mp4', in the whole playlist '7.mp4'"),
        ("#EXTINF:4.0", "#EXTINF:3.9", "duration_us is 3900000, in the whole playlist 4000000"),
        ("#EXTINF", "#EXT-X-DISCONTINUITY\n#EXTINF", "segment 5: discontinuity is True, in"),
        ("#EXTINF", '#EXT-X-MAP:URI="o"\n#EXTINF', "segment 5: map_uri is 'o', in the whole"),
        ("open.0", "open.9", "segment 11: its 1 parts are not the 1 of"),
        ("#EXT-X-INDEPENDENT-SEGMENTS\n", "", "INDEPENDENT-SEGMENTS stands 0 times, in the"),
        ("PART-HOLD-BACK=0.6", "PART-HOLD-BACK=0.7", "control is"),
        ("open.1", "open.2", "hints is"),
        ("#EXTINF", RANGES[0] + "#EXTINF", "EXT-X-DATERANGE 'a' is "),
        ("#EXTM3U", "<html>", "the first line is"),
    ],
)
def test_an_update_that_does_not_is_found(good: Observation, old: str, new: str, told: str) -> None:
    probe(good)
    assert verdict(good, 26).status == "pass"
    assert old in UPDATE
    probe(good, update=UPDATE.replace(old, new, 1), v2=UPDATE)
    found = verdict(good, 26)
    assert found.status == "fail"
    assert told in found.details[0]
    assert good.main.url in found.details[0]


def test_what_is_skipped_has_to_be_known(good: Observation) -> None:
    probe(good, before=playlist(2, 9))
    assert "segment 1 is skipped, though the version before did not" in verdict(good, 26).details[0]


def test_without_an_update_where_one_is_offered(good: Observation) -> None:
    probe(good, update=ENTIRE)
    assert "no EXT-X-SKIP, though 4 segments are older than 24 s" in verdict(good, 26).details[0]
    short = playlist(1, 7)
    probe(good, update=short, entire=short)
    assert verdict(good, 26).status == "not seen", "there is one at most to be skipped"


def test_an_update_of_another_version_is_not_compared(good: Observation) -> None:
    probe(good, update=update_of(playlist(2, 11), 4))
    assert verdict(good, 26).status == "not seen"
    for name in ("skip", "skip v2"):
        good.probes.pop(name)
    assert verdict(good, 26).status == "not seen"
    good.probes.clear()
    assert verdict(good, 26).status == "not seen"


def test_what_is_not_offered_does_not_pass(good: Observation) -> None:
    """It binds nobody to offer it; Apple asks for it where more than two minutes are listed."""
    change_control("CAN-SKIP-UNTIL", None)(good)
    found = verdict(good, 26)
    assert found.status == "not seen"
    assert "delta updates are not offered, no CAN-SKIP-UNTIL" in found.details[0]
    for segment in good.main.last.segments:
        segment.duration_us = 100_000_000
    found = verdict(good, 26)
    assert found.status == "warn"
    assert "from 120 s on they should be" in found.details[0]
    for name in ("skip", "skip v2"):
        good.probes[name] = replace(good.probes["plain"], body=UPDATE.encode())
    found = verdict(good, 26)
    assert found.status == "fail"
    assert "line 8: EXT-X-SKIP where it must be ignored, without CAN-SKIP-U" in found.details[0]
    good.probes["skip"] = replace(good.probes["plain"], status=400)
    assert "status 400, not a playlist" in verdict(good, 26).details[0]


def test_behind_the_end_it_is_ignored(good: Observation) -> None:
    probe(good, update=UPDATE + "#EXT-X-ENDLIST\n")
    for one in good.main.seen:
        one.playlist.ended = True
    assert "ignored, behind EXT-X-ENDLIST" in verdict(good, 26).details[0]
    probe(good, update=ENTIRE + "#EXT-X-ENDLIST\n")
    assert verdict(good, 26).details == ["the stream has ended"]


def test_date_ranges_that_are_skipped(good: Observation) -> None:
    control = ",CAN-SKIP-DATERANGES=YES"
    entire = playlist(1, 10, ranges=RANGES[1] + RANGES[2], control=control)
    before = playlist(0, 9, ranges=RANGES[0] + RANGES[1], control=control)
    v2 = update_of(entire, 4).replace(RANGES[1], "").replace("VERSION:9", "VERSION:10")
    removed = v2.replace("SEGMENTS=4", 'SEGMENTS=4,RECENTLY-REMOVED-DATERANGES="a"')
    probe(good, entire=entire, before=before, update=update_of(entire, 4), v2=removed)
    assert verdict(good, 26).details == []
    assert verdict(good, 27).status == "pass"
    probe(good, entire=entire, before=before, update=update_of(entire, 4), v2=v2)
    assert "EXT-X-DATERANGE 'a' is {'ID'" in verdict(good, 26).details[0]
    probe(good, entire=entire, before=before, update=removed)
    assert "EXT-X-DATERANGE 'b' is None" in verdict(good, 26).details[0], "only v2 may skip it"
    low = v2.replace("VERSION:10", "VERSION:9")
    probe(good, entire=entire, before=before, update=update_of(entire, 4), v2=low)
    assert "EXT-X-VERSION 9, at least 10, as EXT-X-DATERANGE is" in verdict(good, 27).details[0]
    low = removed.replace("VERSION:10", "VERSION:9")
    probe(good, entire=entire, before=before, update=update_of(entire, 4), v2=low)
    assert "EXT-X-VERSION 9, at least 10" in verdict(good, 27).details[0]


def test_versions(good: Observation) -> None:
    assert verdict(good, 27).status == "pass"
    probe(good, update=UPDATE.replace("VERSION:9", "VERSION:8"), v2=UPDATE)
    found = verdict(good, 27)
    assert found.status == "fail"
    assert "EXT-X-VERSION 8, at least 9, as there is EXT-X-SKIP" in found.details[0]
    probe(good)
    good.main.last.version = 5
    assert verdict(good, 27).details == ["v0.m3u8:2: EXT-X-VERSION 5, at least 6"]
    good.main.last.version = 10
    found = verdict(good, 27)
    assert found.status == "warn", "it should be no higher, which binds nobody"
    assert found.details == ["v0.m3u8:2: EXT-X-VERSION 10, 6 is enough"]
