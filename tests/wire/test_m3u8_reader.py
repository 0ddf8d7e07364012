import contextlib
import re

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.errors import RemoteProtocolError
from edged.media.playlist import AudioRendition, MultivariantPlaylist, Variant
from edged.media.stream import StreamId
from edged.policy.window import StreamWindow
from edged.wire.m3u8 import render_media_playlist, render_multivariant
from edged.wire.m3u8_reader import (
    ReadRange,
    is_multivariant,
    read_media,
    read_multivariant,
)
from tests.wire.test_m3u8 import RUN

LIVE = b"""#EXTM3U
#EXT-X-VERSION:9
#EXT-X-TARGETDURATION:4
#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1.02,CAN-SKIP-UNTIL=24
#EXT-X-PART-INF:PART-TARGET=0.34
#EXT-X-MEDIA-SEQUENCE:266
#EXT-X-DISCONTINUITY-SEQUENCE:3
#EXT-X-MAP:URI="init.mp4"

# A comment.
#EXT-X-OF-THE-FUTURE:A=1
#EXT-X-PROGRAM-DATE-TIME:2019-02-14T02:13:36.106Z
#EXTINF:4.00008,a title, with a comma
segment266.mp4
#EXT-X-DISCONTINUITY
#EXT-X-MAP:URI="other.mp4",BYTERANGE="100@0"
#EXT-X-PART:DURATION=0.33334,URI="part267.0.mp4",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.3,URI="part267.1.mp4",GAP=YES
#EXT-X-GAP
#EXTINF:0.7,
segment267.mp4
#EXT-X-PART:DURATION=0.33334,URI="part268.0.mp4",BYTERANGE="20@7"
#EXT-X-PRELOAD-HINT:TYPE=PART,URI="part268.1.mp4"
#EXT-X-RENDITION-REPORT:URI="../1M/waitForMSN.php",LAST-MSN=268,LAST-PART=0
#EXT-X-RENDITION-REPORT:URI="../4M/waitForMSN.php"
"""


def test_a_live_playlist() -> None:
    playlist = read_media(LIVE.replace(b"\n", b"\r\n"))
    assert (playlist.version, playlist.target_duration_s, playlist.media_sequence) == (9, 4, 266)
    assert playlist.part_target_us == 340_000
    assert playlist.seconds("CAN-SKIP-UNTIL") == 24
    assert playlist.seconds("HOLD-BACK") is None
    first, second, third = playlist.segments
    assert (first.msn, first.uri, first.duration_us) == (266, "segment266.mp4", 4_000_080)
    assert first.title == "a title, with a comma"
    assert first.date_time_us == 1_550_110_416_106_000
    assert (first.map_uri, second.map_uri, third.map_uri) == ("init.mp4", "other.mp4", "other.mp4")
    assert [s.discontinuity for s in playlist.segments] == [False, True, False]
    assert [s.discontinuity_sequence for s in playlist.segments] == [3, 4, 4]
    assert [(p.independent, p.gap) for p in second.parts] == [(True, False), (False, True)]
    assert second.gap
    assert (third.is_whole, third.media_us) == (False, 333_340)
    assert third.parts[0].range == ReadRange(7, 20)
    assert (playlist.last, playlist.last_whole) == ((268, 0), 267)
    assert [(hint.type, hint.uri) for hint in playlist.hints] == [("PART", "part268.1.mp4")]
    assert [(r.last_msn, r.last_part) for r in playlist.reports] == [(268, 0), (None, None)]
    assert playlist.tags["EXT-X-OF-THE-FUTURE"] == 1
    assert playlist.segment(267) is second
    assert playlist.segment(265) is playlist.segment(269) is None
    assert not playlist.ended


def test_a_delta_update_and_an_end() -> None:
    text = LIVE.replace(
        b'#EXT-X-MAP:URI="init.mp4"',
        b'#EXT-X-SKIP:SKIPPED-SEGMENTS=5,RECENTLY-REMOVED-DATERANGES="a\tb"',
    )
    playlist = read_media(text + b'#EXT-X-DATERANGE:ID="c"\n#EXT-X-ENDLIST\n')
    assert playlist.skip is not None
    assert (playlist.skip.segments, playlist.skip.removed_dateranges) == (5, "a\tb")
    assert [segment.msn for segment in playlist.segments] == [271, 272, 273]
    assert playlist.segments[0].map_uri == ""
    assert playlist.ended
    assert playlist.dateranges == [{"ID": "c"}]


