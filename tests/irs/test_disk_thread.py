"""Calls to a disk: one at a time, not waited for once cancelled, and let go of behind the last."""

import threading

import pytest
import trio

from edged.irs.disk_thread import DiskThread, call_within
from tests.backbone.network import until


def test_before_there_is_a_loop_a_call_is_waited_for_so_long() -> None:
    dropped: list[object] = []
    in_main = threading.main_thread()
    assert call_within(lambda: threading.current_thread() is in_main, 5, dropped.append) is False
    with pytest.raises(ZeroDivisionError):
        call_within(lambda: 1 // 0, 5, dropped.append)
    assert dropped == []


def test_what_comes_too_late_is_dropped_where_it_comes() -> None:
    """Once nobody refers to it is too late: a file would stay locked meanwhile."""
    going_on, gone = threading.Event(), threading.Event()

    def slow() -> str:
        going_on.wait(10)
        return "late"

    def drop(what: str) -> None:
        assert (what, threading.current_thread() is threading.main_thread()) == ("late", False)
        gone.set()

    with pytest.raises(TimeoutError):
        call_within(slow, 0.05, drop)
    assert not gone.is_set()
    going_on.set()
    assert gone.wait(5)


async def test_a_call_gives_its_result_or_raises() -> None:
    thread = DiskThread()
    assert await thread.run(lambda: threading.current_thread() is threading.main_thread()) is False
    with pytest.raises(ZeroDivisionError):
        await thread.run(lambda: 1 // 0)
    assert not thread.busy
    await thread.idle()


async def test_who_is_cancelled_does_not_wait_and_the_call_goes_on() -> None:
    thread, going_on, done = DiskThread(), threading.Event(), list[str]()

    def slow() -> None:
        going_on.wait(10)
        done.append("written")

    with trio.move_on_after(0.05) as scope:
        await thread.run(slow)
    assert scope.cancelled_caught
    assert thread.busy
    thread.close(lambda: done.append("closed"))
    assert done == []
    going_on.set()
    await thread.idle()
    await until(lambda: done == ["written", "closed"])
    assert not thread.busy


async def test_what_was_cancelled_before_does_not_begin() -> None:
    thread, done = DiskThread(), list[str]()
    with trio.CancelScope() as scope:
        scope.cancel()
        await thread.run(lambda: done.append("written"))
    assert not thread.busy
    assert done == []
    thread.close(lambda: done.append("closed"))
    assert done == ["closed"], "at once, as nothing is under way"
