"""The admin door over HTTP, as the command line asks it: `[admin] listen`, with the token.

    EDGED_ADMIN_URL=http://127.0.0.1:1944 EDGED_ADMIN_TOKEN_FILE=token edged drain

For where the socket is not at hand: in another container, or at the other end of a tunnel (ssh -L).
The same lines go over it as over the socket (`api/admin.py`), one in each POST.
"""

import http.client
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import trio
from msgspec import Struct

from edged.api.admin import ANSWER_BYTES_MAX, Arguments, read_answer, write_request
from edged.api.admin_access import read_token
from edged.errors import ConfigError, EdgedError
from edged.policy.outbound import is_loopback_host

URL_VARIABLE = "EDGED_ADMIN_URL"
TOKEN_VARIABLE = "EDGED_ADMIN_TOKEN_FILE"  # noqa: S105 - a file's name is in it
COMMAND_PATH = "/command/"


class AdminUrl(Struct, frozen=True):
    """Where to ask, and what opens it."""

    host: str
    port: int
    token_file: Path

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def admin_url_of(environ: Mapping[str, str]) -> AdminUrl | None:
    """What the environment says; None when it says nothing. Raises `ConfigError`."""
    url, token_file = environ.get(URL_VARIABLE, ""), environ.get(TOKEN_VARIABLE, "")
    if not url:
        return None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise ConfigError(f"{URL_VARIABLE} {url!r}: {error}") from error
    if parts.scheme != "http" or not host or port is None or parts.path not in ("", "/"):
        raise ConfigError(f"{URL_VARIABLE} {url!r} is not http://HOST:PORT")
    if not is_loopback_host(host):
        raise ConfigError(
            f"{URL_VARIABLE} {url!r} is not on loopback: a token goes there in the clear;"
            " reach others through a tunnel, such as ssh -L"
        )
    if not token_file:
        raise ConfigError(f"{URL_VARIABLE} needs {TOKEN_VARIABLE}, the file with its token")
    return AdminUrl(host, port, Path(token_file))


async def ask_url(
    place: AdminUrl, command: str, arguments: Arguments, *, timeout_s: float = 5.0
) -> bytes:
    """Ask; the JSON of the result. Raises `EdgedError` with what went wrong."""
    token = read_token(place.token_file, TOKEN_VARIABLE).decode("latin-1")
    body = write_request(command, arguments)

    def post() -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(place.host, place.port, timeout=timeout_s)
        try:
            fields = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            connection.request("POST", COMMAND_PATH, body, fields)
            answer = connection.getresponse()
            return answer.status, answer.read(ANSWER_BYTES_MAX + 1)
        finally:
            connection.close()

    try:
        with trio.fail_after(timeout_s):
            status, data = await trio.to_thread.run_sync(post, abandon_on_cancel=True)
    except (TimeoutError, trio.TooSlowError) as error:
        raise EdgedError(f"edged at {place} did not answer in {timeout_s:g} s") from error
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or error
        raise EdgedError(f"no edged answers at {place}: {why}") from error
    if status != http.client.OK:
        reason = data[:500].decode("utf-8", "replace").strip()
        raise EdgedError(f"edged at {place} refuses: {reason}")
    return read_answer(data, str(place))
