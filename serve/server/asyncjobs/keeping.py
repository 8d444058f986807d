"""The answer of a job, on its way to the disk: nothing of it is lost while that is full."""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from scoring.errors import ScoringFailedError
from serve.server.asyncjobs.records import Result
from serve.server.status import error_response
from serve.server.streaming import pulled

if TYPE_CHECKING:
    from collections.abc import Callable

    from scoring.http import PulledBody, Response
    from serve.server.asyncjobs.claims import Claim
    from serve.server.asyncjobs.files import Writer
    from serve.server.jobs import Jobs

logger = logging.getLogger(__name__)

RETRY_S = 5.0
_PROGRESS_S = 1.0


class Keeper:
    """Writes one answer, and notes it as the job's result. Lives on the event loop's thread.

    Args:
        claim: The job.
        io: The thread of the store.
        jobs: Where the code of an iterator runs.
        ended: Called when the result is on the disk, or is given up with the job's folder.
    """

    def __init__(self, claim: Claim, io: Jobs, jobs: Jobs, ended: Callable[[], None]) -> None:
        self._claim = claim
        self._io = io
        self._jobs = jobs
        self._ended = ended
        self._body: PulledBody | None = None
        self._writer: Writer | None = None
        self._parts = 0
        self._noted = time.monotonic()
        self._stopped = False

    def keep(self, response: Response) -> None:
        """Takes the answer."""
        if isinstance(response.body, bytes):
            self._step(partial(self._write_whole, response), lambda _: self._end())
        else:
            self._body = pulled(response.body, self._jobs)
            self._step(partial(self._open, response), lambda _: self._pull())

    def stop(self) -> None:
        """Drops the answer: the job was cancelled, or the server goes."""
        self._stopped = True
        if self._body is not None:
            self._body.close()
        self._io.submit(self._close_file, _ignore, unbounded=True)

    def _step(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Does something on the store's thread, again and again until it succeeds."""

        def done(result: Any, error: BaseException | None) -> None:
            if self._stopped:
                return
            if error is None:
                then(result)
            elif not self._claim.exists():
                logger.error("The job %s is gone, and its result with it", self._claim.record.id)
                self._end()
            else:
                logger.error("The result of a job is kept in memory: %s", error)
                loop = asyncio.get_running_loop()
                loop.call_later(RETRY_S, self._step, work, then)

        if not self._stopped:
            self._io.submit(work, done, unbounded=True)

    # On the store's thread

    def _write_whole(self, response: Response) -> None:
        assert isinstance(response.body, bytes)
        with self._claim.writer() as writer:
            writer.begin(_head(response))
            writer.append(response.body)
            writer.finish()
        self._claim.adopt_result()

    def _open(self, response: Response) -> None:
        if self._writer is None:
            self._writer = self._claim.writer()
        self._writer.begin(_head(response))

    def _append(self, data: bytes) -> None:
        assert self._writer is not None
        self._writer.append(data)
        self._parts += 1
        if time.monotonic() - self._noted >= _PROGRESS_S:
            self._noted = time.monotonic()
            bytes_so_far = self._writer.body_bytes
            self._claim.note_progress({"parts": self._parts, "bytes": bytes_so_far})

    def _finish(self) -> None:
        assert self._writer is not None
        self._writer.finish()
        self._claim.adopt_result()

    def _close_file(self) -> None:
        """Behind whatever opens it: `stop` may come before that has been."""
        if self._writer is not None:
            self._writer.close()

    # The parts of a stream

    def _pull(self) -> None:
        assert self._body is not None
        self._body.pull(lambda data, error: self._io.post(self._got, data, error))

    def _got(self, data: bytes | None, error: BaseException | None) -> None:
        if self._stopped:
            return
        if error is not None:
            self._broken(error)
        elif data is None:
            assert self._body is not None
            self._body.close()
            self._step(self._finish, lambda _: self._end())
        else:
            self._step(partial(self._append, data), lambda _: self._pull())

    def _broken(self, error: BaseException) -> None:
        """A stream without its end is no result: a live client would see it cut off."""
        logger.error("The streamed answer of a job failed", exc_info=error)
        assert self._body is not None
        self._body.close()
        failure = error_response(
            ScoringFailedError(f"The answer broke off after {self._parts} parts.")
        )
        self._step(partial(self._write_whole, failure), lambda _: self._end())

    def _end(self) -> None:
        self._io.submit(self._close_file, _ignore, unbounded=True)
        self._stopped = True
        self._ended()


def _head(response: Response) -> Result:
    return Result(status=response.status, headers=list(response.headers))


def _ignore(_result: object, _error: BaseException | None) -> None:
    """What is closed need not be told."""
