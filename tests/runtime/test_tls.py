import shutil
import ssl
import time
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from edged.errors import ConfigError, RemoteProtocolError
from edged.runtime.tls import (
    RELOAD_INTERVAL_S,
    Identity,
    MutualTls,
    PublicTls,
    TlsFiles,
    check_plain,
    identity_in,
    is_loopback,
    keep_certificates,
    make_server_context,
    parse_identity,
    peer_identity,
)
from edged.tools.cert import make_authority, make_host_certificate

POP, ORIGIN = Identity("pop", "fra1"), Identity("origin", "ams-2.b")


def make_files(folder: Path, identity: Identity) -> TlsFiles:
    if not (folder / "ca.pem").exists():
        make_authority(folder, "test", now=time.time())
    return make_host_certificate(folder, identity, now=time.time())


def handshake(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends after a handshake in memory; raises what either end raises."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(down, up, server_side=False)
    server = server_context.wrap_bio(up, down, server_side=True)
    waiting = [client, server]
    for _ in range(10):
        for end in list(waiting):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(end)
        if not waiting:
            return client, server
    raise AssertionError("the handshake does not end")


def test_both_ends_learn_who_the_other_is(tmp_path: Path) -> None:
    pop = MutualTls(make_files(tmp_path, POP))
    origin = MutualTls(make_files(tmp_path, ORIGIN))
    client, server = handshake(pop.client, origin.server)
    assert peer_identity(server) == POP
    assert peer_identity(client) == ORIGIN
    assert client.version() == "TLSv1.3"
    assert str(ORIGIN) == "origin/ams-2.b"
    assert parse_identity(ORIGIN.uri) == ORIGIN


def test_a_client_without_a_certificate_is_refused(tmp_path: Path) -> None:
    origin = MutualTls(make_files(tmp_path, ORIGIN))
    anonymous = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anonymous.check_hostname = False
    anonymous.load_verify_locations(cafile=str(tmp_path / "ca.pem"))
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        handshake(anonymous, origin.server)


def test_another_networks_certificate_is_refused_by_both(tmp_path: Path) -> None:
    ours = MutualTls(make_files(tmp_path / "ours", ORIGIN))
    theirs = MutualTls(make_files(tmp_path / "theirs", POP))
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        handshake(theirs.client, ours.server)
    files = make_files(tmp_path / "theirs", POP)
    trusting = MutualTls(
        TlsFiles(ca=str(tmp_path / "ours" / "ca.pem"), certificate=files.certificate, key=files.key)
    )
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        handshake(trusting.client, ours.server)


def test_tls_1_2_is_refused(tmp_path: Path) -> None:
    origin = MutualTls(make_files(tmp_path, ORIGIN))
    pop = MutualTls(make_files(tmp_path, POP))
    pop.client.current.minimum_version = ssl.TLSVersion.TLSv1_2
    pop.client.current.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
        handshake(pop.client, origin.server)


def test_reload_changes_the_contexts_already_handed_out(tmp_path: Path) -> None:
    files = make_files(tmp_path, ORIGIN)
    pop, origin = MutualTls(make_files(tmp_path, POP)), MutualTls(files)
    context = origin.server
    assert not origin.reload_if_changed()
    before = handshake(pop.client, context)[0].getpeercert(binary_form=True)
    make_files(tmp_path, ORIGIN)
    assert origin.reload_if_changed()
    assert not origin.reload_if_changed()
    assert handshake(pop.client, context)[0].getpeercert(binary_form=True) != before


def test_a_ca_that_left_the_file_is_trusted_no_longer(tmp_path: Path) -> None:
    """As when one has been compromised: its hosts are let in until the reload, and no longer."""
    networks = {name: tmp_path / name for name in ("old", "new")}
    for folder in networks.values():
        folder.mkdir()
    pops = {name: MutualTls(make_files(folder, POP)) for name, folder in networks.items()}
    before = make_files(networks["old"], ORIGIN)
    after = make_files(networks["new"], ORIGIN)
    both = tmp_path / "both.pem"
    both.write_text(Path(before.ca).read_text() + Path(after.ca).read_text())
    origin = MutualTls(TlsFiles(ca=before.ca, certificate=before.certificate, key=before.key))
    server, client = origin.server, origin.client  # Handed out, for life.

    def is_let_in(name: str) -> bool:
        trusting = MutualTls(make_files(networks[name], POP))
        trusting.prepare(TlsFiles(ca=str(both), **_pair(make_files(networks[name], POP))))()
        try:
            handshake(trusting.client, server)
        except ssl.SSLError:
            return False
        return True

    def is_believed(name: str) -> bool:
        try:
            handshake(client, pops[name].server)
        except ssl.SSLError:
            return False
        return True

    assert [is_let_in("old"), is_let_in("new")] == [True, False]
    for files, old in (
        (TlsFiles(ca=str(both), **_pair(before)), True),
        (TlsFiles(ca=after.ca, **_pair(after)), False),
    ):
        origin.prepare(files)()
        assert [is_let_in("old"), is_let_in("new")] == [old, True]
    assert [is_believed("old"), is_believed("new")] == [False, True]
    shutil.copy(both, after.ca)  # The same file, for a while with both.
    assert origin.reload_if_changed()
    assert is_let_in("old")


def _pair(files: TlsFiles) -> dict[str, str]:
    return {"certificate": files.certificate, "key": files.key}


def test_a_failed_reload_changes_nothing(tmp_path: Path) -> None:
    files = make_files(tmp_path, ORIGIN)
    pop, origin = MutualTls(make_files(tmp_path, POP)), MutualTls(files)
    shutil.copy(make_files(tmp_path, POP).key, files.key)  # No longer the certificate's.
    with pytest.raises(ConfigError, match="KEY_VALUES_MISMATCH"):
        origin.reload_if_changed()
    assert peer_identity(handshake(pop.client, origin.server)[0]) == ORIGIN
    Path(files.key).unlink()
    with pytest.raises(ConfigError, match="No such file"):
        origin.reload_if_changed()


@pytest.mark.parametrize("field", ["ca", "certificate", "key"])
@pytest.mark.parametrize("content", [None, b"", b"garbage"])
def test_unusable_files_are_named(tmp_path: Path, field: str, content: bytes | None) -> None:
    files = make_files(tmp_path, ORIGIN)
    path = Path(getattr(files, field))
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ConfigError, match=str(path)):
        MutualTls(files)


