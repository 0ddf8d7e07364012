"""HLS playlists as a client reads them (RFC 8216bis §4): attributes, segments and their parts.

For `edged conform`, which is pointed at anybody's server: what the syntax forbids is an error that
names the line, what is only unwise is for the checks to say.
"""

import re

from msgspec import Struct, field
from msgspec.structs import replace

from edged.errors import RemoteProtocolError
from edged.wire.m3u8_values import (
    US,
    Attributes,
    decimal_us,
    integer,
    needed,
    playlist_lines,
    read_attributes,
    read_date_time,
)

_RANGE = re.compile(r"(\d{1,18})(?:@(\d{1,18}))?", re.ASCII)


class ReadRange(Struct, frozen=True):
    """Bytes of a resource."""

    start: int
    length: int | None = None  # None: to its end.


class ReadPart(Struct, frozen=True, kw_only=True):
    """One EXT-X-PART."""

    uri: str
    duration_us: int
    independent: bool = False
    gap: bool = False
    range: ReadRange | None = None  # BYTERANGE; None: the whole resource.
    line: int = 0  # Behind its segment's first.


class ReadSegment(Struct, kw_only=True):
    """One segment, whole or, without a URI, as far as its parts go."""

    msn: int
    uri: str = ""
    range: ReadRange | None = None  # EXT-X-BYTERANGE; None: the whole resource.
    duration_us: int | None = None  # EXTINF, which may be 0; None while it is not whole.
    title: str = ""
    parts: list[ReadPart] = field(default_factory=list)
    gap: bool = False
    discontinuity: bool = False  # EXT-X-DISCONTINUITY stands before it.
    discontinuity_sequence: int = 0
    map_uri: str = ""  # In force, as are:
    map_range: ReadRange | None = None
    keys: tuple[str, ...] = ()  # EXT-X-KEY's attributes.
    date_time_us: int | None = None  # Since 1970, where a tag of its own says so.
    late_tags: list[str] = field(default_factory=list)  # Behind a part, where they must precede it.

    @property
    def is_whole(self) -> bool:
        """Whether its URI is listed."""
        return bool(self.uri)

    @property
    def media_us(self) -> int:
        """Its duration, or that of its parts so far."""
        if self.duration_us is not None:
            return self.duration_us
        return sum(part.duration_us for part in self.parts)


class ReadHint(Struct, frozen=True):
    """One EXT-X-PRELOAD-HINT."""

    type: str  # PART or MAP.
    uri: str
    range: ReadRange | None = None  # BYTERANGE-START and -LENGTH; None: the whole resource.


class ReadReport(Struct, frozen=True):
    """One EXT-X-RENDITION-REPORT."""

    uri: str
    last_msn: int | None  # None: as that of the playlist that it stands in (§4.4.5.4).
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
    tag_lines: dict[str, int] = field(default_factory=dict)  # Where each stands first.
    lines: list[int] = field(default_factory=list)  # Where each segment begins.
    version_needed: int = 1  # By its tags (§8).

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

    def line(self, msn: int, part: int | None = None) -> int:
        """Where a segment, or a part of it, stands; 0: nowhere."""
        segment = self.segment(msn)
        if segment is None:
            return 0
        first = self.lines[msn - self.segments[0].msn]
        known = part is not None and part < len(segment.parts)
        return first + (segment.parts[part].line if known and part is not None else 0)

    def seconds(self, name: str) -> float | None:
        """An attribute of EXT-X-SERVER-CONTROL, where it is a decimal number."""
        value = self.control.get(name)
        return None if value is None else decimal_us(value, name) / US


class ReadVariant(Struct, frozen=True):
    """EXT-X-STREAM-INF and its URI."""

    uri: str
    attributes: Attributes


class ReadMultivariant(Struct, kw_only=True):
    """A multivariant playlist."""

    version: int = 1
    variants: list[ReadVariant] = field(default_factory=list)
    media: list[Attributes] = field(default_factory=list)  # EXT-X-MEDIA.


