"""Streams of lines, and a client that is closed while threads still use it."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


def text_lines(pieces: Iterable[bytes]) -> Iterator[str]:
    """The lines of a stream; nothing but a line feed ends one.

    Programs that draw progress write carriage returns into their logs, and what a cluster sends as
    one line has to stay one.
    """
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r").decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")


class Door:
    """Closes a client when nobody is opening a connection any more.

    A connection that a thread was opening meanwhile would be left behind, open and unknown.

    Args:
        close: Closes the client.
    """

    def __init__(self, close: Callable[[], None]) -> None:
        self._close = close
        self._lock = threading.Lock()
        self._inside = 0
        self._closed = False

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """While a request is on its way.

        Raises:
            RuntimeError: The client has been closed.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("the client has been closed")
            self._inside += 1
        try:
            yield
        finally:
            self._leave()

    def _leave(self) -> None:
        with self._lock:
            self._inside -= 1
            last = self._closed and not self._inside
        if last:
            self._close()

    def close(self) -> None:
        """Lets nobody in any more."""
        with self._lock:
            self._closed = True
            empty = not self._inside
        if empty:
            self._close()
