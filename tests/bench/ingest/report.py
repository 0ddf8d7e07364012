"""Rows, medians over interleaved runs, and how they are told."""

import statistics
from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec
from msgspec import Struct

from tests.bench.ingest.measure import Run

CPU_RATIO_GOAL: Final = (
    0.7  # edged's CPU per stream over nginx-rtmp's, at the same number of streams.
)
DELAY_P99_US_GOAL: Final = 10_000
MEMORY_GOAL_BYTES: Final = 100_000  # For each stream, beyond the rings' bytes.


class Row(Struct, frozen=True):
    """What is measured."""

    server: str  # "nginx" or "edged".
    streams: int
    tls: bool = False

    @property
    def name(self) -> str:
        """As printed."""
        return f"{self.server} N={self.streams}{' tls' if self.tls else ''}"


class Outcome(Struct, frozen=True):
    """One row in one round: a run, or why there is none."""

    row: Row
    round: int
    run: Run | None
    failure: str | None = None

    @property
    def sound(self) -> Run | None:
        """The run, unless it is void."""
        return self.run if self.run is not None and self.run.void_because is None else None


class Summary(Struct, frozen=True):
    """Medians of a row's sound runs; None where there is none."""

    row: Row
    runs: int
    sound_runs: int
    notes: list[str]  # Void runs, failures, backlog: in words, each once with its round.
    percent_per_stream: float | None
    percent_per_stream_min: float | None
    percent_per_stream_max: float | None
    ratio_to_nginx: float | None  # Median of the rounds' own ratios: a slow round slows both.
    system_percent: float | None  # Of the server's CPU time, in the kernel.
    delay_p50_us: float | None
    delay_p99_us: float | None
    delay_max_us: float | None
    bytes_per_stream: float | None
    ring_bytes_per_stream: float | None
    idle_bytes: float | None
    load_core_share: float | None  # Generator and sink.
    missing: int


def _median(runs: Sequence[Run], value: Callable[[Run], float | None]) -> float | None:
    known = [found for run in runs if (found := value(run)) is not None]
    return statistics.median(known) if known else None


def _delay_us(run: Run, name: Literal["p50", "p99", "max"]) -> int | None:
    """None when nothing arrived: no delay is not a short one."""
    delay = run.arrived.delay_us
    return {"p50": delay.p50, "p99": delay.p99, "max": delay.max}[name] if delay.count else None


def _ring_bytes_per_stream(run: Run) -> float | None:
    return None if run.ring_bytes is None else run.ring_bytes / run.streams


def _notes(outcomes: Sequence[Outcome]) -> list[str]:
    notes = []
    for outcome in outcomes:
        where = f"round {outcome.round}"
        if outcome.run is None:
            notes.append(f"{where}: failed: {outcome.failure}")
        elif (why := outcome.run.void_because) is not None:
            notes.append(f"{where}: void: {why}")
        elif (why := outcome.run.backlog_because) is not None:
            notes.append(f"{where}: backlog: {why}")
        if outcome.run is not None and (why := outcome.run.disturbed_because) is not None:
            notes.append(f"{where}: disturbed: {why}")
    return notes


def _ratios(row: Row, outcomes: Sequence[Outcome]) -> list[float]:
    nginx = {o.round: o.sound for o in outcomes if o.row == Row("nginx", row.streams)}
    ratios = []
    for outcome in outcomes:
        base = nginx.get(outcome.round)
        if outcome.row == row and outcome.sound is not None and base is not None:
            ratios.append(outcome.sound.percent_per_stream / base.percent_per_stream)
    return ratios


def summarize(row: Row, outcomes: Sequence[Outcome]) -> Summary:
    """Medians of one row among all outcomes."""
    mine = [outcome for outcome in outcomes if outcome.row == row]
    runs = [outcome.sound for outcome in mine if outcome.sound is not None]
    ratios = _ratios(row, outcomes)
    percents = [run.percent_per_stream for run in runs]
    return Summary(
        row=row,
        runs=len(mine),
        sound_runs=len(runs),
        notes=_notes(mine),
        percent_per_stream=_median(runs, lambda run: run.percent_per_stream),
        percent_per_stream_min=min(percents, default=None),
        percent_per_stream_max=max(percents, default=None),
        ratio_to_nginx=statistics.median(ratios) if ratios and row.server != "nginx" else None,
        system_percent=_median(runs, lambda run: 100 * run.server_system_share / run.server_share),
        delay_p50_us=_median(runs, lambda run: _delay_us(run, "p50")),
        delay_p99_us=_median(runs, lambda run: _delay_us(run, "p99")),
        delay_max_us=_median(runs, lambda run: _delay_us(run, "max")),
        bytes_per_stream=_median(runs, lambda run: run.bytes_per_stream),
        ring_bytes_per_stream=_median(runs, _ring_bytes_per_stream),
        idle_bytes=_median(runs, lambda run: run.idle_bytes),
        load_core_share=_median(runs, lambda run: run.generator_share + run.sink_share),
        missing=sum(run.missing for run in runs),
    )


