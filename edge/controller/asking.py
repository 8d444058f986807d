"""Asks the broker, little by little, what it has kept of each device.

A broker drops messages without a word when a reader's queue is full: thousands of devices that
come back at once fill it. What a device is and does is retained, so it is only to be asked for
again: soon after a connection, and then less and less often. Pure; time is an argument.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from edge.protocol.topics import Topic

FIRST_S: Final = 20.0
LAST_S: Final = 640.0
MOST: Final = 100
"""At a time, so that the answers do not fill a queue themselves."""


class Asking:
    """What is to be asked for when.

    Args:
        first_s: After a connection until everything is asked for.
        last_s: Between two rounds at most; each waits twice as long as the one before.
        most: Topics at a time.
    """

    def __init__(
        self, *, first_s: float = FIRST_S, last_s: float = LAST_S, most: int = MOST
    ) -> None:
        self._first_s, self._last_s, self._most = first_s, last_s, most
        self._left: deque[Topic] = deque()
        self._pause_s = first_s
        self._due = float("inf")

    def connected(self, now: float) -> None:
        """A connection stands."""
        self._left.clear()
        self._pause_s = self._first_s
        self._due = now + self._first_s

    def lost(self) -> None:
        """There is nobody to ask."""
        self._left.clear()
        self._due = float("inf")

    def due(self, now: float, everything: Callable[[], Iterable[Topic]]) -> list[Topic]:
        """What is to be asked for now.

        Args:
            now: Of a clock that is never set, in seconds.
            everything: Gives the retained topics of all devices.
        """
        if now >= self._due:
            self._left = deque(everything())
            self._pause_s = min(self._last_s, 2 * self._pause_s)
            self._due = now + self._pause_s
        return [self._left.popleft() for _ in range(min(self._most, len(self._left)))]
