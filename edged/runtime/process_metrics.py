"""What this process takes of its host, as metrics: CPU, memory, descriptors (proc(5), cgroups(7)).

Read from /proc/self when it is scraped; where there is none, the metrics are left out.
"""

import errno
import os
import resource
import time
from collections.abc import Iterable
from pathlib import Path

import trio

from edged.runtime.metrics import MetricSpec, Sample

PROC = Path("/proc/self")
CGROUPS = Path("/sys/fs/cgroup")
CGROUP_LEVELS_MAX = 16  # A limit may be set on any of them.

SPECS = (
    MetricSpec(name="edged_process_cpu_seconds_total", help="CPU time of all its threads."),
    MetricSpec(name="edged_process_resident_bytes", help="Memory that it has in RAM."),
    MetricSpec(
        name="edged_process_memory_max_bytes",
        help="Memory that it may have: its cgroup's limit, or the host's memory.",
    ),
    MetricSpec(name="edged_process_fds", help="Open descriptors; a connection is one."),
    MetricSpec(name="edged_process_fds_max", help="Descriptors that it may have open."),
    MetricSpec(name="edged_process_tasks", help="Tasks of its loop, waiting ones included."),
    MetricSpec(name="edged_process_start_seconds", help="When it started, in Unix seconds."),
)


class ProcessMetrics:
    """Of this process; made when it starts."""

    def __init__(self, proc: Path = PROC, cgroups: Path = CGROUPS) -> None:
        self._proc, self._cgroups = proc, cgroups
        self._started_at = time.time()

    def read(self) -> Iterable[Sample]:
        """The values of now, of the process in whose loop it is read."""
        times = os.times()
        yield Sample("edged_process_cpu_seconds_total", times.user + times.system)
        yield Sample("edged_process_start_seconds", self._started_at)
        yield Sample("edged_process_memory_max_bytes", self._memory_max_bytes())
        fds_max = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        yield Sample("edged_process_fds_max", fds_max)
        yield Sample("edged_process_tasks", _count_tasks())
        try:
            pages = int((self._proc / "statm").read_text().split()[1])
            yield Sample("edged_process_resident_bytes", pages * resource.getpagesize())
            yield Sample("edged_process_fds", self._count_fds())
        except (OSError, ValueError, IndexError) as error:
            if isinstance(error, OSError) and error.errno == errno.EMFILE:
                yield Sample("edged_process_fds", fds_max)  # None is left to look with.

    def _count_fds(self) -> int:
        # Linux 6.2 and later tell the count as the folder's size; listing takes 0.5 ms a thousand.
        folder = self._proc / "fd"
        return folder.stat().st_size or len(os.listdir(folder))  # noqa: PTH208 - entries are counted, not made paths

    def _memory_max_bytes(self) -> int:
        """The least of the limits that are set above us."""
        host = os.sysconf("SC_PHYS_PAGES") * resource.getpagesize()
        try:
            line = (self._proc / "cgroup").read_text().splitlines()[-1]
        except (OSError, IndexError):
            return host
        place = self._cgroups / line.rpartition(":")[2].lstrip("/")
        limits = [host]
        for folder in (place, *place.parents)[:CGROUP_LEVELS_MAX]:
            if not folder.is_relative_to(self._cgroups):
                break
            try:
                limits.append(int((folder / "memory.max").read_text()))
            except (OSError, ValueError):  # None there, or "max".
                continue
        return min(limits)


def _count_tasks() -> int:
    """Of the loop that we are in; none where there is no loop."""
    try:
        return trio.lowlevel.current_statistics().tasks_living
    except RuntimeError:
        return 0
