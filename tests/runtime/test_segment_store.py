"""The store against a real file system: files, failures, leftovers, and that nothing waits."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.lowlevel
from structlog.testing import capture_logs

from edged.runtime import segment_store as module
from edged.runtime.segment_store import PIECES_MAX, PREFIX, READERS, REMOVE_S_MAX, SegmentStore

DEADLINE_S = 10.0


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[SegmentStore]:
    """A store on the real clock, as its threads are."""
    store = SegmentStore(directory, now=trio.current_time)
    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            await until(lambda: store.usable)
            yield store
            nursery.cancel_scope.cancel()


async def until(reached: Callable[[], bool]) -> None:
    while not reached():  # noqa: ASYNC110 - threads have no events
        await trio.sleep(0.002)


async def write(store: SegmentStore, name: str, body: Sequence[bytes]) -> bool:
    told: list[bool] = []
    store.write(name, body, told.append)
    await until(lambda: bool(told))
    return told[0]


async def read(store: SegmentStore, name: str, size: int) -> bytes | None:
    told: list[bytes | None] = []
    assert store.read(name, size, told.append)
    await until(lambda: bool(told))
    return told[0]


async def give_nothing(pipe: Path, *, until: Callable[[], bool]) -> None:
    """Let all who wait for one that writes to a pipe go on, and find nothing there."""
    while not until():
        with contextlib.suppress(FileNotFoundError):  # Lost, and deleted.
            os.close(os.open(pipe, os.O_RDWR))
        await trio.sleep(0.01)  # Open all the time, it has readers that sleep on.


def folders(directory: Path) -> list[Path]:
    return sorted(directory.glob(f"{PREFIX}*"))


async def test_what_was_written_is_read_until_it_is_deleted(tmp_path: Path) -> None:
    directory = tmp_path / "cache" / "edged"
    async with running(directory) as store:
        body = [b"moof", bytes(100_000), b"", b"mdat"]
        assert await write(store, "1/v0-7.m4s", body)
        assert await write(store, "1/v0-8.m4s", [b"x"] * (2 * PIECES_MAX + 1))
        assert await read(store, "1/v0-7.m4s", 100_008) == b"".join(body)
        assert await read(store, "1/v0-8.m4s", 2 * PIECES_MAX + 1) == b"x" * (2 * PIECES_MAX + 1)
        (folder,) = folders(directory)
        assert (folder / "1" / "v0-7.m4s").stat().st_mode & 0o777 == 0o600
        assert folder.stat().st_mode & 0o777 == 0o700, "streams may be for subscribers alone"
        store.delete(["1/v0-7.m4s", "1/v0-9.m4s"])
        await until(lambda: not (folder / "1" / "v0-7.m4s").exists())
        store.delete(["1", "2"])
        await until(lambda: not (folder / "1").exists())
    assert folders(directory) == [], "it goes with its process"


async def test_what_the_dead_have_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    """Killed with SIGKILL; one that lives, and what is not ours, stay."""
    code = (
        "import sys, trio, pathlib\n"
        "from edged.runtime.segment_store import SegmentStore\n"
        "store = SegmentStore(pathlib.Path(sys.argv[1]), now=trio.current_time)\n"
        "async def tell():\n"
        "    while not store.usable: await trio.sleep(0.01)\n"
        "    tell = lambda written: print(written, file=sys.stderr)\n"
        "    store.write('1/v0-1.m4s', [b'left'], tell)\n"
        "async def main():\n"
        "    async with trio.open_nursery() as nursery:\n"
        "        nursery.start_soon(store.run)\n"
        "        nursery.start_soon(tell)\n"
        "trio.run(main)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(  # noqa: ASYNC220, S603 - short, and ours
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"True\n"
        (left,) = folders(tmp_path)
        async with running(tmp_path):
            assert len(folders(tmp_path)) == 2, "it lives"
        assert folders(tmp_path) == [left]
        os.kill(process.pid, signal.SIGKILL)
    (tmp_path / "mine.txt").write_text("stays")
    (tmp_path / f"{PREFIX}unlocked").mkdir()  # Killed before it had its lock.
    async with running(tmp_path) as store:
        assert left not in folders(tmp_path)
        assert len(folders(tmp_path)) == 1
        async with running(tmp_path) as sibling:  # As a shard, or another PoP of a demo.
            assert await write(sibling, "1/a", [b"a"])
            assert await read(store, "1/a", 1) is None
    assert (tmp_path / "mine.txt").read_text() == "stays"


async def test_a_full_disk_is_left_alone_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOSPC by /dev/full: said once, nothing tried meanwhile, and then it is in use again."""
    monkeypatch.setattr(module, "RETRY_S", 0.2)
    with capture_logs() as logs:
        async with running(tmp_path) as store:
            assert await write(store, "1/v0-1.m4s", [b"good"])
            (folder,) = folders(tmp_path)
            full = folder / "1" / "v0-2.m4s"
            full.symlink_to("/dev/full")
            assert not await write(store, "1/v0-2.m4s", [b"no room"])
            assert not full.is_symlink(), "what was begun is removed"
            assert not store.usable
            assert not await write(store, "1/v0-3.m4s", [b"not tried"])
            assert not (folder / "1" / "v0-3.m4s").exists()
            assert await read(store, "1/v0-1.m4s", 4) == b"good"
            await until(lambda: store.usable)
            full.symlink_to("/dev/full")
            assert not await write(store, "1/v0-2.m4s", [b"no room yet"])
            await until(lambda: store.usable)
            assert await write(store, "1/v0-3.m4s", [b"room"])
            assert store.failures == 2
    told = [log["event"] for log in logs]
    assert told == [
        "disk cache begins",
        "disk cache out of use; media is kept in memory alone",
        "disk cache in use again",
    ]
    assert "No space left" in logs[1]["why"]


