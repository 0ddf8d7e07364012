"""`edged irs forecast`: a day's demand and plan of a history, in a table and for programs."""

import itertools
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from edged.errors import ConfigError, ToolMissingError
from edged.irs import history_file
from edged.irs.history_file import HistoryError, HistoryFile
from edged.media.routing import UNITS_MAX
from edged.policy.day_plan import DayForecast, Network
from edged.policy.demand import SLOT_S, SLOTS_PER_DAY, DemandRow
from edged.policy.link_map import LinkConfig, SiteConfig
from tests.cli.invoke import Answer
from tests.policy.demand_worlds import BEGAN, demand_rows, row_of

DAYS = 22
LAST = BEGAN + DAYS * SLOTS_PER_DAY - 1
END = datetime.fromtimestamp((LAST + 1) * SLOT_S, UTC)
NETWORK = Network(
    origins={"fra1": 1500, "nyc1": 1500},
    rtt_ms={
        "fra": {"fra1": 5.0, "nyc1": 90.0},
        "lon": {"fra1": 12.0, "nyc1": 75.0},
        "nyc": {"fra1": 88.0, "nyc1": 4.0},
    },
    links=(LinkConfig(name="ocean", ends=("eu", "us"), mbps=1000),),
    sites=(
        SiteConfig(name="eu", pops=("fra", "lon"), origins=("fra1",)),
        SiteConfig(name="us", pops=("nyc",), origins=("nyc1",)),
    ),
    reserve_fraction=0.002,
)

WIDE = msgspec.structs.replace(
    NETWORK, links=(LinkConfig(name="ocean", ends=("eu", "us"), mbps=10**6),)
)


def keep(
    path: Path, rows: Iterable[DemandRow], network: Network = NETWORK, heard: int = LAST
) -> Path:
    file = HistoryFile(path)
    file.add(list(rows), network, heard, 1000)
    file.close()
    return path


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three weeks of three PoPs, with room for all."""
    return keep(tmp_path_factory.mktemp("kept") / "demand.db", demand_rows(DAYS))


@pytest.fixture(autouse=True)
def _today(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten minutes before the next day."""
    monkeypatch.setattr(time, "time", lambda: END.timestamp() - 600)


def told(path: Path, *arguments: str) -> DayForecast:
    answer = Answer("irs", "forecast", path, "--json", *arguments)
    assert answer.code == 0, answer.error
    return msgspec.json.decode(answer.out, type=DayForecast)


def test_a_day_hour_by_hour(kept: Path) -> None:
    answer = Answer("irs", "forecast", kept)
    assert answer.code == 0, answer.error
    lines = [line.rstrip() for line in answer.out.splitlines()]
    assert lines[0].startswith("3 PoPs, 22.0 days of history, growth ")
    assert lines[0].endswith(
        "% a week; demand as high as a twentieth of the time, on 95 % of slots and 90 % of links"
    )
    assert lines[1].startswith("each of the newest 7 days as forecast by what came before it: off")
    assert lines[2] == f"24 hours from {END:%Y-%m-%d} 00:00 UTC, of each its busiest quarter"
    assert lines[3].split() == ["demand", "served", "RTT", "fra1", "nyc1"]
    hours = [line.split() for line in lines[4:28]]
    assert [hour[0][:3] for hour in hours] == [f"{hour:02}:" for hour in range(24)]
    assert {hour[2] for hour in hours} == {"100.0"}
    assert lines[28:] == ["✓ nothing binds: every stream can be where it is nearest"]
    found = told(kept)
    assert found.doubts == []
    assert sorted(found.demand) == ["fra", "lon", "nyc"]
    for place, quarter in enumerate(found.plan.quarters):
        units = sum(sum(quarters[place]) for quarters in found.demand.values())
        assert units == pytest.approx(quarter.demand, abs=0.01)
        assert sum(map(sum, (row.values() for row in quarter.placed.values()))) == pytest.approx(
            quarter.demand, abs=0.01
        )


def test_an_hour_is_its_busiest_quarter(kept: Path) -> None:
    quarters = told(kept).plan.quarters
    assert [quarter.slot for quarter in quarters] == list(range(LAST + 1, LAST + 97))
    shown = Answer("irs", "forecast", kept).out.splitlines()[4:28]
    for hour, line in enumerate(shown):
        most = max(quarters[4 * hour : 4 * hour + 4], key=lambda quarter: quarter.demand)
        at = datetime.fromtimestamp(most.slot * SLOT_S, UTC)
        assert line.split()[:2] == [f"{at:%H:%M}", f"{most.demand:,.0f}"]


