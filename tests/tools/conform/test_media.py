import pytest
from msgspec.structs import replace

from edged.media.track import Codec, Kind
from edged.tools.conform import media
from edged.tools.conform.answer import Answer
from edged.tools.conform.media import (
    Piece,
    Place,
    bound,
    bytes_of,
    cut,
    digest_of,
    make_piece,
    map_of,
    place_of,
    range_field,
    together,
)
from edged.wire.cmaf.fragment import make_fragment
from edged.wire.cmaf.init import make_init
from edged.wire.cmaf.reader import ReadInit, read_init
from edged.wire.m3u8_reader import ReadPart, ReadRange, ReadSegment
from tests.media.samples import encode_audio
from tests.wire.cmaf.oracle import track
from tests.wire.cmaf.test_fragment import unit

INIT: Place = ("init.mp4", None)
INITS = {INIT: read_init(make_init(track(Codec.AAC, encode_audio("aac").extradata)))}
CHUNKS = [
    make_fragment(Kind.AUDIO, n, at, [unit(b"sound%d" % n, pts=at, dts=at)], [1024])
    for n, at in enumerate((0, 1024, 2048))
]


def answer(body: bytes = b"0123456789", status: int = 200, **fields: str) -> Answer:
    return Answer(
        url="http://x/a", status=status, fields=tuple(fields.items()), body=body, asked_at=0.0,
        head_at=1.0, first_at=2.0, last_at=9.0, wire_bytes=len(body),
        arrivals=((4, 2.0), (7, 5.0), (10, 9.0)),
    )  # fmt: skip


def ranged(told: str, body: bytes = b"234") -> Answer:
    return replace(answer(body, 206), fields=(("content-range", told),))


def test_where_things_are() -> None:
    given = ReadRange(2, 3)
    assert place_of(ReadPart(uri="a", duration_us=1, range=given)) == ("a", given)
    segment = ReadSegment(msn=1, uri="a", map_uri="b", map_range=given)
    assert (place_of(segment), map_of(segment)) == (("a", None), ("b", given))
    assert map_of(ReadSegment(msn=1, uri="a.ts")) is None
    encrypted = ReadSegment(msn=1, map_uri="b", keys=('METHOD=AES-128,URI="k"',))
    assert map_of(encrypted) is None, "there is nothing to be read in it"


def test_ranges_are_asked_for() -> None:
    assert range_field(("a", None)) == ()
    assert range_field(("a", ReadRange(2, 3))) == (("range", "bytes=2-4"),)
    assert range_field(("a", ReadRange(2))) == (("range", "bytes=2-9007199254740991"),)


@pytest.mark.parametrize(
    ("given", "wanted", "body", "told"),
    [
        (answer(), None, b"0123456789", ""),
        (ranged("bytes 2-4/10"), ReadRange(2, 3), b"234", ""),
        (ranged("bytes 2-4/*"), ReadRange(2), b"234", ""),
        (answer(), ReadRange(2, 3), b"234", "bytes 2-4: status 200, the whole resource"),
        (answer(), ReadRange(2), b"23456789", "bytes 2-: status 200, the whole resource"),
        (answer(b"234", 206), ReadRange(2, 3), b"234", "bytes 2-4: Content-Range ''"),
        (ranged("bytes 3-5/10"), ReadRange(2, 3), b"234", "Content-Range begins at 3"),
        (ranged("bytes 2-5/10", b"2345"), ReadRange(2, 3), b"2345", "4 bytes came, 3 were asked"),
        (answer(b"", 404), ReadRange(2, 3), b"", ""),
    ],
)
def test_how_ranges_are_answered(
    given: Answer, wanted: ReadRange | None, body: bytes, told: str
) -> None:
    found, problem = bytes_of(given, ("a", wanted))
    assert found == body
    assert told in problem
    assert bool(told) == bool(problem)


def test_a_rest_is_cut_into_what_came_when() -> None:
    whole = ranged("bytes 10-19/*", b"0123456789")
    piece = cut(whole, 10, ReadRange(13, 4))
    assert piece is not None
    assert (piece.body, piece.wire_bytes) == (b"3456", 4)
    assert (piece.first_at, piece.last_at) == (2.0, 5.0)
    assert bytes_of(piece, ("a", ReadRange(13, 4))) == (b"3456", "")
    assert cut(whole, 10, ReadRange(9, 2)) is cut(whole, 10, ReadRange(17, 4)) is None


def test_parts_together_are_the_segment_however_it_is_packed() -> None:
    """Another's packager may have one moof for all; a range has its offset in the file."""
    data = b"".join(CHUNKS)
    units = [unit(b"sound%d" % n, pts=1024 * n, dts=1024 * n) for n in range(3)]
    anew = b"\0\0\0\x10stypmsdh\0\0\0\0" + make_fragment(Kind.AUDIO, 0, 0, units, [1024] * 3)
    whole = make_piece(("s", None), answer(data), init=INIT, inits=INITS)
    other = make_piece(("s", None), answer(anew), init=INIT, inits=INITS)
    at, parts = 0, []
    for chunk in CHUNKS:
        wanted = ReadRange(at, len(chunk))
        given = ranged(f"bytes {at}-{at + len(chunk) - 1}/{len(data)}", chunk)
        parts.append(make_piece(("s", wanted), given, init=INIT, inits=INITS, hinted=True))
        at += len(chunk)
    assert together(parts) == whole.tracks == other.tracks
    assert [len(samples) for samples in whole.tracks.values()] == [3]
    assert whole.digest == digest_of(data) != other.digest
    assert whole.size == len(data)
    assert parts[0].hinted
    assert {len(piece.answer.body) for piece in (whole, other, *parts)} == {0}, "it is not kept"


def test_what_cannot_be_read_says_why() -> None:
    broken = make_piece(("a", None), answer(b"\0\0\0\7moof"), init=INIT, inits=INITS)
    assert "box b'moof' of 7 bytes" in broken.problem
    assert broken.came
    missing = make_piece(("a", None), answer(b"no", 404), init=INIT, inits=INITS)
    assert (missing.problem, missing.came) == ("", False)
    unread: dict[Place, ReadInit] = {INIT: {}}
    for init, inits in ((None, INITS), (("b", None), INITS), (INIT, unread)):
        closed = make_piece(("a", None), answer(), init=init, inits=inits)
        assert (closed.init, closed.problem, closed.tracks) == (None, "", {})


def test_pieces_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "PIECES_MAX", 3)
    monkeypatch.setattr(media, "SAMPLES_KEPT_MAX", 2)
    one = make_piece(("0", None), answer(CHUNKS[0]), init=INIT, inits=INITS)
    parts: dict[Place, Piece] = {(str(n), None): replace(one, tracks={}) for n in range(3)}
    assert bound(parts) == 0
    parts["3", None] = replace(one, tracks={})
    assert bound(parts) == 1
    assert [uri for uri, _ in parts] == ["1", "2", "3"]
    parts = {(str(n), None): one for n in range(2)}
    assert bound(parts) == 0
    parts["2", None] = one
    assert bound(parts) == 1
    assert [uri for uri, _ in parts] == ["1", "2"]
