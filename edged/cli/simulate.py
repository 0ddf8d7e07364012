"""`edged irs simulate`: what policies of routing would do to a network, in virtual time."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from edged.cli import EXIT_FAILED
from edged.cli.asking import JsonOption
from edged.cli.output import console, errors, print_json, print_table
from edged.errors import ConfigError
from edged.tools.simulate.figures import SHARES
from edged.tools.simulate.goals import Verdict
from edged.tools.simulate.runner import Report, choose, play
from edged.tools.simulate.scenario import POLICIES, SEEDS_MAX, PolicyName, load_scenario

# What is shown of each policy: under which name, how, and which of its Figures.
ROWS = (
    ("served, %", "%", "served"),
    ("of the bound, %", "%", "of_bound"),
    ("rejected, %", "%", "rejected"),
    ("  partners", "%", "rejected_partner"),
    ("  affiliates", "%", "rejected_affiliate"),
    ("  basic", "%", "rejected_basic"),
    ("first try, %", "%", "first_try"),
    ("tries", ".3f", "offers"),
    ("  when full", ".3f", "offers_full"),
    ("  slots used, %", "%", "full_use"),
    ("RTT, ms", ".1f", "rtt_ms"),
    ("RTT p99, ms", ".0f", "rtt_p99_ms"),
    ("fullest link, %", "%", "link_load_max"),
    ("links clear, s", ".1f", "clear_s"),
    ("moved", ".0f", "moved"),
    ("rehomed", ".0f", "rehomed"),
    ("cut", ".0f", "cut"),
    ("shed", ".0f", "shed"),
)


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

    price, leases and rehoming are the code that PoPs and IRS run by.
    The others are for comparison.

    served: stream time that was live, of what was wanted.
    of the bound: live streams, of those that the best plan would have.
    first try: streams that the first origin took that was asked.
    tries: origins asked per stream. When full: while more is wanted than there are slots.
    RTT: from PoP to origin, of live streams.
    moved, cut: streams that lost their origin and found another, or none.
    links clear: from a cut until every other link is full to 90 % at most.
    rehomed: moves of live streams.
    shed: live streams that were ended, as links could not carry them.

    Where the scenario has goals, each is told as reached or MISSED. The mean of the seeds and the
    worst both have to reach it. Ends with 1 where one is missed.
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
    table = _table(report)
    if as_json:
        print_json(report)
    else:
        _print(report, table)
        _print_goals(report.goals)
    if plot is not None:
        start_hour = loaded.scenario.start_hour
        plots.save(played, plot, start_hour=start_hour, table=table)
    if not all(goal.reached for goal in report.goals):
        raise typer.Exit(EXIT_FAILED)


def _policies(given: list[str]) -> list[PolicyName]:
    known = {str(name): name for name in POLICIES}
    if unknown := [name for name in given if name not in known]:
        raise ConfigError(f"--policy {unknown[0]!r} is none of {', '.join(POLICIES)}")
    return [known[name] for name in dict.fromkeys(given)]


def _print(report: Report, table: list[list[str]]) -> None:
    seeds = f"seeds {', '.join(map(str, report.seeds))}: mean (worst)"
    one = f"seed {report.seeds[0]}"
    title = (
        f"{report.scenario}: {report.hours:g} h, {report.pops} PoPs, {len(report.origins)} origins,"
        f" {report.slots} slots; {seeds if len(report.seeds) > 1 else one}"
    )
    heading, *rows = table
    shown: list[list[str | Text]] = [[Text(name, "bold"), *cells] for name, *cells in rows]
    console.print(Text(title, "bold"))  # Above a narrow table it would be as narrow.
    print_table("", heading, shown, is_first_whole=True)
    console.print(f"the clairvoyant bound serves {_percent(report.bound_served)} %", style="dim")


def _print_goals(goals: list[Verdict]) -> None:
    for goal in goals:
        how = "at least" if goal.is_least else "at most"
        wanted, mean, worst = (
            _exact(goal.figure, value) for value in (goal.wanted, goal.mean, goal.worst)
        )
        shown = "it did not occur" if goal.mean is None else f"{mean} ({worst})"
        verdict = Text("reached", "green") if goal.reached else Text("MISSED", "bold red")
        text = f" {goal.policy}: {goal.figure} {how} {wanted}: {shown}"
        console.print(Text.assemble(verdict, text), soft_wrap=True)


def _exact(figure: str, value: float | None) -> str:
    """As it was judged; figures have six digits."""
    if value is None:
        return ""
    if figure not in SHARES:
        return f"{value:.6f}".rstrip("0").rstrip(".")
    return f"{100 * value:.4f}".rstrip("0").rstrip(".") + " %"


def _table(report: Report) -> list[list[str]]:
    """A column for each policy, as a terminal has more lines than room for fourteen columns."""
    rows = [["", *(str(each.policy) for each in report.policies)]]
    for name, how, field in ROWS:
        cells = []
        for each in report.policies:
            mean, worst = (_show(how, getattr(of, field)) for of in (each.mean, each.worst))
            cells.append(f"{mean} ({worst})" if mean and len(report.seeds) > 1 else mean)
        if any(cells):  # Else it did not occur with any.
            rows.append([name, *cells])
    return rows


def _show(how: str, value: float | None) -> str:
    if value is None:
        return ""
    return _percent(value) if how == "%" else format(value, how)


def _percent(share: float) -> str:
    """Two digits, and never rounded to a whole that it is not."""
    shown = f"{100 * share:.2f}"
    if shown == "100.00" and share < 1:
        return "99.99"
    if shown == "0.00" and share > 0:
        return "0.01"
    return shown
