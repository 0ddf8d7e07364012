"""`edged irs forecast`: what a day to come asks of the network, and what of it is scarce."""

import math
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from msgspec import Struct
from rich.markup import escape
from rich.text import Text

from edged.cli.asking import JsonOption
from edged.cli.irs_replay import load_solver
from edged.cli.output import console, errors, print_json, print_table
from edged.errors import ConfigError
from edged.irs.history import HistoryFile
from edged.media.routing import UNITS_MAX
from edged.policy.demand import SLOT_S, SLOTS_PER_DAY, DemandRow, slot_of
from edged.policy.flows import RTT_MS_MAX
from edged.policy.forecast import Check, History, check_forecast, forecast
from edged.policy.offline_plan import (
    SLOTS_PER_HOUR,
    DayPlan,
    Hour,
    Limits,
    Site,
    Topology,
    demand_of,
    plan_day,
)

ORIGINS_SHOWN_MAX = 8  # The fullest; the rest are in `--json`.
NEEDS_SHOWN_MAX = 20
WORD_OF = {True: "as high as one slot in twenty may be", False: "as expected"}


class Told(Struct, frozen=True, kw_only=True):
    """All of it, for programs."""

    begin: str  # UTC.
    days: float  # Of history.
    growth: float  # Of a week.
    high: bool
    check: Check | None  # Of the newest day, by those before.
    plan: DayPlan


