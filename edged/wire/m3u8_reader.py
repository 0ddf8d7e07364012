"""HLS playlists as a client reads them (RFC 8216bis §4): attributes, segments and their parts.

For `edged conform`, which is pointed at anybody's server: what the syntax forbids is an error that
names the line, what is only unwise is for the checks to say.
"""

import re
from datetime import UTC, datetime

from msgspec import Struct, field

from edged.errors import RemoteProtocolError

PLAYLIST_BYTES_MAX = 8 * 2**20  # Hours of short segments.
LINES_MAX = 200_000
US = 1_000_000
_ATTRIBUTE = re.compile(r'([A-Z0-9-]+)=("[^"\r\n]*"|[^",\s][^,\r\n]*)(?:,|$)')
_DECIMAL = re.compile(r"\d{1,9}(?:\.\d{1,12})?")
_DATE_TIME = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:?\d\d)?", re.ASCII
)

Attributes = dict[str, str]  # Quoted strings without their quotes.


class ReadPart(Struct, frozen=True, kw_only=True):
    """One EXT-X-PART."""

    uri: str
    duration_us: int
    independent: bool = False
    gap: bool = False
    byte_range: str = ""


class ReadSegment(Struct, kw_only=True):
    """One segment, whole or, without a URI, as far as its parts go."""

    msn: int
    uri: str = ""
    duration_us: int = 0  # EXTINF; 0 while it is not whole.
    title: str = ""
    parts: list[ReadPart] = field(default_factory=list)
    gap: bool = False
    discontinuity: bool = False  # EXT-X-DISCONTINUITY stands before it.
    discontinuity_sequence: int = 0
    map_uri: str = ""  # In force.
    date_time_us: int | None = None  # Since 1970, where a tag of its own says so.
    late_tags: list[str] = field(default_factory=list)  # Behind a part, where they must precede it.

    @property
    def is_whole(self) -> bool:
        """Whether its URI is listed."""
        return bool(self.uri)

    @property
    def media_us(self) -> int:
        """Its duration, or that of its parts so far."""
        return self.duration_us or sum(part.duration_us for part in self.parts)


class ReadHint(Struct, frozen=True):
    """One EXT-X-PRELOAD-HINT."""

    type: str  # PART or MAP.
    uri: str


class ReadReport(Struct, frozen=True):
    """One EXT-X-RENDITION-REPORT."""

    uri: str
    last_msn: int | None
    last_part: int | None


class ReadSkip(Struct, frozen=True):
    """EXT-X-SKIP."""

    segments: int
    removed_dateranges: str


class ReadMedia(Struct, kw_only=True):
    """A media playlist."""

    version: int = 1
    target_duration_s: int | None = None
    control: Attributes = field(default_factory=dict)  # EXT-X-SERVER-CONTROL.
    part_target_us: int | None = None
    media_sequence: int = 0
    discontinuity_sequence: int = 0
    segments: list[ReadSegment] = field(default_factory=list)
    hints: list[ReadHint] = field(default_factory=list)
    reports: list[ReadReport] = field(default_factory=list)
    skip: ReadSkip | None = None
    dateranges: list[Attributes] = field(default_factory=list)
    ended: bool = False
    tags: dict[str, int] = field(default_factory=dict)  # How often each stands in it.

    @property
    def last(self) -> tuple[int, int]:
        """MSN and part of what comes last; the part is -1 without one. (-1, -1): nothing."""
        if not self.segments:
            return -1, -1
        return self.segments[-1].msn, len(self.segments[-1].parts) - 1

    @property
    def last_whole(self) -> int:
        """MSN of the last whole segment; -1 without one."""
        return max((segment.msn for segment in self.segments if segment.is_whole), default=-1)

    def segment(self, msn: int) -> ReadSegment | None:
        """A segment that is listed and not skipped."""
        index = msn - self.segments[0].msn if self.segments else -1
        return self.segments[index] if 0 <= index < len(self.segments) else None

    def seconds(self, name: str) -> float | None:
        """An attribute of EXT-X-SERVER-CONTROL, where it is a decimal number."""
        value = self.control.get(name)
        return None if value is None else _decimal_us(value, name) / US


class ReadVariant(Struct, frozen=True):
    """EXT-X-STREAM-INF and its URI."""

    uri: str
    attributes: Attributes


class ReadMultivariant(Struct, kw_only=True):
    """A multivariant playlist."""

    version: int = 1
    variants: list[ReadVariant] = field(default_factory=list)
    media: list[Attributes] = field(default_factory=list)  # EXT-X-MEDIA.


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


