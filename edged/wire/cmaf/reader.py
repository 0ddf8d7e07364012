"""Fragmented MP4 as a client reads it: what samples a chunk has, of which track and timescale.

ISO/IEC 14496-12 §8.8 (moof, traf, tfhd, tfdt, trun), §8.3.2 (tkhd), §8.4.2 (mdhd) and §8.5.2
(stsd). CMAF has one track in a file (23000-19 §7.3), others' may have several, muxed. For checks of
anybody's media; nothing is decoded.
"""

import struct
from collections.abc import Iterator

from msgspec import Struct

from edged.errors import RemoteProtocolError

SAMPLES_MAX = 100_000
TRACKS_MAX = 16
DEPTH_MAX = 8  # Of boxes in boxes; moov/trak/mdia/minf/stbl is 5.
NON_SYNC = 0x10000  # sample_is_non_sync_sample (§8.8.3.1).
_CONTAINERS = {b"moov", b"trak", b"mdia", b"moof", b"traf", b"mvex", b"minf", b"stbl"}
_BASE_DATA_OFFSET, _DESCRIPTION, _DURATION, _SIZE, _FLAGS = 1, 2, 8, 0x10, 0x20  # tfhd's flags.
_BASE_IS_MOOF = 0x020000
_ENTRIES_AT, _WIDTH_AT = 8, 24  # In stsd's body, and in that of a VisualSampleEntry.
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
    at: int  # Where its bytes are in what was read.


class ReadTrack(Struct, kw_only=True):
    """What an init segment says of a track."""

    timescale: int = 0
    handler: str = ""  # "vide", "soun".
    formats: tuple[str, ...] = ()  # Of its sample entries, as "avc1".
    sizes: tuple[tuple[int, int], ...] = ()  # Of pictures: as coded, as shown, and turned.
    default_duration: int = 0
    default_size: int = 0
    default_flags: int = 0


ReadInit = dict[int, ReadTrack]  # By track_ID.


def read_init(data: bytes) -> ReadInit:
    """The tracks of an init segment; raises `RemoteProtocolError`."""
    described: list[dict[bytes, bytes]] = []  # What each trak says.
    extended: list[bytes] = []
    for kind, _, start, end in _walk(data):
        if kind == b"trak":
            described.append({})
        elif kind == b"trex":
            extended.append(data[start:end])
        elif kind in (b"tkhd", b"mdhd", b"hdlr", b"stsd") and described:
            described[-1].setdefault(kind, data[start:end])
    if not 0 < len(described) <= TRACKS_MAX:
        raise RemoteProtocolError(f"init segment of {len(described)} tracks, limit {TRACKS_MAX}")
    tracks = dict(map(_read_track, described))
    for body in extended:
        if (track := tracks.get(_u32(body, 4))) is not None:
            track.default_duration, track.default_size = _u32(body, 12), _u32(body, 16)
            track.default_flags = _u32(body, 20)
    return tracks


def _read_track(found: dict[bytes, bytes]) -> tuple[int, ReadTrack]:
    for kind in (b"tkhd", b"mdhd", b"hdlr"):
        if kind not in found:
            raise RemoteProtocolError(f"init segment with a track without {kind.decode()}")
    tkhd, mdhd = found[b"tkhd"], found[b"mdhd"]
    number = _u32(tkhd, 20 if tkhd[:1] == b"\1" else 12)
    timescale = _u32(mdhd, 20 if mdhd[:1] == b"\1" else 12)
    if not timescale:
        raise RemoteProtocolError(f"init segment with timescale 0 of track {number}")
    handler = found[b"hdlr"][8:12].decode("latin-1")
    stsd = found.get(b"stsd", b"")
    entries = list(_walk(stsd, _ENTRIES_AT))
    sizes: list[tuple[int, int]] = []
    if handler == "vide":
        shown = _u32(tkhd, len(tkhd) - 8) >> 16, _u32(tkhd, len(tkhd) - 4) >> 16
        sizes = [*(_size_at(stsd, at + _WIDTH_AT) for _, _, at, _ in entries), shown, shown[::-1]]
    return number, ReadTrack(
        timescale=timescale,
        handler=handler,
        formats=tuple(kind.decode("latin-1") for kind, _, _, _ in entries),
        sizes=tuple(dict.fromkeys(sizes)),
    )


def _size_at(stsd: bytes, at: int) -> tuple[int, int]:
    """Width and height of a VisualSampleEntry (§12.1.3)."""
    both = _u32(stsd, at)
    return both >> 16, both & 0xFFFF


