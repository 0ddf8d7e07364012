import time
from datetime import datetime
from fractions import Fraction

import msgspec
import pytest

from edged.media.parts import Part, SegmentEnded
from edged.media.playlist import (
    AudioRendition,
    MediaPlaylist,
    MultivariantPlaylist,
    PartEntry,
    RenditionReport,
    SegmentEntry,
    Variant,
)
from edged.media.stream import StreamId
from edged.policy.window import StreamWindow
from edged.wire.m3u8 import render_media_playlist, render_multivariant
from tests.policy.synthetic import (
    RATES,
    Run,
    audio_track,
    audio_units,
    in_order,
    segment,
    video_times,
    video_track,
    video_units,
)
from tests.wire.hls_reader import ReadPlaylist, attributes_of, microseconds, read_media_playlist

SECONDS = 36
NAMES = ("v0", "a0")


def make_run(rate: Fraction, seconds: float = SECONDS, gop_s: float = 2) -> Run:
    pictures = video_units(video_times(rate, seconds), gop_s, reorder=6000)
    units = in_order((90_000, pictures), (48_000, audio_units(seconds)))
    return segment([video_track(rate), audio_track()], units, end=False)


RUN = make_run(Fraction(30))


def window_after(run: Run, events: int | None = None) -> StreamWindow:
    window = StreamWindow(StreamId(channel="ch", publication=0xAB))
    for event in run.events[:events]:
        window.add(event)
    return window


def read(window: StreamWindow, name: str) -> ReadPlaylist:
    playlist = window.media_playlist(name)
    assert playlist is not None
    return read_media_playlist(render_media_playlist(playlist))


def each_playlist(run: Run, every: int = 7) -> list[tuple[StreamWindow, dict[str, ReadPlaylist]]]:
    """The playlists at many instants of a run, each rendered from one growing window."""
    window = StreamWindow(StreamId(channel="ch", publication=0xAB))
    seen = []
    for count, event in enumerate(run.events):
        window.add(event)
        if count > 20 and count % every == 0:
            seen.append((window, {name: read(window, name) for name in NAMES}))
    return seen


@pytest.mark.parametrize("name", RATES)
def test_item_10_part_inf_and_part_hold_back_come_with_parts(name: str) -> None:
    for _, playlists in each_playlist(make_run(RATES[name], 5)):
        for playlist in playlists.values():
            assert any(entry.parts for entry in playlist.segments)
            assert "PART-TARGET" in attributes_of(playlist.header["EXT-X-PART-INF"])
            assert "PART-HOLD-BACK" in playlist.control()


@pytest.mark.parametrize("name", RATES)
def test_item_11_part_hold_back_is_three_parts(name: str) -> None:
    for _, playlists in each_playlist(make_run(RATES[name], 5)):
        for playlist in playlists.values():
            target = attributes_of(playlist.header["EXT-X-PART-INF"])["PART-TARGET"]
            hold_back_us = microseconds(playlist.control()["PART-HOLD-BACK"])
            assert hold_back_us >= 3 * microseconds(target)
            assert hold_back_us < 700_000


def test_item_12_hold_back_and_skip_boundary() -> None:
    for _, playlists in each_playlist(RUN):
        for playlist in playlists.values():
            target_us = int(playlist.header["EXT-X-TARGETDURATION"]) * 1_000_000
            assert microseconds(playlist.control()["HOLD-BACK"]) >= 3 * target_us
            assert microseconds(playlist.control()["CAN-SKIP-UNTIL"]) >= 6 * target_us
            assert "CAN-SKIP-DATERANGES" not in playlist.control()
            assert playlist.control()["CAN-BLOCK-RELOAD"] == "YES"


def test_item_13_all_media_playlists_have_the_same_server_control_and_target_duration() -> None:
    seen = set()
    for _, playlists in each_playlist(RUN):
        for playlist in playlists.values():
            control = playlist.header["EXT-X-SERVER-CONTROL"]
            seen.add((control, playlist.header["EXT-X-TARGETDURATION"]))
    assert len(seen) == 1


