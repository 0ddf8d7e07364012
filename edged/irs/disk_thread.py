"""A thread for calls to a disk that may hang: who is cancelled does not wait for it.

One call at a time. What the calls use is let go of behind the last of them, whenever that is.
"""

import threading
from collections.abc import Callable
from typing import TypeVar

import trio

T = TypeVar("T")


def call_within(call: Callable[[], T], within_s: float, drop: Callable[[T], None]) -> T:
    """Call it in a thread, before there is a loop to wait in; raises what it raises.

    TimeoutError if it takes longer: the call goes on by itself, and that thread drops what it gives
    (a file that nobody closes stays locked until the garbage is collected).
    """
    results: list[T] = []
    errors: list[Exception] = []
    given_up, lock = threading.Event(), threading.Lock()

    def run() -> None:
        try:
            result = call()
        except Exception as error:  # Of whoever waits.
            errors.append(error)
            return
        with lock:
            if not given_up.is_set():
                results.append(result)
                return
        drop(result)

    thread = threading.Thread(target=run, daemon=True)  # The process ends without it.
    thread.start()
    thread.join(within_s)
    with lock:
        given_up.set()
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError
    return results[0]


class DiskThread:
    """Of one file."""

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(1)  # Our own: no other thread is waited for.
        self._lock = threading.Lock()
        self._close: Callable[[], None] | None = None
        self.busy = False

    async def run(self, call: Callable[[], T]) -> T:
        """Call it in the thread. If this is cancelled meanwhile, the call goes on by itself.

        Cancelled before, it does not begin, and nothing is lost of what the call would take.
        """
        assert not self.busy, "one call at a time: `idle` waits for the one before"
        await trio.lowlevel.checkpoint_if_cancelled()
        self.busy = True
        return await trio.to_thread.run_sync(
            lambda: self._call(call), abandon_on_cancel=True, limiter=self._limiter
        )

    async def idle(self) -> None:
        """Wait until no call is under way."""
        async with self._limiter:
            pass

    def close(self, close: Callable[[], None]) -> None:
        """Call that now, or behind the call that is under way."""
        with self._lock:
            if self.busy:
                self._close = close
                return
        close()

    def _call(self, call: Callable[[], T]) -> T:
        try:
            return call()
        finally:
            with self._lock:
                self.busy, close, self._close = False, self._close, None
            if close is not None:
                close()
