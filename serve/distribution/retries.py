"""Tries again what fails for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from serve.distribution.faults import Passing

if TYPE_CHECKING:
    from tenacity import RetryCallState

    from serve.distribution.limits import Limits

_Result = TypeVar("_Result")
_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 5.0


def persist(
    attempt: Callable[[], _Result],
    limits: Limits,
    *,
    known: Callable[[], bool],
    sleep: Callable[[float], None] = time.sleep,
) -> _Result:
    """What the attempt returns, at once or later.

    Args:
        attempt: Raises `Passing` for what may go well later.
        limits: How long and how often.
        known: Whether the other side has answered before: who has, is waited for longer.
        sleep: Waits; given by tests.

    Raises:
        FieldpostError: What the last attempt failed with.
    """
    start = time.monotonic()
    try:
        return attempt()
    except Passing as passing:
        first = passing
    try:
        return _again(attempt, limits, first, known, sleep, start)
    except Passing as passing:
        raise passing.error from passing


def _again(
    attempt: Callable[[], _Result],
    limits: Limits,
    first: Passing,
    known: Callable[[], bool],
    sleep: Callable[[float], None],
    start: float,
) -> _Result:
    from tenacity import Retrying, retry_if_exception_type, wait_random_exponential  # noqa: PLC0415

    pending = [first]
    backoff = wait_random_exponential(multiplier=_FIRST_WAIT_S, max=_LONGEST_WAIT_S, min=0.05)

    def once() -> _Result:
        if pending:  # the attempt that was made before tenacity was needed
            raise pending.pop()
        return attempt()

    def wait(state: RetryCallState) -> float:
        asked = _passing(state).after_s
        return backoff(state) if asked is None else asked

    def stop(state: RetryCallState) -> bool:
        passing = _passing(state)
        patience = limits.patience_s
        if passing.silent and not known():
            patience = limits.first_patience_s
        spent = time.monotonic() - start
        return state.attempt_number >= limits.attempts or (
            spent + (state.upcoming_sleep or 0) > patience
        )

    retrying = Retrying(
        retry=retry_if_exception_type(Passing), wait=wait, stop=stop, sleep=sleep, reraise=True
    )
    return retrying(once)


def _passing(state: RetryCallState) -> Passing:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, Passing)
    return error