@pytest.mark.parametrize("name", RATES)
def test_item_14_part_durations_as_written(name: str) -> None:
    for _, playlists in each_playlist(make_run(RATES[name], 9), every=20):
        for playlist in playlists.values():
            target = attributes_of(playlist.header["EXT-X-PART-INF"])["PART-TARGET"]
            for entry in playlist.segments:
                for part in entry.parts:
                    assert part.duration_us <= microseconds(target)
                    # The newest listed part may turn out to be its segment's last.
                    exempt = part.independent or part is entry.parts[-1]
                    assert exempt or part.duration_us * 100 >= 85 * microseconds(target)
                assert round(entry.duration_us / 1e6) <= 4


def test_item_15_what_applies_to_a_segment_precedes_its_first_part() -> None:
    units = list(video_units(video_times(Fraction(30), 12), 2))
    for unit in units[180:]:
        unit.config_id = 1
    tracks = [video_track(Fraction(30)), audio_track(), video_track(config_id=1, width=640)]
    run = segment(tracks, in_order((90_000, units), (48_000, audio_units(12))), end=False)
    for _, playlists in each_playlist(run):
        for name, playlist in playlists.items():
            for entry in playlist.segments:
                if "EXT-X-PART" in entry.order:
                    behind = entry.order[entry.order.index("EXT-X-PART") :]
                    assert set(behind) <= {"EXT-X-PART", "EXTINF"}
                assert entry.order.count("EXT-X-PROGRAM-DATE-TIME") == 1
                assert entry.discontinuity == (entry.msn == 3)
                changes = name == "v0" and entry.msn == 3
                assert (entry.map_uri is not None) == (changes or entry.msn == 0)


def test_item_16_parts_and_their_parent_are_the_same_bytes_and_length() -> None:
    window = window_after(RUN)
    for name in NAMES:
        for entry in read(window, name).segments[:-1]:
            body = window.segment(name, entry.msn)
            assert body is not None
            parts = [e for e in RUN.parts(name) if e.msn == entry.msn]
            assert body == [part.payload for part in parts]
            if entry.parts:
                lengths = sum(part.duration_us for part in entry.parts)
                assert abs(lengths - entry.duration_us) <= len(parts), "rounding"


def test_item_17_independent_parts_and_segments() -> None:
    for _, playlists in each_playlist(RUN):
        for entry in playlists["v0"].segments:
            assert [part.independent for part in entry.parts[:2]] in ([], [True], [True, False])
        for entry in playlists["a0"].segments:
            assert all(part.independent for part in entry.parts)


def test_item_19_old_segments_are_listed_without_parts() -> None:
    for _, playlists in each_playlist(RUN):
        for playlist in playlists.values():
            after_us = 0
            for entry in reversed(playlist.segments):
                assert bool(entry.parts) == (after_us <= 12_000_000)
                after_us += entry.duration_us or sum(part.duration_us for part in entry.parts)


def test_item_20_media_sequence_and_length() -> None:
    last: dict[str, ReadPlaylist] = {}
    for _, playlists in each_playlist(RUN, every=3):
        for name, playlist in playlists.items():
            assert playlist.segments[0].uri in ("", f"{name}-{playlist.segments[0].msn}.m4s")
            whole_us = sum(entry.duration_us for entry in playlist.segments)
            assert playlist.segments[0].msn == 0 or whole_us >= 28_000_000
            before = last.get(name)
            if before is not None:
                known = {entry.msn: entry.uri for entry in before.segments if entry.uri}
                now = {entry.msn: entry.uri for entry in playlist.segments}
                assert all(now.get(msn, uri) == uri for msn, uri in known.items())
                step = playlist.segments[0].msn - before.segments[0].msn
                assert step in (0, 1)
            last[name] = playlist


