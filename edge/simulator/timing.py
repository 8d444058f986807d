"""What a simulated device does later: on an event loop, or in time that is made up."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol


class Later(Protocol):
    """Something that will be done, unless it is cancelled."""

    def cancel(self) -> None:
        """It is not done any more."""
        ...


class Time(Protocol):
    """Clocks, and what is to be done when."""

    def steady(self) -> float:
        """Seconds of a clock that is never set."""
        ...

    def wall(self) -> float:
        """Seconds since the epoch."""
        ...

    def after(self, seconds: float, act: Callable[[], object]) -> Later:
        """Has something done, on the same thread, when so many seconds have passed."""
        ...


class LoopTime:
    """The time of an event loop.

    Args:
        call_later: `asyncio`'s, of the loop that runs the devices.
    """

    def __init__(self, call_later: Callable[[float, Callable[[], object]], Later]) -> None:
        self._call_later = call_later

    def steady(self) -> float:
        """Seconds of a clock that is never set."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def after(self, seconds: float, act: Callable[[], object]) -> Later:
        """Has something done."""
        return self._call_later(seconds, act)
