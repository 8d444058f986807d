"""The spool: what a device has to tell, on its disk, until the controller has it on its own.

Each opening of a spool begins a stream of records of its own (an epoch with a random name, numbered
from 0): no number can come twice, also where a disk forgot what it had promised to keep, a backup
was put back, or a device was cloned with all its files.

Nothing here waits for a disk that is full or broken: records are then held in memory, a few of
them, and told from there. What the caps leave no room for is dropped, the oldest of the least
important class first, and counted.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Self, TypeVar

import msgspec

from edge.protocol.messages import Ack, Record, Telemetry, decode, encode_compressed
from edge.protocol.names import check_name
from edge.protocol.topics import CLASSES, Class
from edge.telemetry.held import Held
from edge.telemetry.limits import MOST_KIND, MOST_RECORD_BYTES, Limits
from edge.telemetry.rows import Row, SpoolFile, is_damage, is_full
from scoring.errors import MalformedPayloadError, PayloadTooLargeError

logger = logging.getLogger(__name__)

QUARANTINE: Final = len(CLASSES)
"""The lane of records that nobody could take."""

_LANES: Final = tuple(range(len(CLASSES) + 1))
_LAST_ID: Final = 2**62
_BATCH_RECORDS: Final = 500
_BATCH_BYTES: Final = 160 << 10
_AT_ONCE: Final = 128 << 10
_DROP_AT_ONCE: Final = 64
_LATE_S: Final = 60.0
_REOPEN_S: Final = 10.0
_TIME: Final = "time"
_DROPPED: Final = "dropped."
_TRIES: Final = 3

T = TypeVar("T")


class Batch(NamedTuple):
    """Records of one class and one epoch, ready to be sent.

    Attributes:
        name: Their class.
        epoch: Of their numbers.
        first: The id of the first: its place in the spool.
        last: The id of the last.
        seqs: Their numbers.
        payload: The message.
    """

    name: Class
    epoch: str
    first: int
    last: int
    seqs: tuple[int, ...]
    payload: bytes


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """What a spool holds, and what it could not keep.

    Attributes:
        waiting: Class to the number of records.
        size: What they take, in bytes.
        dropped: Class to the number that were lost to the caps, ever.
        quarantined: Records that nobody could take, and that are kept to be looked at.
        damaged: Records that were found damaged, ever.
        trouble: Why the disk cannot be used now; empty where it can.
    """

    waiting: dict[Class, int]
    size: int
    dropped: dict[Class, int]
    quarantined: int
    damaged: int
    trouble: str = ""


class Spool:
    """The spool of one device; any thread may use it, and one process at a time.

    Args:
        folder: Where it is kept; made where it is missing.
        device: Whose it is.
        limits: Its caps.
        clock: Seconds since the epoch, as far as the device knows.
        steady: Seconds of a clock that is never set: ages are counted in these, so that a clock
            that leaps throws nothing away.
    """

    def __init__(
        self,
        folder: Path,
        device: str,
        limits: Limits | None = None,
        *,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.device = check_name(device, "device")
        self.epoch = secrets.token_hex(8)
        self._folder = folder
        self._limits = limits or Limits()
        self._clock, self._steady = clock, steady
        self._lock = threading.RLock()
        self._held = Held()
        self._file: SpoolFile | None = None
        self._trouble = ""
        self._tried = float("-inf")
        self._seq = 0
        self._id = self._taken = 0
        self._known = False
        self._passed = 0.0
        self._since = steady()
        self._numbers: dict[str, float] = {}
        self._sizes: dict[int, tuple[int, int]] = {}
        with self._lock:
            self._opened()

    def close(self) -> None:
        """Lets go of the files."""
        with self._lock:
            self._flush()
            self._shut("")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- in

    def put(
        self, name: Class, kind: str, data: Mapping[str, Any], *, at: float | None = None
    ) -> bool:
        """Takes a record.

        Args:
            name: Its class.
            kind: What it is: `requests`, `resources`, ...
            data: What it tells; it becomes JSON.
            at: When it was so, in seconds since the epoch; now by default.

        Returns:
            Whether it is on the disk; it was dropped, or is held in memory, where not.

        Raises:
            PayloadTooLargeError: It is larger than a record may be; it is counted as dropped.
            MalformedPayloadError: It cannot be JSON.
        """
        return self.put_many([(name, kind, data, at)])

    def put_many(
        self, records: Iterable[tuple[Class, str, Mapping[str, Any], float | None]]
    ) -> bool:
        """Takes several records with one write; see `put`."""
        with self._lock:
            rows = [self._row(*record) for record in records]
            return self._keep(rows)

    def _row(self, name: Class, kind: str, data: Mapping[str, Any], at: float | None) -> Row:
        lane = CLASSES.index(name)
        try:
            text = msgspec.json.encode(data)
        except (TypeError, ValueError, RecursionError) as error:
            raise MalformedPayloadError(f"A record cannot be JSON: {error}.") from error
        if len(text) > MOST_RECORD_BYTES or len(kind) > MOST_KIND:
            self._lose(lane, 1)
            raise PayloadTooLargeError(
                f"A record has {len(text)} bytes, and {MOST_RECORD_BYTES} are the most.",
                hint="Tell it in several records.",
            )
        self._id += 1
        self._seq += 1
        at = self._clock() if at is None else at
        return Row(self._id, lane, self.epoch, self._seq - 1, at, self.now(), kind, text)

    def _keep(self, rows: list[Row]) -> bool:
        waiting = [*self._held.take(), *rows]
        for chunk in _chunks(waiting):
            if not self._write(chunk):
                for lane in self._held.put(waiting[waiting.index(chunk[0]) :]):
                    self._lose(lane, 1)
                return False
        return True

    def _write(self, rows: list[Row]) -> bool:
        """Writes rows, with room made for them; the last try is where pages are short."""
        for more in range(_TRIES):
            done, full = self._try(lambda db, more=more: self._insert(db, rows, more))  # type: ignore[misc]
            if done or not full:
                return done
        return False

    def _insert(self, db: SpoolFile, rows: list[Row], more: int) -> None:
        # What a full file needs beyond what the rows take: it grows with every try.
        spare = more * self._limits.budget // 8
        kept = []
        rows = [self._renumbered(row) for row in rows]
        for row in sorted(rows, key=lambda row: (row.lane, row.id)):
            if self._make_room(db, row.lane, row.size + spare):
                kept.append(row)
                self._count(row.lane, 1, row.size)
            else:
                self._lose(row.lane, 1)
            spare = 0
        db.insert(sorted(kept))

    def _renumbered(self, row: Row) -> Row:
        """With an id of its own: one that was made before the file was opened may be taken."""
        if row.id > self._taken:
            return row
        self._id += 1
        return row._replace(id=self._id)

    def _make_room(self, db: SpoolFile, lane: int, needed: int) -> bool:
        """Drops the oldest of the least important; whether there is room now."""
        while self._size() + needed > self._limits.budget:
            lowest = max((at for at in _LANES if self._sizes.get(at, (0, 0))[0]), default=-1)
            if lowest < lane:
                return False
            if not self._drop(db, lowest, self._size() + needed - self._limits.budget):
                return False
        return True

    def _drop(self, db: SpoolFile, lane: int, bytes_over: int) -> int:
        ids, freed = [], 0
        for row, size in db.oldest(lane, _DROP_AT_ONCE):
            if freed >= bytes_over:
                break
            ids.append(row)
            freed += size
        db.remove(ids)
        self._count(lane, -len(ids), -freed)
        if lane != QUARANTINE:
            self._lose(lane, len(ids))
        return len(ids)

    # -- out

    def next(self, name: Class, after: int = 0, *, last: int = _LAST_ID) -> Batch | None:
        """The next records of a class that fit in one message.

        Args:
            name: The class.
            after: The id of the last record before them.
            last: The id of the last one that is wanted.
        """
        with self._lock:
            rows = self._read(CLASSES.index(name), after + 1, last)
            return self._batch(name, rows) if rows else None

    def batches(self, most: int = 64) -> list[Batch]:
        """The first batches of all that waits, the most important class first."""
        found: list[Batch] = []
        for name in CLASSES:
            after = 0
            while len(found) < most and (batch := self.next(name, after)):
                found.append(batch)
                after = batch.last
        return found

    def acked(self, ack: Ack | bytes) -> int:
        """Deletes what the controller has on its disk; returns how many records those were.

        Raises:
            MalformedPayloadError: It is no acknowledgement.
            PayloadTooLargeError: It is too large to be one.
        """
        message = ack if isinstance(ack, Ack) else decode(ack, Ack)
        if message.device != self.device:
            return 0
        with self._lock:
            gone = self._held.acked(message)
            found: list[tuple[int, int, int]] = []
            self._try(lambda db: found.extend(self._delete(db, message)))
            return gone + len(found)

    def _delete(self, db: SpoolFile, ack: Ack) -> list[tuple[int, int, int]]:
        found = [
            row
            for first, last in ack.ranges
            for row in db.within(ack.epoch, min(first, _LAST_ID), min(last, _LAST_ID))
        ]
        db.remove(row for row, _, _ in found)
        for _, lane, size in found:
            self._count(lane, -1, -size)
        return found

    def quarantine(self, batch: Batch) -> None:
        """Puts records aside that nobody takes: they are kept while there is room, and not sent."""
        with self._lock:
            self._try(lambda db: self._put_aside(db, batch))

    def _put_aside(self, db: SpoolFile, batch: Batch) -> None:
        for seq in batch.seqs:
            for row, lane, size in db.within(batch.epoch, seq, seq):
                db.move(row, QUARANTINE)
                self._count(lane, -1, -size)
                self._count(QUARANTINE, 1, size)

    def quarantined(self, most: int = 100) -> list[Row]:
        """What was put aside, the oldest first."""
        with self._lock:
            return self._read(QUARANTINE, 0, _LAST_ID)[:most]

    # -- upkeep

    def tend(self) -> None:
        """Deletes what is too old, writes what is held, gives room back: call it now and then."""
        with self._lock:
            self._flush()
            self._try(self._expire)
            if self._file is not None:
                with contextlib.suppress(sqlite3.Error):
                    self._file.give_back()

    def counts(self) -> Counts:
        """What is there, and what is lost."""
        with self._lock:
            waiting = {
                name: self._sizes.get(lane, (0, 0))[0] + self._held.count(lane)
                for lane, name in enumerate(CLASSES)
            }
            return Counts(
                waiting=waiting,
                size=self._size() + self._held.size,
                dropped=self.dropped(),
                quarantined=self._sizes.get(QUARANTINE, (0, 0))[0],
                damaged=int(self._numbers.get("damaged", 0)),
                trouble=self._trouble,
            )

    def dropped(self) -> dict[Class, int]:
        """Class to the number of records that were lost to the caps, ever."""
        found = ((name, int(self._numbers.get(_DROPPED + name, 0))) for name in CLASSES)
        return {name: number for name, number in found if number}

    def now(self) -> float:
        """The spool's own time: for how many seconds it has been open, ever."""
        return self._passed + max(0.0, self._steady() - self._since)

    def _expire(self, db: SpoolFile) -> None:
        for lane, name in enumerate(CLASSES):
            before = self.now() - self._limits.age_s(name)
            while found := db.aged(lane, before, _DROP_AT_ONCE):
                db.remove(row for row, _ in found)
                self._count(lane, -len(found), -sum(size for _, size in found))
                self._lose(lane, len(found))
        db.forget_epochs(self.epoch)

    # -- inside

    def _batch(self, name: Class, rows: list[Row]) -> Batch:
        while True:
            first = rows[0]
            message = Telemetry(
                device=self.device,
                epoch=first.epoch,
                records=tuple(self._record(row) for row in rows),
                dropped=self.dropped(),
                floor=self._floor(first),
            )
            try:
                payload = encode_compressed(message)
            except PayloadTooLargeError:
                rows = rows[: len(rows) // 2]  # one alone always fits
                continue
            seqs = tuple(row.seq for row in rows)
            return Batch(name, first.epoch, first.id, rows[-1].id, seqs, payload)

    def _record(self, row: Row) -> Record:
        late = self.now() - row.age > _LATE_S
        data = msgspec.json.decode(row.data)
        return Record(seq=row.seq, at=row.at, kind=row.kind, data=data, late=late)

    def _floor(self, first: Row) -> int:
        """The lowest number of the epoch that may still be sent."""
        there = [first.seq, *self._held.seqs(first.epoch)]
        done, found = self._look(lambda db: db.floor(first.epoch))
        if not done:
            return 0
        return min(there if found is None else [*there, found])

    def _read(self, lane: int, first: int, last: int) -> list[Row]:
        """Rows of one epoch that fit in a batch; those that are damaged are removed on the way."""
        _, found = self._look(lambda db: db.read(lane, first, last, _BATCH_RECORDS))
        rows, damaged = found or ([], [])
        if damaged and self._try(lambda db: self._discard(db, damaged))[0] and not rows:
            return self._read(lane, first, last)
        return _fitting(rows or self._held.rows(lane, first, last))

    def _discard(self, db: SpoolFile, damaged: list[int]) -> None:
        db.remove(damaged)
        self._sizes = db.sizes()
        self._numbers["damaged"] = self._numbers.get("damaged", 0) + len(damaged)

    def _look(self, action: Callable[[SpoolFile], T]) -> tuple[bool, T | None]:
        """Reads: whether it could be done, and what was found."""
        file = self._opened()
        if file is None:
            return False, None
        try:
            return True, action(file)
        except (sqlite3.Error, OSError) as error:
            self._failed(error)
            return False, None

    def _count(self, lane: int, number: int, size: int) -> None:
        count, total = self._sizes.get(lane, (0, 0))
        self._sizes[lane] = count + number, total + size

    def _lose(self, lane: int, number: int) -> None:
        key = _DROPPED + CLASSES[lane]
        self._numbers[key] = self._numbers.get(key, 0) + number

    def _size(self) -> int:
        return sum(size for _, size in self._sizes.values())

    def _flush(self) -> None:
        if self._held.size:
            self._keep([])

    def _try(self, action: Callable[[SpoolFile], object]) -> tuple[bool, bool]:
        """One transaction: whether it was done, and whether it was not because all is full."""
        file = self._opened()
        if file is None:
            return False, False
        before = dict(self._sizes), dict(self._numbers)
        try:
            with file.transaction():
                action(file)
                file.set_numbers({**self._numbers, _TIME: self.now()})
        except (sqlite3.Error, OSError) as error:
            self._sizes, self._numbers = before
            return False, self._failed(error)
        self._trouble = ""
        return True, False

    def _failed(self, error: Exception) -> bool:
        """Says once what is wrong; a damaged file is left at once, and opened anew."""
        full = is_full(error)
        if isinstance(error, sqlite3.DatabaseError) and is_damage(error):
            self._shut(str(error))
            self._tried = float("-inf")
            return False
        if not self._trouble:
            logger.warning("telemetry_not_written reason=%s", error)
        self._trouble = str(error)
        return full

    def _opened(self) -> SpoolFile | None:
        if self._file is not None:
            return self._file
        if self._steady() - self._tried < _REOPEN_S:
            return None
        self._tried = self._steady()
        try:
            self._file = SpoolFile(self._folder, self._limits)
            self._take_over(self._file)
        except (sqlite3.Error, OSError) as error:
            self._shut(str(error))
            logger.warning("telemetry_not_opened reason=%s", error)
            return None
        return self._file

    def _take_over(self, file: SpoolFile) -> None:
        """Goes on from what the file says; numbers that were counted without it are added."""
        found = file.numbers()
        passed = found.pop(_TIME, 0.0)
        for key, value in found.items():
            here = self._numbers.get(key, 0.0)
            self._numbers[key] = max(value, here) if self._known else value + here
        if not self._known:
            self._passed, self._since = self.now() + passed, self._steady()
        self._known = True
        self._sizes = file.sizes()
        self._id = self._taken = max(file.last_id(), self._id)
        if file.damage:
            logger.warning("telemetry_damaged saved=%d reason=%s", file.saved, file.damage)
            data = {"what": "spool", "saved": file.saved, "reason": file.damage[:200]}
            self._keep([self._row("alarm", "damaged", data, None)])

    def _shut(self, trouble: str) -> None:
        self._trouble = trouble
        if self._file is not None:
            with contextlib.suppress(sqlite3.Error):
                self._file.close()
            self._file = None


def _chunks(rows: list[Row]) -> Iterator[list[Row]]:
    """Rows in transactions that the log has room for."""
    chunk: list[Row] = []
    size = 0
    for row in rows:
        size += row.size
        if chunk and size > _AT_ONCE:
            yield chunk
            chunk, size = [], row.size
        chunk.append(row)
    if chunk:
        yield chunk


def _fitting(rows: list[Row]) -> list[Row]:
    found: list[Row] = []
    size = 0
    for row in rows[:_BATCH_RECORDS]:
        size += len(row.data)
        if found and (row.epoch != found[0].epoch or size > _BATCH_BYTES):
            break
        found.append(row)
    return found
