"""Content coding of what is text (RFC 9110 §8.4, §12.5.3): gzip, for who takes it."""

import gzip
import zlib
from collections.abc import Sequence
from functools import lru_cache

LEVEL = 6  # Of 1 to 9: a playlist of 3 KB in 60 us, 12 % of its size; 9 gains nothing more.
VALUES_MAX = 256  # Fields of which it is known what they say; browsers share a handful.


# RFC 1952 §2.3.1: deflate, no flags, no time, nothing said of the level, system unknown.
GZIP_HEAD = bytes((0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255))
RAW_DEFLATE = -15  # As zlib has it: no head of its own, a window of 32 KiB.


class CodedBlock:
    """Some text of a body, and its share of that body as gzip, made when it is asked for."""

    __slots__ = ("_deflated", "text")

    def __init__(self, text: bytes) -> None:
        self.text = text
        self._deflated = b""

    @property
    def deflated(self) -> bytes:
        """As deflate blocks that refer to nothing before them, up to a whole byte."""
        if not self._deflated:
            deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, RAW_DEFLATE)
            self._deflated = deflate.compress(self.text) + deflate.flush(zlib.Z_FULL_FLUSH)
        return self._deflated


def compress(body: bytes) -> bytes:
    """The body as gzip; the same bytes each time."""
    return gzip.compress(body, LEVEL, mtime=0)


def compress_blocks(blocks: Sequence[CodedBlock]) -> bytes:
    """A body as one gzip member (RFC 1952), of which most blocks are made once for many bodies."""
    if len(blocks) == 1:
        return compress(blocks[0].text)
    checksum = size = 0
    out = [GZIP_HEAD]
    for block in blocks:
        out.append(block.deflated)
        checksum = zlib.crc32(block.text, checksum)
        size += len(block.text)
    out.append(zlib.compressobj(LEVEL, zlib.DEFLATED, RAW_DEFLATE).flush(zlib.Z_FINISH))
    out.append(checksum.to_bytes(4, "little") + (size % 2**32).to_bytes(4, "little"))
    return b"".join(out)


@lru_cache(VALUES_MAX)
def takes_gzip(accepted: bytes) -> bool:
    """Whether a client with that Accept-Encoding field takes gzip, other than by "*"."""
    for coding in accepted.lower().split(b","):
        name, *parameters = (piece.strip() for piece in coding.split(b";"))
        if name in (b"gzip", b"x-gzip"):
            return not any(_is_zero(parameter) for parameter in parameters)
    return False


def _is_zero(parameter: bytes) -> bool:
    """Whether it is a weight of nothing: `q=0`, `q=0.000`."""
    name, _, value = parameter.partition(b"=")
    return name.strip() == b"q" and not value.strip().strip(b"0.")
