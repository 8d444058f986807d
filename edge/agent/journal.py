"""The journal: what the agent has to know after a restart, a power cut or a damaged disk.

One SQLite file in WAL mode, synced at every commit. The state of the device is one row with its
own digest, since SQLite does not notice a bit that flips inside a text. Beside it stands a copy,
written after every change of what answers; it is read where the journal is damaged. Every change
also leaves a line of history, the last thousands of which are kept.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, Self, TypeVar

import msgspec

from edge.agent.states import DeviceState, Track
from scoring import durable
from scoring.errors import InUseError, StorageFullError, WorkspaceError

FILE: Final = "journal.db"
COPY: Final = "journal.copy"
_LOCK: Final = "journal.lock"
_DAMAGED: Final = ".damaged"
_SIDES: Final = ("", "-wal", "-shm")

MOST_HISTORY: Final = 5000
_TRIM_EVERY: Final = 100
_BOOTS: Final = "boots"
_STATE: Final = "state"
_SERIAL: Final = "serial"
_MANY_BOOTS: Final = 10_000

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS rows (key TEXT PRIMARY KEY, value TEXT NOT NULL, digest TEXT NOT NULL)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS history (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, boot INTEGER NOT NULL,
    generation INTEGER NOT NULL, module TEXT NOT NULL, phase TEXT NOT NULL,
    wanted TEXT NOT NULL, active TEXT NOT NULL, good TEXT NOT NULL, failure TEXT NOT NULL);
"""

T = TypeVar("T")


class Line(NamedTuple):
    """One change of one module.

    Attributes:
        at: Seconds since the epoch, by the device's clock.
        boot: Of the agent.
        generation: Of the desired state then.
        module: Its name.
        phase: That it came to.
        wanted: Digests of packages; empty for none.
        active: What answered.
        good: What was accepted last.
        failure: A code, and a sentence.
    """

    at: float
    boot: int
    generation: int
    module: str
    phase: str
    wanted: str
    active: str
    good: str
    failure: str


class Copy(msgspec.Struct, frozen=True):
    """What stands beside the journal.

    Attributes:
        serial: Counts saves: the journal has the same or a later one, or is damaged.
        boot: When it was written.
        state: Of the device.
    """

    serial: int
    boot: int
    state: DeviceState


