"""`async def run` and `async def init`, run to completion from wherever they are called."""

from __future__ import annotations

import functools
import inspect
import os
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine


class _LoopThread:
    """One event loop for the life of the process, so that a script's sessions and locks last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0

    def finish(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        import asyncio  # noqa: PLC0415  -- most scripts need none of it

        future = asyncio.run_coroutine_threadsafe(coroutine, self._running())
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


_loop_thread = _LoopThread()


def synchronous(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function itself, or for a coroutine function one that waits for its result."""
    if not inspect.iscoroutinefunction(inspect.unwrap(function)):
        return function

    @functools.wraps(function)
    def wait(**arguments: Any) -> Any:
        result = function(**arguments)
        # A decorator around the coroutine function may have waited already.
        return _loop_thread.finish(result) if inspect.iscoroutine(result) else result

    return wait
