"""`edged drain origin NAME`: asks IRS to have an origin emptied, and shows how far that is."""

import msgspec
import trio
import typer
from rich.markup import escape

from edged.cli import EXIT_FAILED
from edged.cli.asking import Place, ask_place
from edged.cli.output import console, print_json
from edged.irs.moving import DrainSeen

POLL_S = 0.5
REASONS_SHOWN_MAX = 3


def drain_origin(
    place: Place, origin: str, deadline_s: float | None, *, undo: bool, wait: bool, as_json: bool
) -> None:
    """Drain it, or undo that; without a name show what is drained."""
    arguments = {"origin": origin} if origin else {}
    if deadline_s is not None:
        arguments["deadline_s"] = str(deadline_s)
    command = "drain-origin-status"
    if origin:
        command = "drain-origin-undo" if undo else "drain-origin"
    watches = wait and command == "drain-origin"
    drains = trio.run(_ask, place, command, arguments, watches, as_json)
    if as_json:
        print_json(drains)
    elif undo:
        console.print(f"{_name(origin)} has streams again; {drains[0].left} are there")
    elif not watches:
        text = "\n".join(map(describe, drains)) or "no origin is drained"
        console.print(text, soft_wrap=True)
    if watches and not all(seen.is_empty for seen in drains):
        raise typer.Exit(EXIT_FAILED)


async def _ask(
    place: Place, command: str, arguments: dict[str, str], wait: bool, quiet: bool
) -> list[DrainSeen]:
    """The answer; with `wait` the last one, each being shown, when it is empty or too late."""
    said = ""
    while True:
        answer = await ask_place(place, command, arguments)
        drains = msgspec.json.decode(answer, type=list[DrainSeen])
        if not wait:
            return drains
        text = "\n".join(map(describe, drains)) or f"the drain of {arguments['origin']} was undone"
        if text != said and not quiet:
            console.print(text, soft_wrap=True)
        said = text
        if all(seen.is_empty or not seen.seconds_left for seen in drains):
            return drains
        await trio.sleep(POLL_S)
        command, arguments = "drain-origin-status", {"origin": arguments["origin"]}


def describe(seen: DrainSeen) -> str:
    """One drain in a line, and what keeps streams there."""
    name = _name(seen.origin)
    if seen.is_empty:
        unheard = ", but no heartbeat of its own says so" if seen.held is None else ""
        return f"{name}: [green]empty[/]{unheard}, {seen.moved} moved"
    if not seen.left:
        held = f"{seen.held} slots are taken there by its own heartbeat"
        return f"{name}: no PoP has a stream there, {held}, {seen.moved} moved"
    pops = ", ".join(f"{pop} {left}" for pop, left in sorted(seen.left_by_pop.items()))
    text = f"{name}: {seen.left} left ({escape(pops)}), {seen.moved} moved"
    text += f", {seen.seconds_left:.0f} s"
    reasons = list(seen.refused.items())[:REASONS_SHOWN_MAX]
    text += "".join(f"\n  {count} stayed: {escape(reason)}" for reason, count in reasons)
    if seen.not_told:
        text += f"\n  too old to move streams: {escape(', '.join(seen.not_told))}"
    return text


def _name(origin: str) -> str:
    return f"origin [bold]{escape(origin)}[/]"
