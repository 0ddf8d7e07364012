"""What commands print: tables for people, JSON for programs, errors on standard error."""

import sys
from collections.abc import Sequence

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from edged.cli import EXIT_FAILED

WIDTH_PIPED = 200  # Columns.
# Without a terminal lines are for programs: as long as they need to be.
console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH_PIPED)
errors = Console(stderr=True, highlight=False)


def print_json(value: object) -> None:
    """One JSON document on standard output, indented."""
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
    sys.stdout.flush()


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str | Text]],
    *,
    is_first_whole: bool = False,
) -> None:
    """A table; its columns wrap rather than cut, but for the first if that is to stay whole.

    Strings are shown as they are, without markup.
    """
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for index, column in enumerate(columns):
        whole = is_first_whole and index == 0
        table.add_column(column, overflow="fold", header_style="dim", no_wrap=whole)
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    console.print(table)


def fail(message: str, code: int = EXIT_FAILED) -> typer.Exit:
    """Print what went wrong; the caller raises what this returns."""
    errors.print(f"[bold red]error[/] {escape(message)}", soft_wrap=True)
    return typer.Exit(code)