def test_item_22_a_live_playlist_hints_the_next_part() -> None:
    for _, playlists in each_playlist(RUN, every=3):
        for name, playlist in playlists.items():
            (hint,) = playlist.all("EXT-X-PRELOAD-HINT")
            newest = playlist.segments[-1]
            if newest.uri:
                expected = {f"{name}-{newest.msn + 1}.0.m4s"}
            else:
                following = f"{name}-{newest.msn}.{len(newest.parts)}.m4s"
                expected = {following, f"{name}-{newest.msn + 1}.0.m4s"}
            assert hint["TYPE"] == "PART"
            assert hint["URI"] in expected


def test_item_22_a_new_init_is_hinted_before_its_part() -> None:
    playlist = growing(hint_uri="v0-1.0.m4s", hint_init_uri="v0-00.mp4")
    tail = read_media_playlist(render_media_playlist(playlist)).tail
    assert tail == [
        ("EXT-X-PRELOAD-HINT", {"TYPE": "MAP", "URI": "v0-00.mp4"}),
        ("EXT-X-PRELOAD-HINT", {"TYPE": "PART", "URI": "v0-1.0.m4s"}),
    ]


def test_item_24_no_hint_with_endlist() -> None:
    window = window_after(RUN)
    for event in RUN.segmenter.end("over"):
        window.add(event)
    for name in NAMES:
        playlist = read(window, name)
        assert playlist.all("EXT-X-PRELOAD-HINT") == []
        assert playlist.all("EXT-X-ENDLIST") == [{}]
        assert playlist.segments[-1].uri
    ended = growing(ended=True, hint_uri="v0-1.0.m4s", hint_init_uri="v0-00.mp4")
    assert b"HINT" not in render_media_playlist(ended)


def test_item_27_the_version_is_no_higher_than_needed() -> None:
    assert read(window_after(RUN), "v0").header["EXT-X-VERSION"] == "6"


def test_item_28_rendition_reports() -> None:
    newest: dict[str, tuple[int, int]] = {}
    window = StreamWindow(StreamId(channel="ch", publication=0xAB))
    for event in RUN.events:
        window.add(event)
        if isinstance(event, Part):
            newest[event.rendition] = (event.msn, event.index)
        if len(newest) < 2 or isinstance(event, SegmentEnded):
            continue
        for name, other in (NAMES, NAMES[::-1]):
            (report,) = read(window, name).all("EXT-X-RENDITION-REPORT")
            assert report["URI"] == f"{other}.m3u8"
            assert (int(report["LAST-MSN"]), int(report["LAST-PART"])) == newest[other]


def test_item_28_a_report_of_a_gap_has_no_part() -> None:
    playlist = growing(reports=[RenditionReport("a0.m3u8", 7, None)])
    (report,) = read_media_playlist(render_media_playlist(playlist)).all("EXT-X-RENDITION-REPORT")
    assert report == {"URI": "a0.m3u8", "LAST-MSN": "7"}


def test_item_29_program_date_time_is_in_all_and_consistent() -> None:
    for _, playlists in each_playlist(RUN):
        times = {}
        for name, playlist in playlists.items():
            previous: tuple[float, int] | None = None
            for entry in playlist.segments:
                moment = datetime.fromisoformat(entry.date_time).timestamp()
                times[name, entry.msn] = moment
                if previous is not None:
                    assert moment - previous[0] == pytest.approx(previous[1] / 1e6, abs=0.0021)
                previous = (moment, entry.duration_us)
        for (name, msn), moment in times.items():
            other = times.get(("a0" if name == "v0" else "v0", msn))
            if other is not None and msn > 0:
                assert abs(moment - other) < 0.0224, "a unit of audio, and rounding"
        sequences = {p.header["EXT-X-DISCONTINUITY-SEQUENCE"] for p in playlists.values()}
        assert sequences == {"0"}


