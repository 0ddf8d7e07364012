"""A transaction of SQLite: all of it is on disk, or nothing."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Begin for writing, at once; end it, or undo it for whatever is raised within."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # A full disk, for one, has undone it already.
            db.execute("ROLLBACK")
        raise
