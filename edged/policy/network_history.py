"""The last hour of a network, bounded in bytes: samples as lines of JSON, each given once.

Lines stand in blocks. The first line of a block has the names and every row (`whole`), a later one
only the rows that differ from the line before; the first column of a row is the place of its name.
A block is deflated as it grows, so nothing is ever compressed at once: a whole one is a member of
gzip (RFC 1952) already. When all of them exceed `bytes_max`, or an hour, the oldest goes.

Who reads keeps a cursor, "RUN-SEQ": the run of this IRS and the last line that it has.
"""

import itertools
import re
import zlib
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from edged.policy.network_sample import (
    LINK_ROW,
    LINK_STATES,
    ORIGIN_ROW,
    ORIGIN_STATES,
    POP_ROW,
    POP_STATES,
    REACH_ROW,
    NetworkEvent,
    NetworkMap,
    NetworkSample,
    Pair,
    Row,
)

KEEPS_S: Final = 3600.0
SAMPLE_INTERVAL_S: Final = 5.0  # Of the samples; 720 are an hour.
BYTES_MAX: Final = 12 * 2**20  # 100 PoPs and 12 origins take a sixth of it.
BLOCK_LINES: Final = 60  # Five minutes: who looks anew asks a dozen times.
BLOCK_BYTES_MAX: Final = 2**20  # Inflated; a line of 200 PoPs and 99 origins may be half of it.
ANSWER_BYTES_MAX: Final = 256 * 1024  # Of lines that are not a whole block, but one at least.
LEVEL: Final = 6
NOTHING: Final = (0,) * len(REACH_ROW)  # Of a PoP that is not told of.

_GZIP_HEAD: Final = bytes((0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255))  # RFC 1952 §2.3.1.
_RAW_DEFLATE: Final = -15
_LAST_BLOCK: Final = b"\x03\x00"  # An empty one, which is the last (RFC 1951 §3.2.6).
_CURSOR: Final = re.compile(r"([0-9a-f]{1,32})-(\d{1,15})", re.ASCII)


class HistoryLines(Struct, frozen=True, kw_only=True):
    """Some lines as bytes; `gzip` where it is made already. `tag` names these very bytes."""

    text: bytes
    gzip: bytes | None
    tag: str


class HistoryStatistics(Struct, frozen=True, kw_only=True):
    """How much is kept."""

    lines: int
    blocks: int
    bytes: int
    seconds: float  # From the first line to the last.


class _Names(Struct, frozen=True):
    """What a block's rows are of; another begins another block."""

    pops: tuple[str, ...]
    origins: tuple[str, ...]
    links: tuple[str, ...]
    map: NetworkMap


class _Block:
    """Some lines, the first of them whole."""

    def __init__(self, first: int, at: float) -> None:
        self.first, self.at = first, at
        self.until = at
        self.count = self.size = 0
        self.lines: list[bytes] | None = []  # None: it is old, and only deflated.
        self._deflated = bytearray()
        self._crc = 0
        self._deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, _RAW_DEFLATE)

    @property
    def bytes_held(self) -> int:
        """All that it takes."""
        return len(self._deflated) + (self.size if self.lines is not None else 0)

    def add(self, line: bytes, at: float) -> None:
        assert self.lines is not None, "it is the newest"
        self.lines.append(line)
        self._deflated += self._deflate.compress(line) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        self._crc = zlib.crc32(line, self._crc)
        self.count += 1
        self.size += len(line)
        self.until = at

    def forget_lines(self) -> None:
        """Keep it deflated alone."""
        self.lines = None
        self._deflated = bytearray(bytes(self._deflated))  # Without the room to grow.
        del self._deflate

    def gzip(self) -> bytes:
        tail = self._crc.to_bytes(4, "little") + (self.size % 2**32).to_bytes(4, "little")
        return b"".join((_GZIP_HEAD, self._deflated, _LAST_BLOCK, tail))

    def split(self) -> list[bytes]:
        """Its lines."""
        if self.lines is not None:
            return self.lines
        text = zlib.decompress(bytes(self._deflated) + _LAST_BLOCK, _RAW_DEFLATE)
        return text.splitlines(keepends=True)


