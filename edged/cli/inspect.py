"""`edged streams` and `edged route`: what a running process sees and decides."""

import os
from pathlib import Path
from typing import Annotated

import msgspec
import trio
import typer
from rich.markup import escape
from rich.text import Text

from edged.api.admin import ask, default_sockets, demo_directory, require_private
from edged.cli.output import console, print_json, print_table
from edged.config import load_config
from edged.errors import EdgedError
from edged.roles.common import StreamLine
from edged.roles.pop import RouteAnswer

route_app = typer.Typer(help="Where streams go, and why.", no_args_is_help=True)

ConfigOption = Annotated[
    Path | None, typer.Option("-c", "--config", help="Ask the edged that runs with this file.")
]
SocketOption = Annotated[Path | None, typer.Option("--socket", help="Ask at this admin socket.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@route_app.callback()
def _group() -> None:
    """Where streams go, and why."""


def streams(
    *, config: ConfigOption = None, socket: SocketOption = None, as_json: JsonOption = False
) -> None:
    """List the live streams of the edged that runs on this host."""
    answer = ask_running("streams", {}, config, socket)
    lines = msgspec.json.decode(answer, type=list[StreamLine])
    if as_json:
        print_json(lines)
        return
    if not lines:
        console.print("no live streams")
        return
    print_table(
        "",
        ("role", "channel", "from", "to", "video", "audio", "live", "Mbps", "GOP", "viewers"),
        [
            (
                line.role,
                Text(line.channel, "bold"),
                line.came_from,
                line.goes_to,
                line.video,
                line.audio,
                format_duration(line.seconds),
                f"{line.mbps:.2f}",
                f"{line.gop_s:.1f} s" if line.gop_s else "",
                str(line.viewers),
            )
            for line in lines
        ],
    )


@route_app.command("explain")
def explain(
    channel: Annotated[str, typer.Argument(help="The channel.")],
    *,
    config: ConfigOption = None,
    socket: SocketOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which origin a channel goes to, by which rule, and why not to the others."""
    answer = ask_running("route-explain", {"channel": channel}, config, socket)
    routes = msgspec.json.decode(answer, type=list[RouteAnswer])
    if as_json:
        print_json(routes)
        return
    for route in routes:
        _print_route(route)


def _print_route(route: RouteAnswer) -> None:
    now = route.now
    decision = route.placed or now.decision
    console.print(f"PoP [bold]{escape(route.pop)}[/], channel [bold]{escape(route.channel)}[/]")
    if decision is not None:
        what = (
            "is published here and goes to" if route.live else "is not published here; would go to"
        )
        matched = f", matched {escape(repr(decision.matched))}" if decision.matched else ""
        origin, address, rule = map(escape, (decision.origin, decision.address, decision.rule))
        console.print(f"  {what} [bold green]{origin}[/] at {address}")
        console.print(f"  rule: [bold]{rule}[/]{matched} (table v{decision.table_version})")
    else:
        console.print(f"  would be refused: [bold red]{escape(now.refusal)}[/]")
    if now.table is None:
        console.print("  no routing table has come yet")
    else:
        age = f", issued {route.table_age_s:.1f} s ago" if route.table_age_s is not None else ""
        lease = (
            f"for {now.lease_left_s:.1f} s" if now.lease_left_s > 0 else "expired: price decides"
        )
        console.print(f"  table in force: epoch {now.table[0]} v{now.table[1]}{age}; lease {lease}")
    print_table(
        "",
        ("origin", "now", "state", "heartbeats", "RTT", "ours/quota", "room", "price"),
        [
            (
                verdict.origin,
                verdict.verdict,
                str(verdict.table_state),
                str(verdict.heartbeat_state or "none heard"),
                f"{verdict.rtt_ms:.2f} ms" if verdict.rtt_ms is not None else "",
                f"{verdict.used}/{verdict.quota}",
                str(verdict.room),
                f"{verdict.price_ms:.1f} ms",
            )
            for verdict in now.origins
        ],
    )


def ask_running(
    command: str, arguments: dict[str, str], config: Path | None, socket: Path | None
) -> bytes:
    """Ask the edged of the file or the socket given, or whichever runs on this host."""
    return trio.run(ask, find_socket(config, socket), command, arguments)


def find_socket(config: Path | None, socket: Path | None) -> Path:
    """Where the edged of the file or the socket given answers, or whichever runs on this host."""
    place = socket
    if place is None and config is not None:
        place = load_config(config).admin.socket
    elif place is None:
        place = next(filter(_is_there, default_sockets()), None)
    if place is None:
        raise EdgedError(
            "no edged runs here (no admin socket found); give -c FILE or --socket PATH"
        )
    return place


def _is_there(socket: Path) -> bool:
    """Whether one of the usual places has a socket; raises `ConfigError` when others may own it."""
    if socket.parent == demo_directory() and os.path.lexists(socket.parent):
        require_private(socket.parent)
    try:
        return socket.exists()
    except PermissionError:  # Another user's service; this user is no administrator of it.
        return False


def format_duration(seconds: float) -> str:
    """Hours, minutes and seconds, as long as needed."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