def read_multivariant(data: bytes) -> ReadMultivariant:
    """A multivariant playlist; raises `RemoteProtocolError` naming the line."""
    playlist = ReadMultivariant()
    pending: Attributes | None = None
    for number, line in _lines(data):
        try:
            if not line.startswith("#"):
                if pending is None:
                    raise RemoteProtocolError("a URI without EXT-X-STREAM-INF")  # noqa: TRY301
                playlist.variants.append(ReadVariant(line, pending))
                pending = None
                continue
            tag, _, value = line[1:].partition(":")
            if tag == "EXT-X-STREAM-INF":
                pending = read_attributes(value)
            elif tag == "EXT-X-MEDIA":
                playlist.media.append(read_attributes(value))
            elif tag == "EXT-X-VERSION":
                playlist.version = _integer(value, tag)
        except RemoteProtocolError as error:
            raise RemoteProtocolError(f"line {number}: {error}") from None
    if pending is not None:
        raise RemoteProtocolError("the last EXT-X-STREAM-INF has no URI")
    return playlist


def is_multivariant(data: bytes) -> bool:
    """Whether a playlist lists variants rather than segments."""
    return b"#EXT-X-STREAM-INF:" in data


def read_media(data: bytes) -> ReadMedia:
    """A media playlist; raises `RemoteProtocolError` naming the line."""
    reader = _MediaReader()
    for number, line in _lines(data):
        try:
            reader.take(line)
        except RemoteProtocolError as error:
            raise RemoteProtocolError(f"line {number}: {error}") from None
    return reader.finish()


class _MediaReader:
    """A media playlist, line by line."""

    def __init__(self) -> None:
        self._playlist = ReadMedia()
        self._segment: ReadSegment | None = None  # What the next URI belongs to.
        self._map_uri = ""
        self._discontinuities = 0

    def take(self, line: str) -> None:
        """A line that is neither empty nor a comment."""
        playlist = self._playlist
        if not line.startswith("#"):
            segment = self._current()
            if not segment.duration_us and not segment.gap:
                raise RemoteProtocolError(f"segment {line[:100]!r} without EXTINF")
            segment.uri, self._segment = line, None
            return
        tag, _, value = line[1:].partition(":")
        playlist.tags[tag] = playlist.tags.get(tag, 0) + 1
        if (read := _TAGS.get(tag)) is not None:
            read(self, tag, value)

    def finish(self) -> ReadMedia:
        """The playlist."""
        playlist = self._playlist
        if self._segment is not None and not self._segment.parts:
            playlist.segments.pop()  # Tags that stand for the segment to come.
        return playlist

    def _current(self) -> ReadSegment:
        if self._segment is None:
            playlist = self._playlist
            skipped = playlist.skip.segments if playlist.skip else 0
            self._segment = ReadSegment(
                msn=playlist.media_sequence + skipped + len(playlist.segments),
                map_uri=self._map_uri,
                discontinuity_sequence=playlist.discontinuity_sequence + self._discontinuities,
            )
            playlist.segments.append(self._segment)
        return self._segment

    def _read_part(self, tag: str, value: str) -> None:
        attributes = read_attributes(value)
        self._current().parts.append(
            ReadPart(
                uri=_needed(attributes, "URI", tag),
                duration_us=_decimal_us(_needed(attributes, "DURATION", tag), "DURATION"),
                independent=attributes.get("INDEPENDENT") == "YES",
                gap=attributes.get("GAP") == "YES",
                byte_range=attributes.get("BYTERANGE", ""),
            )
        )

    def _read_extinf(self, tag: str, value: str) -> None:
        duration, _, title = value.partition(",")
        segment = self._current()
        segment.duration_us, segment.title = _decimal_us(duration, tag), title

    def _read_map(self, tag: str, value: str) -> None:
        self._map_uri = _needed(read_attributes(value), "URI", tag)
        self._precede(tag).map_uri = self._map_uri

    def _read_date_time(self, tag: str, value: str) -> None:
        self._precede(tag).date_time_us = read_date_time(value)

    def _read_discontinuity(self, tag: str, _: str) -> None:
        segment = self._precede(tag)
        segment.discontinuity = True
        self._discontinuities += 1
        segment.discontinuity_sequence += 1

    def _read_gap(self, _tag: str, _value: str) -> None:
        self._current().gap = True

    def _read_key(self, tag: str, _: str) -> None:
        self._precede(tag)

    def _precede(self, tag: str) -> ReadSegment:
        """The segment of a tag that has to stand before its first part."""
        segment = self._current()
        if segment.parts:
            segment.late_tags.append(tag)
        return segment

    def _read_header(self, tag: str, value: str) -> None:
        playlist = self._playlist
        if tag == "EXT-X-SERVER-CONTROL":
            playlist.control = read_attributes(value)
        elif tag == "EXT-X-PART-INF":
            target = _needed(read_attributes(value), "PART-TARGET", tag)
            playlist.part_target_us = _decimal_us(target, "PART-TARGET")
        elif tag == "EXT-X-VERSION":
            playlist.version = _integer(value, tag)
        elif tag == "EXT-X-TARGETDURATION":
            playlist.target_duration_s = _integer(value, tag)
        elif playlist.segments:
            raise RemoteProtocolError(f"{tag} behind a segment")
        elif tag == "EXT-X-MEDIA-SEQUENCE":
            playlist.media_sequence = _integer(value, tag)
        else:
            playlist.discontinuity_sequence = _integer(value, tag)

    def _read_skip(self, tag: str, value: str) -> None:
        playlist, begun = self._playlist, self._segment
        if playlist.skip is not None or any(s.uri or s.parts for s in playlist.segments):
            raise RemoteProtocolError(f"{tag} stands twice, or behind a segment")
        attributes = read_attributes(value)
        skipped = _integer(_needed(attributes, "SKIPPED-SEGMENTS", tag), tag)
        playlist.skip = ReadSkip(skipped, attributes.get("RECENTLY-REMOVED-DATERANGES", ""))
        if begun is not None:  # Of what stands before it, as EXT-X-MAP.
            begun.msn += skipped

    def _read_hint(self, tag: str, value: str) -> None:
        attributes = read_attributes(value)
        hint = ReadHint(_needed(attributes, "TYPE", tag), _needed(attributes, "URI", tag))
        self._playlist.hints.append(hint)

    def _read_report(self, tag: str, value: str) -> None:
        attributes = read_attributes(value)
        msn, part = attributes.get("LAST-MSN"), attributes.get("LAST-PART")
        self._playlist.reports.append(
            ReadReport(
                _needed(attributes, "URI", tag),
                None if msn is None else _integer(msn, "LAST-MSN"),
                None if part is None else _integer(part, "LAST-PART"),
            )
        )

    def _read_daterange(self, _tag: str, value: str) -> None:
        self._playlist.dateranges.append(read_attributes(value))

    def _read_end(self, _tag: str, _value: str) -> None:
        self._playlist.ended = True