def test_the_public_context_asks_for_no_certificate(tmp_path: Path) -> None:
    files = make_files(tmp_path, ORIGIN)
    anonymous = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anonymous.check_hostname = False
    anonymous.load_verify_locations(cafile=files.ca)
    client, server = handshake(anonymous, make_server_context(files.certificate, files.key))
    assert peer_identity(client) == ORIGIN
    with pytest.raises(RemoteProtocolError, match="0 edged:// identities"):
        peer_identity(server)
    with pytest.raises(ConfigError, match="nowhere"):
        make_server_context("nowhere", files.key)


@pytest.mark.parametrize(
    "certificate",
    [
        {},
        {"subjectAltName": ()},
        {"subjectAltName": (("DNS", "edged://pop/a"),)},
        {"subjectAltName": (("URI", "https://example.org/"),)},
        {"subjectAltName": (("URI", "edged://pop/a"), ("URI", "edged://pop/b"))},
    ],
)
def test_certificates_must_have_one_identity(certificate: dict[str, object]) -> None:
    with pytest.raises(RemoteProtocolError, match="identities, must have one"):
        identity_in(certificate)


def test_other_names_in_the_certificate_do_not_matter() -> None:
    names = (("DNS", "x"), ("URI", "urn:x"), ("URI", "edged://irs/main"))
    assert identity_in({"subjectAltName": names}) == Identity("irs", "main")


