"""What playlists are made of (RFC 8216bis §4.1, §4.2): lines, attribute lists, numbers, dates."""

import re
from datetime import UTC, datetime

from edged.errors import RemoteProtocolError

PLAYLIST_BYTES_MAX = 8 * 2**20  # Hours of short segments.
LINES_MAX = 200_000
US = 1_000_000
_ATTRIBUTE = re.compile(r'([A-Z0-9-]+)=("[^"\r\n]*"|[^",\s][^,\r\n]*)(?:,|$)')
_DECIMAL = re.compile(r"(?=\.?\d)(\d{0,9})(?:\.(\d{0,60}))?", re.ASCII)  # Any of [0-9.] (§4.2).
_DATE_TIME = re.compile(  # ISO 8601, its basic format too.
    r"(\d{4}-?\d\d-?\d\dT\d\d:?\d\d(?::?\d\d)?)(?:[.,](\d{1,60}))?(Z|[+-]\d\d(?::?\d\d)?)?",
    re.ASCII,
)


Attributes = dict[str, str]  # Quoted strings without their quotes.


def read_attributes(text: str) -> Attributes:
    """An attribute list (§4.2); raises `RemoteProtocolError`."""
    found: Attributes = {}
    at = 0
    while at < len(text):
        match = _ATTRIBUTE.match(text, at)
        if match is None:
            raise RemoteProtocolError(f"attribute list {text[:200]!r}, at {text[at : at + 40]!r}")
        if match[1] in found:
            raise RemoteProtocolError(f"attribute {match[1]} stands twice in {text[:200]!r}")
        found[match[1]] = match[2].strip('"')
        at = match.end()
    return found


def read_date_time(text: str) -> int:
    """An EXT-X-PROGRAM-DATE-TIME as microseconds since 1970; without a zone it is UTC's."""
    match = _DATE_TIME.fullmatch(text)
    if match is None:
        raise RemoteProtocolError(f"date {text[:60]!r} is not of ISO 8601")
    try:
        zone = "+00:00" if match[3] in (None, "Z") else match[3]
        whole = datetime.fromisoformat(match[1] + zone).astimezone(UTC)
    except (ValueError, OverflowError):
        raise RemoteProtocolError(f"date {text[:60]!r} does not exist") from None
    fraction = (match[2] or "").ljust(6, "0")[:6]
    return round(whole.timestamp()) * US + int(fraction)


def playlist_lines(data: bytes) -> list[tuple[int, str]]:
    """The lines that say something, with their numbers; the first is #EXTM3U."""
    if len(data) > PLAYLIST_BYTES_MAX:
        raise RemoteProtocolError(f"playlist of {len(data)} bytes, limit {PLAYLIST_BYTES_MAX}")
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError as error:
        raise RemoteProtocolError(f"playlist is not UTF-8: {error}") from None
    if len(lines) > LINES_MAX:
        raise RemoteProtocolError(f"playlist of {len(lines)} lines, limit {LINES_MAX}")
    if lines[0].rstrip("\r") != "#EXTM3U":
        raise RemoteProtocolError(f"the first line is {lines[0][:60]!r}, not #EXTM3U")
    stripped = ((number, line.rstrip("\r")) for number, line in enumerate(lines, 1))
    return [
        (number, line)
        for number, line in stripped
        if line and number > 1 and (not line.startswith("#") or line.startswith("#EXT"))
    ]


def needed(attributes: Attributes, name: str, tag: str) -> str:
    if name not in attributes:
        raise RemoteProtocolError(f"{tag} without {name}")
    return attributes[name]


def integer(text: str, what: str) -> int:
    if not text.isdecimal() or not text.isascii() or len(text) > 20:  # noqa: PLR2004 - 64 bits
        raise RemoteProtocolError(f"{what} {text[:40]!r} is no decimal integer")
    return int(text)


def decimal_us(text: str, what: str) -> int:
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise RemoteProtocolError(f"{what} {text[:40]!r} is no decimal number")
    return int(match[1] or "0") * US + int((match[2] or "").ljust(6, "0")[:6])
