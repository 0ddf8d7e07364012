"""`edged run` and `edged check`: real hosts."""

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Annotated

import structlog
import trio
import typer
from rich.markup import escape

from edged.cli import EXIT_CONFIG
from edged.cli.output import console, errors, print_json
from edged.config import find_hints, load_config, read_config
from edged.errors import EdgedError
from edged.roles.all_in_one import Process
from edged.roles.operations import Operations
from edged.runtime.activation import Activation, receive
from edged.runtime.listeners import adopt
from edged.runtime.log import configure_logging
from edged.runtime.notify import ServiceManager
from edged.runtime.shards import SHARDS_MAX

SHARD_DIGITS_MAX = 2

STOP_S_MAX = (
    10.0  # From the end of the drain to that of the process: publishers and links are told.
)

logger = structlog.get_logger("edged")

ConfigOption = Annotated[Path, typer.Option("-c", "--config", help="The configuration file.")]


ShardOption = Annotated[
    str,
    typer.Option(
        "--shard",
        metavar="N|auto",
        help="Which of several processes with this file it is; auto: N where the file is N.toml.",
    ),
]


def run(config: ConfigOption, *, shard: ShardOption = "") -> None:
    """Run the roles whose tables the file has: pop, origin, irs."""
    number = shard_number(shard, config)
    loaded = load_config(config, number)
    configure_logging(loaded.log)
    for hint in find_hints(loaded):
        logger.warning("configuration", key=hint.key, hint=hint.message)

    manager, activation = ServiceManager(os.environ), receive(os.environ)
    adopt(activation)
    process = Process([loaded], config, manager, shard=number)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(reload_on_signal, process.operations)
            started = await nursery.start(process.run)
            activation.close_unclaimed()
            manager.ready(", ".join(role for role in started if role != "metrics"))
            nursery.start_soon(manager.run_watchdog)

    async def stop() -> None:
        drain_s = process.operations.config.drain.on_stop_s
        manager.stopping(drain_s + STOP_S_MAX)
        await process.operations.drain_to_stop(manager.status)
        await process.operations.hand_over()

    try:
        trio.run(until_signal, main, stop)
    finally:
        adopt(Activation())
        activation.close()


async def reload_on_signal(
    operations: Operations, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Read the file again at each SIGHUP, until cancelled; what is wrong with it is logged."""
    with trio.open_signal_receiver(signal.SIGHUP) as signals:
        task_status.started()
        async for _ in signals:
            try:
                operations.reload()
            except EdgedError:
                pass  # It has been logged.
            except Exception:  # Its bug ends no stream.
                structlog.get_logger("edged").exception("reload failed")


def check(
    config: ConfigOption,
    *,
    shard: ShardOption = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a configuration file and print every problem at once."""
    loaded, problems = read_config(config, shard_number(shard, config))
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
            if loaded.pop is not None and loaded.pop.shard:
                roles[0] += f" (shard {loaded.pop.shard})"
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


def shard_number(text: str, config: Path | None) -> int | None:
    """What `--shard` says; None: the process is no shard."""
    if text == "auto" and config is not None:
        text = config.stem  # Of the file as it was named, though it be a link to another.
        if not text.isascii() or not text.isdigit():
            return None
    if not text:
        return None
    if text.isascii() and text.isdigit() and len(text) <= SHARD_DIGITS_MAX:
        number = int(text)
        if 1 <= number <= SHARDS_MAX:
            return number
    raise typer.BadParameter(f"{text[:20]!r} is no shard: 1 to {SHARDS_MAX}, or auto")


async def until_signal(
    main: Callable[[], Awaitable[None]], stop: Callable[[], Awaitable[None]] | None = None
) -> None:
    """Run until it ends, or SIGINT or SIGTERM comes; after that SIGINT ends the process at once.

    `stop` runs at the first signal, with `main` still running; a second ends it.
    """
    async with trio.open_nursery() as nursery:

        async def watch(*, task_status: trio.TaskStatus[None]) -> None:
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                task_status.started()
                await anext(signals)
                if stop is not None:
                    await _until_next(signals, stop)
                nursery.cancel_scope.cancel()
            # Only now: the receiver's end puts back the handlers that were there before it.
            signal.signal(signal.SIGINT, signal.SIG_DFL)

        await nursery.start(watch)
        await main()
        nursery.cancel_scope.cancel()


async def _until_next(signals: AsyncIterator[int], stop: Callable[[], Awaitable[None]]) -> None:
    async with trio.open_nursery() as nursery:

        async def hurry() -> None:
            await anext(signals)
            nursery.cancel_scope.cancel()

        nursery.start_soon(hurry)
        await stop()
        nursery.cancel_scope.cancel()
