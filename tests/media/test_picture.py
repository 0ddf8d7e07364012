from collections.abc import Callable
from fractions import Fraction

import pytest

from edged.media import aac, av1, h264, h265, vp9
from edged.media.picture import Picture, describe_picture
from edged.media.track import CodecConfig
from edged.media.vui import Colour
from tests.media.samples import box, encode_video

BT709 = "colorprim=bt709:transfer=bt709:colormatrix=bt709"


def h264_config() -> CodecConfig:
    options = (("preset", "ultrafast"), ("x264-params", BT709))
    sample = encode_video("libx264", sar=Fraction(4, 3), options=options)
    return h264.parse_config(box(sample.file, b"avcC"))


def h265_config() -> CodecConfig:
    params = f"log-level=none:pools=none:frame-threads=1:{BT709}"
    options = (("preset", "ultrafast"), ("x265-params", params))
    sample = encode_video("libx265", sar=Fraction(4, 3), options=options)
    return h265.parse_config(box(sample.file, b"hvcC"))


def av1_config() -> CodecConfig:
    params = "lp=1:color-primaries=1:transfer-characteristics=1:matrix-coefficients=1"
    sample = encode_video("libsvtav1", options=(("preset", "12"), ("svtav1-params", params)))
    return av1.parse_config(box(sample.file, b"av1C"))


@pytest.mark.parametrize(
    ("config", "picture"),
    [
        (h264_config, Picture(4, 3, Colour(1, 1, 1))),
        (h265_config, Picture(4, 3, Colour(1, 1, 1))),
        (av1_config, Picture(colour=Colour(1, 1, 1))),
        (
            lambda: vp9.parse_config(bytes.fromhex("01000000000a820101010000")),
            Picture(1, 1, Colour(1, 1, 1)),
        ),
        (lambda: aac.parse_config(aac.make_config(48_000, 2)), Picture()),
    ],
)
def test_shape_and_colours_of_each_codec(
    config: Callable[[], CodecConfig], picture: Picture
) -> None:
    assert describe_picture(config()) == picture
