"""Plots of a simulation: every origin's use over time, policy by policy, and what it costs.

PNG, SVG or HTML (the SVG in a page, with the table below it), by the file's name. Colours are told
apart by the colour-blind, too: Okabe and Ito's for policies, Tol's muted with dashes for origins.
"""

import html
import io
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from edged.errors import ConfigError, ToolMissingError

try:
    import matplotlib as mpl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas
    from matplotlib.lines import Line2D
except ImportError as error:
    raise ToolMissingError(
        "plots need matplotlib: install edged with its extra, edged[simulate]"
    ) from error

from edged.tools.simulate.recorder import Sample
from edged.tools.simulate.runner import Played
from edged.tools.simulate.scenario import PolicyName

SUFFIXES = (".png", ".svg", ".html")
POINTS_MAX = 288  # Per line: samples are put together; of a day five minutes.
COLUMNS = 3
TICKS_MAX = 6  # Labels of hours that do not touch each other.
DPI = 130
INK, FAINT = "#222222", "#d9d9d9"
POLICY_COLOURS: dict[PolicyName, str] = {
    "static": "#777777",
    "lp-hourly": "#E69F00",
    "power-of-two": "#CC79A7",
    "greedy": "#56B4E9",
    "price": "#009E73",
    "leases": "#0072B2",
    "rehoming": "#D55E00",
}
ORIGIN_COLOURS = (
    "#332288",
    "#88CCEE",
    "#44AA99",
    "#117733",
    "#999933",
    "#DDCC77",
    "#CC6677",
    "#882255",
    "#AA4499",
)
DASHES = ("-", "--", ":", "-.")


def check_path(path: Path) -> None:
    """Raise ConfigError for a file that plots can't be written to."""
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"--plot {path}: {path.suffix!r} is none of {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise ConfigError(f"--plot {path}: there is no folder {path.parent}")


def save(played: Played, path: Path, *, start_hour: float, table: Sequence[Sequence[str]]) -> None:
    """Draw and write; `table` is for HTML alone, its heading first."""
    check_path(path)
    with _style():
        canvas = draw(played, start_hour)
        buffer = io.BytesIO()
        kind = "png" if path.suffix == ".png" else "svg"
        metadata = {"Software": None} if kind == "png" else {"Date": None}
        canvas.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
    data = buffer.getvalue()
    if path.suffix == ".html":
        data = _page(played, data.decode(), table).encode()
    try:
        path.write_bytes(data)
    except OSError as error:
        raise ConfigError(f"--plot {path}: {error.strerror or error}") from error


def draw(played: Played, start_hour: float) -> Canvas:
    """The whole picture."""
    report, names = played.report, list(played.samples)
    columns = min(COLUMNS, len(names))
    rows = math.ceil(len(names) / columns)
    canvas = Canvas(figsize=(12.0, 2.3 * rows + 5.6), facecolor="white", layout="constrained")
    grid = canvas.add_gridspec(2, 1, height_ratios=[2.3 * rows + 0.5, 5.1])
    top, bottom = canvas.add_subfigure(grid[0]), canvas.add_subfigure(grid[1])
    canvas.suptitle(
        f"{report.scenario}: {report.pops} PoPs, {len(report.origins)} origins,"
        f" {report.slots:,} slots, seed {report.seeds[0]}",
        x=0.01,
        ha="left",
        fontsize=12,
        fontweight="bold",
    )
    axes = top.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel().tolist()
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    for axis, name in zip(axes, names, strict=False):
        _draw_use(axis, name, played.samples[name], start_hour)
    for axis in axes[::columns]:
        axis.set_ylabel("slots used, %")
    top.legend(handles=_origin_handles(report.origins), loc="outside right upper", title="origin")
    _draw_costs(bottom.subplots(2, 2, sharex=True).ravel().tolist(), played, start_hour)
    bottom.legend(
        handles=[Line2D([], [], color=POLICY_COLOURS[name], label=name) for name in names],
        loc="outside right upper",
        title="policy",
    )
    return canvas


def _style() -> AbstractContextManager[None]:
    return mpl.rc_context(
        {
            "font.size": 9.0,
            "axes.edgecolor": "#999999",
            "axes.labelcolor": INK,
            "axes.titlesize": 10.0,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": FAINT,
            "grid.linewidth": 0.6,
            "xtick.color": "#555555",
            "ytick.color": "#555555",
            "text.color": INK,
            "legend.frameon": False,
            "svg.hashsalt": "edged",  # So that the same run makes the same file.
        }
    )


