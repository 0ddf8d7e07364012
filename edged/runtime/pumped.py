"""What a pump, its connections and their handlers are to each other."""

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from edged.runtime.connection import Connection


class PumpClass(enum.IntEnum):
    """Who shares the loop, first served first."""

    PUBLISHER = 0
    BACKBONE = 1
    VIEWER = 2
    CHATTER = 3


class PumpHandler(Protocol):
    """What a session is to the pump. An `EdgedError` raised here ends this connection only."""

    def data_received(self, data: memoryview, now: float) -> None:
        """Take bytes; `data` is over a buffer that is reused as soon as this returns."""

    def connection_lost(self, reason: str) -> None:
        """Hear of the end, once, whoever ended it."""

    def handle_timeout(self, now: float) -> None:
        """Act: the time given to `set_timeout` has come."""

    def drained(self) -> None:
        """Write again: the out queue fell to OUT_LOW_BYTES after it had been above."""


MakeHandler = Callable[["Connection"], PumpHandler]


class PumpSide(Protocol):
    """What a connection needs of its pump."""

    def mark_dirty(self, connection: "Connection") -> None:
        """Flush this connection at the end of the turn."""

    def mark_readable(self, connection: "Connection") -> None:
        """Visit this connection in the next turn, though its descriptor may stay silent."""

    def mark_lost(self, connection: "Connection") -> None:
        """Take this connection out and tell its handler."""

    def schedule(self, connection: "Connection", at: float) -> None:
        """Call `run_timeout` at that time."""

    def interest(self, connection: "Connection", mask: int) -> None:
        """Change what the descriptor is watched for."""

    def established(self, connection: "Connection") -> None:
        """The TLS handshake is done: move to the connection's own class."""

    def fail(self, connection: "Connection", error: Exception) -> None:
        """End this connection for what was raised on its account."""

    def now(self) -> float:
        """Monotonic seconds."""


class PumpStatistics(Struct, frozen=True):
    """Counters since the start; `lag_s` is how late the loop ran lately (decaying maximum)."""

    turns: int
    events: int
    connections: int
    lag_s: float
    tick_s: float
