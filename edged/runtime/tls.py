"""TLS between hosts of the network: contexts, identities, and where plain TCP is allowed.

Every host has a certificate from the network's private CA (`edged cert`). What counts in it is one
URI in the SubjectAltName, `edged://ROLE/NAME`: who the host is, whatever address it has. So host
names are not checked; each service compares the identity with whom it meant to speak to, and with
what the message at hand allows (a heartbeat of origin `fra1` is believed only from
`edged://origin/fra1`).

TLS 1.3 only, certificates required both ways, no session tickets: each connection proves its
identity anew, so a reloaded or revoked certificate counts from the next connection on.
"""

import ipaddress
import re
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

import structlog
import trio
from msgspec import Struct

from edged.errors import ConfigError, RemoteProtocolError

logger = structlog.get_logger("edged.tls")

IDENTITY_SCHEME = "edged://"
RELOAD_INTERVAL_S = 30.0  # How soon a renewed certificate is used.
Stamp: TypeAlias = tuple[tuple[int, int, int], ...]
# Names go into file names, logs and metric labels; 63 is the longest DNS label, which names usually
# are.
_IDENTITY = re.compile(r"edged://([a-z][a-z0-9_]{0,31})/([a-z0-9][a-z0-9._-]{0,62})")


class Identity(Struct, frozen=True, order=True):
    """Who a host is: its role (`pop`, `origin`, `irs`) and its name in that role."""

    role: str
    name: str

    def __str__(self) -> str:
        return f"{self.role}/{self.name}"

    @property
    def uri(self) -> str:
        """The SubjectAltName that says so."""
        return f"{IDENTITY_SCHEME}{self.role}/{self.name}"


