"""The history of demand on disk: one SQLite file, read while IRS writes it.

It has a row for each PoP and quarter of an hour, and what was last heard of each origin and path.
It has no write-ahead log, so who may read the file alone can read it, and it can be copied.
"""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from edged.errors import EdgedError
from edged.irs.transaction import transaction
from edged.media.routing import ORIGINS_MAX, Count, Milliseconds, Name
from edged.policy.day_plan import Network
from edged.policy.demand import SLOTS_PER_DAY, DemandRow
from edged.policy.link_map import find_problems

FORMAT = 1
APPLICATION_ID = 0x45444448  # "EDDH"
LOCKED_S_MAX = 5.0  # Who reads all takes less.
CHUNK_ROWS = 10_000

SCHEMA = """
CREATE TABLE IF NOT EXISTS demand (
    slot INTEGER NOT NULL, pop TEXT NOT NULL, samples INTEGER NOT NULL, partner INTEGER NOT NULL,
    affiliate INTEGER NOT NULL, basic INTEGER NOT NULL, to_mbps REAL NOT NULL,
    from_mbps REAL NOT NULL, unplaced INTEGER NOT NULL, PRIMARY KEY (slot, pop)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS origins (
    origin TEXT PRIMARY KEY, slots_total INTEGER NOT NULL, heard INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS paths (
    pop TEXT NOT NULL, origin TEXT NOT NULL, rtt_ms REAL NOT NULL, from_mbps REAL NOT NULL,
    heard INTEGER NOT NULL, PRIMARY KEY (pop, origin)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS backbone (id INTEGER PRIMARY KEY CHECK (id = 1), body TEXT NOT NULL);
"""
ADD = """
INSERT INTO demand VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    samples = samples + excluded.samples, partner = partner + excluded.partner,
    affiliate = affiliate + excluded.affiliate, basic = basic + excluded.basic,
    to_mbps = to_mbps + excluded.to_mbps, from_mbps = from_mbps + excluded.from_mbps,
    unplaced = unplaced + excluded.unplaced
"""
READ = """
SELECT slot, pop, samples, partner, affiliate, basic, to_mbps, from_mbps, unplaced FROM demand
    WHERE slot BETWEEN ? AND ?
"""
# Slot, PoP, samples, units by class, Mbps to origins and from them, unplaced.
Record = tuple[int, str, int, int, int, int, float, float, int]


class HistoryError(EdgedError):
    """The file cannot be used; the message names it and says why."""


class Span(Struct, frozen=True, kw_only=True):
    """Which slots there are."""

    first: int
    last: int  # Until now.
    later: int  # Rows beyond.


class HeardNetwork(Struct, frozen=True, kw_only=True):
    """The network, of what was heard lately."""

    network: Network
    gone: list[str]  # Origins that were heard before, and not lately.


