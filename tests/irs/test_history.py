"""Demand on disk: kept by the slot, bounded in days; a disk that fails costs the history alone."""

import math
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from edged.irs import history as module
from edged.irs.history import (
    History,
    HistoryConfig,
    HistoryError,
    HistoryFile,
    topology_of,
)
from edged.media.routing import OriginState, PopTelemetry
from edged.policy.demand import SLOT_S, SLOTS_PER_DAY, DemandRow, slot_of
from edged.policy.offline_plan import Site, Topology
from edged.policy.plan_journal import PlanInputs
from edged.policy.planner import LeasePlan, OriginSupply, PopDemand
from tests.backbone.network import until

T = 6_000_000 * SLOT_S
ROW = DemandRow(1000, "lhr", (1, 2, 3), 4)
TOPOLOGY = Topology(
    origins=[Site(origin="fra", slots_total=10)], rtt_ms={"lhr": {"fra": 9.0, "nyc": math.inf}}
)


class Clock:
    """Unix time, by hand."""

    def __init__(self) -> None:
        self.unix = float(T)

    def __call__(self) -> float:
        return self.unix


def told(units: int) -> PopTelemetry:
    return PopTelemetry({"fra": (0, 0, units)})


def inputs(rtt_ms: float = 9.0) -> PlanInputs:
    origin = OriginSupply(
        origin="fra", address="h:1", state=OriginState.UP, slots_total=10, room=(9, 9, 9)
    )
    shards = [
        PopDemand(pop="lhr/0", rtt_ms={"fra": rtt_ms + 1}),
        PopDemand(pop="lhr/1", rtt_ms={"fra": rtt_ms}),
        PopDemand(pop="zrh/0"),
    ]
    return PlanInputs(
        origins=[origin], pops=shards, links=(), policy="leases", reserve_fraction=0.0,
        horizon_s=10.0,
    )  # fmt: skip


def test_what_is_kept_is_read(tmp_path: Path) -> None:
    file = HistoryFile(tmp_path / "made" / "demand.db")
    file.add([ROW, DemandRow(999, "zrh", (0, 0, 1), 0)], TOPOLOGY, 60)
    for read in (file, HistoryFile(tmp_path / "made" / "demand.db", read_only=True)):
        assert read.rows() == [DemandRow(999, "zrh", (0, 0, 1), 0), ROW]
        assert read.topology() == TOPOLOGY
        read.close()


def test_what_a_restart_divides_is_one_slot(tmp_path: Path) -> None:
    file = HistoryFile(tmp_path / "demand.db")
    file.add([ROW], None, 60)
    file.add([DemandRow(1000, "lhr", (3, 1, 3), 1)], None, 60)
    assert file.rows() == [DemandRow(1000, "lhr", (3, 2, 3), 5)]
    assert file.topology() is None
    file.close()


def test_what_is_older_goes(tmp_path: Path) -> None:
    file = HistoryFile(tmp_path / "demand.db")
    for slot in (1000, 1000 + 2 * SLOTS_PER_DAY, 1001 + 2 * SLOTS_PER_DAY):
        file.add([DemandRow(slot, "lhr", (1, 1, 1), 0)], None, 2)
        kept = [row.slot for row in file.rows()]
        assert kept[0] == max(1000, slot - 2 * SLOTS_PER_DAY) or kept[0] > 1000
    assert kept == [1000 + 2 * SLOTS_PER_DAY, 1001 + 2 * SLOTS_PER_DAY]
    file.close()