async def test_without_a_folder_it_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.05)
    directory = tmp_path / "taken"
    directory.write_text("a file")
    store = SegmentStore(directory, now=trio.current_time)
    with capture_logs() as logs, trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            await until(lambda: store.failures > 2)
            assert not store.usable
            directory.unlink()
            await until(lambda: store.usable)
            nursery.cancel_scope.cancel()
    assert [log["event"] for log in logs] == [
        "disk cache out of use; media is kept in memory alone",
        "disk cache begins",
    ]
    assert logs[0]["directory"] == str(directory)


async def test_what_is_damaged_or_gone_is_none(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        assert await write(store, "1/v0-1.m4s", [b"whole"])
        (folder,) = folders(tmp_path)
        os.truncate(folder / "1" / "v0-1.m4s", 3)
        with capture_logs() as logs:
            assert await read(store, "1/v0-1.m4s", 5) is None
            assert await read(store, "1/v0-2.m4s", 5) is None
    assert [log["event"] for log in logs] == ["segment lost on disk"] * 2
    assert "has 3 bytes, should have 5" in logs[0]["why"]


async def test_a_disk_that_stands_still_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe that nobody writes to is a file that is never read: the loop goes on."""
    monkeypatch.setattr(module, "READS_WAITING_MAX", 3)
    async with running(tmp_path) as store:
        assert await write(store, "1/v0-1.m4s", [b"good"])
        (folder,) = folders(tmp_path)
        pipe = folder / "1" / "v0-2.m4s"
        os.mkfifo(pipe)
        told: list[bytes | None] = []
        for _ in range(READERS):
            assert store.read("1/v0-2.m4s", 4, told.append)
            await trio.sleep(0.02)
        longest_s, before = 0.0, time.perf_counter()
        for _ in range(100):
            await trio.lowlevel.checkpoint()
            now = time.perf_counter()
            longest_s, before = max(longest_s, now - before), now
        assert longest_s < 0.2
        assert await write(store, "1/v0-3.m4s", [b"written all the same"])
        assert [store.read("1/v0-1.m4s", 4, told.append) for _ in range(4)] == [True] * 3 + [False]
        assert told == []
        await give_nothing(pipe, until=lambda: len(told) == READERS + 3)
        assert told.count(b"good") == 3


async def test_a_stop_does_not_wait_for_a_disk_that_stands_still(tmp_path: Path) -> None:
    told: list[object] = []
    began = time.perf_counter()
    async with running(tmp_path) as store:
        (folder,) = folders(tmp_path)
        read, written = folder / "v0-1.m4s", folder / "v0-2.m4s"
        kept = []
        for pipe in (read, written):
            os.mkfifo(pipe)
            kept.append(os.open(pipe, os.O_PATH))  # Their names go with the folder.
        for _ in range(READERS):
            assert store.read(read.name, 4, told.append)
        store.write(written.name, [b"one"], told.append)
        await trio.sleep(0.1)
    took_s = time.perf_counter() - began
    for pipe_fd in kept:  # The threads that were left go on.
        os.close(os.open(f"/proc/self/fd/{pipe_fd}", os.O_RDWR))
        os.close(pipe_fd)
    assert told == []
    assert took_s < REMOVE_S_MAX
