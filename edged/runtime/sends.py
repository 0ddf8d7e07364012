"""The same bytes to very many sockets, with as little as can be between one send and the next.

What else there is to do for each comes after: it would have the kernel's code and ours push each
other out of the processor's caches (measured by tests/bench/playback: half as long again).
"""

import os
from collections.abc import Callable

try:
    from edged.runtime import fast
except ImportError:  # No C compiler was there when the package was built, or it is another Python.
    fast = None  # type: ignore[assignment]

SendEach = Callable[[list[int], bytes], list[int]]
TeeTo = Callable[[int, int, int, int, int, int], int]


def send_each_in_python(fds: list[int], data: bytes) -> list[int]:
    """Send the same bytes on each socket; how many the kernel took of it, or -errno, for each."""
    took: list[int] = []
    for fd in fds:
        try:
            took.append(os.write(fd, data))
        except OSError as error:
            took.append(-(error.errno or 0))
    return took


send_each: SendEach = send_each_in_python if fast is None else fast.send_each
tee_to: TeeTo | None = None if fast is None else fast.tee_to  # See `kernel_bytes`.
