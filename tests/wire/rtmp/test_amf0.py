import contextlib
import math
import struct

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.errors import RemoteProtocolError
from edged.wire.rtmp.amf0 import (
    BYTES_MAX,
    DEPTH_MAX,
    UNDEFINED,
    VALUES_MAX,
    AmfDate,
    AmfValue,
    EcmaArray,
    decode,
    encode,
)

KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
SCALARS = (
    st.none()
    | st.booleans()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.just(UNDEFINED)
    | st.builds(AmfDate, st.floats(allow_nan=False), st.integers(-720, 720))
)
VALUES: st.SearchStrategy[AmfValue] = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=4).map(EcmaArray)
    ),
    max_leaves=12,
)


@hypothesis.given(st.lists(VALUES, max_size=4))
@hypothesis.settings(max_examples=20, deadline=None)
def test_what_is_encoded_is_decoded(values: list[AmfValue]) -> None:
    wire = encode(values)
    decoded = decode(wire)
    assert decoded == values
    assert encode(decoded) == wire


@hypothesis.given(st.binary(max_size=200))
@hypothesis.settings(max_examples=100, deadline=None)
def test_garbage_raises_only_a_protocol_error(garbage: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        decode(garbage)


def test_a_long_string_keeps_its_length() -> None:
    for size, marker in ((65535, 0x02), (65536, 0x0C)):
        wire = encode(["x" * size])
        assert wire[0] == marker
        assert decode(wire) == ["x" * size]


def test_kinds_that_only_others_send() -> None:
    assert decode(b"\x0f\0\0\0\x03<a>") == ["<a>"]
    assert decode(b"\x0d") == [UNDEFINED]
    typed = b"\x10\0\x05Class\0\x01a\x01\x01\0\0\x09"
    assert decode(typed) == [{"a": True}]
    # The count of an ECMA array is a hint: ffmpeg's grows after it is written.
    assert decode(b"\x08\xff\xff\xff\xff\0\x01a\x05\0\0\x09") == [{"a": None}]


def test_text_in_a_local_code_page_is_kept_readable() -> None:
    assert decode(b"\x02\0\x03a\xe9b") == ["a\ufffdb"]


def test_not_a_number_is_a_number() -> None:
    (value,) = decode(b"\0" + struct.pack(">d", math.nan))
    assert isinstance(value, float)
    assert math.isnan(value)


def test_references() -> None:
    shared = b"\x03\0\x01a\x05\0\0\x09"
    assert decode(shared + b"\x07\0\0") == [{"a": None}, {"a": None}]
    with pytest.raises(RemoteProtocolError, match="reference 1 to no finished value"):
        decode(shared + b"\x07\0\x01")
    with pytest.raises(RemoteProtocolError, match="reference 0 to no finished value"):
        decode(b"\x03\0\x01a\x07\0\0\0\0\x09")  # It would hold itself.


def test_references_cannot_unfold_into_millions() -> None:
    # Each array holds the one before it sixteen times.
    wire = b"\x0a\0\0\0\x01\x05"
    for level in range(8):
        wire += b"\x0a\0\0\0\x10" + 16 * (b"\x07" + level.to_bytes(2, "big"))
    with pytest.raises(RemoteProtocolError, match=f"more than {VALUES_MAX} values"):
        decode(wire)


def test_depth_at_the_limit_and_one_past_it() -> None:
    nested: AmfValue = None
    for _ in range(DEPTH_MAX):
        nested = [nested]
    assert decode(encode([nested])) == [nested]
    with pytest.raises(RemoteProtocolError, match=f"deeper than {DEPTH_MAX}"):
        decode(b"\x0a\0\0\0\x01" + encode([nested]))


def test_values_at_the_limit_and_one_past_it() -> None:
    assert len(decode(VALUES_MAX * b"\x05")) == VALUES_MAX
    with pytest.raises(RemoteProtocolError, match=f"more than {VALUES_MAX} values"):
        decode((VALUES_MAX + 1) * b"\x05")
    with pytest.raises(RemoteProtocolError, match=f"array of {VALUES_MAX + 1} values exceeds"):
        decode(b"\x0a" + (VALUES_MAX + 1).to_bytes(4, "big"))


def test_bytes_at_the_limit_and_one_past_it() -> None:
    text = "x" * (BYTES_MAX - 5)
    assert decode(encode([text])) == [text]
    with pytest.raises(RemoteProtocolError, match=f"{BYTES_MAX + 1} bytes exceeds {BYTES_MAX}"):
        decode(encode([text + "x"]))


@pytest.mark.parametrize(
    ("wire", "why"),
    [
        (b"\0\0", "ends at 9, the message at 2"),
        (b"\x02\0\x05abc", "ends at 8, the message at 6"),
        (b"\x04", "marker 0x04 at byte 0 is not supported"),
        (b"\x11\x04", "marker 0x11 at byte 0 is not supported"),
        (b"\x03\0\x01a", "ends at 5, the message at 4"),
    ],
)
def test_what_is_broken_is_named(wire: bytes, why: str) -> None:
    with pytest.raises(RemoteProtocolError, match=why):
        decode(wire)
