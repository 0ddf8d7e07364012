"""One connection's streams (RFC 9113 §5.1): the live ones, and what is remembered of others.

Streams are the client's, with odd and rising numbers; those above the last are idle, those below
that do not live are closed. Of the closed ones are remembered those that we have reset, as the peer
may not know yet, and those that were skipped, as they were never open.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edged.wire.request import RequestReceived

REMEMBERED_MAX = 256  # Streams that we reset: more than `faults_max` and all that may be open.
SKIPPED_MAX = 64  # Ranges; only which of two errors a wrong peer is told depends on them.

Rank = tuple[int, bool, int]  # Urgency, whether in turns, the place; the least goes first.


class Stream:
    """A request and its answer."""

    __slots__ = (
        *("answered", "began_at", "block", "body", "body_bytes", "content_length", "credit", "id"),
        *("incremental", "left", "offset", "piece", "pieces", "rank", "receiving", "refused"),
        *("request", "told", "urgency", "window_used"),
    )

    def __init__(self, stream_id: int, began_at: float, *, receiving: bool = False) -> None:
        self.id = stream_id
        self.began_at = began_at
        self.request: RequestReceived | None = None  # Until it has been told.
        self.receiving = receiving  # The peer has yet to end its request.
        self.told = False  # The shell knows of it.
        self.refused = False  # What comes of its body is dropped.
        self.content_length: int | None = None
        self.body: bytearray | None = None
        self.body_bytes = 0
        self.window_used = 0  # Of what the peer may send, with padding.
        self.credit = 0  # What we may send, less the peer's INITIAL_WINDOW_SIZE; may be negative.
        self.urgency = 3
        self.incremental = False
        self.rank: Rank = (0, False, 0)
        self.answered = False
        self.block: bytes | None = None  # A response's header block that has not gone out.
        self.pieces: Sequence[bytes] = ()  # Its body.
        self.piece = 0  # How far that has gone out.
        self.offset = 0
        self.left = 0


class StreamTable:
    """All streams of a connection."""

    __slots__ = ("_reset", "_skipped", "bodies_bytes", "last_id", "live", "receiving")

    def __init__(self) -> None:
        self.live: dict[int, Stream] = {}
        self.receiving: dict[int, Stream] = {}  # Requests that are not whole, the oldest first.
        self.last_id = 0
        self.bodies_bytes = 0
        self._reset: dict[int, None] = {}
        self._skipped: list[tuple[int, int]] = []

    def advance(self, stream_id: int) -> None:
        """A stream above the last is open now; those between are closed (RFC 9113 §5.1.1)."""
        if stream_id > self.last_id + 2 or stream_id > 1 > self.last_id:
            self._skipped.append((self.last_id, stream_id))
            del self._skipped[:-SKIPPED_MAX]
        self.last_id = stream_id

    def close(self, stream: Stream) -> None:
        """A stream lives no longer."""
        self.live.pop(stream.id, None)
        if stream.receiving:
            self.receiving.pop(stream.id, None)
        if stream.body_bytes:
            self.bodies_bytes -= stream.body_bytes
            stream.body_bytes = 0

    def remember_reset(self, stream_id: int) -> None:
        """We have reset it: the peer may send on it until it knows."""
        self._reset[stream_id] = None
        if len(self._reset) > REMEMBERED_MAX:
            del self._reset[next(iter(self._reset))]

    def was_reset(self, stream_id: int) -> bool:
        """Whether we have reset it, and the peer may not know."""
        return stream_id in self._reset

    def was_skipped(self, stream_id: int) -> bool:
        """Whether it has never been open."""
        return any(before < stream_id < after for before, after in self._skipped)

    def is_idle(self, stream_id: int) -> bool:
        """Whether nobody has opened it; we never do, so that even numbers always are."""
        return stream_id > self.last_id or not stream_id & 1

    def clear(self) -> None:
        """Let go of all."""
        self.live.clear()
        self.receiving.clear()
        self.bodies_bytes = 0
