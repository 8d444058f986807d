"""Connections and transactions, on SQLite and on PostgreSQL.

Writers take turns on both (`BEGIN IMMEDIATE`, an advisory lock), so that a rule that spans tables
holds without further thought. Transactions are short: bytes are stored before one begins.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import weakref
from typing import TYPE_CHECKING, Any, Self

import sqlalchemy as sa
import tenacity

from serve.registry import faults

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy.engine import Connection, Engine
    from sqlalchemy.sql.dml import ReturningInsert

    from serve.registry.location import Location

BUSY_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 10
WRITER_LOCK = 0x6669656C64706F73
"""The key of PostgreSQL's advisory lock: `fieldpos`."""

_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
)


class Database:
    """The records of one workspace; may be used by many threads at once.

    Args:
        location: Where they are.
        retry_s: For how long an unreachable PostgreSQL is tried again, as in a failover.
    """

    def __init__(self, location: Location, *, retry_s: float = 15.0) -> None:
        self.location = location
        self._retry_s = retry_s
        self._engine = _engine(location)
        _forget_after_fork(self._engine)

    @property
    def is_sqlite(self) -> bool:
        """Whether the records are in a SQLite file."""
        return self._engine.dialect.name == "sqlite"

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view of all tables.

        Raises:
            WorkspaceError: The database cannot be reached or read.
        """
        with self._translated(), self._connect() as connection:
            if self.is_sqlite:
                connection.exec_driver_sql("BEGIN")
            else:
                connection.exec_driver_sql(
                    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
                )
            yield connection
            connection.rollback()

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is committed at the end of the block, or leaves all as it was.

        Raises:
            WorkspaceError: The database cannot be reached or written; all is as it was.
            StorageFullError: No space is left; all is as it was.
        """
        with self._translated(), self._connect() as connection:
            if self.is_sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(WRITER_LOCK)))
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

    def insert_or_update(
        self, table: sa.Table, values: Mapping[str, Any], update: Mapping[str, Any]
    ) -> ReturningInsert[Any]:
        """An insert that updates the row where the primary key is taken, and returns the row."""
        # Each dialect is imported when it is spoken: the other one's costs as much as a command.
        if self.is_sqlite:
            from sqlalchemy.dialects.sqlite import insert as begin  # noqa: PLC0415
        else:
            from sqlalchemy.dialects.postgresql import (  # type: ignore[assignment]  # noqa: PLC0415
                insert as begin,
            )
        insert = begin(table).values(**values)
        keys = list(table.primary_key.columns)
        return insert.on_conflict_do_update(index_elements=keys, set_=update).returning(table)

    def close(self) -> None:
        """Closes idle connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connect(self) -> Connection:
        """Connects, again and again for a while where the server is down."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(faults.is_passing),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=2.0),
            stop=tenacity.stop_after_delay(self._retry_s),
            reraise=True,
        )
        return retrying(self._engine.connect)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sa.exc.DBAPIError, sa.exc.TimeoutError, sqlite3.Error) as error:
            translated = faults.translate(error, self.location)
            # A cause whose text holds a password must not reach a log with the traceback.
            text = str(error)
            raise translated from (error if self.location.masked(text) == text else None)


def _engine(location: Location) -> Engine:
    if location.database_file is None:
        return _postgresql_engine(location)
    # No pool: a connection per transaction survives forks, and leaves no write-ahead log behind.
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(location.database_file)),
        poolclass=sa.NullPool,
        connect_args={"timeout": BUSY_TIMEOUT_S, "isolation_level": None},
    )
    sa.event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    for pragma in _PRAGMAS:
        connection.execute(pragma)


def _postgresql_engine(location: Location) -> Engine:
    url = sa.make_url(location.secret_url).set(drivername="postgresql+psycopg")
    options = f"-c lock_timeout={int(BUSY_TIMEOUT_S * 1000)}"
    arguments: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT_S}
    if "options" not in url.query:
        arguments["options"] = options
    return sa.create_engine(
        url, pool_pre_ping=True, pool_size=2, max_overflow=8, connect_args=arguments
    )


def _forget_after_fork(engine: Engine) -> None:
    """Keeps a child process from using its parent's connections."""
    reference = weakref.ref(engine)

    def forget() -> None:
        inherited = reference()
        if inherited is not None:
            inherited.dispose(close=False)

    os.register_at_fork(after_in_child=forget)
