"""`edged run` and `edged check`: real hosts."""

import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import structlog
import trio
import typer
from rich.markup import escape

from edged.cli.output import EXIT_CONFIG, console, errors, print_json
from edged.config import find_hints, load_config, read_config
from edged.roles.all_in_one import Process
from edged.runtime.activation import Activation, receive
from edged.runtime.listeners import adopt
from edged.runtime.log import configure_logging
from edged.runtime.notify import ServiceManager

ConfigOption = Annotated[Path, typer.Option("-c", "--config", help="The configuration file.")]


def run(config: ConfigOption) -> None:
    """Run the roles whose tables the file has: pop, origin, irs."""
    loaded = load_config(config)
    configure_logging(loaded.log)
    for hint in find_hints(loaded):
        structlog.get_logger("edged").warning("configuration", key=hint.key, hint=hint.message)

    manager, activation = ServiceManager(os.environ), receive(os.environ)
    adopt(activation)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            started = await nursery.start(Process([loaded]).run)
            activation.close_unclaimed()
            manager.ready(", ".join(role for role in started if role != "metrics"))
            nursery.start_soon(manager.run_watchdog)

    try:
        trio.run(until_signal, main, manager.stopping)
    finally:
        adopt(Activation())
        activation.close()


def check(
    config: ConfigOption,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a configuration file and print every problem at once."""
    loaded, problems = read_config(config)
    hints = find_hints(loaded) if loaded is not None else []
    if as_json:
        print_json({"file": str(config), "problems": problems, "hints": hints})
    else:
        if problems:
            count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
            errors.print(f"[bold red]{count}[/] in {escape(str(config))}", soft_wrap=True)
        else:
            assert loaded is not None, "there is nothing wrong with it"
            roles = [name for name in ("pop", "origin", "irs") if getattr(loaded, name) is not None]
            console.print(
                f"[green]{escape(str(config))} is fine[/]; roles: {', '.join(roles)}",
                soft_wrap=True,
            )
        for style, found in (("bold", problems), ("bold yellow", hints)):
            for problem in found:
                name = escape(problem.key or "the file")
                errors.print(f"  [{style}]{name}[/]: {escape(problem.message)}", soft_wrap=True)
    if problems:
        raise typer.Exit(EXIT_CONFIG)


async def until_signal(
    main: Callable[[], Awaitable[None]], stopping: Callable[[], None] = lambda: None
) -> None:
    """Run until it ends, or SIGINT or SIGTERM comes; a second signal ends the process at once.

    `stopping` is called at the first.
    """
    async with trio.open_nursery() as nursery:

        async def watch(*, task_status: trio.TaskStatus[None]) -> None:
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                task_status.started()
                async for _ in signals:
                    stopping()
                    nursery.cancel_scope.cancel()
                    break
            # Only now: the receiver's end puts back the handlers that were there before it.
            signal.signal(signal.SIGINT, signal.SIG_DFL)

        await nursery.start(watch)
        await main()
        nursery.cancel_scope.cancel()
