"""`edged irs status`: whether the IRS of this host is the active one, and what it was asked."""

from datetime import UTC, datetime

from rich.markup import escape

from edged.cli.asking import ConfigOption, JsonOption, ShardOption, SocketOption, Where, ask_all
from edged.cli.inspect import format_duration
from edged.cli.output import console, print_json, print_table
from edged.irs.seat import SeatSeen

STYLES = {"active": "bold green", "alone": "bold green", "standby": "bold cyan"}


def irs_status(
    *,
    config: ConfigOption = None,
    socket: SocketOption = None,
    shard: ShardOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show whether the IRS of this host is the active one, by whose grants, and what is drained."""
    asked = ask_all("irs-status", {}, Where(config=config, socket=socket, shard=shard))
    found = asked.lines(SeatSeen)
    if as_json:
        print_json(found)
    else:
        for seen in found:
            _show(seen)
    asked.finish()


def _show(seen: SeatSeen) -> None:
    for line in describe(seen):
        console.print(line, soft_wrap=True)
    if seen.actions:
        rows = [
            (
                datetime.fromtimestamp(action.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
                action.what,
                action.origin,
                action.by,
            )
            for action in seen.actions
        ]
        print_table("", ("asked at", "what", "origin", "by"), rows)


def describe(seen: SeatSeen) -> list[str]:
    """What it is, in lines."""
    style = STYLES.get(seen.standing, "red")
    line = f"[{style}]{seen.standing}[/] for {format_duration(seen.for_s)}"
    heard = f"{seen.pops_here} of {seen.pops_known} PoPs are heard"
    if seen.active_at:  # As PoPs say, of which it hears a majority.
        line += f", as it should: {heard}, and it takes over when the active one is gone"
        return [line, *_rest(seen)]
    line += f", epoch {seen.epoch}"
    if seen.majority:
        line += f"; {seen.grants} of {seen.pops_known} PoPs grant it an epoch, {seen.majority} must"
    if seen.standing == "standby" and seen.pops_here < seen.majority:
        line += f"; [bold red]{heard}[/]: it cannot tell who is active"
    elif seen.standing == "standby":
        line += "; [bold red]no IRS is active[/]"
    return [line, *_rest(seen)]


def _rest(seen: SeatSeen) -> list[str]:
    lines = []
    if seen.active_at:
        lines.append(f"the active one is {escape(seen.active_at)}, as PoPs reach it")
    lines.append("drained: " + escape(", ".join(seen.drained) or "no origin"))
    kept = seen.state_file or "nowhere: see irs.state_file"
    lines.append(f"kept in {escape(kept)}")
    if seen.state_problem:
        lines.append(f"[bold red]not kept:[/] {escape(seen.state_problem)}")
    return lines