def test_expected_is_less_than_what_may_be(kept: Path) -> None:
    high, expected = told(kept), told(kept, "--expected")
    for one, other in zip(high.plan.quarters, expected.plan.quarters, strict=True):
        assert one.demand > other.demand > 0
    assert (high.high, expected.high) == (True, False)
    assert high.check == expected.check
    assert high.check is not None
    assert 0 < high.check.off < 0.1
    assert "demand as expected" in Answer("irs", "forecast", kept, "--expected").out


def test_another_day(kept: Path) -> None:
    assert told(kept, "--begin", f"{END:%Y-%m-%d}") == told(kept), "the next 24 hours are those"
    later = told(kept, "--begin", "2026-10-20")
    assert later.begin == "2026-10-20 00:00"
    assert later.check is not None
    assert later.check != told(kept).check, "as many days ahead"
    for begin, why in (
        ("2026-10-12", "the history goes to 2026-10-12 23:45 already"),
        ("tomorrow", "is no day such as"),
        ("2026-11-11", "2026-11-11 00:00 is 29 days after the history's end, 2026-10-12 23:45;"),
    ):
        error = Answer("irs", "forecast", kept, "--begin", begin).error
        assert isinstance(error, ConfigError)
        assert why in str(error)
    assert told(kept, "--begin", "2026-11-09").plan.quarters


def test_what_is_scarce_and_what_more_would_do(kept: Path, tmp_path: Path) -> None:
    less = ("--add", "fra1=-1100", "--add", "nyc1=-1300")
    answer = Answer("irs", "forecast", kept, *less)
    assert answer.code == 0
    out = answer.out
    scarce = told(kept, *less)
    plan = scarce.plan
    assert plan.unserved_most > 100
    assert f"{plan.unserved_most:,.1f} streams find no place at 2026-10-13 " in out
    assert f"; {plan.slots_missing:,} more slots have room for them, if" in out
    assert "serves who has no place" in out
    assert "✓" not in out
    assert "100.0 %" not in next(line for line in out.splitlines() if line.startswith("17:"))
    assert {need.name for need in plan.needs if need.scarce} >= {"fra1", "nyc1"}
    path = keep(tmp_path / "demand.db", demand_rows(DAYS), WIDE)
    missing = told(path, *less).plan.slots_missing
    enough = told(path, "--add", "fra1=-1100", "--add", f"nyc1={missing + 1 - 1300}").plan
    assert enough.unserved_most == 0, "with so many more all have a place"
    fewer = told(path, "--add", "fra1=-1100", "--add", f"nyc1={missing - 2 - 1300}").plan
    assert 0 < fewer.unserved_most < 3, "and no more than that"


def test_a_link_that_binds_is_named(kept: Path, tmp_path: Path) -> None:
    narrow = msgspec.structs.replace(
        NETWORK, links=(LinkConfig(name="ocean", ends=("eu", "us"), mbps=50),)
    )
    path = keep(tmp_path / "demand.db", demand_rows(DAYS), narrow)
    answer = Answer("irs", "forecast", path, "--add", "fra1=-1100")
    assert "ocean to us" in answer.out
    assert "Mbps serves who has no place" in answer.out
    assert "✓" not in answer.out


def test_less_of_all_binds_sooner(kept: Path) -> None:
    assert told(kept, "--slots-part", "0.3").plan.needs
    assert not told(kept, "--slots-part", "1.0").plan.needs


def test_what_is_not_known_takes_the_check_mark(kept: Path, tmp_path: Path) -> None:
    rows = list(demand_rows(DAYS))
    worlds = {
        "unplaced": keep(tmp_path / "a.db", [*rows, row_of(LAST, "new", 0.0, unplaced=1)]),
        "found no place meanwhile": keep(tmp_path / "b.db", [*rows[:-1], DemandRow(
            rows[-1].slot, rows[-1].pop, 90, rows[-1].units, rows[-1].mbps, 3)]),
        "the backbone's links are not known": keep(
            tmp_path / "c.db", rows, msgspec.structs.replace(NETWORK, links=(), sites=())),
        "later than now": keep(tmp_path / "d.db", [*rows, row_of(LAST + 9000, "fra", 5.0)]),
        "as the newest day has nothing of them: gone": keep(tmp_path / "e.db", [
            *rows, *(row_of(slot, "gone", 5.0) for slot in range(BEGAN, BEGAN + 500))]),
        "hours of single PoPs are planned as none": keep(
            tmp_path / "f.db", [*rows, row_of(LAST, "new", 5.0)]),
    }  # fmt: skip
    del worlds["unplaced"]
    for said, path in worlds.items():
        out = Answer("irs", "forecast", path).out
        assert said in out
        assert "✓" not in out
        assert "nothing binds as far as is known" in out


