"""What a place holds of all its streams: kept within its limits, by the rules of `edge_cache`.

An edge has one, and so has an origin. Media that was read from the disk stays in memory for who
asks next, the newest READ_BACK share of it; who asks while it is being read waits for the same
read. The disk is given; it does all in its own time.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple, Protocol

import msgspec
from msgspec import Meta, Struct

from edged.media.playlist import segment_name
from edged.media.stream import StreamId
from edged.policy.edge_cache import (
    SPILL_DEN,
    SPILL_NUM,
    CacheLimits,
    CacheUse,
    Held,
    Shelf,
    choose_drops,
    choose_spills,
    count_held,
    is_full,
    quiet_bytes,
    spill_bytes,
)
from edged.policy.rendition_window import RenditionWindow
from edged.policy.window import StreamWindow
from edged.policy.window_segment import WindowSegment

LEAVING_BYTES_MAX = 64 * 2**20  # On its way to the disk: half a second of a slow one.
# What cannot go is looked at again then, or when there is so much more: some of it may go by now.
FUTILE_S = 0.5
FUTILE_DEN = 64  # This share of memory.
READ_BACK_DEN = 8  # This share of memory is for what comes back, where there is a disk.


class CacheConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[playback.cache]`, `[origin.cache]`: what is kept of all streams together."""

    memory_bytes_max: Annotated[int, Meta(ge=2**26)] = 4 * 2**30
    directory: Path | None = None  # None: memory alone.
    disk_bytes_max: Annotated[int, Meta(ge=2**26)] = 32 * 2**30

    def limits(self) -> CacheLimits:
        """The same for the cache."""
        disk_bytes_max = 0 if self.directory is None else self.disk_bytes_max
        return CacheLimits(memory_bytes_max=self.memory_bytes_max, disk_bytes_max=disk_bytes_max)


class Store(Protocol):
    """What the cache needs of a disk."""

    @property
    def usable(self) -> bool:
        """Whether it is worth to try."""

    def write(self, name: str, body: Sequence[bytes], done: Callable[[bool], None]) -> None:
        """Write a file; `done` hears whether that went well."""

    def read(self, name: str, size: int, done: Callable[[bytes | None], None]) -> bool:
        """Read a file of that size, None if it cannot be; False if too many wait already."""

    def delete(self, names: Sequence[str]) -> None:
        """Delete files, or the folders of streams."""


class CachedStream(Protocol):
    """One of the streams, as its owner has it."""

    window: StreamWindow
    folder: str  # What of it is on disk.
    known_to_cache: bool  # Until it is let go.
    leaving_bytes: int  # On their way to the disk; the cache's own.

    def tidy(self) -> None:
        """Let go of what was made of segments that the window has dropped."""

    def forget(self, rendition: str, msn: int) -> None:
        """Let go of what was made of a segment, as its media is to leave memory."""

    def fetched(self, rendition: str, msn: int, data: bytes | None) -> bool:
        """A segment came from disk or, as None, is lost; returns whether it is kept."""

    def not_fetched(self, rendition: str, msn: int) -> None:
        """A segment did not come from its origin this time."""


class CacheCounters(Struct):
    """What became of requests for media since the start."""

    hits: int = 0  # It was here; beside `HlsService.hits`.
    collapsed: int = 0  # It was on its way for another: hits, too.
    misses: int = 0  # The first to ask for what was on its way from an origin, there, or on disk.
    fetched_origin: int = 0  # Parts and inits that came, each once.
    fetched_asked: int = 0  # Segments that came from an origin by name.
    fetched_disk: int = 0
    spilled: int = 0
    dropped: int = 0
    lost: int = 0  # Written, and not to be read.

    @property
    def hit_ratio(self) -> float:
        """Of all requests for media those that made nobody fetch it; 1 before the first."""
        asked = self.hits + self.collapsed + self.misses
        return 1.0 if not asked else (self.hits + self.collapsed) / asked


class CacheStatistics(Struct, frozen=True):
    """What is held now, and how it fares."""

    memory_bytes: int
    read_back_bytes: int  # Of what was asked for, too.
    stored_bytes: int
    disk_usable: bool


