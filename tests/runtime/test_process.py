"""Garbage collection is tuned once, and collects cycles still; what the process takes is read."""

import gc
import os
import platform
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.runtime import process
from edged.runtime.process import THRESHOLDS, hold_heap, read_usage, settle_memory


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


class Node:
    def __init__(self) -> None:
        self.itself = self


def test_thresholds_are_set_and_what_lives_is_frozen() -> None:
    settle_memory()
    assert gc.get_threshold() == THRESHOLDS
    assert gc.get_freeze_count() > 0


def test_later_cycles_are_collected() -> None:
    settle_memory()
    seen = weakref.ref(Node())
    gc.collect()
    assert seen() is None


def test_glibc_takes_the_thresholds() -> None:
    assert hold_heap() == (platform.libc_ver()[0] == "glibc")


def test_what_the_process_takes() -> None:
    before = read_usage()
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
    data = os.urandom(128 * 2**20)  # More than an allocator keeps for us.
    while read_usage().cpu_s <= before.cpu_s:
        sum(data[: 2**16])
    after = read_usage()
    for fd in held:
        os.close(fd)
    assert after.fds == before.fds + 3 <= after.fds_max
    assert after.rss_bytes - before.rss_bytes > 64 * 2**20
    assert after.cpu_s > before.cpu_s


def test_what_the_system_does_not_tell_is_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PROC", Path("/nowhere"))
    usage = read_usage()
    assert (usage.rss_bytes, usage.fds) == (0, 0)
