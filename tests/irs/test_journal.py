"""The journal on disk: files that follow each other, bounded; a disk that fails costs it alone."""

import shutil
import threading
from collections.abc import Awaitable, Callable
from io import FileIO
from pathlib import Path

import msgspec
import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from edged.irs import journal as module
from edged.irs.client import PopClient
from edged.irs.collectors import Collectors
from edged.irs.journal import FILES, Journal, JournalConfig, journal_files
from edged.irs.planner import Planner
from edged.irs.service import IrsConfig
from edged.media.routing import (
    Match,
    OriginReport,
    PopTelemetry,
    ReportedState,
    RouteRequest,
    RoutingTable,
    Rule,
)
from edged.policy.migration import Migration
from edged.policy.plan_journal import PlanRecord, Record, RulesRecord, read_journal
from edged.policy.plan_replay import Replayed, ReplayedMoves, replay
from edged.policy.pop_view import PopView
from edged.policy.pushed_tables import Push, Pushed
from edged.policy.rule_examples import RuleEntry
from edged.policy.solver import FlowSolver
from edged.wire import table_push as table_push_module
from edged.wire.table import Drain, Migrate, OriginHello
from tests.backbone.network import until
from tests.irs import network as irs_network
from tests.irs.network import CLIENT

BYTES_MAX = 2**18  # A quarter of the least that a file of configuration may say.


