"""Transactions on a SQLite file.

There is no pool: a connection for each transaction survives forks, may be used from any thread,
and leaves no write-ahead log behind.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from serve.registry.connection import Connection, Row

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BUSY_TIMEOUT_S = 30.0

_RETRY_S = 0.005

_PRAGMAS = (
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
)
_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table'"


class SQLite:
    """A database in a file.

    Args:
        file: The file; it is made where it does not exist.

    Attributes:
        errors: What the driver raises.
    """

    errors: tuple[type[Exception], ...] = (sqlite3.Error,)

    def __init__(self, file: Path) -> None:
        self._file = file

    @contextmanager
    def begin(self, *, write: bool) -> Iterator[Connection]:
        """A transaction that comes to nothing unless the block ends it with `COMMIT`."""
        with closing(self._connect()) as raw:
            connection = Connection(raw, str)
            connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            yield connection

    def tables(self, connection: Connection) -> set[str]:
        """The names of all tables."""
        return {row["name"] for row in connection.execute(_TABLES)}

    def close(self) -> None:
        """Does nothing: no connection outlives its transaction."""

    def _connect(self) -> sqlite3.Connection:
        raw = sqlite3.connect(self._file, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        try:
            _log_ahead(raw)
            for pragma in _PRAGMAS:
                raw.execute(pragma).close()
        except BaseException:
            raw.close()
            raise
        raw.row_factory = _as_dict
        return raw


def _log_ahead(raw: sqlite3.Connection) -> None:
    """Switches a new file to write-ahead logging; for one that has it, does nothing.

    Two processes may make one file at the same moment, and here SQLite waits for nobody by itself:
    each would hold a lock that the other needs.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while not _logs_ahead(raw, may_wait=time.monotonic() < deadline):
        time.sleep(_RETRY_S)


def _logs_ahead(raw: sqlite3.Connection, *, may_wait: bool) -> bool:
    try:
        raw.execute("PRAGMA journal_mode=WAL").close()
    except sqlite3.OperationalError as error:
        if may_wait and error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            return False
        raise
    return True


def _as_dict(cursor: sqlite3.Cursor, values: tuple[object, ...]) -> Row:
    return {column[0]: value for column, value in zip(cursor.description, values, strict=True)}