def test_an_origin_that_is_not_heard_is_left_out_and_named(tmp_path: Path) -> None:
    path = keep(tmp_path / "demand.db", demand_rows(DAYS), heard=LAST - SLOTS_PER_DAY - 1)
    network = msgspec.structs.replace(NETWORK, origins={"nyc1": 5000})
    keep(path, [], network)
    answer = Answer("irs", "forecast", path)
    assert "left out, as not heard for a day: fra1" in answer.out
    assert [use.origin for use in told(path).plan.quarters[0].origins] == ["nyc1"]


def test_rows_of_a_clock_that_was_ahead_do_not_count(kept: Path, tmp_path: Path) -> None:
    path = keep(
        tmp_path / "demand.db",
        [*demand_rows(DAYS), *(row_of(LAST + 35_000 + n, "fra", 9e6) for n in range(50))],
    )
    assert told(path).plan == told(kept).plan


def test_a_few_days_are_planned_as_expected_and_it_is_said(tmp_path: Path) -> None:
    path = keep(tmp_path / "demand.db", demand_rows(DAYS, begin=DAYS - 2))
    answer = Answer("irs", "forecast", path)
    assert "growth not known; demand as expected" in answer.out
    assert "2.0 days of history are less than a week" in answer.out
    assert "how far days are apart is not known" in answer.out
    assert "✓" not in answer.out
    assert not told(path).high


def test_what_is_all_but_served_is_not_all(tmp_path: Path) -> None:
    """A tenth of a stream of 900 finds no place: that is not 100.0 %."""
    path = keep(tmp_path / "demand.db", demand_rows(DAYS), WIDE)
    most = max(quarter.demand for quarter in told(path).plan.quarters)
    part = ("--slots-part", f"{(most - 0.1) / 3000:.9f}")
    plan = told(path, *part).plan
    assert plan.unserved_most == pytest.approx(0.1, abs=0.01)
    out = Answer("irs", "forecast", path, *part).out
    assert "99.9 %" in out
    assert "✓" not in out


def test_no_more_is_read_than_a_forecast_is_made_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = keep(tmp_path / "demand.db", [row_of(BEGAN - 9000, "old", 5.0), *demand_rows(DAYS)])
    asked: list[tuple[int, int]] = []
    records = HistoryFile.records

    def note(file: HistoryFile, first: int, last: int) -> object:
        asked.append((first, last))
        return records(file, first, last)

    monkeypatch.setattr(HistoryFile, "records", note)
    assert told(path).basis.days == pytest.approx(DAYS + 9000 / 96), "from the first on"
    assert asked == [(LAST + 1 - 35 * SLOTS_PER_DAY, LAST)]


@pytest.mark.parametrize(("hours", "fits"), [(24.0, True), (23.75, False)])
def test_a_day_is_the_least(tmp_path: Path, hours: float, fits: bool) -> None:
    path = keep(tmp_path / "demand.db", demand_rows(DAYS, begin=DAYS - hours / 24))
    answer = Answer("irs", "forecast", path)
    if fits:
        assert answer.code == 0
        assert "no day has been forecast and come: how far off this is nobody knows" in answer.out
    else:
        assert isinstance(answer.error, ConfigError)
        assert "has 23.75 hours; a forecast is made of a day or more" in str(answer.error)


def test_an_old_history_is_no_forecast_of_now(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: END.timestamp() + 10 * 86_400)
    assert "the history ends 240 hours before now" in Answer("irs", "forecast", kept).out
    monkeypatch.setattr(time, "time", lambda: END.timestamp() + 29 * 86_400)
    assert "28 are the most" in str(Answer("irs", "forecast", kept).error)


