from edged.media.playlist import (
    MediaPlaylist,
    SegmentEntry,
    init_name,
    media_numbers,
    part_name,
    playlist_name,
    segment_name,
)


def test_names() -> None:
    assert playlist_name("v0") == "v0.m3u8"
    assert init_name("v0", "00ff") == "v0-00ff.mp4"
    assert part_name("v0", 17, 3) == "v0-17.3.m4s"
    assert segment_name("a0", 17) == "a0-17.m4s"


def test_a_new_segment_has_no_parts_and_no_text() -> None:
    one = SegmentEntry(msn=0, uri="v0-0.m4s", init_uri="v0-ff.mp4", wallclock_us=0)
    other = SegmentEntry(msn=1, uri="v0-1.m4s", init_uri="v0-ff.mp4", wallclock_us=0)
    assert one.parts is not other.parts
    assert (one.complete, one.gap, one.head_text, one.parts_text, one.tail_text) == (
        False,
        False,
        "",
        "",
        "",
    )


def test_a_playlist_is_live_and_hints_nothing_unless_told() -> None:
    playlist = MediaPlaylist(
        target_duration_s=4,
        part_target_us=200_000,
        part_hold_back_us=600_000,
        hold_back_s=12,
        discontinuity_sequence=0,
        segments=[],
        parts_from=0,
        skip_until_s=24,
    )
    assert (playlist.ended, playlist.hint_uri, playlist.hint_init_uri) == (False, None, None)


def test_names_are_read_back_and_no_others() -> None:
    assert media_numbers(part_name("v0", 12, 3)) == (12, 3)
    assert media_numbers(segment_name("v0", 12)) == (12, None)
    for name in ("v0-012.m4s", "v0-1.2.3.m4s", "v0-.m4s", "v0-1", "v0-1.m4v", "v0-\u0661.m4s"):
        assert media_numbers(name) is None, name
    assert media_numbers(f"v0-{'9' * 30}.m4s") is None