def _draw_use(axis: Axes, name: PolicyName, samples: Sequence[Sample], start_hour: float) -> None:
    groups = _grouped(samples)
    hours = _hours(groups, start_hour)
    for origin in range(len(samples[0].use)):
        use = [100 * _mean([sample.use[origin] for sample in group]) for group in groups]
        axis.plot(hours, use, **_origin_style(origin), linewidth=0.9)  # type: ignore[arg-type]
    whole = [
        100 * sum(sample.live for sample in group) / max(1, sum(sample.slots for sample in group))
        for group in groups
    ]
    axis.plot(hours, whole, color=INK, linewidth=2.0)
    axis.set_title(f"Use of origins: {name}")
    axis.set_ylim(0, 105)
    axis.set_yticks([0, 25, 50, 75, 100])
    _set_hours(axis, hours)


def _draw_costs(axes: Sequence[Axes], played: Played, start_hour: float) -> None:
    panels: list[tuple[str, str, Callable[[Sequence[Sample]], float]]] = [
        ("Rejected", "of streams that came, %", lambda group: 100 * _part(group, "rejected")),
        ("Round trip from PoP to origin", "mean over live streams, ms", _mean_rtt),
        ("First try", "of streams that came, %", lambda group: 100 * _part(group, "first_try")),
        (
            "Fullest link",
            "of its bandwidth, %",
            lambda group: 100 * max(s.link_load for s in group),
        ),
    ]
    for axis, (title, label, value) in zip(axes, panels, strict=True):
        for name, samples in played.samples.items():
            groups = _grouped(samples[1:])
            hours = _hours(groups, start_hour)
            values = [value(group) for group in groups]
            axis.plot(hours, values, color=POLICY_COLOURS[name], linewidth=1.5, alpha=0.9)
            _set_hours(axis, [start_hour, *hours])
        axis.set_title(title)
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0 if title != "First try" else None)
    for axis in axes[-2:]:
        axis.set_xlabel("hour, UTC")


def _origin_style(origin: int) -> dict[str, str]:
    dash = DASHES[origin // len(ORIGIN_COLOURS) % len(DASHES)]
    return {"color": ORIGIN_COLOURS[origin % len(ORIGIN_COLOURS)], "linestyle": dash}


def _origin_handles(origins: Sequence[str]) -> list[Line2D]:
    lines = [
        Line2D([], [], label=name, **_origin_style(index))  # type: ignore[arg-type]
        for index, name in enumerate(origins)
    ]
    return [Line2D([], [], color=INK, linewidth=2.0, label="all"), *lines]


def _set_hours(axis: Axes, hours: Sequence[float]) -> None:
    """Ticks at whole hours, as many as can be read; 24 and beyond are of the next day."""
    if not hours:
        return
    span = hours[-1] - hours[0]
    steps = (0.25, 0.5, 1, 2, 3, 6, 12, 24)
    step = next((each for each in steps if span / each <= TICKS_MAX), 48)
    first = math.ceil(hours[0] / step - 1e-9)
    ticks = [step * index for index in range(first, math.floor(hours[-1] / step + 1e-9) + 1)]
    axis.set_xticks(ticks, [_clock(tick) for tick in ticks])
    axis.set_xlim(hours[0], max(hours[-1], hours[0] + 0.01))


def _clock(hour: float) -> str:
    minutes = round(hour * 60)
    return f"{minutes // 60 % 24:02}:{minutes % 60:02}"


def _grouped(samples: Sequence[Sample]) -> list[Sequence[Sample]]:
    size = max(1, math.ceil(len(samples) / POINTS_MAX))
    return [samples[start : start + size] for start in range(0, len(samples), size)]


def _hours(groups: Sequence[Sequence[Sample]], start_hour: float) -> list[float]:
    return [start_hour + group[-1].at_h for group in groups]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _part(group: Sequence[Sample], name: str) -> float:
    """What part of the streams that came; none came: nothing is drawn."""
    came = sum(sample.first_try + sample.rejected for sample in group)
    came = max(came, sum(sample.came for sample in group))
    return sum(getattr(sample, name) for sample in group) / came if came else math.nan


def _mean_rtt(group: Sequence[Sample]) -> float:
    live = sum(sample.live for sample in group)
    return math.fsum(sample.rtt_ms * sample.live for sample in group) / live if live else math.nan


def _page(played: Played, svg: str, table: Sequence[Sequence[str]]) -> str:
    heading, *rows = ([html.escape(cell) for cell in row] for row in table)
    head = "".join(f"<th>{cell}</th>" for cell in heading)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n" for row in rows)
    title = html.escape(played.report.scenario)
    picture = svg[svg.index("<svg") :]
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: {INK}; background: #fff; margin: 2rem auto;
  max-width: 1200px; padding: 0 1rem }}
svg {{ width: 100%; height: auto }}
div {{ overflow-x: auto }}
table {{ border-collapse: collapse }}
th, td {{ padding: .3rem .8rem; text-align: right; border-bottom: 1px solid {FAINT} }}
th:first-child, td:first-child {{ text-align: left }}
</style></head><body>
{picture}
<div><table><thead><tr>{head}</tr></thead><tbody>
{body}</tbody></table></div>
</body></html>
"""
