"""Bodies and queries: what they take, and that no key is shown."""

import msgspec
import pytest

from edged.api.schemas import IngestRequest, StreamChange, StreamQuery


@pytest.mark.parametrize(
    ("kind", "body", "problem"),
    [
        (IngestRequest, b"{}", "missing required field `stream_key`"),
        (IngestRequest, b'{"stream_key":""}', "length >= 1"),
        (IngestRequest, b'{"stream_key":"%s"}' % (b"x" * 1025), "length <= 1024"),
        (IngestRequest, b'{"stream_key":"k","bitrate_bps":0}', ">= 1"),
        (IngestRequest, b'{"stream_key":"k","bitrate":1}', "unknown field `bitrate`"),
        (StreamChange, b'{"title":"%s"}' % (b"x" * 201), "length <= 200"),
        (StreamChange, b'{"tags":["%s"]}' % (b"x" * 51), "length <= 50"),
        (StreamChange, b'{"tags":["a","b","c","d","e","f","g","h","i","j","k"]}', "length <= 10"),
        (StreamChange, b'{"titel":"x"}', "unknown field `titel`"),
    ],
)
def test_limits(kind: type[msgspec.Struct], body: bytes, problem: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=problem):
        msgspec.json.decode(body, type=kind)


def test_what_is_at_the_limit_is_taken() -> None:
    body = {"title": "x" * 200, "category": "y" * 100, "tags": ["z" * 50] * 10}
    change = msgspec.convert(body, StreamChange)
    assert (change.title, change.category) == ("x" * 200, "y" * 100)
    assert msgspec.json.decode(b'{"title":null}', type=StreamChange).title is None
    assert msgspec.json.decode(b"{}", type=StreamChange).title is msgspec.UNSET


def test_queries_are_texts() -> None:
    query = msgspec.convert({"limit": "500", "tag": "a"}, StreamQuery, strict=False)
    assert (query.limit, query.tag) == (500, "a")
    with pytest.raises(msgspec.ValidationError, match="<= 500"):
        msgspec.convert({"limit": "501"}, StreamQuery, strict=False)


def test_a_key_is_in_no_repr() -> None:
    asked = IngestRequest(stream_key="secret", codec="h264")
    assert "secret" not in f"{asked!r} {[asked]}"
