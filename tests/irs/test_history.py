"""IRS keeps what PoPs are asked for: whatever the disk, the clock or another IRS does."""

import contextlib
import math
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from edged.irs import history as module
from edged.irs.collectors import Collectors
from edged.irs.history import History, HistoryConfig, network_of
from edged.irs.history_file import HistoryError, HistoryFile, Record
from edged.irs.links import BackboneConfig
from edged.irs.service import IrsConfig
from edged.media.routing import (
    OriginReport,
    OriginState,
    PathProbe,
    PopTelemetry,
    ReportedState,
)
from edged.policy import demand
from edged.policy.day_plan import Network
from edged.policy.demand import SAMPLE_S, SAMPLES_PER_SLOT, SLOT_S, DemandRow, slot_of
from edged.policy.link_map import LinkConfig, SiteConfig
from tests.backbone.network import until
from tests.irs.test_seat import open_world

T = 2_000_000 * SLOT_S
NETWORK = Network(origins={"fra1": 10}, rtt_ms={"lhr": {"fra1": 9.0}})


class Clock:
    """Unix time, by hand."""

    def __init__(self) -> None:
        self.unix = float(T)

    def __call__(self) -> float:
        return self.unix


def told(units: int, unplaced: int = 0) -> PopTelemetry:
    return PopTelemetry({"fra1": (0, 0, units)}, unplaced=unplaced)


def make(path: Path, clock: Callable[[], float], warmup_s: float = 0.0) -> History:
    return History(HistoryConfig(file=path), lambda: NETWORK, clock, warmup_s=warmup_s)


class AtOnce:
    """A disk that takes none of a mock clock's time, unlike a thread."""

    async def run(self, call: Callable[[], object]) -> object:
        return call()

    async def idle(self) -> None:
        return

    def close(self, close: Callable[[], None]) -> None:
        close()


def read(path: Path) -> list[Record]:
    file = HistoryFile(path, read_only=True)
    with contextlib.closing(file):
        return [record for chunk in file.records(0, 10**9) for record in chunk]


def sampled(kept: History, clock: Clock, slots: int = 1) -> None:
    """So many slots go by, each with a sample."""
    for _ in range(slots):
        kept.told("lhr/0", told(5))
        kept._queue(kept._meter.sample(trio.current_time(), clock.unix))
        clock.unix += SLOT_S


async def test_slots_are_kept_as_they_end_and_the_last_one_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAMPLE_S", 0.01)
    clock, path = Clock(), tmp_path / "demand.db"
    kept = make(path, clock)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kept.run)
        for units in (5, 3):
            kept.told("lhr/0", told(units, unplaced=1))
            await trio.sleep(0.05)
            clock.unix += SLOT_S
        await until(lambda: kept.kept == 3)
        nursery.cancel_scope.cancel()
    rows = read(path)
    first = slot_of(T)
    assert [(row[0], row[1], row[5] / row[2]) for row in rows][:2] == [
        (first, "lhr", 5.0),
        (first + 1, "lhr", pytest.approx(3.0, abs=0.8)),
    ]
    assert sum(row[8] for row in rows) == 2
    assert [row[0] for row in rows] == [first, first + 1, first + 2], "as far as it came"
    file = HistoryFile(path, read_only=True)
    heard = file.network(first, first + 2)
    file.close()
    assert heard is not None
    assert heard.network.origins == {"fra1": 10}
    samples = {sample.name: sample.value for sample in kept.read_metrics()}
    assert samples == {"edged_irs_demand_writes_total": 4, "edged_irs_demand_lost_total": 0}


