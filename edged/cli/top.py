"""`edged top`: the running edged as a live table, in a terminal."""

import sys
import time
from collections.abc import Callable
from typing import Annotated

import msgspec
import typer
from rich.live import Live

from edged.cli.asking import ConfigOption, JsonOption, ShardOption, SocketOption, Where, ask_one
from edged.cli.output import console, print_json
from edged.cli.top_screen import Screen
from edged.errors import EdgedError
from edged.roles.status import SORTS, Status

INTERVAL_S_MIN = 0.2
PIPED_COLUMNS = 120  # Where there is no terminal that says how wide it is: every column.
ROWS_PIPED = 100
ROWS_LIVE_MIN = 10


def top(
    *,
    config: ConfigOption = None,
    socket: SocketOption = None,
    shard: ShardOption = None,
    sort: Annotated[
        str, typer.Option(help=f"Order of the streams: {', '.join(SORTS)}.")
    ] = "attention",
    text: Annotated[
        str, typer.Option("--filter", help="Only streams with this in channel, title or place.")
    ] = "",
    limit: Annotated[int, typer.Option(help="Streams at most; 0 for as many as fit.")] = 0,
    interval: Annotated[float, typer.Option(help="Seconds between looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look once.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show streams, bitrates, frame rates, lag, links and viewers, as they change."""
    if sort not in SORTS:
        raise EdgedError(f"--sort {sort!r} is none of {', '.join(SORTS)}")
    if limit < 0:
        raise EdgedError(f"--limit {limit} is less than 0")
    is_live = sys.stdout.isatty() and not once and not as_json
    rows = limit or (max(ROWS_LIVE_MIN, console.height) if is_live else ROWS_PIPED)
    where = Where(config=config, socket=socket, shard=shard)
    query = {"sort": sort, "filter": text, "limit": str(rows)}

    def look() -> Status:
        return msgspec.json.decode(ask_one("status", query, where), type=Status)

    if as_json:
        print_json(look())
    elif is_live:
        _run(look, max(INTERVAL_S_MIN, interval), limit)
    else:
        width = console.width if sys.stdout.isatty() else PIPED_COLUMNS
        console.print(Screen(look(), rows), width=width)


def _run(look: Callable[[], Status], interval_s: float, limit: int) -> None:
    """Show until Ctrl-C; while edged does not answer, what it said last, and for how long not."""
    status = look()  # If there is no edged to begin with, that is the answer.
    came_at = time.monotonic()
    try:
        with Live(Screen(status, limit), console=console, screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(interval_s)
                trouble = ""
                try:
                    status, came_at = look(), time.monotonic()
                except EdgedError as error:
                    trouble = str(error)
                age_s = time.monotonic() - came_at
                screen = Screen(status, limit, trouble=trouble, age_s=age_s)
                live.update(screen, refresh=True)
    except KeyboardInterrupt:
        return
