"""What h2spec asks of servers: its list of cases, written anew from RFC 9113, 7540 and 7541.

A case sends frames by hand; expected is an answer, an error of the stream, or of the connection.
"""

import pytest

from edged.wire.h2 import frames
from edged.wire.h2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES,
    GOAWAY,
    HAS_PRIORITY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    ErrorCode,
    make_frame,
    make_ping,
    make_reset,
    make_settings,
    make_window_update,
)
from edged.wire.h2.head import H2Request
from tests.wire.h2.peer import GET, POST, Peer, data, encode, headers

BLOCK = encode(GET)
OPEN = END_HEADERS  # Flags of a request with a body.
BODY = b"hello"
NUMBER = b"\0\0\0\1"
MAX = (2**31 - 1).to_bytes(4, "big")


def post(*more: tuple[str, str]) -> bytes:
    return headers(1, (*POST, *more), OPEN)


def get(*more: tuple[str, str]) -> bytes:
    return headers(1, (*GET, *more))


def without(name: str) -> bytes:
    return headers(1, [field for field in GET if field[0] != name])


def changed(name: str, value: str) -> bytes:
    return headers(1, [(key, value if key == name else old) for key, old in GET])


def block(raw: bytes, flags: int = END_STREAM | END_HEADERS, stream_id: int = 1) -> bytes:
    return make_frame(HEADERS, flags, stream_id, raw)


def setting(key: int, value: int) -> bytes:
    return make_settings([(key, value)])


def dependent(on: int) -> bytes:
    return on.to_bytes(4, "big") + b"\xff"


def padded(raw: bytes, padding: int, told: int | None = None) -> bytes:
    return bytes([padding if told is None else told]) + raw + bytes(padding)


TRAILERS = headers(1, [("x-sum", "1")])
HALF = BLOCK[:4]

