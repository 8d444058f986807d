"""The inbox: what came from devices, on the disk before it is acknowledged, each record once.

One SQLite file beside the workspace, which several controllers of one machine may share. A batch is
kept as it came, compressed, until it is sealed into a file for queries; which numbers of which
stream came is kept for as long as they might come again.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Self

import msgspec

from edge.protocol.messages import Ack
from edge.telemetry.ranges import Range, Ranges
from edge.telemetry.received import Delivery, Received, body
from scoring import durable
from scoring.errors import StorageFullError, WorkspaceError

FILE: Final = "inbox.db"
MOST_RUNS: Final = 20_000
"""Of numbers of one stream: one with more holes is not a spool's."""

MOST_STREAMS: Final = 4096
"""Of one device: the one that was silent longest is forgotten first."""

_REMEMBER_S: Final = 400 * 86_400.0
_COUNT_EVERY: Final = 64
_MOST_NUMBER: Final = 2**62

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS streams (
    id INTEGER PRIMARY KEY, device TEXT NOT NULL, epoch TEXT NOT NULL, seen BLOB NOT NULL,
    touched REAL NOT NULL, UNIQUE (device, epoch));
CREATE TABLE IF NOT EXISTS batches (
    id INTEGER PRIMARY KEY AUTOINCREMENT, site TEXT NOT NULL, class TEXT NOT NULL,
    taken REAL NOT NULL, records INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS devices (
    device TEXT PRIMARY KEY, site TEXT NOT NULL, records INTEGER NOT NULL, dropped BLOB NOT NULL,
    seen REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (
    name TEXT PRIMARY KEY, day TEXT NOT NULL, records INTEGER NOT NULL, bytes INTEGER NOT NULL)
    WITHOUT ROWID;
"""


class Taken(NamedTuple):
    """What was new in a delivery.

    Attributes:
        delivery: That came.
        at: When, in seconds since the epoch.
        records: Those that had not come before.
        ack: What to answer.
    """

    delivery: Delivery
    at: float
    records: tuple[Received, ...]
    ack: Ack


class Stored(NamedTuple):
    """A batch in the inbox.

    Attributes:
        id: Counts up.
        site: Of the device.
        name: The class.
        taken: When it came.
        records: How many there are.
        body: The message.
    """

    id: int
    site: str
    name: str
    taken: float
    records: int
    body: bytes


class Source(NamedTuple):
    """What is known of a device's telemetry.

    Attributes:
        device: Its name.
        site: Where it is.
        records: How many came, ever.
        dropped: Class to how many it lost to the caps of its spool, ever.
        seen: When it was heard last.
    """

    device: str
    site: str
    records: int
    dropped: dict[str, int]
    seen: float


class File(NamedTuple):
    """A sealed file.

    Attributes:
        name: Below the folder of telemetry.
        day: On which its records came, in UTC.
        records: How many it has.
        bytes: Its size.
    """

    name: str
    day: str
    records: int
    bytes: int


class Inbox:
    """The inbox; any thread and any process of this machine may use it.

    Args:
        folder: Where it is; made where it is missing.

    Raises:
        WorkspaceError: It cannot be opened.
        StorageFullError: No space is left.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.RLock()
        self._commits = 0
        with durable.storage_errors(f"the telemetry in {folder}"):
            durable.make_folder(folder, mode=0o700)
        with translated():
            self._db = _connect(folder / FILE)

    def close(self) -> None:
        """Closes it."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def take(self, deliveries: Sequence[Delivery], at: float) -> list[Taken]:
        """Takes deliveries; all are on the disk when this returns.

        A stream that is too full of holes is left without an answer.

        Args:
            deliveries: In the order in which they came.
            at: Seconds since the epoch.

        Raises:
            StorageFullError: No space is left; none was taken.
            WorkspaceError: They cannot be written; none was taken.
        """
        with self.transaction():
            found = [self._take(delivery, at) for delivery in deliveries]
            self._commits += 1
            if self._commits % _COUNT_EVERY == 0:
                self._forget(at)
        return [taken for taken in found if taken is not None]

    @contextlib.contextmanager
    def transaction(self, *, write: bool = True) -> Iterator[None]:
        """One view of everything, and all that is changed in the block or nothing.

        Raises:
            StorageFullError: No space is left; nothing was changed.
            WorkspaceError: It cannot be read or written; nothing was changed.
        """
        with self._lock, translated():
            self._db.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    # -- inside a transaction

    def stored(self, after: int, most: int) -> list[Stored]:
        """Batches that are not sealed, the oldest first."""
        query = (
            "SELECT id, site, class, taken, records, body FROM batches WHERE id > ? "
            "ORDER BY id LIMIT ?"
        )
        return [Stored(*row) for row in self._db.execute(query, (after, most))]

    def waiting(self) -> int:
        """How many records are not sealed."""
        query = "SELECT coalesce(sum(records), 0) FROM batches"
        return int(self._db.execute(query).fetchone()[0])

    def files(self) -> list[File]:
        """The sealed files, the oldest first."""
        query = "SELECT name, day, records, bytes FROM files ORDER BY day, name"
        return [File(*row) for row in self._db.execute(query)]

    def add_file(self, file: File) -> None:
        """Names a file that is there."""
        self._db.execute("INSERT INTO files VALUES (?, ?, ?, ?)", file)

    def drop_files(self, names: Iterable[str]) -> None:
        """Files that are to be read no more."""
        self._db.executemany("DELETE FROM files WHERE name = ?", [(name,) for name in names])

    def drop_batches(self, ids: Iterable[int]) -> None:
        """Batches that are in a file now."""
        self._db.executemany("DELETE FROM batches WHERE id = ?", [(batch,) for batch in ids])

    # -- of devices

    def sources(self) -> list[Source]:
        """What is known of each device."""
        with self.transaction(write=False):
            rows = self._db.execute(
                "SELECT device, site, records, dropped, seen FROM devices ORDER BY device"
            ).fetchall()
        return [
            Source(name, site, records, msgspec.json.decode(dropped, type=dict[str, int]), seen)
            for name, site, records, dropped, seen in rows
        ]

    # -- inside

    def _take(self, delivery: Delivery, at: float) -> Taken | None:
        batch = delivery.batch
        seen = self._seen(batch.device, batch.epoch)
        new = _new(batch.records, seen)
        if batch.floor:
            seen.add(0, min(batch.floor, _MOST_NUMBER) - 1)
        for record in new:
            seen.add(record.seq, record.seq)
        if len(seen) > MOST_RUNS or any(record.seq >= _MOST_NUMBER for record in new):
            return None
        self._keep_seen(batch.device, batch.epoch, seen, at)
        if new:
            self._db.execute(
                "INSERT INTO batches (site, class, taken, records, body) VALUES (?, ?, ?, ?, ?)",
                (delivery.site, delivery.name, at, len(new), body(delivery, new)),
            )
        self._keep_source(delivery, len(new), at)
        ack = Ack(device=batch.device, epoch=batch.epoch, ranges=_answer(batch.records, seen))
        return Taken(delivery, at, new, ack)

    def _seen(self, device: str, epoch: str) -> Ranges:
        query = "SELECT seen FROM streams WHERE device = ? AND epoch = ?"
        found = self._db.execute(query, (device, epoch)).fetchone()
        return Ranges(msgspec.msgpack.decode(found[0], type=list[Range]) if found else ())

    def _keep_seen(self, device: str, epoch: str, seen: Ranges, at: float) -> None:
        self._db.execute(
            "INSERT INTO streams (device, epoch, seen, touched) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (device, epoch) DO UPDATE SET seen = excluded.seen, "
            "touched = excluded.touched",
            (device, epoch, msgspec.msgpack.encode(list(seen)), at),
        )

    def _keep_source(self, delivery: Delivery, records: int, at: float) -> None:
        self._db.execute(
            "INSERT INTO devices VALUES (?, ?, ?, ?, ?) ON CONFLICT (device) DO UPDATE SET "
            "site = excluded.site, records = records + excluded.records, "
            "dropped = excluded.dropped, seen = excluded.seen",
            (
                delivery.device,
                delivery.site,
                records,
                msgspec.json.encode(delivery.batch.dropped),
                at,
            ),
        )

    def _forget(self, at: float) -> None:
        """Forgets streams that were silent so long that nothing of them can be left anywhere."""
        self._db.execute("DELETE FROM streams WHERE touched < ?", (at - _REMEMBER_S,))
        many = self._db.execute(
            "SELECT device FROM streams GROUP BY device HAVING count(*) > ?", (MOST_STREAMS,)
        ).fetchall()
        for (device,) in many:
            self._db.execute(
                "DELETE FROM streams WHERE device = ? AND id NOT IN "
                "(SELECT id FROM streams WHERE device = ? ORDER BY touched DESC LIMIT ?)",
                (device, device, MOST_STREAMS),
            )


def _new(records: Iterable[Received], seen: Ranges) -> tuple[Received, ...]:
    """Those that have not come before; the first of those that have the same number."""
    found: dict[int, Received] = {}
    for record in records:
        if record.seq not in seen:
            found.setdefault(record.seq, record)
    return tuple(found.values())


def _answer(records: Sequence[Received], seen: Ranges) -> tuple[Range, ...]:
    if not records:
        return ()
    numbers = [record.seq for record in records]
    return tuple(seen.within(min(numbers), max(numbers)))


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
    try:
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "auto_vacuum = INCREMENTAL"):
            db.execute(f"PRAGMA {pragma}").fetchall()
        db.executescript(_SCHEMA)
    except BaseException:
        db.close()
        raise
    path.chmod(0o600)
    return db


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turns what SQLite says into errors that say what to do.

    Raises:
        StorageFullError: No space is left.
        WorkspaceError: Anything else.
    """
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorname", "").startswith(("SQLITE_FULL", "SQLITE_IOERR_WRITE")):
            raise StorageFullError(
                "No space is left for telemetry. Nothing was changed, and devices keep what they "
                "have to tell.",
                hint="Free space on the disk of the workspace.",
            ) from error
        raise WorkspaceError(
            f"The telemetry cannot be used: {error}.",
            hint="Check the disk of the workspace; put the file inbox.db aside if it is damaged.",
        ) from error
