"""The command `edged`: its groups of commands, and what errors look like.

A command's module is imported when that command is run, so that `edged run` waits for no encoder
and no table printer; all of them are only for the help.
"""

import importlib
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from msgspec import Struct

from edged import __version__
from edged.cli import EXIT_CONFIG, EXIT_FAILED
from edged.errors import ConfigError, EdgedError


class Command(Struct, frozen=True):
    """Where a command, or a group of them, is."""

    name: str
    module: str
    attribute: str
    is_group: bool = False


COMMANDS = (
    Command("demo", "edged.cli.demo", "demo"),
    Command("run", "edged.cli.run", "run"),
    Command("check", "edged.cli.run", "check"),
    Command("publish", "edged.cli.publish", "publish_command"),
    Command("top", "edged.cli.top", "top"),
    Command("streams", "edged.cli.inspect", "streams"),
    Command("live", "edged.cli.live", "live"),
    Command("reach", "edged.cli.reach", "reach"),
    Command("health", "edged.cli.health", "health"),
    Command("routes", "edged.cli.routes", "routes"),
    Command("links", "edged.cli.links", "links"),
    Command("route", "edged.cli.inspect", "route_app", is_group=True),
    Command("rules", "edged.cli.rules", "rules_app", is_group=True),
    Command("kick", "edged.cli.operate", "kick"),
    Command("drain", "edged.cli.operate", "drain"),
    Command("reload", "edged.cli.operate", "reload"),
    Command("log", "edged.cli.operate", "log_app", is_group=True),
    Command("key", "edged.cli.keys", "key_app", is_group=True),
    Command("sign", "edged.cli.sign", "sign"),
    Command("cert", "edged.cli.certs", "cert_app", is_group=True),
    Command("irs", "edged.cli.irs", "irs_app", is_group=True),
    Command("conform", "edged.cli.conform", "conform"),
)


def make_app(arguments: Sequence[str] = ()) -> typer.Typer:
    """The command line: with the one command that `arguments` begin with, or with all."""
    made = typer.Typer(
        name="edged",
        help="A live-streaming edge: RTMP in, routed over a backbone, LL-HLS out.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback()(options)
    wanted = [command for command in COMMANDS if arguments and command.name == arguments[0]]
    for command in wanted or COMMANDS:
        found = getattr(importlib.import_module(command.module), command.attribute)
        if command.is_group:
            made.add_typer(found, name=command.name)
        else:
            made.command(command.name)(found)
    return made


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edged {__version__}")
        raise typer.Exit


def options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """A live-streaming edge: RTMP in, routed over a backbone, LL-HLS out."""
    del version


def main() -> None:
    """Run the command line; expected errors become one line and an exit code."""
    code = 0
    try:
        make_app(sys.argv[1:])()
    except* ConfigError as group:
        code = _explain(group, EXIT_CONFIG)
    except* EdgedError as group:
        code = max(code, _explain(group, EXIT_FAILED))
    if code:
        sys.exit(code)


def _explain(group: BaseExceptionGroup[EdgedError], code: int) -> int:
    from edged.cli.output import fail  # noqa: PLC0415 - only who fails prints

    for error in _leaves(group):
        fail(str(error))
    return code


def _leaves(group: BaseExceptionGroup[EdgedError]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
