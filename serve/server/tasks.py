"""Coroutines on an event loop of the main thread: scripts with `async def run`.

The loop is a plain one of asyncio: uvloop's would take the wakeup descriptor by which signals reach
the server (docs/adr/0024).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from math import inf
from typing import TYPE_CHECKING, Any

from scoring.errors import DeadlineExceededError, ScoringFailedError
from serve.server import jobs

if TYPE_CHECKING:
    from collections.abc import Callable

    from serve.server.jobs import Done, Job, Outcome, Start

    Finish = Callable[[Job, Outcome | None], None]

logger = logging.getLogger(__name__)

_LEAVE_S = 0.5


class Task(jobs.Job):
    """A job that is a coroutine."""

    __slots__ = ("_cancel", "answered", "start", "task")

    def __init__(
        self, start: Start, done: Done, deadline: float, cancel: Callable[[Task], None]
    ) -> None:
        super().__init__(_no_call, done, deadline)
        self.start = start
        self.answered = False
        self.task: asyncio.Task[None] | None = None
        self._cancel = cancel

    def cancel(self) -> None:
        """It need not run any more; where it runs, its coroutine is cancelled."""
        self.cancelled = True
        self._cancel(self)


class Tasks:
    """The worker of `Jobs` whose calls are coroutines, and plain calls between them.

    Args:
        loop: Of the thread that calls `work`; closed there.
        concurrency: How many coroutines run at once; more wait, in their order.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, concurrency: int) -> None:
        self._loop = loop
        self._concurrency = concurrency
        self._running: set[Task] = set()
        self._waiting: deque[tuple[Task, Finish]] = deque()
        self._post: Callable[..., object] = loop.call_soon_threadsafe
        self._stopped = False

    def job(self, start: Start, done: Done, deadline: float) -> Task:
        """A job for `put`."""
        return Task(start, done, deadline, self._cancel)

    def put(self, job: Job, finish: Finish) -> None:
        """Has a job run; from any thread.

        Args:
            job: A task of `job`, or a plain call.
            finish: Called where `work` was told to post, with the outcome, or None without one.
        """
        self._call(self._begin, job, finish)

    def work(self, post: Callable[..., object]) -> None:
        """Runs what is put until `stop`, then cancels what is left, and closes the loop.

        Args:
            post: Runs a callable on the thread of the server's event loop.
        """
        self._post = post
        asyncio.set_event_loop(self._loop)
        while not self._stopped:
            try:
                self._loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                logger.exception("The script asked to end the process in a task of its own")
        self._loop.run_until_complete(self._leave())
        self._loop.close()
        asyncio.set_event_loop(None)

    def stop(self) -> None:
        """Lets `work` return when it has begun what is queued; from any thread."""
        self._call(self._stop)

    # From other threads

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(function, *arguments)

    def _cancel(self, task: Task) -> None:
        self._call(self._cancel_here, task)

    # On the loop

    def _stop(self) -> None:
        self._stopped = True
        self._loop.stop()

    def _cancel_here(self, task: Task) -> None:
        if task.task is not None:
            task.task.cancel()

    def _begin(self, job: Job, finish: Finish) -> None:
        if not isinstance(job, Task):
            self._post(finish, job, jobs.run(job))
        elif len(self._running) < self._concurrency:
            self._start(job, finish)
        else:
            self._waiting.append((job, finish))

    def _start(self, task: Task, finish: Finish) -> None:
        if task.cancelled or not task.take():
            self._post(finish, task, None)
            return
        self._running.add(task)
        task.task = self._loop.create_task(self._drive(task, finish))

    async def _drive(self, task: Task, finish: Finish) -> None:
        try:
            await self._run(task)
        except asyncio.CancelledError:
            outcome = None
        except BaseException as error:  # noqa: BLE001 - told, or logged
            outcome = (None, error)
        else:
            outcome = None if task.answered else (None, ScoringFailedError("no answer was given"))
        if task.answered and outcome is not None:
            logger.error("A script failed behind its answer", exc_info=outcome[1])
            outcome = None
        self._post(finish, task, outcome)
        self._running.discard(task)
        self._start_waiting()

    async def _run(self, task: Task) -> None:
        def respond(result: Any) -> None:
            task.answered = True
            self._post(task.done, result, None)

        when = None if task.deadline == inf else task.deadline
        try:
            async with asyncio.timeout_at(when) as limit:
                await task.start(respond)
        except TimeoutError:
            if not limit.expired():
                raise
            raise DeadlineExceededError(
                "The deadline of the request passed while it was answered.",
                hint="Send it again with more time.",
                where="timeout-ms",
            ) from None

    def _start_waiting(self) -> None:
        while self._waiting and len(self._running) < self._concurrency:
            self._start(*self._waiting.popleft())

    async def _leave(self) -> None:
        """Ends what the script has left, within a moment."""
        own = asyncio.current_task()
        left = [task for task in asyncio.all_tasks() if task is not own]
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=_LEAVE_S)
        await self._loop.shutdown_asyncgens()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LEAVE_S):
                await self._loop.shutdown_default_executor()


def _no_call() -> None:
    """A task has a coroutine in the place of a call."""
