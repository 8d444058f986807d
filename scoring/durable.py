"""Atomic, synced writes: after a crash a file holds its old content or its new, whole.

A file is written under a temporary name in its own folder, synced, renamed over its final name,
and the folder is synced. A writer holds a lock on its temporary file for as long as it lives, so
that `sweep` can tell the leftovers of a killed writer from the work of a living one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from typing import TYPE_CHECKING, Self

from scoring.errors import StorageFullError, WorkspaceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEMPORARY_PREFIX = ".fieldpost-tmp-"

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FORBIDDEN = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


@contextlib.contextmanager
def storage_errors(what: str, unchanged: str = "Nothing was changed.") -> Iterator[None]:
    """Turns the `OSError`s of the block into errors that say what to do.

    Args:
        what: What was being written or read, as it appears in the message: "the blob store".
        unchanged: One sentence on what a full disk has left as it was.

    Raises:
        StorageFullError: No space or no quota is left.
        WorkspaceError: Anything else that the operating system refused.
    """
    try:
        yield
    except OSError as error:
        raise translate(error, what, unchanged) from error


def translate(
    error: OSError, what: str, unchanged: str = "Nothing was changed."
) -> StorageFullError | WorkspaceError:
    """The error of `storage_errors` for one `OSError`."""
    place = str(error.filename or "")
    if error.errno in _FULL:
        return StorageFullError(
            f"No space is left to write {what}. {unchanged}",
            hint="Free space (or raise the quota) on that disk and run the command again.",
            where=place,
        )
    if error.errno in _FORBIDDEN:
        return WorkspaceError(
            f"No permission for {what}: {error.strerror}.",
            hint="Give this user write access to the folder, or choose another workspace with "
            "FIELDPOST_WORKSPACE.",
            where=place,
        )
    reason = error.strerror or str(error) or type(error).__name__
    return WorkspaceError(f"Cannot use {what}: {reason}.", where=place)


class TemporaryFile:
    """A locked file under a temporary name, until `move` gives it its final one.

    Used as a context manager; what was not moved is removed.

    Attributes:
        fd: Open for reading and writing; -1 when it is closed.
        path: The temporary name.
    """

    def __init__(self, folder: Path, *, mode: int = 0o600) -> None:
        self.path, self.fd = _create_locked(folder, mode)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Writes all of the data at the file's position."""
        view = memoryview(data)
        while view:
            view = view[os.write(self.fd, view) :]

    def sync(self) -> None:
        """Waits until the content is on the disk."""
        os.fsync(self.fd)

    def move(self, path: Path) -> None:
        """Gives the file its final name, over whatever has it; the caller syncs the folder."""
        self.path.replace(path)

    def close(self) -> None:
        """Removes the file unless it was moved, and lets go of it; again does nothing."""
        if self.fd < 0:
            return  # its number may be another file's by now, or a connection's
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        fd, self.fd = self.fd, -1
        os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class TemporaryFolder:
    """A locked folder under a temporary name, until `move` gives it its final one.

    Used as a context manager; what was not moved is removed with all that is in it.

    Attributes:
        path: The temporary name.
    """

    def __init__(self, parent: Path) -> None:
        self.path, self._fd = _create_locked_folder(parent)

    def move(self, path: Path) -> None:
        """Gives the folder its final name, which nothing has; then syncs the folder above."""
        self.path.rename(path)
        sync_folder(path.parent)

    def close(self) -> None:
        """Removes the folder unless it was moved, and lets go of it; again does nothing."""
        if self._fd < 0:
            return
        shutil.rmtree(self.path, ignore_errors=True)
        fd, self._fd = self._fd, -1
        os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _name(folder: Path) -> Path:
    return folder / f"{TEMPORARY_PREFIX}{os.urandom(8).hex()}"


def _create_locked(folder: Path, mode: int) -> tuple[Path, int]:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    while True:
        path = _name(folder)
        fd = os.open(path, flags, mode)
        if _lock(fd, path):
            return path, fd


def _create_locked_folder(parent: Path) -> tuple[Path, int]:
    while True:
        path = _name(parent)
        path.mkdir()
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            if _lock(fd, path):
                return path, fd


def _lock(fd: int, path: Path) -> bool:
    """Locks what was just made; False where a sweep came between making and locking."""
    fcntl.flock(fd, fcntl.LOCK_EX)
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(fd), path.lstat()):
            return True
    os.close(fd)
    return False


def write_bytes(
    path: Path, data: bytes, *, mode: int = 0o644, what: str = "", unchanged: str = ""
) -> None:
    """Writes a whole file atomically and durably.

    Args:
        path: The final name; its folder exists.
        data: The content.
        mode: The permissions of the file.
        what: What it is, for messages; the path by default.
        unchanged: What a failed write leaves as it was, for messages.

    Raises:
        StorageFullError: The disk is full; the file is as it was.
        WorkspaceError: The file cannot be written; it is as it was.
    """
    what, unchanged = what or str(path), unchanged or f"{path} is as it was."
    with storage_errors(what, unchanged), TemporaryFile(path.parent) as file:
        file.write(data)
        os.fchmod(file.fd, mode)
        file.sync()
        file.move(path)
        sync_folder(path.parent)


def write_cache(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Writes a file atomically, and does not wait for the disk: for what can be made again.

    After a crash it may hold nothing or be gone; whoever reads it has to be content with that.

    Args:
        path: The final name; its folder is made where it is missing.
        data: The content.
        mode: The permissions of the file.

    Raises:
        StorageFullError: The disk is full; the file is as it was.
        WorkspaceError: The file cannot be written; it is as it was.
    """
    with storage_errors(str(path), f"{path} is as it was."):
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(path.parent) as file:
            file.write(data)
            os.fchmod(file.fd, mode)
            file.move(path)


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:  # some network file systems cannot sync a folder
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)


def make_folder(folder: Path, *, mode: int = 0o777) -> None:
    """Creates a folder and its parents, durably; raises `OSError` where it cannot."""
    if folder.is_dir():
        return
    make_folder(folder.parent, mode=mode)
    folder.mkdir(mode=mode, exist_ok=True)
    sync_folder(folder.parent)


def sweep(folder: Path) -> int:
    """Removes the temporary files and folders of writers that are gone; returns how many."""
    return sum(_remove_if_left(path) for path in sorted(folder.glob(f"{TEMPORARY_PREFIX}*")))


def _remove_if_left(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False  # moved or removed meanwhile
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError:  # its writer lives, or it is not ours to remove
        return False
    else:
        return True
    finally:
        os.close(fd)
