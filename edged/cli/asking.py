"""Whom the command line asks: one edged, or all shards of a PoP on this host."""

import os
from collections.abc import Sequence
from pathlib import Path
from types import GenericAlias
from typing import Annotated, TypeVar

import msgspec
import trio
import typer
from msgspec import Struct
from rich.markup import escape

from edged.api.admin import ask, default_sockets, demo_directory, require_private
from edged.api.admin_url import URL_VARIABLE, AdminUrl, admin_url_of, ask_url
from edged.cli import EXIT_FAILED
from edged.cli.output import errors
from edged.config import load_config
from edged.errors import EdgedError
from edged.runtime.shards import SHARDS_MAX, of_shard

ConfigOption = Annotated[
    Path | None, typer.Option("-c", "--config", help="Ask the edged that runs with this file.")
]
SocketOption = Annotated[Path | None, typer.Option("--socket", help="Ask at this admin socket.")]
ShardOption = Annotated[
    int | None,
    typer.Option(
        "--shard", min=1, max=SHARDS_MAX, help="Ask this shard alone; else all are asked."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


Place = Path | AdminUrl
T = TypeVar("T")


class Where(Struct, frozen=True, kw_only=True):
    """What the options say of whom to ask."""

    config: Path | None = None
    socket: Path | None = None
    shard: int | None = None


class Answers(Struct):
    """What those who were asked said: each one's JSON, and why others said nothing."""

    answers: list[bytes]
    failures: list[str]

    def lines(self, kind: type[T]) -> list[T]:
        """What is in all their lists."""
        decoder: msgspec.json.Decoder[list[T]] = msgspec.json.Decoder(GenericAlias(list, (kind,)))
        return [line for answer in self.answers for line in decoder.decode(answer)]

    def finish(self) -> None:
        """Say who did not answer, after what the others said; then the command has failed."""
        for failure in self.failures:
            errors.print(f"[bold red]error[/] {escape(failure)}", soft_wrap=True)
        if self.failures:
            raise typer.Exit(EXIT_FAILED)


def ask_all(command: str, arguments: dict[str, str], where: Where) -> Answers:
    """Ask every edged that the options mean; raises `EdgedError` when none of them answers."""
    found = Answers([], [])
    places = find_sockets(where)
    for place in places:
        try:
            found.answers.append(trio.run(ask_place, place, command, arguments))
        except EdgedError as error:
            found.failures.append(str(error))
    if not found.answers:
        raise EdgedError("; ".join(found.failures))
    return found


def ask_one(command: str, arguments: dict[str, str], where: Where) -> bytes:
    """Ask the one edged that the options mean; raises `EdgedError` when several run here."""
    places = find_sockets(where)
    if len(places) > 1:
        names = ", ".join(map(str, places))
        raise EdgedError(f"several run here ({names}): say which by --shard N or --socket PATH")
    return trio.run(ask_place, places[0], command, arguments)


async def ask_place(place: Place, command: str, arguments: dict[str, str]) -> bytes:
    """Ask there, by whichever door it is; raises `EdgedError`."""
    if isinstance(place, AdminUrl):
        return await ask_url(place, command, arguments)
    return await ask(place, command, arguments)


def find_sockets(where: Where) -> Sequence[Place]:
    """The admin socket of the file or the one given, or whichever is on this host; and its shards'.

    Where no option says anything, EDGED_ADMIN_URL may.

    Raises `EdgedError` when nothing is said and nothing is found.
    """
    if where.socket is not None:
        return [where.socket]
    if where.config is not None:
        place = load_config(where.config, where.shard).admin.socket
        return [place] if where.shard is not None else _with_shards(place) or [place]
    if where.shard is None and (url := admin_url_of(os.environ)) is not None:
        return [url]
    for place in default_sockets():
        if found := _with_shards(place) if where.shard is None else _of_one(place, where.shard):
            return found
    what = "no admin socket found" if where.shard is None else f"no socket of shard {where.shard}"
    raise EdgedError(
        f"no edged runs here ({what}); give -c FILE or --socket PATH, or set {URL_VARIABLE}"
    )


def _of_one(place: Path, shard: int) -> list[Path]:
    its = of_shard(place, shard)
    return [its] if _is_there(its) else []


def _with_shards(place: Path) -> list[Path]:
    """Those of an unnumbered socket and of its shards' that are there."""
    numbered = [of_shard(place, shard) for shard in range(1, SHARDS_MAX + 1)]
    return [path for path in (place, *numbered) if _is_there(path)]


def _is_there(socket: Path) -> bool:
    """Whether one of the usual places has a socket; raises `ConfigError` when others may own it."""
    if socket.parent == demo_directory() and os.path.lexists(socket.parent):
        require_private(socket.parent)
    try:
        return socket.exists()
    except PermissionError:  # Another user's service; this user is no administrator of it.
        return False
