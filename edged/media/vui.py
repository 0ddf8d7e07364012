"""What video codecs say about the picture beside its size: sample shape, colours, frame rate.

The tables are those of ISO/IEC 14496-10 Annex E and ISO/IEC 23091-2 (CICP), which H.264, H.265, AV1
and VP9 share.
"""

from math import gcd

from msgspec import Struct

from edged.media.bits import BitReader

FRAME_RATE_MAX = 300  # Frames per second; more is a time base written where a rate belongs.
PICTURE_SIDE_MAX = 16_384  # Pixels; H.265 level 6.2 and AV1 level 6.3 end at 16384 or just above.
UNSPECIFIED = 2  # CICP: of primaries, transfer and matrix.
_EXTENDED_SAR = 255
# Table E-1, from aspect_ratio_idc 0 (unspecified).
_SAMPLE_ASPECT_RATIOS = (
    *((0, 1), (1, 1), (12, 11), (10, 11), (16, 11), (40, 33), (24, 11), (20, 11), (32, 11)),
    *((80, 33), (18, 11), (15, 11), (64, 33), (160, 99), (4, 3), (3, 2), (2, 1)),
)


class Colour(Struct, frozen=True):
    """CICP code points; what a `colr` box of type nclx holds."""

    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    matrix: int = UNSPECIFIED
    full_range: bool = False

    @property
    def known(self) -> bool:
        """Whether any of it is worth writing down."""
        return self != Colour()


def read_aspect_ratio(bits: BitReader) -> tuple[int, int]:
    """aspect_ratio_info: width and height of a sample; (1, 1) when it is not said."""
    if not bits.flag():
        return 1, 1
    idc = bits.read(8)
    if idc == _EXTENDED_SAR:
        width, height = bits.read(16), bits.read(16)
    else:
        width, height = _SAMPLE_ASPECT_RATIOS[idc] if idc < len(_SAMPLE_ASPECT_RATIOS) else (0, 0)
    if not width or not height:
        return 1, 1
    divisor = gcd(width, height)
    return width // divisor, height // divisor


def read_video_signal(bits: BitReader) -> Colour:
    """video_signal_type: the colours."""
    if not bits.flag():
        return Colour()
    bits.skip(3)  # video_format
    full_range = bits.flag()
    if not bits.flag():
        return Colour(full_range=full_range)
    return Colour(bits.read(8), bits.read(8), bits.read(8), full_range)


def frame_rate(ticks_per_second: int, ticks_per_frame: int) -> tuple[int, int]:
    """Frames per second as a reduced fraction; (0, 1) when the stream says nothing usable."""
    if not ticks_per_second or not ticks_per_frame:
        return 0, 1
    if ticks_per_second > FRAME_RATE_MAX * ticks_per_frame:
        return 0, 1
    divisor = gcd(ticks_per_second, ticks_per_frame)
    return ticks_per_second // divisor, ticks_per_frame // divisor
