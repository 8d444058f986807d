"""Room on the disk: asked for before it is used, and a little kept back for the journal."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
from pathlib import Path
from typing import Final

from scoring import durable
from scoring.errors import StorageFullError

BALLAST_BYTES: Final = 1 << 20
KEEP_FREE_BYTES: Final = 16 << 20
"""What fetching leaves to the rest of the device."""

_KEEP_SIZE: Final = 1  # FALLOC_FL_KEEP_SIZE
_NO_PROMISE: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


def free_bytes(folder: Path) -> int:
    """What is free on the disk of a folder, for this user."""
    return shutil.disk_usage(folder).free


def require(folder: Path, needed: int, *, keep_free: int = KEEP_FREE_BYTES) -> None:
    """Has it that there is room.

    Raises:
        StorageFullError: There is not.
    """
    free = free_bytes(folder)
    if free < needed + keep_free:
        raise StorageFullError(
            f"{needed >> 10} KiB are needed beside {keep_free >> 10} KiB for the device, and "
            f"{free >> 10} KiB are free.",
            hint="Free space on the device's disk; it tries again by itself.",
            where=str(folder),
        )


def promise(fd: int, size: int) -> None:
    """Takes the blocks of a file of this size now; its length stays as it is.

    File systems that cannot do this are left to say when they are full.

    Raises:
        OSError: No space is left.
    """
    call = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
    if call is None or not size:
        return
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if call(fd, _KEEP_SIZE, 0, size) == 0:
        return
    code = ctypes.get_errno()
    if code not in _NO_PROMISE:
        raise OSError(code, os.strerror(code))


class Ballast:
    """A file of no use but its size: when the disk is full it goes, and the journal has room.

    Args:
        path: The file.
        size: In bytes.
    """

    def __init__(self, path: Path, size: int = BALLAST_BYTES) -> None:
        self._path = path
        self._size = size

    def take(self) -> bool:
        """Puts it there where there is room again; whether it is there."""
        if self.there:
            return True
        try:
            if free_bytes(self._path.parent) < 2 * self._size:
                return False
            with durable.TemporaryFile(self._path.parent) as file:
                os.posix_fallocate(file.fd, 0, self._size)
                file.sync()
                file.move(self._path)
        except OSError:
            return False
        return True

    def drop(self) -> bool:
        """Gives its room away; whether there was any."""
        there = self.there
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
        return there

    @property
    def there(self) -> bool:
        """Whether it is there, whole."""
        try:
            return self._path.stat().st_size >= self._size
        except OSError:
            return False
