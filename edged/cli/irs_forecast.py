"""`edged irs forecast`: what a day to come asks of the network, and what of it is scarce."""

import math
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from msgspec import Struct
from rich.markup import escape
from rich.text import Text

from edged.cli.asking import JsonOption
from edged.cli.output import console, errors, print_json, print_table
from edged.errors import ConfigError, ToolMissingError
from edged.irs.history_file import HistoryError, HistoryFile
from edged.media.routing import UNITS_MAX
from edged.media.stream import PriorityClass
from edged.policy.day_plan import (
    Basis,
    Check,
    DayForecast,
    DayPlan,
    Limits,
    Need,
    Network,
    Quarter,
    find_doubts,
)
from edged.policy.demand import SLOT_S, SLOTS_PER_DAY, slot_of

if TYPE_CHECKING:
    from edged.policy.forecast import Forecast, History

SLOTS_PER_HOUR = 3600 // SLOT_S
ORIGINS_SHOWN_MAX = 8  # The fullest; the rest are in `--json`.
NEEDS_SHOWN_MAX = 20
POPS_SHOWN_MAX = 5


class _Read(Struct, frozen=True, kw_only=True):
    """What the file has."""

    history: "History"
    first: int  # Slot.
    later_rows: int
    network: Network
    origins_gone: list[str]


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
    """Forecast a day's demand from its history, and plan each quarter of an hour with the solver.

    Demand is that of the same time of earlier days, as high as it may be in one quarter of an hour
    in twenty. What binds is told with what one more slot or Mbps would save, and what is not known
    with what that means.
    """
    now = time.time()
    read = _read(file, slot_of(now))
    network = _with_more(read.network, add or [])
    first = _first_slot(begin, slot_of(now), read.history.last)
    result = _forecast(
        read,
        network,
        first,
        now,
        limits=Limits(slots_part=slots_part, link_part=link_part),
        high=not expected,
    )
    if as_json:
        print_json(result)
    else:
        _print(result, Limits(slots_part=slots_part, link_part=link_part))


def _read(path: Path, now: int) -> _Read:
    try:
        from edged.policy.forecast import SLOTS_READ, History  # noqa: PLC0415 - numpy
    except ImportError as error:
        raise ToolMissingError(f"numpy cannot be loaded: {error}") from error
    if not path.exists():
        raise ConfigError(f"{path} is not there; IRS keeps it by `[irs.history]`")
    with closing(HistoryFile(path, read_only=True)) as file:
        if file.cut_off:
            errors.print(
                "[yellow]its last write was cut off[/], as IRS ended: what was there before it is"
                " read, from a copy; IRS mends the file when it starts",
                soft_wrap=True,
            )
        span = file.span(now)
        if span is None:
            raise ConfigError(f"{path} has nothing until now: the first row comes after minutes")
        first = max(span.first, span.last - SLOTS_READ + 1)
        try:
            history = History(first, span.last, file.records(first, span.last))
        except (ValueError, TypeError, OverflowError) as error:
            raise HistoryError(f"{path} cannot be read: {error}") from error
        slots = history.last - span.first + 1
        if slots < SLOTS_PER_DAY:
            raise ConfigError(
                f"{path} has {slots / SLOTS_PER_HOUR:g} hours; a forecast is made of a day or more"
            )
        heard = file.network(history.last - SLOTS_PER_DAY, now)
        if heard is None:
            raise HistoryError(f"{path} cannot be read: it has nothing of the network")
    return _Read(
        history=history,
        first=span.first,
        later_rows=span.later,
        network=heard.network,
        origins_gone=heard.gone,
    )


def _with_more(network: Network, add: Sequence[str]) -> Network:
    slots = dict(network.origins)
    for each in add:
        name, _, text = each.partition("=")
        if name not in slots:
            raise ConfigError(f"--add {each!r}: {name!r} is none of {', '.join(sorted(slots))}")
        try:
            slots[name] += int(text)
        except ValueError as error:
            raise ConfigError(f"--add {each!r}: {text!r} is no number of slots") from error
        if not 0 <= slots[name] <= UNITS_MAX:
            raise ConfigError(f"--add {each!r}: {name} would have {slots[name]} slots")
    return msgspec.structs.replace(network, origins=slots)


