"""HPACK: the RFC's examples, `hpack` as the oracle, every limit, and blocks that anyone decodes."""

import contextlib

import hpack
import hypothesis
import pytest
from hypothesis import strategies as st

from edged.wire.h2.hpack import (
    KNOWN_BYTES_MAX,
    TABLE_BYTES_MAX,
    Field,
    HpackDecoder,
    HpackError,
    KnownStrings,
    Vocabulary,
    encode_fields,
)

PLAIN = Vocabulary(lambda name, value: len(name) + len(value))


def decoder(entries_max: int = 100) -> HpackDecoder:
    return HpackDecoder(PLAIN, KnownStrings(entries_max))


def fields_of(hpack_decoder: HpackDecoder, block: bytes) -> list[Field]:
    entries = hpack_decoder.decode(block)
    assert all(size == verdict + 32 for _, size, verdict in entries)
    assert sum(size for _, size, _ in entries) == hpack_decoder.list_bytes
    return [field for field, _, _ in entries]


GET = [
    (b":method", b"GET"),
    (b":scheme", b"http"),
    (b":path", b"/"),
    (b":authority", b"www.example.com"),
]
# RFC 7541 appendix C.2 to C.4: blocks on one connection, what they mean, the table's size then.
EXAMPLES: dict[str, list[tuple[str, list[Field], int]]] = {
    "C.2.1": [
        (
            "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
            [(b"custom-key", b"custom-header")],
            55,
        )
    ],
    "C.2.2": [("040c 2f73 616d 706c 652f 7061 7468", [(b":path", b"/sample/path")], 0)],
    "C.2.3": [("1008 7061 7373 776f 7264 0673 6563 7265 74", [(b"password", b"secret")], 0)],
    "C.2.4": [("82", [(b":method", b"GET")], 0)],
    "C.3": [
        ("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", GET, 57),
        ("8286 84be 5808 6e6f 2d63 6163 6865", [*GET, (b"cache-control", b"no-cache")], 110),
        (
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
            [
                (b":method", b"GET"),
                (b":scheme", b"https"),
                (b":path", b"/index.html"),
                (b":authority", b"www.example.com"),
                (b"custom-key", b"custom-value"),
            ],
            164,
        ),
    ],
    "C.4": [
        ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", GET, 57),
        ("8286 84be 5886 a8eb 1064 9cbf", [*GET, (b"cache-control", b"no-cache")], 110),
        (
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
            [
                (b":method", b"GET"),
                (b":scheme", b"https"),
                (b":path", b"/index.html"),
                (b":authority", b"www.example.com"),
                (b"custom-key", b"custom-value"),
            ],
            164,
        ),
    ],
}
DATES = [f"Mon, 21 Oct 2013 20:13:2{n} GMT".encode() for n in (1, 2)]
COOKIE = b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"
RESPONSES: list[list[Field]] = [
    [
        (b":status", b"302"),
        (b"cache-control", b"private"),
        (b"date", DATES[0]),
        (b"location", b"https://www.example.com"),
    ],
    [
        (b":status", b"307"),
        (b"cache-control", b"private"),
        (b"date", DATES[0]),
        (b"location", b"https://www.example.com"),
    ],
    [
        (b":status", b"200"),
        (b"cache-control", b"private"),
        (b"date", DATES[1]),
        (b"location", b"https://www.example.com"),
        (b"content-encoding", b"gzip"),
        (b"set-cookie", COOKIE),
    ],
]
# C.5 and C.6: with a table of 256 bytes, from which fields are evicted.
EVICTING = {
    "C.5": [
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a"
        "3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04"
        "677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49"
        "553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
    ],
    "C.6": [
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e"
        "919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7"
        "821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed"
        "4ee5 b106 3d50 07",
    ],
}
SIZE_256 = b"\x3f\xe1\x01"


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples(name: str) -> None:
    ours = decoder()
    for block, fields, size in EXAMPLES[name]:
        assert fields_of(ours, bytes.fromhex(block)) == fields
        assert ours.dynamic_bytes == size


@pytest.mark.parametrize("name", EVICTING)
def test_examples_that_evict(name: str) -> None:
    ours = decoder()
    ours.decode(SIZE_256)
    for block, fields, size in zip(EVICTING[name], RESPONSES, (222, 222, 215), strict=True):
        assert fields_of(ours, bytes.fromhex(block)) == fields
        assert ours.dynamic_bytes == size
    assert ours.dynamic_fields == [RESPONSES[2][at] for at in (5, 4, 2)]


names = st.sampled_from([b":path", b":method", b"accept", b"x", b"cookie", b"a-long-name" * 9])
fields_strategy = st.lists(
    st.tuples(
        names | st.binary(max_size=20),
        st.sampled_from([b"/", b"GET", b""]) | st.binary(max_size=300),
    ),
    max_size=12,
)
blocks = st.lists(
    st.tuples(fields_strategy, st.booleans(), st.sampled_from([None, 0, 40, 300, 4096])), max_size=8
)


@hypothesis.settings(deadline=None)
@hypothesis.given(blocks, st.integers(1, 5))
def test_what_hpack_encodes_we_decode(
    lists: list[tuple[list[Field], bool, int | None]], entries_max: int
) -> None:
    theirs, ours = hpack.Encoder(), decoder(entries_max)
    for fields, huffman, size in lists:
        if size is not None:
            theirs.header_table_size = size
        assert fields_of(ours, theirs.encode(fields, huffman=huffman)) == fields
        table = theirs.header_table
        assert ours.dynamic_fields == [tuple(field) for field in table.dynamic_entries]
        assert ours.dynamic_bytes <= ours.dynamic_bytes_max <= TABLE_BYTES_MAX


