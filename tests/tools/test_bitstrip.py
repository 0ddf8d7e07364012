import hypothesis
import pytest
from hypothesis import strategies as st

from edged.tools.bitstrip import (
    CELLS,
    CONTRAST_MIN,
    COUNTER_MAX,
    StripPainter,
    cells_counter,
    counter_cells,
    read_counter,
    row_height,
)

counters = st.integers(0, COUNTER_MAX)


def draw(counter: int, width: int, height: int, stride: int | None = None) -> bytearray:
    stride = stride or width
    luma = bytearray(stride * height)
    painter = StripPainter(width, height)
    for row, samples in enumerate(painter.rows(counter)):
        for line in range(row * painter.row_height, (row + 1) * painter.row_height):
            luma[line * stride : line * stride + width] = samples
    return luma


@hypothesis.given(counters)
def test_cells_round_trip(counter: int) -> None:
    assert cells_counter(counter_cells(counter)) == counter


@hypothesis.given(counters, st.integers(0, CELLS - 1))
def test_any_single_wrong_cell_is_noticed(counter: int, cell: int) -> None:
    assert cells_counter(counter_cells(counter) ^ 1 << cell) is None


def test_constant_cells_are_no_counter() -> None:
    assert cells_counter(0) is None
    assert cells_counter(2**CELLS - 1) is None


@pytest.mark.parametrize(
    ("width", "height", "stride"),
    [(1280, 720, None), (640, 360, None), (320, 180, 384), (1920, 1080, None)],
)
def test_drawn_strip_is_read(width: int, height: int, stride: int | None) -> None:
    for counter in (0, 1, 0x5555_AAAA, COUNTER_MAX):
        luma = draw(counter, width, height, stride)
        assert read_counter(luma, width, height, stride) == counter


@pytest.mark.parametrize(("height", "rows"), [(720, 16), (360, 8), (1080, 24), (45, 1), (20, 1)])
def test_row_height(height: int, rows: int) -> None:
    assert row_height(height) == rows


def test_low_contrast_is_no_strip() -> None:
    luma = draw(7, 320, 180)
    for bright, expected in ((16 + CONTRAST_MIN, 7), (16 + CONTRAST_MIN - 1, None)):
        flat = bytes(bright if sample > 100 else 16 for sample in luma)
        assert read_counter(flat, 320, 180) == expected


def test_too_small_or_too_short_is_no_strip() -> None:
    assert read_counter(bytes(39 * 720), 39, 720) is None
    assert read_counter(bytes(40 * 44), 40, 44) is None
    assert read_counter(draw(7, 320, 180)[: 320 * 7], 320, 180) is None
    assert read_counter(draw(7, 320, 180)[: 320 * 8], 320, 180) == 7