class _ReadBack(NamedTuple):
    stream: CachedStream
    rendition: str
    msn: int
    size: int


# Has the callback called with a segment that an origin has, or with a code why not; False: there is
# no way there now, or no room.
FetchAway = Callable[[StreamId, str, int, Callable[[bytes | str], None]], bool]
GONE = "gone"  # The code of what the origin has no more.

Watched = Iterable[tuple[CachedStream, bool]]


class SegmentCache:
    """The cache of one edge, or of one origin."""

    def __init__(
        self,
        limits: CacheLimits,
        streams: Callable[[], Watched],
        *,
        now: Callable[[], float],
        store: Store | None = None,
        fetch_away: FetchAway | None = None,
        became_full: Callable[[int, int], None] | None = None,
    ) -> None:
        """`streams`: all that are held, and whether anyone watches them. `store` is the disk.

        `fetch_away` gets what is away, at a place where something is. `became_full` hears, of the
        bytes in memory and how many may be, that what is held is too much and cannot go.
        """
        self.counters = CacheCounters()
        self._streams, self._now = streams, now
        self._store, self._fetch_away = store, fetch_away
        self._became_full = became_full
        self.limit(limits)
        self._memory_bytes = self._stored_bytes = self._leaving_bytes = 0
        self._counted: dict[CachedStream, Held] = {}
        self._of: dict[StreamWindow, CachedStream] = {}
        self._folders = 0
        self._back: deque[_ReadBack] = deque()
        self._back_bytes = 0
        self._told_full = False
        self._look_at = self._spill_at = -math.inf
        self._look_above = 0

    def limit(self, limits: CacheLimits) -> None:
        """Keep more or less, from the next part on."""
        self._limits = limits
        if (
            self._store is not None or self._fetch_away is not None
        ):  # The rest is for what came back.
            windows_bytes = limits.memory_bytes_max - limits.memory_bytes_max // READ_BACK_DEN
            limits = msgspec.structs.replace(limits, memory_bytes_max=windows_bytes)
        self._windows_limits = limits
        self._quiet_bytes = quiet_bytes(limits)

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another channel."""
        return is_full(self._windows_limits, self._use())

    def folder(self) -> str:
        """A name for the next stream's folder."""
        self._folders += 1
        return f"{self._folders}"

    def changed(self, stream: CachedStream) -> None:
        """A stream's window has changed: count it, and make room where there is too much."""
        held = self._count(stream)
        own_max = stream.window.limits.payload_bytes_max * SPILL_NUM // SPILL_DEN
        if (
            self._memory_bytes - self._leaving_bytes <= self._quiet_bytes
            and self._stored_bytes <= self._limits.disk_bytes_max
            and (self._store is None or held.payload_bytes <= own_max)
            and not self._told_full
        ):
            return
        self._make_room(stream)
        if self.is_full is not self._told_full:
            self._told_full = self.is_full
            if self._told_full and self._became_full is not None:
                self._became_full(self._memory_bytes, self._limits.memory_bytes_max)

    def gone(self, stream: CachedStream) -> None:
        """A stream is held no more, nor anything of it."""
        stream.known_to_cache = False
        self._of.pop(stream.window, None)
        held = self._counted.pop(stream, Held(0, 0, 0))
        self._memory_bytes -= held.memory_bytes
        self._stored_bytes -= held.stored_bytes
        self._back_bytes -= sum(item.size for item in self._back if item.stream is stream)
        self._back = deque(item for item in self._back if item.stream is not stream)
        if self._store is not None:
            self._store.delete([stream.folder])

    def fetch(self, stream: CachedStream, rendition: str, msn: int) -> bool:
        """Read a segment that is on disk, for `stream.fetched`; False if too much is being read."""
        size = stream.window.stored_bytes_of(rendition, msn)
        assert size is not None, "it is stored"
        store = self._store
        if store is None:
            return False

        def done(data: bytes | None) -> None:
            if not stream.known_to_cache:
                return
            if data is None:
                self._lose(stream, rendition, msn)
                stream.fetched(rendition, msn, None)
                return
            self.counters.fetched_disk += 1
            if stream.fetched(rendition, msn, data):
                self._back.append(_ReadBack(stream, rendition, msn, size))
                self._back_bytes += size
                self._forget_read()

        return store.read(f"{stream.folder}/{segment_name(rendition, msn)}", size, done)

    def fetch_away(self, stream: CachedStream, rendition: str, msn: int) -> bool:
        """Get a segment that is away, for `stream.fetched` or `stream.not_fetched`; as `fetch`."""
        size = stream.window.away_bytes_of(rendition, msn)
        assert size is not None, "it is away"

        def done(result: bytes | str) -> None:
            if not stream.known_to_cache:
                return
            if isinstance(result, bytes) and len(result) == size:
                self._take(stream, rendition, msn, result)
            elif isinstance(result, bytes) or result == GONE:
                stream.window.lose(rendition, msn)
                stream.tidy()
                self._count(stream)
                stream.fetched(rendition, msn, None)
            else:
                stream.not_fetched(rendition, msn)

        fetch = self._fetch_away
        return fetch is not None and fetch(stream.window.stream_id, rendition, msn, done)

    def _take(self, stream: CachedStream, rendition: str, msn: int, data: bytes) -> None:
        """Keep what came from an origin: on disk, if there is room, and for now in memory."""
        self.counters.fetched_asked += 1
        window = stream.window.renditions[rendition]
        segment = window.away.get(msn)
        if segment is not None:
            window.hold(msn, data)
        if not stream.fetched(rendition, msn, data) or segment is None:
            return
        self._back.append(_ReadBack(stream, rendition, msn, len(data)))
        self._back_bytes += len(data)
        self._forget_read()
        store, room = self._store, LEAVING_BYTES_MAX - self._leaving_bytes
        use = self._use()
        room = min(room, self._limits.disk_bytes_max - use.stored_bytes - use.leaving_bytes)
        kept = segment.fetched is not None and not segment.leaving
        if store is not None and store.usable and len(data) <= room and kept:
            self._spill(store, stream, window, segment)

    def statistics(self) -> CacheStatistics:
        """What is held now."""
        return CacheStatistics(
            memory_bytes=self._memory_bytes,
            read_back_bytes=self._back_bytes,
            stored_bytes=self._stored_bytes,
            disk_usable=self._store is not None and self._store.usable,
        )

    def _stream_limits(self, stream: CachedStream) -> CacheLimits:
        """Of one, so that its window need not drop what the disk can take."""
        return CacheLimits(
            memory_bytes_max=stream.window.limits.payload_bytes_max,
            disk_bytes_max=self._limits.disk_bytes_max,
        )

    def _use(self, stream: CachedStream | None = None) -> CacheUse:
        if stream is None:
            return CacheUse(
                memory_bytes=self._memory_bytes,
                leaving_bytes=self._leaving_bytes,
                stored_bytes=self._stored_bytes,
            )
        return CacheUse(
            memory_bytes=stream.window.payload_bytes,
            leaving_bytes=stream.leaving_bytes,
            stored_bytes=self._stored_bytes + self._leaving_bytes - stream.leaving_bytes,
        )

    def _count(self, stream: CachedStream) -> Held:
        now = count_held(stream.window)
        if not stream.known_to_cache:
            return now
        before = self._counted.get(stream)
        if before is None:
            self._of[stream.window] = stream
            before = Held(0, 0, 0)
        self._memory_bytes += now.memory_bytes - before.memory_bytes
        self._stored_bytes += now.stored_bytes - before.stored_bytes
        self._counted[stream] = now
        if before.stored_bytes:
            names = stream.window.take_dropped()
            if names and self._store is not None:
                self._store.delete([f"{stream.folder}/{name}" for name in names])
        return now

    def _make_room(self, grown: CachedStream) -> None:
        """Drop what there is no room for; bring to disk what memory, or `grown` alone, has much of.

        For the most part nothing is to be done, and this is asked for each part.
        """
        store, limits, use = self._store, self._windows_limits, self._use()
        if store is None or not store.usable:
            if is_full(limits, use) or use.stored_bytes + use.leaving_bytes > limits.disk_bytes_max:
                self._drop(limits, use, spilling=0)
            return
        own = self._stream_limits(grown)
        spilling = max(spill_bytes(limits, use), spill_bytes(own, self._use(grown)))
        if not spilling and not is_full(limits, use):
            return
        self._drop(limits, use, spilling=spilling)
        for choice in choose_spills(
            own,
            self._use(grown),
            lambda: self._shelves([(grown, True)]),
            leaving_bytes_max=LEAVING_BYTES_MAX - self._leaving_bytes + grown.leaving_bytes,
        ):
            self._spill(store, grown, choice.shelf.window, choice.segment)
        use, now = self._use(), self._now()
        if not spill_bytes(limits, use) or now < self._spill_at:
            return
        spills = choose_spills(limits, use, self._all_shelves, leaving_bytes_max=LEAVING_BYTES_MAX)
        for choice in spills:
            stream = self._of[choice.shelf.stream]
            self._spill(store, stream, choice.shelf.window, choice.segment)
        if not spills and not use.leaving_bytes:
            self._spill_at = now + FUTILE_S

    def _drop(self, limits: CacheLimits, use: CacheUse, *, spilling: int) -> None:
        now = self._now()
        if now < self._look_at and use.memory_bytes <= self._look_above:
            return
        changed: dict[CachedStream, None] = {}
        for choice in choose_drops(limits, use, self._all_shelves, spilling=spilling):
            choice.shelf.window.evict()
            self.counters.dropped += 1
            changed[self._of[choice.shelf.stream]] = None
        for stream in changed:
            stream.tidy()
            self._count(stream)
        if not changed and is_full(limits, use):
            self._look_at = now + FUTILE_S
            self._look_above = use.memory_bytes + limits.memory_bytes_max // FUTILE_DEN

    def _all_shelves(self) -> list[Shelf]:
        return self._shelves(self._streams())

    def _shelves(self, streams: Watched) -> list[Shelf]:
        return [
            Shelf(stream.window, window, watched)
            for stream, watched in streams
            for window in stream.window.renditions.values()
        ]

    def _spill(
        self, store: Store, stream: CachedStream, window: RenditionWindow, segment: WindowSegment
    ) -> None:
        rendition, msn, size = window.rendition.name, segment.entry.msn, segment.payload_bytes
        body = stream.window.segment(rendition, msn)
        assert body is not None, "what is chosen is whole"
        name = f"{stream.folder}/{segment_name(rendition, msn)}"
        segment.leaving = True
        self._leaving_bytes += size
        stream.leaving_bytes += size

        def done(written: bool) -> None:
            segment.leaving = False
            self._leaving_bytes -= size
            stream.leaving_bytes -= size
            held = stream.known_to_cache and window.segments.get(msn) is segment
            if not written:
                return
            if not held:
                if stream.known_to_cache:
                    store.delete([name])
                return
            came_back = segment.away  # It stays in memory for who asks next.
            window.store(msn)
            self.counters.spilled += 1
            if not came_back:
                stream.forget(rendition, msn)
            self._count(stream)

        store.write(name, body, done)

    def _lose(self, stream: CachedStream, rendition: str, msn: int) -> None:
        """What is on disk cannot be read: it is not listed any more, nor what is older."""
        window = stream.window.renditions[rendition]
        if msn not in window.segments:
            return  # It was dropped before it was read.
        self.counters.lost += 1
        while msn in window.segments and next(iter(window.segments)) <= msn:
            window.evict()
            self.counters.dropped += 1
        stream.tidy()
        self._count(stream)

    def _forget_read(self) -> None:
        """Keep of what was read the newest."""
        while self._back and self._back_bytes > self._limits.memory_bytes_max // READ_BACK_DEN:
            item = self._back.popleft()
            self._back_bytes -= item.size
            item.stream.forget(item.rendition, item.msn)
            item.stream.window.give_back(item.rendition, item.msn)
            item.stream.tidy()
            self._count(item.stream)  # It may be lost for good.
