# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Huffman-coded text in C, by the lengths that `huffman` has: its usual case, and nothing else.

    the next bits -> a table by 8 of them -> a symbol and its length
                     none so short        -> the code is canonical: the first code of each length
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from edged.wire.h2.codes import EOS as _EOS
from edged.wire.h2.codes import LENGTHS

cdef enum:
    SYMBOLS = 257
    BITS_MAX = 30
    SHORT = 8  # Bits that one look decides.
    CODED_MAX = 2048  # Bytes; more is left to the machine.
    TEXT_MAX = 3277  # What they can be, with 5 bits each.

cdef int32_t EOS = _EOS
cdef uint32_t first[BITS_MAX + 1]  # The first code of a length,
cdef uint32_t count[BITS_MAX + 1]  # how many there are,
cdef uint32_t place[BITS_MAX + 1]  # and where their symbols begin.
cdef int32_t symbols[SYMBOLS]
cdef uint8_t short_length[1 << SHORT]
cdef uint8_t short_symbol[1 << SHORT]


cdef void prepare():
    cdef uint32_t code = 0, at = 0, length, index, behind
    cdef int32_t symbol
    for length in range(1, BITS_MAX + 1):
        code <<= 1
        first[length] = code
        place[length] = at
        for symbol in range(SYMBOLS):
            if <uint32_t> LENGTHS[symbol] != length:
                continue
            symbols[at] = symbol
            if length <= SHORT:
                behind = SHORT - length
                for index in range(code << behind, (code + 1) << behind):
                    short_length[index] = <uint8_t> length
                    short_symbol[index] = <uint8_t> symbol
            at += 1
            code += 1
        count[length] = at - place[length]


prepare()


def decode(bytes coded not None):
    """The text; None for what is none, or is longer than usual."""
    cdef const uint8_t *data = <const uint8_t *> PyBytes_AS_STRING(coded)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(coded), at = 0, written = 0
    cdef uint64_t held = 0
    cdef uint32_t bits = 0, length, code
    cdef int32_t symbol
    cdef uint8_t text[TEXT_MAX]
    if size > CODED_MAX:
        return None
    while True:
        while bits <= 56 and at < size:
            held = held << 8 | data[at]
            at += 1
            bits += 8
        if bits >= SHORT:
            code = <uint32_t> (held >> (bits - SHORT)) & 0xFF
        else:  # The last ones: what is not there reads as padding does.
            code = <uint32_t> (held << (SHORT - bits) | (0xFF >> bits)) & 0xFF
        length = short_length[code]
        if length:
            if length > bits:
                break
            text[written] = short_symbol[code]
        else:
            symbol = -1
            for length in range(SHORT + 1, BITS_MAX + 1):
                if length > bits:
                    break
                code = <uint32_t> (held >> (bits - length)) & ((<uint32_t> 1 << length) - 1)
                if code - first[length] < count[length]:
                    symbol = symbols[place[length] + code - first[length]]
                    break
            if symbol < 0:
                break
            if symbol == EOS:
                return None
            text[written] = <uint8_t> symbol
        written += 1
        bits -= length
    # RFC 7541 §5.2: what is left is the beginning of the end-of-string symbol, below a byte of it.
    if bits >= 8 or (held & ((<uint64_t> 1 << bits) - 1)) != (<uint64_t> 1 << bits) - 1:
        return None
    return PyBytes_FromStringAndSize(<const char *> text, written)
