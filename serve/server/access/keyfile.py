"""The file that holds the hashes of API keys: read by servers, written by `fieldpost key`."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

import msgspec

from scoring import durable
from scoring.errors import UsageError
from serve.server.access.keys import KeyFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MODE = 0o600
_MOST_BYTES = 16 << 20


def read(path: Path) -> KeyFile:
    """Reads the keys.

    Raises:
        UsageError: The file is not there, cannot be read, or is no file of keys.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"The file of API keys {path} cannot be read: {error.strerror}.",
            hint=f"Make it with 'fieldpost key create NAME --file {path}'.",
            where=str(path),
        ) from None
    if len(data) > _MOST_BYTES:
        raise UsageError(f"The file of API keys {path} is too large.", where=str(path))
    return _parse(data, path)


def _parse(data: bytes, path: Path) -> KeyFile:
    try:
        found = msgspec.json.decode(data, type=KeyFile)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} is not a file of API keys: {error}.",
            hint="Write it with 'fieldpost key', or put the last good copy in its place.",
            where=str(path),
        ) from None
    if len({key.id for key in found.keys}) < len(found.keys):
        raise UsageError(f"{path} holds two keys of one id.", where=str(path))
    return found


def write(path: Path, content: KeyFile) -> None:
    """Writes the keys, whole or not at all, readable by their owner alone.

    Raises:
        WorkspaceError: It cannot be written.
        StorageFullError: The disk is full.
    """
    data = msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
    durable.write_bytes(path, data, mode=_MODE, what=f"the API keys in {path}")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keeps other writers of the same file waiting.

    The lock is on the folder: the file itself is replaced by each write.

    Raises:
        WorkspaceError: The folder is not there, or may not be opened.
    """
    with durable.storage_errors(f"the folder {path.parent}"):
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
