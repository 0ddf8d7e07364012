"""The level of an H.264 encode: what a decoder must be able to do (ISO/IEC 14496-10 Table A-1)."""

from fractions import Fraction

# Level x 10, macroblocks/s, macroblocks, kbit/s. The table's bit rates x 1.25 count in High.
_LEVELS = (
    *((20, 11_880, 396, 2_000), (21, 19_800, 792, 4_000), (22, 20_250, 1_620, 4_000)),
    *((30, 40_500, 1_620, 10_000), (31, 108_000, 3_600, 14_000), (32, 216_000, 5_120, 20_000)),
    *((40, 245_760, 8_192, 20_000), (41, 245_760, 8_192, 50_000), (42, 522_240, 8_704, 50_000)),
    *((50, 589_824, 22_080, 135_000), (51, 983_040, 36_864, 240_000)),
    (52, 2_073_600, 36_864, 240_000),
)
LEVEL_MAX = 62


def choose_level(shape: tuple[int, int], rate: Fraction, maxrate_bps: int) -> int:
    """The lowest level from 2.0 on that allows so many macroblocks, also per second, and bits."""
    macroblocks = -(-shape[0] // 16) * -(-shape[1] // 16)
    for level, per_second, most, kbps in _LEVELS:
        if (
            macroblocks <= most
            and max(shape) <= 16 * (8 * most) ** 0.5  # §A.3.1: no side is longer.
            and macroblocks * rate <= per_second
            and maxrate_bps <= kbps * 1250
        ):
            return level
    return LEVEL_MAX