# What is answered with 200.
ANSWERED = {
    "generic/1/1 preface": get(),
    "generic/2/1 PRIORITY of an idle stream": make_frame(PRIORITY, 0, 1, dependent(0)) + get(),
    "generic/2/2 WINDOW_UPDATE of a half-closed stream": get() + make_window_update(1, 9),
    "generic/2/3 PRIORITY of a half-closed stream": get()
    + make_frame(PRIORITY, 0, 1, dependent(0)),
    "generic/2/5 PRIORITY of a closed stream": get() + make_frame(PRIORITY, 0, 1, dependent(0)),
    "generic/3.1/1 DATA": post() + data(1, BODY),
    "generic/3.1/2 several DATA": post() + data(1, BODY, end=False) + data(1, BODY),
    "generic/3.1/3 DATA with padding": post()
    + make_frame(DATA, END_STREAM | PADDED, 1, padded(BODY, 6)),
    "generic/3.2/1 HEADERS": get(),
    "generic/3.2/2 HEADERS with padding": block(padded(BLOCK, 6), 0x5 | PADDED),
    "generic/3.2/3 HEADERS with priority": block(dependent(0) + BLOCK, 0x5 | HAS_PRIORITY),
    "HEADERS with both": block(padded(dependent(0) + BLOCK, 3), 0x5 | HAS_PRIORITY | PADDED),
    "generic/3.3/1 PRIORITY of weight 1": make_frame(PRIORITY, 0, 1, bytes(5)) + get(),
    "generic/3.3/2 PRIORITY of weight 256": make_frame(PRIORITY, 0, 1, dependent(0)) + get(),
    "generic/3.3/3 PRIORITY with a dependency": make_frame(PRIORITY, 0, 1, dependent(3)) + get(),
    "generic/3.3/4 exclusive": make_frame(PRIORITY, 0, 1, b"\x80\0\0\3\1") + get(),
    "generic/3.3/5 PRIORITY of a later stream first": make_frame(PRIORITY, 0, 9, bytes(5)) + get(),
    "generic/3.5/1 SETTINGS": setting(frames.MAX_CONCURRENT_STREAMS, 100) + get(),
    "generic/3.9/1 WINDOW_UPDATE of the connection": make_window_update(0, 1) + get(),
    "generic/3.9/2 WINDOW_UPDATE of a stream": get() + make_window_update(1, 1),
    "generic/3.10/1 CONTINUATION": block(BLOCK[:3], END_STREAM)
    + make_frame(CONTINUATION, END_HEADERS, 1, BLOCK[3:]),
    "generic/3.10/2 several CONTINUATIONs": block(BLOCK[:3], END_STREAM)
    + make_frame(CONTINUATION, 0, 1, BLOCK[3:5])
    + make_frame(CONTINUATION, END_HEADERS, 1, BLOCK[5:]),
    "generic/4/1 GET": get(),
    "generic/4/2 HEAD": changed(":method", "HEAD"),
    "generic/4/3 POST": post() + data(1, BODY),
    "generic/4/4 POST with trailers": post() + data(1, BODY, end=False) + TRAILERS,
    "generic/5/1 indexed": block(b"\x82\x84\x87\x01\x04edge"),
    "generic/5/2 indexed name, enters the table": block(b"\x82\x84\x87\x41\x04edge\xbe"[:-1]),
    "generic/5/4 new name, enters the table": block(b"\x82\x84\x87\x01\x04edge\x40\1a\1b\xbe"),
    "generic/5/6 new name, not in the table": block(b"\x82\x84\x87\x01\x04edge\x00\1a\1b"),
    "generic/5/8 never in a table": block(b"\x82\x84\x87\x11\x04edge\x10\1a\1b"),
    "generic/5/10 new name in Huffman code": block(b"\x82\x84\x87\x41\x04edge\x40\x81\x1f\1b"),
    "generic/5/14 table size update": block(b"\x3f\xe1\x1f\x82\x84\x87\x41\x04edge"),
    "generic/5/15 two table size updates": block(b"\x20\x3f\xe1\x1f\x82\x84\x87\x41\x04edge"),
    "http2/4.1/1 unknown frame type": make_frame(0x16, 0, 0, bytes(8)) + get(),
    "http2/4.1/2 undefined flags": make_frame(PING, 0x16, 0, bytes(8)) + get(),
    "http2/4.1/3 reserved bit": make_frame(PING, 0, 1 << 31, bytes(8)) + get(),
    "http2/4.2/1 DATA of 2^14 bytes": post() + data(1, bytes(FRAME_BYTES)),
    "http2/5.5/1 unknown extension frame": make_frame(0x16, 0, 0, bytes(8)) + get(),
    "http2/6.5.2/5 unknown setting": setting(0xFF, 1) + get(),
    "http2/6.7/2 acknowledged PING": make_ping(bytes(8), ack=True) + get(),
    "http2/6.9.1/1 window of 1": setting(frames.INITIAL_WINDOW_SIZE, 1) + get(),
    "http2/6.10/1 several CONTINUATIONs": block(BLOCK[:3], END_STREAM)
    + make_frame(CONTINUATION, 0, 1, BLOCK[3:5])
    + make_frame(CONTINUATION, END_HEADERS, 1, BLOCK[5:]),
    "http2/7/1 GOAWAY of an unknown code": make_frame(GOAWAY, 0, 0, bytes(4) + b"\0\0\0\xff")
    + get(),
    "te: trailers": get(("te", "trailers")),
    "content-length as it is": post(("content-length", "5")) + data(1, BODY),
    "trailers are not asked for their length": post(("content-length", "5"))
    + data(1, BODY, end=False)
    + TRAILERS,
    "OPTIONS *": headers(1, [(":method", "OPTIONS"), *GET[1:3], (":path", "*")]),
    "host instead of :authority": headers(1, [*GET[:2], GET[3], ("host", "edge")]),
    "host as :authority": get(("host", "EDGE")),
}

