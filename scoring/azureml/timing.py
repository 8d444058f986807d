"""The limit on one `run()`, and how long it took."""

from __future__ import annotations

import signal
import threading

# What `signal` wraps; its own functions make enumerations, at several times the cost of the rest.
from _signal import getsignal  # type: ignore[import-not-found]
from _signal import signal as set_handler
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType

_ALARM, _DEFAULT = int(signal.SIGALRM), int(signal.SIG_DFL)
_SOON_S = 1e-4  # no time at all would take the timer down


class ScoringExpired(TimeoutError):  # noqa: N818  -- a TimeoutError, as scripts know it
    """Raised inside `run()` when its time is over."""


class _Alarm:
    """SIGALRM is the process's, and so is what is known of it.

    Attributes:
        deadline: Of the call that runs; infinite for none.
        ours: We handle it.
        before: Who handled it before us.
        kept: It stays ours between calls, until `rest`.
    """

    deadline = inf
    ours = False
    before: Any = None
    kept = False


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
    outer = _Alarm.deadline
    try:
        start = _set(timeout_ms / 1000)
        result = function(**arguments)
        return result, (perf_counter() - start) * 1000
    finally:
        _Alarm.deadline = outer
        if outer == inf and not _Alarm.kept:
            rest()


def keep() -> None:
    """Leaves the alarm ours between calls; who says so calls `rest` before it waits for the next.

    To take it and give it back costs as much as all else around a quick `run()`.
    """
    _Alarm.kept = True


def rest() -> None:
    """Gives the alarm back, with no timer running."""
    if not _Alarm.ours:
        return
    signal.setitimer(signal.ITIMER_REAL, 0)
    set_handler(_ALARM, _Alarm.before)
    _Alarm.ours, _Alarm.before = False, None


def _set(limit_s: float) -> float:
    """Has the alarm ring when the limit is over, or before; returns the time."""
    handler = getsignal(_ALARM)
    if handler is not _expire:  # it is not ours yet, or a script has taken it from us
        set_handler(_ALARM, _expire)
        if not _Alarm.ours:
            # None is one that was not set by Python, and that it cannot give back.
            _Alarm.ours, _Alarm.before = True, _DEFAULT if handler is None else handler
    now = perf_counter()
    _Alarm.deadline = min(now + limit_s, _Alarm.deadline)
    # The timer of an earlier call does as long as it is not soon over: `_expire` sets it anew.
    if not limit_s / 2 < signal.getitimer(signal.ITIMER_REAL)[0] <= limit_s:
        signal.setitimer(signal.ITIMER_REAL, max(_Alarm.deadline - now, _SOON_S))
    return now


def _expire(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001  -- a handler
    left_s = _Alarm.deadline - perf_counter()
    if left_s <= 0:
        raise ScoringExpired
    if left_s < inf:
        signal.setitimer(signal.ITIMER_REAL, max(left_s, _SOON_S))
