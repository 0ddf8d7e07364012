import contextlib

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.errors import RemoteProtocolError, UnsupportedMediaError
from edged.media.track import Codec
from edged.wire.rtmp.flv import (
    AUDIO_FOURCCS,
    MODEX_MAX,
    TRACKS_PER_MESSAGE_MAX,
    VIDEO_FOURCCS,
    MediaPacket,
    PacketType,
    make_config,
    make_frames,
    parse_audio,
    parse_video,
)

VIDEO = [Codec.H264, Codec.H265, Codec.AV1, Codec.VP9]
AUDIO = [Codec.AAC, Codec.OPUS]


def parse(codec: Codec, body: bytes) -> MediaPacket:
    (packet,) = parse_video(body) if codec in VIDEO else parse_audio(body)
    return packet


@pytest.mark.parametrize("codec", VIDEO + AUDIO)
@pytest.mark.parametrize("track", [0, 3])
@pytest.mark.parametrize("enhanced", [False, True])
def test_configurations(codec: Codec, track: int, enhanced: bool) -> None:
    packet = parse(codec, make_config(codec, b"record", track, enhanced=enhanced))
    assert (packet.codec, packet.type, packet.track) == (codec, PacketType.CONFIG, track)
    assert bytes(packet.payload) == b"record"


@hypothesis.given(
    st.sampled_from(VIDEO + AUDIO),
    st.booleans(),
    st.sampled_from([0, 33, -1, 2**23 - 1, -(2**23)]),
    st.sampled_from([0, 1, 255]),
    st.sampled_from([0, 1, 999_999]),
    st.booleans(),
)
@hypothesis.settings(max_examples=80, deadline=None)
def test_frames(  # noqa: PLR0917 (one for each field)
    codec: Codec, key: bool, composition_ms: int, track: int, nano: int, enhanced: bool
) -> None:
    body = make_frames(
        codec,
        b"payload",
        key=key,
        composition_ms=composition_ms,
        track=track,
        nano=nano,
        enhanced=enhanced,
    )
    packet = parse(codec, body)
    assert (packet.codec, packet.type) == (codec, PacketType.FRAMES)
    assert bytes(packet.payload) == b"payload"
    assert packet.key == (key or codec in AUDIO)
    assert (packet.track, packet.nano) == (track, nano)
    carried = composition_ms if codec in (Codec.H264, Codec.H265) else 0
    assert packet.composition_ms == carried


def test_the_wire_of_legacy_bodies() -> None:
    assert make_config(Codec.H264, b"R") == b"\x17\0\0\0\0R"
    assert make_config(Codec.AAC, b"R") == b"\xaf\0R"
    frame = make_frames(Codec.H264, b"P", key=False, composition_ms=66)
    assert frame == b"\x27\x01\0\0\x42P"
    assert make_frames(Codec.AAC, b"P", key=True) == b"\xaf\x01P"


def test_the_wire_of_enhanced_bodies() -> None:
    assert make_config(Codec.H265, b"R") == b"\x90hvc1R"
    assert make_frames(Codec.H265, b"P", key=True, composition_ms=1) == b"\x91hvc1\0\0\x01P"
    assert make_frames(Codec.H265, b"P", key=False) == b"\xa3hvc1P"  # CodedFramesX.
    assert make_frames(Codec.AV1, b"P", key=True) == b"\x91av01P"
    assert make_config(Codec.OPUS, b"R") == b"\x90OpusR"
    assert make_frames(Codec.OPUS, b"P", key=True) == b"\x91OpusP"
    assert make_frames(Codec.AV1, b"P", key=True, track=2) == b"\x96\x01av01\x02P"
    assert make_frames(Codec.OPUS, b"P", key=True, track=2) == b"\x95\x01Opus\x02P"
    nano = make_frames(Codec.AV1, b"P", key=True, nano=500_000)
    assert nano == b"\x97\x02\x07\xa1\x20\x01av01P"


def test_h265_as_some_makers_send_it() -> None:
    (packet,) = parse_video(b"\x1c\x01\0\0\0P")
    assert (packet.codec, packet.key) == (Codec.H265, True)


def test_many_tracks_of_one_codec() -> None:
    body = b"\x96\x11hvc1" + b"\0\0\0\x05\0\0\x07AB" + b"\x04\0\0\x03\0\0\0"
    first, second = parse_video(body)
    assert (first.track, first.composition_ms, bytes(first.payload)) == (0, 7, b"AB")
    assert (second.track, second.composition_ms, bytes(second.payload)) == (4, 0, b"")


def test_many_tracks_of_many_codecs() -> None:
    body = b"\x96\x20" + b"avc1\0\0\0\x01A" + b"av01\x01\0\0\x02BC"
    first, second = parse_video(body)
    assert (first.codec, first.track, bytes(first.payload)) == (Codec.H264, 0, b"A")
    assert (second.codec, second.track, bytes(second.payload)) == (Codec.AV1, 1, b"BC")
    assert first.type is second.type is PacketType.CONFIG


