"""`edged health`: whether what runs here can do its work, for people, probes and containers."""

import msgspec
import typer
from rich.markup import escape

from edged.cli import EXIT_FAILED
from edged.cli.asking import ConfigOption, JsonOption, ShardOption, SocketOption, Where, ask_all
from edged.cli.output import console, print_json
from edged.roles.fitness import Health


def health(
    *,
    config: ConfigOption = None,
    socket: SocketOption = None,
    shard: ShardOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether the edged on this host can do its work; ends with 1 and the reason if not."""
    asked = ask_all("health", {}, Where(config=config, socket=socket, shard=shard))
    found = [msgspec.json.decode(answer, type=Health) for answer in asked.answers]
    if as_json:
        print_json(found)
    else:
        for one in found:
            _print(one)
    asked.finish()
    if not all(one.fit for one in found):
        raise typer.Exit(EXIT_FAILED)


def _print(health: Health) -> None:
    for role in health.roles:
        faults = [fault for fault in health.faults if fault.role == role]
        grave = any(fault.grave for fault in faults)
        word = "[bold red]unfit[/]" if grave else "[green]fit[/]"
        console.print(f"{escape(role)}: {word}", soft_wrap=True)
        for fault in faults:
            style = "bold red" if fault.grave else "yellow"
            console.print(f"  [{style}]{escape(fault.what)}[/]", soft_wrap=True)
