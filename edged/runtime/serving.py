"""Viewers, chatters and handshakes in their turn: those at rest get what stands, and no more.

What is done for each of them between one system call and the next is most of what a part costs
beyond the kernel's work (measured by tests/bench/playback); hence the compiled twin.
"""

import select
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from edged.runtime.connection import Connection

Batch = deque[tuple["Connection", int]]  # Who is ready, with epoll's events.


class ServeBatch(Protocol):
    """Visit who is in the batch, until that time; how many were."""

    def __call__(
        self, pump: "ServingPump", batch: Batch, buffer: memoryview, now: float, until: float
    ) -> int:
        """Each is read once at least; what is raised on its account ends that one alone."""


class ServingPump(Protocol):
    """What is needed of a pump."""

    def visit(self, connection: "Connection", mask: int, now: float) -> None:
        """Do what is to be done for one connection, whatever that is."""

    def fail(self, connection: "Connection", error: Exception) -> None:
        """End this connection for what was raised on its account."""


def serve_in_python(
    pump: ServingPump, batch: Batch, buffer: memoryview, now: float, until: float
) -> int:
    """As `ServeBatch`."""
    visited, ahead = 0, now - time.monotonic()
    while batch:
        connection, mask = batch.popleft()
        if mask == select.EPOLLIN and connection.lost is None and not connection.handshaking:
            try:  # As `visit` does; the usual case pays no call for it.
                connection.take_readable(buffer, now)
            except Exception as error:
                pump.fail(connection, error)
        else:
            pump.visit(connection, mask, now)
        visited += 1
        if (now := ahead + time.monotonic()) >= until:
            break
    return visited


serve_batch: ServeBatch
try:
    from edged.runtime.fast import serve_batch
except ImportError:  # No C compiler was there when the package was built, or it is another Python.
    serve_batch = serve_in_python
