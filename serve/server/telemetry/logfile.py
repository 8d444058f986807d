"""Lines that go to a file or to standard error from a thread of their own.

Nothing that a disk or a pipe does holds up the event loop: a batch is handed over, and if the
thread does not keep up, lines are dropped and counted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import select
import threading
import time
from pathlib import Path

logger = logging.getLogger(__name__)

STANDARD_ERROR = "-"
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
_MODE = 0o640
_MOST_LINES = 65_536
_CLOSE_S = 2.0
_COMPLAIN_S = 60.0
_WAIT_S = 0.5
# What a pipe takes in one piece: other threads write to standard error, too.
_PIPE_BYTES = 4096


class LogFile:
    """A file that is appended to, and opened anew when it was renamed or removed.

    Args:
        path: `-` for standard error.

    Raises:
        OSError: It cannot be opened.

    Attributes:
        written: Lines that are in the file.
    """

    def __init__(self, path: str) -> None:
        self.written = 0
        self._path = None if path == STANDARD_ERROR else Path(path).absolute()
        self._descriptor = 2 if self._path is None else os.open(self._path, _FLAGS, _MODE)
        self._lost = self._refused = 0
        self._taken = 0
        self._cut = False
        self._closing = False
        self._complained = -_COMPLAIN_S
        self._queue: queue.SimpleQueue[list[bytes] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="access-log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines that are lost: the disk was full, or the file too slow."""
        return self._lost + self._refused

    def put(self, lines: list[bytes]) -> None:
        """Hands lines over, each with its line feed; never waits."""
        waiting = self._taken - self.written - self._lost
        if waiting + len(lines) > _MOST_LINES:
            self._refused += len(lines)
            return
        self._taken += len(lines)
        self._queue.put(lines)

    def close(self) -> None:
        """Writes what is left, and no longer than a moment."""
        self._closing = True
        self._queue.put(None)
        self._thread.join(_CLOSE_S)
        self._lost += max(self._taken - self.written - self._lost, 0)

    # On the thread

    def _work(self) -> None:
        while (lines := self._queue.get()) is not None:
            self._write(lines)
        if self._path is not None and self._descriptor >= 0:
            os.close(self._descriptor)

    def _write(self, lines: list[bytes]) -> None:
        begin = int(self._cut)
        data = b"\n" * begin + b"".join(lines)
        done = 0
        try:
            self._follow()
            while done < len(data):
                done += self._write_some(data, done)
        except OSError as error:
            self._complain(error)
        # What was cut off in the middle is lost; the next batch begins on a line of its own.
        self._cut = data[done - 1 : done] != b"\n" if done else self._cut
        left = data.count(b"\n", max(done, begin))
        self.written += len(lines) - left
        self._lost += left

    def _write_some(self, data: bytes, done: int) -> int:
        piece = memoryview(data)[done:]
        if self._path is None and len(piece) > _PIPE_BYTES:
            end = data.rfind(b"\n", done, done + _PIPE_BYTES) + 1
            piece = piece[: end - done if end else _PIPE_BYTES]
        try:
            return os.write(self._descriptor, piece)
        except BlockingIOError:
            if self._closing:
                raise
            select.select([], [self._descriptor], [], _WAIT_S)
            return 0

    def _follow(self) -> None:
        """Opens the file anew where its name belongs to another one, or to none."""
        if self._path is None:
            return
        with contextlib.suppress(OSError):
            now = self._path.stat()
            then = os.fstat(self._descriptor)
            if (now.st_dev, now.st_ino) == (then.st_dev, then.st_ino):
                return
        descriptor = os.open(self._path, _FLAGS, _MODE)
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = descriptor
        self._cut = False

    def _complain(self, error: OSError) -> None:
        now = time.monotonic()
        if now - self._complained >= _COMPLAIN_S:
            self._complained = now
            logger.error(
                "The access log %s cannot be written: %s; its lines are dropped",
                self._path or "on standard error",
                error.strerror,
            )
