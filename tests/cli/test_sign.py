"""`edged sign`: what it prints plays, and nothing else is printed."""

import json
import time
from pathlib import Path

import pytest

from edged.errors import ConfigError
from edged.playback.token_keys import read_keys
from edged.policy.playback_rights import Claims, RightsConfig, RightsKeyConfig, read_claims
from tests.cli.invoke import Answer
from tests.playback.test_token_keys import generate_pair

SECRET = "s" * 40
WATCH = "https://a.example/watch/alice"
MASTER = "http://a.example:8080/live/alice/master.m3u8"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "rights.key"
    path.write_text(f"{SECRET}\n")
    return path


@pytest.fixture
def config(tmp_path: Path, secret: Path) -> Path:
    public = tmp_path / "public.pem"
    public.write_bytes(generate_pair("ES256").as_pem(private=False))
    path = tmp_path / "pop.toml"
    path.write_text(f"""
[pop]
name = "a"
[irs_client]
addresses = ["127.0.0.1:1940"]
[ingest.rtmp]
[playback.rights]
channels = ["*"]
audience = "edge"
[[playback.rights.keys]]
id = "app"
algorithm = "ES256"
file = "{public}"
[[playback.rights.keys]]
id = "new"
algorithm = "HS256"
file = "{secret}"
[[playback.rights.keys]]
id = "old"
algorithm = "HS256"
file = "{secret}"
""")
    return path


def claims_of(path: Path, token: str, key_id: str = "new", audience: str = "") -> Claims:
    """As an edge with that secret, or public key, reads it."""
    algorithm = "HS256" if path.suffix == ".key" else path.stem
    key = {"id": key_id, "algorithm": algorithm, "file": str(path)}
    keys = read_keys(RightsConfig(keys=(RightsKeyConfig(**key),)))  # type: ignore[arg-type]
    return read_claims(keys.verify(token), audience)


def test_a_watch_page_s_url(config: Path, secret: Path) -> None:
    url = Answer("sign", WATCH, "-c", config).out.strip()
    page, _, token = url.partition("?token=")
    assert page == WATCH
    claims = claims_of(secret, token, audience="edge")
    assert claims.channels == ("alice",)
    assert abs(claims.expires_at - time.time() - 12 * 3600) < 60


def test_forms_and_claims(config: Path, secret: Path) -> None:
    told = json.loads(Answer("sign", MASTER, "-c", config, "--key-id", "old", "--json").out)
    assert told["key_id"] == "old"
    assert told["url"] == f"{MASTER}?token={told['token']}"
    assert claims_of(secret, told["token"], "old", "edge")
    by_path = Answer("sign", MASTER, "-c", config, "--form", "path", "--for", "90").out.strip()
    place, _, rest = by_path.partition("/t/")
    token, _, path = rest.partition("/")
    assert (place, path) == ("http://a.example:8080", "live/alice/master.m3u8")
    assert claims_of(secret, token, audience="edge").expires_at < time.time() + 91
    alone = Answer(
        *("sign", MASTER, "-c", config, "--form", "token", "--ip", "10.0.0.0/8"),
        *("--channel", "bob", "--channel", "sport-*"),
    ).out.strip()
    claims = claims_of(secret, alone, audience="edge")
    assert (claims.channels, str(claims.network)) == (("bob", "sport-*"), "10.0.0.0/8")
    assert Answer("sign", f"{MASTER}?a=b", "-c", config).out.startswith(f"{MASTER}?a=b&token=")


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_private_key_signs_too(algorithm: str, tmp_path: Path) -> None:
    key = generate_pair(algorithm)
    private, public = tmp_path / "private.pem", tmp_path / f"{algorithm}.pem"
    private.write_bytes(key.as_pem(private=True))
    public.write_bytes(key.as_pem(private=False))
    form = ("--form", "token")
    token = Answer("sign", WATCH, "--key", private, "--key-id", "new", *form).out.strip()
    assert claims_of(public, token).channels == ("alice",)
    refused = Answer("sign", WATCH, "--key", public, "--key-id", "new").error
    assert "is not a private key" in str(refused)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((WATCH,), "give -c FILE or --key FILE"),
        ((WATCH, "-c", "{config}", "--form", "cookie"), "is none of query, path, token"),
        ((WATCH, "-c", "{config}", "--form", "path"), "is for /live/ alone"),
        ((WATCH, "-c", "{config}", "--key-id", "app"), "has no HS256 key 'app'"),
        (("https://a.example/", "-c", "{config}"), "has no channel"),
        (("https://a.example/watch/", "-c", "{config}"), "has no channel"),
        ((WATCH, "-c", "{config}", "--channel", "*****"), "has more than 4 stars"),
        ((WATCH, "-c", "{config}", "--channel", "A B"), "channels"),
        ((WATCH, "-c", "{config}", "--ip", "10.0.0.1/8"), "neither an address nor a network"),
        ((WATCH, "--key", "{secret}.none"), "No such file"),
        ((WATCH, "--key", "{config}.short"), "has 1 bytes, HS256 needs 32"),
    ],
)
def test_what_is_not_signed(
    arguments: tuple[str, ...], why: str, config: Path, secret: Path
) -> None:
    Path(f"{config}.short").write_text("x")
    filled = [text.format(config=config, secret=secret) for text in arguments]
    answer = Answer("sign", *filled)
    assert isinstance(answer.error, ConfigError)
    assert why in str(answer.error)
    assert answer.out == ""
    assert SECRET not in str(answer.error)
