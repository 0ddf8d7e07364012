"""onMetaData: the first track of each kind, and the others by their numbers."""

from msgspec import structs

from edged.tools.metadata import track_metadata
from tests.wire.rtmp.peers import AAC, H264


def test_one_track_of_each_kind_needs_no_map() -> None:
    told = track_metadata([H264, AAC])
    assert told["audiosamplerate"] == float(AAC.config.sample_rate)
    assert told["width"] == float(H264.config.width)
    assert "audioTrackIdInfoMap" not in told
    assert track_metadata([]) == {"encoder": "edged publish"}


def test_others_are_told_by_number_with_their_names() -> None:
    german = structs.replace(AAC, track_id=3, language="de", name="Ton")
    told = track_metadata([H264, AAC, german])
    assert told["audioTrackIdInfoMap"] == {
        "1": {
            "audiosamplerate": float(AAC.config.sample_rate),
            "audiochannels": float(AAC.config.channels),
            "language": "de",
            "title": "Ton",
        }
    }
    assert "videoTrackIdInfoMap" not in told