async def test_a_slot_has_all_its_samples(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DiskThread", AtOnce)
    kept = make(tmp_path / "demand.db", lambda: T + trio.current_time())

    async def tell() -> None:
        while True:
            kept.told("lhr/0", told(7))
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(kept.run)
        nursery.start_soon(tell)
        await trio.sleep(2 * SLOT_S + SAMPLE_S / 2)
        nursery.cancel_scope.cancel()
    assert not kept._rows, "all are on disk"
    by_slot = {row[0] - slot_of(T): row for row in read(tmp_path / "demand.db")}
    assert by_slot[0][2] in (SAMPLES_PER_SLOT - 1, SAMPLES_PER_SLOT)
    assert by_slot[1][2] in (SAMPLES_PER_SLOT, SAMPLES_PER_SLOT + 1)
    assert {row[5] / row[2] for row in by_slot.values()} == {7.0}


async def test_a_process_that_is_killed_loses_three_minutes_at_most(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DiskThread", AtOnce)
    path = tmp_path / "demand.db"
    kept = make(path, lambda: T + trio.current_time())

    async def tell() -> None:
        while True:
            kept.told("lhr/0", told(7))
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(kept.run)
        nursery.start_soon(tell)
        for number in range(1, 60):
            await trio.sleep(60)
            if number > 3:
                there = sum(row[2] for row in read(path))
                assert there >= (number * 60 - module.KEPT_S) / SAMPLE_S - 1
        nursery.cancel_scope.cancel()
    assert len(read(path)) == 4, "parts of a slot are one row"
    assert {row[5] / row[2] for row in read(path)} == {7.0}


async def test_before_all_can_be_back_nothing_is_sampled(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    kept = make(tmp_path / "demand.db", lambda: T + trio.current_time(), warmup_s=5.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kept.run)
        kept.told("lhr/0", told(7))
        await trio.sleep(4.9)
        assert kept._meter.flush() == []
        kept.told("lhr/0", told(7))
        await trio.sleep(0.2)
        assert [row.samples for row in kept._meter.flush()] == [1]
        nursery.cancel_scope.cancel()


async def test_a_disk_that_fails_keeps_rows_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    folder, clock = tmp_path / "folder", Clock()
    folder.write_text("a file where the folder should be")
    kept = make(folder / "demand.db", clock)
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kept.run)
            await until(lambda: kept.problem)  # Before there is a row.
            sampled(kept, clock, 3)
            assert "cannot be opened" in kept.why_not_kept(trio.current_time())
            sampled(kept, clock)
            folder.unlink()
            await until(lambda: not kept.problem)
            nursery.cancel_scope.cancel()
    assert [line["event"] for line in logs] == ["demand is not kept", "demand is kept again"]
    assert str(folder / "demand.db") in str(logs[0]["reason"])
    assert kept.why_not_kept(trio.current_time()) == ""
    assert [row[0] - slot_of(T) for row in read(folder / "demand.db")] == [0, 1, 2, 3]


async def test_beyond_its_queue_the_oldest_are_lost_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUEUE_MAX", 2)
    clock = Clock()
    kept = make(tmp_path / "demand.db", clock)
    sampled(kept, clock, 3)
    assert (len(kept._rows), kept.lost) == (2, 0)
    sampled(kept, clock)
    kept._queue([DemandRow(slot_of(T) + 2, "lhr", 1, (0, 0, 3), unplaced=2)])
    assert kept._rows[slot_of(T) + 2, "lhr"].units == (0, 0, 8), "no row more"
    assert ([slot - slot_of(T) for slot, _ in kept._rows], kept.lost) == ([1, 2], 1)


async def test_a_disk_that_hangs_holds_nobody_and_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "END_S_MAX", 0.1)
    monkeypatch.setattr(module, "ANSWER_S_MAX", 0.05)
    clock, going_on = Clock(), threading.Event()
    path = tmp_path / "demand.db"
    kept = make(path, clock, warmup_s=math.inf)
    add = HistoryFile.add

    def hang(file: HistoryFile, rows: list[DemandRow], *rest: object) -> None:
        going_on.wait(10)
        add(file, rows, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(HistoryFile, "add", hang)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kept.run)
        sampled(kept, clock, 2)
        await until(lambda: kept._thread.busy)
        sampled(kept, clock)
        await until(lambda: "has not answered" in kept.why_not_kept(trio.current_time()))
        nursery.cancel_scope.cancel()
    assert kept._thread.busy, "its thread is left to itself"
    async with trio.open_nursery() as nursery:  # And begun anew, it waits for it.
        nursery.start_soon(kept.run)
        going_on.set()
        await until(lambda: kept.kept)
        nursery.cancel_scope.cancel()
    assert [row[2] for row in read(path)] == [1, 1, 1], "each once"


async def test_what_was_in_hand_as_it_failed_is_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it came to disk, and after."""
    clock, path = Clock(), tmp_path / "demand.db"
    kept = make(path, clock, warmup_s=math.inf)
    add, fails = HistoryFile.add, [("before", True), ("after", False)]

    def fail(file: HistoryFile, rows: list[DemandRow], *rest: object) -> None:
        why, before = fails.pop(0) if fails and rows else ("", False)
        if why and before:
            raise RuntimeError(why)
        add(file, rows, *rest)  # type: ignore[arg-type]
        if why:
            raise HistoryError(why)

    monkeypatch.setattr(HistoryFile, "add", fail)
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    sampled(kept, clock, 2)
    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="before"), allow_unwrapped=True,
                            flatten_subgroups=True):  # fmt: skip
        await kept.run()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kept.run)
        await until(lambda: kept.kept)
        nursery.cancel_scope.cancel()
    rows = read(path)
    assert [row[0] - slot_of(T) for row in rows] == [0, 1]
    assert {row[5] / row[2] for row in rows} == {5.0}, "were it there twice, its mean is the same"


async def test_both_of_two_irss_keep_all(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The standby hears what the active one does; after a take-over nothing is missing."""
    monkeypatch.setattr(module, "DiskThread", AtOnce)
    monkeypatch.setattr(module, "SAMPLE_S", 0.5)
    monkeypatch.setattr(demand, "SLOT_S", 2)
    async with open_world(config=IrsConfig(warmup_s=0.0)) as world:
        scopes = [trio.CancelScope() for _ in world.irss]

        async def keep(history: History, scope: trio.CancelScope) -> None:
            with scope:
                await history.run()

        for number, irs in enumerate(world.irss):
            history = make(tmp_path / f"{number}.db", irs.service.now_unix)
            irs.service.collectors.on_told = history.told
            world.nursery.start_soon(keep, history, scopes[number])
        active, _ = await world.active()
        await trio.sleep(4)
        active.kill()
        scopes[world.irss.index(active)].cancel()
        await trio.sleep(6)
        for scope in scopes:
            scope.cancel()
        await trio.sleep(0.1)
        dead = world.irss.index(active)
        rows = [read(tmp_path / f"{number}.db") for number in (dead, 1 - dead)]
        world.nursery.cancel_scope.cancel()
    for of_one in rows:
        assert {row[1] for row in of_one} == {"p0", "p1", "p2"}
    there, after = ({row[0] for row in of_one} for of_one in rows)
    assert there < after, "the standby has what the active one had"
    assert sorted(after) == list(range(min(after), max(after) + 1)), "and the take-over is no gap"
    assert all(row[2] >= 3 for row in rows[1] if min(after) < row[0] < max(after))


def test_the_network_is_what_is_heard_of_it() -> None:
    collectors = Collectors()
    for name, state in (("fra1", ReportedState.UP), ("nyc1", ReportedState.DRAIN),
                        ("off1", ReportedState.DOWN)):  # fmt: skip
        collectors.heartbeat(OriginReport(name, 1, state, 100, (9, 9, 9)), 0.0)
    assert collectors.capacitor.state("off1") is OriginState.DOWN
    for key in ("lhr/0", "lhr/1", "zrh/0", "gone/0"):
        collectors.pop_joined(key)
    collectors.tolls_ms = {("lhr", "fra1"): 50.0}
    collectors.telemetry("lhr/0", PopTelemetry(
        {}, probes={"fra1": PathProbe(10.0), "nyc1": PathProbe(80.0, silent_s=60.0)},
        mbps={"fra1": (1.0, 2.0)}), 0.0)  # fmt: skip
    collectors.telemetry("lhr/1", PopTelemetry(
        {}, probes={"fra1": PathProbe(9.0)}, mbps={"fra1": (1.0, 3.0)}), 0.0)  # fmt: skip
    collectors.telemetry("gone/0", PopTelemetry({}, probes={"fra1": PathProbe(1.0)}), 0.0)
    collectors.pop_left("gone/0", 0.0)
    sites = (SiteConfig(name="a", pops=("lhr",)), SiteConfig(name="b", origins=("fra1",)))
    links = (LinkConfig(name="a-b", ends=("a", "b"), mbps=100.0),)
    config = BackboneConfig(sites=sites, links=links)
    assert network_of(collectors, config, 0.01) == Network(
        origins={"fra1": 100, "nyc1": 100},
        rtt_ms={"lhr": {"fra1": 9.0}, "zrh": {}},
        back_mbps={"lhr": {"fra1": 5.0}, "zrh": {}},
        links=links,
        sites=sites,
        reserve_fraction=0.01,
    ), "shards as one, without tolls, of links that nobody fills, and without whom is not there"


@pytest.mark.parametrize(("days", "fits"), [(1, False), (2, True), (1000, True), (1001, False)])
def test_days_have_a_range(days: int, fits: bool) -> None:
    raw = {"file": Path("/x.db"), "days": days}
    if fits:
        assert msgspec.convert(raw, HistoryConfig).days == days
    else:
        with pytest.raises(msgspec.ValidationError, match=r"\$\.days"):
            msgspec.convert(raw, HistoryConfig)