def test_an_unknown_modex_is_passed_over_also_when_long() -> None:
    for size in (1, 255):
        body = b"\x97" + bytes([size - 1]) + bytes(size) + b"\x51av01P"
        assert parse_video(body)[0].nano == 0
    for size in (256, 300):
        long = b"\x97\xff" + (size - 1).to_bytes(2, "big") + bytes(size) + b"\x51av01P"
        assert bytes(parse_video(long)[0].payload) == b"P"


def test_modex_at_the_limit_and_one_past_it() -> None:
    nano = b"\x02\0\0\x07"
    body = b"\x97" + (MODEX_MAX - 1) * (nano + b"\x07") + nano + b"\x01av01P"
    assert parse_video(body)[0].nano == 7
    with pytest.raises(RemoteProtocolError, match=f"more than {MODEX_MAX} ModEx"):
        parse_video(b"\x97" + MODEX_MAX * (nano + b"\x07") + nano + b"\x01av01P")
    with pytest.raises(RemoteProtocolError, match="1000000 ns exceeds 999999"):
        parse_video(b"\x97\x02" + (1_000_000).to_bytes(3, "big") + b"\x01av01P")


def test_tracks_in_a_message_at_the_limit_and_one_past_it() -> None:
    one = b"\0\0\0\x01A"
    assert len(parse_video(b"\x96\x10av01" + TRACKS_PER_MESSAGE_MAX * one)) == 32
    with pytest.raises(RemoteProtocolError, match="more than 32 tracks"):
        parse_video(b"\x96\x10av01" + (TRACKS_PER_MESSAGE_MAX + 1) * one)


def test_what_holds_no_media() -> None:
    assert parse_video(b"") == []
    assert parse_audio(b"") == []
    assert parse_video(b"\x52\0") == []  # Legacy seek mark.
    assert parse_video(b"\xd1\0") == []  # Enhanced seek mark.
    (layout,) = parse_audio(b"\x94Opus\x01\x02\0\0\0\x03")
    assert (layout.codec, layout.type) == (None, PacketType.METADATA)
    (end,) = parse_video(b"\x92av01")
    assert end.type is PacketType.END


def test_metadata_ignores_the_frame_type() -> None:
    (packet,) = parse_video(b"\xd4av01" + b"\x02\0\x01x")
    assert (packet.type, bytes(packet.payload)) == (PacketType.METADATA, b"\x02\0\x01x")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"\x12", "legacy flv video codec 2 is not supported"),
        (b"\x91vp08", "video codec b'vp08' of enhanced rtmp is not supported: only avc1"),
        (b"\x91mp4a", "video codec b'mp4a'"),
        (b"\x95av01", "MPEG-2 TS sequence start"),
    ],
)
def test_video_that_cannot_be_carried(body: bytes, why: str) -> None:
    with pytest.raises(UnsupportedMediaError, match=why):
        parse_video(body)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"\x2f\0", "legacy flv audio format 2 is not supported"),
        (b"\x91fLaC", "audio codec b'fLaC' of enhanced rtmp is not supported: only mp4a, Opus"),
        (b"\x91avc1", "audio codec b'avc1'"),
    ],
)
def test_audio_that_cannot_be_carried(body: bytes, why: str) -> None:
    with pytest.raises(UnsupportedMediaError, match=why):
        parse_audio(body)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"\x17\x01\0", "legacy video message of 3 bytes"),
        (b"\x17\x03\0\0\0", "legacy video packet type 3 is not known"),
        (b"\x98avc1", "enhanced video packet type 8 is not known"),
        (b"\x91av", "video FourCC ends at byte 5, its message at 3"),
        (b"\x91hvc1\0", "composition time ends at byte 3, its message at 1"),
        (b"\x97", "video ModEx ends"),
        (b"\x96", "video multitrack header ends"),
        (b"\x96\x31av01", "video multitrack kind 3 is not known"),
        (b"\x96\x11av01\0\0", "video track size ends"),
        (b"\x96\x11av01\x09\0\0\x05", "video track 9 ends at byte 15, its message at 10"),
    ],
)
def test_broken_video(body: bytes, why: str) -> None:
    with pytest.raises(RemoteProtocolError, match=why):
        parse_video(body)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"\xaf", "legacy audio message of 1 bytes"),
        (b"\xaf\x02", "legacy audio packet type 2 is not known"),
        (b"\x93Opus", "enhanced audio packet type 3 is not known"),
        (b"\x95\x16Opus\0", "enhanced audio packet type 6 is not known"),
    ],
)
def test_broken_audio(body: bytes, why: str) -> None:
    with pytest.raises(RemoteProtocolError, match=why):
        parse_audio(body)


@hypothesis.given(
    st.sampled_from([b"", *(f.encode() for f in VIDEO_FOURCCS + AUDIO_FOURCCS)]),
    st.binary(max_size=12),
    st.binary(max_size=20),
)
@hypothesis.settings(max_examples=150, deadline=None)
def test_garbage_raises_only_what_it_may(fourcc: bytes, before: bytes, after: bytes) -> None:
    for parser in (parse_video, parse_audio):
        with contextlib.suppress(RemoteProtocolError, UnsupportedMediaError):
            parser(before + fourcc + after)
