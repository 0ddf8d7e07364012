"""`edged rules`: what a change of the network's rules would do, before it is applied."""

import os
import stat
from pathlib import Path
from typing import Annotated

import msgspec
import trio
import typer
from msgspec import Struct
from rich.markup import escape
from rich.text import Text

from edged.api.admin_url import TOKEN_VARIABLE, URL_VARIABLE, admin_url_of
from edged.cli import EXIT_FAILED
from edged.cli.asking import (
    ConfigOption,
    JsonOption,
    Place,
    ShardOption,
    SocketOption,
    Where,
    ask_all,
    ask_place,
)
from edged.cli.output import console, print_json, print_table
from edged.config import load_config
from edged.errors import EdgedError
from edged.media.routing import Rule
from edged.policy.route_words import describe_effect
from edged.policy.rule_examples import ExampleResult, bare, check_examples
from edged.policy.rules import label
from edged.policy.rules_comparison import Comparison, Moved, Totals, compare
from edged.policy.rules_snapshot import SNAPSHOT_BYTES_MAX, RulesSnapshot, decode, merge

COMMAND = "rules-snapshot"
SHOWN_MAX = 20  # Rules in a line.

rules_app = typer.Typer(help="The network's rules: tried before they apply.", no_args_is_help=True)


class RulesChecked(Struct, frozen=True, kw_only=True):
    """What `edged rules check --json` prints."""

    file: str
    rules: int
    examples: list[ExampleResult]  # All of them hold, or the file would have been refused.
    untested: list[str]  # Rules without an example.
    against: Comparison | None


@rules_app.callback()
def _group() -> None:
    """The network's rules: tried before they apply."""


@rules_app.command("snapshot")
def snapshot(
    *,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write it to this file.")
    ] = None,
    config: ConfigOption = None,
    socket: SocketOption = None,
    shard: ShardOption = None,
) -> None:
    """Write what the PoPs of this host route by, see and carry, for `edged rules check --against`.

    It names addresses, origins and channels, with the tags of their keys.
    """
    asked = ask_all(COMMAND, {}, Where(config=config, socket=socket, shard=shard))
    taken = merge([decode(answer, "an answer of edged") for answer in asked.answers])
    if output is None:
        print_json(taken)
    else:
        _write(output, taken)
        streams = sum(len(pop.streams) for pop in taken.pops)
        names = ", ".join(pop.key for pop in taken.pops)
        console.print(
            f"{escape(str(output))}: {streams} streams of {escape(names)}", soft_wrap=True
        )
    asked.finish()


