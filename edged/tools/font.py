"""A bitmap font of 5 x 7 pixels, for the test picture's clock and labels: capitals, digits and some
marks.
"""

GLYPH_WIDTH, GLYPH_HEIGHT = 5, 7
ADVANCE = GLYPH_WIDTH + 1

# Seven rows of five bits for each character, top row first; each row is two hexadecimal digits.
_GLYPHS = {
    " ": "00000000000000",
    "0": "0e11131519110e",
    "1": "040c040404040e",
    "2": "0e11010204081f",
    "3": "1f02040201110e",
    "4": "02060a121f0202",
    "5": "1f101e0101110e",
    "6": "0608101e11110e",
    "7": "1f010204080808",
    "8": "0e11110e11110e",
    "9": "0e11110f01020c",
    "A": "0e11111f111111",
    "B": "1e11111e11111e",
    "C": "0e11101010110e",
    "D": "1c12111111121c",
    "E": "1f10101e10101f",
    "F": "1f10101e101010",
    "G": "0e11101711110f",
    "H": "1111111f111111",
    "I": "0e04040404040e",
    "J": "0702020202120c",
    "K": "11121418141211",
    "L": "1010101010101f",
    "M": "111b1515111111",
    "N": "11111915131111",
    "O": "0e11111111110e",
    "P": "1e11111e101010",
    "Q": "0e11111115120d",
    "R": "1e11111e141211",
    "S": "0f10100e01011e",
    "T": "1f040404040404",
    "U": "1111111111110e",
    "V": "11111111110a04",
    "W": "1111111515150a",
    "X": "11110a040a1111",
    "Y": "1111110a040404",
    "Z": "1f01020408101f",
    ":": "000c0c000c0c00",
    ".": "00000000000c0c",
    ",": "000000000c0408",
    "-": "0000001f000000",
    "+": "0004041f040400",
    "/": "00010204081000",
    "#": "0a0a1f0a1f0a0a",
    "%": "18190204081303",
    "(": "02040808080402",
    ")": "08040202020408",
    "=": "00001f001f0000",
    "_": "0000000000001f",
    "?": "0e110102040004",
}


def glyph_rows(character: str) -> list[int]:
    """Return the character's seven rows, each as five bits, the leftmost pixel highest; "?" for one
    not in the font.
    """
    return list(bytes.fromhex(_GLYPHS.get(character.upper(), _GLYPHS["?"])))


class Font:
    """Text as lines of samples: each glyph scaled by a whole number and painted with two luma
    values.
    """

    def __init__(self, scale: int, ink: int, paper: int) -> None:
        assert scale >= 1, "glyphs are scaled up only"
        self.scale = scale
        self._ink, self._paper = bytes([ink]) * scale, bytes([paper]) * scale
        self._cache: dict[
            str, list[bytes]
        ] = {}  # At most one entry for each glyph of the font, and "?".

    def width(self, text: str) -> int:
        """Return the text's width in pixels, without the gap after its last character."""
        return max(0, len(text) * ADVANCE - 1) * self.scale

    @property
    def height(self) -> int:
        """The height of a line of text, in pixels."""
        return GLYPH_HEIGHT * self.scale

    def rows(self, text: str) -> list[bytes]:
        """Return seven lines of samples, `width(text)` long; each is repeated `scale` times."""
        width = self.width(text)
        glyphs = [self._glyph(character) for character in text.upper()]
        return [b"".join(glyph[row] for glyph in glyphs)[:width] for row in range(GLYPH_HEIGHT)]

    def _glyph(self, character: str) -> list[bytes]:
        name = character if character in _GLYPHS else "?"
        if name not in self._cache:
            self._cache[name] = [self._line(bits) for bits in glyph_rows(name)]
        return self._cache[name]

    def _line(self, bits: int) -> bytes:
        pixels = (self._ink if bits >> column & 1 else self._paper for column in range(4, -1, -1))
        return b"".join(pixels) + self._paper
