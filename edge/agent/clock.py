"""What time it is at least, on a device whose clock may lie.

A clock that is behind would take expired metadata for fresh; one that is ahead takes fresh
metadata for expired, which stops updates and nothing else. The floor is the latest time that
somebody has signed, and what has passed since by a clock that is never set. The device's own clock
never raises it: one wrong date would otherwise stand for ever.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from edge.agent import windows
from edge.agent.steps import Moment

_KEY: Final = "clock.floor"
_NOTE_EVERY_S: Final = 600.0
_LATEST: Final = 253_402_300_799.0  # the end of the year 9999: what a date can say


class Notes(Protocol):
    """Where the floor is kept: the journal."""

    def note(self, key: str) -> str | None:
        """The text kept under a key."""
        ...

    def set_note(self, key: str, text: str) -> None:
        """Keeps a text under a key."""
        ...


class Clock:
    """The device's clocks.

    Args:
        notes: Where the floor is kept.
        wall: Seconds since the epoch, as the system has it.
        steady: Seconds of a clock that is never set.
    """

    def __init__(
        self,
        notes: Notes,
        *,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._notes = notes
        self._wall = wall
        self._steady = steady
        self._lock = threading.Lock()
        self._base = _read(notes.note(_KEY))
        self._base_at = steady()
        self._noted = self._base

    def floor(self) -> float:
        """The earliest time that it can be; 0 where nothing signed was seen yet."""
        if not self._base:
            return 0.0
        return min(self._base + max(0.0, self._steady() - self._base_at), _LATEST)

    def now(self) -> float:
        """Seconds since the epoch: the system's time, or the floor where that is later."""
        return max(min(self._wall(), _LATEST), self.floor())

    def moment(self) -> Moment:
        """Now, for the state machine."""
        return Moment(self._steady(), windows.local(self.now()))

    def behind_s(self) -> float:
        """By how much the system's clock is behind the floor; 0 where it is not."""
        return max(0.0, self.floor() - self._wall())

    def saw_signed(self, seconds: float) -> None:
        """A time has been seen under a signature that was checked.

        Raises:
            WorkspaceError: It could not be kept; it holds until the next start.
        """
        with self._lock:
            if not self.floor() < seconds <= _LATEST:
                return
            self._base, self._base_at = seconds, self._steady()
            self._keep(seconds)

    def keep(self) -> None:
        """Keeps the floor now and then, so that it goes on from there after a restart.

        Raises:
            WorkspaceError: It could not be kept.
        """
        with self._lock:
            floor = self.floor()
            if floor >= self._noted + _NOTE_EVERY_S:
                self._keep(floor)

    def _keep(self, seconds: float) -> None:
        self._notes.set_note(_KEY, repr(seconds))
        self._noted = seconds


def _read(text: str | None) -> float:
    try:
        seconds = float(text or 0)
    except ValueError:
        return 0.0
    return seconds if 0 <= seconds <= _LATEST else 0.0
