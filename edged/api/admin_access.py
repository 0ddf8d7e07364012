"""Who may look at the status page: one token, sessions made with it, and wrong ones counted.

The page is for loopback only, reached from afar through a tunnel (`ssh -L`). A browser trades the
token, sent as `Authorization: Bearer`, for a session in an HttpOnly cookie; programs send the token
each time. It is never in a URL that a server or a log could see.

Every peer is on this host, so wrong tokens are counted together, not by address; who has a session
already is let in meanwhile. A name that resolves to loopback is not enough: DNS rebinding makes
browsers say any, so the Host must be a loopback address or `localhost`.
"""

import hashlib
import hmac
import stat
from collections import deque
from collections.abc import Callable
from pathlib import Path

from edged.api.admin import AdminConfig
from edged.errors import ConfigError, EdgedError
from edged.runtime.listeners import parse_address
from edged.runtime.tls import is_loopback

TOKEN_CHARS_MIN = 16  # Of base64 96 bits: beyond guessing at the rate below.
TOKEN_BYTES_MAX = 4096
WRONG_TOKENS_MAX = 10  # A person who mistypes has that many attempts
WINDOW_S = 60.0  # within a minute.
SESSIONS_MAX = 64  # Browsers of one host; beyond it the oldest has to log in again.
SESSION_S_MAX = 12 * 3600.0  # A working day.
SESSION_BYTES = 32
COOKIE_BYTES_MAX = 16 * 1024  # The head's own limit.
BEARER = b"bearer "


class AccessRefusedError(EdgedError):
    """Not let in; `retry_s` says when it is of use to ask again."""

    def __init__(self, status: int, reason: str, retry_s: int | None = None) -> None:
        self.status = status
        self.retry_s = retry_s
        super().__init__(reason)


class AdminAccess:
    """Decides who is let in. `now` is monotonic seconds."""

    def __init__(
        self, token_sha256: bytes, *, entropy: Callable[[int], bytes], cookie: str
    ) -> None:
        assert len(token_sha256) == hashlib.sha256().digest_size, "it is a digest"
        self.cookie = cookie  # Its name: two edgeds of one host have two.
        self.wrong_total = 0
        self._token_sha256 = token_sha256
        self._entropy = entropy
        self._wrong_at: deque[float] = deque(maxlen=WRONG_TOKENS_MAX)
        self._sessions: dict[bytes, float] = {}  # Digest of the cookie's value -> when it ends.

    def login(self, authorization: bytes, now: float) -> str:
        """Trade the token for a session: its cookie's value. Raises `AccessRefusedError`."""
        self._check_token(authorization, now)
        value = self._entropy(SESSION_BYTES).hex()
        self._sessions = {key: until for key, until in self._sessions.items() if until > now}
        while len(self._sessions) >= SESSIONS_MAX:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[_digest(value.encode())] = now + SESSION_S_MAX
        return value

    def logout(self, cookie: bytes) -> None:
        """End a session, if it is one."""
        self._sessions.pop(_digest(self._value(cookie)), None)

    def check(self, authorization: bytes, cookie: bytes, now: float) -> None:
        """Raise `AccessRefusedError` unless a session or the token lets the request in."""
        value = self._value(cookie)
        if value and self._sessions.get(_digest(value), now) > now:
            return
        self._check_token(authorization, now)

    def set_cookie(self, value: str) -> str:
        """The Set-Cookie field of a login; an empty value ends the browser's session."""
        age_s = SESSION_S_MAX if value else 0
        return f"{self.cookie}={value}; Max-Age={age_s:.0f}; Path=/; HttpOnly; SameSite=Strict"

    def _check_token(self, authorization: bytes, now: float) -> None:
        if not authorization:
            raise AccessRefusedError(401, "this needs the token of [admin]")
        wrong = self._wrong_at
        if len(wrong) == WRONG_TOKENS_MAX and (left_s := wrong[0] + WINDOW_S - now) > 0:
            raise AccessRefusedError(
                429,
                f"{len(wrong)} wrong tokens within {WINDOW_S:g} s; try again in {left_s:.0f} s",
                max(1, round(left_s)),
            )
        scheme, token = authorization[: len(BEARER)], authorization[len(BEARER) :].strip()
        right = hmac.compare_digest(_digest(token), self._token_sha256)
        if scheme.lower() != BEARER or not right:
            wrong.append(now)
            self.wrong_total += 1
            raise AccessRefusedError(401, "the token is wrong")

    def _value(self, cookie: bytes) -> bytes:
        """Our cookie's value in a Cookie field (RFC 6265 §4.2.1)."""
        for pair in cookie[:COOKIE_BYTES_MAX].split(b";"):
            name, _, value = pair.strip().partition(b"=")
            if name == self.cookie.encode():
                return value
        return b""


def is_own_host(host: bytes) -> bool:
    """Whether a Host field names this machine by loopback; the port may be a tunnel's."""
    try:
        text = host.decode("ascii").lower()
    except UnicodeDecodeError:
        return False
    name, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        name = text
    elif not port.isdigit():
        return False
    if name.startswith("[") != name.endswith("]"):
        return False
    return ("[" in name or ":" not in name) and is_loopback(name)


def read_token_sha256(config: AdminConfig) -> bytes:
    """The digest of the configured token; raises `ConfigError` when it cannot be had."""
    if config.token_sha256 is not None:
        return bytes.fromhex(config.token_sha256)
    assert config.token_file is not None, "checked with the table"
    return _digest(read_token(config.token_file, "admin.token_file"))


def find_problems(config: AdminConfig) -> list[str]:
    """What the table's own limits do not say."""
    if config.listen is None:
        return []
    problems = []
    try:
        host = parse_address(config.listen)[0]
    except ConfigError:
        return []  # Said of every listener.
    if not is_loopback(host):
        problems.append(
            f"listen: {config.listen!r} is not on loopback; the page names addresses and routes: "
            "reach it from afar through a tunnel, such as ssh -L"
        )
    if config.token_file is not None and not config.token_file.is_file():
        problems.append(f"token_file: {str(config.token_file)!r} is not a file that can be found")
    return problems


def read_token(path: Path, key: str) -> bytes:
    """The token in a file; raises `ConfigError`, which says that `key` named it."""
    where = f"{key} {str(path)!r}"
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(path.stat().st_mode)
            token = file.read(TOKEN_BYTES_MAX + 1).strip()
    except OSError as error:
        raise ConfigError(f"{where}: {error.strerror or error}") from error
    if mode & 0o007:
        raise ConfigError(f"{where}: is open to everyone, mode {mode:o}: chmod 600 it")
    if not TOKEN_CHARS_MIN <= len(token) <= TOKEN_BYTES_MAX:
        raise ConfigError(
            f"{where}: a token of {len(token)} bytes; it must have "
            f"{TOKEN_CHARS_MIN} to {TOKEN_BYTES_MAX}"
        )
    return token


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