def test_item_30_the_multivariant_playlist_of_a_run() -> None:
    window = window_after(RUN)
    playlist = window.multivariant_playlist()
    assert playlist is not None
    lines = render_multivariant(playlist).decode().split("\n")
    assert lines[:2] == ["#EXTM3U", "#EXT-X-VERSION:6"]
    media = attributes_of(lines[2].removeprefix("#EXT-X-MEDIA:"))
    assert media == {
        "TYPE": "AUDIO",
        "GROUP-ID": "audio",
        "NAME": "a0",
        "DEFAULT": "YES",
        "AUTOSELECT": "YES",
        "CHANNELS": "2",
        "URI": "ab/a0.m3u8",
    }
    stream = attributes_of(lines[3].removeprefix("#EXT-X-STREAM-INF:"))
    assert stream["CODECS"] == "avc1.64001f,mp4a.40.2"
    assert (stream["RESOLUTION"], stream["FRAME-RATE"]) == ("1280x720", "30.000")
    assert stream["AUDIO"] == "audio"
    # 30 pictures of 40 bytes and 47 units of 12 bytes a second, and the fragments' boxes.
    peaks = []
    for name in NAMES:
        timescale = RUN.rendition(name).timescale
        lengths = {ended.msn: ended.duration / timescale for ended in RUN.segments(name)}
        peaks.append(
            max(
                sum(len(part.payload) for part in RUN.parts(name) if part.msn == msn) * 8 / length
                for msn, length in lengths.items()
            )
        )
    assert int(stream["BANDWIDTH"]) == pytest.approx(sum(peaks), rel=0.001)
    assert 0.9 * sum(peaks) < int(stream["AVERAGE-BANDWIDTH"]) <= int(stream["BANDWIDTH"])
    assert lines[4:] == ["ab/v0.m3u8", ""]


def test_multivariant_attributes_that_are_unknown_are_left_out() -> None:
    variant = Variant(uri="1/a0.m3u8", bandwidth_bps=0, bandwidth_bps_mean=0, codecs=("opus",))
    text = render_multivariant(MultivariantPlaylist(variants=[variant])).decode()
    assert text.split("\n")[2:] == [
        '#EXT-X-STREAM-INF:BANDWIDTH=1,AVERAGE-BANDWIDTH=1,CODECS="opus"',
        "1/a0.m3u8",
        "",
    ]


def test_at_another_address_each_uri_has_a_base() -> None:
    variant = Variant(uri="1/v0.m3u8", bandwidth_bps=0, bandwidth_bps_mean=0, codecs=("opus",))
    audio = AudioRendition(uri="1/a0.m3u8", name="a0", language="und", channels=2, default=True)
    playlist = MultivariantPlaylist(variants=[variant], audio=[audio])
    there = render_multivariant(playlist, "/live/demo/").decode()
    assert 'URI="/live/demo/1/a0.m3u8"' in there
    assert "\n/live/demo/1/v0.m3u8\n" in there
    assert there.replace("/live/demo/", "").encode() == render_multivariant(playlist)


def test_names_cannot_break_out_of_their_quotes() -> None:
    audio = AudioRendition(
        uri="1/a0.m3u8", name='a"\n#EXT' + "x" * 100, language="fr", channels=0, default=False
    )
    text = render_multivariant(MultivariantPlaylist(variants=[], audio=[audio])).decode()
    line = text.split("\n")[2]
    attributes = attributes_of(line.removeprefix("#EXT-X-MEDIA:"))
    assert attributes["NAME"] == "a#EXT" + "x" * 57
    assert attributes["LANGUAGE"] == "fr"
    assert attributes["DEFAULT"] == "NO"
    assert "CHANNELS" not in attributes


def growing(**changes: object) -> MediaPlaylist:
    entry = SegmentEntry(
        msn=0,
        uri="v0-0.m4s",
        init_uri="v0-ff.mp4",
        wallclock_us=1_700_000_000_999_999,
        parts=[PartEntry("v0-0.0.m4s", 200_000, independent=True)],
    )
    playlist = MediaPlaylist(
        target_duration_s=4,
        part_target_us=200_000,
        part_hold_back_us=600_000,
        hold_back_s=12,
        discontinuity_sequence=3,
        segments=[entry],
        parts_from=0,
        skip_until_s=24,
    )
    return msgspec.structs.replace(playlist, **changes)


