"""Time that is made up: hours pass within milliseconds, and always in the same order."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Final

_BEGINS: Final = 1_800_000_000.0


class _Due:
    """Something that is to be done."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act: Callable[[], object] | None = act

    def cancel(self) -> None:
        """It is not done any more."""
        self._act = None

    def do(self) -> None:
        """Does it, unless it was cancelled."""
        if self._act is not None:
            self._act()


class VirtualTime:
    """Clocks that stand until they are moved.

    Args:
        begins: What the wall clock shows at first, in seconds since the epoch.
    """

    def __init__(self, begins: float = _BEGINS) -> None:
        self._begins = begins
        self._passed = 0.0
        self._numbers = itertools.count()
        self._due: list[tuple[float, int, _Due]] = []

    def steady(self) -> float:
        """Seconds since the beginning."""
        return self._passed

    def wall(self) -> float:
        """Seconds since the epoch."""
        return self._begins + self._passed

    def after(self, seconds: float, act: Callable[[], object]) -> _Due:
        """Has something done when so many seconds have passed."""
        made = _Due(act)
        entry = (self._passed + max(0.0, seconds), next(self._numbers), made)
        heapq.heappush(self._due, entry)
        return made

    def pass_(self, seconds: float) -> None:
        """Lets time pass, and does what is due in it."""
        end = self._passed + seconds
        while self._due and self._due[0][0] <= end:
            at, _, due = heapq.heappop(self._due)
            self._passed = max(self._passed, at)
            due.do()
        self._passed = end

    def until(self, condition: Callable[[], bool], within_s: float, step_s: float = 1.0) -> bool:
        """Lets time pass until something is true; whether it came to be."""
        end = self._passed + within_s
        while not condition() and self._passed < end:
            self.pass_(min(step_s, end - self._passed))
        return condition()