@pytest.mark.parametrize(
    "uri",
    [
        "edged://pop",
        "edged://pop/",
        "edged:///a",
        "edged://Pop/a",
        "edged://pop/A",
        "edged://pop/a/b",
        "edged://pop/a\n",
        "edged://pop/a?x",
        "edged://pop/" + "a" * 64,
        "http://pop/a",
    ],
)
def test_malformed_identities_are_refused(uri: str) -> None:
    with pytest.raises(RemoteProtocolError, match="is not edged://ROLE/NAME"):
        parse_identity(uri)
    assert parse_identity("edged://pop/" + "a" * 63).name == "a" * 63


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]", "::ffff:127.0.0.1", "::1%lo"]
)
def test_loopback_may_be_plain_and_the_log_says_so(host: str) -> None:
    assert is_loopback(host)
    with capture_logs() as lines:
        check_plain(host, "backbone")
    assert [(line["log_level"], line["what"], line["host"]) for line in lines] == [
        ("warning", "backbone", host)
    ]


@pytest.mark.parametrize(
    "host", ["", "192.0.2.1", "::", "10.0.0.1", "::ffff:10.0.0.1", "example.org", "localhost.evil"]
)
def test_elsewhere_plain_is_refused(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ConfigError, match=r"backbone: plain TCP on .* set tls"):
        check_plain(host, "backbone")


def test_a_public_certificate_reloads_in_its_context(tmp_path: Path) -> None:
    files = make_files(tmp_path, ORIGIN)
    public = PublicTls(files.certificate, files.key)
    context = public.context
    assert not public.reload_if_changed()
    make_files(tmp_path, ORIGIN)
    assert public.reload_if_changed()
    assert public.context is context
    shutil.copy(make_files(tmp_path, POP).key, files.key)
    with pytest.raises(ConfigError, match="KEY_VALUES_MISMATCH"):
        public.reload_if_changed()


def test_other_files_are_taken_into_use_at_once_or_not_at_all(tmp_path: Path) -> None:
    """As a reload does: all is checked first, then committed."""
    old, new = make_files(tmp_path, POP), make_files(tmp_path / ".", ORIGIN)
    mutual, public = MutualTls(old), PublicTls(old.certificate, old.key)
    other = MutualTls(make_files(tmp_path, Identity("irs", "irs")))

    def shown(context: ssl.SSLContext) -> Identity:
        client, _ = handshake(other.client, context)
        return peer_identity(client)

    commits = [mutual.prepare(new), public.prepare(new.certificate, new.key)]
    assert shown(mutual.server) == shown_public(public, other) == POP
    for commit in commits:
        commit()
    assert shown(mutual.server) == shown_public(public, other) == ORIGIN
    assert not mutual.reload_if_changed()
    assert not public.reload_if_changed()
    broken = tmp_path / "broken.pem"
    broken.write_text("no PEM")
    with pytest.raises(ConfigError, match=r"broken\.pem"):
        mutual.prepare(TlsFiles(ca=old.ca, certificate=str(broken), key=old.key))
    with pytest.raises(ConfigError, match=r"gone\.pem"):
        public.prepare(f"{tmp_path}/gone.pem", new.key)
    assert shown(mutual.server) == shown_public(public, other) == ORIGIN


def shown_public(public: PublicTls, other: MutualTls) -> Identity:
    client, _ = handshake(other.client, public.context)
    return peer_identity(client)


class Renewed:
    """Certificates whose second renewal is broken."""

    def __init__(self) -> None:
        self.calls = 0

    def reload_if_changed(self) -> bool:
        self.calls += 1
        if self.calls == 2:
            raise ConfigError("tls: half a file")
        return self.calls == 1


async def test_certificates_are_kept_and_a_broken_one_is_said(autojump_clock: MockClock) -> None:
    renewed = Renewed()
    with capture_logs() as logs, trio.move_on_after(3.5 * RELOAD_INTERVAL_S):
        await keep_certificates(renewed)
    assert renewed.calls == 3
    assert [line["event"] for line in logs] == [
        "certificates reloaded",
        "certificates not reloaded",
    ]
    assert logs[1]["reason"] == "tls: half a file"
