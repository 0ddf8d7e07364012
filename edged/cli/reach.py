"""`edged reach`: which PoPs hold channels in advance, by plan and in fact."""

from typing import Annotated

import typer
from rich.markup import escape
from rich.text import Text

from edged.cli.asking import ConfigOption, JsonOption, ShardOption, SocketOption, Where, ask_all
from edged.cli.inspect import format_duration
from edged.cli.output import console, print_json, print_table
from edged.irs.reach_seen import ReachAnswer, ReachSeen
from edged.policy.reach_orders import HeldSeen
from edged.roles.reach import ReachShown
from edged.roles.reaching import ReachAtPop


def reach(
    channel: Annotated[str, typer.Argument(help="This channel alone; else all.")] = "",
    *,
    config: ConfigOption = None,
    socket: SocketOption = None,
    shard: ShardOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which PoPs hold channels before anybody asks: at IRS by plan, at a PoP in fact."""
    given = {"channel": channel} if channel else {}
    asked = ask_all("reach", given, Where(config=config, socket=socket, shard=shard))
    found = asked.lines(ReachShown)
    if as_json:
        print_json(found)
    else:
        for shown in found:
            for plan in shown.plans:
                _show_plan(plan)
            for pop in shown.pops:
                _show_pop(pop)
    asked.finish()


def _show_plan(plan: ReachAnswer) -> None:
    for line in describe_plan(plan):
        console.print(line, soft_wrap=True)
    if plan.seen:
        columns = (
            *("channel", "origin", "viewers", "near", "replicas", "unwatched", "relayed to"),
            "rungs",
        )
        print_table("", columns, [_plan_row(seen) for seen in plan.seen])


def describe_plan(plan: ReachAnswer) -> list[str]:
    """What is planned, in lines."""
    if not plan.enabled:
        return [f"no replicas are planned: there is no {escape('[irs.reach]')}"]
    lines = [
        f"{plan.channels} channels have {plan.replicas} replicas, which hold"
        f" {plan.hold_mbps:.1f} Mbps that nobody watches there"
    ]
    if plan.moves_waiting:
        lines.append(f"{plan.moves_waiting} replicas are to end with the next plans")
    if plan.planned_s_ago is None:
        lines = ["[yellow]nothing is planned yet[/]"]
    if plan.waiting_for:
        missing = escape(", ".join(plan.waiting_for))
        lines.append(f"[yellow]not told yet what is watched there:[/] {missing}")
    return lines


def _plan_row(seen: ReachSeen) -> tuple[str | Text, ...]:
    share = 100 * seen.covered / seen.viewers if seen.viewers else 0.0
    rungs = ", ".join(f"{rung} {viewers}" for rung, viewers in seen.rungs.items())
    return (
        Text(seen.channel, "bold"),
        seen.origin,
        str(seen.viewers),
        f"{share:.1f} %",
        ", ".join(seen.replicas),
        f"{sum(seen.mbps.values()):.1f} Mbps" if seen.mbps else "",
        f"{len(seen.via)} PoPs" if seen.via else "",
        rungs,
    )


def _show_pop(pop: ReachAtPop) -> None:
    console.print(describe_pop(pop), soft_wrap=True)
    if pop.held:
        print_table("", ("channel", "here", "why"), [_held_row(held) for held in pop.held])
    if pop.sources:
        columns = ("channel", "comes from", "ordered", "why not from there")
        rows = [
            (
                Text(seen.channel, "bold"),
                seen.source or "nowhere",
                seen.ordered or "its origin",
                Text(seen.why, "yellow"),
            )
            for seen in pop.sources
        ]
        print_table("", columns, rows)
    for line in describe_relays(pop):
        console.print(line, soft_wrap=True)


def describe_pop(pop: ReachAtPop) -> str:
    """Which orders it has, in a line."""
    name = f"PoP [bold]{escape(pop.pop)}[/]"
    if pop.epoch < 0:
        return f"{name}: no IRS has sent orders"
    left = f", for {format_duration(pop.expires_s)} more" if pop.orders else ""
    return f"{name}: {pop.orders} orders in force{left} (epoch {pop.epoch}, {pop.number})"


def describe_relays(pop: ReachAtPop) -> list[str]:
    """Who is avoided, and what goes on to others, in lines."""
    lines = [
        f"[yellow]nothing is taken from {escape(relay)}[/]: {escape(why)}"
        for relay, why in pop.avoided.items()
    ]
    if pop.relayed_on:
        count = sum(pop.relayed_on.values())
        lines.append(f"{len(pop.relayed_on)} channels go from here to other PoPs, {count} times")
    return lines


def _held_row(held: HeldSeen) -> tuple[str | Text, ...]:
    here = Text("yes", "green") if held.held else Text("no", "yellow")
    return (Text(held.channel, "bold"), here, held.why)
