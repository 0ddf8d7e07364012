"""A timer that is a file descriptor (timerfd_create(2)), for who waits for a descriptor anyway.

A deadline of Trio's costs a cancel scope and an exception through every frame below it, each time:
at hundreds of ticks a second that is more than what is done in them (tests/bench/playback).
"""

import contextlib
import ctypes
import os
import time
from collections.abc import Callable

TFD_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC  # TFD_NONBLOCK and TFD_CLOEXEC are defined as these.

set_timer: Callable[[int, float], None] | None = None
with contextlib.suppress(ImportError):  # No C compiler was there when the package was built.
    from edged.runtime.fast import set_timer

# From Python 3.13 on, os.timerfd_create does it.
_libc = ctypes.CDLL(None, use_errno=True)


class TimerFd:
    """Readable from its time on, until it is set anew."""

    def __init__(self) -> None:
        """Raises OSError: too many files are open."""
        self.fd: int = -1
        self.fd = _libc.timerfd_create(time.CLOCK_MONOTONIC, TFD_FLAGS)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._spec = (ctypes.c_long * 4)()  # struct itimerspec: no interval, then s and ns.

    def set(self, after_s: float) -> None:
        """Have it readable in so many seconds, at once if that is not positive; not before."""
        if set_timer is not None:
            set_timer(self.fd, after_s)
            return
        self._spec[2], self._spec[3] = divmod(max(int(after_s * 1e9), 1), 1_000_000_000)
        if _libc.timerfd_settime(self.fd, 0, self._spec, None):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def close(self) -> None:
        """Give the descriptor back; as does whoever lets go of this."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = close