def oracle() -> hpack.Decoder:
    theirs = hpack.Decoder(max_header_list_size=1 << 30)
    theirs.max_allowed_table_size = TABLE_BYTES_MAX
    return theirs


garbage = st.lists(
    st.sampled_from(
        [
            b"\x82",
            b"\x80\1a\1b",
            b"\xbe",
            b"\x41\1a",
            b"\x40\1a\1b",
            b"\x3f\xe1\x01",
            b"\x20",
            b"\x00\x81\x1f\1b",
        ]
    )
    | st.binary(max_size=12),
    max_size=12,
).map(b"".join)


@hypothesis.settings(deadline=None, max_examples=300)
@hypothesis.given(st.lists(garbage, max_size=4))
def test_garbage_is_never_taken_for_more_than_the_oracle_takes_it(pieces: list[bytes]) -> None:
    theirs, ours = oracle(), decoder()
    for block in pieces:
        try:
            got = fields_of(ours, block)
        except HpackError:
            return  # The connection ends; ours may refuse what hpack does not (long integers).
        expected = theirs.decode(block, raw=True)
        assert got == [tuple(field) for field in expected]


@hypothesis.given(garbage)
def test_what_ours_refuses_the_oracle_refuses_but_for_long_integers(block: bytes) -> None:
    with contextlib.suppress(hpack.HPACKError):
        theirs = oracle()
        theirs.decode(block, raw=True)
        try:
            decoder().decode(block)
        except HpackError as error:
            assert "integer of more than" in str(error)  # noqa: PT017 - there may be none


@pytest.mark.parametrize(
    ("block", "why"),
    [
        (b"\x80\1a\1b", "index 0"),
        (b"\xbe", "index 62, the last is 61"),
        (b"\xff", "ends within an integer"),
        (b"\xff\x80\x80\x80\x80\x00", "more than 4 bytes"),
        (b"\x7e\1a", "index 62, the last is 61"),
        (b"\x40", "ends within a field"),
        (b"\x40\1a", "ends within a field"),
        (b"\x40\1a\3b", "string of 3 bytes with 1 left"),
        (b"\x40\1a\x7f", "ends within an integer"),
        (b"\x40\1a\x81\xff", "1 Huffman-coded bytes are no text"),
        (b"\x3f\xe2\x1f", "update to 4097 bytes, allowed are 4096"),
        (b"\x82\x20", "behind a header field"),
    ],
)
def test_what_is_no_block(block: bytes, why: str) -> None:
    with pytest.raises(HpackError, match=why):
        decoder().decode(block)


def test_at_the_limits() -> None:
    ours = decoder()
    ours.decode(b"\x3f\xe1\x1f")
    assert ours.dynamic_bytes_max == 4096
    assert ours.decode(b"\x0f\x84\x80\x80\x00\0")[0][0] == (b"accept", b""), "4 integer bytes"


def test_a_field_larger_than_the_table_empties_it() -> None:
    ours = decoder()
    ours.decode(b"\x40\1a\1b")
    assert ours.dynamic_bytes == 34
    value = bytes(4096 - 32)
    size = (
        b"\x7f" + (len(value) - 127 & 127 | 128).to_bytes(1, "big") + bytes([len(value) - 127 >> 7])
    )
    ours.decode(b"\x40\0" + size + value)
    assert ours.dynamic_bytes == 4096
    ours.decode(b"\x40\1a" + size + value)
    assert (ours.dynamic_bytes, ours.dynamic_fields) == (0, [])


def test_known_strings_are_bounded() -> None:
    known = KnownStrings(entries_max=3)
    encoder = hpack.Encoder()
    for count in range(10):
        block = encoder.encode([(f"/{count}", "x" * 50)])
        HpackDecoder(PLAIN, known).decode(block)
        assert 0 < len(known) <= 3
    long = encoder.huffman_coder.encode(b"0" * (KNOWN_BYTES_MAX * 2))
    known = KnownStrings()
    short = encoder.huffman_coder.encode(b"0" * 409)
    assert len(short) == KNOWN_BYTES_MAX
    assert known.decode(short) == b"0" * 409
    assert len(known) == 1
    assert known.decode(long) == b"0" * (KNOWN_BYTES_MAX * 2)
    assert len(known) == 1


@hypothesis.given(fields_strategy)
def test_what_we_encode_anyone_decodes_and_no_table_changes(fields: list[Field]) -> None:
    block = encode_fields(fields)
    theirs, ours = oracle(), decoder()
    for _ in range(2):
        assert [tuple(field) for field in theirs.decode(block, raw=True)] == fields
        assert fields_of(ours, block) == fields
    assert ours.dynamic_fields == []
    assert not theirs.header_table.dynamic_entries


def test_static_fields_are_one_byte() -> None:
    assert encode_fields([(b":status", b"200")]) == b"\x88"
    assert encode_fields([(b":status", b"416")]) == b"\x08\x03416"
    assert encode_fields([(b"date", b"x")]) == b"\x0f\x12\x01x"
