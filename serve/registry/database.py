"""Transactions, on SQLite and on PostgreSQL.

Writers take turns on both (`BEGIN IMMEDIATE`, an advisory lock), so that a rule that spans tables
holds without further thought. Transactions are short: bytes are stored before one begins.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol, Self

from serve.registry import faults

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serve.registry.connection import Connection
    from serve.registry.location import Location


class Driver(Protocol):
    """What differs between the two databases."""

    errors: tuple[type[Exception], ...]

    def begin(self, *, write: bool) -> AbstractContextManager[Connection]:
        """A transaction that comes to nothing unless the block ends it with `COMMIT`."""
        ...

    def tables(self, connection: Connection) -> set[str]:
        """The names of all tables that a statement can name."""
        ...

    def close(self) -> None:
        """Closes idle connections."""
        ...


class Database:
    """The records of one workspace; may be used by many threads at once.

    Args:
        location: Where they are.
        retry_s: For how long an unreachable PostgreSQL is tried again, as in a failover.

    Raises:
        WorkspaceError: The driver of the database is not installed.
    """

    def __init__(self, location: Location, *, retry_s: float = 15.0) -> None:
        self.location = location
        self._driver = _driver(location, retry_s)

    @property
    def is_sqlite(self) -> bool:
        """Whether the records are in a SQLite file."""
        return self.location.database_file is not None

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view of all tables.

        Raises:
            WorkspaceError: The database cannot be reached or read.
        """
        with self._translated(), self._driver.begin(write=False) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is committed at the end of the block, or leaves all as it was.

        Raises:
            WorkspaceError: The database cannot be reached or written; all is as it was.
            StorageFullError: No space is left; all is as it was.
        """
        with self._translated(), self._driver.begin(write=True) as connection:
            yield connection
            connection.execute("COMMIT")

    def tables(self, connection: Connection) -> set[str]:
        """The names of all tables, ours and others'."""
        return self._driver.tables(connection)

    def close(self) -> None:
        """Closes idle connections."""
        self._driver.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except self._driver.errors as error:
            translated = faults.translate(error, self.location)
            # A cause whose text holds a password must not reach a log with the traceback.
            text = str(error)
            raise translated from (error if self.location.masked(text) == text else None)


def _driver(location: Location, retry_s: float) -> Driver:
    # Each driver is imported where it is spoken: a command waits for no other's import.
    if location.database_file is not None:
        from serve.registry.sqlite import SQLite  # noqa: PLC0415

        return SQLite(location.database_file)
    from serve.registry.postgresql import PostgreSQL  # noqa: PLC0415

    return PostgreSQL(location, retry_s)
