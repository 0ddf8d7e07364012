"""`edged streams` and `edged route`: what a running process sees and decides."""

from typing import Annotated

import msgspec
import typer
from rich.markup import escape
from rich.text import Text

from edged.cli.asking import ConfigOption, JsonOption, ShardOption, SocketOption, Where, ask_all
from edged.cli.output import console, print_json, print_table
from edged.media.routing import RouteRequest
from edged.roles.channel_ways import ChannelWay
from edged.roles.common import StreamLine
from edged.roles.pop import RouteAnswer

route_app = typer.Typer(help="Where streams go, and why.", no_args_is_help=True)


@route_app.callback()
def _group() -> None:
    """Where streams go, and why."""


def streams(
    *,
    config: ConfigOption = None,
    socket: SocketOption = None,
    shard: ShardOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the live streams of the edged that runs on this host, of all its shards."""
    asked = ask_all("streams", {}, Where(config=config, socket=socket, shard=shard))
    lines = asked.lines(StreamLine)
    if as_json:
        print_json(lines)
    elif not lines:
        console.print("no live streams here; at IRS, `edged live` shows those of the network")
    else:
        _print_streams(lines)
    asked.finish()


def _print_streams(lines: list[StreamLine]) -> None:
    with_ladder = any(line.ladder for line in lines)
    print_table(
        "",
        (
            *("role", "channel", "from", "to", "video", "audio", "live", "Mbps", "fps", "GOP"),
            *("latency", "viewers", "health", *(["ladder"] if with_ladder else [])),
        ),
        [
            (
                line.role,
                Text(line.channel, "bold"),
                line.came_from,
                line.goes_to,
                line.video,
                line.audio,
                format_duration(line.seconds) if line.state == "live" else line.state,
                f"{line.mbps:.2f}",
                f"{line.fps:.1f}" if line.fps is not None else "",
                f"{line.gop_s:.1f} s" if line.gop_s else "",
                line.latency,
                str(line.viewers),
                Text(line.health, "" if line.health in ("", "ok") else "yellow"),
                *([line.ladder.removeprefix("ladder").lstrip(": ")] if with_ladder else []),
            )
            for line in lines
        ],
    )


@route_app.command("explain")
def explain(
    channel: Annotated[str, typer.Argument(help="The channel.")],
    *,
    priority: Annotated[
        str, typer.Option("--class", help="partner, affiliate or basic, of one that is not live.")
    ] = "",
    tag: Annotated[
        list[str] | None, typer.Option("--tag", help="A tag of one that is not live; any number.")
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="How one that is not live would be published, such as rtmps.")
    ] = "",
    config: ConfigOption = None,
    socket: SocketOption = None,
    shard: ShardOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which origin a channel goes to, by which rule, and why not to the others."""
    where = Where(config=config, socket=socket, shard=shard)
    arguments = {"channel": channel}
    if priority:
        arguments["class"] = priority
    if tag:
        arguments["tags"] = msgspec.json.encode(tag).decode()
    if protocol:
        arguments["protocol"] = protocol
    asked = ask_all("route-explain", arguments, where)
    routes = asked.lines(RouteAnswer)
    if as_json:
        print_json(routes)
    else:
        for route in routes:
            _print_route(route)
    asked.finish()


def _print_route(route: RouteAnswer) -> None:
    now = route.now
    decision = route.placed or now.decision
    told = _describe_request(route.request)
    console.print(
        f"PoP [bold]{escape(route.pop)}[/], channel [bold]{escape(route.channel)}[/]{told}"
    )
    if decision is not None:
        what = (
            "is published here and goes to" if route.live else "is not published here; would go to"
        )
        matched = f", matched {escape(repr(decision.matched))}" if decision.matched else ""
        origin, address, rule = map(escape, (decision.origin, decision.address, decision.rule))
        console.print(f"  {what} [bold green]{origin}[/] at {address}")
        console.print(f"  rule: [bold]{rule}[/]{matched} (table v{decision.table_version})")
        if route.placed is not None:
            for name, why in decision.alternatives.items():
                console.print(f"  not {escape(name)}, then: {escape(why)}", soft_wrap=True)
        if decision.note:
            console.print(f"  [yellow]{escape(decision.note)}[/]", soft_wrap=True)
    else:
        console.print(f"  would be refused: [bold red]{escape(now.refusal)}[/]")
    if route.shed:
        console.print(f"  [yellow]{escape(route.shed)}[/]", soft_wrap=True)
    for name, why in now.unmatched.items():
        console.print(f"  rule {escape(repr(name))} does not match: {escape(why)}", soft_wrap=True)
    for line in [] if route.way is None else describe_way(route.way):
        console.print(f"  {line}", soft_wrap=True)
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
        ("origin", "now", "state", "heartbeats", "RTT", "ours/quota", "room", "ladders", "price"),
        [
            (
                verdict.origin,
                verdict.verdict,
                str(verdict.table_state),
                str(verdict.heartbeat_state or "none heard"),
                f"{verdict.rtt_ms:.2f} ms" if verdict.rtt_ms is not None else "",
                f"{verdict.used}/{verdict.quota}",
                str(verdict.room),
                "" if verdict.ladders is None else str(verdict.ladders),
                f"{verdict.price_ms:.1f} ms",
            )
            for verdict in now.origins
        ],
    )


def describe_way(way: ChannelWay) -> list[str]:
    """How viewers at a PoP get a channel, and why so, in lines."""
    if not way.origin and not way.source:
        return []
    origin = f"origin [bold]{escape(way.origin)}[/]{_away(way.origin_ms)}"
    source, relay = escape(way.source), escape(way.relay)
    why = f": {escape(way.why)}" if way.why else ""
    if not way.source:
        lines = [f"viewers here would get it from its {origin}{why}"]
    elif way.source == way.relay:
        lines = [
            f"viewers here get it from PoP [bold green]{source}[/]{_away(way.relay_ms)}, as IRS"
            f" orders; its {origin}"
        ]
    elif way.relay:
        lines = [
            f"viewers here get it from its {origin}, not from PoP [bold]{relay}[/]"
            f"{_away(way.relay_ms)}, as IRS orders{why}"
        ]
    else:
        lines = [f"viewers here get it from its {origin}{why}"]
    if way.held:
        lines.append("it is held here by order of IRS, watched or not")
    if way.rungs is not None:
        rungs = escape(", ".join(way.rungs))
        lines.append(f"of its video {rungs} come before anybody asks, others on demand")
    if way.relayed_on:
        pops = "one other PoP" if way.relayed_on == 1 else f"{way.relayed_on} other PoPs"
        lines.append(f"it goes on from here to {pops}")
    return lines


def _away(ms: float | None) -> str:
    return "" if ms is None else f" {ms:.1f} ms away"


def _describe_request(request: RouteRequest | None) -> str:
    """What rules may ask of a stream."""
    if request is None:
        return ""
    by = f" by {escape(request.protocol)}" if request.protocol else ""
    tags = f", tags {escape(', '.join(request.tags))}" if request.tags else ""
    return f": class {request.priority.label}{by}{tags}"


def format_duration(seconds: float) -> str:
    """Hours, minutes and seconds, as long as needed."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
