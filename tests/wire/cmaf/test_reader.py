import contextlib
import io
import struct
from fractions import Fraction

import av
import hypothesis
import pytest
from hypothesis import strategies as st

from edged.errors import RemoteProtocolError
from edged.media.track import Codec, Kind
from edged.wire.cmaf import reader
from edged.wire.cmaf.fragment import make_fragment
from edged.wire.cmaf.init import make_init
from edged.wire.cmaf.reader import ReadSample, read_init, read_samples
from tests.media.samples import Sample, box, encode_audio, encode_video
from tests.wire.cmaf.oracle import read_back, track, units_of
from tests.wire.cmaf.test_fragment import B_FRAMES, fragments, unit

VIDEO = encode_video("libx264", frames=24, gop=12, options=B_FRAMES)
INIT = make_init(track(Codec.H264, box(VIDEO.file, b"avcC")))
TFHD = struct.pack(">I4sII", 16, b"tfhd", 0x020000, 1)


def test_what_we_write_is_read_as_ffmpeg_reads_it() -> None:
    units = units_of(VIDEO, Fraction(1, 30), 90_000)
    pieces = fragments(Kind.VIDEO, units, 7, 3000)
    init = read_init(INIT)
    assert [(t.timescale, t.handler) for t in init.values()] == [(90_000, "vide")]
    assert [(t.formats, t.sizes) for t in init.values()] == [(("avc1",), ((64, 48), (48, 64)))]
    data = b"".join(pieces)
    (samples,) = read_samples(data, init).values()
    packets = read_back(INIT, *pieces)
    assert [(s.dts, s.dts + s.composition, s.sync, s.size) for s in samples] == [
        (p.dts, p.pts, p.keyframe, len(p.data)) for p in packets
    ]
    assert {sample.duration for sample in samples} == {3000}
    assert [data[s.at : s.at + s.size] for s in samples] == [unit.payload for unit in units]


def test_sound_has_no_flags_of_its_own() -> None:
    sample = encode_audio("aac", frames=20)
    init = read_init(make_init(track(Codec.AAC, sample.extradata)))
    assert [(t.timescale, t.handler) for t in init.values()] == [(48_000, "soun")]
    assert [(t.formats, t.sizes) for t in init.values()] == [(("mp4a",), ())]
    units = [unit(b"sound", pts=1024 * n, dts=1024 * n) for n in range(5)]
    fragment = make_fragment(Kind.AUDIO, 0, 2**33, units, [1024] * 5)
    (samples,) = read_samples(fragment, init).values()
    assert [(s.dts, s.sync, s.size) for s in samples] == [
        (2**33 + 1024 * n, True, 5) for n in range(5)
    ]


def ffmpegs(flags: str, sample: Sample) -> bytes:
    """Another's file: FFmpeg's muxer, with defaults in tfhd and first-sample flags."""
    out = io.BytesIO()
    with (
        av.open(io.BytesIO(sample.file), "r", format="mp4") as given,
        av.open(out, "w", format="mp4", options={"movflags": flags}) as written,
    ):
        stream = written.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = stream
                written.mux(packet)
    return out.getvalue()


@pytest.mark.parametrize("flags", ["frag_keyframe+empty_moov+default_base_moof", "cmaf"])
def test_what_ffmpeg_writes_is_read_as_ffmpeg_reads_it(flags: str) -> None:
    data = ffmpegs(flags, VIDEO)
    at = data.index(b"moof") - 4
    init = read_init(data[:at])
    assert [(t.formats, t.sizes[0]) for t in init.values()] == [(("avc1",), (64, 48))]
    (samples,) = read_samples(data[at:], init, origin=at).values()
    with av.open(io.BytesIO(data), "r", format="mp4") as container:
        packets = [packet for packet in container.demux() if packet.size]
    # FFmpeg moves decode times where composition offsets are below 0: presentation counts.
    begins = samples[0].dts + samples[0].composition, packets[0].pts or 0
    assert [(s.sync, s.size, s.dts + s.composition - begins[0]) for s in samples] == [
        (p.is_keyframe, p.size, (p.pts or 0) - begins[1]) for p in packets
    ]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\0\0\0\x09moof", "box b'moof' of 9 bytes, 8 are there"),
        (b"\0\0\0\x07moof", "of 7 bytes"),
        (b"\0\0\0", "3 bytes behind the last box"),
        (struct.pack(">I4s", 12, b"moof") + b"\0\0\0\0", "behind the last box"),
        (struct.pack(">I4s", 8, b"trun"), "trun without tfhd"),
        (struct.pack(">I4sII", 16, b"tfhd", 0, 9), "track 9 is not in the init segment, which"),
        (TFHD + struct.pack(">I4sI", 12, b"trun", 0), "amid a field"),
        (TFHD + struct.pack(">I4sII", 16, b"trun", 0, 2**31), "limit"),
        (TFHD + struct.pack(">I4sII", 16, b"trun", 0x100, 9), "amid a field"),
        (TFHD + struct.pack(">I4sIIiI", 24, b"trun", 0x201, 1, 40, 1), "at 40, 40 are there"),
        (TFHD + struct.pack(">I4sIIiI", 24, b"trun", 0x201, 1, -1, 1), "at -1, 40 are there"),
    ],
)
def test_broken_boxes_are_named(data: bytes, told: str) -> None:
    with pytest.raises(RemoteProtocolError, match=told):
        read_samples(data, read_init(INIT))


