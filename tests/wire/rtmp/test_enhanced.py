"""What FFmpeg's FLV muxer writes by E-RTMP (through PyAV): HEVC, AV1, VP9, Opus, more tracks."""

from functools import cache

import pytest

from edged.media.access_unit import AccessUnit
from edged.media.track import Codec, Track
from edged.wire.rtmp import DataReceived, ServerEvent, TrackAnnounced
from edged.wire.rtmp.chunks import ChunkWriter
from edged.wire.rtmp.client import OBS_CHUNK_BYTES
from tests.wire.rtmp import flv_file
from tests.wire.rtmp.peers import accepted_pair, even_pieces, feed

CASES = {
    "h264 and aac": (("libx264",), ("aac",)),
    "h265 and opus": (("libx265",), ("libopus",)),
    "av1 and opus": (("libsvtav1",), ("libopus",)),
    "vp9 and aac": (("libvpx-vp9",), ("aac",)),
    "two of each": (("libx264", "libx265"), ("aac", "libopus")),
    "sound alone": ((), ("libopus",)),
}
CODECS = {
    "libx264": Codec.H264,
    "libx265": Codec.H265,
    "libsvtav1": Codec.AV1,
    "libvpx-vp9": Codec.VP9,
    "aac": Codec.AAC,
    "libopus": Codec.OPUS,
}


@cache
def published(name: str) -> tuple[list[ServerEvent], dict[int, list[flv_file.AnyPacket]]]:
    """What our core makes of the file's tags, sent as OBS would, and what FFmpeg reads in it."""
    file = flv_file.make(*CASES[name])
    _, server = accepted_pair()
    writer = ChunkWriter(OBS_CHUNK_BYTES)
    wire = b"".join(b"".join(writer.write(10, message)) for message in flv_file.messages(file))
    return feed(server, even_pieces(wire, 1448)), flv_file.packets(file)


def tracks_of(name: str) -> dict[int, Track]:
    """The tracks by id, in the order in which they came; each was announced once."""
    events, _ = published(name)
    tracks = [event.track for event in events if isinstance(event, TrackAnnounced)]
    by_id = {track.track_id: track for track in tracks}
    assert len(by_id) == len(tracks)
    return by_id


def units_of(name: str, track_id: int) -> list[AccessUnit]:
    events, _ = published(name)
    units = [event for event in events if isinstance(event, AccessUnit)]
    return [unit for unit in units if unit.track_id == track_id]


@pytest.mark.parametrize("name", CASES)
def test_the_tracks_are_those_of_the_file(name: str) -> None:
    video, audio = CASES[name]
    expected = {2 * index + 1: CODECS[codec] for index, codec in enumerate(video)}
    expected |= {2 * index + 2: CODECS[codec] for index, codec in enumerate(audio)}
    tracks = tracks_of(name)
    assert {track_id: track.codec for track_id, track in tracks.items()} == expected
    for track in tracks.values():
        config = track.config
        if track.kind == "video":
            assert track.timescale == 90_000
            assert (config.width, config.height) == (flv_file.SIZE, flv_file.SIZE)
        else:
            assert (track.timescale, config.channels) == (48_000, 2)
        assert config.codec_string.startswith(("avc1.", "hvc1.", "av01.", "vp09.", "mp4a", "opus"))


@pytest.mark.parametrize("name", CASES)
def test_the_units_are_those_that_ffmpeg_reads(name: str) -> None:
    video, audio = CASES[name]
    _, read = published(name)
    order = [2 * index + 1 for index in range(len(video))]
    order += [2 * index + 2 for index in range(len(audio))]
    streams = {
        CODECS_OF[packets[0].stream.codec_context.name]: packets for packets in read.values()
    }
    for track_id in order:
        track = tracks_of(name)[track_id]
        units, packets = units_of(name, track_id), streams[track.codec]
        # FFmpeg keeps AV1's temporal delimiters, which canonical units do not have.
        payloads = [bytes(packet).removeprefix(b"\x12\x00") for packet in packets]
        assert [unit.payload for unit in units] == payloads
        keys = [packet.is_keyframe for packet in packets]
        assert [unit.random_access for unit in units] == keys
        for unit, packet in zip(units, packets, strict=True):
            assert packet.dts is not None
            assert packet.pts is not None
            ms = 1000 / track.timescale
            assert unit.dts * ms == pytest.approx(packet.dts, abs=1.5)
            assert unit.pts * ms == pytest.approx(packet.pts, abs=1.5)


CODECS_OF = {
    "h264": Codec.H264,
    "hevc": Codec.H265,
    "libdav1d": Codec.AV1,
    "av1": Codec.AV1,
    "vp9": Codec.VP9,
    "libvpx-vp9": Codec.VP9,
    "aac": Codec.AAC,
    "opus": Codec.OPUS,
    "libopus": Codec.OPUS,
}


@pytest.mark.parametrize("name", CASES)
def test_times_are_exact_where_the_wire_has_milliseconds(name: str) -> None:
    for track_id, track in tracks_of(name).items():
        units = units_of(name, track_id)
        frame = 3000
        if track.kind == "audio":
            frame = 960 if track.codec is Codec.OPUS else 1024
        assert {(unit.dts - units[0].dts) % frame for unit in units} == {0}
        assert {(unit.pts - unit.dts) % frame for unit in units} == {0}


def test_colour_information_is_passed_on() -> None:
    events, _ = published("h265 and opus")
    names = [event.name for event in events if isinstance(event, DataReceived)]
    assert names == ["colorInfo"]
