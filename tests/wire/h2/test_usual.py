"""A client's usual request is read as any other: the same events, answers and faults."""

from collections import Counter

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.wire.h2 import frames
from edged.wire.h2.frames import END_HEADERS, END_STREAM, HAS_PRIORITY, PREFACE, make_frame
from edged.wire.h2.head import H2Request
from edged.wire.h2.hpack import KnownStrings
from edged.wire.h2.limits import H2Limits
from edged.wire.h2.receiving import DRAIN_MARK
from edged.wire.h2.usual import UsualRequest, learn_usual
from edged.wire.request import RequestReceived
from tests.wire.h2.peer import Peer

LIMITS = H2Limits(target_bytes_max=300, head_bytes_max=900, streams_max=4)
WHOLE = END_HEADERS | END_STREAM
BEFORE, AFTER = b"\x82\x87\x41\x04edge\x04", b"\xc0\xc1"
LIKE = RequestReceived(
    method="GET", path="/a", query="", fields=[(b"host", b"edge")], keep_alive=True
)

targets = st.one_of(
    st.sampled_from(
        ["/a", "/live/ch/1a/v0.m3u8?_HLS_msn=7&_HLS_part=1", "/%61?x", "*", "", "a", "/\x7f"]
    ),
    st.text(st.characters(max_codepoint=255), max_size=30).map(lambda text: f"/{text}"),
    st.integers(100, 400).map(lambda size: "/" + "q" * size),
)
paths = st.sampled_from(["/a", "/live/ch/1a/v0.m3u8?_HLS_msn=7&_HLS_part=1", "/%61?x"])
extras = st.lists(
    st.sampled_from(
        [
            ("accept", "*/*"),
            ("user-agent", "player"),
            ("priority", "u=1, i"),
            ("cookie", "a=b"),
            ("cookie", "c=d"),
            ("range", "bytes=0-1"),
            ("expect", "100-continue"),
            ("content-length", "0"),
            ("x", "y" * 500),
        ]
    ),
    max_size=3,
)
Fields = list[tuple[str, str]]
Request = tuple[str, str, Fields, bool, str]
USUAL = [("accept", "*/*"), ("priority", "u=5")]
kinds = st.sampled_from(["plain", "plain", "priority", "itself"])
# Method, target, other fields, whether the path may enter the table, kind of frame.
requests = st.tuples(
    st.sampled_from(["GET", "HEAD", "POST"]), targets, extras, st.booleans(), kinds
)
usual_requests = st.tuples(
    st.just("GET"),
    st.one_of(paths, paths, paths, targets),
    st.just(USUAL),
    st.sampled_from([False] * 5 + [True]),
    kinds,
)
# A request, the stream's step, whether it is answered at once; or a priority of a stream that is so
# far ahead; or "drain": the peer has heard that it is to ask for no more.
Asked = tuple[Request, int, bool]
steps = st.one_of(
    *[
        st.tuples(
            each, st.sampled_from([2] * 20 + [4, 0, 1]), st.sampled_from([True, True, True, False])
        )
        for each in (usual_requests, usual_requests, usual_requests, usual_requests, requests)
    ],
    st.tuples(st.sampled_from([0, 2, 4]), st.sampled_from([b"u=1", b"u=6, i"])),
)
scripts = st.lists(steps, min_size=4, max_size=24)
REACHED_MIN = {"taken": 20, "early": 5, "refusing": 2, "itself": 3}


def frame(encoder: hpack.Encoder, stream_id: int, request: Request) -> bytes:
    method, target, more, indexed, kind = request
    path_kind = hpack.HeaderTuple if indexed else hpack.NeverIndexedHeaderTuple
    usual = [(":method", method), (":scheme", "https"), (":authority", "edge")]
    fields = [
        *(hpack.HeaderTuple(*field) for field in usual),
        path_kind(":path", target.encode("latin-1")),
        *(hpack.HeaderTuple(*field) for field in more),
    ]
    block = encoder.encode(fields)
    if kind == "plain":
        return make_frame(frames.HEADERS, WHOLE, stream_id, block)
    on = stream_id if kind == "itself" else 0
    return make_frame(
        frames.HEADERS, WHOLE | HAS_PRIORITY, stream_id, on.to_bytes(4, "big") + b"\x10" + block
    )