def test_broken_inits_and_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RemoteProtocolError, match="of 0 tracks"):
        read_init(b"")
    with pytest.raises(RemoteProtocolError, match="without mdhd"):
        read_init(INIT.replace(b"mdhd", b"free"))
    at = INIT.index(b"mdhd") + 4
    broken = INIT[: at + 12] + bytes(4) + INIT[at + 16 :]
    with pytest.raises(RemoteProtocolError, match="timescale 0"):
        read_init(broken)
    nested = b""
    for _ in range(20):
        nested = struct.pack(">I4s", len(nested) + 8, b"moof") + nested
    with pytest.raises(RemoteProtocolError, match="nested deeper"):
        read_samples(nested, read_init(INIT))
    monkeypatch.setattr(reader, "SAMPLES_MAX", 3)
    two = make_fragment(Kind.VIDEO, 0, 0, [unit(b"a"), unit(b"b")], [1, 1])
    with pytest.raises(RemoteProtocolError, match="more than 3 samples"):
        read_samples(two * 2, read_init(INIT))


def test_boxes_to_the_end_and_of_64_bits() -> None:
    run = struct.pack(">I4sIIiI", 24, b"trun", 0x201, 1, 64, 3)
    large = struct.pack(">I4sQ", 1, b"mdat", 19) + b"xyz"
    to_the_end = struct.pack(">I4s", 0, b"mdat") + b"abc"
    data = TFHD + run + large + to_the_end
    ((sample,),) = read_samples(data, read_init(INIT)).values()
    assert sample == ReadSample(0, 0, 0, 3, sync=True, at=64)
    assert len(data) == 40 + 19 + 11


def muxed(flags: str) -> bytes:
    """Pictures and sound in one file, as FFmpeg writes them."""
    out = io.BytesIO()
    sound = encode_audio("aac", frames=40)
    with (
        av.open(io.BytesIO(VIDEO.file), "r", format="mp4") as pictures,
        av.open(io.BytesIO(sound.file), "r") as sounds,
        av.open(out, "w", format="mp4", options={"movflags": flags}) as written,
    ):
        streams = [
            written.add_stream_from_template(pictures.streams.video[0]),
            written.add_stream_from_template(sounds.streams.audio[0]),
        ]
        packets = [
            (packet, stream)
            for given, stream in zip((pictures, sounds), streams, strict=True)
            for packet in given.demux()
            if packet.size
        ]
        for packet, stream in sorted(
            packets, key=lambda one: (one[0].dts or 0) * (one[1].time_base or 0)
        ):
            packet.stream = stream
            written.mux(packet)
    return out.getvalue()


@pytest.mark.parametrize(
    "flags",
    [
        "frag_keyframe+empty_moov+default_base_moof",
        "frag_keyframe+empty_moov",
        "frag_keyframe+empty_moov+omit_tfhd_offset",
    ],
)
def test_muxed_tracks_are_told_apart(flags: str) -> None:
    """With offsets from the moof, from the file's begin, and from the data before."""
    data = muxed(flags)
    at = data.index(b"moof") - 4
    init = read_init(data[:at])
    assert [track.handler for track in init.values()] == ["vide", "soun"]
    tracks = read_samples(data[at : data.rindex(b"mfra") - 4], init, origin=at)
    with av.open(io.BytesIO(data), "r", format="mp4") as container:
        packets = [packet for packet in container.demux() if packet.size]
    for number, (_, samples) in enumerate(sorted(tracks.items())):
        found = [data[at + s.at : at + s.at + s.size] for s in samples]
        assert found == [bytes(p) for p in packets if p.stream_index == number]


@hypothesis.given(st.data())
def test_whatever_comes_is_read_or_refused(data: st.DataObject) -> None:
    piece = bytearray(INIT + make_fragment(Kind.VIDEO, 0, 0, [unit(b"abc"), unit(b"d")], [1, 2]))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(piece) - 1))
        piece[at : at + data.draw(st.integers(0, 5))] = data.draw(st.binary(max_size=5))
    with contextlib.suppress(RemoteProtocolError):
        read_samples(bytes(piece), read_init(INIT))
    with contextlib.suppress(RemoteProtocolError):
        read_init(bytes(piece))
