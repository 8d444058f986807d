"""What an `async def run()` brings, awaited on its loop; imported for such scripts alone."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from scoring.azureml import failures
from scoring.azureml.streams import END, Started
from scoring.azureml.timing import ScoringExpired
from scoring.http import PulledBody

if TYPE_CHECKING:
    from scoring.azureml.events import Form
    from scoring.http import Got

logger = logging.getLogger("azmlinfsrv")


@contextlib.asynccontextmanager
async def limit(timeout_ms: int) -> AsyncIterator[None]:
    """The time limit on what is awaited in the block; 0 for none.

    Raises:
        ScoringExpired: The time is over: the task was cancelled where it waited, and did not catch
            that itself.
    """
    try:
        async with asyncio.timeout(timeout_ms / 1000 if timeout_ms else None) as scope:
            yield
    except TimeoutError as error:
        if scope.expired():
            raise ScoringExpired from error
        raise


def is_cancelled(error: BaseException) -> bool:
    """Whether an error is that this task was cancelled, and not something that it awaited."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


async def start(result: Any) -> Any:
    """As `streams.start`, on the loop on which the script runs."""
    if inspect.isawaitable(result):
        result = await result
    if isinstance(result, AsyncIterator):
        try:
            return Started(await anext(result), result)
        except StopAsyncIteration:
            return Started(END, result)
    if isinstance(result, Iterator):
        return Started(next(result, END), result)
    return result


class AsyncStream(PulledBody):
    """The chunks of an asynchronous iterator's values, made in the task that `feed`s them.

    One task for all of them: timeouts and task groups may span the values of a generator.

    Args:
        started: The values.
        form: How they are sent.
        timeout_ms: For one value; 0 for no limit.
    """

    def __init__(self, started: Started, form: Form, timeout_ms: int) -> None:
        self._values: AsyncIterator[Any] = started.values
        self._form = form
        self._timeout_ms = timeout_ms
        self._first = None if started.first is END else form.encode(started.first)
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._wanted = asyncio.Event()
        self._got: Got | None = None
        self._end: tuple[bytes | None, BaseException | None] | None = None

    # On any thread

    def pull(self, got: Got) -> None:
        """Asks for the next chunk."""
        try:
            self._loop.call_soon_threadsafe(self._pulled, got)
        except RuntimeError as error:  # the loop has ended, and the script with it
            got(None, error)

    def close(self) -> None:
        """Cancels what makes the values, wherever it is."""
        try:
            self._loop.call_soon_threadsafe(self._cancel)
        except RuntimeError:
            logger.debug("The loop of the script has ended already")

    # On the script's loop

    async def feed(self) -> None:
        """Makes the values, each when the one before it is taken; ends when the client has gone."""
        try:
            if self._first is not None:
                await self._hand_over(self._first)
                while (data := await self._next()) is not None:
                    await self._hand_over(data)
            self._finish(None, None)
        except asyncio.CancelledError as error:
            self._finish(self._form.failure or None, error)
            raise
        except BaseException as error:  # noqa: BLE001 - the body tells it
            await self._fail(error)
        finally:
            self._task = None
            close = getattr(self._values, "aclose", None)
            if close is not None:
                await close()

    async def _next(self) -> bytes | None:
        try:
            async with limit(self._timeout_ms):
                value = await anext(self._values)
        except StopAsyncIteration:
            return None
        return self._form.encode(value)

    async def _hand_over(self, data: bytes) -> None:
        await self._wanted.wait()
        self._wanted.clear()
        got, self._got = self._got, None
        assert got is not None
        got(data, None)

    async def _fail(self, error: BaseException) -> None:
        if self._form.failure:
            logger.error("Encountered Exception: %s", failures.trace(error))
            await self._hand_over(self._form.failure)
            self._finish(None, None)
        else:
            self._finish(None, error)

    def _finish(self, data: bytes | None, error: BaseException | None) -> None:
        self._end = (data, error)
        if self._got is not None:
            self._tell_end(self._got)

    def _pulled(self, got: Got) -> None:
        if self._end is not None:
            self._tell_end(got)
        else:
            self._got = got
            self._wanted.set()

    def _tell_end(self, got: Got) -> None:
        """The end; one that has a last chunk gives that first."""
        assert self._end is not None
        data, error = self._end
        self._end = (None, None if data else error)
        self._got = None
        if data:
            got(data, None)
        else:
            got(None, error)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
