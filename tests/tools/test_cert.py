import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID

from edged.errors import ConfigError
from edged.runtime.tls import Identity
from edged.tools.cert import (
    AUTHORITY_DAYS,
    DAYS_MAX,
    make_authority,
    make_host_certificate,
)

NOW = 1_780_000_000.0
POP = Identity("pop", "fra1")


def load(path: str | Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(Path(path).read_bytes())


def test_authority_signs_and_signs_only_certificates(tmp_path: Path) -> None:
    authority = load(make_authority(tmp_path / "new" / "folder", "net", now=NOW))
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = authority.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign
    assert not usage.digital_signature
    lifetime = authority.not_valid_after_utc.timestamp() - NOW
    assert lifetime == AUTHORITY_DAYS * 86400
    assert authority.not_valid_before_utc.timestamp() < NOW


def test_host_certificate_names_its_identity_and_is_signed_by_the_authority(tmp_path: Path) -> None:
    authority = load(make_authority(tmp_path, "net", now=NOW))
    files = make_host_certificate(tmp_path, POP, now=NOW, hosts=["192.0.2.7", "fra1.example"])
    certificate = load(files.certificate)
    certificate.verify_directly_issued_by(authority)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["edged://pop/fra1"]
    assert names.get_values_for_type(x509.DNSName) == ["fra1.example"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.7"]
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usage) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_keys_are_for_their_owner_only_and_a_renewal_replaces_both_files(tmp_path: Path) -> None:
    make_authority(tmp_path, "net", now=NOW)
    first = make_host_certificate(tmp_path, POP, now=NOW)
    old = Path(first.key).read_bytes()
    (tmp_path / "pop-fra1.key.new").write_bytes(b"left by a crash")
    assert make_host_certificate(tmp_path, POP, now=NOW + 1, days=7) == first
    assert Path(first.key).read_bytes() != old
    for name in ("ca.key", "pop-fra1.key"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "ca.key",
        "ca.pem",
        "pop-fra1.key",
        "pop-fra1.pem",
    ]


def test_an_authority_is_not_replaced(tmp_path: Path) -> None:
    before = make_authority(tmp_path, "net", now=NOW).read_bytes()
    with pytest.raises(ConfigError, match="exists"):
        make_authority(tmp_path, "net", now=NOW)
    assert (tmp_path / "ca.pem").read_bytes() == before


def test_the_authority_must_be_there_readable_matching_and_valid(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="make the CA first"):
        make_host_certificate(tmp_path, POP, now=NOW)
    make_authority(tmp_path, "net", now=NOW)
    with pytest.raises(ConfigError, match="expired"):
        make_host_certificate(tmp_path, POP, now=NOW + (AUTHORITY_DAYS + 1) * 86400)
    make_authority(tmp_path / "other", "net", now=NOW)
    ours = (tmp_path / "ca.key").read_bytes()
    (tmp_path / "ca.key").write_bytes((tmp_path / "other" / "ca.key").read_bytes())
    with pytest.raises(ConfigError, match="not the key"):
        make_host_certificate(tmp_path, POP, now=NOW)
    edwards = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (tmp_path / "ca.key").write_bytes(edwards)
    with pytest.raises(ConfigError, match="elliptic-curve"):
        make_host_certificate(tmp_path, POP, now=NOW)
    (tmp_path / "ca.key").write_bytes(ours)
    (tmp_path / "ca.pem").write_bytes(b"garbage")
    with pytest.raises(ConfigError, match="cannot be read"):
        make_host_certificate(tmp_path, POP, now=NOW)


@pytest.mark.parametrize("days", [0, -1, DAYS_MAX + 1])
def test_lifetimes_have_limits(tmp_path: Path, days: int) -> None:
    with pytest.raises(ConfigError, match=f"{days} days"):
        make_authority(tmp_path, "net", now=NOW, days=days)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("days", [1, DAYS_MAX])
def test_lifetimes_at_their_limits(tmp_path: Path, days: int) -> None:
    authority = load(make_authority(tmp_path, "net", now=NOW, days=days))
    assert authority.not_valid_after_utc.timestamp() == NOW + days * 86400


@pytest.mark.parametrize("name", ["", "Fra1", "a/b", "../x", "a" * 64, "ü"])
def test_malformed_identities_are_refused(tmp_path: Path, name: str) -> None:
    make_authority(tmp_path, "net", now=NOW)
    with pytest.raises(ConfigError, match="is not edged://ROLE/NAME"):
        make_host_certificate(tmp_path, Identity("pop", name), now=NOW)


def test_malformed_hosts_are_refused(tmp_path: Path) -> None:
    make_authority(tmp_path, "net", now=NOW)
    with pytest.raises(ConfigError, match="neither an address nor a DNS name"):
        make_host_certificate(tmp_path, POP, now=NOW, hosts=["ü.example"])
