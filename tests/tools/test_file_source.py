import itertools
from fractions import Fraction
from pathlib import Path

import av
import pytest

from edged.errors import ToolMissingError, UnsupportedMediaError
from edged.media.access_unit import AccessUnit
from edged.media.track import Codec
from edged.tools.file_source import TRACKS_MAX, FileSource
from edged.tools.test_picture import PictureConfig, PicturePainter

FRAMES = 30


def make_file(path: Path, video: str | None, audio: str | None, reordered: int = 2) -> Path:
    """One second of the test picture and of silence."""
    with av.open(str(path), "w") as output:
        pictures: av.VideoStream | None = None
        sounds: av.AudioStream | None = None
        if video is not None:
            stream = output.add_stream(video, rate=30, options={"g": "15"})
            assert isinstance(stream, av.VideoStream)
            pictures = stream
            pictures.width, pictures.height, pictures.pix_fmt = 320, 180, "yuv420p"
            pictures.codec_context.max_b_frames = reordered
        if audio is not None:
            sound = output.add_stream(audio, rate=48000, layout="stereo")
            assert isinstance(sound, av.AudioStream)
            sounds = sound
        if pictures is not None:
            write_pictures(output, pictures)
        if sounds is not None:
            write_silence(output, sounds)
    return path


def write_pictures(output: av.container.OutputContainer, stream: av.VideoStream) -> None:
    painter = PicturePainter(PictureConfig(width=320, height=180))
    for counter in range(FRAMES):
        painter.paint(counter, counter * 33_333, counter * 33_333)
        painter.frame.pts, painter.frame.time_base = counter, Fraction(1, 30)
        output.mux(stream.encode(painter.frame))
    output.mux(stream.encode(None))


