"""What the kernel holds of a TCP connection's bytes and has not sent yet (Linux, `SIOCOUTQNSD`)."""

import fcntl
import socket
import struct

SIOCOUTQNSD = 0x894B  # include/uapi/linux/sockios.h; no module of Python's names it.


def unsent_bytes(sock: socket.socket) -> int:
    """How much that is, without what is in flight; 0 where the kernel does not say."""
    try:
        (count,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), SIOCOUTQNSD, bytes(4)))
    except (OSError, ValueError):  # Closed, it has no descriptor.
        return 0
    return int(count)