def forecast_command(
    file: Annotated[Path, typer.Argument(help="The history that IRS keeps by irs.history.")],
    *,
    begin: Annotated[
        str | None, typer.Option(help="The day, as 2026-11-27, UTC. Default: the next 24 hours.")
    ] = None,
    expected: Annotated[
        bool, typer.Option("--expected", help="Plan for what is expected, not for what may be.")
    ] = False,
    slots_part: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="The part of each origin's slots to plan with.")
    ] = Limits().slots_part,
    link_part: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="The part of each link to plan with.")
    ] = Limits().link_part,
    add: Annotated[
        list[str] | None,
        typer.Option(help="What if: ORIGIN=SLOTS more, or fewer (-SLOTS). May be repeated."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Forecast a day's demand from its history, and plan it hour by hour with the solver.

    Each PoP's demand is that of the same time of earlier days, as high as it may be in one slot of
    twenty. What binds is told with what one more slot or stream there would save.
    """
    rows, topology = _read(file)
    topology = _with_more(topology, add or [])
    history = History(rows)
    first = _first_slot(begin, history)
    told = forecast(history, first, SLOTS_PER_DAY)
    limits = Limits(slots_part=slots_part, link_part=link_part)
    with errors.status("") as status:
        plan = plan_day(
            demand_of(told.rows, high=not expected), topology, limits, load_solver().solve,
            told=lambda slot: status.update(f"planning {_hour(slot)}"),
        )  # fmt: skip
    result = Told(
        begin=_hour(first),
        days=round(told.days, 2),
        growth=told.growth,
        high=not expected,
        check=check_forecast(rows),
        plan=plan,
    )
    if as_json:
        print_json(result)
    else:
        _print(result, history, limits)


def _read(file: Path) -> tuple[list[DemandRow], Topology]:
    if not file.exists():
        raise ConfigError(f"{file} is not there; IRS keeps it by `[irs.history]`")
    opened = HistoryFile(file, read_only=True)
    try:
        rows, topology = opened.rows(), opened.topology()
    finally:
        opened.close()
    if not rows or topology is None:
        raise ConfigError(f"{file} has nothing yet: the first row comes after five minutes")
    return rows, topology


def _with_more(topology: Topology, add: Sequence[str]) -> Topology:
    sites = {site.origin: site.slots_total for site in topology.origins}
    for each in add:
        name, _, text = each.partition("=")
        if name not in sites:
            raise ConfigError(f"--add {each!r}: {name!r} is none of {', '.join(sorted(sites))}")
        try:
            sites[name] = sites[name] + int(text)
        except ValueError as error:
            raise ConfigError(f"--add {each!r}: {text!r} is no number of slots") from error
        if not 0 <= sites[name] <= UNITS_MAX:
            raise ConfigError(f"--add {each!r}: {name} would have {sites[name]} slots")
    made = [Site(origin=name, slots_total=slots) for name, slots in sites.items()]
    return msgspec.structs.replace(topology, origins=made)


def _first_slot(begin: str | None, history: History) -> int:
    """Of the day that is asked for, or of the next whole hour."""
    if begin is None:
        slot = max(history.last + 1, slot_of(time.time()))
        return math.ceil(slot / SLOTS_PER_HOUR) * SLOTS_PER_HOUR
    try:
        day = datetime.strptime(begin, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        raise ConfigError(f"--begin {begin!r} is no day such as 2026-11-27") from error
    slot = slot_of(day.timestamp())
    if slot <= history.last:
        raise ConfigError(f"--begin {begin}: the history goes to {_hour(history.last)} already")
    return slot


def _print(told: Told, history: History, limits: Limits) -> None:
    plan = told.plan
    console.print(
        f"[bold]{len(history.pops)}[/] PoPs, {told.days:.1f} days of history, growth"
        f" {100 * (told.growth - 1):+.1f} % a week; demand {WORD_OF[told.high]}, on"
        f" {100 * limits.slots_part:g} % of the slots",
        soft_wrap=True,
    )
    if told.check is not None:
        console.print(
            f"of the newest day a forecast by those before was off by {100 * told.check.off:.1f} %;"
            f" {100 * told.check.above_high:.1f} % of the PoPs' slots were above its high",
            style="dim", soft_wrap=True,
        )  # fmt: skip
    names = _fullest(plan.hours)
    print_table(
        f"24 hours from {told.begin} UTC",
        ("", "demand", "served", "RTT", *names),
        [_row(hour, names) for hour in plan.hours],
        is_first_whole=True,
    )
    if plan.missing:
        console.print(
            f"[bold red]{plan.missing:,.0f} slots[/] are missing in the worst hour, wherever they"
            " are", soft_wrap=True,
        )  # fmt: skip
    if not plan.needs:
        console.print("[green]✓[/] nothing binds: every stream can be where it is nearest")
        return
    print_table(
        "what binds",
        ("", "", "hours", "one more"),
        [
            (
                Text(need.name, "bold"),
                need.kind,
                f"{need.hours}",
                Text("serves a stream that has no place", "red")
                if need.scarce
                else f"saves {need.price_ms:,.1f} ms of round trip",
            )
            for need in plan.needs[:NEEDS_SHOWN_MAX]
        ],
    )
    if len(plan.needs) > NEEDS_SHOWN_MAX:
        console.print(f"and {len(plan.needs) - NEEDS_SHOWN_MAX} more")


def _fullest(hours: Sequence[Hour]) -> list[str]:
    parts: dict[str, float] = {}
    for hour in hours:
        for each in hour.origins:
            parts[each.origin] = max(parts.get(each.origin, 0.0), each.part)
    found = sorted(parts, key=lambda name: (-parts[name], name))[:ORIGINS_SHOWN_MAX]
    return [escape(name) for name in found]


def _row(hour: Hour, names: Sequence[str]) -> list[str | Text]:
    parts = {escape(each.origin): each for each in hour.origins}
    cells: list[str | Text] = []
    for name in names:
        each = parts[name]
        style = "red" if each.price_ms > RTT_MS_MAX else "yellow" if each.price_ms else ""
        cells.append(Text(f"{100 * each.part:.0f} %", style))
    served = 100 * hour.served
    shown = f"{served:.1f} %" if served == 100 or served < 99.95 else "99.9 %"  # noqa: PLR2004
    return [
        Text(_hour(hour.slot)[-5:], "bold"),
        f"{hour.demand:,.0f}",
        Text(shown, "" if not any(hour.unserved) else "red"),
        f"{hour.rtt_ms:.1f} ms",
        *cells,
    ]


def _hour(slot: int) -> str:
    return datetime.fromtimestamp(slot * SLOT_S, UTC).strftime("%Y-%m-%d %H:%M")
