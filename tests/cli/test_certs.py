"""`edged cert`: files that two hosts can prove themselves with."""

import tomllib
from pathlib import Path

import pytest

from edged.errors import ConfigError
from edged.runtime.tls import Identity, MutualTls, TlsFiles, peer_identity
from tests.cli.invoke import Answer
from tests.runtime.test_tls import handshake


def test_a_ca_and_two_hosts_that_trust_each_other(tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    answer = Answer("cert", "ca", "mynetwork", "--dir", folder, "--days", "100")
    assert answer.code == 0
    assert f"{folder}/ca.pem" in answer.out
    assert (folder / "ca.key").stat().st_mode & 0o077 == 0
    ends = []
    for role, name in (("pop", "ams1"), ("origin", "fra1")):
        printed = Answer("cert", "host", role, name, "--dir", folder).out
        table = tomllib.loads(printed)[role]["tls"]  # As it stands it can go into the file.
        ends.append(MutualTls(TlsFiles(**table)))
    client, server = handshake(ends[0].client, ends[1].server)
    assert peer_identity(client) == Identity("origin", "fra1")
    assert peer_identity(server) == Identity("pop", "ams1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("orgin", "fra1"), "role 'orgin' is none of pop, origin, irs"),
        (("pop", "Fra 1"), "is not edged://ROLE/NAME"),
        (("pop", "fra1"), "ca.pem"),
    ],
)
def test_what_cannot_be_is_refused(
    arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    answer = Answer("cert", "host", *arguments, "--dir", tmp_path)
    assert isinstance(answer.error, ConfigError)
    assert message in str(answer.error)


def test_a_ca_is_not_overwritten(tmp_path: Path) -> None:
    Answer("cert", "ca", "one", "--dir", tmp_path)
    before = (tmp_path / "ca.pem").read_bytes()
    answer = Answer("cert", "ca", "two", "--dir", tmp_path)
    assert isinstance(answer.error, ConfigError)
    assert (tmp_path / "ca.pem").read_bytes() == before
