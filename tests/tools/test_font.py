from edged.tools.font import GLYPH_HEIGHT, Font, glyph_rows


def test_glyphs_fit_their_box_and_differ() -> None:
    characters = " 0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ:.,-+/#%()=_?"
    shapes = {tuple(glyph_rows(character)) for character in characters}
    assert len(shapes) == len(characters)
    for shape in shapes:
        assert len(shape) == GLYPH_HEIGHT
        assert all(0 <= row < 32 for row in shape)


def test_unknown_and_lower_case() -> None:
    assert glyph_rows("é") == glyph_rows("?")
    assert glyph_rows("a") == glyph_rows("A")


def test_text_is_scaled_and_painted() -> None:
    font = Font(2, 200, 10)
    rows = font.rows("I.x€")
    assert font.width("I.x€") == 2 * (4 * 6 - 1)
    assert font.height == 14
    assert [len(row) for row in rows] == [font.width("I.x€")] * GLYPH_HEIGHT
    assert rows[0][:10] == bytes([10, 10, 200, 200, 200, 200, 200, 200, 10, 10])
    assert set(b"".join(rows)) == {10, 200}
    assert font.width("") == 0
    assert font.rows("") == [b""] * GLYPH_HEIGHT
