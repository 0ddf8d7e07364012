"""What an origin holds of one stream: its window, and who waits for a segment from disk."""

from collections.abc import Callable, Sequence

from edged.media.stream import StreamId
from edged.policy.segment_cache import GONE, SegmentCache
from edged.policy.window import StreamWindow
from edged.policy.window_limits import WindowLimits

Given = Callable[[Sequence[bytes] | str], None]  # A segment's bytes, or why there are none.

TOO_MUCH = "full"  # Too much is being read from disk.


class HeldStream:
    """One stream here, packaged now or a while ago; `CachedStream` of the origin's cache."""

    def __init__(self, stream_id: StreamId, limits: WindowLimits, cache: SegmentCache) -> None:
        self.window = StreamWindow(stream_id, limits)
        self.folder = cache.folder()
        self.known_to_cache = True
        self.leaving_bytes = 0
        self.ended_at: float | None = None  # When it ceased to be packaged here.
        self._cache = cache
        self._reading: dict[tuple[str, int], list[Given]] = {}

    def has(self, rendition: str, msn: int) -> bool:
        """Whether a whole segment is held, in memory or on disk."""
        window = self.window
        in_memory = window.segment(rendition, msn) is not None
        return in_memory or window.stored_bytes_of(rendition, msn) is not None

    def give(self, rendition: str, msn: int, given: Given) -> None:
        """Call `given` with a whole segment, once, now or when it has been read from disk."""
        body = self.window.segment(rendition, msn)
        if body is not None:
            given(body)
            return
        if self.window.stored_bytes_of(rendition, msn) is None:
            given(GONE)
            return
        waiting = self._reading.get((rendition, msn))
        if waiting is not None:
            waiting.append(given)
            return
        self._reading[rendition, msn] = [given]
        if not self._cache.fetch(self, rendition, msn):
            self._tell(rendition, msn, TOO_MUCH)

    def tidy(self) -> None:
        """Nothing is made of it here."""

    def forget(self, rendition: str, msn: int) -> None:
        """The same."""

    def fetched(self, rendition: str, msn: int, data: bytes | None) -> bool:
        """Hand on what came from disk; each PoP asks once, so it is not kept."""
        self._tell(rendition, msn, GONE if data is None else [data])
        return False

    def not_fetched(self, rendition: str, msn: int) -> None:
        """Nothing is asked of others here."""

    def abandon(self) -> None:
        """It is held no more."""
        for rendition, msn in list(self._reading):
            self._tell(rendition, msn, GONE)

    def _tell(self, rendition: str, msn: int, body: Sequence[bytes] | str) -> None:
        for given in self._reading.pop((rendition, msn), []):
            given(body)