def read_multivariant(data: bytes) -> ReadMultivariant:
    """A multivariant playlist; raises `RemoteProtocolError` naming the line."""
    playlist = ReadMultivariant()
    pending: Attributes | None = None
    for number, line in playlist_lines(data):
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
                playlist.version = integer(value, tag)
        except RemoteProtocolError as error:
            raise RemoteProtocolError(f"line {number}: {error}") from None
    if pending is not None:
        raise RemoteProtocolError("the last EXT-X-STREAM-INF has no URI")
    return playlist


def is_multivariant(data: bytes) -> bool:
    """Whether a playlist lists variants rather than segments."""
    return b"#EXT-X-STREAM-INF:" in data


def read_media(data: bytes, before: ReadMedia | None = None) -> ReadMedia:
    """A media playlist; raises `RemoteProtocolError` naming the line.

    What a delta update skips is taken from the version `before` it, as clients do (§6.3.7).
    """
    reader = _MediaReader(before)
    for number, line in playlist_lines(data):
        try:
            reader.take(number, line)
        except RemoteProtocolError as error:
            raise RemoteProtocolError(f"line {number}: {error}") from None
    return reader.finish()


class _MediaReader:
    """A media playlist, line by line."""

    def __init__(self, before: ReadMedia | None) -> None:
        self._playlist = ReadMedia()
        self._before = before
        self._line = 0
        self._segment: ReadSegment | None = None  # What the next URI belongs to.
        self._map: tuple[str, ReadRange | None] = ("", None)
        self._keys: tuple[str, ...] = ()
        self._keyed: ReadSegment | None = None  # The segment that they stand before.
        self._range = ""  # EXT-X-BYTERANGE of the next URI.
        self._ends: dict[str, tuple[str, int]] = {}  # By tag: the last range's URI, and its end.
        self._skipped = 0  # Segments that are not known.
        self._begun = False  # A segment's URI or a part was there.

    def take(self, number: int, line: str) -> None:
        """A line that is neither empty nor a comment."""
        self._line = number
        playlist = self._playlist
        if not line.startswith("#"):
            segment = self._current()
            if segment.duration_us is None and not segment.gap:
                raise RemoteProtocolError(f"segment {line[:100]!r} without EXTINF")
            if self._range:
                segment.range = self._range_of("EXT-X-BYTERANGE", line, self._range)
            segment.uri, self._segment, self._range, self._begun = line, None, "", True
            return
        tag, _, value = line[1:].partition(":")
        playlist.tags[tag] = playlist.tags.get(tag, 0) + 1
        playlist.tag_lines.setdefault(tag, number)
        self._need(_VERSIONS.get(tag, 1))
        if (read := _TAGS.get(tag)) is not None:
            read(self, tag, value)

    def finish(self) -> ReadMedia:
        """The playlist."""
        playlist = self._playlist
        if self._segment is not None and not self._segment.parts:
            playlist.segments.pop()  # Tags that stand for the segment to come.
            playlist.lines.pop()
        # EXT-X-MEDIA-SEQUENCE may stand behind tags of the first segment, only not behind itself.
        discontinuities = playlist.discontinuity_sequence
        for msn, segment in enumerate(playlist.segments, playlist.media_sequence + self._skipped):
            discontinuities += segment.discontinuity
            segment.msn, segment.discontinuity_sequence = msn, discontinuities
        if "EXT-X-MAP" in playlist.tags and "EXT-X-I-FRAMES-ONLY" not in playlist.tags:
            self._need(6)
        return playlist

    def _need(self, version: int) -> None:
        self._playlist.version_needed = max(self._playlist.version_needed, version)

    def _current(self) -> ReadSegment:
        if self._segment is None:
            self._segment = ReadSegment(
                msn=0, map_uri=self._map[0], map_range=self._map[1], keys=self._keys
            )
            self._playlist.segments.append(self._segment)
            self._playlist.lines.append(self._line)
        return self._segment

    def _range_of(self, tag: str, uri: str, value: str) -> ReadRange:
        """A byte range (§4.4.4.2); without an offset it follows the one before."""
        match = _RANGE.fullmatch(value)
        if match is None:
            raise RemoteProtocolError(f"{tag}: byte range {value[:60]!r} is not n[@o]")
        length, start = int(match[1]), match[2]
        known, end = self._ends.get(tag, ("", 0))
        if start is None and known != uri and tag != "EXT-X-MAP" and not self._skipped:
            raise RemoteProtocolError(
                f"{tag}: byte range {value[:60]!r} without an offset, behind none of {uri[:100]!r}"
            )
        found = ReadRange(int(start) if start is not None else end if known == uri else 0, length)
        self._ends[tag] = uri, found.start + length
        return found

    def _read_part(self, tag: str, value: str) -> None:
        attributes = read_attributes(value)
        uri, given = needed(attributes, "URI", tag), attributes.get("BYTERANGE")
        segment = self._current()
        segment.parts.append(
            ReadPart(
                uri=uri,
                duration_us=decimal_us(needed(attributes, "DURATION", tag), "DURATION"),
                independent=attributes.get("INDEPENDENT") == "YES",
                gap=attributes.get("GAP") == "YES",
                range=None if given is None else self._range_of(tag, uri, given),
                line=self._line - self._playlist.lines[-1],
            )
        )
        self._begun = True

    def _read_extinf(self, tag: str, value: str) -> None:
        duration, _, title = value.partition(",")
        segment = self._current()
        segment.duration_us, segment.title = decimal_us(duration, tag), title
        self._need(3 if "." in duration else 1)

    def _read_byte_range(self, _: str, value: str) -> None:
        self._current()
        self._range = value

    def _read_map(self, tag: str, value: str) -> None:
        attributes = read_attributes(value)
        uri, given = needed(attributes, "URI", tag), attributes.get("BYTERANGE")
        self._map = uri, None if given is None else self._range_of(tag, uri, given)
        segment = self._precede(tag)
        segment.map_uri, segment.map_range = self._map

    def _read_date_time(self, tag: str, value: str) -> None:
        self._precede(tag).date_time_us = read_date_time(value)

    def _read_discontinuity(self, tag: str, _: str) -> None:
        self._precede(tag).discontinuity = True

    def _read_gap(self, _tag: str, _value: str) -> None:
        self._current().gap = True

    def _read_key(self, tag: str, value: str) -> None:
        segment = self._precede(tag)
        attributes = read_attributes(value)
        self._need(2 if "IV" in attributes else 1)
        self._need(5 if "KEYFORMAT" in attributes or "KEYFORMATVERSIONS" in attributes else 1)
        # Several at once are for several key systems (§4.4.4.4).
        kept = self._keys if self._keyed is segment else ()
        self._keys = () if attributes.get("METHOD") == "NONE" else (*kept, value)
        self._keyed, segment.keys = segment, self._keys

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
            target = needed(read_attributes(value), "PART-TARGET", tag)
            playlist.part_target_us = decimal_us(target, "PART-TARGET")
        elif tag == "EXT-X-VERSION":
            playlist.version = integer(value, tag)
        elif tag == "EXT-X-TARGETDURATION":
            playlist.target_duration_s = integer(value, tag)
        elif self._begun:  # Tags alone, as EXT-X-MAP, are no segment (§4.4.3.2).
            raise RemoteProtocolError(f"{tag} behind a segment")
        elif tag == "EXT-X-MEDIA-SEQUENCE":
            playlist.media_sequence = integer(value, tag)
        elif "EXT-X-DISCONTINUITY" in playlist.tags:
            raise RemoteProtocolError(f"{tag} behind EXT-X-DISCONTINUITY")
        else:
            playlist.discontinuity_sequence = integer(value, tag)

    def _read_skip(self, tag: str, value: str) -> None:
        playlist, begun = self._playlist, self._segment
        if playlist.skip is not None:
            raise RemoteProtocolError(f"{tag} stands twice")
        if self._begun:
            raise RemoteProtocolError(f"{tag} behind a segment")
        attributes = read_attributes(value)
        skipped = integer(needed(attributes, "SKIPPED-SEGMENTS", tag), tag)
        removed = attributes.get("RECENTLY-REMOVED-DATERANGES")
        self._need(9 if removed is None else 10)
        playlist.skip = ReadSkip(skipped, removed or "")
        if self._before is None:
            self._skipped = skipped
            return
        taken = [self._known(playlist.media_sequence + index) for index in range(skipped)]
        playlist.segments[:0] = taken
        playlist.lines[:0] = [self._line] * skipped
        if taken:
            last = taken[-1]
            if last.range is not None and last.range.length is not None:
                self._ends["EXT-X-BYTERANGE"] = last.uri, last.range.start + last.range.length
            if "EXT-X-MAP" not in playlist.tags:
                self._map = last.map_uri, last.map_range
            if "EXT-X-KEY" not in playlist.tags:
                self._keys = last.keys
        if begun is not None:  # Tags that stand before it, as EXT-X-MAP.
            (begun.map_uri, begun.map_range), begun.keys = self._map, self._keys

    def _known(self, msn: int) -> ReadSegment:
        """A segment that is skipped."""
        assert self._before is not None, "only then is it asked for"
        segment = self._before.segment(msn)
        if segment is None:
            raise RemoteProtocolError(
                f"segment {msn} is skipped, though the version before did not list it"
            )
        return replace(segment)

    def _read_hint(self, tag: str, value: str) -> None:
        attributes = read_attributes(value)
        start, length = (attributes.get(f"BYTERANGE-{name}") for name in ("START", "LENGTH"))
        given: ReadRange | None = None
        if start is not None or length is not None:
            given = ReadRange(
                0 if start is None else integer(start, "BYTERANGE-START"),
                None if length is None else integer(length, "BYTERANGE-LENGTH"),
            )
        self._playlist.hints.append(
            ReadHint(needed(attributes, "TYPE", tag), needed(attributes, "URI", tag), given)
        )

    def _read_report(self, tag: str, value: str) -> None:
        attributes = read_attributes(value)
        msn, part = attributes.get("LAST-MSN"), attributes.get("LAST-PART")
        self._playlist.reports.append(
            ReadReport(
                needed(attributes, "URI", tag),
                None if msn is None else integer(msn, "LAST-MSN"),
                None if part is None else integer(part, "LAST-PART"),
            )
        )

    def _read_daterange(self, _tag: str, value: str) -> None:
        self._playlist.dateranges.append(read_attributes(value))

    def _read_define(self, _: str, value: str) -> None:
        self._need(11 if "QUERYPARAM" in read_attributes(value) else 8)

    def _read_end(self, _tag: str, _value: str) -> None:
        self._playlist.ended = True


_VERSIONS = {  # By which protocol version a tag came (§8); what depends on attributes is above.
    "EXT-X-BYTERANGE": 4,
    "EXT-X-I-FRAMES-ONLY": 4,
    "EXT-X-MAP": 5,
}
_TAGS = {
    "EXT-X-PART": _MediaReader._read_part,
    "EXTINF": _MediaReader._read_extinf,
    "EXT-X-MAP": _MediaReader._read_map,
    "EXT-X-PROGRAM-DATE-TIME": _MediaReader._read_date_time,
    "EXT-X-DISCONTINUITY": _MediaReader._read_discontinuity,
    "EXT-X-BYTERANGE": _MediaReader._read_byte_range,
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
    "EXT-X-DEFINE": _MediaReader._read_define,
    "EXT-X-ENDLIST": _MediaReader._read_end,
}
