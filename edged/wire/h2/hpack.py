"""HPACK (RFC 7541): a request's header fields in few bytes.

    1 index(7+)                       a field of the table
    01 name-index(6+) [name] value    a literal, which enters the table
    001 size(5+)                      the dynamic table's new limit; only where a block begins
    000n name-index(4+) [name] value  a literal, which does not
    string: huffman(1) length(7+) bytes

The table is the static one with the connection's dynamic one behind it, newest first. Whoever uses
the decoder judges each field once, when it is made; it keeps its verdict in the table, so that
later requests need not be looked at anew.

The encoder knows literals that do not enter the table, and the static table: its blocks mean the
same on every connection, so that a response's is made once for all.
"""

from collections.abc import Callable, Iterable
from typing import Final

from edged.errors import RemoteProtocolError
from edged.wire.h2.huffman import decode_huffman

TABLE_BYTES_MAX: Final = 4096  # Of the dynamic table: what HTTP/2 begins with, and we never change.
# A field's first bits, a string's and an integer byte's first bit, and integers' prefixes:
INDEXED: Final = 0x80
HUFFMAN: Final = 0x80
MORE: Final = 0x80
INDEXING: Final = 0x40
SIZE_UPDATE: Final = 0x20
BITS_7, BITS_6, BITS_5, BITS_4 = 0x7F, 0x3F, 0x1F, 0x0F
FIELD_BYTES: Final = 32  # What a field counts beside its name and value (RFC 7541 §4.1).
INTEGER_BYTES_MAX: Final = 4  # Behind the prefix: up to 2^28, far beyond any block.
# Coded strings: paths of a few renditions' last parts, and values of players.
KNOWN_MAX: Final = 4096
KNOWN_BYTES_MAX: Final = 256  # Of each; longer ones are rare, and decoded each time.

Field = tuple[bytes, bytes]
Entry = tuple[Field, int, int]  # A field, its size (RFC 7541 §4.1), its verdict.
Judge = Callable[[bytes, bytes], int]

STATIC_TABLE: tuple[Field, ...] = tuple(
    (name, value)
    for name, _, value in (
        line.partition(b"|")
        for line in (
            b":authority|;:method|GET;:method|POST;:path|/;:path|/index.html;:scheme|http;"
            b":scheme|https;:status|200;:status|204;:status|206;:status|304;:status|400;"
            b":status|404;:status|500;accept-charset|;accept-encoding|gzip, deflate;"
            b"accept-language|;accept-ranges|;accept|;access-control-allow-origin|;age|;allow|;"
            b"authorization|;cache-control|;content-disposition|;content-encoding|;"
            b"content-language|;content-length|;content-location|;content-range|;content-type|;"
            b"cookie|;date|;etag|;expect|;expires|;from|;host|;if-match|;if-modified-since|;"
            b"if-none-match|;if-range|;if-unmodified-since|;last-modified|;link|;location|;"
            b"max-forwards|;proxy-authenticate|;proxy-authorization|;range|;referer|;refresh|;"
            b"retry-after|;server|;set-cookie|;strict-transport-security|;transfer-encoding|;"
            b"user-agent|;vary|;via|;www-authenticate|"
        ).split(b";")
    )
)
DYNAMIC_START: Final = len(STATIC_TABLE) + 1  # The index of the dynamic table's newest field.
_INDEX_OF_FIELD = {field: index for index, field in reversed([*enumerate(STATIC_TABLE, 1)])}
_INDEX_OF_NAME = {field[0]: index for index, field in reversed([*enumerate(STATIC_TABLE, 1)])}


class HpackError(RemoteProtocolError):
    """A header block that cannot be decoded: the connection's table is lost with it."""


class KnownStrings:
    """Huffman-coded strings decoded before: all viewers of a channel ask for the same paths.

    Bounded in entries and in the size of each; when it is full it is emptied, as old parts are not
    asked for.
    """

    def __init__(self, entries_max: int = KNOWN_MAX) -> None:
        self.entries_max = entries_max
        self.find = (known := dict[bytes, bytes]()).get
        self._known = known

    def __len__(self) -> int:
        return len(self._known)

    def decode(self, coded: bytes) -> bytes:
        """Decode a string that is not known, and note it."""
        text = decode_huffman(coded)
        if len(coded) <= KNOWN_BYTES_MAX:
            if len(self._known) >= self.entries_max:
                self._known.clear()
            self._known[coded] = text
        return text


KNOWN = KnownStrings()  # The process's: what all connections are asked for.


