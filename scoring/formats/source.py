"""Random access to the bytes of a file, a bounded part at a time."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from scoring.errors import CorruptModelError, ModelNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HEAD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Source:
    """An open file that is being looked at.

    Attributes:
        path: Where it is, for messages and for the result.
        file: Open for reading in binary.
        size: In bytes.
        head: The first `HEAD_BYTES` bytes, or all of a smaller file.
    """

    path: Path
    file: BinaryIO
    size: int
    head: bytes

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset`; fewer at the end of the file."""
        self.file.seek(offset)
        return self.file.read(count)

    def tail(self, count: int) -> bytes:
        """The last bytes of the file."""
        return self.read_at(max(0, self.size - count), count)

    def windows(self, count: int) -> Iterator[bytes]:
        """The first and the last `count` bytes, the whole once where they meet."""
        if self.size <= 2 * count:
            yield self.read_at(0, self.size)
        else:
            yield self.read_at(0, count)
            yield self.tail(count)

    def corrupt(self, reason: str, hint: str = "") -> CorruptModelError:
        """The error for this file."""
        return CorruptModelError(
            f"{self.path} {reason}.",
            hint=hint or "Copy or export the file again; its content is incomplete or damaged.",
            where=str(self.path),
        )


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Opens a regular file.

    Raises:
        ModelNotFoundError: It does not exist, is no regular file or cannot be read.
    """
    try:
        # Without O_NONBLOCK the opening of a named pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise not_readable(path, "it is neither a file nor a folder")
            yield Source(path, file, status.st_size, file.read(HEAD_BYTES))
    except (OSError, ValueError) as error:
        raise not_readable(path, getattr(error, "strerror", None) or str(error)) from error


def not_readable(path: Path, reason: str) -> ModelNotFoundError:
    """The error for a path that is not there or not readable."""
    return ModelNotFoundError(
        f"{path} cannot be read: {reason}.",
        hint="Check the path and its permissions.",
        where=str(path),
    )
