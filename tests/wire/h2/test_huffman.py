"""The Huffman decoder: against the RFC's table as `hpack` has it, and its encoder."""

import contextlib
import importlib
import importlib.util
from collections.abc import Callable

import hpack
import hypothesis
import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman as decode_oracle
from hypothesis import strategies as st

from edged.wire.h2.huffman import HuffmanError, _step_through, decode_huffman, make_codes
from tests.conftest import require_found

FAST = "edged.wire.h2.fast"

oracle = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)


@pytest.fixture(name="decode", scope="module")
def _decode() -> Callable[[bytes], bytes | None]:
    """What is compiled of it; a checkout in which somebody works may be without."""
    require_found(f"{FAST}, which the package's build makes", found=is_compiled())
    decode: Callable[[bytes], bytes | None] = importlib.import_module(FAST).decode
    return decode


def is_compiled() -> bool:
    return importlib.util.find_spec(FAST) is not None


def test_the_table_is_the_rfcs() -> None:
    assert make_codes() == list(zip(REQUEST_CODES, REQUEST_CODES_LENGTH, strict=True))


def test_each_symbol_beside_each_padding() -> None:
    for symbol in range(256):
        for count in range(1, 9):
            text = bytes([symbol]) * count + b"a"
            assert decode_huffman(oracle.encode(text)) == text


@hypothesis.given(st.one_of(st.binary(max_size=60), st.binary(max_size=40).map(oracle.encode)))
def test_what_is_compiled_says_the_same_or_nothing(
    decode: Callable[[bytes], bytes | None], data: bytes
) -> None:
    told: bytes | None = None
    with contextlib.suppress(HuffmanError):
        told = _step_through(data)
    assert decode(data) == told


def test_longer_texts_are_left_to_the_machine(decode: Callable[[bytes], bytes | None]) -> None:
    for size in (2047, 2048, 2049, 4000):
        data = oracle.encode(b"0" * (size * 8 // 5))
        assert (decode(data) is None) == (len(data) > 2048)
        assert decode_huffman(data) == b"0" * (size * 8 // 5)


@hypothesis.given(st.binary(max_size=300))
def test_what_is_encoded_is_decoded(text: bytes) -> None:
    assert decode_huffman(oracle.encode(text)) == text


@hypothesis.given(st.binary(max_size=40))
def test_garbage_is_what_it_is_to_the_oracle(data: bytes) -> None:
    expected: bytes | None = None
    with contextlib.suppress(hpack.HPACKDecodingError):
        expected = decode_oracle(data)
    got: bytes | None = None
    with contextlib.suppress(HuffmanError):
        got = decode_huffman(data)
    assert got == expected


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xff", "padding of up to 7"),
        (b"\x1f\xff", "padding of up to 7"),
        (b"\x18", "padding of up to 7"),  # Padded with zeros.
        (b"\xff\xff\xff\xff", "end-of-string"),
    ],
)
def test_what_is_no_text(data: bytes, why: str) -> None:
    with pytest.raises(HuffmanError, match=why):
        decode_huffman(data)
    assert decode_huffman(b"\x1f") == b"a"
    assert decode_huffman(b"") == b""
