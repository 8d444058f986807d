"""What modules print, kept in two files each of which has a cap."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import Final

MOST_BYTES: Final = 1 << 20
_LOCK: Final = threading.Lock()


class ModuleLog:
    """The log of a module. Processes of one module that follow each other share it.

    Args:
        folder: Where; made where it is missing.
        module: Its name.
        most: Bytes of one file; there are two at most.
    """

    def __init__(self, folder: Path, module: str, most: int = MOST_BYTES) -> None:
        self.path = folder / f"{module}.log"
        self._old = folder / f"{module}.log.1"
        self._most = most

    def write(self, data: bytes) -> None:
        """Appends; what a disk that is full has no room for is lost."""
        if not data:
            return
        with _LOCK, contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(data)
                full = file.tell() > self._most
            if full:
                self.path.replace(self._old)

    def tail(self, most: int) -> str:
        """The last bytes, at most so many, from the beginning of a line where there is one."""
        with _LOCK:
            text = _end(self.path, most)
            if len(text) < most:
                text = _end(self._old, most - len(text)) + text
        if len(text) >= most:
            head, newline, rest = text.partition(b"\n")
            text = rest if newline and rest else head
        return text.decode(errors="replace")


def _end(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - most))
            return file.read(most)
    except OSError:
        return b""