class Vocabulary:
    """A judge, and the static table's fields as it judges them; made once in a process."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        nothing: Entry = ((b"", b""), 0, 0)  # Index 0 is none (RFC 7541 §6.1).
        self.table = [nothing] + [
            (field, len(field[0]) + len(field[1]) + FIELD_BYTES, judge(*field))
            for field in STATIC_TABLE
        ]


class HpackDecoder:
    """One connection's decoder. It holds at most TABLE_BYTES_MAX, by HPACK's count."""

    __slots__ = (
        "_dynamic_bytes",
        "_judge",
        "_known",
        "_table",
        "changes",
        "dynamic_bytes_max",
        "list_bytes",
    )

    def __init__(self, vocabulary: Vocabulary, known: KnownStrings | None = None) -> None:
        self.dynamic_bytes_max = TABLE_BYTES_MAX
        self.changes = 0  # Of the table: the same bytes mean the same as long as there is none.
        self.list_bytes = 0  # The size of the last header list (RFC 9113 §6.5.2).
        self._judge = vocabulary.judge
        self._table = vocabulary.table.copy()
        self._dynamic_bytes = 0
        self._known = KNOWN if known is None else known

    @property
    def dynamic_fields(self) -> list[Field]:
        """What the dynamic table has, newest first."""
        return [field for field, _, _ in self._table[DYNAMIC_START:]]

    @property
    def dynamic_bytes(self) -> int:
        """The dynamic table's size (RFC 7541 §4.1)."""
        return self._dynamic_bytes

    def decode(self, block: bytes) -> list[Entry]:
        """The fields of one whole block; one entry per byte of it at most."""
        table = self._table
        entries: list[Entry] = []
        add = entries.append
        total = at = 0
        end = len(block)
        while at < end:
            byte = block[at]
            at += 1
            if byte > INDEXED:
                index = byte & BITS_7
                if index == BITS_7:
                    index, at = read_integer(block, at, BITS_7)
                try:
                    entry = table[index]
                except IndexError:
                    raise self._no_such(index) from None
            elif byte == INDEXED:
                raise HpackError("header field of index 0 (RFC 7541 §6.1)")
            elif byte >= INDEXING:
                entry, at = self._read_literal(block, at, byte & BITS_6, BITS_6)
                self._insert(entry)
            elif byte < SIZE_UPDATE:
                entry, at = self._read_literal(block, at, byte & BITS_4, BITS_4)
            else:
                if entries:
                    raise HpackError("table size update behind a header field (RFC 7541 §4.2)")
                at = self._update_size(block, at, byte & BITS_5)
                continue
            add(entry)
            total += entry[1]
        self.list_bytes = total
        return entries

    def _read_literal(self, block: bytes, at: int, index: int, prefix: int) -> tuple[Entry, int]:
        if index == prefix:
            index, at = read_integer(block, at, prefix)
        if index:
            try:
                name = self._table[index][0][0]
            except IndexError:
                raise self._no_such(index) from None
        else:
            name, at = self._read_string(block, at)
        value, at = self._read_string(block, at)
        verdict = self._judge(name, value)
        return ((name, value), len(name) + len(value) + FIELD_BYTES, verdict), at

    def _read_string(self, block: bytes, at: int) -> tuple[bytes, int]:
        try:
            first = block[at]
        except IndexError:
            raise HpackError("header block ends within a field") from None
        at += 1
        size = first & BITS_7
        if size == BITS_7:
            size, at = read_integer(block, at, BITS_7)
        end = at + size
        if end > len(block):
            raise HpackError(f"string of {size} bytes with {len(block) - at} left of its block")
        text = block[at:end]
        if first & HUFFMAN:
            try:
                return self._known.find(text) or self._known.decode(text), end
            except RemoteProtocolError as error:
                raise HpackError(str(error)) from None
        return text, end

    def _insert(self, entry: Entry) -> None:
        self.changes += 1
        self._dynamic_bytes += entry[1]
        if self._dynamic_bytes > self.dynamic_bytes_max:
            self._evict(self.dynamic_bytes_max)
            if entry[1] > self.dynamic_bytes_max:  # RFC 7541 §4.4: no error, it empties the table.
                self._dynamic_bytes -= entry[1]
                return
        self._table.insert(DYNAMIC_START, entry)

    def _evict(self, bytes_max: int) -> None:
        table = self._table
        while self._dynamic_bytes > bytes_max and len(table) > DYNAMIC_START:
            self._dynamic_bytes -= table.pop()[1]

    def _update_size(self, block: bytes, at: int, size: int) -> int:
        if size == BITS_5:
            size, at = read_integer(block, at, BITS_5)
        if size > TABLE_BYTES_MAX:
            raise HpackError(f"table size update to {size} bytes, allowed are {TABLE_BYTES_MAX}")
        self.changes += 1
        self.dynamic_bytes_max = size
        self._evict(size)
        return at

    def _no_such(self, index: int) -> HpackError:
        return HpackError(f"header field of index {index}, the last is {len(self._table) - 1}")


def read_integer(block: bytes, at: int, prefix: int) -> tuple[int, int]:
    """An integer beyond its full prefix (RFC 7541 §5.1), and where it ends."""
    value = prefix
    for count in range(INTEGER_BYTES_MAX):
        if at >= len(block):
            raise HpackError("header block ends within an integer")
        byte = block[at]
        at += 1
        value += (byte & BITS_7) << 7 * count
        if byte < MORE:
            return value, at
    raise HpackError(f"integer of more than {INTEGER_BYTES_MAX} bytes behind its prefix")


def encode_fields(fields: Iterable[Field]) -> bytes:
    """A block, or a part of one, that means the same on every connection. Names in lower case."""
    block = bytearray()
    for field in fields:
        index = _INDEX_OF_FIELD.get(field)
        if index is not None:
            block.append(INDEXED | index)
            continue
        name, value = field
        index = _INDEX_OF_NAME.get(name, 0)
        block += _encode_integer(index, BITS_4, 0)
        if not index:
            block += _encode_integer(len(name), BITS_7, 0) + name
        block += _encode_integer(len(value), BITS_7, 0) + value
    return bytes(block)


def _encode_integer(value: int, prefix: int, first: int) -> bytes:
    if value < prefix:
        return bytes([first | value])
    out = bytearray([first | prefix])
    value -= prefix
    while value >= MORE:
        out.append(value & BITS_7 | MORE)
        value >>= 7
    out.append(value)
    return bytes(out)
