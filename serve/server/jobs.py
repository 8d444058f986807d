"""Calls that may take long, away from the event loop: on threads, or on the main thread.

A scoring script runs on the main thread, one request at a time: there `SIGALRM` works, and what the
script imported in `init` finds itself on the thread it knows. One with `async def run` runs there
on an event loop of its own, many requests at once (`serve.server.tasks`). A model runs on worker
threads. All are the same queue with someone working at it.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Coroutine
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from scoring.errors import DeadlineExceededError, OverloadedError

if TYPE_CHECKING:
    from serve.server.tasks import Tasks
    from serve.server.turns import Turns

Done = Callable[[Any, BaseException | None], None]
Outcome = tuple[Any, BaseException | None]
Respond = Callable[[Any], None]
Start = Callable[[Respond], Coroutine[Any, Any, None]]
"""Makes a coroutine that gives its result to `respond`, and may go on after that."""


class Job:
    """A call that waits, runs or is done.

    Attributes:
        call: What a worker runs.
        done: Gets its outcome on the event loop.
        deadline: In `time.monotonic()`: not begun after that.
        cancelled: Nobody waits for it.
    """

    __slots__ = ("_taken", "call", "cancelled", "deadline", "done")

    def __init__(self, call: Callable[[], Any], done: Done, deadline: float = inf) -> None:
        self.call = call
        self.done = done
        self.deadline = deadline
        self.cancelled = False
        self._taken = threading.Lock()

    def take(self) -> bool:
        """Whether the caller is the first to ask: the one that runs it, or that says it is late."""
        return self._taken.acquire(blocking=False)

    def cancel(self) -> None:
        """It need not run any more; `done` is called only if it ran all the same."""
        self.cancelled = True


class Jobs:
    """A bounded queue of calls. `submit` and every `done` run on the event loop's thread.

    Args:
        post: Runs a callable on the event loop's thread (`loop.call_soon_threadsafe`).
        limit: How many calls may wait or run.

    Attributes:
        pending: How many calls wait or run.
    """

    def __init__(self, post: Callable[..., object], limit: int) -> None:
        self._post = post
        self._limit = limit
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._tasks: Tasks | None = None
        self._turns: Turns | None = None
        self._expiry = Expiry()
        self.pending = 0

    def run_on(self, tasks: Tasks) -> None:
        """Has everything run on an event loop of the thread that calls `work`."""
        self._tasks = tasks

    def take_turns(
        self, loop: asyncio.AbstractEventLoop, resting: Callable[[], object] = lambda: None
    ) -> None:
        """For one worker whose calls are often quick; see `serve.server.turns`.

        Args:
            loop: On whose thread everything is submitted and done.
            resting: Called by the worker each time before it waits for more.
        """
        from serve.server.turns import Turns  # noqa: PLC0415 - for scripts alone

        self._turns = Turns(loop, self._finish, resting)

    def submit(
        self,
        call: Callable[[], Any],
        done: Done,
        *,
        unbounded: bool = False,
        deadline: float = inf,
    ) -> Job:
        """Queues a call; `done` gets its result, or None and what it raised.

        Args:
            call: Runs on a worker.
            done: Runs on the event loop, unless the job was cancelled before it began.
            unbounded: Continues something that was let in before.
            deadline: In `time.monotonic()`; a call that has not begun by then is not run.

        Raises:
            OverloadedError: As many calls as allowed are waiting.
            DeadlineExceededError: The deadline has passed already.
        """
        self._require_room(deadline, unbounded=unbounded)
        job = Job(call, done, deadline)
        self._enter(job)
        if self._tasks is not None:
            self._tasks.put(job, self._finish)
        elif self._turns is not None:
            self._turns.put(job)
        else:
            self._queue.put(job)
        return job

    def submit_coroutine(self, start: Start, done: Done, *, deadline: float = inf) -> Job:
        """Queues a coroutine, after `run_on`; `done` gets what it gives to its `respond`.

        Args:
            start: See `Start`. Runs on the loop of `run_on`, which cancels it when the job is
                cancelled or its deadline passes.
            done: Runs on the event loop, unless the job was cancelled before it had a result.
            deadline: In `time.monotonic()`.

        Raises:
            OverloadedError: As many calls as allowed are waiting.
            DeadlineExceededError: The deadline has passed already.
        """
        assert self._tasks is not None
        self._require_room(deadline)
        job = self._tasks.job(start, done, deadline)
        self._enter(job)
        self._tasks.put(job, self._finish)
        return job

    def work(self) -> None:
        """Runs jobs, one after the other, until `stop`; call it on the thread that shall work."""
        if self._tasks is not None:
            self._tasks.work(self.post)
            return
        if self._turns is not None:
            self._turns.work()
            return
        while (job := self._queue.get()) is not None:
            outcome = run(job)
            self.post(self._finish, job, outcome)
            del job, outcome  # the next one may be long in coming

    def start_threads(self, count: int, name: str = "model") -> None:
        """Starts workers; daemons, so that a model that hangs cannot keep the process."""
        for number in range(count):
            thread = threading.Thread(target=self.work, name=f"{name}-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Lets every worker go when it has done what is queued."""
        if self._tasks is not None:
            self._tasks.stop()
        if self._turns is not None:
            self._turns.stop()
        for _ in self._threads or (None,):
            self._queue.put(None)

    def join(self, timeout_s: float) -> None:
        """Waits, after `stop`, until the threads have done what is queued."""
        for thread in self._threads:
            thread.join(timeout_s)

    def post(self, call: Callable[..., object], *arguments: object) -> None:
        """Runs something on the event loop's thread; nothing happens once that loop is closed."""
        with contextlib.suppress(RuntimeError):
            self._post(call, *arguments)

    def _require_room(self, deadline: float, *, unbounded: bool = False) -> None:
        if self.pending >= self._limit and not unbounded:
            raise OverloadedError(
                f"{self.pending} requests are waiting already.", hint="Try again in a moment."
            )
        if deadline != inf and deadline <= monotonic():
            raise late()

    def _enter(self, job: Job) -> None:
        self.pending += 1
        if job.deadline != inf:
            # Told in time, and not when the worker comes to it: that may be much later.
            self._expiry.watch(job)

    def _finish(self, job: Job, outcome: Outcome | None) -> None:
        self.pending -= 1
        if job.deadline != inf:
            self._expiry.forget(job)
        if outcome is not None:
            job.done(*outcome)


