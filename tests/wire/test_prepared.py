"""Responses: their bytes made once, and what who asks for less gets."""

from email.utils import formatdate

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.wire.h1 import H1Session
from edged.wire.prepared import JOIN_BYTES_MAX, PreparedResponse, date_stamp, narrow, prepare
from edged.wire.request import RequestReceived

BODY = bytes(range(250)) * 8
PIECES = [BODY[:700], BODY[700:701], BODY[701:]]


def asked(*fields: str, method: str = "GET") -> RequestReceived:
    """A request as it comes from the wire."""
    lines = "".join(f"{field}\r\n" for field in fields)
    data = f"{method} /a HTTP/1.1\r\nHost: e\r\n{lines}\r\n".encode()
    (event,) = H1Session(now=0.0).receive_data(data, 0.0)
    assert isinstance(event, RequestReceived)
    return event


def tagged(etag: str = '"1"') -> PreparedResponse:
    return prepare(
        200,
        PIECES,
        content_type="video/mp4",
        cache_control="max-age=24",
        fields=(("Accept-Ranges", "bytes"),),
        etag=etag,
    )


def got(*fields: str, method: str = "GET", etag: str = '"1"') -> tuple[int, bytes, dict[str, str]]:
    request = asked(*fields, method=method)
    assert request.conditional is bool(fields)
    response = narrow(request, tagged(etag))
    return response.status, b"".join(response.body), dict(response.fields)


def test_responses_are_made_once_a_second() -> None:
    response = prepare(200, [b"ab", b"c"], content_type="text/plain", cache_control="max-age=2")
    stamp = date_stamp(0)
    assert response.chunks(stamp) == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n"
        b"Cache-Control: max-age=2\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\nabc",
    )
    assert response.chunks(stamp) is response.chunks(stamp)
    assert b"00:00:01 GMT" in response.chunks(date_stamp(1.9))[0]


def test_large_bodies_are_shared_not_copied() -> None:
    body = bytes(JOIN_BYTES_MAX)
    assert len(prepare_bytes([body]).chunks(date_stamp(0))) == 1
    chunks = prepare_bytes([body, b"x"]).chunks(date_stamp(0))
    assert chunks[1] is body
    assert chunks[2] == b"x"


def test_rare_forms() -> None:
    response = prepare_bytes([b"body"])
    (head,) = response.variant(date_stamp(0), body=False, close=False)
    assert b"Content-Length: 4\r\n" in head
    assert head.endswith(b"GMT\r\n\r\n")
    head, body = response.variant(date_stamp(0), body=True, close=True)
    assert b"\r\nConnection: close\r\nDate: " in head
    assert body == b"body"


def prepare_bytes(body: list[bytes]) -> PreparedResponse:
    return prepare(200, body, content_type="video/mp4", cache_control="no-store")


def test_fields_cannot_be_injected() -> None:
    with pytest.raises(AssertionError):
        prepare(200, [], content_type="a\r\nX: y", cache_control="no-store")


@hypothesis.settings(max_examples=50)
@hypothesis.given(st.integers(0, 4_000_000_000))
def test_dates_are_those_of_the_standard_library(unix_s: int) -> None:
    assert date_stamp(unix_s) == f"Date: {formatdate(unix_s, usegmt=True)}\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("value", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=0-1999", 0, 1999),
        ("bytes=699-701", 699, 701),
        ("bytes=700-700", 700, 700),
        ("bytes=1-", 1, 1999),
        ("bytes=1990-5000", 1990, 1999),
        ("bytes=-1", 1999, 1999),
        ("bytes=-5000", 0, 1999),
        ("Bytes= 5-6", 5, 6),
    ],
)
def test_a_range(value: str, first: int, last: int) -> None:
    status, body, fields = got(f"Range: {value}")
    assert status == 206
    assert body == BODY[first : last + 1]
    assert fields["Content-Range"] == f"bytes {first}-{last}/2000"
    assert fields["Content-Length"] == str(len(body))
    assert fields["Content-Type"] == "video/mp4"
    assert fields["ETag"] == '"1"'


