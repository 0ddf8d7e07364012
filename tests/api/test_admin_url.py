"""The admin door over HTTP, from the asking side."""

from pathlib import Path

import pytest
import trio

from edged.api.admin_url import AdminUrl, admin_url_of, ask_url
from edged.errors import ConfigError, EdgedError
from edged.runtime.listeners import parse_address
from tests.api.service import Behaviour, dripping, hanging, replying, serving
from tests.backbone.network import free_address

TOKEN = "a-token-of-this-test-only"  # noqa: S105 - it opens nothing


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o600)
    return path


def test_what_the_environment_says() -> None:
    assert admin_url_of({}) is None
    for url, place in (
        ("http://127.0.0.1:1944", "http://127.0.0.1:1944"),
        ("http://[::1]:80/", "http://[::1]:80"),
        ("http://localhost:1944", "http://localhost:1944"),
    ):
        found = admin_url_of({"EDGED_ADMIN_URL": url, "EDGED_ADMIN_TOKEN_FILE": "token"})
        assert str(found) == place


@pytest.mark.parametrize(
    ("url", "token", "reason"),
    [
        ("127.0.0.1:1944", "t", "is not http://HOST:PORT"),
        ("https://127.0.0.1:1944", "t", "is not http://HOST:PORT"),
        ("http://127.0.0.1", "t", "is not http://HOST:PORT"),
        ("http://127.0.0.1:1944/status", "t", "is not http://HOST:PORT"),
        ("http://127.0.0.1:99999", "t", "Port out of range"),
        ("http://ams1.example.net:1944", "t", "is not on loopback: a token goes there"),
        ("http://127.0.0.1:1944", "", "needs EDGED_ADMIN_TOKEN_FILE"),
    ],
)
def test_what_cannot_be_asked(url: str, token: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        admin_url_of({"EDGED_ADMIN_URL": url, "EDGED_ADMIN_TOKEN_FILE": token})


async def ask_service(behaviour: Behaviour, token_file: Path) -> bytes:
    async with serving() as service:
        service.behaviour = behaviour
        place = AdminUrl(*parse_address(service.address), token_file)
        failure = None
        try:
            result = await ask_url(place, "kick", {"channel": "one"})
        except EdgedError as error:
            failure = error
        (received,) = service.received
        assert received.path == "/command/"
        assert received.fields["authorization"] == f"Bearer {TOKEN}"
        assert received.json() == {"command": "kick", "arguments": {"channel": "one"}}
    if failure is not None:
        raise failure
    return result


@pytest.mark.e2e
async def test_an_answer(token_file: Path) -> None:
    assert await ask_service(replying(200, {"result": [1]}), token_file) == b"[1]"


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (200, b'{"error":"no such channel"}', "^no such channel$"),
        (200, b"<html>", "is no edged"),
        (401, b"the token is wrong\n", r"refuses: the token is wrong$"),
    ],
)
async def test_refusals(status: int, body: bytes, reason: str, token_file: Path) -> None:
    with pytest.raises(EdgedError, match=reason):
        await ask_service(replying(status, body), token_file)


@pytest.mark.e2e
async def test_nobody_and_somebody_silent(token_file: Path) -> None:
    host, port = parse_address(free_address())
    with pytest.raises(EdgedError, match=r"no edged answers at http://127.0.0.1:\d+: Connection"):
        await ask_url(AdminUrl(host, port, token_file), "health", {})
    for behaviour in (hanging, dripping):  # Of the one no pause is long: the whole counts.
        async with serving() as service:
            service.behaviour = behaviour
            place = AdminUrl(*parse_address(service.address), token_file)
            with trio.fail_after(5), pytest.raises(EdgedError, match=r"did not answer in 0\.2 s"):
                await ask_url(place, "health", {}, timeout_s=0.2)


def test_a_token_open_to_all_is_not_used(token_file: Path) -> None:
    token_file.chmod(0o644)
    with pytest.raises(ConfigError, match=r"EDGED_ADMIN_TOKEN_FILE .*open to everyone"):
        trio.run(ask_url, AdminUrl("127.0.0.1", 1, token_file), "health", {})
