"""The cache of an edge: `policy.segment_cache` with its disk, as the file has it."""

from collections.abc import Callable

import structlog

from edged.policy.segment_cache import CacheConfig, FetchAway, SegmentCache, Store, Watched
from edged.runtime.segment_store import SegmentStore

logger = structlog.get_logger("edged.cache")


class EdgeCache(SegmentCache):
    """The cache of one edge."""

    def __init__(
        self,
        config: CacheConfig,
        streams: Callable[[], Watched],
        *,
        now: Callable[[], float],
        store: Store | None = None,
        fetch_away: FetchAway | None = None,
    ) -> None:
        """As for `SegmentCache`; `store` is the disk, if none is to be made of `config`."""
        self.disk: SegmentStore | None = None
        if store is None and config.directory is not None:
            store = self.disk = SegmentStore(config.directory, now=now)
        super().__init__(
            config.limits(),
            streams,
            now=now,
            store=store,
            fetch_away=fetch_away,
            became_full=_became_full,
        )

    def reconfigure(self, config: CacheConfig) -> None:
        """Keep more or less, from the next part on."""
        self.limit(config.limits())

    async def run(self) -> None:
        """Hold the folder on disk, if there is one, until cancelled."""
        if self.disk is not None:
            await self.disk.run()

    @property
    def disk_failures(self) -> int:
        """Attempts to make the folder or to write that failed."""
        return 0 if self.disk is None else self.disk.failures


def _became_full(memory_bytes: int, memory_bytes_max: int) -> None:
    logger.warning(
        "cache is full of what cannot go; no more channels are taken on",
        memory_bytes=memory_bytes,
        memory_bytes_max=memory_bytes_max,
    )
