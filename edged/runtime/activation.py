"""Listening sockets that whoever started us had open already (socket activation, sd_listen_fds(3)).

Wire: descriptors 3, 4, ... of which $LISTEN_FDS says how many, $LISTEN_FDNAMES how each is called
(`a:b:c`) and $LISTEN_PID for which process they are meant. A service manager that holds them open
lets callers wait in their queue while we restart: nobody is refused.

A listener takes the one that is bound to its own address. It gets a duplicate: closed and opened
again within one process, the queue goes on too.
"""

import contextlib
import ipaddress
import os
import socket
from collections.abc import Mapping, MutableMapping

import structlog
from msgspec import Struct

from edged.errors import ConfigError

FDS_FIRST = 3  # SD_LISTEN_FDS_START.
FDS_MAX = 256  # A host's public ports are a handful; beyond it somebody passed us nonsense.
VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
NAME_UNKNOWN = "unknown"  # As sd_listen_fds_with_names(3) has it.

logger = structlog.get_logger("edged.listener")


class Inherited(Struct, frozen=True, eq=False):
    """One descriptor that was passed in."""

    name: str  # The unit's FileDescriptorName=; by default the socket unit's own name.
    sock: socket.socket | None  # None: it is no socket.
    fd: int

    def describe(self) -> str:
        """What it is, for people: "[::]:1935 (rtmp)"."""
        if self.sock is None:
            return f"no socket ({self.name})"
        try:
            address = self.sock.getsockname()
        except OSError as error:
            return f"a socket without an address: {error.strerror} ({self.name})"
        return f"{_show(address)} ({self.name})"

    def is_bound_to(self, family: int, host: str, port: int, kind: int) -> bool:
        """Whether it is what a listener at this address would have opened."""
        sock = self.sock
        if sock is None or sock.family != family or sock.type != kind:
            return False
        if kind == socket.SOCK_STREAM and not sock.getsockopt(
            socket.SOL_SOCKET, socket.SO_ACCEPTCONN
        ):
            return False  # A connection, as inetd's `nowait` passes them, or one not listening.
        try:
            bound = sock.getsockname()
        except OSError:
            return False
        return bool(port) and bound[1] == port and _same_host(str(bound[0]), host)


class Activation:
    """All that was passed in, and which of it is wanted."""

    def __init__(self, inherited: tuple[Inherited, ...] = ()) -> None:
        self._inherited = inherited
        self._wanted: set[int] = set()

    def __len__(self) -> int:
        return len(self._inherited)

    def claim(
        self, family: int, host: str, port: int, kind: int = socket.SOCK_STREAM
    ) -> socket.socket | None:
        """A duplicate of the socket bound there, or None; the caller closes it."""
        for one in self._inherited:
            if one.sock is not None and one.is_bound_to(family, host, port, kind):
                self._wanted.add(one.fd)
                logger.info("inherited socket", listen=one.describe())
                return one.sock.dup()
        return None

    def at_port(self, port: int) -> str:
        """What was passed in with this port, for the one who finds it taken; "" if nothing."""
        found = [
            one.describe()
            for one in self._inherited
            if one.sock is not None
            and one.sock.family in (socket.AF_INET, socket.AF_INET6)
            and one.sock.getsockname()[1] == port
        ]
        return ", ".join(found)

    def close_unclaimed(self) -> None:
        """Once all listeners are open: close what none of them wanted, and say which that is.

        Callers there would wait for ever if the one who passed it in holds it open too.
        """
        for one in self._inherited:
            if one.fd not in self._wanted:
                logger.warning(
                    "inherited socket closed, no listener has its address",
                    socket=one.describe(),
                    hint="take it out of the socket unit, or set a `listen` to it",
                )
                self._close(one)
        self._inherited = tuple(one for one in self._inherited if one.fd in self._wanted)

    def close(self) -> None:
        """Close what we have of it; what others hold stays open, and callers wait there."""
        for one in self._inherited:
            self._close(one)
        self._inherited = ()

    @staticmethod
    def _close(one: Inherited) -> None:
        if one.sock is not None:
            one.sock.close()
        else:
            with contextlib.suppress(OSError):
                os.close(one.fd)


def receive(environ: MutableMapping[str, str], *, first: int = FDS_FIRST) -> Activation:
    """Take what was passed to this process; raises `ConfigError` when it cannot be understood.

    The variables are taken out of the environment, and the descriptors are closed on exec: nothing
    that we start gets them.
    """
    values = {name: environ.pop(name, "") for name in VARIABLES}
    if not values["LISTEN_FDS"] or values["LISTEN_PID"] != str(os.getpid()):
        return Activation()
    count = _count(values)
    names = values["LISTEN_FDNAMES"].split(":") if values["LISTEN_FDNAMES"] else []
    if names and len(names) != count:
        raise ConfigError(f"LISTEN_FDNAMES has {len(names)} names for {count} descriptors")
    inherited = []
    for index, fd in enumerate(range(first, first + count)):
        name = names[index] if names else NAME_UNKNOWN
        try:
            os.set_inheritable(fd, False)
        except OSError as error:
            raise ConfigError(
                f"LISTEN_FDS is {count}, but descriptor {fd} ({name}): {error.strerror}"
            ) from error
        inherited.append(Inherited(name, _as_socket(fd), fd))
    return Activation(tuple(inherited))


def _count(values: Mapping[str, str]) -> int:
    text = values["LISTEN_FDS"]
    # The length first: converting a long text costs time.
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(FDS_MAX))):
        raise ConfigError(f"LISTEN_FDS {text[:20]!r} is not a number of 0 to {FDS_MAX}")
    if int(text) > FDS_MAX:
        raise ConfigError(f"LISTEN_FDS {text} is more than {FDS_MAX}")
    return int(text)


def _as_socket(fd: int) -> socket.socket | None:
    """The descriptor as a socket, or None."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return None
    sock.setblocking(False)
    return sock


def _same_host(bound: str, wanted: str) -> bool:
    """Whether two numeric hosts are one."""
    try:
        return ipaddress.ip_address(bound) == ipaddress.ip_address(wanted)
    except ValueError:
        return False


def _show(address: object) -> str:
    if isinstance(address, tuple) and len(address) >= 2:  # noqa: PLR2004 - host and port
        host = str(address[0])
        return f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"
    return repr(address)
