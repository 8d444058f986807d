"""Calls that may take long, away from the event loop: on threads, or on the main thread.

A scoring script runs on the main thread, one request at a time: there `SIGALRM` works, and what the
script imported in `init` finds itself on the thread it knows. A model runs on worker threads. Both
are the same queue with someone working at it.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any

from scoring.errors import OverloadedError

Done = Callable[[Any, BaseException | None], None]
Outcome = tuple[Any, BaseException | None]


class Job:
    """A call that waits, runs or is done."""

    __slots__ = ("call", "cancelled", "done")

    def __init__(self, call: Callable[[], Any], done: Done) -> None:
        self.call = call
        self.done = done
        self.cancelled = False

    def cancel(self) -> None:
        """It need not run any more; `done` is called only if it ran all the same."""
        self.cancelled = True


class Jobs:
    """A bounded queue of calls. `submit` and every `done` run on the event loop's thread.

    Args:
        post: Runs a callable on the event loop's thread (`loop.call_soon_threadsafe`).
        limit: How many calls may wait or run.
    """

    def __init__(self, post: Callable[..., object], limit: int) -> None:
        self._post = post
        self._limit = limit
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self.pending = 0

    def submit(self, call: Callable[[], Any], done: Done, *, unbounded: bool = False) -> Job:
        """Queues a call; `done` gets its result, or None and what it raised.

        Args:
            call: Runs on a worker.
            done: Runs on the event loop, unless the job was cancelled before it began.
            unbounded: Continues something that was let in before.

        Raises:
            OverloadedError: As many calls as allowed are waiting.
        """
        if self.pending >= self._limit and not unbounded:
            raise OverloadedError(
                f"{self.pending} requests are waiting already.", hint="Try again in a moment."
            )
        job = Job(call, done)
        self.pending += 1
        self._queue.put(job)
        return job

    def work(self) -> None:
        """Runs jobs, one after the other, until `stop`; call it on the thread that shall work."""
        while (job := self._queue.get()) is not None:
            outcome = None if job.cancelled else _run(job.call)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                self._post(self._finish, job, outcome)
            del job, outcome  # the next one may be long in coming

    def start_threads(self, count: int) -> None:
        """Starts workers; daemons, so that a model that hangs cannot keep the process."""
        for number in range(count):
            thread = threading.Thread(target=self.work, name=f"model-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Lets every worker go when it has done what is queued."""
        for _ in self._threads or (None,):
            self._queue.put(None)

    def _finish(self, job: Job, outcome: Outcome | None) -> None:
        self.pending -= 1
        if outcome is not None:
            job.done(*outcome)


def _run(call: Callable[[], Any]) -> Outcome:
    try:
        return call(), None
    except BaseException as error:  # noqa: BLE001 - user code may raise anything, SystemExit too
        return None, error