def _first_slot(begin: str | None, now: int, last: int) -> int:
    """Of the day that is asked for, or of the next whole hour."""
    from edged.policy.forecast import DAYS_MAX  # noqa: PLC0415 - numpy

    if begin is None:
        slot = -(-max(last + 1, now) // SLOTS_PER_HOUR) * SLOTS_PER_HOUR
    else:
        try:
            day = datetime.strptime(begin, "%Y-%m-%d").replace(tzinfo=UTC)
        except ValueError as error:
            raise ConfigError(f"--begin {begin!r} is no day such as 2026-11-27") from error
        slot = slot_of(day.timestamp())
        if slot <= last:
            raise ConfigError(f"--begin {begin}: the history goes to {_at(last)} already")
    if slot - last > DAYS_MAX * SLOTS_PER_DAY:
        raise ConfigError(
            f"{_at(slot)} is {(slot - last) / SLOTS_PER_DAY:,.0f} days after the history's end,"
            f" {_at(last)}; {DAYS_MAX} are the most"
        )
    return slot


def _forecast(
    read: _Read, network: Network, begin: int, now: float, *, limits: Limits, high: bool
) -> DayForecast:
    try:
        from edged.policy.capacity_plan import CapacityPlanner, plan_day  # noqa: PLC0415
    except ImportError as error:
        raise ToolMissingError(f"the solver cannot be loaded: {error}") from error
    from edged.policy.forecast import check_forecast, forecast  # noqa: PLC0415

    history = read.history
    told = forecast(history, begin)
    demand = told.demand(high=high)
    with errors.status("") as status:
        status.update("comparing with days that came")
        check = check_forecast(history, lead=begin - history.last - 1)
        places = [history.pops.index(pop) for pop in told.pops]
        planner = CapacityPlanner(network, told.pops, limits, history.mbps_per_unit[places])
        plan = plan_day(
            planner,
            begin,
            demand,
            told.back_mbps,
            lambda slot: status.update(f"planning {_at(slot)}"),
        )
    basis = _basis(read, told, now)
    return DayForecast(
        begin=_at(begin),
        high=high and told.high_factor is not None,
        basis=basis,
        demand={pop: demand[:, place].round(3).tolist() for place, pop in enumerate(told.pops)},
        check=check,
        plan=plan,
        doubts=find_doubts(basis, check, plan, network),
    )


def _basis(read: _Read, told: "Forecast", now: float) -> Basis:
    return Basis(
        pops=told.pops,
        days=(read.history.last - read.first + 1) / SLOTS_PER_DAY,
        known=read.history.known,
        age_h=max(0.0, now / 3600 - (read.history.last + 1) / SLOTS_PER_HOUR),
        growth=told.growth,
        gone=told.gone,
        untold=told.untold,
        mixed=told.mixed,
        high_from_days=None if told.high_factor is None else int(told.days.max()),
        unplaced=read.history.unplaced,
        later_rows=read.later_rows,
        origins_gone=read.origins_gone,
    )


def _print(told: DayForecast, limits: Limits) -> None:
    basis, plan = told.basis, told.plan
    growth = "not known" if basis.growth is None else f"{100 * (basis.growth - 1):+.1f} % a week"
    console.print(
        f"[bold]{len(basis.pops)}[/] PoPs, {basis.days:.1f} days of history, growth {growth};"
        f" demand {'as high as a twentieth of the time' if told.high else 'as expected'}, on"
        f" {100 * limits.slots_part:g} % of slots and {100 * limits.link_part:g} % of links",
        soft_wrap=True,
    )
    if told.check is not None:
        console.print(_describe_check(told.check), style="dim", soft_wrap=True)
    hours = _busiest(plan.quarters)
    names = _fullest(plan.quarters)
    console.print(
        Text(f"24 hours from {told.begin} UTC, of each its busiest quarter", "bold"),
        soft_wrap=True,
    )
    print_table(
        "",
        ("", "demand", "served", "RTT", *names),
        [_row(quarter, names) for quarter in hours],
        is_first_whole=True,
    )
    if plan.unserved_most:
        console.print(_describe_missing(plan), soft_wrap=True)
    _print_needs(plan.needs)
    for doubt in told.doubts:
        console.print(f"[yellow]·[/] {escape(doubt)}", soft_wrap=True)
    if not plan.needs and not plan.unserved_most:
        where = "every stream can be where it is nearest"
        if told.doubts:
            console.print(f"nothing binds as far as is known: {where}", soft_wrap=True)
        else:
            console.print(f"[green]✓[/] nothing binds: {where}", soft_wrap=True)


def _describe_check(check: Check) -> str:
    days = "the newest day" if check.days == 1 else f"each of the newest {check.days} days"
    said = f"{days} as forecast by what came before it: off by {_percent(check.off)}"
    if check.days > 1:
        said += f", the worst by {_percent(check.off_worst)}"
    said += f", single PoPs by {_percent(check.off_pops)}"
    if len(check.off_of) > 1:
        worst = max(check.off_of, key=lambda pop: check.off_of[pop])
        said += f", the worst, {escape(worst)}, by {_percent(check.off_of[worst])}"
    if check.off_as_before is not None:
        said += f"; were each as the day before it: by {_percent(check.off_as_before)}"
    if check.above_high is not None:
        said += f"; above what may be {_percent(check.above_high)} of the time"
    return said


def _describe_missing(plan: DayPlan) -> str:
    worst = max(plan.quarters, key=lambda quarter: quarter.missing)
    classes = ", ".join(
        f"{units:,.1f} {each.label}"
        for each, units in zip(PriorityClass, worst.unserved, strict=True)
        if units
    )
    pops = sorted(worst.unserved_pops.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{escape(pop)} {units:,.1f}" for pop, units in pops[:POPS_SHOWN_MAX])
    more = f" and {len(pops) - POPS_SHOWN_MAX} more PoPs" if len(pops) > POPS_SHOWN_MAX else ""
    return (
        f"[bold red]{plan.unserved_most:,.1f} streams[/] find no place at {_at(worst.slot)}:"
        f" {classes}; of {shown}{more}; {plan.slots_missing:,} more slots have room for them, if"
        " they are where these can get to"
    )


def _print_needs(needs: Sequence[Need]) -> None:
    if not needs:
        return
    print_table(
        "what binds",
        ("", "", "hours", "one more"),
        [
            (
                Text(need.name, "bold"),
                need.kind,
                f"{need.hours:g}",
                Text(f"{_unit(need)} serves who has no place, or lets others make place", "red")
                if need.scarce
                else f"{_unit(need)} saves up to {_ms(need.price_ms)} of round trips",
            )
            for need in needs[:NEEDS_SHOWN_MAX]
        ],
    )
    if len(needs) > NEEDS_SHOWN_MAX:
        console.print(f"and {len(needs) - NEEDS_SHOWN_MAX} more; `--json` has them all")


def _unit(need: Need) -> str:
    return "slot" if need.kind == "origin" else "Mbps"


def _ms(price_ms: float) -> str:
    """Never 0 of what is not."""
    return f"{max(price_ms, 0.1):,.1f} ms"


def _busiest(quarters: Sequence[Quarter]) -> list[Quarter]:
    """Of each hour, the quarter in which most find no place, or most is asked for."""
    return [
        max(quarters[at : at + SLOTS_PER_HOUR], key=lambda each: (each.missing, each.demand))
        for at in range(0, len(quarters), SLOTS_PER_HOUR)
    ]


def _fullest(quarters: Sequence[Quarter]) -> list[str]:
    parts: dict[str, float] = {}
    for quarter in quarters:
        for use in quarter.origins:
            parts[use.origin] = max(parts.get(use.origin, 0.0), use.part)
    return sorted(parts, key=lambda name: (-parts[name], name))[:ORIGINS_SHOWN_MAX]


def _row(quarter: Quarter, names: Sequence[str]) -> list[str | Text]:
    uses = {use.origin: use for use in quarter.origins}
    cells: list[str | Text] = []
    for name in names:
        use = uses[name]
        style = "red" if use.scarce else "yellow" if use.price_ms else ""
        cells.append(Text(f"{100 * use.part:.0f} %", style))
    served = math.floor(1000 * quarter.served) / 10  # Never all where it is not.
    return [
        Text(_at(quarter.slot)[-5:], "bold"),
        f"{quarter.demand:,.0f}",
        Text(f"{served:.1f} %", "red" if quarter.missing else ""),
        "not known" if quarter.rtt_ms is None else f"{quarter.rtt_ms:.1f} ms",
        *cells,
    ]


def _percent(part: float) -> str:
    return f"{100 * part:.1f} %"


def _at(slot: int) -> str:
    return datetime.fromtimestamp(slot * SLOT_S, UTC).strftime("%Y-%m-%d %H:%M")