def started(run: Callable[[], Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """A task that has begun to run when it is said to be there."""

    async def main(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await run()

    return main


def read_plans(folder: Path) -> list[PlanRecord]:
    return [record for record in read_all(folder) if isinstance(record, PlanRecord)]


def read_all(folder: Path) -> list[Record]:
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
        self.rules: tuple[Rule, ...] | None = None  # None: no tables are pushed.
        self.journal = Journal(
            config, stamp=lambda: (7, self.version), now_unix=self._now_unix, pushed=self._pushed
        )
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

    def _pushed(self) -> Pushed | None:
        if self.rules is None:
            return None
        push = Push(epoch=7, version=self.version, issued=self.unix, ttl_s=30.0, lease_ttl_s=10.0)
        return Pushed(push=push, rules=self.rules, variants={}, tables={})

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
    records = read_plans(tmp_path / "made" / "plans")
    assert [record.version for record in records] == list(range(1, 301))
    assert [record.number for record in records if record.cold] == [0, 256]
    assert {each.verdict for each in replay(records, FlowSolver())} == {"same"}
    assert (tmp_path / "made" / "plans").stat().st_mode & 0o777 == 0o700


async def test_every_table_and_every_move_is_made_again_over_reloads_and_rehomings(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What PoPs were pushed is what the journal gives, to the byte: rules, times, old PoPs."""
    pushed: dict[tuple[str, int, int], bytes] = {}
    commands: list[Migrate] = []

    def take(pop: str, table: RoutingTable) -> None:
        pushed[pop, *table.stamp] = msgspec.msgpack.encode(table)

    def command(given: Migrate | Drain) -> None:
        if isinstance(given, Migrate):
            commands.append(given)

    def pop_client(name: str) -> PopClient:
        client = PopClient(
            CLIENT, PopView(name), on_table=lambda table: take(f"{name}/0", table),
            on_command=command,
        )  # fmt: skip
        nursery.start_soon(client.run_duties)
        network.join(name, client.run_stream)
        return client

    first = IrsConfig(
        rules=(RuleEntry(name="vip", match=Match(tag="vip"), avoid=("o2",), on_full="preempt"),)
    )
    async with trio.open_nursery() as nursery:
        network = irs_network.Network(nursery, first)
        service = network.irs
        journal = Journal(
            JournalConfig(directory=tmp_path),
            stamp=lambda: (service.epoch, service.version),
            now_unix=lambda: irs_network.NOW_UNIX,
            pushed=lambda: service.pushed,
            asked=lambda: service.moving.asked,
        )
        service.planner.keepers.append(journal.keep)
        service.migrating.keepers.append(journal.keep_moves)
        for name in ("o1", "o2"):
            network.add_origin(name)
        pops = [pop_client("lhr"), pop_client("ams")]
        await until(lambda: len(service.tables) == 2)
        monkeypatch.setattr(table_push_module, "RULES_PROTO", 1)  # As an older PoP's hello says.
        pops.append(pop_client("old"))
        for pop in pops:
            pop.view.observe_rtt("o1", 90.0)
            pop.view.observe_rtt("o2", 5.0)
            for channel in ("a", "b"):
                pop.view.placed("o1", RouteRequest(channel=channel, tags=("vip",)))
                pop.view.placed("o1", RouteRequest(channel=f"{channel} free"))
        await trio.sleep(5.0)
        service.reconfigure(
            msgspec.structs.replace(
                first, rules=(RuleEntry(name="pin", pin="o1"),), table_ttl_s=40.0, lease_ttl_s=20.0
            )
        )
        await trio.sleep(75.0)  # Meanwhile streams are to come nearer.
        service.reconfigure(first)
        await trio.sleep(5.0)
        nursery.cancel_scope.cancel()
    await journal._write_queued()
    journal._close()
    assert commands
    replayed = list(replay(read_all(tmp_path), FlowSolver(), Migration()))
    made = {
        (pop, *table.stamp): msgspec.msgpack.encode(table)
        for each in replayed
        if isinstance(each, Replayed)
        for pop, table in each.tables.items()
    }
    assert {each.verdict for each in replayed} == {"same"}
    assert len(pushed) > 200
    assert {key: made.get(key) for key in pushed} == pushed
    tables = [msgspec.msgpack.decode(each, type=RoutingTable) for each in pushed.values()]
    assert {(table.lease_ttl_s, table.ttl_s) for table in tables} == {(10.0, 30.0), (20.0, 40.0)}
    assert len({table.rules for table in tables}) == 3, "of the old PoP, too"
    moves = [each for each in replayed if isinstance(each, ReplayedMoves) and each.moves]
    assert sum(move.units for each in moves for move in each.moves or ()) == sum(
        pick.count for given in commands for pick in given.picks
    )


async def test_every_file_has_the_rules_that_its_plans_name(tmp_path: Path) -> None:
    """A file may be all that is left; and a set of rules is not written again with each plan."""
    network = Network(tmp_path)
    rules = [(Rule(name=f"r{n}", pin="fra1"),) for n in range(2)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(network.journal.run)
        for turn in range(12):
            network.rules = rules[turn // 4 % 2]
            network.plan(25)
            kept = 25 * (turn + 1)
            await until(lambda kept=kept: network.journal.kept == kept)  # type: ignore[misc]
        nursery.cancel_scope.cancel()
    files = journal_files(tmp_path)
    assert len(files) > 2
    for path in files:
        known: set[bytes] = set()
        records = list(read_journal(path.read_bytes(), path.name)[1])
        assert sum(isinstance(record, RulesRecord) for record in records) <= 4
        for record in records:
            if isinstance(record, RulesRecord):
                known.add(record.digest)
            elif isinstance(record, PlanRecord):
                assert record.tables is not None
                assert record.tables.rules in known


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
    records = read_plans(tmp_path)
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
    assert [record.number for record in read_plans(folder)] == [6, 7]


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
    assert [record.number for record in read_plans(tmp_path / "plans")] == [1]


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
    assert [record.number for record in read_plans(tmp_path)] == [3, 4, 7]


async def test_what_is_queued_is_written_at_the_end(tmp_path: Path) -> None:
    network = Network(tmp_path)
    async with trio.open_nursery() as nursery:
        await nursery.start(started(network.journal.run))
        network.plan(3)
        nursery.cancel_scope.cancel()
    assert [record.number for record in read_plans(tmp_path)] == [0, 1, 2]


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
    records = read_plans(tmp_path)
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
    ages = [round(network.unix - record.unix) for record in read_plans(tmp_path)]
    assert ages == [2, 1, 0], "the oldest go"
