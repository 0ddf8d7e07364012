"""Bytes that the kernel holds for all who get them: sendfile(2) from a memfd copies nothing.

What goes to many is else copied to each, which is most of what a part of 100 KB costs (measured in
tests/bench/playback). Under TLS it must be encrypted for each, so this is for plain connections:
behind a proxy or a cache that speaks TLS.
"""

import os
import resource
import weakref
from collections.abc import Sequence
from typing import Protocol

KERNEL_BYTES_MIN = 32 * 1024  # Below it the second system call costs what the copy does.
KERNEL_BYTES_MAX = 512 * 1024  # Parts, not segments: it is filled in one go, 0.2 ms for so much.
KERNEL_BYTES_AFTER = 4  # Times sent by then: making one costs about that many copies.
POOL_BYTES_MAX = 64 * 2**20
POOL_FILES_MAX = 1024  # Or an eighth of what the process may open.


class Shared(Protocol):
    """What is sent to many."""

    kernel: object  # Its KernelBytes, while there is one.


class KernelBytes:
    """A memfd with these bytes; it is closed when nobody has this object any more."""

    __slots__ = ("_pool", "chunks", "fd", "size")

    def __init__(self, pool: "KernelPool", chunks: Sequence[bytes]) -> None:
        """Raises OSError: too many files are open, or there is no memory."""
        self.chunks = chunks  # The same, for what the kernel cannot do.
        self._pool, self.size, self.fd = pool, 0, -1
        self.fd = os.memfd_create("edged-body", os.MFD_CLOEXEC)
        pool.files += 1
        for chunk in chunks:
            view = memoryview(chunk)
            while view:
                written = os.write(self.fd, view)
                self.size += written
                pool.bytes += written
                view = view[written:]

    def __del__(self) -> None:
        """Give back the file."""
        if self.fd >= 0:
            os.close(self.fd)
            self._pool.files -= 1
            self._pool.bytes -= self.size


class KernelPool:
    """Bounds what the kernel holds so. What it holds is good for a second, and then let go of.

    When it is full, what comes is sent as else: letting go of one for another would have each
    made again for every request.
    """

    def __init__(self, *, bytes_max: int = POOL_BYTES_MAX, files_max: int = POOL_FILES_MAX) -> None:
        self.bytes = 0
        self.files = 0
        self.failed = 0
        self._bytes_max = bytes_max
        self._files_max = min(files_max, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8)
        self._held: list[weakref.ref[Shared]] = []
        self._open = True  # Until the kernel cannot.

    def hold(self, shared: Shared, chunks: Sequence[bytes]) -> KernelBytes | None:
        """Have the kernel hold what is shared; None if it is full, or cannot."""
        shared.kernel = None
        size = sum(map(len, chunks))
        full = self.bytes + size > self._bytes_max or self.files >= self._files_max
        if full or not self._open:
            return None
        try:
            kernel = KernelBytes(self, chunks)
        except OSError:  # It goes as it always can.
            self.failed += 1
            self._open = False
            return None
        self._held.append(weakref.ref(shared))
        shared.kernel = kernel
        return kernel

    def clear(self) -> None:
        """Let go of all; those who are being sent some have it still."""
        held, self._held = self._held, []
        self._open = True
        for each in held:
            shared = each()
            if shared is not None:
                shared.kernel = None
