"""The journal on disk: files that follow each other, bounded; a disk that fails costs it alone."""

import shutil
import threading
from collections.abc import Awaitable, Callable
from io import FileIO
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from edged.irs import journal as module
from edged.irs.collectors import Collectors
from edged.irs.journal import FILES, Journal, JournalConfig, journal_files
from edged.irs.planner import Planner
from edged.media.routing import OriginReport, PopTelemetry, ReportedState
from edged.policy.plan_journal import PlanRecord, read_journal
from edged.policy.plan_replay import replay
from edged.policy.solver import FlowSolver
from edged.wire.table import OriginHello
from tests.backbone.network import until

BYTES_MAX = 2**18  # A quarter of the least that a file of configuration may say.


def started(run: Callable[[], Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """A task that has begun to run when it is said to be there."""

    async def main(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await run()

    return main


def read_all(folder: Path) -> list[PlanRecord]:
    return [
        record
        for path in journal_files(folder)
        for record in read_journal(path.read_bytes(), path.name)[1]
    ]


class Network:
    """Collectors that hear of a little more each time, and their planner."""

    def __init__(self, folder: Path, bytes_max: int = BYTES_MAX) -> None:
        self.collectors = Collectors()
        self.unix = 1_790_000_000.0
        self.version = 0
        self.planner = Planner(
            self.collectors, self._published, push_interval_s=1.0, lease_ttl_s=10.0,
            reserve_fraction=0.01,
        )  # fmt: skip
        config = JournalConfig(directory=folder, bytes_max=bytes_max)
        self.journal = Journal(config, stamp=lambda: (7, self.version), now_unix=self._now_unix)
        self.planner.keepers.append(self.journal.keep)
        for name in ("fra1", "ams1"):
            self.collectors.origin_joined(OriginHello(origin=name, incarnation=1, address="h:1"))
        for number in range(20):
            self.collectors.pop_joined(f"pop{number}/0")

    def plan(self, count: int) -> None:
        for _ in range(count):
            at = trio.current_time()
            free = 900 - self.version % 400
            for name in ("fra1", "ams1"):
                report = OriginReport(name, 1, ReportedState.UP, 1000, (free, free, free))
                self.collectors.heartbeat(report, at)
            for number in range(20):
                told = PopTelemetry({"fra1": (0, 1, (self.version * number) % 50)}, arrivals=number)
                self.collectors.telemetry(f"pop{number}/0", told, at + self.version)
            self.planner.plan_now(renew=True)

    def _published(self, *_: object) -> None:
        self.version += 1

    def _now_unix(self) -> float:
        self.unix += 0.01
        return self.unix


async def test_what_irs_planned_is_made_again(tmp_path: Path) -> None:
    network = Network(tmp_path / "made" / "plans")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(network.journal.run)
        network.plan(300)
        await until(lambda: network.journal.kept == 300)
        nursery.cancel_scope.cancel()
    assert network.journal.lost == 0
    records = read_all(tmp_path / "made" / "plans")
    assert [record.version for record in records] == list(range(1, 301))
    assert [record.number for record in records if record.cold] == [0, 256]
    assert {each.verdict for each in replay(records, FlowSolver())} == {"same"}
    assert (tmp_path / "made" / "plans").stat().st_mode & 0o777 == 0o700


async def test_the_oldest_goes_and_the_rest_stays_within_its_bound(tmp_path: Path) -> None:
    network = Network(tmp_path)
    (tmp_path / "notes.txt").write_bytes(b"x" * BYTES_MAX)  # Nobody else's file counts, or goes.
    async with trio.open_nursery() as nursery:
        nursery.start_soon(network.journal.run)
        for turn in range(1, 9):
            network.plan(75)
            await until(lambda turn=turn: network.journal.kept == 75 * turn)  # type: ignore[misc]
            files = journal_files(tmp_path)
            assert sum(path.stat().st_size for path in files) <= BYTES_MAX
        nursery.cancel_scope.cancel()
    assert FILES - 1 <= len(files) <= FILES
    records = read_all(tmp_path)
    assert records[0].number > 0, "the oldest are gone"
    assert [each.number for each in records] == list(range(records[0].number, 600))
    assert {each.verdict for each in replay(records, FlowSolver())} == {"skipped", "same"}
    assert (tmp_path / "notes.txt").exists()


async def test_a_disk_that_fails_costs_plans_of_the_journal_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    folder = tmp_path / "plans"
    folder.write_text("a file where the folder should be")
    network = Network(folder)
    journal = network.journal
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            for lost in (2, 4, 6):
                network.plan(2)
                await until(lambda lost=lost: journal.lost == lost)  # type: ignore[misc]
            folder.unlink()
            network.plan(2)
            await until(lambda: journal.kept == 2 and len(logs) > 1)
            nursery.cancel_scope.cancel()
    assert (journal.kept, journal.lost) == (2, 6)
    told = [(line["event"], line.get("reason")) for line in logs]
    assert told == [("plans are not kept", "File exists"), ("plans are kept again", None)]
    assert [record.number for record in read_all(folder)] == [6, 7]


async def test_a_folder_that_goes_is_made_again(tmp_path: Path) -> None:
    network = Network(tmp_path / "plans")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(network.journal.run)
        network.plan(1)
        await until(lambda: network.journal.kept == 1)
        shutil.rmtree(tmp_path / "plans")
        network.journal._close()  # As when the file is full.
        network.plan(1)
        await until(lambda: network.journal.kept == 2)
        nursery.cancel_scope.cancel()
    assert [record.number for record in read_all(tmp_path / "plans")] == [1]


async def test_beyond_its_queue_plans_are_counted_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network(tmp_path)
    network.plan(1)
    size = network.journal._queued_bytes
    monkeypatch.setattr(module, "QUEUE_BYTES_MAX", size)
    network.plan(1)
    assert (len(network.journal._queue), network.journal.lost) == (1, 1)
    samples = {sample.name: sample.value for sample in network.journal.read_metrics()}
    assert samples == {"edged_irs_journal_plans_total": 0, "edged_irs_journal_lost_total": 1}


async def test_on_a_full_disk_nothing_half_done_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The header that has no room, and the record that has but a part."""
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    network = Network(tmp_path)
    journal, room = network.journal, [100]

    class Full(FileIO):
        def write(self, data: bytes) -> int:  # type: ignore[override]
            taken = min(len(data), room[0])
            room[0] -= taken
            return super().write(data[:taken])

    monkeypatch.setattr(module, "FileIO", Full)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        for lost in (1, 2, 3):
            network.plan(1)
            await until(lambda lost=lost: journal.lost == lost)  # type: ignore[misc]
            room[0] = 10
        assert journal_files(tmp_path) == []
        room[0] = 10**6
        network.plan(2)
        await until(lambda: journal.kept == 2)
        room[0] = 10
        network.plan(2)
        await until(lambda: journal.lost == 5)
        room[0] = 10**6
        network.plan(1)
        await until(lambda: journal.kept == 3)
        nursery.cancel_scope.cancel()
    assert len(journal_files(tmp_path)) == 2
    assert [record.number for record in read_all(tmp_path)] == [3, 4, 7]


async def test_what_is_queued_is_written_at_the_end(tmp_path: Path) -> None:
    network = Network(tmp_path)
    async with trio.open_nursery() as nursery:
        await nursery.start(started(network.journal.run))
        network.plan(3)
        nursery.cancel_scope.cancel()
    assert [record.number for record in read_all(tmp_path)] == [0, 1, 2]


async def test_a_disk_that_hangs_holds_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "END_S_MAX", 0.1)
    network, going_on = Network(tmp_path), threading.Event()
    monkeypatch.setattr(network.journal, "_add", lambda _: going_on.wait(10))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(network.journal.run)
        network.plan(1)
        await until(lambda: network.journal._thread.busy)
        network.plan(1)
        nursery.cancel_scope.cancel()
    assert network.journal._thread.busy, "its thread is left to itself"
    going_on.set()
    await until(lambda: not network.journal._thread.busy)


async def test_a_clock_that_goes_back_does_not_disorder_files(tmp_path: Path) -> None:
    for _ in range(3):
        network = Network(tmp_path)
        network.unix -= 3600 * len(journal_files(tmp_path))
        network.plan(2)
        await network.journal._write_queued()
        network.journal._close()
    records = read_all(tmp_path)
    assert [record.number for record in records] == [0, 1] * 3
    hours = [round((records[0].unix - record.unix) / 3600) for record in records]
    assert hours == [0, 0, 1, 1, 2, 2], "in the order in which they were made"


@pytest.mark.parametrize("missing", [0, 1])
async def test_a_plan_as_large_as_the_whole_journal_is_kept_and_no_larger_one(
    tmp_path: Path, missing: int
) -> None:
    sizes = Network(tmp_path / "sizes")
    sizes.plan(1)
    bodies = list(sizes.journal._queue)
    await sizes.journal._write_queued()
    sizes.journal._close()
    (file,) = journal_files(tmp_path / "sizes")
    whole = file.stat().st_size
    journal = Network(tmp_path / "plans", whole - missing).journal
    with capture_logs() as logs:
        journal._queue += bodies
        await journal._write_queued()
    journal._close()
    if not missing:
        assert (journal.kept, journal.lost, logs) == (1, 0, [])
        assert [path.stat().st_size for path in journal_files(tmp_path / "plans")] == [whole]
        return
    assert (journal.kept, journal.lost) == (0, 1)
    assert not (tmp_path / "plans").exists()
    assert str(logs[0]["reason"]).endswith(f" bytes has no room in bytes_max, {whole - 1}")


async def test_a_plan_larger_than_a_file_takes_no_more_than_the_bound(tmp_path: Path) -> None:
    sizes = Network(tmp_path / "sizes")
    sizes.plan(1)
    await sizes.journal._write_queued()
    sizes.journal._close()
    (file,) = journal_files(tmp_path / "sizes")
    bound = 3 * file.stat().st_size
    network = Network(tmp_path / "plans", bound)
    for _ in range(8):
        network.plan(1)
        await network.journal._write_queued()
        found = journal_files(tmp_path / "plans")
        assert sum(path.stat().st_size for path in found) <= bound
    network.journal._close()
    assert len(found) >= 2
    assert (network.journal.kept, network.journal.lost) == (8, 0)


async def test_small_files_are_limited_by_their_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FILES_MAX", 3)
    for start in range(1, 6):
        network = Network(tmp_path)
        network.unix += start
        network.plan(1)
        await network.journal._write_queued()
        network.journal._close()
        assert len(journal_files(tmp_path)) == min(start, 3)
    ages = [round(network.unix - record.unix) for record in read_all(tmp_path)]
    assert ages == [2, 1, 0], "the oldest go"
