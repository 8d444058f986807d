"""Transactions on PostgreSQL: a few kept connections, tried again while the server is away."""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import tenacity

from scoring.errors import WorkspaceError
from serve.registry import faults
from serve.registry.connection import Connection
from serve.registry.statements import for_psycopg

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serve.registry.location import Location

LOCK_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 10
WRITER_LOCK = 0x6669656C64706F73
"""The key of the advisory lock on which writers take turns: `fieldpos`."""

MAX_CONNECTIONS = 10
MAX_IDLE = 2
POOL_TIMEOUT_S = 30.0

_INHERITED: list[Any] = []
"""Kept for ever: to drop a connection of the parent's would end its session."""

_BEGIN_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
# Whatever the server's default: each statement has to see what the writer before committed.
_BEGIN_WRITE = "BEGIN ISOLATION LEVEL READ COMMITTED"
_LOCK = "SELECT pg_advisory_xact_lock(:key)"
_TABLES = """
    SELECT relname AS name FROM pg_catalog.pg_class
    WHERE relkind IN ('r', 'p') AND pg_catalog.pg_table_is_visible(oid)
"""


class PostgreSQL:
    """A database on a server; may be used by many threads at once.

    Args:
        location: Where it is.
        retry_s: For how long an unreachable server is tried again, as in a failover.

    Attributes:
        errors: What the driver raises.

    Raises:
        WorkspaceError: The driver is not installed.
    """

    errors: tuple[type[Exception], ...]

    def __init__(self, location: Location, retry_s: float) -> None:
        try:
            import psycopg  # noqa: PLC0415 - only for those whose records are there
        except ImportError as error:
            raise WorkspaceError(
                f"The workspace {location} needs psycopg, which is not installed.",
                hint="Install it with: pip install 'fieldpost[postgresql]'.",
            ) from error
        self.errors = (psycopg.Error,)
        self._location = location
        self._retry_s = retry_s
        self._empty()
        _forget_after_fork(self)

    @contextmanager
    def begin(self, *, write: bool) -> Iterator[Connection]:
        """A transaction that comes to nothing unless the block ends it with `COMMIT`."""
        with self._slot():
            raw = self._begun(_BEGIN_WRITE if write else _BEGIN_READ)
            try:
                connection = Connection(raw, for_psycopg)
                if write:
                    connection.execute(_LOCK, key=WRITER_LOCK)
                yield connection
            finally:
                self._give_back(raw)

    def tables(self, connection: Connection) -> set[str]:
        """The names of all tables that a statement can name without their schema."""
        return {row["name"] for row in connection.execute(_TABLES)}

    def close(self) -> None:
        """Closes idle connections."""
        while (raw := self._idle_one()) is not None:
            raw.close()

    def forget(self) -> None:
        """Leaves the connections to the parent process, in a child that it has forked."""
        _INHERITED.extend(self._idle)
        self._empty()

    def _empty(self) -> None:
        self._idle: list[Any] = []
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)

    @contextmanager
    def _slot(self) -> Iterator[None]:
        slots = self._slots
        if not slots.acquire(timeout=POOL_TIMEOUT_S):
            raise faults.UnreachableError(
                f"All {MAX_CONNECTIONS} connections to {self._location} have been in use for "
                f"{POOL_TIMEOUT_S:g} s.",
                hint="Use fewer threads, or try again later.",
            )
        try:
            yield
        finally:
            slots.release()

    def _idle_one(self) -> Any:
        with suppress(IndexError):  # another thread may take the last one at any moment
            return self._idle.pop()
        return None

    def _begun(self, statement: str) -> Any:
        """A connection with a transaction: an idle one, unless the server has dropped it."""
        while (raw := self._idle_one()) is not None:
            with suppress(*self.errors):
                raw.execute(statement)
                return raw
            raw.close()
        raw = self._connect()
        try:
            raw.execute(statement)
        except BaseException:
            raw.close()
            raise
        return raw

    def _give_back(self, raw: Any) -> None:
        with suppress(*self.errors):
            raw.rollback()  # does nothing after `COMMIT`
        if len(self._idle) < MAX_IDLE and _is_usable(raw):
            self._idle.append(raw)
        else:
            raw.close()

    def _connect(self) -> Any:
        """Connects, again and again for a while where the server is down."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(faults.is_passing),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=2.0),
            stop=tenacity.stop_after_delay(self._retry_s),
            reraise=True,
        )
        return retrying(_connect, self._location.secret_url)


def _connect(url: str) -> Any:
    import psycopg  # noqa: PLC0415 - see PostgreSQL
    from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415

    settings = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "options": f"-c lock_timeout={int(LOCK_TIMEOUT_S * 1000)}",
        **conninfo_to_dict(url),
    }
    return psycopg.connect(**settings, autocommit=True, row_factory=psycopg.rows.dict_row)


def _is_usable(raw: Any) -> bool:
    """Whether the connection lives and is in no transaction."""
    from psycopg.pq import TransactionStatus  # noqa: PLC0415 - see PostgreSQL

    return not raw.closed and raw.info.transaction_status == TransactionStatus.IDLE


def _forget_after_fork(database: PostgreSQL) -> None:
    """Keeps a child process from using its parent's connections."""
    reference = weakref.ref(database)

    def forget() -> None:
        inherited = reference()
        if inherited is not None:
            inherited.forget()

    os.register_at_fork(after_in_child=forget)
