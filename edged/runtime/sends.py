"""The same bytes to very many sockets, with as little as can be between one send and the next.

What else there is to do for each comes after: it would have the kernel's code and ours push each
other out of the processor's caches (measured by tests/bench/playback: half as long again).
"""

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edged.runtime.connection import Connection

SendEach = Callable[[list[int], bytes], list[int]]


def send_each_in_python(fds: list[int], data: bytes) -> list[int]:
    """Send the same bytes on each socket; how many the kernel took of it, or -errno, for each."""
    took: list[int] = []
    for fd in fds:
        try:
            took.append(os.write(fd, data))
        except OSError as error:
            took.append(-(error.errno or 0))
    return took


send_each: SendEach
try:
    from edged.runtime.fast import send_each
except ImportError:  # No C compiler was there when the package was built, or it is another Python.
    send_each = send_each_in_python


def send_to_all(connections: "Sequence[Connection]", data: bytes) -> None:
    """As `Connection.send` does for each, of thousands who get the same; all are clear."""
    size = len(data)
    sent = send_each([connection.fd for connection in connections], data)
    for connection, took in zip(connections, sent, strict=True):
        if took == size:
            connection.sent_bytes += size
            continue
        try:
            connection.note_sent(took, (data,))
        except Exception as error:  # It ends that one; the others' bytes are sent.
            connection.pump.fail(connection, error)
