"""The frame counter as a strip of black and white cells along the top of a picture: drawn and read
back.

The strip has two rows of 40 cells over the whole width; each row is a 45th of the height (16 px of
720, so one row of macroblocks). The lower row is the complement of the upper one: a cell is read by
comparing the two, which needs no threshold and survives H.264, scaling to 360 lines and any change
of brightness.

    cell   0   1   2 .. 33                        34 .. 37   38  39
    upper  1   0   counter, most significant bit  check      0   1
"""

Luma = bytes | bytearray | memoryview

CELLS = 40
ROW_DIVISOR = 45  # A row of cells is height / 45: 16 px at 720 lines, 8 px at 360.
COUNTER_BITS = 32
COUNTER_MAX = 2**COUNTER_BITS - 1
CONTRAST_MIN = 48  # Luma steps between the two rows of a cell; the drawn strip has 219.
BLACK, WHITE = 16, 235  # Limited range (ITU-R BT.709 §3.4).
_CHECK_MASK = 0xA  # So that neither an all-black nor an all-white strip checks out.


def counter_cells(counter: int) -> int:
    """Return the upper row's 40 cells as an integer, the leftmost cell in its highest bit."""
    assert 0 <= counter <= COUNTER_MAX, "the counter has 32 bits"
    return 0b10 << 38 | counter << 6 | _check(counter) << 2 | 0b01


def cells_counter(cells: int) -> int | None:
    """Return the counter in an upper row's 40 cells, or None where sync or check bits are wrong."""
    counter = cells >> 6 & COUNTER_MAX
    return counter if cells == counter_cells(counter) else None


class StripPainter:
    """Draws the strip's luma for one size of picture.

    The width must be a multiple of 40, so that all cells are equal and their rows can be cut from
    prepared ones.
    """

    def __init__(self, width: int, height: int) -> None:
        assert width % CELLS == 0, "cells have a whole number of pixels"
        self.row_height = row_height(height)
        cell = width // CELLS
        self._upper = [_paint(byte, cell) for byte in range(256)]

    def rows(self, counter: int) -> tuple[bytes, bytes]:
        """Return one line of the upper and one of the lower row; each is repeated `row_height`
        times.
        """
        cells = counter_cells(counter).to_bytes(CELLS // 8, "big")
        upper = b"".join([self._upper[byte] for byte in cells])
        lower = b"".join([self._upper[byte ^ 0xFF] for byte in cells])
        return upper, lower


def row_height(height: int) -> int:
    """Return the height in pixels of one of the strip's two rows in a picture of `height` lines."""
    return max(1, round(height / ROW_DIVISOR))


def read_counter(luma: Luma, width: int, height: int, stride: int | None = None) -> int | None:
    """Return the counter shown by a picture, or None if it shows none.

    `luma` is 8-bit samples, line by line, `stride` (default `width`) bytes apart; only the strip's
    lines are needed. `width` and `height` are the whole picture's, of any size, at least 40 x 45.
    """
    view = memoryview(luma).cast("B")
    stride = width if stride is None else stride
    high = height / ROW_DIVISOR
    if width < CELLS or height < ROW_DIVISOR or len(view) < stride * round(2 * high):
        return None
    cells = 0
    for cell in range(CELLS):
        middle = (width * (cell + 0.25) / CELLS, width * (cell + 0.75) / CELLS)
        upper = _mean(view, stride, middle, (0.25 * high, 0.75 * high))
        lower = _mean(view, stride, middle, (1.25 * high, 1.75 * high))
        if abs(upper - lower) < CONTRAST_MIN:
            return None
        cells = cells << 1 | (upper > lower)
    return cells_counter(cells)


def _check(counter: int) -> int:
    """Fold the counter's eight nibbles into one, each rotated by its place so that swapped nibbles
    show.
    """
    check = _CHECK_MASK
    for place in range(8):
        nibble = counter >> 4 * place & 0xF
        turn = place % 4
        check ^= (nibble << turn | nibble >> (4 - turn)) & 0xF
    return check


def _paint(byte: int, cell: int) -> bytes:
    return b"".join(
        [bytes([WHITE if byte >> bit & 1 else BLACK]) * cell for bit in range(7, -1, -1)]
    )


def _mean(
    view: memoryview, stride: int, columns: tuple[float, float], lines: tuple[float, float]
) -> float:
    """Average the middle of a cell, given in pixels; at least one pixel of it."""
    first, last = int(columns[0]), max(int(columns[0]) + 1, int(columns[1]))
    top, bottom = int(lines[0]), max(int(lines[0]) + 1, int(lines[1]))
    total = sum(sum(view[at * stride + first : at * stride + last]) for at in range(top, bottom))
    return total / ((bottom - top) * (last - first))
