"""The log of a deployment: numbered files with a cap, written by one, followed by many.

`000001.log`, `000002.log` and so on. A full file is never renamed, the next number follows, and the
oldest are deleted: whoever follows goes from number to number and can lose no line in between.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from serve.server.lines import is_json, with_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MAX_FILE_BYTES = 8 << 20
MAX_FILES = 5
_POLL_S = 0.1


class LogWriter:
    """Appends lines. Never raises: a full disk must not stop scoring.

    Args:
        folder: Where the files are; made where it is missing.
        max_bytes: Of one file.
        max_files: How many are kept.
    """

    def __init__(
        self, folder: Path, *, max_bytes: int = MAX_FILE_BYTES, max_files: int = MAX_FILES
    ) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._file: io.FileIO | None = None
        self._size = 0
        self._lost = 0

    def write(self, source: str, text: str) -> None:
        """Writes a line with the time and its source: `r3/w0` is worker 0 of revision 3."""
        line = _format(source, text)
        try:
            if self._lost:
                notice = _format("log", f"{self._lost} lines were lost: they could not be written")
                self._append(notice)
                self._lost = 0
            self._append(line)
        except OSError:
            self._lost += 1
            self.close()

    def close(self) -> None:
        """Closes the file; the next line opens it again."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
        self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _append(self, line: bytes) -> None:
        file = self._room_for(len(line))
        written = file.write(line) or 0
        self._size += written
        if written < len(line):  # the disk filled up within the line: take the piece back
            self._size -= written
            file.truncate(self._size)
            raise OSError("short write")

    def _room_for(self, size: int) -> io.FileIO:
        if self._file is not None and self._size + size <= self._max_bytes:
            return self._file
        numbers = log_numbers(self._folder)
        number = numbers[-1] if numbers else 1
        if self._file is not None or self._is_full(number, size):
            self.close()
            number += 1
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = log_path(self._folder, number).open("ab", buffering=0)
        self._size = self._file.seek(0, io.SEEK_END)
        for old in numbers[: max(0, len(numbers) + 1 - self._max_files)]:
            if old != number:
                log_path(self._folder, old).unlink(missing_ok=True)
        return self._file

    def _is_full(self, number: int, size: int) -> bool:
        try:
            present = log_path(self._folder, number).stat().st_size
        except FileNotFoundError:
            return False
        return present > 0 and present + size > self._max_bytes


def log_path(folder: Path, number: int) -> Path:
    """The file of this number."""
    return folder / f"{number:06d}.log"


def log_numbers(folder: Path) -> list[int]:
    """The numbers of the files that there are, the oldest first."""
    return sorted(int(path.stem) for path in folder.glob("*.log") if path.stem.isdigit())


def read_log(
    folder: Path,
    *,
    tail: int | None = None,
    follow: bool = False,
    wait: Callable[[float], None] = time.sleep,
) -> Iterator[str]:
    """Lines, the oldest first.

    Args:
        folder: Where the files are; none is an empty log.
        tail: Only so many of those that there are.
        follow: Go on with lines as they are written, until the iterator is closed.
        wait: Sleeps between two looks.
    """
    reader = _Reader(folder, 0 if tail is None else _number_for_tail(folder, tail))
    present = reader.lines()
    yield from present if tail is None else deque(present, maxlen=tail)
    while follow:
        wait(_POLL_S)
        yield from reader.lines()


class _Reader:
    """Reads on from where it stopped, from number to number."""

    def __init__(self, folder: Path, number: int) -> None:
        self._folder = folder
        self._number = number
        self._offset = 0

    def lines(self) -> Iterator[str]:
        """Every whole line that was written since the last call."""
        while True:
            # Listed before the end is read: what is in a later file was written after that end.
            later = [number for number in log_numbers(self._folder) if number > self._number]
            yield from self._rest(closed=bool(later))
            if not later:
                return
            self._number, self._offset = later[0], 0

    def _rest(self, *, closed: bool) -> Iterator[str]:
        try:
            file = log_path(self._folder, self._number).open("rb")
        except FileNotFoundError:
            return
        with file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n") and not closed:
                    return  # the writer is in the middle of it
                self._offset += len(line)
                yield line.decode("utf-8", "replace").rstrip("\n")


def _number_for_tail(folder: Path, count: int) -> int:
    """The file to begin with, so that as many lines follow as are wanted."""
    for number in reversed(log_numbers(folder)):
        with contextlib.suppress(FileNotFoundError):
            count -= log_path(folder, number).read_bytes().count(b"\n")
        if count <= 0:
            return number
    return 0


def _format(source: str, text: str) -> bytes:
    """A line with its time and source; one of the access log stays JSON, and has both inside."""
    clean = text.replace("\r", "\\r").replace("\n", "\\n")
    if is_json(clean):
        return f"{with_source(source, clean)}\n".encode("utf-8", "replace")
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return f"{now} {source} {clean}\n".encode("utf-8", "replace")
