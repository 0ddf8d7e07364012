"""What all fuzz targets share: bytes read as choices, and what a target is."""

from collections.abc import Callable, Sequence

from msgspec import Struct

Data = bytes | bytearray | memoryview


class Script:
    """The fuzzer's bytes, taken as choices one by one; at their end every choice is zero."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def done(self) -> bool:
        """Whether all bytes have been taken."""
        return self._at >= len(self._data)

    def take(self, count: int) -> bytes:
        """The next bytes, fewer at the end."""
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken

    def number(self, size: int = 1) -> int:
        """An unsigned number of that many bytes."""
        return int.from_bytes(self.take(size).ljust(size, b"\0"), "big")

    def below(self, end: int) -> int:
        """A number from 0 to end - 1."""
        return self.number(1 if end <= 256 else 2) % end

    def block(self) -> bytes:
        """Bytes with their length in front: one byte, or two from 240 on."""
        size = self.number()
        if size >= 240:
            size = (size - 240) << 8 | self.number()
        return self.take(size)

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data))


def block(data: bytes) -> bytes:
    """What `Script.block` reads back; at most 4095 bytes."""
    data = data[:4095]
    if len(data) < 240:
        return bytes([len(data)]) + data
    return bytes([240 + (len(data) >> 8), len(data) & 255]) + data


def in_pieces(data: bytes, size: int) -> list[bytes]:
    """`data` as a network may cut it."""
    return [data[at : at + size] for at in range(0, len(data), max(1, size))]


class Target(Struct, frozen=True, kw_only=True):
    """One thing to feed. `run` swallows `EdgedError`s only, and returns how many bytes came out."""

    name: str
    run: Callable[[bytes], int]
    seeds: Callable[[], Sequence[bytes]]
    bytes_max: int = 4096  # Of one input.
    out_bytes_max: int = 1 << 20  # What one input may make us say.
    # Faults that may be logged: a spoilt splice may cost its own stream.
    contained: frozenset[str] = frozenset()