class Pair:
    """Two sessions that get the same: one as it comes, one in pieces, of which none is usual."""

    def __init__(self) -> None:
        self.whole, self.pieces = Peer(LIMITS, body=b"body"), Peer(LIMITS, body=b"body")
        self.encoder, self.stream_id = hpack.Encoder(), -1
        self.reached: Counter[str] = Counter()

    def take(self, step: Asked | tuple[int, bytes]) -> None:
        """One step of a script."""
        if len(step) == 2:
            ahead, value = step
            told = (max(1, self.stream_id + 2) + ahead).to_bytes(4, "big") + value
            self.tell(make_frame(frames.PRIORITY_UPDATE, 0, 0, told))
            return
        request, by, answered = step
        self.stream_id = max(1, self.stream_id + by)
        for peer in (self.whole, self.pieces):
            peer.body = b"body" if answered else None
        wire = frame(self.encoder, self.stream_id, request)
        why = self.why_not(wire, request[4])
        count = len(self.whole.events)
        self.tell(wire)
        if why == "taken":
            assert [type(event) for event in self.whole.events[count:]] == [H2Request]
        self.reached[why] += 1

    def drain(self) -> None:
        """The peer is told to ask for no more, and has heard it."""
        for peer in (self.whole, self.pieces):
            peer.session.drain(0.0)
        self.tell(make_frame(frames.PING, frames.ACK, 0, DRAIN_MARK))
        assert self.whole.ended or self.whole.session._receiver.intake.refusing

    def why_not(self, wire: bytes, kind: str) -> str:
        """ "taken", or what alone keeps a request from being taken as the usual one; else ""."""
        intake, streams = self.whole.session._receiver.intake, self.whole.session._streams
        usual, at = intake._usual, 9 if kind == "plain" else 14
        if self.whole.ended or usual is None or usual.changes != intake._decoder.changes:
            return ""
        if usual.read(wire, at, LIMITS, KnownStrings()) is None:
            return ""
        reasons = {
            "early": bool(intake.early),
            "refusing": intake.refusing,
            "itself": kind == "itself",
            "many": len(streams.live) >= LIMITS.streams_max,
            "step": self.stream_id <= streams.last_id or not self.stream_id & 1,
        }
        found = [name for name, holds in reasons.items() if holds]
        return (found or ["taken"])[0] if len(found) <= 1 else ""

    def tell(self, wire: bytes) -> None:
        """To both; they do and say the same."""
        whole, pieces = self.whole, self.pieces
        whole.tell(wire)
        pieces.tell(wire[:5], wire[5:])
        assert whole.events == pieces.events
        assert priorities(whole) == priorities(pieces)
        assert whole.hear() == pieces.hear()
        assert whole.session.statistics() == pieces.session.statistics()
        assert whole.session.next_timeout() == pieces.session.next_timeout()


def priorities(peer: Peer) -> object:
    """Of the streams that live, and of those to come."""
    live = peer.session._streams.live.values()
    told = {stream.id: (stream.urgency, stream.incremental) for stream in live}
    return told, peer.session._receiver.intake.early


def test_it_is_as_if_it_had_come_in_two_pieces() -> None:
    """And it was the usual one often enough, or all but it for each reason that there is."""
    reached: Counter[str] = Counter()

    @settings(deadline=None, max_examples=200, derandomize=True)  # So that it is reached always.
    @given(scripts, st.integers(0, 30), st.sampled_from([0, 2, 2, 2]))
    def behave_alike(
        script: list[Asked | tuple[int, bytes]], drained_at: int, asked_before: int
    ) -> None:
        pair = Pair()
        for _ in range(asked_before):
            pair.take((("GET", "/a", USUAL, False, "plain"), 2, True))
        for at, step in enumerate(script):
            if at == drained_at:
                pair.drain()
            pair.take(step)
        reached.update(pair.reached)

    behave_alike()
    assert all(reached[why] >= least for why, least in REACHED_MIN.items()), reached


USUAL_ONE = ("GET", "/a", USUAL, False, "plain")
ONE: Asked = (USUAL_ONE, 2, True)


@pytest.mark.parametrize(
    ("why", "before", "last"),
    [
        ("taken", [], ONE),
        ("taken", [], (("GET", "/b", USUAL, False, "priority"), 4, True)),
        ("early", [(0, b"u=1")], ONE),
        ("early", [(4, b"u=1, i")], ONE),
        ("itself", [], (("GET", "/a", USUAL, False, "itself"), 2, True)),
        ("many", [(USUAL_ONE, 2, False)] * 4, ONE),
        ("step", [], (USUAL_ONE, 0, True)),
        ("step", [], (USUAL_ONE, 1, True)),
        ("refusing", [(USUAL_ONE, 2, False), None], ONE),
    ],
)
def test_what_alone_keeps_a_request_from_being_the_usual_one(
    why: str, before: list[Asked | tuple[int, bytes] | None], last: Asked
) -> None:
    pair = Pair()
    for step in (ONE, ONE, *before):
        if step is None:
            pair.drain()
        else:
            pair.take(step)
    pair.reached.clear()
    pair.take(last)
    assert pair.reached == {why: 1}


