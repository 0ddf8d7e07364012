"""What the network was asked for, on disk: for `edged irs forecast`.

One SQLite file: a row for each PoP and five minutes, and the network as it was planned for last. A
file that cannot be written costs the history alone: rows wait, QUEUE_MAX at most.
"""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import structlog
import trio
from msgspec import Meta, Struct

from edged.errors import EdgedError
from edged.media.routing import PopTelemetry
from edged.policy.demand import SLOTS_PER_DAY, DemandMeter, DemandRow
from edged.policy.offline_plan import Site, Topology
from edged.policy.plan_journal import PlanInputs
from edged.policy.planner import LeasePlan
from edged.runtime.metrics import MetricSpec, Sample

APPLICATION_ID = 0x45444448  # "EDDH"
QUEUE_MAX = 100_000  # Rows: three days of a hundred PoPs.
RETRY_S = 60.0
END_S_MAX = 2.0  # For the last slot, as the process ends.
LOCKED_S_MAX = 5.0

METRICS = (
    MetricSpec(name="edged_irs_history_rows_total", help="Rows of demand kept on disk"),
    MetricSpec(name="edged_irs_history_lost_total", help="Rows of demand that are not kept"),
)

SCHEMA = """
CREATE TABLE IF NOT EXISTS demand (
    slot INTEGER NOT NULL, pop TEXT NOT NULL, partner INTEGER NOT NULL, affiliate INTEGER NOT NULL,
    basic INTEGER NOT NULL, unplaced INTEGER NOT NULL, PRIMARY KEY (slot, pop)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS topology (id INTEGER PRIMARY KEY CHECK (id = 1), body BLOB NOT NULL);
"""

log = structlog.get_logger("edged.irs.history")


class HistoryConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[irs.history]`: what each PoP is asked for is kept on disk, for forecasts."""

    file: Path
    days: Annotated[int, Meta(ge=2, le=1000)] = 60


class HistoryError(EdgedError):
    """The file cannot be used; the message names it and says why."""


class HistoryFile:
    """The file, opened; every call may wait for the disk and raises HistoryError."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open it; unless it is only read, make it if it is not there."""
        self.path = path
        try:
            if read_only:
                self._db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._db = sqlite3.connect(
                    path, timeout=LOCKED_S_MAX, isolation_level=None, check_same_thread=False
                )
            self._prepare(read_only=read_only)
        except (OSError, sqlite3.Error) as error:
            raise self._failed("opened", error) from error

    def _prepare(self, *, read_only: bool) -> None:
        db = self._db
        (application,), (tables,) = (
            db.execute("PRAGMA application_id").fetchone(),
            db.execute("SELECT count(*) FROM sqlite_master").fetchone(),
        )
        if (tables or read_only) and application != APPLICATION_ID:
            db.close()
            raise HistoryError(f"{self.path} is no history of demand")
        if not read_only:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.executescript(SCHEMA)

    def add(self, rows: Sequence[DemandRow], topology: Topology | None, days: int) -> None:
        """Put all of it on disk or nothing, and drop what is older than so many days."""
        db = self._db
        try:
            with db:
                db.execute("BEGIN IMMEDIATE")
                db.executemany(
                    "INSERT INTO demand VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                    " partner = max(partner, excluded.partner),"
                    " affiliate = max(affiliate, excluded.affiliate),"
                    " basic = max(basic, excluded.basic),"
                    " unplaced = unplaced + excluded.unplaced",
                    [(row.slot, row.pop, *row.units, row.unplaced) for row in rows],
                )
                if topology is not None:
                    body = msgspec.msgpack.encode(topology)
                    db.execute("INSERT OR REPLACE INTO topology VALUES (1, ?)", (body,))
                if rows:
                    oldest = max(row.slot for row in rows) - days * SLOTS_PER_DAY
                    db.execute("DELETE FROM demand WHERE slot < ?", (oldest,))
        except sqlite3.Error as error:
            raise self._failed("written", error) from error

    def rows(self) -> list[DemandRow]:
        """All, oldest first."""
        try:
            found = self._db.execute(
                "SELECT slot, pop, partner, affiliate, basic, unplaced FROM demand"
                " ORDER BY slot, pop"
            )
            return [
                msgspec.convert((slot, pop, (partner, affiliate, basic), unplaced), DemandRow)
                for slot, pop, partner, affiliate, basic, unplaced in found
            ]
        except (sqlite3.Error, UnicodeError, msgspec.ValidationError) as error:
            raise self._failed("read", error) from error

    def topology(self) -> Topology | None:
        """The network as it was planned for last; None before the first plan."""
        try:
            found = self._db.execute("SELECT body FROM topology").fetchone()
            return None if found is None else msgspec.msgpack.decode(found[0], type=Topology)
        except (sqlite3.Error, msgspec.MsgspecError, TypeError) as error:
            raise self._failed("read", error) from error

    def close(self) -> None:
        """Let go of it."""
        self._db.close()

    def _failed(self, what: str, error: Exception) -> HistoryError:
        return HistoryError(f"{self.path} cannot be {what}: {error}")


class History:
    """Takes what PoPs tell and what is planned, and writes it in a thread."""

    def __init__(self, config: HistoryConfig, now_unix: Callable[[], float]) -> None:
        self.config = config
        self.kept = self.lost = 0
        self._now_unix = now_unix
        self._meter = DemandMeter()
        self._rows: list[DemandRow] = []
        self._inputs: PlanInputs | None = None
        self._wanted = trio.Event()
        self._thread = trio.CapacityLimiter(1)  # Our own: no other thread is waited for.
        self._file: HistoryFile | None = None
        self._writing = False
        self._problem = ""

    def told(self, shard: str, told: PopTelemetry) -> None:
        """A PoP shard tells."""
        rows = self._meter.note(shard, told, self._now_unix())
        if rows:
            self._rows += rows
            self.lost += max(0, len(self._rows) - QUEUE_MAX)
            del self._rows[:-QUEUE_MAX]
            self._wanted.set()

    def keep(self, number: int, cold: bool, inputs: PlanInputs, plan: LeasePlan) -> None:
        """A plan was made: `irs.planner.Keep`. Of plans the newest counts."""
        del number, cold, plan
        self._inputs = inputs

    async def run(self) -> None:
        """Write until cancelled."""
        try:
            while True:
                await self._wanted.wait()
                self._wanted = trio.Event()
                rows, self._rows = self._rows, []
                topology = None if self._inputs is None else topology_of(self._inputs)
                try:
                    await self._write_apart(rows, topology)
                except HistoryError as error:
                    self._note(str(error))
                    self._rows = rows + self._rows
                    self._wanted.set()
                    await trio.sleep(RETRY_S)
                else:
                    self.kept += len(rows)
                    self._note("")
        finally:
            with trio.move_on_after(END_S_MAX) as scope:
                scope.shield = True
                await self._finish()
            if not self._writing:
                self._close()

    async def _finish(self) -> None:
        """Keep what there is of this slot."""
        rows, self._rows = [*self._rows, *self._meter.flush()], []
        if self._writing or not rows:
            return
        try:
            await self._write_apart(rows, None)
        except HistoryError as error:
            self._note(str(error))

    async def _write_apart(self, rows: Sequence[DemandRow], topology: Topology | None) -> None:
        """In a thread that nobody waits for once we are cancelled: a disk may hang."""
        await trio.lowlevel.checkpoint_if_cancelled()  # From here on the thread does begin.
        self._writing = True

        def write() -> None:
            try:
                self._write(rows, topology)
            finally:
                self._writing = False

        await trio.to_thread.run_sync(write, abandon_on_cancel=True, limiter=self._thread)

    def read_metrics(self) -> Iterable[Sample]:
        """Values of METRICS."""
        yield Sample("edged_irs_history_rows_total", self.kept)
        yield Sample("edged_irs_history_lost_total", self.lost)

    def _write(self, rows: Sequence[DemandRow], topology: Topology | None) -> None:
        try:
            if self._file is None:
                self._file = HistoryFile(self.config.file)
            self._file.add(rows, topology, self.config.days)
        except HistoryError:
            self._close()
            raise

    def _note(self, problem: str) -> None:
        if problem and problem != self._problem:
            log.warning("demand is not kept", reason=problem)
        elif self._problem and not problem:
            log.info("demand is kept again", file=str(self.config.file))
        self._problem = problem

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def topology_of(inputs: PlanInputs) -> Topology:
    """The network of a plan; the shards of a PoP are one, as near as the nearest."""
    rtt_ms: dict[str, dict[str, float]] = {}
    for pop in inputs.pops:
        known = rtt_ms.setdefault(pop.name, {})
        for origin, measured in pop.rtt_ms.items():
            known[origin] = min(measured, known.get(origin, measured))
    return Topology(
        origins=[Site(origin=o.origin, slots_total=o.slots_total) for o in inputs.origins],
        rtt_ms=rtt_ms,
        links=inputs.links,
    )
