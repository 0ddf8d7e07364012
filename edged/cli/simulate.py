"""`edged irs simulate`: what policies of routing would do to a network, in virtual time."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from edged.cli.asking import JsonOption
from edged.cli.output import console, errors, print_json, print_table
from edged.errors import ConfigError
from edged.tools.simulate.figures import Figures
from edged.tools.simulate.runner import Report, choose, play
from edged.tools.simulate.scenario import POLICIES, SEEDS_MAX, PolicyName, load_scenario

irs_app = typer.Typer(
    help="What can be done with IRS's policies beside a network.", no_args_is_help=True
)

COLUMNS = (
    "policy",
    "served",
    "of bound",
    "rejected",
    "partner",
    "affiliate",
    "basic",
    "first try",
    "tries",
    "RTT",
    "RTT p99",
    "link max",
    "moved",
    "rehomed",
    "cut",
)


@irs_app.callback()
def _group() -> None:
    """What can be done with IRS's policies beside a network."""


@irs_app.command("simulate")
def simulate(
    scenario: Annotated[Path, typer.Argument(help="A scenario, as in config/scenarios.")],
    *,
    policy: Annotated[
        list[str] | None,
        typer.Option(help="Only these, of " + ", ".join(POLICIES) + "."),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, max=SEEDS_MAX, help="So many seeds, from 1 on, for the scenario's."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the first seed's run to this .png, .svg or .html.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Play a scenario with each policy and seed, and compare what came of it.

    The policies price, leases and rehoming are those that PoPs and IRS run by; the others are for
    comparison.
    """
    loaded = choose(load_scenario(scenario), policies=_policies(policy or []), seeds=seeds)
    if plot is not None:
        from edged.tools.simulate import plot as plots  # noqa: PLC0415 - an extra of its own

        plots.check_path(plot)
    with errors.status("") as status:
        played = play(
            loaded, told=lambda name, seed: status.update(f"simulating {name}, seed {seed}")
        )
    report = played.report
    rows = [_row(each.policy, each.mean, each.worst, len(report.seeds)) for each in report.policies]
    if as_json:
        print_json(report)
    else:
        _print(report, rows)
    if plot is not None:
        start_hour = loaded.scenario.start_hour
        plots.save(played, plot, start_hour=start_hour, table=[COLUMNS, *rows])


def _policies(given: list[str]) -> list[PolicyName]:
    known = {str(name): name for name in POLICIES}
    if unknown := [name for name in given if name not in known]:
        raise ConfigError(f"--policy {unknown[0]!r} is none of {', '.join(POLICIES)}")
    return [known[name] for name in dict.fromkeys(given)]


def _print(report: Report, rows: list[list[str]]) -> None:
    seeds = f"seeds {', '.join(map(str, report.seeds))}: mean (worst)"
    one = f"seed {report.seeds[0]}"
    title = (
        f"{report.scenario}: {report.hours:g} h, {report.pops} PoPs, {len(report.origins)} origins,"
        f" {report.slots} slots; {seeds if len(report.seeds) > 1 else one}"
    )
    print_table(title, COLUMNS, [[Text(row[0], "bold"), *row[1:]] for row in rows])
    console.print(f"the clairvoyant bound serves {_percent(report.bound_served)}", style="dim")


def _row(name: str, mean: Figures, worst: Figures, seeds: int) -> list[str]:
    def told(show: str, field: str) -> str:
        values = [getattr(each, field) for each in (mean, worst)]
        texts = [_show(show, value) for value in values]
        return texts[0] if seeds == 1 or texts[0] == "" else f"{texts[0]} ({texts[1]})"

    return [
        name,
        told("%", "served"),
        told("%", "of_bound"),
        told("%", "rejected"),
        told("%", "rejected_partner"),
        told("%", "rejected_affiliate"),
        told("%", "rejected_basic"),
        told("%", "first_try"),
        told(".3f", "offers"),
        told(".1f", "rtt_ms"),
        told(".0f", "rtt_p99_ms"),
        told("%", "link_load_max"),
        told(".0f", "moved"),
        told(".0f", "rehomed"),
        told(".0f", "cut"),
    ]


def _show(how: str, value: float | None) -> str:
    if value is None:
        return ""
    return _percent(value) if how == "%" else format(value, how)


def _percent(share: float) -> str:
    """Two digits, and never rounded to a whole that it is not."""
    shown = f"{100 * share:.2f}"
    if shown == "100.00" and share < 1:
        shown = "99.99"
    elif shown == "0.00" and share > 0:
        shown = "0.01"
    return f"{shown} %"
