"""The library half of `edged cert`: a private CA, and certificates for the hosts of a network.

A folder holds `ca.pem` and `ca.key`, and for each host `ROLE-NAME.pem` and `ROLE-NAME.key`. Keys
are ECDSA P-256, readable by their owner only. A host needs `ca.pem` and its own two files; `ca.key`
stays at home.
"""

import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edged.errors import ConfigError, RemoteProtocolError
from edged.runtime.tls import Identity, TlsFiles, parse_identity

AUTHORITY_DAYS = 3650
HOST_DAYS = 365
DAYS_MAX = 36500  # A century: beyond it somebody mistyped.
CLOCK_SKEW = datetime.timedelta(
    minutes=10
)  # A host whose clock is behind must not refuse a new one.


def make_authority(folder: Path, network: str, *, now: float, days: int = AUTHORITY_DAYS) -> Path:
    """Make the network's CA in `folder`; returns the path of its certificate.

    `now` is Unix time in seconds. Raises ConfigError if there is a CA already: to replace it would
    cut off every host that holds one of its certificates.
    """
    certificate_path, key_path = folder / "ca.pem", folder / "ca.key"
    for path in (certificate_path, key_path):
        if path.exists():
            raise ConfigError(f"{path} exists; remove it to cut off every host it vouches for")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"edged CA of {network}"[:64])])
    builder = (
        _start(subject, subject, key.public_key(), now, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
    )
    folder.mkdir(parents=True, exist_ok=True)
    _write_pair(certificate_path, key_path, builder.sign(key, hashes.SHA256()), key)
    return certificate_path


def make_host_certificate(
    folder: Path,
    identity: Identity,
    *,
    now: float,
    days: int = HOST_DAYS,
    hosts: Sequence[str] = (),
) -> TlsFiles:
    """Make, or renew, a host's certificate with the CA in `folder`; returns the files it needs.

    `hosts` are DNS names or addresses to add for tools that check them; edged itself reads only the
    identity. Raises ConfigError when the CA is missing, unreadable or outlived, or the identity is
    malformed.
    """
    try:
        parse_identity(identity.uri)
    except RemoteProtocolError as error:
        raise ConfigError(str(error)) from error
    authority, authority_key = _load_authority(folder)
    if authority.not_valid_after_utc.timestamp() <= now:
        raise ConfigError(f"{folder / 'ca.pem'}: expired {authority.not_valid_after_utc:%Y-%m-%d}")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, str(identity)[:64])])
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(identity.uri)]
    names += [_general_name(host) for host in hosts]
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = (
        _start(authority.subject, subject, key.public_key(), now, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
    )
    stem = f"{identity.role}-{identity.name}"
    certificate_path, key_path = folder / f"{stem}.pem", folder / f"{stem}.key"
    _write_pair(certificate_path, key_path, builder.sign(authority_key, hashes.SHA256()), key)
    return TlsFiles(ca=str(folder / "ca.pem"), certificate=str(certificate_path), key=str(key_path))


def _start(
    issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePublicKey, now: float, days: int
) -> x509.CertificateBuilder:
    if not 1 <= days <= DAYS_MAX:
        raise ConfigError(f"a certificate for {days} days: must be 1 to {DAYS_MAX}")
    made_at = datetime.datetime.fromtimestamp(now, datetime.UTC)
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(made_at - CLOCK_SKEW)
        .not_valid_after(made_at + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass  # Then it is a name.
    try:
        return x509.DNSName(host)
    except ValueError as error:
        raise ConfigError(f"host {host!r} is neither an address nor a DNS name") from error


def _load_authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}: make the CA first") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{folder}: the CA cannot be read: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{folder / 'ca.key'}: is not an elliptic-curve key")
    if key.public_key() != certificate.public_key():
        raise ConfigError(f"{folder}: ca.key is not the key of ca.pem")
    return certificate, key


def _write_pair(
    certificate_path: Path,
    key_path: Path,
    certificate: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
) -> None:
    key_pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    _replace(key_path, key_pem, 0o600)
    _replace(certificate_path, certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _replace(path: Path, data: bytes, mode: int) -> None:
    """Write beside and rename, so that a reload never meets half a file."""
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)
