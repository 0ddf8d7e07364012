"""The shell around `policy.edge_cache`: keeps all streams within its limits, and reads back.

Media that was read from the disk stays in memory for who asks next, the newest READ_BACK share of
it; who asks while it is being read waits for the same read.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import structlog
from msgspec import Struct

from edged.media.playlist import segment_name
from edged.playback.config import CacheConfig
from edged.playback.segment_store import SegmentStore, Store
from edged.policy.edge_cache import (
    SPILL_DEN,
    SPILL_NUM,
    CacheLimits,
    CacheUse,
    Choice,
    Held,
    Shelf,
    choose_drops,
    choose_spills,
    count_held,
    is_full,
    quiet_bytes,
    spill_bytes,
)

if TYPE_CHECKING:
    from edged.playback.hls_stream import HlsStream
    from edged.policy.window import StreamWindow

LEAVING_BYTES_MAX = 64 * 2**20  # On its way to the disk: half a second of a slow one.
# What cannot go is looked at again then, or when there is so much more: some of it may go by now.
FUTILE_S = 0.5
FUTILE_DEN = 64  # This share of memory.
READ_BACK_DEN = 8  # This share of memory is for what comes back, where there is a disk.

logger = structlog.get_logger("edged.cache")


class CacheCounters(Struct):
    """What became of requests for media since the start."""

    hits: int = 0  # It was here; beside `HlsService.hits`.
    collapsed: int = 0  # It was on its way for another: hits, too.
    misses: int = 0  # The first to ask for what was on its way from an origin, or on disk.
    fetched_origin: int = 0  # Parts and inits that came, each once.
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
    read_back_bytes: int
    stored_bytes: int
    disk_failures_total: int
    disk_usable: bool


class _ReadBack(NamedTuple):
    stream: "HlsStream"
    rendition: str
    msn: int
    size: int


Watched = Iterable[tuple["HlsStream", bool]]


class EdgeCache:
    """The cache of one edge."""

    def __init__(
        self,
        config: CacheConfig,
        streams: Callable[[], Watched],
        *,
        now: Callable[[], float],
        store: Store | None = None,
    ) -> None:
        """`streams`: all that are held, and whether anyone watches them.

        `store` is the disk, if it is not to be made of `config.directory`.
        """
        self.counters = CacheCounters()
        self.disk: SegmentStore | None = None
        self._streams, self._now = streams, now
        if store is None and config.directory is not None:
            store = self.disk = SegmentStore(config.directory, now=now)
        self._store = store
        self.reconfigure(config)
        self._memory_bytes = self._stored_bytes = self._leaving_bytes = 0
        self._counted: dict[HlsStream, Held] = {}
        self._of: dict[StreamWindow, HlsStream] = {}
        self._folders = 0
        self._back: deque[_ReadBack] = deque()
        self._back_bytes = 0
        self._told_full = False
        self._look_at = self._spill_at = -math.inf
        self._look_above = 0

    def reconfigure(self, config: CacheConfig) -> None:
        """Keep more or less, from the next part on."""
        limits = config.limits()
        self._limits = limits
        if self._store is not None:  # The rest is for what is read back.
            windows_bytes = limits.memory_bytes_max - limits.memory_bytes_max // READ_BACK_DEN
            limits = msgspec.structs.replace(limits, memory_bytes_max=windows_bytes)
        self._windows_limits = limits
        self._quiet_bytes = quiet_bytes(limits)

    async def run(self) -> None:
        """Hold the folder on disk, if there is one, until cancelled."""
        if self.disk is not None:
            await self.disk.run()

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another channel."""
        return is_full(self._windows_limits, self._use())

    def folder(self) -> str:
        """A name for the next stream's folder."""
        self._folders += 1
        return f"{self._folders}"

    def changed(self, stream: "HlsStream") -> None:
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
            if self._told_full:
                logger.warning(
                    "cache is full of what cannot go; no more channels are taken on",
                    memory_bytes=self._memory_bytes,
                    memory_bytes_max=self._limits.memory_bytes_max,
                )

    def gone(self, stream: "HlsStream") -> None:
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

    def fetch(self, stream: "HlsStream", rendition: str, msn: int) -> bool:
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

    def statistics(self) -> CacheStatistics:
        """What is held now."""
        return CacheStatistics(
            memory_bytes=self._memory_bytes,
            read_back_bytes=self._back_bytes,
            stored_bytes=self._stored_bytes,
            disk_failures_total=0 if self.disk is None else self.disk.failures,
            disk_usable=self._store is not None and self._store.usable,
        )

    def _stream_limits(self, stream: "HlsStream") -> CacheLimits:
        """Of one, so that its window need not drop what the disk can take."""
        return CacheLimits(
            memory_bytes_max=stream.window.limits.payload_bytes_max,
            disk_bytes_max=self._limits.disk_bytes_max,
        )

    def _use(self, stream: "HlsStream | None" = None) -> CacheUse:
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

    def _count(self, stream: "HlsStream") -> Held:
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
            names = stream.take_dropped()
            if names and self._store is not None:
                self._store.delete([f"{stream.folder}/{name}" for name in names])
        return now

    def _make_room(self, grown: "HlsStream") -> None:
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
            self._spill(store, grown, choice)
        use, now = self._use(), self._now()
        if not spill_bytes(limits, use) or now < self._spill_at:
            return
        spills = choose_spills(limits, use, self._all_shelves, leaving_bytes_max=LEAVING_BYTES_MAX)
        for choice in spills:
            self._spill(store, self._of[choice.shelf.stream], choice)
        if not spills and not use.leaving_bytes:
            self._spill_at = now + FUTILE_S

    def _drop(self, limits: CacheLimits, use: CacheUse, *, spilling: int) -> None:
        now = self._now()
        if now < self._look_at and use.memory_bytes <= self._look_above:
            return
        changed: dict[HlsStream, None] = {}
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

    def _spill(self, store: Store, stream: "HlsStream", choice: Choice) -> None:
        window, segment = choice.shelf.window, choice.segment
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
            held = stream.known_to_cache and window.in_memory.get(msn) is segment
            if not written:
                return
            if not held:
                if stream.known_to_cache:
                    store.delete([name])
                return
            window.store(msn)
            self.counters.spilled += 1
            stream.forget(rendition, msn)
            self._count(stream)

        store.write(name, body, done)

    def _lose(self, stream: "HlsStream", rendition: str, msn: int) -> None:
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