def _cell(value: float | None, scale: float, form: str) -> str:
    return "-" if value is None else format(value * scale, form)


def as_table(summaries: Sequence[Summary]) -> str:
    """For people."""
    lines = [
        f"{'':16} {'CPU %/stream':>20} {'/nginx':>7} {'kernel':>7} {'delay ms p50/p99/max':>22}"
        f" {'KB/stream':>10} {'ring KB':>8} {'idle MB':>8} {'load core':>10} {'missing':>8}"
    ]
    for s in summaries:
        cpu = _cell(s.percent_per_stream, 1, ".3f")
        spread = "..".join(
            _cell(value, 1, ".3f") for value in (s.percent_per_stream_min, s.percent_per_stream_max)
        )
        delays = "/".join(
            _cell(us, 1e-3, ".2f") for us in (s.delay_p50_us, s.delay_p99_us, s.delay_max_us)
        )
        lines.append(
            f"{s.row.name:16} {f'{cpu} ({spread})':>20} {_cell(s.ratio_to_nginx, 1, '.2f'):>7}"
            f" {_cell(s.system_percent, 1, '.0f'):>6}% {delays:>22}"
            f" {_cell(s.bytes_per_stream, 1e-3, '.0f'):>10}"
            f" {_cell(s.ring_bytes_per_stream, 1e-3, '.0f'):>8}"
            f" {_cell(s.idle_bytes, 1e-6, '.1f'):>8} {_cell(s.load_core_share, 100, '.0f'):>9}%"
            f" {s.missing:>8}"
        )
    lines += [f"{s.row.name}, {note}" for s in summaries for note in s.notes]
    return "\n".join(lines)


def goals(summaries: Sequence[Summary]) -> list[str]:
    """What is asked for, and whether these figures reach it.

    Rows with TLS on the backbone are told, not judged: nginx-rtmp's `push` has none.
    """
    beside = any(s.row.server == "nginx" for s in summaries)

    def verdict(what: str, value: float | None, goal: float, unit: str) -> str:
        if value is None:
            return f"{what}: not measured"
        word = "reached" if value <= goal else "MISSED"
        return f"{what}: {value:.3g} {unit} (goal <= {goal:g}): {word}"

    lines = []
    for s in summaries:
        if s.row.server != "edged" or s.row.tls:
            continue
        if beside and s.ratio_to_nginx is None:
            lines.append(f"{s.row.name}: CPU beside nginx-rtmp: MISSED, not measured")
        elif s.ratio_to_nginx is not None:
            lines.append(
                verdict(f"{s.row.name}: CPU", s.ratio_to_nginx, CPU_RATIO_GOAL, "x nginx-rtmp")
            )
        memory = None if s.bytes_per_stream is None else s.bytes_per_stream / 1e6
        lines.append(verdict(f"{s.row.name}: memory", memory, MEMORY_GOAL_BYTES / 1e6, "MB/stream"))
        delay = None if s.delay_p99_us is None else s.delay_p99_us / 1e3
        lines.append(verdict(f"{s.row.name}: p99 delay", delay, DELAY_P99_US_GOAL / 1e3, "ms"))
        kept_up = s.sound_runs == s.runs and not any(": backlog: " in note for note in s.notes)
        lines.append(f"{s.row.name}: backlog: {'none' if kept_up else 'SEE ABOVE'}")
    return lines


def as_json(summaries: Sequence[Summary], outcomes: Sequence[Outcome]) -> str:
    """For machines: the medians, and every run."""
    whole = {"rows": summaries, "goals": goals(summaries), "outcomes": outcomes}
    return msgspec.json.format(msgspec.json.encode(whole), indent=1).decode()
