"""The HTTP/1.1 core: framing however it is cut, every limit, and the bytes of responses."""

import math

import httptools
import hypothesis
import pytest
from hypothesis import strategies as st

from edged.wire.h1 import H1Session, KnownRequests
from edged.wire.h1_events import (
    Event,
    H1Limits,
    H1Statistics,
    PeerTimedOut,
    RequestRefused,
)
from edged.wire.request import RequestReceived

GET = b"GET /live/a/master.m3u8?x=1 HTTP/1.1\r\nHost: edge\r\nUser-Agent: test\r\n\r\n"
CHROME = (  # As Chromium 156 asks for a part.
    b"GET /live/demo/1f/v0-17.3.m4s HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nConnection: keep-alive\r\n"
    b'sec-ch-ua-platform: "Linux"\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n'
    b"sec-ch-ua-mobile: ?0\r\nAccept: */*\r\nSec-Fetch-Site: same-origin\r\n"
    b"Sec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\nReferer: http://127.0.0.1:8080/watch/demo\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-US,en;q=0.9\r\n\r\n"
)
POST = b"POST /a HTTP/1.1\r\nHost: e\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /b HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: t\r\n\r\n"
)
UPGRADE = b"GET /chat HTTP/1.1\r\nHost: e\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
OLD = b"GET /old HTTP/1.0\r\n\r\n"
GOOD = [GET, CHROME, POST, CHUNKED, UPGRADE]
SMALL = H1Limits(
    target_bytes_max=40, head_bytes_max=256, fields_max=8, body_bytes_max=32, unanswered_max=4
)


def feed(session: H1Session, data: bytes, now: float = 0.0) -> list[Event]:
    """Give bytes as a shell that upgrades nothing does, and answer nothing."""
    events = session.receive_data(memoryview(data), now)
    while session.upgrading:
        events += session.decline_upgrade(now)
    return events


def one(data: bytes, limits: H1Limits | None = None) -> Event:
    events = feed(H1Session(now=0.0, limits=limits), data)
    assert len(events) == 1
    return events[0]


def received(data: bytes) -> RequestReceived:
    event = one(data)
    assert isinstance(event, RequestReceived)
    return event


def refused(data: bytes, limits: H1Limits | None = None) -> int:
    event = one(data, limits)
    assert isinstance(event, RequestRefused)
    assert event.reason
    return event.status


def test_a_request_of_chromium() -> None:
    request = received(CHROME)
    assert (request.method, request.path) == ("GET", "/live/demo/1f/v0-17.3.m4s")
    assert request.query == ""
    assert request.keep_alive
    assert not request.upgrade
    assert request.field(b"sec-fetch-mode") == b"cors"
    assert request.field(b"absent") == b""
    assert len(request.fields) == 12


def test_targets() -> None:
    assert received(GET).query == "x=1"
    assert received(b"GET /a%20b/%C3%A9?q=%20 HTTP/1.1\r\nHost: e\r\n\r\n").path == "/a b/é"
    assert received(b"GET /a%20b?q=%20 HTTP/1.1\r\nHost: e\r\n\r\n").query == "q=%20"
    assert received(b"GET http://e:1/a?b HTTP/1.1\r\nHost: e\r\n\r\n").path == "/a"
    assert received(b"GET http://e HTTP/1.1\r\nHost: e\r\n\r\n").path == "/"
    bare = received(b"GET http://e?x=/ HTTP/1.1\r\nHost: e\r\n\r\n")
    assert (bare.path, bare.query) == ("/", "x=/")
    assert received(b"OPTIONS * HTTP/1.1\r\nHost: e\r\n\r\n").path == "*"


def test_bodies() -> None:
    assert received(POST).body == b"hello"
    chunked = received(CHUNKED)
    assert chunked.body == b"abcde"
    assert chunked.field(b"trailer") == b"", "trailers are dropped"


