"""Who may look at the status page."""

import hashlib
from pathlib import Path

import pytest

from edged.api.admin import AdminConfig
from edged.api.admin_access import (
    SESSION_S_MAX,
    SESSIONS_MAX,
    TOKEN_BYTES_MAX,
    TOKEN_CHARS_MIN,
    WINDOW_S,
    WRONG_TOKENS_MAX,
    AccessRefusedError,
    AdminAccess,
    find_problems,
    is_own_host,
    read_token_sha256,
)
from edged.errors import ConfigError

TOKEN = "the-token-of-this-test"  # noqa: S105 - it opens nothing
RIGHT, WRONG = f"Bearer {TOKEN}".encode(), b"Bearer something-else-altogether"
DIGEST = hashlib.sha256(TOKEN.encode()).hexdigest()


def make_access() -> AdminAccess:
    made = 0

    def entropy(count: int) -> bytes:
        nonlocal made
        made += 1
        return made.to_bytes(count, "big")

    return AdminAccess(bytes.fromhex(DIGEST), entropy=entropy, cookie="edged_admin_1")


def cookie(value: str) -> bytes:
    return f"other=1; edged_admin_1={value}; last=2".encode()


def refusal(access: AdminAccess, authorization: bytes, sent: bytes, now: float) -> int:
    with pytest.raises(AccessRefusedError) as caught:
        access.check(authorization, sent, now)
    return caught.value.status


def test_the_token_lets_in_and_nothing_else() -> None:
    access = make_access()
    access.check(RIGHT, b"", 0.0)
    access.check(f"bearer  {TOKEN} ".encode(), b"", 0.0)
    for wrong in (WRONG, TOKEN.encode(), b"Basic " + RIGHT[7:], RIGHT + b"x", b"Bearer "):
        assert refusal(access, wrong, b"", 0.0) == 401
    assert refusal(access, b"", b"", 0.0) == 401
    assert access.wrong_total == 5, "nothing sent is nothing guessed"


def test_a_session_lets_in_until_it_is_over() -> None:
    access = make_access()
    value = access.login(RIGHT, 0.0)
    access.check(b"", cookie(value), SESSION_S_MAX - 1)
    assert refusal(access, b"", cookie(value), SESSION_S_MAX) == 401
    for strange in ("", "0" * 64, value[:-1]):
        assert refusal(access, b"", cookie(strange), 1.0) == 401
    assert refusal(access, b"", f"edged_admin_2={value}".encode(), 1.0) == 401
    assert access.wrong_total == 0


def test_a_session_ends_by_logout() -> None:
    access = make_access()
    value, other = access.login(RIGHT, 0.0), access.login(RIGHT, 0.0)
    assert value != other
    access.logout(cookie(value))
    access.logout(b"")
    assert refusal(access, b"", cookie(value), 1.0) == 401
    access.check(b"", cookie(other), 1.0)


def test_beyond_the_most_sessions_the_oldest_goes() -> None:
    access = make_access()
    values = [access.login(RIGHT, 0.0) for _ in range(SESSIONS_MAX + 1)]
    assert refusal(access, b"", cookie(values[0]), 1.0) == 401
    access.check(b"", cookie(values[1]), 1.0)
    access.check(b"", cookie(values[-1]), 1.0)


def test_wrong_tokens_are_counted_and_then_none_is_looked_at() -> None:
    access = make_access()
    session = access.login(RIGHT, 0.0)
    for attempt in range(WRONG_TOKENS_MAX):
        assert refusal(access, WRONG, b"", float(attempt)) == 401
    assert refusal(access, RIGHT, b"", 10.0) == 429
    with pytest.raises(AccessRefusedError, match="10 wrong tokens within 60 s") as caught:
        access.login(RIGHT, 10.0)
    assert caught.value.retry_s == 50
    access.check(b"", cookie(session), 10.0)  # Who is in stays in.
    access.check(RIGHT, b"", WINDOW_S)
    assert refusal(access, WRONG, b"", WINDOW_S) == 401
    assert refusal(access, RIGHT, b"", WINDOW_S + 0.5) == 429


def test_the_cookie_is_for_this_page_alone() -> None:
    access = make_access()
    field = access.set_cookie("abc")
    assert field == "edged_admin_1=abc; Max-Age=43200; Path=/; HttpOnly; SameSite=Strict"
    assert access.set_cookie("").startswith("edged_admin_1=; Max-Age=0;")


@pytest.mark.parametrize(
    "host",
    [
        b"127.0.0.1",
        b"127.0.0.1:9465",
        b"127.1.2.3:1",
        b"localhost",
        b"LOCALHOST:8080",
        b"[::1]",
        b"[::1]:9465",
    ],
)
def test_own_hosts(host: bytes) -> None:
    assert is_own_host(host)


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b"evil.example",
        b"evil.example:9465",
        b"localhost.evil.example",
        b"127.0.0.1.evil.example:9465",
        b"192.0.2.1:9465",
        b"127.0.0.1:evil",
        b"::1",
        b"::1:9465",
        b"[::1",
        b"::1]",
        b"[2001:db8::1]:9465",
        "höst".encode(),
        b"0.0.0.0:9465",
    ],
)
def test_hosts_of_others(host: bytes) -> None:
    """A name that an attacker made resolve to loopback is not ours."""
    assert not is_own_host(host)


def test_the_token_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(f"  {TOKEN}\n")
    path.chmod(0o640)
    config = AdminConfig(listen="127.0.0.1:0", token_file=path)
    assert read_token_sha256(config).hex() == DIGEST
    assert find_problems(config) == []
    config = AdminConfig(listen="127.0.0.1:0", token_sha256=DIGEST)
    assert read_token_sha256(config).hex() == DIGEST


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        ("x" * TOKEN_CHARS_MIN, 0o604, "is open to everyone, mode 604"),
        ("x" * (TOKEN_CHARS_MIN - 1), 0o600, "a token of 15 bytes; it must have 16 to 4096"),
        ("x" * (TOKEN_BYTES_MAX + 1), 0o600, "a token of 4097 bytes"),
        (" \n", 0o600, "a token of 0 bytes"),
    ],
)
def test_token_files_that_are_none(content: str, mode: int, message: str, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=message):
        read_token_sha256(AdminConfig(listen="127.0.0.1:0", token_file=path))


def test_what_a_file_may_not_say(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    config = AdminConfig(listen="0.0.0.0:9465", token_file=gone)
    problems = find_problems(config)
    assert len(problems) == 2
    assert "listen: '0.0.0.0:9465' is not on loopback" in problems[0]
    assert "ssh -L" in problems[0]
    assert "gone' is not a file that can be found" in problems[1]
    with pytest.raises(ConfigError, match="No such file"):
        read_token_sha256(config)
    assert find_problems(AdminConfig()) == []
    assert find_problems(AdminConfig(listen="nonsense", token_sha256=DIGEST)) == []


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"listen": "127.0.0.1:1"}, "listen needs a token"),
        ({"token_sha256": DIGEST}, "token_sha256 is of no use without listen"),
        ({"token_file": Path("x")}, "token_file is of no use without listen"),
        (
            {"listen": "127.0.0.1:1", "token_sha256": DIGEST, "token_file": Path("x")},
            "give one of them",
        ),
    ],
)
def test_tables_that_contradict_themselves(keys: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdminConfig(**keys)  # type: ignore[arg-type]
