"""Calls for one worker that are often quick: the loop and the worker take turns.

Each time that two threads take turns costs as much as a quick call does. So the calls of one turn
of the loop go to the worker at its end, and the outcomes of quick calls come back when it has
nothing more to do, or after a millisecond. Both are told by pipes: who writes there gives up the
interpreter's lock, so that the other thread, awake at once, need not wait for it and sleep again.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING

from serve.server.jobs import run

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from serve.server.jobs import Job, Outcome

_QUICK_S = 0.0005
_PATIENCE_S = 0.001
_MANY = 4096


class Bell:
    """Wakes one thread; what is behind it has to be looked at before each sleep, and after."""

    def __init__(self) -> None:
        self.descriptor, self._rung = os.pipe()

    def ring(self) -> None:
        """Wakes the other thread."""
        os.write(self._rung, b"\0")

    def wait(self) -> None:
        """Sleeps until it has been rung, however often, since the last time."""
        os.read(self.descriptor, _MANY)

    def __del__(self) -> None:
        os.close(self.descriptor)
        os.close(self._rung)


class Turns:
    """A queue between the event loop's thread, for which all is but `work`, and one worker.

    Args:
        loop: The event loop.
        finish: Gets a job and its outcome, on the loop.
        resting: Called by the worker each time before it waits for more.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        finish: Callable[[Job, Outcome | None], None],
        resting: Callable[[], object],
    ) -> None:
        self._loop = loop
        self._finish = finish
        self._resting = resting
        self._gathered: list[Job] = []
        self._waiting: deque[Job | None] = deque()
        self._outcomes: deque[tuple[Job, Outcome | None]] = deque()
        self._work, self._done = Bell(), Bell()
        # Whether the worker has to be woken, the loop has been, and it looks by itself soon.
        self._asleep = self._told = self._patient = False
        os.set_blocking(self._done.descriptor, False)
        loop.add_reader(self._done.descriptor, self._hear)

    def put(self, job: Job) -> None:
        """Queues a job."""
        if not self._gathered:
            self._loop.call_soon(self._hand_over)
        self._gathered.append(job)

    def stop(self) -> None:
        """Lets the worker go when it has done what is queued."""
        self._hand_over()
        self._waiting.append(None)
        self._work.ring()

    def _hand_over(self) -> None:
        gathered, self._gathered = self._gathered, []
        if gathered and not self._patient and (self._waiting or len(gathered) > 1):
            self._patient = True
            self._loop.call_later(_PATIENCE_S, self._look)
        self._waiting.extend(gathered)
        if self._asleep:
            self._asleep = False
            self._work.ring()

    def _look(self) -> None:
        """The worker has had its time: from here on each outcome is told at once."""
        self._patient = False
        self._take()

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._done.wait()
        self._told = False  # before looking: what comes from here on is told again
        self._take()

    def _take(self) -> None:
        outcomes = self._outcomes
        try:
            for _ in range(len(outcomes)):
                self._finish(*outcomes.popleft())
        finally:
            if outcomes:
                self._tell()

    # On the worker's thread

    def work(self) -> None:
        """Runs jobs, one after the other, until `stop`."""
        waiting = self._waiting
        while True:
            while waiting:
                job = waiting.popleft()
                if job is None:
                    self._resting()
                    self._tell()
                    return
                begun = perf_counter()
                self._outcomes.append((job, run(job)))
                del job  # the next one may be long in coming
                if not waiting or not self._patient or perf_counter() - begun > _QUICK_S:
                    self._tell()
            self._resting()
            self._asleep = True
            if waiting:  # that came before the loop could see it
                self._asleep = False
            else:
                self._work.wait()

    def _tell(self) -> None:
        if self._outcomes and not self._told:
            self._told = True
            self._done.ring()