def test_all_of_a_request_but_its_path_is_known() -> None:
    peer = Peer(body=b"body")
    encoder = hpack.Encoder()
    for at in range(4):
        request = ("GET", f"/{at}?{at}", USUAL, False, "plain")
        peer.tell(frame(encoder, 2 * at + 1, request))
        usual = peer.session._receiver.intake._usual
        # The first one's fields have entered the table.
        assert (usual is None) == (at == 0)
    told = [event.request for event in peer.events if isinstance(event, H2Request)]
    assert [(request.path, request.query) for request in told] == [
        (f"/{at}", f"{at}") for at in range(4)
    ]
    assert told[3].fields is told[1].fields
    assert usual is not None
    assert usual.priority == (5, False)
    peer.tell(frame(encoder, 9, ("GET", "/new", [("accept", "text/*")], False, "plain")))
    assert peer.session._receiver.intake._usual is usual
    peer.tell(frame(encoder, 11, ("GET", "/0", USUAL, False, "plain")))
    assert peer.session._receiver.intake._usual is not usual, "the table is another"


def usual_of(block: bytes) -> UsualRequest | None:
    return learn_usual(block, LIKE, rest_bytes=100, changes=3, priority=(3, False))


def test_what_is_learnt() -> None:
    usual = usual_of(BEFORE[:2] + b"\xc5\x04\x02/a" + AFTER)
    assert usual is not None
    read = usual.read(
        bytes(9) + BEFORE[:2] + b"\xc5\x04\x04/b?c" + AFTER, 9, LIMITS, KnownStrings()
    )
    assert read == LIKE.for_target("/b", "c")
    assert usual.changes == 3


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"\x82\x87",
        b"\x82\x87\x04",  # No such block is decoded, but nothing breaks.
        b"\x82\x44\x02/a",  # It enters the table.
        b"\x3f\xe1\x1f\x82\x04\x02/a",  # The table's size.
        b"\x82\x00\x05:path\x02/a",  # A name that is told; nobody writes so.
        b"\x82\x03\x03abc",  # Another literal first.
    ],
)
def test_other_forms_teach_nothing(block: bytes) -> None:
    assert usual_of(block) is None


@pytest.mark.parametrize(
    "told",
    [
        b"",
        b"\x02/",  # It says more than there is,
        b"\x02/abc",  # or less.
        b"\x00",
        b"\x01b",
        b"\x03/ b",
        b"\x83\xff\xff\xff",  # No Huffman-coded text.
        b"\x7f",
        b"\x7f\xff\xff\xff\xff\xff/",
        b"\x7f\xae\x01" + b"/" * 301,  # Longer than may be.
    ],
)
def test_what_is_out_of_the_ordinary_is_left_to_others(told: bytes) -> None:
    usual = usual_of(b"\x82\x87\x04\x02/a" + AFTER)
    assert usual is not None
    assert usual.read(b"\x82\x87\x04" + told + AFTER, 0, LIMITS, KnownStrings()) is None


@pytest.mark.parametrize("size", [1, 126, 127, 128, 300])
def test_paths_of_any_length(size: int) -> None:
    usual = usual_of(b"\x82\x87\x04\x02/a" + AFTER)
    assert usual is not None
    text = b"/" + b"p" * (size - 1)
    length = (
        bytes([size])
        if size < 127
        else b"\x7f"
        + (
            bytes([size - 127])
            if size < 255
            else bytes([(size - 127) & 127 | 128, (size - 127) >> 7])
        )
    )
    read = usual.read(b"\x82\x87\x04" + length + text + AFTER, 0, LIMITS, KnownStrings())
    assert read == LIKE.for_target(text.decode(), "")


def test_the_whole_list_counts() -> None:
    usual = learn_usual(
        b"\x04\x02/a", LIKE, rest_bytes=LIMITS.head_bytes_max - 3, changes=0, priority=(3, False)
    )
    assert usual is not None
    assert usual.read(b"\x04\x03/ab", 0, LIMITS, KnownStrings()) is not None
    assert usual.read(b"\x04\x04/abc", 0, LIMITS, KnownStrings()) is None


def test_before_the_preface_there_is_no_usual_one() -> None:
    peer = Peer(greet=False)
    peer.tell(PREFACE)
    peer.tell(frame(hpack.Encoder(), 1, ("GET", "/", [], False, "plain")))
    assert peer.ended
