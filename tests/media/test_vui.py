import pytest

from edged.media.bits import BitReader
from edged.media.vui import (
    FRAME_RATE_MAX,
    Colour,
    frame_rate,
    read_aspect_ratio,
    read_video_signal,
)
from tests.media.test_bits import bytes_of


def bits(text: str) -> BitReader:
    return BitReader(bytes_of(text), "VUI")


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("0", (1, 1)),
        ("1" + f"{0:08b}", (1, 1)),
        ("1" + f"{2:08b}", (12, 11)),
        ("1" + f"{14:08b}", (4, 3)),
        ("1" + f"{16:08b}", (2, 1)),
        ("1" + f"{17:08b}", (1, 1)),
        ("1" + f"{255:08b}{64:016b}{48:016b}", (4, 3)),
        ("1" + f"{255:08b}{64:016b}{0:016b}", (1, 1)),
    ],
)
def test_aspect_ratio(text: str, shape: tuple[int, int]) -> None:
    assert read_aspect_ratio(bits(text)) == shape


def test_video_signal() -> None:
    assert read_video_signal(bits("0")) == Colour()
    assert read_video_signal(bits("1" + "101" + "1" + "0")) == Colour(full_range=True)
    described = read_video_signal(bits("1" + "101" + "0" + "1" + f"{9:08b}{16:08b}{9:08b}"))
    assert described == Colour(9, 16, 9)
    assert described.known
    assert not Colour().known


def test_frame_rate_at_its_limit_and_past_it() -> None:
    assert frame_rate(60_000, 2002) == (30_000, 1001)
    assert frame_rate(FRAME_RATE_MAX, 1) == (FRAME_RATE_MAX, 1)
    assert frame_rate(FRAME_RATE_MAX * 7 + 1, 7) == (0, 1)
    assert frame_rate(0, 1) == frame_rate(1, 0) == (0, 1)
