"""`edged irs simulate`: tables, JSON and plots of a scenario; and what is wrong with one."""

import json
import re
import sys
from pathlib import Path

import msgspec
import pytest

import edged.tools.simulate
from edged.cli import output
from edged.cli.simulate import ROWS, _percent
from edged.errors import ConfigError, ToolMissingError
from edged.tools.simulate.runner import Report
from edged.tools.simulate.scenario import POLICIES
from tests.cli.invoke import Answer
from tests.tools.simulate.worlds import SCENARIOS

SMALL = SCENARIOS / "small.toml"
NEVER = {"  when full", "  slots used, %", "links clear, s"}  # In a minute.


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    """The small scenario, in a minute and a half."""
    (tmp_path / "small-world.toml").write_text((SCENARIOS / "small-world.toml").read_text())
    path = tmp_path / "quick.toml"
    text = SMALL.read_text().replace("hours = 2.0", "hours = 0.025")
    text = text.replace("warm_up_s = 600.0", "warm_up_s = 30.0\nbound_s = 30.0\nsample_s = 5.0")
    assert "hours = 0.025" in text
    path.write_text(text)
    return path


def test_a_table_compares_policies_with_mean_and_worst(quick: Path) -> None:
    answer = Answer("irs", "simulate", str(quick), "--policy", "static", "--policy", "price")
    assert answer.code == 0
    assert "12 PoPs, 4 origins, 1000 slots; seeds 1, 2: mean (worst)" in answer.out
    lines = answer.out.splitlines()
    assert lines[1].split() == ["static", "price"]
    shown = {line[:17].strip(): line[17:].split() for line in lines[2:-1]}
    assert list(shown) == [name.strip() for name, _, _ in ROWS if name not in NEVER]
    assert all(len(cells) == 4 and "(" in cells[1] and "(" in cells[3] for cells in shown.values())
    assert "leases" not in answer.out
    assert "the clairvoyant bound serves" in answer.out


def test_what_becomes_of_tries_and_slots_while_all_is_full_is_told(quick: Path) -> None:
    quick.write_text(quick.read_text().replace("load = 1.02", "load = 1.5"))
    answer = Answer("irs", "simulate", str(quick), "--policy", "price", "--seeds", "1")
    shown = {line[:17].rstrip(): line[17:].split() for line in answer.out.splitlines()[2:-1]}
    (tries,), (used,) = shown["  when full"], shown["  slots used, %"]
    assert float(tries) >= 1
    assert 90 < float(used) <= 100


def test_json_is_the_report(quick: Path) -> None:
    answer = Answer("irs", "simulate", str(quick), "--policy", "price", "--seeds", "1", "--json")
    report = msgspec.json.decode(answer.out, type=Report)
    assert report.seeds == [1]
    assert [each.policy for each in report.policies] == ["price"]
    assert report.policies[0].mean == report.policies[0].worst == report.policies[0].runs[0]
    again = Answer("irs", "simulate", str(quick), "--policy", "price", "--seeds", "1", "--json")
    assert again.out == answer.out
    assert json.loads(answer.out)["origins"] == ["nyc1", "sjc1", "fra1", "nrt1"]


GOALS = "\n[goals.price]\nserved = 0.5\ncut = 0.0\n[goals.leases]\nserved = 0.5\n"


def test_goals_are_told_as_reached_or_missed_and_decide_how_it_ends(quick: Path) -> None:
    text = quick.read_text()
    quick.write_text(text + GOALS)
    only = ("irs", "simulate", str(quick), "--policy", "price", "--policy", "static")
    answer = Answer(*only)
    assert answer.code == 0
    served, cut = answer.out.splitlines()[-2:]
    assert re.fullmatch(r"reached price: served at least 50 %: [\d.]+ % \([\d.]+ %\)", served)
    assert cut == "reached price: cut at most 0: 0 (0)"
    quick.write_text(text + GOALS.replace("cut = 0.0", "served_ = 0.0"))
    assert "goals.price.served_: unknown; one of served, " in str(Answer(*only).error)
    quick.write_text(text + GOALS.replace("cut", "moved_p99_ms").replace("0.5", "0.9999"))
    answer = Answer(*only, "--json")
    assert answer.code == 1, "JSON is the same command"
    quick.write_text(text + GOALS.replace("cut", "moved_p99_ms"))
    answer = Answer(*only)
    assert answer.code == 1
    assert answer.out.splitlines()[-1] == ("MISSED price: moved_p99_ms at most 0: it did not occur")
    assert answer.out.splitlines()[-2].startswith("reached price: served")


def test_a_plot_is_drawn(quick: Path, tmp_path: Path) -> None:
    path = tmp_path / "plot.html"
    answer = Answer(
        *("irs", "simulate", str(quick), "--policy", "leases", "--seeds", "1", "--plot", str(path))
    )
    assert answer.code == 0
    assert "<th>leases</th>" in path.read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--policy", "best"), "--policy 'best' is none of static, lp-hourly"),
        (("--plot", "a.gif"), "'.gif' is none of .png, .svg, .html"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_run(
    quick: Path, arguments: tuple[str, ...], told: str
) -> None:
    answer = Answer("irs", "simulate", str(quick), *arguments)
    assert isinstance(answer.error, ConfigError)
    assert told in str(answer.error)


def test_a_scenario_that_is_not_there_is_named(tmp_path: Path) -> None:
    answer = Answer("irs", "simulate", str(tmp_path / "none.toml"))
    assert isinstance(answer.error, ConfigError)
    assert "none.toml: cannot be read: No such file" in str(answer.error)


def test_without_matplotlib_the_extra_is_named(
    quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "edged.tools.simulate.plot", raising=False)
    monkeypatch.delattr(edged.tools.simulate, "plot", raising=False)
    plot = ("--plot", str(tmp_path / "a.png"))
    answer = Answer("irs", "simulate", str(quick), "--policy", "price", *plot)
    assert isinstance(answer.error, ToolMissingError)
    assert "edged[simulate]" in str(answer.error)
    table = Answer("irs", "simulate", str(quick), "--policy", "price", "--seeds", "1")
    assert table.code == 0


def test_a_share_is_never_rounded_to_a_whole_that_it_is_not() -> None:
    assert [_percent(each) for each in (1.0, 0.999999, 0.5, 0.000001, 0.0)] == [
        "100.00",
        "99.99",
        "50.00",
        "0.01",
        "0.00",
    ]


def test_a_table_fits_a_terminal_of_80_columns(
    quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all policies with mean and worst; the worst then stands below the mean."""
    monkeypatch.setattr(output.console, "width", 80)
    answer = Answer("irs", "simulate", str(quick))
    lines = answer.out.splitlines()
    served = next(index for index, line in enumerate(lines) if line.startswith("served, %"))
    assert len(lines[served].split()) == 2 + len(POLICIES)
    assert re.fullmatch(r"(\s*\([\d.]+\)){7}\s*", lines[served + 1])
    assert {name for name, _, _ in ROWS} - NEVER <= {line[:15].rstrip() for line in lines}
    assert max(map(len, lines)) <= 80
