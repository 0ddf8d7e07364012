"""`edged irs forecast`: a day's demand and plan from a history, in a table and for programs."""

import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from edged.cli.irs_forecast import Told
from edged.errors import ConfigError
from edged.irs.history import HistoryError, HistoryFile
from edged.media.routing import UNITS_MAX
from edged.policy.demand import SLOT_S, SLOTS_PER_DAY
from edged.policy.flows import LinkLimit
from edged.policy.offline_plan import Site, Topology
from tests.cli.invoke import Answer
from tests.policy.demand_worlds import BEGAN, demand_rows

DAYS = 9
RTT = {
    "fra": {"fra1": 5.0, "nyc1": 90.0},
    "lon": {"fra1": 12.0, "nyc1": 75.0},
    "nyc": {"fra1": 88.0, "nyc1": 4.0},
}
END = datetime.fromtimestamp((BEGAN + DAYS * SLOTS_PER_DAY) * SLOT_S, UTC)


def network(fra: int = 1500, nyc: int = 1500) -> Topology:
    link = LinkLimit(name="ocean", mbps=50.0, mbps_per_unit=5.0, pairs=(("lon", "nyc1"),))
    sites = [Site(origin="fra1", slots_total=fra), Site(origin="nyc1", slots_total=nyc)]
    return Topology(origins=sites, rtt_ms=RTT, links=(link,))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine days of three PoPs, with room for all."""
    path = tmp_path_factory.mktemp("kept") / "demand.db"
    file = HistoryFile(path)
    file.add(list(demand_rows(DAYS)), network(), 60)
    file.close()
    return path


@pytest.fixture(autouse=True)
def _today(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: END.timestamp() - 400)


def told(path: Path, *arguments: str) -> Told:
    answer = Answer("irs", "forecast", path, "--json", *arguments)
    assert answer.code == 0, answer.error
    return msgspec.json.decode(answer.out, type=Told)


def test_a_day_hour_by_hour(kept: Path) -> None:
    answer = Answer("irs", "forecast", kept)
    assert answer.code == 0
    lines = [line.rstrip() for line in answer.out.splitlines()]
    assert lines[0].startswith("3 PoPs, 9.0 days of history, growth ")
    assert lines[0].endswith("demand as high as one slot in twenty may be, on 95 % of the slots")
    assert lines[1].startswith("of the newest day a forecast by those before was off by ")
    assert lines[2] == f"24 hours from {END:%Y-%m-%d} 00:00 UTC"
    assert lines[3].split() == ["demand", "served", "RTT", "fra1", "nyc1"]
    hours = [line.split() for line in lines[4:28]]
    assert [hour[0] for hour in hours] == [f"{hour:02}:00" for hour in range(24)]
    assert {hour[2] for hour in hours} == {"100.0"}
    assert lines[28] == "✓ nothing binds: every stream can be where it is nearest"


def test_expected_is_less_than_what_may_be(kept: Path) -> None:
    high, expected = told(kept), told(kept, "--expected")
    for one, other in zip(high.plan.hours, expected.plan.hours, strict=True):
        assert one.demand > other.demand > 0
    assert (high.high, expected.high) == (True, False)
    assert high.check == expected.check
    assert high.check is not None
    assert 0 < high.check.off < 0.15


def test_another_day(kept: Path) -> None:
    later = told(kept, "--begin", f"{END.date()}")
    assert later.begin == f"{END.date()} 00:00"
    assert told(kept).plan == later.plan, "the next 24 hours are those"
    with pytest.raises(ConfigError, match="the history goes to"):
        raise Answer("irs", "forecast", kept, "--begin", "2026-09-22").error or AssertionError
    with pytest.raises(ConfigError, match="is no day such as"):
        raise Answer("irs", "forecast", kept, "--begin", "tomorrow").error or AssertionError


def test_what_is_scarce_and_what_more_would_do(kept: Path) -> None:
    answer = Answer("irs", "forecast", kept, "--add", "fra1=-1100", "--add", "nyc1=-1300")
    assert answer.code == 0
    assert "slots are missing in the worst hour, wherever they are" in answer.out
    assert "what binds" in answer.out
    assert "serves a stream that has no place" in answer.out
    scarce = told(kept, "--add", "fra1=-1100", "--add", "nyc1=-1300")
    assert {need.name for need in scarce.plan.needs if need.scarce} >= {"fra1", "nyc1"}
    more = told(kept, "--add", "fra1=-1100")
    assert more.plan.missing < scarce.plan.missing
    link = [need for need in more.plan.needs if need.kind == "link"]
    assert link, "lon goes over the ocean, as far as that carries"
    nearer = Answer("irs", "forecast", kept, "--add", "fra1=-1100", "--link-part", "1.0")
    assert "ocean" in nearer.out


def test_less_of_all_binds_sooner(kept: Path) -> None:
    assert told(kept, "--slots-part", "0.3").plan.needs
    assert not told(kept, "--slots-part", "1.0").plan.needs


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
    assert told(kept, "--add", f"fra1={UNITS_MAX - 1500}", "--add", "nyc1=-1500").plan.hours


def test_what_is_no_history_is_named(tmp_path: Path) -> None:
    path = tmp_path / "demand.db"
    error = Answer("irs", "forecast", path).error
    assert isinstance(error, ConfigError)
    assert "is not there; IRS keeps it by `[irs.history]`" in str(error)
    HistoryFile(path).close()
    assert "has nothing yet" in str(Answer("irs", "forecast", path).error)
    path.write_text("x" * 5000)
    assert isinstance(Answer("irs", "forecast", path).error, HistoryError)