@pytest.mark.parametrize("value", ["bytes=2000-", "bytes=2000-2001", "bytes=-0"])
def test_a_range_beyond_the_body(value: str) -> None:
    status, body, fields = got(f"Range: {value}")
    assert (status, body, fields["Content-Range"]) == (416, b"", "bytes */2000")
    assert fields["Cache-Control"] == "no-store", "else a shared cache would give it to others"
    assert fields["Content-Length"] == "0"
    assert "Content-Type" not in fields


@pytest.mark.parametrize(
    "value",
    [
        *("bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-4", "bytes=0-1,4-5", "pages=1-2"),
        *("=0-1", "bytes=1-" + "9" * 19, "bytes=+1-2", "bytes=--1"),
    ],
)
def test_a_range_that_is_none_is_ignored(value: str) -> None:
    assert got(f"Range: {value}")[:2] == (200, BODY)


def test_only_a_get_has_ranges() -> None:
    assert got("Range: bytes=0-1", method="HEAD")[:2] == (200, BODY)


def test_a_range_of_what_one_has_a_part_of() -> None:
    assert got("Range: bytes=0-1", 'If-Range: "1"')[0] == 206
    assert got("Range: bytes=0-1", 'If-Range: "2"')[0] == 200
    assert got("Range: bytes=0-1", 'If-Range: W/"1"')[0] == 200
    assert got("Range: bytes=0-1", "If-Range: Wed, 21 Oct 2026 07:28:00 GMT")[0] == 200


def test_what_one_has_already() -> None:
    for tags in ('"1"', 'W/"1"', '"0", "1"', "*", ' "1" '):
        status, body, fields = got(f"If-None-Match: {tags}")
        assert (status, body) == (304, b"")
        assert fields["ETag"] == '"1"'
        assert fields["Cache-Control"] == "max-age=24"
        assert "Content-Length" not in fields, "it would be that of the whole"
    assert got('If-None-Match: "2"')[:2] == (200, BODY)
    assert got('If-None-Match: "2"', "Range: bytes=0-1")[:2] == (206, BODY[:2])
    assert got('If-None-Match: "1"', "Range: bytes=0-1")[0] == 304
    assert got('If-None-Match: "1"', method="HEAD")[0] == 304


def test_who_insists_on_something_else() -> None:
    status, body, fields = got('If-Match: "2"')
    assert (status, body, fields["Content-Length"]) == (412, b"", "0")
    assert fields["Cache-Control"] == "no-store"
    assert got('If-Match: W/"1"')[0] == 412
    assert got('If-Match: "2", "1"')[0] == 200
    assert got("If-Match: *")[0] == 200


def test_without_a_tag_nothing_is_narrowed() -> None:
    for fields in (("Range: bytes=0-1",), ('If-None-Match: "1"',), ("If-Match: *",)):
        assert got(*fields, etag="")[:2] == (200, BODY)
    missing = prepare(404, [b"no"], content_type="text/plain", cache_control="no-store", etag='"1"')
    assert narrow(asked("Range: bytes=0-1"), missing) is missing


@hypothesis.given(
    st.lists(st.binary(max_size=20), max_size=6),
    st.integers(0, 130),
    st.integers(0, 130),
)
def test_any_range_is_that_of_the_joined_body(pieces: list[bytes], first: int, last: int) -> None:
    whole = b"".join(pieces)
    response = prepare(200, pieces, content_type="a/b", cache_control="no-store", etag='"1"')
    narrowed = narrow(asked(f"Range: bytes={first}-{last}"), response)
    if last < first:
        assert narrowed is response
    elif first >= len(whole):
        assert narrowed.status == 416
    else:
        assert b"".join(narrowed.body) == whole[first : last + 1]
        assert narrowed.size == len(whole[first : last + 1])
