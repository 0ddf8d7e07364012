"""What IRS keeps on disk: the last epoch, drains, PoPs that are known, and what operators did.

One SQLite file in WAL mode, locked by the process that has it open. IRS works without it: a file
that can't be opened, read or written is named in the log with the reason, shown by `edged health`,
left as it is, and IRS goes on with what it hears. Routing must not wait for a disk.
"""

import math
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import msgspec
import structlog
import trio
from msgspec import Struct

from edged.errors import EdgedError
from edged.irs.disk_thread import DiskThread, call_within
from edged.irs.transaction import transaction
from edged.media.epochs import Epoch, IrsMemo, Revision
from edged.media.routing import Unix
from edged.runtime.metrics import MetricSpec, Sample

FORMAT = 1
APPLICATION_ID = 0x45444749  # "EDGI"
ACTIONS_MAX = 1000  # Kept of what operators did: years of drains.
POPS_MAX = 512  # As IRS lets in.
UNSAVED_ACTIONS_MAX = 64  # While the disk fails; the oldest are lost first.
LOCKED_S_MAX = 1.0  # Another process has the file.
LOAD_S_MAX = 5.0  # At the start, when nothing else is done; a disk that hangs is tried again later.
SAVE_INTERVAL_S_MIN = 0.1
RECENT_MAX = 20  # Of what operators did, to be shown.
RETRY_S = 10.0  # After a failure.
ANSWER_S_MAX = 10.0  # Of a write; beyond, it is said that the disk hangs, and waited on.
END_S_MAX = 2.0  # For what is not written yet, as the process ends.
SYNCHRONOUS = "FULL"  # What was written is there when the power is back.

SCHEMA = """
CREATE TABLE IF NOT EXISTS numbers (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS drains (
    origin TEXT PRIMARY KEY, since REAL NOT NULL, until REAL NOT NULL, by TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS pops (pop TEXT PRIMARY KEY, heard REAL NOT NULL);
CREATE TABLE IF NOT EXISTS actions (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, by TEXT NOT NULL, what TEXT NOT NULL,
    origin TEXT NOT NULL);
"""

METRICS = (
    MetricSpec(
        name="edged_irs_state_saves_total", help="Writes of the state file", labels=("outcome",)
    ),
)

log = structlog.get_logger("edged.irs.state")


class StateError(EdgedError):
    """The state file cannot be used; the message names it and says why."""


class IrsState(Struct, frozen=True, kw_only=True):
    """What is kept, beside the actions."""

    epoch: int = 0  # The last one that was used.
    memo: IrsMemo = IrsMemo()
    pops: dict[str, float] = {}  # Those that grant epochs, and when each was there last (Unix).


class Action(Struct, frozen=True, kw_only=True):
    """What an operator did."""

    at: Unix
    by: str
    what: str  # "drain", "undo drain", "stand by"
    origin: str  # "": of none.