def test_an_init_may_stand_before_what_is_skipped() -> None:
    text = LIVE.replace(b"\n\n", b"\n#EXT-X-SKIP:SKIPPED-SEGMENTS=5\n\n", 1)
    first = read_media(text).segments[0]
    assert (first.msn, first.map_uri) == (271, "init.mp4")


def test_tags_for_the_segment_to_come_are_none_of_its_own() -> None:
    playlist = read_media(b"#EXTM3U\n#EXTINF:2,\na.ts\n#EXT-X-DISCONTINUITY\n")
    assert [segment.uri for segment in playlist.segments] == ["a.ts"]
    assert read_media(b"#EXTM3U\n").last == (-1, -1)
    assert read_media(b"#EXTM3U\n").last_whole == -1


def test_tags_behind_a_part_are_noted() -> None:
    late = LIVE.replace(
        b"#EXT-X-PRELOAD", b"#EXT-X-PROGRAM-DATE-TIME:2019-02-14T02:13:36Z\n#EXT-X-PRELOAD"
    )
    assert read_media(late).segments[2].late_tags == ["EXT-X-PROGRAM-DATE-TIME"]


def test_tags_of_the_first_segment_may_stand_before_the_sequence() -> None:
    """RFC 8216bis §4.4.3.2: it has to stand before the first segment, no sooner."""
    text = LIVE.replace(b"#EXT-X-MEDIA-SEQUENCE:266\n", b"").replace(
        b"#EXTINF:4", b"#EXT-X-MEDIA-SEQUENCE:266\n#EXTINF:4", 1
    )
    moved = read_media(text)
    assert moved.segments == read_media(LIVE).segments
    with pytest.raises(RemoteProtocolError, match="behind a segment"):
        read_media(b'#EXTM3U\n#EXT-X-PART:DURATION=1,URI="a"\n#EXT-X-MEDIA-SEQUENCE:1\n')


def test_a_segment_may_last_no_time() -> None:
    (segment,) = read_media(b"#EXTM3U\n#EXTINF:0,\na.ts\n").segments
    assert segment.is_whole
    assert segment.media_us == 0
    assert segment.duration_us == 0


RANGES = b"""#EXTM3U
#EXT-X-MAP:URI="all.mp4",BYTERANGE="10"
#EXTINF:1,
#EXT-X-BYTERANGE:20@10
all.mp4
#EXT-X-BYTERANGE:30
#EXTINF:1,
all.mp4
#EXT-X-PART:DURATION=1,URI="all.mp4",BYTERANGE="5@60"
#EXT-X-PART:DURATION=1,URI="all.mp4",BYTERANGE="6"
#EXTINF:2,
#EXT-X-BYTERANGE:11
all.mp4
#EXT-X-PRELOAD-HINT:TYPE=PART,URI="all.mp4",BYTERANGE-START=71
#EXT-X-PRELOAD-HINT:TYPE=MAP,URI="b.mp4",BYTERANGE-LENGTH=9
"""


def test_byte_ranges() -> None:
    """RFC 8216bis §4.4.4.2, §4.4.4.5, §4.4.4.9, §4.4.5.3."""
    playlist = read_media(RANGES)
    assert [s.range for s in playlist.segments] == [
        ReadRange(10, 20),
        ReadRange(30, 30),
        ReadRange(60, 11),
    ]
    assert [p.range for p in playlist.segments[2].parts] == [ReadRange(60, 5), ReadRange(65, 6)]
    assert {s.map_range for s in playlist.segments} == {ReadRange(0, 10)}
    assert [hint.range for hint in playlist.hints] == [ReadRange(71), ReadRange(0, 9)]
    assert [playlist.line(0), playlist.line(2), playlist.line(2, 1), playlist.line(9)] == [
        *(2, 9, 10, 0),
    ]
    assert playlist.tag_lines["EXT-X-PRELOAD-HINT"] == 14


def test_keys_stay_in_force() -> None:
    text = (
        b'#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="a"\n#EXT-X-KEY:METHOD=AES-128,URI="b"\n'
        b"#EXTINF:1,\na\n#EXTINF:1,\nb\n#EXT-X-KEY:METHOD=NONE\n#EXTINF:1,\nc\n"
    )
    assert [len(segment.keys) for segment in read_media(text).segments] == [2, 2, 0]


