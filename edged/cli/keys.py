"""`edged key`: stream keys."""

import json
import secrets
import time
from pathlib import Path
from typing import Annotated

import typer

from edged.cli.output import console, print_json
from edged.config import load_config
from edged.errors import ConfigError
from edged.media.latency import DEFAULT, LATENCY_LABELS
from edged.media.stream import PriorityClass
from edged.policy.latency import find_label_problem
from edged.policy.stream_keys import (
    SCOPE_PUBLISH,
    StaticKey,
    make_signed_key,
    make_static_key,
)
from edged.runtime.structs import Problem, convert_all

key_app = typer.Typer(help="Make stream keys.", no_args_is_help=True)


@key_app.callback()
def _group() -> None:
    """Make stream keys."""


@key_app.command("new")
def new(
    channel: Annotated[str, typer.Argument(help="The channel that the key may publish.")],
    *,
    config: Annotated[
        Path | None,
        typer.Option(
            "-c", "--config", help="Sign with the first secret of this file's stream_keys."
        ),
    ] = None,
    days: Annotated[
        float | None, typer.Option(help="Days that a signed key is valid; for ever if not given.")
    ] = None,
    priority: Annotated[
        str, typer.Option("--class", help="partner, affiliate or basic.")
    ] = "basic",
    latency: Annotated[
        str, typer.Option(help="The latency class: default, low, ultra or standard.")
    ] = DEFAULT,
    title: Annotated[str, typer.Option(help="The stream's title.")] = "",
    tag: Annotated[list[str] | None, typer.Option(help="A tag; may be given many times.")] = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(help="Allow only this protocol, such as rtmps; may be given many times."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a stream key: signed when the file given has a secret, else a line for the file."""
    priority = priority.lower()
    if priority.upper() not in PriorityClass.__members__:
        raise ConfigError(f"--class {priority!r} is none of partner, affiliate, basic")
    if latency not in LATENCY_LABELS:
        raise ConfigError(f"--latency {find_label_problem(latency)}")
    scope = [f"{SCOPE_PUBLISH}:{name}" for name in protocol or ()]
    secrets_known = load_config(config).stream_keys.secrets if config else {}
    if not secrets_known:
        if days is not None:
            raise ConfigError("--days needs a signed key: give -c FILE with [stream_keys.secrets]")
        table: dict[str, object] = {"class": priority} if priority != "basic" else {}
        table |= {"latency": latency} if latency != DEFAULT else {}
        table |= {"title": title} if title else {}
        table |= {"tags": tag} if tag else {}
        table |= {"scope": scope} if scope else {}
        _print_static(channel, table, as_json=as_json)
        return
    signer, secret = next(iter(secrets_known.items()))
    key = make_signed_key(
        secret,
        channel,
        signer=signer,
        expires_at=None if days is None else time.time() + days * 86400,
        scope=scope or (SCOPE_PUBLISH,),
        priority=PriorityClass[priority.upper()],
        title=title,
        tags=tag or [],
        latency=latency,
    )
    if as_json:
        print_json({"channel": channel, "key": key, "signed_by": signer})
    else:
        console.print(key, soft_wrap=True)


def _print_static(channel: str, grants: dict[str, object], *, as_json: bool) -> None:
    key = make_static_key(secrets.token_bytes)
    table: dict[str, object] = {"channel": channel, "key": key, **grants}
    problems: list[Problem] = []
    convert_all(table, StaticKey, "", problems)
    if problems:
        raise ConfigError("; ".join(str(problem) for problem in problems))
    if as_json:
        print_json({"channel": channel, "key": key, "signed_by": None})
        return
    console.print("[dim]# Put this into the file of each PoP, then `edged reload`:[/]")
    # JSON's strings and lists are TOML's too, as long as characters stand for themselves.
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in table.items()]
    console.print(
        "\n".join(("[[stream_keys.static]]", *lines)), markup=False, highlight=False, soft_wrap=True
    )
