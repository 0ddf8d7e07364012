"""`edged kick`, `edged drain`, `edged reload` and `edged log`: what is done to a running edged."""

import re
from typing import Annotated

import msgspec
import trio
import typer
from rich.markup import escape

from edged.cli import EXIT_FAILED
from edged.cli.asking import (
    ConfigOption,
    JsonOption,
    Place,
    ShardOption,
    SocketOption,
    Where,
    ask_all,
    ask_one,
    ask_place,
    find_sockets,
)
from edged.cli.origin_drain import drain_origin
from edged.cli.output import console, print_json, print_table
from edged.cli.run import shard_number
from edged.errors import EdgedError
from edged.roles.draining import DrainLine, DrainState
from edged.roles.operations import KickAnswer, ReloadAnswer
from edged.runtime.log import LevelStatus

log_app = typer.Typer(help="What a running edged logs.", no_args_is_help=True)

POLL_S = 0.5
UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)([smhd]?)", re.ASCII)


@log_app.callback()
def _group() -> None:
    """What a running edged logs."""


def kick(
    channel: Annotated[str, typer.Argument(help="The channel.")],
    *,
    reason: Annotated[str, typer.Option(help="What the encoder is told.")] = "",
    block: Annotated[
        str, typer.Option(help="Refuse the channel for so long here: 60s, 10m, 2h, 1d.")
    ] = "",
    config: ConfigOption = None,
    socket: SocketOption = None,
    shard: ShardOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a broadcast that is published here, and tell its encoder why."""
    arguments = {"channel": channel}
    if reason:
        arguments["reason"] = reason
    if block:
        arguments["block_s"] = str(parse_duration("--block", block))
    found = ask_all("kick", arguments, Where(config=config, socket=socket, shard=shard))
    answers = [msgspec.json.decode(answer, type=KickAnswer) for answer in found.answers]
    answer = KickAnswer(
        channel=channel,
        kicked=[pop for each in answers for pop in each.kicked],
        blocked_s=min(each.blocked_s for each in answers),
    )
    if as_json:
        print_json(answer)
    else:
        _tell_kick(answer)
    if block:  # Else the others have said only that it is not published there.
        found.finish()


def _tell_kick(answer: KickAnswer) -> None:
    shown = escape(answer.channel)
    if answer.kicked:
        console.print(f"[bold]{shown}[/] was ended at {escape(', '.join(answer.kicked))}")
    else:
        console.print(f"[bold]{shown}[/] is not published here")
    if answer.blocked_s:
        console.print(f"it is refused here for {answer.blocked_s:g} s")


def drain(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[origin [NAME]]",
            help="At IRS: an origin of the network, or how far each is; else what runs here.",
            show_default=False,
        ),
    ] = None,
    *,
    deadline: Annotated[
        str, typer.Option(help="By when all has to have left: 30s, 5m; else as configured.")
    ] = "",
    to: Annotated[
        str, typer.Option(help="rtmp://HOST/APP for publishers that can be asked to reconnect.")
    ] = "",
    undo: Annotated[
        bool, typer.Option("--undo", help="Take publishers and streams again.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Show how many are left until none is.")
    ] = True,
    config: ConfigOption = None,
    socket: SocketOption = None,
    shard: ShardOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have the roles of this host take nothing new and let go of what they have.

    It stays so until it is undone or the process ends. `edged drain origin NAME`, at IRS, has all
    PoPs take their live streams off an origin, which nobody notices; then it can be stopped.
    """
    given = what or []
    kind, name = (*given, "", "")[:2]
    if kind not in ("", "origin") or len(given) > 2:  # noqa: PLR2004 - `origin NAME`
        raise typer.BadParameter(f"{' '.join(given)!r} is not `origin NAME`")
    if undo and (deadline or to):
        raise typer.BadParameter("--undo takes no --deadline and no --to")
    if kind and (to or (undo and not name)):
        raise typer.BadParameter("origin takes no --to, and --undo needs its NAME")
    arguments = {"to": to} if to else {}
    if deadline:
        arguments["deadline_s"] = str(parse_duration("--deadline", deadline))
    (place, *others) = find_sockets(Where(config=config, socket=socket, shard=shard))
    if others:
        raise EdgedError("several run here: say which by --shard N or --socket PATH")
    if kind:
        deadline_s = parse_duration("--deadline", deadline) if deadline else None
        drain_origin(place, name, deadline_s, undo=undo, wait=wait, as_json=as_json)
        return
    lines = trio.run(_drain, place, arguments, undo, wait and not undo, as_json)
    if as_json:
        print_json(lines)
    if wait and not undo and any(line.left for line in lines):
        raise typer.Exit(EXIT_FAILED)


async def _drain(
    place: Place, arguments: dict[str, str], undo: bool, wait: bool, quiet: bool
) -> list[DrainLine]:
    command = "drain-undo" if undo else "drain"
    said: dict[str, str] = {}
    while True:
        answer = await ask_place(place, command, arguments)
        lines = msgspec.json.decode(answer, type=list[DrainLine])
        for line in lines if not quiet else ():
            text = describe(line)
            if said.get(line.role) != text:
                console.print(text, soft_wrap=True)
                said[line.role] = text
        if not wait or not any(line.state is DrainState.DRAINING for line in lines):
            return lines
        await trio.sleep(POLL_S)
        command, arguments = "drain-status", {}


def describe(line: DrainLine) -> str:
    """One role in a line."""
    role = f"[bold]{escape(line.role)}[/]"
    if line.note:
        return f"{role}: {escape(line.note)}"
    match line.state:
        case DrainState.SERVING:
            return f"{role}: takes what comes; {line.left} live"
        case DrainState.DRAINING:
            return f"{role}: {line.left} of {line.total} left, {line.seconds_left:.0f} s"
        case DrainState.DRAINED:
            return f"{role}: [green]drained[/], {line.left} of {line.total} left"


def reload(
    *,
    config: ConfigOption = None,
    socket: SocketOption = None,
    shard: Annotated[
        str, typer.Option("--shard", metavar="N|auto", help="Which shard; as of `edged run`.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Have a running edged read its file again: all of it takes effect, or nothing."""
    number = shard_number(shard, config)
    where = Where(config=config, socket=socket, shard=number)
    answer = msgspec.json.decode(ask_one("reload", {}, where), type=ReloadAnswer)
    if as_json:
        print_json(answer)
        return
    what = "nothing has changed" if not answer.changed else "in effect now:"
    console.print(f"{escape(answer.file)} is read; {what}", soft_wrap=True)
    for change in answer.changed:
        console.print(f"  [bold]{escape(change.key)}[/]: {escape(change.effect.text)}")
    for note in answer.notes:
        console.print(f"  [yellow]{escape(note)}[/]", soft_wrap=True)


@log_app.command("level")
def level(
    level: Annotated[
        str, typer.Argument(help="debug, info, warning, error, or configured; else it is shown.")
    ] = "",
    *,
    logger: Annotated[
        str, typer.Option(help="Of this logger and those below it, such as edged.rtmp.")
    ] = "",
    for_: Annotated[
        str, typer.Option("--for", help="For so long, then as configured: 60s, 10m, 2h, 1d.")
    ] = "",
    config: ConfigOption = None,
    socket: SocketOption = None,
    shard: ShardOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is logged, or set it while edged runs."""
    arguments = {"level": level} if level else {}
    if logger:
        arguments["logger"] = logger
    if for_:
        arguments["for_s"] = str(parse_duration("--for", for_))
    if not level and (logger or for_):
        raise typer.BadParameter("--logger and --for go with a level")
    answer = ask_one("log-level", arguments, Where(config=config, socket=socket, shard=shard))
    status = msgspec.json.decode(answer, type=LevelStatus)
    if as_json:
        print_json(status)
        return
    console.print(f"configured: [bold]{status.configured}[/]")
    print_table(
        "",
        ("logger", "level", "for"),
        [
            (entry.logger, entry.level, "" if entry.for_s is None else f"{entry.for_s:.0f} s")
            for entry in status.set
        ],
    )
    console.print(f"loggers: {', '.join(status.loggers)}", soft_wrap=True)


def parse_duration(option: str, text: str) -> float:
    """Seconds of "90", "60s", "10m", "2h" or "1d"; raises EdgedError."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise EdgedError(f"{option} {text!r} is no duration such as 60s, 10m, 2h, 1d")
    return float(found[1]) * UNITS_S[found[2]]
