"""The limit on one `run()`, and how long it took."""

from __future__ import annotations

import signal
import threading
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType


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
    if not timeout_ms or threading.current_thread() is not threading.main_thread():
        start = perf_counter()
        return function(**arguments), (perf_counter() - start) * 1000
    before = signal.signal(signal.SIGALRM, _expire)
    try:
        signal.setitimer(signal.ITIMER_REAL, timeout_ms / 1000)
        try:
            start = perf_counter()
            result = function(**arguments)
            return result, (perf_counter() - start) * 1000
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, before)


def _expire(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001  -- a handler
    raise ScoringExpired
