import msgspec
import pytest

from edged.errors import RemoteProtocolError
from edged.media.track import Kind
from edged.policy.known_tracks import CONFIGS_MAX, TRACKS_MAX, KnownTracks
from tests.policy.synthetic import audio_track, video_track, video_units


def test_renditions_are_named_as_they_begin() -> None:
    tracks = KnownTracks()
    known = [audio_track(track_id=track_id) for track_id in (2, 7, 4)]
    known += [msgspec.structs.replace(video_track(), track_id=track_id) for track_id in (109, 105)]
    for track in known:
        tracks.add(track)
    assert [tracks.name(track) for track in reversed(known)] == ["v0", "v1", "a0", "a1", "a2"]
    assert [tracks.name(track) for track in known] == ["a2", "a1", "a0", "v1", "v0"]
    assert len(tracks) == 5
    assert 7 in tracks
    assert 1 not in tracks
    assert tracks.kinds == {Kind.AUDIO, Kind.VIDEO}
    assert (tracks.kind(105), tracks.timescale(105)) == (Kind.VIDEO, 90_000)


def test_a_track_keeps_its_kind_and_timescale() -> None:
    tracks = KnownTracks()
    tracks.add(video_track())
    with pytest.raises(RemoteProtocolError, match="may not become video of timescale 1000"):
        tracks.add(msgspec.structs.replace(video_track(), timescale=1000))
    with pytest.raises(RemoteProtocolError, match="may not become audio"):
        tracks.add(audio_track(track_id=1))
    with pytest.raises(RemoteProtocolError, match="timescale 0"):
        tracks.add(msgspec.structs.replace(audio_track(), timescale=0))


def test_tracks_and_configurations_are_bounded() -> None:
    tracks = KnownTracks()
    for track_id in range(TRACKS_MAX):
        tracks.add(audio_track(track_id=track_id))
    with pytest.raises(RemoteProtocolError, match=f"exceeds {TRACKS_MAX} tracks"):
        tracks.add(audio_track(track_id=TRACKS_MAX))
    tracks = KnownTracks()
    for config_id in range(CONFIGS_MAX + 1):
        tracks.add(video_track(config_id=config_id))
    (unit,) = video_units([0], 2)
    with pytest.raises(RemoteProtocolError, match="unknown config 0"):
        tracks.of(unit)
    assert tracks.of(unit.replaced(config_id=1)).config_id == 1
