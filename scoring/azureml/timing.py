"""The limit on one `run()`, and how long it took."""

from __future__ import annotations

import signal
import threading

# What `signal.signal` calls; that one makes enumerations, at several times the cost of the rest.
from _signal import signal as set_handler  # type: ignore[import-not-found]
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType

_ALARM = int(signal.SIGALRM)


class ScoringExpired(TimeoutError):  # noqa: N818  -- a TimeoutError, as scripts know it
    """Raised inside `run()` when its time is over."""


def call(
    function: Callable[..., Any], arguments: Mapping[str, Any], timeout_ms: int
) -> tuple[Any, float]:
    """Calls a function within a time limit.

    The limit is kept with SIGALRM, which only the main thread can handle; on other threads, and
    for a limit of 0, the call is only timed.

    Returns:
        What the function returned, and the elapsed time in milliseconds.

    Raises:
        ScoringExpired: The time is over and the function did not catch that itself.
    """
    if not timeout_ms or threading.get_ident() != threading.main_thread().ident:
        start = perf_counter()
        return function(**arguments), (perf_counter() - start) * 1000
    before = set_handler(_ALARM, _expire)
    try:
        signal.setitimer(signal.ITIMER_REAL, timeout_ms / 1000)
        try:
            start = perf_counter()
            result = function(**arguments)
            return result, (perf_counter() - start) * 1000
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        set_handler(_ALARM, before)


def _expire(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001  -- a handler
    raise ScoringExpired
