"""The right to change one job, held by one worker at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from typing import TYPE_CHECKING, Self

import msgspec

from scoring import durable
from serve.server.asyncjobs.files import Writer, read_head, read_pair, read_record, write_record
from serve.server.asyncjobs.records import Record, Request, Result

if TYPE_CHECKING:
    from pathlib import Path

    from serve.server.asyncjobs.records import Status

# Of the claims in this process: a script's children must not hold on to them.
_held: set[int] = set()


class Claim:
    """A job whose folder is locked by this worker.

    Args:
        folder: Of the job.
        fd: The locked folder.
        record: As it is on the disk.

    Attributes:
        record: As it is on the disk.
    """

    def __init__(self, folder: Path, fd: int, record: Record) -> None:
        self._folder = folder
        self._fd = fd
        self.record = record
        _held.add(fd)

    @classmethod
    def take(cls, folder: Path) -> Claim | None:
        """Locks a job; None where another holds it, or there is none."""
        try:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        record = read_record(folder) if lock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB) else None
        # Removed, maybe, between its opening and its locking.
        if record is None or not _is_same(fd, folder):
            os.close(fd)
            return None
        return cls(folder, fd, record)

    def release(self) -> None:
        """Gives the job back; again does nothing."""
        if self._fd in _held:
            _held.discard(self._fd)
            os.close(self._fd)
            self._fd = -1

    def begin(self) -> None:
        """Notes that an attempt begins."""
        self._write(status="running", started=time.time(), attempts=self.record.attempts + 1)

    def requeue(self) -> None:
        """Puts the job back as if the attempt had not been."""
        self._write(
            status="queued",
            started=None,
            attempts=max(0, self.record.attempts - 1),
            progress=None,
        )

    def end(self, status: Status, *, reason: str = "") -> None:
        """Notes an end without a result."""
        self._write(status=status, finished=time.time(), reason=reason, progress=None)

    def note_progress(self, progress: dict[str, int]) -> None:
        """Notes how far a streamed result has come."""
        self._write(progress=progress)

    def is_cancelled(self) -> bool:
        """Whether somebody has asked for that."""
        return (self._folder / "cancel").exists()

    def exists(self) -> bool:
        """Whether the job is still there."""
        return _is_same(self._fd, self._folder)

    def request(self) -> tuple[Request, bytes]:
        """What was asked."""
        with durable.storage_errors("the request of a job"):
            return read_pair(self._folder / "request", Request)

    def writer(self) -> Writer:
        """Where the result goes."""
        return Writer(self._folder / "result")

    def adopt_result(self) -> bool:
        """Ends the job by the result that it has; False where it has none.

        The worker that died between writing the result and noting that is one that has answered.
        """
        path = self._folder / "result"
        try:
            head, begin = read_head(path, Result)
        except FileNotFoundError:
            return False
        good = head.status < 400  # noqa: PLR2004 - the errors of HTTP
        self._write(
            status="succeeded" if good else "failed",
            finished=time.time(),
            http_status=head.status,
            result_bytes=path.stat().st_size - begin,
            reason="" if good else f"It was answered with status {head.status}; see its result.",
            progress=None,
        )
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _write(self, **changes: object) -> None:
        record = msgspec.structs.replace(self.record, **changes)
        write_record(self._folder, record)
        self.record = record


def lock(fd: int, kind: int) -> bool:
    """Locks a file or folder; False where another holds it and `kind` says not to wait."""
    try:
        fcntl.flock(fd, kind)
    except OSError as error:
        if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
            return False
        raise
    return True


def _is_same(fd: int, folder: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(fd), folder.stat())
    return False


def _let_go() -> None:
    """In a process that a script has forked: it would keep the locks of a worker that dies."""
    for fd in _held:
        with contextlib.suppress(OSError):
            os.close(fd)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)
