"""What is a request: as HTTP/1.1 would have told it. (All that is malformed: test_conformance.)"""

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.wire.h2.hpack import Entry
from edged.wire.h2.limits import H2Limits
from edged.wire.h2.requests import (
    BAD,
    MalformedError,
    RefusedError,
    check_trailers,
    explain_bad,
    judge_field,
    read_head,
    split_target,
)
from edged.wire.request import RequestReceived

LIMITS = H2Limits(target_bytes_max=300)
GET = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":authority", b"e"),
    (b":path", b"/a%20b?c=%20"),
]


def entries_of(fields: list[tuple[bytes, bytes]]) -> list[Entry]:
    return [((name, value), 0, judge_field(name, value)) for name, value in fields]


def test_a_request() -> None:
    fields = [*GET, (b"cookie", b"a=1"), (b"x", b""), (b"cookie", b"b=2"), (b"priority", b"u=1")]
    head = read_head(entries_of([*fields, (b"content-length", b"07")]), LIMITS)
    assert head.request == RequestReceived(
        method="GET",
        path="/a b",
        query="c=%20",
        fields=[
            (b"host", b"e"),
            (b"x", b""),
            (b"priority", b"u=1"),
            (b"content-length", b"07"),
            (b"cookie", b"a=1; b=2"),
        ],
        keep_alive=True,
    )
    assert (head.content_length, head.priority) == (7, b"u=1")
    assert head.request.field(b"host") == b"e"
    plain = read_head(entries_of(GET), LIMITS)
    assert (plain.content_length, plain.priority) == (None, None)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([(b":method", b"CONNECT"), (b":authority", b"e:443")], 501),
        ([*GET[:3], (b":path", b"/" + b"a" * 300)], 414),
        ([*GET, (b"expect", b"100-continue")], 417),
    ],
)
def test_what_is_answered_though_not_taken(fields: list[tuple[bytes, bytes]], status: int) -> None:
    with pytest.raises(RefusedError) as told:
        read_head(entries_of(fields), LIMITS)
    assert told.value.status == status


def test_targets_at_their_limits() -> None:
    target = b"/" + b"a" * 299
    assert read_head(entries_of([*GET[:3], (b":path", target)]), LIMITS)
    with pytest.raises(RefusedError):
        read_head(entries_of([*GET[:3], (b":path", target + b"a")]), LIMITS)
    assert split_target(b"*", b"OPTIONS") == ("*", "")
    assert split_target(b"/?/?", b"GET") == ("/", "/?")
    assert split_target("/é".encode(), b"GET")[0] == "/Ã©"
    for target in (b"*", b"", b"a", b"/\x7f", b"/a b", b"/#", b"/\n"):
        with pytest.raises(MalformedError):
            split_target(target, b"GET")


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        (b"upgrade", b"x", "of HTTP/1.1's connections"),
        (b":status", b"200", "no pseudo-header field of a request"),
        (b"A", b"x", "no token in lower case"),
        (b"te", b"gzip", "te is 'gzip', allowed is 'trailers'"),
        (b":authority", b"a@b", "':authority' is malformed: 'a@b'"),
        (b"a", b"b\x00", "bytes that no value has"),
        (b"content-length", b"9" * 19, "malformed"),
    ],
)
def test_reasons(name: bytes, value: bytes, why: str) -> None:
    assert judge_field(name, value) == BAD
    assert why in explain_bad(name, value)
    with pytest.raises(MalformedError) as told:
        check_trailers(entries_of([(b"fine", b"x"), (name, value)]))
    assert str(told.value) == explain_bad(name, value)


def test_trailers() -> None:
    check_trailers(entries_of([(b"x", b"y"), (b"te", b"trailers")]))
    for field in GET:
        with pytest.raises(MalformedError, match="in trailers"):
            check_trailers(entries_of([field]))


names = st.sampled_from([name for name, _ in GET] + [b"host", b"cookie", b"te"]) | st.binary(
    max_size=5
)
values = st.sampled_from([b"GET", b"https", b"e", b"/"]) | st.binary(max_size=5)


@hypothesis.given(st.lists(st.tuples(names, values), max_size=8))
def test_any_fields_make_a_request_or_one_of_two_errors(fields: list[tuple[bytes, bytes]]) -> None:
    try:
        head = read_head(entries_of(fields), LIMITS)
    except (MalformedError, RefusedError) as error:
        assert str(error)  # noqa: PT017 - there may be none
        return
    assert head.request.path.startswith(("/", "*"))
    assert [name for name, _ in head.request.fields].count(b"host") == 1
    assert not any(name.startswith(b":") for name, _ in head.request.fields)