class _Numbers(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: int
    epoch: Epoch = 0
    memo_epoch: Epoch = 0
    memo_revision: Revision = 0


class StateFile:
    """The file, opened; every call may wait for the disk and raises StateError."""

    def __init__(self, path: Path) -> None:
        """Open it, or make it."""
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                path, timeout=LOCKED_S_MAX, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise self._failed("opened", error) from error
        try:
            self._prepare()
        except StateError:
            self._db.close()
            raise
        except (sqlite3.Error, UnicodeError) as error:  # SQLite quotes what is damaged.
            self._db.close()
            raise self._failed("opened", error) from error

    def _prepare(self) -> None:
        db = self._db
        db.execute("PRAGMA locking_mode = EXCLUSIVE")  # Two IRSs would undo each other's word.
        (application,), (tables,) = (
            db.execute("PRAGMA application_id").fetchone(),
            db.execute("SELECT count(*) FROM sqlite_master").fetchone(),
        )
        if tables and application != APPLICATION_ID:
            raise StateError(f"irs.state_file {self.path} is a database of another program")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {SYNCHRONOUS}")
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.executescript(SCHEMA)
        db.execute("INSERT OR IGNORE INTO numbers VALUES ('format', ?)", (FORMAT,))

    def load(self) -> IrsState:
        """What was saved last."""
        try:
            numbers = dict(self._db.execute("SELECT name, value FROM numbers"))
            drains = self._db.execute(
                "SELECT origin, since, until, by FROM drains ORDER BY origin"
            ).fetchall()
            pops = dict(self._db.execute("SELECT pop, heard FROM pops"))
        except (sqlite3.Error, UnicodeError) as error:
            raise self._failed("read", error) from error
        try:
            known = msgspec.convert(numbers, _Numbers)
            notes = [
                dict(zip(("origin", "since", "until", "by"), row, strict=True)) for row in drains
            ]
            memo = msgspec.convert(
                {
                    "type": "memo",
                    "epoch": known.memo_epoch,
                    "revision": known.memo_revision,
                    "drains": notes,
                },
                IrsMemo,
            )
            heard = msgspec.convert(pops, dict[str, Unix])
        except msgspec.ValidationError as error:
            raise self._failed("read", error) from error
        if known.format != FORMAT:
            raise StateError(
                f"irs.state_file {self.path} has format {known.format}, known is {FORMAT}"
            )
        return IrsState(epoch=known.epoch, memo=memo, pops=heard)

    def save(self, state: IrsState, actions: Iterable[Action] = ()) -> None:
        """Put all of it on disk, or nothing."""
        numbers = {
            "epoch": state.epoch,
            "memo_epoch": state.memo.epoch,
            "memo_revision": state.memo.revision,
        }
        pops = sorted(state.pops.items(), key=lambda item: -item[1])[:POPS_MAX]
        db = self._db
        try:
            with transaction(db):
                db.executemany("INSERT OR REPLACE INTO numbers VALUES (?, ?)", numbers.items())
                db.execute("DELETE FROM drains")
                db.executemany(
                    "INSERT INTO drains VALUES (?, ?, ?, ?)",
                    [(note.origin, note.since, note.until, note.by) for note in state.memo.drains],
                )
                db.execute("DELETE FROM pops")
                db.executemany("INSERT INTO pops VALUES (?, ?)", pops)
                db.executemany(
                    "INSERT INTO actions (at, by, what, origin) VALUES (?, ?, ?, ?)",
                    [(one.at, one.by, one.what, one.origin) for one in actions],
                )
                db.execute(
                    "DELETE FROM actions WHERE id <= (SELECT max(id) FROM actions) - ?",
                    (ACTIONS_MAX,),
                )
        except (sqlite3.Error, UnicodeError, OverflowError) as error:
            raise self._failed("written", error) from error

    def actions(self) -> list[Action]:
        """What operators did, the newest first."""
        try:
            rows = self._db.execute("SELECT at, by, what, origin FROM actions ORDER BY id DESC")
            names = ("at", "by", "what", "origin")
            return [msgspec.convert(dict(zip(names, row, strict=True)), Action) for row in rows]
        except (sqlite3.Error, UnicodeError, msgspec.ValidationError) as error:
            raise self._failed("read", error) from error

    def close(self) -> None:
        """Let go of it."""
        self._db.close()

    def _failed(self, what: str, error: Exception) -> StateError:
        return StateError(f"irs.state_file {self.path} cannot be {what}: {error}")


def _close(opened: tuple[StateFile, IrsState, list[Action]]) -> None:
    opened[0].close()


class StateKeeper:
    """Keeps what IRS says in a file, in a thread of its own; without a path, nowhere.

    `problem` says why the last attempt failed, "" if it did not.
    """

    def __init__(self, path: str, state: Callable[[], IrsState]) -> None:
        """`state` says what is to be kept, when it is written."""
        self.path = path
        self.problem = ""
        self._state = state
        self._file: StateFile | None = None
        self._actions: deque[Action] = deque(maxlen=UNSAVED_ACTIONS_MAX)  # Not on disk yet.
        self.recent: deque[Action] = deque(maxlen=RECENT_MAX)  # The newest first.
        self._dirty = trio.Event()
        self.on_loaded: Callable[[IrsState], None] = lambda _: None  # Later than at the start.
        self._thread = DiskThread()
        self._asked_at = math.inf  # When the write that is under way began.
        self.saved = self.failed = 0

    def load(self) -> IrsState:
        """What was kept; nothing when there is no file yet, or it cannot be used, which is said.

        Waits for the disk, once and for LOAD_S_MAX, before anything else is done.
        """
        if not self.path:
            return IrsState()
        try:
            return self._take(*call_within(self._open, LOAD_S_MAX, _close))
        except TimeoutError:
            self._note(f"irs.state_file {self.path} has not been read in {LOAD_S_MAX:g} s")
        except StateError as error:
            self._note(str(error))
        return IrsState()

    def _open(self) -> tuple[StateFile, IrsState, list[Action]]:
        """Open the file and read it; raises StateError, and it is left as it is."""
        file = StateFile(Path(self.path))
        try:
            return file, file.load(), file.actions()
        except StateError:
            file.close()
            raise

    def _take(self, file: StateFile, state: IrsState, actions: list[Action]) -> IrsState:
        self.recent.extend(actions[: RECENT_MAX - len(self.recent)])
        self._file = file
        return state

    def why_not_kept(self, now: float) -> str:
        """Why nothing is kept; "" while all is well."""
        waited_s = now - self._asked_at
        if waited_s > ANSWER_S_MAX:
            return f"irs.state_file {self.path}: the disk has not answered for {waited_s:.0f} s"
        return self.problem

    def keep(self, action: Action | None = None) -> None:
        """Have what there is now written soon, and that an operator did this."""
        if action is not None:
            self._actions.append(action)
            self.recent.appendleft(action)
        self._dirty.set()

    async def run(self) -> None:
        """Write until cancelled; what is not yet, on the way out, if the disk is quick."""
        if not self.path:
            await trio.sleep_forever()
        while self._file is None:
            await trio.sleep(RETRY_S)
            await self._open_later()
        try:
            while True:
                await self._dirty.wait()
                kept = await self._save()
                await trio.sleep(SAVE_INTERVAL_S_MIN if kept else RETRY_S)
        finally:
            with trio.move_on_after(END_S_MAX) as scope:
                scope.shield = True
                await self._thread.idle()
                if self._dirty.is_set():
                    await self._save()

    async def _open_later(self) -> None:
        """Try again to open it; what it has is told to `on_loaded`."""
        try:
            state = self._take(*await self._thread.run(self._open))
        except StateError as error:
            self._note(str(error))
            return
        log.info("state is kept again", file=self.path)
        self.problem = ""
        self.on_loaded(state)
        self.keep()

    def close(self) -> None:
        """Let go of the file."""
        file, self._file = self._file, None
        if file is not None:
            self._thread.close(file.close)

    def read_metrics(self) -> Iterable[Sample]:
        """Values of METRICS."""
        yield Sample("edged_irs_state_saves_total", self.saved, {"outcome": "saved"})
        yield Sample("edged_irs_state_saves_total", self.failed, {"outcome": "failed"})

    async def _save(self) -> bool:
        assert self._file is not None, "there is one as long as we run"
        await trio.lowlevel.checkpoint_if_cancelled()  # What is taken now is written.
        self._dirty = trio.Event()
        actions = list(self._actions)
        self._actions.clear()
        save = partial(self._file.save, self._state(), actions)
        self._asked_at = trio.current_time()
        try:
            await self._thread.run(save)
        except StateError as error:
            self._dirty.set()
            self._actions = deque([*actions, *self._actions], maxlen=UNSAVED_ACTIONS_MAX)
            self._note(str(error))
            return False
        finally:
            self._asked_at = math.inf
        self.saved += 1
        self.problem = ""
        return True

    def _note(self, problem: str) -> None:
        self.failed += 1
        if problem != self.problem:
            log.warning("state is not kept", reason=problem)
        self.problem = problem
