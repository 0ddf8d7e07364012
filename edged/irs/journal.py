"""The journal of plans on disk: files that IRS adds to, and drops the oldest of.

Planning never waits for a disk: plans queue up to QUEUE_BYTES_MAX, beyond it they are not kept, and
a replay goes on behind the gap. A disk that fails costs the journal alone.
"""

import importlib.metadata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, BinaryIO

import structlog
import trio
from msgspec import Meta, Struct

from edged import __version__
from edged.policy import plan_journal
from edged.policy.plan_journal import JournalHeader, PlanInputs, PlanRecord, digest_of
from edged.policy.planner import LeasePlan
from edged.runtime.metrics import MetricSpec, Sample

QUEUE_BYTES_MAX = 16 * 2**20  # Plans of ten minutes, for 100 PoPs.
FILES = 8  # So many hold `bytes_max`: the oldest goes as a whole.
SUFFIX = ".plans"
RETRY_S = 10.0  # After a failure of the disk.

METRICS = (
    MetricSpec(name="edged_irs_journal_plans_total", help="Plans kept in the journal"),
    MetricSpec(name="edged_irs_journal_lost_total", help="Plans that the journal lacks"),
)

log = structlog.get_logger("edged.irs.journal")


class JournalConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[irs.journal]`: what each plan was made of is kept on disk, for `edged irs replay`."""

    directory: Path
    bytes_max: Annotated[int, Meta(ge=2**20)] = 256 * 2**20


def solver_version() -> str:
    """Of the solver that is installed; "" without one."""
    try:
        return "HiGHS " + importlib.metadata.version("highspy")
    except importlib.metadata.PackageNotFoundError:
        return ""


def journal_files(path: Path) -> list[Path]:
    """A folder's journals, oldest first; or the one file that it is."""
    return sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]


class Journal:
    """Takes plans, and writes them in a thread."""

    def __init__(
        self,
        config: JournalConfig,
        *,
        stamp: Callable[[], tuple[int, int]],
        now_unix: Callable[[], float],
    ) -> None:
        """`stamp`: epoch and version of the tables that came of the newest plan."""
        self.config = config
        self.kept = self.lost = 0
        self._stamp, self._now_unix = stamp, now_unix
        self._queue: list[bytes] = []
        self._queued_bytes = 0
        self._wanted = trio.Event()
        self._file: BinaryIO | None = None
        self._failed = False

    def keep(self, number: int, cold: bool, inputs: PlanInputs, plan: LeasePlan) -> None:
        """Note a plan, as `irs.planner.Keep`."""
        epoch, version = self._stamp()
        body = plan_journal.encode(
            PlanRecord(
                number=number,
                unix=self._now_unix(),
                epoch=epoch,
                version=version,
                cold=cold,
                inputs=inputs,
                failure=plan.failure,
                digest=digest_of(plan),
            )
        )
        if self._queued_bytes + len(body) > QUEUE_BYTES_MAX:
            self.lost += 1
            return
        self._queue.append(body)
        self._queued_bytes += len(body)
        self._wanted.set()

    async def run(self) -> None:
        """Write until cancelled."""
        try:
            while True:
                await self._wanted.wait()
                self._wanted = trio.Event()
                bodies, self._queue, self._queued_bytes = self._queue, [], 0
                await trio.to_thread.run_sync(self._write, bodies)
                if self._failed:
                    await trio.sleep(RETRY_S)
        finally:
            self._close()

    def read_metrics(self) -> Iterable[Sample]:
        """Values of METRICS."""
        yield Sample("edged_irs_journal_plans_total", self.kept)
        yield Sample("edged_irs_journal_lost_total", self.lost)

    def _write(self, bodies: Sequence[bytes]) -> None:
        try:
            for body in bodies:
                record = plan_journal.frame(body)
                self._open(len(record)).write(record)
                self.kept += 1
            if self._file is not None:
                self._file.flush()
        except OSError as error:
            self.lost += len(bodies)
            self._close()
            if not self._failed:
                directory, why = str(self.config.directory), error.strerror or str(error)
                log.warning("plans are not kept", directory=directory, reason=why)
            self._failed = True
            return
        if self._failed:
            log.info("plans are kept again", directory=str(self.config.directory))
        self._failed = False

    def _open(self, room: int) -> BinaryIO:
        """The file to add to: a new one where there is none, or the last has no such room."""
        size = self.config.bytes_max // FILES
        if self._file is not None and self._file.tell() + room <= size:
            return self._file
        self._close()
        directory = self.config.directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._drop_oldest(max(size, room))
        file = (directory / f"{int(1000 * self._now_unix()):014}{SUFFIX}").open("xb")
        self._file = file
        header = JournalHeader(edged=__version__, solver=solver_version())
        file.write(plan_journal.MAGIC + plan_journal.frame(plan_journal.encode(header)))
        return file

    def _drop_oldest(self, room: int) -> None:
        """Make room for one more file."""
        found = journal_files(self.config.directory)
        sizes = [path.stat().st_size for path in found]
        total = sum(sizes) + room
        for path, size in zip(found, sizes, strict=True):
            if total <= self.config.bytes_max:
                break
            path.unlink()
            total -= size

    def _close(self) -> None:
        if self._file is not None:
            try:
                self._file.close()
            except OSError as error:
                log.debug("journal's file did not close", reason=str(error))
            self._file = None
