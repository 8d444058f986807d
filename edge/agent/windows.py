"""Time windows: when a device may switch, by its own clock and its own calendar."""

from __future__ import annotations

import time
from typing import NamedTuple

from edge.protocol.messages import Window

_DAY_MINUTES = 24 * 60
_WEEK_DAYS = 7


class Local(NamedTuple):
    """A moment as the device's wall clock shows it.

    Attributes:
        day: 0 for Monday to 6 for Sunday.
        minute: Since midnight.
    """

    day: int
    minute: int


def local(seconds: float) -> Local:
    """The local time of a moment in seconds since the epoch."""
    there = time.localtime(seconds)
    return Local(there.tm_wday, there.tm_hour * 60 + there.tm_min)


def is_open(window: Window | None, now: Local) -> bool:
    """Whether a device may switch now.

    A window whose beginning and end are the same minute is open all day. One that ends before it
    begins goes on into the next day, and belongs to the day on which it began.
    """
    if window is None:
        return True
    yesterday = (now.day - 1) % _WEEK_DAYS
    if window.begins < window.ends:
        return _has(window, now.day) and window.begins <= now.minute < window.ends
    if now.minute >= window.begins:
        return _has(window, now.day)
    return now.minute < window.ends and _has(window, yesterday)


def minutes_until_open(window: Window | None, now: Local) -> int:
    """How long until the window opens; 0 where it is open.

    Clocks that are put forward or back in between make the wait shorter or longer.
    """
    if is_open(window, now):
        return 0
    assert window is not None
    starts = (
        day * _DAY_MINUTES + window.begins - now.minute
        for day in range(_WEEK_DAYS + 1)
        if _has(window, (now.day + day) % _WEEK_DAYS)
    )
    return min(start for start in starts if start > 0)


def _has(window: Window, day: int) -> bool:
    return not window.days or day in window.days
