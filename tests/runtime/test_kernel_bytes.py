"""Bytes that the kernel holds: the same ones, bounded, given back when nobody has them any more."""

import errno
import gc
import os
import resource
from pathlib import Path

import pytest

from edged.runtime.kernel_bytes import KernelBytes, KernelPool

MIB = 2**20
FILES = Path("/proc/self/fd")


class Shared:
    """As a response, of which many are sent."""

    def __init__(self) -> None:
        self.kernel: object = None


def held(shared: Shared) -> KernelBytes:
    assert isinstance(shared.kernel, KernelBytes)
    return shared.kernel


def test_the_kernel_has_the_same_bytes() -> None:
    pool, shared = KernelPool(), Shared()
    chunks = (b"head ", b"", bytes(range(256)) * 5000)
    assert pool.hold(shared, chunks) is shared.kernel
    kernel = held(shared)
    assert kernel.size == pool.bytes == sum(map(len, chunks))
    assert os.pread(kernel.fd, kernel.size + 1, 0) == b"".join(kernel.chunks) == b"".join(chunks)


def test_what_nobody_has_any_more_is_given_back() -> None:
    pool, shared = KernelPool(), Shared()
    pool.hold(shared, [bytes(MIB)])
    sending, fd = shared.kernel, held(shared).fd
    del shared
    assert (pool.files, pool.bytes) == (1, MIB), "it is being sent"
    os.fstat(fd)
    del sending
    assert (pool.files, pool.bytes) == (0, 0)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_holding_what_is_held_already_replaces_it() -> None:
    pool, shared = KernelPool(), Shared()
    for size in (1000, 2000, 3000):
        pool.hold(shared, [bytes(size)])
    assert (pool.files, pool.bytes) == (1, 3000)


@pytest.mark.parametrize(
    "pool", [KernelPool(bytes_max=10 * MIB), KernelPool(files_max=10)], ids=["bytes", "files"]
)
def test_when_it_is_full_no_more_is_held_until_it_is_cleared(pool: KernelPool) -> None:
    shared = [Shared() for _ in range(15)]
    for _ in range(2):
        for each in shared:
            pool.hold(each, [bytes(MIB)])
        assert [each.kernel is not None for each in shared] == [True] * 10 + [False] * 5
        assert (pool.bytes, pool.files) == (10 * MIB, 10)
        sending = held(shared[0])
        pool.clear()
        assert not any(each.kernel for each in shared)
        assert (pool.bytes, pool.files) == (MIB, 1), "it is being sent"
        del sending
        assert (pool.bytes, pool.files) == (0, 0)


def test_it_takes_no_more_than_its_share_of_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        pool = KernelPool()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    shared = [Shared() for _ in range(100)]
    for each in shared:
        pool.hold(each, [b"x"])
    assert pool.files == 256 // 8


def test_what_is_larger_than_all_of_it_is_not_held() -> None:
    pool, small, large = KernelPool(bytes_max=MIB), Shared(), Shared()
    pool.hold(small, [b"small"])
    assert pool.hold(large, [bytes(MIB), b"1"]) is None
    assert small.kernel is not None
    assert large.kernel is None


def test_a_kernel_that_cannot_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(name: str, flags: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    pool, shared = KernelPool(), Shared()
    monkeypatch.setattr(os, "memfd_create", no_more)
    assert pool.hold(shared, [b"x"]) is None
    assert pool.hold(Shared(), [b"x"]) is None
    assert (pool.failed, pool.files, pool.bytes) == (1, 0, 0), "it is not tried for each"


def test_a_file_that_cannot_be_filled_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    pool, shared = KernelPool(), Shared()
    monkeypatch.setattr(os, "write", full)
    before = len(list(FILES.iterdir()))
    assert pool.hold(shared, [b"x"]) is None
    gc.collect()  # The error's traceback had it.
    assert (pool.failed, pool.files, pool.bytes) == (1, 0, 0)
    assert len(list(FILES.iterdir())) == before
