"""When a worker that died is started again, and when that is given up. Pure but for the clock."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tenacity import wait_exponential, wait_random

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenacity.wait import wait_base


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a pool; every one is finite.

    Attributes:
        ready_timeout_s: Until a worker has loaded its model.
        drain_timeout_s: For the requests that a leaving worker has begun.
        leave_s: Beyond the drain, until a worker that has not gone is killed.
        max_restarts: Deaths of one worker within `window_s` that are answered by a restart.
        window_s: How long a death counts.
        stable_s: A worker that served this long starts again at once, with no wait.
        first_wait_s: Before the first restart of a worker that died early; doubles each time.
        longest_wait_s: Where the doubling ends.
        jitter_s: At most this much is added to each wait, by chance.
        failed_pause_s: Between the attempts to bring back a worker that was given up.
        worker_max_mib: Memory beyond which a worker is replaced; 0 for no limit.
        memory_look_s: Between two looks at the memory of the workers.
        replace_pause_s: The youngest that a worker is replaced for its memory; doubles each time
            that its successor is over the limit sooner.
        longest_replace_pause_s: Where that doubling ends.
    """

    ready_timeout_s: float = 60.0
    drain_timeout_s: float = 30.0
    leave_s: float = 2.0
    max_restarts: int = 5
    window_s: float = 60.0
    stable_s: float = 10.0
    first_wait_s: float = 0.1
    longest_wait_s: float = 10.0
    jitter_s: float = 0.1
    failed_pause_s: float = 60.0
    worker_max_mib: int = 0
    memory_look_s: float = 3.0
    replace_pause_s: float = 10.0
    longest_replace_pause_s: float = 3600.0

    def wait(self) -> wait_base:
        """The wait before each restart: exponential, with jitter."""
        growing = wait_exponential(multiplier=self.first_wait_s, max=self.longest_wait_s)
        return growing + wait_random(0, self.jitter_s)


class DeathWindow:
    """Counts deaths within a sliding window of time."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._deaths: deque[float] = deque()

    def add(self) -> None:
        """Counts one death, now."""
        self._deaths.append(self._clock())

    def exceeded(self) -> bool:
        """Whether there were more deaths within the window than restarts are allowed."""
        oldest = self._clock() - self._limits.window_s
        while self._deaths and self._deaths[0] < oldest:
            self._deaths.popleft()
        return len(self._deaths) > self._limits.max_restarts

    def clear(self) -> None:
        """Forgets all deaths: the worker has served long enough."""
        self._deaths.clear()
