"""All or nothing, whatever comes between."""

import errno
import sqlite3
from pathlib import Path

import pytest

from edged.irs.transaction import transaction


def connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, timeout=0.01)


def count(db: sqlite3.Connection) -> int:
    (found,) = db.execute("SELECT count(*) FROM t").fetchone()
    return int(found)


@pytest.fixture
def db(tmp_path: Path) -> sqlite3.Connection:
    made = connect(tmp_path / "a.db")
    made.execute("CREATE TABLE t (x)")
    return made


def test_all_of_it(db: sqlite3.Connection, tmp_path: Path) -> None:
    with transaction(db):
        db.execute("INSERT INTO t VALUES (1)")
        db.execute("INSERT INTO t VALUES (2)")
    assert not db.in_transaction
    assert count(connect(tmp_path / "a.db")) == 2


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_or_nothing(db: sqlite3.Connection, error: type[BaseException]) -> None:
    def fail() -> None:
        with transaction(db):
            db.execute("INSERT INTO t VALUES (1)")
            raise error

    with pytest.raises(error):
        fail()
    assert not db.in_transaction
    assert count(db) == 0


def test_what_is_undone_already_is_not_undone_again(db: sqlite3.Connection) -> None:
    def fail() -> None:
        with transaction(db):
            db.execute("INSERT INTO t VALUES (1)")
            db.execute("ROLLBACK")
            raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert count(db) == 0


def test_who_writes_first_is_waited_for(db: sqlite3.Connection, tmp_path: Path) -> None:
    with (
        transaction(db),
        pytest.raises(sqlite3.OperationalError, match="locked"),
        transaction(connect(tmp_path / "a.db")),
    ):
        raise AssertionError("it has not begun")
    assert count(db) == 0
