"""What a process is said to take is what it takes."""

import os
import resource
import time
from pathlib import Path

import pytest
import trio

from edged.runtime.metrics import Metrics
from edged.runtime.process import read_usage
from edged.runtime.process_metrics import SPECS, ProcessMetrics


def values(proc: Path = Path("/proc/self"), cgroups: Path = Path("/nowhere")) -> dict[str, float]:
    return {sample.name: sample.value for sample in ProcessMetrics(proc, cgroups).read()}


def test_all_of_them_are_told_and_rendered() -> None:
    assert values().keys() == {spec.name for spec in SPECS}
    metrics = Metrics()
    metrics.register(SPECS, ProcessMetrics().read)
    text = metrics.render().decode()
    for spec in SPECS:
        assert f"\n{spec.name} " in text
    assert "# TYPE edged_process_cpu_seconds_total counter" in text


def test_cpu_grows_with_work() -> None:
    before = values()["edged_process_cpu_seconds_total"]
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    assert values()["edged_process_cpu_seconds_total"] - before > 0.03  # In ticks of 10 ms.


async def test_tasks_are_those_of_the_loop() -> None:
    before = values()["edged_process_tasks"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        assert values()["edged_process_tasks"] == before + 1
        nursery.cancel_scope.cancel()


def test_descriptors_are_counted() -> None:
    before = values()["edged_process_fds"]
    pipe = os.pipe()
    assert values()["edged_process_fds"] == before + 2
    for fd in pipe:
        os.close(fd)
    assert values()["edged_process_fds_max"] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_a_process_without_a_descriptor_left_says_so() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = os.dup(0)
    os.close(highest)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
        assert values()["edged_process_fds"] == values()["edged_process_fds_max"] == highest
        assert read_usage().fds == read_usage().fds_max == highest
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_memory_is_what_the_kernel_counts() -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert 2**20 < values()["edged_process_resident_bytes"] <= 1.1 * peak
    assert abs(values()["edged_process_start_seconds"] - time.time()) < 5


def test_older_kernels_list_the_descriptors(tmp_path: Path) -> None:
    """There the folder's size is 0; here that of a folder on disk, if it is not."""
    (tmp_path / "statm").write_text("100 25 5 1 0 60 0\n")
    (tmp_path / "fd").mkdir()
    for number in range(7):
        (tmp_path / "fd" / str(number)).touch()
    metrics = ProcessMetrics(tmp_path, tmp_path)
    told = {sample.name: sample.value for sample in metrics.read()}
    assert told["edged_process_resident_bytes"] == 25 * resource.getpagesize()
    assert told["edged_process_fds"] == ((tmp_path / "fd").stat().st_size or 7)


@pytest.mark.parametrize("text", [None, "", "nonsense\n"])
def test_without_proc_the_rest_is_told(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "statm").write_text(text)
    told = values(tmp_path)
    assert "edged_process_resident_bytes" not in told
    assert told["edged_process_cpu_seconds_total"] > 0


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, None),
        ({"a/b": "max"}, None),
        ({"a/b": "1048576"}, 1048576),
        ({"a/b": "max", "a": "4096"}, 4096),
        ({"a/b": "8192", "a": "4096", ".": "2048"}, 2048),
        ({"a/b": str(2**60)}, None),  # More than the host has.
    ],
)
def test_the_least_limit_above_it_counts(
    tmp_path: Path, limits: dict[str, str], expected: int | None
) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cgroup").write_text("0::/a/b\n")
    groups = tmp_path / "groups"
    (groups / "a" / "b").mkdir(parents=True)
    (tmp_path / "memory.max").write_text("1")  # Not a cgroup's: it is outside.
    for place, limit in limits.items():
        (groups / place / "memory.max").write_text(f"{limit}\n")
    host = os.sysconf("SC_PHYS_PAGES") * resource.getpagesize()
    told = values(tmp_path / "proc", groups)["edged_process_memory_max_bytes"]
    assert told == (host if expected is None else expected)