class HistoryFile:
    """The file, opened; every call may wait for the disk and raises HistoryError."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open it; unless it is only read, make it if it is not there.

        A write that was cut off, as IRS was killed, is undone by who may write; who only reads has
        it undone in a copy.
        """
        self.path = path
        self.cut_off = False  # Such a write is left out of what is read here.
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        try:
            if not read_only:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._db = _connect(path, "ro" if read_only else "rw")
        except (OSError, sqlite3.Error) as error:
            raise self._failed("opened", error) from error
        try:
            try:
                self._prepare(read_only=read_only)
            except sqlite3.Error as error:
                if not read_only or _code(error) != sqlite3.SQLITE_READONLY_ROLLBACK:
                    raise
                self._open_copy()
                self._prepare(read_only=True)
        except HistoryError:
            self.close()
            raise
        # SQLite quotes what is damaged.
        except (OSError, sqlite3.Error, UnicodeError) as error:
            self.close()
            raise self._failed("opened", error) from error

    def _open_copy(self) -> None:
        """Undo in a copy what was cut off; raises OSError, HistoryError and sqlite3.Error."""
        self._db.close()
        self.cut_off = True
        self._folder = tempfile.TemporaryDirectory(prefix="edged-")
        files = (self.path, self.path.with_name(f"{self.path.name}-journal"))
        copies = [Path(self._folder.name) / file.name for file in files]
        states = []
        for _ in range(2):
            states.append([(each.st_mtime_ns, each.st_size) for each in map(Path.stat, files)])
            for file, copy in zip(files, copies, strict=True):
                if len(states) == 1:
                    shutil.copyfile(file, copy)
        if states[0] != states[1]:
            raise HistoryError(f"{self.path} is just being mended by IRS; try again")
        self._db = _connect(copies[0], "rw")

    def _prepare(self, *, read_only: bool) -> None:
        db = self._db
        (application,), (version,), (tables,) = (
            db.execute("PRAGMA application_id").fetchone(),
            db.execute("PRAGMA user_version").fetchone(),
            db.execute("SELECT count(*) FROM sqlite_master").fetchone(),
        )
        if (tables or read_only) and application != APPLICATION_ID:
            raise HistoryError(f"{self.path} is no history of demand")
        if (tables or read_only) and version != FORMAT:
            raise HistoryError(f"{self.path} has format {version}, known is {FORMAT}")
        if not read_only and not tables:
            db.executescript(
                f"BEGIN IMMEDIATE; PRAGMA application_id = {APPLICATION_ID};"
                f"PRAGMA user_version = {FORMAT}; {SCHEMA} COMMIT;"
            )

    def add(self, rows: Sequence[DemandRow], network: Network, slot: int, days: int) -> None:
        """Put all of it on disk or nothing; rows of the same slot and PoP add up.

        `network`: as it is heard in `slot`, which is now; what was heard before stays. Of the days
        that have rows so many stay: a clock that was wrong for a day costs a day, no more.
        """
        db = self._db
        try:
            with transaction(db):
                db.executemany(
                    ADD,
                    [
                        (row.slot, row.pop, row.samples, *row.units, *row.mbps, row.unplaced)
                        for row in rows
                    ],
                )
                self._put_network(network, slot)
                self._drop_days(days, slot // SLOTS_PER_DAY)
                forgotten = (slot - days * SLOTS_PER_DAY,)
                db.execute("DELETE FROM origins WHERE heard < ?", forgotten)
                db.execute("DELETE FROM paths WHERE heard < ?", forgotten)
        except (sqlite3.Error, UnicodeError, OverflowError) as error:
            raise self._failed("written", error) from error

    def _put_network(self, network: Network, slot: int) -> None:
        db = self._db
        db.executemany(
            "INSERT OR REPLACE INTO origins VALUES (?, ?, ?)",
            [(origin, slots, slot) for origin, slots in network.origins.items()],
        )
        db.executemany(
            "INSERT OR REPLACE INTO paths VALUES (?, ?, ?, ?, ?)",
            [
                (pop, origin, rtt_ms, network.back_mbps.get(pop, {}).get(origin, 0.0), slot)
                for pop, known in network.rtt_ms.items()
                for origin, rtt_ms in known.items()
            ],
        )
        lasting = msgspec.structs.replace(network, origins={}, rtt_ms={}, back_mbps={})
        body = msgspec.json.encode(lasting).decode()
        db.execute("INSERT OR REPLACE INTO backbone VALUES (1, ?)", (body,))

    def _drop_days(self, most: int, today: int) -> None:
        """Drop all but so many days that have rows.

        Those to come go first, as a clock was ahead when they were kept; of all the oldest.
        """
        days: list[int] = []
        (slot,) = self._db.execute("SELECT max(slot) FROM demand").fetchone()
        while slot is not None:
            days.append(slot // SLOTS_PER_DAY)
            begin = days[-1] * SLOTS_PER_DAY
            before = self._db.execute("SELECT max(slot) FROM demand WHERE slot < ?", (begin,))
            (slot,) = before.fetchone()
        days.sort(key=lambda day: (day <= today, day))
        for day in days[: max(0, len(days) - most)]:
            begin = day * SLOTS_PER_DAY
            self._db.execute(
                "DELETE FROM demand WHERE slot BETWEEN ? AND ?", (begin, begin + SLOTS_PER_DAY - 1)
            )

    def span(self, now: int) -> Span | None:
        """Which slots there are; None where there is none until now."""
        try:
            found = self._db.execute(
                "SELECT min(slot), max(slot) FROM demand WHERE slot <= ?", (now,)
            ).fetchone()
            (later,) = self._db.execute(
                "SELECT count(*) FROM demand WHERE slot > ?", (now,)
            ).fetchone()
            return None if found[0] is None else Span(first=found[0], last=found[1], later=later)
        except (sqlite3.Error, UnicodeError) as error:
            raise self._failed("read", error) from error

    def records(self, first: int, last: int) -> Iterator[list[Record]]:
        """All of these slots, oldest first, so many at a time."""
        try:
            found = self._db.execute(READ + " ORDER BY slot, pop", (first, last))
            while chunk := found.fetchmany(CHUNK_ROWS):
                yield chunk
        except (sqlite3.Error, UnicodeError) as error:
            raise self._failed("read", error) from error

    def network(self, since: int, now: int) -> HeardNetwork | None:
        """What was heard last in one of these slots; None before anything is kept."""
        try:
            body = self._db.execute("SELECT body FROM backbone").fetchone()
            if body is None:
                return None
            lasting = msgspec.json.decode(body[0], type=Network)
            origins = self._db.execute("SELECT origin, slots_total, heard FROM origins").fetchall()
            paths = self._db.execute(
                "SELECT pop, origin, rtt_ms, from_mbps FROM paths WHERE heard BETWEEN ? AND ?",
                (since, now),
            ).fetchall()
            slots = msgspec.convert(
                {origin: slots for origin, slots, heard in origins if since <= heard <= now},
                dict[Name, Count],
            )
            known = msgspec.convert(paths, list[tuple[Name, Name, Milliseconds, Milliseconds]])
        except (sqlite3.Error, UnicodeError, msgspec.MsgspecError, TypeError) as error:
            raise self._failed("read", error) from error
        problems = find_problems(lasting.links, lasting.sites, lasting.paths)
        if len(slots) > ORIGINS_MAX:
            problems.append(f"{len(slots)} origins exceed {ORIGINS_MAX}")
        if problems:
            raise HistoryError(f"{self.path} cannot be read: {problems[0]}")
        rtt_ms: dict[str, dict[str, float]] = {}
        back_mbps: dict[str, dict[str, float]] = {}
        for pop, origin, rtt, mbps in known:
            rtt_ms.setdefault(pop, {})[origin] = rtt
            back_mbps.setdefault(pop, {})[origin] = mbps
        return HeardNetwork(
            network=msgspec.structs.replace(
                lasting, origins=slots, rtt_ms=rtt_ms, back_mbps=back_mbps
            ),
            gone=sorted(origin for origin, *_ in origins if origin not in slots),
        )

    def close(self) -> None:
        """Let go of it."""
        self._db.close()
        if self._folder is not None:
            self._folder.cleanup()

    def _failed(self, what: str, error: Exception) -> HistoryError:
        if _code(error) & 0xFF == sqlite3.SQLITE_BUSY:  # What is above says in what it was busy.
            return HistoryError(
                f"{self.path} cannot be {what}: another process has locked it for"
                f" {LOCKED_S_MAX:g} s: IRS as it writes, or who reads it all that time; try again"
            )
        return HistoryError(f"{self.path} cannot be {what}: {error}")


def _code(error: Exception) -> int:
    """SQLite's own; 0 of an error that is none of its."""
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK))


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(
        uri, uri=True, timeout=LOCKED_S_MAX, isolation_level=None, check_same_thread=False
    )
