"""Deadlines of calls that wait for a model: told when they pass, however long a run takes."""

from __future__ import annotations

import asyncio
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable

    from serve.server.models.call import Call


class Deadlines:
    """Takes calls whose deadline passes out of a queue. On the event loop's thread alone.

    There is one timer, for the earliest deadline: one for each call would keep its body until
    then, long after its answer.

    Args:
        queue: What waits; threads take from its left side meanwhile.
        late: Gets the calls that nobody has taken in time.
    """

    def __init__(self, queue: deque[Call], late: Callable[[list[Call]], None]) -> None:
        self._queue = queue
        self._late = late
        self._at = inf
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, deadline: float) -> None:
        """Looks at the queue when a deadline passes (`time.monotonic()`), if not before."""
        if deadline >= self._at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._at = deadline
        left_s = max(0.0, deadline - monotonic())
        self._timer = asyncio.get_running_loop().call_later(left_s, self._look)

    def stop(self) -> None:
        """Looks no more: nothing waits, and nothing will. It also forgets whom it told."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._at = inf
        self._late = _nobody

    def _look(self) -> None:
        self._timer = None
        self._at = inf
        now = monotonic()
        # A copy in one step: the queue may change between two steps of a loop over it.
        waiting = tuple(self._queue)
        late = [call for call in waiting if call.deadline <= now and self._take(call)]
        earliest = min((call.deadline for call in waiting if call.deadline > now), default=inf)
        if earliest != inf:
            self.watch(earliest)
        if late:
            self._late(late)

    def _take(self, call: Call) -> bool:
        """Whether the call was still waiting."""
        try:
            self._queue.remove(call)
        except (ValueError, IndexError):
            return False  # a thread has it, or changed the queue meanwhile and will look itself
        return True


def _nobody(_calls: list[Call]) -> None:
    """Takes the place of a model that has ended, which would else be held by its own timer."""
