"""Telemetry to be asked: Parquet files for what has been sealed, the inbox for the rest.

DuckDB reads both as one table, `records`. A file is named in the inbox's database in the same
transaction in which its batches leave the inbox, so that a record is in one of the two, whenever
power fails.

The columns of `records`: site, device, epoch, seq, class, kind, told_at and taken_at (timestamps,
the device's clock and the controller's), late, data (JSON).
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import msgspec

from edge.telemetry.inbox import File, Inbox, Stored
from edge.telemetry.received import told, unpack
from scoring import durable
from scoring.errors import MissingDependencyError, StorageFullError, UsageError, WorkspaceError

if TYPE_CHECKING:
    import duckdb

logger = logging.getLogger(__name__)

FOLDER: Final = "telemetry"
COLUMNS: Final = (
    "site", "device", "epoch", "seq", "class", "kind", "told_at", "taken_at", "late", "data",
)  # fmt: skip

_FILES: Final = "records"
_SEAL_LOCK: Final = "seal.lock"
_DAY: Final = "%Y-%m-%d"
_BATCHES_AT_ONCE: Final = 2000
_TRIES: Final = 3
_DAY_S: Final = 86_400.0
_EARLIEST, _LATEST = -62_135_596_800.0, 253_402_300_799.0  # what a timestamp can be, in seconds

_RAW: Final = (
    "{site: 'VARCHAR', device: 'VARCHAR', epoch: 'VARCHAR', seq: 'BIGINT', class: 'VARCHAR', "
    "kind: 'VARCHAR', told: 'DOUBLE', taken: 'DOUBLE', late: 'BOOLEAN', data: 'VARCHAR'}"
)
_TYPED: Final = (
    "SELECT site, device, epoch, seq, class, kind, "  # noqa: S608 - our own names
    "make_timestamp(CAST(round(told * 1000000) AS BIGINT)) AS told_at, "
    "make_timestamp(CAST(round(taken * 1000000) AS BIGINT)) AS taken_at, late, data "
    f"FROM read_json(?, format = 'newline_delimited', columns = {_RAW}, "
    "maximum_object_size = 4194304)"
)


class Retention(NamedTuple):
    """For how long telemetry is kept; whole days go at once, the oldest first.

    Attributes:
        days: After its arrival.
        most_bytes: Of the sealed files.
    """

    days: int = 90
    most_bytes: int = 20 << 30


class Answer(NamedTuple):
    """What a query found.

    Attributes:
        columns: Their names.
        rows: Values in their order.
    """

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


class Store:
    """The telemetry of a workspace.

    Args:
        folder: Beside the workspace; made where it is missing.
        clock: Seconds since the epoch.

    Attributes:
        inbox: Where it arrives.

    Raises:
        WorkspaceError: It cannot be opened.
        StorageFullError: No space is left.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.inbox = Inbox(folder)
        self._files = folder / _FILES
        self._lock = folder / _SEAL_LOCK
        self._clock = clock
        with durable.storage_errors(f"the telemetry in {folder}"):
            durable.make_folder(self._files, mode=0o700)

    def close(self) -> None:
        """Closes it."""
        self.inbox.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- asking

    def query(self, sql: str, parameters: Sequence[object] = ()) -> Answer:
        """Asks the table `records` with one SELECT in DuckDB's SQL.

        Raises:
            UsageError: It is not one SELECT, or DuckDB does not take it.
            MissingDependencyError: DuckDB is not installed.
            WorkspaceError: The telemetry cannot be read.
        """
        for left in reversed(range(_TRIES)):
            try:
                return self._ask(sql, parameters, is_last=not left)
            except _errors("IOException") as error:
                if not left:  # a file was merged with others, or too old, again and again
                    raise WorkspaceError(f"Telemetry cannot be read: {error}.") from error
        raise AssertionError

    def _ask(self, sql: str, parameters: Sequence[object], *, is_last: bool) -> Answer:
        with self._table(leave_out=is_last) as db:
            _require_select(db, sql)
            try:
                found = db.execute(sql, list(parameters))
                rows = found.fetchall()
            except _errors("IOException"):
                raise
            except _errors("Error") as error:
                raise _wrong(error) from error
            return Answer(tuple(column[0] for column in found.description or ()), rows)

    def records(
        self,
        *,
        device: str = "",
        kind: str = "",
        name: str = "",
        since: float = 0.0,
        most: int = 100,
    ) -> list[dict[str, Any]]:
        """The newest records, the newest first, with their data as objects.

        Args:
            device: Of this one alone.
            kind: Of this one alone.
            name: Of this class alone.
            since: That were told at this time or later, in seconds since the epoch.
            most: How many.
        """
        tests = {"device": device, "kind": kind, "class": name}
        wanted = [f"{column} = ?" for column, text in tests.items() if text]
        wanted.append("told_at >= make_timestamp(?::BIGINT)")
        found = self.query(
            f"SELECT {', '.join(COLUMNS)} FROM records WHERE {' AND '.join(wanted)} "  # noqa: S608
            "ORDER BY told_at DESC, device, epoch, seq DESC LIMIT ?",
            [*(text for text in tests.values() if text), int(since * 1e6), most],
        )
        return [_document(dict(zip(found.columns, row, strict=True))) for row in found.rows]

    @contextlib.contextmanager
    def _table(self, *, leave_out: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection that sees `records` and can touch nothing else.

        Args:
            leave_out: What is not there is left out: it was looked for before.
        """
        with self._scratch() as scratch, contextlib.closing(_duckdb().connect()) as db:
            with self.inbox.transaction(write=False):
                files = self.inbox.files()
                _write_lines(scratch, self._stored())
            if leave_out:
                files = self._there(files)
            db.execute(f"CREATE TEMP TABLE pending AS {_TYPED}", [str(scratch)])
            self._show(db, [str(self._files / file.name) for file in files])
            for setting in (
                f"allowed_directories = {_list([str(self._files)])}",
                "enable_external_access = false",
                "lock_configuration = true",
            ):
                db.execute(f"SET {setting}")
            yield db

    @staticmethod
    def _show(db: duckdb.DuckDBPyConnection, files: list[str]) -> None:
        """Makes the view; raises WorkspaceError for a file that is damaged."""
        try:
            db.execute(f"CREATE TEMP VIEW records AS {_everything(files)}")
        except _errors("IOException"):
            raise
        except _errors("Error") as error:
            raise WorkspaceError(f"Telemetry cannot be read: {error}.") from error

    def _there(self, files: Iterable[File]) -> list[File]:
        """Those that are on the disk: a database from a backup names some that are not."""
        found = []
        for file in files:
            if (self._files / file.name).exists():
                found.append(file)
            else:
                logger.warning("telemetry is missing file=%s records=%d", file.name, file.records)
        return found

    # -- sealing

    def seal(self) -> int:
        """Moves what is in the inbox into files, one for each day; returns how many records.

        Raises:
            StorageFullError: No space is left; all is as it was.
            WorkspaceError: It cannot be written; all is as it was.
            MissingDependencyError: DuckDB is not installed.
        """
        sealed = 0
        with self._sealing():
            while batches := self._some_of_a_day():
                sealed += self._seal(batches)
        return sealed

    def _some_of_a_day(self) -> list[Stored]:
        with self.inbox.transaction(write=False):
            found = self.inbox.stored(0, _BATCHES_AT_ONCE)
        return [batch for batch in found if _day(batch.taken) == _day(found[0].taken)]

    def _seal(self, batches: list[Stored]) -> int:
        day = _day(batches[0].taken)
        name = f"{day}-{batches[0].id:012}-{batches[-1].id:012}.parquet"
        with self._scratch() as scratch:
            _write_lines(scratch, batches)
            file = self._write(name, day, _TYPED, [str(scratch)])
        with self.inbox.transaction():
            self.inbox.add_file(file)
            self.inbox.drop_batches(batch.id for batch in batches)
        return file.records

    def merge(self) -> int:
        """Makes one file of the files of each day that is over; returns how many went."""
        gone = 0
        today = _day(self._clock())
        with self._sealing():
            days: dict[str, list[File]] = {}
            for file in self._known():
                days.setdefault(file.day, []).append(file)
            for day, files in days.items():
                if day < today and len(files) > 1:
                    gone += self._try_to_merge(day, files)
        return gone

    def _try_to_merge(self, day: str, files: list[File]) -> int:
        """A day with a damaged file stays as it is; the others are merged all the same."""
        there = self._there(files)
        try:
            return self._merge(day, there) if len(there) > 1 else 0
        except StorageFullError:
            raise
        except WorkspaceError as error:
            logger.error("telemetry not merged day=%s reason=%s", day, error)  # noqa: TRY400
            return 0

    def _merge(self, day: str, files: list[File]) -> int:
        paths = [str(self._files / file.name) for file in files]
        query = f"SELECT * FROM read_parquet({_list(paths)}) ORDER BY device, told_at, seq"  # noqa: S608
        merged = self._write(f"{day}-merged-{secrets.token_hex(6)}.parquet", day, query, [])
        with self.inbox.transaction():
            self.inbox.drop_files(file.name for file in files)
            self.inbox.add_file(merged)
        self._unlink(file.name for file in files)
        return len(files)

    def prune(self, retention: Retention = Retention()) -> int:  # noqa: B008 - it is immutable
        """Deletes files that are too old or too many; returns how many records went."""
        oldest = _day(self._clock() - retention.days * _DAY_S)
        with self._sealing():
            files = self._known()
            size = sum(file.bytes for file in files)
            gone: list[File] = []
            for file in files:
                if file.day >= oldest and size <= retention.most_bytes:
                    break
                gone.append(file)
                size -= file.bytes
            with self.inbox.transaction():
                self.inbox.drop_files(file.name for file in gone)
            self._unlink(file.name for file in gone)
        return sum(file.records for file in gone)

    # -- inside

    def _write(self, name: str, day: str, query: str, parameters: list[object]) -> File:
        """A Parquet file of what a query finds, on the disk, which nobody knows of yet."""
        path = self._files / name
        with (
            durable.storage_errors("the telemetry"),
            durable.TemporaryFile(self._files) as file,
            contextlib.closing(_duckdb().connect()) as db,
        ):
            target = _quoted(str(file.path))
            # The file is a temporary one already, by a name that a later sweep knows.
            options = "FORMAT parquet, COMPRESSION zstd, USE_TMP_FILE false"
            copy = f"COPY ({query}) TO '{target}' ({options})"
            [(records,)] = _reading(db, copy, parameters)
            _sync(file.path)
            size = file.path.stat().st_size
            file.path.rename(path)
            durable.sync_folder(self._files)
        return File(name, day, int(records), size)

    def _known(self) -> list[File]:
        with self.inbox.transaction(write=False):
            return self.inbox.files()

    def _stored(self) -> Iterator[Stored]:
        after = 0
        while found := self.inbox.stored(after, _BATCHES_AT_ONCE):
            yield from found
            after = found[-1].id

    def _unlink(self, names: Iterable[str]) -> None:
        for name in names:
            (self._files / name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[Path]:
        with (
            durable.storage_errors("the telemetry"),
            durable.TemporaryFile(self.inbox.folder) as file,
        ):
            yield file.path

    @contextlib.contextmanager
    def _sealing(self) -> Iterator[None]:
        """One process at a time changes the files; what another one left half done goes."""
        with durable.storage_errors("the telemetry"):
            fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            durable.sweep(self._files)
            durable.sweep(self.inbox.folder)
            known = {file.name for file in self._known()}
            self._unlink(p.name for p in self._files.glob("*.parquet") if p.name not in known)
            yield
        finally:
            os.close(fd)


def _write_lines(path: Path, batches: Iterable[Stored]) -> None:
    with path.open("wb") as file:
        for stored in batches:
            file.writelines(_lines(stored))


def _lines(stored: Stored) -> Iterator[bytes]:
    batch = unpack(stored.body)
    for record in batch.records:
        line = {
            "site": stored.site,
            "device": batch.device,
            "epoch": batch.epoch,
            "seq": record.seq,
            "class": stored.name,
            "kind": record.kind,
            "told": min(max(record.at, _EARLIEST), _LATEST),
            "taken": stored.taken,
            "late": record.late,
            "data": record.text(),
        }
        yield msgspec.json.encode(line) + b"\n"


def _everything(files: list[str]) -> str:
    more = f" UNION ALL BY NAME SELECT * FROM read_parquet({_list(files)})"  # noqa: S608
    sealed = more if files else ""
    return f"SELECT * FROM pending{sealed}"  # noqa: S608


def _document(row: dict[str, Any]) -> dict[str, Any]:
    for key in ("told_at", "taken_at"):
        row[key] = row[key].replace(tzinfo=UTC).isoformat()
    row["data"] = told(row["data"])
    return row


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime(_DAY)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _quoted(text: str) -> str:
    return text.replace("'", "''")


def _list(texts: Iterable[str]) -> str:
    quoted = [f"'{_quoted(text)}'" for text in texts]
    return f"[{', '.join(quoted)}]"


def _duckdb() -> Any:
    try:
        import duckdb  # noqa: PLC0415 - heavy
    except ImportError as error:
        raise MissingDependencyError(
            "Telemetry is asked with DuckDB, which is not installed.",
            hint="Install the extra `fleet`: pip install 'fieldpost[fleet]'.",
        ) from error
    return duckdb


def _errors(name: str) -> type[Exception]:
    kind: type[Exception] = getattr(_duckdb(), name)
    return kind


def _reading(db: Any, sql: str, parameters: list[object]) -> list[tuple[Any, ...]]:
    try:
        found: list[tuple[Any, ...]] = db.execute(sql, parameters).fetchall()
    except _errors("Error") as error:
        raise WorkspaceError(f"Telemetry cannot be written: {error}.") from error
    return found


def _require_select(db: Any, sql: str) -> None:
    try:
        statements = db.extract_statements(sql)
    except _errors("Error") as error:
        raise _wrong(error) from error
    kinds = [statement.type for statement in statements]
    if kinds != [_duckdb().StatementType.SELECT]:
        raise UsageError(
            "Telemetry is asked with one SELECT.",
            hint="As in: SELECT device, count(*) FROM records GROUP BY device",
            where="sql",
        )


def _wrong(error: Exception) -> UsageError:
    return UsageError(
        f"DuckDB does not take this query: {str(error).strip()}.",
        hint=f"The table is `records` with {', '.join(COLUMNS)}.",
        where="sql",
    )
