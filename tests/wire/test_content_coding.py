"""Who takes gzip, and what it gets."""

import gzip
import zlib

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.wire.content_coding import CodedBlock, compress, compress_blocks, takes_gzip


@pytest.mark.parametrize(
    ("accepted", "taken"),
    [
        (b"gzip, deflate, br, zstd", True),
        (b"br;q=1.0, GZIP;q=0.8, *;q=0.1", True),
        (b"x-gzip", True),
        (b"gzip ; q=0.001", True),
        (b"", False),
        (b"identity", False),
        (b"*", False),
        (b"gzip;q=0", False),
        (b"gzip; q=0.000", False),
        (b"br, notgzip", False),
    ],
)
def test_who_takes_it(accepted: bytes, taken: bool) -> None:
    assert takes_gzip(accepted) is taken


@hypothesis.given(st.binary(max_size=200))
def test_anything_says_yes_or_no(accepted: bytes) -> None:
    assert takes_gzip(accepted) in (True, False)


@hypothesis.given(st.binary())
def test_what_was_compressed_is_what_it_was(body: bytes) -> None:
    assert gzip.decompress(compress(body)) == body
    assert compress(body) == compress(body)


@hypothesis.given(st.lists(st.binary(max_size=300), min_size=1, max_size=6))
def test_blocks_are_one_member_of_all_their_text(texts: list[bytes]) -> None:
    """Whatever reads gzip reads it; `zlib` tells what is left behind the first member."""
    blocks = [CodedBlock(text) for text in texts]
    data = compress_blocks(blocks)
    reader = zlib.decompressobj(31)
    assert reader.decompress(data) == b"".join(texts)
    assert reader.eof
    assert reader.unused_data == b""
    assert compress_blocks(blocks) == data
    assert compress_blocks(blocks[:1]) == compress(texts[0])
