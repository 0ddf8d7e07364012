"""`edged live`: who is live where in the network, as its IRS knows it."""

import time
from typing import Annotated

import typer
from rich.markup import escape
from rich.text import Text

from edged.cli.asking import ConfigOption, JsonOption, ShardOption, SocketOption, Where, ask_all
from edged.cli.inspect import format_duration
from edged.cli.output import console, print_json, print_table
from edged.irs.live_board import LiveAnswer
from edged.irs.reach_seen import HOLDS, PopWay
from edged.policy.live_registry import LiveConflict, LiveSeen

COLUMNS = ("channel", "PoP", "origin", "class", "protocol", "live", "run", "")
WAY_COLUMNS = (
    *("PoP", "viewers", "comes from", "PoP's RTT", "origin's RTT", "held"),
    *("IRS orders", "rungs"),
)


def live(
    channel: Annotated[str, typer.Argument(help="This channel alone; else all.")] = "",
    *,
    text: Annotated[str, typer.Option(help="Those with this in their name.")] = "",
    pop: Annotated[str, typer.Option(help="At this PoP, or at one of its shards: ams1/2.")] = "",
    origin: Annotated[str, typer.Option(help="At this origin.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="So many lines at most.")] = 100,
    config: ConfigOption = None,
    socket: SocketOption = None,
    shard: ShardOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show at IRS who is live where in the network, and what is published at two PoPs.

    Of one channel: also which PoPs have it for viewers, and by which way.
    """
    given = {"channel": channel, "text": text, "pop": pop, "origin": origin}
    arguments = {name: word for name, word in given.items() if word} | {"limit": str(limit)}
    asked = ask_all("live", arguments, Where(config=config, socket=socket, shard=shard))
    found = asked.lines(LiveAnswer)
    if as_json:
        print_json(found)
    else:
        for answer in found:
            _show(answer, channel)
    asked.finish()


def _show(answer: LiveAnswer, channel: str) -> None:
    if answer.streams:
        unix = time.time()
        print_table("", COLUMNS, [_row(seen, unix) for seen in answer.streams])
    elif channel:
        console.print(f"[bold]{escape(channel)}[/] is not live")
    if answer.ways:
        print_table("", WAY_COLUMNS, [_way_row(way) for way in answer.ways])
    for line in describe(answer):
        console.print(line, soft_wrap=True)


def _way_row(way: PopWay) -> tuple[str | Text, ...]:
    source = way.via or "its origin" if way.here else "not here"
    return (
        Text(way.pop, "bold"),
        str(way.viewers),
        Text(source, "green" if way.via else "" if way.here else "dim"),
        _ms(way.via_ms),
        _ms(way.origin_ms),
        Text("by order", "green") if way.held else "",
        describe_order(way),
        ", ".join(way.rungs) if way.ordered else "",
    )


def describe_order(way: PopWay) -> str:
    """What IRS has a PoP do with a channel."""
    if way.ordered == HOLDS:
        return "hold it"
    return f"take it from {way.ordered}" if way.ordered else ""


def _ms(ms: float | None) -> str:
    return "" if ms is None else f"{ms:.1f} ms"


def describe(answer: LiveAnswer) -> list[str]:
    """How many there are, and what is to be known of them, in lines."""
    left = answer.matching - len(answer.streams)
    lines = [f"{answer.channels} channels are live in the network"]
    if left:
        lines[0] += f"; {left} more match: see --limit"
    lines += [_describe_conflict(conflict) for conflict in answer.conflicts]
    lines += [
        f"[yellow]not all of {escape(pop)}[/]: {escape(why)}"
        for pop, why in answer.unlisted.items()
    ]
    if answer.silent:
        lines.append(f"[yellow]too old to tell:[/] {escape(', '.join(answer.silent))}")
    return lines


def _describe_conflict(conflict: LiveConflict) -> str:
    pops = escape(" and ".join(conflict.pops))
    return (
        f"[bold red]{escape(conflict.channel)}[/] is published at {pops} for"
        f" {format_duration(conflict.for_s)}; the run of {escape(conflict.newest)} holds"
    )


def _row(seen: LiveSeen, unix: float) -> tuple[str | Text, ...]:
    return (
        Text(seen.channel, "bold"),
        seen.pop,
        seen.origin or "nowhere",
        seen.class_,
        seen.protocol,
        format_duration(max(0.0, unix - seen.since)),
        f"{seen.publication}.{seen.home_epoch}",
        Text(describe_note(seen), "yellow"),
    )


def describe_note(seen: LiveSeen) -> str:
    """What is unusual about a line."""
    notes = []
    if seen.waits:
        notes.append("waits for its publisher")
    if seen.unheard_s:
        notes.append(f"its PoP is gone for {seen.unheard_s:.0f} s")
    if seen.also_at:
        holds = "" if seen.newest else ", whose run is newer"
        notes.append(f"also at {', '.join(seen.also_at)}{holds}")
    return "; ".join(notes)
