"""`edged sign`: URLs for viewers of protected channels."""

import time
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit, urlunsplit

import typer
from msgspec import Struct

from edged.cli.operate import parse_duration
from edged.cli.output import console, print_json
from edged.config import load_config
from edged.errors import ConfigError
from edged.playback.token_keys import (
    FILE_BYTES_MAX,
    Key,
    TokenKey,
    TokenKeys,
    algorithm_of,
    import_key,
    sign_token,
)
from edged.policy.playback_rights import Algorithm, RightsConfig, TokenRefusedError, read_claims

PAGES = ("live", "watch")
FORMS = ("query", "path", "token")
CHANNEL_AT = 2  # Of a path's pieces: "", live, CHANNEL.
FOR_DEFAULT = "12h"


class _Signer(Struct, frozen=True):
    """What signs."""

    key: Key
    algorithm: Algorithm
    key_id: str


def sign(
    url: Annotated[
        str, typer.Argument(help="http(s)://HOST/watch/CHANNEL or .../live/CHANNEL/master.m3u8")
    ],
    *,
    config: Annotated[
        Path | None,
        typer.Option(
            "-c", "--config", help="Sign with the first HS256 key of this file, or --key-id."
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(help="A file with the key instead: an HS256 secret, or a private key in PEM."),
    ] = None,
    key_id: Annotated[str, typer.Option(help="The key's id, which the token names (kid).")] = "",
    lasting: Annotated[
        str, typer.Option("--for", help="How long it is valid, such as 30m, 12h or 7d.")
    ] = FOR_DEFAULT,
    channel: Annotated[
        list[str] | None,
        typer.Option(help="What it may play instead of the URL's channel; * stands for any text."),
    ] = None,
    ip: Annotated[
        str, typer.Option(help="The only address, or network, from where it may be used.")
    ] = "",
    form: Annotated[
        str,
        typer.Option(help="query: ?token=, path: /t/TOKEN/, token: the token alone, for others."),
    ] = "query",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Sign a URL of a protected channel, so that who has it may play for some time."""
    if form not in FORMS:
        raise ConfigError(f"--form {form!r} is none of {', '.join(FORMS)}")
    audience = ""
    if key is not None:
        signer = _read_key(key, key_id)
    elif config is not None:
        rights = load_config(config).playback.rights
        signer, audience = _choose_key(config, rights, key_id), rights.audience
    else:
        raise ConfigError("give -c FILE or --key FILE: one of them has the key")
    expires_s = int(time.time() + parse_duration("--for", lasting))
    claims: dict[str, object] = {"channels": channel or [_channel_of(url)], "exp": expires_s}
    claims |= {"ip": ip} if ip else {}
    claims |= {"aud": audience} if audience else {}
    token = sign_token(claims, signer.key, algorithm=signer.algorithm, key_id=signer.key_id)
    _check(token, signer, audience)
    made = token if form == "token" else _put(url, token, form)
    if as_json:
        print_json({"url": made, "token": token, "claims": claims, "key_id": signer.key_id})
    else:
        console.print(made, soft_wrap=True, markup=False)


def _choose_key(config: Path, rights: RightsConfig, key_id: str) -> _Signer:
    """The first of a file's keys that can sign, or the one of that name."""
    named = [(one.id, one.file) for one in rights.keys if one.algorithm == "HS256"]
    found = next((one for one in named if key_id in ("", one[0])), None)
    if found is None:
        what = f"no HS256 key {key_id!r}" if key_id else "no HS256 key, which alone can sign"
        raise ConfigError(f"{config}: playback.rights has {what}; give --key FILE")
    return _read_key(Path(found[1]), found[0])


def _read_key(path: Path, key_id: str) -> _Signer:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(f"{path} exceeds {FILE_BYTES_MAX} bytes")
    try:
        algorithm = algorithm_of(data)
        return _Signer(import_key(algorithm, data, private=True), algorithm, key_id)
    except ConfigError as error:
        raise ConfigError(f"{path} {error}") from None


def _check(token: str, signer: _Signer, audience: str) -> None:
    """No token leaves that no edge would take."""
    keys = TokenKeys({signer.key_id: TokenKey(signer.algorithm, signer.key)})
    try:
        read_claims(keys.verify(token), audience)
    except TokenRefusedError as error:
        raise ConfigError(str(error)) from None


def _channel_of(url: str) -> str:
    """The channel that a URL names; raises `ConfigError` for one that names none."""
    pieces = urlsplit(url).path.split("/")
    if len(pieces) <= CHANNEL_AT or pieces[1] not in PAGES or not pieces[CHANNEL_AT]:
        raise ConfigError(f"{url!r} has no channel: it is HOST/watch/CHANNEL or HOST/live/CHANNEL/")
    return unquote(pieces[CHANNEL_AT])


def _put(url: str, token: str, form: str) -> str:
    parts = urlsplit(url)
    if form == "query":
        query = f"{parts.query}&token={token}" if parts.query else f"token={token}"
        return urlunsplit(parts._replace(query=query))
    if not parts.path.startswith("/live/"):
        raise ConfigError("--form path is for /live/ alone; the page takes ?token=")
    return urlunsplit(parts._replace(path=f"/t/{token}{parts.path}"))