def write_silence(output: av.container.OutputContainer, stream: av.AudioStream) -> None:
    size = stream.codec_context.frame_size or 1024  # PCM takes any.
    for index in range(48000 // size):
        frame = av.AudioFrame(stream.codec_context.format.name, "stereo", size)
        frame.sample_rate, frame.pts, frame.time_base = 48000, index * size, Fraction(1, 48000)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


def read(source: FileSource, until_s: float) -> dict[int, list[AccessUnit]]:
    units: dict[int, list[AccessUnit]] = {track.track_id: [] for track in source.tracks}
    seq = 0
    while (due_s := source.next_due_s()) is not None and due_s < until_s:
        for unit in source.take_units():
            assert unit.seq == seq
            seq += 1
            units[unit.track_id].append(unit)
    return units


def decode(source: FileSource, units: list[AccessUnit], codec: str) -> int:
    decoder = av.CodecContext.create(codec, "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.extradata = source.tracks[0].config.record
    packets = [av.Packet(unit.payload) for unit in units]
    return sum(len(decoder.decode(packet)) for packet in [*packets, None])


@pytest.mark.parametrize("name", ["a.mp4", "a.ts", "a.mkv", "a.flv"])
def test_h264_and_aac_are_copied(tmp_path: Path, name: str) -> None:
    path = make_file(tmp_path / name, "libx264", "aac")
    with av.open(str(path)) as file:
        sent = [bytes(packet) for packet in file.demux(video=0) if packet.size]
    source = FileSource(path, loop=False)
    units = read(source, 9.0)
    assert [track.codec for track in source.tracks] == [Codec.H264, Codec.AAC]
    video = units[1]
    assert len(video) == FRAMES
    if not name.endswith(".ts"):  # A transport stream has start codes, which become lengths.
        assert [unit.payload for unit in video] == sent
    assert decode(source, video, "h264") == FRAMES
    assert [n for n, unit in enumerate(video) if unit.random_access] == [0, 15]
    assert all(unit.pts >= unit.dts >= 0 for unit in video)
    assert all(a.dts < b.dts for a, b in itertools.pairwise(video))
    assert 46 <= len(units[2]) <= 49
    source.close()


@pytest.mark.parametrize(
    ("name", "encoder", "codec"),
    [
        ("h.mp4", "libx265", Codec.H265),
        ("h.ts", "libx265", Codec.H265),
        ("v.mkv", "libsvtav1", Codec.AV1),
        ("v.webm", "libvpx-vp9", Codec.VP9),
        ("v.mp4", "libvpx-vp9", Codec.VP9),
    ],
)
def test_other_video_codecs_are_copied(
    tmp_path: Path, name: str, encoder: str, codec: Codec
) -> None:
    path = make_file(tmp_path / name, encoder, None)
    source = FileSource(path, loop=False)
    units = read(source, 9.0)[1]
    assert source.tracks[0].codec is codec
    assert len(units) == FRAMES
    assert units[0].random_access
    assert not units[1].random_access
    assert (source.tracks[0].config.width, source.tracks[0].config.height) == (320, 180)


OPTIONS = {"g": "15", "x265-params": "log-level=none:keyint=15"}


def make_multitrack(path: Path, audio: int = 2) -> Path:
    """Two sizes of the picture by two codecs, and silence in several languages."""
    with av.open(str(path), "w") as output:
        rungs = []
        for encoder, width, height in (("libx264", 320, 180), ("libx265", 160, 90)):
            rung = output.add_stream(encoder, rate=30, options=dict(OPTIONS))
            assert isinstance(rung, av.VideoStream)
            rung.width, rung.height, rung.pix_fmt = width, height, "yuv420p"
            rungs.append(rung)
        sounds = []
        for number in range(audio):
            sound = output.add_stream("aac", rate=48000, layout="stereo")
            assert isinstance(sound, av.AudioStream)
            sound.metadata.update(
                {"language": ("eng", "deu")[number % 2], "title": f"Sound {number}"}
            )
            sounds.append(sound)
        for rung in rungs:
            write_pictures(output, rung)
        for sound in sounds:
            write_silence(output, sound)
    return path


def test_all_tracks_are_published_with_their_names(tmp_path: Path) -> None:
    source = FileSource(make_multitrack(tmp_path / "all.mkv"), loop=False)
    units = read(source, 9.0)
    assert [(t.track_id, t.codec, t.config.width) for t in source.tracks] == [
        (1, Codec.H264, 320),
        (2, Codec.H265, 160),
        (3, Codec.AAC, 0),
        (4, Codec.AAC, 0),
    ]
    assert [(t.language, t.name) for t in source.tracks] == [
        ("und", ""),
        ("und", ""),
        ("eng", "Sound 0"),
        ("deu", "Sound 1"),
    ]
    assert [len(of_track) for of_track in units.values()][:2] == [FRAMES, FRAMES]
    assert [n for n, unit in enumerate(units[2]) if unit.random_access] == [0, 15]


def test_tracks_at_the_limit_and_one_past_it(tmp_path: Path) -> None:
    at_limit = make_multitrack(tmp_path / "at.mkv", TRACKS_MAX - 2)
    assert len(FileSource(at_limit).tracks) == TRACKS_MAX
    path = make_multitrack(tmp_path / "past.mkv", TRACKS_MAX - 1)
    with pytest.raises(UnsupportedMediaError, match="17 video and audio streams, limit 16"):
        FileSource(path)


def test_opus_is_copied_and_unfit_video_is_encoded_anew(tmp_path: Path) -> None:
    source = FileSource(make_file(tmp_path / "a.mkv", "mpeg4", "libopus", 0), loop=False)
    units = read(source, 9.0)
    assert [track.codec for track in source.tracks] == [Codec.H264, Codec.OPUS]
    assert decode(source, units[1], "h264") == len(units[1]) == FRAMES
    assert 48 <= len(units[2]) <= 51


def test_unfit_audio_is_encoded_anew(tmp_path: Path) -> None:
    source = FileSource(make_file(tmp_path / "a.wav", None, "pcm_s16le"), loop=False)
    units = read(source, 9.0)
    assert [track.codec for track in source.tracks] == [Codec.AAC]
    assert all(a.dts < b.dts for a, b in itertools.pairwise(units[1]))
    assert 45 <= len(units[1]) <= 50


@pytest.mark.parametrize("name", ["a.mp4", "a.ts"])
def test_loop_goes_on_without_going_back(tmp_path: Path, name: str) -> None:
    source = FileSource(make_file(tmp_path / name, "libx264", "aac"))
    units = read(source, 3.5)
    for track in source.tracks:
        times = [unit.dts / track.timescale for unit in units[track.track_id]]
        steps = [b - a for a, b in itertools.pairwise(times)]
        assert min(steps) > 0
        assert max(steps) < 0.15  # At the seams: the tracks do not end together.
        assert times[-1] > 3.3
    source.close()


def test_what_cannot_be_published_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ToolMissingError, match="no file"):
        FileSource(tmp_path / "none.mp4")
    (tmp_path / "text.mp4").write_bytes(b"not media at all")
    with pytest.raises(UnsupportedMediaError, match="not media that FFmpeg can read"):
        FileSource(tmp_path / "text.mp4")
    (tmp_path / "only.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n")
    with pytest.raises(UnsupportedMediaError, match="neither video nor audio"):
        FileSource(tmp_path / "only.srt")


def test_a_source_has_nothing_to_skip(tmp_path: Path) -> None:
    source = FileSource(make_file(tmp_path / "a.wav", None, "pcm_s16le"))
    source.start(0)
    source.request_key_frame()
    before = source.next_due_s()
    source.skip_to(100.0)
    assert source.next_due_s() == before
    source.close()
