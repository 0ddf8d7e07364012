"""Fragmented MP4 as a client reads it: what samples a chunk has, and of what timescale.

ISO/IEC 14496-12 §8.8 (moof, traf, tfhd, tfdt, trun) and §8.4.2 (mdhd), of one track, as CMAF has it
(23000-19 §7.3). For checks of anybody's media; nothing is decoded.
"""

import struct
from collections.abc import Iterator

from msgspec import Struct

from edged.errors import RemoteProtocolError

SAMPLES_MAX = 100_000
DEPTH_MAX = 8  # Of boxes in boxes; moov/trak/mdia/minf/stbl is 5.
NON_SYNC = 0x10000  # sample_is_non_sync_sample (§8.8.3.1).
_CONTAINERS = {b"moov", b"trak", b"mdia", b"moof", b"traf", b"mvex", b"minf", b"stbl"}
_BASE_DATA_OFFSET, _DESCRIPTION, _DURATION, _SIZE, _FLAGS = 1, 2, 8, 0x10, 0x20  # tfhd's flags.
_T_OFFSET, _T_FIRST, _T_DURATION, _T_SIZE, _T_FLAGS, _T_COMPOSITION = (
    *(1, 4, 0x100, 0x200, 0x400, 0x800),  # trun's.
)


class ReadSample(Struct, frozen=True):
    """One sample of a track."""

    dts: int  # Ticks.
    duration: int
    composition: int  # pts - dts.
    size: int
    sync: bool


class ReadInit(Struct, frozen=True):
    """What an init segment says of its track."""

    timescale: int
    handler: str  # "vide", "soun".
    default_duration: int
    default_flags: int


def read_init(data: bytes) -> ReadInit:
    """The track of an init segment; raises `RemoteProtocolError`."""
    found = {kind: body for kind, body in _walk(data) if kind in (b"mdhd", b"hdlr", b"trex")}
    for kind in (b"mdhd", b"hdlr"):
        if kind not in found:
            raise RemoteProtocolError(f"init segment without {kind.decode()}")
    mdhd, hdlr = found[b"mdhd"], found[b"hdlr"]
    timescale = _u32(mdhd, 20 if mdhd[:1] == b"\1" else 12)
    if not timescale:
        raise RemoteProtocolError("init segment with timescale 0")
    trex = found.get(b"trex")
    return ReadInit(
        timescale=timescale,
        handler=hdlr[8:12].decode("latin-1"),
        default_duration=_u32(trex, 12) if trex is not None else 0,
        default_flags=_u32(trex, 20) if trex is not None else 0,
    )


def read_samples(data: bytes, init: ReadInit) -> list[ReadSample]:
    """The samples of one or more chunks, in order; raises `RemoteProtocolError`."""
    samples: list[ReadSample] = []
    base = _TrackRun(init)
    for kind, body in _walk(data):
        if kind == b"tfhd":
            base = _TrackRun(init)
            base.read_header(body)
        elif kind == b"tfdt":
            base.dts = _u64(body, 4) if body[:1] == b"\1" else _u32(body, 4)
        elif kind == b"trun":
            samples += base.read(body)
            if len(samples) > SAMPLES_MAX:
                raise RemoteProtocolError(f"more than {SAMPLES_MAX} samples in one fragment")
    return samples


class _TrackRun:
    """The defaults of a traf, and where in time its next sample is."""

    def __init__(self, init: ReadInit) -> None:
        self.dts = 0
        self._duration, self._flags, self._size = init.default_duration, init.default_flags, 0

    def read_header(self, body: bytes) -> None:
        flags, at = _u32(body, 0) & 0xFFFFFF, 8
        at += 8 * bool(flags & _BASE_DATA_OFFSET) + 4 * bool(flags & _DESCRIPTION)
        for bit, name in ((_DURATION, "_duration"), (_SIZE, "_size"), (_FLAGS, "_flags")):
            if flags & bit:
                setattr(self, name, _u32(body, at))
                at += 4

    def read(self, body: bytes) -> Iterator[ReadSample]:
        version, flags, count, at = body[:1], _u32(body, 0) & 0xFFFFFF, _u32(body, 4), 8
        if count > SAMPLES_MAX:
            raise RemoteProtocolError(f"trun of {count} samples, limit {SAMPLES_MAX}")
        at += 4 * bool(flags & _T_OFFSET)
        first: int | None = None
        if flags & _T_FIRST:
            first, at = _u32(body, at), at + 4
        for index in range(count):
            duration, size, sample_flags, composition = self._duration, self._size, self._flags, 0
            if flags & _T_DURATION:
                duration, at = _u32(body, at), at + 4
            if flags & _T_SIZE:
                size, at = _u32(body, at), at + 4
            if flags & _T_FLAGS:
                sample_flags, at = _u32(body, at), at + 4
            elif first is not None and not index:
                sample_flags = first
            if flags & _T_COMPOSITION:
                composition, at = _u32(body, at), at + 4
                if version != b"\0" and composition >= 2**31:
                    composition -= 2**32
            yield ReadSample(self.dts, duration, composition, size, not sample_flags & NON_SYNC)
            self.dts += duration


def media_of(data: bytes) -> bytes:
    """What all mdat boxes hold, in order."""
    return b"".join(body for kind, body in _walk(data) if kind == b"mdat")


def _walk(data: bytes, depth: int = 0) -> Iterator[tuple[bytes, bytes]]:
    """All boxes that are no containers, in order, with their bodies."""
    if depth > DEPTH_MAX:
        raise RemoteProtocolError(f"boxes nested deeper than {DEPTH_MAX}")
    at, size = 0, len(data)
    while at < size:
        if size - at < 8:  # noqa: PLR2004 - a box header
            raise RemoteProtocolError(f"{size - at} bytes behind the last box")
        box_bytes, kind, head = _u32(data, at), data[at + 4 : at + 8], 8
        if box_bytes == 1:
            box_bytes, head = _u64(data, at + 8), 16
        elif not box_bytes:
            box_bytes = size - at
        if box_bytes < head or box_bytes > size - at:
            raise RemoteProtocolError(f"box {kind!r} of {box_bytes} bytes, {size - at} are there")
        body = data[at + head : at + box_bytes]
        if kind in _CONTAINERS:
            yield from _walk(body, depth + 1)
        else:
            yield kind, body
        at += box_bytes


def _u32(data: bytes, at: int) -> int:
    if at + 4 > len(data):
        raise RemoteProtocolError(f"box ends at {len(data)} bytes, amid a field")
    return int(struct.unpack_from(">I", data, at)[0])


def _u64(data: bytes, at: int) -> int:
    return _u32(data, at) << 32 | _u32(data, at + 4)
