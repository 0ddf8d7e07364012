"""Connecting and listening for the pump: sockets made by Trio, then handed over.

A listener whose address whoever started us has open already takes that socket (runtime/activation).
What was passed in belongs to the process as its descriptors do, so it is kept once, here.
"""

import contextlib
import errno
import ipaddress
import math
import os
import socket
import ssl
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import structlog
import trio

from edged.errors import ConfigError, PeerLostError
from edged.runtime.activation import Activation
from edged.runtime.connection import OUT_BYTES_MAX, Connection, MakeHandler, PumpClass
from edged.runtime.pump import Pump

PORT_MAX = 65535
PORT_CHARS_MAX = 8  # Room for leading zeros, none for a text that costs time to convert.
ACCEPTS_PER_TURN_MAX = 64  # Then the pump gets its turn: a flood of callers stops no publisher.
BACKLOG = 1024
SHED_LAG_S = 0.5  # Above this loop lag new viewers and chatters are turned away; publishers never.
EXHAUSTED_PAUSE_S = 0.1  # After EMFILE: the backlog waits, the loop does not spin.
CONNECT_TIMEOUT_S = 5.0
ROOM_AFTER_S = (
    1.0  # A caller has so long to say what it is for before a newcomer may take its place.
)
SPOKEN_PER_CALL_MAX = 64  # Looked past for one newcomer: with 100,000 it takes its time.
TURNED_AWAY_S = 5.0  # A flood of callers makes a line in so long, with their number.

logger = structlog.get_logger("edged.listener")


def parse_address(address: str) -> tuple[str, int]:
    """Split "HOST:PORT", "[IPV6]:PORT" or ":PORT" (all addresses); raises `ConfigError`."""
    host, separator, port = address.rpartition(":")
    # `isdigit` alone takes superscripts and other scripts' digits, and `int` has its own limit.
    is_number = port.isascii() and port.isdigit() and len(port) <= PORT_CHARS_MAX
    if not separator or not is_number or int(port) > PORT_MAX:
        raise ConfigError(f'address {address!r} is not "HOST:PORT" with a port of 0 to {PORT_MAX}')
    return host.removeprefix("[").removesuffix("]") or "::", int(port)


def peer_name(address: object) -> str:
    """A peer's address as people write it."""
    if isinstance(address, tuple) and len(address) >= 2:  # noqa: PLR2004 - host and port
        host = str(address[0]).removeprefix("::ffff:")
        return f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"
    return str(address)


class _Inherited:
    """What was passed to this process; nothing until `adopt`."""

    activation = Activation()


def adopt(activation: Activation) -> None:
    """Let listeners that are opened from now on take the sockets that were passed in."""
    _Inherited.activation = activation


def has_inherited() -> bool:
    """Whether sockets were passed in: callers wait in their queues until listeners are opened."""
    return len(_Inherited.activation) > 0


def open_listener(address: str, *, share_port: bool = False) -> socket.socket:
    """Bind and listen, or take the inherited socket that is bound there.

    Raises `ConfigError` that names the address and the reason. All addresses are those of IPv6 and
    IPv4, or of IPv4 alone on a host without IPv6. `share_port`: other processes of this user that
    ask for it too may listen there, and the kernel spreads the callers (SO_REUSEPORT, socket(7)).
    """
    host, port = parse_address(address)
    try:
        try:
            sock = _open(host, port, share_port=share_port)
        except OSError as error:
            if host != "::" or error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                raise
            logger.warning("no IPv6 on this host, listening on IPv4 alone", listen=address)
            sock = _open("0.0.0.0", port, share_port=share_port)  # noqa: S104 - as asked
    except OSError as error:
        why = error.strerror or str(error)
        passed = _Inherited.activation.at_port(port) if error.errno == errno.EADDRINUSE else ""
        if passed:
            why += f"; a socket that was passed in has the port: {passed}"
        raise ConfigError(f"cannot listen on {address!r}: {why}") from error
    except ValueError as error:  # A name that is none; UnicodeError is a ValueError.
        raise ConfigError(f"cannot listen on {address!r}: {error}") from error
    sock.setblocking(False)
    return sock


