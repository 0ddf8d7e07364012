import msgspec
import pytest

from edged.media.track import Codec, CodecConfig, Kind, Track

CONFIG = CodecConfig(codec=Codec.AAC, record=b"\x11\x90", codec_string="mp4a.40.2")


@pytest.mark.parametrize(
    ("codec", "kind"),
    [
        (Codec.H264, Kind.VIDEO),
        (Codec.H265, Kind.VIDEO),
        (Codec.AV1, Kind.VIDEO),
        (Codec.VP8, Kind.VIDEO),
        (Codec.VP9, Kind.VIDEO),
        (Codec.AAC, Kind.AUDIO),
        (Codec.OPUS, Kind.AUDIO),
        (Codec.SCTE35, Kind.DATA),
        (Codec.ID3, Kind.DATA),
    ],
)
def test_each_codec_makes_its_kind_of_track(codec: Codec, kind: Kind) -> None:
    assert codec.kind is kind
    assert Track(track_id=1, codec=codec, timescale=1, config=CONFIG).kind is kind


def test_every_codec_is_listed_above() -> None:
    assert len(Codec) == 9


def test_tracks_survive_the_wire_format_of_control_messages() -> None:
    track = Track(track_id=2, codec=Codec.AAC, timescale=48_000, config=CONFIG, config_id=3)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(track), type=Track) == track
