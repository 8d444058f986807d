"""What a generator `run()` yields, as the body of an answer."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from scoring.azureml import coroutines, failures, timing

if TYPE_CHECKING:
    from contextvars import Context

    from scoring.azureml.events import Form

T = TypeVar("T")

END = object()
"""The first value of a stream without any."""

# Nearly every result is one of these, and asking an ABC costs a microsecond.
_PLAIN = frozenset({dict, list, str, int, float, bool, type(None)})

logger = logging.getLogger("azmlinfsrv")


class Started:
    """Values that come one by one, of which the first is there.

    Attributes:
        first: The first value, or `END`.
        values: The others.
        is_async: They have to be awaited.
    """

    def __init__(self, first: Any, values: Any) -> None:
        self.first = first
        self.values = values
        self.is_async = isinstance(values, AsyncIterator)


def start(result: Any) -> Any:
    """What `run()` returned; of an iterator the first value is made, of an awaitable the result."""
    if type(result) in _PLAIN:
        return result
    result = coroutines.complete(result, None)
    if isinstance(result, AsyncIterator):
        result = coroutines.Iterated(result)
    if isinstance(result, Iterator):
        return Started(next(result, END), result)
    return result


class ValueStream(Iterator[bytes]):
    """The chunks of an iterator's values; each value has the time limit of a `run()`.

    Args:
        started: The values.
        form: How they are sent.
        timeout_ms: For one value.
    """

    def __init__(self, started: Started, form: Form, timeout_ms: int) -> None:
        self._values = started.values
        self._form = form
        self._timeout_ms = timeout_ms
        # Encoded at once: what has no JSON is an ordinary error while it still can be.
        self._first = b"" if started.first is END else form.encode(started.first)
        self._over = started.first is END
        self._context: Context | None = None
        self._leave: Callable[[], None] | None = None

    def stay_in(self, context: Context, leave: Callable[[], None]) -> None:
        """Has the values made in a context.

        Args:
            context: The script finds its request there.
            leave: Called in it at the end.
        """
        self._context, self._leave = context, leave

    def __next__(self) -> bytes:
        first, self._first = self._first, b""
        if first:
            return first
        if self._over:
            raise StopIteration
        return self._run(self._next)

    def close(self) -> None:
        """Lets the script's `finally` run."""
        self._over = True
        close = getattr(self._values, "close", None)
        leave, self._leave = self._leave, None
        try:
            if close is not None:
                self._run(close)
        finally:
            if leave is not None:
                self._run(leave)

    def _run(self, function: Callable[[], T]) -> T:
        return function() if self._context is None else self._context.run(function)

    def _next(self) -> bytes:
        try:
            value, _ = timing.call(self._value, {}, self._timeout_ms)
            if value is not END:
                return self._form.encode(value)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._over = True
            if not self._form.failure:
                raise
            logger.error("Encountered Exception: %s", failures.trace(error))  # noqa: TRY400 - it is in there
            return self._form.failure
        raise StopIteration

    def _value(self) -> Any:
        return next(self._values, END)
