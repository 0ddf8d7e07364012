"""Segments on disk: a file each, in a folder that is this process's own and goes with it.

    DIRECTORY/edged-RANDOM/lock               held as long as the process lives
    DIRECTORY/edged-RANDOM/STREAM/NAME.m4s

Nothing here waits on the loop: writes and deletions are done one by one in a thread, reads a few at
a time in others. A disk that fails is left alone for a while; all goes on in memory meanwhile.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog
import trio

from edged.runtime.faults import contained

READERS = 4  # Threads: enough for a disk's queue, and few beside the loop's own.
READS_WAITING_MAX = 256  # Beyond it players hear 503 and ask again.
RETRY_S = 60.0  # A full disk may have room again; until then nothing is written.
REMOVE_S_MAX = 3.0  # At the end: some 100,000 files. What is left goes when the next one starts.
PIECES_MAX = 512  # Of one system call; the kernel takes 1024.
PREFIX = "edged-"
LOCK = "lock"

T = TypeVar("T")
Job = Callable[[], Awaitable[None]]

logger = structlog.get_logger("edged.cache")


class _Lane:
    """Jobs that are done in turn, by as many as `work` on them."""

    def __init__(self) -> None:
        self.waiting: deque[Job] = deque()
        self._more = trio.Event()

    def add(self, job: Job) -> None:
        self.waiting.append(job)
        self._more.set()

    async def work(self) -> None:
        while True:
            while self.waiting:
                with contained(logger, "disk cache job failed"):  # It is others' cache, too.
                    await self.waiting.popleft()()
            if self._more.is_set():  # The others wait for the same.
                self._more = trio.Event()
            await self._more.wait()


class SegmentStore:
    """One process's folder."""

    def __init__(self, directory: Path, *, now: Callable[[], float]) -> None:
        self.directory = directory
        self.failures = 0
        self._now = now
        self._folder: Path | None = None
        self._retry_at = 0.0
        self._failing = False
        self._in_order, self._reads = _Lane(), _Lane()
        self._limiter = trio.CapacityLimiter(READERS + 1)

    @property
    def usable(self) -> bool:
        """Whether it is worth to try."""
        return self._folder is not None and self._now() >= self._retry_at

    async def run(self) -> None:
        """Hold a folder until cancelled; without one try again each RETRY_S."""
        while True:
            try:
                folder, lock = await self._do(partial(_open, self.directory))
                break
            except OSError as error:
                self._failed(error)
            await trio.sleep(RETRY_S)
        self._folder, self._retry_at = folder, 0.0
        try:
            logger.info("disk cache begins", folder=str(folder))
            self._failing = False
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._in_order.work)
                for _ in range(READERS):
                    nursery.start_soon(self._reads.work)
        finally:
            self._folder = None
            with trio.CancelScope(shield=True), trio.move_on_after(REMOVE_S_MAX):
                remove = partial(shutil.rmtree, folder, ignore_errors=True)
                await trio.to_thread.run_sync(remove, abandon_on_cancel=True)
            os.close(lock)

    def write(self, name: str, body: Sequence[bytes], done: Callable[[bool], None]) -> None:
        """Write a file; `done` hears whether that went well."""

        async def write() -> None:
            folder = self._folder
            if folder is None or not self.usable:
                done(False)
                return
            try:
                await self._do(partial(_write, folder / name, body))
            except OSError as error:
                self._failed(error)
                done(False)
                return
            if self._failing:
                self._failing = False
                logger.info("disk cache in use again", folder=str(folder))
            done(True)

        self._in_order.add(write)

    def read(self, name: str, size: int, done: Callable[[bytes | None], None]) -> bool:
        """Read a file of that size, None if it cannot be; False if too many wait already."""
        if len(self._reads.waiting) >= READS_WAITING_MAX:
            return False

        async def read() -> None:
            data = None
            if self._folder is not None:
                try:
                    data = await self._do(partial(_read, self._folder / name, size))
                except OSError as error:
                    logger.warning("segment lost on disk", name=name, why=str(error))
            done(data)

        self._reads.add(read)
        return True

    def delete(self, names: Sequence[str]) -> None:
        """Delete files, or the folders of streams, behind what is being written."""

        async def delete() -> None:
            if self._folder is not None:
                await self._do(partial(_delete, [self._folder / name for name in names]))

        self._in_order.add(delete)

    async def _do(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, limiter=self._limiter, abandon_on_cancel=True)

    def _failed(self, error: OSError) -> None:
        """Leave the disk alone for a while, and say so once."""
        self.failures += 1
        self._retry_at = self._now() + RETRY_S
        if not self._failing:
            self._failing = True
            logger.warning(
                "disk cache out of use; media is kept in memory alone",
                directory=str(self.directory),
                why=str(error),
                tried_again_s=RETRY_S,
            )


def _open(directory: Path) -> tuple[Path, int]:
    """Make a folder and lock it, when those of processes that are gone are removed."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    gate = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(gate, fcntl.LOCK_EX)  # One that has made its folder has yet to lock it.
        for folder in directory.glob(f"{PREFIX}*"):
            if _is_abandoned(folder):
                shutil.rmtree(folder, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=directory))
        lock = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(gate)
    return folder, lock


def _is_abandoned(folder: Path) -> bool:
    """Whether the process that made it is gone."""
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


def _write(path: Path, body: Sequence[bytes]) -> None:
    flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC
    try:
        try:
            file = os.open(path, flags, 0o600)
        except FileNotFoundError:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            file = os.open(path, flags, 0o600)
        try:
            for pieces in _batches(body):
                _write_all(file, pieces)
        finally:
            os.close(file)
    except OSError:
        with contextlib.suppress(OSError):
            path.unlink()
        raise


def _batches(body: Sequence[bytes]) -> Iterator[list[memoryview]]:
    for start in range(0, len(body), PIECES_MAX):
        yield [memoryview(piece) for piece in body[start : start + PIECES_MAX]]


def _write_all(file: int, pieces: list[memoryview]) -> None:
    while pieces:
        written = os.writev(file, pieces)
        while pieces and written >= len(pieces[0]):
            written -= len(pieces.pop(0))
        if pieces:
            pieces[0] = pieces[0][written:]


def _read(path: Path, size: int) -> bytes:
    data = path.read_bytes()
    if len(data) != size:
        raise OSError(f"{path.name} has {len(data)} bytes, should have {size}")
    return data


def _delete(paths: Sequence[Path]) -> None:
    for path in paths:
        if path.suffix:
            with contextlib.suppress(OSError):
                path.unlink()
        else:
            shutil.rmtree(path, ignore_errors=True)