def test_a_whole_playlist_as_text() -> None:
    gap = SegmentEntry(
        msn=1,
        uri="v0-1.m4s",
        init_uri="v0-ff.mp4",
        wallclock_us=0,
        discontinuity=True,
        gap=True,
        complete=True,
        duration_us=2_000_001,
        parts=[PartEntry("v0-1.0.m4s", 1, gap=True)],
    )
    playlist = growing(hint_uri="v0-2.0.m4s")
    (entry,) = playlist.segments
    entry.complete, entry.duration_us = True, 200_000
    playlist.segments = [entry, gap]
    text = (
        "#EXTM3U\n"
        "#EXT-X-VERSION:6\n"
        "#EXT-X-TARGETDURATION:4\n"
        "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=24,PART-HOLD-BACK=0.600000,"
        "HOLD-BACK=12\n"
        "#EXT-X-PART-INF:PART-TARGET=0.200000\n"
        "#EXT-X-MEDIA-SEQUENCE:0\n"
        "#EXT-X-DISCONTINUITY-SEQUENCE:3\n"
        '#EXT-X-MAP:URI="v0-ff.mp4"\n'
        "#EXT-X-PROGRAM-DATE-TIME:2023-11-14T22:13:20.999Z\n"
        '#EXT-X-PART:DURATION=0.200000,URI="v0-0.0.m4s",INDEPENDENT=YES\n'
        "#EXTINF:0.200000,\n"
        "v0-0.m4s\n"
        "#EXT-X-DISCONTINUITY\n"
        "#EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:00:00.000Z\n"
        '#EXT-X-PART:DURATION=0.000001,URI="v0-1.0.m4s",GAP=YES\n'
        "#EXT-X-GAP\n"
        "#EXTINF:2.000001,\n"
        "v0-1.m4s\n"
        '#EXT-X-PRELOAD-HINT:TYPE=PART,URI="v0-2.0.m4s"\n'
    )
    assert render_media_playlist(playlist).decode() == text
    assert render_media_playlist(playlist).decode() == text, "from what was kept"


@pytest.mark.parametrize(
    ("wallclock_us", "text"),
    [
        (-1, "1970-01-01T00:00:00.000Z"),
        (253_402_300_799_999_999, "9999-12-31T23:59:59.999Z"),
        (2**62, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_a_wallclock_at_its_limits_and_past_them(wallclock_us: int, text: str) -> None:
    playlist = growing()
    playlist.segments[0].wallclock_us = wallclock_us
    (entry,) = read_media_playlist(render_media_playlist(playlist)).segments
    assert entry.date_time == text


def test_what_is_kept_never_goes_stale() -> None:
    """Rendering each version from a growing window is the same as from a fresh one."""
    run = make_run(Fraction(30), 8)
    window = StreamWindow(StreamId(channel="ch", publication=0xAB))
    for count, event in enumerate(run.events):
        window.add(event)
        playlist = window.media_playlist("v0")
        if playlist is None or count % 9:
            continue
        fresh = window_after(run, count + 1).media_playlist("v0")
        assert fresh is not None
        assert render_media_playlist(playlist) == render_media_playlist(fresh)


def test_rendering_costs_little() -> None:
    """A 30 s window with parts: the goal is 150 us, and a new part costs only its line."""
    window = window_after(RUN)
    playlist = window.media_playlist("v0")
    assert playlist is not None
    best_s = 1.0
    for _ in range(20):
        for entry in playlist.segments:
            entry.head_text = entry.parts_text = entry.tail_text = ""
            entry.parts_rendered = 0
        started = time.process_time()
        render_media_playlist(playlist)
        best_s = min(best_s, time.process_time() - started)
    assert best_s < 450e-6, f"{best_s * 1e6:.0f} us"  # Thrice the goal: CI machines differ.
