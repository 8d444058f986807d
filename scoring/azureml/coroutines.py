"""`async def run` and `async def init`, run to completion from wherever they are called."""

from __future__ import annotations

import functools
import inspect
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Iterator
from types import FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class _LoopThread:
    """One event loop for the life of the process, so that a script's sessions and locks last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0

    def finish(self, awaitable: Awaitable[Any]) -> Any:
        import asyncio  # noqa: PLC0415  -- most scripts need none of it

        future = asyncio.run_coroutine_threadsafe(_result(awaitable), self._running())
        try:
            return future.result()
        finally:
            future.cancel()  # Does nothing unless the wait itself was broken off.

    def _running(self) -> asyncio.AbstractEventLoop:
        import asyncio  # noqa: PLC0415  -- likewise

        with self._lock:
            # A fork copies this object, not the thread.
            if self._loop is None or self._pid != os.getpid():
                self._loop = asyncio.new_event_loop()
                self._pid = os.getpid()
                threading.Thread(
                    target=self._loop.run_forever, name="entry-script-loop", daemon=True
                ).start()
            return self._loop


async def _result(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


_loop_thread = _LoopThread()
_END = object()


def finish(awaitable: Awaitable[Any]) -> Any:
    """The result of an awaitable, waited for on this thread and made on a loop of another."""
    return _loop_thread.finish(awaitable)


class Iterated(Iterator[Any]):
    """The values of an asynchronous iterator, one by one."""

    def __init__(self, values: AsyncIterator[Any]) -> None:
        self._values = values

    def __next__(self) -> Any:
        value = finish(anext(self._values, _END))
        if value is _END:
            raise StopIteration
        return value

    def close(self) -> None:
        """Closes the asynchronous iterator."""
        close = getattr(self._values, "aclose", None)
        if close is not None:
            finish(close())


def is_async(function: Callable[..., Any]) -> bool:
    """Whether it is `async def`, with `yield` or without, under decorators by schema or none."""
    inner: Any = function
    # Through inference-schema's decorators only: a function around another may wait by itself.
    while type(inner) is not FunctionType and hasattr(inner, "__wrapped__"):
        inner = inner.__wrapped__
    if not (inspect.isroutine(inner) or isinstance(inner, functools.partial)):
        inner = type(inner).__call__
    return inspect.iscoroutinefunction(inner) or inspect.isasyncgenfunction(inner)


def new_loop() -> asyncio.AbstractEventLoop:
    """A loop for this thread, under which `async def` scripts run.

    A plain one: uvloop's takes the process's signals.
    """
    import asyncio  # noqa: PLC0415  -- likewise

    loop = asyncio.SelectorEventLoop()
    asyncio.set_event_loop(loop)
    return loop


def complete(result: Any, loop: asyncio.AbstractEventLoop | None) -> Any:
    """What a call returned, or what it will, if that has to be awaited.

    Args:
        result: Of the call.
        loop: This thread's; None: it is awaited on a loop of another thread.
    """
    if not inspect.isawaitable(result):
        return result
    return finish(result) if loop is None else loop.run_until_complete(result)