def test_what_is_no_history_is_named_and_left(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database, and long enough to be read as one" * 50)
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE notes (text TEXT)")
    other.close()
    for name, why in (("text", "cannot be opened"), ("other.db", "is no history of demand")):
        before = (tmp_path / name).read_bytes()
        for read_only in (True, False):
            with pytest.raises(HistoryError, match=f"{tmp_path / name} {why}"):
                HistoryFile(tmp_path / name, read_only=read_only)
        assert (tmp_path / name).read_bytes() == before
    with pytest.raises(HistoryError, match="cannot be opened"):
        HistoryFile(tmp_path / "gone.db", read_only=True)


def spoilt(path: Path, statement: str) -> None:
    HistoryFile(path).close()
    other = sqlite3.connect(path)
    other.execute(statement)
    other.commit()
    other.close()


@pytest.mark.parametrize(
    ("statement", "read"),
    [
        ("INSERT INTO demand VALUES (1, 'lhr', 'x', 0, 0, 0)", HistoryFile.rows),
        ("INSERT INTO topology VALUES (1, x'c1')", HistoryFile.topology),
        ("INSERT INTO topology VALUES (1, 5)", HistoryFile.topology),
        ("DROP TABLE demand", HistoryFile.rows),
    ],
)
def test_what_was_spoilt_is_named(
    tmp_path: Path, statement: str, read: Callable[[HistoryFile], object]
) -> None:
    path = tmp_path / "demand.db"
    spoilt(path, statement)
    file = HistoryFile(path, read_only=True)
    with pytest.raises(HistoryError, match=f"{path} cannot be read: "):
        read(file)
    file.close()


def test_the_shards_of_a_pop_are_one_as_near_as_the_nearest() -> None:
    assert topology_of(inputs()) == Topology(
        origins=[Site(origin="fra", slots_total=10)], rtt_ms={"lhr": {"fra": 9.0}, "zrh": {}}
    )


async def test_slots_are_kept_as_they_end_and_the_last_one_at_the_end(tmp_path: Path) -> None:
    clock = Clock()
    kept = History(HistoryConfig(file=tmp_path / "demand.db"), clock)
    plan = LeasePlan(leases={}, policy="leases")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kept.run)
        kept.keep(0, True, inputs(50.0), plan)
        kept.keep(1, False, inputs(), plan)
        kept.told("lhr/0", told(5))
        kept.told("lhr/0", told(3))
        clock.unix += SLOT_S
        kept.told("lhr/0", told(2))
        await until(lambda: kept.kept == 1)
        nursery.cancel_scope.cancel()
    file = HistoryFile(tmp_path / "demand.db", read_only=True)
    first = slot_of(T)
    assert file.rows() == [
        DemandRow(first, "lhr", (0, 0, 5), 0),
        DemandRow(first + 1, "lhr", (0, 0, 2), 0),
    ]
    assert file.topology() == topology_of(inputs())
    file.close()
    samples = {sample.name: sample.value for sample in kept.read_metrics()}
    assert samples == {"edged_irs_history_rows_total": 1, "edged_irs_history_lost_total": 0}


async def test_a_disk_that_fails_keeps_rows_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    path, clock = tmp_path / "folder" / "demand.db", Clock()
    (tmp_path / "folder").write_text("a file where the folder should be")
    kept = History(HistoryConfig(file=path), clock)
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kept.run)
            kept.told("lhr/0", told(5))
            clock.unix += SLOT_S
            kept.told("lhr/0", told(2))
            await until(lambda: logs)
            (tmp_path / "folder").unlink()
            await until(lambda: kept.kept)
            nursery.cancel_scope.cancel()
    assert [line["event"] for line in logs] == ["demand is not kept", "demand is kept again"]
    assert str(path) in str(logs[0]["reason"])
    file = HistoryFile(path, read_only=True)
    assert [row.units for row in file.rows()] == [(0, 0, 5), (0, 0, 2)]
    file.close()


async def test_beyond_its_queue_the_oldest_are_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUEUE_MAX", 2)
    clock = Clock()
    kept = History(HistoryConfig(file=tmp_path / "demand.db"), clock)
    for units in range(4):
        kept.told("lhr/0", told(units))
        clock.unix += SLOT_S
    assert [row.units[2] for row in kept._rows] == [1, 2]
    assert kept.lost == 1
    await kept._finish()
    kept._close()
    file = HistoryFile(tmp_path / "demand.db", read_only=True)
    assert [row.units[2] for row in file.rows()] == [1, 2, 3]
    file.close()


async def test_a_disk_that_hangs_holds_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "END_S_MAX", 0.1)
    clock, going_on = Clock(), threading.Event()
    kept = History(HistoryConfig(file=tmp_path / "demand.db"), clock)
    monkeypatch.setattr(kept, "_write", lambda *_: going_on.wait(10))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kept.run)
        kept.told("lhr/0", told(1))
        clock.unix += SLOT_S
        kept.told("lhr/0", told(1))
        await until(lambda: kept._writing)
        nursery.cancel_scope.cancel()
    assert kept._writing, "its thread is left to itself"
    going_on.set()
    await until(lambda: not kept._writing)
