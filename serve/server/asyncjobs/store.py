"""Jobs on disk: one folder for each, for any number of workers (docs/adr/0042).

`ID/state` is the record, `ID/request` and `ID/result` are a line of JSON and a body each,
`ID/cancel` asks the worker that runs it to stop. Everything is written under a temporary name,
synced and renamed. Who changes a job holds the lock (`flock`) of its folder, which the kernel gives
back when its holder dies, however that happens. Everything here blocks.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scoring import durable
from scoring.errors import AlreadyExistsError, NotFoundError, OverloadedError, WorkspaceError
from serve.server.asyncjobs import records
from serve.server.asyncjobs.claims import Claim, lock
from serve.server.asyncjobs.files import read_record, write_pair, write_record
from serve.server.errors import JobExpiredError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serve.server.asyncjobs.records import Record, Request

_KEYS = "keys"
_SWEEP_S = 30.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a store holds.

    Attributes:
        jobs: Finished ones included.
        total_bytes: Of all requests and results.
        attempts: How often a job is begun whose worker dies.
        ttl_s: How long a finished job is kept, and a job may wait.
    """

    jobs: int = 10_000
    total_bytes: int = 4 << 30
    attempts: int = 3
    ttl_s: float = 86_400.0


class Store:
    """The jobs of one deployment. For one thread of each worker.

    Args:
        folder: Made where it is missing, for its user alone.
        limits: How much it holds.

    Raises:
        WorkspaceError: The folder cannot be made.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder = folder
        self._limits = limits
        # What is finished does not change any more.
        self._finished: dict[str, Record] = {}
        self._swept = 0.0
        try:
            durable.make_folder(folder, mode=0o700)
            durable.make_folder(folder / _KEYS, mode=0o700)
        except OSError as error:
            raise WorkspaceError(
                f"The folder of asynchronous jobs cannot be made: {error.strerror}.",
                hint="Set FIELDPOST_SERVER_JOBS_DIR to a folder that the server may write.",
                where=str(folder),
            ) from error

    def submit(self, record: Record, request: Request, body: bytes | bytearray) -> Record:
        """Keeps a request; when this returns, it is on the disk.

        Returns:
            The record, or that of an earlier job with the same idempotency key.

        Raises:
            AlreadyExistsError: The key was used for another request.
            OverloadedError: There are as many jobs as there may be.
            StorageFullError: The disk is full; nothing is kept.
            WorkspaceError: The folder cannot be written.
        """
        with durable.storage_errors("the job", "Nothing is kept of it."), self._entrance():
            if record.key:
                earlier = self._by_key(record)
                if earlier is not None:
                    return earlier
            self._require_room(record.request_bytes)
            if record.key:
                durable.write_bytes(self._key(record), record.id.encode(), mode=0o600)
            with durable.TemporaryFolder(self._folder) as folder:
                folder.path.chmod(0o700)
                write_pair(folder.path / "request", request, body)
                write_record(folder.path, record)
                folder.move(self._folder / record.id)
        return record

    def read(self, job_id: str) -> Record:
        """The state of a job.

        Raises:
            JobExpiredError: It is over for longer than jobs are kept.
            NotFoundError: There is none of that name.
        """
        record = self._finished.get(job_id)
        if record is not None and (self._folder / job_id).is_dir():
            return record
        record = read_record(self._folder / job_id) if records.is_id(job_id) else None
        if record is not None:
            return record
        now = time.time()
        if records.is_id(job_id) and 0 < records.created_at(job_id) < now - self._limits.ttl_s:
            raise JobExpiredError(
                f"The job {job_id} has expired: results are kept for {self._limits.ttl_s:g} s.",
                hint="Send the request again.",
            )
        raise NotFoundError(f"There is no job {job_id!r}.", hint="GET /jobs lists your jobs.")

    def newest(self, principal: str, limit: int, status: str = "") -> list[Record]:
        """The jobs of one principal, the newest first; of one status only, if that is given."""
        found: list[Record] = []
        for job_id in sorted(self._ids(), reverse=True):
            if len(found) == limit:
                break
            record = self._finished.get(job_id) or read_record(self._folder / job_id)
            if record is None or record.principal != principal:
                continue
            if not status or record.status == status:
                found.append(record)
        return found

    def claim_next(self) -> Claim | None:
        """The oldest job that nobody runs, from now on run by the caller; None: there is none."""
        self._sweep()
        for record in self._unfinished():
            claim = self._claim(record.id)
            if claim is not None:
                return claim
        return None

    def cancel(self, job_id: str) -> Record:
        """Cancels a job that nobody runs, and asks the worker that runs one to do so."""
        claim = Claim.take(self._folder / job_id)
        if claim is None:
            record = self.read(job_id)
            if not record.is_finished:
                durable.write_bytes(self._folder / job_id / "cancel", b"", mode=0o600)
            return record
        with claim:
            if not claim.record.is_finished:
                claim.end("cancelled")
            return claim.record

    def remove(self, job_id: str) -> None:
        """Forgets a job that is finished."""
        self._remove(self._folder / job_id)

    def result(self, job_id: str) -> Path:
        """The file with the result of a finished job."""
        return self._folder / job_id / "result"

    # Ends and beginnings

    def _claim(self, job_id: str) -> Claim | None:
        claim = Claim.take(self._folder / job_id)
        if claim is None:
            return None
        try:
            durable.sweep(self._folder / job_id)  # what a killed worker has left
            if claim.adopt_result() or claim.record.is_finished or self._is_over(claim):
                claim.release()
                return None
            claim.begin()
        except BaseException:
            claim.release()
            raise
        return claim

    def _is_over(self, claim: Claim) -> bool:
        """Ends a job that is not worth another attempt."""
        record = claim.record
        if claim.is_cancelled():
            claim.end("cancelled")
        elif record.attempts >= self._limits.attempts:
            claim.end(
                "failed",
                reason=f"The worker died in each of {record.attempts} attempts to answer it.",
            )
        elif record.created + self._limits.ttl_s < time.time():
            claim.end("failed", reason=f"It was not answered within {self._limits.ttl_s:g} s.")
        elif record.deadline is not None and record.deadline <= time.time():
            claim.end("failed", reason="Its deadline passed before it was its turn.")
        else:
            return False
        return True

    def _sweep(self) -> None:
        """Removes what has expired, now and then."""
        now = time.time()
        if now - self._swept < _SWEEP_S and self._swept <= now:
            return
        self._swept = now
        durable.sweep(self._folder)
        durable.sweep(self._folder / _KEYS)
        for _ in self._unfinished():
            pass  # which reads what has been finished
        for record in tuple(self._finished.values()):
            if (record.finished or record.created) + self._limits.ttl_s < now:
                self._remove(self._folder / record.id)
        with self._entrance():
            for key in (self._folder / _KEYS).iterdir():
                with contextlib.suppress(OSError):
                    if not (self._folder / key.read_text("ascii")).is_dir():
                        key.unlink()

    def _remove(self, folder: Path) -> None:
        """Takes the name away first: what is half removed is nobody's job."""
        self._finished.pop(folder.name, None)
        with contextlib.suppress(OSError), durable.TemporaryFolder(self._folder) as temporary:
            folder.rename(temporary.path / folder.name)

    # What there is

    def _ids(self) -> list[str]:
        with durable.storage_errors("the jobs"), os.scandir(self._folder) as entries:
            return [entry.name for entry in entries if records.is_id(entry.name)]

    def _unfinished(self) -> Iterator[Record]:
        """The jobs that are not finished, the oldest first."""
        found = self._ids()
        for gone in self._finished.keys() - found:
            del self._finished[gone]
        for job_id in sorted(found):
            if job_id in self._finished:
                continue
            record = read_record(self._folder / job_id)
            if record is None:
                continue
            if record.is_finished:
                self._finished[job_id] = record
            else:
                yield record

    def _require_room(self, request_bytes: int) -> None:
        waiting = list(self._unfinished())
        everything = [*waiting, *self._finished.values()]
        used = sum(record.total_bytes for record in everything)
        over_count = len(everything) >= self._limits.jobs
        if over_count or used + request_bytes > self._limits.total_bytes:
            raise OverloadedError(
                f"There are {len(everything)} jobs with {used} bytes already, "
                f"{len(waiting)} of them unfinished.",
                hint="Wait for some to end, or DELETE those whose results you have.",
            )

    # Idempotency keys

    def _key(self, record: Record) -> Path:
        return self._folder / _KEYS / record.key

    def _by_key(self, record: Record) -> Record | None:
        """The job that was made under this key, if it is still there."""
        try:
            earlier = read_record(self._folder / self._key(record).read_text("ascii"))
        except FileNotFoundError:
            return None
        if earlier is None or earlier.key != record.key:
            return None
        if earlier.fingerprint != record.fingerprint:
            raise AlreadyExistsError(
                "This idempotency key was used for another request.",
                hint="Send every request with a key of its own.",
                where="idempotency-key",
            )
        return earlier

    @contextlib.contextmanager
    def _entrance(self) -> Iterator[None]:
        """One at a time, of all workers: counts hold, and so do keys."""
        fd = os.open(self._folder / ".entrance", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            lock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)