def test_what_is_skipped_is_taken_from_the_version_before() -> None:
    """As clients do (RFC 8216bis §6.3.7)."""
    entire = read_media(LIVE)
    skip = b"#EXT-X-SKIP:SKIPPED-SEGMENTS=%d\n"
    first = LIVE.index(b"#EXT-X-MAP")
    for count, at in ((1, LIVE.index(b"#EXT-X-DISCONTINUITY\n")), (2, LIVE.index(b"#EXT-X-PART:DU",
                      LIVE.index(b"segment267.mp4")))):  # fmt: skip
        update = LIVE[:first] + skip % count + LIVE[at:]
        rebuilt = read_media(update, entire)
        for found, wanted in zip(rebuilt.segments, entire.segments, strict=True):
            assert found == wanted
        assert rebuilt.version_needed == 9
        assert [s.msn for s in read_media(update).segments] == [s.msn for s in entire.segments][
            count:
        ]
    with pytest.raises(RemoteProtocolError, match="segment 266 is skipped, though the version"):
        read_media(LIVE[:first] + skip % 1, read_media(b"#EXTM3U\n"))
    ranged = RANGES.partition(b"#EXT-X-MAP")[0] + skip % 2 + RANGES[RANGES.index(b"#EXT-X-PART") :]
    assert read_media(ranged, read_media(RANGES)).segments == read_media(RANGES).segments
    assert read_media(ranged).segments[0].range is not None, "as far as it can be told"


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (b"#EXTINF:1,\na\n", 1),
        (b'#EXT-X-KEY:METHOD=AES-128,URI="a",IV=0x1\n', 2),
        (b"#EXTINF:1.0,\na\n", 3),
        (b"#EXTINF:1,\n#EXT-X-BYTERANGE:1@1\na\n", 4),
        (b'#EXT-X-KEY:METHOD=AES-128,URI="a",KEYFORMAT="b"\n', 5),
        (b'#EXT-X-I-FRAMES-ONLY\n#EXT-X-MAP:URI="a"\n', 5),
        (b'#EXT-X-MAP:URI="a"\n', 6),
        (b'#EXT-X-DEFINE:NAME="a",VALUE="b"\n', 8),
        (b"#EXT-X-SKIP:SKIPPED-SEGMENTS=1\n", 9),
        (b'#EXT-X-SKIP:SKIPPED-SEGMENTS=1,RECENTLY-REMOVED-DATERANGES=""\n', 10),
        (b'#EXT-X-DEFINE:QUERYPARAM="a"\n', 11),
    ],
)
def test_the_version_that_is_needed(text: bytes, version: int) -> None:
    """RFC 8216bis §8."""
    assert read_media(b"#EXTM3U\n" + text).version_needed == version


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (b"#EXTM3U", b"<html>", "the first line is '<html>'"),
        (b"DURATION=0.33334,", b"", "line 17: EXT-X-PART without DURATION"),
        (b"DURATION=0.33334,", b"DURATION=-1,", "line 17: DURATION '-1' is no decimal number"),
        (b"DURATION=0.33334,", b"DURATION=0.3,DURATION=1,", "line 17: attribute DURATION stands"),
        (b"TARGETDURATION:4", b"TARGETDURATION:4.5", "line 3: EXT-X-TARGETDURATION '4.5'"),
        (b"MEDIA-SEQUENCE:266", b"MEDIA-SEQUENCE:" + b"9" * 21, "line 6: EXT-X-MEDIA-SEQUENCE"),
        (b"#EXTINF:0.7,\n", b"", None),  # Behind a gap it is not missed.
        (b"#EXTINF:4.00008,a title, with a comma\n", b"", "line 13: segment 'segment266.mp4'"),
        (b'URI="init.mp4"', b"URI=", "line 8: attribute list"),
        (b"2019-02-14T02", b"2019-02-30T02", "line 12: date"),
        (b"2019-02-14T02", b"yesterday", "line 12: date"),
        (b"part268.1.mp4", b"\xff", "not UTF-8"),
        (b"#EXT-X-PRELOAD", b"#EXT-X-MEDIA-SEQUENCE:1\n#EXT-X-PRELOAD", "behind a segment"),
        (b"#EXT-X-PROGRAM", 2 * b"#EXT-X-SKIP:SKIPPED-SEGMENTS=1\n" + b"#EXT-X-PROGRAM", "twice"),
        (b"20@7", b"20@", "line 22: EXT-X-PART: byte range '20@' is not n[@o]"),
        (b"20@7", b"20", "byte range '20' without an offset, behind none of 'part268.0.mp4'"),
        (b"#EXT-X-DISCONTINUITY-SEQ", b"#EXT-X-DISCONTINUITY\n#EXT-X-DISCONTINUITY-SEQ",
         "line 8: EXT-X-DISCONTINUITY-SEQUENCE behind EXT-X-DISCONTINUITY"),
        (b"#EXT-X-PRELOAD", b"#EXT-X-SKIP:SKIPPED-SEGMENTS=1\n#EXT-X-PRELOAD",
         "EXT-X-SKIP behind a segment"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(old: bytes, new: bytes, told: str | None) -> None:
    text = LIVE.replace(old, new, 1)
    assert text != LIVE
    if told is None:
        read_media(text)
        return
    with pytest.raises(RemoteProtocolError, match=re.escape(told)):
        read_media(text)


def test_multivariant() -> None:
    playlist = read_multivariant(
        render_multivariant(
            MultivariantPlaylist(
                variants=[
                    Variant(
                        uri="1/v0.m3u8", bandwidth_bps=2, bandwidth_bps_mean=1,
                        codecs=("avc1.64001f", "mp4a.40.2"), width=640, height=360,
                        frame_rate_num=30, audio_group="audio",
                    )
                ],
                audio=[
                    AudioRendition(
                        uri="1/a0.m3u8", name="a, b", language="de", channels=2, default=True
                    )
                ],
            )
        )
    )  # fmt: skip
    (variant,) = playlist.variants
    assert variant.uri == "1/v0.m3u8"
    assert variant.attributes["CODECS"] == "avc1.64001f,mp4a.40.2"
    assert variant.attributes["RESOLUTION"] == "640x360"
    assert (playlist.media[0]["NAME"], playlist.media[0]["URI"]) == ("a, b", "1/a0.m3u8")
    assert is_multivariant(b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\na\n")
    assert not is_multivariant(LIVE)
    for text, told in (
        (b"#EXTM3U\na.m3u8\n", "line 2: a URI without EXT-X-STREAM-INF"),
        (b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n", "has no URI"),
    ):
        with pytest.raises(RemoteProtocolError, match=told):
            read_multivariant(text)


@pytest.mark.parametrize("events", range(40, len(RUN.events), 37))
def test_what_we_render_is_read_back(events: int) -> None:
    window = StreamWindow(StreamId(channel="ch", publication=0xAB))
    for event in RUN.events[:events]:
        window.add(event)
    for name in ("v0", "a0"):
        written = window.media_playlist(name)
        if written is None:
            continue
        found = read_media(render_media_playlist(written))
        assert found.target_duration_s == written.target_duration_s
        assert found.part_target_us == written.part_target_us
        assert [segment.msn for segment in found.segments] == [s.msn for s in written.segments]
        for position, (read, entry) in enumerate(
            zip(found.segments, written.segments, strict=True)
        ):
            assert (read.uri if entry.complete else entry.uri) == entry.uri
            assert read.map_uri == entry.init_uri
            assert read.date_time_us == entry.wallclock_us // 1000 * 1000
            parts = entry.parts if position >= written.parts_from else []
            assert [(p.uri, p.duration_us, p.independent) for p in read.parts] == [
                (p.uri, p.duration_us, p.independent) for p in parts
            ]
        assert [hint.uri for hint in found.hints if hint.type == "PART"] == [written.hint_uri]
        assert len(found.reports) == len(written.reports)


@hypothesis.given(st.data())
def test_whatever_comes_is_read_or_refused(data: st.DataObject) -> None:
    lines = LIVE.split(b"\n")
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(lines) - 1))
        line = data.draw(st.sampled_from([b"", lines[at][::-1], *lines]) | st.binary(max_size=40))
        lines[at : at + data.draw(st.integers(0, 2))] = [line]
    text = b"\n".join(lines)
    for read in (read_media, read_multivariant):
        with contextlib.suppress(RemoteProtocolError):
            read(text)