def test_after_an_outage_of_irs_the_day_before_it_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is back for a minute, and has heard of one origin so far."""
    path = keep(tmp_path / "demand.db", demand_rows(DAYS))
    network = msgspec.structs.replace(NETWORK, origins={"nyc1": 1500}, rtt_ms={})
    row = DemandRow(LAST + 120, "fra", 6, (0, 0, 900))
    keep(path, [row], network, heard=LAST + 120)
    monkeypatch.setattr(time, "time", lambda: (LAST + 120) * SLOT_S + 60.0)
    found = told(path)
    assert found.basis.pops == ["fra", "lon", "nyc"]
    assert (found.basis.gone, found.basis.origins_gone) == ([], [])
    assert len(found.plan.quarters[0].origins) == 2
    assert found.doubts == ["the history ends 30 hours before now"]


@pytest.mark.parametrize(
    ("add", "why"),
    [
        ("lax1=5", "'lax1' is none of fra1, nyc1"),
        ("fra1", "'' is no number of slots"),
        ("fra1=x", "'x' is no number of slots"),
        ("fra1=-1501", "fra1 would have -1 slots"),
        (f"fra1={UNITS_MAX}", f"fra1 would have {UNITS_MAX + 1500} slots"),
    ],
)
def test_what_is_wrong_with_more_is_named(kept: Path, add: str, why: str) -> None:
    error = Answer("irs", "forecast", kept, "--add", add).error
    assert isinstance(error, ConfigError)
    assert why in str(error)


def test_at_the_limit_of_more(kept: Path) -> None:
    most = ("--add", f"fra1={UNITS_MAX - 1500}", "--add", "nyc1=-1500")
    assert told(kept, *most).plan.quarters


def test_what_is_no_history_is_named(tmp_path: Path) -> None:
    path = tmp_path / "demand.db"
    error = Answer("irs", "forecast", path).error
    assert isinstance(error, ConfigError)
    assert "is not there; IRS keeps it by `[irs.history]`" in str(error)
    HistoryFile(path).close()
    assert "has nothing until now" in str(Answer("irs", "forecast", path).error)
    keep(path, demand_rows(2))
    other = sqlite3.connect(path)
    other.execute("DELETE FROM backbone")
    other.commit()
    other.close()
    assert "it has nothing of the network" in str(Answer("irs", "forecast", path).error)
    keep(path, [])
    other = sqlite3.connect(path)
    other.execute("UPDATE demand SET basic = 'many' WHERE slot % 7 = 0")
    other.commit()
    other.close()
    monday = Answer("irs", "forecast", path).error
    assert isinstance(monday, HistoryError)
    assert f"{path} cannot be read: " in str(monday)
    path.write_text("x" * 5000)
    assert isinstance(Answer("irs", "forecast", path).error, HistoryError)


def test_a_history_whose_last_write_was_cut_off_is_read_without_it(
    kept: Path, tmp_path: Path
) -> None:
    path = tmp_path / "demand.db"
    whole = shutil.copy(kept, tmp_path / "whole.db")
    writer = sqlite3.connect(whole, isolation_level=None)
    writer.execute("PRAGMA cache_size = 1")
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("UPDATE demand SET basic = 10 * basic")
    for end in ("", "-journal"):  # As they are where IRS was killed then.
        shutil.copy(f"{whole}{end}", f"{path}{end}")
    writer.close()
    answer = Answer("irs", "forecast", path)
    assert answer.code == 0, answer.error
    assert answer.out == Answer("irs", "forecast", kept).out
    assert answer.err.startswith("its last write was cut off, as IRS ended: what was there before")


def test_a_history_that_another_has_locked_says_so(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shutil.copy(kept, tmp_path / "demand.db")
    monkeypatch.setattr(history_file, "LOCKED_S_MAX", 0.01)
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    error = str(Answer("irs", "forecast", path).error)
    writer.close()
    assert "demand.db cannot be opened: another process has locked it for 0.01 s" in error
    assert error.endswith("try again")


@pytest.mark.parametrize(
    ("module", "what"),
    [("edged.policy.capacity_plan", "solver"), ("edged.policy.forecast", "numpy")],
)
def test_without_what_it_needs_it_says_so(
    kept: Path, monkeypatch: pytest.MonkeyPatch, module: str, what: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    error = Answer("irs", "forecast", kept).error
    assert isinstance(error, ToolMissingError)
    assert f"{what} cannot be loaded" in str(error)


CHILD = """
import re, sys, time
from pathlib import Path
from edged.cli.irs_forecast import _read
def megabytes():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
began = time.process_time()
read = _read(Path(sys.argv[1]), int(sys.argv[2]))
took_s = time.process_time() - began
print(took_s, megabytes(), len(read.history.pops))
"""


@pytest.mark.slow
def test_two_months_of_a_hundred_pops_are_read_in_two_seconds(tmp_path: Path) -> None:
    """Of 576,000 rows, in a process of its own: seconds of a processor, and MB in all."""
    pops = [f"p{number:03}" for number in range(100)]
    path, rows = tmp_path / "demand.db", demand_rows(60, pops=pops)
    while chunk := list(itertools.islice(rows, 50_000)):
        keep(path, chunk, heard=chunk[-1].slot)
    last = BEGAN + 60 * SLOTS_PER_DAY - 1
    done = subprocess.run(  # noqa: S603 - ourselves
        [sys.executable, "-c", CHILD, path, str(last)], check=True, capture_output=True, timeout=60
    )
    took_s, megabytes, count = map(float, done.stdout.split())
    assert count == 100
    assert took_s < 2.0
    assert megabytes < 100.0
    assert path.stat().st_size < 30e6