def read_samples(data: bytes, init: ReadInit, origin: int = 0) -> dict[int, list[ReadSample]]:
    """The samples of one or more chunks by track, in order; raises `RemoteProtocolError`.

    `origin`: where in its file the data begins.
    """
    samples: dict[int, list[ReadSample]] = {}
    moof_at, count = 0, 0
    run: _TrackRun | None = None
    for kind, at, start, end in _walk(data):
        if kind == b"moof":
            moof_at, run = at, None
        elif kind == b"tfhd":
            follows = moof_at if run is None else run.at
            run = _TrackRun(init, data[start:end], moof_at, follows, origin)
        elif kind in (b"tfdt", b"trun"):
            if run is None:
                raise RemoteProtocolError(f"{kind.decode()} without tfhd")
            if kind == b"tfdt":
                run.begin(data[start:end])
                continue
            found = list(run.read(data[start:end]))
            _check(found, len(data))
            count += len(found)
            if count > SAMPLES_MAX:
                raise RemoteProtocolError(f"more than {SAMPLES_MAX} samples in one fragment")
            samples.setdefault(run.track, []).extend(found)
    return samples


def _check(samples: list[ReadSample], size: int) -> None:
    for sample in samples:
        if not 0 <= sample.at <= sample.at + sample.size <= size:
            raise RemoteProtocolError(
                f"sample of {sample.size} bytes at {sample.at}, {size} are there"
            )


class _TrackRun:
    """A traf: its defaults, and where in time and in the data its next sample is."""

    def __init__(
        self, init: ReadInit, tfhd: bytes, moof_at: int, follows: int, origin: int
    ) -> None:
        self.track, self.dts = _u32(tfhd, 4), 0
        known = init.get(self.track)
        if known is None:
            raise RemoteProtocolError(
                f"track {self.track} is not in the init segment, which has {sorted(init)}"
            )
        self._duration, self._size = known.default_duration, known.default_size
        self._flags = known.default_flags
        flags, at = _u32(tfhd, 0) & 0xFFFFFF, 8
        # Without any of the two the first traf counts from its moof, others from the data of the
        # one before (§8.8.7.1).
        self._base = moof_at if flags & _BASE_IS_MOOF else follows
        if flags & _BASE_DATA_OFFSET:
            self._base, at = _u64(tfhd, at) - origin, at + 8
        self.at = self._base
        at += 4 * bool(flags & _DESCRIPTION)
        for bit, name in ((_DURATION, "_duration"), (_SIZE, "_size"), (_FLAGS, "_flags")):
            if flags & bit:
                setattr(self, name, _u32(tfhd, at))
                at += 4

    def begin(self, tfdt: bytes) -> None:
        """Where in time its first sample is."""
        self.dts = _u64(tfdt, 4) if tfdt[:1] == b"\1" else _u32(tfdt, 4)

    def read(self, body: bytes) -> Iterator[ReadSample]:
        version, flags, count, at = body[:1], _u32(body, 0) & 0xFFFFFF, _u32(body, 4), 8
        if count > SAMPLES_MAX:
            raise RemoteProtocolError(f"trun of {count} samples, limit {SAMPLES_MAX}")
        if flags & _T_OFFSET:
            offset, at = _u32(body, at), at + 4
            self.at = self._base + _signed(offset)
        first = self._flags
        if flags & _T_FIRST:
            first, at = _u32(body, at), at + 4
        for index in range(count):
            duration, size, composition = self._duration, self._size, 0
            sample_flags = self._flags if index else first
            if flags & _T_DURATION:
                duration, at = _u32(body, at), at + 4
            if flags & _T_SIZE:
                size, at = _u32(body, at), at + 4
            if flags & _T_FLAGS:
                sample_flags, at = _u32(body, at), at + 4
            if flags & _T_COMPOSITION:
                composition, at = _u32(body, at), at + 4
                composition = composition if version == b"\0" else _signed(composition)
            sync = not sample_flags & NON_SYNC
            yield ReadSample(self.dts, duration, composition, size, sync, self.at)
            self.dts += duration
            self.at += size


def _walk(
    data: bytes, at: int = 0, end: int | None = None, depth: int = 0
) -> Iterator[tuple[bytes, int, int, int]]:
    """All boxes in order, containers before what is in them: kind, begin, body's begin and end."""
    if depth > DEPTH_MAX:
        raise RemoteProtocolError(f"boxes nested deeper than {DEPTH_MAX}")
    size = len(data) if end is None else end
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
        yield kind, at, at + head, at + box_bytes
        if kind in _CONTAINERS:
            yield from _walk(data, at + head, at + box_bytes, depth + 1)
        at += box_bytes


def _signed(value: int) -> int:
    return value - (2**32 if value >= 2**31 else 0)


def _u32(data: bytes, at: int) -> int:
    if at + 4 > len(data):
        raise RemoteProtocolError(f"box ends at {len(data)} bytes, amid a field")
    return int(struct.unpack_from(">I", data, at)[0])


def _u64(data: bytes, at: int) -> int:
    return _u32(data, at) << 32 | _u32(data, at + 4)
