"""Bytes that the kernel holds for all who get them: sendfile(2) from a memfd copies nothing.

What goes to many is else copied to each, which is most of what a part of 100 KB costs (measured in
tests/bench/playback). Under TLS it must be encrypted for each, so this is for plain connections:
behind a proxy or a cache that speaks TLS.
"""

import fcntl
import os
import resource
import struct
import termios
from collections.abc import Sequence
from typing import Final

KERNEL_BYTES_MIN: Final = 32 * 1024  # Below it there is little to copy.
# Parts, not segments: it is filled in one go, 0.2 ms for so much.
KERNEL_BYTES_MAX: Final = 512 * 1024
KERNEL_BYTES_AFTER: Final = 4  # Times sent by then: making one costs about that many copies.
POOL_BYTES_MAX: Final = 64 * 2**20
POOL_FILES_MAX: Final = 1024  # Or an eighth of what the process may open.


class _Use:
    """How much of a pool is in use; what is of the pool refers to this, lest neither is let go."""

    __slots__ = ("bytes", "files")

    def __init__(self) -> None:
        self.bytes = 0
        self.files = 0


class KernelBytes:
    """A memfd with these bytes; it is closed when nobody has this object any more."""

    __slots__ = ("_use", "chunks", "fd", "size")
    __deletable__ = ("fd",)  # For mypyc: `__del__` looks whether it was ever set.

    def __init__(self, pool: "KernelPool", chunks: Sequence[bytes]) -> None:
        """Raises OSError: too many files are open, or there is no memory."""
        self.chunks = chunks  # The same, for what the kernel cannot do.
        self._use = use = pool.use
        self.size, self.fd = 0, -1
        self.fd = os.memfd_create("edged-body", os.MFD_CLOEXEC)
        use.files += 1
        for chunk in chunks:
            view = memoryview(chunk)
            while view:
                written = os.write(self.fd, view)
                self.size += written
                use.bytes += written
                view = view[written:]

    def __del__(self) -> None:
        """Give back the file."""
        if self.fd >= 0:
            os.close(self.fd)
            self._use.files -= 1
            self._use.bytes -= self.size


class KernelPool:
    """Has the kernel hold what many are sent, for a second; bounded.

    When it is full, what comes is sent as else: letting go of one for another would have each
    made again for every request.
    """

    def __init__(self, *, bytes_max: int = POOL_BYTES_MAX, files_max: int = POOL_FILES_MAX) -> None:
        self.use = _Use()
        self.failed = 0
        self._bytes_max = bytes_max
        self._files_max = min(files_max, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8)
        self._sent: dict[object, KernelBytes | int] = {}  # How often, until it is held.
        self._noted_bytes = 0  # Of all these.
        self._open = True  # Until the kernel cannot.

    def hold(self, what: object, chunks: Sequence[bytes]) -> KernelBytes | None:
        """What is to be sent, as the kernel holds it; None while few ask for it, or it cannot."""
        sent = self._sent.get(what, 0)
        if not isinstance(sent, int):
            return sent
        if sent >= KERNEL_BYTES_AFTER:
            held = self._make(chunks)
            if held is not None:
                self._sent[what] = held
            return held
        if not sent:
            size = sum(map(len, chunks))
            if self._noted_bytes + size > self._bytes_max or len(self._sent) >= self._files_max:
                return None
            self._noted_bytes += size
        self._sent[what] = sent + 1
        return None

    def find(self, what: object) -> KernelBytes | None:
        """What the kernel holds already."""
        sent = self._sent.get(what)
        return None if isinstance(sent, int) else sent

    def clear(self) -> None:
        """Let go of all, and count anew; those who are being sent some have it still."""
        self._sent.clear()
        self._noted_bytes = 0
        self._open = True

    def _make(self, chunks: Sequence[bytes]) -> KernelBytes | None:
        size = sum(map(len, chunks))
        if self.bytes + size > self._bytes_max or self.files >= self._files_max or not self._open:
            return None  # Those who are slow have what was let go of.
        try:
            return KernelBytes(self, chunks)
        except OSError:  # It goes as it always can.
            self.failed += 1
            self._open = False
            return None

    @property
    def bytes(self) -> int:
        """What the kernel holds of it."""
        return self.use.bytes

    @property
    def files(self) -> int:
        """In so many files."""
        return self.use.files


def unacknowledged_bytes(fd: int) -> int:
    """What was sent on a socket and the peer's side has not acknowledged; 0 once it is gone."""
    try:
        (count,) = struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)))
    except (OSError, ValueError):  # Closed, it has no descriptor.
        return 0
    return int(count)
