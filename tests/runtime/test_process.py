"""Garbage collection is tuned once, and collects cycles still."""

import gc
import platform
import weakref
from collections.abc import Iterator

import pytest

from edged.runtime.process import THRESHOLDS, hold_heap, settle_memory


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