class TlsFiles(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table such as `[pop.tls]`: three PEM files, as `edged cert` writes them."""

    ca: str  # May hold several CAs while one replaces another.
    certificate: str
    key: str  # Not encrypted: nobody is there to type a passphrase when a host boots.


class _LastingContext(ssl.SSLContext):
    """A context for life: each connection is made by the one that is `current` then.

    OpenSSL cannot take a CA out of a context, so what is read anew is a context anew.
    """

    current: ssl.SSLContext

    def wrap_socket(  # noqa: PLR0917 - as its base has it
        self,
        sock: socket.socket,
        server_side: bool = False,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLSocket:
        """As `SSLContext.wrap_socket`."""
        return self.current.wrap_socket(
            sock,
            server_side=server_side,
            do_handshake_on_connect=do_handshake_on_connect,
            suppress_ragged_eofs=suppress_ragged_eofs,
            server_hostname=server_hostname,
            session=session,
        )

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """As `SSLContext.wrap_bio`."""
        return self.current.wrap_bio(
            incoming,
            outgoing,
            server_side=server_side,
            server_hostname=server_hostname,
            session=session,
        )


class MutualTls:
    """One host's two contexts, for connections it accepts and for those it opens.

    The contexts are for life: whoever was given one never has to be told of a `reload`. Raises
    ConfigError when a file is missing, no PEM, or key and certificate do not match.
    """

    def __init__(self, files: TlsFiles) -> None:
        self.server = _LastingContext(ssl.PROTOCOL_TLS_SERVER)
        self.client = _LastingContext(ssl.PROTOCOL_TLS_CLIENT)
        self.prepare(files)()

    def reload(self) -> None:
        """Read the files anew, for the connections made from now on.

        On ConfigError nothing has changed. Who is connected by a CA that left the file stays.
        """
        self.prepare(self._files)()

    def prepare(self, files: TlsFiles) -> Callable[[], None]:
        """Check files, perhaps others than before, and return what takes them into use at once."""
        stamp = _read_stamp(files.ca, files.certificate, files.key)
        # A half-written pair fails here, harmlessly.
        server = _make_context(ssl.PROTOCOL_TLS_SERVER, files)
        client = _make_context(ssl.PROTOCOL_TLS_CLIENT, files)

        def commit() -> None:
            self.server.current, self.client.current = server, client
            self._files, self._stamp = files, stamp

        return commit

    def reload_if_changed(self) -> bool:
        """Call `reload` if a file's time or size changed since; say whether it did."""
        if self._read_stamp() == self._stamp:
            return False
        self.reload()
        return True

    def _read_stamp(self) -> "Stamp":
        return _read_stamp(self._files.ca, self._files.certificate, self._files.key)


class PublicTls:
    """A listener's certificate for the public; reloads like `MutualTls`."""

    def __init__(self, certificate: str, key: str, protocols: Sequence[str] = ()) -> None:
        """`protocols`: what may be spoken inside, the preferred first (ALPN, RFC 7301)."""
        self.context = make_server_context(certificate, key)
        if protocols:
            self.context.set_alpn_protocols(list(protocols))
        self._certificate, self._key = certificate, key
        self._stamp = _read_stamp(certificate, key)

    def reload_if_changed(self) -> bool:
        """Read the files anew if they changed, and say so; a ConfigError has changed nothing."""
        if _read_stamp(self._certificate, self._key) == self._stamp:
            return False
        self.prepare(self._certificate, self._key)()
        return True

    def prepare(self, certificate: str, key: str) -> Callable[[], None]:
        """Check files, perhaps others than before, and return what takes them into use at once."""
        stamp = _read_stamp(certificate, key)
        make_server_context(certificate, key)  # A half-written pair fails here, harmlessly.

        def commit() -> None:
            _load_chain(self.context, certificate, key)
            self._certificate, self._key, self._stamp = certificate, key, stamp

        return commit


class Reloadable(Protocol):
    """Certificates that may be renewed on disk."""

    def reload_if_changed(self) -> bool:
        """Read the files anew if they changed; raises ConfigError when they cannot be used."""


async def keep_certificates(*certificates: Reloadable) -> None:
    """Take renewed certificates into use until cancelled; connections that are open go on."""
    while True:
        await trio.sleep(RELOAD_INTERVAL_S)
        for each in certificates:
            try:
                if each.reload_if_changed():
                    logger.info("certificates reloaded")
            except ConfigError as error:
                logger.error("certificates not reloaded", reason=str(error))  # noqa: TRY400 - the operator's mistake: a traceback says nothing more


def make_server_context(certificate: str, key: str) -> ssl.SSLContext:
    """Make a context for the public (RTMPS, HTTPS): no client certificate, TLS 1.2 or newer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load_chain(context, certificate, key)
    return context


def peer_identity(
    connection: "ssl.SSLSocket | ssl.SSLObject | trio.SSLStream[trio.SocketStream]",
) -> Identity:
    """Tell who is at the other end of a connection whose handshake is complete.

    Raises RemoteProtocolError when the certificate names no identity, or more than one.
    """
    return identity_in(connection.getpeercert() or {})


def identity_in(certificate: Mapping[str, object]) -> Identity:
    """Read the identity from a certificate in the form that `getpeercert` returns."""
    names = certificate.get("subjectAltName")
    uris: list[str] = []
    for entry in names if isinstance(names, tuple) else ():
        match entry:
            case ("URI", str(uri)) if uri.startswith(IDENTITY_SCHEME):
                uris.append(uri)
            case _:
                pass  # DNS names and addresses say nothing about the role.
    if len(uris) != 1:
        raise RemoteProtocolError(
            f"certificate has {len(uris)} {IDENTITY_SCHEME} identities, must have one"
        )
    return parse_identity(uris[0])


def parse_identity(uri: str) -> Identity:
    """Parse `edged://ROLE/NAME`; RemoteProtocolError if it is something else."""
    found = _IDENTITY.fullmatch(uri)
    if found is None:
        raise RemoteProtocolError(f"identity {uri[:120]!r} is not {IDENTITY_SCHEME}ROLE/NAME")
    return Identity(found[1], found[2])


def is_loopback(host: str) -> bool:
    """Whether `host` (an address, or `localhost`) can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return False  # Another name may resolve to anything.
    mapped = getattr(address, "ipv4_mapped", None)
    return bool(address.is_loopback or (mapped is not None and mapped.is_loopback))


def check_plain(host: str, what: str) -> None:
    """Allow, and log, plain TCP for `what` on loopback; raise ConfigError for any other host."""
    if not is_loopback(host):
        raise ConfigError(f"{what}: plain TCP on {host!r}: allowed on loopback only, set tls")
    logger.warning("plain TCP, allowed on loopback only", what=what, host=host)


def _read_stamp(*names: str) -> "Stamp":
    stamp = []
    for name in names:
        try:
            status = Path(name).stat()
        except OSError as error:
            raise ConfigError(f"tls: {name}: {error.strerror}") from error
        stamp.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(stamp)


def _make_context(protocol: int, files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # The URI SAN says who it is; see `peer_identity`.
    context.verify_mode = ssl.CERT_REQUIRED
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0
    try:
        context.load_verify_locations(cafile=files.ca)
    except OSError as error:  # ssl.SSLError is one too.
        raise ConfigError(f"tls: ca {files.ca}: {_reason(error)}") from error
    _load_chain(context, files.certificate, files.key)
    return context


def _load_chain(context: ssl.SSLContext, certificate: str, key: str) -> None:
    try:
        # Without the password argument, OpenSSL would ask at the terminal for an encrypted key's.
        context.load_cert_chain(certificate, key, password="")
    except OSError as error:
        raise ConfigError(f"tls: {certificate} with key {key}: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    return error.strerror or str(error)
