"""`edged irs standby`: another IRS is to be the active one, before work on this host."""

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
    ask_place,
    find_sockets,
)
from edged.cli.irs_status import describe
from edged.cli.output import console, errors, print_json
from edged.errors import EdgedError
from edged.irs.seat import STAND_BY_S, SeatSeen

POLL_S = 0.1
WAIT_S_MAX = STAND_BY_S + 2.0  # Then this one is active again, or its PoPs do not answer it.


def irs_standby(
    *,
    config: ConfigOption = None,
    socket: SocketOption = None,
    shard: ShardOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have the active IRS of this host give way to another, and show which one takes over.

    Where none does, this one goes on, and the command fails.
    """
    (place, *others) = find_sockets(Where(config=config, socket=socket, shard=shard))
    if others:
        raise EdgedError("several run here: say which by --shard N or --socket PATH")
    seen, took_s = trio.run(_ask, place)
    if as_json:
        print_json(seen)
    elif seen.active_at:
        where = f"[bold]{escape(seen.active_at)}[/]"
        console.print(f"{where} is active, as PoPs reach it, after {took_s:.1f} s", soft_wrap=True)
    else:
        for line in describe(seen):
            console.print(line, soft_wrap=True)
    if not seen.active_at:
        errors.print("[bold red]error[/] no other IRS took over")
        raise typer.Exit(EXIT_FAILED)


async def _ask(place: Place) -> tuple[SeatSeen, float]:
    """What it is once another is active, or it is again, and after how long."""
    began_at = trio.current_time()
    command = "irs-standby"
    while True:
        answer = await ask_place(place, command, {})
        (seen,) = msgspec.json.decode(answer, type=list[SeatSeen])
        took_s = trio.current_time() - began_at
        if seen.active_at or seen.leads or took_s >= WAIT_S_MAX:
            return seen, took_s
        await trio.sleep(POLL_S)
        command = "irs-status"
