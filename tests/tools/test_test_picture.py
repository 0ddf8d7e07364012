from fractions import Fraction

import av
import pytest
from msgspec import structs

from edged.media.access_unit import AccessUnit
from edged.media.track import Codec
from edged.tools.bitstrip import read_counter
from edged.tools.test_picture import (
    AUDIO_TRACK_ID,
    SAMPLE_RATE,
    VIDEO_TRACK_ID,
    PictureConfig,
    PicturePainter,
    TestPicture,
    make_tone,
)

SMALL = PictureConfig(width=320, height=180)
START_US = 1_700_000_000_123_000


def take(picture: TestPicture, frames: int) -> list[AccessUnit]:
    picture.start(START_US)
    return [unit for _ in range(frames) for unit in picture.take_units()]


def decode(picture: TestPicture, units: list[AccessUnit]) -> list[av.VideoFrame]:
    decoder = av.VideoCodecContext.create("h264", "r")
    decoder.extradata = picture.tracks[0].config.record
    frames = []
    for unit in units:
        if unit.track_id == VIDEO_TRACK_ID:
            frames += decoder.decode(av.Packet(unit.payload))
    return frames + decoder.decode(None)


def read(frame: av.VideoFrame) -> int | None:
    plane = frame.planes[0]
    return read_counter(bytes(plane), frame.width, frame.height, plane.line_size)


def test_tracks_say_what_is_sent() -> None:
    video, audio = TestPicture(SMALL).tracks
    assert (video.codec, video.config.width, video.config.height) == (Codec.H264, 320, 180)
    assert (video.config.frame_rate_num, video.config.frame_rate_den) == (30, 1)
    assert (audio.codec, audio.config.sample_rate, audio.config.channels) == (Codec.AAC, 48000, 2)


def test_units_are_in_real_time_and_gops_of_two_seconds() -> None:
    picture = TestPicture(SMALL)
    units = take(picture, 62)
    video = [unit for unit in units if unit.track_id == VIDEO_TRACK_ID]
    audio = [unit for unit in units if unit.track_id == AUDIO_TRACK_ID]
    assert [unit.pts for unit in video] == [3000 * n for n in range(62)]
    assert [n for n, unit in enumerate(video) if unit.random_access] == [0, 60]
    assert [unit.pts for unit in audio] == [1024 * n for n in range(len(audio))]
    assert abs(len(audio) * 1024 / SAMPLE_RATE - 62 / 30) < 0.05
    assert [unit.seq for unit in units] == list(range(len(units)))
    assert picture.next_due_s() == pytest.approx(62 / 30)
    picture.close()


def test_strip_survives_the_codec_and_scaling_to_360_lines() -> None:
    picture = TestPicture(PictureConfig())
    frames = decode(picture, take(picture, 8))
    assert [read(frame) for frame in frames] == list(range(8))
    assert [read(frame.reformat(640, 360)) for frame in frames] == list(range(8))


def test_key_frame_on_request() -> None:
    picture = TestPicture(SMALL)
    take(picture, 2)
    picture.request_key_frame()
    assert [unit.random_access for unit in picture.take_units() if unit.track_id == 1] == [True]
    assert [unit.random_access for unit in picture.take_units() if unit.track_id == 1] == [False]


def test_key_frames_come_as_far_apart_as_configured() -> None:
    picture = TestPicture(structs.replace(SMALL, gop_s=0.5))
    pictures = [unit for unit in take(picture, 45) if unit.track_id == VIDEO_TRACK_ID]
    assert [n for n, unit in enumerate(pictures) if unit.random_access] == [0, 15, 30]


def test_skipping_leaves_frames_out_and_keeps_time() -> None:
    picture = TestPicture(SMALL)
    first = take(picture, 3)
    picture.skip_to(10.0)
    picture.skip_to(1.0)  # Never back.
    units = picture.take_units()
    assert next(unit.pts for unit in units if unit.track_id == VIDEO_TRACK_ID) == 900_000
    assert read(decode(picture, [*first, *units])[-1]) == 300
    later = picture.take_units()
    audio = [unit.pts for unit in units + later if unit.track_id == AUDIO_TRACK_ID]
    assert abs(audio[-1] / SAMPLE_RATE - 10.0) < 0.1


def test_other_rates_are_exact() -> None:
    picture = TestPicture(PictureConfig(width=320, height=180, fps=Fraction(30000, 1001)))
    units = take(picture, 3)
    assert [unit.pts for unit in units if unit.track_id == VIDEO_TRACK_ID] == [0, 3003, 6006]


def test_painter_draws_the_time_and_only_inside_the_picture() -> None:
    painter = PicturePainter(PictureConfig(width=320, height=180, title="A very long title " * 9))
    painter.paint(5, START_US, 0)
    before = bytes(painter.frame.planes[0])
    painter.paint(5, START_US + 1000, 0)  # A millisecond later: one digit differs.
    after = bytes(painter.frame.planes[0])
    assert 0 < sum(a != b for a, b in zip(before, after, strict=True)) < 500
    assert read(painter.frame) == 5


def test_tone_loops_without_a_click() -> None:
    tone = memoryview(make_tone()).cast("f")
    assert len(tone) == SAMPLE_RATE + 1024
    assert tone[:1024].tolist() == pytest.approx(tone[SAMPLE_RATE:].tolist(), abs=1e-6)
    assert max(tone) < 0.25
