"""UDP sockets that are read once per tick: the kernel says when each datagram had come.

So nobody wakes up for a datagram, and the time that it waited for us is known. An answer leaves
from the address that was asked, on a host with several too.
"""

import errno
import socket
import struct
import time

from msgspec import Struct

from edged.errors import ConfigError
from edged.runtime.listeners import peer_name

DATAGRAM_BYTES_MAX = 2048  # Longer ones are cut, and are none of ours.
WAITED_S_MAX = 60.0  # Longer says that the clock was set.
SO_TIMESTAMPNS = 35  # asm-generic/socket.h; the time comes as two longs: seconds, nanoseconds.
IP_PKTINFO = 8  # linux/in.h
IPV6_RECVPKTINFO, IPV6_PKTINFO = 49, 50  # linux/in6.h
_TIMESPEC = struct.Struct("@ll")
_PKTINFO_V4 = struct.Struct("@i4s4s")  # Interface, our address, the one in the header.
_PKTINFO_V6 = struct.Struct("@16sI")  # Our address, interface.
_ANCILLARY_BYTES = 256

Ancillary = tuple[int, int, bytes]


class Datagram(Struct, frozen=True):
    """What came."""

    data: bytes
    waited_s: float  # In the kernel, for us.
    source: tuple[str, int] | tuple[str, int, int, int]
    asked: tuple[Ancillary, ...]  # For `answer`: which of our addresses it was sent to.


def bind_datagrams(host: str, port: int) -> socket.socket:
    """A socket that answers on this address ("::": of both families); raises ConfigError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = None
    try:
        sock = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        _prepare(sock)
        sock.bind((host, port))
    except OSError as error:
        if sock is not None:
            sock.close()
        if host == "::" and error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            return bind_datagrams("0.0.0.0", port)  # noqa: S104 - a host without IPv6
        where = peer_name((host, port))
        raise ConfigError(f"cannot bind UDP {where}: {error.strerror or error}") from error
    return sock


def connect_datagrams(address: tuple[str, int] | tuple[str, int, int, int]) -> socket.socket:
    """A socket that talks with one address alone; raises OSError."""
    sock = socket.socket(
        socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_DGRAM
    )
    try:
        _prepare(sock)
        sock.connect(address)
    except OSError:
        sock.close()
        raise
    return sock


def mark_datagrams(sock: socket.socket, dscp: int) -> None:
    """Set the DSCP, of IPv4 in an IPv6 socket too; raises OSError."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, dscp << 2)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, dscp << 2)


def receive(sock: socket.socket) -> Datagram | None:
    """The next that has come; None when there is none. Raises OSError, as for a port unreachable.

    Such an error is of a datagram that was sent before; the next call goes on.
    """
    try:
        data, ancillary, _, source = sock.recvmsg(DATAGRAM_BYTES_MAX, _ANCILLARY_BYTES)
    except BlockingIOError:
        return None
    waited_s, asked = 0.0, []
    for level, kind, value in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS) and len(value) == _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack(value)
            waited_s = time.time() - seconds - nanoseconds / 1e9
        elif (level, kind) == (socket.IPPROTO_IPV6, IPV6_PKTINFO):
            address, _ = _PKTINFO_V6.unpack(value)
            asked.append((level, kind, _PKTINFO_V6.pack(address, 0)))
        elif (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
            _, address, _ = _PKTINFO_V4.unpack(value)
            asked.append((level, kind, _PKTINFO_V4.pack(0, address, bytes(4))))
    if not 0 <= waited_s <= WAITED_S_MAX:
        waited_s = 0.0
    return Datagram(data, waited_s, source, tuple(asked))


def answer(sock: socket.socket, to: Datagram, data: bytes) -> bool:
    """Send back to where it came from; False when the kernel does not take it now."""
    try:
        sock.sendmsg([data], to.asked, 0, to.source)
    except OSError:  # Full, or no way there: a probe that is lost.
        return False
    return True


def _prepare(sock: socket.socket) -> None:
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
