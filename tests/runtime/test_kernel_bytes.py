"""Bytes that the kernel holds: the same ones, bounded, given back when nobody has them any more."""

import errno
import gc
import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from edged.runtime.kernel_bytes import (
    KERNEL_BYTES_AFTER,
    KernelBytes,
    KernelPool,
    unacknowledged_bytes,
)

MIB = 2**20
FILES = Path("/proc/self/fd")


def ask(pool: KernelPool, what: object, *chunks: bytes) -> KernelBytes | None:
    """As those ask who come once it has been sent often enough."""
    for _ in range(KERNEL_BYTES_AFTER):
        assert pool.hold(what, chunks) is None
    return pool.hold(what, chunks)


def test_the_kernel_has_the_same_bytes() -> None:
    pool = KernelPool()
    chunks = (b"head ", b"", bytes(range(256)) * 5000)
    held = ask(pool, "part", *chunks)
    assert held is not None
    assert held is pool.hold("part", chunks), "it is made once"
    assert held.size == pool.bytes == sum(map(len, chunks))
    assert os.pread(held.fd, held.size + 1, 0) == b"".join(held.chunks) == b"".join(chunks)
    assert pool.files == 1


def test_what_nobody_has_any_more_is_given_back() -> None:
    pool = KernelPool()
    sending = ask(pool, "part", bytes(MIB))
    assert sending is not None
    fd = sending.fd
    pool.clear()
    assert (pool.files, pool.bytes) == (1, MIB), "it is being sent"
    os.fstat(fd)
    del sending
    assert (pool.files, pool.bytes) == (0, 0)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@pytest.mark.parametrize(
    "pool", [KernelPool(bytes_max=10 * MIB), KernelPool(files_max=10)], ids=["bytes", "files"]
)
def test_when_it_is_full_no_more_is_held_until_it_is_cleared(pool: KernelPool) -> None:
    for _ in range(2):
        for _ in range(KERNEL_BYTES_AFTER + 3):
            held = [pool.hold(number, [bytes(MIB)]) for number in range(15)]
        assert [each is not None for each in held] == [True] * 10 + [False] * 5
        assert (pool.bytes, pool.files) == (10 * MIB, 10)
        held.clear()
        pool.clear()
        assert (pool.bytes, pool.files) == (0, 0)


def test_what_is_still_being_sent_counts() -> None:
    pool = KernelPool(bytes_max=10 * MIB)
    slow = [ask(pool, number, bytes(MIB)) for number in range(9)]
    pool.clear()
    assert ask(pool, "new", bytes(MIB)) is not None
    assert ask(pool, "newer", bytes(MIB)) is None
    del slow
    assert pool.hold("newer", [bytes(MIB)]) is not None


def test_it_takes_no_more_than_its_share_of_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        pool = KernelPool()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for _ in range(KERNEL_BYTES_AFTER + 1):
        for number in range(100):
            pool.hold(number, [b"x"])
    assert pool.files == 256 // 8


@pytest.mark.parametrize(("size", "fits"), [(MIB, True), (MIB + 1, False)])
def test_what_is_larger_than_all_of_it_is_not_held(size: int, fits: bool) -> None:
    assert (ask(KernelPool(bytes_max=MIB), "part", bytes(size)) is not None) is fits


def test_a_kernel_that_cannot_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(name: str, flags: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    pool = KernelPool()
    with monkeypatch.context() as patch:
        patch.setattr(os, "memfd_create", no_more)
        assert ask(pool, "one", b"x") is None
        assert ask(pool, "other", b"x") is None
    assert (pool.failed, pool.files, pool.bytes) == (1, 0, 0), "it is not tried for each"
    pool.clear()
    assert ask(pool, "one", b"x") is not None


def test_a_file_that_cannot_be_filled_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    pool = KernelPool()
    monkeypatch.setattr(os, "write", full)
    gc.collect()  # Of other tests.
    before = len(list(FILES.iterdir()))
    assert ask(pool, "part", b"x") is None
    gc.collect()  # The error's traceback had it.
    assert (pool.failed, pool.files, pool.bytes) == (1, 0, 0)
    assert len(list(FILES.iterdir())) == before


def test_what_was_never_made_is_let_go_of_without_harm() -> None:
    """Compiled, it would be read as if it were there: in a process of its own, which may crash."""
    make = "from edged.runtime.kernel_bytes import *\ntry: KernelBytes(KernelPool())\n"
    make += "except TypeError: print(1)"
    done = subprocess.run(  # noqa: S603 - our own
        [sys.executable, "-c", make], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_a_socket_that_is_closed_has_nothing_unacknowledged() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        fd = ours.fileno()
    assert unacknowledged_bytes(fd) == unacknowledged_bytes(-1) == 0
