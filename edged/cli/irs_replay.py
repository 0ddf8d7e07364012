"""`edged irs replay`: IRS's plans made again from its journal, and any of them explained."""

import itertools
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from msgspec import Struct
from rich.markup import escape
from rich.text import Text

from edged.cli.asking import JsonOption
from edged.cli.output import console, errors, print_json, print_table
from edged.errors import ConfigError, RemoteProtocolError, ToolMissingError
from edged.irs.journal import journal_files, solver_version
from edged.media.stream import PriorityClass
from edged.policy import plan_journal
from edged.policy.flows import RTT_MS_MAX, Binding, FlowProgram
from edged.policy.plan_journal import FORMAT, FORMAT_OF_RULES, PlanRecord, Record, read_journal
from edged.policy.plan_replay import (
    Mover,
    PlanExplanation,
    Replayed,
    ReplayedMoves,
    Verdict,
    explain_plan,
)
from edged.policy.plan_replay import replay as replay_plans

SHOWN_MAX = 20  # Plans that differ, limits that bind, PoPs without a place.


class Differing(Struct, frozen=True, kw_only=True):
    """A plan that did not come out as it was. `what`: "leases", "tables" or "moves"."""

    what: str = "leases"
    epoch: int
    version: int
    unix: float
    failure: str  # Why the solver made none then.
    failure_now: str


class Played(Struct, frozen=True, kw_only=True):
    """What a replay came to."""

    files: int
    problems: list[str]  # Files that cannot be read to their end.
    solvers: list[str]  # By which the plans were made.
    solver: str  # By which they were made again.
    plans: int
    same: int
    skipped: int
    different: list[Differing]
    tables: int = 0  # That were pushed and are the same, byte for byte.
    tables_unknown: int = 0  # Plans made again of which no table can be.
    moves: int = 0  # Plans of moves.
    moves_same: int = 0
    moves_skipped: int = 0
    sheds: int = 0  # Of the same, those by which streams had to go.
    formats: list[int] = []  # Of the files.
    first_unix: float
    last_unix: float
    plan_ms_p50: float  # What a plan takes here.
    plan_ms_p99: float


