"""The command `edged`: its groups of commands, and what errors look like."""

import sys
from typing import Annotated

import typer

from edged import __version__
from edged.cli.certs import cert_app
from edged.cli.demo import demo
from edged.cli.health import health
from edged.cli.inspect import route_app, streams
from edged.cli.keys import key_app
from edged.cli.operate import drain, kick, log_app, reload
from edged.cli.output import EXIT_CONFIG, EXIT_FAILED, fail
from edged.cli.publish import publish_command
from edged.cli.routes import routes
from edged.cli.run import check, run
from edged.cli.top import top
from edged.errors import ConfigError, EdgedError

app = typer.Typer(
    name="edged",
    help="A live-streaming edge: RTMP in, routed over a backbone, LL-HLS out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(demo)
app.command()(run)
app.command()(check)
app.command("publish")(publish_command)
app.command()(top)
app.command()(streams)
app.command()(health)
app.command()(routes)
app.add_typer(route_app, name="route")
app.command()(kick)
app.command()(drain)
app.command("reload")(reload)
app.add_typer(log_app, name="log")
app.add_typer(key_app, name="key")
app.add_typer(cert_app, name="cert")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edged {__version__}")
        raise typer.Exit


@app.callback()
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
        app()
    except* ConfigError as group:
        code = _explain(group, EXIT_CONFIG)
    except* EdgedError as group:
        code = max(code, _explain(group, EXIT_FAILED))
    if code:
        sys.exit(code)


def _explain(group: BaseExceptionGroup[EdgedError], code: int) -> int:
    for error in _leaves(group):
        fail(str(error))
    return code


def _leaves(group: BaseExceptionGroup[EdgedError]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
