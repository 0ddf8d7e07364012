import hypothesis
import pytest
from hypothesis import strategies as st

from edged.errors import RemoteProtocolError
from edged.wire.m3u8_reader import read_media
from edged.wire.m3u8_values import (
    LINES_MAX,
    PLAYLIST_BYTES_MAX,
    decimal_us,
    integer,
    needed,
    playlist_lines,
    read_attributes,
    read_date_time,
)


def test_limits() -> None:
    with pytest.raises(RemoteProtocolError, match="limit"):
        read_media(b"#EXTM3U\n" + b"#" * PLAYLIST_BYTES_MAX)
    with pytest.raises(RemoteProtocolError, match="lines, limit"):
        read_media(b"#EXTM3U\n" + b"\n" * LINES_MAX)


def test_dates() -> None:
    assert read_date_time("1970-01-01T00:00:01") == 1_000_000
    assert read_date_time("1970-01-01T01:00:01.25+01:00") == 1_250_000
    assert read_date_time("1970-01-01T00:00:01.1234567Z") == 1_123_456
    with pytest.raises(RemoteProtocolError, match="does not exist"):
        read_date_time("0001-01-01T00:00:00+12:00")


@pytest.mark.parametrize(
    "text",
    [
        "2019-02-14T02:13:36,106+01",
        "20190214T011336.106Z",
        "2019-02-14T01:13:36.1060000000000Z",
        "2019-02-14T02:13:36.106+0100",
    ],
)
def test_dates_may_be_of_any_form_of_iso_8601(text: str) -> None:
    """RFC 8216bis §4.4.4.6 asks for ISO/IEC 8601 and shows only one form of it."""
    assert read_date_time(text) == 1_550_106_816_106_000


def test_numbers() -> None:
    """RFC 8216bis §4.2: digits and a point, wherever it stands, however many."""
    assert decimal_us("4", "x") == decimal_us("4.", "x") == decimal_us("4.00000000000000000", "x")
    assert decimal_us(".5", "x") == 500_000
    assert decimal_us("3.3333333333333335", "x") == 3_333_333
    for text in ("", ".", "-1", "1e3", "1.2.3", "\u0661"):
        with pytest.raises(RemoteProtocolError, match="no decimal number"):
            decimal_us(text, "x")
    assert integer("18446744073709551615", "x") == 2**64 - 1
    for text in ("", "-1", "1.0", "\u0661", "1" * 21):
        with pytest.raises(RemoteProtocolError, match=r"x .* is no decimal integer"):
            integer(text, "x")
    assert needed({"A": "b"}, "A", "TAG") == "b"
    with pytest.raises(RemoteProtocolError, match="TAG without B"):
        needed({"A": "b"}, "B", "TAG")


def test_lines_have_their_numbers() -> None:
    text = b"#EXTM3U\r\n# A comment.\r\n\r\n#EXT-X-A\r\nuri"
    assert playlist_lines(text) == [(4, "#EXT-X-A"), (5, "uri")]
    with pytest.raises(RemoteProtocolError, match="the first line"):
        playlist_lines(b"\xef\xbb\xbf#EXTM3U\n")


@hypothesis.given(
    st.dictionaries(st.from_regex(r"\A[A-Z][A-Z0-9-]{0,8}\Z"), st.text("aB1 ,=/é"), max_size=5)
)
def test_attribute_lists(attributes: dict[str, str]) -> None:
    text = ",".join(f'{name}="{value}"' for name, value in attributes.items())
    assert read_attributes(text) == attributes
