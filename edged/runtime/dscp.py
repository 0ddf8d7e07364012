"""Marking sockets for the network: DSCP (RFC 2474), for IPv4 and IPv6."""

import socket
from typing import Protocol

import structlog

# RFC 2597 AF41, AF42, AF43: one queue, rising drop precedence; RFC 2474 CS6 for control.
AF41, AF42, AF43, CS6 = 34, 36, 38, 48

logger = structlog.get_logger("edged.network")


class Markable(Protocol):
    """What is needed of a socket, the standard library's or Trio's."""

    @property
    def family(self) -> int:
        """AF_INET, AF_INET6 or another, which is left as it is."""

    def setsockopt(self, level: int, optname: int, value: int, /) -> None:
        """As the system's."""


def mark(sock: Markable, dscp: int) -> None:
    """Have a socket's packets, and those of what it accepts from now on, carry a DSCP.

    A network that refuses it carries the packets all the same.
    """
    options = []
    if sock.family == socket.AF_INET6:
        options.append((socket.IPPROTO_IPV6, socket.IPV6_TCLASS))
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        # On a dual-stack socket IPv4 packets take IP_TOS.
        options.append((socket.IPPROTO_IP, socket.IP_TOS))
    for level, name in options:
        try:
            sock.setsockopt(level, name, dscp << 2)
        except OSError as error:
            logger.debug("socket not marked", option=name, dscp=dscp, error=error)
