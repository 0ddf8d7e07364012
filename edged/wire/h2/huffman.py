"""HPACK's Huffman code (RFC 7541 §5.2 and appendix B): its decoder, a state machine over bytes.

    code of a symbol, most significant bit first, one behind the other; then 0 to 7 one-bits

The code is canonical, so the symbols' lengths say all. A state is a node of the code's tree; its
row tells for each byte that may follow the next state's row and the symbols that end on the way.
Rows are made when they are first needed: text in use needs some thirty of the 256, and all of them
together take 6 MB, once in a process.
"""

import contextlib
from collections.abc import Callable
from typing import Final, TypeAlias

from edged.errors import RemoteProtocolError
from edged.wire.h2.codes import EOS, LENGTHS

PADDING_BITS_MAX: Final = 7
Row: TypeAlias = "list[tuple[Row, bytes]]"  # By byte: the next state's row, the symbols told.


class HuffmanError(RemoteProtocolError):
    """What came is no Huffman-coded text."""


def make_codes() -> list[tuple[int, int]]:
    """Each symbol's code and its length in bits."""
    codes = [(0, 0)] * len(LENGTHS)
    code = length_before = 0
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(LENGTHS)):
        code <<= length - length_before
        codes[symbol] = code, length
        code += 1
        length_before = length
    return codes


class _Machine:
    """The states; state 0 is between two symbols."""

    def __init__(self) -> None:
        self._next: list[list[int]] = [[0, 0]]  # By bit: a state, or a symbol as -1 - symbol.
        for symbol, (code, length) in enumerate(make_codes()):
            self._add(symbol, code, length)
        self.rows: list[Row] = [[] for _ in self._next]
        self._states = {id(row): state for state, row in enumerate(self.rows)}
        self._failed: Row = []
        self._failed += [(self._failed, b"")] * 256
        self.ends = {id(self.rows[0])}  # Where a text may end: between symbols, or in padding.
        state = 0
        for _ in range(PADDING_BITS_MAX):
            state = self._next[state][1]
            self.ends.add(id(self.rows[state]))

    def _add(self, symbol: int, code: int, length: int) -> None:
        state = 0
        for at in range(length - 1, 0, -1):
            bit = code >> at & 1
            if not self._next[state][bit]:
                self._next.append([0, 0])
                self._next[state][bit] = len(self._next) - 1
            state = self._next[state][bit]
        self._next[state][code & 1] = -1 - symbol

    def fill(self, row: Row) -> None:
        """Make what an empty row should have."""
        state = self._states[id(row)]
        row += [self._step(state, byte) for byte in range(256)]

    def explain(self, row: Row) -> str:
        """Why a text that came to this row is none."""
        if row is self._failed:
            return "the end-of-string symbol is in it"
        return f"behind its last symbol is not padding of up to {PADDING_BITS_MAX} one-bits"

    def _step(self, state: int, byte: int) -> tuple[Row, bytes]:
        symbols = bytearray()
        for at in range(7, -1, -1):
            state = self._next[state][byte >> at & 1]
            if state < 0:
                symbol, state = -1 - state, 0
                if symbol == EOS:
                    return self._failed, b""
                symbols.append(symbol)
        return self.rows[state], bytes(symbols)


_decode: Callable[[bytes], bytes | None] | None = None
with contextlib.suppress(ImportError):  # No C compiler was there when the package was built.
    from edged.wire.h2 import fast

    _decode = fast.decode

_machine: Final = _Machine()
_ROOT: Final = _machine.rows[0]


def decode_huffman(data: bytes) -> bytes:
    """The text, or `HuffmanError`."""
    text = None if _decode is None else _decode(data)
    return _step_through(data) if text is None else text


def _step_through(data: bytes) -> bytes:
    texts: list[bytes] = []
    row = _ROOT
    for byte in data:
        if not row:
            _machine.fill(row)
        row, symbols = row[byte]
        texts.append(symbols)
    if id(row) not in _machine.ends:
        raise HuffmanError(f"{len(data)} Huffman-coded bytes are no text: {_machine.explain(row)}")
    return b"".join(texts)
