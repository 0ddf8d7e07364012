"""What a rendition is announced as."""

import hashlib
from fractions import Fraction

import pytest
from msgspec.structs import replace

from edged.media import h264
from edged.policy.cadence import measure_cadence
from edged.policy.renditions import describe_rendition, init_digest
from tests.media.samples import box, encode_video
from tests.policy.synthetic import audio_track, video_times, video_track


def test_a_measured_rate_counts_more_than_one_that_is_said() -> None:
    track = video_track(Fraction(30))
    cadence = measure_cadence(track, video_times(Fraction(25), 2), 200_000)
    told = describe_rendition("v0", track, cadence, 4)
    assert (told.frame_rate_num, told.frame_rate_den) == (25, 1)
    assert (told.part_target_us, told.target_duration_s) == (200_000, 4)
    assert (told.width, told.height, told.codec_string) == (1280, 720, "avc1.64001f")


@pytest.mark.parametrize("sar", [Fraction(1), Fraction(40, 33)])
def test_the_shape_of_samples_is_what_the_configuration_says(sar: Fraction) -> None:
    sample = encode_video("libx264", sar=sar)
    config = h264.parse_config(box(sample.file, b"avcC"))
    track = replace(video_track(Fraction(30)), config=config)
    cadence = measure_cadence(track, video_times(Fraction(30), 2), 200_000)
    shown = describe_rendition("v0", track, cadence, 4)
    assert Fraction(shown.sar_num, shown.sar_den) == sar


def test_what_cannot_be_read_is_taken_for_square() -> None:
    track = video_track(Fraction(30))
    track = replace(track, config=replace(track.config, record=b"\x01"))
    cadence = measure_cadence(track, video_times(Fraction(30), 2), 200_000)
    shown = describe_rendition("v0", track, cadence, 4)
    assert (shown.sar_num, shown.sar_den) == (1, 1)


def test_audio_has_its_channels_and_parts_of_whole_units() -> None:
    track = audio_track()
    cadence = measure_cadence(track, [n * 1024 for n in range(60)], 200_000)
    told = describe_rendition("a0", track, cadence, 4)
    assert (told.channels, told.name) == (2, "a0")
    assert told.part_target_us == -(-10 * 1024 * 1_000_000 // 48_000)


def test_an_init_is_named_by_its_bytes() -> None:
    assert init_digest(b"x") == hashlib.sha256(b"x").hexdigest()[:16]
