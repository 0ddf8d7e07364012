"""`edged conform`: is a live LL-HLS stream as the specification and players want it?"""

from typing import Annotated

import trio
import typer
from rich.text import Text

from edged.cli import EXIT_FAILED
from edged.cli.asking import JsonOption
from edged.cli.output import console, errors, print_json, print_table
from edged.cli.run import until_signal
from edged.tools.conform.probe import observe
from edged.tools.conform.report import Report, Verdict, judge

STYLES = {"pass": "green", "fail": "bold red", "warn": "yellow", "not seen": "dim"}
MARKS = {"pass": "✓ pass", "fail": "✕ fail", "warn": "▲ warn", "not seen": "· not seen"}


def conform(
    url: Annotated[str, typer.Argument(help="Of the multivariant playlist, or of a media one.")],
    *,
    seconds: Annotated[float, typer.Option(min=5, max=300, help="Watch for so long.")] = 20.0,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Do not verify the server's certificate.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Judge a live LL-HLS stream, anybody's, by 36 items of RFC 8216bis and Apple's rules.

    Ends with 1 when one of those that bind is not met.
    """
    report: Report | None = None

    async def main() -> None:
        nonlocal report
        tell = (lambda _: None) if as_json else (lambda text: errors.print(text, style="dim"))
        report = judge(await observe(url, seconds, insecure=insecure, tell=tell))

    trio.run(until_signal, main)
    if report is None:  # Ctrl-C.
        raise typer.Exit(EXIT_FAILED)
    if as_json:
        print_json(report)
    else:
        _print(report)
    if not report.conforms:
        raise typer.Exit(EXIT_FAILED)


def _print(report: Report) -> None:
    print_table("", ("", "level", "what", "found", ""), [_row(v) for v in report.verdicts])
    for problem in report.broken:
        console.print(f"not answered: {problem}", style="red", markup=False)
    for limit in report.limits:
        console.print(f"limit: {limit}", style="dim", markup=False)
    counts = dict.fromkeys(STYLES, 0)
    for verdict in report.verdicts:
        counts[verdict.status] += 1
    told = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    renditions = ", ".join(report.renditions)
    console.print(f"\n{report.url} ({renditions}): {told}", soft_wrap=True, markup=False)


def _row(verdict: Verdict) -> tuple[str, str, str, Text, str]:
    return (
        str(verdict.number),
        verdict.level,
        verdict.title,
        Text(MARKS[verdict.status], STYLES[verdict.status]),
        "; ".join(verdict.details),
    )