def test_old_clients_get_one_answer() -> None:
    assert not received(OLD).keep_alive
    assert not received(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").keep_alive
    assert not received(b"GET / HTTP/1.1\r\nHost: e\r\nConnection: close\r\n\r\n").keep_alive
    for last in (OLD, b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"):
        session = H1Session(now=0.0)
        assert len(feed(session, last + GET)) == 1, "what follows is ignored"
        assert feed(session, GET) == []


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(st.lists(st.sampled_from(GOOD), max_size=6), st.data())
def test_any_split_gives_the_same(requests: list[bytes], data: st.DataObject) -> None:
    wire = b"".join(requests) + data.draw(st.sampled_from([b"", OLD, b"\x16\x03\x01", b"GET /"]))
    whole = feed(H1Session(now=0.0), wire)
    assert len(whole) >= len(requests)
    session, events = H1Session(now=0.0), []
    while wire:
        cut = data.draw(st.integers(1, len(wire)))
        events += feed(session, wire[:cut])
        wire = wire[cut:]
    assert events == whole


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(
    st.lists(st.sampled_from([*GOOD, OLD, b"\r\n", b"GET / HT", b"\x16\x03\x01"]), max_size=8),
    st.lists(st.integers(1, 900), min_size=1, max_size=8),
    st.integers(1, 5),
)
def test_known_requests_are_what_they_were(
    pieces: list[bytes], cuts: list[int], entries_max: int
) -> None:
    known = KnownRequests(entries_max)
    wire = b"".join(pieces)
    for cut in (*cuts, 10_000):
        plain, quick = H1Session(now=0.0), H1Session(now=0.0, known=known)
        for data in (*pieces, *(wire[at : at + cut] for at in range(0, len(wire), cut))):
            assert feed(quick, data, 1.0) == feed(plain, data, 1.0)
            assert quick.next_timeout() == plain.next_timeout()
            assert quick.statistics() == plain.statistics()
        assert len(known) <= entries_max


TARGETS = st.one_of(
    st.sampled_from(
        ["/", "/a?b=c", "/%41?%20", "/a?b?c", "/a#b", "/a b", "/ä", "*", "", "//", "/?"]
    ),
    st.text(st.sampled_from('/?&=-%#ab1 "<>\\^`{|}[]~ä\x00\x7f\t'), max_size=12).map("/".__add__),
    st.just("/" + 300 * "a"),
    st.just("http://h/p?q"),
)


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(
    st.sampled_from(GOOD), st.lists(TARGETS, min_size=1, max_size=4), st.booleans(), st.booleans()
)
def test_a_request_like_a_known_one_is_what_it_is(
    like: bytes, targets: list[str], small: bool, whole: bool
) -> None:
    """But for its target, whatever that is."""
    limits, known = (SMALL if small else H1Limits()), KnownRequests()
    feed(H1Session(now=0.0, known=known), like)
    method, _, behind = like.split(b" ", 2)
    for target in targets:
        data = b"%b %b %b" % (method, target.encode(), behind)
        data = data if whole else data[:-1]
        plain = H1Session(now=0.0, limits=limits)
        quick = H1Session(now=0.0, limits=limits, known=known)
        assert feed(quick, data, 1.0) == feed(plain, data, 1.0)
        assert feed(quick, like, 1.0) == feed(plain, like, 1.0)
        assert quick.next_timeout() == plain.next_timeout()
        assert quick.statistics() == plain.statistics()


def test_who_is_known_is_known_by_all_but_the_target() -> None:
    known = KnownRequests()
    (first,) = feed(H1Session(now=0.0, known=known), CHROME)
    other = CHROME.replace(CHROME.split(b" ")[1], b"/other?_HLS_msn=7")
    request = known.find_like(other, 100)
    assert request == feed(H1Session(now=0.0), other)[0]
    assert isinstance(first, RequestReceived)
    assert request is not None
    assert request.fields is first.fields
    assert known.is_whole(other, request)
    assert known.is_whole(CHROME, first)
    assert not known.is_whole(other + b"x", request)
    assert known.find_like(other, 5) is None, "its target is too long"
    assert known.find_like(other.replace(b"GET", b"PUT"), 100) is None
    assert known.find_like(other[:-1], 100) is None


def test_a_known_request_is_not_parsed_again_and_counts_as_unanswered() -> None:
    known = KnownRequests()
    (first,) = feed(H1Session(now=0.0, known=known), CHROME)
    session = H1Session(now=0.0, limits=SMALL, known=known)
    again = [feed(session, CHROME)[0] for _ in range(SMALL.unanswered_max)]
    assert all(event is first for event in again)
    (refused,) = feed(session, CHROME)
    assert isinstance(refused, RequestRefused)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    st.lists(
        st.one_of(
            st.sampled_from([*GOOD, OLD, b"\r\n", b"X: y\r\n", b"GET / HTTP/1.1\r\n", b"a" * 300]),
            st.binary(max_size=30),
        ),
        max_size=8,
    ),
    st.integers(1, 400),
)
def test_garbage_is_refused_once_however_it_is_cut(pieces: list[bytes], step: int) -> None:
    wire = b"".join(pieces)
    whole = feed(H1Session(now=0.0, limits=SMALL), wire)
    session, events = H1Session(now=0.0, limits=SMALL), []
    for at in range(0, len(wire), step):
        events += feed(session, wire[at : at + step])
    assert events == whole
    assert all(isinstance(event, RequestReceived) for event in events[:-1])
    if events and isinstance(events[-1], RequestRefused):
        assert feed(session, GET) == []


def test_refusals() -> None:
    assert refused(b"\x16\x03\x01\x02\x00\x01\x00") == 400  # A TLS ClientHello.
    assert refused(b"GET / HTTP/1.1\r\n\r\n") == 400  # No Host.
    assert refused(b"GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n") == 400
    assert refused(b"GET / HTTP/1.1\r\nHost: a\r\nBad Name: b\r\n\r\n") == 400
    assert refused(b"GET /\r\n\r\n") == 505  # HTTP/0.9.
    assert refused(b"GET / HTTP/3.7\r\nHost: a\r\n\r\n") == 505
    assert refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") in (400, 505)
    assert refused(POST.replace(b"Content", b"Expect: 100-continue\r\nContent")) == 417
    both = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert refused(both) == 400
    smuggled = UPGRADE.replace(b"Host", b"Content-Length: 70\r\nHost") + GET
    assert refused(smuggled) == 400


def test_target_limit() -> None:
    at = SMALL.target_bytes_max
    line = b"GET /%s HTTP/1.1\r\nHost: e\r\n\r\n"
    assert isinstance(one(line % (b"a" * (at - 1)), SMALL), RequestReceived)
    assert refused(line % (b"a" * at), SMALL) == 414


def test_field_count_limit() -> None:
    head = b"GET / HTTP/1.1\r\nHost: e\r\n"
    assert isinstance(one(head + b"a: b\r\n" * 7 + b"\r\n", SMALL), RequestReceived)
    assert refused(head + b"a: b\r\n" * 8 + b"\r\n", SMALL) == 431


def test_head_bytes_limit() -> None:
    head = b"GET / HTTP/1.1\r\nHost: e\r\na: "  # 9 bytes of Host, 5 of the other beside its value.
    room = SMALL.head_bytes_max - 9 - 5
    assert isinstance(one(head + b"x" * room + b"\r\n\r\n", SMALL), RequestReceived)
    assert refused(head + b"x" * (room + 1) + b"\r\n\r\n", SMALL) == 431


def test_an_endless_field_is_cut_off() -> None:
    session = H1Session(now=0.0, limits=SMALL)
    assert feed(session, b"GET / HTTP/1.1\r\nHost: e\r\na: ") == []
    for count in range(3 * SMALL.head_bytes_max):
        if events := feed(session, b"x"):
            assert events == [RequestRefused(431, "header exceeds 256 bytes")]
            assert count <= 2 * SMALL.head_bytes_max
            return
    pytest.fail("it was never refused")


def test_endless_chunk_extensions_and_trailers_are_cut_off() -> None:
    start = CHUNKED.split(b"3\r\n")[0]
    assert refused(start + b"3;" + b"x" * 600, SMALL) == 431
    assert refused(start + b"0\r\n" + b"a: b\r\n" * 9, SMALL) == 431


def test_body_limit() -> None:
    head = b"POST / HTTP/1.1\r\nHost: e\r\nContent-Length: %d\r\n\r\n"
    assert isinstance(one(head % 32 + b"x" * 32, SMALL), RequestReceived)
    assert refused(head % 33 + b"x" * 33, SMALL) == 413
    chunk = b"1\r\nx\r\n"
    chunked = CHUNKED.split(b"3\r\n")[0]
    assert isinstance(one(chunked + chunk * 32 + b"0\r\n\r\n", SMALL), RequestReceived)
    assert refused(chunked + chunk * 33, SMALL) == 413


def test_pipelining_limit() -> None:
    session = H1Session(now=0.0, limits=SMALL)
    assert len(feed(session, GET * 4)) == 4
    session.request_answered(0.0)
    assert isinstance(feed(session, GET)[0], RequestReceived)
    assert feed(session, GET) == [RequestRefused(503, "more than 4 unanswered requests")]


def test_an_upgrade_waits_for_a_decision() -> None:
    session = H1Session(now=0.0)
    events = session.receive_data(UPGRADE + b"\x81\x05hello", 0.0)
    assert [getattr(event, "upgrade", None) for event in events] == [True]
    assert session.upgrading
    assert session.take_rest() == b"\x81\x05hello"
    session = H1Session(now=0.0)
    session.receive_data(UPGRADE + GET + UPGRADE + GET, 0.0)
    assert len(session.decline_upgrade(0.0)) == 2
    assert len(session.decline_upgrade(0.0)) == 1
    assert session.statistics() == H1Statistics(4, 4)


def test_upgrades_across_block_ends() -> None:
    session = H1Session(now=0.0, limits=SMALL)
    for _ in range(40):
        assert len(feed(session, UPGRADE + GET)) == 2
        session.request_answered(0.0)
        session.request_answered(0.0)


def test_request_deadline() -> None:
    session = H1Session(now=100.0)
    assert session.next_timeout() == 175.0
    feed(session, GET[:10], 101.0)
    assert session.next_timeout() == 111.0
    feed(session, GET[10:12], 105.0)
    assert session.next_timeout() == 111.0, "a trickle does not extend it"
    assert session.handle_timeout(110.9) is None
    assert session.handle_timeout(111.0) == PeerTimedOut("request not complete after 10 s")
    feed(session, GET[12:] + GET[:1], 111.0)
    assert session.next_timeout() == 121.0, "the next one began"
    feed(session, GET[1:], 112.0)
    assert session.next_timeout() == math.inf, "it is our turn"


def test_empty_lines_do_not_keep_a_connection() -> None:
    session = H1Session(now=0.0)
    for now in range(10):
        assert feed(session, b"\r\n", float(now)) == []
    assert session.next_timeout() == 10.0


def test_idle_deadline() -> None:
    session = H1Session(now=0.0)
    feed(session, GET, 1.0)
    session.request_answered(3.0)
    assert session.next_timeout() == 78.0
    assert session.handle_timeout(78.0) == PeerTimedOut("no request for 75 s")
    session.answer_taken(80.0)
    assert session.next_timeout() == 155.0, "so long it was busy reading"


class Faulty(H1Session):
    def on_url(self, piece: bytes) -> None:
        raise ZeroDivisionError


@pytest.mark.pure
def test_our_own_faults_are_not_blamed_on_the_peer() -> None:
    with pytest.raises(httptools.HttpParserCallbackError) as caught:
        feed(Faulty(now=0.0), GET)
    assert isinstance(caught.value.__context__, ZeroDivisionError)


def test_closed_sessions_take_nothing() -> None:
    session = H1Session(now=0.0)
    session.close()
    session.close()
    assert feed(session, GET) == []
