"""The file of a spool: rows in SQLite, each with its own checksum, and what is saved from damage.

SQLite notices a page that makes no sense, and not a bit that flips in a text: the checksum does.
"""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from edge.protocol.topics import CLASSES
from edge.telemetry.limits import LOG_BYTES, Limits, cost
from scoring import durable

FILE: Final = "spool.db"
_ASIDE: Final = "spool.db.damaged"
_SIDES: Final = ("", "-wal", "-shm")
_PAGES_AT_ONCE: Final = 256

# A lane is the place of a class among the classes; records of the last lane are not sent any more.
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS records (
    id INTEGER PRIMARY KEY, lane INTEGER NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL,
    at REAL NOT NULL, age REAL NOT NULL, kind TEXT NOT NULL, data BLOB NOT NULL,
    crc INTEGER NOT NULL, size INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS records_lane ON records (lane, id);
CREATE UNIQUE INDEX IF NOT EXISTS records_seq ON records (epoch, seq);
CREATE TABLE IF NOT EXISTS epochs (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS numbers (key TEXT PRIMARY KEY, value REAL NOT NULL) WITHOUT ROWID;
"""
_COLUMNS: Final = (
    "r.id, r.lane, e.name, r.seq, r.at, r.age, r.kind, r.data, r.crc "
    "FROM records r JOIN epochs e ON e.id = r.epoch"
)


class Row(NamedTuple):
    """One record in a spool.

    Attributes:
        id: Its place in the order in which they came.
        lane: The place of its class among the classes, or the one after them.
        epoch: The name of the stream that its number is of.
        seq: Its number there.
        at: Seconds since the epoch, by the device's clock.
        age: What the spool's own time was then.
        kind: Of the record.
        data: As JSON.
    """

    id: int
    lane: int
    epoch: str
    seq: int
    at: float
    age: float
    kind: str
    data: bytes

    @property
    def size(self) -> int:
        """What it takes, nearly."""
        return cost(self.kind, self.data)

    @property
    def crc(self) -> int:
        """Over everything but its place and lane."""
        head = f"{self.epoch}\n{self.seq}\n{self.at!r}\n{self.age!r}\n{self.kind}\n"
        return zlib.crc32(self.data, zlib.crc32(head.encode(errors="surrogatepass")))


class SpoolFile:
    """The database of a spool. One thread at a time; every write is in `transaction`.

    Args:
        folder: Where it is.
        limits: Its caps.

    Attributes:
        damage: Why what was there before had to be left behind; empty where it had not.
        saved: How many records were saved from it.

    Raises:
        sqlite3.Error: It cannot be opened.
        OSError: The folder cannot be made.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder = folder
        self._epochs: dict[str, int] = {}
        self.damage = ""
        self.saved = 0
        durable.make_folder(folder, mode=0o700)
        try:
            self._db = _connect(folder / FILE, limits)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self.damage = str(error)
            _put_aside(folder)
            self._db = _connect(folder / FILE, limits)
        if (folder / _ASIDE).exists():
            self.damage = self.damage or "The spool was damaged."
            self._save_rest(limits)

    def close(self) -> None:
        """Closes it."""
        self._db.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """What is written in the block is on the disk after it, or nothing of it is.

        Raises:
            sqlite3.Error: It could not be written.
        """
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._epochs.clear()
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise

    # -- rows

    def insert(self, rows: Iterable[Row]) -> None:
        """Adds rows; one whose epoch and number are there already is left as it is."""
        self._db.executemany(
            "INSERT OR IGNORE INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (row.id, row.lane, self._epoch(row.epoch), *row[3:], row.crc, row.size)
                for row in rows
            ],
        )

    def read(self, lane: int, first: int, last: int, most: int) -> tuple[list[Row], list[int]]:
        """The first rows of a lane in a range of ids, and the ids of those that are damaged."""
        found = self._db.execute(
            f"SELECT {_COLUMNS} WHERE r.lane = ? AND r.id BETWEEN ? AND ? ORDER BY r.id LIMIT ?",
            (lane, first, last, most),
        )
        rows, damaged = [], []
        for values in found:
            row = _whole(values)
            if row is None:
                damaged.append(int(values[0]))
            else:
                rows.append(row)
        return rows, damaged

    def sizes(self) -> dict[int, tuple[int, int]]:
        """Lane to the number of its records and what they take."""
        query = "SELECT lane, count(*), sum(size) FROM records GROUP BY lane"
        return {int(lane): (int(n), int(size)) for lane, n, size in self._db.execute(query)}

    def oldest(self, lane: int, most: int) -> list[tuple[int, int]]:
        """Id and cost of the oldest rows of a lane."""
        query = "SELECT id, size FROM records WHERE lane = ? ORDER BY id LIMIT ?"
        return [(int(row), int(size)) for row, size in self._db.execute(query, (lane, most))]

    def aged(self, lane: int, before: float, most: int) -> list[tuple[int, int]]:
        """Of the oldest rows of a lane, id and cost of those that came before a time."""
        query = (
            "SELECT id, size FROM (SELECT id, age, size FROM records "
            "WHERE lane = ? ORDER BY id LIMIT ?) WHERE age < ?"
        )
        return [
            (int(row), int(size)) for row, size in self._db.execute(query, (lane, most, before))
        ]

    def within(self, epoch: str, first: int, last: int) -> list[tuple[int, int, int]]:
        """Id, lane and cost of the rows of an epoch in a range of numbers."""
        query = (
            "SELECT id, lane, size FROM records WHERE seq BETWEEN ? AND ? "
            "AND epoch = (SELECT id FROM epochs WHERE name = ?)"
        )
        found = self._db.execute(query, (first, last, epoch))
        return [(int(row), int(lane), int(size)) for row, lane, size in found]

    def remove(self, ids: Iterable[int]) -> None:
        """Removes rows, and what they took from the file."""
        self._db.executemany("DELETE FROM records WHERE id = ?", [(row,) for row in ids])

    def move(self, row: int, lane: int) -> None:
        """Puts a row into another lane."""
        self._db.execute("UPDATE records SET lane = ? WHERE id = ?", (lane, row))

    def last_id(self) -> int:
        """Of the newest row; 0 where there is none."""
        return int(self._db.execute("SELECT coalesce(max(id), 0) FROM records").fetchone()[0])

    def floor(self, epoch: str) -> int | None:
        """The lowest number of an epoch that is still there to be sent; None for none."""
        query = (
            "SELECT min(seq) FROM records WHERE lane < ? "
            "AND epoch = (SELECT id FROM epochs WHERE name = ?)"
        )
        found = self._db.execute(query, (len(CLASSES), epoch)).fetchone()[0]
        return None if found is None else int(found)

    def forget_epochs(self, but: str) -> None:
        """Forgets the names of streams of which nothing is left."""
        self._epochs.clear()
        self._db.execute(
            "DELETE FROM epochs WHERE name <> ? AND id NOT IN (SELECT epoch FROM records)", (but,)
        )

    # -- numbers

    def numbers(self) -> dict[str, float]:
        """All counters."""
        return dict(self._db.execute("SELECT key, value FROM numbers").fetchall())

    def set_numbers(self, values: dict[str, float]) -> None:
        """Sets counters."""
        self._db.executemany("REPLACE INTO numbers VALUES (?, ?)", list(values.items()))

    def give_back(self) -> None:
        """Gives pages that are free back to the disk, some at a time."""
        self._db.execute(f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})").fetchall()

    # -- inside

    def _epoch(self, name: str) -> int:
        if name not in self._epochs:
            self._db.execute("INSERT OR IGNORE INTO epochs (name) VALUES (?)", (name,))
            found = self._db.execute("SELECT id FROM epochs WHERE name = ?", (name,)).fetchone()
            self._epochs[name] = int(found[0])
        return self._epochs[name]

    def _save_rest(self, limits: Limits) -> None:
        """Takes what is whole from a damaged file, and removes it."""
        rows = list(_readable(self._folder / _ASIDE, limits))
        with self.transaction():
            before = self.last_id()
            self.insert(row._replace(id=before + place) for place, row in enumerate(rows, 1))
        self.saved = len(rows)
        for side in _SIDES:
            Path(f"{self._folder / _ASIDE}{side}").unlink(missing_ok=True)


