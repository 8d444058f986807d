"""Time as the hot path needs it: read twice a second, not once a request."""

from __future__ import annotations

import time

from serve.server.wire import http_date, ok_head


class Clock:
    """The time of the last tick.

    Attributes:
        now: Monotonic seconds.
        date: The value of the `Date` header.
        ok_head: The head of a 200 with JSON, up to the value of its length.
    """

    __slots__ = ("_second", "date", "now", "ok_head")

    def __init__(self) -> None:
        self._second = -1
        self.tick()

    def tick(self) -> None:
        """Reads the clocks anew."""
        self.now = time.monotonic()
        second = int(time.time())
        if second != self._second:
            self._second = second
            self.date = http_date(second)
            self.ok_head = ok_head(self.date)