@rules_app.command("check")
def check(
    *,
    config: Annotated[
        Path, typer.Option("-c", "--config", help="The file of IRS, with the rules to be.")
    ],
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            metavar="SNAPSHOT",
            help="A file of `edged rules snapshot`, an admin socket, or http://HOST:PORT of an"
            " admin page; several are looked at together.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Streams that are named at most.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """Test the rules of a file by their examples, and show what they would do to live streams.

    Ends with 1 if a stream would be refused that the rules in force serve, and with 2 if the file
    cannot be used, an example that fails included.
    """
    loaded = load_config(config).irs
    if loaded is None:
        raise EdgedError(f"{config} has no [irs]: rules are in the file of IRS")
    examples = check_examples(loaded.rules)
    rules = bare(loaded.rules)
    found = None
    if against:
        found = compare(merge([_read(source) for source in against]), rules)
    if as_json:
        print_json(
            RulesChecked(
                file=str(config),
                rules=len(rules),
                examples=examples,
                untested=_untested(rules, examples),
                against=found,
            )
        )
    else:
        _print_rules(config, rules, examples)
        if found is not None:
            _print_comparison(found, rules, limit)
    if found is not None and found.is_worse:
        raise typer.Exit(EXIT_FAILED)


def _read(source: str) -> RulesSnapshot:
    """What a file holds, or what is answered there now; raises EdgedError."""
    place: Place | None = None
    if source.startswith(("http://", "https://")):
        token_file = os.environ.get(TOKEN_VARIABLE, "")
        place = admin_url_of({URL_VARIABLE: source, TOKEN_VARIABLE: token_file})
    elif _is_socket(Path(source)):
        place = Path(source)
    if place is not None:
        return decode(trio.run(ask_place, place, COMMAND, {}), source)
    try:
        with Path(source).open("rb") as file:
            return decode(file.read(SNAPSHOT_BYTES_MAX + 1), source)
    except OSError as error:
        raise EdgedError(f"{source}: cannot be read: {error.strerror or error}") from error


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False  # Reading it says what is wrong.


def _write(path: Path, taken: RulesSnapshot) -> None:
    try:
        path.write_bytes(msgspec.json.encode(taken) + b"\n")
    except OSError as error:
        raise EdgedError(f"{path}: cannot be written: {error.strerror or error}") from error


def _print_rules(config: Path, rules: tuple[Rule, ...], examples: list[ExampleResult]) -> None:
    told = f"{len(rules)} rule{'s' if len(rules) != 1 else ''}"
    tested = len({example.rule for example in examples})
    console.print(
        f"[green]{escape(str(config))}[/]: {told}, {tested} of them tested by"
        f" {len(examples)} example{'s' if len(examples) != 1 else ''}, which hold",
        soft_wrap=True,
    )
    untested = _untested(rules, examples)
    if untested:
        more = f" and {len(untested) - SHOWN_MAX} more" if len(untested) > SHOWN_MAX else ""
        shown = escape(", ".join(map(repr, untested[:SHOWN_MAX])))
        console.print(f"[yellow]without an example[/]: {shown}{more}", soft_wrap=True)


def _untested(rules: tuple[Rule, ...], examples: list[ExampleResult]) -> list[str]:
    tested = {example.rule for example in examples}
    return [label(rule) for index, rule in enumerate(rules) if index not in tested]


def _print_comparison(found: Comparison, rules: tuple[Rule, ...], limit: int) -> None:
    before, after = found.before, found.after
    console.print(
        f"{before.streams} streams of {escape(', '.join(found.pops))}, placed anew: by the rules in"
        f" force {found.as_it_is} go where they are",
        soft_wrap=True,
    )
    print_table("", ("", "in force", "to be"), _total_rows(before, after))
    does = {label(rule): describe_effect(rule) for rule in rules}
    print_table(
        "",
        ("rule", "streams", "to be", "does"),
        [
            (
                Text(each.rule or "no rule", "bold" if each.rule else "dim"),
                "-" if each.before is None else str(each.before),
                "-" if each.after is None else str(each.after),
                does.get(each.rule, "" if not each.rule else "it would be gone"),
            )
            for each in found.rules
        ],
    )
    print_table(
        "",
        ("origin", "now", "in force", "to be"),
        [
            (
                Text(each.origin, "bold"),
                str(each.now),
                str(each.before),
                _change(each.before, each.after),
            )
            for each in found.origins
        ],
    )
    _print_moves("would be refused", "bold red", found.refused, limit)
    _print_moves("would go elsewhere", "yellow", found.moved, limit)
    if not found.refused and not found.moved:
        console.print("[green]no stream would go elsewhere or be refused[/]")
    for note in found.notes:
        console.print(f"[yellow]note[/] {escape(note)}", soft_wrap=True)


def _total_rows(before: Totals, after: Totals) -> list[tuple[str | Text, ...]]:
    def rtt(value: float | None) -> str:
        return "" if value is None else f"{value:.2f} ms"

    rows: list[tuple[str | Text, ...]] = [
        ("served", str(before.served), _change(before.served, after.served)),
        ("refused", str(before.refused), _change(before.refused, after.refused)),
        ("mean RTT", rtt(before.rtt_ms), rtt(after.rtt_ms)),
        ("greatest RTT", rtt(before.rtt_ms_max), rtt(after.rtt_ms_max)),
    ]
    rows += [
        (how, str(before.asked[how]), _change(before.asked[how], after.asked[how]))
        for how in before.asked
        if before.asked[how] or after.asked[how]
    ]
    return rows


def _change(before: int, after: int) -> str:
    return f"{after} ({after - before:+d})" if after != before else str(after)


def _print_moves(title: str, style: str, moves: list[Moved], limit: int) -> None:
    if not moves:
        return
    console.print(f"[{style}]{len(moves)} {title}[/]")
    print_table(
        "",
        ("PoP", "channel", "class", "in force", "to be", "by", "why"),
        [
            (
                each.pop,
                Text(each.channel, "bold"),
                each.priority,
                each.before or "refused",
                each.after or "refused",
                each.matched_after or "no rule",
                each.why,
            )
            for each in moves[:limit]
        ],
    )
    if len(moves) > limit:
        console.print(f"and {len(moves) - limit} more; --limit shows them")