# Errors of a stream: what they tell, and whether the request itself was told before.
STREAM_ERRORS = {
    "http2/5.1/5 half closed: DATA": (get() + data(1, BODY), ErrorCode.STREAM_CLOSED),
    "http2/5.1/6 half closed: HEADERS": (get() + get(), ErrorCode.STREAM_CLOSED),
    "http2/5.3.1/1 HEADERS depends on itself": (
        block(dependent(1) + BLOCK, 0x5 | HAS_PRIORITY),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "PRIORITY depends on itself": (
        get() + make_frame(PRIORITY, 0, 1, dependent(1)),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "http2/6.1/2 DATA of a half-closed stream": (get() + data(1, BODY), ErrorCode.STREAM_CLOSED),
    "http2/6.3/2 PRIORITY of 4 bytes": (
        get() + make_frame(PRIORITY, 0, 1, bytes(4)),
        ErrorCode.FRAME_SIZE_ERROR,
    ),
    "http2/6.9/2 WINDOW_UPDATE of 0": (
        get() + make_window_update(1, 0),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "http2/6.9.1/3 stream window above 2^31-1": (
        get() + 2 * make_frame(WINDOW_UPDATE, 0, 1, MAX),
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
    "http2/8.1/1 second HEADERS without END_STREAM": (
        post() + headers(1, [("x", "y")], OPEN),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "http2/8.1.2.1/3 pseudo-header field in trailers": (
        post() + headers(1, [(":method", "GET")]),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "malformed trailers": (post() + headers(1, [("X", "y")]), ErrorCode.PROTOCOL_ERROR),
    "http2/8.1.2.6/1 content-length and one DATA": (
        post(("content-length", "1")) + data(1, BODY),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "http2/8.1.2.6/2 content-length and several DATA": (
        post(("content-length", "6")) + data(1, b"hel", end=False) + data(1, b"lo"),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "content-length, and trailers come first": (
        post(("content-length", "6")) + TRAILERS,
        ErrorCode.PROTOCOL_ERROR,
    ),
} | {
    name: (wire, ErrorCode.PROTOCOL_ERROR)
    for name, wire in {
        "http2/8.1.2/1 name in upper case": get(("X-Test", "ok")),
        "http2/8.1.2.1/1 unknown pseudo-header field": headers(1, [(":test", "ok"), *GET]),
        "http2/8.1.2.1/2 pseudo-header field of a response": headers(1, [(":status", "200"), *GET]),
        "http2/8.1.2.1/4 pseudo-header field behind others": headers(1, [("x", "y"), *GET]),
        ":protocol without our leave": headers(1, [*GET, (":protocol", "websocket")]),
        "http2/8.1.2.2/1 connection": get(("connection", "keep-alive")),
        "keep-alive": get(("keep-alive", "1")),
        "proxy-connection": get(("proxy-connection", "keep-alive")),
        "transfer-encoding": get(("transfer-encoding", "chunked")),
        "upgrade": get(("upgrade", "h2c")),
        "http2/8.1.2.2/2 te": get(("te", "trailers, deflate")),
        "http2/8.1.2.3/1 empty :path": changed(":path", ""),
        "http2/8.1.2.3/2 without :method": without(":method"),
        "http2/8.1.2.3/3 without :scheme": without(":scheme"),
        "http2/8.1.2.3/4 without :path": without(":path"),
        "http2/8.1.2.3/5 two :method": headers(1, [GET[0], *GET]),
        "http2/8.1.2.3/6 two :scheme": headers(1, [GET[1], *GET]),
        "http2/8.1.2.3/7 two :path": headers(1, [GET[3], *GET]),
        "two :authority": headers(1, [GET[2], *GET]),
        "without :authority": without(":authority"),
        "empty :authority": changed(":authority", ""),
        "user information": changed(":authority", "me@edge"),
        "relative :path": changed(":path", "a"),
        "absolute :path": changed(":path", "https://edge/a"),
        "fragment": changed(":path", "/a#b"),
        "space in :path": changed(":path", "/a b"),
        "* for GET": changed(":path", "*"),
        "empty :method": changed(":method", ""),
        "host is another": get(("host", "other")),
        "two host": get(("host", "edge"), ("host", "edge")),
        "two content-length": get(("content-length", "0"), ("content-length", "0")),
        "content-length of no number": get(("content-length", "+5")),
        "content-length without a body": get(("content-length", "5")),
        "colon in a name": get(("a:b", "c")),
        "empty name": get(("", "c")),
        "line feed in a value": get(("a", "b\nc")),
        "carriage return in a value": get(("a", "b\rc")),
        "zero in a value": get(("a", "b\0c")),
        "space before a value": get(("a", " b")),
        "tab behind a value": get(("a", "b\t")),
    }.items()
}
GETS_RESET = get() + make_reset(1, ErrorCode.CANCEL)

# Errors of the connection.
CONNECTION_ERRORS = {
    ErrorCode.PROTOCOL_ERROR: {
        "http2/4.3/2 PRIORITY in a header block": block(HALF, END_STREAM)
        + make_frame(PRIORITY, 0, 1, dependent(0)),
        "http2/4.3/3 HEADERS of another stream in a header block": block(HALF, END_STREAM)
        + headers(3),
        "http2/5.1/1 idle: DATA": data(1, BODY),
        "http2/5.1/2 idle: RST_STREAM": make_reset(1, ErrorCode.CANCEL),
        "http2/5.1/3 idle: WINDOW_UPDATE": make_window_update(1, 100),
        "http2/5.1/4 idle: CONTINUATION": make_frame(CONTINUATION, END_HEADERS, 1, BLOCK),
        "http2/5.1/7 half closed: CONTINUATION": get() + make_frame(CONTINUATION, 4, 1, BLOCK),
        "http2/5.1/10 closed by a reset: CONTINUATION": GETS_RESET
        + make_frame(CONTINUATION, 4, 1, BLOCK),
        "http2/5.1.1/1 even number": headers(2),
        "http2/5.1.1/2 a lower number": headers(5) + headers(3),
        "http2/5.3.1/2 PRIORITY of an idle stream on itself": make_frame(
            PRIORITY, 0, 1, dependent(1)
        ),
        "http2/5.5/2 unknown frame in a header block": block(HALF, END_STREAM)
        + make_frame(0x16, 0, 0, bytes(8)),
        "http2/6.1/1 DATA of stream 0": data(0, BODY),
        "http2/6.1/3 padding as large as the payload": post()
        + make_frame(DATA, PADDED | END_STREAM, 1, padded(BODY, 0, 6)),
        "http2/6.2/1 HEADERS, then PRIORITY": block(HALF, END_STREAM)
        + make_frame(PRIORITY, 0, 3, dependent(0)),
        "http2/6.2/2 HEADERS, then another": block(HALF, END_STREAM) + headers(3),
        "http2/6.2/3 HEADERS of stream 0": headers(0),
        "http2/6.2/4 padding as large as the payload": block(
            padded(BLOCK, 0, len(BLOCK) + 1), 0x5 | PADDED
        ),
        "http2/6.3/1 PRIORITY of stream 0": make_frame(PRIORITY, 0, 0, dependent(1)),
        "http2/6.4/1 RST_STREAM of stream 0": make_reset(0, ErrorCode.CANCEL),
        "http2/6.4/2 RST_STREAM of an idle stream": make_reset(1, ErrorCode.CANCEL),
        "http2/6.5/2 SETTINGS of a stream": make_frame(SETTINGS, 0, 1, b"\0\3\0\0\0\x64"),
        "http2/6.5.2/1 ENABLE_PUSH of 2": setting(frames.ENABLE_PUSH, 2),
        "http2/6.5.2/3 MAX_FRAME_SIZE below 2^14": setting(frames.MAX_FRAME_SIZE, 2**14 - 1),
        "http2/6.5.2/4 MAX_FRAME_SIZE above 2^24-1": setting(frames.MAX_FRAME_SIZE, 2**24),
        "RFC 9218 §2.1 NO_RFC7540_PRIORITIES of 2": setting(frames.NO_RFC7540_PRIORITIES, 2),
        "RFC 9218 §2.1 NO_RFC7540_PRIORITIES later": setting(frames.NO_RFC7540_PRIORITIES, 1),
        "RFC 9218 §7.1 PRIORITY_UPDATE of a stream": make_frame(0x10, 0, 1, NUMBER + b"u=1"),
        "RFC 9218 §7.1 PRIORITY_UPDATE of stream 0": make_frame(0x10, 0, 0, bytes(4) + b"u=1"),
        "PRIORITY_UPDATE of a push": make_frame(0x10, 0, 0, b"\0\0\0\2u=1"),
        "http2/6.7/3 PING of a stream": make_frame(PING, 0, 1, bytes(8)),
        "http2/6.8/1 GOAWAY of a stream": make_frame(GOAWAY, 0, 1, bytes(8)),
        "http2/6.9/1 WINDOW_UPDATE of 0": make_window_update(0, 0),
        "http2/6.10/2 CONTINUATION, then another": block(HALF, END_STREAM)
        + make_frame(CONTINUATION, 0, 1, b"")
        + data(1, BODY),
        "http2/6.10/3 CONTINUATION of stream 0": block(HALF, END_STREAM)
        + make_frame(CONTINUATION, END_HEADERS, 0, BLOCK[4:]),
        "http2/6.10/4 CONTINUATION behind END_HEADERS": get()
        + make_frame(CONTINUATION, END_HEADERS, 1, BLOCK),
        "http2/6.10/5 CONTINUATION behind the last": block(HALF, END_STREAM)
        + make_frame(CONTINUATION, END_HEADERS, 1, BLOCK[4:])
        + make_frame(CONTINUATION, END_HEADERS, 1, BLOCK),
        "http2/6.10/6 CONTINUATION behind DATA": post()
        + data(1, BODY, end=False)
        + make_frame(CONTINUATION, END_HEADERS, 1, BLOCK),
        "http2/8.2/1 PUSH_PROMISE": make_frame(PUSH_PROMISE, END_HEADERS, 1, bytes(4) + BLOCK),
    },
    ErrorCode.FRAME_SIZE_ERROR: {
        "http2/4.2/2 DATA above 2^14": post() + data(1, bytes(FRAME_BYTES + 1)),
        "http2/4.2/3 HEADERS above 2^14": make_frame(HEADERS, 0x5, 1, bytes(FRAME_BYTES + 1)),
        "PRIORITY of 4 bytes of an idle stream": make_frame(PRIORITY, 0, 1, bytes(4)),
        "http2/6.4/3 RST_STREAM of 3 bytes": get() + make_frame(RST_STREAM, 0, 1, bytes(3)),
        "http2/6.5/1 acknowledgement with a payload": make_frame(SETTINGS, ACK, 0, bytes(6)),
        "http2/6.5/3 SETTINGS of 3 bytes": make_frame(SETTINGS, 0, 0, b"\0\3\0"),
        "http2/6.7/4 PING of 6 bytes": make_frame(PING, 0, 0, bytes(6)),
        "GOAWAY of 7 bytes": make_frame(GOAWAY, 0, 0, bytes(7)),
        "http2/6.9/3 WINDOW_UPDATE of 3 bytes": make_frame(WINDOW_UPDATE, 0, 0, b"\0\0\1"),
        "PRIORITY_UPDATE of 3 bytes": make_frame(0x10, 0, 0, bytes(3)),
        "HEADERS without room for its priority": block(bytes(4), 0x5 | HAS_PRIORITY),
        "DATA without room for its padding's length": post() + make_frame(DATA, PADDED, 1),
    },
    ErrorCode.FLOW_CONTROL_ERROR: {
        "http2/6.5.2/2 INITIAL_WINDOW_SIZE above 2^31-1": setting(
            frames.INITIAL_WINDOW_SIZE, 2**31
        ),
        "http2/6.9.1/2 window above 2^31-1": 2 * make_frame(WINDOW_UPDATE, 0, 0, MAX),
        "http2/6.9.2/3 INITIAL_WINDOW_SIZE above 2^31-1": setting(
            frames.INITIAL_WINDOW_SIZE, 2**31
        ),
        "INITIAL_WINDOW_SIZE brings a window above 2^31-1": get()
        + make_window_update(1, 1)
        + setting(frames.INITIAL_WINDOW_SIZE, 2**31 - 1),
    },
    ErrorCode.COMPRESSION_ERROR: {
        "http2/4.3/1 no header block": block(b"\x82\x84\x87\x01\x04ed"),
        "hpack/2.3.3/1 index that is not": block(BLOCK + b"\xc6"),
        "hpack/2.3.3/2 name of an index that is not": block(BLOCK + b"\x7f\x07\1a"),
        "hpack/4.2/1 table size update at the end": block(BLOCK + b"\x20"),
        "hpack/5.2/1 padding of more than 7 bits": block(
            b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff"
        ),
        "hpack/5.2/2 padding of zeros": block(b"\x00\x85\xf2\xb2\x4a\x87\xff\x84\x49\x50\x90"),
        "hpack/5.2/3 EOS": block(b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\xff\xff\xff\xff"),
        "hpack/6.1/1 index 0": block(BLOCK + b"\x80"),
        "hpack/6.3/1 table size update above 4096": block(b"\x3f\xe2\x1f" + BLOCK),
    },
    ErrorCode.STREAM_CLOSED: {
        "http2/5.1/8 closed by a reset: DATA": GETS_RESET + data(1, BODY),
        "http2/5.1/9 closed by a reset: HEADERS": GETS_RESET + get(),
    },
}
CLOSED = {  # After the whole answer.
    "http2/5.1/11 closed: DATA": data(1, BODY),
    "http2/5.1/12 closed: HEADERS": get(),
}


@pytest.mark.parametrize("name", ANSWERED)
def test_is_answered(name: str) -> None:
    peer = Peer(body=b"x")
    peer.tell(ANSWERED[name])
    heard = peer.hear()
    assert peer.ended == ""
    assert [frame.kind for frame in heard if frame.stream_id == 1] == [HEADERS, DATA]
    assert heard[-1].flags & END_STREAM


@pytest.mark.parametrize("name", STREAM_ERRORS)
def test_is_an_error_of_the_stream(name: str) -> None:
    wire, code = STREAM_ERRORS[name]
    peer = Peer()
    peer.tell(wire)
    (reset,) = peer.hear()
    assert (reset.kind, reset.stream_id, reset.code) == (RST_STREAM, 1, code)
    assert peer.ended == ""
    told = [event for event in peer.events if isinstance(event, H2Request)]
    assert len(peer.events) == 2 * len(told), "who waits for an answer is told"
    peer.body = b"x"
    peer.tell(headers(3))
    assert [frame.kind for frame in peer.hear()] == [HEADERS, DATA], "other streams go on"


@pytest.mark.parametrize(
    ("code", "name"), [(code, name) for code, cases in CONNECTION_ERRORS.items() for name in cases]
)
def test_is_an_error_of_the_connection(code: ErrorCode, name: str) -> None:
    peer = Peer()
    peer.tell(CONNECTION_ERRORS[code][name])
    heard = peer.hear()
    assert heard[-1].kind == GOAWAY, "nothing comes behind it"
    assert heard[-1].code == code
    assert peer.ended.startswith(f"{code.name}: ")
    assert heard[-1].payload[8:].decode() in peer.ended.replace("§", "?")
    assert peer.tell(headers(9)) == []
    assert not peer.session.wants_output


@pytest.mark.parametrize("name", CLOSED)
def test_closed_by_its_end(name: str) -> None:
    peer = Peer(body=b"x")
    peer.tell(get())
    peer.hear()
    peer.tell(CLOSED[name])
    assert peer.hear()[-1].code == ErrorCode.STREAM_CLOSED
    assert peer.ended


def test_http2_5_1_13_closed_continuation() -> None:
    peer = Peer(body=b"x")
    peer.tell(get())
    peer.hear()
    peer.tell(make_frame(CONTINUATION, END_HEADERS, 1, BLOCK))
    assert peer.hear()[-1].code == ErrorCode.PROTOCOL_ERROR


def test_generic_2_5_priority_of_a_closed_stream() -> None:
    peer = Peer(body=b"x")
    peer.tell(get())
    peer.hear()
    peer.tell(make_frame(PRIORITY, 0, 1, dependent(0)), make_window_update(1, 5))
    peer.tell(make_reset(1, ErrorCode.CANCEL), headers(3))
    assert [frame.stream_id for frame in peer.hear()] == [3, 3]


def test_generic_2_4_and_3_4_reset_of_a_half_closed_stream() -> None:
    peer = Peer()
    peer.tell(GETS_RESET, make_frame(RST_STREAM, 0, 1, b"\0\0\0\xff"))  # http2/7/2, too.
    assert peer.hear() == []
    assert peer.ended == ""
    assert not peer.session.respond(1, b"", [b"x"], now=0.0)


def test_generic_3_7_ping() -> None:
    """And http2/6.7/1."""
    peer = Peer()
    peer.tell(make_ping(b"12345678", ack=False))
    (pong,) = peer.hear()
    assert (pong.kind, pong.flags, pong.payload) == (PING, ACK, b"12345678")


def test_generic_3_8_goaway() -> None:
    peer = Peer()
    peer.tell(frames.make_goaway(0, ErrorCode.NO_ERROR, "bye"))
    assert peer.ended == "the peer leaves: NO_ERROR 'bye'"


@pytest.mark.parametrize(
    "wire", [b"INVALID CONNECTION PREFACE\r\n\r\n", PREFACE[:-1] + b"x", b"\x16\x03\x01" * 8]
)
def test_http2_3_5_preface(wire: bytes) -> None:
    peer = Peer(greet=False)
    peer.tell(wire)
    assert peer.hear()[-1].code == ErrorCode.PROTOCOL_ERROR
    assert "not HTTP/2's preface" in peer.ended


def test_http2_3_5_settings_come_first() -> None:
    peer = Peer(greet=False)
    assert [frame.kind for frame in peer.hear()] == [SETTINGS]
    peer.tell(PREFACE + get())
    assert peer.hear()[-1].code == ErrorCode.PROTOCOL_ERROR
    assert "not SETTINGS" in peer.ended


def test_http2_5_1_2_more_streams_than_allowed() -> None:
    peer = Peer()
    peer.tell(*(headers(2 * n + 1) for n in range(128)))
    assert peer.hear() == []
    peer.tell(headers(257))
    (reset,) = peer.hear()
    assert (reset.stream_id, reset.code) == (257, ErrorCode.REFUSED_STREAM)
    assert peer.ended == ""


def test_http2_5_4_1_the_last_stream_is_told() -> None:
    peer = Peer()
    peer.tell(get() + headers(7), make_frame(PING, 0, 0, bytes(6)))
    goaway = peer.hear()[-1]
    assert int.from_bytes(goaway.payload[:4], "big") == 7


def test_http2_6_5_3_settings_in_order_and_acknowledged() -> None:
    peer = Peer(body=b"hello")
    peer.tell(make_settings([(frames.INITIAL_WINDOW_SIZE, 100), (frames.INITIAL_WINDOW_SIZE, 1)]))
    (ack,) = peer.hear()
    assert (ack.kind, ack.flags, ack.payload) == (SETTINGS, ACK, b"")
    peer.tell(get())
    assert [frame.payload for frame in peer.hear()][1:] == [b"h"]


def test_http2_6_9_2_windows_change_and_become_negative() -> None:
    peer = Peer(body=b"hello world", settings=[(frames.INITIAL_WINDOW_SIZE, 3)])
    peer.tell(get())
    assert [frame.payload for frame in peer.hear()][1:] == [b"hel"]
    peer.tell(setting(frames.INITIAL_WINDOW_SIZE, 5))
    assert [frame.payload for frame in peer.hear()] == [b"", b"lo"]
    peer.tell(setting(frames.INITIAL_WINDOW_SIZE, 2))
    assert [frame.payload for frame in peer.hear()] == [b""]
    peer.tell(make_window_update(1, 3))
    assert peer.hear() == [], "the window is 0 now"
    peer.tell(make_window_update(1, 1))
    assert [frame.payload for frame in peer.hear()] == [b" "]
    peer.tell(make_window_update(1, 1000))
    assert [(frame.payload, frame.flags) for frame in peer.hear()] == [(b"world", END_STREAM)]