_TAGS = {
    "EXT-X-PART": _MediaReader._read_part,
    "EXTINF": _MediaReader._read_extinf,
    "EXT-X-MAP": _MediaReader._read_map,
    "EXT-X-PROGRAM-DATE-TIME": _MediaReader._read_date_time,
    "EXT-X-DISCONTINUITY": _MediaReader._read_discontinuity,
    "EXT-X-GAP": _MediaReader._read_gap,
    "EXT-X-KEY": _MediaReader._read_key,
    **dict.fromkeys(
        (
            *("EXT-X-SERVER-CONTROL", "EXT-X-PART-INF", "EXT-X-VERSION", "EXT-X-TARGETDURATION"),
            *("EXT-X-MEDIA-SEQUENCE", "EXT-X-DISCONTINUITY-SEQUENCE"),
        ),
        _MediaReader._read_header,
    ),
    "EXT-X-SKIP": _MediaReader._read_skip,
    "EXT-X-PRELOAD-HINT": _MediaReader._read_hint,
    "EXT-X-RENDITION-REPORT": _MediaReader._read_report,
    "EXT-X-DATERANGE": _MediaReader._read_daterange,
    "EXT-X-ENDLIST": _MediaReader._read_end,
}


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


def _lines(data: bytes) -> list[tuple[int, str]]:
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


def _needed(attributes: Attributes, name: str, tag: str) -> str:
    if name not in attributes:
        raise RemoteProtocolError(f"{tag} without {name}")
    return attributes[name]


def _integer(text: str, what: str) -> int:
    if not text.isdecimal() or not text.isascii() or len(text) > 20:  # noqa: PLR2004 - 64 bits
        raise RemoteProtocolError(f"{what} {text[:40]!r} is no decimal integer")
    return int(text)


def _decimal_us(text: str, what: str) -> int:
    if _DECIMAL.fullmatch(text) is None:
        raise RemoteProtocolError(f"{what} {text[:40]!r} is no decimal number")
    whole, _, fraction = text.partition(".")
    return int(whole) * US + int(fraction.ljust(6, "0")[:6])
