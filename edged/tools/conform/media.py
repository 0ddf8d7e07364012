"""Parts and segments, files or byte ranges of files: what is kept of them is not their bytes."""

import hashlib
import re

from msgspec import Struct, field
from msgspec.structs import replace

from edged.errors import RemoteProtocolError
from edged.tools.conform.answer import Answer
from edged.wire.cmaf.reader import ReadInit, read_samples
from edged.wire.m3u8_reader import ReadPart, ReadRange, ReadSegment

OK, PARTIAL = 200, 206
UNKNOWN_END = 2**53 - 1  # Of a hinted range without a length (RFC 8216bis §6.2.6).
PROBED_RANGE = ReadRange(10, 90)  # Of a segment, to see whether ranges are served.
PIECES_MAX = 512  # Parts of a rendition that are kept, the newest; their samples:
SAMPLES_KEPT_MAX = 50_000
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(?:\d+|\*)", re.ASCII)

Place = tuple[str, ReadRange | None]  # A URI, and which of its bytes; None: all.


class Sample(Struct, frozen=True):
    """One sample of a track, in ticks."""

    dts: int
    duration: int
    composition: int
    size: int
    sync: bool
    digest: bytes


Tracks = dict[int, list[Sample]]


class Piece(Struct, frozen=True, kw_only=True):
    """A part or a segment that was fetched."""

    place: Place
    answer: Answer  # Without its body.
    hinted: bool = False  # It was asked for when it was hinted.
    init: Place | None = None  # What it was read with; None: it was not looked into.
    size: int = 0
    digest: bytes = b""
    tracks: Tracks = field(default_factory=dict)
    problem: str = ""  # Why it could not be read.
    range_problem: str = ""  # How a byte range was answered wrongly.

    @property
    def came(self) -> bool:
        """Whether it was answered."""
        return self.answer.status in (OK, PARTIAL)


def place_of(named: ReadPart | ReadSegment) -> Place:
    """Where a part, or a segment, is."""
    return named.uri, named.range


def told(place: Place) -> str:
    """A part, or a segment, as people are told of it."""
    uri, part = place
    if part is None:
        return uri
    end = "" if part.length is None else str(part.start + part.length - 1)
    return f"{uri} bytes {part.start}-{end}"


def map_of(segment: ReadSegment) -> Place | None:
    """Where the init segment in force is; None: it cannot be looked into without, or is TS."""
    if not segment.map_uri or any("METHOD=AES-128" in key for key in segment.keys):
        return None
    return segment.map_uri, segment.map_range


def range_field(place: Place) -> tuple[tuple[str, str], ...]:
    """The request's field for a byte range."""
    asked = place[1]
    if asked is None:
        return ()
    end = UNKNOWN_END if asked.length is None else asked.start + asked.length - 1
    return (("range", f"bytes={asked.start}-{end}"),)


def bytes_of(answer: Answer, place: Place) -> tuple[bytes, str]:
    """Of an answer, what was asked for, and how the answer to the range was wrong."""
    asked, body = place[1], answer.body
    if asked is None or answer.status not in (OK, PARTIAL):
        return body, ""
    told = f"bytes {asked.start}-{'' if asked.length is None else asked.start + asked.length - 1}"
    if answer.status == OK:
        end = None if asked.length is None else asked.start + asked.length
        return body[asked.start : end], f"{told}: status 200, the whole resource"
    found = _CONTENT_RANGE.fullmatch(answer.get("content-range"))
    if found is None:
        return body, f"{told}: Content-Range {answer.get('content-range')!r}"
    if int(found[1]) != asked.start:
        return body, f"{told}: Content-Range begins at {found[1]}"
    if asked.length is not None and len(body) != asked.length:
        return body, f"{told}: {len(body)} bytes came, {asked.length} were asked for"
    return body, ""


def make_piece(
    place: Place,
    answer: Answer,
    *,
    init: Place | None,
    inits: dict[Place, ReadInit],
    hinted: bool = False,
) -> Piece:
    """What is kept of an answer."""
    data, range_problem = bytes_of(answer, place)
    tracks: Tracks = {}
    problem = ""
    known = (inits.get(init) or None) if init is not None else None
    if known is not None and answer.status in (OK, PARTIAL):
        try:
            tracks = _digests(data, known, place[1].start if place[1] is not None else 0)
        except RemoteProtocolError as error:
            problem = str(error)
    return Piece(
        place=place,
        answer=replace(answer, body=b"", arrivals=()),
        hinted=hinted,
        init=init if known is not None else None,
        size=len(data),
        digest=digest_of(data),
        tracks=tracks,
        problem=problem,
        range_problem=range_problem,
    )


def cut(answer: Answer, start: int, wanted: ReadRange) -> Answer | None:
    """Of an answer that began at `start` of a resource, one range, with when it came; or None."""
    assert wanted.length is not None, "a part that is listed has its length"
    begin = wanted.start - start
    end = begin + wanted.length
    if begin < 0 or end > len(answer.body):
        return None
    return replace(
        answer,
        body=answer.body[begin:end],
        fields=(
            *(one for one in answer.fields if one[0] != "content-range"),
            ("content-range", f"bytes {wanted.start}-{wanted.start + wanted.length - 1}/*"),
        ),
        head_at=answer.arrived_at(begin + 1),
        first_at=answer.arrived_at(begin + 1),
        last_at=answer.arrived_at(end),
        wire_bytes=wanted.length,
    )


def together(pieces: list[Piece]) -> Tracks:
    """The samples of several, in order."""
    tracks: Tracks = {}
    for piece in pieces:
        for number, samples in piece.tracks.items():
            tracks.setdefault(number, []).extend(samples)
    return tracks


def bound(parts: dict[Place, Piece]) -> int:
    """Drop the oldest beyond the limits; how many."""
    dropped = 0
    count = sum(len(samples) for piece in parts.values() for samples in piece.tracks.values())
    while len(parts) > PIECES_MAX or (count > SAMPLES_KEPT_MAX and len(parts) > 1):
        oldest = parts.pop(next(iter(parts)))
        count -= sum(map(len, oldest.tracks.values()))
        dropped += 1
    return dropped


def digest_of(data: bytes) -> bytes:
    """Of bytes that are only to be compared."""
    return hashlib.blake2b(data, digest_size=16).digest()


def _digests(data: bytes, init: ReadInit, origin: int) -> Tracks:
    return {
        number: [
            Sample(
                one.dts, one.duration, one.composition, one.size, one.sync,
                digest_of(data[one.at : one.at + one.size]),
            )
            for one in samples
        ]
        for number, samples in read_samples(data, init, origin).items()
    }  # fmt: skip