class Expiry:
    """Tells jobs that wait past their deadline so. On the event loop's thread alone.

    There is one timer, for the earliest deadline: one for each job would keep its request until
    then, long after its answer.
    """

    def __init__(self) -> None:
        self._jobs: set[Job] = set()
        self._at = inf
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, job: Job) -> None:
        """Looks at a job when its deadline has passed."""
        self._jobs.add(job)
        self._look_at(job.deadline)

    def forget(self, job: Job) -> None:
        """It has its outcome."""
        self._jobs.discard(job)
        if not self._jobs and self._timer is not None:
            self._timer.cancel()
            self._timer, self._at = None, inf

    def _look_at(self, deadline: float) -> None:
        if deadline >= self._at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._at = deadline
        left_s = max(0.0, deadline - monotonic())
        self._timer = asyncio.get_running_loop().call_later(left_s, self._look)

    def _look(self) -> None:
        self._timer, self._at = None, inf
        now = monotonic()
        late = [job for job in self._jobs if job.deadline <= now]
        self._jobs.difference_update(late)
        self._look_at(min((job.deadline for job in self._jobs), default=inf))
        for job in late:
            _expire(job)


def run(job: Job) -> Outcome | None:
    """What a job's call brought; None where it was cancelled, or told to be late."""
    if job.cancelled or not job.take():
        return None
    try:
        return job.call(), None
    except BaseException as error:  # noqa: BLE001 - user code may raise anything, SystemExit too
        return None, error


def late() -> DeadlineExceededError:
    """What a sender is told whose deadline has passed."""
    return DeadlineExceededError(
        "The deadline of the request passed before it was its turn.",
        hint="Send it again with more time, or when there is less to do.",
        where="timeout-ms",
    )


def _expire(job: Job) -> None:
    if not job.cancelled and job.take():
        job.done(None, late())
