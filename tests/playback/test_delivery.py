"""What every HTTP client may ask of a part, the same over HTTP/1.1 and HTTP/2."""

import contextlib
from collections.abc import Iterator

import pytest

from edged.wire.prepared import prepare
from tests.playback.fakes import Client, World
from tests.playback.test_h2_connection import Client as H2Client
from tests.playback.test_http import PART, Service

NAME = "/live/part"
ALL = len(PART)
SAME = ("accept-ranges", "content-type", "etag", "cache-control")
PREPARED = prepare(
    200,
    [PART[:1000], PART[1000:]],
    content_type="video/mp4",
    cache_control="max-age=24",
    fields=(("Accept-Ranges", "bytes"),),
    lasting=True,
    etag='"1"',
)
Answered = tuple[int, dict[str, str], bytes]


class Viewer:
    """One connection, kept for all that is asked."""

    def __init__(self, edge: World, protocol: str) -> None:
        self.one = edge.client() if protocol == "HTTP/1.1" else None
        self.two = H2Client(edge) if protocol == "HTTP/2" else None

    def ask(self, method: str = "GET", **fields: str) -> Answered:
        named = {name.replace("_", "-"): value for name, value in fields.items()}
        if self.one is not None:
            lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
            self.one.ask(NAME, method, lines)
            (got,) = self.one.answers(head=method == "HEAD")
            assert self.one.lost is None, "kept alive"
            assert got.fields.get("connection") != "close"
            return got.status, got.fields, got.body
        assert self.two is not None
        answer = self.two.get(NAME, method, **fields)
        assert answer.reset is None
        assert self.two.leaving == []
        return answer.status, answer.fields, answer.body

    def close(self) -> None:
        if self.two is not None:
            self.two.close()


@pytest.fixture(autouse=True)
def _has_a_part(service: Service) -> None:
    service.lasting[NAME] = PREPARED


@pytest.fixture(params=["HTTP/1.1", "HTTP/2"])
def viewer(request: pytest.FixtureRequest, edge: World, service: Service) -> Iterator[Viewer]:
    made = Viewer(edge, request.param)
    with contextlib.closing(made):
        yield made


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=100-299", 100, 299),
        (f"bytes={ALL - 1}-", ALL - 1, ALL - 1),
        ("bytes=-500", ALL - 500, ALL - 1),
        (f"bytes=10-{ALL + 10}", 10, ALL - 1),
        (f"bytes=-{ALL + 10}", 0, ALL - 1),
    ],
)
def test_a_range(viewer: Viewer, asked: str, first: int, last: int) -> None:
    status, fields, body = viewer.ask(range=asked)
    assert (status, body) == (206, PART[first : last + 1])
    assert fields["content-range"] == f"bytes {first}-{last}/{ALL}"
    assert fields["content-length"] == str(last + 1 - first)
    whole_status, whole, whole_body = viewer.ask()
    assert (whole_status, whole_body) == (200, PART), "on the same connection"
    assert "content-range" not in whole
    assert {name: fields[name] for name in SAME} == {name: whole[name] for name in SAME}


@pytest.mark.parametrize("asked", [f"bytes={ALL}-", f"bytes={ALL}-{ALL + 5}", "bytes=-0"])
def test_a_range_beyond_the_end(viewer: Viewer, asked: str) -> None:
    status, fields, body = viewer.ask(range=asked)
    assert (status, body, fields["content-range"]) == (416, b"", f"bytes */{ALL}")
    assert viewer.ask()[2] == PART


@pytest.mark.parametrize("asked", ["bytes=5-2", "bytes=a-b", "items=0-1", "bytes=0-1,5-6", "-"])
def test_no_range_that_is_served_is_the_whole(viewer: Viewer, asked: str) -> None:
    assert viewer.ask(range=asked)[::2] == (200, PART)


def test_a_range_of_what_is_held(viewer: Viewer) -> None:
    tag = viewer.ask()[1]["etag"]
    assert viewer.ask(range="bytes=0-9", if_range=tag)[::2] == (206, PART[:10])
    for other in ('"other"', f"W/{tag}", "Wed, 21 Oct 2026 07:28:00 GMT"):
        assert viewer.ask(range="bytes=0-9", if_range=other)[::2] == (200, PART)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_conditions(viewer: Viewer, method: str) -> None:
    body = PART if method == "GET" else b""
    status, whole, got = viewer.ask(method)
    assert (status, got, whole["content-length"]) == (200, body, str(ALL))
    tag = whole["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        status, fields, got = viewer.ask(method, if_none_match=known)
        assert (status, got) == (304, b"")
        assert fields["etag"] == tag
        assert fields["cache-control"] == whole["cache-control"], "RFC 9110 §15.4.5"
    assert viewer.ask(method, if_none_match='"other"')[::2] == (200, body)
    assert viewer.ask(method, if_match=tag)[::2] == (200, body)
    assert viewer.ask(method, if_match="*")[::2] == (200, body)
    for wanted in ('"other"', f"W/{tag}"):
        assert viewer.ask(method, if_match=wanted)[0] == 412
    assert viewer.ask(method, if_none_match=tag, range="bytes=0-9")[0] == 304, "goes first"


def test_the_head_of_a_range_is_that_of_the_whole(viewer: Viewer) -> None:
    """RFC 9110 §14.2: Range is for GET alone."""
    status, fields, body = viewer.ask("HEAD", range="bytes=0-9")
    assert (status, body, fields["content-length"]) == (200, b"", str(ALL))
    assert "content-range" not in fields


def test_pipelined_ranges_conditions_and_heads_come_in_their_order(
    edge: World, service: Service
) -> None:
    client = Client(edge.pump, edge.server)
    asked = (("GET", "Range: bytes=0-4\r\n"), ("HEAD", ""), ("GET", "If-None-Match: *\r\n"))
    rest = (("GET", f"Range: bytes={ALL}-\r\n"), ("GET", ""))
    client.send(
        "".join(
            f"{method} {NAME} HTTP/1.1\r\nHost: e\r\n{fields}\r\n"
            for method, fields in (*asked, *rest)
        ).encode()
    )
    received = client.read()
    client.close()
    for status, body in ((206, PART[:5]), (200, b""), (304, b""), (416, b""), (200, PART)):
        head, _, received = received.partition(b"\r\n\r\n")
        assert int(head.split()[1]) == status
        assert received.startswith(body)
        received = received[len(body) :]
    assert received == b""


def test_at_once_over_one_connection_of_http_2(edge: World, service: Service) -> None:
    client = H2Client(edge)
    with contextlib.closing(client):
        ranged, head, unchanged, whole = (
            client.ask(NAME, range="bytes=0-4"),
            client.ask(NAME, "HEAD"),
            client.ask(NAME, if_none_match="*"),
            client.ask(NAME),
        )
        client.read()
        got = [client.answers[stream_id] for stream_id in (ranged, head, unchanged, whole)]
        assert [(each.status, each.body) for each in got] == [
            (206, PART[:5]),
            (200, b""),
            (304, b""),
            (200, PART),
        ]
        assert all(each.ended for each in got)