def _connect(path: Path, limits: Limits) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    try:
        for pragma in (
            "auto_vacuum = INCREMENTAL",
            "journal_mode = WAL",
            "synchronous = FULL",
            "wal_autocheckpoint = 32",
            f"journal_size_limit = {LOG_BYTES}",
            f"max_page_count = {limits.pages}",
            "cell_size_check = ON",
            "cache_size = -512",
            "temp_store = MEMORY",
        ):
            db.execute(f"PRAGMA {pragma}").fetchall()
        db.executescript(_SCHEMA)
        _require_whole(db)
    except BaseException:
        db.close()
        raise
    path.chmod(0o600)
    return db


def _require_whole(db: sqlite3.Connection) -> None:
    faults = db.execute("PRAGMA quick_check(1)").fetchall()
    if faults != [("ok",)]:
        raise sqlite3.DatabaseError(f"malformed: {faults[0][0]}")


def _whole(values: tuple[object, ...]) -> Row | None:
    """The row, unless a bit of it has flipped."""
    *parts, crc = values
    try:
        row = Row(*parts)  # type: ignore[arg-type]  # the checksum says whether they are
        right = row.crc == crc
    except (TypeError, ValueError, AttributeError):
        return None
    return row if right else None


def _readable(path: Path, limits: Limits) -> Iterator[Row]:
    """The rows of a damaged file that can be read, from both of its ends."""
    room = limits.budget // 2
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA query_only = ON")
        seen: set[int] = set()
        for order in ("ASC", "DESC"):
            with contextlib.suppress(sqlite3.Error, ValueError, OverflowError):
                for values in db.execute(f"SELECT {_COLUMNS} ORDER BY r.id {order}"):
                    row = _whole(values)
                    if row is None or row.id in seen:
                        continue
                    seen.add(row.id)
                    room -= row.size
                    if room < 0:
                        return
                    yield row


def _put_aside(folder: Path) -> None:
    for side in _SIDES:
        with contextlib.suppress(FileNotFoundError):
            Path(f"{folder / FILE}{side}").replace(f"{folder / _ASIDE}{side}")
    durable.sync_folder(folder)


def is_full(error: BaseException) -> bool:
    """Whether it says that no space is left, on the disk or under the cap."""
    return getattr(error, "sqlite_errorname", "").startswith(
        ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE")
    )


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether it says that the file is no whole database."""
    name = getattr(error, "sqlite_errorname", "SQLITE_CORRUPT")
    return name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR_SHORT_READ"))
