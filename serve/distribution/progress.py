"""How far a transfer is, and its end where one part of it fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class StoppedError(Exception):
    """Another part of the same transfer has failed, so this one ends."""


class Progress:
    """What a transfer has moved; any number of threads may tell it.

    Args:
        tell: Called with the number of bytes that were moved since the last call.

    Attributes:
        bytes: All that were moved, what was moved twice counted twice.
    """

    def __init__(self, tell: Callable[[int], None] | None = None) -> None:
        self.bytes = 0
        self._stopped = threading.Event()
        self._tell = tell
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Counts bytes.

        Raises:
            StoppedError: The transfer is to end.
        """
        if self._stopped.is_set():
            raise StoppedError
        with self._lock:
            self.bytes += count
            if self._tell is not None:
                self._tell(count)

    @property
    def stopped(self) -> bool:
        """Whether the transfer is to end."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Ends every part at its next piece."""
        self._stopped.set()


def side_by_side(
    function: Callable[[_Item], _Result],
    items: Sequence[_Item],
    *,
    threads: int,
    progress: Progress,
) -> list[_Result]:
    """What the function returns for each item; the first that fails ends the others.

    An interrupted call does not wait for them.
    """
    if len(items) <= 1:
        return [function(item) for item in items]

    def one(item: _Item) -> _Result:
        if progress.stopped:  # before the pool could be told
            raise StoppedError
        try:
            return function(item)
        except BaseException:
            progress.stop()
            raise

    pool = ThreadPoolExecutor(min(threads, len(items)), thread_name_prefix="fieldpost-transfer")
    try:
        running = [pool.submit(one, item) for item in items]
        wait(running, return_when=FIRST_EXCEPTION)
    except BaseException:
        progress.stop()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown(wait=True, cancel_futures=True)
    ended = [each for each in running if not each.cancelled()]
    for each in ended:  # what the others ended with is a consequence
        if each.exception() is not None and not isinstance(each.exception(), StoppedError):
            each.result()
    return [each.result() for each in running]
