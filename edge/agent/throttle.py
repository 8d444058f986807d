"""How fast may be fetched, how slow may not, and when to stop."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

_BURST_S: Final = 0.25


class StoppedError(Exception):
    """Whoever asked for something does not want it any more; not an error of anyone's."""


class Stop:
    """Asks work on another thread to end, and wakes it where it waits for a network."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._waking: list[Callable[[], None]] = []

    def set(self) -> None:
        """Ends it."""
        with self._lock:
            self._event.set()
            waking = list(self._waking)
        for wake in waking:
            wake()

    @property
    def is_set(self) -> bool:
        """Whether it is to end."""
        return self._event.is_set()

    def check(self) -> None:
        """Raises `StoppedError` where it is to end."""
        if self._event.is_set():
            raise StoppedError

    def wait(self, seconds: float) -> None:
        """Waits; raises `StoppedError` as soon as it is to end."""
        if self._event.wait(max(0.0, seconds)):
            raise StoppedError

    @contextlib.contextmanager
    def waking(self, wake: Callable[[], None]) -> Iterator[None]:
        """Has something called at the end, which breaks a wait inside the block."""
        with self._lock:
            self._waking.append(wake)
        try:
            self.check()
            yield
        finally:
            with self._lock:
                self._waking.remove(wake)


class Throttle:
    """Bytes a second, shared by all that are fetched at once.

    Args:
        rate: The most; 0 for no limit. May be set anew at any time.
        steady: Seconds of a clock that is never set.
    """

    def __init__(self, rate: int = 0, *, steady: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self._steady = steady
        self._lock = threading.Lock()
        self._free_at = steady()

    def piece(self, most: int) -> int:
        """How many bytes to read at once, so that the rate is even."""
        return max(1, min(most, int(self.rate * _BURST_S))) if self.rate else most

    def delay(self, count: int) -> float:
        """Counts bytes that have come; how many seconds to wait before the next."""
        if not self.rate:
            return 0.0
        with self._lock:
            now = self._steady()
            self._free_at = max(self._free_at, now - _BURST_S) + count / self.rate
            return max(0.0, self._free_at - now)


class Slowness:
    """Tells a connection that delivers too little from one that is only throttled by us.

    Args:
        least_rate: Bytes a second that have to come.
        over_s: On average over so many seconds.
        steady: Seconds of a clock that is never set.
    """

    def __init__(
        self, least_rate: float, over_s: float, *, steady: Callable[[], float] = time.monotonic
    ) -> None:
        self._least = least_rate * over_s
        self._over_s = over_s
        self._steady = steady
        self._since = steady()
        self._count = 0

    def too_slow(self, count: int, waited_s: float = 0.0) -> bool:
        """Counts bytes; whether too few have come in the time that has passed.

        Args:
            count: Bytes that have come.
            waited_s: How long we have waited on purpose since the last call.
        """
        self._count += count
        self._since += waited_s
        now = self._steady()
        if now - self._since < self._over_s:
            return False
        slow = self._count < self._least
        self._since, self._count = now, 0
        return slow
