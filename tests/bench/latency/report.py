"""Rows, runs, medians over runs, and how they are told."""

import statistics
from collections.abc import Sequence
from typing import Final, Literal

import msgspec
from msgspec import Struct

from tests.bench.goals import verdict

P50_MS_GOAL: Final = 1200.0  # Stock hls.js, parts of 200 ms.
GOAL_PART_S: Final = 0.2
FRAMES_SHARE_MIN: Final = 0.9  # Below it a machine too busy for a decoder was measured.
LATE_MS_MAX: Final = 35.0  # A p99 beyond a frame's time: the publisher itself was held up.


class Row(Struct, frozen=True):
    """What is measured."""

    viewer: Literal["stock", "watch"]
    encoding: str

    @property
    def name(self) -> str:
        """As printed, and as --row takes it."""
        return f"{self.viewer}-{self.encoding}"


ROWS: Final = (Row("stock", "zerolatency"), Row("stock", "obs"), Row("watch", "zerolatency"))


class Run(Struct, frozen=True, kw_only=True):
    """One row in one round."""

    p50_ms: float
    p99_ms: float
    frames: int
    frames_share: float  # Different frames presented, of those due.
    unread: int
    stalls: int
    seeks: int
    first_picture_s: float
    part_target_s: float
    hold_back_s: float
    late_p99_ms: float  # The publisher's own pacing.
    publisher: list[str]  # Its troubles.
    console: list[str]

    def notes(self) -> list[str]:
        """What a reader of the figures must know."""
        notes = []
        if self.frames_share < FRAMES_SHARE_MIN:
            notes.append(f"disturbed: only {self.frames_share:.0%} of the frames were presented")
        if self.late_p99_ms > LATE_MS_MAX:
            notes.append(f"disturbed: units left up to {self.late_p99_ms:.0f} ms late (p99)")
        if self.unread:
            notes.append(f"{self.unread} frames without a readable strip")
        notes += [f"publisher {text}" for text in self.publisher]
        notes += [f"console {text[:200]}" for text in self.console]
        return notes


class Outcome(Struct, frozen=True):
    """A run, or why there is none."""

    row: Row
    round: int
    run: Run | None
    failure: str | None = None

    def line(self) -> str:
        """One run as a line."""
        where = f"round {self.round}, {self.row.name}"
        if self.run is None:
            return f"{where}: failed: {self.failure}"
        run = self.run
        return (
            f"{where}: p50 {run.p50_ms:.0f} ms, p99 {run.p99_ms:.0f} ms, {run.frames} frames"
            f" ({run.frames_share:.1%}), {run.stalls} stalls, {run.seeks} seeks,"
            f" first picture after {run.first_picture_s:.2f} s"
        )


class Summary(Struct, frozen=True):
    """A row's runs and their medians; None where there is none."""

    row: Row
    failed: int
    p50s_ms: list[float]
    p99s_ms: list[float]
    p50_ms: float | None
    p99_ms: float | None
    first_picture_s: float | None
    frames_share: float | None
    part_target_s: float | None
    hold_back_s: float | None
    stalls: int
    seeks: int
    notes: list[str]


def summarize(row: Row, outcomes: Sequence[Outcome]) -> Summary:
    """Medians of one row among all outcomes."""
    mine = [outcome for outcome in outcomes if outcome.row == row]
    runs = [outcome.run for outcome in mine if outcome.run is not None]

    def median(values: Sequence[float]) -> float | None:
        return statistics.median(values) if values else None

    return Summary(
        row=row,
        failed=len(mine) - len(runs),
        p50s_ms=[run.p50_ms for run in runs],
        p99s_ms=[run.p99_ms for run in runs],
        p50_ms=median([run.p50_ms for run in runs]),
        p99_ms=median([run.p99_ms for run in runs]),
        first_picture_s=median([run.first_picture_s for run in runs]),
        frames_share=median([run.frames_share for run in runs]),
        part_target_s=median([run.part_target_s for run in runs]),
        hold_back_s=median([run.hold_back_s for run in runs]),
        stalls=sum(run.stalls for run in runs),
        seeks=sum(run.seeks for run in runs),
        notes=[
            f"round {outcome.round}: {note}"
            for outcome in mine
            for note in (
                [f"failed: {outcome.failure}"] if outcome.run is None else outcome.run.notes()
            )
        ],
    )


def as_table(summaries: Sequence[Summary]) -> str:
    """For people."""
    lines = [
        f"{'':18} {'p50 ms':>7} {'p99 ms':>7} {'part s':>7} {'hold-back s':>12}"
        f" {'1st picture s':>14} {'frames':>7} {'stalls':>7} {'seeks':>6}  runs' p50 ms"
    ]
    lines += [
        f"{s.row.name:18} {_cell(s.p50_ms, '.0f'):>7} {_cell(s.p99_ms, '.0f'):>7}"
        f" {_cell(s.part_target_s, '.3f'):>7} {_cell(s.hold_back_s, '.3f'):>12}"
        f" {_cell(s.first_picture_s, '.2f'):>14} {_cell(s.frames_share, '.1%'):>7}"
        f" {s.stalls:>7} {s.seeks:>6}  {' '.join(f'{p50:.0f}' for p50 in s.p50s_ms)}"
        for s in summaries
    ]
    lines += [f"{s.row.name}, {note}" for s in summaries for note in s.notes]
    return "\n".join(lines)


def goal(summaries: Sequence[Summary]) -> str | None:
    """Whether stock hls.js reaches the goal; None when that row was left out."""
    for s in summaries:
        if s.row == ROWS[0]:
            target = f"goal p50 <= {P50_MS_GOAL:.0f} ms, stock hls.js, parts of {GOAL_PART_S:g} s"
            if s.p50_ms is None or s.part_target_s is None:
                return f"{target}: not measured"
            if abs(s.part_target_s - GOAL_PART_S) > 0.01:
                return f"{target}: not measured, the parts had {s.part_target_s:g} s"
            word = verdict(reached=s.p50_ms <= P50_MS_GOAL)
            return f"{target}: {word}, {s.p50_ms:.0f} ms (median of {len(s.p50s_ms)} runs)"
    return None


def as_json(summaries: Sequence[Summary], outcomes: Sequence[Outcome]) -> str:
    """For programs: every run included."""
    report = {"goal": goal(summaries), "rows": summaries, "runs": outcomes}
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode()


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
