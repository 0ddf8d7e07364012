"""The journal of plans on disk: files that IRS adds to, and drops the oldest of.

Planning never waits for a disk: plans queue up to QUEUE_BYTES_MAX, beyond it they are not kept, and
a replay goes on behind the gap. A disk that fails costs the journal alone.
"""

import contextlib
import errno
import importlib.metadata
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import structlog
import trio
from msgspec import Meta, Struct

from edged import __version__
from edged.irs.disk_thread import DiskThread
from edged.policy import plan_journal
from edged.policy.move_orders import MovesAsked, digest_of_moves
from edged.policy.moves import UnitMoves
from edged.policy.plan_journal import (
    JournalHeader,
    MovesRecord,
    PlanInputs,
    PlanRecord,
    RulesRecord,
    ShedsRecord,
    digest_of,
    record_tables,
)
from edged.policy.planner import LeasePlan
from edged.policy.pushed_tables import Pushed, TableDigests
from edged.policy.shed_orders import ShedsAsked, digest_of_units
from edged.runtime.metrics import MetricSpec, Sample

if TYPE_CHECKING:
    from edged.policy.move_planner import MovePlan

QUEUE_BYTES_MAX = 16 * 2**20  # Plans of ten minutes, for 100 PoPs.
FILES = 8  # So many hold `bytes_max`: the oldest goes as a whole.
FILES_MAX = 1000  # With small ones, of an IRS that starts again and again.
SUFFIX = ".plans"
RETRY_S = 10.0  # After a failure of the disk.
END_S_MAX = 2.0  # For what is queued as the process ends.

METRICS = (
    MetricSpec(name="edged_irs_journal_plans_total", help="Plans kept in the journal"),
    MetricSpec(name="edged_irs_journal_lost_total", help="Plans that the journal lacks"),
)

log = structlog.get_logger("edged.irs.journal")


class JournalConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[irs.journal]`: what each plan was made of is kept on disk, for `edged irs replay`."""

    directory: Path
    bytes_max: Annotated[int, Meta(ge=2**20, le=FILES * 2**30)] = 256 * 2**20


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
        pushed: Callable[[], Pushed | None] = lambda: None,
        asked: Callable[[], MovesAsked | None] = lambda: None,
        sheds_asked: Callable[[], ShedsAsked | None] = lambda: None,
    ) -> None:
        """`stamp`: epoch and version of the tables that came of the newest plan; `pushed`: these.

        `asked`: what came of the newest plan of moves that has any; `sheds_asked`: of sheds.
        """
        self.config = config
        self.kept = self.lost = 0
        self._stamp, self._now_unix = stamp, now_unix
        self._pushed, self._asked, self._sheds_asked = pushed, asked, sheds_asked
        self._digests = TableDigests()
        self._rules = (b"", b"")  # Those in force: digest and record.
        self._rules_written = b""  # The newest record of them in the file that is written now.
        self._queue: list[_Queued] = []
        self._queued_bytes = 0
        self._wanted = trio.Event()
        self._thread = DiskThread()
        self._file: FileIO | None = None
        self._header_bytes = 0
        self._failed = False

    def keep(self, number: int, cold: bool, inputs: PlanInputs, plan: LeasePlan) -> None:
        """Note a plan, as `irs.planner.Keep`."""
        epoch, version = self._stamp()
        pushed = self._pushed()
        tables = None if pushed is None else record_tables(pushed, self._digests)
        record = PlanRecord(
            number=number,
            unix=self._now_unix(),
            epoch=epoch,
            version=version,
            cold=cold,
            inputs=inputs,
            failure=plan.failure,
            digest=digest_of(plan),
            tables=tables,
        )
        if pushed is not None and tables is not None and tables.rules != self._rules[0]:
            named = RulesRecord(digest=tables.rules, rules=pushed.rules)
            self._rules = (tables.rules, plan_journal.encode(named))
        self._take(_Queued(plan_journal.encode(record), b"" if tables is None else self._rules[1]))

    def keep_moves(self, made: "MovePlan", moves: Sequence[UnitMoves], failure: str) -> None:
        """Note a plan of moves, as `irs.migrating.KeepMoves`."""
        sheds = None
        if made.named is not None:
            sheds = ShedsRecord(
                leaving=made.leaving,
                digest=digest_of_units(made.named),
                refused=made.lasting,
                gone=bool(made.sheds),
                asked=self._sheds_asked() if made.sheds else None,
            )
        record = MovesRecord(
            number=made.number,
            unix=self._now_unix(),
            epoch=self._stamp()[0],
            cold=made.cold,
            inputs=made.inputs,
            failure=failure,
            digest=digest_of_moves(moves),
            asked=self._asked() if moves else None,
            sheds=sheds,
        )
        self._take(_Queued(plan_journal.encode(record), b""))

    def _take(self, queued: "_Queued") -> None:
        if self._queued_bytes + len(queued.body) > QUEUE_BYTES_MAX:
            self.lost += 1
            return
        self._queue.append(queued)
        self._queued_bytes += len(queued.body)
        self._wanted.set()

    async def run(self) -> None:
        """Write until cancelled; what is queued then is written, if the disk is quick."""
        try:
            while True:
                await self._wanted.wait()
                self._wanted = trio.Event()
                await self._write_queued()
                if self._failed:
                    await trio.sleep(RETRY_S)
        finally:
            with trio.move_on_after(END_S_MAX) as scope:
                scope.shield = True
                await self._thread.idle()
                await self._write_queued()
            self._thread.close(self._close)

    async def _write_queued(self) -> None:
        if not self._queue:
            return
        await trio.lowlevel.checkpoint_if_cancelled()  # What is taken now is written.
        plans, self._queue, self._queued_bytes = self._queue, [], 0
        await self._thread.run(partial(self._write, plans))

    def read_metrics(self) -> Iterable[Sample]:
        """Values of METRICS."""
        yield Sample("edged_irs_journal_plans_total", self.kept)
        yield Sample("edged_irs_journal_lost_total", self.lost)

    def _write(self, plans: Sequence["_Queued"]) -> None:
        left = len(plans)
        try:
            for queued in plans:
                self._add(queued)
                left -= 1
                self.kept += 1
        except OSError as error:
            self._close()
            if not self._failed:
                directory, why = str(self.config.directory), error.strerror or str(error)
                log.warning("plans are not kept", directory=directory, reason=why)
            self._failed = True
        else:
            if self._failed:
                log.info("plans are kept again", directory=str(self.config.directory))
            self._failed = False
        finally:
            self.lost += left

    def _add(self, queued: "_Queued") -> None:
        """Add a plan to the newest file, whole or not at all; raises OSError.

        The file has the rules that the plan names, and so has the next if it has no room for both.
        """
        size = self.config.bytes_max // FILES
        record = plan_journal.frame(queued.body)
        rules = b"" if queued.rules == self._rules_written else _frame(queued.rules)
        if self._file is None or self._file.tell() + len(rules) + len(record) > size:
            self._close()
            self._begin(size, len(record), queued.rules)
        elif rules:
            _put(self._file, rules)
            self._rules_written = queued.rules
        assert self._file is not None, "it has begun"
        _put(self._file, record)

    def _begin(self, size: int, first: int, rules: bytes) -> None:
        """A new file, behind all that are there: names are times, and a clock may go back.

        `size`: what it may have, but for the `first` record, which may need more; it names `rules`.
        """
        header = JournalHeader(
            edged=__version__, solver=solver_version(), format=plan_journal.FORMAT
        )
        head = plan_journal.MAGIC + _frame(plan_journal.encode(header)) + _frame(rules)
        directory, most = self.config.directory, self.config.bytes_max
        if len(head) + first > most:
            raise OSError(errno.EFBIG, f"a plan of {first} bytes has no room in bytes_max, {most}")
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._drop_oldest(max(size, len(head) + first))
        names = [path.stem for path in journal_files(directory)]
        last = max((int(name) for name in names if name.isdecimal()), default=-1)
        number = max(int(1000 * self._now_unix()), last + 1)
        file = FileIO(directory / f"{number:014}{SUFFIX}", "xb")
        self._file, self._header_bytes = file, len(head)
        self._rules_written = b""
        _put(file, head)
        self._rules_written = rules

    def _drop_oldest(self, room: int) -> None:
        """Make room for one more file."""
        found = journal_files(self.config.directory)
        sizes = [path.stat().st_size for path in found]
        total = sum(sizes) + room
        left = range(len(found), 0, -1)
        for count, path, size in zip(left, found, sizes, strict=True):
            if total <= self.config.bytes_max and count < FILES_MAX:
                break
            path.unlink()
            total -= size

    def _close(self) -> None:
        """Let go of the file; one without a plan is not left behind."""
        file, self._file = self._file, None
        if file is None:
            return
        with contextlib.suppress(OSError):
            is_empty = file.tell() <= self._header_bytes
            file.close()
            if is_empty:
                Path(str(file.name)).unlink()


class _Queued(NamedTuple):
    """A plan on its way to the disk."""

    body: bytes
    rules: bytes  # The record of those that it names; one object for all plans that do.


def _frame(body: bytes) -> bytes:
    return plan_journal.frame(body) if body else b""


def _put(file: FileIO, data: bytes) -> None:
    """Write all, or leave the file as it was; raises OSError."""
    before, written = file.tell(), 0
    try:
        written = file.write(data)
    finally:
        if written != len(data):
            with contextlib.suppress(OSError):
                file.seek(before)
                file.truncate()
    if written != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
