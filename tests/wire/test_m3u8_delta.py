"""Delta updates (checklist 12, 26, 27): with the playlist of before they are the whole one."""

import re
from fractions import Fraction

import pytest
from msgspec import structs

from edged.media.playlist import MediaPlaylist
from edged.media.stream import StreamId
from edged.policy.window import StreamWindow
from edged.policy.window_limits import WindowLimits
from edged.wire.m3u8 import render_media_playlist
from tests.policy.synthetic import (
    Run,
    audio_track,
    audio_units,
    in_order,
    segment,
    video_times,
    video_track,
    video_units,
)

SKIP = re.compile(r"#EXT-X-SKIP:SKIPPED-SEGMENTS=(\d+)\n")
LIMITS = WindowLimits(playlist_s=40.0)


def split(text: str) -> tuple[str, list[str]]:
    """The head, and each segment's text, with what stands behind the last one's URI."""
    start = min(
        at
        for tag in ("#EXT-X-DISCONTINUITY\n", "#EXT-X-MAP:", "#EXT-X-PROGRAM-DATE-TIME:")
        if (at := text.find(tag)) >= 0
    )
    return text[:start], re.findall(r"(?:#[^\n]*\n)*[^#\n][^\n]*\n|(?:#[^\n]*\n)+$", text[start:])


def merge(before: str, update: str) -> str:
    """The whole playlist, as a client has it that knew an earlier one (RFC 8216bis §6.3.7)."""
    found = SKIP.search(update)
    if found is None:
        return update
    assert len(SKIP.findall(update)) == 1
    head, segments = split(SKIP.sub("", update))
    known_head, known = split(before)
    newer, older = sequence(head), sequence(known_head)
    # What was listed with parts may be without by now, which a client forgets by itself (item 19).
    kept = [
        re.sub(r"#EXT-X-PART:[^\n]*\n", "", text)
        for text in known[newer - older : newer - older + int(found[1])]
    ]
    assert len(kept) == int(found[1]), "a client that knew this one cannot use the update"
    whole = "".join((head, *kept, *segments))
    return whole.replace("#EXT-X-VERSION:9\n", "#EXT-X-VERSION:6\n")


def sequence(head: str) -> int:
    found = re.search(r"#EXT-X-MEDIA-SEQUENCE:(\d+)\n", head)
    assert found is not None
    return int(found[1])


def without_maps(text: str) -> str:
    """A map that still holds is said where the list begins, or not at all."""
    return re.sub(r"#EXT-X-MAP:[^\n]*\n", "", text)


def changing_run(seconds: int) -> Run:
    """Its pictures have another format from the middle on, and one is lost early."""
    units = list(video_units(video_times(Fraction(30), seconds), 2))
    for unit in units[len(units) // 2 :]:
        unit.config_id = 1
    units[100:130] = []
    tracks = [video_track(Fraction(30)), audio_track(), video_track(config_id=1, width=640)]
    joined = in_order((90_000, units), (48_000, audio_units(seconds)))
    return segment(tracks, joined, end=False)


@pytest.mark.parametrize("name", ["v0", "a0"])
def test_item_26_a_delta_update_and_the_playlist_of_before_are_the_whole(name: str) -> None:
    window = StreamWindow(StreamId(channel="ch", publication=1), LIMITS)
    texts: list[str] = []
    updates = changed = 0
    for event in changing_run(80).events:
        window.add(event)
        playlist = window.media_playlist(name)
        if playlist is None:
            continue
        whole = render_media_playlist(playlist).decode()
        update = render_media_playlist(playlist, delta=True).decode()
        if texts and whole == texts[-1]:
            continue
        # hls.js and Apple's player ask for one while what they know is no older than 12 s.
        for before in texts[-60::20]:
            assert without_maps(merge(before, update)) == without_maps(whole)
        if (found := SKIP.search(update)) is not None:
            updates += 1
            assert "#EXT-X-VERSION:9\n" in update
            assert len(update) < len(whole)
            changed += "#EXT-X-MAP" in update
            check_boundary(playlist, int(found[1]))
        else:
            assert update == whole
        texts.append(whole)
    assert updates > 200
    if name == "v0":
        assert 0 < changed < updates, "the format's change is within what is not skipped, at times"


def check_boundary(playlist: MediaPlaylist, skipped: int) -> None:
    """What is skipped ended before the Skip Boundary, and nothing more could be."""
    assert playlist.skip_until_s == 6 * playlist.target_duration_s
    boundary_us = playlist.skip_until_s * 1_000_000
    after_us = [
        sum(entry.duration_us for entry in list(playlist.segments)[position + 1 :])
        for position in range(len(playlist.segments))
    ]
    assert [at for at, us in enumerate(after_us) if us > boundary_us] == list(range(skipped))


def test_item_12_and_27_a_short_playlist_is_whole_and_of_its_own_version() -> None:
    window = StreamWindow(StreamId(channel="ch", publication=1), LIMITS)
    for event in changing_run(20).events:
        window.add(event)
    playlist = window.media_playlist("v0")
    assert playlist is not None
    assert playlist.skippable == 0
    text = render_media_playlist(playlist, delta=True)
    assert text == render_media_playlist(playlist)
    assert b"#EXT-X-VERSION:6\n" in text
    assert b",CAN-SKIP-UNTIL=24," in text


def test_item_26_a_playlist_that_is_final_is_whole() -> None:
    window = StreamWindow(StreamId(channel="ch", publication=1), LIMITS)
    for event in changing_run(60).events:
        window.add(event)
    playlist = window.media_playlist("v0")
    assert playlist is not None
    assert b"#EXT-X-SKIP" in render_media_playlist(playlist, delta=True)
    over = structs.replace(playlist, ended=True)
    assert b"#EXT-X-SKIP" not in render_media_playlist(over, delta=True)