def replay(
    path: Annotated[Path, typer.Argument(help="The journal's folder, or one of its files.")],
    *,
    table: Annotated[
        str | None,
        typer.Option(
            help="Explain the plan of this table, VERSION or EPOCH:VERSION; 0: the newest."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make IRS's plans again from its journal, and see whether they are the same.

    Ends with 1 if any is not, or none could be read. With --table one plan is explained: which
    limits bind, what one more unit of each would save, and who finds no place and why.
    """
    found = journal_files(path)
    if not found:
        raise ConfigError(f"{path} has no journal of plans; IRS keeps one by `[irs.journal]`")
    journal = _Journal(found)
    if table is not None:
        plans = _leading_to(journal, _Wanted(table, path))
        *_, replayed = replay_plans(plans, _load_solver())
        assert isinstance(replayed, Replayed), "the last is the one that is wanted"
        explained = explain_plan(replayed)
        if as_json:
            print_json(explained)
        else:
            _print_explained(explained)
        return
    solver, mover, shed = _load_solver(), _load_mover(), _load_solver()
    played = _play(replay_plans(journal.records(), solver, mover, shed), journal)
    if as_json:
        print_json(played)
    else:
        _print(played)
    if played.different or (played.problems and not played.plans):
        raise typer.Exit(1)


class _Journal:
    """Files of one journal, read one after the other."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self.solvers: dict[str, None] = {}
        self.formats: dict[int, None] = {}
        self.problems: list[str] = []

    def records(self) -> Iterator[Record]:
        """Of all files; what a file lacks is a gap, unless it is the only one.

        IRS may drop the oldest meanwhile.
        """
        for path in self.paths:
            try:
                header, records = read_journal(_read(path), str(path))
                self.solvers[header.solver] = None
                self.formats[header.format] = None
                yield from records
            except (RemoteProtocolError, ConfigError) as error:
                if len(self.paths) == 1:
                    raise
                self.problems.append(str(error))


class _Wanted:
    """Which table `--table` names; raises ConfigError."""

    def __init__(self, text: str, path: Path) -> None:
        epoch, colon, version = text.rpartition(":")
        if not version.isdecimal() or (colon and not epoch.isdecimal()):
            raise ConfigError(f"--table {text!r} is neither VERSION nor EPOCH:VERSION")
        self.text, self.path = text, path
        self.epoch, self.version = int(epoch) if colon else None, int(version)

    def fits(self, record: PlanRecord) -> bool:
        """Whether it is that one."""
        return self.version in (0, record.version) and self.epoch in (None, record.epoch)


def _leading_to(journal: _Journal, wanted: _Wanted) -> list[PlanRecord]:
    """The plans from the one with which the solver began cold to the one that is wanted."""
    since_cold: list[PlanRecord] = []
    found: list[PlanRecord] = []
    epochs: dict[int, None] = {}
    with errors.status("looking for the plan"):
        for record in journal.records():
            if not isinstance(record, PlanRecord):
                continue
            since_cold = [] if record.cold else since_cold
            since_cold.append(record)
            if wanted.fits(record):
                epochs[record.epoch] = None
                found = list(since_cold)
    _print_gaps(journal.problems)
    if not found:
        raise ConfigError(f"{wanted.path} has no plan of table {wanted.text}")
    if wanted.version and len(epochs) > 1:
        known = ", ".join(f"{epoch}:{wanted.version}" for epoch in epochs)
        raise ConfigError(f"--table {wanted.text} is of several epochs: {known}")
    return found


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        most = plan_journal.FILE_BYTES_MAX
        if size > most:
            raise ConfigError(f"{path} has {size} bytes; {most} are the most")
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error


def _load_solver() -> FlowProgram:
    """A solver; raises ToolMissingError where there is none."""
    try:
        from edged.policy.solver import FlowSolver  # noqa: PLC0415 - numpy and HiGHS
    except ImportError as error:
        raise ToolMissingError(f"the solver cannot be loaded: {error}") from error
    return FlowSolver()


def _load_mover() -> Mover:
    from edged.policy.migration import Migration  # noqa: PLC0415 - numpy and HiGHS

    return Migration()


def _play(replayed: Iterator[Replayed | ReplayedMoves], journal: _Journal) -> Played:
    counts, of_moves = Counter[Verdict](), Counter[Verdict]()
    tables = tables_unknown = sheds = 0
    different: list[Differing] = []
    took_ms: list[float] = []
    first_unix = last_unix = 0.0
    with errors.status("") as status:
        for count in itertools.count(1):
            began_at = time.perf_counter()
            each = next(replayed, None)
            if each is None:
                break
            record = each.record
            first_unix, last_unix = first_unix or record.unix, record.unix
            different += _differing(each)
            if isinstance(each, ReplayedMoves):
                of_moves[each.verdict] += 1
                sheds += each.verdict == "same" and bool(each.sheds)
                continue
            counts[_whole(each)] += 1
            if each.plan is not None:
                took_ms.append(1000 * (time.perf_counter() - began_at))
                tables += len(each.tables) if each.tables_verdict == "same" else 0
                tables_unknown += each.tables_verdict == "skipped"
            if count % 100 == 0:
                status.update(f"{count} plans, at {_at(record.unix)}")
    return Played(
        files=len(journal.paths),
        problems=journal.problems,
        solvers=list(journal.solvers),
        solver=solver_version(),
        plans=counts.total(),
        same=counts["same"],
        skipped=counts["skipped"],
        different=different,
        tables=tables,
        tables_unknown=tables_unknown,
        moves=of_moves.total(),
        moves_same=of_moves["same"],
        moves_skipped=of_moves["skipped"],
        sheds=sheds,
        formats=list(journal.formats),
        first_unix=first_unix,
        last_unix=last_unix,
        plan_ms_p50=statistics.median(took_ms) if took_ms else 0.0,
        plan_ms_p99=sorted(took_ms)[len(took_ms) * 99 // 100] if took_ms else 0.0,
    )


def _whole(each: Replayed) -> Verdict:
    """Of leases and tables together."""
    return "different" if each.tables_verdict == "different" else each.verdict


def _differing(each: Replayed | ReplayedMoves) -> list[Differing]:
    record, failure_now = each.record, ""
    if isinstance(each, ReplayedMoves):
        what, verdict, failure_now = "moves", each.verdict, each.failure
    else:
        what = "leases" if each.verdict == "different" else "tables"
        verdict = _whole(each)
        failure_now = "" if each.plan is None else each.plan.failure
    if verdict != "different":
        return []
    return [
        Differing(
            what=what,
            epoch=record.epoch,
            version=record.version if isinstance(record, PlanRecord) else 0,
            unix=record.unix,
            failure=record.failure,
            failure_now=failure_now,
        )
    ]


def _print(played: Played) -> None:
    _print_gaps(played.problems)
    if not played.plans:
        console.print("the journal has no plans yet")
        return
    files = "1 file" if played.files == 1 else f"{played.files} files"
    made_by = escape(" and ".join(name or "no solver" for name in played.solvers))
    console.print(
        f"[bold]{played.plans:,}[/] plans in {files}, by {made_by}: {_at(played.first_unix)} to"
        f" {_at(played.last_unix)} UTC",
        soft_wrap=True,
    )
    different = [each for each in played.different if each.what != "moves"]
    again = played.same + len(different)
    if again and not different:
        console.print(
            f"[green]✓[/] {again:,} made again, all the same, byte for byte;"
            f" {played.plan_ms_p50:.1f} ms each, p99 {played.plan_ms_p99:.1f} ms",
            soft_wrap=True,
        )
    if played.skipped:
        console.print(
            f"· {played.skipped:,} skipped: the solver had not begun cold before them",
            soft_wrap=True,
        )
    _print_beside(played)
    if not played.different:
        return
    console.print(
        f"[bold red]✕[/] {len(played.different):,} of {again + played.moves:,} came out otherwise",
        soft_wrap=True,
    )
    rows = [
        (
            f"{each.epoch} v{each.version}" if each.version else f"{each.epoch}",
            each.what,
            _at(each.unix),
            _describe_failures(each),
        )
        for each in played.different[:SHOWN_MAX]
    ]
    print_table("", ("table", "what", "made at", "solver"), rows)
    _print_rest(played.different)
    if played.solvers != [played.solver]:
        console.print(
            f"this is {escape(played.solver)}: another solver may choose another of equal plans",
            soft_wrap=True,
        )


def _print_beside(played: Played) -> None:
    """Of tables and moves, and what the journal cannot tell of them."""
    if played.tables:
        console.print(f"[green]✓[/] {played.tables:,} tables pushed, byte for byte", soft_wrap=True)
    if played.moves_same:
        console.print(
            f"[green]✓[/] {played.moves_same:,} plans of moves, and what PoPs were asked",
            soft_wrap=True,
        )
    if played.sheds:
        console.print(
            f"[green]✓[/] {played.sheds:,} of these with streams that had to go, and the orders",
            soft_wrap=True,
        )
    if played.moves_skipped:
        console.print(
            f"· {played.moves_skipped:,} plans of moves skipped: their solver had not begun cold"
            " before them",
            soft_wrap=True,
        )
    if 1 in played.formats:
        console.print(
            "· an older edged wrote some of it: of those plans it has the leases, not what made"
            " tables of them (rules, times), nor moves",
            soft_wrap=True,
        )
    elif played.moves_same and min(played.formats, default=FORMAT) < FORMAT_OF_RULES:
        console.print(
            "· an older edged wrote some of it: its plans of moves knew neither what rules let"
            " which stream go where nor what PoPs had refused",
            soft_wrap=True,
        )
    if 1 not in played.formats and played.tables_unknown:
        console.print(
            f"· {played.tables_unknown:,} plans of which no table can be made: the rules are not"
            " in what can be read",
            soft_wrap=True,
        )


def _describe_failures(each: Differing) -> str:
    if each.failure == each.failure_now:
        return each.failure or "solved, then and now"
    return f"then: {each.failure or 'solved'}; now: {each.failure_now or 'solved'}"


def _print_explained(told: PlanExplanation) -> None:
    same = "as it was then" if told.verdict == "same" else "[bold red]not as it was then[/]"
    console.print(
        f"plan of table epoch {told.epoch} v{told.version}, {_at(told.unix)} UTC, {same}: by"
        f" {told.policy}; {told.pops} PoP shards, {told.arrivals_per_s:.1f} publishers a second",
        soft_wrap=True,
    )
    if told.failure:
        console.print(f"[yellow]without the solver[/]: {escape(told.failure)}", soft_wrap=True)
    print_table(
        "",
        ("origin", "state", "slots", "free", "used", "leased", "for partners"),
        [
            (
                Text(each.origin, "bold"),
                each.state,
                *map(str, (each.slots_total, each.room, each.used, each.leased, each.kept)),
            )
            for each in told.origins
        ],
    )
    if told.flows is None:
        return
    if not told.origins:
        console.print("[yellow]there was no origin yet[/]")
    elif not told.flows.binding:
        console.print("no limit binds: every stream is, or will be, where it is nearest")
    else:
        print_table(
            "limits that bind",
            ("", "for", "units", "one more"),
            [
                (
                    Text(each.name, "bold"),
                    _describe_limited(each),
                    f"{each.limit:,.0f}",
                    _describe_price(each.price_ms),
                )
                for each in told.flows.binding[:SHOWN_MAX]
            ],
        )
        _print_rest(told.flows.binding)
    if told.flows.unserved:
        print_table(
            "no place",
            ("PoP", "class", "units", "why"),
            [
                (
                    Text(each.pop, "bold"),
                    each.class_label,
                    f"{each.units:,.0f}",
                    "; ".join(f"{origin}: {why}" for origin, why in each.why.items()),
                )
                for each in told.flows.unserved[:SHOWN_MAX]
            ],
        )
        _print_rest(told.flows.unserved)


def _print_gaps(problems: Sequence[str]) -> None:
    for problem in problems:
        errors.print(f"[yellow]a gap:[/] {escape(problem)}", soft_wrap=True)


def _print_rest(shown: Sequence[object]) -> None:
    if len(shown) > SHOWN_MAX:
        console.print(f"and {len(shown) - SHOWN_MAX:,} more; `--json` has them all")


def _describe_limited(binding: Binding) -> str:
    if binding.kind == "link":
        return "all across the link"
    if binding.class_label == PriorityClass.PARTNER.label:
        return "all"
    below = "" if binding.class_label == PriorityClass.BASIC.label else " and below"
    return f"{binding.class_label}{below}"


def _describe_price(price_ms: float) -> str:
    """In the solver's terms a stream without a place costs far more than any round trip."""
    if price_ms > RTT_MS_MAX:
        return "serves a stream that has no place"
    return f"saves {price_ms:,.1f} ms of round trip"


def _at(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M:%S")