class Journal:
    """The journal of one device; any thread may use it, and one process at a time.

    Args:
        folder: Where it is kept; made where it is missing.
        make_room: Called where the disk is full, until it has nothing more to free: whether it
            has freed something.
        clock: Seconds since the epoch, for the history.

    Attributes:
        boot: How many times it has been opened.
        damage: What had to be left behind at opening, in a sentence; empty for nothing.

    Raises:
        InUseError: Another agent has it open.
        WorkspaceError: It cannot be read or written.
        StorageFullError: No space is left.
    """

    def __init__(
        self,
        folder: Path,
        *,
        make_room: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder = folder
        self.damage = ""
        self._make_room = make_room
        self._clock = clock
        self._lock = threading.RLock()
        with durable.storage_errors(f"the journal in {folder}"):
            durable.make_folder(folder, mode=0o700)
            durable.sweep(folder)
            self._held = _hold(folder / _LOCK)
        try:
            self._db = self._open()
            self._copied = _read_copy(folder / COPY)
            self._serial = self._number(_SERIAL)
            self._state = self._read_state()
            self._essence = b""
            self.boot = self._count_boot()
        except BaseException:
            os.close(self._held)
            raise

    def close(self) -> None:
        """Lets go of the journal."""
        with self._lock:
            self._db.close()
            if self._held >= 0:
                os.close(self._held)
                self._held = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the state of the device

    @property
    def state(self) -> DeviceState:
        """As it was saved last."""
        return self._state

    def save(self, state: DeviceState) -> None:
        """Keeps the state; on the disk when this returns.

        Raises:
            StorageFullError: No space is left; the journal is as it was.
            WorkspaceError: It cannot be written; it is as it was.
        """
        if state is self._state:
            return
        with self._lock:
            lines = list(_changes(self._state, state, self._clock(), self.boot))
            text = msgspec.json.encode(state, order="sorted").decode()
            self._write(lambda: self._save_rows(text, lines))
            self._state = state
            self._serial += 1
            self._copy(state)

    def _save_rows(self, text: str, lines: list[Line]) -> None:
        self._put(_STATE, text)
        self._put(_SERIAL, str(self._serial + 1))
        marks = ", ".join("?" * len(Line._fields))
        names = ", ".join(Line._fields)
        insert = f"INSERT INTO history ({names}) VALUES ({marks})"  # noqa: S608 - our own names
        for line in lines:
            found = self._db.execute(insert, line)
            if found.lastrowid and found.lastrowid % _TRIM_EVERY == 0:
                self._db.execute(
                    "DELETE FROM history WHERE id <= ?", (found.lastrowid - MOST_HISTORY,)
                )

    def _copy(self, state: DeviceState) -> None:
        """Renews the copy where a restart from it would start something else.

        It is a second line of defence: a disk that is full for it is not an error.
        """
        essence = _essence(state)
        if essence == self._essence:
            return
        body = msgspec.json.encode(Copy(self._serial, self.boot, state), order="sorted")
        digest = hashlib.sha256(body).hexdigest().encode()
        with contextlib.suppress(StorageFullError, WorkspaceError):
            durable.write_bytes(self.folder / COPY, digest + b"\n" + body, mode=0o600)
            self._essence = essence

    # -- notes of others

    def note(self, key: str) -> str | None:
        """The text kept under a key; None for none, and for one that is damaged."""
        with self._lock, _translated():
            return self._get(f"note.{key}")

    def set_note(self, key: str, text: str) -> None:
        """Keeps a text under a key; on the disk when this returns. Raises like `save`."""
        with self._lock:
            self._write(lambda: self._put(f"note.{key}", text))

    def drop_note(self, key: str) -> None:
        """Forgets what is kept under a key. Raises like `save`."""
        with self._lock:
            self._write(
                lambda: self._db.execute("DELETE FROM rows WHERE key = ?", (f"note.{key}",))
            )

    def notes(self, prefix: str) -> dict[str, str]:
        """Key to text, of all keys that begin so."""
        with self._lock, _translated():
            begin = f"note.{prefix}"
            found = self._db.execute(
                "SELECT key FROM rows WHERE substr(key, 1, ?) = ? ORDER BY key", (len(begin), begin)
            )
            keys = [str(key).removeprefix("note.") for (key,) in found]
        texts = {key: self.note(key) for key in keys}
        return {key: text for key, text in texts.items() if text is not None}

    def history(self, most: int = MOST_HISTORY) -> list[Line]:
        """The last changes, the oldest first."""
        names = ", ".join(Line._fields)
        query = f"SELECT {names} FROM history ORDER BY id DESC LIMIT ?"  # noqa: S608 - our own names
        with self._lock, _translated():
            return [Line(*row) for row in self._db.execute(query, (most,))][::-1]

    # -- opening

    def _open(self) -> sqlite3.Connection:
        path = self.folder / FILE
        try:
            return self._retrying(lambda: self._connect(path))
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise _translate(error) from error
            self.damage = f"The journal was damaged ({error}), and put aside."
        _put_aside(path)
        with _translated():
            return self._connect(path)

    def _connect(self, path: Path) -> sqlite3.Connection:
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
        db.text_factory = _text
        try:
            for pragma in (
                "journal_mode = WAL",
                "synchronous = FULL",
                "wal_autocheckpoint = 64",
                "journal_size_limit = 262144",
                "cell_size_check = ON",
                "cache_size = -256",
            ):
                db.execute(f"PRAGMA {pragma}").fetchall()
            db.executescript(_SCHEMA)
            _require_whole(db)
        except BaseException:
            db.close()
            raise
        path.chmod(0o600)
        return db

    def _read_state(self) -> DeviceState:
        """From the journal, or from the copy where the journal has lost what the copy has."""
        with _translated():
            text = self._get(_STATE)
            there = self._db.execute("SELECT 1 FROM rows WHERE key = ?", (_STATE,)).fetchone()
        state = _decode(text.encode(), DeviceState) if text else None
        copy = self._copied
        if state is None and there and not self.damage:
            self.damage = "The state in the journal was damaged."
        if copy is None or (state is not None and self._serial >= copy.serial):
            return state or DeviceState()
        self.damage = self.damage or "The journal had lost what it was told last."
        self.damage += " What answered last was taken from its copy."
        self._serial = copy.serial
        return copy.state

    def _count_boot(self) -> int:
        """Counts up; after damage by a leap, so that no number comes again."""
        last = self._number(_BOOTS)
        if self.damage:
            copied = self._copied.boot if self._copied else 0
            last = max(last, copied + _MANY_BOOTS, int(self._clock()))
        self._write(lambda: self._put(_BOOTS, str(last + 1)))
        return last + 1

    def _number(self, key: str) -> int:
        with _translated():
            text = self._get(key)
        return int(text) if text and text.isdigit() else 0

    # -- rows

    def _get(self, key: str) -> str | None:
        row = self._db.execute("SELECT value, digest FROM rows WHERE key = ?", (key,)).fetchone()
        if row is None or not isinstance(row[0], str) or _digest(key, row[0]) != row[1]:
            return None
        return row[0]

    def _put(self, key: str, value: str) -> None:
        self._db.execute("REPLACE INTO rows VALUES (?, ?, ?)", (key, value, _digest(key, value)))

    def _write(self, write: Callable[[], object]) -> None:
        """One transaction; where the disk is full, once more with the room that is kept back."""

        def transaction() -> None:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                write()
                self._db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

        with _translated():
            self._retrying(transaction)

    def _retrying(self, action: Callable[[], T]) -> T:
        """Again and again, as long as the disk is full and room can be made."""
        while True:
            try:
                return action()
            except sqlite3.OperationalError as error:
                if not _is_full(error) or not self._make_room():
                    raise


def _changes(old: DeviceState, new: DeviceState, at: float, boot: int) -> Iterator[Line]:
    for name in sorted(old.tracks.keys() | new.tracks.keys()):
        track = new.tracks.get(name)
        if track is not None and track == old.tracks.get(name):
            continue
        packages = _packages(track)
        failure = track.failure if track else None
        yield Line(
            at,
            boot,
            new.generation,
            name,
            track.phase if track else "gone",
            *packages,
            f"{failure.code}: {failure.message}" if failure else "",
        )


def _packages(track: Track | None) -> tuple[str, str, str]:
    if track is None:
        return "", "", ""
    wanted, active, good = (
        module.package if module else "" for module in (track.wanted, track.active, track.good)
    )
    return wanted, active, good


def _essence(state: DeviceState) -> bytes:
    """What a restart would start, and what it would refuse."""
    running = {
        name: (track.active, track.good, track.wanted, track.phase == "soaking")
        for name, track in state.tracks.items()
    }
    return msgspec.json.encode((state.generation, running, state.floors), order="sorted")


def _read_copy(path: Path) -> Copy | None:
    try:
        digest, _, body = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    if hashlib.sha256(body).hexdigest().encode() != digest:
        return None
    return _decode(body, Copy)


def _decode(text: bytes, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, ValueError):
        return None


def _digest(key: str, value: str) -> str:
    return hashlib.sha256(f"{key}\n{value}".encode(errors="surrogatepass")).hexdigest()


def _hold(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise InUseError(
            f"Another agent is at work in {path.parent}.",
            hint="Stop it, or give this one another state folder.",
            where=str(path.parent),
        ) from None
    return fd


def _put_aside(path: Path) -> None:
    """Keeps one damaged journal for whoever wants to look at it."""
    with durable.storage_errors(f"the damaged journal {path}"):
        for side in _SIDES:
            with contextlib.suppress(FileNotFoundError):
                Path(f"{path}{side}").replace(f"{path}{_DAMAGED}{side}")
        durable.sync_folder(path.parent)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _translate(error) from error


def _translate(error: sqlite3.Error) -> WorkspaceError:
    if _is_full(error):
        return StorageFullError(
            "No space is left to write the journal. Nothing was changed.",
            hint="Free space on the device's disk; it tries again by itself.",
        )
    return WorkspaceError(
        f"The journal cannot be used: {error}.",
        hint="Check the device's disk; restarting the agent repairs a journal that is damaged.",
    )


def _text(data: bytes) -> str:
    """Text of which a bit may have flipped: its digest tells."""
    return data.decode(errors="replace")


def _require_whole(db: sqlite3.Connection) -> None:
    faults = db.execute("PRAGMA integrity_check(1)").fetchall()
    if faults != [("ok",)]:
        raise sqlite3.DatabaseError(f"malformed: {faults[0][0]}")


def _is_full(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorname", "").startswith(
        ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE")
    )


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    name = getattr(error, "sqlite_errorname", "SQLITE_CORRUPT")
    return name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR_SHORT_READ"))