def _open(host: str, port: int, *, share_port: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if _Inherited.activation:
        for numeric in _numeric(family, host):
            sock = _Inherited.activation.claim(family, numeric, port)
            if sock is not None:
                _check_both_families(sock, host)
                return sock
    return _bind(family, host, port, share_port=share_port)


def _numeric(family: socket.AddressFamily, host: str) -> list[str]:
    """The host as it is, or what a name stands for."""
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        found = socket.getaddrinfo(host, None, family, socket.SOCK_STREAM)
        return [str(entry[4][0]) for entry in found]


def _check_both_families(sock: socket.socket, host: str) -> None:
    """An inherited [::] takes IPv4 only if it was bound so."""
    if host == "::" and sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        logger.warning(
            "inherited socket takes IPv6 alone",
            listen=peer_name(sock.getsockname()),
            hint="set BindIPv6Only=both in the socket unit",
        )


def _bind(family: socket.AddressFamily, host: str, port: int, *, share_port: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


async def serve(
    pump: Pump,
    address: str,
    make_handler: MakeHandler,
    pump_class: PumpClass,
    *,
    tls: ssl.SSLContext | None = None,
    connections_max: int | Callable[[], int] = 100_000,
    makes_room: bool = False,
    out_bytes_max: int = OUT_BYTES_MAX,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Accept until cancelled. Starts with the address bound ("127.0.0.1:1935"), port 0 resolved.

    `connections_max` may change meanwhile; connections that are open beyond it stay. With
    `makes_room` the one that has been silent longest makes room at the limit: slow callers who fill
    a listener keep nobody out. Its handlers set `Connection.spoke` for who is not to be ended so.
    """
    listener = open_listener(address, share_port=pump.share_ports)
    places = _Places(address, makes_room=makes_room)
    turned_away = _TurnedAway(address)
    add = partial(
        pump.add,
        make_handler=make_handler,
        pump_class=pump_class,
        tls=tls,
        out_bytes_max=out_bytes_max,
    )
    with listener:
        task_status.started(peer_name(listener.getsockname()))
        while True:
            await trio.lowlevel.wait_readable(listener)
            for _ in range(ACCEPTS_PER_TURN_MAX):
                try:
                    sock, source = listener.accept()
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                        logger.warning("cannot accept", listen=address, error=error.strerror)
                        await trio.sleep(EXHAUSTED_PAUSE_S)
                        break
                    continue  # That caller is gone again.
                shed = pump_class >= PumpClass.VIEWER and pump.lag_s > SHED_LAG_S
                most = connections_max() if callable(connections_max) else connections_max
                if shed or not places.has_room(most, pump.now()):
                    sock.close()
                    why = "the loop lags" if shed else f"{most} connections are open"
                    turned_away.note(why, pump.now())
                    continue
                connection = _take(sock, address, peer_name(source), add)
                if connection is not None:
                    places.give(connection, pump.now())


class _Places:
    """Those whom a listener has let in."""

    def __init__(self, address: str, *, makes_room: bool) -> None:
        self._address = address
        self._makes_room = makes_room
        self._taken = 0
        # Since when; some have spoken meanwhile. Its first is found at once, unlike a dict's.
        self._silent = OrderedDict[Connection, float]()

    def give(self, connection: Connection, now: float) -> None:
        """Count one in, until it ends."""
        self._taken += 1
        self._silent[connection] = now
        connection.on_removed = partial(self._ended, connection)

    def has_room(self, most: int, now: float) -> bool:
        """Whether another may come in; at the limit the first who has said nothing makes room."""
        for _ in range(SPOKEN_PER_CALL_MAX):
            if self._taken < most or not self._silent or not self._makes_room:
                break
            connection, since = next(iter(self._silent.items()))
            if now - since < ROOM_AFTER_S:
                break
            del self._silent[connection]
            if not connection.spoke:
                if connection.lost is None:
                    connection.abort(f"made room: {most} connections are open, it said nothing")
                connection.on_removed = None
                self._ended(connection)
        return self._taken < most

    def _ended(self, connection: Connection) -> None:
        self._taken -= 1
        self._silent.pop(connection, None)
        if connection.handshaking:
            why = connection.lost or "closed"
            logger.info("refused", listen=self._address, peer=connection.peer, reason=why)


def _take(
    sock: socket.socket, address: str, peer: str, add: Callable[..., Connection]
) -> Connection | None:
    """Give a caller to the pump; None if that cannot be."""
    try:
        _prepare(sock)
        return add(sock, peer=peer)
    except (OSError, ValueError):
        sock.close()  # That caller is gone again, before TLS could greet it.
    except Exception:  # A bug that one caller meets must not close the door to all.
        logger.exception("caller failed", listen=address, peer=peer)
        sock.close()
    return None


class _TurnedAway:
    """Says that callers are turned away, and how many, at most once in TURNED_AWAY_S."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._count = 0
        self._said_at = -math.inf

    def note(self, reason: str, now: float) -> None:
        """Count one; log the count if it is time."""
        self._count += 1
        if now - self._said_at >= TURNED_AWAY_S:
            logger.warning(
                "callers turned away", listen=self._address, reason=reason, count=self._count
            )
            self._count, self._said_at = 0, now


async def connect(
    pump: Pump,
    address: str,
    make_handler: MakeHandler,
    pump_class: PumpClass,
    *,
    tls: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
    out_bytes_max: int = OUT_BYTES_MAX,
    timeout_s: float = CONNECT_TIMEOUT_S,
) -> Connection:
    """Connect and, with `tls`, shake hands; raises `PeerLostError` saying what failed and where."""
    try:
        host, port = parse_address(address)
        with trio.fail_after(timeout_s):
            sock = await _connect_tcp(host, port)
            connection = pump.add(
                sock,
                make_handler,
                pump_class,
                tls=tls,
                server_side=False,
                server_hostname=server_hostname or host if tls is not None else None,
                out_bytes_max=out_bytes_max,
                peer=address,
            )
            try:
                await connection.wait_established()
            except trio.Cancelled:
                connection.abort("cancelled while connecting")
                raise
    except trio.TooSlowError:
        raise PeerLostError(f"cannot connect to {address}: no answer in {timeout_s:g} s") from None
    except OSError as error:
        why = os.strerror(error.errno).lower() if error.errno else str(error)
        raise PeerLostError(f"cannot connect to {address}: {why}") from error
    except (ConfigError, ValueError) as error:  # A name that is none; UnicodeError is a ValueError.
        raise PeerLostError(f"cannot connect to {address}: {error}") from error
    if connection.lost is not None:
        raise PeerLostError(f"cannot connect to {address}: {connection.lost}")
    return connection


async def _connect_tcp(host: str, port: int) -> socket.socket:
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    error: OSError = OSError(errno.EHOSTUNREACH, "no address found")
    for family, kind, proto, _, target in found:
        sock = trio.socket.socket(family, kind, proto)
        try:
            await sock.connect(target)
        except OSError as failed:
            sock.close()
            error = failed
        except BaseException:
            sock.close()
            raise
        else:
            plain = socket.socket(family, kind, proto, fileno=sock.detach())
            _prepare(plain)
            return plain
    raise error


def _prepare(sock: socket.socket) -> None:
    sock.setblocking(False)
    with contextlib.suppress(OSError):  # Not every stream socket is TCP, and a caller may be gone.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
