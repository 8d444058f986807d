"""One place in a pool, kept filled with a worker: start, watch, wait, start again, give up."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from serve.server.child import Failure, LogSink, Worker, WorkerDiedError
from serve.server.restarts import DeathWindow, Limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from serve.server.spawning import Place, WorkerSpec

SlotState = Literal["starting", "ready", "waiting", "failed", "stopped"]


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """One worker as it is now.

    Attributes:
        name: `w0`, `w1`, ...
        pid: Of its process; None while there is none.
        state: `waiting` before a restart; `failed` when it was given up.
        restarts: Since the pool started.
        uptime_s: Of the present process.
        answers: Whether it has become ready, even one that still counts as `failed`.
    """

    name: str
    pid: int | None
    state: SlotState
    restarts: int
    uptime_s: float
    answers: bool


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the slots of a pool share.

    Attributes:
        spec: How a worker is started.
        limits: Timeouts and restarts.
        log: Takes the output, and the pool's own lines (as `pool`).
        closing: Set when no worker may be started any more.
        on_change: Called after each change of a slot's state.
        on_death: Called with each unexpected end of a worker.
    """

    spec: WorkerSpec
    limits: Limits
    log: LogSink
    closing: asyncio.Event
    on_change: Callable[[], None]
    on_death: Callable[[Failure], None]


class Slot:
    """One place in a pool.

    Attributes:
        place: What its workers are given.
        worker: The present process; None between two of them.
        beside: Processes that are to take its place, or that leave it.
        hopeless: Why there is no point in waiting for the first worker to become ready.
    """

    def __init__(self, place: Place, around: Surroundings) -> None:
        self.place = place
        self.name = place.name
        self.state: SlotState = "starting"
        self.worker: Worker | None = None
        self.beside: set[Worker] = set()
        self.hopeless: Failure | None = None
        self._around = around
        self._deaths = DeathWindow(around.limits)
        self._starts = 0
        self._given_up = False
        self._answers = False

    @property
    def restarts(self) -> int:
        """How often a worker was started again here."""
        return max(self._starts - 1, 0)

    @property
    def answers(self) -> bool:
        """Whether a worker is ready here, even one of a slot that still counts as failed."""
        return self._answers

    @property
    def processes(self) -> list[Worker]:
        """All workers of this place, those beside the present one included."""
        return [*([self.worker] if self.worker else []), *self.beside]

    def info(self) -> WorkerInfo:
        """The slot as it is now."""
        worker = self.worker
        uptime_s = time.monotonic() - worker.started_at if worker else 0.0
        pid = worker.pid if worker else None
        return WorkerInfo(self.name, pid, self.state, self.restarts, uptime_s, self._answers)

    async def keep(self) -> None:
        """Keeps the slot filled until the pool closes."""
        while not self._closing():
            retrying = AsyncRetrying(
                wait=self._around.limits.wait(),
                stop=lambda _state: self._closing() or self._given_up or self._deaths.exceeded(),
                retry=retry_if_exception_type(WorkerDiedError),
                before_sleep=self._announce_wait,
                sleep=self._pause,
                reraise=True,
            )
            try:
                await retrying(self._fill)
            except WorkerDiedError as error:
                await self._give_up(error.failure)
        self._set("stopped")

    async def replace(self, patience_s: float) -> Worker | None:
        """Puts a new worker in the place of the present one, which leaves when that is ready.

        Args:
            patience_s: For the requests that the one that leaves has begun.

        Returns:
            The new worker; None where the present one ended meanwhile: the slot replaces it.

        Raises:
            WorkerDiedError: The new one never became ready; the present one stays.
        """
        present = self.worker
        if present is None or not self._answers:
            return None
        around = self._around
        successor = Worker.start(around.spec, self.place, around.log)
        self.beside.add(successor)
        try:
            await successor.ready(around.limits.ready_timeout_s)
            if self.worker is not present or not self._answers:
                return None
            self.worker = successor
            self._starts += 1
            self.beside.add(present)
            self.beside.discard(successor)
            around.on_change()
            await present.stop(patience_s)
            self.beside.discard(present)
        finally:
            if successor in self.beside:
                await successor.kill()
                self.beside.discard(successor)
            around.on_change()
        return successor

    def _closing(self) -> bool:
        return self._around.closing.is_set()

    async def _fill(self) -> None:
        """One life of a worker; returns where the next one may start at once.

        Raises:
            WorkerDiedError: It died before it had served for long, or too often.
        """
        if self._closing():
            return
        try:
            failure, stable = await self._live()
        except WorkerDiedError as error:
            failure, stable = error.failure, False
        if self._closing():
            return
        self._count_death(failure)
        if not stable or self._deaths.exceeded():
            raise WorkerDiedError(failure)

    async def _live(self) -> tuple[Failure, bool]:
        """Why the worker ended, and whether it had served long enough to count as healthy."""
        around = self._around
        self._starts += 1
        worker = Worker.start(around.spec, self.place, around.log)
        self.worker = worker
        self._set("starting")
        try:
            await worker.ready(around.limits.ready_timeout_s)
            self._answers = True
            self._set("ready")
            worker, stable = await self._watch(worker)
            return await worker.death(), stable
        except asyncio.CancelledError:
            await worker.kill()
            raise
        finally:
            self.worker, self._answers = None, False

    async def _watch(self, worker: Worker) -> tuple[Worker, bool]:
        """Waits for the end of the worker, or of the one that has replaced it by then.

        Returns:
            The one that ended, and whether that came after the time that makes it healthy.
        """
        stable = await self._outlive(worker)
        while self.worker is not None and self.worker is not worker:
            worker = self.worker
            stable = await self._outlive(worker)
        # Whatever is left to do for the dead, others take its connections from now on.
        self._answers = False
        self._around.on_change()
        return worker, stable

    async def _outlive(self, worker: Worker) -> bool:
        await asyncio.wait([worker.ended], timeout=self._around.limits.stable_s)
        if worker.ended.done():
            return False
        if self._given_up:  # tried again after all, and now it serves
            self._given_up = False
            self._deaths.clear()
            self._set("ready")
        await asyncio.wait([worker.ended])
        return True

    def _count_death(self, failure: Failure) -> None:
        self._deaths.add()
        if failure.final:
            self.hopeless = failure
        self._around.log("pool", f"{self.name}: {failure.message}")
        self._around.on_death(failure)
        self._set("waiting")

    def _announce_wait(self, state: RetryCallState) -> None:
        if self.hopeless is not None and self._starts == 1:
            return  # the pool ends its start, and this wait with it
        wait_s = state.next_action.sleep if state.next_action else 0.0
        self._around.log("pool", f"{self.name} is started again in {wait_s:.1f} s")

    async def _give_up(self, failure: Failure) -> None:
        """Says that the worker failed, and tries again only after a long pause.

        Until an attempt has served for a while the slot remains `failed`: it does not flap.
        """
        if self._closing():
            return
        pause_s = self._around.limits.failed_pause_s
        self._given_up = True
        self.hopeless = failure
        self._around.log("pool", f"{self.name} died too often; next attempt in {pause_s:g} s")
        self._set("failed")
        await self._pause(pause_s)

    async def _pause(self, seconds: float) -> None:
        """Sleeps, but no longer than the pool is open."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._around.closing.wait()

    def _set(self, state: SlotState) -> None:
        self.state = "failed" if self._given_up and state != "stopped" else state
        self._around.on_change()
