"""How this process uses its memory: rare collections, and a heap that stays small; and how much.

Access units, messages and buffers cannot form cycles and are not tracked; what is left is sessions
and tasks. Without this a full collection would visit every session of a busy PoP many times a
minute, and each visit holds all publishers up.

Rings take and free payloads of all sizes for ever. By default glibc stops mapping the large ones by
themselves as soon as one has been freed; then they tear holes into the heap (measured: 125 KB per
stream of 6 Mbps beyond its payload, 94 KB with the threshold held).
"""

import ctypes
import errno
import gc
import os
import resource
from pathlib import Path

from msgspec import Struct

# Net allocations of tracked objects before each generation is collected.
THRESHOLDS = (50_000, 20, 100)


# mallopt(3): parameter -> value. Setting one ends glibc's own adjustment of both.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
HEAP = {M_MMAP_THRESHOLD: 64 * 1024, M_TRIM_THRESHOLD: 4 * 2**20}


PROC = Path("/proc/self")  # Linux; elsewhere what stands there is told as 0.


class ProcessUsage(Struct, frozen=True, kw_only=True):
    """What this process takes of its host now."""

    cpu_s: float  # Of all its threads, since the start.
    rss_bytes: int
    fds: int
    fds_max: int  # RLIMIT_NOFILE: no connection beyond it.


def read_usage(fds: int | None = None) -> ProcessUsage:
    """Read it: about 0.1 ms, and 0.5 ms per thousand open descriptors unless `fds` is given."""
    times = os.times()
    fds_max = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    try:
        pages = int((PROC / "statm").read_text().split()[1])
        if fds is None:
            fds = len(os.listdir(PROC / "fd"))  # noqa: PTH208 - entries are counted, not made paths
    except (OSError, ValueError, IndexError) as error:
        none_left = isinstance(error, OSError) and error.errno == errno.EMFILE
        pages, fds = 0, fds_max if none_left else fds or 0
    return ProcessUsage(
        cpu_s=times.user + times.system,
        rss_bytes=pages * resource.getpagesize(),
        fds=fds,
        fds_max=fds_max,
    )


def hold_heap() -> bool:
    """Fix malloc's thresholds; False where the C library has no mallopt (musl)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(name, value) for name, value in HEAP.items())


def settle_memory() -> None:
    """Call once when the process has started: what lives now, lives as long as the process."""
    hold_heap()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
