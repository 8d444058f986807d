"""The cells of all workers of one server, in files of one folder.

Each worker owns one file for as long as it lives, by a lock on it. Its successor goes on where it
stopped: counters never go back. Where the successor comes before the predecessor has gone, it
takes another file, and both count from then on.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import mmap
import os
from typing import TYPE_CHECKING

from serve.server.telemetry import process
from serve.server.telemetry.counters import SIZE, Cells

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

logger = logging.getLogger(__name__)

_SUFFIX = ".cells"
_MOST_FILES = 64


class SharedCells:
    """One worker's cells and a view of the others'.

    Args:
        folder: Of all workers of the server; made where it is missing.
        slot: The worker's place among them.

    Raises:
        OSError: The folder or a file in it cannot be made, or the disk is full.

    Attributes:
        name: Of the file, without its suffix: the label of this worker's gauges.
        own: This worker's cells.
    """

    def __init__(self, folder: Path, slot: str) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._others: dict[str, tuple[int, Cells]] = {}
        self.name, self._descriptor, self.own = _claim(folder, slot)
        self.own.begin(os.getpid(), process.start_ticks(os.getpid()))

    def all(self) -> Iterator[tuple[str, Cells, bool]]:
        """Every worker's name, cells, and whether it is alive; those that have gone, too."""
        yield self.name, self.own, True
        self._look()
        for name, (_, cells) in sorted(self._others.items()):
            cells.refresh()
            yield name, cells, process.is_alive(cells.pid, cells.ticks)

    def close(self) -> None:
        """Leaves the file to the next worker of this slot."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)  # the mapping would keep it
        os.close(self._descriptor)

    def _look(self) -> None:
        """Maps the files that are new."""
        try:
            entries = list(os.scandir(self._folder))
        except OSError:
            return
        for entry in entries:
            name = entry.name.removesuffix(_SUFFIX)
            if name not in {entry.name, self.name}:
                self._map(name, entry)

    def _map(self, name: str, entry: os.DirEntry[str]) -> None:
        known = self._others.get(name)
        if known is not None and known[0] == entry.inode():
            return
        try:
            cells = _open_reading(entry.path)
        except (OSError, ValueError):
            return
        if cells is not None:
            self._others[name] = entry.inode(), cells


def _claim(folder: Path, slot: str) -> tuple[str, int, Cells]:
    """Takes the first file of a slot that no living worker has."""
    for number in range(_MOST_FILES):
        name = f"{slot}.{number}" if number else slot
        path = folder / (name + _SUFFIX)
        descriptor = _lock(path)
        if descriptor is None:
            continue
        try:
            cells = Cells(_map_writing(descriptor, path))
        except OSError:
            os.close(descriptor)
            raise
        if cells.valid or not any(cells.values[:8]):
            return name, descriptor, cells
        # Of another version: never cut off, for a reader may have it mapped.
        path.unlink(missing_ok=True)
        os.close(descriptor)
        return _claim(folder, slot)
    raise OSError(errno.EBUSY, f"all {_MOST_FILES} files of worker {slot} are in use", str(folder))


def _lock(path: Path) -> int | None:
    """An open file that is ours now; None if it is another worker's."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _map_writing(descriptor: int, path: Path) -> memoryview:
    """Maps a file whose blocks are there: a hole on a full disk would end the process."""
    size = os.fstat(descriptor).st_size
    try:
        while size < SIZE:
            size += os.pwrite(descriptor, bytes(SIZE - size), size)
    except OSError as error:
        os.ftruncate(descriptor, 0)
        raise OSError(error.errno, error.strerror, str(path)) from error
    return memoryview(mmap.mmap(descriptor, SIZE))


def _open_reading(path: str) -> Cells | None:
    """Another worker's cells; None while its file is being made."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_size < SIZE:
            return None
        cells = Cells(memoryview(mmap.mmap(descriptor, SIZE, prot=mmap.PROT_READ)))
    finally:
        os.close(descriptor)
    return cells if cells.valid else None
