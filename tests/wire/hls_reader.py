"""Reads media playlists as strictly as the tests need: tags in order, attributes split."""

import re

from msgspec import Struct, field


class ReadPart(Struct):
    uri: str
    duration_us: int
    independent: bool
    gap: bool


class ReadSegment(Struct):
    """What stands between two segment URIs; `uri` is empty for the one that still grows."""

    msn: int
    uri: str = ""
    duration_us: int = 0
    gap: bool = False
    discontinuity: bool = False
    map_uri: str | None = None
    date_time: str = ""
    parts: list[ReadPart] = field(default_factory=list)
    order: list[str] = field(default_factory=list)


class ReadPlaylist(Struct):
    header: dict[str, str]
    segments: list[ReadSegment]
    tail: list[tuple[str, dict[str, str]]]

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tail if name == tag]

    def control(self) -> dict[str, str]:
        return attributes_of(self.header["EXT-X-SERVER-CONTROL"])


def attributes_of(text: str) -> dict[str, str]:
    found = re.findall(r'([A-Z0-9-]+)=("[^"\r\n]*"|[^,"]+)(?:,|$)', text)
    assert ",".join(f"{key}={value}" for key, value in found) == text, text
    return {key: value.strip('"') for key, value in found}


def microseconds(text: str) -> int:
    whole, _, fraction = text.partition(".")
    return int(whole) * 1_000_000 + int(fraction.ljust(6, "0")[:6])


HEADER = (
    *("EXT-X-VERSION", "EXT-X-TARGETDURATION", "EXT-X-SERVER-CONTROL", "EXT-X-PART-INF"),
    *("EXT-X-MEDIA-SEQUENCE", "EXT-X-DISCONTINUITY-SEQUENCE"),
)
TAIL = ("EXT-X-PRELOAD-HINT", "EXT-X-RENDITION-REPORT", "EXT-X-ENDLIST")


def read_media_playlist(data: bytes) -> ReadPlaylist:
    lines = data.decode().split("\n")
    assert lines[0] == "#EXTM3U"
    assert lines[-1] == ""
    playlist = ReadPlaylist({}, [], [])
    current: ReadSegment | None = None
    for line in lines[1:-1]:
        if line.startswith("#"):
            tag, _, value = line[1:].partition(":")
            if tag in HEADER:
                assert not playlist.segments
                assert tag not in playlist.header
                playlist.header[tag] = value
                continue
            if tag in TAIL:
                playlist.tail.append((tag, attributes_of(value) if value else {}))
                continue
            assert not playlist.tail, "segments end where the tail begins"
        if current is None:
            first = int(playlist.header["EXT-X-MEDIA-SEQUENCE"])
            current = ReadSegment(msn=first + len(playlist.segments))
            playlist.segments.append(current)
        if not line.startswith("#"):
            current.uri = line
            current = None
            continue
        current.order.append(tag)
        read_segment_tag(current, tag, value)
    return playlist


def read_segment_tag(segment: ReadSegment, tag: str, value: str) -> None:
    if tag == "EXT-X-PART":
        attributes = attributes_of(value)
        segment.parts.append(
            ReadPart(
                attributes["URI"],
                microseconds(attributes["DURATION"]),
                attributes.get("INDEPENDENT") == "YES",
                attributes.get("GAP") == "YES",
            )
        )
    elif tag == "EXTINF":
        segment.duration_us = microseconds(value.removesuffix(","))
    elif tag == "EXT-X-MAP":
        segment.map_uri = attributes_of(value)["URI"]
    elif tag == "EXT-X-PROGRAM-DATE-TIME":
        segment.date_time = value
    elif tag == "EXT-X-DISCONTINUITY":
        segment.discontinuity = True
    else:
        assert tag == "EXT-X-GAP", tag
        segment.gap = True
