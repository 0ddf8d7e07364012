"""`edged routes`: what each PoP routes by, and where its streams went."""

from typing import Annotated

import typer
from rich.markup import escape
from rich.text import Text

from edged.cli.asking import ConfigOption, JsonOption, ShardOption, SocketOption, Where, ask_all
from edged.cli.inspect import format_duration
from edged.cli.output import console, print_json, print_table
from edged.roles.status import OriginSeen, RoutesSeen, RuleSeen

STATE_STYLES = {"up": "green", "probation": "green", "down": "bold red"}


def routes(
    *,
    config: ConfigOption = None,
    socket: SocketOption = None,
    shard: ShardOption = None,
    limit: Annotated[int, typer.Option(help="Streams of each PoP at most.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """Show each PoP's routing table, its rules, and where its live streams went and why."""
    asked = ask_all("routes", {}, Where(config=config, socket=socket, shard=shard))
    pops = asked.lines(RoutesSeen)
    if as_json:
        print_json(pops)
    else:
        for number, pop in enumerate(pops):
            if number:
                console.print()
            _print_pop(pop, max(0, limit))
    asked.finish()


def _print_pop(pop: RoutesSeen, limit: int) -> None:
    console.print(f"PoP [bold]{escape(pop.pop)}[/]: {_describe_table(pop)}", soft_wrap=True)
    if not pop.irs.connected:
        console.print(
            f"  [yellow]no IRS for {format_duration(pop.irs.for_s)}[/]: it goes on by this table "
            "and what it hears itself",
            soft_wrap=True,
        )
    if pop.origins:
        print_table(
            "",
            ("origin", "state", "", "slots free", "RTT", "ours/quota", "price", "address"),
            [_origin_row(origin) for origin in pop.origins],
        )
    for drained in pop.drained:
        console.print(
            f"  origin [bold]{escape(drained.origin)}[/] is drained: {drained.left} of our streams "
            f"left, {drained.seconds_left:.0f} s"
        )
    if pop.rules:
        print_table(
            "", ("rule", "matches", "does", "placed"), [_rule_row(rule) for rule in pop.rules]
        )
    if pop.streams:
        print_table(
            "",
            ("channel", "goes to", "for", "by", "why"),
            [
                (
                    Text(stream.channel, "bold"),
                    stream.route.origin,
                    format_duration(stream.route.for_s),
                    stream.route.matched or stream.route.rule,
                    stream.route.why,
                )
                for stream in pop.streams[:limit]
            ],
        )
    else:
        console.print("no live streams are published here")
    left = pop.streams_total - min(limit, len(pop.streams))
    if left > 0:
        console.print(f"and {left} more; `edged route explain CHANNEL` tells of one")


def _describe_table(pop: RoutesSeen) -> str:
    if pop.table is None:
        return "[bold red]no routing table has come yet[/]"
    lease = f"lease for {pop.lease_left_s:.1f} s" if pop.lease_left_s > 0 else "lease expired"
    age = f", issued {pop.table_age_s:.1f} s ago" if pop.table_age_s is not None else ""
    return f"table epoch {pop.table[0]} v{pop.table[1]}{age}; {lease}"


def _origin_row(origin: OriginSeen) -> tuple[str | Text, ...]:
    style = STATE_STYLES.get(origin.state, "yellow")
    slots = f"{origin.slots_free} of {origin.slots_total}" if origin.slots_total is not None else ""
    return (
        Text(origin.origin, "bold"),
        Text(origin.state, style),
        Text(origin.blocked, "yellow"),
        slots,
        f"{origin.rtt_ms:.2f} ms" if origin.rtt_ms is not None else "",
        f"{origin.used}/{origin.quota}",
        f"{origin.price_ms:.1f} ms",
        origin.address,
    )


def _rule_row(rule: RuleSeen) -> tuple[str | Text, ...]:
    matches = ", ".join(f"{key}={value}" for key, value in rule.match.items())
    return (Text(rule.label, "bold"), matches or "every stream", rule.does, str(rule.placed))