class NetworkHistory:
    """Samples of one run of an IRS."""

    def __init__(
        self,
        run: str,
        *,
        interval_s: float = SAMPLE_INTERVAL_S,
        keeps_s: float = KEEPS_S,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        """`run`: lower-case hexadecimal, another with each start."""
        self._run, self._interval_s = run, interval_s
        self._keeps_s, self._bytes_max = keeps_s, bytes_max
        self._blocks: deque[_Block] = deque()
        self._last = 0  # The number of the newest line.
        self._names: _Names | None = None
        self._rows: dict[str, dict[int, Row]] = {}
        self._flows: Mapping[Pair, int] = {}
        self._relays: Mapping[Pair, int] = {}
        self._irs: tuple[object, ...] = ()

    def add(
        self, sample: NetworkSample, network_map: NetworkMap, events: Sequence[NetworkEvent]
    ) -> None:
        """Keep a sample, and what happened since the one before."""
        names = _Names(
            tuple(sorted(sample.pops)),
            tuple(sorted(sample.origins)),
            tuple(sorted(sample.links)),
            network_map,
        )
        begins = self._is_full() or names != self._names
        if begins:
            self._rows, self._flows, self._relays, self._irs = {}, {}, {}, ()
        self._names = None  # Should this one fail, the next is whole.
        line = self._make_line(sample, names, events, whole=begins)
        self._names = names
        self._last += 1
        if begins:
            self._begin(sample.at)
        self._blocks[-1].add(line, sample.at)
        self._drop(sample.at)

    def after(self, cursor: str) -> HistoryLines:
        """The next lines behind a cursor, at most a block of them; none: it has all.

        Behind "", a cursor of another run, or one that is too old, comes the oldest block.
        """
        block, start = self._find(cursor)
        if block is None:
            return HistoryLines(text=b"", gzip=None, tag=f'"{self._run}-{self._last}"')
        if start == 0:
            tag = f'"{self._run}-{block.first}-{block.count}"'
            return HistoryLines(text=b"".join(block.split()), gzip=block.gzip(), tag=tag)
        taken: list[bytes] = []
        size = 0
        for line in block.split()[start:]:
            if taken and size + len(line) > ANSWER_BYTES_MAX:
                break
            taken.append(line)
            size += len(line)
        tag = f'"{self._run}-{block.first + start}-{len(taken)}"'
        return HistoryLines(text=b"".join(taken), gzip=None, tag=tag)

    def statistics(self) -> HistoryStatistics:
        """For metrics and tests."""
        blocks = self._blocks
        return HistoryStatistics(
            lines=sum(block.count for block in blocks),
            blocks=len(blocks),
            bytes=sum(block.bytes_held for block in blocks),
            seconds=blocks[-1].until - blocks[0].at if blocks else 0.0,
        )

    def _is_full(self) -> bool:
        if not self._blocks:
            return True
        newest = self._blocks[-1]
        return newest.count >= BLOCK_LINES or newest.size >= BLOCK_BYTES_MAX

    def _begin(self, at: float) -> None:
        """Another block; of those before, the newest can still be read line by line at once."""
        if len(self._blocks) > 1 and self._blocks[-2].lines is not None:
            self._blocks[-2].forget_lines()
        self._blocks.append(_Block(self._last, at))

    def _drop(self, at: float) -> None:
        held = sum(block.bytes_held for block in self._blocks)
        while len(self._blocks) > 1:
            oldest = self._blocks[0]
            if held <= self._bytes_max and at - oldest.until <= self._keeps_s:
                break
            held -= oldest.bytes_held
            self._blocks.popleft()

    def _find(self, cursor: str) -> tuple[_Block | None, int]:
        """The block with the line behind a cursor, and the place of that line there."""
        if not self._blocks:
            return None, 0
        found = _CURSOR.fullmatch(cursor)
        seq = int(found[2]) if found is not None and found[1] == self._run else -1
        if seq == self._last:
            return None, 0
        for block in self._blocks:
            if block.first <= seq + 1 < block.first + block.count:
                return block, seq + 1 - block.first
        return self._blocks[0], 0

    def _make_line(
        self, sample: NetworkSample, names: _Names, events: Sequence[NetworkEvent], *, whole: bool
    ) -> bytes:
        line: dict[str, object] = {"seq": self._last + 1, "at": round(sample.at, 2)}
        if whole:
            line["whole"] = self._describe(names)
        point = sample.irs
        irs = (point.standing, point.epoch, point.fallback, point.unserved)
        if irs != self._irs:
            line["irs"] = self._irs = irs
        for what, order, rows in (
            ("pops", names.pops, sample.pops),
            ("origins", names.origins, sample.origins),
            ("links", names.links, sample.links),
            ("reach", names.pops, sample.reach),
        ):
            if changed := self._take_rows(what, order, rows):
                line[what] = changed
        if flows := _changed(names.pops, names.origins, self._flows, sample.flows):
            line["flows"] = flows
        if relays := _changed(names.pops, names.pops, self._relays, sample.relays):
            line["relays"] = relays
        self._flows, self._relays = sample.flows, sample.relays
        if events:
            line["events"] = events
        return msgspec.json.encode(line) + b"\n"

    def _take_rows(self, what: str, order: Iterable[str], rows: Mapping[str, Row]) -> list[Row]:
        known, changed = self._rows.setdefault(what, {}), []
        for place, name in enumerate(order):
            row = rows.get(name, NOTHING)
            if known.get(place, NOTHING) != row:
                known[place] = row
                changed.append((place, *row))
        return changed

    def _describe(self, names: _Names) -> dict[str, object]:
        """What rows are of, and what stands where in them."""
        places = names.map
        site = {each.name: number for number, each in enumerate(places.sites)}

        def with_site(order: Iterable[str], known: Mapping[str, str]) -> list[tuple[str, int]]:
            return [(name, site.get(known.get(name, ""), -1)) for name in order]

        links = {link.name: link for link in places.links}
        return {
            "run": self._run,
            "interval_s": self._interval_s,
            "keeps_s": self._keeps_s,
            "sites": places.sites,
            "pops": with_site(names.pops, places.site_of_pop),
            "origins": with_site(names.origins, places.site_of_origin),
            "links": [
                (name, *(site[end] for end in links[name].ends), links[name].mbps)
                for name in names.links
            ],
            "rows": {
                "pops": POP_ROW,
                "origins": ORIGIN_ROW,
                "links": LINK_ROW,
                "reach": REACH_ROW,
            },
            "states": {"pops": POP_STATES, "origins": ORIGIN_STATES, "links": LINK_STATES},
        }


def _changed(
    first: Sequence[str], second: Sequence[str], before: Mapping[Pair, int], now: Mapping[Pair, int]
) -> list[int]:
    """Pairs of which the number has changed: the places of both, and the number."""
    differ = now.items() - before.items()  # At once: there may be twenty thousand.
    ended = before.keys() - now.keys()
    if not differ and not ended:
        return []
    ones = {name: place for place, name in enumerate(first)}
    others = {name: place for place, name in enumerate(second)}
    changed: list[int] = []
    for pair, count in itertools.chain(sorted(differ), ((pair, 0) for pair in sorted(ended))):
        one, other = pair
        if (count or before.get(pair)) and one in ones and other in others:
            changed += (ones[one], others[other], count)
    return changed
