"""Runs stored requests, beside the live ones and after them. On the event loop's thread."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from math import inf
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from serve.server.asyncjobs.detached import detached
from serve.server.asyncjobs.keeping import Keeper
from serve.server.jobs import Jobs

if TYPE_CHECKING:
    from collections.abc import Callable

    from scoring.http import Response
    from serve.server.asyncjobs.claims import Claim
    from serve.server.asyncjobs.records import Request
    from serve.server.asyncjobs.store import Store
    from serve.server.exchange import Exchange

logger = logging.getLogger(__name__)

POLL_S = 1.0
_BUSY_S = 0.05
_LONGEST_WAIT_S = 10.0
_BUSY_STATUSES = frozenset({429, 503})
_STOP_S = 5.0
_IO_LIMIT = 1024


class Run:
    """A job of this worker, from its claim to its end."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.exchange: Exchange | None = None
        self.keeper: Keeper | None = None

    def drop(self) -> None:
        """Cancels what computes the answer, and forgets what there is of it."""
        if self.exchange is not None:
            self.exchange.abandon()
        if self.keeper is not None:
            self.keeper.stop()


class Runner:
    """Takes jobs from the store, and gives them to the handlers of live requests.

    Args:
        store: The jobs.
        jobs: The queue of the live requests.
        post: Runs a callable on the event loop's thread (`loop.call_soon_threadsafe`).
        dispatch: Answers an exchange, as for a live request.
        concurrency: How many jobs run at once in this worker.

    Attributes:
        io: The thread on which the store is used.
        draining: No job is begun any more.
    """

    def __init__(
        self,
        store: Store,
        jobs: Jobs,
        post: Callable[..., object],
        dispatch: Callable[[Exchange], None],
        concurrency: int,
    ) -> None:
        self._store = store
        self._jobs = jobs
        self._dispatch = dispatch
        self._concurrency = concurrency
        self.io = Jobs(post, _IO_LIMIT)
        self.io.start_threads(1, "jobs")
        self.draining = False
        self._runs: dict[str, Run] = {}
        self._looking = False
        self._look_again = False
        self._held_since = inf
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: dict[str, list[Callable[[], None]]] = {}
        self._ended = asyncio.Event()

    @property
    def running(self) -> int:
        """How many jobs run in this worker."""
        return len(self._runs)

    def look(self) -> None:
        """Takes up the next job, now if there is room and nobody live waits, else later."""
        self._schedule(POLL_S)
        self._look_again = self._looking
        if self.draining or self._looking or len(self._runs) >= self._concurrency:
            return
        if self._gives_way():
            self._schedule(_BUSY_S)
            return
        self._looking = True
        self.io.submit(self._take, self._taken, unbounded=True)

    def _gives_way(self) -> bool:
        """Whether live requests wait, and have not kept jobs waiting for long."""
        if self._jobs.pending <= self._own_pending():
            self._held_since = inf
            return False
        now = monotonic()
        self._held_since = min(self._held_since, now)
        if now - self._held_since < _LONGEST_WAIT_S:
            return True
        self._held_since = now
        return False

    def cancel(self, job_id: str) -> bool:
        """Cancels a job that runs here; the store is to be told. False: it does not."""
        run = self._runs.get(job_id)
        if run is None:
            return False
        run.drop()
        return True

    def end_here(self, job_id: str) -> None:
        """On the store's thread: notes that a job that runs here is cancelled."""
        run = self._runs.get(job_id)
        if run is not None and not run.claim.record.is_finished:
            run.claim.end("cancelled")

    def forget(self, job_id: str) -> None:
        """The job has ended: others may begin, and those who wait for it are told."""
        run = self._runs.pop(job_id, None)
        if run is not None:
            self.io.submit(run.claim.release, _ignore, unbounded=True)
        for told in self._waiting.pop(job_id, ()):
            told()
        self._ended.set()
        self.look()

    def when_ended(self, job_id: str, told: Callable[[], None]) -> None:
        """Calls back when a job has ended in this worker."""
        self._waiting.setdefault(job_id, []).append(told)

    def stop_waiting(self, job_id: str, told: Callable[[], None]) -> None:
        """Undoes `when_ended`."""
        waiting = self._waiting.get(job_id, [])
        if told in waiting:
            waiting.remove(told)
        if not waiting:
            self._waiting.pop(job_id, None)

    async def finish(self) -> None:
        """Begins no more jobs; returns when none runs."""
        self.draining = True
        while self._runs or self._looking:
            self._ended.clear()
            await self._ended.wait()

    def close(self) -> None:
        """Puts what still runs back into the queue, and lets the store's thread go."""
        self.draining = True
        if self._timer is not None:
            self._timer.cancel()
        for run in self._runs.values():
            run.drop()
            self.io.submit(partial(_put_back, run.claim), _ignore, unbounded=True)
        self._runs.clear()
        self.io.stop()
        self.io.join(_STOP_S)

    def _schedule(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self.draining:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._tick)

    def _tick(self) -> None:
        for job_id, run in tuple(self._runs.items()):
            self.io.submit(
                run.claim.is_cancelled, partial(self._told_to_cancel, job_id), unbounded=True
            )
        self.look()

    def _told_to_cancel(self, job_id: str, asked: bool, error: BaseException | None) -> None:
        """Another worker was asked to cancel a job of this one."""
        if error is None and asked and self.cancel(job_id):
            self.io.submit(
                partial(self.end_here, job_id), lambda *_: self.forget(job_id), unbounded=True
            )

    def _own_pending(self) -> int:
        """How many of the calls that wait or run are of jobs."""
        return sum(run.keeper is None for run in self._runs.values())

    # On the store's thread

    def _take(self) -> tuple[Claim, Request, bytes] | None:
        claim = self._store.claim_next()
        if claim is None:
            return None
        try:
            request, body = claim.request()
        except BaseException:
            claim.end("failed", reason="The request that was kept cannot be read.")
            claim.release()
            raise
        return claim, request, body

    # Back on the loop

    def _taken(
        self, taken: tuple[Claim, Request, bytes] | None, error: BaseException | None
    ) -> None:
        self._looking = False
        self._ended.set()
        if error is not None:
            logger.error("The jobs cannot be read: %s", error)
        if taken is None:
            if self._look_again:  # a job may have come behind the look
                self.look()
            return
        claim, request, body = taken
        run = self._runs[claim.record.id] = Run(claim)
        if self.draining:
            self._put_back_later(run)
            return
        exchange = detached(request, body, partial(self._answered, run), self._discard)
        run.exchange = exchange
        deadline = claim.record.deadline
        if deadline is not None:
            exchange.deadline = monotonic() + deadline - time()
        try:
            self._dispatch(exchange)
        except Exception as failure:  # noqa: BLE001 - logged or told by fail()
            exchange.fail(failure)
        self.look()

    def _answered(self, run: Run, response: Response) -> None:
        run.exchange = None  # which knows this run: no cycle is left for the collector
        if response.status in _BUSY_STATUSES:
            self._put_back_later(run)
            self._schedule(POLL_S)
            return
        run.keeper = Keeper(
            run.claim, self.io, self._jobs, partial(self.forget, run.claim.record.id)
        )
        run.keeper.keep(response)

    def _put_back_later(self, run: Run) -> None:
        """Live requests have all the room; the job's turn comes again."""

        def done(_result: Any, error: BaseException | None) -> None:
            if error is not None:
                logger.error("A job cannot be put back: %s", error)
            self._runs.pop(run.claim.record.id, None)
            self._ended.set()

        self.io.submit(partial(_put_back, run.claim), done, unbounded=True)

    def _discard(self, response: Response) -> None:
        if not isinstance(response.body, bytes):
            from serve.server.streaming import pulled  # noqa: PLC0415 - seldom

            pulled(response.body, self._jobs).close()


def _put_back(claim: Claim) -> None:
    try:
        if not claim.record.is_finished:
            claim.requeue()
    finally:
        claim.release()


def _ignore(_result: object, _error: BaseException | None) -> None:
    """The process goes, or there is nothing left to tell."""
